/* The arithmetic C of nnx: a vector of real numbers, and the functions on it that the Cython kernels use.
 *
 * NNX_DOUBLE chooses the number: double, or else float. The width of the vector follows from the processor that the
 * compiler compiles for. GCC and Clang get vector extensions. Other compilers, and NNX_PLAIN, get loops over the lanes,
 * which every optimizer knows. Both use the same formulas, written for `each`: the whole vector with vector extensions,
 * and one lane without.
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
#elif defined(_MSC_VER)
#define INLINE static __forceinline
#else
#define INLINE static inline
#endif

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
/* Bytes of a sum's terms that a product takes at a time: a panel of two vectors for each stays in 32 KB of L1. With
 * AVX-512 it does so at 1,024. On Intel's processors 2,048 took 3 to 8 % longer; AMD's read L2 as fast as they
 * multiply, and took 2 to 4 % less. Results have the same bits. */
#if NNX_VECTOR_BYTES == 64 && defined(__GNUC__) && defined(__x86_64__)
#define BLOCK_BYTES (__builtin_cpu_is("amd") ? 2048 : 1024)
#else
#define BLOCK_BYTES 2048
#endif

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
/* Vector extensions have no square root. Compilers turn this loop into one instruction. */
INLINE each each_sqrt(each x) { each r; int l; for (l = 0; l < LANES; l++) r[l] = SQUARE_ROOT(x[l]); return r; }
#define EVERY(number) ((number) - (each){0})
#define LANE(x, l) (x)[l]

#define LIFT1(R, name, A, a, expression) INLINE R name(A a) { return expression; }
#define LIFT2(R, name, A, a, B, b, expression) INLINE R name(A a, B b) { return expression; }
#define LIFT3(R, name, A, a, B, b, C, c, expression) INLINE R name(A a, B b, C c) { return expression; }

INLINE vec v_all(real_t x) { return x - (vec){0}; } /* x + 0 would be an addition: it changes -0 */

#endif

#define SIGN_BIT ((bits_t)1 << (8 * sizeof(real_t) - 1))

/* x where the gate is not 0, so also where it is NaN of either sign; else 0. The gate is the output of a ReLU: no
 * number below 0, but maybe -0. It tests bits, because that uses other execution ports than the products. */
#ifdef NNX_PLAIN
LIFT2(vec, v_where_not_zero, vec, gate, vec, x, gate == 0 ? 0 : x)
#elif NNX_VECTOR_BYTES == 64 && defined(__AVX512F__) && defined(NNX_DOUBLE)
INLINE vec v_where_not_zero(vec gate, vec x) {
    return (vec)_mm512_maskz_mov_pd(_mm512_test_epi64_mask((__m512i)gate, (__m512i)(~SIGN_BIT - (vec_bits){0})), (__m512d)x);
}
#elif NNX_VECTOR_BYTES == 64 && defined(__AVX512F__)
INLINE vec v_where_not_zero(vec gate, vec x) {
    return (vec)_mm512_maskz_mov_ps(_mm512_test_epi32_mask((__m512i)gate, _mm512_set1_epi32(0x7fffffff)), (__m512)x);
}
#else
INLINE vec v_where_not_zero(vec gate, vec x) { return (vec)(((mask)((vec_bits)gate << 1) != 0) & (mask)x); }
#endif

/* Prefetch a cache line that is needed soon. The address may be any. */
#ifdef __GNUC__
#define fetch_ahead(address) __builtin_prefetch(address)
#define fetch_far_ahead(address) __builtin_prefetch(address, 0, 2) /* as far as L2 */
#else
#define fetch_ahead(address) ((void)0)
#define fetch_far_ahead(address) ((void)0)
#endif

INLINE vec v_load(const real_t *from) { vec r; memcpy(&r, from, sizeof r); return r; }
INLINE void v_store(real_t *to, vec x) { memcpy(to, &x, sizeof x); }

/* Only the first `count` lanes; the others are 0: for the ends of arrays. MASKED_ENDS: whether that costs no more than
 * all. */
#if NNX_VECTOR_BYTES == 64 && defined(__AVX512F__) && !defined(NNX_PLAIN)
#define MASKED_ENDS 1
#else
#define MASKED_ENDS 0
#endif
#if NNX_VECTOR_BYTES == 64 && defined(__AVX512F__) && !defined(NNX_PLAIN)
#ifdef NNX_DOUBLE
#define FIRST_LANES(count) ((__mmask8)((1u << (count)) - 1))
INLINE vec v_load_part(const real_t *from, int count) { return (vec)_mm512_maskz_loadu_pd(FIRST_LANES(count), from); }
INLINE void v_store_part(real_t *to, vec x, int count) { _mm512_mask_storeu_pd(to, FIRST_LANES(count), (__m512d)x); }
#else
#define FIRST_LANES(count) ((__mmask16)((1u << (count)) - 1))
INLINE vec v_load_part(const real_t *from, int count) { return (vec)_mm512_maskz_loadu_ps(FIRST_LANES(count), from); }
INLINE void v_store_part(real_t *to, vec x, int count) { _mm512_mask_storeu_ps(to, FIRST_LANES(count), (__m512)x); }
#endif
#else
#if NNX_VECTOR_BYTES == 32 && defined(__AVX2__) && !defined(NNX_PLAIN)
/* Masked loads are fast. Masked stores take a dozen cycles on AMD's processors; pieces of 4, 2 and 1 numbers take
 * fewer. */
static const int_t LANES_THERE[2 * NNX_VECTOR_BYTES / sizeof(int_t)] = {
#ifdef NNX_DOUBLE
    -1, -1, -1, -1
#else
    -1, -1, -1, -1, -1, -1, -1, -1
#endif
};
INLINE vec v_load_part(const real_t *from, int count) {
    __m256i there;
    if (count == LANES) return v_load(from);
    there = _mm256_loadu_si256((const __m256i *)(LANES_THERE + LANES - count));
#ifdef NNX_DOUBLE
    return (vec)_mm256_maskload_pd(from, there);
#else
    return (vec)_mm256_maskload_ps(from, there);
#endif
}
INLINE void v_store_part(real_t *to, vec x, int count) {
    if (count == LANES) {
        v_store(to, x);
        return;
    }
#ifdef NNX_DOUBLE
    {
        __m128d low = _mm256_castpd256_pd128((__m256d)x);
        if (count & 2) {
            _mm_storeu_pd(to, low);
            to += 2, low = _mm256_extractf128_pd((__m256d)x, 1);
        }
        if (count & 1) _mm_store_sd(to, low);
    }
#else
    {
        __m128 low = _mm256_castps256_ps128((__m256)x);
        if (count & 4) {
            _mm_storeu_ps(to, low);
            to += 4, low = _mm256_extractf128_ps((__m256)x, 1);
        }
        if (count & 2) {
            _mm_storel_pi((__m64 *)to, low);
            to += 2, low = _mm_movehl_ps(low, low);
        }
        if (count & 1) _mm_store_ss(to, low);
    }
#endif
}
#else
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
#endif
#endif

