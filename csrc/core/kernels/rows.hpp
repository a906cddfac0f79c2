// Part of kernels_body.hpp: rows of features gathered, widened to float32 and normalised.

constexpr std::size_t kFloats = sizeof(Floats) / sizeof(float);

inline Floats widen(const float* from) {
    Floats values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

// Rows are at random places, which the processor does not foresee: the next but one is asked for, at most 4 kB of it.
constexpr std::size_t kRowsAhead = 2, kBytesAhead = 4096;

template <class Number>
inline void normalise_as(const RowJob& job, std::size_t begin, std::size_t end) {
    const std::size_t columns = job.columns, whole = columns - columns % kFloats, rest = columns - whole;
    const std::size_t ahead = columns * sizeof(Number) < kBytesAhead ? columns * sizeof(Number) : kBytesAhead;
    const auto* const table = static_cast<const Number*>(job.rows);
    Number numbers[kFloats] = {};
    float means[kFloats] = {}, scales[kFloats] = {};
    std::memcpy(means, job.mean + whole, rest * sizeof(float));
    std::memcpy(scales, job.scale + whole, rest * sizeof(float));
    // No product is followed by a sum, so there is nothing that a compiler could fuse and round otherwise.
    for (std::size_t place = begin; place < end; ++place) {
        const std::size_t later = place + kRowsAhead < end ? place + kRowsAhead : end - 1;
        const auto* const hint = reinterpret_cast<const char*>(table + static_cast<std::size_t>(job.index[later]) * columns);
        for (std::size_t byte = 0; byte < ahead; byte += 64) __builtin_prefetch(hint + byte);
        const Number* const row = table + static_cast<std::size_t>(job.index[place]) * columns;
        float* const out = job.out + place * columns;
        for (std::size_t column = 0; column < whole; column += kFloats) {
            const Floats values = (widen(row + column) - widen(job.mean + column)) * widen(job.scale + column);
            std::memcpy(out + column, &values, sizeof values);
        }
        if (rest) {
            std::memcpy(numbers, row + whole, rest * sizeof(Number));
            const Floats values = (widen(numbers) - widen(means)) * widen(scales);
            std::memcpy(out + whole, &values, rest * sizeof(float));
        }
    }
}

void normalise(const RowJob& job, std::size_t begin, std::size_t end) {
    if (job.number_bytes == 2) {
        normalise_as<std::uint16_t>(job, begin, end);
    } else {
        normalise_as<float>(job, begin, end);
    }
}
