"""What all poolings over sliding windows share: their arguments as a spec, and maxima and averages by the sooner of two routes.

PyTorch's kernels visit every element of every window; `ninefold.ops.windows` goes axis by axis, ``sum k`` instead of ``prod k``
operations an output, all of them vectorised. Which is sooner is told by counting, with rates measured on one thread of an AVX-512
machine. What PyTorch has no kernel for, and what its kernels would add up atomically where that is forbidden, goes axis by axis.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from ninefold.ops import native_pool, state, windows
from ninefold.ops.checks import check_tensor
from ninefold.ops.fields import bare, hashable
from ninefold.ops.layout import channels_last
from ninefold.spec.axis import Axis
from ninefold.spec.channels import Grouped
from ninefold.spec.form import Form
from ninefold.spec.parse import per_axis
from ninefold.spec.pool import PoolSpec
from ninefold.tensors.border import extended_along, extension

__all__ = [
    "SMALL",
    "Sliding",
    "average",
    "bordered",
    "check_floating",
    "check_input",
    "covered",
    "describe",
    "divisors",
    "exactly",
    "extended",
    "inside",
    "largest",
    "no_channels",
    "refusal",
    "taken",
]

# Nanoseconds per element of a window in PyTorch's kernels, by reduction and whether the image is channels-last.
_KERNEL = {("max", False): 2.5, ("max", True): 0.17, ("sum", False): 1.0, ("sum", True): 0.2}
_VOLUME = 0.45  # the same for maxima in channels-last volumes
_FLAT = 0.1  # the same for 1-D maxima that need no gradient
# Nanoseconds per tap and output along an axis, and per tap, by reduction and whether a gradient follows.
_AXIS = {("max", False): 0.35, ("sum", False): 0.35, ("max", True): 4.0, ("sum", True): 1.2}
_TAP = {False: 5e3, True: 6e4}
SMALL = 4096
"""Elements below which counting would cost more than it saves."""
_FEW_TAPS = 27  # of channels-last maxima whose training step PyTorch does sooner, measured: 0.64 and 0.77 of our time
_REMEMBERED = 256  # kinds of inputs per pooling; a stream of ever new sizes starts over, and memory stays bounded


class Sliding:
    """The windows of a pooling, and the arguments of PyTorch's kernels where they do the same.

    Parameters
    ----------
    spec : PoolSpec

    Attributes
    ----------
    for_max, for_average : tuple or None
        ``(kernel_size, stride, padding, dilation, ceil_mode)``, and that without the dilation.
    """

    __slots__ = ("for_average", "for_max", "routes", "spec")

    for_max: tuple[Any, ...] | None
    for_average: tuple[Any, ...] | None

    def __init__(self, spec: PoolSpec) -> None:
        self.spec = spec
        self.routes: dict[Any, bool] = {}
        self.for_max = self.for_average = None
        if spec.padding_mode is not None or spec.ceil_mode == "cover" or isinstance(spec.padding, str):
            return
        pads = tuple(lo for lo, _ in spec.padding)
        dilated = any(d > 1 for d in spec.dilation)
        even = all(lo == hi and 2 * lo <= e for (lo, hi), e in zip(spec.padding, spec.extent, strict=True))
        # Dilated windows may lie around a small input without touching it, and PyTorch's gradient then writes out of bounds.
        if even and not (dilated and any(pads)):
            kernel, stride, around, dilation = map(_short, (spec.kernel_size, spec.stride, pads, spec.dilation))
            self.for_max = (kernel, stride, around, dilation, spec.ceil_mode)
            self.for_average = None if dilated else (kernel, stride, around, spec.ceil_mode)

    def axes(self, size: tuple[int, ...]) -> tuple[Axis, ...]:
        """Return the axes for an input of this size.

        Raises
        ------
        UnsupportedError
            If an exporter leaves a size open on which the border depends.
        """
        if state.exporting():
            self._check_size_is_known(size)
        return self.spec.axes(size) if torch.compiler.is_compiling() else _axes(self, size)

    def _check_size_is_known(self, size: tuple[int, ...]) -> None:
        """Refuse open sizes where exporters would drop the condition under which a graph is right; to Dynamo all are numbers."""
        left_open = torch.compiler.is_dynamo_compiling() or any(type(n) is not int for n in size)
        policy = isinstance(self.spec.padding, str) and self.spec.padding.startswith("same")
        if left_open and (policy or self.spec.ceil_mode) and any(s > 1 for s in self.spec.stride):
            raise UnsupportedError(
                f"padding={self.spec.padding!r} and ceil_mode={self.spec.ceil_mode!r} with stride {self.spec.stride} depend on "
                "the input's size; export for one size, or give pads as numbers and ceil_mode=False"
            )


def _short(numbers: tuple[int, ...]) -> int | tuple[int, ...]:
    """Return one number for equal ones: PyTorch unpacks it in a third of the time."""
    return numbers[0] if len(set(numbers)) == 1 else numbers


@lru_cache(maxsize=1024)
def _axes(sliding: Sliding, size: tuple[int, ...]) -> tuple[Axis, ...]:
    return sliding.spec.axes(size)


def describe(
    ndim: int,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: Any = False,
    padding_mode: str | None = None,
) -> Sliding:
    """Return the windows that a pooling's arguments describe; those of the last thousand kinds are remembered.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For what cannot be a pooling.
    """
    if torch.compiler.is_compiling():
        return _described.__wrapped__(ndim, kernel_size, stride, padding, dilation, ceil_mode, padding_mode)
    return _described(ndim, *map(hashable, (kernel_size, stride, padding, dilation, ceil_mode, padding_mode)))


@lru_cache(maxsize=1024, typed=True)
def _described(
    ndim: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any, padding_mode: str | None
) -> Sliding:
    kernel_size, stride, padding, dilation, ceil_mode, padding_mode = map(
        bare, (kernel_size, stride, padding, dilation, ceil_mode, padding_mode)
    )
    kernel = per_axis(kernel_size, ndim, "kernel_size", 1)
    steps = (
        kernel if stride is None or (isinstance(stride, (list, tuple)) and not stride) else per_axis(stride, ndim, "stride", 1)
    )
    spec = PoolSpec(kernel, steps, padding, dilation, ceil_mode, padding_mode=padding_mode)
    pairs = isinstance(padding, (list, tuple)) and any(isinstance(pad, (list, tuple)) for pad in padding)
    if not isinstance(padding, str) and not pairs:
        _check_half(spec)
    return Sliding(spec)


def _check_half(spec: PoolSpec) -> None:
    """Hold pads that are plain numbers to torch's limit; past it, a window at the border lies mostly outside."""
    for axis, ((pad, _), kernel) in enumerate(zip(spec.padding, spec.kernel_size, strict=True)):
        if 2 * pad > kernel:
            raise ArgumentError(
                f"padding={pad} along axis {axis} must be at most {kernel // 2}, half of the window of {kernel}, as in torch; "
                f"for more give pairs, such as {((pad, pad),) * spec.ndim}, or a policy, such as 'full'"
            )