/* Whole numbers as real ones; -1 in the lanes after the first `count`. */
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

/* Compilers do not always find the single instruction, for example where a number is 0. */
#if !defined(NNX_PLAIN) && defined(__SSE2__)
#if NNX_VECTOR_BYTES == 64 && defined(__AVX512F__)
#define X86(name, type) (vec)_mm512_##name##_##type
#elif NNX_VECTOR_BYTES == 32 && defined(__AVX2__)
#define X86(name, type) (vec)_mm256_##name##_##type
#elif NNX_VECTOR_BYTES == 16
#define X86(name, type) (vec)_mm_##name##_##type
#endif
#endif
#ifdef NNX_DOUBLE
#define TYPE pd
#define NEON(name) (vec)name##_f64
#define NEON_VEC float64x2_t
#else
#define TYPE ps
#define NEON(name) (vec)name##_f32
#define NEON_VEC float32x4_t
#endif
#define X86_OF_TYPE_(name, type) X86(name, type)
#define X86_OF_TYPE(name) X86_OF_TYPE_(name, TYPE)

/* a b + c: one rounding if the processor has it. Compilers contract nothing (see setup.py): they would do it in some
 * places and not in others, so the bits of a formula would depend on the code around it. */
#if defined(X86) && defined(__FMA__)
INLINE each each_madd(each a, each b, each c) { return X86_OF_TYPE(fmadd)(a, b, c); }
#elif !defined(NNX_PLAIN) && defined(__aarch64__) && NNX_VECTOR_BYTES == 16
INLINE each each_madd(each a, each b, each c) { return NEON(vfmaq)((NEON_VEC)c, (NEON_VEC)a, (NEON_VEC)b); }
#else
INLINE each each_madd(each a, each b, each c) { return a * b + c; }
#endif

/* The second where one of the two is NaN. As loops over the lanes, these would be one instruction. But a loop here
 * keeps GCC from unrolling the loops around it, and a product's sums would go through memory: 10 % of its time. */
#ifdef X86
INLINE each each_max(each a, each b) { return X86_OF_TYPE(max)(a, b); }
INLINE each each_min(each a, each b) { return X86_OF_TYPE(min)(a, b); }
#else
INLINE each each_max(each a, each b) { return choose(a > b, a, b); }
INLINE each each_min(each a, each b) { return choose(a < b, a, b); }
#endif

/* a < b ? yes : no, also where a or b is NaN. */
#if defined(X86) && NNX_VECTOR_BYTES == 64 && defined(NNX_DOUBLE)
INLINE each choose_less(each a, each b, each yes, each no) {
    return (each)_mm512_mask_mov_pd(no, _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ), yes);
}
#elif defined(X86) && NNX_VECTOR_BYTES == 64
INLINE each choose_less(each a, each b, each yes, each no) {
    return (each)_mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), yes);
}
#elif defined(X86) && NNX_VECTOR_BYTES == 32
INLINE each choose_less(each a, each b, each yes, each no) { return X86_OF_TYPE(blendv)(no, yes, (each)(a < b)); }
#else
INLINE each choose_less(each a, each b, each yes, each no) { return choose(a < b, yes, no); }
#endif

INLINE each each_abs(each x) { return from_bits(to_bits(x) & ~SIGN_BIT); }
/* A number that is not negative, with the sign of another. */
INLINE each with_sign_of(each sign, each x) { return from_bits(to_bits(x) | (to_bits(sign) & SIGN_BIT)); }

LIFT2(vec, v_add, vec, a, vec, b, a + b)
LIFT2(vec, v_sub, vec, a, vec, b, a - b)
LIFT2(vec, v_mul, vec, a, vec, b, a * b)
LIFT2(vec, v_div, vec, a, vec, b, a / b)
LIFT1(vec, v_sqrt, vec, x, each_sqrt(x))
LIFT1(vec, v_abs, vec, x, each_abs(x))
LIFT2(mask, v_equal, vec, a, vec, b, a == b)
LIFT2(mask, v_greater, vec, a, vec, b, a > b)
LIFT2(mask, v_at_most, vec, a, vec, b, a <= b)
LIFT3(vec, v_select, mask, truth, vec, yes, vec, no, choose(truth, yes, no))
LIFT3(vec, v_madd, vec, a, vec, b, vec, c, each_madd(a, b, c))
LIFT2(vec, v_max, vec, a, vec, b, each_max(a, b))
LIFT2(vec, v_min, vec, a, vec, b, each_min(a, b))

/* To bfloat16, a float whose fraction has seven bits: to nearest, ties to even, beyond the largest to infinity. Adding
 * just less than half of the last place to the bits carries into the exponent where it must. NaN would carry, too, so
 * it keeps its sign and upper bits, and becomes quiet. Processors with an instruction for this do the same. */
#define DROPPED (DIGITS - 7)
INLINE each each_round_bfloat16(each x) {
    const each_bits bits = to_bits(x), kept = bits >> DROPPED;
    const each_bits rounded = (bits + (((bits_t)1 << (DROPPED - 1)) - 1) + (kept & 1)) >> DROPPED << DROPPED;
    const each_bits quiet = (kept | ((bits_t)1 << 6)) << DROPPED;
    return choose(x == x, from_bits(rounded), from_bits(quiet));
}
LIFT1(vec, v_round_bfloat16, vec, x, each_round_bfloat16(x))

/* The functions. All lanes take the same path and select at its end. A number has the same result in every lane, and
 * NaN gives NaN. An error in ulp, units in the last place of the true value, is the largest that was found in any
 * variant, among all floats, and millions of doubles. Polynomials are weighted minimax fits, with the error before
 * rounding as "float, double". */

