#include "core/targets.hpp"

#if FASTNOISE_X86_TARGETS
#include <immintrin.h>

#include <cstring>
#include <utility>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")

namespace fastnoise::avx512 {

constexpr Isa kIsa = Isa::avx512;
typedef std::uint64_t Wide __attribute__((vector_size(64)));
typedef std::uint16_t Shorts __attribute__((vector_size(64)));
typedef float Floats __attribute__((vector_size(64)));
constexpr std::size_t kVectors = 4;  // of blocks at once: what 32 registers hold

inline Wide multiply_low(Wide a, Wide b) {
    // All lanes; g++ 12 warns of the undefined ones that _mm512_mul_epu32 writes over.
    const __mmask8 all = 0xff;
    return reinterpret_cast<Wide>(
        _mm512_maskz_mul_epu32(all, reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}

// The upper halves of the 32-bit products of 16-bit lanes.
inline Shorts multiply_high(Shorts a, Shorts b) {
    const __mmask32 all = 0xffffffff;
    return reinterpret_cast<Shorts>(
        _mm512_maskz_mulhi_epu16(all, reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}

// Whether any bit is set.
inline bool any(Shorts mask) {
    const auto m = reinterpret_cast<__m512i>(mask);
    return _mm512_test_epi16_mask(m, m) != 0;
}

// Writes 64 aligned bytes past the caches; others see them after `publish`.
inline void stream(void* to, Wide value) {
    _mm512_stream_si512(static_cast<__m512i*>(to), reinterpret_cast<__m512i>(value));
}

inline void publish() { _mm_sfence(); }

// Numbers of 16 bits as float32.
inline Floats widen(const std::uint16_t* from) {
    // All lanes, as above.
    const __m256i numbers = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return reinterpret_cast<Floats>(_mm512_maskz_cvtph_ps(static_cast<__mmask16>(0xffff), numbers));
}

#include "core/masks_avx2.hpp"

#define FASTNOISE_TABLES

// 128 words, looked up 32 at a time.
struct Table {
    __m512i part[4];

    Table() = default;
    explicit Table(const std::uint16_t* words) {
        for (unsigned p = 0; p < 4; ++p) part[p] = _mm512_loadu_si512(words + 32 * p);
    }

    Shorts operator()(Shorts places) const {
        const auto at = reinterpret_cast<__m512i>(places);
        const __m512i lower = _mm512_permutex2var_epi16(part[0], at, part[1]);
        const __m512i upper = _mm512_permutex2var_epi16(part[2], at, part[3]);
        return reinterpret_cast<Shorts>(
            _mm512_mask_blend_epi16(_mm512_test_epi16_mask(at, _mm512_set1_epi16(64)), lower, upper));
    }
};

#include "core/kernels_body.hpp"

}  // namespace fastnoise::avx512

#pragma GCC pop_options
#endif
