// The inner loops, written once in kernels_body.hpp and compiled for every instruction set. They give the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/cpu.hpp"
#include "core/draws.hpp"

// Vectors of numbers and masks are written to memory as they lie in registers.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

namespace fastnoise {

struct Model {
    enum class Kind { excluded, included, mapped, pair, matrix };
    Kind kind;
    std::uint32_t num_classes;
    const std::uint32_t* class_map = nullptr;  // mapped: [num_classes]
    const std::uint64_t* alias = nullptr;      // matrix: [num_classes, num_classes], see alias.hpp
};

// One seed's corruption of some labels at some rates. Integers of 1, 2, 4 or 8 bytes; the labels' sign is in `limit`.
struct Job {
    const void* labels;
    unsigned label_bytes;
    std::size_t count;
    std::uint64_t limit;  // labels, read as unsigned, must lie below
    Model model;
    std::uint64_t seed;
    const Threshold* thresholds;  // [rates]; ignored by the matrix model
    std::size_t rates;
    const std::uint8_t* chosen;  // [count], or null. If given, labels flip where it holds 1, and the draws don't decide
    void* noisy;                 // [rates, count], rows `stride` bytes apart
    unsigned noisy_bytes;        // label_bytes or 8
    std::size_t stride;
    bool stream;  // write past the caches
};

// Stages [S, N] of losses and predictions: see consensus.hpp.
struct StageJob {
    const float* losses;
    const void* predictions;  // integers of prediction_bytes: 1, 2 or 4
    unsigned prediction_bytes;
    std::size_t stages, count;
    bool agree;  // members' predictions are equal at every stage
};

// Rows of a table of features, as a batch takes them.
struct RowJob {
    const void* rows;       // [N, columns], float16 or float32
    unsigned number_bytes;  // 2 or 4
    std::size_t columns;
    const std::int64_t* index;  // [batch], each below N
    std::size_t batch;
    const float* mean;   // [columns]
    const float* scale;  // [columns]
    float* out;          // [batch, columns]
};

struct Kernels {
    Isa isa;
    // The numbers of groups [begin, end): 64 each.
    void (*draw_numbers)(std::uint64_t seed, Purpose, std::uint32_t attempt, std::uint64_t begin, std::uint64_t end,
                         std::uint16_t* numbers);
    // Uniform integers below n, likewise.
    void (*draw_bounded)(std::uint32_t n, std::uint64_t seed, Purpose, std::uint64_t begin, std::uint64_t end,
                         std::uint32_t* values);
    // Groups [begin, end), until one holds a bad label: returns that one, or end.
    std::size_t (*corrupt)(const Job&, std::size_t begin, std::size_t end);
    // The first group of [begin, end) with a bad label, or end.
    std::size_t (*check)(const Job&, std::size_t begin, std::size_t end);
    // Bit j of masks[g - begin]: sample 64 g + j is a member, see consensus.hpp. For groups [begin, end).
    // Returns how many are.
    std::size_t (*members)(const StageJob&, float threshold, std::size_t begin, std::size_t end, std::uint64_t* masks);
    // worst[64]: each sample's largest loss; NaN where any is NaN, or predictions must agree and don't.
    void (*worst_loss)(const StageJob&, std::size_t group, float* worst);
    // bins[64]: how many of the thresholds each of 64 values does not lie below. NaN lies below none.
    void (*bin)(const float* worst, const float* thresholds, std::size_t count, std::uint32_t* bins);
    // The rows [begin, end) of a batch: (number - mean) * scale.
    void (*normalise)(const RowJob&, std::size_t begin, std::size_t end);
};

// Those of one instruction set; null where they aren't compiled, or the processor can't run them.
const Kernels* kernels_of(Isa isa);

// Those in use: what FASTNOISE_FORCE_ISA names ("generic", "avx2", "avx512"), else the widest. Chosen at the first
// call, which raises IsaError for a value that can't be honoured.
const Kernels& kernels();

}  // namespace fastnoise
