#include "core/targets.hpp"

#if FASTNOISE_X86_TARGETS
#include <immintrin.h>

#include <cstring>
#include <utility>

#pragma GCC push_options
#pragma GCC target("avx2,f16c")

namespace fastnoise::avx2 {

constexpr Isa kIsa = Isa::avx2;
typedef std::uint64_t Wide __attribute__((vector_size(32)));
typedef std::uint16_t Shorts __attribute__((vector_size(32)));
typedef float Floats __attribute__((vector_size(32)));
constexpr std::size_t kVectors = 2;  // of blocks at once: what 16 registers hold

inline Wide multiply_low(Wide a, Wide b) {
    return reinterpret_cast<Wide>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}

// The upper halves of the 32-bit products of 16-bit lanes.
inline Shorts multiply_high(Shorts a, Shorts b) {
    return reinterpret_cast<Shorts>(_mm256_mulhi_epu16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}

// Whether any bit is set.
inline bool any(Shorts mask) {
    const auto m = reinterpret_cast<__m256i>(mask);
    return !_mm256_testz_si256(m, m);
}

// Writes 32 aligned bytes past the caches; others see them after `publish`.
inline void stream(void* to, Wide value) {
    _mm256_stream_si256(static_cast<__m256i*>(to), reinterpret_cast<__m256i>(value));
}

inline void publish() { _mm_sfence(); }

// Numbers of 16 bits as float32.
inline Floats widen(const std::uint16_t* from) {
    return reinterpret_cast<Floats>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}

#include "core/masks_avx2.hpp"

#include "core/kernels_body.hpp"

}  // namespace fastnoise::avx2

#pragma GCC pop_options
#endif
