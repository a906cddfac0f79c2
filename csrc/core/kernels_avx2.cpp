#include "core/targets.hpp"

#if FASTNOISE_X86_TARGETS
#include <immintrin.h>

#include <cstring>

#pragma GCC push_options
#pragma GCC target("avx2")

namespace fastnoise::avx2 {

constexpr Isa kIsa = Isa::avx2;
typedef std::uint64_t Wide __attribute__((vector_size(32)));

inline Wide multiply_low(Wide a, Wide b) {
    return reinterpret_cast<Wide>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}

#include "core/kernels_body.hpp"

}  // namespace fastnoise::avx2

#pragma GCC pop_options
#endif
