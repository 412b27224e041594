"""What every engine promises: refuse in words, state cost, error and scratch, prepare once, then run without thinking."""

import cmath
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from ninefold.engines.final import Final
from ninefold.engines.gather import runs
from ninefold.spec.axis import Axis
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem

__all__ = [
    "EPILOGUES",
    "Engine",
    "Epilogue",
    "Error",
    "Machine",
    "PairRunner",
    "Runner",
    "Traits",
    "Watched",
    "add_bias",
    "all_finite",
    "blocks",
    "direct_error",
    "empty",
    "extended_along",
    "extension",
    "folding",
    "in_format",
    "owned",
    "unit_roundoff",
    "unwatched",
]

Runner = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Takes the operands in the map's order, ``(K, V)``, ``(K, G)`` or ``(V, G)``, and a bias or None."""

Watched = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, bool]]
"""A runner that also says whether its result was finite before an epilogue; where it was not, the result may be of no use."""

PairRunner = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes ``(K, V, G)`` and returns the gradients to ``V`` and to ``K``."""


class Epilogue(NamedTuple):
    """A pointwise function that may follow the bias: as autograd takes it, and in place."""

    apply: Callable[[Tensor], Tensor]
    apply_: Callable[[Tensor], Tensor]


EPILOGUES = {"relu": Epilogue(torch.relu, torch.relu_)}
"""What may follow the bias of maps c and h in the same pass, by name; NaN stays NaN."""

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
    """Rates of a machine, calibrated once (``ninefold calibrate``): the unit is one per second.

    The defaults are what is assumed of two threads of a machine that was never measured.

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

    def __str__(self) -> str:
        return (
            f"{self.product / 1e9:.1f} G multiply-adds/s, {self.stream / 1e9:.1f} GB/s copied, "
            f"{self.transform / 1e9:.2f} G elements x log2(length)/s transformed, {self.call * 1e6:.1f} us a call"
        )


