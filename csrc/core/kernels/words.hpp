// Part of kernels_body.hpp: labels in lanes of 16 bits, from integers of any width and back.

template <class Lane, std::size_t bytes>
struct VectorOf {
    typedef Lane Type __attribute__((vector_size(bytes)));
};
template <class Lane, std::size_t bytes = sizeof(Wide)>
using Vector = typename VectorOf<Lane, bytes>::Type;

constexpr std::size_t kParts = kGroup / kShorts;  // vectors of 16-bit lanes in a group

// Labels in lanes of 16 bits: those of some groups at once.
template <std::size_t groups>
struct Words {
    static constexpr std::size_t count = groups * kGroup, parts = groups * kParts;
    Shorts part[parts];

    std::uint16_t operator[](std::size_t j) const { return part[j / kShorts][j % kShorts]; }
};

// The lower halves of the lanes of two vectors, as lanes of half the width.
template <class Lane, std::size_t... lane>
inline Vector<Lane> narrowed(Vector<Lane> a, Vector<Lane> b, std::index_sequence<lane...>) {
    return __builtin_shufflevector(a, b, (2 * lane)...);
}
template <class Lane, class Pair>
inline Vector<Lane> narrowed(Pair a, Pair b) {
    return narrowed<Lane>(reinterpret_cast<Vector<Lane>>(a), reinterpret_cast<Vector<Lane>>(b),
                          std::make_index_sequence<sizeof(Wide) / sizeof(Lane)>{});
}

template <class Vec>
inline Vec loaded(const void* from) {
    Vec values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

// The lower 16 bits of kShorts labels; `bits` gets all of those of wider ones.
template <class Label>
inline Shorts load_part(const Label* labels, Vector<Label>& bits) {
    constexpr std::size_t width = sizeof(Wide) / sizeof(Label);
    if constexpr (sizeof(Label) <= 2) {
        return __builtin_convertvector(loaded<Vector<Label, sizeof(Label) * kShorts>>(labels), Shorts);
    } else {
        Vector<Label> part[sizeof(Label) / 2];
        for (std::size_t p = 0; p < sizeof(Label) / 2; ++p) {
            part[p] = loaded<Vector<Label>>(labels + p * width);
            bits |= part[p];
        }
        if constexpr (sizeof(Label) == 4) {
            return narrowed<std::uint16_t>(part[0], part[1]);
        } else {
            return narrowed<std::uint16_t>(narrowed<std::uint32_t>(part[0], part[1]),
                                           narrowed<std::uint32_t>(part[2], part[3]));
        }
    }
}

template <std::size_t groups, class Noisy>
inline void store(const Words<groups>& words, Noisy* to) {
    if constexpr (sizeof(Noisy) == 1) {
        for (std::size_t p = 0; p < words.parts; ++p) {
            const auto narrow = __builtin_convertvector(words.part[p], Vector<Noisy, kShorts>);
            std::memcpy(to + p * kShorts, &narrow, sizeof narrow);
        }
    } else {
        std::uint16_t value[words.count];
        std::memcpy(value, words.part, sizeof value);
        for (std::size_t j = 0; j < words.count; ++j) to[j] = value[j];
    }
}
