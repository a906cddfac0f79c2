// Noise models: clean labels in, noisy labels out. A label's fate depends on it, the seed and its position alone: see
// draws.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "core/kernels.hpp"

namespace fastnoise {

// num_classes: 1 .. kMaxClasses. rates: in [0, 1]. threads: 0 for one per core. The callers keep to these; labels
// outside [0, num_classes) are found here and raise LabelError for the first of them.
inline constexpr std::uint32_t kMaxClasses = 0x7fffffffu;

class LabelError : public std::out_of_range {
  public:
    LabelError(std::size_t position, const std::string& value, std::uint32_t num_classes)
        : std::out_of_range("position " + std::to_string(position) + " holds " + value + ", outside [0, " +
                            std::to_string(num_classes) + ")") {}
};

// Labels of any integer type of 8 to 64 bits, where they lie.
struct Labels {
    const void* data;
    std::size_t count;
    unsigned bytes;
    bool is_signed;

    Labels(const void* data, std::size_t count, unsigned bytes, bool is_signed)
        : data(data), count(count), bytes(bytes), is_signed(is_signed) {}
    template <class Label>
    explicit Labels(const std::vector<Label>& labels)
        : Labels(labels.data(), labels.size(), sizeof(Label), std::is_signed_v<Label>) {}
};

// Where noisy labels go: [rates, seeds, labels.count] integers of labels.bytes or 8 bytes.
struct Noisy {
    void* data;
    unsigned bytes;
};

void check_labels(const Labels& labels, std::uint32_t num_classes);

// Models:
//   excluded  With probability `rate` a label is replaced by a uniform draw over the other classes (num_classes >= 2).
//   included  The same over all classes, so that it changes with probability rate (1 - 1 / num_classes).
//   mapped    With probability `rate` label y becomes class_map[y], which holds num_classes entries below num_classes.
//   pair      With probability `rate` label y becomes (y + 1) mod num_classes.
//   matrix    Label y is replaced by a draw over row y of a transition matrix; there are no rates, give one.
// Every seed's draws are made once for all rates.
void corrupt(const Labels& labels, const Model& model, const std::vector<double>& rates,
             const std::vector<std::uint64_t>& seeds, unsigned threads, const Noisy& noisy);

// Whose labels `quota` many are replaced: `rate` times the number of labels (of each class, if per_class), rounded down
// as if the rate were the decimal number it is written as. The quota's samples are those of the smallest keys, 48-bit
// draws by which `corrupt` decides as well; so they are a uniform choice, and the chosen sets nest as the rate grows.
// At most 2^32 - 1 labels. Returns [count]: 1 where chosen.
std::vector<std::uint8_t> choose_quota(const Labels& labels, std::uint32_t num_classes, double rate, bool per_class,
                                       std::uint64_t seed, unsigned threads);

// `corrupt` with one seed, of the chosen labels instead of a drawn share.
void corrupt_chosen(const Labels& labels, const Model& model, const std::vector<std::uint8_t>& chosen,
                    std::uint64_t seed, unsigned threads, const Noisy& noisy);

std::size_t quota_of(double rate, std::size_t count);

}  // namespace fastnoise
