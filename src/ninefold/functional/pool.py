"""Maxima and averages over sliding windows, in torch's positional order, with borders, dilation and cover everywhere.

Beyond torch, for 1-D, 2-D and 3-D: ``padding`` may be a policy (``"same"``, ``"same_lower"``, ``"full"``, ``"causal"``) or pairs
``((top, bottom), (left, right))``, ``padding_mode`` says what stands on the border instead of nothing, every pooling may be
dilated, and ``ceil_mode="cover"`` drops no detector (figure 9.10 of the book).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ShapeError
from ninefold.functional.named import make
from ninefold.functional.sliding import (
    Sliding,
    average,
    check_input,
    covered,
    describe,
    exactly,
    extended,
    largest,
    refusal,
    taken,
)
from ninefold.ops.layout import channels_last
from ninefold.spec.axis import Axis
from ninefold.spec.parse import boolean, number
from ninefold.tensors.layout import in_format

__all__ = ["avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d"]


def _max_pool(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: Any = False,
    return_indices: bool = False,
    *,
    padding_mode: str | None = None,
) -> Any:
    """Take the maximum over each {n}-D window: torch's ``max_pool{n}d``.

    The gradient of a window goes to one element, the first in memory of equal ones. A NaN is a maximum; the maximum over nothing,
    which a dilated window may see of a small input, is minus infinity.

    Parameters
    ----------
    input : Tensor of shape ``(batch, channels, {sizes})`` or without the batch
    kernel_size : int or tuple
    stride : int or tuple, optional
        `kernel_size` by default.
    padding : int, tuple, tuple of pairs, or str
        Less than a window on each side; nothing stands there.
    dilation : int or tuple
    ceil_mode : bool or "cover"
        True keeps a last, truncated window; ``"cover"`` does so even if it is the only one.
    return_indices : bool
        Return also the flat position of every maximum, the switches of ``max_unpool{n}d``.
    padding_mode : str, optional
        ``"zeros"``, ``"reflect"``, ``"symmetric"``, ``"replicate"``, ``"circular"``: values that compete like others.

    Returns
    -------
    Tensor, or (Tensor, Tensor of int64)

    Raises
    ------
    ShapeError, DTypeError, ArgumentError, ArgumentTypeError
        With the actual numbers and the repair.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.max_pool{n}d(torch.zeros(1, 3, {five}), 3, 2, "same").shape
    torch.Size([1, 3, {three}])
    """
    check_input(input, ndim)
    sliding = describe(ndim, kernel_size, stride, padding, dilation, ceil_mode, padding_mode)
    return _with_indices(input, sliding) if return_indices else largest(input, sliding)


_INDICES: dict[int, Any] = {n: getattr(torch.nn.functional, f"max_pool{n}d_with_indices") for n in (1, 2, 3)}


def _with_indices(x: Tensor, sliding: Sliding) -> tuple[Tensor, Tensor]:
    """Return maxima and where they stand in the input."""
    spec = sliding.spec
    axes = sliding.axes(tuple(x.shape[-spec.ndim :]))
    run = _INDICES[spec.ndim]
    if sliding.for_max is not None:
        try:
            z, at = run(x, *sliding.for_max)
        except RuntimeError as error:
            raise refusal(x, error, spec.ndim) from error
        return (taken(x, at, spec.ndim) if exactly(x) else z), at
    if spec.padding_mode == "zeros":
        raise ArgumentError("return_indices=True with padding_mode='zeros': a zero of the border stands nowhere in the input")
    if spec.padding_mode is None and any(not bool(covered(a, "cpu").all()) for a in axes if a.dilation > 1):
        raise ShapeError(f"return_indices=True, but a window of {spec} sees nothing of an input of {[a.n_in for a in axes]}")
    places = torch.arange(x.shape[-spec.ndim :].numel(), dtype=torch.double, device=x.device)
    surround = extended if spec.padding_mode is not None else _surrounded
    # Not even a window of minus infinity may find its maximum in the border.
    y = surround(x.detach().clamp_min(torch.finfo(x.dtype).min) if x.is_floating_point() else x, axes)
    at = run(y, spec.kernel_size, spec.stride, 0, spec.dilation)[1]
    at = in_format(surround(places.view(1, *x.shape[-spec.ndim :]), axes).flatten()[at].long(), channels_last(x))
    return taken(x, at, spec.ndim), at


def _surrounded(x: Tensor, axes: Sequence[Axis]) -> Tensor:
    """Write the least number around the input, as far as windows read."""
    least = -torch.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    return torch.constant_pad_nd(x, [max(p, 0) for a in reversed(axes) for p in (a.lo, a.hi)], least)


def _avg_pool(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: Any = False,
    count_include_pad: bool = True,
    divisor_override: float | None = None,
    *,
    dilation: Any = 1,
    padding_mode: str | None = None,
) -> Tensor:
    """Average over each {n}-D window: torch's ``avg_pool{n}d``.

    Parameters
    ----------
    input : Tensor of shape ``(batch, channels, {sizes})`` or without the batch
    kernel_size : int or tuple
    stride : int or tuple, optional
        `kernel_size` by default.
    padding : int, tuple, tuple of pairs, or str
        Less than a window on each side.
    ceil_mode : bool or "cover"
        True keeps a last, truncated window; ``"cover"`` does so even if it is the only one.
    count_include_pad : bool
        Whether the padding counts as zeros. What a truncated window lacks never counts.
    divisor_override : float, optional
        What sums are divided by, instead of any count.
    dilation : int or tuple
    padding_mode : str, optional
        ``"zeros"``, ``"reflect"``, ``"symmetric"``, ``"replicate"``, ``"circular"``: values that count like others.

    Returns
    -------
    Tensor of shape ``(batch, channels, *outputs)``

    Raises
    ------
    ShapeError, DTypeError, ArgumentError, ArgumentTypeError
        With the actual numbers and the repair.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.avg_pool{n}d(torch.ones(1, 3, {five}), 2, 1, "same", count_include_pad=False).unique()
    tensor([1.])
    """
    check_input(input, ndim)
    divisor = None if divisor_override is None else number(divisor_override, "divisor_override")
    if divisor == 0:
        raise ArgumentError("divisor_override must not be 0; leave it out to divide by what is counted")
    sliding = describe(ndim, kernel_size, stride, padding, dilation, ceil_mode, padding_mode)
    if divisor is not None and divisor.is_integer() and abs(divisor) < 2**53:
        divisor = int(divisor)
    return average(input, sliding, boolean(count_include_pad, "count_include_pad"), divisor)


max_pool1d, max_pool2d, max_pool3d = (make(_max_pool, f"max_pool{n}d", n) for n in (1, 2, 3))
avg_pool1d, avg_pool2d, avg_pool3d = (make(_avg_pool, f"avg_pool{n}d", n) for n in (1, 2, 3))

for _template in (_max_pool, _avg_pool):
    _template.__doc__ = None  # it holds places to fill, and the functions made from it have it filled
__test__ = {name: globals()[name].__doc__ for name in __all__}
"""The examples, for doctest, which does not look into partial functions."""
