// Which instruction sets are compiled. g++ compiles parts of a file for another processor under "#pragma GCC target";
// other compilers and processors get the generic loops.
#pragma once

#include "core/kernels.hpp"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FASTNOISE_X86_TARGETS 1
#else
#define FASTNOISE_X86_TARGETS 0
#endif

namespace fastnoise {
namespace generic {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}
}  // namespace fastnoise