def check_input(x: Any, ndim: int) -> None:
    """Raise unless this is an image, batched or not.

    Raises
    ------
    ArgumentTypeError, ShapeError, DTypeError
    """
    check_tensor(x)
    if x.ndim != ndim + 2 and x.ndim != ndim + 1:
        raise ShapeError(
            f"the input has shape {tuple(x.shape)}; it must be (batch, channels, {ndim} spatial sizes), or that without the batch"
        )


def check_floating(x: Tensor, what: str) -> None:
    """Raise unless these are floating-point or complex numbers: whole ones would be rounded on the way.

    Raises
    ------
    DTypeError
    """
    if not (x.is_floating_point() or x.is_complex()):
        raise DTypeError(f"the input has dtype {x.dtype}; {what} takes floating-point or complex numbers: call .float() first")


def exactly(x: Tensor) -> bool:
    """Whether PyTorch's kernels would add gradients up in any order, as on accelerators, where that is forbidden."""
    return not x.is_cpu and torch.are_deterministic_algorithms_enabled()


def extended(x: Tensor, axes: Sequence[Axis]) -> Tensor:
    """Write out the border that a padding mode continues: exactly the positions that the windows read are left."""
    if windows.written_out():
        return _gathered(x, axes)
    form = Form(tuple(axes), Grouped(1, 1, 1))
    return extension(form)(x) if x.ndim == len(axes) + 2 else extension(form)(x.unsqueeze(0)).squeeze(0)


