"""Run a network once, and keep what each layer was given, what it gave, and how the positions of both lie in the input."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ninefold.errors import ArgumentTypeError, ShapeError
from ninefold.network.fields import Watch, quiet
from ninefold.network.receptive_field import ReceptiveField
from ninefold.network.receptive_field_rules import Places
from ninefold.network.receptive_field_trace import ReceptiveFieldTrace
from ninefold.network.running import Call as Arguments
from ninefold.spec.parse import integer
from ninefold.symmetry.transforms import Steps

__all__ = ["Call", "Grid", "first_tensor", "fresh", "opened", "outputs_of", "traced"]


@dataclass(frozen=True)
class Grid:
    """How the positions of a tensor lie in the input, per spatial axis.

    Parameters
    ----------
    dims : tuple of int or None
        The dimension that runs along the axis; None if the axis is gone.
    steps : tuple of Fraction
        Positions of the input between neighbours; 0 if the axis is gone.
    reach : tuple of ReceptiveField or None
        What each position reads; None is the whole axis.
    """

    dims: tuple[int | None, ...]
    steps: Steps
    reach: tuple[ReceptiveField | None, ...]

    @property
    def there(self) -> bool:
        """Whether any axis is left."""
        return any(d is not None for d in self.dims)

    def spatial_last(self, x: Tensor) -> Tensor:
        """Return the tensor with a dimension per spatial axis behind all others; of size 1 if the axis is gone."""
        kept = [d for d in self.dims if d is not None]
        first = x.dim() - len(kept)
        x = x.movedim(kept, list(range(-len(kept), 0))) if kept else x
        for axis, dim in enumerate(self.dims):
            x = x.unsqueeze(first + axis) if dim is None else x
        return x

    def put_back(self, x: Tensor) -> Tensor:
        """Undo `spatial_last`."""
        first = x.dim() - len(self.dims)
        for axis in reversed([a for a, d in enumerate(self.dims) if d is None]):
            x = x.squeeze(first + axis)
        kept = [d for d in self.dims if d is not None]
        return x.movedim(list(range(-len(kept), 0)), kept) if kept else x

    def sizes(self, x: Tensor) -> tuple[int, ...]:
        """Return the size along each spatial axis, 1 where it is gone."""
        return tuple(1 if d is None else x.shape[d] for d in self.dims)


@dataclass(frozen=True)
class Call:
    """One call of a layer: its arguments, what it gave, and the grids of both in the input of the network."""

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    grids: dict[int, Grid]
    out: Tensor


def opened(example: Any, spatial: int | None) -> tuple[tuple[Any, ...], dict[str, Any], int]:
    """Return an example as arguments, positional and by name, and how many of its last dimensions are spatial."""
    call = Arguments.of(example)
    tensors = call.tensors()
    if not tensors:
        raise ArgumentTypeError(f"there is no tensor in the example {call}")
    rank = tensors[0].dim()
    axes = max(rank - 2, 1) if spatial is None else integer(spatial, "spatial")
    if not 1 <= axes <= rank:
        raise ShapeError(f"spatial={axes} must be between 1 and the {rank} dimensions of an example of {tuple(tensors[0].shape)}")
    return call.args, call.kwargs, axes


def leaves(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that hold no others, by name; a module that is one itself has none."""
    return {name: m for name, m in module.named_modules() if name and next(m.children(), None) is None}


def first_tensor(given: Any) -> Tensor:
    """Return the first tensor of what a module gave."""
    for leaf in pytree.tree_leaves(given):
        if isinstance(leaf, Tensor):
            return leaf
    raise ArgumentTypeError(f"the module gave {type(given).__name__} without a tensor; its symmetry cannot be measured")


