// The fused losses on the CPU: from rows of logits to losses, gradients and updated targets in one pass per row.
//
// The twin of kernels/row.py and kernels/rules/, which derive the formulas. The skeleton and the rules are written once,
// in losses_body.hpp, and compiled for every instruction set. All give the same bytes, whatever the threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "core/cpu.hpp"
#include "core/losses/rules.hpp"

namespace fastnoise {

inline constexpr std::size_t kMostOptions = 5;  // of a rule

#define FASTNOISE_NAME(name, Rule) name,
enum class LossRule { FASTNOISE_LOSS_RULES(FASTNOISE_NAME) };
#undef FASTNOISE_NAME

#define FASTNOISE_NAME(name, Rule) #name,
inline constexpr const char* kLossRules[] = {FASTNOISE_LOSS_RULES(FASTNOISE_NAME)};
#undef FASTNOISE_NAME

enum class Reduction { none, mean, sum };

// A batch of `rows` samples of `classes` classes each. What a rule has no use for is null.
struct LossJob {
    LossRule rule;
    std::size_t rows, classes;
    const float* logits;  // [rows, classes], rows `stride` numbers apart
    std::ptrdiff_t stride;
    const float* attention;           // [rows]
    const std::int64_t* labels;       // [rows]
    const std::int64_t* index;        // [rows], rows of `targets`
    const std::int64_t* pair_labels;  // [rows]
    const std::int64_t* pair_index;   // [rows]
    const float* share;               // [rows], of the first label in a pair
    float* targets;                   // [samples, classes]
    std::size_t samples;
    const float* given;  // in place of targets, only read: [rows, classes], or with labels [classes, classes] by label
    bool update;         // of the targets; rows with a logit of NaN or +inf, or such an attention, keep theirs anyhow
    float momentum, strength;
    const double* options;  // the rule's OPTIONS, kMostOptions numbers
    std::optional<std::int64_t> ignore;  // a label, whose rows have loss and gradient 0 and leave their targets alone
    float* loss;                // [rows], or one number where reduced
    float* gradient;            // [rows, classes]
    float* attention_gradient;  // [rows]
    Reduction reduction = Reduction::none;  // of the losses; the mean divides by `rows`
    float gradient_scale = 1;               // a factor of all gradients
    float* looks = nullptr;                 // [look_rows, kLookColumns], a row per training sample, or null
    const std::int64_t* look_index = nullptr;  // [rows], rows of `looks`; a row out of range is not noted
    std::size_t look_rows = 0;
    float* seen = nullptr;  // [rows, 2]: margin and probability of the label in `looks`; run_loss has its own
};

// Columns of `looks`: the label, -1 for none; 1 if the last look had it as the most probable class; looks; times that
// it was right at one look and wrong at the next; looks whose margin is in the sum; sums of margin and probability.
inline constexpr std::size_t kLookColumns = 8;

// Returns false, before anything is written, where a label or index lies out of range. An index that occurs again finds
// the targets as they were before the batch, and of its updates the last one stays. Looks are noted in the rows' order;
// a row with a logit of NaN or +inf is not noted.
bool run_loss(const LossJob&, unsigned threads);

// What run_loss has looked up: where each row's targets are read, and whether they are written back.
struct LossPlan {
    const float* read;               // [.., classes]
    const std::int64_t* read_index;  // [rows]; null where row r of the batch reads row r
    const unsigned char* superseded; // [rows]: 1 where a later row of the batch writes the same targets; null for none
};

// Bytes of scratch memory for one of the functions below.
constexpr std::size_t loss_scratch(std::size_t classes) {
    const std::size_t row = 4 * ((classes + 15) / 16 * 16) * sizeof(double);
    return row > 65536 ? row : 65536;
}

// Rows [begin, end), all within range. One function per instruction set: null where that isn't compiled.
using LossFunction = void (*)(const LossJob&, const LossPlan&, std::size_t begin, std::size_t end, void* scratch);
namespace generic {
void loss_rows(const LossJob&, const LossPlan&, std::size_t, std::size_t, void*);
}
namespace avx2 {
void loss_rows(const LossJob&, const LossPlan&, std::size_t, std::size_t, void*);
}
namespace avx512 {
void loss_rows(const LossJob&, const LossPlan&, std::size_t, std::size_t, void*);
}
LossFunction loss_function(Isa isa);

}  // namespace fastnoise
