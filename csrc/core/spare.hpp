// Memory for results, used again: page faults of 10^6 fresh 8-byte labels cost 1.4 ns a label where drawing them costs
// 0.4, and a study of noise makes thousands of such results.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <deque>
#include <new>

namespace fastnoise {

// Blocks given back, the oldest first. Not thread-safe: for callers that hold Python's lock.
class Spare {
public:
    static constexpr std::size_t kMost = std::size_t{64} << 20;  // bytes kept

    struct Block {
        void* data;
        std::size_t size;
    };

    Spare() = default;
    Spare(const Spare&) = delete;
    Spare& operator=(const Spare&) = delete;
    ~Spare() {
        while (!blocks_.empty()) drop();
    }

    // A block of at least `size` bytes, aligned to 64 bytes or more; what it holds is undefined. One given back is used
    // if it is at most twice as large. Raises std::bad_alloc.
    Block take(std::size_t size) {
        const auto fits = std::find_if(blocks_.begin(), blocks_.end(), [size](const Block& block) {
            return size <= block.size && block.size / 2 <= size;
        });
        if (fits != blocks_.end()) {
            const Block block = *fits;
            blocks_.erase(fits);
            kept_ -= block.size;
            return block;
        }
        const std::size_t unit = size < 2 * kHuge ? kPage : kHuge;
        if (size > ~std::size_t{} - unit) throw std::bad_alloc();
        const std::size_t whole = std::max((size + unit - 1) / unit, std::size_t{1}) * unit;
        void* const data = std::aligned_alloc(unit, whole);
        if (!data) throw std::bad_alloc();
#if defined(__linux__)
        if (unit == kHuge) madvise(data, whole, MADV_HUGEPAGE);  // a hint; a refusal is no error
#endif
        return {data, whole};
    }

    void give(Block block) {
        if (block.size > kMost) return std::free(block.data);
        while (kept_ + block.size > kMost) drop();
        blocks_.push_back(block);
        kept_ += block.size;
    }

    std::size_t kept() const { return kept_; }

private:
    static constexpr std::size_t kPage = 4096, kHuge = std::size_t{2} << 20;

    void drop() {
        kept_ -= blocks_.front().size;
        std::free(blocks_.front().data);
        blocks_.pop_front();
    }

    std::deque<Block> blocks_;
    std::size_t kept_ = 0;
};

}  // namespace fastnoise
