// Included by kernels_*.cpp inside a namespace of the target's own, with Wide (a vector of 64-bit lanes), multiply_low
// and kIsa. Nothing here may be shared with code for other targets: no function of the standard library that could be
// emitted as a common copy, only loops that the compiler vectorises, over groups of 64 samples.

// Half of the 32-bit lanes of two vectors, which are numbered from 0 over both: those at offset 0 or 1 of every two.
typedef std::uint32_t Narrow __attribute__((vector_size(sizeof(Wide))));
template <int offset>
inline Narrow halves(Wide a, Wide b) {
    const Narrow x = reinterpret_cast<Narrow>(a), y = reinterpret_cast<Narrow>(b);
    constexpr int o = offset;
    if constexpr (sizeof(Wide) == 16) {
        return __builtin_shufflevector(x, y, o, o + 2, o + 4, o + 6);
    } else if constexpr (sizeof(Wide) == 32) {
        return __builtin_shufflevector(x, y, o, o + 2, o + 4, o + 6, o + 8, o + 10, o + 12, o + 14);
    } else {
        return __builtin_shufflevector(x, y, o, o + 2, o + 4, o + 6, o + 8, o + 10, o + 12, o + 14, o + 16, o + 18,
                                       o + 20, o + 22, o + 24, o + 26, o + 28, o + 30);
    }
}

// A group's words, two vectors of blocks at a time, whose latencies then overlap: emit(first sample, a, b) is called with
// the words of samples first, first + 1, ... in the lower halves of 64-bit lanes, of whose upper halves anything may be
// left. The multiplication ignores those, so no round has to clear them.
template <class Emit>
inline void for_group(std::uint64_t seed, Purpose purpose, std::uint64_t group, const Emit& emit) {
    constexpr std::size_t width = sizeof(Wide) / 8;  // blocks per vector
    const Wide zero{};
    Wide iota{};
    for (std::size_t lane = 0; lane < width; ++lane) iota[lane] = lane;
    const Wide multiplier0 = zero + kPhiloxMultiplier0, multiplier1 = zero + kPhiloxMultiplier1;
    for (std::size_t lane = 0; lane < kLanes; lane += 2 * width) {
        std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
        Wide x[4][2];
        for (std::size_t v = 0; v < 2; ++v) {
            x[0][v] = iota + (group * kLanes + lane + v * width);
            x[1][v] = x[0][v] >> 32;
            x[2][v] = zero + static_cast<std::uint32_t>(purpose);
            x[3][v] = zero;
        }
        for (int round = 0; round < kPhiloxRounds; ++round, k0 += kPhiloxWeyl0, k1 += kPhiloxWeyl1) {
            for (std::size_t v = 0; v < 2; ++v) {
                const Wide p0 = multiply_low(x[0][v], multiplier0), p1 = multiply_low(x[2][v], multiplier1);
                x[0][v] = (p1 >> 32) ^ x[1][v] ^ (zero + k0);
                x[2][v] = (p0 >> 32) ^ x[3][v] ^ (zero + k1);
                x[1][v] = p1;
                x[3][v] = p0;
            }
        }
        for (std::size_t word = 0; word < 4; ++word) emit(word * kLanes + lane, x[word][0], x[word][1]);
    }
}

inline void draw_group(std::uint64_t seed, Purpose purpose, std::uint64_t group, std::uint32_t* words) {
    for_group(seed, purpose, group, [&](std::size_t first, Wide a, Wide b) __attribute__((always_inline)) {
        const Narrow low = halves<0>(a, b);
        std::memcpy(words + first, &low, sizeof low);
    });
}

