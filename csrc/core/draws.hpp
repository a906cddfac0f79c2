// Which random number belongs to which sample.
//
// Sample i has one 16-bit number for every (seed, purpose, attempt), whatever the threads, chunks or other samples:
//
//     group  = i / 64,  j = i % 64
//     block  = 8 group + j % 32 / 4
//     words  = philox4x32(counter = (block low, block high, purpose, attempt), key = (seed low, seed high))
//     number = words[2 (j / 32) + j % 4 / 2] >> 16 (j % 2), of which the lower 16 bits
//
// Eight samples share a block, as a block costs the same whatever part of it is used; and two words of all 8 blocks of a
// group serve 32 neighbouring samples, so that a vector of blocks is stored without a transposition (draw_batch in
// kernels_body.hpp). Attempt 0 nearly always decides; attempts 1, 2, ... continue where 16 bits can't do so exactly.
//
// Every noise model takes the numbers of `flip` to decide whether a label changes, and those of `target` to decide what
// it becomes. Neither depends on the rate, so one pass over the draws can serve many rates, and the flipped sets nest:
// with the same seed, what flips at rate r flips, to the same class, at every rate above r (common random numbers).
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/philox.hpp"

namespace fastnoise {

enum class Purpose : std::uint32_t { flip = 0, target = 1 };

inline constexpr std::size_t kGroup = 64;
inline constexpr std::size_t kBlocks = kGroup / 8;  // of a group

// The number of one sample.
inline std::uint16_t draw(std::uint64_t seed, Purpose purpose, std::uint64_t sample, std::uint32_t attempt) {
    const std::uint64_t j = sample % kGroup, block = sample / kGroup * kBlocks + j % 32 / 4;
    const auto words = philox4x32({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                                   static_cast<std::uint32_t>(purpose), attempt},
                                  {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
    return static_cast<std::uint16_t>(words[j / 32 * 2 + j % 4 / 2] >> (j % 2 * 16));
}

// Its numbers of two attempts, that of `attempt` above.
inline std::uint32_t draw_pair(std::uint64_t seed, Purpose purpose, std::uint64_t sample, std::uint32_t attempt) {
    return std::uint32_t{draw(seed, purpose, sample, attempt)} << 16 | draw(seed, purpose, sample, attempt + 1);
}

// u < rate for a uniform u of 48 bits, whose uppermost 16 are attempt 0 of the sample's draw for `flip`. The others,
// attempts 1 and 2, are drawn only where those equal `high`, so that the probability is exact to 2^-48 at the price of
// 16 bits.
struct Threshold {
    std::uint16_t high;
    std::uint64_t low;  // up to 2^32

    // rate in [0, 1], which the caller has checked
    static Threshold of(double rate) {
        if (rate >= 1) return {0xffff, std::uint64_t{1} << 32};  // 2^48, for which `high` has no room
        const auto bound = static_cast<std::uint64_t>(rate * 0x1p48);
        return {static_cast<std::uint16_t>(bound >> 32), bound & 0xffffffffu};
    }
};

// The lower 32 bits of u.
inline std::uint32_t further(std::uint64_t seed, std::uint64_t sample) {
    return draw_pair(seed, Purpose::flip, sample, 1);
}

// Up to here uniform integers below n are drawn from 16 bits, of which a share of less than n / 2^16 is rejected; above
// from 32.
inline constexpr std::uint32_t kShortBound = 1024;

// A uniform integer in [0, n), n >= 1, exact by rejection: Lemire, "Fast random integer generation in an interval"
// (ACM TOMACS 2019, arXiv 1805.10941). For x of b bits the upper half of x n is uniform once those x whose lower half
// falls below 2^b mod n are drawn anew.
inline std::uint32_t bounded(std::uint32_t n, std::uint64_t seed, Purpose purpose, std::uint64_t sample) {
    if (n <= kShortBound) {
        const std::uint32_t reject_below = (0x10000u - n) % n;
        for (std::uint32_t attempt = 0;; ++attempt) {
            const std::uint32_t product = draw(seed, purpose, sample, attempt) * n;
            if ((product & 0xffffu) >= reject_below) return product >> 16;
        }
    }
    const std::uint32_t reject_below = (0u - n) % n;
    for (std::uint32_t attempt = 0;; attempt += 2) {
        const std::uint64_t product = std::uint64_t{draw_pair(seed, purpose, sample, attempt)} * n;
        if (static_cast<std::uint32_t>(product) >= reject_below) return static_cast<std::uint32_t>(product >> 32);
    }
}

}  // namespace fastnoise
