// Part of losses_body.hpp: what the rules share of a group of rows. One copy of each function serves them all.

constexpr std::size_t padded(std::size_t classes) { return (classes + kLanes - 1) / kLanes * kLanes; }

// Moves 1 to 16 numbers, those at the end and those at the beginning in one piece each.
template <std::size_t half>
inline void move_ends(const float* from, float* to, std::size_t count) {
    float low[half], high[half];
    std::memcpy(low, from, sizeof low);
    std::memcpy(high, from + count - half, sizeof high);
    std::memcpy(to, low, sizeof low);
    std::memcpy(to + count - half, high, sizeof high);
}
inline void move_part(const float* from, float* to, std::size_t count) {
    if (count >= 8) return move_ends<8>(from, to, count);
    if (count >= 4) return move_ends<4>(from, to, count);
    if (count >= 2) return move_ends<2>(from, to, count);
    *to = *from;
}

// Up to 16 numbers; in the lanes beyond them `padding`.
template <class T>
inline T load_part(const float* from, std::size_t count, float padding) {
    if (count >= kLanes) return load_floats<T>(from);
    float block[kLanes];
    for (std::size_t j = 0; j < kLanes; ++j) block[j] = padding;
    move_part(from, block, count);
    return load_floats<T>(block);
}
template <class T>
inline void store_part(T lanes, float* to, std::size_t count) {
    if (count >= kLanes) return store_floats(lanes, to);
    float block[kLanes];
    store_floats(lanes, block);
    move_part(block, to, count);
}

// What there is one number of per row, for the rows of a group.
template <class Real>
struct Group {
    std::size_t row[kLanes], top[kLanes], label[kLanes], pair_label[kLanes];
    Real highest[kLanes], rest_power[kLanes], inverse[kLanes], log_total[kLanes], total[kLanes];
    Real label_shift[kLanes], label_power[kLanes], pair_shift[kLanes], pair_power[kLanes];
    Real label_is_top[kLanes], pair_is_top[kLanes], share[kLanes];
    Real attention[kLanes], tau[kLanes], off[kLanes], log_tau[kLanes], log_off[kLanes], momentum[kLanes];
    Real sum0[kLanes], sum1[kLanes], slope_top[kLanes], slope_rest[kLanes];
    Real loss[kLanes], dattention[kLanes], label_scale[kLanes], row_scale[kLanes];
};

// What a rule has, where that needn't be known to the compiler.
struct Traits {
    bool has_loss, has_terms, from_one_hot, has_attention;
};

// What the rules share. One copy of each function serves them all.
template <class Real>
struct Rows {
    using T = Lanes<Real>;

    const LossJob& job;
    const LossPlan& plan;
    const Traits traits;
    Options<T> options;
    Options<Real> scalar_options;
    std::size_t width;
    Real *powers, *shifts, *targets, *slopes;  // each [rows of a group, width]
    T iota;
    Group<Real> group{};

    // Scratch for a row, and rows in a group: as many as the cache holds beside what they are made of.
    static std::size_t numbers(std::size_t classes) { return 4 * padded(classes); }
    static std::size_t group_rows(std::size_t classes) {
        const std::size_t rows = 65536 / (numbers(classes) * sizeof(Real));
        return rows < 1 ? 1 : rows > kLanes ? kLanes : rows;
    }

    Rows(const LossJob& job, const LossPlan& plan, Traits traits, void* scratch)
        : job(job), plan(plan), traits(traits), width(padded(job.classes)) {
        for (std::size_t i = 0; i < kMostOptions; ++i) {
            options.value[i] = scalar_options.value[i] = job.options ? static_cast<Real>(job.options[i]) : 0;
        }
        const std::size_t size = group_rows(job.classes) * width;
        powers = static_cast<Real*>(scratch);
        shifts = powers + size;
        targets = shifts + size;
        slopes = targets + size;
        Real lane[kLanes];
        for (std::size_t j = 0; j < kLanes; ++j) lane[j] = static_cast<Real>(j);
        iota = load<T>(lane);
    }

    T columns(std::size_t from) const { return iota + all<T>(static_cast<Real>(from)); }
    std::size_t left(std::size_t from) const { return job.classes - from; }
    static T of(const Real (&values)[kLanes]) { return load<T>(values); }

