// Part of losses_body.hpp: exponentials, logarithms and what is made of them. NaN stays NaN in all of them.

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