/* Rounds to a whole number: adding this leaves no bits for a fraction, and puts the number into the lowest bits. */
#define ROUNDER ((real_t)3 * ((bits_t)1 << (DIGITS - 1)))

/* 2 to the power of the whole number that ROUNDER rounded, plus `more`; from -BIAS + 1 to BIAS, and 0 for -BIAS. */
INLINE each power_of_two(each rounded, int more) {
    return from_bits((to_bits(rounded) - to_bits(EVERY(ROUNDER)) + (bits_t)(BIAS + more)) << DIGITS);
}

#ifdef NNX_DOUBLE
#define LN2_HIGH 0.6931471805596629565116018 /* its last bits are 0, so its products with exponents are exact */
#define LN2_LOW 2.8235290563031577123e-13
#else
#define LN2_HIGH 0.693145751953125f
#define LN2_LOW 1.4286068203094172321e-6f
#endif
#define LOG2_E ((real_t)1.442695040888963407360)

/* e^x = 2^n e^r with n whole and |r| <= ln(2)/2; e^r = 1 + r + r^2 p(r), p by interpolation at Chebyshev's nodes. */
INLINE each exp_reduce(each x, each *n) {
    each r;
    *n = each_madd(x, EVERY(LOG2_E), EVERY(ROUNDER));
    r = each_madd(*n - ROUNDER, EVERY(-LN2_HIGH), x);
    return each_madd(*n - ROUNDER, EVERY(-LN2_LOW), r);
}
/* e^r - 1 */
INLINE each exp_fraction(each r) {
    each p;
#ifdef NNX_DOUBLE
    p = EVERY(2.0914686968086876e-09);
    p = each_madd(p, r, EVERY(2.5105217004720745e-08));
    p = each_madd(p, r, EVERY(2.7557273643110297e-07));
    p = each_madd(p, r, EVERY(2.7557255400206422e-06));
    p = each_madd(p, r, EVERY(2.4801587325547743e-05));
    p = each_madd(p, r, EVERY(0.00019841269874820627));
    p = each_madd(p, r, EVERY(0.0013888888888883748));
    p = each_madd(p, r, EVERY(0.0083333333333261358));
    p = each_madd(p, r, EVERY(0.041666666666666671));
    p = each_madd(p, r, EVERY(0.16666666666666671));
    p = each_madd(p, r, EVERY(0.5));
#else
    p = EVERY(0.00139261836f);
    p = each_madd(p, r, EVERY(0.00836317905f));
    p = each_madd(p, r, EVERY(0.0416665546f));
    p = each_madd(p, r, EVERY(0.16666577f));
    p = each_madd(p, r, EVERY(0.5f));
#endif
    return each_madd(p, r * r, r);
}

/* e^x: 1.1 ulp. */
INLINE each each_exp(each x) {
#ifdef NNX_DOUBLE
    const real_t lowest = -746, highest = 710;
#else
    const real_t lowest = -104, highest = 89;
#endif
    each n, half, p;
    p = exp_fraction(exp_reduce(each_min(EVERY(highest), each_max(EVERY(lowest), x)), &n)) + 1;
    half = each_madd(n - ROUNDER, EVERY((real_t)0.5), EVERY(ROUNDER));
    /* In two factors, so that the ends of the range give zero and infinity by themselves. */
    return p * power_of_two(half, 0) * power_of_two(n - (half - ROUNDER), 0);
}

/* e^x for |x| up to EXP_REACH, where it is a normal number: the same bits without the ends of the range, which are a
 * third of the time of a SiLU with its slope. */
#ifdef NNX_DOUBLE
#define EXP_REACH 708
#else
#define EXP_REACH 87
#endif
INLINE each each_exp_near(each x) {
    each n, p;
    p = exp_fraction(exp_reduce(x, &n)) + 1;
    return p * power_of_two(n, 0);
}

/* e^x - 1 = 2 (2^(n-1) (e^r - 1) + 2^(n-1) - 1/2), and just e^r - 1 where n = 0: 1.96 ulp. -0 becomes 0. */
INLINE each each_expm1(each x) {
#ifdef NNX_DOUBLE
    const real_t lowest = -40, highest = 710; /* below this, it is -1 */
#else
    const real_t lowest = -20, highest = 89;
#endif
    each n, q, scale, r;
    q = exp_fraction(exp_reduce(each_min(EVERY(highest), each_max(EVERY(lowest), x)), &n));
    scale = power_of_two(n, -1);
    r = each_madd(q, scale, scale - (real_t)0.5);
    return choose(n == EVERY(ROUNDER), q, r + r);
}

/* 2^z = 2^n 2^f, |f| <= 1/2: return 2^f; 2^f = 1 + f p(f), fitted to 3e-9, 2e-17 of the result. */
INLINE each exp2_fraction(each f) {
    each p;
#ifdef NNX_DOUBLE
    p = EVERY(4.0780392128801799e-10);
    p = each_madd(p, f, EVERY(7.0725708497899437e-09));
    p = each_madd(p, f, EVERY(1.0180647895696299e-07));
    p = each_madd(p, f, EVERY(1.3215442672794211e-06));
    p = each_madd(p, f, EVERY(1.5252727384575505e-05));
    p = each_madd(p, f, EVERY(0.00015403530441576827));
    p = each_madd(p, f, EVERY(0.0013333558153440662));
    p = each_madd(p, f, EVERY(0.0096181291076069993));
    p = each_madd(p, f, EVERY(0.055504108664790393));
    p = each_madd(p, f, EVERY(0.24022650695910097));
    p = each_madd(p, f, EVERY(0.69314718055994573));
    p = each_madd(p, f, EVERY(1));
#else
    p = EVERY(0.000155946953f);
    p = each_madd(p, f, EVERY(0.00134066446f));
    p = each_madd(p, f, EVERY(0.00961769279f));
    p = each_madd(p, f, EVERY(0.0555031039f));
    p = each_madd(p, f, EVERY(0.240226522f));
    p = each_madd(p, f, EVERY(0.693147242f));
    p = each_madd(p, f, EVERY(1));
#endif
    return p;
}

/* log(1 + f) with f from sqrt(1/2) - 1 to sqrt(2) - 1, plus k log(2): with s = f / (2 + f),
 * log(1 + f) = f - (f^2/2 - s (f^2/2 + R(s^2))), as in fdlibm. */
