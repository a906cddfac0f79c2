// Philox4x32-7, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
// 1, 2, 3" (SC 2011): a keyed bijection of 128-bit counters, so that any number of a stream can be had alone. 7 rounds
// are the fewest that they call Crush-resistant (their table 2); 10, their default, take 1.4 times as long.
#pragma once

#include <array>
#include <cstdint>

namespace fastnoise {

inline constexpr int kPhiloxRounds = 7;
inline constexpr std::uint32_t kPhiloxMultiplier0 = 0xD2511F53u, kPhiloxMultiplier1 = 0xCD9E8D57u;
inline constexpr std::uint32_t kPhiloxWeyl0 = 0x9E3779B9u, kPhiloxWeyl1 = 0xBB67AE85u;

inline std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
    auto& [x0, x1, x2, x3] = counter;
    auto& [k0, k1] = key;
    for (int round = 0; round < kPhiloxRounds; ++round, k0 += kPhiloxWeyl0, k1 += kPhiloxWeyl1) {
        const std::uint64_t p0 = std::uint64_t{kPhiloxMultiplier0} * x0;
        const std::uint64_t p1 = std::uint64_t{kPhiloxMultiplier1} * x2;
        x0 = static_cast<std::uint32_t>(p1 >> 32) ^ x1 ^ k0;
        x2 = static_cast<std::uint32_t>(p0 >> 32) ^ x3 ^ k1;
        x1 = static_cast<std::uint32_t>(p1);
        x3 = static_cast<std::uint32_t>(p0);
    }
    return counter;
}

}  // namespace fastnoise
