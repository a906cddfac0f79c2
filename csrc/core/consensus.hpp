// Stage consensus: the samples whose loss lies below a threshold at every one of several stages of training.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/kernels.hpp"

namespace fastnoise {

// masks[ceil(count / 64)]: bit i % 64 of word i / 64 tells whether sample i is a member: its loss is below the threshold
// at every stage, and where job.agree its predictions are equal at all. NaN is below nothing. Bits behind are 0.
// Returns the number of members.
std::size_t members(const StageJob& job, float threshold, unsigned threads, std::uint64_t* masks);

// Which labels are judged: right where judged[i] == truth[i]; integers of prediction_bytes. Null truth: none is.
struct Judged {
    const void* labels;
    const void* truth;
};

// For every job and threshold (ascending) the number of members, and of those judged right: [jobs, thresholds] each;
// totals[jobs], how many samples are right at all. One pass over each job: each sample's worst loss is binned once.
struct Counts {
    std::vector<std::int64_t> members, right, totals;
};
Counts count_members(const std::vector<StageJob>& jobs, const std::vector<Judged>& judged,
                     const std::vector<float>& thresholds, unsigned threads);

}  // namespace fastnoise
