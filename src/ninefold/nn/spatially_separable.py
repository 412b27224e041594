"""Spatially separable convolutions: passes along one axis after the other, trained, or made of a dense layer (section 9.8).

Per group, a dense kernel is cut between neighbouring axes::

    K[o, l, m, i, n] = sum_r A[o, l, r] ... B[r, i, n]       l, m, n: offsets along the axes; r: channels between passes

The passes run from the last axis to the first. In two dimensions this is a matrix ``M[(o, m), (i, n)]``, whose best factors of
any rank are its singular value decomposition's (Jaderberg, Vedaldi and Zisserman 2014, scheme 2); a depthwise kernel of rank 1 is
the outer product of the chapter. In three it is a tensor train (Oseledets 2011), one decomposition per cut: errors of the cuts
are orthogonal, so that their squares add up to the whole error's.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, Self

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.nn.conv import Conv2d, Conv3d
from ninefold.spec.conv import ConvSpec
from ninefold.spec.parse import integer, per_axis

__all__ = ["SpatiallySeparableConv2d", "SpatiallySeparableConv3d", "Truncation"]


@dataclass(frozen=True)
class Truncation:
    """What a low rank left out of a dense kernel: exact, by its singular values.

    Parameters
    ----------
    kept, dropped : tuple of tuple of float
        Per cut between axes, first to last, the singular values of all groups, largest first.
    norm : float
        Frobenius norm of the dense kernel.
    """

    kept: tuple[tuple[float, ...], ...]
    dropped: tuple[tuple[float, ...], ...]
    norm: float

    @property
    def error(self) -> float:
        """Frobenius norm of the dense kernel minus that of the passes."""
        return float(sum(s * s for cut in self.dropped for s in cut) ** 0.5)

    @property
    def relative(self) -> float:
        """The error against the kernel's norm."""
        return self.error / self.norm if self.norm else 0.0


