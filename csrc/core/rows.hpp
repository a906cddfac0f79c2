// Batches of frozen features out of a table: gathered, widened to float32, normalised.
#pragma once

#include "core/kernels.hpp"

namespace fastnoise {

// (number - mean) * scale in float32, to the bit whatever the threads and the instruction set.
void normalise_rows(const RowJob&, unsigned threads);

}  // namespace fastnoise
