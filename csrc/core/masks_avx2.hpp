// Included by kernels_avx2.cpp and kernels_avx512.cpp inside their namespaces: beyond the second-level cache, 512-bit
// loads read a consensus at 31 to 46 GB/s where 256-bit ones reach 52 to 64 (EPYC, one thread, three stages).

// Bit j: losses[j] < threshold, for 64 of them.
inline std::uint64_t below_mask(const float* losses, float threshold) {
    const __m256 limit = _mm256_set1_ps(threshold);
    std::uint64_t mask = 0;
    for (unsigned v = 0; v < 8; ++v) {
        const int below = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(losses + 8 * v), limit, _CMP_LT_OQ));
        mask |= std::uint64_t{static_cast<std::uint32_t>(below)} << (8 * v);
    }
    return mask;
}

template <class Integer>
inline __m256i load(const Integer* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

// Bit j: a[j] == b[j], for 64 of them.
template <class Integer>
inline std::uint64_t equal_mask(const Integer* a, const Integer* b) {
    std::uint64_t mask = 0;
    for (unsigned j = 0; j < 64; j += 32) {  // 32 samples to 32 bytes
        int equal = 0;
        if constexpr (sizeof(Integer) == 1) {
            equal = _mm256_movemask_epi8(_mm256_cmpeq_epi8(load(a + j), load(b + j)));
        } else if constexpr (sizeof(Integer) == 2) {
            const __m256i lower = _mm256_cmpeq_epi16(load(a + j), load(b + j));
            const __m256i upper = _mm256_cmpeq_epi16(load(a + j + 16), load(b + j + 16));
            // Packing works within halves of 128 bits: their middle quarters change places.
            equal = _mm256_movemask_epi8(_mm256_permute4x64_epi64(_mm256_packs_epi16(lower, upper), 0xd8));
        } else {
            for (unsigned v = 0; v < 4; ++v) {
                const __m256i eight = _mm256_cmpeq_epi32(load(a + j + 8 * v), load(b + j + 8 * v));
                equal |= _mm256_movemask_ps(_mm256_castsi256_ps(eight)) << (8 * v);
            }
        }
        mask |= std::uint64_t{static_cast<std::uint32_t>(equal)} << j;
    }
    return mask;
}
