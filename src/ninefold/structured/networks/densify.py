"""Strides into dilations: a classifier as a labeller of every position, with the classifier's own weights."""

import copy
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from ninefold.errors import ArgumentTypeError, ModelError, ShapeError
from ninefold.structured.networks.dense_calls import (
    BATCH_NORM,
    BINARY,
    BINARY_METHODS,
    COMPARISONS,
    ELEMENTWISE_FUNCTIONS,
    ELEMENTWISE_METHODS,
    POOLS,
    signature,
)
from ninefold.structured.networks.dense_layers import Seen, dense_layer, flattened, pooled_whole, refuse
from ninefold.structured.networks.parts import check_maps, layer

__all__ = ["densify"]

_T = torch.nn.functional
_SIZE = object()  # stands for sizes of tensors, which only views and assertions may read


class Dense(nn.Module):
    """A classifier that `densify` made a labeller of every position.

    Parameters
    ----------
    layers : torch.fx.GraphModule
        The dense network.
    stride : tuple of int
        The classifier's, along each axis: how many positions of the image lie between two of its scores.

    Examples
    --------
    >>> densify(nn.Sequential(nn.Conv1d(1, 2, 3), nn.MaxPool1d(2))).layers
    DenseSequential(
      (0): Conv1d(1, 2, kernel_size=(3,), stride=(1,))
      (1): MaxPool1d(kernel_size=(2,), stride=1, padding=((0, 0),), dilation=(1,), ceil_mode=False)
    )
    """

    def __init__(self, layers: fx.GraphModule, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.layers, self.stride, self.training = layers, stride, layers.training

    def forward(self, image: Tensor) -> Tensor:
        """Return scores ``(batch, classes, *positions)`` of an image ``(batch, channels, *space)`` of any size that is enough.

        Raises
        ------
        ArgumentTypeError, DTypeError, ShapeError
            If it is no image, or smaller than what one position sees.
        """
        check_maps(image, len(self.stride), None, "the image")
        scores: Tensor = self.layers(image)
        return scores

    def extra_repr(self) -> str:
        """Return the stride."""
        return f"stride={self.stride}"


def densify(classifier: nn.Module, example: Tensor | None = None) -> Dense:
    """Return a network that gives at every position what the classifier gives in the window that begins there.

    Strides of convolutions and poolings become dilations of all that follows, so that nothing is left out and nothing is computed
    twice; a dense layer on a flattened map becomes a convolution whose kernel is that map, and pooling to a grid a pooling over
    windows. The classifier is not changed; weights are shared with it.

    Parameters
    ----------
    classifier : torch.nn.Module
        One that torch.fx can trace, of anyone's: convolutions, poolings, batch normalisation, activations, dropout, sums and
        concatenations of maps, sums and products with a tensor that is the same at every position (means of channels), flattening
        and dense layers. In evaluation mode results are equal; in training mode batch
        statistics are those of the whole image.
    example : Tensor of shape ``(batch, channels, *space)``, optional
        An image of the size that the classifier is for. Only its shape is read. Needed where something is pooled over the whole
        image, or a dense layer reads a map that is not square.

    Returns
    -------
    Dense
        A module from ``(batch, channels, *space)`` to ``(batch, classes, *positions)``, with the classifier's `stride`.

    Raises
    ------
    UnsupportedError
        With the layer's name and the reason, where it has no exact dense form: padding that depends on the size,
        normalisation over positions, weights that depend on the whole window (squeeze and excitation).
    ModelError
        If torch.fx cannot trace the classifier.
    ArgumentTypeError, ShapeError
        If the example is no image, or not of the size that the classifier is for.

    Notes
    -----
    Without padding, the result at position p is exactly the classifier's on the window of its size that begins at p: what
    `shift_and_stitch` and `slide` compute, everywhere.

    With zero padding of p positions, a dense map is padded by p times its stride. Then

    * at the multiples of the stride the result is exactly the classifier's on the whole image, borders and all;
    * elsewhere it is what the classifier gives on the image shifted so, as long as what it sees does not reach the border. At the
      border they differ: the shifted image ends where the dense network still sees the image.

    Windows of ``ceil_mode`` that reach beyond the border are as padding at the end.

    Strides may leave out the last positions of the classifier's image. The windows that are really read are then smaller, and
    there are as many more of them.

    Padding by other than zeros is refused where there is a stride in front of it.

    Giusti et al. 2013 (arXiv 1302.1700) do it by fragments, Li, Zhao and Wang 2014 (arXiv 1412.4526) by dilated kernels.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 3 * 3, 5)).eval()
    >>> dense = densify(net)  # it takes images of 8x8
    >>> image = torch.randn(1, 1, 20, 13)
    >>> dense(image).shape, dense.stride
    (torch.Size([1, 5, 13, 6]), (2, 2))
    >>> torch.allclose(dense(image)[..., 7, 2], net(image[..., 7:15, 2:10]), atol=1e-5)
    True
    """
    if not isinstance(classifier, nn.Module):
        raise ArgumentTypeError(f"the classifier must be a torch.nn.Module, got {type(classifier).__name__}")
    model = classifier if list(classifier.children()) else nn.Sequential(classifier)
    try:
        shared = copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})
        traced = fx.symbolic_trace(shared)
    except Exception as error:
        raise ModelError(
            f"{type(classifier).__name__} cannot be traced by torch.fx: {error}; its forward must not depend on values or sizes"
        ) from error
    ndim = _axes_of(shared, example)
    if example is not None and (example.dim() != ndim + 2 or 0 in example.shape[1:]):
        raise ShapeError(f"the example has shape {tuple(example.shape)}; it must be (batch, channels, {ndim} spatial axes)")
    walk = _Walk(traced, ndim, example)
    dense = fx.GraphModule({**walk.modules, **walk.tensors}, walk.graph, f"Dense{type(classifier).__name__}")
    dense.training = classifier.training
    return Dense(dense, walk.out.step)


