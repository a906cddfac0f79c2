// Included by kernels_*.cpp inside a namespace of the target's own, with Wide (a vector of 64-bit lanes), Shorts (one of
// 16-bit lanes), multiply_low, multiply_high, any, stream, publish, below_mask, equal_mask, kVectors and kIsa. Nothing
// here may be shared with code for other targets: no function of the standard library that could be emitted as a common
// copy, only loops that the compiler vectorises, over groups of 64 samples.

constexpr std::size_t kShorts = sizeof(Shorts) / 2;

// Groups whose numbers are drawn at once, so that the latencies of several vectors of blocks overlap.
constexpr std::size_t kBatch = 4, kBatchSize = kBatch * kGroup;
constexpr std::size_t kBatchesAhead = 2;  // whose memory is asked for: 1 and 4 were slower by up to a tenth

// One attempt's numbers of groups [group, group + kBatch), for a multiple of kBatch. Its blocks differ in the counter's
// first word alone, so that the first two rounds are partly the same for all. The multiplications ignore the upper
// halves of 64-bit lanes, so no round has to clear them. A call of its own, so that the rest of a batch, of which it is
// half, can be inlined.
__attribute__((noinline)) static void draw_batch(std::uint64_t seed, Purpose purpose, std::uint32_t attempt,
                                                 std::uint64_t group, std::uint16_t* numbers) {
    constexpr std::size_t width = sizeof(Wide) / 8;  // blocks per vector
    const Wide zero{};
    Wide iota{};
    for (std::size_t lane = 0; lane < width; ++lane) iota[lane] = lane;
    const Wide multiplier0 = zero + kPhiloxMultiplier0, multiplier1 = zero + kPhiloxMultiplier1;
    const std::uint64_t start = group * kBlocks;
    const std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
    const std::uint64_t first = std::uint64_t{kPhiloxMultiplier1} * static_cast<std::uint32_t>(purpose);
    const std::uint32_t x0 = static_cast<std::uint32_t>(first >> 32) ^ static_cast<std::uint32_t>(start >> 32) ^ k0;
    const std::uint64_t second = std::uint64_t{kPhiloxMultiplier0} * x0;
    const Wide mix1 = zero + (attempt ^ k1), mix2 = zero + (static_cast<std::uint32_t>(first) ^ (k0 + kPhiloxWeyl0));
    const Wide mix3 = zero + (static_cast<std::uint32_t>(second >> 32) ^ (k1 + kPhiloxWeyl1));
    for (std::size_t block = 0; block < kBatch * kBlocks; block += kVectors * width) {
        Wide x[4][kVectors];
        for (std::size_t v = 0; v < kVectors; ++v) {
            const Wide p0 = multiply_low(iota + (start + block + v * width), multiplier0);
            const Wide p1 = multiply_low((p0 >> 32) ^ mix1, multiplier1);
            x[0][v] = (p1 >> 32) ^ mix2;
            x[1][v] = p1;
            x[2][v] = p0 ^ mix3;
            x[3][v] = zero + second;
        }
        Wide key0 = zero + (k0 + 2 * kPhiloxWeyl0), key1 = zero + (k1 + 2 * kPhiloxWeyl1);
#pragma GCC unroll 8
        for (int round = 2; round < kPhiloxRounds; ++round, key0 += kPhiloxWeyl0, key1 += kPhiloxWeyl1) {
            for (std::size_t v = 0; v < kVectors; ++v) {
                const Wide p0 = multiply_low(x[0][v], multiplier0), p1 = multiply_low(x[2][v], multiplier1);
                x[0][v] = (p1 >> 32) ^ x[1][v] ^ key0;
                x[2][v] = (p0 >> 32) ^ x[3][v] ^ key1;
                x[1][v] = p1;
                x[3][v] = p0;
            }
        }
        for (std::size_t v = 0; v < kVectors; ++v) {
            const std::size_t at = block + v * width;
            std::uint16_t* const to = numbers + at / kBlocks * kGroup + at % kBlocks * 4;
            const Wide lower = (x[0][v] & 0xffffffffu) | x[1][v] << 32, upper = (x[2][v] & 0xffffffffu) | x[3][v] << 32;
            std::memcpy(to, &lower, sizeof lower);
            std::memcpy(to + kGroup / 2, &upper, sizeof upper);
        }
    }
}

