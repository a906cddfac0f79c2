// Batches of training images out of a table of uint8: gathered, cropped, flipped, normalised, cut out.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastnoise {

constexpr std::size_t kDraws = 5;

struct Augmentation {
    const std::uint8_t* images;  // [N, height, width, channels]
    std::size_t height, width, channels;
    const std::int64_t* index;  // [batch], each below N
    std::size_t batch;
    std::size_t rows;           // images to make; row r is of the sample index[r % batch]
    // [rows, kDraws], or null: row and column in the image where the crop begins (what lies outside is 0), whether the
    // crop is mirrored, row and column of the result where the cutout begins. All values are allowed.
    const std::int32_t* draws;
    const float* mean;   // [channels], of pixels 0..255
    const float* scale;  // [channels]
    std::int64_t cutout;  // side of the square set to 0, of a batch with draws; 0 for none
    float* out;          // [rows, height, width, channels]
};

// (pixel - mean) * scale in float32, to the bit whatever the threads.
void augment(const Augmentation&, unsigned threads);

}  // namespace fastnoise