INLINE each log_of_parts(each f, each k) {
    const each s = f / (f + 2), z = s * s, half = f * f * (real_t)0.5;
    each p;
#ifdef NNX_DOUBLE
    p = EVERY(0.14616585424888623);
    p = each_madd(p, z, EVERY(0.15331710618210773));
    p = each_madd(p, z, EVERY(0.18182889455674947));
    p = each_madd(p, z, EVERY(0.22222211130259878));
    p = each_madd(p, z, EVERY(0.2857142862600327));
    p = each_madd(p, z, EVERY(0.39999999999899444));
    p = each_madd(p, z, EVERY(0.66666666666666696));
#else
    p = EVERY(0.233305819f);
    p = each_madd(p, z, EVERY(0.285508166f));
    p = each_madd(p, z, EVERY(0.400001219f));
    p = each_madd(p, z, EVERY(0.666666666f));
#endif
    p = each_madd(s, each_madd(p, z, half), k * LN2_LOW);
    return each_madd(k, EVERY(LN2_HIGH), f - (half - p));
}
/* 2^k m = x with m from sqrt(1/2) to sqrt(2): the bits of x for which `log_exponent` and `log_mantissa` find them. */
#ifdef NNX_DOUBLE
#define ROOT_OF_HALF UINT64_C(0x3fe6a09e667f3bcd)
#else
#define ROOT_OF_HALF UINT32_C(0x3f3504f3)
#endif
INLINE each_bits log_bits(each x) { return to_bits(x) + (((bits_t)BIAS << DIGITS) - ROOT_OF_HALF); }
INLINE each log_mantissa(each_bits b) { return from_bits((b & (((bits_t)1 << DIGITS) - 1)) + ROOT_OF_HALF); }
INLINE each log_exponent(each_bits b, each bias) {
    const bits_t whole = (bits_t)(BIAS + DIGITS) << DIGITS; /* the bits of 2^DIGITS */
    return (from_bits((b >> DIGITS) | whole) - (real_t)((bits_t)1 << DIGITS)) - bias;
}
/* The logarithm where x is not positive, infinite or NaN; else r. */
INLINE each log_ends(each x, each r) {
    const each none = choose(x == EVERY(0), EVERY(-(real_t)INFINITY), EVERY((real_t)NAN));
    return choose_less(EVERY(0), x, choose_less(x, EVERY((real_t)INFINITY), r, x), none);
}

/* log x: 1.1 ulp. */
INLINE each each_log(each x) {
#ifdef NNX_DOUBLE
    const real_t tiny = 2.2250738585072014e-308;
#else
    const real_t tiny = 1.17549435e-38f;
#endif
    const each small = choose_less(x, EVERY(tiny), EVERY((real_t)((bits_t)1 << DIGITS)), EVERY(1));
    const each bias = choose_less(x, EVERY(tiny), EVERY((real_t)(BIAS + DIGITS)), EVERY((real_t)BIAS));
    const each_bits b = log_bits(x * small);
    return log_ends(x, log_of_parts(log_mantissa(b) - 1, log_exponent(b, bias)));
}

/* log(1 + x): 1.4 ulp. u = 1 + x is rounded. Its error c goes to the fraction: 1 + x = 2^k (m + 2^-k c).
 * -0 becomes 0. */
INLINE each each_log1p(each x) {
    const each u = x + 1, c = x - (u - 1);
    const each_bits b = log_bits(u);
    /* 2^-k as half of 2^(1-k), so that it is 0 for the largest, whose exponent has no inverse. */
    const each scale = from_bits(((bits_t)(2 * BIAS + 1) - (b >> DIGITS)) << DIGITS);
    const each f = each_madd(c, scale * (real_t)0.5, log_mantissa(b) - 1);
    return log_ends(u, log_of_parts(f, log_exponent(b, EVERY((real_t)BIAS))));
}

/* log(1 + e^x) = max(x, 0) + log(1 + t), t = e^-|x|: 2.05 ulp. As t is from 0 to 1, there is no exponent to take
 * apart: the formula of `log_of_parts`, with R fitted for s^2 up to 1/9, to 1e-10, 1e-18 of the logarithm. */
INLINE each each_softplus(each x) {
    const each t = each_exp(from_bits(to_bits(x) | SIGN_BIT)), s = t / (t + 2), z = s * s, half = t * t * (real_t)0.5;
    each p;
#ifdef NNX_DOUBLE
    p = EVERY(0.17018531755792621);
    p = each_madd(p, z, EVERY(0.08340126293371479));
    p = each_madd(p, z, EVERY(0.12106080280240319));
    p = each_madd(p, z, EVERY(0.13300974379600805));
    p = each_madd(p, z, EVERY(0.15386559859785584));
    p = each_madd(p, z, EVERY(0.18181743928019509));
    p = each_madd(p, z, EVERY(0.22222223969640462));
    p = each_madd(p, z, EVERY(0.28571428547855371));
    p = each_madd(p, z, EVERY(0.40000000000157232));
    p = each_madd(p, z, EVERY(0.66666666666666308));
#else
    p = EVERY(0.243009254f);
    p = each_madd(p, z, EVERY(0.214276597f));
    p = each_madd(p, z, EVERY(0.286168844f));
    p = each_madd(p, z, EVERY(0.39998877f));
    p = each_madd(p, z, EVERY(0.666666746f));
#endif
    return each_max(EVERY(0), x) + (t + each_madd(s, each_madd(p, z, half), -half));
}

/* tanh x: 1.85 ulp. For |x| < 0.5625, x + x^3 p(x^2), fitted to 5e-8, 3e-17 of the result. Above, 1 - 1 / (e^(2x)/2 +
 * 1/2): the last term is at most 1/2, so its error counts little; one multiply-add reduces the exponent.
 * Rejected: -t / (t + 2) with t = e^(-2x) - 1, and one rational function. 2 ulp near 1 are two roundings, and these
 * have three. */
