# (to come)


cdef bint fits_slim(const Net *net) noexcept nogil:
    return False


cdef Py_ssize_t slim_space(const Net *net, Py_ssize_t batch) noexcept nogil:
    return 0
