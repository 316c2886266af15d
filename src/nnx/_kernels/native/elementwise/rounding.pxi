# Rounding to bfloat16, for the factors of a dense layer's products.


cdef void round_bfloat16(
    const real_t *values,  # (n,) in
    real_t *result,  # (n,) out; may be values
    Py_ssize_t n,
) noexcept nogil:
    """``result := values``, each as the nearest bfloat16; for float32 only."""
    map_one(v_round_bfloat16, values, result, n)
