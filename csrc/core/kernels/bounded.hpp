// Part of kernels_body.hpp: uniform integers below a bound, and the numbers that they are made of.

// A batch's numbers: of `flip`, and of `target` at attempts 0 and 1.
struct Numbers {
    std::uint16_t flip[kBatchSize], target[kBatchSize], next[kBatchSize];
};

// `bounded` for a group and n above kShortBound, from the numbers of attempts 0 and 1.
inline void bounded_group(std::uint32_t n, std::uint64_t seed, Purpose purpose, std::uint64_t group,
                          const std::uint16_t* number, const std::uint16_t* next, std::uint32_t* value) {
    const std::uint32_t reject_below = (0u - n) % n;
    std::uint32_t rejected = 0;
    for (std::size_t j = 0; j < kGroup; ++j) {
        const std::uint64_t product = std::uint64_t{std::uint32_t{number[j]} << 16 | next[j]} * n;
        value[j] = static_cast<std::uint32_t>(product >> 32);
        rejected |= static_cast<std::uint32_t>(product) < reject_below;
    }
    if (!rejected) return;
    for (std::size_t j = 0; j < kGroup; ++j) value[j] = bounded(n, seed, purpose, group * kGroup + j);
}

// The same for n up to kShortBound.
template <std::size_t groups>
inline void bounded_words(std::uint32_t n, std::uint64_t seed, Purpose purpose, std::uint64_t group,
                          const std::uint16_t* number, Words<groups>& value) {
    const auto reject_below = static_cast<std::uint16_t>((0x10000u - n) % n);
    const Shorts factor = Shorts{} + static_cast<std::uint16_t>(n);
    Shorts rejected[value.parts], all{};
    for (std::size_t p = 0; p < value.parts; ++p) {
        const Shorts x = loaded<Shorts>(number + p * kShorts);
        value.part[p] = multiply_high(x, factor);
        rejected[p] = reinterpret_cast<Shorts>(x * factor < Shorts{} + reject_below);
        all |= rejected[p];
    }
    if (!any(all)) return;
    for (std::size_t p = 0; p < value.parts; ++p) {
        if (!any(rejected[p])) continue;
        for (std::size_t j = 0; j < kShorts; ++j) {
            if (!rejected[p][j]) continue;
            value.part[p][j] = static_cast<std::uint16_t>(bounded(n, seed, purpose, group * kGroup + p * kShorts + j));
        }
    }
}

static void draw_numbers(std::uint64_t seed, Purpose purpose, std::uint32_t attempt, std::uint64_t begin,
                         std::uint64_t end, std::uint16_t* numbers) {
    std::uint16_t batch[kBatchSize];
    for (std::uint64_t group = begin; group < end;) {
        const std::uint64_t base = group / kBatch * kBatch, until = end < base + kBatch ? end : base + kBatch;
        draw_batch(seed, purpose, attempt, base, batch);
        std::memcpy(numbers + (group - begin) * kGroup, batch + (group - base) * kGroup,
                    (until - group) * kGroup * sizeof *batch);
        group = until;
    }
}

static void draw_bounded(std::uint32_t n, std::uint64_t seed, Purpose purpose, std::uint64_t begin, std::uint64_t end,
                         std::uint32_t* values) {
    for (std::uint64_t group = begin; group < end; ++group) {
        std::uint16_t number[2][kGroup];
        for (std::uint32_t attempt = 0; attempt < 2; ++attempt) {
            draw_numbers(seed, purpose, attempt, group, group + 1, number[attempt]);
        }
        std::uint32_t* const value = values + (group - begin) * kGroup;
        if (n > kShortBound) {
            bounded_group(n, seed, purpose, group, number[0], number[1], value);
        } else {
            Words<1> words;
            bounded_words(n, seed, purpose, group, number[0], words);
            store(words, value);
        }
    }
}
