// Which random number belongs to which sample.
//
// Sample i has one 32-bit word for every (seed, purpose, attempt), whatever the threads, chunks or other samples:
//
//     group = i / 64,  lane = i % 64
//     block = 16 group + lane % 16
//     word  = philox4x32(counter = (block low, block high, purpose, attempt), key = (seed low, seed high))[lane / 16]
//
// Four samples share a block, as a block costs the same whether one or four of its words are used; and word w of the
// 16 blocks of a group serves 16 neighbouring samples, so that a vector of blocks is stored without a transposition.
// Attempt 0 nearly always decides; attempts 1, 2, ... continue where 32 bits can't do so exactly.
//
// Every noise model takes the words of `flip` to decide whether a label changes, and those of `target` to decide what
// it becomes. Neither depends on the rate, so one pass over the draws can serve many rates, and the flipped sets nest:
// with the same seed, what flips at rate r flips, to the same class, at every rate above r (common random numbers).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/philox.hpp"

namespace fastnoise {

enum class Purpose : std::uint32_t { flip = 0, target = 1 };

inline constexpr std::size_t kGroup = 64;
inline constexpr std::size_t kLanes = kGroup / 4;

using Group = std::array<std::uint32_t, kGroup>;  // one word for each sample of a group

// The words of samples 64 group .. 64 group + 63.
inline void draw_group(std::uint64_t seed, Purpose purpose, std::uint64_t group, Group& words) {
    std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
    const std::uint64_t block = group * kLanes;
    std::uint32_t* const x = words.data();
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
        x[lane] = static_cast<std::uint32_t>(block + lane);
        x[kLanes + lane] = static_cast<std::uint32_t>(block >> 32);
        x[2 * kLanes + lane] = static_cast<std::uint32_t>(purpose);
        x[3 * kLanes + lane] = 0;
    }
    for (int round = 0; round < kPhiloxRounds; ++round, k0 += kPhiloxWeyl0, k1 += kPhiloxWeyl1) {
        for (std::size_t lane = 0; lane < kLanes; ++lane) {
            philox_round(x[lane], x[kLanes + lane], x[2 * kLanes + lane], x[3 * kLanes + lane], k0, k1);
        }
    }
}

// The word of one sample.
inline std::uint32_t draw(std::uint64_t seed, Purpose purpose, std::uint64_t sample, std::uint32_t attempt) {
    const std::uint64_t lane = sample % kGroup, block = sample / kGroup * kLanes + lane % kLanes;
    return philox4x32({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                       static_cast<std::uint32_t>(purpose), attempt},
                      {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)})[lane / kLanes];
}

// u < rate for a uniform u of 64 bits, whose upper half is attempt 0 of the sample's draw. The lower half, attempt 1,
// is drawn only where the upper one ties, so that the probability is exact to 2^-64 at the price of 32 bits.
class Threshold {
  public:
    // rate in [0, 1], which the caller has checked
    explicit Threshold(double rate) {
        if (rate < 1) {
            const auto bound = static_cast<std::uint64_t>(rate * 0x1p64);
            high_ = static_cast<std::uint32_t>(bound >> 32);
            low_ = static_cast<std::uint32_t>(bound);
        } else {  // 2^64, for which high_ has no room
            high_ = ~0u;
            low_ = std::uint64_t{1} << 32;
        }
    }

    // noisy[j] = target[j] where sample 64 group + j flips, else label[j].
    void select(std::uint64_t seed, std::uint64_t group, const Group& label, const Group& target, Group& noisy) const {
        Group word;
        draw_group(seed, Purpose::flip, group, word);
        std::uint32_t ties = 0;
        for (std::size_t j = 0; j < kGroup; ++j) {
            // A mask, since g++ makes a branch of a choice, which random words mispredict (5.4 against 1.8 ns a label).
            const std::uint32_t mask = 0u - static_cast<std::uint32_t>(word[j] < high_);
            noisy[j] = label[j] ^ ((label[j] ^ target[j]) & mask);
            ties |= word[j] == high_;
        }
        if (!ties) return;
        for (std::size_t j = 0; j < kGroup; ++j) {
            if (word[j] == high_ && draw(seed, Purpose::flip, group * kGroup + j, 1) < low_) noisy[j] = target[j];
        }
    }

  private:
    std::uint32_t high_;
    std::uint64_t low_;
};

// A uniform integer in [0, n), n >= 1, from the sample's word; exact, by rejection: Lemire, "Fast random integer
// generation in an interval" (ACM TOMACS 2019, arXiv 1805.10941). The upper half of word * n is uniform once the words
// whose lower half falls below 2^32 mod n are drawn anew.
inline std::uint32_t bounded(std::uint32_t word, std::uint32_t n, std::uint64_t seed, Purpose purpose,
                             std::uint64_t sample) {
    std::uint64_t product = std::uint64_t{word} * n;
    const std::uint32_t reject_below = (0u - n) % n;
    for (std::uint32_t attempt = 1; static_cast<std::uint32_t>(product) < reject_below; ++attempt) {
        product = std::uint64_t{draw(seed, purpose, sample, attempt)} * n;
    }
    return static_cast<std::uint32_t>(product >> 32);
}

// `bounded` for a whole group. 2^32 mod n < n, so no lower half below n means that no word was to be rejected.
inline void bounded_group(std::uint32_t n, std::uint64_t seed, Purpose purpose, std::uint64_t group, Group& value) {
    Group word;
    draw_group(seed, purpose, group, word);
    std::uint32_t unsure = 0;
    for (std::size_t j = 0; j < kGroup; ++j) {
        const std::uint64_t product = std::uint64_t{word[j]} * n;
        value[j] = static_cast<std::uint32_t>(product >> 32);
        unsure |= static_cast<std::uint32_t>(product) < n;
    }
    if (!unsure) return;
    for (std::size_t j = 0; j < kGroup; ++j) value[j] = bounded(word[j], n, seed, purpose, group * kGroup + j);
}

}  // namespace fastnoise
