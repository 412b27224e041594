"""Maximum pooling by windows at random steps, so that sizes shrink by any ratio (Graham 2014, arXiv 1412.6071).

Along an axis of n positions, ``o`` windows of ``k`` start at ``floor((i + u) a) - floor(u a)`` for ``a = (n - k) / (o - 1)`` and
one random number u for each example, channel and axis; the last one ends with the axis.
"""

from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.functional.named import make
from ninefold.functional.sliding import check_input, exactly, refusal, taken
from ninefold.ops.layout import channels_last
from ninefold.spec.parse import number, per_axis
from ninefold.tensors.layout import in_format

__all__ = ["fractional_max_pool2d", "fractional_max_pool3d"]

_KERNELS: dict[int, Any] = {n: getattr(torch._C._nn, f"fractional_max_pool{n}d") for n in (2, 3)}  # noqa: SLF001


def _fractional_max_pool(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """Take maxima over {n}-D windows at random, overlapping steps: torch's ``fractional_max_pool{n}d``.

    Parameters
    ----------
    input : Tensor of shape ``(batch, channels, {sizes})`` or without the batch
    kernel_size : int or tuple
    output_size : int or tuple, optional
        Give this or `output_ratio`.
    output_ratio : float or tuple, optional
        Of the output's size to the input's, rounded down; between 0 and 1.
    return_indices : bool
        Return also the flat position of every maximum.
    _random_samples : Tensor of shape ``(batch, channels, {n})``, optional
        Numbers from 0 to 1 that say where the windows start, in torch's order: width and height, or depth, height and width.
        Drawn by torch's generator by default, so that one seed gives the windows that torch's function has.

    Returns
    -------
    Tensor of shape ``(batch, channels, *output_size)``, or that and one of int64

    Raises
    ------
    ShapeError, DTypeError, ArgumentError, ArgumentTypeError
        With the actual numbers and the repair.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.fractional_max_pool{n}d(torch.rand(1, 3, {seven}), 2, output_size=5).shape
    torch.Size([1, 3, {five}])
    """
    check_input(input, ndim)
    if not input.is_floating_point():
        raise DTypeError(f"the input has dtype {input.dtype}; there is no such pooling of it: call .float() first")
    kernel = per_axis(kernel_size, ndim, "kernel_size", 1)
    size = _size(input, ndim, output_size, output_ratio)
    for k, (n, w, o) in enumerate(zip(input.shape[-ndim:], kernel, size, strict=True)):
        needed = o + w - (1 if ndim == 2 else 0)  # torch's kernel for volumes wants one position more than it has a use for
        if needed > n:
            raise ShapeError(
                f"{o} windows of {w} along axis {k} need {needed} positions, but the input has {n}; give a smaller output_size"
            )
    samples = _random_samples
    if samples is None:
        batch = 1 if input.ndim == ndim + 1 else len(input)
        samples = torch.rand(batch, input.shape[-ndim - 1], ndim, dtype=input.dtype, device=input.device)
    try:
        z, at = _KERNELS[ndim](input, kernel, size, samples)
    except RuntimeError as error:
        raise refusal(input, error, ndim) from error
    z = in_format(taken(input, at, ndim) if exactly(input) else z, channels_last(input))
    return (z, at) if return_indices else z


def _size(x: Tensor, ndim: int, output_size: Any, output_ratio: Any) -> tuple[int, ...]:
    """Return the output's size, from itself or from a ratio."""
    if output_size is not None:
        return per_axis(output_size, ndim, "output_size", 0)
    if output_ratio is None:
        raise ArgumentError("give output_size or output_ratio, got neither")
    ratios = tuple(output_ratio) if isinstance(output_ratio, (tuple, list)) else (output_ratio,) * ndim
    if len(ratios) != ndim:
        raise ArgumentError(f"output_ratio must be one number or {ndim} (one per spatial axis), got {ratios}")
    for ratio in ratios:
        if not 0 < number(ratio, "output_ratio") < 1:
            raise ArgumentError(f"output_ratio={ratio} must lie between 0 and 1")
    return tuple(int(n * ratio) for n, ratio in zip(x.shape[-ndim:], ratios, strict=True))


fractional_max_pool2d, fractional_max_pool3d = (make(_fractional_max_pool, f"fractional_max_pool{n}d", n) for n in (2, 3))

_fractional_max_pool.__doc__ = None  # it holds places to fill, and the functions made from it have it filled
__test__ = {name: globals()[name].__doc__ for name in __all__}
"""The examples, for doctest, which does not look into partial functions."""
