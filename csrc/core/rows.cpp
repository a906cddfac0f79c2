#include "core/rows.hpp"

#include <algorithm>

#include "core/parallel.hpp"

namespace fastnoise {

void normalise_rows(const RowJob& job, unsigned threads) {
    constexpr std::size_t numbers = std::size_t{1} << 20;  // of a thread: a few hundred microseconds
    const std::size_t grain = std::max<std::size_t>(1, numbers / std::max<std::size_t>(1, job.columns));
    const Kernels& chosen = kernels();
    parallel_for(job.batch, grain, threads, [&](std::size_t begin, std::size_t end) { chosen.normalise(job, begin, end); });
}

}  // namespace fastnoise
