"""Poolings between average and maximum: norms and generalised means, distance-weighted averages, log-sum-exp.

Norm and log-sum-exp of a window are those of the norms and log-sum-exps along its axes, so that these go axis by axis, too.
"""

from collections.abc import Sequence
from functools import reduce
from math import inf, prod
from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, DTypeError
from ninefold.functional.named import make
from ninefold.functional.sliding import (
    SMALL,
    Sliding,
    average,
    bordered,
    check_floating,
    check_input,
    covered,
    describe,
    divisors,
    inside,
    largest,
)
from ninefold.ops import native_pool, windows
from ninefold.ops.layout import channels_last
from ninefold.spec.axis import Axis
from ninefold.spec.parse import number
from ninefold.tensors.layout import in_format

__all__ = [
    "gaussian_pool1d",
    "gaussian_pool2d",
    "gaussian_pool3d",
    "log_sum_exp_pool1d",
    "log_sum_exp_pool2d",
    "log_sum_exp_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
]

_CONVENTIONS = ("torch", "norm", "mean")
_STEEP = 4  # above this power single precision soon overflows, and logarithms are added instead


def _lp_pool(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    norm_type: float,
    kernel_size: Any,
    stride: Any = None,
    ceil_mode: Any = False,
    *,
    padding: Any = 0,
    dilation: Any = 1,
    padding_mode: str | None = None,
    convention: str = "torch",
) -> Tensor:
    """Take the power average over each {n}-D window: torch's ``lp_pool{n}d``, the norm, or the generalised mean.

    ``convention`` says which:

    * ``"torch"``: ``(sum x^p)^(1/p)``, signs and all, so that odd powers of negative numbers cancel and negative sums are NaN. A
      window that is truncated, or reaches into the padding, is scaled up as if it were whole.
    * ``"norm"``: ``(sum |x|^p)^(1/p)`` over what the window covers.
    * ``"mean"``: ``(mean |x|^p)^(1/p)`` over what the window covers. It is the average of absolute values for 1, grows with p,
      and is their maximum for infinity.

    Where a window is all zero its gradient is zero.

    Parameters
    ----------
    input : Tensor of shape ``(batch, channels, {sizes})`` or without the batch
    norm_type : float
        The power p, above 0; infinity is the maximum of absolute values.
    kernel_size, stride, ceil_mode, padding, dilation, padding_mode
        As in ``max_pool{n}d``.
    convention : "torch", "norm" or "mean"

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
    >>> F.lp_pool{n}d(-torch.ones(1, 1, {four}), 3, 2, convention="mean").unique()
    tensor([1.])
    """
    check_input(input, ndim)
    check_floating(input, "an Lp norm")
    p = number(norm_type, "norm_type")
    if not p > 0:
        raise ArgumentError(f"norm_type must be above 0, got {norm_type}")
    if convention not in _CONVENTIONS:
        raise ArgumentError(f"convention={convention!r} is not one of {list(_CONVENTIONS)}")
    x, sliding = bordered(input, describe(ndim, kernel_size, stride, padding, dilation, ceil_mode, padding_mode))
    whole = prod(sliding.spec.kernel_size)
    if p in (1, 2) and not (p == 1 and convention == "torch") and (y := _at_once(x, sliding, p, convention)) is not None:
        return y
    if p == inf:
        return largest(x.abs(), sliding)
    if convention == "torch":
        return _root(average(_power(x, p), sliding, False) * whole, p)
    if p <= _STEEP:
        return _root(average(_power(x.abs(), p), sliding, False, 1 if convention == "norm" else None), p)
    axes, zero = sliding.axes(tuple(x.shape[-ndim:])), x == 0
    y = log_sum_exp(torch.where(zero, -inf, torch.where(zero, 1, x.abs()).log()), axes, p).exp()
    # A product also for the mean: exp keeps its result for the gradient, which who gets it may change in place.
    return y * (_covered(axes, x).pow(1 / p) if convention == "norm" else 1)


def _at_once(x: Tensor, sliding: Sliding, p: float, convention: str) -> Tensor | None:
    """Return norms by the kernels of `native_pool`, which do it in one pass over memory; None where these cannot."""
    if windows.written_out() or x.numel() < SMALL:
        return None
    axes = sliding.axes(tuple(x.shape[-sliding.spec.ndim :]))
    divide = None
    if convention != "norm":
        divide = divisors(axes, sliding.spec, False)
        if convention == "torch":  # scaled up as if they were whole
            divide = divide._replace(number=divide.number / prod(a.kernel for a in axes))
    plan = native_pool.find("sum", x, axes, *(("square", "root") if p == 2 else ("abs", "")), divide)
    return None if plan is None else windows.pooled(plan, x)


