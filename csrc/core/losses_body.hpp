// Included by losses_*.cpp inside a namespace of the target's own, with kBytes, the size of a vector. As in
// kernels_body.hpp, nothing here may be shared with code for other targets.
//
// A row is worked on in blocks of 16 columns, padded at its end, in float or double; so that every instruction set adds
// up the same numbers in the same order, a block is one vector or several. What there is one number of per row (the
// logarithms above all) is computed for up to 16 rows at once, in the lanes of a block.

constexpr std::size_t kLanes = 16;

#define FASTNOISE_NOINLINE __attribute__((noinline))

// --- Vectors

template <class Real>
struct Format;

template <>
struct Format<float> {
    typedef float Vector __attribute__((vector_size(kBytes)));
    typedef std::uint32_t Bits __attribute__((vector_size(kBytes)));
    typedef float Floats __attribute__((vector_size(kBytes)));
    static constexpr unsigned digits = 23;
    static constexpr std::uint32_t bias = 127, sqrt_half = 0x3f3504f3;
    static constexpr int exp_terms = 7, log_terms = 5;
    static constexpr float least_exponent = -87.0f, shifter = 0x1.8p23f, integers = 0x1p23f, least = 0x1p-126f;
    // Products of the upper part with an exponent are exact.
    static constexpr float ln2_high = 0x1.63p-1f, ln2_low = -0x1.bd0105c610ca8p-13f;
};

template <>
struct Format<double> {
    typedef double Vector __attribute__((vector_size(kBytes)));
    typedef std::uint64_t Bits __attribute__((vector_size(kBytes)));
    typedef float Floats __attribute__((vector_size(kBytes / 2)));
    static constexpr unsigned digits = 52;
    static constexpr std::uint64_t bias = 1023, sqrt_half = 0x3fe6a09e667f3bcd;
    static constexpr int exp_terms = 13, log_terms = 11;
    static constexpr double least_exponent = -708.0, shifter = 0x1.8p52, integers = 0x1p52, least = 0x1p-1022;
    static constexpr double ln2_high = 0x1.62e42fefap-1, ln2_low = 0x1.cf79abc9e3b3ap-40;
};

// Twice as many lanes as a vector or a pair has.
template <class Half>
struct Pair {
    Half low, high;
};

template <class Real, std::size_t bytes = kLanes * sizeof(Real)>
struct LanesOf {
    using Type = Pair<typename LanesOf<Real, bytes / 2>::Type>;
};
template <class Real>
struct LanesOf<Real, kBytes> {
    using Type = typename Format<Real>::Vector;
};
template <class Real>
using Lanes = typename LanesOf<Real>::Type;

template <class T>
struct IsPair : std::false_type {};
template <class Half>
struct IsPair<Pair<Half>> : std::true_type {};

template <class T>
struct ElementOf {
    using Type = std::decay_t<decltype(std::declval<T&>()[0])>;
};
template <class Half>
struct ElementOf<Pair<Half>> : ElementOf<Half> {};
template <>
struct ElementOf<float> {
    using Type = float;
};
template <>
struct ElementOf<double> {
    using Type = double;
};
template <class T>
using Element = typename ElementOf<T>::Type;

#define FASTNOISE_PAIRWISE(operation)                                                  \
    template <class Half>                                                              \
    inline auto operator operation(Pair<Half> a, Pair<Half> b) {                       \
        using Result = decltype(a.low operation b.low);                                \
        return Pair<Result>{a.low operation b.low, a.high operation b.high};           \
    }
FASTNOISE_PAIRWISE(+)
FASTNOISE_PAIRWISE(-)
FASTNOISE_PAIRWISE(*)
FASTNOISE_PAIRWISE(/)
FASTNOISE_PAIRWISE(<)
FASTNOISE_PAIRWISE(>)
FASTNOISE_PAIRWISE(>=)
FASTNOISE_PAIRWISE(==)
FASTNOISE_PAIRWISE(&)
#undef FASTNOISE_PAIRWISE

template <class T>
inline T all(Element<T> value) {
    if constexpr (IsPair<T>::value) {
        const auto half = all<decltype(T::low)>(value);
        return {half, half};
    } else {
        return T{} + value;
    }
}

template <class Mask, class T>
inline T select(Mask mask, T a, T b) {
    if constexpr (IsPair<T>::value) {
        return {select(mask.low, a.low, b.low), select(mask.high, a.high, b.high)};
    } else {
        return mask ? a : b;
    }
}

template <class T>
inline T largest(T a, T b) {  // b where either is NaN
    return select(a > b, a, b);
}
template <class T>
inline T least(T a, T b) {
    return select(a < b, a, b);
}
template <class T>
inline T bounded(T x, double low, double high) {  // NaN stays
    using Real = Element<T>;
    const T lower = all<T>(static_cast<Real>(low)), upper = all<T>(static_cast<Real>(high));
    return select(x < lower, lower, select(x > upper, upper, x));
}

