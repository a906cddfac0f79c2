// Part of kernels_body.hpp: what labels flip to, by tables.

// What each label of a group would flip to, by tables.
inline void look_up(const Job& job, std::size_t group, const std::uint16_t* flip, const std::uint32_t* slot,
                    const std::uint32_t* label, std::uint32_t* to) {
    const Model& model = job.model;
    if (model.kind == Model::Kind::mapped) {
        for (std::size_t j = 0; j < kGroup; ++j) to[j] = model.class_map[label[j]];
        return;
    }
    std::uint32_t ties = 0;
    for (std::size_t j = 0; j < kGroup; ++j) {
        const std::uint64_t entry = model.alias[std::uint64_t{label[j]} * model.num_classes + slot[j]];
        const auto alias = static_cast<std::uint32_t>(entry >> 32), high = static_cast<std::uint32_t>(entry) >> 16;
        const std::uint32_t mask = 0u - static_cast<std::uint32_t>(flip[j] < high);
        to[j] = alias ^ ((alias ^ slot[j]) & mask);
        ties |= flip[j] == high;
    }
    if (!ties) return;
    for (std::size_t j = 0; j < kGroup; ++j) {
        const std::uint64_t entry = model.alias[std::uint64_t{label[j]} * model.num_classes + slot[j]];
        if (flip[j] != static_cast<std::uint32_t>(entry) >> 16) continue;
        const std::uint32_t next = draw(job.seed, Purpose::flip, group * kGroup + j, 1);
        to[j] = next < (entry & 0xffff) ? slot[j] : static_cast<std::uint32_t>(entry >> 32);
    }
}

#if defined(FASTNOISE_TABLES)
// A map of up to 128 classes, or a matrix's alias table of up to 11, in registers. Of 0.76 ns a label of a matrix of 10
// classes, gathering took 0.43.
struct Tables {
    static constexpr std::size_t kMost = 128;
    Table high, alias;
    bool held;

    explicit Tables(const Model& model) {
        const bool matrix = model.kind == Model::Kind::matrix;
        const std::uint64_t entries = std::uint64_t{model.num_classes} * (matrix ? model.num_classes : 1);
        held = (matrix || model.kind == Model::Kind::mapped) && entries <= kMost;
        if (!held) return;
        std::uint16_t highs[kMost] = {}, aliases[kMost] = {};
        for (std::size_t entry = 0; entry < entries; ++entry) {
            highs[entry] = matrix ? static_cast<std::uint16_t>(model.alias[entry] >> 16) : 0;
            aliases[entry] = static_cast<std::uint16_t>(matrix ? model.alias[entry] >> 32 : model.class_map[entry]);
        }
        high = Table(highs);
        alias = Table(aliases);
    }

    // What `look_up` does, for slots in `to`.
    template <std::size_t groups>
    void look_up(const Job& job, std::size_t first, const std::uint16_t* flip, const Words<groups>& label,
                 Words<groups>& to) const {
        if (job.model.kind == Model::Kind::mapped) {
            for (std::size_t p = 0; p < to.parts; ++p) to.part[p] = alias(label.part[p]);
            return;
        }
        const Shorts classes = Shorts{} + static_cast<std::uint16_t>(job.model.num_classes);
        Shorts tied[to.parts], all{};
        const Words<groups> slot = to;
        for (std::size_t p = 0; p < to.parts; ++p) {
            const Shorts place = label.part[p] * classes + slot.part[p], number = loaded<Shorts>(flip + p * kShorts);
            const Shorts bound = high(place);
            to.part[p] = number < bound ? slot.part[p] : alias(place);
            tied[p] = reinterpret_cast<Shorts>(number == bound);
            all |= tied[p];
        }
        if (!any(all)) return;
        for (std::size_t j = 0; j < to.count; ++j) {
            if (!tied[j / kShorts][j % kShorts]) continue;
            const std::uint64_t entry = job.model.alias[label[j] * job.model.num_classes + slot[j]];
            const std::uint32_t next = draw(job.seed, Purpose::flip, first + j, 1);
            to.part[j / kShorts][j % kShorts] =
                next < (entry & 0xffff) ? slot[j] : static_cast<std::uint16_t>(entry >> 32);
        }
    }
};
#else
struct Tables {
    static constexpr bool held = false;
    explicit Tables(const Model&) {}
    template <class Given>
    void look_up(const Job&, std::size_t, const std::uint16_t*, const Given&, Given&) const {}
};
#endif