INLINE each each_tanh(each x) {
#ifdef NNX_DOUBLE
    const real_t one_from = 20; /* it is 1 already from 19.1 on; float from 9.02 on */
#else
    const real_t one_from = 10;
#endif
    const each a = each_abs(x), y = a * a, c = each_min(EVERY(one_from), a);
    const each n = each_madd(c, EVERY(2 * LOG2_E), EVERY(ROUNDER));
    const each f = each_madd(c, EVERY(2 * LOG2_E), ROUNDER - n);
    const each large = 1 - 1 / each_madd(exp2_fraction(f), power_of_two(n, -1), EVERY((real_t)0.5));
    each p;
#ifdef NNX_DOUBLE
    p = EVERY(4.9603558082096384e-05);
    p = each_madd(p, y, EVERY(-0.00020822931467839531));
    p = each_madd(p, y, EVERY(0.00057785395448527394));
    p = each_madd(p, y, EVERY(-0.0014527792479195854));
    p = each_madd(p, y, EVERY(0.00359163010164685));
    p = each_madd(p, y, EVERY(-0.0088631832424794117));
    p = each_madd(p, y, EVERY(0.021869485123443083));
    p = each_madd(p, y, EVERY(-0.053968253839842432));
    p = each_madd(p, y, EVERY(0.133333333330935));
    p = each_madd(p, y, EVERY(-0.33333333333331777));
#else
    p = EVERY(0.0162328873f);
    p = each_madd(p, y, EVERY(-0.0525651015f));
    p = each_madd(p, y, EVERY(0.133190796f));
    p = each_madd(p, y, EVERY(-0.333328754f));
#endif
    return with_sign_of(x, choose_less(a, EVERY((real_t)0.5625), each_madd(a * y, p, a), large));
}

/* erf x: 1.85 ulp. For |x| < 0.9, x (1 + p(x^2)), fitted to 1e-8, 6e-19 of the result. Above, 1 - 2^z without a
 * division: z is a polynomial in |x| from 0.9 to 5.95 (float: 3.95), near log2(1 - erf x), fitted to 6e-11, 3e-18 of
 * the result.
 * Rejected: x + x p(x^2). It is more exact, but without fused multiply-adds x p would be flushed for the smallest x. */
INLINE each each_erf(each x) {
#ifdef NNX_DOUBLE
    const real_t one_from = 5.95;
#else
    const real_t one_from = 3.95f;
#endif
    const each a = each_abs(x), y = a * a, c = each_min(EVERY(one_from), a);
    each p, z, n, large;
#ifdef NNX_DOUBLE
    z = EVERY(1.9736926264802035e-12);
    z = each_madd(z, c, EVERY(-8.8223034497270534e-11));
    z = each_madd(z, c, EVERY(1.8466534877023401e-09));
    z = each_madd(z, c, EVERY(-2.4032379188044026e-08));
    z = each_madd(z, c, EVERY(2.174709742331813e-07));
    z = each_madd(z, c, EVERY(-1.4465715375283879e-06));
    z = each_madd(z, c, EVERY(7.2592744433231556e-06));
    z = each_madd(z, c, EVERY(-2.7496480724689472e-05));
    z = each_madd(z, c, EVERY(7.545628655485812e-05));
    z = each_madd(z, c, EVERY(-0.00012533957276199853));
    z = each_madd(z, c, EVERY(-2.1447429585529763e-05));
    z = each_madd(z, c, EVERY(0.00086257637238236061));
    z = each_madd(z, c, EVERY(-0.0024808104153614102));
    z = each_madd(z, c, EVERY(0.00034112727700858273));
    z = each_madd(z, c, EVERY(0.027567138286571462));
    z = each_madd(z, c, EVERY(-0.14825455695119583));
    z = each_madd(z, c, EVERY(-0.91845326661295845));
    z = each_madd(z, c, EVERY(-1.6279059874594493));
    z = each_madd(z, c, EVERY(-9.798398479230789e-08));
#else
    z = EVERY(-3.00492356e-05f);
    z = each_madd(z, c, EVERY(0.000622368185f));
    z = each_madd(z, c, EVERY(-0.00599620258f));
    z = each_madd(z, c, EVERY(0.0361836664f));
    z = each_madd(z, c, EVERY(-0.156128988f));
    z = each_madd(z, c, EVERY(-0.913804293f));
    z = each_madd(z, c, EVERY(-1.6295073f));
    z = each_madd(z, c, EVERY(0.000244109629f));
#endif
    n = z + ROUNDER;
    large = 1 - exp2_fraction(z - (n - ROUNDER)) * power_of_two(n, 0);
#ifdef NNX_DOUBLE
    p = EVERY(-8.4818509302048298e-10);
    p = each_madd(p, y, EVERY(1.4046047587656985e-08));
    p = each_madd(p, y, EVERY(-1.6275476140709588e-07));
    p = each_madd(p, y, EVERY(1.6455213931420097e-06));
    p = each_madd(p, y, EVERY(-1.4925299739202197e-05));
    p = each_madd(p, y, EVERY(0.00012055321042168386));
    p = each_madd(p, y, EVERY(-0.00085483267549184543));
    p = each_madd(p, y, EVERY(0.0052239776216031894));
    p = each_madd(p, y, EVERY(-0.02686617064480663));
    p = each_madd(p, y, EVERY(0.11283791670953704));
    p = each_madd(p, y, EVERY(-0.37612638903183726));
    p = each_madd(p, y, EVERY(0.12837916709551259));
#else
    p = EVERY(-0.000609035953f);
    p = each_madd(p, y, EVERY(0.00501196273f));
    p = each_madd(p, y, EVERY(-0.0267789084f));
    p = each_madd(p, y, EVERY(0.112821408f));
    p = each_madd(p, y, EVERY(-0.376125246f));
    p = each_madd(p, y, EVERY(0.128379151f));
#endif
    return with_sign_of(x, choose_less(a, EVERY((real_t)0.9), a * (p + 1), large));
}

/* The standard normal distribution, for GELU: the probability of numbers less than x, and the density at x. e =
 * exp(-x^2/2) serves both: the density is e / sqrt(2 pi), the probability e R(|x|) for x < 0, else 1 - e R(|x|). R is a
 * polynomial in |x| up to 5.6 (double: 8.3) and constant beyond; e R is fitted to 5e-9, 8e-18. Absolute errors are at
 * most 9e-8, 1.5e-16 of the probability and 6e-8, 1e-16 of the density. The probability is never negative, exactly 1/2
 * at 0, 0 at -inf and 1 at +inf; far below 0 its relative error grows: 0.004 at -5, 0.5 at -6 (double: 4e-11, 6e-9).
 * Rejected: erf(x / sqrt(2)), because it needs another exponential. */
