#include "core/consensus.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>

#include "core/parallel.hpp"

namespace fastnoise {
namespace {

constexpr std::size_t kGroupsPerThread = 1024;
// Histograms in turn: an increment of what the last one wrote has to wait for it.
constexpr std::size_t kCopies = 4;
constexpr std::size_t kMostCompared = 256;  // thresholds beyond which a binary search is faster

std::size_t groups_of(std::size_t count) { return count / kGroup + (count % kGroup != 0); }

template <class Label>
void judge_as(const Judged& judged, std::size_t first, std::size_t size, std::uint8_t* right) {
    const auto* const labels = static_cast<const Label*>(judged.labels) + first;
    const auto* const truth = static_cast<const Label*>(judged.truth) + first;
    for (std::size_t j = 0; j < size; ++j) right[j] = labels[j] == truth[j];
}

void judge(const Judged& judged, unsigned bytes, std::size_t first, std::size_t size, std::uint8_t* right) {
    if (bytes == 1) return judge_as<std::uint8_t>(judged, first, size, right);
    if (bytes == 2) return judge_as<std::uint16_t>(judged, first, size, right);
    judge_as<std::uint32_t>(judged, first, size, right);
}

}  // namespace

std::size_t members(const StageJob& job, float threshold, unsigned threads, std::uint64_t* masks) {
    const Kernels& kernel = kernels();
    std::atomic<std::size_t> found{0};
    parallel_for(groups_of(job.count), kGroupsPerThread, threads, [&](std::size_t begin, std::size_t end) {
        found += kernel.members(job, threshold, begin, end, masks + begin);
    });
    return found;
}

Counts count_members(const std::vector<StageJob>& jobs, const std::vector<Judged>& judged,
                     const std::vector<float>& thresholds, unsigned threads) {
    const Kernels& kernel = kernels();
    const std::size_t width = thresholds.size(), bins = width + 1;
    const std::size_t groups = jobs.empty() ? 0 : groups_of(jobs[0].count);
    Counts counts{std::vector<std::int64_t>(jobs.size() * width), std::vector<std::int64_t>(jobs.size() * width),
                  std::vector<std::int64_t>(jobs.size())};
    if (!groups) return counts;
    std::mutex mutex;
    parallel_for(groups * jobs.size(), kGroupsPerThread, threads, [&](std::size_t begin, std::size_t end) {
        std::vector<std::int64_t> histogram(kCopies * 2 * bins);  // wrong and right in turn
        while (begin < end) {
            const std::size_t which = begin / groups, from = begin % groups;
            const std::size_t until = std::min(from + (end - begin), groups);
            const StageJob& job = jobs[which];
            std::fill(histogram.begin(), histogram.end(), 0);
            float worst[kGroup];
            std::uint32_t bin[kGroup];
            std::uint8_t right[kGroup] = {};
            for (std::size_t group = from; group < until; ++group) {
                const std::size_t first = group * kGroup, size = std::min(kGroup, job.count - first);
                kernel.worst_loss(job, group, worst);
                if (width <= kMostCompared) {
                    kernel.bin(worst, thresholds.data(), width, bin);
                } else {
                    for (std::size_t j = 0; j < kGroup; ++j) {
                        const auto above = std::upper_bound(thresholds.begin(), thresholds.end(), worst[j]);
                        bin[j] = static_cast<std::uint32_t>(above - thresholds.begin());  // NaN: the end
                    }
                }
                if (judged[which].truth) judge(judged[which], job.prediction_bytes, first, size, right);
                for (std::size_t j = 0; j < kGroup; ++j) bin[j] = 2 * bin[j] + right[j];
                if (size == kGroup) {
                    std::int64_t* const from = histogram.data();
                    for (std::size_t j = 0; j < kGroup; j += kCopies) {
                        for (std::size_t copy = 0; copy < kCopies; ++copy) ++from[copy * 2 * bins + bin[j + copy]];
                    }
                } else {
                    for (std::size_t j = 0; j < size; ++j) ++histogram[bin[j]];
                }
            }
            for (std::size_t b = 2 * bins; b < histogram.size(); ++b) histogram[b % (2 * bins)] += histogram[b];
            {
                const std::lock_guard<std::mutex> lock(mutex);
                std::int64_t member = 0, right_member = 0;
                for (std::size_t t = 0; t < width; ++t) {
                    member += histogram[2 * t] + histogram[2 * t + 1];
                    right_member += histogram[2 * t + 1];
                    counts.members[which * width + t] += member;
                    counts.right[which * width + t] += right_member;
                }
                for (std::size_t b = 0; b < bins; ++b) counts.totals[which] += histogram[2 * b + 1];
            }
            begin += until - from;
        }
    });
    return counts;
}

}  // namespace fastnoise
