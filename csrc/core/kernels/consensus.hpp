// Part of kernels_body.hpp: stage consensus: members, worst losses and their bins.

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
