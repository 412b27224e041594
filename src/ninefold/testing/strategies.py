"""Hypothesis strategies that draw convolutions: specs, sizes and batches, the awkward ones included.

The only module of ninefold that imports hypothesis.
"""

from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from ninefold.errors import NinefoldError
from ninefold.spec import ConvSpec
from ninefold.spec.padding import MODES, POLICIES
from ninefold.testing.shapes import Shape

__all__ = ["shapes", "specs"]


@st.composite
def specs(draw: st.DrawFn, ndim: int | None = None, *, transposed: bool | None = None) -> ConvSpec:
    """Draw a spec: 1 to 3 axes, any mode, policy, pads (negative ones, too), groups, table, period, flip and direction.

    Parameters
    ----------
    ndim : int, optional
        Number of spatial axes; drawn by default.
    transposed : bool, optional
        Whether the layer is transposed; drawn by default.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(specs(2), lambda spec: spec.flip_kernel).ndim
    2
    """
    ndim = draw(st.integers(1, 3)) if ndim is None else ndim
    transposed = draw(st.booleans()) if transposed is None else transposed
    most = 5 if ndim < 3 else 3
    fields: dict[str, Any] = {
        "kernel_size": draw(_per_axis(ndim, st.integers(1, most))),
        "stride": draw(_per_axis(ndim, st.integers(1, 4))),
        "dilation": draw(_per_axis(ndim, st.integers(1, 3))),
        "padding": draw(st.sampled_from(sorted(POLICIES)) | _per_axis(ndim, _per_axis(2, st.integers(-2, 4)))),
        "padding_mode": draw(st.sampled_from(sorted(MODES))),
        "flip_kernel": draw(st.booleans()),
        "period": draw(st.just(1) | _per_axis(ndim, st.none() | st.integers(1, 4))),
        "transposed": transposed,
    }
    if transposed and not str(fields["padding"]).startswith("same"):
        room = [max(s, d) - 1 for s, d in zip(fields["stride"], fields["dilation"], strict=True)]
        fields["output_padding"] = tuple(draw(st.integers(0, r)) for r in room)
    return ConvSpec(**fields, **draw(_channels()))


@st.composite
def shapes(draw: st.DrawFn, ndim: int | None = None, *, macs: int = 20_000) -> Shape:
    """Draw a shape: a spec with a size that it takes and a batch, which may be 0.

    Parameters
    ----------
    ndim : int, optional
        Number of spatial axes; drawn by default.
    macs : int
        Most multiply-adds of the whole batch.

    Examples
    --------
    >>> from hypothesis import find
    >>> shape = find(shapes(1), lambda shape: shape.batch > 1 and shape.spec.stride == (2,))
    >>> shape.batch, shape.macs > 0
    (2, True)
    """
    spec = draw(specs(ndim))
    most = {1: 24, 2: 9, 3: 6}.get(spec.ndim, 4)
    size = draw(_per_axis(spec.ndim, st.integers(1, most)))
    batch = draw(st.integers(0, 3))
    try:
        form = spec.form(size)
        reads = [axis.reads(j) for axis in form.axes for j in (0, axis.n_out - 1)]
    except NinefoldError:
        reads = []
    assume(reads)
    assume(form.macs * batch <= macs and 0 not in form.n_out)
    return Shape("drawn", "drawn", batch, size, spec, contract=True)


def _per_axis(ndim: int, each: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(*[each] * ndim)


@st.composite
def _channels(draw: st.DrawFn) -> dict[str, Any]:
    """Draw unequal numbers of channels, in groups or by a table."""
    groups = draw(st.integers(1, 3))
    ends = [groups * n for n in draw(st.permutations((1, 2, 3)))[:2]]
    fields: dict[str, Any] = {"in_channels": ends[0], "out_channels": ends[1]}
    if draw(st.booleans()):
        return fields | {"groups": groups}
    pairs = [(o, i) for o in range(ends[1]) for i in range(ends[0])]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, min_size=1))
    return fields | {"table": tuple(chosen)} if draw(st.booleans()) else fields
