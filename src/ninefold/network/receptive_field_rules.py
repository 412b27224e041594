"""What each ATen operation does to what a tensor reads of the input: one short rule per kind of operation."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from math import ceil, floor, prod
from typing import Any

from torch import Tensor

from ninefold.network.receptive_field import ReceptiveField

__all__ = ["CONSTANTS", "RULES", "Places", "convolved", "elementwise", "everything", "without"]

Places = dict[int, tuple[int, ReceptiveField]]
"""Input axis to the tensor's dimension that still runs along it, and its reach; an axis not there is read whole."""

Arguments = dict[str, Any]


def convolved(places: Places, rank: int, steps: Sequence[Callable[[ReceptiveField], ReceptiveField]]) -> Places:
    """Return the places behind a window over the last ``len(steps)`` of `rank` dimensions.

    Examples
    --------
    >>> convolved({0: (2, ReceptiveField())}, 3, [lambda reach: reach.window(5)])
    {0: (2, ReceptiveField(lo=(0,), hi=(4,), shift=1))}
    """
    first = rank - len(steps)
    moved = {a: (d, steps[d - first](r)) for a, (d, r) in places.items() if d >= first}
    # The dimension in front of the window is the channels', which every output reads whole.
    return moved | {a: (d, r) for a, (d, r) in places.items() if d < first - 1}


def without(places: Places, dims: Iterable[int]) -> Places:
    """Return the places with the axes that run along `dims` read whole.

    Examples
    --------
    >>> without({0: (2, ReceptiveField())}, [2])
    {}
    """
    gone = set(dims)
    return {axis: (dim, reach) for axis, (dim, reach) in places.items() if dim not in gone}


Known = list[tuple[Tensor, Places]]
Rule = Callable[[Known, Arguments, Tensor], Places]


def _dims(given: Any, rank: int) -> set[int]:
    """Return the dimensions an argument names; none, None and [] name all."""
    listed = [given] if isinstance(given, int) else given
    return {d % max(rank, 1) for d in listed} if listed else set(range(rank))


def everything(known: Known, named: Arguments, out: Tensor) -> Places:
    """Read every axis whole."""
    del known, named, out
    return {}


def elementwise(known: Known, named: Arguments, out: Tensor) -> Places:
    """Read at each position what the operands read there, dimensions aligned from the last."""
    del named
    merged: Places | None = None
    for tensor, places in known:
        offset = out.dim() - tensor.dim()
        # A dimension of size 1 that is spread over many positions gives all of them the same field.
        kept = {
            a: (d + offset, r) for a, (d, r) in places.items() if d + offset >= 0 and out.shape[d + offset] == tensor.shape[d]
        }
        if merged is None:
            merged = kept
        else:
            both = {a for a in merged.keys() & kept.keys() if merged[a][0] == kept[a][0]}
            merged = {a: (kept[a][0], merged[a][1].union(kept[a][1], out.shape[kept[a][0]])) for a in both}
    return merged or {}


def _along_dim(known: Known, named: Arguments, out: Tensor) -> Places:
    dims = _dims(named.get("dims", named.get("dim", -1)), out.dim())
    return elementwise([(t, without(p, dims)) for t, p in known], named, out)


def _channels(known: Known, named: Arguments, out: Tensor) -> Places:
    return _along_dim(known, named | {"dim": 1}, out)


def _cat(known: Known, named: Arguments, out: Tensor) -> Places:
    return _along_dim(known, {"dim": named.get("dim", 0)}, out)


def _split(known: Known, named: Arguments, out: Tensor) -> Places:
    return _along_dim(known, {"dim": named.get("dim", 0)}, out)


def _reduction(known: Known, named: Arguments, out: Tensor) -> Places:
    tensor, places = known[0]
    dims = _dims(named.get("dim"), tensor.dim())
    kept = without(places, dims)
    if out.dim() == tensor.dim():
        return kept
    return {a: (d - sum(e < d for e in dims), r) for a, (d, r) in kept.items()}


def _select(known: Known, named: Arguments, out: Tensor) -> Places:
    return _reduction(known, {"dim": named.get("dim", 0)}, out)


def _stack(known: Known, named: Arguments, out: Tensor) -> Places:
    new = named.get("dim", 0) % out.dim()
    moved = [(t.unsqueeze(new), {a: (d + (d >= new), r) for a, (d, r) in p.items()}) for t, p in known]
    return _along_dim(moved, {"dim": new}, out)


def _batch_norm(known: Known, named: Arguments, out: Tensor) -> Places:
    # Statistics of this very batch read all of it: instance norm, or batch norm without running statistics.
    return {} if named.get("training", False) else elementwise(known, named, out)


def _layer_norm(known: Known, named: Arguments, out: Tensor) -> Places:
    rank = out.dim()
    dims = range(rank - len(named["normalized_shape"]), rank)
    return elementwise([(t, without(p, dims)) for t, p in known], named, out)