template <class T>
inline T load(const Element<T>* from) {
    if constexpr (IsPair<T>::value) {
        using Half = decltype(T::low);
        return {load<Half>(from), load<Half>(from + sizeof(Half) / sizeof(*from))};
    } else {
        T lanes;
        std::memcpy(&lanes, from, sizeof lanes);
        return lanes;
    }
}

template <class T>
inline void store(T lanes, Element<T>* to) {
    if constexpr (IsPair<T>::value) {
        store(lanes.low, to);
        store(lanes.high, to + sizeof(lanes.low) / sizeof(*to));
    } else {
        std::memcpy(to, &lanes, sizeof lanes);
    }
}

template <class T>
inline T load_floats(const float* from) {
    if constexpr (IsPair<T>::value) {
        using Half = decltype(T::low);
        return {load_floats<Half>(from), load_floats<Half>(from + sizeof(Half) / sizeof(Element<T>))};
    } else {
        typename Format<Element<T>>::Floats lanes;
        std::memcpy(&lanes, from, sizeof lanes);
        return __builtin_convertvector(lanes, T);
    }
}

template <class T>
inline void store_floats(T lanes, float* to) {
    if constexpr (IsPair<T>::value) {
        store_floats(lanes.low, to);
        store_floats(lanes.high, to + sizeof(lanes.low) / sizeof(Element<T>));
    } else {
        const auto narrow = __builtin_convertvector(lanes, typename Format<Element<T>>::Floats);
        std::memcpy(to, &narrow, sizeof narrow);
    }
}

// The same tree for every width: lane j meets lane j + 8, then j + 4, j + 2, j + 1.
template <class Operation, class T, std::size_t... lane>
inline Element<T> reduce_half(T lanes, std::index_sequence<lane...>);
template <class Operation, class T>
inline Element<T> reduce(T lanes) {
    if constexpr (IsPair<T>::value) {
        return reduce<Operation>(Operation::of(lanes.low, lanes.high));
    } else {
        return reduce_half<Operation>(lanes, std::make_index_sequence<sizeof(T) / sizeof(Element<T>) / 2>{});
    }
}
template <class Operation, class T, std::size_t... lane>
inline Element<T> reduce_half(T lanes, std::index_sequence<lane...>) {
    constexpr std::size_t half = sizeof...(lane);
    const auto met = Operation::of(__builtin_shufflevector(lanes, lanes, lane...),
                                   __builtin_shufflevector(lanes, lanes, (half + lane)...));
    if constexpr (half == 1) {
        return met[0];
    } else {
        return reduce_half<Operation>(met, std::make_index_sequence<half / 2>{});
    }
}
struct Sum {
    template <class T>
    static T of(T a, T b) {
        return a + b;
    }
};
struct Largest {
    template <class T>
    static T of(T a, T b) {
        return largest(a, b);
    }
};
struct Least {
    template <class T>
    static T of(T a, T b) {
        return least(a, b);
    }
};

// --- Functions. NaN stays NaN in all of them.

constexpr double inverse_factorial(int n) { return n ? inverse_factorial(n - 1) / n : 1.0; }

// exp(x) for x <= 0, within two units in the last place; 0 below the least normal number. With x = n log 2 + r,
// |r| <= log(2) / 2, exp x = 2^n exp r, and exp r is its Taylor series.
template <class T>
inline T exp_of(T x) {
    using Real = Element<T>;
    using F = Format<Real>;
    if constexpr (IsPair<T>::value) {
        return {exp_of(x.low), exp_of(x.high)};
    } else if constexpr (std::is_same_v<T, Real>) {
        return exp_of(typename F::Vector{} + x)[0];
    } else {
        const T lowest = T{} + F::least_exponent, within = x < lowest ? lowest : x;
        const T shifted = within * static_cast<Real>(1.4426950408889634) + F::shifter, n = shifted - F::shifter;
        const T r = (within - n * F::ln2_high) - n * F::ln2_low;
        T series = T{} + static_cast<Real>(inverse_factorial(F::exp_terms));
#pragma GCC unroll 16
        for (int k = F::exp_terms - 1; k >= 0; --k) series = series * r + static_cast<Real>(inverse_factorial(k));
        using Bits = typename F::Bits;
        const T power = reinterpret_cast<T>((reinterpret_cast<Bits>(shifted) + F::bias) << F::digits);
        return x < lowest ? T{} : series * power;
    }
}

