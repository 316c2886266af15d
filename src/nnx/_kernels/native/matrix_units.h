/* Products of bfloat16 matrices, 32 x 32 x 32 at a time, on the processor's matrix units (Intel's AMX) or in plain C with the
 * same bits.
 *
 * A *block* is 32 x 32 numbers of a matrix M in bfloat16, 2 KB in one piece: two tiles, each of 16 rows of 64 bytes. The left
 * factor of a product needs its numbers in another order than the right one:
 *
 *   lines   row after row                                                M as left factor
 *   pairs   two rows at a time, number beside number, for 16 columns     M as right factor
 *           and then for the other 16
 *
 * For M transposed, there are lines and pairs of that. What lies outside the matrix is 0. */
#ifndef NNX_MATRIX_UNITS_H
#define NNX_MATRIX_UNITS_H

#include "simd.h"

#define BLOCK 32
#define TILE 16
#define TILE_SIZE (TILE * BLOCK)

#if defined(__AMX_BF16__) && defined(__AMX_TILE__) && defined(__AVX512BF16__) && !defined(NNX_PLAIN)
#define HAS_MATRIX_UNITS 1
#else
#define HAS_MATRIX_UNITS 0
#endif

/* A number in bfloat16 is the upper half of a float. */
INLINE float widened(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float r;
    memcpy(&r, &bits, sizeof r);
    return r;
}
/* To nearest, ties to even; what is not a number stays so, and a subnormal number becomes 0, as the units' own conversion has
 * it: the largest of them would else become a normal one. */
