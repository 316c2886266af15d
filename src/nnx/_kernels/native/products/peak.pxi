# The speed of a core's multiply-adds: the upper limit of all products.

cdef enum:
    CHAINS = 12  # separate sums: one takes four or five cycles, two can begin in each cycle, and registers hold no more


cdef Py_ssize_t multiply_adds(Py_ssize_t turns, void *result) noexcept nogil:
    """Do multiply-adds that do not wait for each other, ``turns`` times. Return the number of operations."""
    cdef vec sums[CHAINS]
    cdef vec factor = v_all(<real_t> 0.5), term = v_all(1)
    cdef Py_ssize_t turn
    cdef int c
    for c in range(CHAINS):
        sums[c] = v_all(c)
    for turn in range(turns):
        for c in range(CHAINS):
            sums[c] = v_madd(sums[c], factor, term)
    for c in range(1, CHAINS):
        sums[0] = v_add(sums[0], sums[c])
    v_store(<real_t *> result, sums[0])  # or the compiler would drop everything
    return turns * CHAINS * LANES * 2
