#include "core/resample.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/parallel.hpp"
#include "core/philox.hpp"

namespace fastnoise {
namespace {

constexpr std::size_t kNumbersPerThread = 1 << 18;
constexpr int kBits = 32 - 8 - 2;  // of a weight's fraction, as in Pillow's Resample.c

// How the pixels of one dimension come about: pixel i of start..stop - 1 is the sum over t of weights[i][t] times the
// part's pixel at clamp(first[i] + t).
struct Taps {
    std::size_t start, stop, width;
    std::vector<std::int64_t> first;
    std::vector<std::int32_t> weights;  // [size, width]
    std::int64_t length;
    bool plain;  // every pixel is one of the part's

    Taps(std::int64_t part, std::int64_t grid, std::int64_t corner, std::size_t size)
        : first(size), length(part), plain(part == grid) {
        const auto bound = [size](std::int64_t place) {
            return static_cast<std::size_t>(std::clamp<std::int64_t>(place, 0, static_cast<std::int64_t>(size)));
        };
        start = bound(-corner);
        stop = std::max(start, bound(grid - corner));
        const double scale = static_cast<double>(part) / static_cast<double>(grid), support = std::max(scale, 1.0);
        width = static_cast<std::size_t>(std::ceil(support)) * 2 + 1;
        weights.assign(size * width, 0);
        std::vector<double> real(width);
        for (std::size_t i = start; i < stop; ++i) {
            const double centre = (static_cast<double>(corner + static_cast<std::int64_t>(i)) + 0.5) * scale;
            const auto low = static_cast<std::int64_t>(std::floor(centre - support + 0.5));
            const auto high = static_cast<std::int64_t>(std::floor(centre + support + 0.5));
            const auto taps = static_cast<std::size_t>(high - low);
            double sum = 0;
            for (std::size_t t = 0; t < taps; ++t) {
                const double distance = std::abs((static_cast<double>(low + static_cast<std::int64_t>(t)) - centre + 0.5) / support);
                sum += real[t] = distance < 1 ? 1 - distance : 0;
            }
            for (std::size_t t = 0; t < taps; ++t) {
                weights[i * width + t] = static_cast<std::int32_t>(real[t] / sum * (1 << kBits) + 0.5);
            }
            first[i] = low;
        }
    }

    std::int64_t place(std::size_t i, std::size_t tap) const {
        return std::clamp<std::int64_t>(first[i] + static_cast<std::int64_t>(tap), 0, length - 1);
    }
};

inline std::uint8_t rounded(std::int32_t sum) {
    return static_cast<std::uint8_t>(std::clamp((sum + (1 << (kBits - 1))) >> kBits, 0, 255));
}

template <std::size_t kChannels>
void across(const std::uint8_t* line, const Taps& taps, std::size_t channels, std::uint8_t* out) {
    const std::size_t step = kChannels ? kChannels : channels;
    for (std::size_t i = taps.start; i < taps.stop; ++i) {
        const std::int32_t* const weights = taps.weights.data() + i * taps.width;
        for (std::size_t c = 0; c < step; ++c) {
            std::int32_t sum = 0;
            for (std::size_t t = 0; t < taps.width; ++t) {
                sum += weights[t] * line[static_cast<std::size_t>(taps.place(i, t)) * step + c];
            }
            out[i * step + c] = rounded(sum);
        }
    }
}

void resample_rows(const Resampling& job, std::size_t begin, std::size_t end) {
    const std::size_t channels = job.channels, line = job.out_width * channels, size = job.out_height * line;
    std::vector<std::uint8_t> between;
    std::vector<std::int32_t> sums(line);
    for (std::size_t row = begin; row < end; ++row) {
        const std::int32_t* const place = job.places + row * kPlace;
        const Taps down(place[2], place[4], place[6], job.out_height), right(place[3], place[5], place[7], job.out_width);
        const auto source = static_cast<std::size_t>(job.index[row % job.batch]) * job.height;
        const auto pixels = [&](std::int64_t y) {
            const std::size_t from = (source + static_cast<std::size_t>(place[0] + y)) * job.width;
            return job.images + (from + static_cast<std::size_t>(place[1])) * channels;
        };
        std::uint8_t* const out = job.out + row * size;
        std::memset(out, 0, size);
        if (down.start == down.stop || right.start == right.stop) continue;
        const std::size_t left = right.start * channels, bytes = (right.stop - right.start) * channels;
        if (down.plain && right.plain) {
            for (std::size_t y = down.start; y < down.stop; ++y) {
                const auto column = static_cast<std::size_t>(place[7] + static_cast<std::int64_t>(right.start));
                std::memcpy(out + y * line + left,
                            pixels(place[6] + static_cast<std::int64_t>(y)) + column * channels, bytes);
            }
            continue;
        }
        const std::int64_t top = down.place(down.start, 0), bottom = down.place(down.stop - 1, down.width - 1);
        between.resize(static_cast<std::size_t>(bottom - top + 1) * line);
        const auto pass = channels == 3 ? across<3> : channels == 1 ? across<1> : across<0>;
        for (std::int64_t y = top; y <= bottom; ++y) {
            pass(pixels(y), right, channels, between.data() + static_cast<std::size_t>(y - top) * line);
        }
        for (std::size_t y = down.start; y < down.stop; ++y) {
            std::fill(sums.begin(), sums.end(), 0);
            for (std::size_t t = 0; t < down.width; ++t) {
                const std::int32_t weight = down.weights[y * down.width + t];
                if (!weight) continue;
                const std::uint8_t* const from = between.data() + static_cast<std::size_t>(down.place(y, t) - top) * line;
                for (std::size_t i = left; i < left + bytes; ++i) sums[i] += weight * from[i];
            }
            for (std::size_t i = left; i < left + bytes; ++i) out[y * line + i] = rounded(sums[i]);
        }
    }
}

}  // namespace

void resample(const Resampling& job, unsigned threads) {
    const std::size_t size = job.out_height * job.out_width * job.channels;
    const std::size_t grain = std::max<std::size_t>(1, kNumbersPerThread / std::max<std::size_t>(1, size));
    parallel_for(job.rows, grain, threads, [&](std::size_t begin, std::size_t end) { resample_rows(job, begin, end); });
}

void uniforms(const std::uint64_t* keys, std::size_t rows, std::uint32_t purpose, std::size_t count, double* out) {
    for (std::size_t row = 0; row < rows; ++row) {
        const std::array<std::uint32_t, 2> key{static_cast<std::uint32_t>(keys[row]),
                                               static_cast<std::uint32_t>(keys[row] >> 32)};
        for (std::size_t i = 0; i < count; i += 4) {
            const auto words = philox4x32({static_cast<std::uint32_t>(i / 4), purpose, 0, 0}, key);
            for (std::size_t k = 0; k < std::min<std::size_t>(4, count - i); ++k) {
                out[row * count + i + k] = words[k] * 0x1p-32;
            }
        }
    }
}

}  // namespace fastnoise
