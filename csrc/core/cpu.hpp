// What the processor offers, and which of the compiled instruction sets is used.
#pragma once

#include <stdexcept>

namespace fastnoise {

enum class Isa { generic, avx2, avx512 };

inline constexpr Isa kIsas[] = {Isa::generic, Isa::avx2, Isa::avx512};

const char* name_of(Isa isa);

// The widest instructions that both the processor and the operating system support; avx2 means the conversion of 16-bit
// floats too, avx512 foundation, byte and word, doubleword and quadword, and 128/256-bit forms together.
Isa simd_level();

// FASTNOISE_FORCE_ISA names no instruction set, or one that isn't to be had here.
class IsaError : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace fastnoise
