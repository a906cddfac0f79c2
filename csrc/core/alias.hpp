// Draws from the rows of a matrix in constant time: Walker's alias method (1977), built as by Vose (IEEE Transactions
// on Software Engineering 1991), but in integers.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <vector>

namespace fastnoise {

class TransitionError : public std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

// [classes, classes] entries, threshold below and alias above: slot s, uniform in [0, classes), is kept where a 32-bit
// word falls below the threshold, else it becomes the alias. Each probability of the matrix is rounded to a multiple of
// 2^-32 / classes, and drawn with exactly that one. Rows must hold no negative or non-finite number and sum to 1 within
// 1e-6, else TransitionError; they are divided by their sum.
std::vector<std::uint64_t> alias_table(const double* transition, std::uint32_t classes);

}  // namespace fastnoise
