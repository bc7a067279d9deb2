/* Both ends of the transforms of ntt_body.h: the tables of roots, the first and last step, digits in and out. */

#define UNROLL _Pragma("GCC unroll 5")
#define BASE ((size_t)4 * LANES)

/* w doubles in length for each level: w[2^j + i] = w[i] * (a root of order 2^(j + 2)). The vectors across the lanes are
 * w[LANES * leaf + lane], w[2 (...)], w[2 (...) + 1] and so on, so that they double by roots of a higher order. */
HG_TARGET static roots build_roots(const hg_ntt_shape *shape, int prime, int inverse, double *table) {
    uint64_t p = hg_ntt_prime[prime], orders[64], base[BASE];
    modulus m = modulus_of(prime);
    size_t leaves = shape->tree / LEAF, count = shape->tree / (2 * LANES);
    int top = __builtin_ctzll(shape->tree);
    double *single = table + leaves * LANES * (LANES - 1);
    orders[top] = hg_ntt_root(prime, shape->tree, inverse);
    for (int e = top; e > 0; e--) orders[e - 1] = hg_ntt_times(orders[e], orders[e], p);

    base[0] = 1;
    for (size_t i = 1; i < BASE; i++) {
        int j = 63 - __builtin_clzll(i);
        base[i] = hg_ntt_times(base[i ^ (size_t)1 << j], orders[j + 2], p);
    }
    for (size_t i = 0; i < BASE && i < count; i++) single[i] = hg_ntt_balanced(base[i], p);
    for (size_t half = BASE; half < count; half *= 2) {
        root by = root_from(m, orders[__builtin_ctzll(half) + 2], p);
        for (size_t i = 0; i < half; i += LANES)
            STORE(single + half + i, reduce(m, times(m, LOAD(single + i), by)));
    }
    for (size_t k = 0; k < LANES - 1; k++)
        for (size_t i = 0; i < LANES; i++) {
            size_t from = k == 0 ? i : k < 3 ? 2 * i + k - 1 : 4 * i + k - 3;
            table[k * LANES + i] = hg_ntt_balanced(base[from], p);
        }
    for (size_t half = 1; half < leaves; half *= 2) {
        int order = __builtin_ctzll(half) + 2 + __builtin_ctzll(LANES);
        root by[3];
        for (int k = 0; k < (LANES == 8 ? 3 : 2); k++) by[k] = root_from(m, orders[order + k], p);
        for (size_t i = 0; i < half; i++)
            for (int k = 0; k < LANES - 1; k++) {
                double *at = table + (i * (LANES - 1) + (size_t)k) * LANES;
                STORE(at + half * (LANES - 1) * LANES, reduce(m, times(m, LOAD(at), by[k == 0 ? 0 : k < 3 ? 1 : 2])));
            }
    }
    return (roots){m, table, single};
}

/* The step of radix 3 or 5. x^(3N) - 1 splits into x^N - z^j, z of order 3; there x = t^j y with t^N = z, itself of
 * order 3 since N is a power of two, makes y^N - 1. So the coefficient at k is multiplied by t^(jk), which repeats
 * after three vectors. A sum of x_i z^(ij) is taken over pairs: z^i = cosine + sine, z^-i = cosine - sine. */
typedef struct {
    root cosine, pair, sine, other; /* radix 3: -1/2, -, sine; 5: -1/4, half the cosines' difference, both sines */
    root twist[5][4];               /* t^(jk) for vector k modulo the radix, j - 1 */
    root quarter;                   /* radix 4: a root of order 4 */
} ends;

HG_TARGET static void build_ends(const hg_ntt_shape *shape, int prime, int inverse, ends *e) {
    uint64_t p = hg_ntt_prime[prime], half = (p + 1) / 2, r = shape->radix;
    modulus m = modulus_of(prime);
    if (r == 4) e->quarter = root_from(m, hg_ntt_root(prime, 4, inverse), p);
    if (r != 3 && r != 5) return;
    uint64_t z[5] = {1}, t[5] = {1}, n = shape->part % r, step = 1;
    while (n * step % r != 1) step++;
    z[1] = hg_ntt_root(prime, r, inverse);
    for (uint64_t i = 2; i < r; i++) z[i] = hg_ntt_times(z[i - 1], z[1], p);
    for (uint64_t i = 1; i < r; i++) t[i] = z[i * step % r];
    e->sine = root_from(m, hg_ntt_times(z[1] + p - z[r - 1], half, p), p);
    e->cosine = root_from(m, r == 3 ? p - half : p - hg_ntt_times(half, half, p), p);
    if (r == 5) {
        uint64_t one = hg_ntt_times(z[1] + z[4], half, p), two = hg_ntt_times(z[2] + z[3], half, p);
        e->pair = root_from(m, hg_ntt_times(one + p - two, half, p), p);
        e->other = root_from(m, hg_ntt_times(z[2] + p - z[3], half, p), p);
    }
    for (uint64_t k = 0; k < r; k++)
        for (uint64_t j = 1; j < r; j++) {
            double at[LANES] __attribute__((aligned(64)));
            for (uint64_t i = 0; i < LANES; i++) at[i] = hg_ntt_balanced(t[j * (k * LANES + i) % r], p);
            e->twist[k][j - 1] = root_of(m, LOAD(at));
        }
}

