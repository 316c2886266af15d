# The matrix product, for every transposition.
#
# It cuts the result into tiles that fit the registers. A tile's sums run over the whole depth in rising order. So an
# element's bits depend only on its row, its column and the depth, not on its tile. B is packed into panels as wide as a
# tile, a group of panels at a time. A is read in place, unless it is transposed and read very often.

cdef enum:
    MOST_ROWS = 8  # the largest TILE_ROWS
    TALL_VECTORS = 2  # the width of a tile
    HALF_VECTORS = 1  # the width at the end of a line, if half a tile is enough
    FLAT_VECTORS = 4  # the width for few rows: enough sums to keep the multiply-adders busy
    FLAT_ROWS = 3  # the most rows that count as few
    LINE_VECTORS = 8  # the width for a single row, whose sums wait longest for each other
    MOST_AHEAD = 4  # arrays that tiles prefetch
    LINES_AHEAD = 8  # how many lines ahead of their use lines of LINE_VECTORS, and lines to pack, are prefetched
    MOST_BLOCK_BYTES = 2048  # the largest BLOCK_BYTES
    BLOCK_ROWS = 192  # rows of A packed at a time: with the depth of a block, they stay in L2
    GROUP_COLUMNS = 64  # columns of B packed at a time
    LEAST_PACKED = 4096  # numbers: a smaller factor is in L1 without packing
    PACK_COLUMNS = 512  # columns from which on a transposed A is read so often that packing it pays


#: The scratch of a product, in bytes: a group of panels, and a block of A with room for one extra vector.
cdef Py_ssize_t PRODUCT_SCRATCH = MOST_BLOCK_BYTES * (GROUP_COLUMNS + BLOCK_ROWS) + 8 * MOST_LANES


cdef struct Finish:
    # The epilogue: what happens to complete sums, beside `least`.
    const real_t *gate  # (rows, columns) in, like c: where this output of a ReLU is 0, the result is 0; or NULL
    const real_t *c  # where c begins
    const real_t *affine  # for each vector of the panel's columns: scales, then shifts; or NULL


cdef struct Tiles:
    # Tiles below each other: ``c := max(least, start + a · b)`` for each. With `finish`, it is normalized before that,
    # and 0 where the gate is 0.
    Py_ssize_t count
    const real_t *a  # (rows, depth) in: element (i, k) at i*a_row + k*a_depth
    Py_ssize_t a_row
    Py_ssize_t a_depth
    Py_ssize_t a_next  # from one tile's rows to the next tile's
    const real_t *b  # (depth, vectors*LANES) in, rows b_depth apart
    Py_ssize_t b_depth
    int lanes  # with MASKED_ENDS: the columns of tiles of HALF_VECTORS
    Py_ssize_t depth
    const real_t *start  # (rows, vectors*LANES) in, rows start_row apart: the start of the sums; may be c
    Py_ssize_t start_row
    real_t *c  # (rows, vectors*LANES) out, rows c_row apart
    Py_ssize_t c_row
    real_t least  # the lower limit of a result: 0 for ReLU, or −infinity
    const Finish *finish  # or NULL
    const char *ahead[MOST_AHEAD]  # data for after these tiles: each tile prefetches a few lines
    int n_ahead
    Py_ssize_t ahead_lines  # lines of each, for each tile
    Py_ssize_t ahead_row  # the distance of these lines in bytes

ctypedef void (*tiles_t)(const Tiles *) noexcept nogil


cdef inline vec load_lanes(const bint masked, const real_t *source, int lanes) noexcept nogil:
    """Load a vector of a tile's columns. With `masked`, a constant at every call, there are only ``lanes`` columns."""
    return v_load_part(source, lanes) if masked else v_load(source)


