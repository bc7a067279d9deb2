/* Number-theoretic transforms in doubles, included once for each width of the lanes (ntt_narrow.c, ntt_wide.c).
 *
 * A transform reduces a polynomial modulo x^n - 1 by splitting x^2k - a^2 = (x^k - a)(x^k + a) down to single
 * points, depth first, so that what is split next is still in the cache; the product is taken there and joined back
 * the same way. Node i of each level splits by the root w[i], where w[0] = 1, w[2i] = sqrt(w[i]) and w[2i + 1] =
 * sqrt(-w[i]); so one table serves all levels, no order of bits is ever reversed, and a long stretch needs a single
 * root. The last log2(LANES) levels lie across the lanes: there LANES nodes are transposed, and each lane has its
 * own root.
 *
 * A number modulo p is a double of magnitude at most A p; which A, is said at each step, and A < 4 always, so it is
 * a whole number below 2^52. p <= 2^50 (1 - 2^-10). Why every step is exact: let |w| <= p/2 (1 + 2^-45) and q =
 * nearest(x * fl(w * fl(1/p))). The factor is off by at most 2^-53, hence q by at most A p 2^-53 < A/8 besides the
 * rounding to a whole number, and |q| < 2^51, where adding and taking away 1.5 * 2^52 rounds to a whole number. With
 * h = fl(x w), l = x w - h is a double (by one fused operation), h - q p is a whole number below 2^53, so is
 * computed without rounding by another, and so is the sum: x w - q p exactly, of magnitude below M(A) p, M(A) = 1/2
 * + A/8. M(4) = 1. Without w the result is below 1/2 p (1 + 2^-45), written 1/2. All this holds only without other
 * contractions or reordering, -ffp-contract=off and no -ffast-math, and while the processor rounds to nearest, which
 * product.c looks at. */
#ifdef __FAST_MATH__
#error "the transforms are exact only in IEEE 754 arithmetic: build without -ffast-math"
#endif

#define INLINE HG_TARGET static inline __attribute__((always_inline))
#define LEAF ((size_t)LANES * LANES)

typedef struct {
    lanes p, inverse;
} modulus;

typedef struct {
    lanes w, q; /* a root and its quotient by p */
} root;

INLINE lanes nearest(lanes a, lanes b) {
    const lanes magic = ALL(0x1.8p52);
    return SUB(FMADD(a, b, magic), magic);
}

INLINE modulus modulus_of(int prime) {
    double p = (double)hg_ntt_prime[prime];
    return (modulus){ALL(p), ALL(1.0 / p)};
}

INLINE root root_of(modulus m, lanes w) { return (root){w, MUL(w, m.inverse)}; }

INLINE root root_from(modulus m, uint64_t w, uint64_t p) { return root_of(m, ALL(hg_ntt_balanced(w, p))); }

/* A < 4 to 1/2. */
INLINE lanes reduce(modulus m, lanes x) { return FNMADD(nearest(x, m.inverse), m.p, x); }

/* A < 4 to M(A). */
INLINE lanes times(modulus m, lanes x, root by) {
    lanes h = MUL(x, by.w), q = nearest(x, by.q), l = FMSUB(x, by.w, h);
    return ADD(FNMADD(q, m.p, h), l);
}

/* 2.2 to 1/2 + M(2.2) < 1.3. */
INLINE void split_two(modulus m, lanes *x0, lanes *x1, root a) {
    lanes y = times(m, *x1, a), x = reduce(m, *x0);
    *x0 = ADD(x, y);
    *x1 = SUB(x, y);
}

/* 2.2 to 2.2: 1/2 + M(2.2) + M(2.2 + M(2.2)) < 2.15. */
INLINE void split_four(modulus m, lanes *x0, lanes *x1, lanes *x2, lanes *x3, root a, root b, root c) {
    lanes u = times(m, *x2, a), v = times(m, *x3, a), x = reduce(m, *x0);
    lanes y = times(m, ADD(*x1, v), b), z = times(m, SUB(*x1, v), c);
    lanes s = ADD(x, u), d = SUB(x, u);
    *x0 = ADD(s, y);
    *x1 = SUB(s, y);
    *x2 = ADD(d, z);
    *x3 = SUB(d, z);
}

