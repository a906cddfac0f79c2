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

#include "core/kernels_body.hpp"

}  // namespace fastnoise::generic
