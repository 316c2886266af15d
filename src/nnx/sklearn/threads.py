"""How many threads an estimator's ``n_jobs`` is."""

from __future__ import annotations

from nnx._base.config import MOST_THREADS, get_num_threads


def n_threads(where: str, n_jobs: int | None) -> int:
    """Return how many threads to use: nnx's number, but one in a thread of joblib's, which has started several.

    Raises
    ------
    ValueError
        If ``n_jobs`` is 0.
    """
    if n_jobs is None:
        return 1 if _is_in_joblib() else get_num_threads()
    if n_jobs == 0:
        raise ValueError(f"{where}: n_jobs must not be 0. Write -1 for all cores.")
    if n_jobs > 0:
        return min(int(n_jobs), MOST_THREADS)
    from joblib import cpu_count

    return int(min(max(1, cpu_count() + 1 + n_jobs), MOST_THREADS))


def _is_in_joblib() -> bool:
    """Return whether this thread is one of several that joblib has started."""
    from joblib.parallel import get_active_backend

    return bool(get_active_backend()[0].nesting_level)