// log(2^exponent (1 + f)) for 1 + f in [sqrt(1/2), sqrt 2): with s = f / (2 + f), log(1 + f) = 2 atanh s.
template <class T>
inline T log_of_parts(T exponent, T f) {
    using Real = Element<T>;
    using F = Format<Real>;
    const T s = f / (f + 2), z = s * s;
    T series = T{} + static_cast<Real>(2.0 / (2 * F::log_terms + 1));
#pragma GCC unroll 16
    for (int k = F::log_terms - 1; k >= 0; --k) series = series * z + static_cast<Real>(2.0 / (2 * k + 1));
    return exponent * F::ln2_high + (exponent * F::ln2_low + s * series);
}

// Exponent and f of a normal number above 0.
template <class T>
inline void split(T x, T& exponent, T& f) {
    using F = Format<Element<T>>;
    using Bits = typename F::Bits;
    constexpr auto one = F::bias << F::digits, mask = (decltype(one){1} << F::digits) - 1;
    const Bits bits = reinterpret_cast<Bits>(x) + (one - F::sqrt_half);
    const Bits integer = (bits >> F::digits) | reinterpret_cast<Bits>(T{} + F::integers);
    exponent = reinterpret_cast<T>(integer) - (F::integers + F::bias);
    f = reinterpret_cast<T>((bits & mask) + F::sqrt_half) - 1;
}

// log(x) of a normal number above 0, within three units in the last place.
template <class T>
inline T log_of(T x) {
    if constexpr (IsPair<T>::value) {
        return {log_of(x.low), log_of(x.high)};
    } else if constexpr (std::is_same_v<T, Element<T>>) {
        return log_of(typename Format<T>::Vector{} + x)[0];
    } else {
        T exponent, f;
        split(x, exponent, f);
        const T result = log_of_parts(exponent, f);
        return x == x ? result : x;
    }
}

// log(1 + x) for x >= 0, likewise.
template <class T>
inline T log1p_of(T x) {
    if constexpr (IsPair<T>::value) {
        return {log1p_of(x.low), log1p_of(x.high)};
    } else {
        T exponent, f;
        split(x + 1, exponent, f);
        const auto small = x < T{} + static_cast<Element<T>>(0.4);
        const T result = log_of_parts(small ? T{} : exponent, small ? x : f);
        return x == x ? result : x;
    }
}

// log(x), or -1e30 where x is 0.
template <class T>
inline T log_or_lowest(T x) {
    using Real = Element<T>;
    const T floor = all<T>(Format<Real>::least);
    return select(x < floor, all<T>(static_cast<Real>(-1e30)), log_of(largest(floor, x)));
}

template <class T>
inline T zero() {
    return all<T>(0);
}
template <class T>
inline T one() {
    return all<T>(1);
}

template <class T>
inline T below_zero(T x) {  // -|x|
    return select(x < zero<T>(), x, zero<T>() - x);
}

template <class T>
inline T sigmoid(T x) {
    const T decay = exp_of(below_zero(x));
    return select(x < zero<T>(), decay, one<T>()) / (one<T>() + decay);
}

template <class T>
inline T log_sigmoid(T x) {
    return select(x < zero<T>(), x, zero<T>()) - log1p_of(exp_of(below_zero(x)));
}

// x^exponent for x in [0, 1] and an exponent of at least 0; 0^0 is 1.
template <class T>
inline T power_of(T x, Element<T> exponent) {
    if (exponent == 0) return one<T>();
    if (exponent == 1) return x;
    return exp_of(log_or_lowest(x) * all<T>(exponent));
}

// --- Rules: the parts named in kernels/rules.py

template <class T>
struct Options {
    Element<T> value[4];
    T operator[](int i) const { return all<T>(value[i]); }
};

// Of a row, the same in every lane; or of 16 rows.
template <class T>
struct RowState {
    T total, momentum, tau, off, log_tau, log_off;  // tau = sigmoid(h), off = 1 - tau
    T top_probs, top_target, top_kept, top_ratio;
};

template <class T>
struct Column {
    T probs, log_probs, complement, target, excess;
    decltype(T{} < T{}) is_top, is_label;
};

template <class T>
struct Terms {
    T term0, term1, slope;
};

template <class T>
struct Sums {
    T label_log_prob, label_prob, label_complement, sum0, sum1, total, attention, tau, off, log_tau, strength;
};

template <class T>
struct Finished {
    T loss, dattention, label_scale, row_scale;
};

// What a rule has unless it says otherwise.
struct Plain {
    static constexpr bool has_loss = true, has_terms = false, has_log_probs = false, has_target = false,
                          has_update = false, has_total = false, total_is_largest = false, from_one_hot = false,
                          has_attention = false, has_guard = false;
};

struct Ce : Plain {
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>&) {
        return {zero<T>() - sums.label_log_prob, zero<T>(), one<T>(), zero<T>()};
    }
};

