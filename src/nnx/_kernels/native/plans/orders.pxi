# The orders of the samples in shuffled epochs, drawn without the GIL. They are those of NumPy's legacy generator, whose
# numbers are frozen for all versions. `nnx._base.random.Order` defines them.
#
# Matsumoto and Nishimura, "Mersenne Twister", 1998.

cdef enum:
    TWISTED = 624  # words of the generator's state
    TWIST_AHEAD = 397

cdef struct Twister:
    uint32_t words[TWISTED]
    int at  # the index of the next word

#: The state before a seed is mixed in: always the same.
cdef Twister unseeded


cdef void fill_unseeded() noexcept:
    cdef uint32_t last = 19650218
    cdef int i
    unseeded.words[0] = last
    for i in range(1, TWISTED):
        last = <uint32_t> 1812433253 * (last ^ (last >> 30)) + <uint32_t> i
        unseeded.words[i] = last


fill_unseeded()


cdef void seed_twister(Twister *twister, const uint32_t *seed, int n) noexcept nogil:
    """Start with a seed of n words, n at most TWISTED."""
    cdef uint32_t *words = twister.words
    cdef uint32_t last
    cdef int i = 1, j = 0, k
    memcpy(words, unseeded.words, sizeof(unseeded.words))
    last = words[0]
    for k in range(2 * TWISTED - 1):
        last = last ^ (last >> 30)
        if k < TWISTED:
            last = (words[i] ^ (last * <uint32_t> 1664525)) + seed[j] + <uint32_t> j
            j = j + 1 if j + 1 < n else 0
        else:
            last = (words[i] ^ (last * <uint32_t> 1566083941)) - <uint32_t> i
        words[i] = last
        i += 1
        if i == TWISTED:
            words[0], i = last, 1
    words[0] = <uint32_t> 1 << 31
    twister.at = TWISTED


cdef inline uint32_t twisted(uint32_t high, uint32_t low, uint32_t ahead) noexcept nogil:
    """Return the word that replaces ``high``; ``low`` is the word after it."""
    cdef uint32_t joined = (high & <uint32_t> 0x80000000) | (low & <uint32_t> 0x7FFFFFFF)
    return ahead ^ (joined >> 1) ^ ((0 - (low & 1)) & <uint32_t> 0x9908B0DF)


cdef void twist(Twister *twister) noexcept nogil:
    """Make the next words of the state."""
    cdef uint32_t *words = twister.words
    cdef int i
    for i in range(TWISTED - TWIST_AHEAD):
        words[i] = twisted(words[i], words[i + 1], words[i + TWIST_AHEAD])
    for i in range(TWISTED - TWIST_AHEAD, TWISTED - 1):
        words[i] = twisted(words[i], words[i + 1], words[i + TWIST_AHEAD - TWISTED])
    words[TWISTED - 1] = twisted(words[TWISTED - 1], words[0], words[TWIST_AHEAD - 1])
    twister.at = 0


cdef inline uint32_t next_word(Twister *twister) noexcept nogil:
    cdef uint32_t word
    if twister.at == TWISTED:
        twist(twister)
    word = twister.words[twister.at]
    twister.at += 1
    word ^= word >> 11
    word ^= (word << 7) & <uint32_t> 0x9D2C5680
    word ^= (word << 15) & <uint32_t> 0xEFC60000
    return word ^ (word >> 18)


cdef void permute(Twister *twister, Py_ssize_t *order, uint32_t *places, uint32_t n) noexcept nogil:
    """``order := 0 to n − 1, shuffled``: for i from n − 1 down to 1, swap number i with one at an index up to i.

    That index is a word, cut to the number of bits of i. An index above i is drawn again. No processor can predict
    which. So each index is stored, and counts only if it is not too high: there is no branch to mispredict.
    """
    cdef uint32_t i = n - 1, mask = 1, place
    cdef Py_ssize_t number
    while mask < i:
        mask = 2 * mask + 1
    while i:
        while i <= mask >> 1:
            mask >>= 1
        while i > mask >> 1:
            place = next_word(twister) & mask
            places[i] = place
            i -= place <= i
    for i in range(n):
        order[i] = i
    for i in range(n - 1, 0, -1):
        number = order[i]
        order[i] = order[places[i]]
        order[places[i]] = number


def draw_orders(uint64_t seed, uint32_t first, Py_ssize_t n_epochs, Py_ssize_t n_samples):
    """Return the orders of some epochs, numbered from ``first`` on: intp (n_epochs, n_samples)."""
    cdef cnp.ndarray found
    cdef cnp.npy_intp shape[2]
    cdef uint32_t words[3]
    cdef uint32_t *places
    cdef Py_ssize_t *orders
    cdef Py_ssize_t e
    cdef Twister twister
    if not 1 <= n_samples < 1 << 32 or not 0 <= n_epochs < 1 << 31:
        raise ValueError("draw_orders: there must be samples, fewer than 2**32.")
    shape[0], shape[1] = n_epochs, n_samples
    found = cnp.PyArray_EMPTY(2, shape, cnp.NPY_INTP, 0)
    places = <uint32_t *> PyMem_RawMalloc(n_samples * sizeof(uint32_t))
    if places is NULL:
        raise MemoryError
    orders = <Py_ssize_t *> data(found)
    with nogil:
        for e in range(n_epochs):
            words[0], words[1], words[2] = <uint32_t> seed, <uint32_t> (seed >> 32), first + <uint32_t> e
            seed_twister(&twister, words, 3)
            permute(&twister, orders + e * n_samples, places, <uint32_t> n_samples)
    PyMem_RawFree(places)
    return found
