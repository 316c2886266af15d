"""What `simd.h` offers to the kernels; real_t is float or double, by the module that is compiled."""

from libc.stdint cimport int32_t, uint32_t, uint64_t

cdef extern from "simd.h" nogil:
    ctypedef float real_t
    ctypedef struct vec:
        pass
    ctypedef struct mask:
        pass
    const int LANES
    const int TILE_ROWS
    const int BLOCK_BYTES
    const bint MASKED_ENDS
    const real_t EXP_REACH

    void fetch_ahead(const void *address)
    void fetch_far_ahead(const void *address)
    vec v_all(real_t x)
    vec v_load(const real_t *source)
    void v_store(real_t *target, vec x)
    vec v_load_part(const real_t *source, int count)
    void v_store_part(real_t *target, vec x, int count)
    vec v_add(vec a, vec b)
    vec v_sub(vec a, vec b)
    vec v_mul(vec a, vec b)
    vec v_div(vec a, vec b)
    vec v_madd(vec a, vec b, vec c)
    vec v_sqrt(vec x)
    vec v_abs(vec x)
    vec v_max(vec a, vec b)
    vec v_min(vec a, vec b)
    vec v_round_bfloat16(vec x)
    vec v_exp(vec x)
    vec v_exp_near(vec x)
    vec v_log(vec x)
    vec v_expm1(vec x)
    vec v_log1p(vec x)
    vec v_softplus(vec x)
    vec v_tanh(vec x)
    vec v_erf(vec x)
    vec v_cosine_of_turns(vec x)
    vec v_sine_of_turns(vec x)
    void v_normal(vec x, vec *cdf, vec *pdf)
    mask v_equal(vec a, vec b)
    mask v_greater(vec a, vec b)
    mask v_at_most(vec a, vec b)
    vec v_where_not_zero(vec sign, vec x)
    vec v_select(mask truth, vec yes, vec no)
    void v_add_to(double *sums, vec x)
    void v_add_square_to(double *sums, vec x)
    vec v_of_ints(const int32_t *source, int count)
    vec v_gather(const real_t *source, Py_ssize_t stride, int count)
    void v_scatter(real_t *target, Py_ssize_t stride, vec x, int count)
    void v_transpose(vec *rows)
    vec v_lane_sums(vec *rows)
    void v_interleave(vec a, vec b, vec *low, vec *high)
    void v_part(vec low, vec high, vec *even, vec *odd)

    ctypedef struct words:
        pass
    const int WORD_LANES
    void philox_round(words *x, words key0, words key1)
    words all_words(uint64_t x)
    words high_words(words x)
    words multiply_words(words x, uint32_t y)
    words xor_words(words x, uint64_t y)

    ctypedef struct lane_set:
        pass
    ctypedef struct tie_set:
        pass
    vec v_max_in(lane_set lanes, vec a, vec b)
    void put_lane(lane_set *lanes, int lane, bint is_in)
    tie_set no_ties()
    bint any_ties(tie_set ties)
    words below_limit(uint32_t limit)
    void v_below(const words *w, words limits, lane_set *lower, lane_set *upper, tie_set *ties)
    words load_words(const uint64_t *source)
    void store_words(uint64_t *target, words x)
