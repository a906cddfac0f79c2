// Part of kernels_body.hpp: labels corrupted at all rates, group by group.

// Further bits of u decide for flips that tie: one group in a thousand.
template <class Noisy, class Target>
inline void break_ties(const Job& job, std::size_t first, std::size_t size, const std::uint16_t* flip,
                       Threshold threshold, const Target& to, Noisy* noisy) {
    for (std::size_t j = 0; j < size; ++j) {
        if (flip[j] != threshold.high || further(job.seed, first + j) >= threshold.low) continue;
        noisy[j] = static_cast<Noisy>(to[j]);
    }
}

template <bool streams, class Noisy, std::size_t groups>
inline void write_as(const Job& job, std::size_t first, std::size_t size, const std::uint16_t* flip,
                     const Words<groups>& label, const Words<groups>& to) {
    alignas(64) Noisy apart[label.count];
    for (std::size_t rate = 0; rate < job.rates; ++rate) {
        const Threshold threshold = job.thresholds[rate];
        Noisy* const out = reinterpret_cast<Noisy*>(static_cast<char*>(job.noisy) + rate * job.stride) + first;
        Noisy* const noisy = size == label.count && !streams ? out : apart;
        const Shorts high = Shorts{} + threshold.high;
        Shorts ties{};
        Words<groups> chosen;
        for (std::size_t p = 0; p < label.parts; ++p) {
            const Shorts number = loaded<Shorts>(flip + p * kShorts);
            chosen.part[p] = number < high ? to.part[p] : label.part[p];
            ties |= reinterpret_cast<Shorts>(number == high);
        }
        if constexpr (groups == kBatch && !streams) prefetch<true>(out, sizeof apart);
        store(chosen, noisy);
        if (any(ties)) break_ties(job, first, size, flip, threshold, to, noisy);
        if constexpr (streams) {
            stream_batch<sizeof apart>(reinterpret_cast<const char*>(apart), reinterpret_cast<char*>(out));
        } else if (noisy == apart) {
            std::memcpy(out, apart, size * sizeof(Noisy));
        }
    }
}

template <bool, class Noisy>
inline void write_as(const Job& job, std::size_t first, std::size_t size, const std::uint16_t* flip,
                     const std::uint32_t* label, const std::uint32_t* to) {
    for (std::size_t rate = 0; rate < job.rates; ++rate) {
        const Threshold threshold = job.thresholds[rate];
        Noisy* const noisy = reinterpret_cast<Noisy*>(static_cast<char*>(job.noisy) + rate * job.stride) + first;
        std::uint32_t ties = 0;
        for (std::size_t j = 0; j < size; ++j) {
            // A mask, since g++ makes a branch of a choice, which random numbers mispredict.
            const std::uint32_t mask = 0u - static_cast<std::uint32_t>(flip[j] < threshold.high);
            noisy[j] = static_cast<Noisy>(label[j] ^ ((label[j] ^ to[j]) & mask));
            ties |= flip[j] == threshold.high;
        }
        if (ties) break_ties(job, first, size, flip, threshold, to, noisy);
    }
}

template <bool streams, class Given>
inline void write(const Job& job, std::size_t first, std::size_t size, const std::uint16_t* flip, const Given& label,
                  const Given& to) {
    switch (job.noisy_bytes) {
        case 1:
            return write_as<false, std::uint8_t>(job, first, size, flip, label, to);
        case 2:
            return write_as<false, std::uint16_t>(job, first, size, flip, label, to);
        case 4:
            return write_as<streams, std::uint32_t>(job, first, size, flip, label, to);
        default:
            return write_as<streams, std::uint64_t>(job, first, size, flip, label, to);
    }
}

// Groups [group, group + groups) of a model of at most kShortBound classes, the first one's numbers at `offset`; false,
// and nothing written, if they hold a bad label. Inlined, since a batch of 8-byte labels takes a fifth longer if called.
template <std::size_t groups, bool streams>
__attribute__((always_inline)) inline bool corrupt_short(const Job& job, const Tables& tables, std::size_t group,
                                                         const Numbers& numbers, const std::uint16_t* flip,
                                                         std::size_t offset) {
    const std::size_t first = group * kGroup, rest = job.count - first;
    const Model& model = job.model;
    const auto classes = static_cast<std::uint16_t>(model.num_classes);
    Words<groups> label, to;
    const std::size_t size = rest < label.count ? rest : label.count;
    if (!load(job, first, size, label)) return false;
    const auto uniform = [&](std::uint32_t n) __attribute__((always_inline)) {
        bounded_words(n, job.seed, Purpose::target, group, numbers.target + offset, to);
    };
    switch (model.kind) {
        case Model::Kind::excluded:
            uniform(classes - 1);
            // Step over the true class: a comparison that holds is -1.
            for (std::size_t p = 0; p < to.parts; ++p) {
                to.part[p] -= reinterpret_cast<Shorts>(to.part[p] >= label.part[p]);
            }
            break;
        case Model::Kind::included:
            uniform(classes);
            break;
        case Model::Kind::pair: {
            const Shorts end = Shorts{} + classes;
            for (std::size_t p = 0; p < to.parts; ++p) {
                const Shorts next = label.part[p] + 1;
                to.part[p] = next & reinterpret_cast<Shorts>(next != end);
            }
            break;
        }
        default: {
            if (tables.held) {
                if (model.kind == Model::Kind::matrix) uniform(classes);
                tables.look_up(job, first, numbers.flip + offset, label, to);
                break;
            }
            std::uint32_t from[label.count], slot[label.count], target[label.count];
            store(label, from);
            if (model.kind == Model::Kind::matrix) {
                uniform(classes);
                store(to, slot);
            }
            for (std::size_t j = 0; j < label.count; j += kGroup) {
                look_up(job, group + j / kGroup, numbers.flip + offset + j, slot + j, from + j, target + j);
            }
            Vector<std::uint32_t> unused{};
            for (std::size_t p = 0; p < to.parts; ++p) to.part[p] = load_part(target + p * kShorts, unused);
        }
    }
    write<streams>(job, first, size, flip + offset, label, to);
    return true;
}