class Engine(ABC):
    """One algorithm, for any of the three maps, or a spoken reason why not.

    `refuses` both selects and explains. `prepare` thinks; the runner it returns only runs. Every engine is stateless.

    A result is memory that nobody else holds. That of c is no view of a larger tensor either; what h folds or g sums up may be
    one, and is made a tensor of its own by who asks for it (`owned`).

    `epilogues` names those of `EPILOGUES` that a runner applies while a result is at hand, so that a pass over it is saved; an
    engine that names one takes it in its own `prepare_with`.

    `transparent` is a composition of PyTorch's own operations, which autograd and compilers see through. `by_format` says whether
    the time of a run depends on the memory format. Where an engine is not `modelled`, what decides its time is not known to its
    estimate: PyTorch's own choice of a kernel.
    """

    name: str
    revision: int
    traits: Traits
    epilogues: frozenset[str] = frozenset()
    transparent: bool = False
    modelled: bool = True
    by_format: bool = True

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
    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        """Return the runner; whatever derives from a `weight` that is given may be kept, as a form of it."""

    def prepare_with(self, problem: Problem, weight: Final | None, epilogue: str) -> Runner:
        """Return a runner whose result has gone through an epilogue: by default in place, when all of it is there."""
        run, apply_ = self.prepare(problem, weight), EPILOGUES[epilogue].apply_

        def then(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
            return apply_(run(a, b, bias))

        return then

    def prepare_watched(self, problem: Problem, weight: Final | None, epilogue: str | None = None) -> Watched:
        """Return a runner that looks whether its result is finite: all of it, in one more pass over it.

        What is not finite in an operand, or overflows on the way, reaches some element of the result, for sums and products never
        make it finite again. An engine that can tell for less says so itself.
        """
        run, apply_ = self.prepare(problem, weight), None if epilogue is None else EPILOGUES[epilogue].apply_

        def watched(a: Tensor, b: Tensor, bias: Tensor | None = None) -> tuple[Tensor, bool]:
            out = run(a, b, bias)
            finite = all_finite(out)
            return out if apply_ is None else apply_(out), finite

        return watched

    def prepare_pair(self, h: Problem, g: Problem) -> PairRunner | None:
        """Return what makes h and g of one form together, from ``(K, V, G)``, or None where that saves nothing."""
        return None


def all_finite(x: Tensor) -> bool:
    """Return whether all elements are finite, by their sum: False also of numbers so large that this overflows.

    Examples
    --------
    >>> all_finite(torch.tensor([1.0, -2.0])), all_finite(torch.tensor([torch.inf, -torch.inf]))
    (True, False)
    """
    return cmath.isfinite(x.sum(dtype=torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype).item())


def unwatched(watched: Watched) -> Runner:
    """Return the runner alone."""

    def run(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        return watched(a, b, bias)[0]

    return run


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


def owned(x: Tensor) -> Tensor:
    """Return x as no view of other memory: autograd lets nobody change in place what a Function gives out as a view.

    Not for tensors that others hold too, for changes of the one are then no longer noticed in the other.

    Examples
    --------
    >>> owned(torch.zeros(1, 3)[0])._is_view()
    False
    """
    return x.data if x._is_view() else x  # noqa: SLF001  no public name


def add_bias(out: Tensor, bias: Tensor | None) -> Tensor:
    """Add one number per channel, in place."""
    return out if bias is None else out.add_(bias.view(-1, *(1,) * (out.ndim - 2)))


def extension(form: Form) -> Callable[[Tensor], Tensor]:
    """Return what gives ``V`` its border: along each axis exactly the positions that the outputs read, ``axis.span`` of them.

    What remains is a form without padding. The adjoint is `folding`. The result may share memory with ``V``; gradients flow
    through it as through PyTorch's own operations.
    """
    pads = [p for axis in reversed(form.axes) for p in (axis.lo, axis.hi)]
    if not any(pads):
        return lambda V: V
    if _plain(form):
        return lambda V: torch.constant_pad_nd(V, pads)
    mode = _mode_of_torch(form)

    def extend(V: Tensor) -> Tensor:
        if mode is not None and V.numel() and not torch.are_deterministic_algorithms_enabled():
            return torch.nn.functional.pad(V, pads, mode)
        for dim, axis in enumerate(form.axes, start=2):
            V = extended_along(V, dim, axis)
        return V

    return extend


def folding(form: Form) -> Callable[[Tensor], Tensor]:
    """Return the adjoint of `extension`: what lies on the border is added to where it came from. May change its argument."""
    crops = [-p for axis in reversed(form.axes) for p in (axis.lo, axis.hi)]
    if not any(crops):
        return lambda R: R
    if _plain(form):
        return lambda R: torch.constant_pad_nd(R, crops)

    def fold(R: Tensor) -> Tensor:
        for dim, axis in reversed(list(enumerate(form.axes, start=2))):
            R = _folded(R, dim, axis)
        return R

    return fold


def _plain(form: Form) -> bool:
    """Whether one call that pads with zeros, or crops, gives the border."""
    return form.mode == "zeros" and all(min(axis.lo, axis.hi) > -axis.n_in for axis in form.axes)


_REACH: dict[str, Callable[[int], int]] = {"reflect": lambda n: n - 1, "circular": lambda n: n, "replicate": lambda _: 2**62}


def _mode_of_torch(form: Form) -> str | None:
    """Return the mode of ``torch.nn.functional.pad`` that gives this border, or None."""
    if form.ndim > 3 or any(min(axis.lo, axis.hi) < 0 for axis in form.axes):
        return None
    most = [max(axis.lo, axis.hi) for axis in form.axes]
    mode = "replicate" if form.mode == "symmetric" and max(most) == 1 else form.mode
    reach = _REACH.get(mode)
    return mode if reach and all(n <= reach(axis.n_in) for n, axis in zip(most, form.axes, strict=True)) else None


def extended_along(V: Tensor, dim: int, axis: Axis) -> Tensor:
    """Write out the border along one axis: kept in the middle, repeated on both sides. `extension` does so along all."""
    first, start, stop = _kept(axis)
    kept = V.narrow(dim, first, stop - start)
    if axis.mode == "zeros":
        return torch.constant_pad_nd(kept, [0, 0] * (V.ndim - 1 - dim) + [start, axis.span - stop])
    parts = [*_taken(V, dim, axis, 0, start), kept, *_taken(V, dim, axis, stop, axis.span)]
    return torch.cat([x for x in parts if x.shape[dim]], dim) if axis.border else kept


def _folded(R: Tensor, dim: int, axis: Axis) -> Tensor:
    """Fold the border back along one axis."""
    first, start, stop = _kept(axis)
    V = R.narrow(dim, start, stop - start)
    if stop - start < axis.n_in:
        V = torch.constant_pad_nd(V, [0, 0] * (R.ndim - 1 - dim) + [first, axis.n_in - first - (stop - start)])
    if axis.mode != "zeros":
        for begin, end in ((0, start), (stop, axis.span)):
            _add_to(V, dim, axis, R.narrow(dim, begin, end - begin), begin)
    return V


def _kept(axis: Axis) -> tuple[int, int, int]:
    """Return what is read of the input itself: its first position, and the extended positions from there to past the last."""
    start, stop = (min(max(k, 0), axis.span) for k in (axis.lo, axis.lo + axis.n_in))
    return min(max(start - axis.lo, 0), axis.n_in), start, stop


def _taken(V: Tensor, dim: int, axis: Axis, begin: int, end: int) -> list[Tensor]:
    """Return what extended positions of the border repeat: some at even steps, one way or the other, or one many times."""
    parts = []
    for _, first, count, step in runs(axis, [(begin - axis.lo, end - begin, 1)]):
        part, repeated = _at_steps(V, dim, first, count, step), (*V.shape[:dim], count, *V.shape[dim + 1 :])
        parts.append(part.expand(repeated) if step == 0 else part if step > 0 else part.flip(dim))
    return parts


def _at_steps(V: Tensor, dim: int, first: int, count: int, step: int) -> Tensor:
    """View positions of a piece of the border, the lowest first."""
    lowest, highest = sorted((first, first + (count - 1) * step))
    return V[(slice(None),) * dim + (slice(lowest, highest + 1, abs(step) or 1),)]


def _add_to(V: Tensor, dim: int, axis: Axis, slab: Tensor, begin: int) -> None:
    """Add a slab of the border, from an extended position on, to what it repeats: the adjoint of `_taken`."""
    for to, first, count, step in runs(axis, [(begin - axis.lo, slab.shape[dim], 1)]):
        part = slab.narrow(dim, to, count)
        added = part.sum(dim, keepdim=True) if step == 0 else part if step > 0 else part.flip(dim)
        _at_steps(V, dim, first, count, step).add_(added)


def blocks(total: int, size: int) -> Iterator[slice]:
    """Cut ``range(total)`` into consecutive slices of at most `size`.

    Examples
    --------
    >>> [(b.start, b.stop) for b in blocks(7, 3)]
    [(0, 3), (3, 6), (6, 7)]
    """
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