struct LabelSmoothing : Plain {
    static constexpr bool has_terms = true, has_log_probs = true;
    template <class T>
    static Terms<T> terms(const Column<T>& column, const RowState<T>&, const Options<T>&) {
        return {column.log_probs, one<T>(), one<T>()};
    }
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>& options) {
        const T label = one<T>() - options[0], share = options[0] / largest(sums.sum1, one<T>());
        return {zero<T>() - label * sums.label_log_prob - share * sums.sum0, zero<T>(), label, share};
    }
};

struct SoftCe : Plain {
    static constexpr bool has_terms = true, has_log_probs = true, has_target = true;
    template <class T>
    static Terms<T> terms(const Column<T>& column, const RowState<T>&, const Options<T>&) {
        return {column.target * column.log_probs, zero<T>(), column.target};
    }
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>&) {
        return {zero<T>() - sums.sum0, zero<T>(), zero<T>(), one<T>()};
    }
};

struct Swce : Plain {
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>& options) {
        const T weight = sums.label_prob, slope = one<T>() + options[0] * sums.label_log_prob;
        return {zero<T>() - weight * sums.label_log_prob, zero<T>(), slope * weight, zero<T>()};
    }
};

struct Gce : Plain {
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>& options) {
        const T q = options[0], k = options[1];
        const auto truncated = (k > zero<T>()) & (k >= sums.label_prob);
        const T powered = exp_of(q * select(truncated, log_or_lowest(k), sums.label_log_prob));
        return {(one<T>() - powered) / q, zero<T>(), select(truncated, zero<T>(), powered), zero<T>()};
    }
};

// The loss -(1 - p)^gamma log p and minus its derivative by log p.
template <class T>
inline void focal(T log_prob, T prob, T complement, Element<T> gamma, T& loss, T& slope) {
    const auto some = complement > zero<T>();
    const T ratio = select(some, log_prob / select(some, complement, one<T>()), all<T>(-1));
    const T modulation = power_of(complement, gamma);
    loss = zero<T>() - modulation * log_prob;
    slope = modulation * (one<T>() - all<T>(gamma) * prob * ratio);
}

struct Apl : Plain {
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>& options) {
        const T active = options[0], passive = options[2], floor = options[3];
        const auto clamped = sums.label_log_prob < floor;
        const T log_prob = select(clamped, floor, sums.label_log_prob);
        T loss, slope;
        focal(log_prob, sums.label_prob, sums.label_complement, options.value[1], loss, slope);
        slope = select(clamped, zero<T>(), slope);
        return {active * loss + passive * sums.label_complement, zero<T>(), active * slope + passive * sums.label_prob,
                zero<T>()};
    }
};

struct AplNormalised : Plain {
    static constexpr bool has_terms = true, has_log_probs = true;
    template <class T>
    static Terms<T> terms(const Column<T>& column, const RowState<T>&, const Options<T>& options) {
        T loss, slope;
        focal(column.log_probs, column.probs, column.complement, options.value[1], loss, slope);
        return {select(column.is_label, zero<T>(), loss), zero<T>(), select(column.is_label, zero<T>(), slope)};
    }
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>& options) {
        const T a = options[0], passive = options[2];
        T active, slope;
        focal(sums.label_log_prob, sums.label_prob, sums.label_complement, options.value[1], active, slope);
        const T everything = active + sums.sum0, share = active / everything;
        const T own = a * (slope / everything) * (sums.sum0 / everything) + passive * sums.label_prob;
        return {a * share + passive * sums.label_complement, zero<T>(), own, zero<T>() - a * (share / everything)};
    }
};

struct Bootstrap : Plain {
    static constexpr bool has_terms = true, has_log_probs = true;
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>& options) {
        const T own = options[0], rest = one<T>() - own;
        return {zero<T>() - own * sums.label_log_prob - rest * sums.sum0, zero<T>(), own, rest};
    }
};

struct BootstrapSoft : Bootstrap {
    template <class T>
    static Terms<T> terms(const Column<T>& column, const RowState<T>&, const Options<T>& options) {
        const T slope = one<T>() + options[1] * column.log_probs;  // options[1]: literal
        return {column.probs * column.log_probs, zero<T>(), column.probs * slope};
    }
};

struct BootstrapHard : Bootstrap {
    template <class T>
    static Terms<T> terms(const Column<T>& column, const RowState<T>&, const Options<T>&) {
        const T chosen = select(column.is_top, one<T>(), zero<T>());
        return {select(column.is_top, column.log_probs, zero<T>()), zero<T>(), chosen};
    }
};

