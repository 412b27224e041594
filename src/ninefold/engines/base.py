"""What every engine promises: refuse in words, state cost, error and scratch, prepare once, then run without thinking."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from ninefold.spec.axis import Axis
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem

__all__ = [
    "Engine",
    "Error",
    "Machine",
    "Runner",
    "Traits",
    "add_bias",
    "blocks",
    "direct_error",
    "empty",
    "extend",
    "fold",
    "in_format",
    "unit_roundoff",
]

Runner = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Takes the operands in the map's order, ``(K, V)``, ``(K, G)`` or ``(V, G)``, and a bias or None."""

BLOCK = 8 << 20
"""Bytes that an engine cutting its work into blocks aims at: enough to keep a product busy, few enough for the cache."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What holds for every result of an engine; each is stated here and tested.

    Parameters
    ----------
    direct : bool
        Sums the products of the definition and nothing else; admitted by ``tolerance="strict"``.
    exact : bool
        Small integers come out exact.
    local : bool
        NaN and infinity reach no output that the definition keeps them from.
    deterministic : bool
        The same operands give the same bits at every run on the same number of threads.
    """

    direct: bool
    exact: bool
    local: bool
    deterministic: bool = True


@dataclass(frozen=True, slots=True)
class Error:
    """Error on the scale ``max|V in tile| * ||K_o||_1``: a worst-case bound and a calibrated estimate."""

    bound: float
    estimate: float


@dataclass(frozen=True, slots=True)
class Machine:
    """Rates of a machine, calibrated once: the unit is one per second.

    Parameters
    ----------
    product : float
        Multiply-adds in a large float32 matrix product, with all threads in use.
    stream : float
        Bytes read or written while copying a large array.
    transform : float
        Elements times log2(length) in batched real Fourier transforms.
    call : float
        Seconds of one small torch operation.
    """

    product: float = 1.2e11
    stream: float = 2.0e10
    transform: float = 6.0e9
    call: float = 4e-6


class Engine(ABC):
    """One algorithm, for any of the three maps, or a spoken reason why not.

    `refuses` both selects and explains. `prepare` thinks; the runner it returns only runs. Every engine is stateless.
    """

    name: str
    revision: int
    traits: Traits

    @abstractmethod
    def refuses(self, problem: Problem) -> str | None:
        """Return None, or one sentence with the numbers in it that says why not."""

    @abstractmethod
    def cost(self, problem: Problem, machine: Machine) -> float:
        """Return the estimated seconds of a run."""

    @abstractmethod
    def error(self, problem: Problem) -> Error:
        """Return the two error numbers."""

    @abstractmethod
    def scratch(self, problem: Problem) -> int:
        """Return the bytes held beside operands and result during a run, under the problem's cap where that is possible."""

    @abstractmethod
    def prepare(self, problem: Problem, weight: Tensor | None = None) -> Runner:
        """Return the runner; a `weight` that is given is final, and whatever derives from it may be kept."""


def unit_roundoff(dtype: str) -> float:
    """Return the relative rounding error of one operation; half types accumulate in float32 but are stored in their own.

    Examples
    --------
    >>> unit_roundoff("float64") == 2.0 ** -53
    True
    """
    digits = {"float64": 53, "complex128": 53, "float32": 24, "complex64": 24, "float16": 11, "bfloat16": 8}
    return 2.0 ** -digits.get(dtype, 53)


def direct_error(problem: Problem) -> Error:
    """Return the error of summing products directly: the bound of recursive summation, and its random-walk estimate."""
    form = problem.form
    terms = problem.batch * prod(form.n_out) if problem.map == "g" else _terms(form)
    u = unit_roundoff(problem.dtype)
    return Error(bound=(terms + 1) * u, estimate=(1 + 0.75 * terms**0.5) * u)


def _terms(form: Form) -> int:
    return max(1, form.channels.connections // max(1, min(form.channels.inputs, form.channels.outputs))) * prod(form.kernel)


def empty(like: Tensor, shape: tuple[int, ...], channels_last: bool = False) -> Tensor:
    """Allocate a result beside `like`, in the memory format that is asked for."""
    if channels_last and len(shape) in (4, 5):
        fmt = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
        return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=fmt)
    return like.new_empty(shape)


def in_format(x: Tensor, channels_last: bool) -> Tensor:
    """Return x in channels-last memory if `channels_last`, else contiguous; x itself where it is already."""
    if channels_last and x.ndim in (4, 5):
        return x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    return x.contiguous()


def add_bias(out: Tensor, bias: Tensor | None) -> Tensor:
    """Add one number per channel, in place."""
    return out if bias is None else out.add_(bias.view(-1, *(1,) * (out.ndim - 2)))


def extend(V: Tensor, form: Form) -> Tensor:
    """Return ``V`` with its border: along each axis exactly the positions that the outputs read, ``axis.span`` of them.

    What remains is a form without padding. The adjoint is `fold`. The result may share memory with `V`.
    """
    pads = [p for axis in reversed(form.axes) for p in (max(axis.lo, 0), max(axis.hi, 0))]
    if any(pads):
        V = torch.nn.functional.pad(V, pads)
        for dim, axis in enumerate(form.axes, start=2):
            for outside, inside in _slabs(axis):
                V.narrow(dim, outside, len(inside)).copy_(V.index_select(dim, torch.tensor(inside, device=V.device)))
    for dim, axis in enumerate(form.axes, start=2):
        V = V.narrow(dim, max(-axis.lo, 0), axis.span)
    return V


def fold(R: Tensor, form: Form) -> Tensor:
    """Return the adjoint of `extend`: what lies on the border is added to where it came from. May change `R`."""
    crops = [p for axis in reversed(form.axes) for p in (max(-axis.lo, 0), max(-axis.hi, 0))]
    if any(crops):
        R = torch.nn.functional.pad(R, crops)
    for dim, axis in reversed(list(enumerate(form.axes, start=2))):
        for outside, inside in _slabs(axis):
            slab = R.narrow(dim, outside, len(inside))
            R.index_add_(dim, torch.tensor(inside, device=R.device), slab.clone())
        R = R.narrow(dim, max(axis.lo, 0), axis.n_in)
    return R


@lru_cache(maxsize=1024)
def _slabs(axis: Axis) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Return the two border slabs as (first extended position, extended positions they repeat); none for zeros."""
    lo, hi = max(axis.lo, 0), max(axis.hi, 0)
    if axis.mode == "zeros":
        return ()

    def inside(first: int, last: int) -> tuple[int, ...]:
        return tuple(lo + i for i in map(axis.source, range(first, last)) if i is not None)

    slabs = ((0, inside(-lo, 0)), (lo + axis.n_in, inside(axis.n_in, axis.n_in + hi)))
    return tuple(slab for slab in slabs if slab[1])


def blocks(total: int, size: int) -> Iterator[slice]:
    """Cut ``range(total)`` into consecutive slices of at most `size`.

    Examples
    --------
    >>> [(b.start, b.stop) for b in blocks(7, 3)]
    [(0, 3), (3, 6), (6, 7)]
    """
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
