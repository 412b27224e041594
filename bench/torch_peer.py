"""The PyTorch that a user would write for a shape: its own convolution, or `unfold` and products where it has none."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from ninefold.spec import ChannelTable, ConvSpec, Form, Map

Layer = Callable[[Tensor, Tensor], Tensor]
_CONV = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


@dataclass(frozen=True)
class Peer:
    """A layer in plain PyTorch, with the weight in whatever arrangement suits it best, converted for free.

    Parameters
    ----------
    what : str
        In a word.
    layer : function
        Takes the input and the packed weight.
    pack, unpack : function
        From the library's arrangement of weights to the peer's, and back.
    plain : tuple, optional
        Arguments of ``aten::convolution_backward`` where the layer is one convolution and nothing else but a border.
    border : function, optional
        What writes the border out before that, where PyTorch has no argument for it.
    """

    what: str
    layer: Layer
    pack: Callable[[Tensor], Tensor]
    unpack: Callable[[Tensor], Tensor]
    plain: tuple[object, ...] | None = None
    border: Callable[[Tensor], Tensor] | None = None


def torch_peer(spec: ConvSpec, form: Form) -> Peer:
    """Return the PyTorch of a layer."""
    if spec.transposed:
        return _transposed(spec, form)
    if form.tiled and not isinstance(form.channels, ChannelTable):
        return _unfolded(form)
    if form.tiled:
        raise NotImplementedError("nobody writes a tiled layer with a channel table in PyTorch")
    return _convolution(spec, form)


def runs(peer: Peer, spec: ConvSpec, operands: tuple[Tensor, Tensor, Tensor]) -> dict[Map, Callable[[], Tensor]]:
    """Return a function per map, without and with autograd's help as the peer allows.

    Gradients of a plain convolution are PyTorch's kernels called directly; of anything else they are a backward pass through
    a graph that was built before the clock started, save that a weight's gradient writes its border out within the time.
    Gradients of weights come in the peer's arrangement.
    """
    K, V, G = operands
    forward, to_input = ("h", "c") if spec.transposed else ("c", "h")
    x, up = (G, V) if spec.transposed else (V, G)
    w = peer.pack(K)

    def layer() -> Tensor:
        with torch.no_grad():
            return peer.layer(x, w)

    result: dict[Map, Callable[[], Tensor]] = {forward: layer}  # type: ignore[dict-item]
    if peer.plain is not None:

        def backward(x: Tensor, mask: list[bool]) -> Tensor:
            return torch.ops.aten.convolution_backward(up, x, w, None, *peer.plain, mask)[mask.index(True)]

        result["g"] = lambda: backward(x if peer.border is None else peer.border(x), [False, True, False])
        if peer.border is None:
            result[to_input] = lambda: backward(x, [True, False, False])  # type: ignore[index]
            return result
    leaf_x, leaf_w = x.detach().requires_grad_(), w.detach().requires_grad_()
    out = peer.layer(leaf_x, leaf_w)

    def gradient(leaf: Tensor) -> Tensor:
        return torch.autograd.grad(out, leaf, up, retain_graph=True)[0]

    result[to_input] = lambda: gradient(leaf_x)  # type: ignore[index]
    result.setdefault("g", lambda: gradient(leaf_w))
    return result


def _same(x: Tensor) -> Tensor:
    return x


def _border(spec: ConvSpec, form: Form) -> tuple[tuple[int, ...] | None, Callable[[Tensor], Tensor]]:
    """Return torch's padding argument, and what has to be done to the input before where there is none (None)."""
    pads = spec.pads(form.n_in)
    if form.mode == "zeros" and all(lo == hi >= 0 for lo, hi in pads):
        return tuple(lo for lo, _ in pads), _same
    flat = [n for pair in reversed(pads) for n in pair]
    mode = _MODES.get(form.mode)
    crops = any(n < 0 for n in flat)
    wide = any(max(pair) > n for pair, n in zip(pads, form.n_in, strict=True))
    if mode == "constant" or (mode is not None and not crops and not wide):
        return None, lambda x: F.pad(x, flat, mode)
    return None, _indexed(form, pads)


def _indexed(form: Form, pads: tuple[tuple[int, int], ...]) -> Callable[[Tensor], Tensor]:
    """Return the border as one `index_select` per axis: what is left where `F.pad` lacks the mode."""
    at = [torch.tensor([a.source(k) for k in range(-lo, a.n_in + hi)]) for a, (lo, hi) in zip(form.axes, pads, strict=True)]

    def extend(x: Tensor) -> Tensor:
        for dim, index in enumerate(at, start=2):
            x = x.index_select(dim, index)
        return x

    return extend


