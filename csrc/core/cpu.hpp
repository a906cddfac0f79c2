#pragma once

namespace fastnoise {

// The widest instructions that both the processor and the operating system support: "generic", "avx2" or "avx512"
// (foundation, byte and word, doubleword and quadword, and 128/256-bit forms together).
const char* simd_level();

}  // namespace fastnoise
