#include <cstring>
#include <utility>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "core/targets.hpp"

namespace fastnoise::generic {

constexpr Isa kIsa = Isa::generic;
typedef std::uint64_t Wide __attribute__((vector_size(16)));
typedef std::uint16_t Shorts __attribute__((vector_size(16)));
typedef std::uint32_t Bits __attribute__((vector_size(16)));
typedef float Floats __attribute__((vector_size(16)));
constexpr std::size_t kVectors = 2;  // of blocks at once: what 16 registers hold

// The product of the lower halves of each 64-bit lane.
inline Wide multiply_low(Wide a, Wide b) {
#if defined(__SSE2__)  // part of x86-64 itself
    return reinterpret_cast<Wide>(_mm_mul_epu32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

// The upper halves of the 32-bit products of 16-bit lanes.
inline Shorts multiply_high(Shorts a, Shorts b) {
#if defined(__SSE2__)
    return reinterpret_cast<Shorts>(_mm_mulhi_epu16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#else
    for (std::size_t j = 0; j < 8; ++j) a[j] = static_cast<std::uint16_t>(std::uint32_t{a[j]} * b[j] >> 16);
    return a;
#endif
}

// Whether any bit is set.
inline bool any(Shorts mask) {
    const Wide lanes = reinterpret_cast<Wide>(mask);
    return (lanes[0] | lanes[1]) != 0;
}

// Writes 16 aligned bytes, past the caches where there is an instruction for it; others see them after `publish`.
inline void stream(void* to, Wide value) {
#if defined(__SSE2__)
    _mm_stream_si128(static_cast<__m128i*>(to), reinterpret_cast<__m128i>(value));
#else
    std::memcpy(to, &value, sizeof value);
#endif
}

inline void publish() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

// Numbers of 16 bits as float32, with the NaN that the processor's own conversion gives. No number on the way is
// subnormal, so that it makes no difference whether those are taken for 0.
inline Floats widen(const std::uint16_t* from) {
    const Bits halves{from[0], from[1], from[2], from[3]};
    const Bits magnitude = (halves & 0x7fffu) << 13, exponent = halves & 0x7c00u;
    const Bits normal = magnitude + (112u << 23);
    const Bits small = magnitude + (113u << 23);  // of an exponent of 0: 2^-14 more than the number
    const Bits unit = Bits{} + (113u << 23);
    const Bits subnormal = reinterpret_cast<Bits>(reinterpret_cast<Floats>(small) - reinterpret_cast<Floats>(unit));
    const Bits quiet = reinterpret_cast<Bits>(magnitude > (0x7c00u << 13)) & (1u << 22);
    const Bits special = (magnitude + (224u << 23)) | quiet;
    const Bits is_small = reinterpret_cast<Bits>(exponent == 0u), is_special = reinterpret_cast<Bits>(exponent == 0x7c00u);
    const Bits value = (is_small & subnormal) | (is_special & special) | (~(is_small | is_special) & normal);
    return reinterpret_cast<Floats>(value | (halves & 0x8000u) << 16);
}

// Bit j: losses[j] < threshold, for 64 of them.
inline std::uint64_t below_mask(const float* losses, float threshold) {
    std::uint64_t mask = 0;
#if defined(__SSE2__)
    const __m128 limit = _mm_set1_ps(threshold);
    for (unsigned j = 0; j < 64; j += 4) {
        const int below = _mm_movemask_ps(_mm_cmplt_ps(_mm_loadu_ps(losses + j), limit));
        mask |= std::uint64_t{static_cast<std::uint32_t>(below)} << j;
    }
#else
    for (unsigned j = 0; j < 64; ++j) mask |= std::uint64_t{losses[j] < threshold} << j;
#endif
    return mask;
}

#if defined(__SSE2__)
template <class Integer>
inline __m128i load(const Integer* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

// 16 bytes: 255 where a equals b.
inline __m128i equal_bytes(const std::uint8_t* a, const std::uint8_t* b) { return _mm_cmpeq_epi8(load(a), load(b)); }

inline __m128i equal_bytes(const std::uint16_t* a, const std::uint16_t* b) {
    return _mm_packs_epi16(_mm_cmpeq_epi16(load(a), load(b)), _mm_cmpeq_epi16(load(a + 8), load(b + 8)));
}

inline __m128i equal_bytes(const std::uint32_t* a, const std::uint32_t* b) {
    const auto eight = [a, b](unsigned j) {
        return _mm_packs_epi32(_mm_cmpeq_epi32(load(a + j), load(b + j)),
                               _mm_cmpeq_epi32(load(a + j + 4), load(b + j + 4)));
    };
    return _mm_packs_epi16(eight(0), eight(8));
}
#endif

// Bit j: a[j] == b[j], for 64 of them.
template <class Integer>
inline std::uint64_t equal_mask(const Integer* a, const Integer* b) {
    std::uint64_t mask = 0;
#if defined(__SSE2__)
    for (unsigned j = 0; j < 64; j += 16) {
        const int equal = _mm_movemask_epi8(equal_bytes(a + j, b + j));
        mask |= std::uint64_t{static_cast<std::uint32_t>(equal)} << j;
    }
#else
    for (unsigned j = 0; j < 64; ++j) mask |= std::uint64_t{a[j] == b[j]} << j;
#endif
    return mask;
}

#include "core/kernels_body.hpp"

}  // namespace fastnoise::generic