INLINE each each_normal(each x, each *density) {
#ifdef NNX_DOUBLE
    const real_t zero_from = 37.66, constant_from = 8.3;
#else
    const real_t zero_from = 13.28f, constant_from = 5.6f;
#endif
    const real_t scale = (real_t)-0.72134752044448170368; /* -1 / (2 ln 2) */
    const each a = each_min(EVERY(zero_from), each_abs(x)), c = each_min(EVERY(constant_from), a), y = a * a;
    const each n = each_madd(y, EVERY(scale), EVERY(ROUNDER));
    const each e = exp2_fraction(each_madd(y, EVERY(scale), ROUNDER - n)) * power_of_two(n, 0);
    each p;
#ifdef NNX_DOUBLE
    p = EVERY(-1.8350899951453291e-20);
    p = each_madd(p, c, EVERY(1.5310817110109697e-18));
    p = each_madd(p, c, EVERY(-6.055516300560218e-17));
    p = each_madd(p, c, EVERY(1.5131423554002179e-15));
    p = each_madd(p, c, EVERY(-2.687513590097117e-14));
    p = each_madd(p, c, EVERY(3.6214399131326222e-13));
    p = each_madd(p, c, EVERY(-3.8626096464081823e-12));
    p = each_madd(p, c, EVERY(3.3636242231063038e-11));
    p = each_madd(p, c, EVERY(-2.4522454502054162e-10));
    p = each_madd(p, c, EVERY(1.5305346956879792e-09));
    p = each_madd(p, c, EVERY(-8.3543313015520469e-09));
    p = each_madd(p, c, EVERY(4.0732843538465916e-08));
    p = each_madd(p, c, EVERY(-1.8108676333605225e-07));
    p = each_madd(p, c, EVERY(7.4792140860281388e-07));
    p = each_madd(p, c, EVERY(-2.9129439372468958e-06));
    p = each_madd(p, c, EVERY(1.0803577195967528e-05));
    p = each_madd(p, c, EVERY(-3.8331789292117006e-05));
    p = each_madd(p, c, EVERY(0.00013017110369841154));
    p = each_madd(p, c, EVERY(-0.00042213732414451304));
    p = each_madd(p, c, EVERY(0.0013020713872044477));
    p = each_madd(p, c, EVERY(-0.0037994457061194288));
    p = each_madd(p, c, EVERY(0.010416665363812142));
    p = each_madd(p, c, EVERY(-0.026596151764088527));
    p = each_madd(p, c, EVERY(0.062499999964706184));
    p = each_madd(p, c, EVERY(-0.13298076013093926));
    p = each_madd(p, c, EVERY(0.24999999999988023));
    p = each_madd(p, c, EVERY(-0.39894228040143093));
    p = each_madd(p, c, EVERY(0.5));
#else
    p = EVERY(5.85316045e-08f);
    p = each_madd(p, c, EVERY(-1.60722266e-06f));
    p = each_madd(p, c, EVERY(1.99632414e-05f));
    p = each_madd(p, c, EVERY(-0.000150380292f));
    p = each_madd(p, c, EVERY(0.000782435876f));
    p = each_madd(p, c, EVERY(-0.00306331669f));
    p = each_madd(p, c, EVERY(0.0096744746f));
    p = each_madd(p, c, EVERY(-0.0260865223f));
    p = each_madd(p, c, EVERY(0.0622752681f));
    p = each_madd(p, c, EVERY(-0.132922605f));
    p = each_madd(p, c, EVERY(0.249992475f));
    p = each_madd(p, c, EVERY(-0.398941934f));
    p = each_madd(p, c, EVERY(0.5f));
#endif
    p = e * p;
    *density = e * (real_t)0.39894228040143267794;
    return choose_less(x, EVERY(0), p, 1 - p);
}

/* The fraction of turns, from -1/2 to 1/2. More than 2^(DIGITS-1) turns have no digits for it. */
INLINE each part_of_turn(each turns) {
    const each whole = turns + ROUNDER;
    return each_min(EVERY((real_t)0.5), each_max(EVERY((real_t)-0.5), turns - (whole - ROUNDER)));
}

/* sin(2 pi t) for |t| <= 1/4: Taylor's series, cut off below 1e-9, 1e-17. */
INLINE each sine_of_quarter(each t) {
    const each y = t * t;
    each p;
#ifdef NNX_DOUBLE
    p = EVERY(0.0011309237482517954);
    p = each_madd(p, y, EVERY(-0.012031585942120619));
    p = each_madd(p, y, EVERY(0.10422916220813978));
    p = each_madd(p, y, EVERY(-0.7181223017785001));
    p = each_madd(p, y, EVERY(3.8199525848482803));
#else
    p = EVERY(3.8199525848482803f);
#endif
    p = each_madd(p, y, EVERY((real_t)-15.094642576822984));
    p = each_madd(p, y, EVERY((real_t)42.058693944897634));
    p = each_madd(p, y, EVERY((real_t)-76.70585975306136));
    p = each_madd(p, y, EVERY((real_t)81.60524927607504));
    p = each_madd(p, y, EVERY((real_t)-41.341702240399755));
    p = each_madd(p, y, EVERY((real_t)6.283185307179586));
    return p * t;
}

/* cos(2 pi x) and sin(2 pi x): within 1.8 ulp of 1. */
INLINE each each_cosine_of_turns(each x) { return sine_of_quarter((real_t)0.25 - each_abs(part_of_turn(x))); }
INLINE each each_sine_of_turns(each x) {
    const each r = part_of_turn(x), half = EVERY((real_t)0.5);
    return sine_of_quarter(each_max(-half - r, each_min(half - r, r)));
}

LIFT1(vec, v_cosine_of_turns, vec, x, each_cosine_of_turns(x))
LIFT1(vec, v_sine_of_turns, vec, x, each_sine_of_turns(x))
LIFT1(vec, v_exp, vec, x, each_exp(x))
LIFT1(vec, v_exp_near, vec, x, each_exp_near(x))
LIFT1(vec, v_log, vec, x, each_log(x))
LIFT1(vec, v_expm1, vec, x, each_expm1(x))
LIFT1(vec, v_log1p, vec, x, each_log1p(x))
LIFT1(vec, v_softplus, vec, x, each_softplus(x))
LIFT1(vec, v_tanh, vec, x, each_tanh(x))
LIFT1(vec, v_erf, vec, x, each_erf(x))
#ifdef NNX_PLAIN
INLINE void v_normal(vec x, vec *cdf, vec *pdf) {
    int l;
    for (l = 0; l < LANES; l++) cdf->lane[l] = each_normal(x.lane[l], &pdf->lane[l]);
}
#else
INLINE void v_normal(vec x, vec *cdf, vec *pdf) { *cdf = each_normal(x, pdf); }
#endif