template <class Lane, std::size_t bytes>
struct VectorOf {
    typedef Lane Type __attribute__((vector_size(bytes)));
};
template <class Lane, std::size_t bytes = sizeof(Wide)>
using Vector = typename VectorOf<Lane, bytes>::Type;

constexpr std::size_t kParts = kGroup / kShorts;  // vectors of 16-bit lanes in a group

// Labels in lanes of 16 bits: those of some groups at once.
template <std::size_t groups>
struct Words {
    static constexpr std::size_t count = groups * kGroup, parts = groups * kParts;
    Shorts part[parts];

    std::uint16_t operator[](std::size_t j) const { return part[j / kShorts][j % kShorts]; }
};

// The lower halves of the lanes of two vectors, as lanes of half the width.
template <class Lane, std::size_t... lane>
inline Vector<Lane> narrowed(Vector<Lane> a, Vector<Lane> b, std::index_sequence<lane...>) {
    return __builtin_shufflevector(a, b, (2 * lane)...);
}
template <class Lane, class Pair>
inline Vector<Lane> narrowed(Pair a, Pair b) {
    return narrowed<Lane>(reinterpret_cast<Vector<Lane>>(a), reinterpret_cast<Vector<Lane>>(b),
                          std::make_index_sequence<sizeof(Wide) / sizeof(Lane)>{});
}

template <class Vec>
inline Vec loaded(const void* from) {
    Vec values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

// The lower 16 bits of kShorts labels; `bits` gets all of those of wider ones.
template <class Label>
inline Shorts load_part(const Label* labels, Vector<Label>& bits) {
    constexpr std::size_t width = sizeof(Wide) / sizeof(Label);
    if constexpr (sizeof(Label) <= 2) {
        return __builtin_convertvector(loaded<Vector<Label, sizeof(Label) * kShorts>>(labels), Shorts);
    } else {
        Vector<Label> part[sizeof(Label) / 2];
        for (std::size_t p = 0; p < sizeof(Label) / 2; ++p) {
            part[p] = loaded<Vector<Label>>(labels + p * width);
            bits |= part[p];
        }
        if constexpr (sizeof(Label) == 4) {
            return narrowed<std::uint16_t>(part[0], part[1]);
        } else {
            return narrowed<std::uint16_t>(narrowed<std::uint32_t>(part[0], part[1]),
                                           narrowed<std::uint32_t>(part[2], part[3]));
        }
    }
}

template <std::size_t groups, class Noisy>
inline void store(const Words<groups>& words, Noisy* to) {
    if constexpr (sizeof(Noisy) == 1) {
        for (std::size_t p = 0; p < words.parts; ++p) {
            const auto narrow = __builtin_convertvector(words.part[p], Vector<Noisy, kShorts>);
            std::memcpy(to + p * kShorts, &narrow, sizeof narrow);
        }
    } else {
        std::uint16_t value[words.count];
        std::memcpy(value, words.part, sizeof value);
        for (std::size_t j = 0; j < words.count; ++j) to[j] = value[j];
    }
}

// Asks for memory some batches ahead of `at`, where a batch takes `bytes`. Drawing takes so long that the processor does
// not run ahead by itself, and a store to a line that is not in the cache first waits for it: 10^6 labels of 8 bytes in
// arrays outside the cache took 0.97 ns each without, 0.55 with (copying them: 0.5); as many new labels of 8 bytes from
// single bytes 0.92 and 0.38. Addresses behind the array do no harm.
template <bool to_write>
inline void prefetch(const void* at, std::size_t bytes) {
    const auto from = reinterpret_cast<std::uintptr_t>(at) + kBatchesAhead * bytes;
    for (std::size_t line = 0; line < bytes; line += 64) {
        __builtin_prefetch(reinterpret_cast<const void*>(from + line), to_write);
    }
}

// Copies a batch past the caches. Lines that lie only partly within `to` are written through them, and asked for some
// batches ahead: waiting for two of 33 lines took longer than all else.
template <std::size_t bytes>
inline void stream_batch(const char* from, char* to) {
    __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(to) + kBatchesAhead * bytes), 1);
    const std::size_t head = (0 - reinterpret_cast<std::uintptr_t>(to)) % 64, lines = (bytes - head) / 64;
    std::memcpy(to, from, head);
    for (std::size_t at = head; at < head + lines * 64; at += sizeof(Wide)) stream(to + at, loaded<Wide>(from + at));
    std::memcpy(to + head + lines * 64, from + head + lines * 64, bytes - head - lines * 64);
}

