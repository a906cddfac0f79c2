#include "core/pool.hpp"

#include <algorithm>
#include <cstring>

#include "core/targets.hpp"

#if FASTNOISE_X86_TARGETS
#include <immintrin.h>
#endif

namespace fastnoise {
namespace {

// The windows of all images row by row: those of row r begin at the values `image_row(r)` and one image row behind.
struct Windows {
    std::size_t count, height, width, channels;

    std::size_t rows() const { return count * (height / 2); }
    std::size_t pixels() const { return width / 2; }
    std::size_t row_values() const { return pixels() * channels; }
    std::size_t wide() const { return width * channels; }
    std::size_t image_row(std::size_t row) const {
        return (row / (height / 2) * height + row % (height / 2) * 2) * wide();
    }
};

// The larger of several is the first of them; of NaNs the last one. Both as in PyTorch.
void pool_row(const Windows& windows, const float* upper, float* pooled, std::uint8_t* places) {
    const std::size_t channels = windows.channels;
    for (std::size_t i = 0; i < windows.row_values(); ++i) {
        const float* const from = upper + i + i / channels * channels;
        const float values[4] = {from[0], from[channels], from[windows.wide()], from[windows.wide() + channels]};
        std::uint8_t best = 0;
        for (std::uint8_t k = 1; k < 4; ++k) {
            if (values[k] > values[best] || values[k] != values[k]) best = k;
        }
        pooled[i] = values[best];
        places[i] = best;
    }
}

void spread_row(const Windows& windows, const float* gradient, const std::uint8_t* places, float* upper) {
    const std::size_t channels = windows.channels;
    for (std::size_t i = 0; i < windows.row_values(); ++i) {
        float* const to = upper + i + i / channels * channels;
        const std::size_t offsets[4] = {0, channels, windows.wide(), windows.wide() + channels};
        for (std::uint8_t k = 0; k < 4; ++k) to[offsets[k]] = places[i] == k ? gradient[i] : 0.0f;
    }
}

}  // namespace

#if FASTNOISE_X86_TARGETS
#pragma GCC push_options
#pragma GCC target("avx2")

namespace avx2 {

// Eight values of a pixel at a time. Where there are fewer, what is read and written behind them belongs to the next
// pixel or row, whose turn comes later; so something has to lie behind.
static void pool_row(const Windows& windows, const float* upper, float* pooled, std::uint8_t* places) {
    const std::size_t channels = windows.channels;
    const std::size_t offsets[3] = {channels, windows.wide(), windows.wide() + channels};
    const __m256i low_bytes = _mm256_set1_epi32(0x0c080400);
    for (std::size_t pixel = 0; pixel < windows.pixels(); ++pixel, upper += channels) {
        for (std::size_t c = 0; c < channels; c += 8, upper += 8, pooled += 8, places += 8) {
            __m256 best = _mm256_loadu_ps(upper);
            __m256i where = _mm256_setzero_si256();
            for (int k = 0; k < 3; ++k) {
                const __m256 value = _mm256_loadu_ps(upper + offsets[k]);
                const __m256 larger =
                    _mm256_or_ps(_mm256_cmp_ps(value, best, _CMP_GT_OQ), _mm256_cmp_ps(value, value, _CMP_UNORD_Q));
                best = _mm256_blendv_ps(best, value, larger);
                where = _mm256_blendv_epi8(where, _mm256_set1_epi32(k + 1), _mm256_castps_si256(larger));
            }
            const __m256i narrow = _mm256_shuffle_epi8(where, low_bytes);
            _mm256_storeu_ps(pooled, best);
            _mm_storel_epi64(reinterpret_cast<__m128i*>(places),
                             _mm_unpacklo_epi32(_mm256_castsi256_si128(narrow), _mm256_extracti128_si256(narrow, 1)));
        }
        const std::size_t over = (channels + 7) / 8 * 8 - channels;
        upper -= over;
        pooled -= over;
        places -= over;
    }
}

static void spread_row(const Windows& windows, const float* gradient, const std::uint8_t* places, float* upper) {
    const std::size_t channels = windows.channels;
    for (int k = 0; k < 4; k += 2, upper += windows.wide()) {  // the upper row, then the lower one, from left to right
        float* to = upper;
        for (std::size_t pixel = 0; pixel < windows.pixels(); ++pixel) {
            for (int column = 0; column < 2; ++column, to += channels) {
                const __m256i here = _mm256_set1_epi32(k + column);
                for (std::size_t c = 0; c < channels; c += 8) {
                    const std::size_t i = pixel * channels + c;
                    const __m256i where =
                        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(places + i)));
                    const __m256 mask = _mm256_castsi256_ps(_mm256_cmpeq_epi32(where, here));
                    _mm256_storeu_ps(to + c, _mm256_and_ps(mask, _mm256_loadu_ps(gradient + i)));
                }
            }
        }
    }
}

}  // namespace avx2

#pragma GCC pop_options
#endif

namespace {

// Whether eight values may be read and written at once: not in the last rows, behind which too little lies.
bool in_eights(const Windows& windows, std::size_t row) {
    return FASTNOISE_X86_TARGETS && kernels().isa != Isa::generic &&
           (windows.rows() - 1 - row) * windows.row_values() >= 8;
}

}  // namespace

void max_pool(const float* images, std::size_t count, std::size_t height, std::size_t width, std::size_t channels,
              float* pooled, std::uint8_t* places) {
    const Windows windows{count, height, width, channels};
    if (!windows.row_values()) return;
    for (std::size_t row = 0; row < windows.rows(); ++row) {
        const std::size_t to = row * windows.row_values();
#if FASTNOISE_X86_TARGETS
        const auto pool = in_eights(windows, row) ? avx2::pool_row : pool_row;
#else
        const auto pool = pool_row;
#endif
        pool(windows, images + windows.image_row(row), pooled + to, places + to);
    }
}

void max_pool_gradient(const float* gradient, const std::uint8_t* places, std::size_t count, std::size_t height,
                       std::size_t width, std::size_t channels, float* images) {
    const Windows windows{count, height, width, channels};
    const std::size_t wide = windows.wide(), covered = 2 * windows.row_values();
    if (!windows.rows() || !covered) {
        std::fill_n(images, count * height * wide, 0.0f);
        return;
    }
    for (std::size_t row = 0; row < windows.rows(); ++row) {
        const std::size_t from = row * windows.row_values();
        float* const upper = images + windows.image_row(row);
#if FASTNOISE_X86_TARGETS
        const auto spread = in_eights(windows, row) ? avx2::spread_row : spread_row;
#else
        const auto spread = spread_row;
#endif
        spread(windows, gradient + from, places + from, upper);
        for (std::size_t i = covered; i < wide; ++i) upper[i] = upper[wide + i] = 0.0f;  // an odd last column
        if (height % 2 && row % (height / 2) == height / 2 - 1) std::memset(upper + 2 * wide, 0, wide * sizeof(float));
    }
}

}  // namespace fastnoise