def _permute(known: Known, named: Arguments, out: Tensor) -> Places:
    order = [d % out.dim() for d in named["dims"]]
    return {a: (order.index(d), r) for a, (d, r) in known[0][1].items()}


def _transpose(known: Known, named: Arguments, out: Tensor) -> Places:
    order = list(range(out.dim()))
    i, j = named.get("dim0", 0), named.get("dim1", 1)
    order[i], order[j] = order[j], order[i]
    return _permute(known, {"dims": order}, out)


def _view(known: Known, named: Arguments, out: Tensor) -> Places:
    """Keep a dimension where one of its size stands before as many elements as it did."""
    del named
    tensor, places = known[0]
    new = {(n, prod(out.shape[e + 1 :])): e for e, n in enumerate(out.shape)}
    old = {d: (tensor.shape[d], prod(tensor.shape[d + 1 :])) for d, _ in places.values()}
    return {a: (new[old[d]], r) for a, (d, r) in places.items() if old[d] in new}


def _slice(known: Known, named: Arguments, out: Tensor) -> Places:
    del out
    tensor, places = known[0]
    at, size = named.get("dim", 0) % tensor.dim(), tensor.shape[named.get("dim", 0)]
    start, step = named.get("start") or 0, named.get("step", 1)
    start = max(0, min(size, start + size if start < 0 else start))
    return {a: (d, r.window(1, stride=step, lo=-start) if d == at else r) for a, (d, r) in places.items()}


def _pad(known: Known, named: Arguments, out: Tensor) -> Places:
    pads: Sequence[int] = named["pad" if "pad" in named else "padding"]  # pairs, the last dimension first
    low = {out.dim() - 1 - i: lo for i, lo in enumerate(pads[::2])}
    return {a: (d, r.window(1, lo=low.get(d, 0))) for a, (d, r) in known[0][1].items()}


def _per_axis(given: Any, count: int, default: Sequence[int]) -> Sequence[int]:
    values = list(given) if isinstance(given, (list, tuple)) else [given]
    if given is None or not values:
        return default
    return values * count if len(values) == 1 else values


def _window(known: Known, named: Arguments, kernel: Sequence[int]) -> Places:
    n = len(kernel)
    stride = _per_axis(named.get("stride"), n, [1] * n if "weight" in named else kernel)
    dilation = _per_axis(named.get("dilation"), n, [1] * n)
    pads = _per_axis(named.get("padding"), n, [0] * n)
    move = ReceptiveField.transposed if named.get("transposed", False) else ReceptiveField.window

    def step(k: int, s: int, d: int, lo: int) -> Callable[[ReceptiveField], ReceptiveField]:
        return lambda reach: move(reach, k, stride=s, dilation=d, lo=lo)

    tensor, places = known[0]
    return convolved(places, tensor.dim(), [step(*v) for v in zip(kernel, stride, dilation, pads, strict=True)])


def _convolution(known: Known, named: Arguments, out: Tensor) -> Places:
    if len(known) > 1 or known[0][0] is not named["input"]:
        return everything(known, named, out)  # a kernel made from the input
    return _window(known, named, named["weight"].shape[2:])


def _pool(ndim: int) -> Rule:
    def rule(known: Known, named: Arguments, out: Tensor) -> Places:
        del out
        tensor, places = known[0]
        # A pooling mixes no channels, so that a dimension in front of its window passes whatever it is.
        front = {a: (d, r) for a, (d, r) in places.items() if d < tensor.dim() - ndim}
        return _window(known, named, _per_axis(named["kernel_size"], ndim, ())) | front

    return rule


def _moved(
    known: Known, out: Tensor, ndim: int, step: Callable[[ReceptiveField, int, int, int], ReceptiveField | None]
) -> Places:
    """Move the last `ndim` dimensions by ``step(reach, axis, old size, new size)``; None reads the axis whole."""
    tensor, places = known[0]
    first = tensor.dim() - ndim
    moved = {a: (d, step(r, d - first, tensor.shape[d], out.shape[d]) if d >= first else r) for a, (d, r) in places.items()}
    return {a: (d, r) for a, (d, r) in moved.items() if r is not None}


def _adaptive_pool(ndim: int) -> Rule:
    def step(reach: ReceptiveField, axis: int, n: int, o: int) -> ReceptiveField | None:
        del axis
        ratio = Fraction(n, o)
        if o == 1:
            return None
        return reach.through(lambda j: range(floor(j * ratio), ceil((j + 1) * ratio)), ratio.denominator, ratio.numerator)

    def rule(known: Known, named: Arguments, out: Tensor) -> Places:
        del named
        return _moved(known, out, ndim, step)

    return rule


def _nearest(at: Fraction) -> Iterable[int]:
    return (floor(at),)