def _gathered(x: Tensor, axes: Sequence[Axis]) -> Tensor:
    """Do the same in operations that a compiler sees through."""
    for dim, axis in enumerate(axes, -len(axes)):
        x = extended_along(x, x.ndim + dim, axis)
    return x


def bordered(x: Tensor, sliding: Sliding) -> tuple[Tensor, Sliding]:
    """Return the input with what its padding mode puts around it, and the windows over that; both as they are without a mode."""
    spec = sliding.spec
    if spec.padding_mode is None:
        return x, sliding
    axes = sliding.axes(tuple(x.shape[-spec.ndim :]))
    return extended(x, axes), describe(spec.ndim, spec.kernel_size, spec.stride, 0, spec.dilation)


def largest(x: Tensor, sliding: Sliding) -> Tensor:
    """Return the maximum over every window of a checked input."""
    spec = sliding.spec
    if sliding.for_max is not None and not _axiswise("max", x, sliding):
        return _explained(_MAX[spec.ndim], x, sliding, sliding.for_max)
    if spec.padding_mode is not None:
        return largest(*bordered(x, sliding))
    if x.is_complex():
        raise DTypeError(f"the input has dtype {x.dtype}, and complex numbers have no order: take the maximum of real ones")
    return windows.maximum(x, sliding.axes(tuple(x.shape[-spec.ndim :])))


def average(x: Tensor, sliding: Sliding, include_pad: bool = True, divisor: float | None = None) -> Tensor:
    """Return the average over every window of a checked input; over nothing it is zero.

    Parameters
    ----------
    x : Tensor
    sliding : Sliding
    include_pad : bool
        Count the padding, though not what a window truncated by `ceil_mode` reads behind it.
    divisor : float, optional
        Instead of any count.
    """
    spec = sliding.spec
    check_floating(x, "an average")
    if spec.ndim == 3 and x.shape[-4] == 0:
        raise no_channels(x)  # as torch's, which takes images of none, but not volumes
    fits = divisor is None or isinstance(divisor, int)  # all that PyTorch's kernels divide by
    if fits and sliding.for_average is not None and not _lacking(x, spec) and not _axiswise("sum", x, sliding):
        return _averaged(x, sliding, sliding.for_average, include_pad, divisor)
    if spec.padding_mode is not None:
        return average(*bordered(x, sliding), True, divisor)
    if not windows.written_out() and not x.is_complex():
        axes = sliding.axes(tuple(x.shape[-spec.ndim :]))
        plan = native_pool.find("sum", x, axes, divide=divisors(axes, spec, include_pad, divisor))
        if plan is not None:
            return windows.pooled(plan, x)
    if x.dtype in (torch.float16, torch.bfloat16):
        return average(x.float(), sliding, include_pad, divisor).to(x.dtype)
    axes = sliding.axes(tuple(x.shape[-spec.ndim :]))
    pads = spec.pads([a.n_in for a in axes]) if include_pad else [(0, 0)] * spec.ndim
    count = divisor if divisor is not None else _counts(axes, pads, x)
    return windows.total(x, axes) / count


def _lacking(x: Tensor, spec: PoolSpec) -> bool:
    """Whether PyTorch's kernel for volumes refuses, or gives them back in another memory format.

    It refuses half precision, and less than a window even where the padding makes room.
    """
    if spec.ndim < 3:
        return False
    other = x.device.type == "cpu" and (x.dtype in (torch.float16, torch.bfloat16) or channels_last(x))
    return other or any(n < k for n, k in zip(x.shape[-3:], spec.kernel_size, strict=True))


