# Argument checks: what the binding layer does with arrays before a kernel gets them. Also scratch memory for kernels.


cdef inline Kernels *kernels_in_use(int number) except NULL:
    """Return the table for a float type, given by its number."""
    cdef Kernels *kernels = tables[0 if number == cnp.NPY_FLOAT else 1]
    if kernels is NULL:
        raise RuntimeError("no variant of the compiled kernels is in use.")
    return kernels


cdef inline Kernels *kernels_for(str where, str name, object given) except NULL:
    """Return the table for an array's float type."""
    if cnp.PyArray_Check(given):
        if cnp.PyArray_TYPE(given) == cnp.NPY_FLOAT:
            return kernels_in_use(cnp.NPY_FLOAT)
        if cnp.PyArray_TYPE(given) == cnp.NPY_DOUBLE:
            return kernels_in_use(cnp.NPY_DOUBLE)
        raise TypeError(f"{where}: {name} must be a float32 or float64 array, got dtype {given.dtype}.")
    raise TypeError(f"{where}: {name} must be an array, got {type(given).__name__}.")


cdef inline int type_of(Kernels *kernels) noexcept:
    return cnp.NPY_FLOAT if kernels == tables[0] else cnp.NPY_DOUBLE


cdef inline bint has_type(object given, int number) noexcept:
    """Return whether a value is an array of a type, under any of its names: long long may be the same as long."""
    return cnp.PyArray_Check(given) and (
        cnp.PyArray_TYPE(given) == number or cnp.PyArray_EquivTypenums(cnp.PyArray_TYPE(given), number)
    )


cdef object refused(str where, str name, object given, int number, tuple shape):
    """Raise the error about an array's type or shape."""
    if not cnp.PyArray_Check(given):
        raise TypeError(f"{where}: {name} must be an array, got {type(given).__name__}.")
    if not has_type(given, number):
        wanted = cnp.PyArray_DescrFromType(number)
        raise TypeError(f"{where}: {name} must be of dtype {wanted}, got {given.dtype}.")
    sizes = ", ".join(["n" if size == ANY else str(size) for size in shape])
    raise ValueError(f"{where}: {name} must have shape ({sizes}{',' if len(shape) == 1 else ''}), got {given.shape}.")


cdef inline cnp.ndarray plain(cnp.ndarray given):
    """Return the array itself if kernels can read it, else a copy that they can read."""
    if cnp.PyArray_ISCARRAY_RO(given):
        return given
    return cnp.PyArray_FROMANY(
        given, cnp.PyArray_TYPE(given), 0, 0, cnp.NPY_ARRAY_CARRAY | cnp.NPY_ARRAY_NOTSWAPPED | cnp.NPY_ARRAY_ENSURECOPY
    )


cdef inline cnp.ndarray matrix(str where, str name, object given, int number, Py_ssize_t rows, Py_ssize_t columns):
    """Return a matrix to read, with the given sizes."""
    if (
        not has_type(given, number)
        or cnp.PyArray_NDIM(given) != 2
        or (rows != ANY and cnp.PyArray_DIM(given, 0) != rows)
        or (columns != ANY and cnp.PyArray_DIM(given, 1) != columns)
    ):
        refused(where, name, given, number, (rows, columns))
    return plain(given)


cdef inline cnp.ndarray vector(str where, str name, object given, int number, Py_ssize_t n):
    """Return an array of one dimension to read, with n numbers."""
    if (
        not has_type(given, number)
        or cnp.PyArray_NDIM(given) != 1
        or (n != ANY and cnp.PyArray_DIM(given, 0) != n)
    ):
        refused(where, name, given, number, (n,))
    return plain(given)


cdef inline cnp.ndarray like(str where, str name, object given, int number, cnp.ndarray other):
    """Return an array to read, of another array's shape."""
    if not has_type(given, number) or not cnp.PyArray_SAMESHAPE(given, other):
        refused(where, name, given, number, (<object> other).shape)
    return plain(given)


cdef inline int check_writable(str where, str name, cnp.ndarray given) except -1:
    """Refuse a read-only array."""
    if not cnp.PyArray_ISWRITEABLE(given):
        raise ValueError(f"{where}: {name} must be a writable array, got a read-only one.")
    return 0


