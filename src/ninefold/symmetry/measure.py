"""How far a network is from commuting with a transform of its input (equivariance), or from not noticing it (invariance).

``f`` is equivariant to ``g`` if ``f(g(x)) = g'(f(x))``, where ``g'`` is what ``g`` means on the grid of the output: a shift by
``s`` moves a map at stride ``s`` by one. Positions that see only the inside of the picture are told from those that see a border,
by following what every position reads; the same is done for every layer on its own, fed with what it really gets.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import inf, isnan
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ninefold.network.fields import quiet
from ninefold.network.receptive_field import ReceptiveField
from ninefold.network.running import tensors_in
from ninefold.spec.parse import number
from ninefold.symmetry.report import Finding, Symmetry, Tested
from ninefold.symmetry.trace import Grid, first_tensor, fresh, opened, outputs_of, traced
from ninefold.symmetry.transforms import Shift, Steps, Transform, transforms_for

__all__ = ["equivariance", "error_map", "invariance"]


def equivariance(
    module: nn.Module, example: Any, transforms: Any = None, *, spatial: int | None = None, tolerance: float | None = None
) -> Symmetry:
    """Measure how far a module is from being equivariant, per transform and per layer, and name the first layer that breaks it.

    Parameters
    ----------
    module : torch.nn.Module
        Run in evaluation mode, without gradients.
    example : Tensor, tuple, mapping or other
        What it is called with, as `optimize` takes it. The errors are those of this example: a symmetric or constant one hides
        what breaks.
    transforms : optional
        One or a sequence of ``"shift"``, ``"flip"``, ``"rot90"``, ``"rotate"``, ``"scale"``, the objects of `ninefold.symmetry`
        (``Shift(1, 0)``, ``Flip()``, ``Rot90()``, ``Rotate(20)``, ``Scale(1.2)``, ``Custom(on_input, on_output)``), or functions
        of a tensor; by default the five names, as far as they apply.
    spatial : int, optional
        How many of the example's last dimensions are spatial; by default all but two.
    tolerance : float, optional
        Relative error up to which a symmetry holds; by default the square root of the data type's precision.

    Returns
    -------
    Symmetry
        To print, or to ask: ``found["Shift(1, 0)"].error``.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        For an example without a tensor, or a transform that does not apply to it.

    Notes
    -----
    A layer that leaves no positions, such as global pooling, is measured against the only action that is left: none. Rotations
    and zooms interpolate, once before and once behind, so that an error under them is that of both.

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool1d(2))
    >>> found = nf.equivariance(net, torch.randn(1, 1, 16), "shift")
    >>> found.holds("Shift(2)"), found.holds("Shift(1)"), found["Shift(1)"].layer
    (True, False, '2')
    """
    args, kwargs, axes = opened(example, spatial)
    grids = _input_grids((args, kwargs), axes)
    whole = _Subject(module, args, kwargs, grids)
    limit = _tolerance(whole.out) if tolerance is None else number(tolerance, "tolerance")
    placed = [call for call in whole.calls if any(grid.there for grid in call.grids.values())]
    subjects = [_Subject(call.module, call.args, call.kwargs, call.grids, call.name) for call in placed]
    tests = []
    for transform in transforms_for(transforms, whole.coarsest, whole.sizes):
        found, layers = whole.tested(transform), tuple(s.tested(transform) for s in subjects)
        first = next((f.layer for f in layers if f.error is not None and not f.error <= limit), None)
        outer = next((f.layer for f in layers if f.border is not None and not f.border <= limit), None)
        if first is None and layers and not found.holds(limit):
            first = outer or "no single layer"
        tests.append(Tested(transform.name, transform.interpolated, found, layers, first, outer))
    return Symmetry("equivariance", tuple(tests), limit)


def invariance(
    module: nn.Module, example: Any, transforms: Any = None, *, spatial: int | None = None, tolerance: float | None = None
) -> Symmetry:
    """Measure how much a module's output changes with its input's transforms, layer by layer on the way.

    Parameters
    ----------
    module, example, transforms, spatial, tolerance
        As in `equivariance`.

    Returns
    -------
    Symmetry
        ``error`` is the largest change, relative to the largest value, of the output and of every layer's; ``layer`` the one from
        which on nothing changes.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        As in `equivariance`.

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> conv = torch.nn.Conv1d(1, 2, 3, padding=1, padding_mode="circular")
    >>> net = torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.AdaptiveMaxPool1d(1), torch.nn.Flatten())
    >>> found = nf.invariance(net, torch.randn(1, 1, 16), "shift")
    >>> found.holds("Shift(1)"), found["Shift(1)"].layer
    (True, '2')
    """
    args, kwargs, axes = opened(example, spatial)
    grids = _input_grids((args, kwargs), axes)
    whole = _Subject(module, args, kwargs, grids)
    limit = _tolerance(whole.out) if tolerance is None else number(tolerance, "tolerance")
    tests = []
    for transform in transforms_for(transforms, whole.coarsest, whole.sizes):
        *outputs, out = outputs_of(module, *_moved(transform, args, kwargs, grids))
        layers = tuple(
            Finding(call.name, type(call.module).__name__, _change(new, call.out))
            for call, new in zip(whole.calls, outputs, strict=True)
        )
        still = [f.layer for k, f in enumerate(layers) if all(later.holds(limit) for later in layers[k:])]
        found = Finding("", type(module).__name__, _change(out, whole.out))
        tests.append(Tested(transform.name, transform.interpolated, found, layers, still[0] if still else None))
    return Symmetry("invariance", tuple(tests), limit)


def error_map(module: nn.Module, example: Any, transform: Any, *, spatial: int | None = None) -> Tensor:
    """Return ``|f(g(x)) - g'(f(x))|`` at every position of the output: the largest over examples and channels.

    Parameters
    ----------
    module, example, spatial
        As in `equivariance`.
    transform : str or Transform
        One; of several under a name, the first.

    Returns
    -------
    Tensor of the output's spatial shape
        Not a number where the transformed output has nothing to compare with.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        As in `equivariance`.

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> conv = torch.nn.Conv1d(1, 1, 3, padding=1, bias=False)
    >>> _ = torch.nn.init.ones_(conv.weight)
    >>> nf.symmetry.error_map(conv, torch.arange(1.0, 7).reshape(1, 1, 6), "shift").tolist()
    [4.0, 6.0, 0.0, 0.0, 0.0, 6.0]
    """
    args, kwargs, axes = opened(example, spatial)
    subject = _Subject(module, args, kwargs, _input_grids((args, kwargs), axes))
    chosen = transforms_for(transform, subject.coarsest, subject.sizes)[0]
    best, _, known = min(subject.differences(chosen), key=lambda d: float(d[0][d[2]].max()) if d[2].any() else inf)
    return best.masked_fill(~known, torch.nan)


class _Subject:
    """A module with the arguments it is measured on, and what it gives for them."""

    def __init__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], grids: dict[int, Grid], name: str = ""
    ) -> None:
        self.module, self.args, self.kwargs, self.grids, self.name = module, args, kwargs, grids, name
        self.out, self.grid, self.calls = traced(module, args, kwargs, grids)
        first = next(t for t in pytree.tree_leaves((args, kwargs)) if id(t) in grids)
        self.sizes, self.own = grids[id(first)].sizes(first), grids[id(first)]
        # steps of the output in the network's input, which the transform is told in
        self.steps = tuple(a * b for a, b in zip(self.own.steps, self.grid.steps, strict=True))

    @property
    def coarsest(self) -> Steps:
        """Steps of the coarsest map on the way whose positions can be followed: a shift by them is one of every map."""
        grids = [self.grid, *(grid for call in self.calls for grid in call.grids.values())]
        return tuple(
            max((g.steps[a] for g in grids if g.reach[a] is not None), default=Fraction(1)) for a in range(len(self.sizes))
        )

    def tested(self, transform: Transform) -> Finding:
        what = type(self.module).__name__
        if not all(transform.fits(grid.steps) for grid in self.grids.values()):
            return Finding(self.name, what, None, note="the transform does not arrive here as one")
        note = "" if transform.fits(self.steps) else "the output would move by part of a position"
        scale = float(self.out.abs().max()) if self.out.numel() else 0.0
        ways = self.differences(transform)
        found = [(_largest(d[inside], scale), _largest(d[known & ~inside], scale)) for d, inside, known in ways]
        error, border = min(found, key=lambda parts: tuple(map(_order, parts)))
        if error == inf:
            note = "the output changes its shape"
        return Finding(self.name, what, error, border, note)

    def differences(self, transform: Transform) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return, per way to read the transform, the differences of all positions, which see the inside, and which compare."""
        args, kwargs = _moved(transform, self.args, self.kwargs, self.grids)
        with quiet(self.module), torch.no_grad():
            got = self.grid.spatial_last(first_tensor(self.module(*args, **kwargs)))
        before, sizes = self.grid.spatial_last(self.out), self.grid.sizes(self.out)
        result = []
        for choice in transform.choices(self.steps):
            want = choice(before, self.steps)
            if want.shape != got.shape:
                nothing = torch.ones((), dtype=torch.bool, device="cpu")
                return [(torch.tensor(inf, dtype=torch.double, device="cpu"), nothing, nothing)]
            axes = len(self.steps)
            difference = (got - want).abs().flatten(0, -axes - 1).amax(0) if got.dim() > axes else (got - want).abs()
            everywhere = (torch.ones(difference.shape, dtype=torch.bool, device="cpu"),) * 2
            masks = self._masks(transform, choice, sizes) if transform.spatial else everywhere
            result.append((difference.cpu(), *masks))
        return result

    def _masks(self, transform: Transform, choice: Transform, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return which positions of the moved output see only the picture, as those they came from did, and which compare."""
        known = choice.known(sizes, self.steps)
        seen = _eroded(transform.known(self.sizes, self.own.steps), self.grid.reach, known.shape)
        came = choice(_eroded(torch.ones(self.sizes, dtype=torch.bool, device="cpu"), self.grid.reach, sizes), self.steps)
        ring = isinstance(transform, Shift) and all(
            not s or n * s == m for n, s, m in zip(sizes, self.grid.steps, self.sizes, strict=True)
        )
        return known & seen & came, torch.ones_like(known) if ring else known


def _eroded(mask: Tensor, reach: Sequence[ReceptiveField | None], sizes: Sequence[int]) -> Tensor:
    """Return which positions of a map read nothing but what the mask holds."""
    for axis, (field, count) in enumerate(zip(reach, sizes, strict=True)):
        lines = mask.movedim(axis, 0)
        sums = torch.cat([lines.new_zeros((1, *lines.shape[1:])), lines]).long().cumsum(0)
        lo, hi = _reads(field, count, len(lines), mask.device)
        inside = (lo >= 0) & (hi < len(lines))
        first, behind = (end.where(inside & (lo <= hi), 0).long() for end in (lo, hi + 1))
        whole = (sums[behind] - sums[first]).movedim(0, -1) == behind - first
        mask = (whole & inside | (lo > hi)).movedim(-1, axis)  # where nothing is read, nothing is missed
    return mask


def _reads(field: ReceptiveField | None, count: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the first and the last position that each of `count` reads; of no known field, all there are."""
    if field is None:
        whole = torch.zeros(count, dtype=torch.double, device=device)
        return whole, whole + (size - 1)
    ends = torch.tensor([field.lo, field.hi], dtype=torch.double, device=device)
    at = torch.arange(count, device=device)
    turns, place = at // len(field.lo), at % len(field.lo)
    lo, hi = ends[:, place] + turns * field.shift
    return lo, hi


def _input_grids(given: Any, axes: int) -> dict[int, Grid]:
    tensors = tensors_in(given)
    same = [t for t in tensors if t.shape[-axes:] == tensors[0].shape[-axes:]]
    return {id(t): Grid(tuple(range(t.dim() - axes, t.dim())), (Fraction(1),) * axes, (ReceptiveField(),) * axes) for t in same}


def _moved(
    transform: Transform, args: tuple[Any, ...], kwargs: dict[str, Any], grids: dict[int, Grid]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return copies of the arguments, those with spatial axes transformed."""
    args, kwargs, own = fresh((args, kwargs), grids)

    def move(x: Any) -> Any:
        grid = own.get(id(x))
        return x if grid is None else grid.put_back(transform(grid.spatial_last(x), grid.steps))

    moved: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map(move, (args, kwargs))
    return moved


def _largest(differences: Tensor, scale: float) -> float | None:
    """Return the largest difference on a scale; None of none."""
    if not differences.numel():
        return None
    worst = float(differences.max())
    return worst if scale == 0 or worst == 0 else worst / scale


def _change(new: Tensor, old: Tensor) -> float:
    if new.shape != old.shape:
        return inf
    return _largest((new - old).abs(), float(old.abs().max()) if old.numel() else 0.0) or 0.0


def _order(error: float | None) -> float:
    """Return a key to sort errors by: what is not a number is the worst."""
    return 0.0 if error is None else inf if isnan(error) else error


def _tolerance(out: Tensor) -> float:
    return float(torch.finfo(out.dtype).eps) ** 0.5 if out.dtype.is_floating_point or out.dtype.is_complex else 0.0
