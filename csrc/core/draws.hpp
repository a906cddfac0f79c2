// Which random number belongs to which sample.
//
// Sample i has one 32-bit word for every (seed, purpose, attempt), whatever the threads, chunks or other samples:
//
//     group = i / 64,  lane = i % 64
//     block = 16 group + lane % 16
//     word  = philox4x32(counter = (block low, block high, purpose, attempt), key = (seed low, seed high))[lane / 16]
//
// Four samples share a block, as a block costs the same whether one or four of its words are used; and word w of the
// 16 blocks of a group serves 16 neighbouring samples, so that a vector of blocks is stored without a transposition
// (draw_group in kernels_body.hpp). Attempt 0 nearly always decides; attempts 1, 2, ... continue where 32 bits can't do
// so exactly.
//
// Every noise model takes the words of `flip` to decide whether a label changes, and those of `target` to decide what
// it becomes. Neither depends on the rate, so one pass over the draws can serve many rates, and the flipped sets nest:
// with the same seed, what flips at rate r flips, to the same class, at every rate above r (common random numbers).
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/philox.hpp"

namespace fastnoise {

enum class Purpose : std::uint32_t { flip = 0, target = 1 };

inline constexpr std::size_t kGroup = 64;
inline constexpr std::size_t kLanes = kGroup / 4;

// The word of one sample.
inline std::uint32_t draw(std::uint64_t seed, Purpose purpose, std::uint64_t sample, std::uint32_t attempt) {
    const std::uint64_t lane = sample % kGroup, block = sample / kGroup * kLanes + lane % kLanes;
    return philox4x32({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                       static_cast<std::uint32_t>(purpose), attempt},
                      {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)})[lane / kLanes];
}

// u < rate for a uniform u of 64 bits, whose upper half is attempt 0 of the sample's draw. The lower half, attempt 1,
// is drawn only where the upper one equals `high`, so that the probability is exact to 2^-64 at the price of 32 bits.
struct Threshold {
    std::uint32_t high;
    std::uint64_t low;  // up to 2^32

    // rate in [0, 1], which the caller has checked
    static Threshold of(double rate) {
        if (rate >= 1) return {~0u, std::uint64_t{1} << 32};  // 2^64, for which `high` has no room
        const auto bound = static_cast<std::uint64_t>(rate * 0x1p64);
        return {static_cast<std::uint32_t>(bound >> 32), bound & 0xffffffffu};
    }
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

}  // namespace fastnoise
