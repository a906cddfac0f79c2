// Loops over threads that live as long as the loop: no pool, so nothing survives a fork.
#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace fastnoise {

// body(begin, end) over [0, count), cut into one range per thread (0: one per core) of no less than `grain` where there
// are several. An exception is thrown again here once all threads have ended: that of the lowest range, if several.
template <class Body>
void parallel_for(std::size_t count, std::size_t grain, unsigned threads, const Body& body) {
    const std::size_t wanted = threads ? threads : std::max(1u, std::thread::hardware_concurrency());
    const std::size_t ranges = std::clamp<std::size_t>(count / grain, 1, wanted);
    std::vector<std::exception_ptr> errors(ranges);
    const auto run = [&](std::size_t range) noexcept {
        // The first count % ranges of them are longer by one: count * range could overflow.
        const std::size_t size = count / ranges, longer = count % ranges;
        const std::size_t begin = range * size + std::min(range, longer);
        try {
            body(begin, begin + size + (range < longer));
        } catch (...) {
            errors[range] = std::current_exception();
        }
    };
    std::vector<std::thread> workers;
    workers.reserve(ranges);
    std::size_t started = 1;  // range 0 is run by the calling thread
    try {
        for (; started < ranges; ++started) workers.emplace_back(run, started);
    } catch (const std::system_error&) {
        // The machine gives no more threads: the calling thread runs the ranges that are left.
    }
    run(0);
    for (std::size_t range = started; range < ranges; ++range) run(range);
    for (auto& worker : workers) worker.join();
    for (const auto& error : errors) {
        if (error) std::rethrow_exception(error);
    }
}

}  // namespace fastnoise