    // Logits of at least -1e30: as good as -inf, and spares inf - inf.
    FASTNOISE_NOINLINE void find_top(std::size_t r) {
        const std::size_t row = group.row[r];
        const float* const logits = job.logits + static_cast<std::ptrdiff_t>(row) * job.stride;
        Real* const shift = shifts + r * width;
        const T floor = all<T>(static_cast<Real>(-1e30));
        T highest = all<T>(static_cast<Real>(-3.4e38)), where = iota;
        for (std::size_t from = 0; from < width; from += kLanes) {
            T lanes = load_part<T>(logits + from, left(from), -1e30f);
            lanes = select(lanes < floor, floor, lanes);
            store(lanes, shift + from);
            const auto higher = lanes > highest;
            where = select(higher, columns(from), where);
            highest = select(higher, lanes, highest);
        }
        const Real maximum = reduce<Largest>(highest);
        const T every = all<T>(maximum);
        const Real first = reduce<Least>(select(highest == every, where, all<T>(static_cast<Real>(width))));
        // Where all logits are NaN, none is the highest.
        group.top[r] = first < static_cast<Real>(job.classes) ? static_cast<std::size_t>(first) : 0;
        group.highest[r] = maximum;
    }

    // Apart from the search for the top, so that a processor has several rows under way in either.
    FASTNOISE_NOINLINE void softmax(std::size_t r) {
        Real* const shift = shifts + r * width;
        Real* const power = powers + r * width;
        const Real maximum = group.highest[r];
        const T every = all<T>(maximum), top_column = all<T>(static_cast<Real>(group.top[r]));
        T rest = zero<T>();
        for (std::size_t from = 0; from < width; from += kLanes) {
            const T lanes = load<T>(shift + from) - every, powered = exp_of(lanes);
            rest = rest + select(columns(from) == top_column, zero<T>(), powered);
            store(lanes, shift + from);
            store(powered, power + from);
        }
        group.rest_power[r] = reduce<Sum>(rest) + (maximum - maximum);  // NaN where the highest logit is infinite
    }

    // The margin of the label in `looks` over the most probable other class, and its probability; else NaN stays.
    FASTNOISE_NOINLINE void look(std::size_t r) {
        const std::size_t row = group.row[r];
        const auto sample = static_cast<std::uint64_t>(job.look_index[row]);
        if (sample >= job.look_rows || group.rest_power[r] != group.rest_power[r]) return;
        const float given = job.looks[sample * kLookColumns];
        if (!(given >= 0 && given < static_cast<float>(job.classes))) return;
        const auto label = static_cast<std::size_t>(given);
        const T own = all<T>(static_cast<Real>(label)), lowest = all<T>(static_cast<Real>(-3.4e38));
        T rival = lowest;
        for (std::size_t from = 0; from < width; from += kLanes) {
            rival = largest(rival, select(columns(from) == own, lowest, load<T>(shifts + r * width + from)));
        }
        job.seen[2 * row] = static_cast<float>(shifts[r * width + label] - reduce<Largest>(rival));
        job.seen[2 * row + 1] = static_cast<float>(powers[r * width + label] * group.inverse[r]);
    }

    // Labels, attention and shares, and what follows from them for all rows at once.
    FASTNOISE_NOINLINE void prepare_rows(std::size_t count) {
        for (std::size_t r = 0; r < count; ++r) {
            const std::size_t row = group.row[r];
            if (traits.has_loss && job.labels) {
                label_of(r, job.labels[row], group.label, group.label_shift, group.label_power, group.label_is_top);
                group.share[r] = 1;
            }
            if (job.pair_labels) {
                label_of(r, job.pair_labels[row], group.pair_label, group.pair_shift, group.pair_power,
                         group.pair_is_top);
                group.share[r] = job.share[row];
            }
            group.momentum[r] = job.update ? job.momentum : 1;
            if (traits.has_attention) group.attention[r] = job.attention[row];
        }
        if (traits.has_attention) {
            T logit = of(group.attention);
            if (job.options[0] != 0) logit = bounded(logit, -kLog1e12, kLog1e12);
            const T tau = sigmoid(logit);
            store(tau, group.tau);
            store(sigmoid(zero<T>() - logit), group.off);
            store(log_sigmoid(logit), group.log_tau);
            store(log_sigmoid(zero<T>() - logit), group.log_off);
            store(select(tau > options[2], of(group.momentum), one<T>()), group.momentum);
        }
    }

    void label_of(std::size_t r, std::int64_t given, std::size_t (&label)[kLanes], Real (&shift)[kLanes],
                  Real (&power)[kLanes], Real (&is_top)[kLanes]) {
        const auto column = static_cast<std::size_t>(given);
        label[r] = column;
        shift[r] = shifts[r * width + column];
        power[r] = powers[r * width + column];
        is_top[r] = column == group.top[r];
    }