struct Forward : Plain {
    static constexpr bool has_terms = true, has_log_probs = true, has_target = true, has_total = true,
                          total_is_largest = true;
    template <class T>
    static T prepare(T, T log_probs, T target) {
        return log_probs + log_or_lowest(target);
    }
    template <class T>
    static Terms<T> terms(const Column<T>& column, const RowState<T>& row, const Options<T>&) {
        const T share = exp_of(prepare(column.probs, column.log_probs, column.target) - row.total);
        return {share, zero<T>(), share};
    }
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>&) {
        const T sum = largest(sums.sum0, all<T>(Format<Element<T>>::least));
        const T mixed = select(sums.sum0 == sums.sum0, sum, sums.sum0);
        return {zero<T>() - sums.total - log_of(mixed), zero<T>(), zero<T>(), one<T>() / mixed};
    }
};

struct Elr : Plain {
    static constexpr bool has_terms = true, has_target = true, has_update = true, has_total = true;
    template <class T>
    static T clamp(T probs) {
        return bounded(probs, 1e-4, 1 - 1e-4);
    }
    template <class T>
    static T prepare(T probs, T, T) {
        return clamp(probs);
    }
    template <class T>
    static T update(T target, T probs, const RowState<T>& row, const Options<T>&) {
        return row.momentum * target + ((one<T>() - row.momentum) / row.total) * clamp(probs);
    }
    template <class T>
    static Terms<T> terms(const Column<T>& column, const RowState<T>&, const Options<T>&) {
        const T inner = zero<T>() - column.target * clamp(column.probs);
        const T of_top = (one<T>() - column.target) + column.target * clamp(column.complement);
        const T floor = all<T>(static_cast<Element<T>>(1e-4));
        const auto active = (column.probs >= floor) & (column.complement >= floor);
        const T slope = select(active, column.target * column.probs, zero<T>());
        return {select(column.is_top, of_top, inner), zero<T>(), slope};
    }
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>&) {
        const T gap = bounded(sums.sum0, 1e-5, 1e30);
        return {sums.strength * log_of(gap) - sums.label_log_prob, zero<T>(), one<T>(), sums.strength / gap};
    }
};

struct ElrPlus : Elr {
    static constexpr bool has_update = false, has_total = false;
};

struct Ema : Plain {
    static constexpr bool has_loss = false, has_target = true, has_update = true;
    template <class T>
    static T update(T target, T probs, const RowState<T>& row, const Options<T>&) {
        return row.momentum * target + (one<T>() - row.momentum) * probs;
    }
};

struct Selc : SoftCe {
    static constexpr bool has_update = true, from_one_hot = true;
    template <class T>
    static T update(T target, T probs, const RowState<T>& row, const Options<T>&) {
        return Ema::update(target, probs, row, {});
    }
};

constexpr double kLog1e12 = 27.631021115928547, kLog1e7 = 16.11809565095832;