// A batch's numbers: of `flip`, and of `target` at attempts 0 and 1.
struct Numbers {
    std::uint16_t flip[kBatchSize], target[kBatchSize], next[kBatchSize];
};

// `bounded` for a group and n above kShortBound, from the numbers of attempts 0 and 1.
inline void bounded_group(std::uint32_t n, std::uint64_t seed, Purpose purpose, std::uint64_t group,
                          const std::uint16_t* number, const std::uint16_t* next, std::uint32_t* value) {
    const std::uint32_t reject_below = (0u - n) % n;
    std::uint32_t rejected = 0;
    for (std::size_t j = 0; j < kGroup; ++j) {
        const std::uint64_t product = std::uint64_t{std::uint32_t{number[j]} << 16 | next[j]} * n;
        value[j] = static_cast<std::uint32_t>(product >> 32);
        rejected |= static_cast<std::uint32_t>(product) < reject_below;
    }
    if (!rejected) return;
    for (std::size_t j = 0; j < kGroup; ++j) value[j] = bounded(n, seed, purpose, group * kGroup + j);
}

// The same for n up to kShortBound.
template <std::size_t groups>
inline void bounded_words(std::uint32_t n, std::uint64_t seed, Purpose purpose, std::uint64_t group,
                          const std::uint16_t* number, Words<groups>& value) {
    const auto reject_below = static_cast<std::uint16_t>((0x10000u - n) % n);
    const Shorts factor = Shorts{} + static_cast<std::uint16_t>(n);
    Shorts rejected[value.parts], all{};
    for (std::size_t p = 0; p < value.parts; ++p) {
        const Shorts x = loaded<Shorts>(number + p * kShorts);
        value.part[p] = multiply_high(x, factor);
        rejected[p] = reinterpret_cast<Shorts>(x * factor < Shorts{} + reject_below);
        all |= rejected[p];
    }
    if (!any(all)) return;
    for (std::size_t p = 0; p < value.parts; ++p) {
        if (!any(rejected[p])) continue;
        for (std::size_t j = 0; j < kShorts; ++j) {
            if (!rejected[p][j]) continue;
            value.part[p][j] = static_cast<std::uint16_t>(bounded(n, seed, purpose, group * kGroup + p * kShorts + j));
        }
    }
}

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

// What each label of a group would flip to, by tables.
inline void look_up(const Job& job, std::size_t group, const std::uint16_t* flip, const std::uint32_t* slot,
                    const std::uint32_t* label, std::uint32_t* to) {
    const Model& model = job.model;
    if (model.kind == Model::Kind::mapped) {
        for (std::size_t j = 0; j < kGroup; ++j) to[j] = model.class_map[label[j]];
        return;
    }
    std::uint32_t ties = 0;
    for (std::size_t j = 0; j < kGroup; ++j) {
        const std::uint64_t entry = model.alias[std::uint64_t{label[j]} * model.num_classes + slot[j]];
        const auto alias = static_cast<std::uint32_t>(entry >> 32), high = static_cast<std::uint32_t>(entry) >> 16;
        const std::uint32_t mask = 0u - static_cast<std::uint32_t>(flip[j] < high);
        to[j] = alias ^ ((alias ^ slot[j]) & mask);
        ties |= flip[j] == high;
    }
    if (!ties) return;
    for (std::size_t j = 0; j < kGroup; ++j) {
        const std::uint64_t entry = model.alias[std::uint64_t{label[j]} * model.num_classes + slot[j]];
        if (flip[j] != static_cast<std::uint32_t>(entry) >> 16) continue;
        const std::uint32_t next = draw(job.seed, Purpose::flip, group * kGroup + j, 1);
        to[j] = next < (entry & 0xffff) ? slot[j] : static_cast<std::uint32_t>(entry >> 32);
    }
}

