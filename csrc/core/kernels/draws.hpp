// Part of kernels_body.hpp: the random numbers of a batch of groups.

// One attempt's numbers of groups [group, group + kBatch), for a multiple of kBatch. Its blocks differ in the counter's
// first word alone, so that the first two rounds are partly the same for all. The multiplications ignore the upper
// halves of 64-bit lanes, so no round has to clear them. A call of its own, so that the rest of a batch, of which it is
// half, can be inlined.
__attribute__((noinline)) static void draw_batch(std::uint64_t seed, Purpose purpose, std::uint32_t attempt,
                                                 std::uint64_t group, std::uint16_t* numbers) {
    constexpr std::size_t width = sizeof(Wide) / 8;  // blocks per vector
    const Wide zero{};
    Wide iota{};
    for (std::size_t lane = 0; lane < width; ++lane) iota[lane] = lane;
    const Wide multiplier0 = zero + kPhiloxMultiplier0, multiplier1 = zero + kPhiloxMultiplier1;
    const std::uint64_t start = group * kBlocks;
    const std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
    const std::uint64_t first = std::uint64_t{kPhiloxMultiplier1} * static_cast<std::uint32_t>(purpose);
    const std::uint32_t x0 = static_cast<std::uint32_t>(first >> 32) ^ static_cast<std::uint32_t>(start >> 32) ^ k0;
    const std::uint64_t second = std::uint64_t{kPhiloxMultiplier0} * x0;
    const Wide mix1 = zero + (attempt ^ k1), mix2 = zero + (static_cast<std::uint32_t>(first) ^ (k0 + kPhiloxWeyl0));
    const Wide mix3 = zero + (static_cast<std::uint32_t>(second >> 32) ^ (k1 + kPhiloxWeyl1));
    for (std::size_t block = 0; block < kBatch * kBlocks; block += kVectors * width) {
        Wide x[4][kVectors];
        for (std::size_t v = 0; v < kVectors; ++v) {
            const Wide p0 = multiply_low(iota + (start + block + v * width), multiplier0);
            const Wide p1 = multiply_low((p0 >> 32) ^ mix1, multiplier1);
            x[0][v] = (p1 >> 32) ^ mix2;
            x[1][v] = p1;
            x[2][v] = p0 ^ mix3;
            x[3][v] = zero + second;
        }
        Wide key0 = zero + (k0 + 2 * kPhiloxWeyl0), key1 = zero + (k1 + 2 * kPhiloxWeyl1);
#pragma GCC unroll 8
        for (int round = 2; round < kPhiloxRounds; ++round, key0 += kPhiloxWeyl0, key1 += kPhiloxWeyl1) {
            for (std::size_t v = 0; v < kVectors; ++v) {
                const Wide p0 = multiply_low(x[0][v], multiplier0), p1 = multiply_low(x[2][v], multiplier1);
                x[0][v] = (p1 >> 32) ^ x[1][v] ^ key0;
                x[2][v] = (p0 >> 32) ^ x[3][v] ^ key1;
                x[1][v] = p1;
                x[3][v] = p0;
            }
        }
        for (std::size_t v = 0; v < kVectors; ++v) {
            const std::size_t at = block + v * width;
            std::uint16_t* const to = numbers + at / kBlocks * kGroup + at % kBlocks * 4;
            const Wide lower = (x[0][v] & 0xffffffffu) | x[1][v] << 32, upper = (x[2][v] & 0xffffffffu) | x[3][v] << 32;
            std::memcpy(to, &lower, sizeof lower);
            std::memcpy(to + kGroup / 2, &upper, sizeof upper);
        }
    }
}
