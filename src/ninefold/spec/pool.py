"""PoolSpec: the same axes as a convolution, a reduction instead of a kernel."""

from dataclasses import dataclass
from typing import Any

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.spec import parse
from ninefold.spec.axis import Axis
from ninefold.spec.padding import POLICIES

__all__ = ["PoolSpec"]

_REDUCTIONS = ("max", "average")
_MODULES = {f"{name}Pool{ndim}d": (red, ndim) for name, red in (("Max", "max"), ("Avg", "average")) for ndim in (1, 2, 3)}


@dataclass(frozen=True)
class PoolSpec:
    """Pooling as frozen integers: no tensor, no torch.

    Parameters
    ----------
    kernel_size : int or tuple of int
        Window per spatial axis. The number of axes is read off the first tuple among the arguments; 2 without one.
    stride : int or tuple of int, optional
        Steps between windows; the window itself by default.
    padding : int, tuple of int, tuple of pairs, or str
        As in `ConvSpec`. Unless `padding_mode` says otherwise nothing stands outside: it takes no part in a maximum.
    dilation : int or tuple of int
        Steps between the elements of a window.
    ceil_mode : bool or {"cover"}
        Whether a last, truncated window is kept, if it starts inside the input or the padding before it (torch's rule).
        ``"cover"`` drops no detector whatever the size (figure 9.10 of the book): ``ceil((n - w) / s) + 1`` windows. It is
        torch's rule, and one window also for an input that is shorter than ``w - s + 1``, where torch has none.
    reduction : str
        ``"max"`` or ``"average"``.
    padding_mode : str, optional
        What stands outside instead of nothing: a key of `ninefold.spec.padding.MODES`. ``"zeros"`` are then values like others.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be a pooling layer.

    Examples
    --------
    >>> from dataclasses import replace
    >>> pool = PoolSpec((3, 2), stride=(2, 3), padding=(1, 0))
    >>> pool.output_size((8, 10)), replace(pool, ceil_mode=True).output_size((8, 10))
    ((4, 3), (5, 4))
    """

    kernel_size: Any
    stride: Any = None
    padding: Any = 0
    dilation: Any = 1
    ceil_mode: Any = False
    reduction: str = "max"
    padding_mode: str | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        pads = () if isinstance(self.padding, str) else (self.padding,)
        ndim = parse.ndim_of(self.kernel_size, self.stride, self.dilation, *pads)
        put("kernel_size", parse.per_axis(self.kernel_size, ndim, "kernel_size", 1))
        put("stride", self.kernel_size if self.stride is None else parse.per_axis(self.stride, ndim, "stride", 1))
        put("dilation", parse.per_axis(self.dilation, ndim, "dilation", 1))
        put("padding", parse.paddings(self.padding, ndim))
        if self.reduction not in _REDUCTIONS:
            raise ArgumentError(f"reduction={self.reduction!r} is not one of {list(_REDUCTIONS)}")
        if not isinstance(self.ceil_mode, bool) and self.ceil_mode != "cover":
            raise ArgumentError(f"ceil_mode={self.ceil_mode!r} is not True, False or 'cover'")
        if self.padding_mode is not None:
            parse.padding_mode(self.padding_mode)
        if isinstance(self.padding, str):
            return
        for axis, ((lo, hi), e) in enumerate(zip(self.padding, self.extent, strict=True)):
            # wider, and the first or last window would lie wholly outside: a maximum over nothing
            if not (0 <= lo < e and 0 <= hi < e):
                raise ArgumentError(
                    f"padding ({lo}, {hi}) along axis {axis} must lie between 0 and {e - 1}, for a window of "
                    f"{self.kernel_size[axis]} with dilation {self.dilation[axis]} spans {e} positions"
                )

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel_size)

    @property
    def extent(self) -> tuple[int, ...]:
        """Input positions that one window spans, per axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True))

    def pads(self, input_size: Any) -> parse.Pads:
        """Return the pads per axis for an input of this size."""
        if not isinstance(self.padding, str):
            return self.padding  # type: ignore[no-any-return]
        policy = POLICIES[self.padding]
        sizes = parse.size(input_size, self.ndim, "input_size")
        return tuple(policy(n, e, s) for n, e, s in zip(sizes, self.extent, self.stride, strict=True))

    def output_size(self, input_size: Any) -> tuple[int, ...]:
        """Return the number of windows per axis.

        Raises
        ------
        ShapeError
            If not a single window fits.

        Examples
        --------
        >>> PoolSpec((3,), stride=2, ceil_mode=True).output_size(6)  # figure 9.10 of the book
        (3,)
        """
        return tuple(axis.n_out for axis in self.axes(input_size))

    def axes(self, input_size: Any) -> tuple[Axis, ...]:
        """Return the axes for an input of this size; what stands outside reads as None.

        Examples
        --------
        >>> (axis,) = PoolSpec((3,), stride=2, ceil_mode=True).axes(6)
        >>> [axis.reads(j) for j in range(axis.n_out)]
        [(0, 1, 2), (2, 3, 4), (4, 5, None)]
        """
        sizes = parse.size(input_size, self.ndim, "input_size")
        return tuple(
            Axis(k, s, d, lo, n, self._windows(axis, n, lo, hi), mode=self.padding_mode or "zeros")
            for axis, (k, s, d, n, (lo, hi)) in enumerate(
                zip(self.kernel_size, self.stride, self.dilation, sizes, self.pads(sizes), strict=True)
            )
        )

    @classmethod
    def from_module(cls, module: Any) -> "PoolSpec":
        """Return the spec of a ``MaxPool`` or ``AvgPool`` layer of ``torch.nn``.

        Raises
        ------
        ArgumentTypeError
            If the module is neither.
        """
        # the class tells the number of axes, which MaxPool1d(3) and MaxPool3d(3) do not keep
        names = [base.__name__ for base in type(module).__mro__]
        known = next((name for name in names if name in _MODULES), None)
        if known is None:
            raise ArgumentTypeError(f"{names[0]} is no pooling layer that is known here; give one of {', '.join(_MODULES)}")
        reduction, ndim = _MODULES[known]
        return cls(
            parse.per_axis(module.kernel_size, ndim, "kernel_size", 1),
            module.stride,
            module.padding,
            getattr(module, "dilation", 1),
            module.ceil_mode,
            reduction,
            getattr(module, "padding_mode", None),
        )

    def _windows(self, axis: int, n: int, lo: int, hi: int) -> int:
        e, s = self.extent[axis], self.stride[axis]
        room = n + lo + hi - e
        count: int = room // s + 1
        if self.ceil_mode and room % s and (count * s < n + lo):
            count += 1
        if self.ceil_mode == "cover":
            count = max(count, 1)
        if n == 0 or count < 1:
            raise ShapeError(
                f"a window of {self.kernel_size[axis]} with dilation {self.dilation[axis]} spans {e} positions, but "
                f"the padded input has only {n + lo + hi} along axis {axis} (input size {n} + padding ({lo}, {hi})); "
                f"give an input of at least {max(e - lo - hi, 1)}"
            )
        return count