// `reversed`: whether RNAL's term is there. Where `guarded`, the mixture may underflow and is formed of logarithms.
template <bool code, bool reversed>
struct Nal : Plain {
    static constexpr bool has_terms = true, has_log_probs = true, has_target = true, has_update = true,
                          from_one_hot = true, has_attention = true, has_guard = true;
    template <class T>
    static T kept(T target, T probs, const RowState<T>& row) {
        if constexpr (code) {
            const T floor = all<T>(static_cast<Element<T>>(1e-4));
            const T added = (one<T>() - row.momentum) * probs;
            return largest(row.momentum * largest(target, floor), floor - added);
        }
        return row.momentum * target;
    }
    template <class T>
    static T update(T target, T probs, const RowState<T>& row, const Options<T>&) {
        const T updated = kept(target, probs, row) + (one<T>() - row.momentum) * probs;
        if constexpr (code) return bounded(updated, 1e-4, 1);
        return updated;
    }
    // s_k = tau p_k + (1 - tau) t_k
    template <class T>
    static T mixed(T probs, T target, const RowState<T>& row) {
        if constexpr (code) probs = bounded(probs, 1e-12, 1e30);
        return probs * row.tau + row.off * target;
    }
    template <bool guarded, class T>
    static Terms<T> terms(const Column<T>& column, const RowState<T>& row, const Options<T>& options) {
        using Real = Element<T>;
        T probs = column.probs, own = column.log_probs;
        if constexpr (code) {
            probs = bounded(probs, 1e-12, 1e30);
            own = bounded(own, -kLog1e12, 1e30);
        }
        const T part = probs * row.tau, mix = part + row.off * column.target, target = column.target;
        T ratio, log_mix;
        if constexpr (guarded) {
            own = own + row.log_tau;
            const T rest = row.log_off + log_or_lowest(target), difference = own - rest;
            const T decay = exp_of(below_zero(difference));
            const auto large = mix > all<T>(static_cast<Real>(kLeastMix));
            const T numerator = select(difference >= zero<T>(), one<T>(), decay);
            ratio = select(large, part, numerator) / select(large, mix, one<T>() + decay);
            log_mix = select(large, log_of(select(large, mix, one<T>())), largest(own, rest) + log1p_of(decay));
        } else {
            ratio = part / mix;
            log_mix = log_of(mix);
        }
        const T lowest = all<T>(static_cast<Real>(-kLog1e7));
        const auto unclamped = log_mix >= lowest;
        if constexpr (code) log_mix = select(log_mix < lowest, lowest, log_mix);
        T loss = target * log_mix, weight = target, slope = column.excess * ratio * row.top_ratio;
        T clamped_slope = zero<T>() - row.top_ratio * row.top_target / row.top_probs;
        if constexpr (reversed) {
            const T reverse = options[1];
            const T log_target = log_of(bounded(target, 1e-4, 1e30));
            const T top_log = log_of(bounded(row.top_target, 1e-4, 1e30));
            const T mix_now = code || guarded ? exp_of(select(log_mix > zero<T>(), zero<T>(), log_mix)) : mix;
            const T reversed_loss = reverse * mix_now * log_target;
            loss = loss + reversed_loss;
            weight = weight + reversed_loss;
            slope = slope + reverse * row.tau * column.probs * (log_target - top_log);
            clamped_slope = clamped_slope - reverse * row.tau * top_log;
        }
        if constexpr (code) {
            weight = select(unclamped, weight, zero<T>());
            const auto active = unclamped & (column.log_probs >= all<T>(static_cast<Real>(-kLog1e12)));
            slope = select(active, slope, clamped_slope * column.probs);
        }
        return {loss, weight * (ratio - row.tau), slope};
    }
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>&) {
        const T dattention = zero<T>() - sums.sum1 - sums.strength * sums.off;
        return {zero<T>() - sums.sum0 - sums.strength * sums.log_tau, dattention, zero<T>(), one<T>()};
    }
    static constexpr double kLeastMix = 1e-30;
};