/* 1 to M(2) = 3/4; the roots are the inverses, and a factor of two remains. */
INLINE void join_two(modulus m, lanes *x0, lanes *x1, root a) {
    lanes s = ADD(*x0, *x1), d = SUB(*x0, *x1);
    *x0 = reduce(m, s);
    *x1 = times(m, d, a);
}

/* 1 to M(4) = 1; a factor of four remains. */
INLINE void join_four(modulus m, lanes *x0, lanes *x1, lanes *x2, lanes *x3, root a, root b, root c) {
    lanes s = ADD(*x0, *x1), y = times(m, SUB(*x0, *x1), b);
    lanes t = ADD(*x2, *x3), z = times(m, SUB(*x2, *x3), c);
    *x0 = reduce(m, ADD(s, t));
    *x1 = reduce(m, ADD(y, z));
    *x2 = times(m, SUB(s, t), a);
    *x3 = times(m, SUB(y, z), a);
}

/* log2(LANES) levels between LANES vectors: by[0] for the first, by[1] and by[2] for the second, by[3] to by[6]. */
INLINE void split_block(modulus m, lanes v[LANES], const root by[LANES - 1]) {
    for (int k = 0; k < LANES / 4; k++)
        split_four(m, v + k, v + k + LANES / 4, v + k + LANES / 2, v + k + LANES / 4 * 3, by[0], by[1], by[2]);
    for (int j = 3; j < LANES - 1; j++) split_two(m, v + 2 * (j - 3), v + 2 * (j - 3) + 1, by[j]);
}

INLINE void join_block(modulus m, lanes v[LANES], const root by[LANES - 1]) {
    for (int j = 3; j < LANES - 1; j++) join_two(m, v + 2 * (j - 3), v + 2 * (j - 3) + 1, by[j]);
    for (int k = 0; k < LANES / 4; k++)
        join_four(m, v + k, v + k + LANES / 4, v + k + LANES / 2, v + k + LANES / 4 * 3, by[0], by[1], by[2]);
}

typedef struct {
    modulus m;
    const double *across, *single; /* for each leaf LANES - 1 vectors; w[i] for i < tree / (2 LANES) */
} roots;

INLINE void single_roots(const roots *r, size_t node, root by[LANES - 1]) {
    by[0] = root_of(r->m, ALL(r->single[node]));
    by[1] = root_of(r->m, ALL(r->single[2 * node]));
    by[2] = root_of(r->m, ALL(r->single[2 * node + 1]));
    for (int j = 3; j < LANES - 1; j++) by[j] = root_of(r->m, ALL(r->single[4 * node + (size_t)j - 3]));
}

INLINE void roots_across(const roots *r, size_t node, root by[LANES - 1]) {
    const double *from = r->across + node * LANES * (LANES - 1);
    for (int j = 0; j < LANES - 1; j++) by[j] = root_of(r->m, LOAD(from + j * LANES));
}

HG_TARGET static void split_leaf(const roots *r, double *x, size_t node) {
    lanes v[LANES];
    root by[LANES - 1];
    for (int i = 0; i < LANES; i++) v[i] = LOAD(x + i * LANES);
    single_roots(r, node, by);
    split_block(r->m, v, by);
    transpose(v);
    roots_across(r, node, by);
    split_block(r->m, v, by);
    for (int i = 0; i < LANES; i++) STORE(x + i * LANES, v[i]);
}

