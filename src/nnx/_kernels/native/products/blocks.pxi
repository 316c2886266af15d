# A dense stage's products in bfloat16, block by block (matrix_units.h): its matrices are converted where they are made,
# and the sums of each block are finished while they are in L1.

cdef extern from "matrix_units.h" nogil:
    const bint HAS_MATRIX_UNITS
    const int SIDE_OF_BLOCKS "BLOCK"
    ctypedef struct Sums:
        pass
    void units_begin()
    void units_end()
    void sums_clear(Sums *sums)
    void sums_load(Sums *sums, const float *source, Py_ssize_t line)
    void sums_add(Sums *sums, const uint16_t *left, const uint16_t *right)
    void sums_store(const Sums *sums, float *target, Py_ssize_t line)
    void convert_block(
        const float *source, Py_ssize_t line, int rows, int columns, uint16_t *lines, uint16_t *pairs,
        uint16_t *turned_pairs
    )
    void transpose_lines(const uint16_t *lines, uint16_t *turned)
    void gate_by_lines(float *block, const uint16_t *lines, int rows)
    void add_pairs(const uint16_t *pairs, int rows, float *sums)


cdef inline uint16_t *block_of(uint16_t *blocks, Py_ssize_t line, Py_ssize_t i, Py_ssize_t j) noexcept nogil:
    """Return where a block is among such that lie in lines; NULL for NULL."""
    return blocks + (i * line + j) * BLOCK_SIZE if blocks is not NULL else NULL


cdef void convert(
    const real_t *matrix,  # (rows, columns) in
    Py_ssize_t first,  # where these rows are in the whole matrix: a multiple of BLOCK
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t row_blocks,  # of the whole matrix
    uint16_t *lines,  # out: the whole matrix in blocks; each of these may be NULL
    uint16_t *pairs,
    uint16_t *turned_pairs,  # of the matrix transposed
) noexcept nogil:
    """Convert some rows of a matrix."""
    cdef Py_ssize_t i = first // BLOCK, j, column_blocks = blocks_in(columns)
    cdef int high
    while rows > 0:
        high = <int> min(rows, <Py_ssize_t> BLOCK)
        for j in range(column_blocks):
            convert_block(
                <const float *> (matrix + j * BLOCK), columns, high,
                <int> min(columns - j * BLOCK, <Py_ssize_t> BLOCK),
                block_of(lines, column_blocks, i, j), block_of(pairs, row_blocks, j, i),
                block_of(turned_pairs, column_blocks, i, j),
            )
        matrix += BLOCK * columns
        rows -= BLOCK
        i += 1


# A product of two matrices in blocks. While the units multiply for a block of the result, the vector units finish the
# one before, piece by piece.

cdef struct BlockProduct:
    # What becomes of a result: some rows of a stage's output, or of the gradient by its inputs.
    const Stage *stage
    const Stage *next  # the dense stage that alone needs it, in blocks, or NULL
    real_t *result  # (rows, columns); not used if `next` takes it
    const real_t *gate  # (rows, columns): the output of the ReLU before, through which dinputs go as well; or NULL
    Py_ssize_t first  # the first row's place in the batch: a multiple of BLOCK
    Py_ssize_t rows
    Py_ssize_t columns
    int pieces


cdef void forward_blocks(
    const Stage *stage,
    const Stage *next,  # the dense stage that alone needs the output, or NULL
    real_t *output,  # (rows, n_out) out, if there is none
    Py_ssize_t first,  # the first row's place in the batch: a multiple of BLOCK
    Py_ssize_t rows,
    real_t *scratch,  # GROUP times (BLOCK, BLOCK)
) noexcept nogil:
    """``output := inputs · weights + biases``, both as they lie in blocks, then max(0, output) if there is a ReLU."""
    cdef BlockProduct product
    product.stage, product.next, product.result, product.gate = stage, next, output, NULL
    product.first, product.rows, product.columns = first, rows, stage.n_out
    product.pieces = 2 if next is NULL else 3
    multiply_blocks(OUTPUT, &product, stage.blocks.inputs, stage.blocks.weights, blocks_in(stage.n_in), scratch)


