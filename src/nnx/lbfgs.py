"""`Optimizer_LBFGS`: settings and results. The computation is in `engine/lbfgs.py` and
`_kernels/native/plans/lbfgs.pxi`. `engine/minimizing.py` runs it.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, NoReturn

from nnx._base import check
from nnx._base.describe import Described
from nnx._base.vocabulary import built_in
from nnx.optimizers import Optimizer_SGD, Rule

__all__ = ["Optimizer_LBFGS"]

#: The most pairs that it can remember.
MAX_MEMORY = 256
#: A rule that makes a plan's steps collect their gradients, as if for a common norm, and leave them there.
COLLECTING = Optimizer_SGD(clip_norm=1.0)._rule()


class Limits(NamedTuple):
    """When it ends: the arguments of `Optimizer_LBFGS`."""

    max_evaluations: int
    gradient_tolerance: float
    loss_tolerance: float
    search_steps: int


@built_in("minimizer")
class Optimizer_LBFGS(Described):
    """L-BFGS: w ← w − step·H·g, where H approximates the inverse Hessian by the last moves and changes of gradients.

    It suits small networks and data that fit one batch. It needs no learning rate, and stops by itself. H is never
    stored. With s = change of w, y = change of g of an iteration and ρ = 1 / yᵀs, an iteration multiplies H by (I −
    ρ·s·yᵀ) from the left and by its transpose from the right, and adds ρ·s·sᵀ. The first H is (sᵀy / yᵀy)·I of the
    latest pair. A line search finds the step: ``loss(w + step·d) ≤ loss(w) + 1e-3·step·gᵀd``, and
    ``|slope| ≤ 0.9·|gᵀd|`` at its end.

    Parameters
    ----------
    memory : int
        The number of pairs (s, y) that it remembers, from 1 to 256.
    max_evaluations : int
        It stops after the iteration in which it has computed loss and gradient more often than this.
    gradient_tolerance : float
        It stops when no element of the gradient is larger than this.
    loss_tolerance : float
        It stops when an iteration lowers the loss f by no more than this times ``max(|f before|, |f after|, 1)``.
    search_steps : int
        The most steps that a line search tries.

    Attributes
    ----------
    iterations : int
        Iterations done, in all calls of `Model.train`.
    evaluations : int
        How often the latest call of `Model.train` has computed loss and gradient.
    message : str
        Why that call ended; empty before the first call.

    Notes
    -----
    Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", 1989. First steps, skipped pairs
    and restarts are those of L-BFGS-B (Byrd, Lu, Nocedal and Zhu, "A limited memory algorithm for bound constrained
    optimization", 1995) without bounds, as is the line search (Moré and Thuente, "Line search algorithms with
    guaranteed sufficient decrease", 1994). The iterations are therefore those of SciPy's ``method="L-BFGS-B"``, up to
    rounding. The first step has length 1. If the loss after a step is not finite, the next step tried is a tenth of it.

    Each step uses all samples. An epoch of `Model.train` is one iteration, and ``epochs`` is the largest number of
    them. The metrics of an epoch are those after its iteration; ``history.learning_rate`` holds the steps.
    `Model.train` refuses layers of dropout and noise, because the loss must depend on the parameters alone. Batch norms
    use the statistics of the batch and update their running statistics once per iteration. The loss must be smooth
    enough for a line search; with ReLU, it is smooth nearly everywhere.

    Each call of `Model.train` starts without pairs. It drops the pairs when a callback changes parameters or settings
    of built-in parts. A checkpoint holds the pairs.

    Examples
    --------
    >>> import numpy as np
    >>> import nnx
    >>> model = nnx.Model()
    >>> model.add(nnx.Layer_Dense(1, 1))
    >>> model.set(
    ...     loss=nnx.Loss_MeanSquaredError(),
    ...     optimizer=nnx.Optimizer_LBFGS(),
    ...     accuracy=nnx.Accuracy_Regression(),
    ... )
    >>> model.finalize()
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> history = model.train(X, 2 * X - 1, epochs=100, print_every=None)
    >>> print(f"{model.layers[0].weights.item():.2f} {model.layers[0].biases.item():.2f}")
    2.00 -1.00
    >>> len(history) < 20
    True
    """

    _arguments: ClassVar[tuple[str, ...]] = (
        "memory",
        "max_evaluations",
        "gradient_tolerance",
        "loss_tolerance",
        "search_steps",
    )

    iterations: int = 0
    evaluations: int = 0
    message: str = ""

    def __init__(
        self,
        memory: int = 10,
        max_evaluations: int = 15000,
        gradient_tolerance: float = 1e-5,
        loss_tolerance: float = 2.22e-9,
        search_steps: int = 20,
    ) -> None:
        self.memory, self.max_evaluations, self.search_steps = memory, max_evaluations, search_steps
        self.gradient_tolerance, self.loss_tolerance = gradient_tolerance, loss_tolerance
        self._limits(type(self).__name__)

    def _limits(self, where: str) -> tuple[int, Limits]:
        """Return the memory and the limits, checked: users may have assigned anything."""
        memory = check.whole(where, "memory", self.memory, 1, MAX_MEMORY)
        return memory, Limits(
            check.whole(where, "max_evaluations", self.max_evaluations, 1, check.MAX_COUNT),
            float(check.number(where, "gradient_tolerance", self.gradient_tolerance, 0)),
            float(check.number(where, "loss_tolerance", self.loss_tolerance, 0)),
            check.whole(where, "search_steps", self.search_steps, 1, check.MAX_COUNT),
        )

    def _rule(self) -> Rule:
        """Return the rule that a plan is bound with."""
        return COLLECTING

    def pre_update_params(self) -> None:
        """Refuse: see `update_params`."""
        self._refuse("pre_update_params")

    def update_params(self, layer: Any) -> None:
        """Refuse: an iteration needs the loss as a function of all layers' parameters.

        Raises
        ------
        RuntimeError
            Always. `Model.train` does the iterations.
        """
        self._refuse("update_params")

    def post_update_params(self) -> None:
        """Refuse: see `update_params`."""
        self._refuse("post_update_params")

    def _refuse(self, method: str) -> NoReturn:
        raise RuntimeError(
            f"{type(self).__name__}.{method}: it cannot update a single layer. Call Model.train, or choose another "
            "optimizer."
        )