/* x[0] at most 1 and the others M(1) < 0.63 (the last step), or all at most 0.76 (the first): out below 4. Radix 3:
 * x0 + s < 2.3 and x0 + 2 M(1.6) < 2.4. Radix 5: x0 + s < 3.9; on the way in 0.76 + 2 M(3.04) + 2 M(1.52) < 3.91, on
 * the way out 1 + 2 M(2.52) + 2 M(1.26) < 3.95. */
INLINE void sum_odd(modulus m, const ends *e, unsigned radix, lanes x[5]) {
    if (radix == 3) {
        lanes s = ADD(x[1], x[2]), d = SUB(x[1], x[2]);
        lanes c = ADD(x[0], times(m, s, e->cosine)), i = times(m, d, e->sine);
        x[0] = ADD(x[0], s);
        x[1] = ADD(c, i);
        x[2] = SUB(c, i);
    } else {
        lanes s1 = ADD(x[1], x[4]), d1 = SUB(x[1], x[4]), s2 = ADD(x[2], x[3]), d2 = SUB(x[2], x[3]);
        lanes s = ADD(s1, s2), c = ADD(x[0], times(m, s, e->cosine)), u = times(m, SUB(s1, s2), e->pair);
        lanes c1 = ADD(c, u), c2 = SUB(c, u);
        lanes i1 = ADD(times(m, d1, e->sine), times(m, d2, e->other));
        lanes i2 = SUB(times(m, d1, e->other), times(m, d2, e->sine));
        x[0] = ADD(x[0], s);
        x[1] = ADD(c1, i1);
        x[4] = SUB(c1, i1);
        x[2] = ADD(c2, i2);
        x[3] = SUB(c2, i2);
    }
}

/* Digits at the end of a factor and the zeros beyond it. */
HG_TARGET static __attribute__((noinline)) void last_digits(const hg_ntt_factor *f, size_t at, uint64_t some[LANES]) {
    for (size_t i = 0; i < LANES; i++) {
        some[i] = at + i == f->whole ? f->last : 0;
        if (at + i < f->whole) __builtin_memcpy(some + i, f->digits + 8 * (at + i), 8);
    }
}

/* Any 64-bit digits, to 1/2 + 2^48 / p < 0.76: the upper 16 bits are reduced alone, exactly as a multiple of 2^48. */
INLINE lanes digits(modulus m, const hg_ntt_factor *f, size_t at) {
    words w;
    if (at + LANES <= f->whole) {
        w = WORDS(f->digits + 8 * at);
    } else if (at <= f->whole) {
        uint64_t some[LANES];
        last_digits(f, at, some);
        w = WORDS(some);
    } else {
        return ALL(0.0);
    }
    lanes low = AS_DOUBLES(AND_OR(w, ALL_WORDS(0xFFFFFFFFFFFF), ALL_WORDS(0x4330000000000000)));
    lanes high = AS_DOUBLES(SHIFT_OR(w, 48, ALL_WORDS(0x4630000000000000)));
    return ADD(reduce(m, SUB(high, ALL(0x1p100))), SUB(low, ALL(0x1p52)));
}

/* The first step, on the digits as they come: out at most 2.2. */
INLINE void begin(unsigned radix, size_t n, modulus m, const ends *e, const hg_ntt_factor *f, double *x) {
    unsigned phase = 0;
    for (size_t at = 0; at < n; at += LANES) {
        lanes v[5];
        UNROLL
        for (unsigned i = 0; i < radix; i++) v[i] = digits(m, f, i * n + at);
        if (radix == 2) {
            lanes s = ADD(v[0], v[1]);
            v[1] = SUB(v[0], v[1]);
            v[0] = s;
        } else if (radix == 4) {
            lanes s = ADD(v[0], v[2]), d = SUB(v[0], v[2]), t = ADD(v[1], v[3]);
            lanes u = times(m, SUB(v[1], v[3]), e->quarter); /* M(1.52) */
            v[0] = reduce(m, ADD(s, t));
            v[1] = reduce(m, SUB(s, t));
            v[2] = reduce(m, ADD(d, u));
            v[3] = reduce(m, SUB(d, u));
        } else {
            sum_odd(m, e, radix, v);
            v[0] = reduce(m, v[0]);
            UNROLL
            for (unsigned j = 1; j < radix; j++) v[j] = times(m, v[j], e->twist[phase][j - 1]);
            phase = phase + 1 == radix ? 0 : phase + 1;
        }
        UNROLL
        for (unsigned i = 0; i < radix; i++) STORE(x + i * n + at, v[i]);
    }
}

