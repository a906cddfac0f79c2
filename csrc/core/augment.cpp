#include "core/augment.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/parallel.hpp"

namespace fastnoise {
namespace {

constexpr std::size_t kNumbersPerThread = 1 << 20;  // a few hundred microseconds: ten times what a thread costs

// The part of [0, size) that lies in [first, first + length).
struct Span {
    std::size_t begin, end;
    Span(std::int64_t first, std::int64_t length, std::size_t size)
        : begin(static_cast<std::size_t>(std::clamp<std::int64_t>(first, 0, static_cast<std::int64_t>(size)))),
          end(static_cast<std::size_t>(std::clamp<std::int64_t>(first + length, 0, static_cast<std::int64_t>(size)))) {}
};

// Pixels in reverse order; kChannels is the number of channels, or 0 where only `channels` knows.
template <std::size_t kChannels>
void mirror(const std::uint8_t* from, std::size_t width, std::size_t channels, std::uint8_t* to) {
    const std::size_t step = kChannels ? kChannels : channels;
    for (std::size_t x = 0; x < width; ++x) {
        const std::uint8_t* const pixel = from + (width - 1 - x) * step;
        for (std::size_t c = 0; c < step; ++c) to[x * step + c] = pixel[c];
    }
}

void augment_rows(const Augmentation& job, std::size_t first, std::size_t last) {
    const std::size_t line = job.width * job.channels, size = job.height * line;
    const auto height = static_cast<std::int64_t>(job.height), width = static_cast<std::int64_t>(job.width);
    // Constants for a whole line: loops over the channels of single pixels are too short to run as vectors.
    std::vector<float> mean(line), scale(line);
    for (std::size_t i = 0; i < line; ++i) {
        mean[i] = job.mean[i % job.channels];
        scale[i] = job.scale[i % job.channels];
    }
    std::vector<std::uint8_t> cropped(line), mirrored(line);
    for (std::size_t row = first; row < last; ++row) {
        const std::uint8_t* const image = job.images + static_cast<std::size_t>(job.index[row % job.batch]) * size;
        const std::int32_t* const draw = job.draws ? job.draws + row * kDraws : nullptr;
        const std::int64_t top = draw ? draw[0] : 0, left = draw ? draw[1] : 0;
        const bool flip = draw && draw[2] != 0;
        const Span columns(-left, width, job.width);  // those of the crop that lie in the image
        const Span hole_rows(draw ? draw[3] : 0, job.cutout, job.height), hole(draw ? draw[4] : 0, job.cutout, job.width);
        for (std::size_t y = 0; y < job.height; ++y) {
            const std::int64_t from = static_cast<std::int64_t>(y) + top;
            const bool within = from >= 0 && from < height;
            const std::uint8_t* pixels = cropped.data();
            if (within && left == 0) {
                pixels = image + static_cast<std::size_t>(from) * line;
            } else {
                std::fill(cropped.begin(), cropped.end(), std::uint8_t{0});
                if (within && columns.begin < columns.end) {
                    const auto start = static_cast<std::size_t>(from * width + left + static_cast<std::int64_t>(columns.begin));
                    std::memcpy(cropped.data() + columns.begin * job.channels, image + start * job.channels,
                                (columns.end - columns.begin) * job.channels);
                }
            }
            if (flip) {
                const auto reverse = job.channels == 3 ? mirror<3> : job.channels == 1 ? mirror<1> : mirror<0>;
                reverse(pixels, job.width, job.channels, mirrored.data());
                pixels = mirrored.data();
            }
            float* const out = job.out + row * size + y * line;
            // No product is followed by a sum, so there is nothing that a compiler could fuse and round otherwise.
            for (std::size_t i = 0; i < line; ++i) out[i] = (static_cast<float>(pixels[i]) - mean[i]) * scale[i];
            if (y >= hole_rows.begin && y < hole_rows.end) {
                std::fill(out + hole.begin * job.channels, out + hole.end * job.channels, 0.0f);
            }
        }
    }
}

}  // namespace

void augment(const Augmentation& job, unsigned threads) {
    const std::size_t size = job.height * job.width * job.channels;
    const std::size_t grain = std::max<std::size_t>(1, kNumbersPerThread / std::max<std::size_t>(1, size));
    parallel_for(job.rows, grain, threads, [&](std::size_t begin, std::size_t end) { augment_rows(job, begin, end); });
}

}  // namespace fastnoise