INLINE uint16_t rounded(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (!(bits & 0x7f800000)) return (uint16_t)(bits >> 16 & 0x8000);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Sums of 32 x 32 numbers: cleared or loaded, added to by products of blocks, stored. Between `units_begin` and `units_end`,
 * which each thread calls for itself, the units hold one such set of sums. */
#if HAS_MATRIX_UNITS

typedef struct { int in_the_units; } Sums;

/* GCC 12's tile instructions do not say which memory they read, so the compiler is told to have written it before. */
#define written() __asm__ volatile("" ::: "memory")

/* Eight tiles of 16 rows of 64 bytes: 0 to 3 for sums, 4 and 5 for the left factor, 6 and 7 for the right one. */
INLINE void units_begin(void) {
    uint8_t setting[64] = {1};
    int tile;
    for (tile = 0; tile < 8; tile++) {
        setting[16 + 2 * tile] = 64;
        setting[48 + tile] = TILE;
    }
    __asm__ volatile("" ::"r"(setting) : "memory");
    _tile_loadconfig(setting);
}
INLINE void units_end(void) { _tile_release(); }
INLINE void sums_clear(Sums *sums) {
    (void)sums;
    written();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}
INLINE void sums_load(Sums *sums, const float *from, ptrdiff_t line) {
    (void)sums;
    written();
    _tile_loadd(0, from, 4 * line);
    _tile_loadd(1, from + TILE, 4 * line);
    _tile_loadd(2, from + TILE * line, 4 * line);
    _tile_loadd(3, from + TILE * line + TILE, 4 * line);
}
INLINE void sums_add(Sums *sums, const uint16_t *left, const uint16_t *right) {
    (void)sums;
    _tile_loadd(4, left, 64);
    _tile_loadd(6, right, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, right + TILE_SIZE, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, left + TILE_SIZE, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}
INLINE void sums_store(const Sums *sums, float *to, ptrdiff_t line) {
    (void)sums;
    _tile_stored(0, to, 4 * line);
    _tile_stored(1, to + TILE, 4 * line);
    _tile_stored(2, to + TILE * line, 4 * line);
    _tile_stored(3, to + TILE * line + TILE, 4 * line);
}

#else

typedef struct { float sum[BLOCK][BLOCK]; } Sums;

INLINE void units_begin(void) {}
INLINE void units_end(void) {}
INLINE void sums_clear(Sums *sums) { memset(sums, 0, sizeof *sums); }
INLINE void sums_load(Sums *sums, const float *from, ptrdiff_t line) {
    int i;
    for (i = 0; i < BLOCK; i++) memcpy(sums->sum[i], from + i * line, sizeof sums->sum[i]);
}
/* As the units add: products with even and with odd numbers of a line apart, one after the other, then both to the sum. A
 * product and its sum are rounded once: the product is exact in double, and where double has to round their sum, that lies
 * nowhere near a tie of float32. */
INLINE void sums_add(Sums *sums, const uint16_t *left, const uint16_t *right) {
    int i, j, k;
    for (i = 0; i < BLOCK; i++) {
        const uint16_t *line = left + i * BLOCK;
        float even[BLOCK] = {0}, odd[BLOCK] = {0};
        for (k = 0; k < TILE; k++) {
            const float first = widened(line[2 * k]), second = widened(line[2 * k + 1]);
            for (j = 0; j < BLOCK; j++) {
                const uint16_t *pair = right + j / TILE * TILE_SIZE + k * BLOCK + j % TILE * 2;
                even[j] = (float)((double)even[j] + (double)first * widened(pair[0]));
                odd[j] = (float)((double)odd[j] + (double)second * widened(pair[1]));
            }
        }
        for (j = 0; j < BLOCK; j++) sums->sum[i][j] += even[j] + odd[j];
    }
}
INLINE void sums_store(const Sums *sums, float *to, ptrdiff_t line) {
    int i;
    for (i = 0; i < BLOCK; i++) memcpy(to + i * line, sums->sum[i], sizeof sums->sum[i]);
}

#endif

/* Conversion of a block, of which rows x columns lie inside the matrix: to its lines, its pairs, and the pairs of its
 * transpose, each of which may be NULL. And the lines of its transpose, from its lines. */
#if HAS_MATRIX_UNITS

INLINE __m512i interleaved(__m512 first, __m512 second) { /* rounded, number beside number */
    const __m512i order = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}
/* 16 x 16 double words, transposed: single ones, then twos, then fours. */
INLINE void turn(__m512i *x) {
    __m512i y[16];
    int i;
    for (i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (i = 0; i < 16; i += 4) {
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
    for (i = 0; i < 4; i++) {
        y[i] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88);
        y[i + 4] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xdd);
        y[i + 8] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x88);
        y[i + 12] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xdd);
    }
    for (i = 0; i < 4; i++) {
        x[i] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
        x[i + 8] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd);
        x[i + 4] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0x88);
        x[i + 12] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0xdd);
    }
}
INLINE void store_tile(uint16_t *to, const __m512i *x) {
    int i;
    for (i = 0; i < 16; i++) _mm512_storeu_si512(to + i * BLOCK, x[i]);
}
/* `whole` is a constant at every call: most blocks are, and need neither masks nor a look at each row. */
INLINE void convert_any(
    const float *from, ptrdiff_t line, int rows, int columns, uint16_t *lines, uint16_t *pairs, uint16_t *turned_pairs,
    const int whole) {
    const uint32_t inside = whole || columns >= BLOCK ? 0xffffffff : (1u << columns) - 1;
    const __mmask16 low = (__mmask16)inside, high = (__mmask16)(inside >> TILE);
    int half, i;
    for (half = 0; half < 2 && (lines || turned_pairs); half++) {
        __m512i x[16];
        for (i = 0; i < 16; i++) {
            const int row = half * TILE + i, is_inside = whole || row < rows;
            const float *at = from + (is_inside ? row : 0) * line;
            x[i] = (__m512i)_mm512_cvtne2ps_pbh(
                _mm512_maskz_loadu_ps(is_inside ? high : 0, at + TILE), _mm512_maskz_loadu_ps(is_inside ? low : 0, at));
        }
        if (lines) store_tile(lines + half * TILE_SIZE, x);
        if (turned_pairs) {
            turn(x);
            store_tile(turned_pairs + half * TILE_SIZE, x);
        }
    }
    for (half = 0; half < 2 && pairs; half++) {
        const __mmask16 mask = half ? high : low;
        for (i = 0; i < 16; i++) {
            const int first = whole || 2 * i < rows, second = whole || 2 * i + 1 < rows;
            const float *at = from + (first ? 2 * i : 0) * line + half * TILE;
            _mm512_storeu_si512(
                pairs + half * TILE_SIZE + i * BLOCK,
                interleaved(_mm512_maskz_loadu_ps(first ? mask : 0, at), _mm512_maskz_loadu_ps(second ? mask : 0, at + line)));
        }
    }
}
static void convert_block(
    const float *from, ptrdiff_t line, int rows, int columns, uint16_t *lines, uint16_t *pairs, uint16_t *turned_pairs) {
    if (rows >= BLOCK && columns >= BLOCK)
        convert_any(from, line, rows, columns, lines, pairs, turned_pairs, 1);
    else
        convert_any(from, line, rows, columns, lines, pairs, turned_pairs, 0);
}
/* Columns by twos: those with even numbers are the lower halves of double words, those with odd ones the upper halves. */
static void transpose_lines(const uint16_t *lines, uint16_t *turned) {
    const __m512i lower = _mm512_set1_epi32(0xffff);
    __m512i even[16], odd[16];
    int i;
    for (i = 0; i < 16; i++) {
        const __m512i first = _mm512_loadu_si512(lines + 2 * i * BLOCK);
        const __m512i second = _mm512_loadu_si512(lines + (2 * i + 1) * BLOCK);
        even[i] = _mm512_ternarylogic_epi32(lower, first, _mm512_slli_epi32(second, 16), 0xca); /* lower ? a : b */
        odd[i] = _mm512_ternarylogic_epi32(lower, _mm512_srli_epi32(first, 16), second, 0xca);
    }
    turn(even);
    for (i = 0; i < 16; i++) _mm512_storeu_si512(turned + 2 * i * BLOCK, even[i]);
    turn(odd);
    for (i = 0; i < 16; i++) _mm512_storeu_si512(turned + (2 * i + 1) * BLOCK, odd[i]);
}