cdef inline bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Return whether the memory of two contiguous arrays overlaps."""
    cdef const char *start_a = cnp.PyArray_BYTES(a)
    cdef const char *start_b = cnp.PyArray_BYTES(b)
    return start_a < start_b + cnp.PyArray_NBYTES(b) and start_b < start_a + cnp.PyArray_NBYTES(a)


cdef inline cnp.ndarray apart(cnp.ndarray values, cnp.ndarray result):
    """Return an input, or a copy of it if the result overlaps it."""
    return cnp.PyArray_NewCopy(values, cnp.NPY_CORDER) if overlap(values, result) else values


cdef inline cnp.ndarray same_or_apart(cnp.ndarray values, cnp.ndarray result):
    """`apart`, for kernels that work element by element: input and result may be the same array."""
    return values if cnp.PyArray_DATA(values) == cnp.PyArray_DATA(result) else apart(values, result)


cdef int distinct(str where, str name_a, cnp.ndarray a, str name_b, cnp.ndarray b) except -1:
    """Refuse two outputs that overlap."""
    cdef bint shared
    if cnp.PyArray_ISCARRAY_RO(a) and cnp.PyArray_ISCARRAY_RO(b):
        shared = overlap(a, b)
    else:
        shared = np.may_share_memory(a, b)
    if shared:
        raise ValueError(f"{where}: {name_a} and {name_b} must not share memory.")
    return 0


cdef inline int give_back(object given, cnp.ndarray result) except -1:
    """Copy a result into the caller's array, if the kernel could not write there."""
    if result is not given:
        given[...] = result
    return 0


cdef inline void *data(cnp.ndarray array) noexcept nogil:
    return cnp.PyArray_DATA(array)


cdef inline void *data_or_null(cnp.ndarray array) noexcept nogil:
    return data(array) if array is not None else NULL


# Scratch memory. The GIL guards one kept piece. A larger request, or one while the piece is in use, allocates memory

cdef enum:
    KEPT = 1 << 20

cdef char *kept
cdef int kept_is_taken = 0


cdef extern from *:
    """
    #ifdef __linux__
    #include <sys/mman.h>
    #endif
    /* Ask for pages of 2 MB, as NumPy does for large arrays: 1 to 3 % of a step with 2 million weights. */
    static void ask_for_large_pages(void *memory, size_t size) {
    #if defined(__linux__) && defined(MADV_HUGEPAGE)
        const size_t page = 4096, least = 1 << 22, start = ((size_t)memory + page - 1) / page * page;
        if (size >= least) madvise((void *)start, ((size_t)memory + size - start) / page * page, MADV_HUGEPAGE);
    #else
        (void)memory, (void)size;
    #endif
    }
    """
    void ask_for_large_pages(void *memory, size_t size) noexcept nogil


cdef void *aligned(Py_ssize_t size) noexcept nogil:
    """Return aligned memory; the address to free is stored before it. NULL if no memory is left."""
    cdef char *raw = <char *> PyMem_RawMalloc(size + ALIGNMENT + sizeof(void *))
    cdef size_t start
    if raw is NULL:
        return NULL
    ask_for_large_pages(raw, size)
    start = (<size_t> raw + sizeof(void *) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    (<void **> start - 1)[0] = raw
    return <void *> start


cdef void release(void *memory) noexcept nogil:
    """Free memory that `aligned` returned."""
    PyMem_RawFree((<void **> memory - 1)[0])


cdef void *allocate(Py_ssize_t size) except NULL:
    cdef void *memory = aligned(size)
    if memory is NULL:
        raise MemoryError
    return memory


kept = <char *> allocate(KEPT)


cdef inline void *take(Py_ssize_t size) except NULL:
    if size > KEPT or not claim(&kept_is_taken):
        return allocate(size)
    return kept


cdef inline void give(void *scratch) noexcept:
    if scratch == kept:
        unclaim(&kept_is_taken)
    else:
        release(scratch)


cdef int32_t *take_labels(str where, object given, Py_ssize_t n, Py_ssize_t n_classes) except NULL:
    """Return a private copy of class numbers, all checked. No other thread can change it while a kernel reads it."""
    cdef cnp.ndarray labels = vector(where, "labels", given, cnp.NPY_INTP, n)
    cdef const Py_ssize_t *numbers = <const Py_ssize_t *> data(labels)
    cdef int32_t *copy = <int32_t *> allocate(n * sizeof(int32_t))
    cdef Py_ssize_t i, label
    for i in range(n):
        label = numbers[i]
        if not 0 <= label < min(n_classes, <Py_ssize_t> 2147483647):
            give(copy)
            raise ValueError(
                f"{where}: labels must hold class numbers from 0 to {n_classes - 1}, got {label} at position {i}."
            )
        copy[i] = <int32_t> label
    return copy


cdef inline cnp.ndarray classes_of(str where, str name, object given, int number):
    """Return a matrix with at least one column to read."""
    cdef cnp.ndarray values = matrix(where, name, given, number, ANY, ANY)
    if cnp.PyArray_DIM(values, 1) == 0:
        raise ValueError(f"{where}: {name} must have at least one column, got shape {given.shape}.")
    return values
