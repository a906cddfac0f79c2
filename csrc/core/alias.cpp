#include "core/alias.hpp"

#include <algorithm>
#include <cmath>
#include <string>

namespace fastnoise {

std::vector<std::uint64_t> alias_table(const double* transition, std::uint32_t classes) {
    const std::uint64_t unit = std::uint64_t{1} << 32;
    std::vector<std::uint64_t> table(std::size_t{classes} * classes), mass(classes);
    std::vector<std::uint32_t> small, large;
    for (std::size_t row = 0; row < classes; ++row) {
        const double* const p = transition + row * classes;
        double sum = 0;
        for (std::uint32_t j = 0; j < classes; ++j) {
            if (!(p[j] >= 0) || std::isinf(p[j])) {
                throw TransitionError("row " + std::to_string(row) + " holds " + std::to_string(p[j]) + " at column " +
                                      std::to_string(j) + ": probabilities must be finite and not negative");
            }
            sum += p[j];
        }
        if (!(std::abs(sum - 1) <= 1e-6)) {
            throw TransitionError("row " + std::to_string(row) + " sums to " + std::to_string(sum) + ", not to 1");
        }
        // Masses in units of 2^-32 / classes, which sum to classes * 2^32 once the largest takes up the rounding.
        const double scale = static_cast<double>(unit) * classes / sum;
        std::uint64_t total = 0;
        std::uint32_t largest = 0;
        for (std::uint32_t j = 0; j < classes; ++j) {
            mass[j] = static_cast<std::uint64_t>(p[j] * scale + 0.5);
            total += mass[j];
            if (mass[j] > mass[largest]) largest = j;
        }
        mass[largest] += unit * classes - total;
        small.clear();
        large.clear();
        for (std::uint32_t j = 0; j < classes; ++j) (mass[j] < unit ? small : large).push_back(j);
        std::uint64_t* const entry = table.data() + row * classes;
        while (!small.empty()) {  // then some are large: the masses' mean is one unit
            const std::uint32_t s = small.back(), l = large.back();
            small.pop_back();
            entry[s] = std::uint64_t{l} << 32 | mass[s];
            mass[l] -= unit - mass[s];
            if (mass[l] < unit) {
                large.pop_back();
                small.push_back(l);
            }
        }
        for (const std::uint32_t l : large) entry[l] = std::uint64_t{l} << 32;  // full: its alias is itself
    }
    return table;
}

}  // namespace fastnoise
