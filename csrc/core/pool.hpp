// Max pooling of 2 x 2 windows of images whose channels lie side by side. PyTorch's looks at the channels of one window
// at a time by vectors of 16, and value by value where there are fewer.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastnoise {

// images [count, height, width, channels] -> pooled and places [count, height / 2, width / 2, channels]: the largest
// value of each window, and which it is: 0 or 1 in the upper row, 2 or 3 in the lower one. An odd last row or column is
// in no window.
void max_pool(const float* images, std::size_t count, std::size_t height, std::size_t width, std::size_t channels,
              float* pooled, std::uint8_t* places);

// images [count, height, width, channels]: the gradient of each window at its place, else 0.
void max_pool_gradient(const float* gradient, const std::uint8_t* places, std::size_t count, std::size_t height,
                       std::size_t width, std::size_t channels, float* images);

}  // namespace fastnoise
