"""Models made from the weights of other libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnx._base import check
from nnx._base.typing import Path
from nnx.files import torch_files, torch_weights
from nnx.model import Model

__all__ = ["from_torch"]


def from_torch(
    state: Mapping[str, Any] | Path,
    activations: Any = None,
    *,
    embeddings: Mapping[str, int] | None = None,
    residuals: Sequence[str] = (),
    epsilon: float = 1e-5,
) -> Model:
    """Return the finalized model that has the parameters of a PyTorch model. It does not need PyTorch.

    It knows Linear, BatchNorm1d, LayerNorm, PReLU and Embedding, in an nn.Sequential or in custom modules that call
    them one after the other.

    Parameters
    ----------
    state : dict, or path of a safetensors file
        What ``module.state_dict()`` returns, with tensors or NumPy arrays, or what
        ``safetensors.torch.save_file(module.state_dict(), path)`` writes. Pickles (``.pt``, ``.pth``) are not opened.
    activations : str, layer, or a list of these and None, optional
        A state dict does not hold them. One name, such as "relu", or one layer, stands for all of them. A list has one
        entry for each place. It may have one more, which comes after the last layer, such as "softmax". Places are the
        gaps between the numbers of modules: "0.weight" and "2.weight" leave the gap 1. Adjacent gaps are one place, and
        a gap before the first module is not a place. If there are no gaps, there is a place after each Linear except
        the last, or after the norm that follows it. None in a list stands for no activation, as for a Dropout alone.
    embeddings : dict, optional
        The column of the inputs that each Embedding takes, by its name: ``{"towns": 3}`` for "towns.weight". The next
        layer gets the other columns first, in their order, then the vectors, in the order of this dict.
    residuals : sequence of str
        The names of modules that add their inputs to their layers' output.
    epsilon : float
        Epsilon of all norms, which a state dict does not hold.

    Returns
    -------
    Model
        Without loss and optimizer. It is float64 if any of the arrays is, else float32.

    Raises
    ------
    TypeError, ValueError
        If arguments are not valid, or the state dict belongs to another kind of network. The message names the first
        key that does not fit.
    ModelFileError
        If the file is damaged, or a pickle.

    Examples
    --------
    >>> import numpy as np, nnx
    >>> state = {"0.weight": np.ones((3, 2), np.float32), "0.bias": np.zeros(3, np.float32)}
    >>> state |= {"2.weight": np.ones((1, 3), np.float32), "2.bias": np.zeros(1, np.float32)}
    >>> model = nnx.from_torch(state, "relu")
    >>> model.predict([[1, 2]])
    array([[9.]], dtype=float32)
    >>> sorted(model.to_torch()) == sorted(state)
    True
    """
    where = "from_torch"
    epsilon = check.number(where, "epsilon", epsilon, 1e-30)
    if isinstance(residuals, str):
        raise TypeError(f"{where}: residuals must be a list of names, got the text {residuals!r}.")
    ordered = isinstance(state, Mapping)
    if not ordered and hasattr(state, "state_dict"):
        raise TypeError(f"{where}: state must be a state dict, got a module. Write module.state_dict().")
    arrays: Any = state if ordered else torch_files.read(where, check.path(where, "state", state))
    with np.errstate(all="ignore"):  # a file may hold any numbers
        layers = torch_weights.layers_of(where, arrays, activations, embeddings or {}, residuals, epsilon, ordered)
    model = Model()
    model.layers = layers
    model.finalize()
    return model
