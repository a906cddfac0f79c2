#include "core/cpu.hpp"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <cpuid.h>
#endif

#include <cstdlib>
#include <string>

#include "core/kernels.hpp"
#include "core/targets.hpp"

namespace fastnoise {

const char* name_of(Isa isa) {
    switch (isa) {
        case Isa::avx512:
            return "avx512";
        case Isa::avx2:
            return "avx2";
        default:
            return "generic";
    }
}

Isa simd_level() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    // The compiler's runtime asks cpuid, and xgetbv whether the system saves the wide registers.
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        return Isa::avx512;
    }
    unsigned a = 0, b = 0, c = 0, d = 0;  // asked for itself: not all compilers know the name f16c
    const bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
    if (__builtin_cpu_supports("avx2") && f16c) return Isa::avx2;
#endif
    return Isa::generic;
}

const Kernels* kernels_of(Isa isa) {
    if (isa > simd_level()) return nullptr;
    if (isa == Isa::generic) return &generic::kKernels;
#if FASTNOISE_X86_TARGETS
    return isa == Isa::avx2 ? &avx2::kKernels : &avx512::kKernels;
#else
    return nullptr;
#endif
}

namespace {

const Kernels& choose() {
    const char* const forced = std::getenv("FASTNOISE_FORCE_ISA");
    const Kernels* widest = nullptr;
    std::string available;
    for (const Isa isa : kIsas) {
        const Kernels* const kernels = kernels_of(isa);
        if (!kernels) continue;
        if (forced && forced == std::string(name_of(isa))) return *kernels;
        widest = kernels;
        available += (available.empty() ? "" : ", ") + std::string(name_of(isa));
    }
    if (!forced || !*forced) return *widest;
    std::string shown;
    for (const char* c = forced; *c; ++c) shown += (*c >= ' ' && *c <= '~') ? *c : '?';
    throw IsaError("FASTNOISE_FORCE_ISA is '" + shown + "': this machine has " + available);
}

}  // namespace

const Kernels& kernels() {
    static const Kernels& chosen = choose();
    return chosen;
}

}  // namespace fastnoise