    const float* stored(const std::int64_t* index, std::size_t row) const {
        return plan.read + (index ? static_cast<std::size_t>(index[row]) : row) * job.classes;
    }

    // Rows of the table lie anywhere in memory: the beginning of each is under way while the softmax is formed.
    void ask_for_targets(std::size_t row) const {
        const char* const from = reinterpret_cast<const char*>(stored(plan.read_index, row));
        const std::size_t bytes = job.classes * sizeof(float), end = bytes < 1024 ? bytes : 1024;
        for (std::size_t at = 0; at < end; at += 64) __builtin_prefetch(from + at, 1);
    }

    FASTNOISE_NOINLINE void load_targets(std::size_t r) {
        const std::size_t row = group.row[r];
        const float* const from = stored(plan.read_index, row);
        const float* const other = job.pair_index ? stored(job.pair_index, row) : nullptr;
        Real* const target = targets + r * width;
        const T share = all<T>(group.share[r]);
        T sum = zero<T>();
        for (std::size_t at = 0; at < width; at += kLanes) {
            T lanes = load_part<T>(from + at, left(at), 0.0f);
            if (other) lanes = share * lanes + (one<T>() - share) * load_part<T>(other + at, left(at), 0.0f);
            if (traits.from_one_hot) sum = sum + lanes;
            store(lanes, target + at);
        }
        // A row that was never updated stands for the one-hot of its label.
        if (traits.from_one_hot && reduce<Sum>(sum) == 0) target[group.label[r]] += 1;
        if (job.pair_index && job.options[0] != 0) {  // elr_plus, weighted: the labels' shares by their targets
            const Real first = group.share[r] * target[group.label[r]];
            const Real both = first + (1 - group.share[r]) * target[group.pair_label[r]];
            if (both > 0) group.share[r] = first / both;
        }
    }

    T log_probs(std::size_t r, std::size_t from) const {
        return bounded(load<T>(shifts + r * width + from) - all<T>(group.log_total[r]), -1e30, 1e30);
    }

    // No logit is NaN or +inf, nor the attention: such a row would spoil its targets for good. -inf masks a class.
    bool finite(std::size_t r) const {
        if (traits.has_attention && !(job.attention[group.row[r]] < __builtin_inff())) return false;
        return group.rest_power[r] == group.rest_power[r];
    }

    template <class S>
    RowState<S> state_of(std::size_t r) const {
        return {all<S>(group.total[r]), all<S>(group.momentum[r]), all<S>(group.tau[r]), all<S>(group.off[r]),
                all<S>(group.log_tau[r]), all<S>(group.log_off[r]), zero<S>(), zero<S>(), zero<S>(), zero<S>()};
    }

    // p_j sum_k g_k - g_j; for the top class p_m sum_{k != m} g_k - (1 - p_m) g_m.
    FASTNOISE_NOINLINE void store_gradient(std::size_t r) {
        const std::size_t base = r * width, top = group.top[r];
        const Real inverse = group.inverse[r], label_scale = group.label_scale[r], row_scale = group.row_scale[r];
        const Real share = job.labels ? group.share[r] : 0, pair_share = job.pair_labels ? 1 - share : 0;
        const Real of_top = (group.label_is_top[r] != 0 ? share : 0) + (group.pair_is_top[r] != 0 ? pair_share : 0);
        const Real fall_top = label_scale * of_top + row_scale * group.slope_top[r];
        const Real fall_rest = label_scale * (share + pair_share - of_top) + row_scale * group.slope_rest[r];
        const T sum = all<T>(fall_top + fall_rest), scale = all<T>(row_scale), every = all<T>(inverse);
        float* const gradient = job.gradient + group.row[r] * job.classes;
        for (std::size_t from = 0; from < width; from += kLanes) {
            T lanes = load<T>(powers + base + from) * every * sum;
            if (traits.has_terms) lanes = lanes - scale * load<T>(slopes + base + from);
            store_part(lanes, gradient + from, left(from));
        }
        const auto own = [&](std::size_t label, Real part) {
            const Real slope = traits.has_terms ? row_scale * slopes[base + label] : 0;
            const Real fall = label_scale * part + slope;
            gradient[label] = static_cast<float>(powers[base + label] * inverse * (fall_top + fall_rest) - fall);
        };
        if (job.labels) {
            const std::size_t label = group.label[r], other = group.pair_label[r];
            own(label, share + (job.pair_labels && other == label ? pair_share : 0));
            if (job.pair_labels && other != label) own(other, pair_share);
        }
        gradient[top] = static_cast<float>(inverse * fall_rest - group.rest_power[r] * inverse * fall_top);
    }
};