class _SpatiallySeparableConv(torch.nn.Module):
    """Both of them; the docstring is shared."""

    _ndim: int
    truncation: Truncation | None = None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        rank: Any,
        flip_kernel: bool = False,
    ) -> None:
        kernel = per_axis(kernel_size, self._ndim, "kernel_size", 1)
        how = (stride, padding, dilation, groups, padding_mode, flip_kernel)
        self._dense_spec = ConvSpec(in_channels, out_channels, kernel, *how, bias=bias)
        self.rank = _ranks(rank, self._dense_spec)
        super().__init__()
        kind: Any = (Conv2d, Conv3d)[self._ndim - 2]
        self.passes = torch.nn.Sequential(
            *(
                kind(
                    s.in_channels,
                    s.out_channels,
                    s.kernel_size,
                    s.stride,
                    s.padding,
                    s.dilation,
                    s.groups,
                    s.bias,
                    s.padding_mode,
                    device,
                    dtype,
                    flip_kernel=s.flip_kernel,
                )
                for s in self.specs
            )
        )
        self.reset_parameters()

    @property
    def specs(self) -> tuple[ConvSpec, ...]:
        """The passes, in the order in which they run: along the last axis first."""
        spec, last = self._dense_spec, self._ndim - 1
        between = [r * spec.groups for r in reversed(self.rank)]
        ends = [spec.in_channels, *between, spec.out_channels]
        return tuple(_along(spec, last - k, ends[k], ends[k + 1], bias=spec.bias and k == last) for k in range(self._ndim))

    def reset_parameters(self) -> None:
        """Draw the last pass as torch does, and those before it so that they keep the variance, for nothing stands between."""
        for layer in self.passes:
            layer.reset_parameters()  # type: ignore[operator]
        for layer in list(self.passes)[:-1]:
            weight: Any = layer.weight
            bound = (3 / prod(weight.shape[1:])) ** 0.5
            torch.nn.init.uniform_(weight, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Convolve along one axis after the other; shapes as those of torch's convolutions, batched or not."""
        out: Tensor = self.passes(input)
        return out

    @classmethod
    def from_dense(cls, conv: torch.nn.Module, rank: Any) -> Self:
        """Return the layer of this rank that is nearest to a dense one; the attribute ``truncation`` says how near.

        Parameters
        ----------
        conv : torch.nn.Module
            A forward convolution of ``torch.nn`` or ``ninefold.nn`` with as many axes, real weights and one kernel for all
            positions; it is left as it was.
        rank : int or tuple of int
            As in the constructor.

        Raises
        ------
        ArgumentError, ArgumentTypeError
            If `conv` is no such layer, or the rank is larger than that of any such kernel.
        """
        spec, weight = ConvSpec.from_module(conv), getattr(conv, "weight", None)
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            raise ArgumentTypeError(f"{type(conv).__name__} has no real weight to decompose")
        if spec.ndim != cls._ndim or spec.transposed or spec.tiled or spec.table is not None:
            raise ArgumentError(f"{cls.__name__} is made of a {cls._ndim}-D forward convolution with one kernel, not of {conv}")
        ends = (spec.in_channels, spec.out_channels, spec.kernel_size, spec.stride, spec.padding, spec.dilation, spec.groups)
        how = (conv.bias is not None, spec.padding_mode, weight.device, weight.dtype)
        layer = cls(*ends, *how, rank=rank, flip_kernel=spec.flip_kernel)
        with torch.no_grad():
            factors, layer.truncation = _decompose(weight.detach().double().unflatten(0, (spec.groups, -1)), layer.rank)
            for one, factor in zip(layer.passes, factors, strict=True):
                one.weight.copy_(factor)  # type: ignore[operator]
            if isinstance(conv.bias, Tensor):
                layer.passes[-1].bias.copy_(conv.bias)  # type: ignore[operator]
        return layer.train(conv.training)

    def to_dense(self) -> Conv2d | Conv3d:
        """Return the dense layer that computes the same: its kernel is the product of the passes'."""
        spec, ndim = self._dense_spec, self._ndim
        first: Any = self.passes[0].weight
        with torch.no_grad():
            kernel = first.unflatten(0, (spec.groups, -1))
            for layer in list(self.passes)[1:]:
                weight: Any = layer.weight
                factor = weight.unflatten(0, (spec.groups, -1))
                # (groups, out, between, taps of this axis, 1, ...) times (groups, between, in, 1, taps of later axes, ...)
                kernel = (factor.unsqueeze(3) * kernel.unsqueeze(1)).sum(2)
            kind: Any = (Conv2d, Conv3d)[ndim - 2]
            ends = (spec.in_channels, spec.out_channels, spec.kernel_size, spec.stride, spec.padding, spec.dilation, spec.groups)
            how = (spec.bias, spec.padding_mode, first.device, first.dtype)
            dense = kind(*ends, *how, flip_kernel=spec.flip_kernel)
            dense.weight.copy_(kernel.flatten(0, 1))
            if spec.bias:
                dense.bias.copy_(self.passes[-1].bias)
        result: Conv2d | Conv3d = dense.train(self.training)
        return result

    def parameter_count(self) -> int:
        """Return the number of parameters of all passes."""
        return sum(spec.parameters() for spec in self.specs)

    def macs(self, input_size: Any) -> int:
        """Return the multiply-adds of all passes per example, those with zeros of the border included."""
        total, size = 0, input_size
        for spec in self.specs:
            total += spec.macs(size)
            size = spec.output_size(size)
        return total

    def extra_repr(self) -> str:
        """Return the rank, and what it left out; the passes show the rest."""
        lost = "" if self.truncation is None else f", truncated by {self.truncation.relative:.2g} of its norm"
        return f"rank={self.rank if len(set(self.rank)) > 1 else self.rank[0]}{lost}"


def _ranks(rank: Any, spec: ConvSpec) -> tuple[int, ...]:
    """Return a rank per cut, none larger than a kernel can have."""
    cuts = spec.ndim - 1
    given = tuple(rank) if isinstance(rank, (list, tuple)) else (rank,) * cuts
    if len(given) != cuts:
        raise ArgumentError(f"rank must be one number or {cuts} (one per cut between axes), got {given}")
    ranks = tuple(integer(r, "rank", 1) for r in given)
    ins, outs = spec.in_channels // spec.groups, spec.out_channels // spec.groups
    for cut, r in enumerate(ranks, start=1):
        most = min(outs * prod(spec.kernel_size[:cut]), ins * prod(spec.kernel_size[cut:]))
        if cut < cuts:
            most = min(most, ranks[cut] * spec.kernel_size[cut])  # what comes from the pass before
        if r > most:
            raise ArgumentError(f"rank={r} between axes {cut - 1} and {cut} is more than any such kernel has; the most is {most}")
    return ranks


def _along(spec: ConvSpec, axis: int, inputs: int, outputs: int, *, bias: bool) -> ConvSpec:
    """Return the pass along one axis."""

    def only(values: tuple[Any, ...], other: Any) -> tuple[Any, ...]:
        return tuple(v if k == axis else other for k, v in enumerate(values))

    return ConvSpec(
        inputs,
        outputs,
        only(spec.kernel_size, 1),
        only(spec.stride, 1),
        spec.padding if isinstance(spec.padding, str) else only(spec.padding, (0, 0)),
        only(spec.dilation, 1),
        spec.groups,
        spec.padding_mode,
        spec.flip_kernel,
        bias=bias,
    )


def _decompose(K: Tensor, ranks: tuple[int, ...]) -> tuple[list[Tensor], Truncation]:
    """Return the weights of the passes, last axis first, of a kernel (groups, outs, ins, *kernel), and what they leave out.

    The right factor of each cut has orthonormal rows, so that what a later cut drops is orthogonal to what one before it dropped.
    """
    groups, outs, _, *kernel = K.shape
    factors, kept, dropped = [], [], []
    rest = K.movedim(2, -2)  # (groups, outs, *axes before, what is read, taps of the last axis)
    scale: Tensor | None = None
    for axis in range(len(kernel) - 1, 0, -1):
        read, r = rest.shape[-2], ranks[axis - 1]
        left, values, right = torch.linalg.svd(rest.reshape(groups, -1, read * kernel[axis]), full_matrices=False)
        kept.append(_listed(values[:, :r]))
        dropped.append(_listed(values[:, r:]))
        left, values, right = left[..., :r], values[:, :r], right[:, :r]
        root = torch.where(values > 0, values, 1).sqrt()
        factor = right.reshape(groups, r, read, kernel[axis])
        factors.append(_weight(factor if scale is None else factor / scale[:, None, :, None], root, axis, len(kernel)))
        rest = (left * values[:, None]).reshape(groups, outs, *kernel[:axis], r).movedim(-1, -2)
        scale = root
    assert scale is not None
    factors.append(_weight(rest / scale[:, None, :, None], None, 0, len(kernel)))
    return factors, Truncation(tuple(kept[::-1]), tuple(dropped[::-1]), float(K.norm()))


def _weight(factor: Tensor, scale: Tensor | None, axis: int, ndim: int) -> Tensor:
    """Return a factor (groups, outs, ins, taps) as a pass's weight, its outputs scaled."""
    factor = factor if scale is None else factor * scale[..., None, None]
    shape = [1] * ndim
    shape[axis] = factor.shape[-1]
    return factor.flatten(0, 1).reshape(-1, factor.shape[2], *shape)


def _listed(values: Tensor) -> tuple[float, ...]:
    return tuple(values.flatten().sort(descending=True).values.tolist())


_SEPARABLE = """A {n}-D convolution in {n} passes, one along each axis, with `rank` channels per group between two of them.

    {rank}
    Parameters and products fall from ``w^{n}`` to about ``{n} w`` per kernel of width ``w`` and rank 1. With as many groups as
    channels, every kernel is by itself a sum of `rank` separable ones, an outer product at rank 1; with one group, outputs share
    what the first passes compute.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype, flip_kernel
        As in `Conv{n}d`, of the dense layer that the passes stand for.
    rank : int or tuple of int
        Channels per group between two passes, along axis 0 and 1 first.

    Attributes
    ----------
    passes : torch.nn.Sequential
        A `Conv{n}d` per axis, along the last axis first; the bias belongs to the last pass.
    truncation : Truncation or None
        What `from_dense` left out, as singular values.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a layer.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> layer = nn.SpatiallySeparableConv{n}d(1, 1, 7, rank=1, bias=False)
    >>> layer.parameter_count(), layer.macs({size}), layer.to_dense().spec.macs({size})
    ({count}, {macs}, {direct})
    >>> dense = torch.nn.Conv{n}d(4, 6, 3)
    >>> near = nn.SpatiallySeparableConv{n}d.from_dense(dense, rank=5)
    >>> round((near.to_dense().weight - dense.weight).norm().item() / near.truncation.error, 4)
    1.0
    """
_OF_TWO = "`from_dense` gives the nearest of a rank to a dense layer, by singular value decomposition; at full rank the same.\n"
_OF_THREE = "`from_dense` makes a tensor train of a dense layer, within a factor of sqrt(2) of the nearest of its ranks.\n"


class SpatiallySeparableConv2d(_SpatiallySeparableConv):
    __doc__ = _SEPARABLE.format(n=2, rank=_OF_TWO, size="(64, 64)", count=14, macs=49532, direct=164836)
    _ndim = 2


class SpatiallySeparableConv3d(_SpatiallySeparableConv):
    __doc__ = _SEPARABLE.format(n=3, rank=_OF_THREE, size="(8, 9, 10)", count=21, macs=2856, direct=8232)
    _ndim = 3
