#include "core/cpu.hpp"

namespace fastnoise {

const char* simd_level() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    // The compiler's runtime asks cpuid, and xgetbv whether the system saves the wide registers.
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        return "avx512";
    }
    if (__builtin_cpu_supports("avx2")) return "avx2";
#endif
    return "generic";
}

}  // namespace fastnoise
