"""ConvSpec: what a convolution is, before any size is known."""

import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any, Self

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.spec import parse
from ninefold.spec.axis import Axis
from ninefold.spec.channels import Channels, ChannelTable, Grouped
from ninefold.spec.form import Form
from ninefold.spec.padding import POLICIES

__all__ = ["ConvSpec"]

_ATTRIBUTES = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
    "bias",
)


@dataclass(frozen=True)
class ConvSpec:
    """A convolution as frozen integers: no tensor, no torch.

    Channels are those of the form: `in_channels` belong to ``V``, `out_channels` to ``G``. A `transposed` spec
    describes the same form, whose layer reads ``G`` and gives ``V``.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of ``V`` and of ``G``. A convolution may have no input channels: it is run, as PyTorch's is, not planned.
    kernel_size : int or tuple of int
        Taps per spatial axis. The number of axes is read off the first tuple among the arguments; without one it is 2.
    stride, dilation : int or tuple of int
    padding : int, tuple of int, tuple of pairs, or str
        Pads per axis, as pairs ``((top, bottom), (left, right))`` or symmetric, negative ones crop; or a policy:
        ``"valid"``, ``"same"`` (which is ``"same_upper"``), ``"same_lower"``, ``"full"``, ``"causal"``.
    groups : int
        Groups of channels that do not see one another.
    padding_mode : str
        ``"zeros"``, ``"reflect"``, ``"symmetric"``, ``"replicate"`` or ``"circular"``.
    flip_kernel : bool
        True convolution instead of cross-correlation (eq. 9.4 against 9.6 of the book).
    period : int, tuple of int, or None
        Kernels cycled through along the outputs (eq. 9.10, tiled); None along an axis is unshared (eq. 9.9).
        The default, 1, is a convolution.
    table : sequence of (int, int), optional
        An explicit channel table of edges ``(output, input)`` instead of groups (fig. 9.15).
    bias : bool
        Whether the layer adds one number per output channel; counts in `parameters`.
    transposed : bool
        Whether the layer computes ``h``: transposed convolution (eq. 9.13).
    output_padding : int or tuple of int
        Of a transposed spec: positions added to the smallest size that ``V`` can have. Not with ``"same"``, which gives
        the largest.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be a convolution.

    Examples
    --------
    >>> spec = ConvSpec(3, 96, 11, stride=4)
    >>> spec.output_size((227, 227)), spec.parameters(), spec.macs((227, 227))
    ((55, 55), 34848, 105415200)
    >>> ConvSpec(1, 1, (3,), padding="causal").output_size(10)
    (10,)
    """

    in_channels: int
    out_channels: int
    kernel_size: Any
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    padding_mode: str = "zeros"
    flip_kernel: bool = False
    period: Any = 1
    table: tuple[tuple[int, int], ...] | None = None
    bias: bool = False
    transposed: bool = False
    output_padding: Any = 0

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        plain = not self.transposed and self.table is None and self.period in (1, (1,), (1, 1), (1, 1, 1))
        put("in_channels", parse.integer(self.in_channels, "in_channels", 0 if plain else 1))
        for name in ("out_channels", "groups"):
            put(name, parse.integer(getattr(self, name), name, 1))
        pads = () if isinstance(self.padding, str) else (self.padding,)
        ndim = parse.ndim_of(self.kernel_size, self.stride, self.dilation, *pads, self.output_padding, self.period)
        put("kernel_size", parse.per_axis(self.kernel_size, ndim, "kernel_size", 1))
        put("stride", parse.per_axis(self.stride, ndim, "stride", 1))
        put("dilation", parse.per_axis(self.dilation, ndim, "dilation", 1))
        put("padding", parse.paddings(self.padding, ndim))
        put("padding_mode", parse.padding_mode(self.padding_mode))
        put("output_padding", parse.per_axis(self.output_padding, ndim, "output_padding", 0))
        put("period", parse.periods(self.period, ndim))
        for name in ("flip_kernel", "bias", "transposed"):
            parse.boolean(getattr(self, name), name)
        if self.table is not None:
            put("table", parse.edges(self.table))
            if self.groups != 1:
                raise ArgumentError(f"groups={self.groups} and a channel table exclude each other; leave groups at 1")
        if not self.transposed and any(self.output_padding):
            raise ArgumentError(f"output_padding={self.output_padding} belongs to transposed convolutions; leave it at 0")
        if self._same and any(self.output_padding):
            raise ArgumentError(
                f"output_padding={self.output_padding} has no place with padding={self.padding!r}, which gives "
                "input size * stride, the largest size there is; give output_size for a smaller one"
            )
        _ = self.channels  # checks groups and edges

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel_size)

    @property
    def channels(self) -> Channels:
        """The connections between channels."""
        if self.table is not None:
            return ChannelTable(self.in_channels, self.out_channels, self.table)
        return Grouped(self.in_channels, self.out_channels, self.groups)

    @property
    def tiled(self) -> bool:
        """Whether the kernel changes with the position (tiled or unshared)."""
        return any(t != 1 for t in self.period)

    @property
    def _same(self) -> bool:
        return isinstance(self.padding, str) and self.padding.startswith("same")

    @property
    def extent(self) -> tuple[int, ...]:
        """Input positions that one output spans, per axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True))

    def pads(self, input_size: Any) -> parse.Pads:
        """Return the pads per axis for an input ``V`` of this size: a policy resolves to numbers once, here."""
        if not isinstance(self.padding, str):
            return self.padding  # type: ignore[no-any-return]
        policy = POLICIES[self.padding]
        sizes = parse.size(input_size, self.ndim, "input_size")
        return tuple(policy(n, e, s) for n, e, s in zip(sizes, self.extent, self.stride, strict=True))

    def output_size(self, input_size: Any) -> tuple[int, ...]:
        """Return the spatial size of what the layer gives for an input of spatial size `input_size`.

        Examples
        --------
        >>> ConvSpec(8, 4, 3, stride=2, padding=1, transposed=True, output_padding=1).output_size((7, 9))
        (14, 18)
        """
        form = self.form(input_size)
        return form.n_in if self.transposed else form.n_out

    def form(self, input_size: Any, output_size: Any = None) -> Form:
        """Return the form for a layer's input of spatial size `input_size`.

        Parameters
        ----------
        input_size : int or sequence of int
            Of what the layer reads: ``V``, or ``G`` if the spec is transposed.
        output_size : sequence of int, optional
            Of what it gives, where the input's size leaves a choice. ``ninefold`` takes any that is consistent.

        Raises
        ------
        ShapeError
            If the kernel does not fit into the padded input, or `output_size` is inconsistent.
        """
        n_in, n_out = self.sizes(input_size, output_size)
        pads = self.pads(n_in)
        axes = tuple(
            Axis(k, s, d, lo, i, o, o if t is None else t, self.padding_mode)
            for k, s, d, (lo, _), i, o, t in zip(
                self.kernel_size, self.stride, self.dilation, pads, n_in, n_out, self.period, strict=True
            )
        )
        if output_size is not None:
            self._check_sizes(axes, pads)
        return Form(axes, self.channels, self.tiled, self.flip_kernel)

    def sizes(self, input_size: Any, output_size: Any = None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the spatial sizes of ``V`` and ``G``; the numbers may be symbolic, and `output_size` is taken as it is.

        Examples
        --------
        >>> ConvSpec(3, 96, 11, stride=4).sizes((227, 231))
        ((227, 231), (55, 56))
        """
        read = parse.size(input_size, self.ndim, "input_size")
        given = None if output_size is None else parse.size(output_size, self.ndim, "output_size")
        if self.transposed:
            return given or self._transposed_size(read), read
        return read, given or self._forward_size(read)

    def weight_shape(self, input_size: Any = None) -> tuple[int, ...]:
        """Return the weight's shape; an unshared one depends on the input's size."""
        if None in self.period and input_size is None:
            raise ArgumentError("the weight of an unshared layer has one kernel per output position: give input_size")
        tile: tuple[int, ...] = ()
        if self.tiled:
            n_out = self.form(input_size).n_out if None in self.period else self.period
            tile = tuple(n if t is None else t for n, t in zip(n_out, self.period, strict=True))
        return (*self.channels.weight_head, *tile, *self.channels.weight_tail, *self.kernel_size)

    def parameters(self, input_size: Any = None) -> int:
        """Return the number of parameters: weight, and one bias per channel of the layer's output if there is one."""
        out = self.in_channels if self.transposed else self.out_channels
        return prod(self.weight_shape(input_size)) + (out if self.bias else 0)

    def macs(self, input_size: Any) -> int:
        """Return the multiply-adds per example, those with zeros of the border included, the bias left out."""
        return self.form(input_size).macs

    def connections(self, input_size: Any) -> int:
        """Return the pairs of connected units per example; zeros of the border are no units."""
        return self.form(input_size).connections

    def overlap(self, input_size: Any) -> tuple[tuple[int, ...], ...]:
        """Return per axis how many (output, tap) pairs each position of ``V`` feeds; counts of axes multiply.

        For a transposed layer this is how often each produced position is written: uneven is the checkerboard.

        Examples
        --------
        >>> ConvSpec(1, 1, (3,), stride=2, transposed=True).overlap(4)
        ((1, 1, 2, 1, 2, 1, 2, 1, 1),)
        """
        return tuple(axis.overlap() for axis in self.form(input_size).axes)

    def to_text(self) -> str:
        """Return the spec as one line of JSON, from which `from_text` makes an equal one."""
        return json.dumps({k: v for k, v in asdict(self).items() if v != _DEFAULTS[k]})

    @classmethod
    def from_text(cls, text: str) -> "ConvSpec":
        """Return the spec that `to_text` wrote.

        Raises
        ------
        ArgumentError
            If the text is not one that `to_text` writes.

        Examples
        --------
        >>> spec = ConvSpec(4, 6, (3, 5), padding=((0, 1), (2, 3)), dilation=2)
        >>> ConvSpec.from_text(spec.to_text()) == spec
        True
        """
        return _from_text(text)

    @classmethod
    def from_module(cls, module: Any) -> "ConvSpec":
        """Return the spec of a convolution layer of ``torch.nn`` or ``ninefold.nn``.

        Raises
        ------
        ArgumentTypeError
            If the module lacks the attributes of a convolution.
        """
        own = getattr(module, "spec", None)
        if isinstance(own, ConvSpec):
            return own
        missing = [a for a in _ATTRIBUTES if not hasattr(module, a)]
        if missing:
            raise ArgumentTypeError(
                f"{type(module).__name__} is no convolution layer: it has no {', '.join(missing)}; "
                "give a layer of torch.nn or ninefold.nn, such as Conv2d"
            )
        transposed = bool(getattr(module, "transposed", False))
        ends = (module.out_channels, module.in_channels) if transposed else (module.in_channels, module.out_channels)
        return cls(
            *ends,
            tuple(module.kernel_size),
            tuple(module.stride),
            module.padding,
            tuple(module.dilation),
            module.groups,
            module.padding_mode,
            bias=module.bias is not None,
            transposed=transposed,
            output_padding=tuple(module.output_padding) if transposed else 0,
        )

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, parsed anew."""
        return replace(self, **changes)

    def _forward_size(self, n_in: tuple[int, ...]) -> tuple[int, ...]:
        out = []
        for axis, (n, e, s, (lo, hi)) in enumerate(zip(n_in, self.extent, self.stride, self.pads(n_in), strict=True)):
            if n + lo + hi < e:
                k, d = self.kernel_size[axis], self.dilation[axis]
                more = "" if isinstance(self.padding, str) else ", or padding='same'"
                raise ShapeError(
                    f"kernel {k} with dilation {d} spans {e} positions, but the padded input has only {n + lo + hi} "
                    f"along axis {axis} (input size {n} + padding ({lo}, {hi})); "
                    f"give an input of at least {e - lo - hi}{more}"
                )
            out.append((n + lo + hi - e) // s + 1)
        return tuple(out)

    def _transposed_size(self, n_out: tuple[int, ...]) -> tuple[int, ...]:
        if self._same:
            return tuple(n * s for n, s in zip(n_out, self.stride, strict=True))
        sizes = []
        for axis, (n, e, p, (lo, hi)) in enumerate(zip(n_out, self.extent, self.output_padding, self.pads(n_out), strict=True)):
            s, d = self.stride[axis], self.dilation[axis]
            if p >= max(s, d):
                raise ArgumentError(
                    f"output_padding={p} along axis {axis} must be smaller than stride={s} or dilation={d}; "
                    f"the most is {max(s, d) - 1}"
                )
            if n == 0:
                raise ShapeError(f"a transposed convolution needs at least 1 input position along axis {axis}, got 0")
            size = (n - 1) * s + e + p - lo - hi
            if size < 0:
                raise ShapeError(
                    f"a transposed convolution of {n} positions with kernel extent {e}, stride {s}, output_padding {p} "
                    f"and padding ({lo}, {hi}) gives {size} positions along axis {axis}; "
                    f"pad by at least {-size} less, or give a larger input"
                )
            sizes.append(size)
        return tuple(sizes)

    def _check_sizes(self, axes: tuple[Axis, ...], pads: parse.Pads) -> None:
        for k, (a, (_, hi)) in enumerate(zip(axes, pads, strict=True)):
            # torch's output_padding may reach the dilation, so that sizes past the stride are consistent, too
            slack = a.stride if self._same else max(a.stride, a.dilation)
            least = (a.n_out - 1) * a.stride + (1 if self._same else a.extent - a.lo - hi)
            most = least + slack - 1
            if a.n_out == 0:
                least = 0
            if least <= a.n_in <= most:
                continue
            read, given, fits = a.n_out, a.n_in, f"{max(least, 0)} to {most}"
            if not self.transposed:
                nearest = -(-a.n_in // a.stride) if self._same else (a.n_in + a.lo + hi - a.extent) // a.stride + 1
                read, given, fits = a.n_in, a.n_out, f"{max(nearest, 0)}"
            raise ShapeError(
                f"output_size={given} along axis {k} does not follow from input size {read} with kernel {a.kernel}, "
                f"stride {a.stride}, dilation {a.dilation} and padding ({a.lo}, {hi}); give {fits}"
            )


_DEFAULTS = {name: field.default for name, field in ConvSpec.__dataclass_fields__.items()}


@lru_cache(maxsize=4096)
def _from_text(text: str) -> ConvSpec:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise ArgumentError(f"{text[:80]!r} is no spec as to_text writes it: {error}") from None
    if not isinstance(fields, dict) or not {"in_channels", "out_channels", "kernel_size"} <= fields.keys() <= _DEFAULTS.keys():
        raise ArgumentError(
            f"{text[:80]!r} is no spec as to_text writes it: it must name in_channels, out_channels and kernel_size, "
            f"and nothing but {', '.join(_DEFAULTS)}"
        )
    return ConvSpec(**{k: _tuples(v) for k, v in fields.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
