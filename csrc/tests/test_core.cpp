// Tests of csrc/core, a plain program: prints every failed check, returns their number (at most 1).
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>
#include <string>
#include <vector>

#include "core/alias.hpp"
#include "core/augment.hpp"
#include "core/consensus.hpp"
#include "core/cpu.hpp"
#include "core/draws.hpp"
#include "core/kernels.hpp"
#include "core/losses.hpp"
#include "core/noise.hpp"
#include "core/parallel.hpp"
#include "core/pool.hpp"
#include "core/resample.hpp"
#include "core/rows.hpp"
#include "core/spare.hpp"

using namespace fastnoise;

namespace {

int failures = 0;

#define CHECK(holds)                                                             \
    do {                                                                         \
        if (!(holds)) {                                                          \
            std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #holds);      \
            ++failures;                                                          \
        }                                                                        \
    } while (false)

// Pearson's statistic lies within 5 standard deviations of its mean: k degrees of freedom, mean k, variance 2k.
bool looks_uniform(const std::vector<std::size_t>& counts) {
    const double total = std::accumulate(counts.begin(), counts.end(), 0.0), expected = total / counts.size();
    double statistic = 0;
    for (const auto count : counts) statistic += (count - expected) * (count - expected) / expected;
    const double freedom = counts.size() - 1.0;
    return std::abs(statistic - freedom) < 5 * std::sqrt(2 * freedom);
}

std::vector<std::int64_t> some_labels(std::size_t count, std::uint32_t num_classes) {
    std::vector<std::int64_t> labels(count);
    for (std::size_t i = 0; i < count; ++i) labels[i] = static_cast<std::int64_t>(i * i % num_classes);
    return labels;
}

enum class Model { excluded, included, mapped, pair };
constexpr std::array kModels{Model::excluded, Model::included, Model::mapped, Model::pair};
constexpr std::uint32_t kClasses = 10;

constexpr std::uint32_t kMap[kClasses] = {0, 0, 7, 5, 7, 3, 6, 7, 8, 1};

struct Draw {
    double rate;
    std::uint64_t seed;
    unsigned threads;
};

fastnoise::Model model_of(Model model, std::uint32_t classes = kClasses) {
    using Kind = fastnoise::Model::Kind;
    constexpr Kind kinds[] = {Kind::excluded, Kind::included, Kind::mapped, Kind::pair};
    return {kinds[static_cast<int>(model)], classes, kMap};
}

template <class Label>
std::vector<std::int64_t> corrupted(Model model, const std::vector<Label>& labels, const Draw& draw,
                                    std::uint32_t classes = kClasses) {
    std::vector<std::int64_t> noisy(labels.size(), -1);
    corrupt(Labels(labels), model_of(model, classes), {draw.rate}, {draw.seed}, draw.threads, {noisy.data(), 8});
    return noisy;
}

std::array<std::uint16_t, kGroup> draw_group(std::uint64_t seed, Purpose purpose, std::uint64_t group,
                                             std::uint32_t attempt = 0) {
    std::array<std::uint16_t, kGroup> numbers;
    kernels().draw_numbers(seed, purpose, attempt, group, group + 1, numbers.data());
    return numbers;
}

std::array<std::uint32_t, kGroup> bounded_group(std::uint32_t n, std::uint64_t seed, Purpose purpose,
                                                std::uint64_t group) {
    std::array<std::uint32_t, kGroup> values;
    kernels().draw_bounded(n, seed, purpose, group, group + 1, values.data());
    return values;
}

// Random123, tests/kat_vectors, philox4x32 with 7 rounds
void test_philox_known_answers() {
    using Counter = std::array<std::uint32_t, 4>;
    CHECK((philox4x32({0, 0, 0, 0}, {0, 0}) == Counter{0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48}));
    CHECK((philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == Counter{0x5207ddc2, 0x45165e59, 0x4d8ee751, 0x8c52f662}));
    CHECK((philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
           Counter{0x4dfccaba, 0x190a87f0, 0xc47362ba, 0xb6b5242a}));
}

void test_group_and_single_draws_agree() {
    // The last two: a block number beyond 32 bits, and the last group there is.
    const std::uint64_t beyond = std::uint64_t{1} << 29 | 5, last = ~std::uint64_t{0} / kGroup;
    for (const std::uint64_t group : {std::uint64_t{0}, std::uint64_t{1}, beyond, last}) {
        for (const Purpose purpose : {Purpose::flip, Purpose::target}) {
            for (const std::uint32_t attempt : {0u, 1u, ~0u}) {
                const auto numbers = draw_group(0x0123456789abcdef, purpose, group, attempt);
                for (std::size_t j = 0; j < kGroup; ++j) {
                    CHECK(numbers[j] == draw(0x0123456789abcdef, purpose, group * kGroup + j, attempt));
                }
            }
        }
    }
}

void test_draws_of_other_seeds_purposes_samples_and_attempts_are_independent() {
    // Any two streams agree in a number of samples that is Poisson distributed about 2^22 / 2^16.
    constexpr std::size_t groups = 65536;
    const auto stream = [&](std::uint64_t seed, Purpose purpose, std::uint32_t attempt, std::uint64_t first) {
        std::vector<std::uint16_t> numbers(groups * kGroup);
        kernels().draw_numbers(seed, purpose, attempt, first, first + groups, numbers.data());
        return numbers;
    };
    const auto one = stream(5, Purpose::flip, 0, 0);
    for (const auto& other :
         {stream(4, Purpose::flip, 0, 0), stream(5 | std::uint64_t{1} << 32, Purpose::flip, 0, 0),
          stream(5, Purpose::target, 0, 0), stream(5, Purpose::flip, 1, 0), stream(5, Purpose::flip, 0, 1)}) {
        std::size_t equal = 0;
        double product = 0;
        std::vector<std::size_t> joint(256);
        for (std::size_t i = 0; i < one.size(); ++i) {
            equal += one[i] == other[i];
            product += (one[i] - 32767.5) * (other[i] - 32767.5);
            ++joint[one[i] >> 12 << 4 | other[i] >> 12];
        }
        CHECK(equal > 64 - 5 * 8 && equal < 64 + 5 * 8);
        const double correlation = product / one.size() / (65536.0 * 65536.0 / 12);
        CHECK(std::abs(correlation) < 5 / std::sqrt(static_cast<double>(one.size())));
        CHECK(looks_uniform(joint));
    }
    // Neighbours, and every number of bits set.
    std::vector<std::size_t> pairs(65536), bits(16);
    for (std::size_t i = 0; i + 1 < one.size(); ++i) {
        ++pairs[one[i] >> 8 << 8 | one[i + 1] >> 8];
        for (std::size_t bit = 0; bit < 16; ++bit) bits[bit] += one[i] >> bit & 1;
    }
    CHECK(looks_uniform(pairs));
    for (const auto set : bits) CHECK(std::abs(set - one.size() / 2.0) < 5 * std::sqrt(one.size() / 4.0));
}

void test_bounded_is_uniform() {
    for (const std::uint32_t n : {2u, 3u, 9u, 10u, 99u, 1000u, 1024u, 1025u}) {
        std::vector<std::size_t> counts(n);
        for (std::uint64_t group = 0; group < 4000; ++group) {
            for (const auto v : bounded_group(n, 5, Purpose::target, group)) ++counts.at(v);
        }
        CHECK(looks_uniform(counts));
    }
    const auto value = bounded_group(1, 5, Purpose::target, 0);
    CHECK(std::all_of(value.begin(), value.end(), [](std::uint32_t v) { return v == 0; }));
}

void test_bounded_rejects() {
    // A quarter of the numbers is drawn anew for 3 * 2^30: without that, v % 3 would be 0 half of the time.
    constexpr std::uint32_t n = 3u << 30;
    std::vector<std::size_t> counts(3);
    for (std::uint64_t group = 0; group < 4000; ++group) {
        const auto value = bounded_group(n, 5, Purpose::target, group);
        for (std::size_t j = 0; j < kGroup; ++j) {
            CHECK(value[j] < n);
            CHECK(value[j] == bounded(n, 5, Purpose::target, group * kGroup + j));
            ++counts[value[j] % 3];
        }
    }
    CHECK(looks_uniform(counts));
    // Of 2^26 + 1 and of 1023 about one number of a group or of sixteen is rejected, so that it must be noticed alone.
    std::size_t redrawn = 0;
    for (const std::uint32_t rare : {(1u << 26) + 1, 1023u}) {
        for (std::uint64_t group = 0; group < 1000; ++group) {
            const auto value = bounded_group(rare, 5, Purpose::target, group);
            for (std::size_t j = 0; j < kGroup; ++j) {
                CHECK(value[j] == bounded(rare, 5, Purpose::target, group * kGroup + j));
                const std::uint32_t at_once = draw(5, Purpose::target, group * kGroup + j, 0) * rare;
                redrawn += rare == 1023 && (at_once & 0xffff) < 65536 % 1023;
            }
        }
    }
    CHECK(redrawn > 20 && redrawn < 120);  // 62.5 expected
}

void test_ties_are_drawn_further() {
    // rate = (number + 1/2) / 2^16 ties with the upper bits of that sample's u; its lower bits decide.
    const auto number = draw_group(3, Purpose::flip, 0);
    const std::vector<std::uint8_t> labels(kGroup);
    std::size_t flipped = 0;
    for (std::size_t j = 0; j < kGroup; ++j) {
        const double rate = (number[j] + 0.5) / 65536;
        const auto noisy = corrupted(Model::pair, labels, {rate, 3, 1});
        std::vector<std::uint8_t> narrow(kGroup);
        corrupt(Labels(labels), model_of(Model::pair), {rate}, {3}, 1, {narrow.data(), 1});
        CHECK(noisy[j] == (draw(3, Purpose::flip, j, 1) < 0x8000));
        for (std::size_t i = 0; i < kGroup; ++i) {
            CHECK(narrow[i] == noisy[i]);
            CHECK(number[i] == number[j] || noisy[i] == (number[i] < number[j]));
        }
        flipped += noisy[j];
    }
    CHECK(flipped > 12 && flipped < 52);
    // All 48 bits count: u itself doesn't lie below u, but below u + 2^-48.
    for (std::size_t j = 0; j < kGroup; ++j) {
        const double u = number[j] * 0x1p-16 + further(3, j) * 0x1p-48;
        CHECK(corrupted(Model::pair, labels, {u, 3, 1})[j] == 0);
        CHECK(corrupted(Model::pair, labels, {u + 0x1p-48, 3, 1})[j] == 1);
    }
}

void test_edge_rates_at_the_extreme_numbers() {
    const std::vector<std::int32_t> labels(1 << 20);
    const auto none = corrupted(Model::pair, labels, {0.0, 1, 1}), all = corrupted(Model::pair, labels, {1.0, 1, 1});
    std::vector<std::uint8_t> narrow(labels.size());
    corrupt(Labels(narrow), model_of(Model::pair), {1.0}, {1}, 1, {narrow.data(), 1});
    std::size_t least = 0, greatest = 0;
    for (std::size_t i = 0; i < labels.size(); ++i) {
        const auto number = draw(1, Purpose::flip, i, 0);
        least += number == 0;
        greatest += number == 0xffff;
        CHECK(none[i] == 0 && all[i] == 1 && narrow[i] == 1);
    }
    CHECK(least && greatest);
}

void test_edge_rates() {
    const auto labels = some_labels(100'003, kClasses);
    for (const double rate : {0.0, 1e-300}) {
        for (const Model model : kModels) CHECK(corrupted(model, labels, {rate, 1, 1}) == labels);
    }
    const auto excluded = corrupted(Model::excluded, labels, {1.0, 1, 1});
    const auto pair = corrupted(Model::pair, labels, {1.0, 1, 1});
    const auto almost = corrupted(Model::pair, labels, {std::nextafter(1.0, 0.0), 1, 1});
    for (std::size_t i = 0; i < labels.size(); ++i) {
        CHECK(excluded[i] != labels[i] && excluded[i] >= 0 && excluded[i] < kClasses);
        CHECK(pair[i] == (labels[i] + 1) % kClasses);
        CHECK(almost[i] == pair[i]);
    }
    std::vector<std::size_t> counts(kClasses);
    for (const auto label : corrupted(Model::included, labels, {1.0, 1, 1})) ++counts.at(label);
    CHECK(looks_uniform(counts));
}

void test_flips_nest_as_the_rate_grows() {
    const auto labels = some_labels(20'000, kClasses);
    for (const Model model : kModels) {
        auto lower = labels;
        for (const double rate : {0.01, 0.2, 0.4, 0.400001, 0.9, 1.0}) {
            const auto noisy = corrupted(model, labels, {rate, 9, 1});
            CHECK(noisy != lower || rate == 0.400001);
            for (std::size_t i = 0; i < labels.size(); ++i) CHECK(lower[i] == labels[i] || lower[i] == noisy[i]);
            lower = noisy;
        }
    }
}

void test_threads_and_label_types_do_not_matter() {
    const auto labels = some_labels(1'000'003, kClasses);
    const std::vector<std::uint8_t> u8(labels.begin(), labels.end());
    const std::vector<std::int16_t> i16(labels.begin(), labels.end());
    const std::vector<std::uint64_t> u64(labels.begin(), labels.end());
    for (const Model model : kModels) {
        const auto noisy = corrupted(model, labels, {0.4, 2, 1});
        for (const unsigned threads : {0u, 2u, 3u, 7u, 16u}) {
            CHECK(corrupted(model, labels, {0.4, 2, threads}) == noisy);
        }
        CHECK(corrupted(model, u8, {0.4, 2, 2}) == noisy);
        CHECK(corrupted(model, i16, {0.4, 2, 2}) == noisy);
        CHECK(corrupted(model, u64, {0.4, 2, 2}) == noisy);
        // A prefix alone gets the same labels: nothing depends on the array's end.
        for (const int size : {0, 1, 63, 64, 65}) {
            const std::vector<std::int64_t> prefix(labels.begin(), labels.begin() + size);
            const auto alone = corrupted(model, prefix, {0.4, 2, 1});
            CHECK(std::equal(alone.begin(), alone.end(), noisy.begin()));
        }
    }
}

template <class Label>
std::string label_error(std::vector<Label> labels, unsigned threads) {
    try {
        corrupted(Model::mapped, labels, {0.4, 2, threads});
    } catch (const LabelError& error) {
        return error.what();
    }
    return "";
}

void test_bad_labels_are_named() {
    std::vector<std::int64_t> labels(1'000'000);
    CHECK(label_error(labels, 4).empty());
    labels[999'999] = -1;
    CHECK(label_error(labels, 4) == "position 999999 holds -1, outside [0, 10)");
    labels[700'000] = 10;
    labels[300'001] = std::numeric_limits<std::int64_t>::min();
    CHECK(label_error(labels, 4) == "position 300001 holds -9223372036854775808, outside [0, 10)");
    CHECK(label_error<std::uint64_t>({3, ~std::uint64_t{0}}, 1) ==
          "position 1 holds 18446744073709551615, outside [0, 10)");
    CHECK(label_error<std::int8_t>({3, -128}, 1) == "position 1 holds -128, outside [0, 10)");
    CHECK(label_error<std::uint8_t>({255}, 1) == "position 0 holds 255, outside [0, 10)");
    CHECK(label_error<std::int64_t>({std::int64_t{1} << 32}, 1) == "position 0 holds 4294967296, outside [0, 10)");
    try {
        check_labels(Labels(labels), kClasses);
        CHECK(!"check_labels let bad labels pass");
    } catch (const LabelError&) {
    }
}

// Every model against the words of its description, for classes of 16-bit and of 32-bit lanes.
void test_models_are_their_descriptions() {
    const std::size_t count = 64 * 9 + 5;
    const std::uint64_t seed = 0xfedcba9876543210;
    const Threshold threshold = Threshold::of(0.4);
    const auto flips = [&](std::size_t i) {
        const auto number = draw(seed, Purpose::flip, i, 0);
        return number < threshold.high || (number == threshold.high && further(seed, i) < threshold.low);
    };
    for (const std::uint32_t classes : {2u, 100u, 1024u, 1025u, 1500u}) {
        std::vector<std::uint16_t> labels(count);
        for (std::size_t i = 0; i < count; ++i) labels[i] = static_cast<std::uint16_t>(i * 7919 % classes);
        std::vector<double> transition(std::size_t{classes} * classes, 0.5 / classes);
        for (std::size_t c = 0; c < classes; ++c) transition[c * classes + c] += 0.5;
        const auto alias = alias_table(transition.data(), classes);
        std::vector<std::uint32_t> map(classes);
        for (std::uint32_t c = 0; c < classes; ++c) map[c] = c * 3 % classes;
        for (const auto kind : {fastnoise::Model::Kind::excluded, fastnoise::Model::Kind::included,
                                fastnoise::Model::Kind::mapped, fastnoise::Model::Kind::pair,
                                fastnoise::Model::Kind::matrix}) {
            std::vector<std::uint16_t> noisy(count);
            corrupt(Labels(labels), {kind, classes, map.data(), alias.data()}, {0.4}, {seed}, 1, {noisy.data(), 2});
            for (std::size_t i = 0; i < count; ++i) {
                const std::uint32_t y = labels[i];
                std::uint32_t to = y;
                if (kind == fastnoise::Model::Kind::matrix) {
                    const std::uint32_t slot = bounded(classes, seed, Purpose::target, i);
                    const std::uint64_t entry = alias[std::size_t{y} * classes + slot];
                    const bool kept = draw_pair(seed, Purpose::flip, i, 0) < static_cast<std::uint32_t>(entry);
                    to = kept ? slot : static_cast<std::uint32_t>(entry >> 32);
                } else if (flips(i)) {
                    if (kind == fastnoise::Model::Kind::mapped) to = map[y];
                    if (kind == fastnoise::Model::Kind::pair) to = (y + 1) % classes;
                    if (kind == fastnoise::Model::Kind::included) to = bounded(classes, seed, Purpose::target, i);
                    if (kind == fastnoise::Model::Kind::excluded) {
                        to = bounded(classes - 1, seed, Purpose::target, i);
                        to += to >= y;
                    }
                }
                CHECK(noisy[i] == to);
            }
        }
    }
}

void test_many_classes() {
    const std::vector<std::uint32_t> labels(1000, kMaxClasses - 1);
    const Draw draw{1.0, 0, 1};
    const auto noisy = corrupted(Model::excluded, labels, draw, kMaxClasses);
    CHECK(std::all_of(noisy.begin(), noisy.end(), [](std::int64_t y) { return y >= 0 && y < kMaxClasses - 1; }));
    CHECK(*std::max_element(noisy.begin(), noisy.end()) > kMaxClasses / 10 * 9);
    const auto pair = corrupted(Model::pair, labels, draw, kMaxClasses);
    CHECK(std::all_of(pair.begin(), pair.end(), [](std::int64_t y) { return y == 0; }));
}

void test_every_instruction_set_gives_the_same_bytes() {
    const Kernels& reference = *kernels_of(Isa::generic);
    std::size_t tried = 0;
    for (const Isa isa : kIsas) {
        const Kernels* const kernel = kernels_of(isa);
        if (!kernel) continue;
        ++tried;
        CHECK(kernel->isa == isa);
        const auto same = [&](const auto& call) { return call(*kernel) == call(reference); };
        for (const std::uint64_t group : {std::uint64_t{2}, (std::uint64_t{1} << 29) - 2, ~std::uint64_t{0} / kGroup - 3}) {
            CHECK(same([&](const Kernels& k) {
                std::vector<std::uint16_t> numbers(3 * kGroup);
                k.draw_numbers(0x0123456789abcdef, Purpose::flip, 0, group, group + 3, numbers.data());
                return numbers;
            }));
            for (const std::uint32_t n : {1u, 9u, 1023u, (1u << 26) + 1, 3u << 30}) {
                CHECK(same([&](const Kernels& k) {
                    std::vector<std::uint32_t> values(3 * kGroup);
                    k.draw_bounded(n, 7, Purpose::target, group, group + 3, values.data());
                    return values;
                }));
            }
        }
        std::vector<double> transition(kClasses * kClasses, 0.04);
        for (std::size_t c = 0; c < kClasses; ++c) transition[c * kClasses + c] = 0.64;
        const auto alias = alias_table(transition.data(), kClasses);
        const std::size_t count = 64 * 700 + 5;
        const std::vector<Threshold> thresholds{Threshold::of(0.1), Threshold::of(0.4), Threshold::of(1)};
        const auto labels = some_labels(count, kClasses);
        std::vector<std::uint8_t> chosen(count);
        for (std::size_t i = 0; i < count; ++i) chosen[i] = i % 3 == 0;
        const auto check_with = [&](auto zero) {
            using Label = decltype(zero);
            const std::vector<Label> given(labels.begin(), labels.end());
            for (int which = 0; which < 6; ++which) {
                for (const unsigned bytes : {static_cast<unsigned>(sizeof(Label)), 8u}) {
                    CHECK(same([&](const Kernels& k) {
                        std::vector<std::uint8_t> noisy(3 * count * bytes);
                        Job job{};
                        job.labels = given.data();
                        job.label_bytes = sizeof(Label);
                        job.count = count;
                        job.limit = kClasses;
                        if (which < 4) job.model = model_of(kModels[which]);
                        if (which == 4) job.model = {fastnoise::Model::Kind::matrix, kClasses, nullptr, alias.data()};
                        if (which == 5) job.model = model_of(Model::excluded);
                        if (which == 5) job.chosen = chosen.data();
                        job.seed = 11;
                        job.thresholds = thresholds.data();
                        job.rates = 3;
                        job.noisy = noisy.data();
                        job.noisy_bytes = bytes;
                        job.stride = count * bytes;
                        CHECK(k.corrupt(job, 0, 701) == 701);
                        CHECK(k.check(job, 0, 701) == 701);
                        job.limit = 9;  // label 9 is first held by sample 3
                        CHECK(k.check(job, 1, 701) == 1 && k.corrupt(job, 0, 701) == 0);
                        CHECK(k.corrupt(job, 3, 701) == 3);

                        job.limit = kClasses;
                        job.stream = true;
                        for (const std::size_t shift : {0u, 1u, 3u}) {  // of lines, and of rows against each other
                            const std::size_t before = shift * bytes;
                            std::vector<std::uint8_t> streamed(before + noisy.size() + 64, 0xaa);
                            job.noisy = streamed.data() + before;
                            CHECK(k.corrupt(job, 0, 701) == 701);
                            const auto at = streamed.begin() + static_cast<std::ptrdiff_t>(before);
                            CHECK(std::equal(noisy.begin(), noisy.end(), at));
                            CHECK(std::count(streamed.begin(), at, 0xaa) == static_cast<std::ptrdiff_t>(before));
                            CHECK(std::count(streamed.end() - 64, streamed.end(), 0xaa) == 64);
                        }
                        return noisy;
                    }));
                }
            }
        };
        check_with(std::uint8_t{});
        check_with(std::uint16_t{});
        check_with(std::uint32_t{});
        check_with(std::uint64_t{});

        std::vector<float> losses(3 * count);
        std::vector<std::uint16_t> predictions(3 * count);
        for (std::size_t i = 0; i < losses.size(); ++i) {
            losses[i] = i % 97 == 0 ? std::nanf("") : static_cast<float>(draw(1, Purpose::flip, i, 0)) / 65536.0f;
            predictions[i] = static_cast<std::uint16_t>(draw(2, Purpose::flip, i, 0) % 2);
        }
        for (const bool agree : {false, true}) {
            CHECK(same([&](const Kernels& k) {
                const StageJob job{losses.data(), predictions.data(), 2, 3, count, agree};
                std::vector<std::uint64_t> masks(701);
                k.members(job, 0.7f, 0, 701, masks.data());
                const float cuts[5] = {0.1f, 0.3f, 0.5f, 0.7f, 0.9f};
                for (std::size_t g = 0; g < 701; ++g) {
                    float worst[kGroup];
                    std::uint32_t bins[kGroup];
                    k.worst_loss(job, g, worst);
                    k.bin(worst, cuts, 5, bins);
                    for (std::size_t j = 0; j < kGroup; ++j) masks.push_back(bins[j]);
                    for (std::size_t j = 0; j < kGroup; ++j) CHECK((masks[g] >> j & 1) == (bins[j] < 4));
                }
                return masks;
            }));
        }
    }
    CHECK(tried >= 1);
}

void test_sweep_is_single_calls() {
    const auto wide = some_labels(5'003, kClasses);
    const std::vector<std::int16_t> labels(wide.begin(), wide.end());
    const std::vector<double> rates{0.0, 0.2, 0.45, 1.0};
    const std::vector<std::uint64_t> seeds{3, ~std::uint64_t{0}, 0};
    for (const Model model : kModels) {
        for (const unsigned threads : {1u, 3u}) {
            std::vector<std::int16_t> noisy(rates.size() * seeds.size() * labels.size());
            corrupt(Labels(labels), model_of(model), rates, seeds, threads, {noisy.data(), 2});
            auto next = noisy.begin();
            for (const double rate : rates) {
                for (const std::uint64_t seed : seeds) {
                    const auto alone = corrupted(model, labels, {rate, seed, 1});
                    CHECK(std::equal(alone.begin(), alone.end(), next));
                    next += labels.size();
                }
            }
        }
    }
}

void test_quotas() {
    CHECK(quota_of(0.29, 100) == 29 && quota_of(0.3, 10) == 3 && quota_of(1, 7) == 7 && quota_of(0, 7) == 0);
    CHECK(quota_of(0.999, 10) == 9 && quota_of(0.7, 50'000) == 35'000);
    const auto labels = some_labels(30'011, kClasses);
    std::vector<std::size_t> sizes(kClasses);
    for (const auto label : labels) ++sizes[label];
    for (const bool per_class : {false, true}) {
        std::vector<std::uint8_t> before(labels.size());
        for (const double rate : {0.0, 0.1, 0.4, 0.95, 1.0}) {
            const auto chosen = choose_quota(Labels(labels), kClasses, rate, per_class, 5, 1);
            CHECK(chosen == choose_quota(Labels(labels), kClasses, rate, per_class, 5, 7));
            std::vector<std::size_t> counts(kClasses);
            for (std::size_t i = 0; i < labels.size(); ++i) {
                counts[labels[i]] += chosen[i];
                CHECK(chosen[i] >= before[i]);
            }
            if (per_class) {
                for (std::size_t c = 0; c < kClasses; ++c) CHECK(counts[c] == quota_of(rate, sizes[c]));
            } else {
                CHECK(std::accumulate(counts.begin(), counts.end(), std::size_t{0}) == quota_of(rate, labels.size()));
            }
            before = chosen;
            std::vector<std::int64_t> noisy(labels.size());
            corrupt_chosen(Labels(labels), model_of(Model::excluded), chosen, 5, 2, {noisy.data(), 8});
            for (std::size_t i = 0; i < labels.size(); ++i) CHECK((noisy[i] != labels[i]) == chosen[i]);
        }
    }
    // Classes so far apart that they are sorted instead of counted.
    const std::vector<std::int64_t> sparse{2'000'000'000, 5, 5, 2'000'000'000, 5, 5};
    const auto chosen = choose_quota(Labels(sparse), kMaxClasses, 0.5, true, 1, 1);
    CHECK(chosen[0] + chosen[3] == 1 && chosen[1] + chosen[2] + chosen[4] + chosen[5] == 2);
}

void test_alias_tables() {
    // The probability of every entry, back from the table, is that of the matrix to 2^-32.
    for (const std::uint32_t classes : {2u, 3u, 10u, 257u}) {
        std::vector<double> transition(classes * classes);
        for (std::uint32_t row = 0; row < classes; ++row) {
            double sum = 0;
            for (std::uint32_t j = 0; j < classes; ++j) sum += transition[row * classes + j] = (row * 7 + j * j) % 11;
            for (std::uint32_t j = 0; j < classes; ++j) transition[row * classes + j] /= sum;
        }
        const auto table = alias_table(transition.data(), classes);
        for (std::uint32_t row = 0; row < classes; ++row) {
            std::vector<double> p(classes);
            for (std::uint32_t slot = 0; slot < classes; ++slot) {
                const std::uint64_t entry = table[row * classes + slot];
                const double kept = static_cast<std::uint32_t>(entry) / 4294967296.0;
                p[slot] += kept / classes;
                p.at(entry >> 32) += (1 - kept) / classes;
            }
            for (std::uint32_t j = 0; j < classes; ++j) {
                CHECK(std::abs(p[j] - transition[row * classes + j]) < 0x1p-32);
                CHECK(transition[row * classes + j] > 0 || p[j] == 0);
            }
        }
    }
    const std::vector<std::vector<double>> bad{
        {0.5, 0.6, 0, 1}, {1, 0, -0.1, 1.1}, {NAN, 1, 0, 1}, {HUGE_VAL, 0, 0, 1}, {0, 0, 0, 1}};
    for (const auto& rows : bad) {
        try {
            alias_table(rows.data(), 2);
            CHECK(!"a matrix that isn't stochastic passed");
        } catch (const TransitionError&) {
        }
    }
}

void test_consensus() {
    const std::size_t stages = 3, count = 64 * 3000 + 7;
    std::vector<float> losses(stages * count);
    std::vector<std::uint8_t> predictions(stages * count), truth(count);
    for (std::size_t i = 0; i < losses.size(); ++i) {
        losses[i] = i % 89 ? static_cast<float>(draw(1, Purpose::flip, i, 0) % 1000) : std::nanf("");
        predictions[i] = static_cast<std::uint8_t>(draw(2, Purpose::flip, i, 0) % 8 / 7);
    }
    for (std::size_t i = 0; i < count; ++i) truth[i] = i % 2;
    std::vector<float> thresholds{-1, 0, 1, 1, 250, 999.5, HUGE_VALF};
    for (const bool agree : {false, true}) {
        if (agree) thresholds.insert(thresholds.begin() + 4, 260, 249.5f);  // more than are compared one by one
        const StageJob job{losses.data(), predictions.data(), 1, stages, count, agree};
        const auto is_member = [&](std::size_t i, float threshold) {
            for (std::size_t s = 0; s < stages; ++s) {
                if (!(losses[s * count + i] < threshold)) return false;
                if (agree && predictions[s * count + i] != predictions[i]) return false;
            }
            return true;
        };
        for (const unsigned threads : {1u, 3u}) {
            const auto counts =
                count_members({job, job}, {{predictions.data(), truth.data()}, {nullptr, nullptr}}, thresholds, threads);
            for (std::size_t t = 0; t < thresholds.size(); ++t) {
                std::vector<std::uint64_t> masks(count / 64 + 1);
                const std::size_t found = members(job, thresholds[t], threads, masks.data());
                std::int64_t expected = 0, right = 0;
                for (std::size_t i = 0; i < count; ++i) {
                    const bool member = is_member(i, thresholds[t]);
                    CHECK((masks[i / 64] >> (i % 64) & 1) == member);
                    expected += member;
                    right += member && predictions[i] == truth[i];
                }
                CHECK(masks.back() >> (count % 64) == 0);
                const std::size_t width = thresholds.size();
                CHECK(static_cast<std::int64_t>(found) == expected);
                CHECK(counts.members[t] == expected && counts.members[width + t] == expected);
                CHECK(counts.right[t] == right && counts.right[width + t] == 0);
            }
            std::int64_t total = 0;
            for (std::size_t i = 0; i < count; ++i) total += predictions[i] == truth[i];
            CHECK(counts.totals[0] == total && counts.totals[1] == 0);
        }
    }
}

void test_parallel_for() {
    for (const std::size_t count : {0u, 1u, 7u, 100u}) {
        for (const unsigned threads : {0u, 1u, 3u, 7u}) {
            std::vector<std::atomic<int>> visits(count);
            parallel_for(count, 1, threads, [&](std::size_t begin, std::size_t end) {
                for (std::size_t i = begin; i < end; ++i) ++visits[i];
            });
            CHECK(std::all_of(visits.begin(), visits.end(), [](const auto& n) { return n == 1; }));
        }
    }
    std::atomic<int> calls{0};
    parallel_for(100, 60, 8, [&](std::size_t, std::size_t) { ++calls; });
    CHECK(calls == 1);  // no thread for less than the grain
    try {
        parallel_for(100, 1, 4, [](std::size_t begin, std::size_t) {
            if (begin >= 50) throw std::runtime_error(std::to_string(begin));
        });
        CHECK(!"the exception was lost");
    } catch (const std::runtime_error& error) {
        CHECK(error.what() == std::string("50"));  // of the two that threw, the lower range
    }
}

// Every number of every image by the words of augment.hpp, from crops and cutouts inside, across and beyond the border.
void test_augmented_images() {
    constexpr std::int64_t kCutout = 3;
    for (const std::size_t channels : {1u, 2u, 3u}) {
        const std::size_t height = 5, width = 4, batch = 17, rows = 2 * batch;
        std::vector<std::uint8_t> images(7 * height * width * channels);
        for (std::size_t i = 0; i < images.size(); ++i) images[i] = static_cast<std::uint8_t>(i * 37 + 1);
        std::vector<std::int64_t> index(batch);
        for (std::size_t b = 0; b < batch; ++b) index[b] = static_cast<std::int64_t>(b % 7);
        std::vector<std::int32_t> draws(rows * kDraws);
        for (std::size_t i = 0; i < draws.size(); ++i) draws[i] = static_cast<std::int32_t>(i * i % 17) - 8;
        draws[0] = std::numeric_limits<std::int32_t>::min();
        draws[kDraws + 1] = std::numeric_limits<std::int32_t>::max();
        const std::vector<float> mean{100, 120.5f, 7}, scale{0.1f, 3, 0.7f};
        const std::size_t size = height * width * channels;
        for (const bool drawn : {true, false}) {
            std::vector<float> out(rows * size, -1);
            augment({images.data(), height, width, channels, index.data(), batch, rows, drawn ? draws.data() : nullptr,
                     mean.data(), scale.data(), drawn ? kCutout : 0, out.data()},
                    1);
            bool right = true;
            for (std::size_t i = 0; i < out.size(); ++i) {
                const std::size_t row = i / size, c = i % channels;
                const auto y = static_cast<std::int64_t>(i % size / (width * channels));
                const auto x = static_cast<std::int64_t>(i / channels % width);
                const std::int32_t* const draw = drawn ? &draws[row * kDraws] : nullptr;
                const bool flip = draw && draw[2] != 0;
                const std::int64_t from_y = y + (draw ? draw[0] : 0);
                const std::int64_t from_x = (flip ? static_cast<std::int64_t>(width) - 1 - x : x) + (draw ? draw[1] : 0);
                const bool inside = from_y >= 0 && from_y < static_cast<std::int64_t>(height) && from_x >= 0 &&
                                    from_x < static_cast<std::int64_t>(width);
                const std::size_t first = static_cast<std::size_t>(index[row % batch]) * size;
                const auto pixel = static_cast<std::size_t>(from_y * static_cast<std::int64_t>(width) + from_x);
                float expected = ((inside ? images[first + pixel * channels + c] : 0) - mean[c]) * scale[c];
                if (draw && y >= draw[3] && y < draw[3] + kCutout && x >= draw[4] && x < draw[4] + kCutout) expected = 0;
                right = right && out[i] == expected;
            }
            CHECK(right);
        }
    }
    const std::size_t rows = 200, side = 64, size = side * side * 3;  // enough for two threads
    const std::vector<std::uint8_t> image(size, 9);
    const std::vector<std::int64_t> index(rows, 0);
    const std::vector<float> constants{1, 2, 3};
    std::vector<float> one(rows * size, -1), several(rows * size, -2);
    for (auto* const out : {&one, &several}) {
        augment({image.data(), side, side, 3, index.data(), rows, rows, nullptr, constants.data(), constants.data(), 0,
                 out->data()},
                out == &one ? 1 : 3);
    }
    CHECK(one == several);
}

// All numbers of 16 bits, whose values come from ldexp, by every instruction set, and rows of all widths of both types.
void test_normalised_rows() {
    std::vector<std::uint16_t> halves(1 << 16);
    std::iota(halves.begin(), halves.end(), std::uint16_t{0});
    const auto value_of = [](std::uint16_t half) {
        const int exponent = half >> 10 & 31, fraction = half & 1023;
        const float size = exponent == 31 ? (fraction ? std::nanf("") : std::numeric_limits<float>::infinity())
                           : exponent     ? std::ldexp(static_cast<float>(1024 + fraction), exponent - 25)
                                          : std::ldexp(static_cast<float>(fraction), -24);
        return half & 0x8000 ? -size : size;
    };
    std::vector<std::uint32_t> reference;
    for (const Isa isa : kIsas) {
        const Kernels* const kernel = kernels_of(isa);
        if (!kernel) continue;
        const std::int64_t index[] = {1, 0, 1};
        std::vector<std::uint32_t> bits;
        for (const std::size_t columns : {std::size_t{1}, std::size_t{7}, std::size_t{37}, std::size_t{1} << 15}) {
            for (const unsigned bytes : {2u, 4u}) {
                std::vector<float> numbers(2 * columns);
                for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = value_of(halves[i]);
                const void* const rows = bytes == 2 ? static_cast<const void*>(halves.data()) : numbers.data();
                const std::vector<float> mean(columns, 0.25f), scale(columns, 3);
                std::vector<float> out(3 * columns + 1, -7);
                kernel->normalise({rows, bytes, columns, index, 3, mean.data(), scale.data(), out.data()}, 0, 3);
                bool right = out.back() == -7;
                for (std::size_t i = 0; i < 3 * columns; ++i) {
                    const float number = numbers[static_cast<std::size_t>(index[i / columns]) * columns + i % columns];
                    const float expected = (number - 0.25f) * 3;
                    right = right && (std::isnan(number) ? std::isnan(out[i]) : out[i] == expected);
                }
                CHECK(right);
                for (const float value : out) {
                    bits.emplace_back();
                    std::memcpy(&bits.back(), &value, sizeof value);
                }
            }
        }
        if (reference.empty()) reference = bits;
        CHECK(bits == reference);
    }
    const std::size_t columns = 1 << 14, batch = 200;  // enough for two threads; the first row holds no NaN
    const std::vector<std::int64_t> index(batch, 0);
    const std::vector<float> mean(columns, 1), scale(columns, 2);
    std::vector<float> one(batch * columns, -1), several(batch * columns, -2);
    for (auto* const out : {&one, &several}) {
        const RowJob job{halves.data(), 2, columns, index.data(), batch, mean.data(), scale.data(), out->data()};
        normalise_rows(job, out == &one ? 1 : 3);
    }
    CHECK(one == several);
}

// Every number of resized parts, smaller and larger, inside and across the border, against sums over all pixels.
void test_resampled_images() {
    for (const std::size_t channels : {1u, 2u, 3u}) {
        const std::size_t height = 9, width = 7, out_height = 6, out_width = 8, batch = 24, rows = 2 * batch;
        std::vector<std::uint8_t> images(3 * height * width * channels);
        for (std::size_t i = 0; i < images.size(); ++i) images[i] = static_cast<std::uint8_t>(i * i * 37 + i);
        std::vector<std::int64_t> index(batch);
        for (std::size_t b = 0; b < batch; ++b) index[b] = static_cast<std::int64_t>(b % 3);
        std::vector<std::int32_t> places(rows * kPlace);
        for (std::size_t row = 0; row < rows; ++row) {
            const auto r = static_cast<std::int32_t>(row);
            const std::int32_t top = r % 4, left = r % 3, tall = 1 + r * 5 % (9 - top), wide = 1 + r * 3 % (7 - left);
            const std::int32_t grid_y = r % 5 ? 1 + r * 7 % 11 : tall, grid_x = r % 5 ? 1 + r * 5 % 9 : wide;
            const std::int32_t place[kPlace] = {top, left, tall, wide, grid_y, grid_x, r * 3 % 7 - 3, r * 5 % 9 - 4};
            std::copy(place, place + kPlace, &places[row * kPlace]);
        }
        std::vector<std::uint8_t> out(rows * out_height * out_width * channels, 1), several(out.size(), 2);
        for (auto* const to : {&out, &several}) {
            resample({images.data(), height, width, channels, index.data(), batch, rows, places.data(), to->data(),
                      out_height, out_width},
                     to == &out ? 1 : 3);
        }
        CHECK(out == several);
        double most = 0;
        for (std::size_t i = 0; i < out.size(); ++i) {
            const std::size_t c = i % channels, x = i / channels % out_width, y = i / (channels * out_width) % out_height;
            const std::size_t row = i / (channels * out_width * out_height);
            const std::int32_t* const place = &places[row * kPlace];
            const int at_y = place[6] + static_cast<int>(y), at_x = place[7] + static_cast<int>(x);
            double sum = 0, weights = 0;
            if (at_y >= 0 && at_y < place[4] && at_x >= 0 && at_x < place[5]) {
                const auto weight = [](int tap, int at, std::int32_t length, std::int32_t grid) {
                    const double scale = 1.0 * length / grid;
                    return 1 - std::abs((tap + 0.5 - (at + 0.5) * scale) / std::max(1.0, scale));
                };
                for (int v = -20; v < 30; ++v) {
                    const double down = weight(v, at_y, place[2], place[4]);
                    for (int u = -20; u < 30 && down > 0; ++u) {
                        const double right = weight(u, at_x, place[3], place[5]);
                        if (right <= 0) continue;
                        const auto from_y = static_cast<std::size_t>(place[0] + std::clamp(v, 0, place[2] - 1));
                        const auto from_x = static_cast<std::size_t>(place[1] + std::clamp(u, 0, place[3] - 1));
                        const std::size_t line = static_cast<std::size_t>(index[row % batch]) * height + from_y;
                        sum += down * right * images[(line * width + from_x) * channels + c];
                        weights += down * right;
                    }
                }
            }
            most = std::max(most, std::abs(out[i] - (weights > 0 ? sum / weights : 0)));
        }
        CHECK(most < 1.01);  // two roundings
    }
}

// A batch with all that any rule takes, and what comes of it.
struct Batch {
    std::size_t rows, classes, samples;
    std::vector<float> logits, attention, share, targets, soft, columns, loss, gradient, dattention;
    std::vector<std::int64_t> labels, index, pair_labels, pair_index;

    Batch(std::size_t rows, std::size_t classes) : rows(rows), classes(classes), samples(rows + 3) {
        std::uint64_t next = 0;
        const auto uniform = [&] { return draw(3, Purpose::flip, next++, 0) / 65536.0f; };
        const auto fill = [&](std::vector<float>& values, std::size_t count, float from, float to) {
            values.resize(count);
            for (auto& value : values) value = from + (to - from) * uniform();
        };
        fill(logits, rows * classes, -8, 8);
        fill(attention, rows, -4, 4);
        fill(share, rows, 0, 1);
        for (auto* const table : {&targets, &soft, &columns}) {
            const std::size_t count = table == &targets ? samples : table == &soft ? rows : classes;
            fill(*table, count * classes, 0, 1);
            for (std::size_t row = 0; row < count; ++row) {  // rows that sum to 1, and of the targets some that are 0
                float* const values = table->data() + row * classes;
                const float sum = std::accumulate(values, values + classes, 0.0f);
                for (std::size_t c = 0; c < classes; ++c) {
                    values[c] = table == &targets && row % 3 == 0 ? 0 : values[c] / sum;
                }
            }
        }
        logits[0] = 300;  // whose other probabilities underflow
        for (std::size_t row = 0; row < rows; ++row) {
            labels.push_back(static_cast<std::int64_t>(row * row % classes));
            index.push_back(static_cast<std::int64_t>((row * 5 + 2) % rows));
            pair_labels.push_back(static_cast<std::int64_t>(row * 7 % classes));
            pair_index.push_back(static_cast<std::int64_t>(row));
        }
        loss.assign(rows, -1);
        dattention = loss;
        gradient.assign(rows * classes, -1);
    }

    static bool by_label(LossRule rule) { return rule == LossRule::forward || rule == LossRule::forward_clipped; }

    LossJob job(LossRule rule, const double* options) {
        const bool moving = rule == LossRule::ema || rule == LossRule::selc;
        const bool stepped = rule == LossRule::sop;
        const bool updates = moving || stepped || rule == LossRule::elr || rule == LossRule::nal;
        const bool pairs = rule == LossRule::elr_plus, soft_labels = rule == LossRule::soft_ce;
        return {rule,
                rows,
                classes,
                logits.data(),
                static_cast<std::ptrdiff_t>(classes),
                rule == LossRule::nal ? attention.data() : nullptr,
                soft_labels || rule == LossRule::ema ? nullptr : labels.data(),
                updates || pairs ? index.data() : nullptr,
                pairs ? pair_labels.data() : nullptr,
                pairs ? pair_index.data() : nullptr,
                pairs ? share.data() : nullptr,
                updates || pairs ? targets.data() : nullptr,
                samples,
                soft_labels ? soft.data() : by_label(rule) ? columns.data() : nullptr,
                updates,
                0.7f,
                3.0f,
                options,
                std::nullopt,
                loss.data(),
                gradient.data(),
                dattention.data()};
    }

    bool same(const Batch& other) const {
        const auto equal = [](const std::vector<float>& a, const std::vector<float>& b) {
            return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
        };
        return equal(loss, other.loss) && equal(gradient, other.gradient) && equal(dattention, other.dattention) &&
               equal(targets, other.targets);
    }
};

constexpr double kNoOptions[kMostOptions] = {}, kSwitchedOn[kMostOptions] = {1, 0.1, 0.5, -16, 0.1};

bool has_no_loss(LossRule rule) {
    return rule == LossRule::ema || rule == LossRule::look;
}

// Every rule gives the same bytes with every instruction set and with threads, and a gradient that sums to 0.
void test_losses() {
    for (std::size_t number = 0; number < std::size(kLossRules); ++number) {
        const auto rule = static_cast<LossRule>(number);
        for (const double* const options : {kNoOptions, kSwitchedOn}) {
            if (rule == LossRule::gce && options == kNoOptions) continue;  // q = 0
            for (const std::size_t classes : {2u, 3u, 5u, 10u, 16u, 17u, 40u}) {
                Batch expected(37, classes);
                CHECK(run_loss(expected.job(rule, options), 1));
                for (const Isa isa : kIsas) {
                    const LossFunction function = kernels_of(isa) ? loss_function(isa) : nullptr;
                    if (!function) continue;
                    Batch batch(37, classes);
                    const LossJob job = batch.job(rule, options);
                    std::vector<unsigned char> scratch(loss_scratch(classes));
                    const float* const read = job.given ? job.given : job.targets;
                    function(job, {read, job.given ? (Batch::by_label(rule) ? job.labels : nullptr) : job.index, nullptr}, 0, 37,
                             scratch.data());
                    CHECK(batch.same(expected));
                }
                if (has_no_loss(rule)) continue;
                for (std::size_t row = 0; row < 37; ++row) {
                    const float* const gradient = &expected.gradient[row * classes];
                    CHECK(std::isfinite(expected.loss[row]));
                    CHECK(std::abs(std::accumulate(gradient, gradient + classes, 0.0)) < 1e-5);
                }
            }
        }
        Batch one(700, 300), several(700, 300);  // enough for three threads
        CHECK(run_loss(one.job(rule, kSwitchedOn), 1) && run_loss(several.job(rule, kSwitchedOn), 3));
        CHECK(one.same(several));
    }
}

// A row that takes more scratch memory than the cache's share keeps within it.
void test_scratch() {
    constexpr std::size_t classes = 2100, beyond = 1 << 16;
    constexpr unsigned char mark = 0xA5;
    static_assert(loss_scratch(classes) > loss_scratch(2));
    const Batch made(3, classes);
    for (std::size_t number = 0; number < std::size(kLossRules); ++number) {
        const auto rule = static_cast<LossRule>(number);
        for (const Isa isa : kIsas) {
            const LossFunction function = kernels_of(isa) ? loss_function(isa) : nullptr;
            if (!function) continue;
            Batch batch = made;
            const LossJob job = batch.job(rule, kSwitchedOn);
            std::vector<unsigned char> scratch(loss_scratch(classes) + beyond, mark);
            const float* const read = job.given ? job.given : job.targets;
            function(job, {read, job.given ? (Batch::by_label(rule) ? job.labels : nullptr) : job.index, nullptr}, 0, 3,
                     scratch.data());
            CHECK(std::all_of(scratch.end() - beyond, scratch.end(), [](unsigned char byte) { return byte == mark; }));
        }
    }
}

// The reduced loss is that of the rows' losses whatever the threads, and the gradient is the scaled one.
void test_folded_losses() {
    for (std::size_t number = 0; number < std::size(kLossRules); ++number) {
        const auto rule = static_cast<LossRule>(number);
        if (has_no_loss(rule)) continue;
        for (const Reduction reduction : {Reduction::mean, Reduction::sum}) {
            Batch plain(700, 300), one = plain, several = plain;
            CHECK(run_loss(plain.job(rule, kSwitchedOn), 1));
            for (Batch* const batch : {&one, &several}) {
                LossJob job = batch->job(rule, kSwitchedOn);
                job.reduction = reduction;
                job.gradient_scale = 0.25f;
                CHECK(run_loss(job, batch == &one ? 1 : 3));
            }
            CHECK(one.same(several) && one.targets == plain.targets);
            const double sum = std::accumulate(plain.loss.begin(), plain.loss.end(), 0.0);
            const double expected = reduction == Reduction::mean ? sum / 700 : sum;
            CHECK(std::abs(one.loss[0] - expected) <= 1e-6 * std::max(1.0, std::abs(expected)));
            CHECK(std::all_of(one.loss.begin() + 1, one.loss.end(), [](float loss) { return loss == -1; }));
            for (std::size_t i = 0; i < plain.gradient.size(); ++i) CHECK(one.gradient[i] == 0.25f * plain.gradient[i]);
            if (rule != LossRule::nal) continue;
            for (std::size_t i = 0; i < 700; ++i) CHECK(one.dattention[i] == 0.25f * plain.dattention[i]);
        }
    }
    Batch none(1, 5);
    for (const Reduction reduction : {Reduction::mean, Reduction::sum}) {
        float loss = -1;
        LossJob job = none.job(LossRule::ce, kNoOptions);
        job.rows = 0;
        job.loss = &loss;
        job.reduction = reduction;
        CHECK(run_loss(job, 1));
        CHECK(reduction == Reduction::mean ? std::isnan(loss) : loss == 0);
    }
}

// A row with a logit of NaN or +inf, or such an attention, keeps its targets. One with -inf updates them.
void test_rows_that_are_not_finite() {
    const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
    for (const LossRule rule : {LossRule::elr, LossRule::ema, LossRule::selc, LossRule::nal}) {
        for (const double* const options : {kNoOptions, kSwitchedOn}) {
            for (const std::size_t classes : {3u, 10u, 40u}) {
                Batch batch(12, classes);
                std::fill(batch.attention.begin(), batch.attention.end(), 1.0f);  // opens the gate
                batch.logits[1 * classes + 2] = nan;
                batch.logits[2 * classes] = infinity;
                for (std::size_t c = 0; c < classes; ++c) batch.logits[3 * classes + c] = nan;
                batch.logits[4 * classes] = infinity;
                batch.logits[4 * classes + 1] = nan;
                batch.logits[5 * classes + 1] = -infinity;
                if (rule == LossRule::nal) batch.attention[6] = infinity, batch.attention[7] = nan;
                const Batch before = batch;
                CHECK(run_loss(batch.job(rule, options), 1));
                for (std::size_t row = 0; row < 12; ++row) {
                    const std::size_t at = static_cast<std::size_t>(batch.index[row]) * classes;
                    const float *const now = &batch.targets[at], *const was = &before.targets[at];
                    const bool spoilt = row >= 1 && row <= 4, closed = rule == LossRule::nal && (row == 6 || row == 7);
                    CHECK(std::equal(now, now + classes, was) == (spoilt || closed));
                    CHECK(std::all_of(now, now + classes, [](float target) { return std::isfinite(target); }));
                    if (spoilt && rule != LossRule::ema) CHECK(std::isnan(batch.loss[row]));
                }
            }
        }
    }
}

void test_cross_entropy_is_its_formula() {
    Batch batch(50, 21);
    LossJob job = batch.job(LossRule::ce, kNoOptions);
    job.ignore = batch.labels[7];
    CHECK(run_loss(job, 1));
    for (std::size_t row = 0; row < 50; ++row) {
        const float* const logits = &batch.logits[row * 21];
        double sum = 0;
        for (std::size_t c = 0; c < 21; ++c) sum += std::exp(static_cast<double>(logits[c]));
        const auto label = static_cast<std::size_t>(batch.labels[row]);
        const bool ignored = batch.labels[row] == batch.labels[7];
        const double loss = std::log(sum) - logits[label];
        CHECK(std::abs(batch.loss[row] - (ignored ? 0 : loss)) <= 1e-6 * std::max(1.0, loss));
        for (std::size_t c = 0; c < 21; ++c) {
            const double exact = std::exp(static_cast<double>(logits[c])) / sum - (c == label);
            CHECK(std::abs(batch.gradient[row * 21 + c] - (ignored ? 0 : exact)) < 1e-6);
        }
    }
}

void test_losses_refuse_what_lies_out_of_range() {
    for (const std::int64_t wrong : {std::int64_t{-1}, std::int64_t{100}, std::numeric_limits<std::int64_t>::min()}) {
        for (const bool label : {true, false}) {
            Batch batch(9, 5), before = batch;
            (label ? batch.labels : batch.index)[8] = wrong;
            CHECK(!run_loss(batch.job(LossRule::elr, kNoOptions), 1));
            CHECK(batch.same(before));
            LossJob job = batch.job(LossRule::elr, kNoOptions);
            batch.labels[8] = wrong;
            job.ignore = wrong;
            CHECK(run_loss(job, 1) && batch.loss[8] == 0);
        }
    }
}

// Each of the repeated rows is what it is alone, and the last one's update stays.
void test_repeated_indices() {
    Batch batch(40, 11);
    for (std::size_t row = 0; row < 40; ++row) batch.index[row] = static_cast<std::int64_t>(row % 13);
    const Batch before = batch;
    CHECK(run_loss(batch.job(LossRule::elr, kNoOptions), 1));
    for (std::size_t row = 0; row < 40; ++row) {
        Batch alone = before;
        LossJob job = alone.job(LossRule::elr, kNoOptions);
        job.rows = 1;
        job.logits += row * 11;
        job.labels += row;
        job.index += row;
        CHECK(run_loss(job, 1));
        CHECK(alone.loss[0] == batch.loss[row]);
        CHECK(std::equal(&alone.gradient[0], &alone.gradient[11], &batch.gradient[row * 11]));
        const std::size_t at = row % 13 * 11;
        if (row >= 27) CHECK(std::equal(&alone.targets[at], &alone.targets[at] + 11, &batch.targets[at]));
    }
}

void test_chosen_instruction_set() {
    CHECK(kernels_of(Isa::generic) != nullptr);
    const char* const forced = std::getenv("FASTNOISE_FORCE_ISA");
    CHECK(!forced || name_of(kernels().isa) == std::string(forced));
    std::printf("%s\n", name_of(kernels().isa));
}

// Every shape in memory of its very size, so that AddressSanitizer sees what is read or written beside it.
void test_max_pooling() {
    for (const std::size_t count : {0, 1, 3}) {
        for (std::size_t height = 1; height < 8; ++height) {
            for (std::size_t width = 1; width < 8; ++width) {
                for (const std::size_t channels : {1, 3, 6, 8, 9, 17}) {
                    const std::size_t size = count * height * width * channels;
                    const std::size_t rows = height / 2, pixels = width / 2, small = count * rows * pixels * channels;
                    std::vector<float> images(size), pooled(small, -1), given(small), gradient(size, -1), expected(size);
                    std::vector<std::uint8_t> places(small, 9);
                    for (std::size_t i = 0; i < size; ++i) {
                        images[i] = i % 61 == 5 ? std::nanf("") : static_cast<float>(draw(1, Purpose::flip, i, 0) % 5);
                    }
                    for (std::size_t i = 0; i < small; ++i) given[i] = static_cast<float>(i + 1);
                    max_pool(images.data(), count, height, width, channels, pooled.data(), places.data());
                    max_pool_gradient(given.data(), places.data(), count, height, width, channels, gradient.data());
                    for (std::size_t i = 0; i < small; ++i) {
                        const std::size_t c = i % channels, x = i / channels % pixels;
                        const std::size_t y = i / channels / pixels % rows, image = i / channels / pixels / rows;
                        std::size_t best = 0;
                        float most = -1;
                        for (std::size_t k = 0; k < 4; ++k) {
                            const std::size_t row = image * height + 2 * y + k / 2, at = (row * width + 2 * x + k % 2);
                            const float value = images[at * channels + c];
                            if (!(value > most) && value == value) continue;
                            most = value;
                            best = at * channels + c;
                        }
                        CHECK(std::memcmp(&most, &pooled[i], sizeof most) == 0);
                        expected[best] = given[i];
                    }
                    CHECK(gradient == expected);
                }
            }
        }
    }
}

void test_spare_memory() {
    Spare spare;
    const std::size_t megabyte = std::size_t{1} << 20;
    const Spare::Block first = spare.take(megabyte);
    CHECK(first.size >= megabyte && reinterpret_cast<std::uintptr_t>(first.data) % 64 == 0);
    std::memset(first.data, 1, first.size);
    spare.give(first);
    CHECK(spare.kept() == first.size);
    const Spare::Block small = spare.take(megabyte / 4);  // the one kept is more than twice as large
    CHECK(small.data != first.data && spare.kept() == first.size);
    const Spare::Block again = spare.take(megabyte - 5'000);
    CHECK(again.data == first.data && spare.kept() == 0);
    const Spare::Block large = spare.take(Spare::kMost + 1), half = spare.take(Spare::kMost / 2 + 5);
    CHECK(large.size > Spare::kMost && half.size > Spare::kMost / 2);
    std::memset(half.data, 1, half.size);
    spare.give(again);
    spare.give(small);
    spare.give(half);
    CHECK(spare.kept() == again.size + small.size + half.size);
    const Spare::Block other = spare.take(half.size / 2);
    CHECK(other.data == half.data);  // twice as large, which is allowed
    const Spare::Block late = spare.take(Spare::kMost / 2 + 5);
    spare.give(other);
    spare.give(late);  // no room for all: the oldest go
    CHECK(spare.kept() == late.size);
    spare.give(large);  // never kept
    CHECK(spare.kept() == late.size);
    bool refused = false;
    try {
        spare.take(~std::size_t{});
    } catch (const std::bad_alloc&) {
        refused = true;
    }
    CHECK(refused);
}

}  // namespace

int main() {
    test_philox_known_answers();
    test_group_and_single_draws_agree();
    test_draws_of_other_seeds_purposes_samples_and_attempts_are_independent();
    test_bounded_is_uniform();
    test_bounded_rejects();
    test_ties_are_drawn_further();
    test_edge_rates_at_the_extreme_numbers();
    test_edge_rates();
    test_flips_nest_as_the_rate_grows();
    test_threads_and_label_types_do_not_matter();
    test_bad_labels_are_named();
    test_models_are_their_descriptions();
    test_many_classes();
    test_parallel_for();
    test_every_instruction_set_gives_the_same_bytes();
    test_sweep_is_single_calls();
    test_quotas();
    test_alias_tables();
    test_consensus();
    test_augmented_images();
    test_normalised_rows();
    test_resampled_images();
    test_losses();
    test_scratch();
    test_folded_losses();
    test_rows_that_are_not_finite();
    test_cross_entropy_is_its_formula();
    test_losses_refuse_what_lies_out_of_range();
    test_repeated_indices();
    test_max_pooling();
    test_spare_memory();
    test_chosen_instruction_set();
    std::printf(failures ? "%d checks failed\n" : "all checks passed\n", failures);
    return failures != 0;
}