def fresh(given: tuple[Any, dict[str, Any]], grids: dict[int, Grid]) -> tuple[Any, dict[str, Any], dict[int, Grid]]:
    """Return arguments with copies of their tensors, which a layer may overwrite, and the grids of the copies."""
    copies = dict[int, Grid]()

    def copy(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        new = x.detach().clone()
        if id(x) in grids:
            copies[id(new)] = grids[id(x)]
        return new

    args, kwargs = pytree.tree_map(copy, given)
    return args, kwargs, copies


def traced(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], grids: dict[int, Grid]
) -> tuple[Tensor, Grid, list[Call]]:
    """Return a module's output, its grid in the module's own input, and the calls of its layers.

    Parameters
    ----------
    module : torch.nn.Module
    args, kwargs
        What it is called with.
    grids : dict of int to Grid
        By the id of each tensor among the arguments that has spatial axes: where they are.
    """
    if not isinstance(module, nn.Module):
        raise ArgumentTypeError(f"module must be a torch.nn.Module, got type {type(module).__name__}")
    args, kwargs, own = fresh((args, kwargs), grids)
    given = [t for t in pytree.tree_leaves((args, kwargs)) if id(t) in own]
    dims, sizes = own[id(given[0])].dims, own[id(given[0])].sizes(given[0])
    follow = ReceptiveFieldTrace(len(dims))
    for tensor in given:
        follow.put(tensor, {a: (d, ReceptiveField()) for a, d in enumerate(own[id(tensor)].dims) if d is not None})

    def grid(x: Tensor) -> Grid | None:
        places = follow.get(x)
        return None if places is None else _placed(places, x, given[0].dim(), dims, sizes)

    entered, calls, counts = list[Any](), list[Call](), Counter[str]()

    def before(name: str, layer: nn.Module, args: Any, kwargs: Any) -> None:
        del name, layer
        seen = {id(t): g for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor) and (g := grid(t)) is not None}
        entered.append(fresh((args, kwargs), seen))

    def after(name: str, layer: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        del args, kwargs
        counts[name] += 1
        label = name if counts[name] == 1 else f"{name}#{counts[name]}"
        read, named, own = entered.pop()
        calls.append(Call(label, layer, read, named, own, first_tensor(out).detach().clone()))

    watch = Watch(follow, sizes)
    with quiet(module), hooked(module, after, before), watch.on(module), torch.no_grad(), follow:
        out = first_tensor(module(*args, **kwargs))
    return out, grid(out) or Grid((None,) * len(dims), (Fraction(0),) * len(dims), (None,) * len(dims)), calls


def outputs_of(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return what each layer gives, in the order in which they run, and what the whole gives at the end."""
    outputs: list[Tensor] = []

    def after(*call: Any) -> None:
        outputs.append(first_tensor(call[-1]).detach().clone())

    with quiet(module), hooked(module, after), torch.no_grad():
        whole = first_tensor(module(*args, **kwargs))
    return [*outputs, whole]


@contextmanager
def hooked(module: nn.Module, after: Callable[..., None], before: Callable[..., None] | None = None) -> Iterator[None]:
    """Call ``before(name, layer, args, kwargs)`` and ``after(name, layer, args, kwargs, output)`` around each layer."""
    handles = []
    try:
        for name, layer in leaves(module).items():
            if before is not None:
                handles.append(layer.register_forward_pre_hook(partial(before, name), with_kwargs=True))
            handles.append(layer.register_forward_hook(partial(after, name), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _placed(places: Places, x: Tensor, rank: int, own: Sequence[int | None], sizes: Sequence[int]) -> Grid:
    """Return the grid of a tensor; positions that each read the whole axis are told apart by their number, if it fits."""
    dims, steps, reaches = list[int | None](), list[Fraction](), list[ReceptiveField | None]()
    for axis, (same, n) in enumerate(zip(own, sizes, strict=True)):
        dim, reach = places.get(axis, (None, None))
        step = Fraction(reach.shift, len(reach.lo)) if reach is not None else Fraction(0)
        if dim is None and same is not None and x.dim() == rank:
            count = x.shape[same]
            if count and (n % count == 0 or count % n == 0):
                dim, step = same, Fraction(n, count)
        dims.append(dim)
        steps.append(step)
        reaches.append(reach)
    return Grid(tuple(dims), tuple(steps), tuple(reaches))
