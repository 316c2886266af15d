/* The arithmetic C of nnx: a vector of real numbers and what the Cython kernels do with it. (Beside it there is threads.h.)
 *
 * NNX_DOUBLE chooses the number: double, or else float. The width of the vector follows from what the compiler is told to
 * compile for. GCC and Clang get vector extensions; other compilers, and NNX_PLAIN, get loops over the lanes, which
 * every optimizer knows. Both read the same formulas: those are written for `each`, which is the whole vector with
 * vector extensions and one lane without.
 */
#ifndef NNX_SIMD_H
#define NNX_SIMD_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__) && !defined(NNX_PLAIN)
#include <immintrin.h>
#elif defined(__aarch64__) && !defined(NNX_PLAIN)
#include <arm_neon.h>
#endif

#if !defined(__GNUC__) && !defined(NNX_PLAIN)
#define NNX_PLAIN
#endif

#ifdef __GNUC__
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

/* Whether the processor has what a variant is compiled for (see setup.py). */
static inline int processor_offers(const char *variant) {
#if defined(__GNUC__) && defined(__x86_64__)
    __builtin_cpu_init();
    if (strcmp(variant, "avx2") == 0)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (strcmp(variant, "avx512") == 0)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
#endif
    return strcmp(variant, "baseline") == 0;
}

/* The number. DIGITS: bits of its fraction; BIAS: of its exponent. */
#ifdef NNX_DOUBLE
typedef double real_t;
typedef int64_t int_t;
typedef uint64_t bits_t;
#define DIGITS 52
#define BIAS 1023
#define SQUARE_ROOT sqrt
#else
typedef float real_t;
typedef int32_t int_t;
typedef uint32_t bits_t;
#define DIGITS 23
#define BIAS 127
#define SQUARE_ROOT sqrtf
#endif

/* The vector, and the tile of a matrix product whose accumulators fill the registers: 16 of them, or 32. */
#ifndef NNX_VECTOR_BYTES
#if defined(__AVX512F__)
#define NNX_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define NNX_VECTOR_BYTES 32
#else
#define NNX_VECTOR_BYTES 16
#endif
#endif
#if NNX_VECTOR_BYTES == 64 || defined(__aarch64__)
#define TILE_ROWS 8
#elif NNX_VECTOR_BYTES == 32
#define TILE_ROWS 6
#else
#define TILE_ROWS 4
#endif
#define LANES ((int)(NNX_VECTOR_BYTES / sizeof(real_t)))

#ifdef NNX_PLAIN

typedef struct { real_t lane[NNX_VECTOR_BYTES / sizeof(real_t)]; } vec;
typedef struct { int_t lane[NNX_VECTOR_BYTES / sizeof(real_t)]; } mask;
typedef real_t each;
typedef int_t each_int;
typedef bits_t each_bits;
INLINE each_bits to_bits(each x) { each_bits b; memcpy(&b, &x, sizeof b); return b; }
INLINE each from_bits(each_bits b) { each x; memcpy(&x, &b, sizeof x); return x; }
INLINE each choose(each_int truth, each yes, each no) { return truth ? yes : no; }
INLINE each each_sqrt(each x) { return SQUARE_ROOT(x); }
#define EVERY(number) (number)
#define LANE(x, l) (x).lane[l]
#define LANE_OF_vec real_t
#define LANE_OF_mask int_t

