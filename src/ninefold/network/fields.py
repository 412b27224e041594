"""The receptive field of every convolution of a network: what one output position can see of the input."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ninefold.errors import ArgumentTypeError, ShapeError
from ninefold.network.receptive_field import ReceptiveField
from ninefold.network.receptive_field_rules import Places, convolved, without
from ninefold.network.receptive_field_trace import ReceptiveFieldTrace
from ninefold.network.running import Call, untouched
from ninefold.spec import ConvSpec

__all__ = ["Watch", "own_fields", "quiet", "receptive_fields"]

Extent = tuple[int, ...] | None


def receptive_fields(
    model: nn.Module, example: Any, kwargs: Mapping[str, Any] | None = None, *, spatial: int | None = None
) -> dict[str, Extent]:
    """Return, for every convolution layer that runs, how far one of its output positions sees in the input.

    The network runs once, in evaluation mode and without gradients, and what each tensor reads is followed through
    the operations that really happen: strides, dilations, pooling, transposed convolution, residuals, branches.

    Parameters
    ----------
    model : torch.nn.Module
    example : Tensor, tuple, mapping or other
        What the model is called with, as `optimize` takes it; the first tensor is the input, others count only if they have its
        spatial sizes.
    kwargs : mapping, optional
        Further arguments, by name.
    spatial : int, optional
        How many of the example's last dimensions are spatial; by default as many as the model's convolutions have axes, or all
        but two where they differ, and at least one.

    Returns
    -------
    dict of str to tuple of int or None
        By qualified name: input positions per spatial axis from the first to the last one seen, of the output position
        that sees farthest, those outside the border included. None is the whole input: behind global pooling,
        flattening, attention, or an operation of which nothing is known. Where that holds along some axes only, these
        have the example's size. A layer that runs several times has its largest; one that sees no input has zeros;
        one that is part of another convolution layer is left out.

    Raises
    ------
    ArgumentTypeError
        If there is no tensor in `example` and `kwargs`.
    ShapeError
        If `spatial` is no number of its dimensions.

    Notes
    -----
    R_i = R_{i-1} + (k_i - 1) d_i J_{i-1} with J_i = J_{i-1} s_i where layers follow one another. An extent says nothing
    of gaps within: a chain of dilated layers can leave some. Normalisation over space (group, instance) reads all.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(3, 4, (3, 5)), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, dilation=2))
    >>> receptive_fields(net, torch.zeros(1, 3, 20, 24))
    {'0': (3, 5), '2': (12, 14)}
    """
    call = Call.of(example, kwargs)
    tensors = call.tensors()
    if not tensors:
        raise ArgumentTypeError(f"there is no tensor in the example {call}")
    rank = tensors[0].dim()
    axes = _spatial(model, rank) if spatial is None else spatial
    if not 1 <= axes <= rank:
        raise ShapeError(f"spatial={axes} must be between 1 and the {rank} dimensions of an example of {tuple(tensors[0].shape)}")
    sizes = tuple(tensors[0].shape[rank - axes :])
    follow = ReceptiveFieldTrace(axes)
    for tensor in tensors:
        if tuple(tensor.shape[-axes:]) == sizes:
            follow.put(tensor, {a: (tensor.dim() - axes + a, ReceptiveField()) for a in range(axes)})
    watch = Watch(follow, sizes)
    with quiet(model), watch.on(model), torch.no_grad(), follow:
        call.on(model)
    return watch.fields


def _spatial(model: nn.Module, rank: int) -> int:
    ranks = {len(m.kernel_size) for m in model.modules() if _is_convolution(m)}  # type: ignore[arg-type]
    return ranks.pop() if len(ranks) == 1 and min(ranks) < rank else max(rank - 2, 1)


def own_fields(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return, for every convolution layer, how far one output position sees in the layer's own input.

    Examples
    --------
    >>> own_fields(nn.Sequential(nn.Conv2d(3, 4, (3, 5), dilation=2), nn.ConvTranspose2d(4, 2, 4, stride=2)))
    {'0': (5, 9), '1': (2, 2)}
    """
    specs = {name: ConvSpec.from_module(m) for name, m in model.named_modules() if _is_convolution(m)}
    return {
        name: tuple(step(ReceptiveField()).extent() for step in _steps(spec, [0] * spec.ndim)) for name, spec in specs.items()
    }


class Watch:
    """Hooks that give whole modules their places, whatever operations their forward is made of."""

    def __init__(self, follow: ReceptiveFieldTrace, sizes: tuple[int, ...]) -> None:
        self.follow = follow
        self.sizes = sizes
        self.fields: dict[str, Extent] = {}
        self._running: list[Places | None] = []

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """Watch the convolution and linear layers of a model."""
        handles = []
        try:
            for name, module in model.named_modules():
                if _is_convolution(module):
                    before, label = self._before_convolution, name
                elif type(module).forward is nn.Linear.forward:
                    before, label = self._before_linear, None
                else:
                    continue
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
                handles.append(module.register_forward_hook(partial(self._after, label)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before_convolution(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["input"]
        places = self.follow.get(x)
        if places is not None:
            spec = ConvSpec.from_module(module)
            form = spec.form(tuple(x.shape[x.dim() - spec.ndim :]))
            places = convolved(places, x.dim(), _steps(spec, [axis.lo for axis in form.axes]))
        self._enter(places)

    def _before_linear(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        x = args[0] if args else kwargs["input"]
        places = self.follow.get(x)
        self._enter(places if places is None else without(places, [x.dim() - 1]))

    def _enter(self, places: Places | None) -> None:
        self._running.append(places)
        self.follow.paused += 1

    def _after(self, name: str | None, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        del module, args
        places = self._running.pop()
        self.follow.paused -= 1
        self.follow.put(output, places)
        if name is not None and not self.follow.paused:
            self._note(name, places, output)

    def _note(self, name: str, places: Places | None, output: Tensor) -> None:
        new: Extent = (0,) * len(self.sizes)
        if places is not None:
            reached = {axis: reach.extent(output.shape[dim]) for axis, (dim, reach) in places.items()}
            new = tuple(reached.get(axis, size) for axis, size in enumerate(self.sizes)) if reached else None
        old = self.fields.get(name, new)
        self.fields[name] = None if old is None or new is None else tuple(map(max, old, new))


@contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Hold evaluation mode, with every module's own flag, the buffers and the random states put back."""
    training = [(module, module.training) for module in model.modules()]
    try:
        with untouched(model):
            model.eval()
            yield
    finally:
        for module, flag in training:
            module.training = flag


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) or isinstance(getattr(module, "spec", None), ConvSpec)


def _steps(spec: ConvSpec, pads: list[int]) -> list[Callable[[ReceptiveField], ReceptiveField]]:
    move = ReceptiveField.transposed if spec.transposed else ReceptiveField.window

    def step(kernel: int, stride: int, dilation: int, lo: int) -> Callable[[ReceptiveField], ReceptiveField]:
        return lambda reach: move(reach, kernel, stride=stride, dilation=dilation, lo=lo)

    return [step(*numbers) for numbers in zip(spec.kernel_size, spec.stride, spec.dilation, pads, strict=True)]