#if defined(FASTNOISE_TABLES)
// A map of up to 128 classes, or a matrix's alias table of up to 11, in registers. Of 0.76 ns a label of a matrix of 10
// classes, gathering took 0.43.
struct Tables {
    static constexpr std::size_t kMost = 128;
    Table high, alias;
    bool held;

    explicit Tables(const Model& model) {
        const bool matrix = model.kind == Model::Kind::matrix;
        const std::uint64_t entries = std::uint64_t{model.num_classes} * (matrix ? model.num_classes : 1);
        held = (matrix || model.kind == Model::Kind::mapped) && entries <= kMost;
        if (!held) return;
        std::uint16_t highs[kMost] = {}, aliases[kMost] = {};
        for (std::size_t entry = 0; entry < entries; ++entry) {
            highs[entry] = matrix ? static_cast<std::uint16_t>(model.alias[entry] >> 16) : 0;
            aliases[entry] = static_cast<std::uint16_t>(matrix ? model.alias[entry] >> 32 : model.class_map[entry]);
        }
        high = Table(highs);
        alias = Table(aliases);
    }

    // What `look_up` does, for slots in `to`.
    template <std::size_t groups>
    void look_up(const Job& job, std::size_t first, const std::uint16_t* flip, const Words<groups>& label,
                 Words<groups>& to) const {
        if (job.model.kind == Model::Kind::mapped) {
            for (std::size_t p = 0; p < to.parts; ++p) to.part[p] = alias(label.part[p]);
            return;
        }
        const Shorts classes = Shorts{} + static_cast<std::uint16_t>(job.model.num_classes);
        Shorts tied[to.parts], all{};
        const Words<groups> slot = to;
        for (std::size_t p = 0; p < to.parts; ++p) {
            const Shorts place = label.part[p] * classes + slot.part[p], number = loaded<Shorts>(flip + p * kShorts);
            const Shorts bound = high(place);
            to.part[p] = number < bound ? slot.part[p] : alias(place);
            tied[p] = reinterpret_cast<Shorts>(number == bound);
            all |= tied[p];
        }
        if (!any(all)) return;
        for (std::size_t j = 0; j < to.count; ++j) {
            if (!tied[j / kShorts][j % kShorts]) continue;
            const std::uint64_t entry = job.model.alias[label[j] * job.model.num_classes + slot[j]];
            const std::uint32_t next = draw(job.seed, Purpose::flip, first + j, 1);
            to.part[j / kShorts][j % kShorts] =
                next < (entry & 0xffff) ? slot[j] : static_cast<std::uint16_t>(entry >> 32);
        }
    }
};
#else
struct Tables {
    static constexpr bool held = false;
    explicit Tables(const Model&) {}
    template <class Given>
    void look_up(const Job&, std::size_t, const std::uint16_t*, const Given&, Given&) const {}
};
#endif

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

static void draw_numbers(std::uint64_t seed, Purpose purpose, std::uint32_t attempt, std::uint64_t begin,
                         std::uint64_t end, std::uint16_t* numbers) {
    std::uint16_t batch[kBatchSize];
    for (std::uint64_t group = begin; group < end;) {
        const std::uint64_t base = group / kBatch * kBatch, until = end < base + kBatch ? end : base + kBatch;
        draw_batch(seed, purpose, attempt, base, batch);
        std::memcpy(numbers + (group - begin) * kGroup, batch + (group - base) * kGroup,
                    (until - group) * kGroup * sizeof *batch);
        group = until;
    }
}

