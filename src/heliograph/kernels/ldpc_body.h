/* The checks of a row, LANES at a time, as ldpc.c does them one by one: included once for each width of the lanes
 * (ldpc_avx2.c, ldpc_avx512.c). Whoever includes it has defined LANES, HG_TARGET, `lanes` (LANES bytes in a register),
 * V(name) for the intrinsic of that name and width, BITS(name) for one that ignores how wide its numbers are, and
 *
 *   lanes load(const void *), void store(void *, lanes)
 *   tables, tables load_tables(void)    PHI in bytes, for look-ups
 *   index of(lanes size)                what the tables are looked up by
 *   lanes low_phi(const tables *, index), lanes high_phi(const tables *, index)
 *   lanes at_least(lanes sum)           in numbers of 16 bits: 1, 2 and 3 for sums up to HG_LDPC_ONE, _TWO and _THREE, else 0
 *   lanes where_equal(lanes a, lanes b, lanes then, lanes otherwise)
 *   lanes negated_where(lanes sign, lanes size)    -size where the sign has its top bit
 *   unsigned tops(lanes v)              how many bytes have their top bit */
#define INLINE HG_TARGET static inline __attribute__((always_inline))

/* `size_of` for each sum, in numbers of 16 bits. The bits of a float are its logarithm, linear between powers of two. */
INLINE lanes sizes_of(lanes sum) {
    const lanes zero = BITS(setzero)(), half = V(set1_epi32)(1 << 21);
    const lanes a = AS_BITS(V(cvtepi32_ps)(V(unpacklo_epi16)(sum, zero)));
    const lanes b = AS_BITS(V(cvtepi32_ps)(V(unpackhi_epi16)(sum, zero)));
    const lanes twice = V(packus_epi32)(V(srli_epi32)(V(add_epi32)(a, half), 22), V(srli_epi32)(V(add_epi32)(b, half), 22));
    const lanes size = V(subs_epu16)(V(set1_epi16)(26 + 2 * 127), twice);
    return V(min_epi16)(V(max_epi16)(size, at_least(sum)), V(set1_epi16)(HG_LDPC_LARGEST));
}

/* The checks from `k` on of row `r`; returns how many did not hold. */
HG_TARGET static unsigned checks(const hg_ldpc *code, const hg_ldpc_state *s, const tables *phi, size_t r, size_t k) {
    const size_t z = code->z, first = code->starts[r], degree = code->starts[r + 1] - first;
    int8_t *messages = s->messages + first * z + k * degree;
    const lanes largest = V(set1_epi8)(HG_LDPC_LARGEST), upper = V(set1_epi16)((short)0xFF00);
    lanes sign = load(s->signs + r * z + k), least = largest, high = BITS(setzero)();
    lanes mixed = high, second = high; /* sums of low bytes: of pairs of lanes as 16-bit numbers, of the upper ones */
    for (size_t e = 0; e < degree; e++) {
        const lanes total = load(hg_ldpc_bits(code, s, first + e, k));
        const lanes t = V(subs_epi8)(total, load(messages + e * LANES));
        store(s->row + e * LANES, t);
        sign = BITS(xor)(sign, t);
        const lanes size = V(min_epu8)(V(abs_epi8)(t), largest);
        const index at = of(size);
        least = V(min_epu8)(least, size);
        high = V(adds_epu8)(high, high_phi(phi, at));
        const lanes low = low_phi(phi, at);
        mixed = V(add_epi16)(mixed, low);
        second = V(add_epi16)(second, V(srli_epi16)(low, 8));
    }
    const index at = of(least);
    const lanes low = low_phi(phi, at), top = high_phi(phi, at);
    const lanes lower = V(sub_epi16)(mixed, V(slli_epi16)(second, 8));
    const lanes even = V(adds_epu16)(V(slli_epi16)(high, 8), lower);
    const lanes odd = V(adds_epu16)(BITS(and)(high, upper), second);
    const lanes less_even = BITS(or)(BITS(andnot)(upper, low), V(slli_epi16)(top, 8));
    const lanes less_odd = BITS(or)(V(srli_epi16)(low, 8), BITS(and)(top, upper));
    const lanes all = BITS(or)(sizes_of(even), V(slli_epi16)(sizes_of(odd), 8));
    const lanes others = BITS(or)(sizes_of(V(subs_epu16)(even, less_even)),
                                  V(slli_epi16)(sizes_of(V(subs_epu16)(odd, less_odd)), 8));
    for (size_t e = 0; e < degree; e++) {
        const lanes t = load(s->row + e * LANES), own = V(min_epu8)(V(abs_epi8)(t), largest);
        const lanes most = V(set1_epi8)((char)s->most[code->columns[first + e]]);
        const lanes size = V(min_epu8)(where_equal(own, least, others, all), most);
        const lanes m = negated_where(BITS(xor)(sign, t), size);
        store(messages + e * LANES, m);
        store(hg_ldpc_bits(code, s, first + e, k), V(adds_epi8)(t, m));
    }
    return tops(sign);
}

/* One iteration over all rows: `hg_ldpc_iterate` of this width. */
INLINE size_t iterate(const hg_ldpc *code, const hg_ldpc_state *s) {
    const tables phi = load_tables();
    size_t odd = 0;
    for (size_t r = 0; r < code->rows; r++) {
        for (size_t k = 0; k < code->z; k += LANES) odd += checks(code, s, &phi, r, k);
        hg_ldpc_mend(code, s, r, LANES);
    }
    return odd;
}
