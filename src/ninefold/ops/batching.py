"""A vmap over a map is a map: folded into the batch where only the data varies, else into the groups."""

from collections.abc import Callable, Sequence

from torch import Tensor

from ninefold.spec.conv import ConvSpec
from ninefold.spec.problem import Map

__all__ = ["fold_vmap", "widen"]

Run = Callable[[Tensor, Tensor, ConvSpec], Tensor]


def fold_vmap(
    run: Run, size: int, dims: Sequence[int | None], a: Tensor, b: Tensor, map_: Map, spec: ConvSpec
) -> tuple[Tensor, int]:
    """Return (result, its vmapped dimension) of a map over operands of which either or both have an extra dimension."""
    dim_a, dim_b = dims
    if map_ != "g" and dim_a is None and dim_b is not None:
        b = b.movedim(dim_b, 0)
        return run(a, b.flatten(0, 1), spec).unflatten(0, b.shape[:2]), 0
    a = a.movedim(dim_a, 0) if dim_a is not None else a.expand(size, *a.shape)
    b = b.movedim(dim_b, 0) if dim_b is not None else b.expand(size, *b.shape)
    a = a.flatten(0, 1) if map_ != "g" else a.movedim(0, 1).flatten(1, 2)
    out = run(a, b.movedim(0, 1).flatten(1, 2), widen(spec, size))
    dim = 0 if map_ == "g" else 1
    return out.unflatten(dim, (size, -1)), dim


def widen(spec: ConvSpec, copies: int) -> ConvSpec:
    """Return the spec of `copies` independent copies side by side in the channels."""
    copies = int(copies)  # a symbolic count is settled here: channels are part of a spec, which is text
    ends = {"in_channels": spec.in_channels * copies, "out_channels": spec.out_channels * copies}
    if spec.table is None:
        return spec.replace(**ends, groups=spec.groups * copies)
    table = tuple((o + k * spec.out_channels, i + k * spec.in_channels) for k in range(copies) for o, i in spec.table)
    return spec.replace(**ends, table=table)
