// The whole of fastnoise._C. Arrays are read and written where they lie; the work runs with the GIL released.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "core/cpu.hpp"
#include "core/noise.hpp"

namespace py = pybind11;
using namespace py::literals;
namespace fn = fastnoise;

namespace {

void require(bool holds, const std::string& message) {
    if (!holds) throw py::value_error(message);
}

void require_classes(std::int64_t num_classes) {
    require(num_classes >= 2 && num_classes <= fn::kMaxClasses,
            "num_classes must be in [2, " + std::to_string(fn::kMaxClasses) + "], got " + std::to_string(num_classes));
}

fn::Draw make_draw(double rate, std::uint64_t seed, unsigned threads) {
    require(rate >= 0 && rate <= 1, "rate must be in [0, 1], got " + std::to_string(rate));
    return {rate, seed, threads};
}

template <class Label, class Call>
bool call_as(const py::array& labels, const Call& call) {
    if (!py::isinstance<py::array_t<Label>>(labels)) return false;
    require(reinterpret_cast<std::uintptr_t>(labels.data()) % alignof(Label) == 0, "labels must be aligned");
    call(static_cast<const Label*>(labels.data()));
    return true;
}

template <class... Label, class Call>
bool call_as_any(const py::array& labels, const Call& call) {
    return (call_as<Label>(labels, call) || ...);
}

// call(pointer to the first label), of the array's own type
template <class Call>
void with_labels(const py::array& labels, const Call& call) {
    require(labels.ndim() == 1 && (labels.flags() & py::array::c_style), "labels must be 1-D and contiguous");
    const bool known = call_as_any<std::uint8_t, std::uint16_t, std::uint32_t, std::uint64_t, std::int8_t, std::int16_t,
                                   std::int32_t, std::int64_t>(labels, call);
    if (!known) throw py::type_error("labels must be integers in native byte order");
}

// call(labels, noisy, count) without the GIL
template <class Call>
py::array_t<std::int64_t> corrupted(const py::array& labels, const Call& call) {
    py::array_t<std::int64_t> noisy(labels.size());
    std::int64_t* const out = noisy.mutable_data();
    const auto count = static_cast<std::size_t>(labels.size());
    with_labels(labels, [&](const auto* given) {
        const py::gil_scoped_release release;
        call(given, out, count);
    });
    return noisy;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "fastnoise in C++: label noise that depends on the seed and each label's position alone.";
    py::register_exception<fn::LabelError>(m, "LabelError", PyExc_ValueError);

    m.def("simd_level", &fn::simd_level);

    m.def(
        "check_labels",
        [](const py::array& labels, std::int64_t num_classes) {
            require_classes(num_classes);
            const auto count = static_cast<std::size_t>(labels.size());
            with_labels(labels, [&](const auto* given) {
                const py::gil_scoped_release release;
                fn::check_labels(given, count, static_cast<std::uint32_t>(num_classes));
            });
        },
        "labels"_a, "num_classes"_a);

    m.def(
        "corrupt_symmetric",
        [](const py::array& labels, std::int64_t num_classes, double rate, bool include_true_class, std::uint64_t seed,
           unsigned threads) {
            require_classes(num_classes);
            const fn::Draw draw = make_draw(rate, seed, threads);
            const auto true_class = include_true_class ? fn::TrueClass::included : fn::TrueClass::excluded;
            return corrupted(labels, [&](const auto* given, std::int64_t* noisy, std::size_t count) {
                fn::corrupt_symmetric(given, noisy, count, static_cast<std::uint32_t>(num_classes), true_class, draw);
            });
        },
        "labels"_a, py::kw_only(), "num_classes"_a, "rate"_a, "include_true_class"_a, "seed"_a, "threads"_a);

    m.def(
        "corrupt_mapped",
        [](const py::array& labels, const std::vector<std::int64_t>& class_map, double rate, std::uint64_t seed,
           unsigned threads) {
            const auto num_classes = static_cast<std::int64_t>(class_map.size());
            require_classes(num_classes);
            const fn::Draw draw = make_draw(rate, seed, threads);
            std::vector<std::uint32_t> map(class_map.size());
            std::transform(class_map.begin(), class_map.end(), map.begin(), [&](std::int64_t to) {
                require(to >= 0 && to < num_classes, "class_map holds " + std::to_string(to) + ", outside [0, " +
                                                         std::to_string(num_classes) + ")");
                return static_cast<std::uint32_t>(to);
            });
            return corrupted(labels, [&](const auto* given, std::int64_t* noisy, std::size_t count) {
                fn::corrupt_mapped(given, noisy, count, static_cast<std::uint32_t>(num_classes), map.data(), draw);
            });
        },
        "labels"_a, py::kw_only(), "class_map"_a, "rate"_a, "seed"_a, "threads"_a);

    m.def(
        "corrupt_pair",
        [](const py::array& labels, std::int64_t num_classes, double rate, std::uint64_t seed, unsigned threads) {
            require_classes(num_classes);
            const fn::Draw draw = make_draw(rate, seed, threads);
            return corrupted(labels, [&](const auto* given, std::int64_t* noisy, std::size_t count) {
                fn::corrupt_pair(given, noisy, count, static_cast<std::uint32_t>(num_classes), draw);
            });
        },
        "labels"_a, py::kw_only(), "num_classes"_a, "rate"_a, "seed"_a, "threads"_a);
}
