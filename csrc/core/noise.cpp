#include "core/noise.hpp"

#include <algorithm>

#include "core/draws.hpp"
#include "core/parallel.hpp"

namespace fastnoise {
namespace {

// A thread costs about as much to start as a thousand groups take.
constexpr std::size_t kGroupsPerThread = 1024;

// Labels [first, first + size) as 32-bit words, with zeros behind; the models thus see one type and no bad label, even
// if another thread writes to the array meanwhile.
template <class Label>
void load(const Label* labels, std::size_t first, std::size_t size, std::uint32_t num_classes, Group& label) {
    if (size < kGroup) label.fill(0);
    bool bad = false;
    for (std::size_t j = 0; j < size; ++j) {
        const auto wide = static_cast<std::uint64_t>(labels[first + j]);  // negative ones become huge
        label[j] = static_cast<std::uint32_t>(wide);
        bad |= wide >= num_classes;
    }
    if (!bad) return;
    for (std::size_t j = 0; j < size; ++j) {
        const Label value = labels[first + j];
        if (static_cast<std::uint64_t>(value) >= num_classes) {
            throw LabelError(first + j, std::to_string(value), num_classes);
        }
        label[j] = static_cast<std::uint32_t>(value);
    }
}

// target(group, label, out) says what each label of the group would flip to.
template <class Label, class Target>
void corrupt(const Label* labels, std::int64_t* noisy, std::size_t count, std::uint32_t num_classes, const Draw& draw,
             const Target& target) {
    const Threshold threshold(draw.rate);
    const std::size_t groups = count / kGroup + (count % kGroup != 0);
    parallel_for(groups, kGroupsPerThread, draw.threads, [&](std::size_t begin, std::size_t end) {
        Group label, to, result;
        for (std::size_t group = begin; group < end; ++group) {
            const std::size_t first = group * kGroup, size = std::min(kGroup, count - first);
            load(labels, first, size, num_classes, label);
            target(group, label, to);
            threshold.select(draw.seed, group, label, to, result);
            std::copy_n(result.data(), size, noisy + first);
        }
    });
}

}  // namespace

template <class Label>
void check_labels(const Label* labels, std::size_t count, std::uint32_t num_classes) {
    Group label;
    for (std::size_t first = 0; first < count; first += kGroup) {
        load(labels, first, std::min(kGroup, count - first), num_classes, label);
    }
}

template <class Label>
void corrupt_symmetric(const Label* labels, std::int64_t* noisy, std::size_t count, std::uint32_t num_classes,
                       TrueClass true_class, const Draw& draw) {
    const std::uint64_t seed = draw.seed;
    if (true_class == TrueClass::included) {
        corrupt(labels, noisy, count, num_classes, draw, [=](std::uint64_t group, const Group&, Group& to) {
            bounded_group(num_classes, seed, Purpose::target, group, to);
        });
    } else {
        corrupt(labels, noisy, count, num_classes, draw, [=](std::uint64_t group, const Group& label, Group& to) {
            bounded_group(num_classes - 1, seed, Purpose::target, group, to);
            for (std::size_t j = 0; j < kGroup; ++j) to[j] += to[j] >= label[j];  // step over the true class
        });
    }
}

template <class Label>
void corrupt_mapped(const Label* labels, std::int64_t* noisy, std::size_t count, std::uint32_t num_classes,
                    const std::uint32_t* class_map, const Draw& draw) {
    corrupt(labels, noisy, count, num_classes, draw, [=](std::uint64_t, const Group& label, Group& to) {
        for (std::size_t j = 0; j < kGroup; ++j) to[j] = class_map[label[j]];
    });
}

template <class Label>
void corrupt_pair(const Label* labels, std::int64_t* noisy, std::size_t count, std::uint32_t num_classes,
                  const Draw& draw) {
    corrupt(labels, noisy, count, num_classes, draw, [=](std::uint64_t, const Group& label, Group& to) {
        for (std::size_t j = 0; j < kGroup; ++j) to[j] = label[j] + 1 == num_classes ? 0 : label[j] + 1;
    });
}

#define FASTNOISE_INSTANTIATE(Label)                                                                                 \
    template void check_labels(const Label*, std::size_t, std::uint32_t);                                            \
    template void corrupt_symmetric(const Label*, std::int64_t*, std::size_t, std::uint32_t, TrueClass, const Draw&); \
    template void corrupt_mapped(const Label*, std::int64_t*, std::size_t, std::uint32_t, const std::uint32_t*,       \
                                 const Draw&);                                                                       \
    template void corrupt_pair(const Label*, std::int64_t*, std::size_t, std::uint32_t, const Draw&);

FASTNOISE_INSTANTIATE(std::uint8_t)
FASTNOISE_INSTANTIATE(std::uint16_t)
FASTNOISE_INSTANTIATE(std::uint32_t)
FASTNOISE_INSTANTIATE(std::uint64_t)
FASTNOISE_INSTANTIATE(std::int8_t)
FASTNOISE_INSTANTIATE(std::int16_t)
FASTNOISE_INSTANTIATE(std::int32_t)
FASTNOISE_INSTANTIATE(std::int64_t)

#undef FASTNOISE_INSTANTIATE

}  // namespace fastnoise