// One group of a model of more.
inline bool corrupt_wide(const Job& job, std::size_t group, const Numbers& numbers, const std::uint16_t* flip,
                         std::size_t offset) {
    const std::size_t first = group * kGroup, size = job.count - first < kGroup ? job.count - first : kGroup;
    const Model& model = job.model;
    const std::uint32_t classes = model.num_classes;
    std::uint32_t label[kGroup], to[kGroup], slot[kGroup];
    if (!load(job, first, size, label)) return false;
    const auto uniform = [&](std::uint32_t n, std::uint32_t* value) {
        bounded_group(n, job.seed, Purpose::target, group, numbers.target + offset, numbers.next + offset, value);
    };
    switch (model.kind) {
        case Model::Kind::excluded:
            uniform(classes - 1, to);
            for (std::size_t j = 0; j < kGroup; ++j) to[j] += to[j] >= label[j];
            break;
        case Model::Kind::included:
            uniform(classes, to);
            break;
        case Model::Kind::pair:
            for (std::size_t j = 0; j < kGroup; ++j) to[j] = label[j] + 1 == classes ? 0 : label[j] + 1;
            break;
        default:
            if (model.kind == Model::Kind::matrix) uniform(classes, slot);
            look_up(job, group, numbers.flip + offset, slot, label, to);
    }
    write<false>(job, first, size, flip + offset, label, to);
    return true;
}

template <bool streams>
inline std::size_t corrupt_all(const Job& job, std::size_t begin, std::size_t end) {
    const Model::Kind kind = job.model.kind;
    const bool matrix = kind == Model::Kind::matrix, wide = job.model.num_classes > kShortBound;
    const bool uniform = matrix || kind == Model::Kind::excluded || kind == Model::Kind::included;
    const Tables tables(job.model);
    Numbers numbers;
    std::uint16_t decided[kBatchSize] = {};
    for (std::size_t group = begin; group < end;) {
        const std::size_t base = group / kBatch * kBatch;
        if (!job.chosen) draw_batch(job.seed, Purpose::flip, 0, base, numbers.flip);
        // After the first draw, as 8-byte labels take up to a tenth longer with this right behind the last stores.
        prefetch<false>(static_cast<const char*>(job.labels) + base * kGroup * job.label_bytes,
                        kBatchSize * job.label_bytes);
        if (uniform) draw_batch(job.seed, Purpose::target, 0, base, numbers.target);
        if (uniform && wide) draw_batch(job.seed, Purpose::target, 1, base, numbers.next);
        if (job.chosen) {
            const std::size_t first = base * kGroup;
            for (std::size_t j = 0; j < kBatchSize && first + j < job.count; ++j) {
                decided[j] = job.chosen[first + j] ? 0 : 0xffff;
            }
        }
        const std::uint16_t* const flip = job.chosen || matrix ? decided : numbers.flip;
        // All groups of a batch at once where none is cut off: a third less time than one by one.
        const bool whole = !wide && group == base && end - base >= kBatch && job.count - base * kGroup >= kBatchSize;
        if (whole && corrupt_short<kBatch, streams>(job, tables, base, numbers, flip, 0)) {
            group += kBatch;
            continue;
        }
        for (; group < end && group < base + kBatch; ++group) {
            const std::size_t offset = (group - base) * kGroup;
            const bool done = wide ? corrupt_wide(job, group, numbers, flip, offset)
                                   : corrupt_short<1, false>(job, tables, group, numbers, flip, offset);
            if (!done) return group;
        }
    }
    return end;
}

static std::size_t corrupt(const Job& job, std::size_t begin, std::size_t end) {
    if (!job.stream) return corrupt_all<false>(job, begin, end);
    const std::size_t reached = corrupt_all<true>(job, begin, end);
    publish();
    return reached;
}

static std::size_t check(const Job& job, std::size_t begin, std::size_t end) {
    Words<1> label;
    std::uint32_t wide[kGroup];
    for (std::size_t group = begin; group < end; ++group) {
        const std::size_t first = group * kGroup, size = job.count - first < kGroup ? job.count - first : kGroup;
        if (!(job.limit <= 0x10000 ? load(job, first, size, label) : load(job, first, size, wide))) return group;
    }
    return end;
}
