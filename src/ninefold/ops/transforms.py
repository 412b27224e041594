"""The functional route: a public autograd Function with jvp and vmap, for torch.func and forward-mode AD."""

from typing import Any

import torch
from torch import Tensor

from ninefold.options import CURRENT
from ninefold.ops.bound import ADJOINT, bound_for
from ninefold.ops.layout import result_strides
from ninefold.spec.conv import ConvSpec
from ninefold.spec.problem import Map

__all__ = ["FunctionalMap"]

Sizes = tuple[int, ...]


class FunctionalMap(torch.autograd.Function):
    """One map under transforms: bilinear, so both derivatives are maps again, and a vmap folds into batch or groups."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, map_: Map, spec: ConvSpec, n_in: Sizes, n_out: Sizes) -> Tensor:  # type: ignore[override]
        """Run the map on what is left when all transforms are peeled off."""
        last = map_ != "g" and result_strides(b, a)
        form = spec.form(n_in, n_out)
        bound = bound_for(form, len(b), a.dtype, a.device, last, CURRENT.get(), torch.get_num_threads())
        return bound.runner(map_)(a, b, None)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004  torch's signature
        """Keep both operands, for backward and for jvp."""
        a, b, ctx.map, ctx.spec, ctx.n_in, ctx.n_out = inputs
        ctx.save_for_backward(a, b)
        ctx.save_for_forward(a, b)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Conjugate the saved operand: the pairing is bilinear, torch's gradient is not."""
        saved = [x.conj() if x.is_complex() else x for x in ctx.saved_tensors]
        named = {"first": saved[0], "second": saved[1], "up": up}
        grads = [
            FunctionalMap.apply(named[x], named[y], other, ctx.spec, ctx.n_in, ctx.n_out) if need else None
            for need, (other, x, y) in zip(ctx.needs_input_grad[:2], ADJOINT[ctx.map], strict=True)
        ]
        return (*grads, None, None, None, None)

    @staticmethod
    def jvp(ctx: Any, da: Tensor | None, db: Tensor | None, *_: Any) -> Tensor:  # type: ignore[override]
        """Apply the product rule; nothing is conjugated."""
        a, b = ctx.saved_tensors
        parts = [
            FunctionalMap.apply(x, y, ctx.map, ctx.spec, ctx.n_in, ctx.n_out)
            for x, y in ((da, b), (a, db))
            if x is not None and y is not None
        ]
        total: Tensor = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return total

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], a: Tensor, b: Tensor, map_: Map, spec: ConvSpec, n_in: Sizes, n_out: Sizes) -> Any:  # type: ignore[override]
        """Fold into the batch where only the data varies, else into the groups."""
        return fold_vmap(FunctionalMap.apply, info.batch_size, in_dims[:2], a, b, map_, spec, n_in, n_out)


def fold_vmap(
    run: Any, size: int, dims: tuple[int | None, int | None], a: Tensor, b: Tensor, map_: Map, spec: ConvSpec, n_in: Sizes, n_out: Sizes
) -> tuple[Tensor, int]:
    """Return (result, its vmapped dimension) of a map over operands of which either or both have an extra dimension."""
    dim_a, dim_b = dims
    if map_ != "g" and dim_a is None:
        b = b.movedim(dim_b, 0)  # type: ignore[arg-type]  one of both is vmapped
        out = run(a, b.flatten(0, 1), map_, spec, n_in, n_out)
        return out.unflatten(0, b.shape[:2]), 0
    a = a.movedim(dim_a, 0) if dim_a is not None else a.expand(size, *a.shape)
    b = b.movedim(dim_b, 0) if dim_b is not None else b.expand(size, *b.shape)
    wide = widen(spec, size)
    a = a.flatten(0, 1) if map_ != "g" else a.movedim(0, 1).flatten(1, 2)
    b = b.movedim(0, 1).flatten(1, 2)
    out = run(a, b, map_, wide, n_in, n_out)
    if map_ == "g":
        return out.unflatten(0, (size, -1)), 0
    return out.unflatten(1, (size, -1)), 1


def widen(spec: ConvSpec, copies: int) -> ConvSpec:
    """Return the spec of `copies` independent copies side by side in the channels."""
    ends = {"in_channels": spec.in_channels * copies, "out_channels": spec.out_channels * copies}
    if spec.table is None:
        return spec.replace(**ends, groups=spec.groups * copies)
    table = tuple((o + k * spec.out_channels, i + k * spec.in_channels) for k in range(copies) for o, i in spec.table)
    return spec.replace(**ends, table=table)