def _averaged(x: Tensor, sliding: Sliding, arguments: tuple[Any, ...], include_pad: bool, divisor: float | None) -> Tensor:
    """Call PyTorch's kernel; the one of 1-D averages takes no divisor."""
    if sliding.spec.ndim > 1:
        return _explained(_AVERAGE[sliding.spec.ndim], x, sliding, (*arguments, include_pad, divisor))
    if divisor is None:
        return _explained(torch.avg_pool1d, x, sliding, (*arguments, include_pad))
    kernel, stride, pad, ceil = arguments
    flat = ((1, kernel), (1, stride), (0, pad), ceil, include_pad, divisor)
    return _explained(lambda x, *given: _AVERAGE[2](x.unsqueeze(-2), *given).squeeze(-2), x, sliding, flat)


def _explained(kernel: Callable[..., Tensor], x: Tensor, sliding: Sliding, arguments: tuple[Any, ...]) -> Tensor:
    """Call a kernel of PyTorch's; if it refuses, say why in our words where the sizes or the numbers are the reason."""
    try:
        return kernel(x, *arguments)
    except RuntimeError as error:
        sliding.spec.axes(x.shape[-sliding.spec.ndim :])
        raise refusal(x, error, sliding.spec.ndim) from error


def refusal(x: Tensor, error: RuntimeError, ndim: int) -> RuntimeError:
    """Return what a kernel of PyTorch's that refuses an input should have said, or what it did say."""
    if state.lacks_kernel(error):
        repair = "take the real and the imaginary part" if x.is_complex() else "call .float() first"
        return DTypeError(f"the input has dtype {x.dtype}, for which there is no such pooling on {x.device.type}: {repair}")
    if x.shape[-ndim - 1] == 0:
        return no_channels(x)
    if 0 in x.shape[-ndim:]:
        return ShapeError(f"the input has shape {tuple(x.shape)}; it must have at least 1 position along each of {ndim} axes")
    return error


def no_channels(x: Tensor) -> ShapeError:
    """Return the error for an input of no channels.

    Examples
    --------
    >>> print(no_channels(torch.zeros(2, 0, 5)))
    the input has shape (2, 0, 5) and no channels; give at least 1
    """
    return ShapeError(f"the input has shape {tuple(x.shape)} and no channels; give at least 1")


_MAX: dict[int, Any] = {1: torch.max_pool1d, 2: torch.max_pool2d, 3: torch.max_pool3d}
_AVERAGE: dict[int, Any] = {2: torch._C._nn.avg_pool2d, 3: torch._C._nn.avg_pool3d}  # noqa: SLF001  where torch.nn.functional has them


def covered(axis: Axis, device: Any, lo: int = 0, hi: int = 0) -> Tensor:
    """Return for every output how many taps read inside the input, or its padding by `lo` and `hi`.

    Examples
    --------
    >>> covered(Axis(3, 2, 1, 1, n_in=5, n_out=3), "cpu"), covered(Axis(3, 2, 1, 1, n_in=5, n_out=3), "cpu", 1, 0)
    (tensor([2, 3, 2]), tensor([3, 3, 2]))
    """
    return windows.covered(axis, device, -lo, axis.n_in + hi)


def inside(axis: Axis, device: Any) -> Tensor:
    """Return for every output whether each of its taps reads inside the input: booleans of shape ``(n_out, kernel)``.

    Examples
    --------
    >>> inside(Axis(3, 2, 1, 1, n_in=5, n_out=3), "cpu")[0]
    tensor([False,  True,  True])
    """
    first = torch.arange(axis.n_out, device=device) * axis.stride - axis.lo
    at = first[:, None] + torch.arange(axis.kernel, device=device) * axis.dilation
    return (at >= 0) & (at < axis.n_in)


def _counts(axes: Sequence[Axis], pads: Sequence[tuple[int, int]], x: Tensor) -> Tensor | int:
    """Return what to divide a sum by: a number where every window is whole, else one for each; 1 where it would be 0."""
    whole = all(a.lo <= lo and a.hi <= hi for a, (lo, hi) in zip(axes, pads, strict=True))
    counts: Any = 1 if whole else torch.ones((), dtype=x.dtype, device=x.device)
    for a, (lo, hi) in zip(axes, pads, strict=True):
        counts = counts * a.kernel if whole else counts.unsqueeze(-1) * covered(a, x.device, lo, hi).clamp_min(1)
    return counts  # type: ignore[no-any-return]


