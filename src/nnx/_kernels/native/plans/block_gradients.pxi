# The gradient of the weights in blocks, and their update: while matrix units multiply for the next rows of the weights,
# the vector units update those before, piece by piece.


cdef enum:
    PIECE = 256  # numbers, at most, that a piece of an update changes, or a line


cdef struct Due:
    # Rows and columns of the weights whose gradients are known, and whose update is under way.
    real_t *gradients
    Py_ssize_t i  # where they begin in the weights
    Py_ssize_t j
    Lines lines
    Py_ssize_t piece_rows  # of a piece of the update, or so many pieces to a row
    Py_ssize_t across
    int updates  # pieces of the update
    int pieces  # and of all there is to do: the conversion of each block follows
    int done


cdef void update_piece(
    const Net *net, Stage *stage, Due *due, const void *constants, train_lines_t train_lines
) noexcept nogil:
    """Update some more rows or, when all are, convert another block of the new weights."""
    cdef Lines lines = due.lines
    cdef Py_ssize_t row = due.done // due.across * due.piece_rows, column = due.done % due.across * PIECE
    if due.done < due.updates:
        lines.rows = min(lines.rows - row, due.piece_rows)
        lines.columns = min(lines.columns - column, <Py_ssize_t> PIECE)
        train_lines(
            net, &stage.weights, (due.i + row) * stage.n_out + due.j + column,
            due.gradients + row * lines.gradient_line + column, &lines, stage.trained, constants,
        )
    else:
        convert_weights(stage, due.i, due.j + (due.done - due.updates) * BLOCK)
    due.done += 1


cdef void train_panel(
    const Net *net,
    Stage *stage,
    Py_ssize_t i,  # the first of BLOCK rows
    Py_ssize_t j,  # the first of BLOCK_COLUMNS columns
    Py_ssize_t depth,  # of the batch, in blocks
    const void *constants,  # of the optimizer's rule
    train_lines_t train_lines,
    real_t *gradients,  # scratch: twice (BLOCK, panel_columns)
    uint16_t *left,  # scratch: DEPTH blocks
    Due *due,  # in and out: what is updated meanwhile, and what is left to update
) noexcept nogil:
    """Compute the gradients of some rows and columns of the weights, and update those before."""
    cdef const Blocks *blocks = &stage.blocks
    cdef Py_ssize_t columns = min(<Py_ssize_t> BLOCK_COLUMNS, stage.n_out - j), wide = blocks_in(columns)
    cdef Py_ssize_t b, k, low = 0, high
    cdef Py_ssize_t steps = wide * depth, step = 0
    # The half of the scratch from which nothing is due.
    cdef real_t *target = gradients if due.gradients != gradients else gradients + BLOCK * panel_columns(stage.n_out)
    cdef const uint16_t *right
    cdef Sums sums
    while low < depth:
        high = min(depth, low + DEPTH)
        for k in range(low, high):
            transpose_lines(
                block_of(blocks.inputs, blocks_in(stage.n_in), k, i // BLOCK), left + (k - low) * BLOCK_SIZE
            )
        for b in range(wide):
            right = block_of(blocks.paired_dvalues, blocks.rows, j // BLOCK + b, 0)
            if low == 0:
                sums_clear(&sums)
            else:
                sums_load(&sums, <const float *> target + b * BLOCK, wide * BLOCK)
            for k in range(low, high):
                sums_add(&sums, left + (k - low) * BLOCK_SIZE, right + k * BLOCK_SIZE)
                step += 1
                while due.done * steps < due.pieces * step:
                    update_piece(net, stage, due, constants, train_lines)
            sums_store(&sums, <float *> target + b * BLOCK, wide * BLOCK)
        low = high
    due.gradients, due.i, due.j = target, i, j
    due.lines.rows = min(stage.n_in - i, <Py_ssize_t> BLOCK)
    due.lines.columns, due.lines.line, due.lines.gradient_line = columns, stage.n_out, wide * BLOCK
    due.piece_rows = max(<Py_ssize_t> 1, PIECE // columns)
    due.across = (columns + PIECE - 1) // PIECE
    due.done = 0
    due.updates = <int> ((due.lines.rows + due.piece_rows - 1) // due.piece_rows * due.across)
    due.pieces = due.updates + (<int> wide if stage.trained and not net.clip_norm else 0)


cdef void train_blocks(
    const Net *net,
    Stage *stage,
    Py_ssize_t first,  # of the rows of the weights: a multiple of BLOCK
    Py_ssize_t end,
    Py_ssize_t rows,  # of the batch
    const void *constants,  # of the optimizer's rule, for weights
    const void *bias_constants,
    real_t *gradients,  # scratch, `block_gradient_space` bytes
    train_lines_t train_lines,  # what completes gradients and updates values: that of the kernels in use
) noexcept nogil:
    """Compute the gradients of some rows of the weights, and of the biases if the first is one; update them."""
    cdef real_t *sums = gradients + 2 * BLOCK * panel_columns(stage.n_out)
    cdef uint16_t *left = <uint16_t *> (sums + blocks_in(stage.n_out) * BLOCK)
    cdef Py_ssize_t depth = blocks_in(rows), i, j = 0
    cdef Lines biases = one_line(stage.n_out)
    cdef Due due
    due.gradients, due.pieces, due.done = NULL, 0, 0
    while j < stage.n_out:
        i = first
        while i < end:
            train_panel(net, stage, i, j, depth, constants, train_lines, gradients, left, &due)
            i += BLOCK
        j += BLOCK_COLUMNS
    while due.done < due.pieces:
        update_piece(net, stage, &due, constants, train_lines)
    if first == 0 and end > 0:
        sum_dvalues(stage, rows, sums)
        train_lines(net, &stage.biases, 0, sums, &biases, stage.trained, bias_constants)


cdef void sum_dvalues(const Stage *stage, Py_ssize_t rows, real_t *sums) noexcept nogil:
    """``sums := Σ over rows of dvalues``, in bfloat16, row after row; (n_out,) out, up to whole blocks."""
    cdef const Blocks *blocks = &stage.blocks
    cdef Py_ssize_t i, j
    memset(sums, 0, blocks_in(stage.n_out) * BLOCK * sizeof(real_t))
    for j in range(blocks_in(stage.n_out)):
        for i in range(blocks_in(rows)):
            add_pairs(
                block_of(blocks.paired_dvalues, blocks.rows, j, i), <int> min(rows - i * BLOCK, <Py_ssize_t> BLOCK),
                <float *> sums + j * BLOCK,
            )