// --- The skeleton

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
        for (int i = 0; i < 4; ++i) {
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

template <class Real, class Rule>
struct Skeleton : Rows<Real> {
    using Base = Rows<Real>;
    using Base::job, Base::plan, Base::group, Base::options, Base::scalar_options, Base::width;
    using Base::columns, Base::finite, Base::left, Base::of, Base::log_probs, Base::powers, Base::targets, Base::slopes;
    using T = Lanes<Real>;

    Skeleton(const LossJob& job, const LossPlan& plan, void* scratch)
        : Base(job, plan, {Rule::has_loss, Rule::has_terms, Rule::from_one_hot, Rule::has_attention}, scratch) {}

    void run(std::size_t begin, std::size_t end) {
        const std::size_t rows = Base::group_rows(job.classes);
        std::size_t count = 0;
        for (std::size_t row = begin; row < end; ++row) {
            if (job.ignore && job.labels[row] == *job.ignore) {
                if constexpr (Rule::has_loss) {
                    job.loss[row] = 0;
                    std::memset(job.gradient + row * job.classes, 0, job.classes * sizeof(float));
                    if (Rule::has_attention) job.attention_gradient[row] = 0;
                }
                continue;
            }
            group.row[count++] = row;
            if constexpr (Rule::has_target) this->ask_for_targets(row);
            if (count == rows) {
                run_group(count);
                count = 0;
            }
        }
        if (count) run_group(count);
    }

    void run_group(std::size_t count) {
        for (std::size_t r = 0; r < count; ++r) this->find_top(r);
        for (std::size_t r = 0; r < count; ++r) this->softmax(r);
        const T rest = of(group.rest_power);
        store(one<T>() / (one<T>() + rest), group.inverse);
        if constexpr (Rule::has_loss) store(log1p_of(rest), group.log_total);
        this->prepare_rows(count);
        if constexpr (Rule::has_target) {
            for (std::size_t r = 0; r < count; ++r) this->load_targets(r);
        }
        if constexpr (Rule::has_total) {
            for (std::size_t r = 0; r < count; ++r) sum_total(r);
        }
        if constexpr (Rule::has_terms || Rule::has_update) {
            for (std::size_t r = 0; r < count; ++r) {
                if (!sum_terms<false>(r)) sum_terms<true>(r);
            }
        }
        if constexpr (Rule::has_loss) {
            finish(count);
            for (std::size_t r = 0; r < count; ++r) this->store_gradient(r);
        }
    }

    void sum_total(std::size_t r) {
        const T lowest = all<T>(static_cast<Real>(Rule::total_is_largest ? -3.4e38 : 0));
        const T inverse = all<T>(group.inverse[r]), end = all<T>(static_cast<Real>(job.classes));
        T total = lowest;
        for (std::size_t from = 0; from < width; from += kLanes) {
            const T target = Rule::total_is_largest ? load<T>(targets + r * width + from) : zero<T>();
            const T logs = Rule::has_log_probs ? log_probs(r, from) : zero<T>();
            T part = Rule::prepare(load<T>(powers + r * width + from) * inverse, logs, target);
            part = select(columns(from) < end, part, lowest);
            total = Rule::total_is_largest ? largest(total, part) : total + part;
        }
        group.total[r] = Rule::total_is_largest ? reduce<Largest>(total) : reduce<Sum>(total);
    }

    // Updates the targets and adds up the terms. False where a rule is to be `guarded` and wasn't.
    template <bool guarded>
    bool sum_terms(std::size_t r) {
        RowState<T> state = Base::template state_of<T>(r);
        const std::size_t base = r * width, top = group.top[r], row = group.row[r];
        const Real inverse = group.inverse[r];
        if constexpr (Rule::has_attention) {
            RowState<Real> scalar = Base::template state_of<Real>(r);
            const Real target = targets[base + top];
            scalar.top_probs = inverse;
            scalar.top_kept = Rule::kept(target, inverse, scalar);
            scalar.top_target = Rule::update(target, inverse, scalar, scalar_options);
            const Real part = scalar.tau * inverse, mix = part + scalar.off * scalar.top_target;
            state.top_probs = all<T>(inverse);
            state.top_kept = all<T>(scalar.top_kept);
            state.top_target = all<T>(scalar.top_target);
            state.top_ratio = all<T>(mix == 0 ? 1 : part / mix);
        }
        float* to = nullptr;
        if constexpr (Rule::has_update) {
            const bool opened = !Rule::has_attention || group.tau[r] > scalar_options.value[2];
            if (job.update && opened && finite(r) && !(plan.superseded && plan.superseded[row])) {
                to = job.targets + static_cast<std::size_t>(job.index[row]) * job.classes;
            }
        }
        const T rest_probs = all<T>(group.rest_power[r] * inverse), top_column = all<T>(static_cast<Real>(top));
        const T label_column = all<T>(static_cast<Real>(group.label[r])), end = all<T>(static_cast<Real>(job.classes));
        T sum0 = zero<T>(), sum1 = zero<T>(), slope_rest = zero<T>(), lowest = one<T>();
        for (std::size_t from = 0; from < width; from += kLanes) {
            const T at = columns(from);
            Column<T> column;
            column.probs = load<T>(powers + base + from) * all<T>(inverse);
            if constexpr (Rule::has_log_probs) column.log_probs = log_probs(r, from);
            column.is_top = at == top_column;
            column.is_label = at == label_column;
            column.complement = select(column.is_top, rest_probs, one<T>() - column.probs);
            if constexpr (Rule::has_target) {
                const T before = load<T>(targets + base + from);
                column.target = before;
                if constexpr (Rule::has_update) {
                    column.target = Rule::update(before, column.probs, state, options);
                    if (to) store_part(column.target, to + from, left(from));
                }
                if constexpr (Rule::has_attention) {
                    const T kept = Rule::kept(before, column.probs, state);
                    const T excess = kept - (state.top_kept / state.top_probs) * column.probs;
                    column.excess = select(column.is_top, zero<T>(), excess);
                }
            }
            if constexpr (Rule::has_terms) {
                const auto within = at < end;
                Terms<T> terms;
                if constexpr (Rule::has_guard) {
                    const T mix = Rule::mixed(column.probs, column.target, state);
                    lowest = least(lowest, select(within, mix, one<T>()));
                    terms = Rule::template terms<guarded>(column, state, options);
                } else {
                    terms = Rule::terms(column, state, options);
                }
                sum0 = sum0 + select(within, terms.term0, zero<T>());
                sum1 = sum1 + select(within, terms.term1, zero<T>());
                slope_rest = slope_rest + select(within, select(column.is_top, zero<T>(), terms.slope), zero<T>());
                store(terms.slope, slopes + base + from);
            }
        }
        if constexpr (Rule::has_terms) {
            if constexpr (Rule::has_guard && !guarded) {
                if (!(reduce<Least>(lowest) > static_cast<Real>(Rule::kLeastMix))) return false;
            }
            group.sum0[r] = reduce<Sum>(sum0);
            group.sum1[r] = reduce<Sum>(sum1);
            group.slope_rest[r] = reduce<Sum>(slope_rest);
            group.slope_top[r] = slopes[base + top];
        }
        return true;
    }

    void finish(std::size_t count) {
        const T inverse = of(group.inverse), log_total = of(group.log_total), share = of(group.share);
        const T rest_probs = of(group.rest_power) * inverse;
        const auto label_part = [&](const Real(&shift)[kLanes], const Real(&power)[kLanes], const Real(&is_top)[kLanes],
                                    T& log_prob, T& prob, T& complement) {
            log_prob = bounded(of(shift) - log_total, -1e30, 1e30);
            prob = of(power) * inverse;
            complement = select(of(is_top) > zero<T>(), rest_probs, one<T>() - prob);
        };
        Sums<T> sums;
        label_part(group.label_shift, group.label_power, group.label_is_top, sums.label_log_prob, sums.label_prob,
                   sums.label_complement);
        if (job.pair_labels) {
            T log_prob, prob, complement;
            label_part(group.pair_shift, group.pair_power, group.pair_is_top, log_prob, prob, complement);
            sums.label_log_prob = share * sums.label_log_prob + (one<T>() - share) * log_prob;
        }
        sums.sum0 = of(group.sum0);
        sums.sum1 = of(group.sum1);
        sums.total = of(group.total);
        sums.attention = of(group.attention);
        sums.tau = of(group.tau);
        sums.off = of(group.off);
        sums.log_tau = of(group.log_tau);
        sums.strength = all<T>(job.strength);
        const Finished<T> finished = Rule::finish(sums, options);
        // The gradient is linear in these scales, which saves a product per column.
        const T scale = all<T>(static_cast<Real>(job.gradient_scale));
        store(finished.loss, group.loss);
        store(finished.label_scale * scale, group.label_scale);
        store(finished.row_scale * scale, group.row_scale);
        if constexpr (Rule::has_attention) {
            const T logit = of(group.attention), limit = all<T>(static_cast<Real>(kLog1e12));
            const auto clamped = job.options[0] != 0 ? below_zero(logit) < zero<T>() - limit : zero<T>() > one<T>();
            store(select(clamped, zero<T>(), finished.dattention * scale), group.dattention);
        }
        for (std::size_t r = 0; r < count; ++r) {
            if (Rule::has_attention && !finite(r)) {  // else a clamp, or a sigmoid of +inf, would hide it
                const Real bad = __builtin_nanf("");
                group.loss[r] = group.label_scale[r] = group.row_scale[r] = group.dattention[r] = bad;
            }
            job.loss[group.row[r]] = static_cast<float>(group.loss[r]);
            if constexpr (Rule::has_attention) {
                job.attention_gradient[group.row[r]] = static_cast<float>(group.dattention[r]);
            }
        }
    }

};

// A gradient lies in C - 1 dimensions, and the fewer these are, the more rows come so near to its zero, where terms
// cancel, that float keeps no digits of it. kernels/row.py has figures, for NAL; here the limit holds for all rules.
constexpr std::size_t kExact = 4;

template <class Rule>
void run_rule(const LossJob& job, const LossPlan& plan, std::size_t begin, std::size_t end, void* scratch) {
    if (job.classes <= kExact) {
        Skeleton<double, Rule>(job, plan, scratch).run(begin, end);
    } else {
        Skeleton<float, Rule>(job, plan, scratch).run(begin, end);
    }
}

void loss_rows(const LossJob& job, const LossPlan& plan, std::size_t begin, std::size_t end, void* scratch) {
    const auto run = [&](auto function) { function(job, plan, begin, end, scratch); };
    switch (job.rule) {
        case LossRule::ce:
            return run(run_rule<Ce>);
        case LossRule::label_smoothing:
            return run(run_rule<LabelSmoothing>);
        case LossRule::soft_ce:
            return run(run_rule<SoftCe>);
        case LossRule::swce:
            return run(run_rule<Swce>);
        case LossRule::gce:
            return run(run_rule<Gce>);
        case LossRule::apl:
            return run(run_rule<Apl>);
        case LossRule::apl_normalised:
            return run(run_rule<AplNormalised>);
        case LossRule::bootstrap_soft:
            return run(run_rule<BootstrapSoft>);
        case LossRule::bootstrap_hard:
            return run(run_rule<BootstrapHard>);
        case LossRule::forward:
            return run(run_rule<Forward>);
        case LossRule::elr:
            return run(run_rule<Elr>);
        case LossRule::elr_plus:
            return run(run_rule<ElrPlus>);
        case LossRule::ema:
            return run(run_rule<Ema>);
        case LossRule::selc:
            return run(run_rule<Selc>);
        case LossRule::nal:
            const bool code = job.options[0] != 0, reversed = job.options[1] != 0;
            if (code) return reversed ? run(run_rule<Nal<true, true>>) : run(run_rule<Nal<true, false>>);
            return reversed ? run(run_rule<Nal<false, true>>) : run(run_rule<Nal<false, false>>);
    }
}

#undef FASTNOISE_NOINLINE