static void draw_bounded(std::uint32_t n, std::uint64_t seed, Purpose purpose, std::uint64_t begin, std::uint64_t end,
                         std::uint32_t* values) {
    for (std::uint64_t group = begin; group < end; ++group) {
        std::uint16_t number[2][kGroup];
        for (std::uint32_t attempt = 0; attempt < 2; ++attempt) {
            draw_numbers(seed, purpose, attempt, group, group + 1, number[attempt]);
        }
        std::uint32_t* const value = values + (group - begin) * kGroup;
        if (n > kShortBound) {
            bounded_group(n, seed, purpose, group, number[0], number[1], value);
        } else {
            Words<1> words;
            bounded_words(n, seed, purpose, group, number[0], words);
            store(words, value);
        }
    }
}

// differs[j]: not 0 where the predictions of sample first + j differ between stages.
template <class Prediction>
inline void compare_stages(const StageJob& job, std::size_t first, std::size_t size, Prediction* differs) {
    for (std::size_t j = 0; j < kGroup; ++j) differs[j] = 0;
    if (!job.agree) return;
    const Prediction* const start = static_cast<const Prediction*>(job.predictions) + first;
    for (std::size_t stage = 1; stage < job.stages; ++stage) {
        const Prediction* const now = start + stage * job.count;
        for (std::size_t j = 0; j < kGroup; j += 64 / sizeof(Prediction)) __builtin_prefetch(now + 8 * kGroup + j);
        if (size == kGroup) {
            for (std::size_t j = 0; j < kGroup; ++j) differs[j] |= start[j] ^ now[j];
        } else {
            for (std::size_t j = 0; j < size; ++j) differs[j] |= start[j] ^ now[j];
        }
    }
}

// The losses of one stage of a group; `spare` holds those of the last group, NaN behind.
inline const float* stage_losses(const StageJob& job, std::size_t stage, std::size_t first, std::size_t size,
                                 float* spare) {
    const float* const loss = job.losses + stage * job.count + first;
    // Six streams are more than the processor follows by itself: 0.94 ns a sample without this hint, 0.36 with it.
    for (std::size_t line = 0; line < 4; ++line) __builtin_prefetch(loss + 8 * kGroup + 16 * line);
    if (size == kGroup) return loss;
    for (std::size_t j = 0; j < kGroup; ++j) spare[j] = __builtin_nanf("");
    std::memcpy(spare, loss, size * sizeof(float));
    return spare;
}

// Groups read of one stage before the next. Six streams side by side are more than the processor follows by itself:
// 10^6 samples of three stages took 0.36 ns each in single groups with hints, 0.2 to 0.3 in strips of 12 to 16 groups,
// 0.4 to 0.5 in strips of 8, partly out of the cache; longer ones were no faster, and slower with wide predictions.
constexpr std::size_t kStrip = 14;

