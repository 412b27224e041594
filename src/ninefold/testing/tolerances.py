"""The one table of comparison tolerances, and the scale that they are on.

A componentwise scale, ``|K| (*) |V|``, cannot bound any fast algorithm; all errors here are on ``max|V| * ||K_o||_1``: the
largest value that an output could have, given the largest input.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ninefold import reference
from ninefold.errors import DTypeError
from ninefold.spec import ChannelTable, Form, Map
from ninefold.spec.problem import TOLERANCES

__all__ = ["assert_close", "defined", "error_scale", "scaled_error", "tolerance"]


def tolerance(dtype: torch.dtype | str) -> float:
    """Return the largest error, on the scale of `error_scale`, that a result of this dtype may have by default.

    Raises
    ------
    DTypeError
        If the dtype has no tolerance: integers admit no error.

    Examples
    --------
    >>> tolerance(torch.float32), tolerance("float64")
    (1e-05, 1e-13)
    """
    name = str(dtype).removeprefix("torch.")
    if name not in TOLERANCES:
        raise DTypeError(f"{name} has no tolerance, there are {', '.join(TOLERANCES)}; compare integers with torch.equal")
    return TOLERANCES[name]


def defined(map_: Map, form: Form, a: Tensor, b: Tensor) -> Tensor:
    """Return what the definition gives, in double precision: `ninefold.reference` on tensors.

    Operands in double precision that are not whole numbers are summed in NumPy's long double, so that the expected value is
    more exact than any engine's.

    Examples
    --------
    >>> from ninefold.spec import ConvSpec
    >>> form = ConvSpec(1, 1, (2,)).form(3)
    >>> defined("c", form, torch.tensor([[[-1, 1]]]), torch.tensor([[[1, 4, 9]]])).tolist()
    [[[3.0, 5.0]]]
    """
    is_complex = a.is_complex() or b.is_complex()
    wide = torch.complex128 if is_complex else torch.float64
    arrays = [x.detach().cpu().to(wide).resolve_conj().resolve_neg().numpy() for x in (a, b)]
    if a.dtype == wide and not all((np.round(x) == x).all() for x in arrays):
        arrays = [x.astype(np.clongdouble if is_complex else np.longdouble) for x in arrays]
    result = getattr(reference, map_)(form, *arrays)
    return torch.from_numpy(result.astype(np.complex128 if is_complex else np.float64))


def error_scale(map_: Map, form: Form, a: Tensor, b: Tensor) -> Tensor:
    """Return the scale of errors, per channel of the result, in its rank.

    It is ``max|V| * ||K_o||_1`` for map c, ``max|G| * ||K_i||_1`` for h and ``max|V| * ||G_o||_1`` for g; for h not less than
    ``h(|K|, max|G|)``, which is more where a border that continues the input folds back onto it.

    Parameters
    ----------
    map_ : {"c", "h", "g"}
    form : Form
    a, b : Tensor
        The operands in the map's order: ``(K, V)``, ``(K, G)`` or ``(V, G)``.

    Examples
    --------
    >>> from ninefold.spec import ConvSpec
    >>> form = ConvSpec(1, 2, (2,)).form(3)
    >>> error_scale("c", form, torch.tensor([[[-1, 1]], [[2, 3]]]), torch.tensor([[[1, -4, 2]]])).flatten().tolist()
    [8.0, 20.0]
    """
    a, b = a.abs().double(), b.abs().double()
    if map_ == "g":
        return _largest(a) * _of_kernel(form, b.transpose(0, 1).flatten(1).sum(1))
    shape = (-1, *(1,) * form.ndim)
    if map_ == "c":
        return _largest(b) * _kernel_norms(form, a, 0).view(shape)
    folded = defined("h", form, a, torch.ones(1, *b.shape[1:], dtype=torch.double, device="cpu"))[0]
    norms = _kernel_norms(form, a, 1)
    most = folded.flatten(1).amax(1) if folded.numel() else norms
    return _largest(b) * torch.maximum(norms, most).view(shape)


def _largest(x: Tensor) -> float:
    return float(x.max()) if x.numel() else 0.0


def _kernel_norms(form: Form, K: Tensor, end: int) -> Tensor:
    """Return the 1-norm of the kernels at each output channel (end 0) or input channel (1); the largest of a period."""
    if form.tiled and form.channels.weight_tail:
        K = K.movedim(1 + form.ndim, 1)
    lead = 1 + len(form.channels.weight_tail)
    per_tile = K.flatten(K.ndim - form.ndim).sum(-1)
    per_edge = per_tile.flatten(lead).amax(-1) if form.tiled else per_tile
    channels = torch.tensor([edge[end] for edge in form.channels.edges], dtype=torch.long, device=K.device)
    count = (form.channels.outputs, form.channels.inputs)[end]
    return K.new_zeros(count).index_add(0, channels, per_edge.flatten())


def _of_kernel(form: Form, per_output: Tensor) -> Tensor:
    """Spread a number per output channel over the leading dimension of the weight."""
    table = isinstance(form.channels, ChannelTable)
    outputs = [o for o, _ in form.channels.edges] if table else list(range(form.channels.outputs))
    spread = per_output[torch.tensor(outputs, dtype=torch.long, device=per_output.device)]
    return spread.view(-1, *(1,) * (len(form.weight_shape) - 1))


def scaled_error(result: Tensor, expected: Tensor, scale: Tensor) -> float:
    """Return the largest error on a scale; infinite where one of the two is not finite and the other is.

    Examples
    --------
    >>> scaled_error(torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0]), torch.tensor([10.0]))
    0.05
    """
    if result.numel() == 0:
        return 0.0
    wide = torch.complex128 if expected.is_complex() else torch.float64
    error = (result.detach().cpu().to(wide) - expected).abs()
    relative = torch.where(error == 0, 0.0, error / scale)
    return float(relative.nan_to_num(nan=float("inf"), posinf=float("inf")).max())


def assert_close(result: Tensor, expected: Tensor, scale: Tensor, allowed: float, what: Any = "the result") -> None:
    """Raise AssertionError, with the numbers, where a result is further from what it must be than allowed.

    Parameters
    ----------
    result, expected : Tensor
        Of one shape; `expected` in double precision.
    scale : Tensor
        As `error_scale` gives it.
    allowed : float
        On that scale; 0 asks for equality.
    what : object
        What the message names.

    Examples
    --------
    >>> assert_close(torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([10.0]), 1e-5, "half of it")
    Traceback (most recent call last):
    AssertionError: half of it: error 1e-01 on the scale max|V| * ||K_o||_1, allowed are 1e-05; worst at (0,): 1.0, expected 2.0
    """
    if result.shape != expected.shape:
        raise AssertionError(f"{what}: shape {tuple(result.shape)}, expected {tuple(expected.shape)}")
    error = scaled_error(result, expected, scale)
    if error <= allowed:
        return
    off = (result.detach().cpu().to(expected.dtype) - expected).abs().nan_to_num(nan=float("inf"), posinf=float("inf"))
    at = tuple(int(i) for i in torch.unravel_index(off.argmax(), off.shape))
    raise AssertionError(
        f"{what}: error {error:.0e} on the scale max|V| * ||K_o||_1, allowed are {allowed:.0e}; "
        f"worst at {at}: {result[at].item()}, expected {expected[at].item()}"
    )