#else

static void convert_block(
    const float *from, ptrdiff_t line, int rows, int columns, uint16_t *lines, uint16_t *pairs, uint16_t *turned_pairs) {
    int i, j;
    for (i = 0; i < BLOCK; i++) {
        for (j = 0; j < BLOCK; j++) {
            const uint16_t x = i < rows && j < columns ? rounded(from[i * line + j]) : 0;
            if (lines) lines[i * BLOCK + j] = x;
            if (pairs) pairs[j / TILE * TILE_SIZE + i / 2 * BLOCK + j % TILE * 2 + i % 2] = x;
            if (turned_pairs) turned_pairs[i / TILE * TILE_SIZE + j / 2 * BLOCK + i % TILE * 2 + j % 2] = x;
        }
    }
}
static void transpose_lines(const uint16_t *lines, uint16_t *turned) {
    int i, j;
    for (i = 0; i < BLOCK; i++)
        for (j = 0; j < BLOCK; j++) turned[j * BLOCK + i] = lines[i * BLOCK + j];
}

#endif

/* Some rows of a block of sums, 0 where a block in lines is 0: the output of a ReLU, which is no number below 0. */
INLINE void gate_by_lines(float *block, const uint16_t *lines, int rows) {
    int i;
#if HAS_MATRIX_UNITS
    for (i = 0; i < rows; i++, block += BLOCK, lines += BLOCK) {
        const __mmask32 passes = _mm512_test_epi16_mask(_mm512_loadu_si512(lines), _mm512_set1_epi16(0x7fff));
        _mm512_storeu_ps(block, _mm512_maskz_loadu_ps((__mmask16)passes, block));
        _mm512_storeu_ps(block + TILE, _mm512_maskz_loadu_ps((__mmask16)(passes >> 16), block + TILE));
    }
#else
    for (i = 0; i < rows * BLOCK; i++)
        if (!(lines[i] & 0x7fff)) block[i] = 0;
#endif
}

/* Add up the numbers of each column of a matrix that lies in pairs, row after row. */
INLINE void add_pairs(const uint16_t *pairs, int rows, float *sums) {
    int half, i, j;
    for (half = 0; half < 2; half++) {
        float sum[TILE];
        memcpy(sum, sums + half * TILE, sizeof sum);
        for (i = 0; i < rows; i += 2) {
            const uint16_t *line = pairs + half * TILE_SIZE + i / 2 * BLOCK;
            for (j = 0; j < TILE; j++) sum[j] += widened(line[2 * j]);
            for (j = 0; j < TILE; j++) sum[j] += widened(line[2 * j + 1]);
        }
        memcpy(sums + half * TILE, sum, sizeof sum);
    }
}

#endif
