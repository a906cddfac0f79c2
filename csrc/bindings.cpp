// The whole of fastnoise._C. Arrays are read and written where they lie; the work runs with the GIL released.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "core/alias.hpp"
#include "core/augment.hpp"
#include "core/consensus.hpp"
#include "core/cpu.hpp"
#include "core/losses.hpp"
#include "core/noise.hpp"
#include "core/pool.hpp"
#include "core/resample.hpp"
#include "core/rows.hpp"
#include "core/spare.hpp"

namespace py = pybind11;
using namespace py::literals;
namespace fn = fastnoise;

namespace {

using Kind = fn::Model::Kind;

void require(bool holds, const std::string& message) {
    if (!holds) throw py::value_error(message);
}

std::uint32_t checked_classes(std::int64_t num_classes) {
    require(num_classes >= 2 && num_classes <= fn::kMaxClasses,
            "num_classes must be in [2, " + std::to_string(fn::kMaxClasses) + "], got " + std::to_string(num_classes));
    return static_cast<std::uint32_t>(num_classes);
}

void require_rate(double rate) {
    require(rate >= 0 && rate <= 1, "rate must be in [0, 1], got " + std::to_string(rate));
}

void require_plain(const py::array& array, const std::string& name) {
    require(array.flags() & py::array::c_style, name + " must be contiguous");
    require(reinterpret_cast<std::uintptr_t>(array.data()) % array.itemsize() == 0, name + " must be aligned");
    const char order = array.dtype().byteorder();
    if (order != '=' && order != '|') throw py::type_error(name + " must be in native byte order");
}

void require_type(const py::array& array, char kind, py::ssize_t bytes, py::ssize_t dimensions, const std::string& form) {
    if (array.dtype().kind() != kind || array.itemsize() != bytes) throw py::type_error(form);
    require(array.ndim() == dimensions, form);
    require_plain(array, form.substr(0, form.find(' ')));
}

std::size_t size(py::ssize_t extent) { return static_cast<std::size_t>(extent); }

// The positions int64 [B], all in [0, count).
const std::int64_t* positions_below(const py::array& index, py::ssize_t count) {
    const auto* const positions = static_cast<const std::int64_t*>(index.data());
    for (py::ssize_t i = 0; i < index.size(); ++i) {
        if (positions[i] < 0 || positions[i] >= count) {
            throw py::index_error("index holds " + std::to_string(positions[i]) + ", outside [0, " +
                                  std::to_string(count) + ")");
        }
    }
    return positions;
}

fn::Labels labels_of(const py::array& labels) {
    require(labels.ndim() == 1, "labels must be 1-D and contiguous");
    const char kind = labels.dtype().kind();
    if (kind != 'i' && kind != 'u') throw py::type_error("labels must be integers in native byte order");
    require_plain(labels, "labels");
    return {labels.data(), static_cast<std::size_t>(labels.size()), static_cast<unsigned>(labels.itemsize()), kind == 'i'};
}

std::vector<std::uint32_t> checked_map(const std::vector<std::int64_t>& class_map) {
    const std::int64_t num_classes = checked_classes(static_cast<std::int64_t>(class_map.size()));
    std::vector<std::uint32_t> map(class_map.size());
    std::transform(class_map.begin(), class_map.end(), map.begin(), [&](std::int64_t to) {
        require(to >= 0 && to < num_classes,
                "class_map holds " + std::to_string(to) + ", outside [0, " + std::to_string(num_classes) + ")");
        return static_cast<std::uint32_t>(to);
    });
    return map;
}

Kind symmetric(bool include_true_class) { return include_true_class ? Kind::included : Kind::excluded; }

// A model of the first kind, or that of a class map where one is given, which `map` then holds.
fn::Model make_model(Kind kind, std::int64_t num_classes, const std::optional<std::vector<std::int64_t>>& class_map,
                     std::vector<std::uint32_t>& map) {
    if (!class_map) return {kind, checked_classes(num_classes)};
    map = checked_map(*class_map);
    require(static_cast<std::int64_t>(map.size()) == num_classes,
            "class_map holds " + std::to_string(map.size()) + " classes for " + std::to_string(num_classes));
    return {Kind::mapped, static_cast<std::uint32_t>(map.size()), map.data()};
}

// Of this shape, undefined. Large ones lie in memory that is used again once their last view is gone.
template <class Number>
py::array_t<Number> fresh(const std::vector<py::ssize_t>& shape) {
    constexpr std::size_t large = std::size_t{1} << 17;  // where malloc begins to ask the system
    std::size_t bytes = sizeof(Number);
    for (const py::ssize_t extent : shape) {
        if (extent && bytes > PY_SSIZE_T_MAX / static_cast<std::size_t>(extent)) throw std::bad_alloc();
        bytes *= static_cast<std::size_t>(extent);
    }
    if (bytes < large) return py::array_t<Number>(shape);
    static auto* const spare = new fn::Spare;  // never destroyed: arrays may outlive the module
    auto block = std::make_unique<fn::Spare::Block>(spare->take(bytes));
    const py::capsule owner(block.get(), [](void* pointer) {
        const std::unique_ptr<fn::Spare::Block> gone(static_cast<fn::Spare::Block*>(pointer));
        spare->give(*gone);
    });
    return py::array_t<Number>(shape, static_cast<Number*>(block.release()->data), owner);
}

py::array_t<std::int64_t> fresh_integers(std::size_t count) {
    if (count > PY_SSIZE_T_MAX) throw std::bad_alloc();
    return fresh<std::int64_t>({static_cast<py::ssize_t>(count)});
}

py::array_t<std::int64_t> corrupted(const py::array& labels, const fn::Model& model, double rate, std::uint64_t seed,
                                    unsigned threads) {
    const fn::Labels given = labels_of(labels);
    require_rate(rate);
    py::array_t<std::int64_t> noisy = fresh_integers(given.count);
    std::int64_t* const out = noisy.mutable_data();
    {
        const py::gil_scoped_release release;
        fn::corrupt(given, model, {rate}, {seed}, threads, {out, 8});
    }
    return noisy;
}

struct StageArrays {
    std::vector<fn::StageJob> jobs;
    std::size_t runs, stages, count;
};

// losses [R, S, N] float32 and predictions [R, S, N], one job per run
StageArrays stage_jobs(const py::array& losses, const py::array& predictions, bool agree) {
    require(losses.ndim() == 3 && predictions.ndim() == 3 &&
                std::equal(losses.shape(), losses.shape() + 3, predictions.shape()),
            "losses and predictions must be [R, S, N] both");
    if (losses.dtype().kind() != 'f' || losses.itemsize() != 4) throw py::type_error("losses must be float32");
    const char kind = predictions.dtype().kind();
    if ((kind != 'i' && kind != 'u') || predictions.itemsize() > 4) {
        throw py::type_error("predictions must be integers of at most 32 bits");
    }
    require_plain(losses, "losses");
    require_plain(predictions, "predictions");
    require(losses.shape(1) >= 1, "there must be a stage");
    StageArrays arrays{{},
                       static_cast<std::size_t>(losses.shape(0)),
                       static_cast<std::size_t>(losses.shape(1)),
                       static_cast<std::size_t>(losses.shape(2))};
    const std::size_t size = arrays.stages * arrays.count;
    const auto bytes = static_cast<unsigned>(predictions.itemsize());
    for (std::size_t run = 0; run < arrays.runs; ++run) {
        arrays.jobs.push_back({static_cast<const float*>(losses.data()) + run * size,
                               static_cast<const char*>(predictions.data()) + run * size * bytes, bytes, arrays.stages,
                               arrays.count, agree});
    }
    return arrays;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "fastnoise in C++: label noise that depends on the seed and each label's position alone.";
    py::register_exception<fn::LabelError>(m, "LabelError", PyExc_ValueError);
    py::register_exception<fn::TransitionError>(m, "TransitionError", PyExc_ValueError);
    py::register_local_exception_translator([](std::exception_ptr pointer) {
        try {
            if (pointer) std::rethrow_exception(pointer);
        } catch (const fn::IsaError& error) {
            const py::object type = py::module_::import("fastnoise.errors").attr("ConfigError");
            PyErr_SetString(type.ptr(), error.what());
        }
    });

    m.def("simd_level", [] { return fn::name_of(fn::simd_level()); });
    m.def("active_isa", [] { return fn::name_of(fn::kernels().isa); });
    m.attr("LOSS_RULES") = [] {
        py::tuple names(std::size(fn::kLossRules));
        for (std::size_t rule = 0; rule < names.size(); ++rule) names[rule] = fn::kLossRules[rule];
        return names;
    }();

    m.def(
        "check_labels",
        [](const py::array& labels, std::int64_t num_classes) {
            const std::uint32_t classes = checked_classes(num_classes);
            const fn::Labels given = labels_of(labels);
            const py::gil_scoped_release release;
            fn::check_labels(given, classes);
        },
        "labels"_a, "num_classes"_a);

    m.def(
        "corrupt_symmetric",
        [](const py::array& labels, std::int64_t num_classes, double rate, bool include_true_class, std::uint64_t seed,
           unsigned threads) {
            return corrupted(labels, {symmetric(include_true_class), checked_classes(num_classes)}, rate, seed, threads);
        },
        "labels"_a, py::kw_only(), "num_classes"_a, "rate"_a, "include_true_class"_a, "seed"_a, "threads"_a);

    m.def(
        "corrupt_mapped",
        [](const py::array& labels, const std::vector<std::int64_t>& class_map, double rate, std::uint64_t seed,
           unsigned threads) {
            const auto map = checked_map(class_map);
            const auto classes = static_cast<std::uint32_t>(map.size());
            return corrupted(labels, {Kind::mapped, classes, map.data()}, rate, seed, threads);
        },
        "labels"_a, py::kw_only(), "class_map"_a, "rate"_a, "seed"_a, "threads"_a);

    m.def(
        "corrupt_pair",
        [](const py::array& labels, std::int64_t num_classes, double rate, std::uint64_t seed, unsigned threads) {
            return corrupted(labels, {Kind::pair, checked_classes(num_classes)}, rate, seed, threads);
        },
        "labels"_a, py::kw_only(), "num_classes"_a, "rate"_a, "seed"_a, "threads"_a);

    m.def(
        "corrupt_matrix",
        [](const py::array& labels, const py::array_t<double, py::array::c_style | py::array::forcecast>& transition,
           std::uint64_t seed, unsigned threads) {
            require(transition.ndim() == 2 && transition.shape(0) == transition.shape(1), "transition must be [C, C]");
            const std::uint32_t classes = checked_classes(transition.shape(0));
            const fn::Labels given = labels_of(labels);
            py::array_t<std::int64_t> noisy = fresh_integers(given.count);
            std::int64_t* const out = noisy.mutable_data();
            const double* const rows = transition.data();
            {
                const py::gil_scoped_release release;
                const auto table = fn::alias_table(rows, classes);
                fn::corrupt(given, {Kind::matrix, classes, nullptr, table.data()}, {0.0}, {seed}, threads, {out, 8});
            }
            return noisy;
        },
        "labels"_a, "transition"_a, py::kw_only(), "seed"_a, "threads"_a);

    m.def(
        "corrupt_quota",
        [](const py::array& labels, std::int64_t num_classes, double rate, std::uint64_t seed, unsigned threads,
           bool include_true_class, bool per_class, const std::optional<std::vector<std::int64_t>>& class_map) {
            std::vector<std::uint32_t> map;
            const fn::Model model = make_model(symmetric(include_true_class), num_classes, class_map, map);
            require(!class_map || !include_true_class, "a class_map has no choice to include the true class in");
            require_rate(rate);
            const fn::Labels given = labels_of(labels);
            require(given.count < std::uint64_t{1} << 32, "a quota is of at most 2^32 - 1 labels");
            py::array_t<std::int64_t> noisy = fresh_integers(given.count);
            std::int64_t* const out = noisy.mutable_data();
            {
                const py::gil_scoped_release release;
                const auto chosen = fn::choose_quota(given, model.num_classes, rate, per_class, seed, threads);
                fn::corrupt_chosen(given, model, chosen, seed, threads, {out, 8});
            }
            return noisy;
        },
        "labels"_a, py::kw_only(), "num_classes"_a, "rate"_a, "seed"_a, "threads"_a, "include_true_class"_a,
        "per_class"_a, "class_map"_a = py::none());

    m.def(
        "corrupt_sweep",
        [](const py::array& labels, py::array& out, std::int64_t num_classes, const std::vector<double>& rates,
           const std::vector<std::uint64_t>& seeds, const std::string& kind,
           const std::optional<std::vector<std::int64_t>>& class_map, unsigned threads) {
            const bool excluded = kind == "excluded", included = kind == "included";
            require(excluded || included || (kind == "pair") || (kind == "mapped" && class_map),
                    "kind must be excluded, included, pair or, with a class_map, mapped");
            std::vector<std::uint32_t> map;
            const Kind wanted = excluded ? Kind::excluded : included ? Kind::included : Kind::pair;
            const fn::Model model = make_model(wanted, num_classes, class_map, map);
            for (const double rate : rates) require_rate(rate);
            const fn::Labels given = labels_of(labels);
            const int bits = 8 * static_cast<int>(given.bytes) - given.is_signed;
            require(bits >= 31 || num_classes <= std::int64_t{1} << bits,
                    "the labels' type has no room for " + std::to_string(num_classes) + " classes");
            require(out.dtype().kind() == labels.dtype().kind() && out.itemsize() == labels.itemsize(),
                    "out must have the labels' type");
            require_plain(out, "out");
            require(out.ndim() == 3 && static_cast<std::size_t>(out.shape(0)) == rates.size() &&
                        static_cast<std::size_t>(out.shape(1)) == seeds.size() && out.shape(2) == labels.size(),
                    "out must be [R, S, N]");
            void* const data = out.mutable_data();  // which refuses a read-only array
            const auto* const from = static_cast<const char*>(labels.data());
            const auto* const to = static_cast<const char*>(data);
            require(from + labels.nbytes() <= to || to + out.nbytes() <= from, "out must not overlap the labels");
            const py::gil_scoped_release release;
            fn::corrupt(given, model, rates, seeds, threads, {data, given.bytes});
        },
        "labels"_a, "out"_a, py::kw_only(), "num_classes"_a, "rates"_a, "seeds"_a, "kind"_a, "class_map"_a = py::none(),
        "threads"_a);

    m.def(
        "consensus_members",
        [](const py::array& losses, const py::array& predictions, float threshold, bool agree, unsigned threads) {
            const StageArrays arrays = stage_jobs(losses, predictions, agree);
            require(arrays.runs == 1, "members are those of one run");
            py::array_t<std::uint64_t> masks(arrays.count / 64 + (arrays.count % 64 != 0));
            std::uint64_t* const words = masks.mutable_data();
            std::size_t found = 0;
            {
                const py::gil_scoped_release release;
                found = fn::members(arrays.jobs[0], threshold, threads, words);
            }
            const auto* const bytes = reinterpret_cast<const std::uint8_t*>(words);
            return py::make_tuple(py::array_t<std::uint8_t>((arrays.count + 7) / 8, bytes, masks), found);
        },
        "losses"_a, "predictions"_a, py::kw_only(), "threshold"_a, "agree"_a, "threads"_a);

    m.def(
        "mask_index",
        [](const py::array_t<std::uint8_t, py::array::c_style>& mask, std::size_t count) {
            require(count / 8 <= static_cast<std::size_t>(mask.size()), "count is above the number of bits in mask");
            py::array_t<std::int64_t> index = fresh_integers(count);
            std::int64_t* next = index.mutable_data();
            std::int64_t* const end = next + count;
            const std::uint8_t* const bytes = mask.data();
            const py::gil_scoped_release release;
            for (py::ssize_t byte = 0; byte < mask.size(); ++byte) {
                if (end - next >= 8) {  // room for what is written and not kept; no branch depends on the bits
                    for (int bit = 0; bit < 8; ++bit) {
                        *next = 8 * byte + bit;
                        next += bytes[byte] >> bit & 1;
                    }
                } else {
                    for (int bit = 0; bit < 8; ++bit) {
                        if ((bytes[byte] >> bit & 1) && next != end) *next++ = 8 * byte + bit;
                    }
                }
            }
            std::fill(next, end, -1);
            return index;
        },
        "mask"_a, "count"_a);

    m.def(
        "consensus_counts",
        [](const py::array& losses, const py::array& predictions, const std::vector<float>& thresholds, bool agree,
           std::size_t stage, const std::optional<py::array>& labels, const std::optional<py::array>& true_labels,
           unsigned threads) {
            const StageArrays arrays = stage_jobs(losses, predictions, agree);
            require(std::is_sorted(thresholds.begin(), thresholds.end()) &&
                        std::none_of(thresholds.begin(), thresholds.end(), [](float t) { return std::isnan(t); }),
                    "thresholds must ascend");
            require(stage < arrays.stages, "there is no such stage");
            for (const auto* const array : {&labels, &true_labels}) {
                if (!*array) continue;
                require((*array)->ndim() == 1 && static_cast<std::size_t>((*array)->size()) == arrays.count,
                        "labels must be [N]");
                require((*array)->dtype().kind() == predictions.dtype().kind() &&
                            (*array)->itemsize() == predictions.itemsize(),
                        "labels must have the predictions' type");
                require_plain(**array, "labels");
            }
            std::vector<fn::Judged> judged;
            for (const auto& job : arrays.jobs) {
                const void* const predicted =
                    static_cast<const char*>(job.predictions) + stage * arrays.count * job.prediction_bytes;
                judged.push_back({labels ? labels->data() : predicted, true_labels ? true_labels->data() : nullptr});
            }
            fn::Counts counts;
            {
                const py::gil_scoped_release release;
                counts = fn::count_members(arrays.jobs, judged, thresholds, threads);
            }
            const auto array = [](const std::vector<std::int64_t>& values, std::vector<py::ssize_t> shape) {
                py::array_t<std::int64_t> copy(std::move(shape));
                std::copy(values.begin(), values.end(), copy.mutable_data());
                return copy;
            };
            const auto runs = static_cast<py::ssize_t>(arrays.runs), width = static_cast<py::ssize_t>(thresholds.size());
            return py::make_tuple(array(counts.members, {runs, width}), array(counts.right, {runs, width}),
                                  array(counts.totals, {runs}));
        },
        "losses"_a, "predictions"_a, py::kw_only(), "thresholds"_a, "agree"_a, "stage"_a, "labels"_a = py::none(),
        "true_labels"_a = py::none(), "threads"_a);

    m.def(
        "augment",
        [](const py::array& images, const py::array& index, const std::optional<py::array>& draws, const py::array& mean,
           const py::array& scale, py::array& out, std::int64_t cutout, unsigned threads) {
            require_type(images, 'u', 1, 4, "images must be uint8 [N, H, W, C]");
            require_type(index, 'i', 8, 1, "index must be int64 [B]");
            require_type(out, 'f', 4, 4, "out must be float32 [R, H, W, C]");
            require_type(mean, 'f', 4, 1, "mean must be float32 [C]");
            require_type(scale, 'f', 4, 1, "scale must be float32 [C]");
            require(mean.size() == images.shape(3) && scale.size() == images.shape(3), "mean and scale must be [C]");
            require(std::equal(images.shape() + 1, images.shape() + 4, out.shape() + 1), "out must have the images' size");
            const py::ssize_t rows = out.shape(0), batch = index.size();
            require(batch ? rows % batch == 0 : rows == 0, "out must hold a whole number of images for each index");
            if (draws) {
                require_type(*draws, 'i', 4, 2, "draws must be int32 [R, 5]");
                require(draws->shape(0) == rows && draws->shape(1) == fn::kDraws, "draws must be int32 [R, 5]");
            }
            require(cutout >= 0 && cutout < std::int64_t{1} << 31 && (draws || cutout == 0),
                    "cutout must be in [0, 2^31), and 0 without draws");
            const auto* const positions = positions_below(index, images.shape(0));
            const fn::Augmentation job{static_cast<const std::uint8_t*>(images.data()),
                                       size(images.shape(1)),
                                       size(images.shape(2)),
                                       size(images.shape(3)),
                                       positions,
                                       size(batch),
                                       size(rows),
                                       draws ? static_cast<const std::int32_t*>(draws->data()) : nullptr,
                                       static_cast<const float*>(mean.data()),
                                       static_cast<const float*>(scale.data()),
                                       cutout,
                                       static_cast<float*>(out.mutable_data())};  // which refuses a read-only array
            const py::gil_scoped_release release;
            fn::augment(job, threads);
        },
        "images"_a, "index"_a, "draws"_a, "mean"_a, "scale"_a, "out"_a, py::kw_only(), "cutout"_a, "threads"_a);

    m.def(
        "resample",
        [](const py::array& images, const py::array& index, const py::array& places, py::array& out, unsigned threads) {
            require_type(images, 'u', 1, 4, "images must be uint8 [N, H, W, C]");
            require_type(index, 'i', 8, 1, "index must be int64 [B]");
            require_type(out, 'u', 1, 4, "out must be uint8 [R, H, W, C]");
            require_type(places, 'i', 4, 2, "places must be int32 [R, 8]");
            const py::ssize_t rows = out.shape(0), batch = index.size();
            require(places.shape(0) == rows && places.shape(1) == fn::kPlace, "places must be int32 [R, 8]");
            require(images.shape(3) == out.shape(3), "out must have the images' channels");
            require(batch ? rows % batch == 0 : rows == 0, "out must hold a whole number of images for each index");
            const auto* const positions = positions_below(index, images.shape(0));
            const auto* const place = static_cast<const std::int32_t*>(places.data());
            for (py::ssize_t row = 0; row < rows; ++row) {
                for (py::ssize_t axis = 0; axis < 2; ++axis) {
                    const std::int64_t first = place[8 * row + axis], length = place[8 * row + 2 + axis];
                    const std::int64_t grid = place[8 * row + 4 + axis], corner = place[8 * row + 6 + axis];
                    require(first >= 0 && length > 0 && first + length <= images.shape(1 + axis) && grid > 0 &&
                                grid < 1 << 24 && std::abs(corner) < 1 << 24,
                            "places must name parts of the images and sizes below 2^24");
                }
            }
            const fn::Resampling job{static_cast<const std::uint8_t*>(images.data()),
                                     size(images.shape(1)),
                                     size(images.shape(2)),
                                     size(images.shape(3)),
                                     positions,
                                     size(batch),
                                     size(rows),
                                     place,
                                     static_cast<std::uint8_t*>(out.mutable_data()),
                                     size(out.shape(1)),
                                     size(out.shape(2))};
            const py::gil_scoped_release release;
            fn::resample(job, threads);
        },
        "images"_a, "index"_a, "places"_a, "out"_a, py::kw_only(), "threads"_a);

    m.def(
        "normalised_rows",
        [](const py::array& rows, const py::array& index, const py::array& mean, const py::array& scale,
           unsigned threads) {
            require_type(rows, 'f', rows.itemsize() == 2 ? 2 : 4, 2, "rows must be float16 or float32 [N, D]");
            require_type(index, 'i', 8, 1, "index must be int64 [B]");
            require_type(mean, 'f', 4, 1, "mean must be float32 [D]");
            require_type(scale, 'f', 4, 1, "scale must be float32 [D]");
            const py::ssize_t columns = rows.shape(1), batch = index.size();
            require(mean.size() == columns && scale.size() == columns, "mean and scale must be [D]");
            const auto* const positions = positions_below(index, rows.shape(0));
            py::array_t<float> out = fresh<float>({batch, columns});
            const fn::RowJob job{rows.data(),
                                 static_cast<unsigned>(rows.itemsize()),
                                 static_cast<std::size_t>(columns),
                                 positions,
                                 static_cast<std::size_t>(batch),
                                 static_cast<const float*>(mean.data()),
                                 static_cast<const float*>(scale.data()),
                                 out.mutable_data()};
            {
                const py::gil_scoped_release release;
                fn::normalise_rows(job, threads);
            }
            return out;
        },
        "rows"_a, "index"_a, "mean"_a, "scale"_a, py::kw_only(), "threads"_a);

    m.def(
        "uniforms",
        [](const py::array& keys, std::uint32_t purpose, std::size_t count) {
            require_type(keys, 'u', 8, 1, "keys must be uint64 [R]");
            py::array_t<double> out({keys.size(), static_cast<py::ssize_t>(count)});
            double* const to = out.mutable_data();
            const auto* const from = static_cast<const std::uint64_t*>(keys.data());
            const auto rows = static_cast<std::size_t>(keys.size());
            const py::gil_scoped_release release;
            fn::uniforms(from, rows, purpose, count, to);
            return out;
        },
        "keys"_a, "purpose"_a, "count"_a);

    // Tensors come as addresses, as PyTorch isn't linked. Their forms have been checked by the callers,
    // fastnoise/models/pool.py and fastnoise/ops/registry.py.
    m.def(
        "max_pool",
        [](std::uintptr_t images, std::size_t count, std::size_t height, std::size_t width, std::size_t channels,
           std::uintptr_t pooled, std::uintptr_t places) {
            const py::gil_scoped_release release;
            fn::max_pool(reinterpret_cast<const float*>(images), count, height, width, channels,
                         reinterpret_cast<float*>(pooled), reinterpret_cast<std::uint8_t*>(places));
        },
        "images"_a, "count"_a, "height"_a, "width"_a, "channels"_a, "pooled"_a, "places"_a);

    m.def(
        "max_pool_gradient",
        [](std::uintptr_t gradient, std::uintptr_t places, std::size_t count, std::size_t height, std::size_t width,
           std::size_t channels, std::uintptr_t images) {
            const py::gil_scoped_release release;
            fn::max_pool_gradient(reinterpret_cast<const float*>(gradient),
                                  reinterpret_cast<const std::uint8_t*>(places), count, height, width, channels,
                                  reinterpret_cast<float*>(images));
        },
        "gradient"_a, "places"_a, "count"_a, "height"_a, "width"_a, "channels"_a, "images"_a);

    // An address is 0 for what the rule has no use for. `knobs` [3]: update flag, momentum, strength.
    m.def(
        "fused_loss",
        [](unsigned rule, std::size_t rows, std::size_t classes, std::ptrdiff_t stride, std::uintptr_t logits,
           std::uintptr_t attention, std::uintptr_t labels, std::uintptr_t index, std::uintptr_t pair_labels,
           std::uintptr_t pair_index, std::uintptr_t share, std::uintptr_t targets, std::uintptr_t knobs,
           std::uintptr_t given, std::size_t samples, bool update, const py::tuple& options,
           std::optional<std::int64_t> ignore, std::uintptr_t loss, std::uintptr_t gradient,
           std::uintptr_t attention_gradient, unsigned reduction, float gradient_scale, std::uintptr_t looks,
           std::uintptr_t look_index, std::size_t look_rows, unsigned threads) {
            require(rule < std::size(fn::kLossRules) && options.size() <= fn::kMostOptions && reduction <= 2,
                    "no such rule or reduction, or too many options");
            double values[fn::kMostOptions] = {};
            for (std::size_t i = 0; i < options.size(); ++i) values[i] = options[i].cast<double>();
            const auto floats = [](std::uintptr_t address) { return reinterpret_cast<float*>(address); };
            const auto integers = [](std::uintptr_t address) { return reinterpret_cast<const std::int64_t*>(address); };
            const fn::LossJob job{static_cast<fn::LossRule>(rule),
                                  rows,
                                  classes,
                                  floats(logits),
                                  stride,
                                  floats(attention),
                                  integers(labels),
                                  integers(index),
                                  integers(pair_labels),
                                  integers(pair_index),
                                  floats(share),
                                  floats(targets),
                                  samples,
                                  floats(given),
                                  update && knobs && floats(knobs)[0] != 0,
                                  knobs ? floats(knobs)[1] : 1,
                                  knobs ? floats(knobs)[2] : 0,
                                  values,
                                  labels ? ignore : std::nullopt,
                                  floats(loss),
                                  floats(gradient),
                                  floats(attention_gradient),
                                  static_cast<fn::Reduction>(reduction),
                                  gradient_scale,
                                  floats(looks),
                                  integers(look_index),
                                  look_rows};
            const py::gil_scoped_release release;
            return fn::run_loss(job, threads);
        });
}
