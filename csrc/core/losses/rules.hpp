// The rules of the fused losses and the list of them: all that C++ knows of a loss stands here. kernels/rules/ derives
// the formulas and says what the parts of a rule are.
//
// losses.hpp includes this file for the list. losses_body.hpp includes it for the rules, with FASTNOISE_RULE_BODIES
// defined, in the namespace of each instruction set.

#ifndef FASTNOISE_LOSS_RULES
// The op's name, and the rule's struct below.
#define FASTNOISE_LOSS_RULES(rule)              \
    rule(ce, Ce)                                \
    rule(label_smoothing, LabelSmoothing)       \
    rule(soft_ce, SoftCe)                       \
    rule(swce, Swce)                            \
    rule(gce, Gce)                              \
    rule(apl, Apl)                              \
    rule(apl_normalised, AplNormalised)         \
    rule(bootstrap_soft, BootstrapSoftVariants) \
    rule(bootstrap_hard, BootstrapHardVariants) \
    rule(forward, Forward)                      \
    rule(forward_clipped, ForwardClipped)       \
    rule(elr, Elr)                              \
    rule(elr_plus, ElrPlus)                     \
    rule(ema, Ema)                              \
    rule(selc, Selc)                            \
    rule(nal, NalVariants)                      \
    rule(sop, Sop)                              \
    rule(look, Look)
#endif

#ifdef FASTNOISE_RULE_BODIES

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

// The loss -(1 - p)^gamma log p and minus its derivative by log p. With slope_gamma 0 the derivative holds (1 - p)^gamma
// fixed; else slope_gamma is gamma.
template <class T>
inline void focal(T log_prob, T prob, T complement, Element<T> gamma, Element<T> slope_gamma, T& loss, T& slope) {
    const auto some = complement > zero<T>();
    const T ratio = select(some, log_prob / select(some, complement, one<T>()), all<T>(-1));
    const T modulation = power_of(complement, gamma);
    loss = zero<T>() - modulation * log_prob;
    slope = modulation * (one<T>() - all<T>(slope_gamma) * prob * ratio);
}

struct Apl : Plain {
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>& options) {
        const T active = options[0], passive = options[2], floor = options[3];
        const auto clamped = sums.label_log_prob < floor;
        const T log_prob = select(clamped, floor, sums.label_log_prob);
        T loss, slope;
        focal(log_prob, sums.label_prob, sums.label_complement, options.value[1], options.value[4], loss, slope);
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
        focal(column.log_probs, column.probs, column.complement, options.value[1], options.value[3], loss, slope);
        return {select(column.is_label, zero<T>(), loss), zero<T>(), select(column.is_label, zero<T>(), slope)};
    }
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>& options) {
        const T a = options[0], passive = options[2];
        T active, slope;
        focal(sums.label_log_prob, sums.label_prob, sums.label_complement, options.value[1], options.value[3], active,
              slope);
        const T everything = active + sums.sum0, share = active / everything;
        const T own = a * (slope / everything) * (sums.sum0 / everything) + passive * sums.label_prob;
        return {a * share + passive * sums.label_complement, zero<T>(), own, zero<T>() - a * (share / everything)};
    }
};

constexpr double kLog1e12 = 27.631021115928547, kLog1e7 = 16.11809565095832;

// Keras clips p to [1e-7, 1 - 1e-7]. A clipped class has no gradient.
template <class T>
inline auto unclipped(T prob, T complement) {
    const T least = all<T>(static_cast<Element<T>>(1e-7));
    return (prob >= least) & (complement >= least);
}
template <class T>
inline T clipped_log(T log_prob, T complement) {
    const T least = all<T>(static_cast<Element<T>>(1e-7));
    return select(complement < least, all<T>(static_cast<Element<T>>(-1.00000005e-7)),
                  bounded(log_prob, -kLog1e7, 1e30));
}
template <class T>
inline T clipped_prob(T prob) {
    return bounded(prob, 1e-7, 1 - 1e-7);
}

template <bool clipped>
struct Bootstrap : Plain {
    static constexpr bool has_terms = true, has_log_probs = true;
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>& options) {
        const T own = options[0], rest = one<T>() - own;
        if constexpr (clipped) {
            const T log_prob = clipped_log(sums.label_log_prob, sums.label_complement);
            const auto kept = unclipped(sums.label_prob, sums.label_complement);
            return {zero<T>() - own * log_prob - rest * sums.sum0, zero<T>(), select(kept, own, zero<T>()), rest};
        }
        return {zero<T>() - own * sums.label_log_prob - rest * sums.sum0, zero<T>(), own, rest};
    }
};

template <bool clipped>
struct BootstrapSoft : Bootstrap<clipped> {
    template <class T>
    static Terms<T> terms(const Column<T>& column, const RowState<T>&, const Options<T>& options) {
        const T slope = one<T>() + options[2] * column.log_probs;  // options[2]: literal
        if constexpr (clipped) {
            const auto kept = unclipped(column.probs, column.complement);
            return {clipped_prob(column.probs) * clipped_log(column.log_probs, column.complement), zero<T>(),
                    select(kept, column.probs * slope, zero<T>())};
        }
        return {column.probs * column.log_probs, zero<T>(), column.probs * slope};
    }
};