/* LIFTn(R, name, A, a, ..., expression): the function `name` of n vectors, lane by lane. */
#define LIFT1(R, name, A, a, expression)                                                     \
    INLINE R name(A a##_) {                                                                  \
        R r; int l;                                                                          \
        for (l = 0; l < LANES; l++) { const LANE_OF_##A a = a##_.lane[l]; r.lane[l] = (expression); } \
        return r;                                                                            \
    }
#define LIFT2(R, name, A, a, B, b, expression)                                               \
    INLINE R name(A a##_, B b##_) {                                                          \
        R r; int l;                                                                          \
        for (l = 0; l < LANES; l++) {                                                        \
            const LANE_OF_##A a = a##_.lane[l]; const LANE_OF_##B b = b##_.lane[l];  \
            r.lane[l] = (expression);                                                        \
        }                                                                                    \
        return r;                                                                            \
    }
#define LIFT3(R, name, A, a, B, b, C, c, expression)                                         \
    INLINE R name(A a##_, B b##_, C c##_) {                                                  \
        R r; int l;                                                                          \
        for (l = 0; l < LANES; l++) {                                                        \
            const LANE_OF_##A a = a##_.lane[l]; const LANE_OF_##B b = b##_.lane[l];  \
            const LANE_OF_##C c = c##_.lane[l];                                          \
            r.lane[l] = (expression);                                                        \
        }                                                                                    \
        return r;                                                                            \
    }

INLINE vec v_all(real_t x) { vec r; int l; for (l = 0; l < LANES; l++) r.lane[l] = x; return r; }

#else

typedef real_t vec __attribute__((vector_size(NNX_VECTOR_BYTES)));
typedef int_t mask __attribute__((vector_size(NNX_VECTOR_BYTES)));
typedef bits_t vec_bits __attribute__((vector_size(NNX_VECTOR_BYTES)));
typedef vec each;
typedef mask each_int;
typedef vec_bits each_bits;
INLINE each_bits to_bits(each x) { return (each_bits)x; }
INLINE each from_bits(each_bits b) { return (each)b; }
INLINE each choose(each_int truth, each yes, each no) {
    return (each)((truth & (each_int)yes) | (~truth & (each_int)no));
}
/* There is no square root among the vector extensions; compilers make one instruction of this loop. */
INLINE each each_sqrt(each x) { each r; int l; for (l = 0; l < LANES; l++) r[l] = SQUARE_ROOT(x[l]); return r; }
#define EVERY(number) ((number) - (each){0})
#define LANE(x, l) (x)[l]

#define LIFT1(R, name, A, a, expression) INLINE R name(A a) { return expression; }
#define LIFT2(R, name, A, a, B, b, expression) INLINE R name(A a, B b) { return expression; }
#define LIFT3(R, name, A, a, B, b, C, c, expression) INLINE R name(A a, B b, C c) { return expression; }

INLINE vec v_all(real_t x) { return x - (vec){0}; } /* x + 0 would be an addition: it changes -0 */

#endif

/* x where the gate is not 0, so also where it is NaN of either sign; else 0. The gate is what a ReLU put out: no number below
 * 0, but maybe -0. Whole numbers are compared, which other pipes do than those that multiply. */
#ifdef NNX_PLAIN
LIFT2(vec, v_where_not_zero, vec, gate, vec, x, gate == 0 ? 0 : x)
#elif NNX_VECTOR_BYTES == 64 && defined(__AVX512F__) && defined(NNX_DOUBLE)
/* "Not at most 0" in one comparison: 5 % of a step of 2-64-3 less than with whole numbers and a shift. */
INLINE vec v_where_not_zero(vec gate, vec x) {
    return (vec)_mm512_maskz_mov_pd(_mm512_cmp_pd_mask((__m512d)gate, _mm512_setzero_pd(), _CMP_NLE_UQ), (__m512d)x);
}
#elif NNX_VECTOR_BYTES == 64 && defined(__AVX512F__)
INLINE vec v_where_not_zero(vec gate, vec x) {
    return (vec)_mm512_maskz_mov_ps(_mm512_cmp_ps_mask((__m512)gate, _mm512_setzero_ps(), _CMP_NLE_UQ), (__m512)x);
}
#else
INLINE vec v_where_not_zero(vec gate, vec x) { return (vec)(((mask)((vec_bits)gate << 1) != 0) & (mask)x); }
#endif

/* Ask for a line of the cache that is needed soon; the address may be any. */
#ifdef __GNUC__
#define fetch_ahead(address) __builtin_prefetch(address)
#else
#define fetch_ahead(address) ((void)0)
#endif

INLINE vec v_load(const real_t *from) { vec r; memcpy(&r, from, sizeof r); return r; }
INLINE void v_store(real_t *to, vec x) { memcpy(to, &x, sizeof x); }

/* The first `count` lanes only, the others being 0: for the ends of arrays. */
INLINE vec v_load_part(const real_t *from, int count) {
    real_t lanes[NNX_VECTOR_BYTES / sizeof(real_t)];
    int l;
    if (count == LANES) return v_load(from);
    for (l = 0; l < LANES; l++) lanes[l] = 0;
    for (l = 0; l < count; l++) lanes[l] = from[l];
    return v_load(lanes);
}
INLINE void v_store_part(real_t *to, vec x, int count) {
    real_t lanes[NNX_VECTOR_BYTES / sizeof(real_t)];
    int l;
    if (count == LANES) {
        v_store(to, x);
        return;
    }
    v_store(lanes, x);
    for (l = 0; l < count; l++) to[l] = lanes[l];
}

/* Whole numbers as real ones; -1 in the lanes behind the first `count`. */
INLINE vec v_of_ints(const int32_t *from, int count) {
    int32_t numbers[NNX_VECTOR_BYTES / sizeof(real_t)];
    vec r = v_all(0);
    int l;
    if (count < LANES) {
        for (l = 0; l < LANES; l++) numbers[l] = l < count ? from[l] : -1;
        from = numbers;
    }
#ifdef NNX_PLAIN
    for (l = 0; l < LANES; l++) LANE(r, l) = (real_t)from[l];
#else
    {
        typedef int32_t ints __attribute__((vector_size(4 * NNX_VECTOR_BYTES / sizeof(real_t))));
        ints i;
        memcpy(&i, from, sizeof i);
        r = __builtin_convertvector(i, vec);
    }
#endif
    return r;
}

/* Numbers that lie `stride` apart; the first `count` lanes. */
INLINE vec v_gather(const real_t *from, ptrdiff_t stride, int count) {
    vec r = v_all(0);
    int l;
    if (stride == 1) return v_load_part(from, count);
    if (count == LANES) {
        for (l = 0; l < LANES; l++) LANE(r, l) = from[l * stride];
    } else {
        for (l = 0; l < LANES; l++) LANE(r, l) = l < count ? from[l * stride] : 0;
    }
    return r;
}
INLINE void v_scatter(real_t *to, ptrdiff_t stride, vec x, int count) {
    int l;
    if (stride == 1) {
        v_store_part(to, x, count);
    } else if (count == LANES) {
        for (l = 0; l < LANES; l++) to[l * stride] = LANE(x, l);
    } else {
        for (l = 0; l < count; l++) to[l * stride] = LANE(x, l);
    }
}

LIFT2(vec, v_add, vec, a, vec, b, a + b)
LIFT2(vec, v_sub, vec, a, vec, b, a - b)
LIFT2(vec, v_mul, vec, a, vec, b, a * b)
LIFT2(vec, v_div, vec, a, vec, b, a / b)
LIFT1(vec, v_sqrt, vec, x, each_sqrt(x))
LIFT1(vec, v_abs, vec, x, from_bits(to_bits(x) & ~((each_bits){0} + ((bits_t)1 << (DIGITS + (sizeof(real_t) == 8 ? 11 : 8))))))
LIFT2(mask, v_equal, vec, a, vec, b, a == b)
LIFT2(mask, v_greater, vec, a, vec, b, a > b)
LIFT2(mask, v_at_most, vec, a, vec, b, a <= b)
LIFT3(vec, v_select, mask, truth, vec, yes, vec, no, choose(truth, yes, no))
/* The second where one of the two is NaN. (As a loop over the lanes these would be one instruction, but a loop here keeps
 * GCC from unrolling those around it, and a product's sums would go through memory: 10 % of its time.) */
#if !defined(NNX_PLAIN) && defined(__SSE2__)
/* Compilers do not always see the one instruction, as where a is 0. */
#if NNX_VECTOR_BYTES == 64 && defined(__AVX512F__)
#define X86(name, type) (vec)_mm512_##name##_##type
#elif NNX_VECTOR_BYTES == 32 && defined(__AVX2__)
#define X86(name, type) (vec)_mm256_##name##_##type
#elif NNX_VECTOR_BYTES == 16
#define X86(name, type) (vec)_mm_##name##_##type
#endif
#endif
/* One rounding wherever the processor can: left to a compiler that contracts, a sum would depend on the code around it. */
#if defined(X86) && defined(__FMA__) && defined(NNX_DOUBLE)
INLINE vec v_madd(vec a, vec b, vec c) { return X86(fmadd, pd)(a, b, c); }
#elif defined(X86) && defined(__FMA__)
INLINE vec v_madd(vec a, vec b, vec c) { return X86(fmadd, ps)(a, b, c); }
#elif !defined(NNX_PLAIN) && defined(__aarch64__) && NNX_VECTOR_BYTES == 16 && defined(NNX_DOUBLE)
INLINE vec v_madd(vec a, vec b, vec c) { return (vec)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b); }
#elif !defined(NNX_PLAIN) && defined(__aarch64__) && NNX_VECTOR_BYTES == 16
INLINE vec v_madd(vec a, vec b, vec c) { return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
LIFT3(vec, v_madd, vec, a, vec, b, vec, c, a * b + c)
#endif
#if defined(X86) && defined(NNX_DOUBLE)
INLINE vec v_max(vec a, vec b) { return X86(max, pd)(a, b); }
INLINE vec v_min(vec a, vec b) { return X86(min, pd)(a, b); }
#elif defined(X86)
INLINE vec v_max(vec a, vec b) { return X86(max, ps)(a, b); }
INLINE vec v_min(vec a, vec b) { return X86(min, ps)(a, b); }
#else
LIFT2(vec, v_max, vec, a, vec, b, choose(a > b, a, b))
LIFT2(vec, v_min, vec, a, vec, b, choose(a < b, a, b))
#endif

/* Rounding to a whole number: adding this leaves no bits for a fraction, and the number in the lowest bits. */
#define ROUNDER ((real_t)3 * ((bits_t)1 << (DIGITS - 1)))

/* 2 to the power of the whole number that was rounded by ROUNDER; from -BIAS + 1 to BIAS. */
INLINE each power_of_two(each rounded) {
    return from_bits((to_bits(rounded) - to_bits(EVERY(ROUNDER)) + BIAS) << DIGITS);
}

/* e^x = 2^n e^r with n whole and |r| <= ln(2)/2; e^r = 1 + r + r^2 p(r), p by interpolation at Chebyshev's nodes. */
INLINE each each_exp(each x) {
#ifdef NNX_DOUBLE
    const real_t lowest = -746, highest = 710;
    const real_t ln2_high = 0.6931471805596629565116018, ln2_low = 2.8235290563031577123e-13;
#else
    const real_t lowest = -104, highest = 89;
    const real_t ln2_high = 0.693145751953125f, ln2_low = 1.4286068203094172321e-6f;
#endif
    each n, half, r, p;
    x = choose(x < lowest, EVERY(lowest), x);
    x = choose(x > highest, EVERY(highest), x);
    n = x * (real_t)1.442695040888963407360 + ROUNDER;
    half = (n - ROUNDER) * (real_t)0.5 + ROUNDER;
    r = x - (n - ROUNDER) * ln2_high;
    r = r - (n - ROUNDER) * ln2_low;
#ifdef NNX_DOUBLE
    p = EVERY(2.09146869680868772e-9);
    p = p * r + 2.51052170047207452e-8;
    p = p * r + 2.75572736431102953e-7;
    p = p * r + 2.75572554002064244e-6;
    p = p * r + 2.48015873255477412e-5;
    p = p * r + 1.98412698748206253e-4;
    p = p * r + 1.38888888888837483e-3;
    p = p * r + 8.33333333332613513e-3;
    p = p * r + 4.16666666666666698e-2;
    p = p * r + 0.16666666666666671;
#else
    p = EVERY(0.00139261835877134945f);
    p = p * r + 0.00836317905272257737f;
    p = p * r + 0.0416665546172045742f;
    p = p * r + 0.166665769896987757f;
#endif
    p = p * r + (real_t)0.5;
    p = p * (r * r) + r + 1;
    /* In two factors, so that the ends of the range, zero and infinity, come out by themselves. */
    return p * power_of_two(half) * power_of_two(n - (half - ROUNDER));
}

/* x = 2^k m with m from sqrt(1/2) to sqrt(2); with f = m - 1 and s = f / (2 + f),
 * log(1 + f) = f - (f^2/2 - s (f^2/2 + R(s^2))), as in fdlibm. */
INLINE each each_log(each x) {
#ifdef NNX_DOUBLE
    const real_t tiny = 2.2250738585072014e-308, ln2_high = 0.6931471805596629565116018, ln2_low = 2.8235290563031577123e-13;
    const bits_t root = UINT64_C(0x3fe6a09e667f3bcd);
#else
    const real_t tiny = 1.17549435e-38f, ln2_high = 0.693145751953125f, ln2_low = 1.4286068203094172321e-6f;
    const bits_t root = UINT32_C(0x3f3504f3);
#endif
    const bits_t one = (bits_t)BIAS << DIGITS, fraction = ((bits_t)1 << DIGITS) - 1;
    const bits_t whole = (bits_t)(BIAS + DIGITS) << DIGITS; /* the bits of 2^DIGITS */
    const each small = choose(x < tiny, EVERY((real_t)((bits_t)1 << DIGITS)), EVERY(1));
    const each shift = choose(x < tiny, EVERY((real_t)(BIAS + DIGITS)), EVERY((real_t)BIAS));
    const each_bits b = to_bits(x * small) + (one - root);
    const each k = (from_bits((b >> DIGITS) | whole) - (real_t)((bits_t)1 << DIGITS)) - shift;
    const each f = from_bits((b & fraction) + root) - 1;
    const each s = f / (f + 2), z = s * s, half = f * f * (real_t)0.5;
    each p, r;
#ifdef NNX_DOUBLE
    p = EVERY(0.14616585424888622);
    p = p * z + 0.153317106182107716;
    p = p * z + 0.18182889455674946;
    p = p * z + 0.22222211130259877;
    p = p * z + 0.285714286260032687;
    p = p * z + 0.399999999998994432;
    p = p * z + 0.666666666666666969;
#else
    p = EVERY(0.233305819382418938f);
    p = p * z + 0.285508165997115487f;
    p = p * z + 0.400001218769720015f;
    p = p * z + 0.666666665544516463f;
#endif
    r = k * ln2_high - ((half - (s * (half + p * z) + k * ln2_low)) - f);
    r = choose(x == EVERY((real_t)INFINITY), x, r);
    r = choose(x == EVERY(0), EVERY(-(real_t)INFINITY), r);
    r = choose(x < EVERY(0), EVERY((real_t)NAN), r);
    return choose(x == x, r, x);
}

LIFT1(vec, v_exp, vec, x, each_exp(x))
LIFT1(vec, v_log, vec, x, each_log(x))

/* sums += x, sums += x^2, lane by lane, in double. */
INLINE void v_add_to(double *sums, vec x) {
    real_t lanes[NNX_VECTOR_BYTES / sizeof(real_t)];
    int l;
    v_store(lanes, x);
    for (l = 0; l < LANES; l++) sums[l] += lanes[l];
}
INLINE void v_add_square_to(double *sums, vec x) {
    real_t lanes[NNX_VECTOR_BYTES / sizeof(real_t)];
    int l;
    v_store(lanes, x);
    for (l = 0; l < LANES; l++) sums[l] += (double)lanes[l] * lanes[l];
}

/* Transpose a square of LANES vectors: for d = 1, 2, 4 ... rows i and i + d exchange the lanes whose numbers have bit d
 * with those that lack it. */
#ifdef NNX_PLAIN
INLINE void v_transpose(vec *rows) {
    int i, j;
    for (i = 0; i < LANES; i++)
        for (j = 0; j < i; j++) {
            const real_t x = rows[i].lane[j];
            rows[i].lane[j] = rows[j].lane[i];
            rows[j].lane[i] = x;
        }
}
#else
#define LOW(d, l) ((l) & (d) ? LANES + (l) - (d) : (l))
#define HIGH(d, l) ((l) & (d) ? LANES + (l) : (l) + (d))
#define LIST2(F, d) F(d, 0), F(d, 1)
#define LIST4(F, d) LIST2(F, d), F(d, 2), F(d, 3)
#define LIST8(F, d) LIST4(F, d), F(d, 4), F(d, 5), F(d, 6), F(d, 7)
#define LIST16(F, d) LIST8(F, d), F(d, 8), F(d, 9), F(d, 10), F(d, 11), F(d, 12), F(d, 13), F(d, 14), F(d, 15)
#if NNX_VECTOR_BYTES == 64 && !defined(NNX_DOUBLE)
#define LIST LIST16
#elif NNX_VECTOR_BYTES == 64 || (NNX_VECTOR_BYTES == 32 && !defined(NNX_DOUBLE))
#define LIST LIST8
#elif NNX_VECTOR_BYTES == 32 || !defined(NNX_DOUBLE)
#define LIST LIST4
#else
#define LIST LIST2
#endif
#ifdef __clang__
#define PICK(a, b, F, d) __builtin_shufflevector(a, b, LIST(F, d))
#else
#define PICK(a, b, F, d) __builtin_shuffle(a, b, (mask){LIST(F, d)})
#endif
#define EXCHANGE(d)                                                                          \
    if (LANES > (d)) {                                                                       \
        for (i = 0; i < LANES; i++)                                                          \
            if (!(i & (d))) {                                                                \
                const vec a = rows[i], b = rows[i | ((d) < LANES ? (d) : 0)];                \
                rows[i] = PICK(a, b, LOW, (d) < LANES ? (d) : 1);                            \
                rows[i | ((d) < LANES ? (d) : 0)] = PICK(a, b, HIGH, (d) < LANES ? (d) : 1); \
            }                                                                                \
    }
INLINE void v_transpose(vec *rows) {
    int i;
    EXCHANGE(8)
    EXCHANGE(4)
    EXCHANGE(2)
    EXCHANGE(1)
}
#endif

/* Random words: one round of Philox4x32 on as many counters as 64-bit lanes fit, of whose upper halves nobody takes notice.
 * Compilers do not see that a product of lower halves is one instruction, so those that have one are told. */
#ifdef NNX_PLAIN
typedef struct { uint64_t lane[NNX_VECTOR_BYTES / 8]; } words;
#else
typedef uint64_t words __attribute__((vector_size(NNX_VECTOR_BYTES)));
#endif
#define WORD_LANES (NNX_VECTOR_BYTES / 8)

#ifdef NNX_PLAIN
INLINE void philox_round(words *x, uint32_t key0, uint32_t key1) {
    int l;
    for (l = 0; l < WORD_LANES; l++) {
        const uint64_t a = (uint64_t)(uint32_t)x[0].lane[l] * 0xD2511F53u;
        const uint64_t b = (uint64_t)(uint32_t)x[2].lane[l] * 0xCD9E8D57u;
        x[0].lane[l] = (b >> 32) ^ x[1].lane[l] ^ key0;
        x[1].lane[l] = b;
        x[2].lane[l] = (a >> 32) ^ x[3].lane[l] ^ key1;
        x[3].lane[l] = a;
    }
}
#else
INLINE words multiply_low(words x, uint32_t factor) {
#if defined(__AVX512F__) && NNX_VECTOR_BYTES == 64
    return (words)_mm512_mul_epu32((__m512i)x, _mm512_set1_epi64(factor));
#elif defined(__AVX2__) && NNX_VECTOR_BYTES == 32
    return (words)_mm256_mul_epu32((__m256i)x, _mm256_set1_epi64x(factor));
#elif defined(__SSE2__) && NNX_VECTOR_BYTES == 16
    return (words)_mm_mul_epu32((__m128i)x, _mm_set1_epi64x(factor));
#else
    return (x & 0xFFFFFFFFu) * factor;
#endif
}
INLINE void philox_round(words *x, uint32_t key0, uint32_t key1) {
    const words a = multiply_low(x[0], 0xD2511F53u), b = multiply_low(x[2], 0xCD9E8D57u);
    x[0] = (b >> 32) ^ x[1] ^ (uint64_t)key0;
    x[1] = b;
    x[2] = (a >> 32) ^ x[3] ^ (uint64_t)key1;
    x[3] = a;
}
#endif
#ifdef NNX_PLAIN
INLINE words all_words(uint64_t x) { words r; int l; for (l = 0; l < WORD_LANES; l++) r.lane[l] = x; return r; }
INLINE words xor_words(words x, uint64_t y) { int l; for (l = 0; l < WORD_LANES; l++) x.lane[l] ^= y; return x; }
INLINE words high_words(words x) { int l; for (l = 0; l < WORD_LANES; l++) x.lane[l] >>= 32; return x; }
INLINE words multiply_words(words x, uint32_t y) {
    int l;
    for (l = 0; l < WORD_LANES; l++) x.lane[l] = (uint64_t)(uint32_t)x.lane[l] * y;
    return x;
}
INLINE uint32_t word_of(words x, int l) { return (uint32_t)x.lane[l]; }
#else
INLINE words all_words(uint64_t x) { return x - (words){0}; }
INLINE words xor_words(words x, uint64_t y) { return x ^ y; }
INLINE words high_words(words x) { return x >> 32; }
INLINE words multiply_words(words x, uint32_t y) { return multiply_low(x, y); }
#endif

#if !defined(NNX_PLAIN) && !defined(NNX_DOUBLE)
/* Even lanes of the first, odd lanes of the second. */
INLINE each_bits choose_odd(each_bits even, each_bits odd) {
#if defined(__AVX2__) && NNX_VECTOR_BYTES == 32
    return (each_bits)_mm256_blend_epi32((__m256i)even, (__m256i)odd, 0xAA);
#else
    return (each_bits)(((words)even & 0xFFFFFFFFu) | (words)odd);
#endif
}
#endif

/* `yes` where a row's word is at most `limit`, else 0. The words of LANES rows lie in as many vectors as that takes: of
 * two, the first has the even rows. */
INLINE vec v_kept(const words *w, uint32_t limit, real_t yes) {
#ifdef NNX_PLAIN
    vec r;
    int l;
    for (l = 0; l < LANES; l++)
        r.lane[l] = word_of(w[LANES == WORD_LANES ? 0 : l % 2], LANES == WORD_LANES ? l : l / 2) <= limit ? yes : 0;
    return r;
#elif defined(NNX_DOUBLE)
    return choose((mask)((w[0] & 0xFFFFFFFFu) <= (uint64_t)limit), EVERY(yes), EVERY(0));
#else
    /* As numbers with a sign, which compare in one instruction. */
    const each_bits drawn = choose_odd((each_bits)w[0], (each_bits)(w[1] << 32)) ^ 0x80000000u;
    return choose((mask)drawn > (mask)((limit ^ 0x80000000u) - (each_bits){0}), EVERY(0), EVERY(yes));
#endif
}
INLINE words load_words(const uint64_t *from) { words r; memcpy(&r, from, sizeof r); return r; }
INLINE void store_words(uint64_t *to, words x) { memcpy(to, &x, sizeof x); }

#endif
