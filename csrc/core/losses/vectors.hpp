// Part of losses_body.hpp: blocks of 16 lanes, in one vector or several.

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