// `bounded` for a whole group. 2^32 mod n < n, so no lower half below n means that no word was to be rejected.
inline void bounded_group(std::uint32_t n, std::uint64_t seed, Purpose purpose, std::uint64_t group,
                          std::uint32_t* value) {
    const Wide factor = Wide{} + n;
    const Narrow bound = Narrow{} + n;
    Narrow unsure{};
    for_group(seed, purpose, group, [&](std::size_t first, Wide a, Wide b) __attribute__((always_inline)) {
        const Wide p = multiply_low(a, factor), q = multiply_low(b, factor);
        const Narrow high = halves<1>(p, q);
        unsure |= reinterpret_cast<Narrow>(halves<0>(p, q) < bound);
        std::memcpy(value + first, &high, sizeof high);
    });
    std::uint32_t any = 0;
    for (std::size_t i = 0; i < sizeof unsure / 4; ++i) any |= unsure[i];
    if (!any) return;
    std::uint32_t word[kGroup];
    draw_group(seed, purpose, group, word);
    for (std::size_t j = 0; j < kGroup; ++j) value[j] = bounded(word[j], n, seed, purpose, group * kGroup + j);
}

// Labels [first, first + size) as 32-bit words, with zeros behind; the models thus see one type and no bad label, even
// if another thread writes to the array meanwhile. False if one of them isn't below the limit.
template <class Label>
inline bool load_as(const Job& job, std::size_t first, std::size_t size, std::uint32_t* label) {
    const Label* const labels = static_cast<const Label*>(job.labels) + first;
    const std::uint64_t limit = job.limit;
    std::uint32_t bad = 0;
    if (size == kGroup) {
        if constexpr (sizeof(Label) < 8) {
            for (std::size_t j = 0; j < kGroup; ++j) {
                label[j] = labels[j];
                bad |= label[j] >= static_cast<std::uint32_t>(limit);
            }
        } else {
            for (std::size_t j = 0; j < kGroup; ++j) {
                const std::uint64_t wide = labels[j];
                label[j] = static_cast<std::uint32_t>(wide);
                bad |= wide >= limit;
            }
        }
    } else {
        for (std::size_t j = 0; j < kGroup; ++j) label[j] = 0;
        for (std::size_t j = 0; j < size; ++j) {
            const std::uint64_t wide = labels[j];
            label[j] = static_cast<std::uint32_t>(wide);
            bad |= wide >= limit;
        }
    }
    return !bad;
}