def _power(x: Tensor, p: float) -> Tensor:
    """Return ``x^p`` with a finite gradient at 0."""
    if p == 1 or p >= 2:
        return x.pow(p)
    zero = x == 0
    return torch.where(zero, 0, torch.where(zero, 1, x).pow(p))


def _root(s: Tensor, p: float) -> Tensor:
    """Return ``s^(1/p)`` with a gradient of zero at 0."""
    if not (s.requires_grad and torch.is_grad_enabled()):
        return s.pow(1 / p)
    zero = s == 0
    return torch.where(zero, 0, torch.where(zero, 1, s).pow(1 / p))


def _covered(axes: Sequence[Axis], x: Tensor) -> Tensor:
    """Return how many elements every window covers."""
    counts = torch.ones((), dtype=x.real.dtype, device=x.device)
    for axis in axes:
        counts = counts.unsqueeze(-1) * covered(axis, x.device)
    return counts


def _gaussian_pool(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: Any = False,
    *,
    sigma: Any,
    padding_mode: str | None = None,
) -> Tensor:
    """Average over each {n}-D window with weights that fall off with the distance to its centre.

    The weights are ``exp(-r^2 / (2 sigma^2))`` for r in positions of the input, and sum to 1 over what the window covers: nothing
    darkens at a border. ``sigma=inf`` is the average, ``sigma=0`` the element nearest to the centre (the average of those equally
    near).

    Parameters
    ----------
    input : Tensor of shape ``(batch, channels, {sizes})`` or without the batch
    kernel_size, stride, padding, dilation, ceil_mode, padding_mode
        As in ``max_pool{n}d``.
    sigma : float or tuple of float
        One for all axes or one for each, at least 0.

    Returns
    -------
    Tensor of shape ``(batch, channels, *outputs)``

    Raises
    ------
    ShapeError, ArgumentError, ArgumentTypeError
        With the actual numbers and the repair.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> x = torch.rand(1, 1, {five})
    >>> torch.equal(F.gaussian_pool{n}d(x, 3, 1, "same", sigma=0), x)
    True
    """
    check_input(input, ndim)
    check_floating(input, "a weighted average")
    each = tuple(sigma) if isinstance(sigma, (tuple, list)) else (sigma,) * ndim
    if len(each) != ndim:
        raise ArgumentError(f"sigma must be one number or {ndim} (one per spatial axis), got {each}")
    widths = [number(s, "sigma") for s in each]
    if not all(s >= 0 for s in widths):
        raise ArgumentError(f"sigma must be at least 0, got {sigma}")
    x, sliding = bordered(input, describe(ndim, kernel_size, stride, padding, dilation, ceil_mode, padding_mode))
    axes = sliding.axes(tuple(x.shape[-ndim:]))
    y = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    weights = [_bell(a, s).to(y) for a, s in zip(axes, widths, strict=True)]
    return windows.total(y, axes, weights).to(x.dtype)


def _bell(axis: Axis, sigma: float) -> Tensor:
    """Return the weights of every output's taps, of shape ``(n_out, kernel)``: zero outside, and of sum 1."""
    steps = torch.arange(axis.kernel, dtype=torch.double, device="cpu") * axis.dilation
    outside = ~inside(axis, "cpu")
    further = (steps - steps.mean()).square().expand_as(outside).masked_fill(outside, inf)
    nearest = further.amin(1, keepdim=True)
    further = further - nearest.masked_fill(nearest == inf, 0)
    fall = -further / (2 * sigma**2) if sigma else further.new_zeros(()).where(further == 0, -inf)
    fall = fall.masked_fill(outside, -inf)
    return fall.softmax(1).masked_fill(outside.all(1, keepdim=True), 0)


