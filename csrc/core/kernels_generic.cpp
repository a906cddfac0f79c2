#include <cstring>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "core/targets.hpp"

namespace fastnoise::generic {

constexpr Isa kIsa = Isa::generic;
typedef std::uint64_t Wide __attribute__((vector_size(16)));

// The product of the lower halves of each 64-bit lane.
inline Wide multiply_low(Wide a, Wide b) {
#if defined(__SSE2__)  // part of x86-64 itself
    return reinterpret_cast<Wide>(_mm_mul_epu32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

#include "core/kernels_body.hpp"

}  // namespace fastnoise::generic
