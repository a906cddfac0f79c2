// Noise models: clean labels in, noisy labels out. A label's fate depends on it, the seed and its position alone: see
// draws.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace fastnoise {

// Label: any integer type of 8 to 64 bits. num_classes: 1 .. kMaxClasses. rate: in [0, 1]. threads: 0 for one per core.
// The callers keep to these; labels outside [0, num_classes) are found here and raise LabelError for the first of them.
inline constexpr std::uint32_t kMaxClasses = 0x7fffffffu;

class LabelError : public std::out_of_range {
  public:
    LabelError(std::size_t position, const std::string& value, std::uint32_t num_classes)
        : std::out_of_range("position " + std::to_string(position) + " holds " + value + ", outside [0, " +
                            std::to_string(num_classes) + ")") {}
};

enum class TrueClass { excluded, included };

struct Draw {  // what all models share
    double rate;
    std::uint64_t seed;
    unsigned threads;
};

template <class Label>
void check_labels(const Label* labels, std::size_t count, std::uint32_t num_classes);

// With probability `rate` a label is replaced by a uniform draw over the other classes (excluded; num_classes >= 2) or
// over all classes (included, so that it changes with probability rate (1 - 1 / num_classes)).
template <class Label>
void corrupt_symmetric(const Label* labels, std::int64_t* noisy, std::size_t count, std::uint32_t num_classes,
                       TrueClass true_class, const Draw& draw);

// With probability `rate` label y becomes class_map[y], which holds num_classes entries below num_classes.
template <class Label>
void corrupt_mapped(const Label* labels, std::int64_t* noisy, std::size_t count, std::uint32_t num_classes,
                    const std::uint32_t* class_map, const Draw& draw);

// With probability `rate` label y becomes (y + 1) mod num_classes.
template <class Label>
void corrupt_pair(const Label* labels, std::int64_t* noisy, std::size_t count, std::uint32_t num_classes,
                  const Draw& draw);

}  // namespace fastnoise