template <bool clipped>
struct BootstrapHard : Bootstrap<clipped> {
    template <class T>
    static Terms<T> terms(const Column<T>& column, const RowState<T>&, const Options<T>&) {
        if constexpr (clipped) {
            const T log_prob = clipped_log(column.log_probs, column.complement);
            const auto kept = unclipped(column.probs, column.complement);
            const T chosen = select(kept, select(column.is_top, one<T>(), zero<T>()), zero<T>());
            return {select(column.is_top, log_prob, zero<T>()), zero<T>(), chosen};
        }
        const T chosen = select(column.is_top, one<T>(), zero<T>());
        return {select(column.is_top, column.log_probs, zero<T>()), zero<T>(), chosen};
    }
};

// With options[1] the probabilities are clipped.
struct BootstrapSoftVariants {
    static constexpr bool has_variants = true;
    template <class Run>
    static void choose(const double* options, Run run) {
        return options[1] != 0 ? run(BootstrapSoft<true>{}) : run(BootstrapSoft<false>{});
    }
};
struct BootstrapHardVariants {
    static constexpr bool has_variants = true;
    template <class Run>
    static void choose(const double* options, Run run) {
        return options[1] != 0 ? run(BootstrapHard<true>{}) : run(BootstrapHard<false>{});
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

struct ForwardClipped : Plain {
    static constexpr bool has_terms = true, has_target = true;
    template <class T>
    static Terms<T> terms(const Column<T>& column, const RowState<T>&, const Options<T>&) {
        const T share = clipped_prob(column.probs) * column.target;
        return {share, zero<T>(), select(unclipped(column.probs, column.complement), share, zero<T>())};
    }
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>&) {
        const T mixed = bounded(sums.sum0, 1e-30, 1e30);
        return {zero<T>() - log_of(mixed), zero<T>(), zero<T>(), one<T>() / mixed};
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

// Only notes its looks, which the skeleton does.
struct Look : Plain {
    static constexpr bool has_loss = false;
};

struct Selc : SoftCe {
    static constexpr bool has_update = true, from_one_hot = true;
    template <class T>
    static T update(T target, T probs, const RowState<T>& row, const Options<T>&) {
        return Ema::update(target, probs, row, {});
    }
};

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

// The one that the options ask for: code, reverse, gate.
struct NalVariants {
    static constexpr bool has_variants = true;
    template <class Run>
    static void choose(const double* options, Run run) {
        const bool code = options[0] != 0, reversed = options[1] != 0;
        if (code) return reversed ? run(Nal<true, true>{}) : run(Nal<true, false>{});
        return reversed ? run(Nal<false, true>{}) : run(Nal<false, false>{});
    }
};

// What a row's table holds: u in the column of its label, v in the others.
struct Sop : Plain {
    static constexpr bool has_terms = true, has_target = true, has_step = true;
    static constexpr double kFloor = 1e-4, kMost = 9.210340371976182;  // its logarithm's amount
    template <class T>
    struct Label {
        T raw, bounded, everything;
        decltype(T{} < T{}) clamped;
    };
    template <class T>
    static T floor() {
        return all<T>(static_cast<Element<T>>(kFloor));
    }
    template <class T>
    static T noise(T target) {
        return bounded(target * target, 0, 1);
    }
    template <class T>
    static Label<T> label(T prob, T own, T rest) {
        const T raw = prob + noise(own), kept = bounded(raw, kFloor, 1e30), everything = kept + rest;
        return {raw, kept, everything, kept < floor<T>() * everything};
    }
    template <class T>
    static Terms<T> terms(const Column<T>& column, const RowState<T>& row, const Options<T>&) {
        const T own = noise(column.target), top = select(column.is_top, one<T>(), zero<T>());
        const T raw = select(column.is_label, column.probs + own, column.probs - own);
        const T distance = select(column.is_label, (top - one<T>()) + own, top - own);
        const T rest = select(column.is_label, zero<T>(), bounded(raw, kFloor, 1e30));
        const T clamped = select(raw < floor<T>(), one<T>(), zero<T>());
        const T slope = select(column.is_label, zero<T>(), column.probs * (clamped - row.total));
        const T of_top = select(column.is_label, one<T>(), clamped);
        return {rest, distance * distance, select(column.is_top, of_top, slope)};
    }
    template <class T>
    static Finished<T> finish(const Sums<T>& sums, const Options<T>&) {
        const Label<T> at = label(sums.label_prob, sums.attention, sums.sum0);
        const T most = all<T>(static_cast<Element<T>>(kMost));
        const T loss = select(at.clamped, most, log1p_of(sums.sum0 / at.bounded)) + sums.sum1;
        const T part = sums.label_prob / at.everything;
        const T active = select(sums.total > zero<T>(), part * sums.sum0, sums.label_prob) / at.bounded;
        const T fall = select(at.raw < floor<T>(), (one<T>() - sums.total) * part, active);
        const T scale = one<T>() / at.everything;
        return {loss, zero<T>(), select(at.clamped, zero<T>(), fall), select(at.clamped, zero<T>(), scale)};
    }
    template <class T>
    static T step(const Column<T>& column, T rest, const Options<T>& options) {
        const T square = column.target * column.target, top = select(column.is_top, one<T>(), zero<T>());
        const Label<T> at = label(column.probs, column.target, rest);
        const T two = all<T>(2), four = all<T>(4);
        const T pulled = select(at.raw < floor<T>(), zero<T>(), two * rest / (at.bounded * at.everything));
        const T pull = select(at.clamped, zero<T>(), pulled);
        const T of_label = options[0] * (four * ((square - one<T>()) + top) - pull);
        const T of_class = options[1] * (four * (square - top));
        const T slope = select(column.is_label, of_label, of_class);
        return column.target - select(square > one<T>(), zero<T>(), slope) * column.target;
    }
};

#endif  // FASTNOISE_RULE_BODIES