HG_TARGET static void join_leaf(const roots *r, double *x, size_t node) {
    lanes v[LANES];
    root by[LANES - 1];
    for (int i = 0; i < LANES; i++) v[i] = LOAD(x + i * LANES);
    roots_across(r, node, by);
    join_block(r->m, v, by);
    transpose(v);
    single_roots(r, node, by);
    join_block(r->m, v, by);
    for (int i = 0; i < LANES; i++) STORE(x + i * LANES, v[i]);
}

/* Steps of four, and one of two on top where the number of levels asks for it. */
HG_TARGET static void split(const roots *r, double *x, size_t length, size_t node) {
    if (length == LEAF) {
        split_leaf(r, x, node);
        return;
    }
    int two = __builtin_ctzll(length / LEAF) & 1;
    size_t step = two ? length / 2 : length / 4;
    if (two) {
        root a = root_of(r->m, ALL(r->single[node]));
        for (double *at = x; at < x + step; at += LANES) {
            lanes v0 = LOAD(at), v1 = LOAD(at + step);
            split_two(r->m, &v0, &v1, a);
            STORE(at, v0);
            STORE(at + step, v1);
        }
    } else {
        root a = root_of(r->m, ALL(r->single[node])), b = root_of(r->m, ALL(r->single[2 * node])),
             c = root_of(r->m, ALL(r->single[2 * node + 1]));
        for (double *at = x; at < x + step; at += LANES) {
            lanes v0 = LOAD(at), v1 = LOAD(at + step), v2 = LOAD(at + 2 * step), v3 = LOAD(at + 3 * step);
            split_four(r->m, &v0, &v1, &v2, &v3, a, b, c);
            STORE(at, v0);
            STORE(at + step, v1);
            STORE(at + 2 * step, v2);
            STORE(at + 3 * step, v3);
        }
    }
    size_t parts = length / step;
    for (size_t i = 0; i < parts; i++) split(r, x + i * step, step, parts * node + i);
}

HG_TARGET static void join(const roots *r, double *x, size_t length, size_t node) {
    if (length == LEAF) {
        join_leaf(r, x, node);
        return;
    }
    int two = __builtin_ctzll(length / LEAF) & 1;
    size_t step = two ? length / 2 : length / 4, parts = length / step;
    for (size_t i = 0; i < parts; i++) join(r, x + i * step, step, parts * node + i);
    if (two) {
        root a = root_of(r->m, ALL(r->single[node]));
        for (double *at = x; at < x + step; at += LANES) {
            lanes v0 = LOAD(at), v1 = LOAD(at + step);
            join_two(r->m, &v0, &v1, a);
            STORE(at, v0);
            STORE(at + step, v1);
        }
    } else {
        root a = root_of(r->m, ALL(r->single[node])), b = root_of(r->m, ALL(r->single[2 * node])),
             c = root_of(r->m, ALL(r->single[2 * node + 1]));
        for (double *at = x; at < x + step; at += LANES) {
            lanes v0 = LOAD(at), v1 = LOAD(at + step), v2 = LOAD(at + 2 * step), v3 = LOAD(at + 3 * step);
            join_four(r->m, &v0, &v1, &v2, &v3, a, b, c);
            STORE(at, v0);
            STORE(at + step, v1);
            STORE(at + 2 * step, v2);
            STORE(at + 3 * step, v3);
        }
    }
}

/* x times y, 2.2 each, to 0.78. x is reduced first, so the product is at most 1.1 p^2; h and fl(1/p) are each off by a
 * part in 2^53, hence the quotient by at most 1.1 p 2^-52 < 0.28 besides the rounding. The rest is as above. */
HG_TARGET static void multiply(modulus m, double *x, const double *y, size_t length) {
    for (size_t i = 0; i < length; i += LANES) {
        lanes a = reduce(m, LOAD(x + i)), b = LOAD(y + i);
        lanes h = MUL(a, b), q = nearest(h, m.inverse), l = FMSUB(a, b, h);
        STORE(x + i, ADD(FNMADD(q, m.p, h), l));
    }
}

#include "ntt_ends.h"
