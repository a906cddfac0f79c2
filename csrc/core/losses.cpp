#include "core/losses.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "core/kernels.hpp"
#include "core/parallel.hpp"
#include "core/targets.hpp"

namespace fastnoise {
namespace {

constexpr std::size_t kNumbersPerThread = 1 << 16;  // tens of microseconds: no less than what a thread costs

bool within(const LossJob& job, const std::int64_t* values, std::size_t limit) {
    if (!values) return true;
    for (std::size_t row = 0; row < job.rows; ++row) {
        if (static_cast<std::uint64_t>(values[row]) >= limit && !(job.ignore && job.labels[row] == *job.ignore)) {
            return false;
        }
    }
    return true;
}

// Marks each row whose index a later one repeats. A table of the rows seen from the end, by their index's hash.
bool find_superseded(const LossJob& job, std::vector<unsigned char>& superseded) {
    unsigned bits = 4;
    while (std::size_t{1} << bits < 2 * job.rows) ++bits;
    std::vector<std::size_t> seen(std::size_t{1} << bits, job.rows);
    bool any = false;
    for (std::size_t row = job.rows; row-- > 0;) {
        if (job.ignore && job.labels && job.labels[row] == *job.ignore) continue;
        const auto index = static_cast<std::uint64_t>(job.index[row]);
        std::size_t slot = index * 0x9e3779b97f4a7c15u >> (64 - bits);
        while (seen[slot] != job.rows && job.index[seen[slot]] != job.index[row]) slot = (slot + 1) & (seen.size() - 1);
        if (seen[slot] == job.rows) {
            seen[slot] = row;
            continue;
        }
        if (!any) superseded.assign(job.rows, 0);
        superseded[row] = any = true;
    }
    return any;
}

// The sum or mean of the losses, added up in the rows' order whatever the threads. A mean of no rows is NaN.
float reduced(const float* losses, std::size_t rows, Reduction reduction) {
    double sums[4] = {};
    for (std::size_t row = 0; row < rows; ++row) sums[row % 4] += losses[row];
    const double sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    return static_cast<float>(reduction == Reduction::mean ? sum / static_cast<double>(rows) : sum);
}

// Adds what was seen of each row's label to its sample.
void note_looks(const LossJob& job) {
    for (std::size_t row = 0; row < job.rows; ++row) {
        const float margin = job.seen[2 * row], prob = job.seen[2 * row + 1];
        if (margin != margin) continue;
        float* const look = job.looks + static_cast<std::size_t>(job.look_index[row]) * kLookColumns;
        const float right = margin > 0 ? 1.0f : 0.0f;
        look[3] += look[1] > right ? 1.0f : 0.0f;
        look[1] = right;
        look[2] += 1;
        look[4] += 1;
        look[5] += margin;
        look[6] += prob;
    }
}

}  // namespace

LossFunction loss_function(Isa isa) {
#if FASTNOISE_X86_TARGETS
    if (isa == Isa::avx512) return avx512::loss_rows;
    if (isa == Isa::avx2) return avx2::loss_rows;
#endif
    return isa == Isa::generic ? generic::loss_rows : nullptr;
}

bool run_loss(const LossJob& given, unsigned threads) {
    LossJob job = given;
    std::unique_ptr<float[]> losses;
    if (job.reduction != Reduction::none && job.loss) {
        losses.reset(new float[job.rows]);
        job.loss = losses.get();
    }
    if (!within(job, job.labels, job.classes) || !within(job, job.pair_labels, job.classes) ||
        !within(job, job.index, job.samples) || !within(job, job.pair_index, job.samples)) {
        return false;
    }
    std::unique_ptr<float[]> seen;
    if (job.looks) {
        seen.reset(new float[2 * job.rows]);
        std::fill_n(seen.get(), 2 * job.rows, __builtin_nanf(""));  // of rows that are ignored too
        job.seen = seen.get();
    }
    LossPlan plan{job.targets, job.index, nullptr};
    if (job.given) plan = {job.given, job.labels, nullptr};
    std::vector<unsigned char> superseded;
    std::unique_ptr<float[]> before;
    if (job.targets && job.update && find_superseded(job, superseded)) {
        before.reset(new float[job.rows * job.classes]);
        for (std::size_t row = 0; row < job.rows; ++row) {
            if (job.ignore && job.labels && job.labels[row] == *job.ignore) continue;
            const auto at = static_cast<std::size_t>(job.index[row]);
            std::memcpy(&before[row * job.classes], job.targets + at * job.classes, job.classes * sizeof(float));
        }
        plan = {before.get(), nullptr, superseded.data()};
    }
    const LossFunction function = loss_function(kernels().isa);
    const std::size_t size = loss_scratch(job.classes);
    const std::size_t grain = std::max<std::size_t>(1, kNumbersPerThread / job.classes);
    parallel_for(job.rows, grain, threads, [&](std::size_t begin, std::size_t end) {
        const std::unique_ptr<unsigned char[]> scratch(new unsigned char[size]);
        function(job, plan, begin, end, scratch.get());
    });
    if (job.looks) note_looks(job);
    if (losses) *given.loss = reduced(losses.get(), job.rows, job.reduction);
    return true;
}

}  // namespace fastnoise
