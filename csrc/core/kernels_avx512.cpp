#include "core/targets.hpp"

#if FASTNOISE_X86_TARGETS
#include <immintrin.h>

#include <cstring>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")

namespace fastnoise::avx512 {

constexpr Isa kIsa = Isa::avx512;
typedef std::uint64_t Wide __attribute__((vector_size(64)));

inline Wide multiply_low(Wide a, Wide b) {
    // All lanes; g++ 12 warns of the undefined ones that _mm512_mul_epu32 writes over.
    const __mmask8 all = 0xff;
    return reinterpret_cast<Wide>(
        _mm512_maskz_mul_epu32(all, reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}

#include "core/kernels_body.hpp"

}  // namespace fastnoise::avx512

#pragma GCC pop_options
#endif