def _convolution(spec: ConvSpec, form: Form) -> Peer:
    padding, border = _border(spec, form)
    conv, none = _CONV[form.ndim - 1], (0,) * form.ndim
    groups = form.channels.groups
    dims = tuple(range(-form.ndim, 0))
    table = form.channels if isinstance(form.channels, ChannelTable) else None
    edges = torch.tensor(table.edges).T if table is not None else None

    def layer(x: Tensor, w: Tensor) -> Tensor:
        if table is not None:
            w = w.new_zeros(table.outputs, table.inputs, *form.kernel).index_put((edges[0], edges[1]), w)
        w = w.flip(dims) if form.flip else w
        return conv(border(x), w, None, form.stride, none if padding is None else padding, form.dilation, groups)

    alone = table is None and not form.flip
    plain = (form.stride, padding or none, form.dilation, False, none, groups) if alone else None
    what = "convolution" if table is None else "masked convolution"
    return Peer(what if padding is not None else f"pad + {what}", layer, _same, _same, plain, border if padding is None else None)


def _transposed(spec: ConvSpec, form: Form) -> Peer:
    if form.mode != "zeros" or form.tiled or form.flip or spec.table is not None:
        raise NotImplementedError("PyTorch transposes plain convolutions only")
    left = tuple(a.n_in + 2 * a.lo - a.span for a in form.axes)
    if not all(a.lo >= 0 and 0 <= p < max(a.stride, a.dilation) for a, p in zip(form.axes, left, strict=True)):
        raise NotImplementedError(f"PyTorch's transposed convolution does not give {form.n_in} from {form.n_out}")
    conv, groups, padding = _TRANSPOSED[form.ndim - 1], form.channels.groups, tuple(a.lo for a in form.axes)

    def layer(x: Tensor, w: Tensor) -> Tensor:
        return conv(x, w, None, form.stride, padding, left, groups, form.dilation)

    plain = (form.stride, padding, form.dilation, True, left, groups)
    return Peer("transposed", layer, _same, _same, plain)


def _columns(form: Form, x: Tensor) -> Tensor:
    """Unfold to (batch, channels * taps, *outputs): `F.unfold` in 2-D, views per axis elsewhere."""
    if form.ndim == 2:
        return F.unfold(x, form.kernel, form.dilation, 0, form.stride).unflatten(2, form.n_out)
    for dim, a in enumerate(form.axes, start=2):
        x = x.unfold(dim, a.extent, a.stride)[..., :: a.dilation]
    order = (0, 1, *range(2 + form.ndim, 2 + 2 * form.ndim), *range(2, 2 + form.ndim))
    return x.permute(order).flatten(1, 1 + form.ndim)


def _unfolded(form: Form) -> Peer:
    """Return unfold + bmm: a batch over positions where every one has its kernel, else a product per kernel."""
    pads = [n for a in reversed(form.axes) for n in (a.lo, a.hi)]
    groups, dims = form.channels.groups, tuple(range(-form.ndim, 0))
    border = _indexed(form, tuple((a.lo, a.hi) for a in form.axes)) if form.mode != "zeros" else lambda x: F.pad(x, pads)
    outs, unshared = form.channels.outputs, all(a.period >= a.n_out for a in form.axes)
    tile = tuple(a.n_out if unshared else min(a.period, a.n_out) for a in form.axes)

    def pack(K: Tensor) -> Tensor:
        """Arrange (outputs, *tile, inputs, *taps) as (positions of the tile, groups, outputs, inputs * taps)."""
        K = K[(slice(None), *(slice(n) for n in tile))]
        K = K.flip(dims) if form.flip else K
        flat = K.reshape(groups, outs // groups, prod(tile), -1)
        return flat.permute(2, 0, 1, 3).contiguous()

    def unpack(D: Tensor) -> Tensor:
        D = D.permute(1, 2, 0, 3).reshape(outs, *tile, -1, *form.kernel)
        D = D.flip(dims) if form.flip else D
        whole = D.new_zeros(form.weight_shape)
        whole[(slice(None), *(slice(n) for n in tile))] = D
        return whole

    def local(x: Tensor, w: Tensor) -> Tensor:
        columns = _columns(form, border(x)).flatten(2).unflatten(1, (groups, -1))
        taken = columns.permute(3, 1, 2, 0).flatten(0, 1)
        result = torch.bmm(w.flatten(0, 1), taken)
        return result.unflatten(0, (-1, groups)).permute(3, 1, 2, 0).reshape(len(x), outs, *form.n_out)

    def cycled(x: Tensor, w: Tensor) -> Tensor:
        columns = _columns(form, border(x)).unflatten(1, (groups, -1))
        out = x.new_empty(len(x), groups, outs // groups, *form.n_out)
        for k, residue in enumerate(product(*(range(t) for t in tile))):
            every = (..., *(slice(r, None, t) for r, t in zip(residue, tile, strict=True)))
            part = columns[every]
            if part.numel():
                out[every] = torch.matmul(w[k], part.flatten(3)).unflatten(3, part.shape[3:])
        return out.flatten(1, 2)

    return Peer("unfold + bmm", local if unshared else cycled, pack, unpack)
