// Parts of uint8 images, resized and cropped: what fastnoise/data/resample.py does through Pillow; and their draws.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastnoise {

constexpr std::size_t kPlace = 8;

struct Resampling {
    const std::uint8_t* images;  // [N, height, width, channels]
    std::size_t height, width, channels;
    const std::int64_t* index;  // [batch], each below N
    std::size_t batch;
    std::size_t rows;  // images to make; row r is of the sample index[r % batch]
    // [rows, kPlace]: top, left, height and width of the part, which lies in the image; height and width that it is
    // resized to; row and column in it at which the result begins. What lies outside is 0.
    const std::int32_t* places;
    std::uint8_t* out;  // [rows, out_height, out_width, channels]
    std::size_t out_height, out_width;
};

// Bilinear with antialiasing in Pillow's fixed-point arithmetic, columns first. Over the part's border its last pixel
// stands for those that are not there.
void resample(const Resampling&, unsigned threads);

// Numbers in [0, 1), out[rows, count]: Philox with each row's key and the counter (block, purpose, 0, 0), 32 bits each.
void uniforms(const std::uint64_t* keys, std::size_t rows, std::uint32_t purpose, std::size_t count, double* out);

}  // namespace fastnoise
