"""The border of an input as memory: written out along each axis, and folded back, the adjoint."""

from collections.abc import Callable

import torch
from torch import Tensor

from ninefold.spec.axis import Axis
from ninefold.spec.form import Form
from ninefold.spec.runs import runs

__all__ = ["extended_along", "extension", "folded_along", "folding"]


def extension(form: Form) -> Callable[[Tensor], Tensor]:
    """Return what gives ``V`` its border: along each axis exactly the positions that the outputs read, ``axis.span`` of them.

    What remains is a form without padding. The adjoint is `folding`. The result may share memory with ``V``; gradients flow
    through it as through PyTorch's own operations.
    """
    pads = [p for axis in reversed(form.axes) for p in (axis.lo, axis.hi)]
    if not any(pads):
        return lambda V: V
    if _plain(form):
        return lambda V: torch.constant_pad_nd(V, pads)
    mode = _mode_of_torch(form)

    def extend(V: Tensor) -> Tensor:
        if mode is not None and V.numel() and not torch.are_deterministic_algorithms_enabled():
            return torch.nn.functional.pad(V, pads, mode)
        for dim, axis in enumerate(form.axes, start=2):
            V = extended_along(V, dim, axis)
        return V

    return extend


def folding(form: Form) -> Callable[[Tensor], Tensor]:
    """Return the adjoint of `extension`: what lies on the border is added to where it came from. May change its argument."""
    crops = [-p for axis in reversed(form.axes) for p in (axis.lo, axis.hi)]
    if not any(crops):
        return lambda R: R
    if _plain(form):
        return lambda R: torch.constant_pad_nd(R, crops)

    def fold(R: Tensor) -> Tensor:
        for dim, axis in reversed(list(enumerate(form.axes, start=2))):
            R = folded_along(R, dim, axis)
        return R

    return fold


def _plain(form: Form) -> bool:
    """Whether one call that pads with zeros, or crops, gives the border."""
    return form.mode == "zeros" and all(min(axis.lo, axis.hi) > -axis.n_in for axis in form.axes)


_REACH: dict[str, Callable[[int], int]] = {"reflect": lambda n: n - 1, "circular": lambda n: n, "replicate": lambda _: 2**62}


def _mode_of_torch(form: Form) -> str | None:
    """Return the mode of ``torch.nn.functional.pad`` that gives this border, or None."""
    if form.ndim > 3 or any(min(axis.lo, axis.hi) < 0 for axis in form.axes):
        return None
    most = [max(axis.lo, axis.hi) for axis in form.axes]
    mode = "replicate" if form.mode == "symmetric" and max(most) == 1 else form.mode
    reach = _REACH.get(mode)
    return mode if reach and all(n <= reach(axis.n_in) for n, axis in zip(most, form.axes, strict=True)) else None


def extended_along(V: Tensor, dim: int, axis: Axis) -> Tensor:
    """Write out the border along one axis: kept in the middle, repeated on both sides. `extension` does so along all."""
    first, start, stop = _kept(axis)
    kept = V.narrow(dim, first, stop - start)
    if axis.mode == "zeros":
        return torch.constant_pad_nd(kept, [0, 0] * (V.ndim - 1 - dim) + [start, axis.span - stop])
    parts = [*_taken(V, dim, axis, 0, start), kept, *_taken(V, dim, axis, stop, axis.span)]
    return torch.cat([x for x in parts if x.shape[dim]], dim) if axis.border else kept


def folded_along(R: Tensor, dim: int, axis: Axis) -> Tensor:
    """Fold the border back along one axis."""
    first, start, stop = _kept(axis)
    V = R.narrow(dim, start, stop - start)
    if stop - start < axis.n_in:
        V = torch.constant_pad_nd(V, [0, 0] * (R.ndim - 1 - dim) + [first, axis.n_in - first - (stop - start)])
    if axis.mode != "zeros":
        for begin, end in ((0, start), (stop, axis.span)):
            _add_to(V, dim, axis, R.narrow(dim, begin, end - begin), begin)
    return V


def _kept(axis: Axis) -> tuple[int, int, int]:
    """Return what is read of the input itself: its first position, and the extended positions from there to past the last."""
    start, stop = (min(max(k, 0), axis.span) for k in (axis.lo, axis.lo + axis.n_in))
    return min(max(start - axis.lo, 0), axis.n_in), start, stop


def _taken(V: Tensor, dim: int, axis: Axis, begin: int, end: int) -> list[Tensor]:
    """Return what extended positions of the border repeat: some at even steps, one way or the other, or one many times."""
    parts = []
    for _, first, count, step in runs(axis, [(begin - axis.lo, end - begin, 1)]):
        part, repeated = _at_steps(V, dim, first, count, step), (*V.shape[:dim], count, *V.shape[dim + 1 :])
        parts.append(part.expand(repeated) if step == 0 else part if step > 0 else part.flip(dim))
    return parts


def _at_steps(V: Tensor, dim: int, first: int, count: int, step: int) -> Tensor:
    """View positions of a piece of the border, the lowest first."""
    lowest, highest = sorted((first, first + (count - 1) * step))
    return V[(slice(None),) * dim + (slice(lowest, highest + 1, abs(step) or 1),)]


def _add_to(V: Tensor, dim: int, axis: Axis, slab: Tensor, begin: int) -> None:
    """Add a slab of the border, from an extended position on, to what it repeats: the adjoint of `_taken`."""
    for to, first, count, step in runs(axis, [(begin - axis.lo, slab.shape[dim], 1)]):
        part = slab.narrow(dim, to, count)
        added = part.sum(dim, keepdim=True) if step == 0 else part if step > 0 else part.flip(dim)
        _at_steps(V, dim, first, count, step).add_(added)