def _linear(at: Fraction) -> Iterable[int]:
    return (floor(at), ceil(at))


def _cubic(at: Fraction) -> Iterable[int]:
    return range(floor(at) - 1, floor(at) + 3)


def _upsample(ndim: int, taps: Callable[[Fraction], Iterable[int]], *, centred: bool) -> Rule:
    def rule(known: Known, named: Arguments, out: Tensor) -> Places:
        scales = named.get("scale_factors") or [v for k, v in named.items() if k.startswith("scales")]
        corners = bool(named.get("align_corners", False))

        def step(reach: ReceptiveField, axis: int, n: int, o: int) -> ReceptiveField:
            given = scales[axis] if axis < len(scales) else None
            ratio = Fraction(1 / given).limit_denominator(4096) if given else Fraction(n, o)
            shift = Fraction(0) if corners or not centred else (ratio - (taps is not _nearest)) / 2
            if corners:
                ratio = Fraction(n - 1, max(o - 1, 1))
            return reach.through(lambda j: taps(j * ratio + shift), ratio.denominator, ratio.numerator)

        return _moved(known, out, ndim, step)

    return rule


def _pixel_shuffle(known: Known, named: Arguments, out: Tensor) -> Places:
    r = named["upscale_factor"]
    steps = [lambda reach: reach.through(lambda i: (i // r,), r, 1)] * 2
    return convolved(known[0][1], out.dim(), steps)


def _pixel_unshuffle(known: Known, named: Arguments, out: Tensor) -> Places:
    r = named["downscale_factor"]
    return convolved(known[0][1], out.dim(), [lambda reach: reach.window(r, stride=r)] * 2)


def _named(rule: Rule, *names: str) -> dict[str, Rule]:
    return dict.fromkeys(names, rule)


CONSTANTS = frozenset(f"{kind}_like" for kind in ("zeros", "ones", "empty", "full", "rand", "randn", "randint")) | {
    "new_empty",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty_strided",
}
"""Operations that read a tensor's shape, not its values."""

RULES: dict[str, Rule] = {
    **_named(elementwise, "clone", "detach", "alias", "lift_fresh", "_to_copy", "contiguous", "copy_", "expand", "repeat"),
    **_named(elementwise, "hardswish", "hardswish_", "_prelu_kernel", "rrelu_with_noise", "rrelu_with_noise_"),
    **_named(elementwise, "native_dropout", "to", "_conj", "resolve_conj", "resolve_neg"),
    **_named(_batch_norm, "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "batch_norm"),
    **_named(elementwise, "_native_batch_norm_legit_no_training", "_batch_norm_no_update"),
    **_named(_layer_norm, "native_layer_norm", "_fused_rms_norm"),
    **_named(_view, "view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze", "flatten", "unflatten"),
    **_named(_permute, "permute"),
    **_named(_transpose, "transpose", "t"),
    **_named(_slice, "slice"),
    **_named(_pad, "constant_pad_nd", *(f"{m}_pad{n}d" for m in ("reflection", "replication") for n in (1, 2, 3))),
    **_named(_select, "select", "unbind"),
    **_named(_split, "split", "split_with_sizes", "chunk"),
    **_named(_cat, "cat"),
    **_named(_stack, "stack"),
    **_named(_channels, "channel_shuffle", "native_channel_shuffle"),
    **_named(_along_dim, "_softmax", "_log_softmax", "cumsum", "cumprod", "logcumsumexp", "sort", "topk", "glu"),
    **_named(_along_dim, "flip", "roll", "index_select", "gather"),
    **_named(_reduction, "sum", "mean", "amax", "amin", "max", "min", "var", "std", "prod", "logsumexp", "any", "all"),
    **_named(_reduction, "argmax", "argmin", "linalg_vector_norm", "norm", "var_mean", "median"),
    **_named(_convolution, "convolution", "_convolution", "convolution_overrideable"),
    **{f"{kind}_pool{n}d": _pool(n) for kind in ("max", "avg", "mkldnn_max") for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": _pool(n) for n in (1, 2, 3)},
    **{f"{kind}_pool{n}d": _adaptive_pool(n) for kind in ("_adaptive_avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)},
    **{f"upsample_nearest{n}d": _upsample(n, _nearest, centred=False) for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": _upsample(n, _nearest, centred=True) for n in (1, 2, 3)},
    **{
        f"upsample_{kind}{n}d": _upsample(n, _linear, centred=True)
        for kind, n in (("linear", 1), ("bilinear", 2), ("trilinear", 3))
    },
    "upsample_bicubic2d": _upsample(2, _cubic, centred=True),
    **_named(_pixel_shuffle, "pixel_shuffle"),
    **_named(_pixel_unshuffle, "pixel_unshuffle"),
}
"""Rule by the name of the ATen operation; pointwise ones need none, and what has no rule reads everything."""