def _log_sum_exp_pool(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: Any = False,
    *,
    r: float = 1.0,
    padding_mode: str | None = None,
) -> Tensor:
    """Take ``log(mean exp(r x)) / r`` over each {n}-D window, between average and maximum (Pinheiro and Collobert 2015).

    It is the average for ``r=0``, grows with r, and is the maximum for ``r=inf``; a negative r goes towards the minimum. It
    neither overflows for large r nor cancels for small.

    Parameters
    ----------
    input : Tensor of shape ``(batch, channels, {sizes})`` or without the batch
    kernel_size, stride, padding, dilation, ceil_mode, padding_mode
        As in ``max_pool{n}d``; the mean is over what the window covers.
    r : float

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
    >>> x = torch.tensor([1.0, 3.0]).log().reshape(1, 1, {ones}2)
    >>> F.log_sum_exp_pool{n}d(x, ({ones}2,)).exp().flatten()
    tensor([2.])
    """
    check_input(input, ndim)
    steep = number(r, "r")
    if input.is_complex() or not input.is_floating_point():
        raise DTypeError(f"the input has dtype {input.dtype}; log-sum-exp takes floating-point numbers")
    x, sliding = bordered(input, describe(ndim, kernel_size, stride, padding, dilation, ceil_mode, padding_mode))
    if steep == 0:
        return average(x, sliding, include_pad=False)
    if abs(steep) == inf:
        return largest(x, sliding) if steep > 0 else -largest(-x, sliding)
    axes = sliding.axes(tuple(x.shape[-ndim:]))
    return log_sum_exp(x, axes, steep) if steep > 0 else -log_sum_exp(-x, axes, -steep)


def log_sum_exp(x: Tensor, axes: Sequence[Axis], r: float) -> Tensor:
    """Return ``log(mean exp(r x)) / r`` over windows for a positive r; over nothing, and over minus infinities, that.

    Examples
    --------
    >>> log_sum_exp(torch.tensor([0.0, 0.0, 1.0]), [Axis(2, 1, 1, 0, n_in=3, n_out=2)], 1.0)
    tensor([0.0000, 0.6201])
    """
    y = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    for k, axis in enumerate(reversed(axes), 1):
        y = _along(y, axis, -k, r)
    return in_format(y.to(x.dtype), channels_last(x))


def _along(x: Tensor, axis: Axis, dim: int, r: float) -> Tensor:
    """Return log-mean-exp along one axis.

    With the largest M of a window it is ``M + log1p(mean expm1(r (x - M))) / r``: nothing overflows, and for a small r nothing
    cancels. To the gradient M is a constant, for it has none. The largest element itself differs from it by 0, where a clamp has
    one derivative or another by the version of PyTorch: hence there is none.
    """
    if not axis.border and axis.kernel * axis.n_out <= axis.n_in:
        window = x.unfold(dim, axis.extent, axis.stride)[..., :: axis.dilation]
        top, base, finite = _top(window.detach().amax(-1))
        mean = _shrunk(window, base.unsqueeze(-1), finite.unsqueeze(-1), r).mean(-1)
    else:
        parts = windows.slices(x, axis, dim, -inf)
        top, base, finite = _top(reduce(torch.maximum, [part.detach() for part in parts]))
        seen = inside(axis, x.device).to(x.dtype).T.reshape(axis.kernel, -1, *(1,) * (-dim - 1))
        mean = sum(_shrunk(part, base, finite, r) * tap for part, tap in zip(parts, seen, strict=True)) / seen.sum(0).clamp_min(1)
    return torch.where(finite, base + mean.log1p() / r, top)


def _top(largest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest elements, themselves where they are finite and 0 elsewhere, and where that is."""
    finite = largest.isfinite()
    return largest, largest.where(finite, 0), finite


def _shrunk(x: Tensor, base: Tensor, finite: Tensor, r: float) -> Tensor:
    return (r * (x - base).where(finite, 0)).expm1()


lp_pool1d, lp_pool2d, lp_pool3d = (make(_lp_pool, f"lp_pool{n}d", n) for n in (1, 2, 3))
gaussian_pool1d, gaussian_pool2d, gaussian_pool3d = (make(_gaussian_pool, f"gaussian_pool{n}d", n) for n in (1, 2, 3))
log_sum_exp_pool1d, log_sum_exp_pool2d, log_sum_exp_pool3d = (
    make(_log_sum_exp_pool, f"log_sum_exp_pool{n}d", n) for n in (1, 2, 3)
)

for _template in (_lp_pool, _gaussian_pool, _log_sum_exp_pool):
    _template.__doc__ = None  # it holds places to fill, and the functions made from it have it filled
__test__ = {name: globals()[name].__doc__ for name in __all__}
"""The examples, for doctest, which does not look into partial functions."""