def divisors(axes: tuple[Axis, ...], spec: PoolSpec, include_pad: bool, divisor: float | None = None) -> native_pool.Divide:
    """Return what an average divides its sums by: one number where all windows count alike, else what is counted along an axis.

    Examples
    --------
    >>> spec = PoolSpec((3,), stride=2, padding=1)
    >>> divisors(spec.axes(5), spec, False), divisors(spec.axes(5), spec, True)
    (Divide(number=1.0, counts=((0, 5),)), Divide(number=3.0, counts=(None,)))
    """
    if divisor is not None:
        return native_pool.Divide(float(divisor), (None,) * spec.ndim)
    pads = spec.pads([a.n_in for a in axes]) if include_pad else [(0, 0)] * spec.ndim
    number, counts = 1.0, []
    for a, (lo, hi) in zip(axes, pads, strict=True):
        whole = a.lo <= lo and a.hi <= hi
        number *= a.kernel if whole else 1
        counts.append(None if whole else (-lo, a.n_in + hi))
    return native_pool.Divide(number, tuple(counts))


def _axiswise(kind: str, x: Tensor, sliding: Sliding) -> bool:
    """Whether to go axis by axis although PyTorch has a kernel; remembered for a kind of input."""
    if torch.compiler.is_compiling():
        return False
    if not x.is_cpu:
        return exactly(x)
    if x.numel() < SMALL or not state.is_plain(x, x):
        return False
    recorded = x.requires_grad and torch.is_grad_enabled()
    key = (kind, x.shape, x.stride(), x.dtype, recorded)
    known = sliding.routes.get(key)
    if known is None:
        if len(sliding.routes) >= _REMEMBERED:
            sliding.routes.clear()
        known = sliding.routes[key] = _sooner(kind, x, sliding, recorded)
    return known


def _sooner(kind: str, x: Tensor, sliding: Sliding, recorded: bool) -> bool:
    if (native := _native_sooner(kind, x, sliding, recorded)) is not None:
        return native
    if x.dtype not in (torch.float32, torch.float64) and not (kind == "max" and x.is_floating_point()):
        return kind == "sum" and x.is_complex()
    try:
        axes = sliding.axes(tuple(x.shape[-sliding.spec.ndim :]))
    except ShapeError:
        return False  # PyTorch's kernel refuses, too, and its refusal is explained
    size, work = x.numel(), 0.0
    for a in reversed(axes):
        size = size // a.n_in * a.n_out
        work += a.kernel * (_TAP[recorded] + _AXIS[kind, recorded] * size)
    return _kernel_rate(kind, x, recorded, len(axes)) * size * prod(a.kernel for a in axes) > work


def _native_sooner(kind: str, x: Tensor, sliding: Sliding, recorded: bool) -> bool | None:
    """Whether the kernels of `native_pool` are sooner than PyTorch's; None where they are not there."""
    try:
        axes = sliding.axes(tuple(x.shape[-sliding.spec.ndim :]))
    except ShapeError:
        return None
    if native_pool.find("max", x, axes) is None:
        return None
    # ours look for the maximum again; PyTorch's remembers where it was, which pays where it is as fast forward
    return not (recorded and kind == "max" and channels_last(x) and prod(a.kernel for a in axes) <= _FEW_TAPS)


def _kernel_rate(kind: str, x: Tensor, recorded: bool, ndim: int) -> float:
    if ndim == 1 and kind == "max" and not recorded:
        return _FLAT
    last = channels_last(x)
    rate = _VOLUME if last and ndim == 3 else _KERNEL[kind, last]
    return rate * (2 if recorded and kind == "sum" else 1)


def taken(x: Tensor, at: Tensor, ndim: int) -> Tensor:
    """Return the elements at flat positions in the image; torch's gather has a deterministic gradient if one is asked for.

    They, and the gradient, are in the memory format of the image.
    """
    if x.ndim != ndim + 2 or not channels_last(x):
        return x.flatten(-ndim).gather(-1, at.flatten(-ndim)).view(at.shape)
    pixels, where = (t.movedim(1, -1).flatten(1, -2) for t in (x, at))
    found: Tensor = pixels.gather(1, where).unflatten(1, at.shape[2:])
    return found.movedim(-1, 1)
