"""Predictions in Cython, without Python code and without the GIL; `nnx_predict.h` says what the members are.

    from nnx.predict cimport nnx_predictor, predictor_in

    capsule = predictor.capsule()  # keep it as long as what it holds is used
    cdef const nnx_predictor *p = predictor_in(capsule)

Compile with ``include_dirs=[nnx.get_include()]``.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer


cdef extern from "nnx_predict.h" nogil:
    const char *NNX_PREDICTOR
    ctypedef struct nnx_predictor:
        size_t size
        Py_ssize_t n_inputs
        Py_ssize_t n_outputs
        size_t number_size
        void *(*new_scratch)(const nnx_predictor *p) noexcept nogil
        void (*free_scratch)(void *scratch) noexcept nogil
        int (*predict_rows)(
            const nnx_predictor *p, const void *rows, void *outputs, Py_ssize_t n, void *scratch
        ) noexcept nogil


cdef inline const nnx_predictor *predictor_in(object capsule) except NULL:
    """Return what ``predictor.capsule()`` holds."""
    cdef const nnx_predictor *p = <const nnx_predictor *> PyCapsule_GetPointer(capsule, NNX_PREDICTOR)
    if p.size < sizeof(nnx_predictor):
        raise ImportError("This module was compiled for a later nnx than the one that is installed.")
    return p