/* The last step: 1 to below 4. */
INLINE void finish(unsigned radix, size_t n, modulus m, const ends *e, double *x) {
    unsigned phase = 0;
    for (size_t at = 0; at < n; at += LANES) {
        lanes v[5];
        UNROLL
        for (unsigned i = 0; i < radix; i++) v[i] = LOAD(x + i * n + at);
        if (radix == 2) {
            lanes s = ADD(v[0], v[1]);
            v[1] = SUB(v[0], v[1]);
            v[0] = s;
        } else if (radix == 4) {
            lanes s = reduce(m, ADD(v[0], v[1])), d = SUB(v[0], v[1]), t = reduce(m, ADD(v[2], v[3]));
            lanes u = times(m, SUB(v[2], v[3]), e->quarter); /* M(2) */
            v[0] = ADD(s, t);
            v[1] = ADD(d, u);
            v[2] = SUB(s, t);
            v[3] = SUB(d, u);
        } else {
            UNROLL
            for (unsigned j = 1; j < radix; j++) v[j] = times(m, v[j], e->twist[phase][j - 1]); /* M(1) */
            sum_odd(m, e, radix, v);
            phase = phase + 1 == radix ? 0 : phase + 1;
        }
        UNROLL
        for (unsigned i = 0; i < radix; i++) STORE(x + i * n + at, v[i]);
    }
}

/* With the radix known to the compiler the values stay in registers. */
#define FOR_RADIX(radix, call, ...)           \
    switch (radix) {                          \
    case 2: call(2, __VA_ARGS__); break;      \
    case 3: call(3, __VA_ARGS__); break;      \
    case 4: call(4, __VA_ARGS__); break;      \
    default: call(5, __VA_ARGS__); break;     \
    }

HG_TARGET void NAMED(hg_ntt_convolve)(const hg_ntt_shape *shape, int prime, const hg_ntt_factor *a,
                                      const hg_ntt_factor *b, double *result, double *scratch, double *table) {
    ends e;
    roots r = build_roots(shape, prime, 0, table);
    build_ends(shape, prime, 0, &e);
    size_t nodes = shape->tree / shape->part; /* after a step of two or four the parts are the nodes of one tree */
    for (int side = 0; side < 2; side++) {
        double *x = side ? scratch : result;
        FOR_RADIX(shape->radix, begin, shape->part, r.m, &e, side ? b : a, x)
        for (size_t i = 0; i < shape->radix; i++) split(&r, x + i * shape->part, shape->part, nodes > 1 ? i : 0);
    }
    multiply(r.m, result, scratch, shape->length);
    r = build_roots(shape, prime, 1, table);
    build_ends(shape, prime, 1, &e);
    for (size_t i = 0; i < shape->radix; i++) join(&r, result + i * shape->part, shape->part, nodes > 1 ? i : 0);
    FOR_RADIX(shape->radix, finish, shape->part, r.m, &e, result)
}

/* c = t1 M/p1 + t2 M/p2 + t3 M/p3 - e M, where t_i = residue_i * scale_i modulo p_i lies in [0, p_i) and e is the
 * whole part of t1/p1 + t2/p2 + t3/p3 = e + c/M. The doubles give that sum to 2^-48; since 0 <= c/M < 0.957
 * (hg_ntt.h), adding 2^-20 before cutting off the fraction gives e whether c is zero or as large as it can be. */
HG_TARGET void NAMED(hg_ntt_recombine)(const hg_ntt_shape *shape, double *const results[HG_NTT_PRIMES], size_t first,
                                       size_t count, uint64_t *out) {
    hg_ntt_recombination with;
    hg_ntt_recombine_for(&with, shape->length);
    modulus m[HG_NTT_PRIMES];
    root scale[HG_NTT_PRIMES];
    for (int i = 0; i < HG_NTT_PRIMES; i++) {
        m[i] = modulus_of(i);
        scale[i] = root_of(m[i], ALL(with.scale[i]));
    }
    hg_i128 carry = 0;
    size_t done = 0, skip = first % LANES;
    for (size_t at = first - skip; done < count; at += LANES, skip = 0) {
        double t[HG_NTT_PRIMES][LANES] __attribute__((aligned(64))), whole[LANES] __attribute__((aligned(64)));
        lanes sum = ALL(0x1p-20);
        for (int i = 0; i < HG_NTT_PRIMES; i++) {
            lanes x = times(m[i], LOAD(results[i] + at), scale[i]);
            x = ADD(x, IF_NEGATIVE(x, m[i].p));
            sum = FMADD(x, m[i].inverse, sum);
            STORE(t[i], ADD(x, ALL(0x1p52)));
        }
        STORE(whole, sum);
        for (size_t i = skip; i < LANES && done < count; i++, done++) {
            uint64_t part[HG_NTT_PRIMES];
            int e = (int)whole[i];
            hg_i128 low = (hg_i128)(uint64_t)carry - with.multiple_low[e];
            carry = (carry >> 64) - with.multiple_high[e];
            for (int k = 0; k < HG_NTT_PRIMES; k++) {
                __builtin_memcpy(part + k, &t[k][i], 8);
                part[k] &= 0xFFFFFFFFFFFFF;
                low += (hg_i128)((hg_u128)part[k] * with.low[k]);
                carry += (hg_i128)((hg_u128)part[k] * with.high[k]);
            }
            out[done] = (uint64_t)low;
            carry += low >> 64;
        }
    }
}