/* sums += x, sums += x^2, lane by lane, in double. GCC keeps sums in registers if they are vectors of doubles. Single
 * numbers it stores and loads again for each x, which takes twice as long. */
#ifdef NNX_PLAIN
INLINE void v_add_to(double *sums, vec x) {
    int l;
    for (l = 0; l < LANES; l++) sums[l] += x.lane[l];
}
INLINE void v_add_square_to(double *sums, vec x) {
    int l;
    for (l = 0; l < LANES; l++) sums[l] += (double)x.lane[l] * x.lane[l];
}
#else
#define PARTS ((int)(sizeof(double) / sizeof(real_t)))
typedef real_t part_of_vec __attribute__((vector_size(NNX_VECTOR_BYTES * sizeof(real_t) / sizeof(double))));
typedef double doubles __attribute__((vector_size(NNX_VECTOR_BYTES)));
INLINE doubles part_in_double(vec x, int p) {
    part_of_vec parts[sizeof(double) / sizeof(real_t)];
    memcpy(parts, &x, sizeof x);
    return __builtin_convertvector(parts[p], doubles);
}
INLINE void add_doubles(double *sums, doubles x) {
    doubles own;
    memcpy(&own, sums, sizeof own);
    own += x;
    memcpy(sums, &own, sizeof own);
}
INLINE void v_add_to(double *sums, vec x) {
    int p;
    for (p = 0; p < PARTS; p++) add_doubles(sums + p * (LANES / PARTS), part_in_double(x, p));
}
INLINE void v_add_square_to(double *sums, vec x) {
    int p;
    for (p = 0; p < PARTS; p++) {
        const doubles own = part_in_double(x, p);
        add_doubles(sums + p * (LANES / PARTS), own * own);
    }
}
#endif

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
INLINE void v_interleave(vec a, vec b, vec *low, vec *high) {
    int l;
    for (l = 0; l < LANES; l++) {
        low->lane[l] = (l & 1 ? b : a).lane[l / 2];
        high->lane[l] = (l & 1 ? b : a).lane[LANES / 2 + l / 2];
    }
}
INLINE void v_part(vec low, vec high, vec *even, vec *odd) {
    int l;
    for (l = 0; l < LANES; l++) {
        const vec x = l < LANES / 2 ? low : high;
        even->lane[l] = x.lane[2 * l % LANES];
        odd->lane[l] = x.lane[2 * l % LANES + 1];
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

/* Interleave the numbers of a and b; and the inverse. */
#define IN_TURN(first, l) (first) * LANES / 2 + ((l) & 1 ? LANES : 0) + (l) / 2
#define APART(first, l) (first) + 2 * (l)
INLINE void v_interleave(vec a, vec b, vec *low, vec *high) {
    *low = PICK(a, b, IN_TURN, 0);
    *high = PICK(a, b, IN_TURN, 1);
}
INLINE void v_part(vec low, vec high, vec *even, vec *odd) {
    *even = PICK(low, high, APART, 0);
    *odd = PICK(low, high, APART, 1);
}
#endif

/* In each lane, the sum of all lanes of the vector with this lane's number: pairs, then pairs of pairs ...; it destroys
 * `rows`. To transpose and then add takes half as many shuffles again. */
#ifdef NNX_PLAIN
INLINE vec v_lane_sums(vec *rows) {
    vec r;
    int i, d, l;
    for (i = 0; i < LANES; i++) {
        for (d = LANES / 2; d > 0; d /= 2)
            for (l = 0; l < d; l++) rows[i].lane[l] += rows[i].lane[l + d];
        r.lane[i] = rows[i].lane[0];
    }
    return r;
}
#else
#define FOLD(d)                                                                                              \
    for (i = 0; i < (d) && (d) < LANES; i++)                                                                 \
        rows[i] = PICK(rows[i], rows[i + (d)], LOW, (d) < LANES ? (d) : 1) +                                 \
                  PICK(rows[i], rows[i + (d)], HIGH, (d) < LANES ? (d) : 1);
INLINE vec v_lane_sums(vec *rows) {
    int i;
    FOLD(8)
    FOLD(4)
    FOLD(2)
    FOLD(1)
    return rows[0];
}
#endif

/* Random words: one round of Philox4x32 on as many counters as 64-bit lanes fit. Nothing reads the upper halves.
 * Compilers do not see that a product of lower halves is one instruction, so it is written out for processors that have
 * it. */
#ifdef NNX_PLAIN
typedef struct { uint64_t lane[NNX_VECTOR_BYTES / 8]; } words;
#else
typedef uint64_t words __attribute__((vector_size(NNX_VECTOR_BYTES)));
#endif
#define WORD_LANES (NNX_VECTOR_BYTES / 8)

#ifdef NNX_PLAIN
INLINE void philox_round(words *x, words key0, words key1) {
    int l;
    for (l = 0; l < WORD_LANES; l++) {
        const uint64_t a = (uint64_t)(uint32_t)x[0].lane[l] * 0xD2511F53u;
        const uint64_t b = (uint64_t)(uint32_t)x[2].lane[l] * 0xCD9E8D57u;
        x[0].lane[l] = (b >> 32) ^ x[1].lane[l] ^ key0.lane[l];
        x[1].lane[l] = b;
        x[2].lane[l] = (a >> 32) ^ x[3].lane[l] ^ key1.lane[l];
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
INLINE void philox_round(words *x, words key0, words key1) {
    const words a = multiply_low(x[0], 0xD2511F53u), b = multiply_low(x[2], 0xCD9E8D57u);
    x[0] = (b >> 32) ^ x[1] ^ key0;
    x[1] = b;
    x[2] = (a >> 32) ^ x[3] ^ key1;
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
INLINE int any_words(words x) {
    int l;
    for (l = 0; l < WORD_LANES; l++)
        if (x.lane[l]) return 1;
    return 0;
}
#else
INLINE words all_words(uint64_t x) { return x - (words){0}; }
INLINE words xor_words(words x, uint64_t y) { return x ^ y; }
INLINE words high_words(words x) { return x >> 32; }
INLINE words multiply_words(words x, uint32_t y) { return multiply_low(x, y); }
INLINE int any_words(words x) {
#if defined(__AVX512F__) && NNX_VECTOR_BYTES == 64
    return _mm512_test_epi64_mask((__m512i)x, (__m512i)x) != 0;
#elif defined(__AVX2__) && NNX_VECTOR_BYTES == 32
    return !_mm256_testz_si256((__m256i)x, (__m256i)x);
#else
    uint64_t any = 0;
    int l;
    for (l = 0; l < WORD_LANES; l++) any |= x[l];
    return any != 0;
#endif
}
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

/* A set of lanes: a bit for each with AVX-512, where most instructions take such masks; else all bits of a lane. */
#if defined(X86) && NNX_VECTOR_BYTES == 64
#ifdef NNX_DOUBLE
typedef __mmask8 lane_set;
INLINE vec v_max_in(lane_set in, vec a, vec b) { return (vec)_mm512_maskz_max_pd(in, (__m512d)a, (__m512d)b); }
#else
typedef __mmask16 lane_set;
INLINE vec v_max_in(lane_set in, vec a, vec b) { return (vec)_mm512_maskz_max_ps(in, (__m512)a, (__m512)b); }
#endif
INLINE void put_lane(lane_set *set, int lane, int is_in) {
    *set = (lane_set)((*set & ~(1u << lane)) | ((unsigned)is_in << lane));
}
#else
typedef mask lane_set;
/* The larger number in these lanes, else 0. */
INLINE vec v_max_in(lane_set in, vec a, vec b) { return v_select(in, v_max(a, b), v_all(0)); }
INLINE void put_lane(lane_set *set, int lane, int is_in) { LANE(*set, lane) = is_in ? -1 : 0; }
#endif

/* Whether a row's numbers of 16 bits, the lower and the upper half of its word, are below `limit`; each half of its
 * words is the limit (`below_limit`). The words of LANES rows take one vector or two. Of two, the first has the even
 * rows. Where a number equals the limit, a bit is added to `ties`. */
#ifdef NNX_PLAIN
typedef words tie_set;
INLINE tie_set no_ties(void) { return all_words(0); }
INLINE int any_ties(tie_set ties) { return any_words(ties); }
INLINE words below_limit(uint32_t limit) { return all_words(limit); }
INLINE void v_below(const words *w, words limits, lane_set *lower, lane_set *upper, tie_set *ties) {
    const uint32_t limit = (uint32_t)limits.lane[0];
    int l;
    for (l = 0; l < LANES; l++) {
        const uint32_t word = (uint32_t)w[LANES == WORD_LANES ? 0 : l % 2].lane[LANES == WORD_LANES ? l : l / 2];
        lower->lane[l] = -(int_t)((word & 0xFFFFu) < limit);
        upper->lane[l] = -(int_t)((word >> 16) < limit);
        ties->lane[l * WORD_LANES / LANES] |= (word & 0xFFFFu) == limit || (word >> 16) == limit;
    }
}
#elif defined(X86) && NNX_VECTOR_BYTES == 64
typedef __mmask32 tie_set; /* a bit for each number that is not a tie */
INLINE words below_limit(uint32_t limit) { return all_words(limit * (uint64_t)0x0001000100010001u); }
#ifdef NNX_DOUBLE
#define NUMBERS_DRAWN 0x33333333u
#define STORE_LANES "kmovb"
#else
#define NUMBERS_DRAWN 0xFFFFFFFFu
#define STORE_LANES "kmovw"
#endif
INLINE tie_set no_ties(void) { return NUMBERS_DRAWN; }
INLINE int any_ties(tie_set ties) { return ties != NUMBERS_DRAWN; }
/* GCC would first collect several in a vector, with twice as many instructions. */
INLINE void store_lanes(lane_set *to, lane_set set) { __asm__(STORE_LANES " %1, %0" : "=m"(*to) : "k"(set)); }
INLINE void v_below(const words *w, words limits, lane_set *lower, lane_set *upper, tie_set *ties) {
    const __m512i limit = (__m512i)limits;
#ifdef NNX_DOUBLE
    const __m512i drawn = (__m512i)w[0], least = _mm512_slli_epi64(limit, 48);
    store_lanes(lower, _mm512_cmplt_epu64_mask(_mm512_slli_epi64(drawn, 48), least));
    store_lanes(upper, _mm512_cmplt_epu64_mask(_mm512_slli_epi64(drawn, 32), least));
#else
    const __m512i drawn = _mm512_mask_shuffle_epi32((__m512i)w[0], 0xAAAA, (__m512i)w[1], _MM_PERM_CCAA);
    const __m512i least = _mm512_slli_epi32(limit, 16);
    store_lanes(lower, _mm512_cmplt_epu32_mask(_mm512_slli_epi32(drawn, 16), least));
    store_lanes(upper, _mm512_cmplt_epu32_mask(drawn, least));
#endif
    *ties = _mm512_mask_cmpneq_epu16_mask(*ties, drawn, limit);
}
#else
typedef words tie_set;
INLINE tie_set no_ties(void) { return all_words(0); }
INLINE int any_ties(tie_set ties) { return any_words(ties); }
/* Signed numbers compare in one instruction. */
INLINE words below_limit(uint32_t limit) { return all_words((limit ^ 0x8000u) * (uint64_t)0x0001000100010001u); }
INLINE void v_below(const words *w, words limits, lane_set *lower, lane_set *upper, tie_set *ties) {
    typedef uint16_t halves __attribute__((vector_size(NNX_VECTOR_BYTES)));
#ifdef NNX_DOUBLE
    const words drawn = (w[0] << 32) ^ 0x8000800000000000u;
    const words of_lower = drawn << 16, pattern = limits | 0xFFFFFFFFu; /* below the word `drawn` is 0 */
    const mask least = (mask)(limits & 0xFFFF000000000000u);
#else
    const words drawn = (words)choose_odd((each_bits)w[0], (each_bits)(w[1] << 32)) ^ 0x8000800080008000u;
    const each_bits of_lower = (each_bits)drawn << 16;
    const words pattern = limits;
    const mask least = (mask)(limits & 0xFFFF0000FFFF0000u);
#endif
    *lower = (mask)of_lower < least;
    *upper = (mask)drawn < least;
    *ties |= (words)((halves)drawn == (halves)pattern);
}
#endif
INLINE words load_words(const uint64_t *from) { words r; memcpy(&r, from, sizeof r); return r; }
INLINE void store_words(uint64_t *to, words x) { memcpy(to, &x, sizeof x); }

#endif