template <class Prediction>
inline std::size_t members_as(const StageJob& job, float threshold, std::size_t begin, std::size_t end,
                              std::uint64_t* masks) {
    const auto* const predictions = static_cast<const Prediction*>(job.predictions);
    const std::size_t full = job.count / kGroup, whole = full < end ? full : end;
    std::size_t found = 0;
    for (std::size_t base = begin; base < whole; base += kStrip) {
        const std::size_t groups = whole - base < kStrip ? whole - base : kStrip, first = base * kGroup;
        std::uint64_t member[kStrip];
        for (std::size_t g = 0; g < groups; ++g) member[g] = ~std::uint64_t{};
        for (std::size_t stage = 0; stage < job.stages; ++stage) {
            const float* const loss = job.losses + stage * job.count + first;
            for (std::size_t g = 0; g < groups; ++g) member[g] &= below_mask(loss + g * kGroup, threshold);
        }
        for (std::size_t stage = 1; job.agree && stage < job.stages; ++stage) {
            const Prediction *const start = predictions + first, *const now = start + stage * job.count;
            for (std::size_t g = 0; g < groups; ++g) member[g] &= equal_mask(start + g * kGroup, now + g * kGroup);
        }
        for (std::size_t g = 0; g < groups; ++g) {
            masks[base - begin + g] = member[g];
            found += static_cast<std::size_t>(__builtin_popcountll(member[g]));
        }
    }
    for (std::size_t group = whole > begin ? whole : begin; group < end; ++group) {  // the last, cut short
        std::uint64_t mask = 0;
        for (std::size_t i = group * kGroup; i < job.count; ++i) {
            bool member = true;
            for (std::size_t at = i; at < job.stages * job.count; at += job.count) {
                member &= job.losses[at] < threshold && (!job.agree || predictions[at] == predictions[i]);
            }
            mask |= std::uint64_t{member} << i % kGroup;
            found += member;
        }
        masks[group - begin] = mask;
    }
    return found;
}

static std::size_t members(const StageJob& job, float threshold, std::size_t begin, std::size_t end,
                           std::uint64_t* masks) {
    switch (job.prediction_bytes) {
        case 1:
            return members_as<std::uint8_t>(job, threshold, begin, end, masks);
        case 2:
            return members_as<std::uint16_t>(job, threshold, begin, end, masks);
        default:
            return members_as<std::uint32_t>(job, threshold, begin, end, masks);
    }
}

template <class Prediction>
inline void worst_loss_as(const StageJob& job, std::size_t group, float* worst) {
    const std::size_t first = group * kGroup, size = job.count - first < kGroup ? job.count - first : kGroup;
    Prediction differs[kGroup];
    compare_stages(job, first, size, differs);
    float spare[kGroup], top[kGroup];
    std::uint32_t none[kGroup];
    for (std::size_t j = 0; j < kGroup; ++j) {
        top[j] = -__builtin_inff();
        none[j] = differs[j] != 0;
    }
    for (std::size_t stage = 0; stage < job.stages; ++stage) {
        const float* const loss = stage_losses(job, stage, first, size, spare);
        for (std::size_t j = 0; j < kGroup; ++j) {
            none[j] |= static_cast<std::uint32_t>(loss[j] != loss[j]);
            top[j] = loss[j] > top[j] ? loss[j] : top[j];
        }
    }
    for (std::size_t j = 0; j < kGroup; ++j) worst[j] = none[j] ? __builtin_nanf("") : top[j];
}

static void worst_loss(const StageJob& job, std::size_t group, float* worst) {
    switch (job.prediction_bytes) {
        case 1:
            return worst_loss_as<std::uint8_t>(job, group, worst);
        case 2:
            return worst_loss_as<std::uint16_t>(job, group, worst);
        default:
            return worst_loss_as<std::uint32_t>(job, group, worst);
    }
}

// One threshold after another against all values, which stay in registers: for the numbers of thresholds that occur,
// less work than a search that has to gather.
static void bin(const float* worst, const float* thresholds, std::size_t count, std::uint32_t* bins) {
    typedef float Floats __attribute__((vector_size(sizeof(Wide))));
    typedef std::int32_t Ints __attribute__((vector_size(sizeof(Wide))));
    constexpr std::size_t width = sizeof(Wide) / 4, together = 4;
    for (std::size_t j = 0; j < kGroup; j += together * width) {
        Floats value[together];
        Ints bin[together] = {};
        std::memcpy(value, worst + j, sizeof value);
        for (std::size_t t = 0; t < count; ++t) {
            for (std::size_t v = 0; v < together; ++v) {
                bin[v] += 1 + (value[v] < (Floats{} + thresholds[t]));  // -1 where below
            }
        }
        std::memcpy(bins + j, bin, sizeof bin);
    }
}

extern const Kernels kKernels{kIsa, draw_numbers, draw_bounded, corrupt, check, members, worst_loss, bin};
