// Part of losses_body.hpp: what a rule is given and what it returns, and what it has unless it says otherwise.

template <class T>
struct Options {
    Element<T> value[kMostOptions];
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
                          has_attention = false, has_guard = false, has_variants = false, has_step = false;
};