cdef inline void tile(
    const int rows,  # a constant at every call, so that sums live in registers
    const int vectors,  # likewise
    const Tiles *t,
    const real_t *a,  # this tile's
    const real_t *start,  # likewise
    real_t *c,  # likewise
) noexcept nogil:
    """One of the tiles.

    Every third row has an address in a register. An address can add one stride or two, and registers are few.
    """
    cdef vec sums[MOST_ROWS * TALL_VECTORS]
    cdef vec line[LINE_VECTORS]
    cdef vec x
    cdef const Finish *finish = t.finish
    cdef const real_t *b = t.b
    cdef const real_t *gate
    cdef const char *thirds[3]
    cdef Py_ssize_t k, b_depth = t.b_depth, depth = t.depth, c_row = t.c_row
    cdef Py_ssize_t a_row = t.a_row * <Py_ssize_t> sizeof(real_t), a_depth = t.a_depth * <Py_ssize_t> sizeof(real_t)
    cdef int i, v, lanes = t.lanes
    cdef bint masked = MASKED_ENDS and vectors == HALF_VECTORS
    for i in range(rows * vectors):
        sums[i] = load_lanes(masked, start + i // vectors * t.start_row + i % vectors * LANES, lanes)
    for i in range(3):
        thirds[i] = <const char *> a + 3 * i * a_row
    for k in range(depth):
        if vectors == LINE_VECTORS:
            for v in range(vectors * <int> sizeof(vec) // 64):
                fetch_ahead(b + LINES_AHEAD * b_depth + v * (64 // <int> sizeof(real_t)))
        for v in range(vectors):
            line[v] = load_lanes(masked, b + v * LANES, lanes)
        for i in range(rows):
            x = v_all((<const real_t *> (thirds[i // 3] + i % 3 * a_row))[0])
            for v in range(vectors):
                sums[i * vectors + v] = v_madd(x, line[v], sums[i * vectors + v])
        for i in range((rows + 2) // 3):
            thirds[i] += a_depth
        b += b_depth
    if finish is not NULL and finish.affine is not NULL:
        for i in range(rows * vectors):
            v = i % vectors * 2 * LANES
            sums[i] = v_madd(sums[i], v_load(finish.affine + v), v_load(finish.affine + v + LANES))
    if finish is not NULL and finish.gate is not NULL:
        gate = finish.gate + (c - finish.c)
        for i in range(rows * vectors):
            sums[i] = v_where_not_zero(
                load_lanes(masked, gate + i // vectors * c_row + i % vectors * LANES, lanes), sums[i]
            )
    for i in range(rows * vectors):
        if masked:
            v_store_part(c + i * c_row, v_max(v_all(t.least), sums[i]), lanes)
        else:
            v_store(c + i // vectors * c_row + i % vectors * LANES, v_max(v_all(t.least), sums[i]))


cdef inline void tile_column(const int rows, const int vectors, const Tiles *t) noexcept nogil:
    """All of the tiles.

    This loop also makes GCC unroll the loops of the tile before it assigns registers. It does so only within loops.
    """
    cdef const real_t *a = t.a
    cdef const real_t *start = t.start
    cdef real_t *c = t.c
    cdef Py_ssize_t n, at, ahead = 0
    cdef int l, m
    for n in range(t.count):
        for l in range(rows):
            fetch_ahead(c + (rows + l) * t.c_row)
        if t.n_ahead:
            for at in range(t.ahead_lines):
                for m in range(t.n_ahead):
                    fetch_far_ahead(t.ahead[m] + ahead)
                ahead += t.ahead_row
        tile(rows, vectors, t, a, start, c)
        a += t.a_next
        start += rows * t.start_row
        c += rows * t.c_row


# Functions for each size of tile, called by address. When compilers merged them into one function, some of its loops
# lacked registers and took a third more time.


cdef void tall_1(const Tiles *t) noexcept nogil:
    tile_column(1, TALL_VECTORS, t)


cdef void tall_2(const Tiles *t) noexcept nogil:
    tile_column(2, TALL_VECTORS, t)


cdef void tall_3(const Tiles *t) noexcept nogil:
    tile_column(3, TALL_VECTORS, t)


cdef void tall_4(const Tiles *t) noexcept nogil:
    tile_column(4, TALL_VECTORS, t)


cdef void tall_5(const Tiles *t) noexcept nogil:
    tile_column(5, TALL_VECTORS, t)


cdef void tall_6(const Tiles *t) noexcept nogil:
    tile_column(6, TALL_VECTORS, t)


cdef void tall_7(const Tiles *t) noexcept nogil:
    tile_column(7, TALL_VECTORS, t)


cdef void tall_8(const Tiles *t) noexcept nogil:
    tile_column(8, TALL_VECTORS, t)


cdef void half_1(const Tiles *t) noexcept nogil:
    tile_column(1, HALF_VECTORS, t)


cdef void half_2(const Tiles *t) noexcept nogil:
    tile_column(2, HALF_VECTORS, t)


cdef void half_3(const Tiles *t) noexcept nogil:
    tile_column(3, HALF_VECTORS, t)


cdef void half_4(const Tiles *t) noexcept nogil:
    tile_column(4, HALF_VECTORS, t)


cdef void half_5(const Tiles *t) noexcept nogil:
    tile_column(5, HALF_VECTORS, t)


cdef void half_6(const Tiles *t) noexcept nogil:
    tile_column(6, HALF_VECTORS, t)


cdef void half_7(const Tiles *t) noexcept nogil:
    tile_column(7, HALF_VECTORS, t)


cdef void half_8(const Tiles *t) noexcept nogil:
    tile_column(8, HALF_VECTORS, t)


cdef void flat_1(const Tiles *t) noexcept nogil:
    tile_column(1, FLAT_VECTORS, t)


cdef void flat_2(const Tiles *t) noexcept nogil:
    tile_column(2, FLAT_VECTORS, t)


cdef void flat_3(const Tiles *t) noexcept nogil:
    tile_column(3, FLAT_VECTORS, t)


cdef void line_1(const Tiles *t) noexcept nogil:
    tile_column(1, LINE_VECTORS, t)


cdef tiles_t tall_tiles[MOST_ROWS + 1]
cdef tiles_t half_tiles[MOST_ROWS + 1]
cdef tiles_t flat_tiles[FLAT_ROWS + 1]
tall_tiles[1], tall_tiles[2], tall_tiles[3], tall_tiles[4] = tall_1, tall_2, tall_3, tall_4
tall_tiles[5], tall_tiles[6], tall_tiles[7], tall_tiles[8] = tall_5, tall_6, tall_7, tall_8
half_tiles[1], half_tiles[2], half_tiles[3], half_tiles[4] = half_1, half_2, half_3, half_4
half_tiles[5], half_tiles[6], half_tiles[7], half_tiles[8] = half_5, half_6, half_7, half_8
flat_tiles[1] = flat_1
flat_tiles[2], flat_tiles[3] = flat_2, flat_3


cdef inline void compute_tiles(int rows, int vectors, const Tiles *t) noexcept nogil:
    """Compute tiles: TALL_VECTORS or HALF_VECTORS wide, of up to TILE_ROWS rows, or flat, or of a single line."""
    if vectors == TALL_VECTORS:
        tall_tiles[rows](t)
    elif vectors == HALF_VECTORS:
        half_tiles[rows](t)
    elif vectors == FLAT_VECTORS:
        flat_tiles[rows](t)
    else:
        line_1(t)


cdef inline int tile_height(Py_ssize_t rows) noexcept nogil:
    """Return how many of the remaining rows the next tile takes. The last two tiles share the rest.

    A tile of one row costs as much as a tile of four, because it waits for each sum.
    """
    if TILE_ROWS < rows < 2 * TILE_ROWS:
        return <int> ((rows + 1) // 2)
    return <int> min(rows, TILE_ROWS)


cdef inline Py_ssize_t equal_tiles(Py_ssize_t rows) noexcept nogil:
    """Return how many of the next tiles have the height of the first of them."""
    return max(1, rows // TILE_ROWS - (1 if rows % TILE_ROWS else 0))


cdef void pack_lines(
    const real_t *b,  # (depth, width) in, rows b_depth apart
    Py_ssize_t b_depth,
    Py_ssize_t depth,
    Py_ssize_t width,
    int vectors,
    real_t *panels,  # out: panel after panel, each (depth, vectors*LANES), the last padded with zeros
    Py_ssize_t panel,  # the distance between panels
) noexcept nogil:
    """Copy panels of B, which is stored by rows. It copies line by line, so that memory is read in its order."""
    cdef Py_ssize_t line = vectors * LANES
    cdef Py_ssize_t whole = width // line * line
    cdef Py_ssize_t k, j
    cdef real_t *target
    cdef int v
    for k in range(depth):
        target = panels + k * line
        j = 0
        while j < whole:
            fetch_ahead(b + LINES_AHEAD * b_depth + j)
            for v in range(vectors):
                v_store(target + v * LANES, v_load(b + j + v * LANES))
            target += panel
            j += line
        if j < width:
            for v in range(vectors):
                v_store(target + v * LANES, load_part_of(b + j, width - j, v))
        b += b_depth


cdef inline vec load_part_of(const real_t *source, Py_ssize_t there, int v) noexcept nogil:
    """Load vector v of a line that may end within it."""
    cdef Py_ssize_t rest = there - v * LANES
    return v_load_part(source + v * LANES, <int> max(0, min(<Py_ssize_t> LANES, rest)))


cdef void pack_columns(
    const real_t *b,  # in: element (k, j) at k + j*b_column
    Py_ssize_t b_column,
    Py_ssize_t depth,
    Py_ssize_t width,
    int vectors,
    real_t *panels,  # out: panel after panel, each (depth, vectors*LANES), the last padded with zeros
) noexcept nogil:
    """Copy panels of a transposed B: squares of LANES x LANES are transposed in registers."""
    cdef vec square[MOST_LANES]
    cdef Py_ssize_t line = vectors * LANES
    cdef Py_ssize_t k, j = 0
    cdef real_t *target
    cdef int l, there, deep
    while j < (width + line - 1) // line * line:
        there = <int> max(0, min(<Py_ssize_t> LANES, width - j))
        target = panels + j // line * line * depth + j % line
        k = 0
        while k < depth:
            deep = <int> min(<Py_ssize_t> LANES, depth - k)
            if there == LANES and deep == LANES:
                for l in range(LANES):
                    square[l] = v_load(b + (j + l) * b_column + k)
            else:
                for l in range(LANES):
                    square[l] = v_load_part(b + (j + l) * b_column + k, deep) if l < there else v_all(0)
            v_transpose(square)
            if deep == LANES:
                for l in range(LANES):
                    v_store(target + (k + l) * line, square[l])
            else:
                for l in range(deep):
                    v_store(target + (k + l) * line, square[l])
            k += LANES
        j += LANES


cdef void pack_block(
    const real_t *a,  # in: element (i, k) at i + k*a_depth
    Py_ssize_t a_depth,
    Py_ssize_t depth,
    Py_ssize_t rows,
    Py_ssize_t there,  # numbers that may be read in each line, from `a` on
    real_t *block,  # out: tile after tile, each (depth, height); one extra vector is written
) noexcept nogil:
    """Copy a block of a transposed A, line by line. Across lines, each number would be on a separate page."""
    cdef const real_t *line
    cdef real_t *target
    cdef Py_ssize_t k, i
    cdef int height, l
    for k in range(depth):
        line = a + k * a_depth
        i = 0
        while i < rows:
            height = tile_height(rows - i)
            target = block + i * depth + k * height
            if i + MOST_ROWS + LANES <= there and k + 1 < depth:
                for l in range((height + LANES - 1) // LANES):
                    v_store(target + l * LANES, v_load(line + i + l * LANES))
            else:
                for l in range(height):
                    target[l] = line[i + l]
            i += height


cdef inline int lanes_of(Py_ssize_t width, int v) noexcept nogil:
    """Return how many lanes of vector v a line of this width fills."""
    return <int> max(<Py_ssize_t> 0, min(<Py_ssize_t> LANES, width - v * LANES))


cdef void narrow_tile(int rows, int vectors, const Tiles *t, Py_ssize_t width) noexcept nogil:
    """A tile with fewer columns than its width. It is computed beside c, then copied."""
    cdef real_t beside[MOST_ROWS * LINE_VECTORS * MOST_LANES]
    cdef Tiles own = t[0]
    cdef Finish finish
    cdef const real_t *gate = NULL
    cdef vec result
    cdef Py_ssize_t line = vectors * LANES
    cdef int i, v, count
    for v in range(vectors):
        count = lanes_of(width, v)
        for i in range(rows):
            v_store(beside + i * line + v * LANES, v_load_part(t.start + i * t.start_row + v * LANES, count))
    own.count, own.start, own.start_row, own.c, own.c_row, own.finish = 1, beside, line, beside, line, NULL
    own.lanes = LANES
    if t.finish is not NULL:
        gate = t.finish.gate
        if t.finish.affine is not NULL:
            finish.gate, finish.c, finish.affine = NULL, NULL, t.finish.affine
            own.finish = &finish
    compute_tiles(rows, vectors, &own)
    if gate is not NULL:
        gate += t.c - t.finish.c
    for v in range(vectors):
        count = lanes_of(width, v)
        for i in range(rows):
            result = v_load(beside + i * line + v * LANES)
            if gate is not NULL:
                result = v_where_not_zero(v_load_part(gate + i * t.c_row + v * LANES, count), result)
            v_store_part(t.c + i * t.c_row + v * LANES, result, count)


cdef void turned_tile(
    int rows, int vectors,
    const Tiles *t,  # here c is element (i, j) at i + j*c_column, and finish has no affine map
    const real_t *start,  # (rows,) in: the start of each row's sums; or NULL
    bint first,  # without `start`: whether sums start from 0 or from c
    Py_ssize_t c_column, Py_ssize_t width,
) noexcept nogil:
    """A tile of a result that is stored by columns. It is computed beside c, then copied."""
    cdef real_t beside[MOST_ROWS * LINE_VECTORS * MOST_LANES]
    cdef Tiles own = t[0]
    cdef const real_t *gate = NULL
    cdef real_t *c = t.c
    cdef Py_ssize_t line = vectors * LANES
    cdef Py_ssize_t i, j
    for i in range(rows):
        for j in range(line):
            if j < width and not first:
                beside[i * line + j] = c[i + j * c_column]
            else:
                beside[i * line + j] = start[i] if first and start is not NULL else 0
    own.count, own.start, own.start_row, own.c, own.c_row, own.finish = 1, beside, line, beside, line, NULL
    own.lanes = LANES
    compute_tiles(rows, vectors, &own)
    if t.finish is not NULL and t.finish.gate is not NULL:
        gate = t.finish.gate + (c - t.finish.c)
    for j in range(width):
        for i in range(rows):
            if gate is not NULL and gate[i + j * c_column] <= 0:
                c[i + j * c_column] = 0
            else:
                c[i + j * c_column] = beside[i * line + j]


cdef struct Product:
    # The arguments of `product`, and the block that is being computed.
    const real_t *a
    Py_ssize_t a_row
    Py_ssize_t a_depth
    const real_t *start_columns
    const real_t *start_rows
    real_t *c
    Py_ssize_t c_row
    Py_ssize_t c_column
    int vectors
    const real_t *block  # of A, packed; or NULL
    const real_t *packed  # all of B, in panels; or NULL
    Py_ssize_t packed_panel  # the distance between panels
    Py_ssize_t k  # the first of the sums' terms
    Py_ssize_t deep  # their number
    Py_ssize_t top  # the first of the rows
    real_t least
    const real_t *gate  # NULL until the sums are complete
    const real_t *affine  # likewise


cdef inline void ask_for_next_panel(const Product *p, const real_t *b, Tiles *t) noexcept nogil:
    """Let tiles prefetch the next packed panel. Otherwise, with many weights, its first tile waits for memory."""
    cdef Py_ssize_t lines = p.deep * p.vectors * <Py_ssize_t> sizeof(vec) // 64
    t.ahead[0], t.n_ahead, t.ahead_row = <const char *> (b + p.packed_panel), 1, 64
    t.ahead_lines = (lines + t.count - 1) // t.count


cdef inline bint is_turned(const Product *p) noexcept nogil:
    """Return whether the result is stored by columns, or sums start from a number for each row."""
    return p.c_column != 1 or p.start_rows is not NULL


cdef inline bint has_masked_ends(const Product *p) noexcept nogil:
    """Return whether the last columns are masked tiles of one vector, which touch nothing after them."""
    return MASKED_ENDS and p.vectors == TALL_VECTORS and not is_turned(p)


cdef void panel_rows(
    const Product *p,
    const real_t *b,  # (p.deep, width) in: a panel, rows b_depth apart
    Py_ssize_t b_depth,
    Py_ssize_t j,  # the panel's first column
    Py_ssize_t width,
    Py_ssize_t rows,  # of the block
) noexcept nogil:
    """Compute a panel's columns of a block of rows: equal tiles in one call, narrow or transposed ones one by one."""
    cdef real_t zeros[LINE_VECTORS * MOST_LANES]
    cdef int vectors = HALF_VECTORS if p.vectors == TALL_VECTORS and width <= LANES else p.vectors
    cdef bint first = p.k == 0
    cdef bint turned = is_turned(p)
    cdef bint masked = has_masked_ends(p)
    cdef bint narrow = width < vectors * LANES and not masked
    cdef Tiles t
    cdef Finish finish
    cdef Py_ssize_t i = 0
    cdef int height, lane
    if masked and LANES < width < TALL_VECTORS * LANES:
        panel_rows(p, b, b_depth, j, LANES, rows)
        panel_rows(p, b + LANES, b_depth, j + LANES, width - LANES, rows)
        return
    t.finish, t.lanes = NULL, <int> min(width, <Py_ssize_t> LANES)
    if p.gate is not NULL or p.affine is not NULL:
        finish.gate, finish.c, finish.affine = p.gate, p.c, p.affine + 2 * j if p.affine is not NULL else NULL
        t.finish = &finish
    for lane in range(LINE_VECTORS * LANES):
        zeros[lane] = 0
    t.b, t.b_depth, t.depth, t.c_row, t.least, t.n_ahead = b, b_depth, p.deep, p.c_row, p.least, 0
    while i < rows:
        height = tile_height(rows - i)
        t.count = 1 if turned or narrow else equal_tiles(rows - i)
        if p.block is not NULL:
            t.a, t.a_row, t.a_depth, t.a_next = p.block + i * p.deep, 1, height, height * p.deep
        else:
            t.a, t.a_row, t.a_depth = p.a + (p.top + i) * p.a_row + p.k * p.a_depth, p.a_row, p.a_depth
            t.a_next = height * p.a_row
        t.c = p.c + (p.top + i) * p.c_row + j * p.c_column
        t.start, t.start_row = t.c, p.c_row
        if first:
            t.start, t.start_row = p.start_columns + j if p.start_columns is not NULL else zeros, 0
        if turned:
            turned_tile(
                height, vectors, &t, p.start_rows + p.top + i if p.start_rows is not NULL else NULL, first, p.c_column,
                width,
            )
        elif narrow:
            narrow_tile(height, vectors, &t, width)
        else:
            if p.packed is not NULL and i == 0:
                ask_for_next_panel(p, b, &t)
            compute_tiles(height, vectors, &t)
            t.n_ahead = 0
        i += height * t.count


cdef void group_columns(
    const Product *p,
    const real_t *b,
    Py_ssize_t b_depth,
    Py_ssize_t b_column,
    Py_ssize_t j,  # the first column of a group of panels
    Py_ssize_t columns,
    Py_ssize_t rows,
    real_t *panels,  # scratch
) noexcept nogil:
    """Compute some columns of a block of rows, from packed panels if these are read often enough."""
    cdef Py_ssize_t line = p.vectors * LANES
    cdef bint packs = b_column != 1 or (rows > 4 * TILE_ROWS and p.deep * b_depth > LEAST_PACKED)
    cdef Py_ssize_t at = 0, width
    if p.packed is not NULL:
        while at < columns:
            panel_rows(
                p, p.packed + (j + at) // line * p.packed_panel + p.k * line, line, j + at, min(line, columns - at),
                rows,
            )
            at += line
        return
    b += p.k * b_depth + j * b_column
    if b_column != 1:
        pack_columns(b, b_column, p.deep, columns, p.vectors, panels)
    elif packs:
        pack_lines(b, b_depth, p.deep, columns, p.vectors, panels, p.deep * line)
    while at < columns:
        width = min(line, columns - at)
        if packs:
            panel_rows(p, panels + at * p.deep, line, j + at, width, rows)
        elif width == line or (p.vectors == TALL_VECTORS and width == LANES) or has_masked_ends(p):
            panel_rows(p, b + at, b_depth, j + at, width, rows)
        else:
            pack_lines(b + at, b_depth, p.deep, width, p.vectors, panels, p.deep * line)
            panel_rows(p, panels, line, j + at, width, rows)
        at += line


cdef void product(
    const real_t *a,  # (rows, depth) in: element (i, k) at i*a_row + k*a_depth, one of which is 1
    Py_ssize_t a_row,
    Py_ssize_t a_depth,
    const real_t *b,  # (depth, columns) in: element (k, j) at k*b_depth + j*b_column, one of which is 1
    Py_ssize_t b_depth,
    Py_ssize_t b_column,
    const real_t *start_columns,  # (columns,) in, added to each row; or NULL
    const real_t *start_rows,  # (rows,) in, added to each column; or NULL
    real_t *c,  # (rows, columns) out: element (i, j) at i*c_row + j*c_column
    Py_ssize_t c_row,
    Py_ssize_t c_column,
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t depth,
    const real_t *packed,  # b in panels, packed_panel apart; or NULL
    Py_ssize_t packed_panel,
    bint relu,
    const real_t *gate,  # (rows, columns) in, like c: where this output of a ReLU is 0, c becomes 0; or NULL
    const real_t *affine,  # each column's factor and offset, as `fold_norm` writes them; or NULL
    real_t *scratch,  # PRODUCT_SCRATCH bytes
) noexcept nogil:
    """``c := a · b + start``, times scales plus shifts if `affine`, max(0, c) if ``relu``, then 0 where `gate` is 0."""
    cdef Product p
    cdef Py_ssize_t most = BLOCK_BYTES // <Py_ssize_t> sizeof(real_t)
    cdef Py_ssize_t n_blocks = max(1, (depth + most - 1) // most)
    cdef Py_ssize_t deep = max(1, (depth + n_blocks - 1) // n_blocks)
    cdef bint packs_a = a_depth != 1 and columns >= PACK_COLUMNS and rows > FLAT_ROWS
    cdef real_t *block = scratch + most * GROUP_COLUMNS
    cdef Py_ssize_t block_rows = BLOCK_ROWS if packs_a else rows
    cdef Py_ssize_t high, group, wide
    if rows == 0 or columns == 0:
        return
    p.a, p.a_row, p.a_depth, p.start_columns, p.start_rows = a, a_row, a_depth, start_columns, start_rows
    p.c, p.c_row, p.c_column, p.block = c, c_row, c_column, block if packs_a else NULL
    p.vectors = FLAT_VECTORS if rows <= FLAT_ROWS else TALL_VECTORS
    if rows == 1 and LINE_VECTORS * LANES <= min(columns, <Py_ssize_t> GROUP_COLUMNS):
        p.vectors = LINE_VECTORS
    p.packed, p.packed_panel = packed if rows > FLAT_ROWS else NULL, packed_panel
    p.k = 0
    while p.k == 0 or p.k < depth:
        p.deep = min(deep, depth - p.k)
        p.least = 0 if relu and p.k + p.deep == depth else -INFINITY
        p.gate = gate if p.k + p.deep == depth else NULL
        p.affine = affine if p.k + p.deep == depth else NULL
        p.top = 0
        while p.top < rows:
            high = min(block_rows, rows - p.top)
            if packs_a:
                pack_block(a + p.top + p.k * a_depth, a_depth, p.deep, high, rows - p.top, block)
            group = 0
            while group < columns:
                wide = min(<Py_ssize_t> GROUP_COLUMNS, columns - group)
                group_columns(&p, b, b_depth, b_column, group, wide, high, scratch)
                group += wide
            p.top += high
        p.k += deep
