#include "core/noise.hpp"

#include <algorithm>
#include <cmath>

#include "core/parallel.hpp"

namespace fastnoise {
namespace {

// A thread costs about as much to start as a thousand groups take.
constexpr std::size_t kGroupsPerThread = 1024;

std::size_t groups_of(std::size_t count) { return count / kGroup + (count % kGroup != 0); }

std::uint64_t read(const Labels& labels, std::size_t position) {
    switch (labels.bytes) {
        case 1:
            return static_cast<const std::uint8_t*>(labels.data)[position];
        case 2:
            return static_cast<const std::uint16_t*>(labels.data)[position];
        case 4:
            return static_cast<const std::uint32_t*>(labels.data)[position];
        default:
            return static_cast<const std::uint64_t*>(labels.data)[position];
    }
}

Job make_job(const Labels& labels, std::uint32_t num_classes) {
    Job job{};
    job.labels = labels.data;
    job.label_bytes = labels.bytes;
    job.count = labels.count;
    // The loops read labels as unsigned: a negative one has its highest bit set.
    job.limit = num_classes;
    if (labels.is_signed) job.limit = std::min<std::uint64_t>(job.limit, std::uint64_t{1} << (8 * labels.bytes - 1));
    job.model.num_classes = num_classes;
    return job;
}

// Whether results of so many labels are written past the caches: not narrow labels, and not what is likely to be read
// from a cache next. A sweep of 10 rates and 10 seeds of 10^6 labels took 0.38 ns a label through the caches and 0.25
// past them with labels of 8 bytes, 0.23 and 0.13 with 4, no less with 2 and 1. Results of 8 MB took 0.1 ns less too,
// but reading them then took 0.2 ns longer, as they lay in the cache (32 MiB) before; at 16 MB the sum was the same.
bool streams(std::size_t count, unsigned bytes) {
    constexpr std::size_t likely_cached = std::size_t{32} << 20;
    return bytes >= 4 && count > likely_cached / bytes;
}

// Runs `kernel` over groups [begin, end), and throws LabelError where it stops at a group with a bad label.
template <class Kernel>
void run(const Kernel& kernel, const Job& job, const Labels& labels, std::size_t begin, std::size_t end) {
    while ((begin = kernel(job, begin, end)) != end) {
        const std::size_t first = begin * kGroup;
        for (std::size_t i = first; i < std::min(labels.count, first + kGroup); ++i) {
            const std::uint64_t value = read(labels, i);
            if (value < job.limit) continue;
            const int unused = 64 - 8 * static_cast<int>(labels.bytes);
            const auto with_sign = static_cast<std::int64_t>(value << unused) >> unused;
            throw LabelError(i, labels.is_signed ? std::to_string(with_sign) : std::to_string(value),
                             job.model.num_classes);
        }
        // Another thread has mended the array meanwhile: go on with that group.
    }
}

// Jobs for each seed, cut into threads over all of them.
template <class Prepare>
void run_all(const Labels& labels, std::size_t seeds, unsigned threads, const Prepare& prepare) {
    const auto& kernel = kernels().corrupt;
    const std::size_t groups = groups_of(labels.count);
    if (!groups) return;
    parallel_for(groups * seeds, kGroupsPerThread, threads, [&](std::size_t begin, std::size_t end) {
        while (begin < end) {
            const std::size_t seed = begin / groups, first = begin % groups, size = std::min(end - begin, groups - first);
            Job job = prepare(seed);
            job.stream = streams(job.rates * seeds * labels.count, job.noisy_bytes);
            run(kernel, job, labels, first, first + size);
            begin += size;
        }
    });
}

}  // namespace

void check_labels(const Labels& labels, std::uint32_t num_classes) {
    run(kernels().check, make_job(labels, num_classes), labels, 0, groups_of(labels.count));
}

void corrupt(const Labels& labels, const Model& model, const std::vector<double>& rates,
             const std::vector<std::uint64_t>& seeds, unsigned threads, const Noisy& noisy) {
    std::vector<Threshold> thresholds(rates.size());
    std::transform(rates.begin(), rates.end(), thresholds.begin(), Threshold::of);
    // A matrix has decided by itself: its targets are taken for all, whose numbers are 0.
    if (model.kind == Model::Kind::matrix) std::fill(thresholds.begin(), thresholds.end(), Threshold{1, 0});
    run_all(labels, seeds.size(), threads, [&](std::size_t seed) {
        Job job = make_job(labels, model.num_classes);
        job.model = model;
        job.seed = seeds[seed];
        job.thresholds = thresholds.data();
        job.rates = thresholds.size();
        job.noisy = static_cast<char*>(noisy.data) + seed * labels.count * noisy.bytes;
        job.noisy_bytes = noisy.bytes;
        job.stride = seeds.size() * labels.count * noisy.bytes;
        return job;
    });
}

void corrupt_chosen(const Labels& labels, const Model& model, const std::vector<std::uint8_t>& chosen,
                    std::uint64_t seed, unsigned threads, const Noisy& noisy) {
    const Threshold all_zeros{1, 0};  // the numbers are 0 where chosen, else the largest
    run_all(labels, 1, threads, [&](std::size_t) {
        Job job = make_job(labels, model.num_classes);
        job.model = model;
        job.seed = seed;
        job.thresholds = &all_zeros;
        job.rates = 1;
        job.chosen = chosen.data();
        job.noisy = noisy.data;
        job.noisy_bytes = noisy.bytes;
        return job;
    });
}

std::size_t quota_of(double rate, std::size_t count) {
    // 0.29 * 100 is 28.999999999999996 in binary, and 29 is meant: two units in the last place are the most by which
    // the rounding of the rate and of the product take it below.
    const double product = rate * static_cast<double>(count);
    return std::min(count, static_cast<std::size_t>(product * (1 + 0x1p-51)));
}

std::vector<std::uint8_t> choose_quota(const Labels& labels, std::uint32_t num_classes, double rate, bool per_class,
                                       std::uint64_t seed, unsigned threads) {
    check_labels(labels, num_classes);
    const std::size_t count = labels.count;
    std::vector<std::uint16_t> numbers(groups_of(count) * kGroup);
    const auto& kernel = kernels().draw_numbers;
    parallel_for(groups_of(count), kGroupsPerThread, threads, [&](std::size_t begin, std::size_t end) {
        kernel(seed, Purpose::flip, 0, begin, end, numbers.data() + begin * kGroup);
    });

    // Keys by class: the number above, the position below.
    std::vector<std::uint64_t> keys(count);
    std::vector<std::size_t> ends;
    if (per_class) {
        // Class numbers up to 2^31 may be sparse: only those that occur take room.
        std::vector<std::uint32_t> classes(count);
        std::uint32_t top = 0;
        for (std::size_t i = 0; i < count; ++i) {
            // Read anew, so maybe changed by another thread since the check.
            classes[i] = static_cast<std::uint32_t>(std::min<std::uint64_t>(read(labels, i), num_classes - 1));
            top = std::max(top, classes[i]);
        }
        if (top < std::max<std::size_t>(count, 65536)) {
            ends.resize(std::size_t{top} + 2);
            for (const auto c : classes) ++ends[c + 1];
            for (std::size_t c = 1; c < ends.size(); ++c) ends[c] += ends[c - 1];
            for (std::size_t i = 0; i < count; ++i) keys[ends[classes[i]]++] = std::uint64_t{numbers[i]} << 32 | i;
            ends.pop_back();  // filled, each class's beginning has become its end
        } else {
            std::vector<std::uint32_t> order(count);
            for (std::size_t i = 0; i < count; ++i) order[i] = static_cast<std::uint32_t>(i);
            std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
                return classes[a] != classes[b] ? classes[a] < classes[b] : a < b;
            });
            for (std::size_t i = 0; i < count; ++i) {
                keys[i] = std::uint64_t{numbers[order[i]]} << 32 | order[i];
                if (i + 1 == count || classes[order[i]] != classes[order[i + 1]]) ends.push_back(i + 1);
            }
        }
    } else {
        for (std::size_t i = 0; i < count; ++i) keys[i] = std::uint64_t{numbers[i]} << 32 | i;
        ends.push_back(count);
    }

    std::vector<std::uint8_t> chosen(count);
    const auto choose = [&](std::uint64_t key) { chosen[static_cast<std::uint32_t>(key)] = 1; };
    std::size_t begin = 0;
    for (const std::size_t end : ends) {
        const std::size_t quota = quota_of(rate, end - begin);
        if (quota) {
            const auto first = keys.begin() + begin, last = keys.begin() + end;
            std::nth_element(first, first + (quota - 1), last);
            const std::uint64_t bound = *(first + (quota - 1)) >> 32;
            // Positions must not decide between equal numbers: those are drawn further.
            std::vector<std::pair<std::uint32_t, std::uint64_t>> ties;
            std::size_t left = quota;
            std::for_each(first, last, [&](std::uint64_t key) {
                const std::uint64_t number = key >> 32;
                if (number < bound) {
                    choose(key);
                    --left;
                } else if (number == bound) {
                    ties.emplace_back(further(seed, static_cast<std::uint32_t>(key)), key);
                }
            });
            std::sort(ties.begin(), ties.end());
            for (std::size_t i = 0; i < left; ++i) choose(ties[i].second);
        }
        begin = end;
    }
    return chosen;
}

}  // namespace fastnoise
