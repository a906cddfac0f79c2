// Included by losses_*.cpp inside a namespace of the target's own, with kBytes, the size of a vector. So are its parts in
// losses/, which stand in this order. As in kernels_body.hpp, nothing here may be shared with code for other targets.
//
// A row is worked on in blocks of 16 columns, padded at its end, in float or double; so that every instruction set adds
// up the same numbers in the same order, a block is one vector or several. What there is one number of per row (the
// logarithms above all) is computed for up to 16 rows at once, in the lanes of a block.

constexpr std::size_t kLanes = 16;

#define FASTNOISE_NOINLINE __attribute__((noinline))

#include "core/losses/vectors.hpp"
#include "core/losses/functions.hpp"
#include "core/losses/parts.hpp"
#define FASTNOISE_RULE_BODIES
#include "core/losses/rules.hpp"
#undef FASTNOISE_RULE_BODIES
#include "core/losses/rows.hpp"
#include "core/losses/skeleton.hpp"

// A gradient lies in C - 1 dimensions, and the fewer these are, the more rows come so near to its zero, where terms
// cancel, that float keeps no digits of it. kernels/row.py has figures, for NAL; here the limit holds for all rules.
constexpr std::size_t kExact = 4;

template <class Rule>
void run_rule(const LossJob& job, const LossPlan& plan, std::size_t begin, std::size_t end, void* scratch) {
    if constexpr (Rule::has_variants) {
        Rule::choose(job.options, [&](auto variant) {
            run_rule<decltype(variant)>(job, plan, begin, end, scratch);
        });
    } else if (job.classes <= kExact) {
        Skeleton<double, Rule>(job, plan, scratch).run(begin, end);
    } else {
        Skeleton<float, Rule>(job, plan, scratch).run(begin, end);
    }
}

void loss_rows(const LossJob& job, const LossPlan& plan, std::size_t begin, std::size_t end, void* scratch) {
    switch (job.rule) {
#define FASTNOISE_RUN(name, Rule) \
    case LossRule::name:          \
        return run_rule<Rule>(job, plan, begin, end, scratch);
        FASTNOISE_LOSS_RULES(FASTNOISE_RUN)
#undef FASTNOISE_RUN
    }
}

#undef FASTNOISE_NOINLINE