cdef void backward_blocks(
    const Stage *stage,
    const Stage *next,  # the dense stage before that alone needs the gradient, or NULL
    real_t *dinputs,  # (rows, n_in) out, if there is none
    const real_t *gate,  # (rows, n_in) in: the output of the ReLU before, through which dinputs go as well; or NULL
    Py_ssize_t first,  # the first row's place in the batch
    Py_ssize_t rows,
    real_t *scratch,  # GROUP times (BLOCK, BLOCK)
) noexcept nogil:
    """``dinputs := dvalues · weightsᵀ``, both as they lie in blocks, then 0 where the ReLU before put out 0."""
    cdef BlockProduct product
    product.stage, product.next, product.result, product.gate = stage, next, dinputs, gate
    product.first, product.rows, product.columns = first, rows, stage.n_in
    product.pieces = 2 if next is NULL else 4
    multiply_blocks(
        DINPUTS, &product, stage.blocks.dvalues, stage.blocks.turned_weights, blocks_in(stage.n_out), scratch
    )


cdef enum:
    MOST_LINES = 8  # of the cache, at most, that are asked for with each product of two blocks

cdef inline void multiply_blocks(
    const Way way,  # a constant at every call
    const BlockProduct *product,
    const uint16_t *left,  # (batch, depth)
    const uint16_t *right,  # (depth, columns)
    Py_ssize_t depth,  # in blocks
    real_t *scratch,  # GROUP times (BLOCK, BLOCK)
) noexcept nogil:
    """``result := left · right``, for some rows of the batch.

    DEPTH blocks of `right` at a time stay in L1 while GROUP blocks of rows are multiplied by them. Meanwhile the next
    ones are asked for.
    """
    cdef Py_ssize_t n_rows = blocks_in(product.rows), top = 0, i, j, k, low, high, end, line, lines
    cdef Py_ssize_t before_i = 0, before_j = 0
    cdef real_t *before = NULL
    cdef real_t *target
    cdef int piece = 0, pieces = 0, turn = 0
    cdef const uint16_t *a
    cdef const uint16_t *b
    cdef const uint16_t *ahead
    cdef Sums sums
    while top < n_rows:
        end = min(n_rows, top + GROUP)
        lines = min(<Py_ssize_t> BLOCK // (end - top), MOST_LINES)
        for j in range(blocks_in(product.columns)):
            b = right + j * depth * BLOCK_SIZE
            low = 0
            while low < depth:
                high = min(depth, low + DEPTH)
                ahead = b + high * BLOCK_SIZE
                for i in range(top, end):
                    a = left + (product.first // BLOCK + i) * depth * BLOCK_SIZE
                    target = scratch + (i - top if depth > DEPTH else turn) * BLOCK_SIZE
                    turn = 1 - turn
                    if low == 0:
                        sums_clear(&sums)
                    else:
                        sums_load(&sums, <const float *> target, BLOCK)
                    for k in range(low, high):
                        sums_add(&sums, a + k * BLOCK_SIZE, b + k * BLOCK_SIZE)
                        for line in range(lines):
                            fetch_ahead(ahead + line * BLOCK)
                        ahead += lines * BLOCK
                        while piece * (high - low) < pieces * (k + 1 - low):
                            finish(way, product, before, before_i, before_j, piece)
                            piece += 1
                    sums_store(&sums, <float *> target, BLOCK)
                    if high == depth:
                        before, before_i, before_j, piece, pieces = target, i, j, 0, product.pieces
                low = high
        top = end
    for piece in range(pieces):
        finish(way, product, before, before_i, before_j, piece)


cdef inline void finish(
    const Way way, const BlockProduct *product, real_t *block, Py_ssize_t i, Py_ssize_t j, int piece
) noexcept nogil:
    """Do a piece of what is due for a block of sums.

    ========  ====================================  =================================================
    piece     of an output                          of dinputs
    ========  ====================================  =================================================
    0, 1      half of the rows each: biases, ReLU   half of the rows each: the derivative of the ReLU
    2         lines: the next stage's inputs        lines: the dvalues of the stage before
    3                                               pairs: the same
    ========  ====================================  =================================================

    Where no dense stage takes the result in blocks, the first two store it, and there are no others.
    """
    cdef const Stage *stage = product.stage
    cdef const Stage *next = product.next
    cdef Py_ssize_t rows = min(product.rows - i * BLOCK, <Py_ssize_t> BLOCK)
    cdef Py_ssize_t columns = min(product.columns - j * BLOCK, <Py_ssize_t> BLOCK)
    cdef Py_ssize_t at = i * BLOCK * product.columns + j * BLOCK, top, row = product.first // BLOCK + i
    if piece < 2:
        top = piece * (BLOCK // 2)
        if top >= rows:
            return
        rows = min(rows - top, <Py_ssize_t> BLOCK // 2)
        block += top * BLOCK
        at += top * product.columns
        if way == OUTPUT:
            add_biases(block, <const real_t *> stage.biases.values + j * BLOCK, rows, columns, stage.relu)
        elif next is not NULL and next.relu:
            gate_by_lines(
                <float *> block, block_of(stage.blocks.inputs, blocks_in(stage.n_in), row, j) + top * BLOCK, <int> rows
            )
        if next is NULL:
            store_block(
                block, product.gate + at if product.gate is not NULL else NULL, product.result + at, product.columns,
                rows, columns,
            )
    elif way == OUTPUT:
        convert_block(
            <const float *> block, BLOCK, <int> rows, <int> columns,
            block_of(next.blocks.inputs, blocks_in(next.n_in), row, j), NULL, NULL,
        )
    elif piece == 2 and next.dinputs is not NULL:
        convert_block(
            <const float *> block, BLOCK, <int> rows, <int> columns,
            block_of(next.blocks.dvalues, blocks_in(next.n_out), row, j), NULL, NULL,
        )
    elif piece == 3 and wants_gradients(next):
        convert_block(
            <const float *> block, BLOCK, <int> rows, <int> columns, NULL,
            block_of(next.blocks.paired_dvalues, next.blocks.rows, j, row), NULL,
        )


cdef inline void add_biases(
    real_t *block,  # (rows, BLOCK) in and out
    const real_t *biases,  # (columns,) in
    Py_ssize_t rows,
    Py_ssize_t columns,
    bint relu,
) noexcept nogil:
    """``block += biases``, then max(0, block) if ``relu``."""
    cdef vec least = v_all(0 if relu else -INFINITY)
    cdef vec bias
    cdef Py_ssize_t i, j = 0
    while j < columns:
        bias = v_load_part(biases + j, <int> min(columns - j, <Py_ssize_t> LANES))
        for i in range(rows):
            v_store(block + i * BLOCK + j, v_max(least, v_add(v_load(block + i * BLOCK + j), bias)))
        j += LANES


cdef inline void store_block(
    const real_t *block,  # (rows, BLOCK) in
    const real_t *gate,  # (rows, columns) in, or NULL
    real_t *result,  # (rows, columns) out, rows `line` apart as those of the gate are
    Py_ssize_t line,
    Py_ssize_t rows,
    Py_ssize_t columns,
) noexcept nogil:
    """``result := block``, then 0 where the gate is."""
    cdef Py_ssize_t i, j = 0
    cdef vec x
    cdef int count
    while j < columns:
        count = <int> min(columns - j, <Py_ssize_t> LANES)
        for i in range(rows):
            x = v_load(block + i * BLOCK + j)
            if gate is not NULL:
                x = v_where_not_zero(v_load_part(gate + i * line + j, count), x)
            v_store_part(result + i * line + j, x, count)
        j += LANES


cdef void convert_weights(const Stage *stage, Py_ssize_t i, Py_ssize_t j) noexcept nogil:
    """Convert the block of the weights that begins in row i and column j, for the products that need it."""
    cdef const Blocks *blocks = &stage.blocks
    convert_block(
        <const float *> stage.weights.values + i * stage.n_out + j, stage.n_out,
        <int> min(stage.n_in - i, <Py_ssize_t> BLOCK), <int> min(stage.n_out - j, <Py_ssize_t> BLOCK), NULL,
        block_of(blocks.weights, blocks_in(stage.n_in), j // BLOCK, i // BLOCK),
        block_of(blocks.turned_weights, blocks_in(stage.n_out), i // BLOCK, j // BLOCK)
        if stage.dinputs is not NULL else NULL,
    )


cdef void keep_inputs(const Stage *stage, const real_t *inputs, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Convert some rows of a stage's inputs; (rows, n_in) in."""
    convert(inputs, first, rows, stage.n_in, stage.blocks.rows, stage.blocks.inputs, NULL, NULL)


cdef void keep_dvalues(const Stage *stage, const real_t *dvalues, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Convert some rows of what comes back to a stage for the products that need it; (rows, n_out) in."""
    cdef const Blocks *blocks = &stage.blocks
    convert(
        dvalues, first, rows, stage.n_out, blocks.rows, blocks.dvalues if stage.dinputs is not NULL else NULL,
        blocks.paired_dvalues if wants_gradients(stage) else NULL, NULL,
    )
