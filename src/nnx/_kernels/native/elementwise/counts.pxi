# Counts of correct predictions.


cdef void argmax(
    const real_t *values,  # (rows, columns) in
    Py_ssize_t *classes,  # (rows,) out
    Py_ssize_t rows,
    Py_ssize_t columns,
) noexcept nogil:
    """``classes_i :=`` the column of the first of row i's largest values; a NaN counts as larger than any number."""
    cdef Py_ssize_t i, j, best
    cdef const real_t *row = values
    for i in range(rows):
        best = 0
        for j in range(1, columns):
            # Not "at most", because that is true for a NaN at j. A NaN that is already the best stays.
            if not row[j] <= row[best] and row[best] == row[best]:
                best = j
        classes[i] = best
        row += columns


cdef Py_ssize_t near_count(const real_t *y_pred, const real_t *y_true, Py_ssize_t n, double precision) noexcept nogil:
    """Return how many of ``|y_pred − y_true|``, in double, are below ``precision``; (n,) in."""
    cdef Py_ssize_t i, hits = 0
    for i in range(n):
        hits += fabs(<double> y_pred[i] - <double> y_true[i]) < precision
    return hits
