// Part of losses_body.hpp: the passes over a group of rows, compiled for each rule.

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
        if (job.looks) {
            for (std::size_t r = 0; r < count; ++r) this->look(r);
        }
        if constexpr (Rule::has_loss) store(log1p_of(rest), group.log_total);
        this->prepare_rows(count);
        if constexpr (Rule::has_target) {
            for (std::size_t r = 0; r < count; ++r) this->load_targets(r);
        }
        if constexpr (Rule::has_step) {
            for (std::size_t r = 0; r < count; ++r) group.attention[r] = targets[r * width + group.label[r]];
        }
        if constexpr (Rule::has_total) {
            for (std::size_t r = 0; r < count; ++r) sum_total(r);
        }
        if constexpr (Rule::has_terms || Rule::has_update) {
            for (std::size_t r = 0; r < count; ++r) {
                if (!sum_terms<false>(r)) sum_terms<true>(r);
            }
        }
        if constexpr (Rule::has_step) {
            for (std::size_t r = 0; r < count; ++r) step_targets(r);
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

    // Where the row's targets are written back; null if they are not.
    float* written(std::size_t r) const {
        const std::size_t row = group.row[r];
        const bool opened = !Rule::has_attention || group.tau[r] > scalar_options.value[2];
        if (!(job.update && opened && finite(r)) || (plan.superseded && plan.superseded[row])) return nullptr;
        return job.targets + static_cast<std::size_t>(job.index[row]) * job.classes;
    }

    // Updates the targets and adds up the terms. False where a rule is to be `guarded` and wasn't.
    template <bool guarded>
    bool sum_terms(std::size_t r) {
        RowState<T> state = Base::template state_of<T>(r);
        const std::size_t base = r * width, top = group.top[r];
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
        if constexpr (Rule::has_step) {
            Column<Real> scalar;
            scalar.probs = inverse;
            scalar.target = targets[base + top];
            scalar.is_top = true;
            scalar.is_label = group.label[r] == top;
            group.total[r] = Rule::terms(scalar, Base::template state_of<Real>(r), scalar_options).slope;
            state.total = all<T>(group.total[r]);
        }
        float* const to = Rule::has_update ? written(r) : nullptr;
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
                if constexpr (Rule::has_step) terms.slope = select(column.is_top, zero<T>(), terms.slope);
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

    // Writes the targets that follow from the terms' sums.
    void step_targets(std::size_t r) {
        float* const to = written(r);
        if (!to) return;
        const std::size_t base = r * width;
        const T inverse = all<T>(group.inverse[r]), rest = all<T>(group.sum0[r]);
        const T top_column = all<T>(static_cast<Real>(group.top[r]));
        const T label_column = all<T>(static_cast<Real>(group.label[r]));
        for (std::size_t from = 0; from < width; from += kLanes) {
            const T at = columns(from);
            Column<T> column;
            column.probs = load<T>(powers + base + from) * inverse;
            column.target = load<T>(targets + base + from);
            column.is_top = at == top_column;
            column.is_label = at == label_column;
            store_part(Rule::step(column, rest, options), to + from, left(from));
        }
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
