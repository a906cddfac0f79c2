// Included by kernels_*.cpp inside a namespace of the target's own, with Wide (a vector of 64-bit lanes), Shorts (one of
// 16-bit lanes), Floats, multiply_low, multiply_high, any, stream, publish, below_mask, equal_mask, widen, kVectors and
// kIsa. So are its parts in kernels/, which stand in this order. Nothing here may be shared with code for other targets: no function of
// the standard library that could be emitted as a common copy, only loops that the compiler vectorises, over groups of
// 64 samples.

constexpr std::size_t kShorts = sizeof(Shorts) / 2;

// Groups whose numbers are drawn at once, so that the latencies of several vectors of blocks overlap.
constexpr std::size_t kBatch = 4, kBatchSize = kBatch * kGroup;
constexpr std::size_t kBatchesAhead = 2;  // whose memory is asked for: 1 and 4 were slower by up to a tenth

#include "core/kernels/draws.hpp"
#include "core/kernels/words.hpp"
#include "core/kernels/memory.hpp"
#include "core/kernels/bounded.hpp"
#include "core/kernels/labels.hpp"
#include "core/kernels/flips.hpp"
#include "core/kernels/corrupt.hpp"
#include "core/kernels/consensus.hpp"
#include "core/kernels/rows.hpp"

extern const Kernels kKernels{kIsa, draw_numbers, draw_bounded, corrupt, check, members, worst_loss, bin,
                              normalise};
