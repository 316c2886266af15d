/* Predictions in C, C++ and Cython, without Python code and without the GIL.
 *
 * `predictor.capsule()` in Python returns a capsule with the name NNX_PREDICTOR that holds a `const nnx_predictor *`,
 * which is valid as long as the capsule. Everything but the capsule itself may be used by any thread at any time:
 *
 *     const nnx_predictor *p = PyCapsule_GetPointer(capsule, NNX_PREDICTOR);
 *     void *scratch = p->new_scratch(p);
 *     p->predict_rows(p, rows, outputs, n, scratch);
 *     p->free_scratch(scratch);
 */
#ifndef NNX_PREDICT_H
#define NNX_PREDICT_H

#include <stddef.h>

/* With what follows, up to the end of the struct, unchanged, a later nnx may add members there: `size` tells. Anything
 * else gets another name. */
#define NNX_PREDICTOR "nnx.predictor.1"

typedef struct nnx_predictor nnx_predictor;
struct nnx_predictor {
    size_t size; /* of this struct, in bytes, in the nnx that has filled it */
    ptrdiff_t n_inputs;
    ptrdiff_t n_outputs;
    size_t number_size; /* bytes of a number: those of a float or of a double */

    /* Memory for calls of `predict_rows`, one at a time: each thread has its own. NULL if there is none left. */
    void *(*new_scratch)(const nnx_predictor *p);
    void (*free_scratch)(void *scratch);

    /* Write what the network makes of n rows: (n, n_inputs) in, (n, n_outputs) out, one row after the other, which must
     * not overlap. Return 0, or 1 if a column of categories holds no number of a category: then nothing is written. */
    int (*predict_rows)(const nnx_predictor *p, const void *rows, void *outputs, ptrdiff_t n, void *scratch);
};

#endif