def _axes_of(model: nn.Module, example: Any) -> int:
    if example is not None and not isinstance(example, Tensor):
        raise ArgumentTypeError(f"the example must be a tensor, got {type(example).__name__}")
    kinds = [type(m).__name__ for m in model.modules()]
    found = [int(k[-2]) for k in kinds if k[-2:] in ("1d", "2d", "3d") and ("Conv" in k or "Pool" in k)]
    if found:
        return found[0]
    if example is None:
        raise ModelError(f"{type(model).__name__} holds no convolution or pooling that tells its axes; give example=, an image")
    return example.dim() - 2


class _Walk:
    """Goes through a traced classifier, and writes the graph of the dense network."""

    def __init__(self, traced: fx.GraphModule, ndim: int, example: Tensor | None) -> None:
        self.source, self.graph, self.ndim, self.example = traced, fx.Graph(), ndim, example
        self.modules: dict[str, nn.Module] = {}
        self.tensors: dict[str, Tensor] = {}
        self.seen: dict[fx.Node, Any] = {}
        self.new: dict[fx.Node, fx.Node] = {}
        self.shared: dict[tuple[Any, ...], str] = {}
        for node in traced.graph.nodes:
            getattr(self, node.op)(node)
        self.graph.lint()

    def placeholder(self, node: fx.Node) -> None:
        if self.seen:
            refuse(f"the input {node.name!r}", "a classifier has one input, the image")
        size = None if self.example is None else tuple(self.example.shape[2:])
        channels = None if self.example is None else self.example.shape[1]
        self._keep(node, self.graph.placeholder(node.name), Seen((1,) * self.ndim, (0,) * self.ndim, size, channels))

    def get_attr(self, node: fx.Node) -> None:
        found: Any = self.source
        for name in str(node.target).split("."):
            found = getattr(found, name)
        self.seen[node] = found

    def _beside(self, node: fx.Node) -> None:
        """Refuse tensors that are read beside the layers."""
        for n in node.all_input_nodes:
            if isinstance(self.seen.get(n), Tensor):
                refuse(f"the tensor {n.target!r}", "it is read beside the layers, and may differ from position to position")

    def output(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node) or not isinstance(self.seen[result], Seen):
            refuse("the output", f"it is {result}, and must be one tensor")
        self.out: Seen = self.seen[result]
        if self.out.kind == "flat":
            refuse("the output", "it is a flattened map, of which no dense layer makes one vector")
        self.graph.output(self.new[result])

    def call_module(self, node: fx.Node) -> None:
        name = str(node.target)
        self._beside(node)
        self._layer(node, f"layer {name!r}", name, self.source.get_submodule(name))

    def call_function(self, node: fx.Node) -> None:
        self._call(node, node.target, f"the call {node.name!r}")

    def call_method(self, node: fx.Node) -> None:
        self._call(node, node.target, f"the call {node.name!r} of .{node.target}()")

    def _keep(self, node: fx.Node, made: fx.Node, seen: Any) -> None:
        self.new[node], self.seen[node] = made, seen

    def _read(self, node: fx.Node, called: str) -> tuple[fx.Node, Seen]:
        """Return what a call reads first: a map of the dense network."""
        first = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
        if not isinstance(first, fx.Node) or not isinstance(self.seen.get(first), Seen):
            refuse(called, "it reads something else than a map first")
        return self.new[first], self.seen[first]

    def _layer(self, node: fx.Node, called: str, name: str, module: nn.Module) -> None:
        """Write the call of a layer; one that is called in several places is one layer per dilation."""
        x, seen = self._read(node, called)
        if len(node.args) + len(node.kwargs) > 1 and node.op == "call_module":
            refuse(called, "it is called with further arguments")
        made, out = dense_layer(called, module, seen)
        key = (id(module), seen.step, seen.kind, seen.grid)
        if key not in self.shared:
            free = (n for k in range(len(self.modules) + 2) if (n := f"{name}_at_{k}" if k else name) not in self.modules)
            self.shared[key] = next(free)
            self.modules[self.shared[key]] = made if made is module else made.train(module.training)
        self._keep(node, self.graph.call_module(self.shared[key], (x,)), out)

    def _call(self, node: fx.Node, target: Any, called: str) -> None:
        """Write a call of a function or a method."""
        if target is torch._assert:  # noqa: SLF001  of sizes, which torch.fx lets nothing else depend on
            return
        if target is _T.batch_norm:
            self._batch_norm(node, called)
            return
        if target not in BINARY and target not in BINARY_METHODS:
            self._beside(node)
        for names, write in self._writers():
            if target in names:
                write(node, called)
                return
        refuse(called, f"{getattr(target, '__name__', target)} is not known to do the same at every position")

    def _writers(self) -> list[tuple[Any, Callable[[fx.Node, str], None]]]:
        return [
            ({*ELEMENTWISE_FUNCTIONS, *ELEMENTWISE_METHODS}, self._elementwise),
            ({*BINARY, *BINARY_METHODS}, self._binary),
            (POOLS, self._pool),
            ({torch.flatten, "flatten"}, self._flatten),
            ({"view", "reshape", torch.reshape}, self._view),
            ({"squeeze", torch.squeeze}, self._squeeze),
            ({"mean", torch.mean}, self._mean),
            ({torch.cat, torch.concat}, self._cat),
            ({torch.softmax, _T.softmax, _T.log_softmax, torch.log_softmax, "softmax", "log_softmax"}, self._softmax),
            ({"size", "dim", "ndimension", getattr, operator.getitem, *COMPARISONS}, self._size),
        ]

    def _elementwise(self, node: fx.Node, called: str) -> None:
        _, seen = self._read(node, called)
        if any(isinstance(a, fx.Node) for a in (*node.args[1:], *node.kwargs.values())) and len(node.all_input_nodes) > 1:
            refuse(called, "it reads several maps")
        self._keep(node, self.graph.node_copy(node, lambda n: self.new[n]), seen)

    def _binary(self, node: fx.Node, called: str) -> None:
        maps = [a for a in node.args if isinstance(a, fx.Node)]
        if any(isinstance(self.seen.get(m), Tensor) for m in maps):
            self._with_constant(node, maps, called)
            return
        if len({*maps}) < len(node.all_input_nodes):
            refuse(called, "it reads a map by the name of an argument")
        if any(not isinstance(self.seen.get(m), Seen) for m in maps):
            refuse(called, "it reads sizes")
        made, seen = self._together(maps, called)
        if len({s.channels for m in maps if (s := self.seen[m]).channels is not None}) > 1:
            refuse(called, "its maps have different numbers of channels")
        place = iter(made)
        args = tuple(next(place) if isinstance(a, fx.Node) else a for a in node.args)
        self._keep(node, self.graph.create_node(node.op, node.target, args, dict(node.kwargs)), seen)

    def _with_constant(self, node: fx.Node, maps: list[fx.Node], called: str) -> None:
        """Write a sum or product of a map and a tensor that is the same at every position, such as a mean of each channel."""
        read = [m for m in maps if isinstance(self.seen.get(m), Seen)]
        constants = [m for m in maps if isinstance(self.seen.get(m), Tensor)]
        values = [cast("Tensor", self.seen[m]) for m in constants]
        alike = all(v.numel() == 1 or (v.dim() > self.ndim and set(v.shape[-self.ndim :]) == {1}) for v in values)
        if len(read) != 1 or len(maps) != len(node.all_input_nodes) or self.seen[read[0]].kind != "map" or not alike:
            self._beside(node)
        seen = cast("Seen", self.seen[read[0]])
        if any(
            v.dim() > self.ndim and v.shape[-self.ndim - 1] not in (1, seen.channels or v.shape[-self.ndim - 1]) for v in values
        ):
            refuse(called, f"it makes other channels of {seen.channels}")
        for m, v in zip(constants, values, strict=True):
            name = f"constants.{m.target}"
            self.tensors[name] = v
            self.new[m] = self.graph.get_attr(name)
        self._keep(node, self.graph.node_copy(node, lambda n: self.new[n]), seen)

    def _batch_norm(self, node: fx.Node, called: str) -> None:
        """Write what layers call that derive from batch normalisation."""
        try:
            found = BATCH_NORM.bind(*node.args, **node.kwargs)
        except TypeError as error:
            refuse(called, str(error))
        found.apply_defaults()
        given = found.arguments
        if given["training"] is not False:
            refuse(called, "in training its statistics are those of the images: call .eval() before")
        mean, variance, weight, bias = (
            None if (n := given[name]) is None else self.seen.get(n) for name in ("running_mean", "running_var", "weight", "bias")
        )
        if not isinstance(mean, Tensor) or not isinstance(variance, Tensor) or any(t is _SIZE for t in (weight, bias)):
            refuse(called, "it has no running statistics, and depends on the whole image")
        made: Any = getattr(nn, f"BatchNorm{self.ndim}d")(len(mean), given["eps"], affine=False, device="meta").eval()
        made.running_mean, made.running_var, made.num_batches_tracked = mean, variance, None
        made.affine = weight is not None or bias is not None
        for name, t in (("weight", weight), ("bias", bias)):
            setattr(made, name, t if t is None or isinstance(t, nn.Parameter) else nn.Parameter(t, requires_grad=False))
        self._layer(node, called, str(node.name), made)

    def _together(self, maps: list[fx.Node], called: str) -> tuple[list[fx.Node], Seen]:
        """Return maps of one size, which they are in the classifier, and what is known of all of them."""
        seen = [self.seen[m] for m in maps]
        first = seen[0]
        for other in seen[1:]:
            if other.step != first.step:
                refuse(called, f"its maps have strides {first.step} and {other.step}")
            if other.kind != first.kind or (None not in (other.grid, first.grid) and other.grid != first.grid):
                refuse(called, f"its maps have {first.grid} and {other.grid} positions: one would depend on the whole window")
            if any(abs(a - b) >= s for a, b, s in zip(first.lost, other.lost, first.step, strict=True)):
                refuse(
                    called, f"its maps end {first.lost} and {other.lost} positions before the image, more than one stride apart"
                )
        lost = tuple(max(v) for v in zip(*(s.lost for s in seen), strict=True))
        made = [self._cropped(m, s.lost, lost) for m, s in zip(maps, seen, strict=True)]
        grid = next((s.grid for s in seen if s.grid is not None), None)
        return made, replace(first, lost=lost, grid=grid)

    def _cropped(self, node: fx.Node, lost: tuple[int, ...], wanted: tuple[int, ...]) -> fx.Node:
        """Return the map without its last positions, which stand for none of the classifier's."""
        made = self.new[node]
        if lost == wanted:
            return made
        crop: Any = (..., *(slice(None, a - b or None) for a, b in zip(lost, wanted, strict=True)))
        return self.graph.call_function(operator.getitem, (made, crop))

    def _pool(self, node: fx.Node, called: str) -> None:
        kind, signature = POOLS[node.target]
        try:
            found = signature.bind(*node.args, **node.kwargs).arguments
        except TypeError as error:
            refuse(called, str(error))
        found.pop("input")
        if int(kind[-2]) != self.ndim or any(isinstance(v, fx.Node) for v in found.values()):
            refuse(called, "its arguments depend on the image, or it pools along other axes")
        self._layer(node, called, str(node.name), layer(kind[:-2], self.ndim)(**found))

    def _flatten(self, node: fx.Node, called: str) -> None:
        given = signature("input", start_dim=0, end_dim=-1).bind(*node.args, **node.kwargs)
        given.apply_defaults()
        if given.arguments["start_dim"] != 1:
            refuse(called, f"it flattens from axis {given.arguments['start_dim']}; only from 1 on is it a window's vector")
        self._layer(node, called, str(node.name), nn.Flatten(1, given.arguments["end_dim"]))

    def _view(self, node: fx.Node, called: str) -> None:
        x, seen = self._read(node, called)
        rest = node.args[1:]
        sizes = tuple(rest[0]) if len(rest) == 1 and isinstance(rest[0], (tuple, list)) else rest
        if len(sizes) != 2:
            refuse(called, f"a view as {sizes} is no flattening; only (batch, -1) is")
        count, known = sizes[1], None
        if seen.channels is not None and seen.grid is not None:
            known = seen.channels * torch.Size(seen.grid).numel()
        if isinstance(count, int) and count != -1 and known is not None and known != count:
            raise ShapeError(f"{called} makes vectors of {count} numbers, but {known} reach it; the example has another size")
        self._keep(node, x, flattened(seen))

    def _squeeze(self, node: fx.Node, called: str) -> None:
        x, seen = self._read(node, called)
        if seen.grid is None or max(seen.grid) > 1:
            refuse(called, "it drops axes of a map that has more than one position, or of unknown size")
        self._keep(node, x, flattened(seen))

    def _mean(self, node: fx.Node, called: str) -> None:
        x, seen = self._read(node, called)
        given = signature("input", dim=None, keepdim=False).bind(*node.args, **node.kwargs)
        given.apply_defaults()
        dims = given.arguments["dim"]
        every = set(range(2, 2 + self.ndim))
        if not isinstance(dims, (tuple, list, int)) or {d % (self.ndim + 2) for d in _several(dims)} != every:
            refuse(called, f"a mean over axes {dims} is not one over all positions")
        made, out = pooled_whole(called, seen)
        self.modules[str(node.name)] = made
        self._keep(node, self.graph.call_module(str(node.name), (x,)), out if given.arguments["keepdim"] else flattened(out))

    def _cat(self, node: fx.Node, called: str) -> None:
        given = signature("tensors", dim=0).bind(*node.args, **node.kwargs)
        given.apply_defaults()
        maps = cast("list[fx.Node]", list(given.arguments["tensors"]))
        kinds = [self.seen.get(m) for m in maps]
        if given.arguments["dim"] != 1 or any(not isinstance(s, Seen) or s.kind == "flat" for s in kinds):
            refuse(
                called, f"it puts together along axis {given.arguments['dim']}; only maps along their channels, axis 1, are alike"
            )
        made, seen = self._together(maps, called)
        widths = [self.seen[m].channels for m in maps]
        total = None if None in widths else sum(widths)
        self._keep(node, self.graph.call_function(torch.cat, (made, 1)), replace(seen, channels=total))

    def _softmax(self, node: fx.Node, called: str) -> None:
        given = signature("input", dim=None, _stacklevel=3, dtype=None).bind(*node.args, **node.kwargs)
        name = str(getattr(node.target, "__name__", node.target))
        kind = nn.LogSoftmax if "log" in name else nn.Softmax
        self._layer(node, called, str(node.name), kind(dim=given.arguments.get("dim")))

    def _size(self, node: fx.Node, called: str) -> None:
        """Keep sizes in mind for views, which are the only ones that may read them."""
        read = self.seen.get(cast("fx.Node", node.args[0]))
        if read is not _SIZE and node.target is operator.getitem:
            refuse(called, "it takes a part of a map")
        if read is not _SIZE and node.target is getattr and node.args[1] not in ("shape", "ndim"):
            refuse(called, f"it reads .{node.args[1]} of a map")
        if node.target in COMPARISONS and any(self.seen.get(n) is not _SIZE for n in node.all_input_nodes):
            refuse(called, "it compares maps")
        self.seen[node] = _SIZE


def _several(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
