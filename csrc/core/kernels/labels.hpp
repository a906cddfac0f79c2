// Part of kernels_body.hpp: labels loaded and checked.

template <class Label, std::size_t groups>
inline bool load_as(const Job& job, std::size_t first, std::size_t size, Words<groups>& label) {
    const Label* const labels = static_cast<const Label*>(job.labels) + first;
    const Shorts most = Shorts{} + static_cast<std::uint16_t>(job.limit - 1);  // a limit of at most 2^16
    Vector<Label> bits{};
    Shorts bad{};
    const auto load_all = [&](const Label* from) {
        for (std::size_t p = 0; p < label.parts; ++p) {
            label.part[p] = load_part(from + p * kShorts, bits);
            bad |= reinterpret_cast<Shorts>(label.part[p] > most);
        }
    };
    if (size == label.count) {
        load_all(labels);
    } else {
        Label whole[label.count] = {};
        std::memcpy(whole, labels, size * sizeof(Label));
        load_all(whole);
    }
    if constexpr (sizeof(Label) > 2) bad |= reinterpret_cast<Shorts>(bits >> 16);
    return !any(bad);
}

template <class Label>
inline bool load_as(const Job& job, std::size_t first, std::size_t size, std::uint32_t* label) {
    const Label* const labels = static_cast<const Label*>(job.labels) + first;
    const std::uint64_t limit = job.limit;
    std::uint32_t bad = 0;
    for (std::size_t j = size; j < kGroup; ++j) label[j] = 0;
    for (std::size_t j = 0; j < size; ++j) {
        const std::uint64_t wide = labels[j];
        label[j] = static_cast<std::uint32_t>(wide);
        bad |= wide >= limit;
    }
    return !bad;
}

// A group's labels as words of 16 or 32 bits, with zeros behind; the models thus see one type and no bad label, even if
// another thread writes to the array meanwhile. False if one of them isn't below the limit.
template <class Given>
inline bool load(const Job& job, std::size_t first, std::size_t size, Given&& label) {
    switch (job.label_bytes) {
        case 1:
            return load_as<std::uint8_t>(job, first, size, label);
        case 2:
            return load_as<std::uint16_t>(job, first, size, label);
        case 4:
            return load_as<std::uint32_t>(job, first, size, label);
        default:
            return load_as<std::uint64_t>(job, first, size, label);
    }
}