inline bool load(const Job& job, std::size_t first, std::size_t size, std::uint32_t* label) {
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

// What each label of a group would flip to.
inline void targets(const Model& model, std::uint64_t seed, std::size_t group, const std::uint32_t* label,
                    std::uint32_t* to) {
    const std::uint32_t classes = model.num_classes;
    switch (model.kind) {
        case Model::Kind::excluded:
            bounded_group(classes - 1, seed, Purpose::target, group, to);
            for (std::size_t j = 0; j < kGroup; ++j) to[j] += to[j] >= label[j];  // step over the true class
            break;
        case Model::Kind::included:
            bounded_group(classes, seed, Purpose::target, group, to);
            break;
        case Model::Kind::mapped:
            for (std::size_t j = 0; j < kGroup; ++j) to[j] = model.class_map[label[j]];
            break;
        case Model::Kind::pair:
            for (std::size_t j = 0; j < kGroup; ++j) to[j] = label[j] + 1 == classes ? 0 : label[j] + 1;
            break;
        case Model::Kind::matrix: {
            std::uint32_t slot[kGroup], word[kGroup];
            bounded_group(classes, seed, Purpose::target, group, slot);
            draw_group(seed, Purpose::flip, group, word);
            for (std::size_t j = 0; j < kGroup; ++j) {
                const std::uint64_t entry = model.alias[std::uint64_t{label[j]} * classes + slot[j]];
                const auto alias = static_cast<std::uint32_t>(entry >> 32);
                const std::uint32_t mask = 0u - static_cast<std::uint32_t>(word[j] < static_cast<std::uint32_t>(entry));
                to[j] = alias ^ ((alias ^ slot[j]) & mask);
            }
        }
    }
}

// noisy[j] = to[j] where word[j] < high, else label[j]; whether any word equals high.
template <class Noisy>
inline bool select_as(const std::uint32_t* word, std::uint32_t high, const std::uint32_t* label,
                      const std::uint32_t* to, Noisy* noisy) {
    std::uint32_t ties = 0;
    for (std::size_t j = 0; j < kGroup; ++j) {
        // A mask, since g++ makes a branch of a choice, which random words mispredict (5.4 against 1.8 ns a label).
        const std::uint32_t mask = 0u - static_cast<std::uint32_t>(word[j] < high);
        noisy[j] = static_cast<Noisy>(label[j] ^ ((label[j] ^ to[j]) & mask));
        ties |= word[j] == high;
    }
    return ties;
}

// `select_as` by the words' upper 16 bits alone, for types of 8 and 16 bits: as many lanes more fit in a vector.
template <class Noisy>
inline bool select_upper(const std::uint16_t* upper, std::uint16_t high, const Noisy* label, const Noisy* change,
                         Noisy* noisy) {
    std::uint16_t ties = 0;
    for (std::size_t j = 0; j < kGroup; ++j) {
        const auto mask = static_cast<std::uint16_t>(0u - static_cast<std::uint32_t>(upper[j] < high));
        noisy[j] = static_cast<Noisy>(label[j] ^ (change[j] & static_cast<Noisy>(mask)));
        ties |= static_cast<std::uint16_t>(upper[j] == high);
    }
    return ties;
}

template <class Noisy>
inline void write_as(const Job& job, std::size_t group, const std::uint32_t* word, const std::uint32_t* label,
                     const std::uint32_t* to) {
    const std::size_t first = group * kGroup, size = job.count - first < kGroup ? job.count - first : kGroup;
    constexpr bool narrow = sizeof(Noisy) <= 2;
    std::uint16_t upper[kGroup];
    Noisy label_of[kGroup], change[kGroup], tail[kGroup];
    if constexpr (narrow) {
        for (std::size_t j = 0; j < kGroup; ++j) {
            upper[j] = static_cast<std::uint16_t>(word[j] >> 16);
            label_of[j] = static_cast<Noisy>(label[j]);
            change[j] = static_cast<Noisy>(label[j] ^ to[j]);
        }
    }
    for (std::size_t rate = 0; rate < job.rates; ++rate) {
        const Threshold threshold = job.thresholds[rate];
        Noisy* const out = reinterpret_cast<Noisy*>(static_cast<char*>(job.noisy) + rate * job.stride) + first;
        Noisy* const noisy = size == kGroup ? out : tail;
        bool ties = true;
        if constexpr (narrow) {
            ties = select_upper(upper, static_cast<std::uint16_t>(threshold.high >> 16), label_of, change, noisy);
        }
        // Where the upper bits tie (for one group in a thousand), all 32 are compared, and where those tie, 64.
        if (ties && select_as(word, threshold.high, label, to, noisy)) {
            for (std::size_t j = 0; j < size; ++j) {
                if (word[j] == threshold.high && draw(job.seed, Purpose::flip, first + j, 1) < threshold.low) {
                    noisy[j] = static_cast<Noisy>(to[j]);
                }
            }
        }
        if (noisy == tail) std::memcpy(out, tail, size * sizeof(Noisy));
    }
}

static std::size_t corrupt(const Job& job, std::size_t begin, std::size_t end) {
    const bool drawn = !job.chosen && job.model.kind != Model::Kind::matrix;
    std::uint32_t label[kGroup], to[kGroup], word[kGroup] = {};
    for (std::size_t group = begin; group < end; ++group) {
        const std::size_t first = group * kGroup, size = job.count - first < kGroup ? job.count - first : kGroup;
        if (!load(job, first, size, label)) return group;
        targets(job.model, job.seed, group, label, to);
        if (drawn) {
            draw_group(job.seed, Purpose::flip, group, word);
        } else if (job.chosen) {
            for (std::size_t j = 0; j < size; ++j) word[j] = job.chosen[first + j] ? 0 : ~0u;
        }
        switch (job.noisy_bytes) {
            case 1:
                write_as<std::uint8_t>(job, group, word, label, to);
                break;
            case 2:
                write_as<std::uint16_t>(job, group, word, label, to);
                break;
            case 4:
                write_as<std::uint32_t>(job, group, word, label, to);
                break;
            default:
                write_as<std::uint64_t>(job, group, word, label, to);
        }
    }
    return end;
}

static std::size_t check(const Job& job, std::size_t begin, std::size_t end) {
    std::uint32_t label[kGroup];
    for (std::size_t group = begin; group < end; ++group) {
        const std::size_t first = group * kGroup, size = job.count - first < kGroup ? job.count - first : kGroup;
        if (!load(job, first, size, label)) return group;
    }
    return end;
}

static void draw_words(std::uint64_t seed, Purpose purpose, std::uint64_t begin, std::uint64_t end,
                       std::uint32_t* words) {
    for (std::uint64_t group = begin; group < end; ++group) {
        draw_group(seed, purpose, group, words + (group - begin) * kGroup);
    }
}

static void draw_bounded(std::uint32_t n, std::uint64_t seed, Purpose purpose, std::uint64_t begin, std::uint64_t end,
                         std::uint32_t* values) {
    for (std::uint64_t group = begin; group < end; ++group) {
        bounded_group(n, seed, purpose, group, values + (group - begin) * kGroup);
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

template <class Prediction>
inline void members_as(const StageJob& job, float threshold, std::size_t begin, std::size_t end, std::uint64_t* masks) {
    float spare[kGroup];
    for (std::size_t group = begin; group < end; ++group) {
        const std::size_t first = group * kGroup, size = job.count - first < kGroup ? job.count - first : kGroup;
        Prediction differs[kGroup];
        compare_stages(job, first, size, differs);
        // Vectors by name: g++ 12 makes slow code of the same loops over arrays.
        typedef float Floats __attribute__((vector_size(sizeof(Wide))));
        typedef std::int32_t Ints __attribute__((vector_size(sizeof(Wide))));
        constexpr std::size_t width = sizeof(Wide) / 4, vectors = kGroup / width;
        Ints below[vectors];
        for (std::size_t v = 0; v < vectors; ++v) below[v] = ~Ints{};
        for (std::size_t stage = 0; stage < job.stages; ++stage) {
            const float* const loss = stage_losses(job, stage, first, size, spare);
            for (std::size_t v = 0; v < vectors; ++v) {
                Floats value;
                std::memcpy(&value, loss + v * width, sizeof value);
                below[v] &= value < (Floats{} + threshold);
            }
        }
        std::int32_t every[kGroup];
        std::memcpy(every, below, sizeof every);
        std::uint8_t member[kGroup];  // 255 or 0
        for (std::size_t j = 0; j < kGroup; ++j) {
            member[j] = static_cast<std::uint8_t>(every[j]) & static_cast<std::uint8_t>(differs[j] ? 0 : 255);
        }
        std::uint64_t mask = 0;
#if defined(__SSE2__)
        for (std::size_t j = 0; j < kGroup; j += 16) {
            __m128i sixteen;
            std::memcpy(&sixteen, member + j, 16);
            mask |= std::uint64_t{static_cast<std::uint32_t>(_mm_movemask_epi8(sixteen))} << j;
        }
#else
        for (std::size_t j = 0; j < kGroup; ++j) mask |= std::uint64_t{member[j] & 1u} << j;
#endif
        masks[group - begin] = mask;
    }
}

static void members(const StageJob& job, float threshold, std::size_t begin, std::size_t end, std::uint64_t* masks) {
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

extern const Kernels kKernels{kIsa, draw_words, draw_bounded, corrupt, check, members, worst_loss, bin};
