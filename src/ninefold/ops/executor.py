"""FormExecutor: the three maps of one form for one kind of operands, each planned and prepared when it is first needed."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ninefold.engines.base import PairRunner, Runner
from ninefold.engines.final import Final
from ninefold.engines.held import Held, plan_bytes
from ninefold.errors import NoEngineError
from ninefold.ops import state
from ninefold.ops.layout import with_strides_of
from ninefold.planning import make_problem, plan_problem, prepare
from ninefold.planning.plan import Plan
from ninefold.rewrites import engine_named
from ninefold.spec.channels import ChannelTable
from ninefold.spec.conv import ConvSpec
from ninefold.spec.form import Form
from ninefold.spec.problem import Map, Problem
from ninefold.tensors.layout import owned

if TYPE_CHECKING:
    from ninefold.settings import Options

__all__ = ["ADJOINT", "COMPILED", "EXECUTORS", "FormExecutor", "SwitchCost", "executor_for"]


@dataclass(frozen=True, slots=True)
class SwitchCost:
    """What leaving PyTorch's own convolution costs where the maps around it are differentiated.

    Parameters
    ----------
    factor : float
        How many times faster the picks have to be.
    seconds : float
        How much a Function or an operator of ours takes longer, forward and backward.
    """

    factor: float = 1.05
    seconds: float = 50e-6


COMPILED = SwitchCost(factor=1.5, seconds=200e-6)
"""A compiler fuses what surrounds PyTorch's convolution and lays it out anew; to an operator of ours it can do nothing."""

ADJOINT: dict[Map, tuple[tuple[Map, str, str], tuple[Map, str, str]]] = {
    "c": (("g", "second", "up"), ("h", "first", "up")),
    "h": (("g", "up", "second"), ("c", "first", "up")),
    "g": (("h", "up", "second"), ("c", "up", "first")),
}
"""For each map, the gradients to its first and second argument as (map, its operands): the closure of the family."""


class FormExecutor:
    """The maps c, h and g of a form under fixed options; ``frozen`` holds a weight that is final, or None."""

    __slots__ = ("_pair", "_plans", "_runners", "batch", "device", "dtype", "form", "frozen", "last", "options", "rank")

    def __init__(
        self,
        form: Form,
        batch: int,
        dtype: torch.dtype,
        device: torch.device,
        last: bool,
        options: "Options",
        frozen: Final | None = None,
        rank: int | None = None,
    ) -> None:
        self.form, self.batch, self.dtype, self.device = form, batch, dtype, device
        self.last, self.options, self.frozen, self.rank = last, options, frozen, rank
        self._plans: dict[str, Plan] = {}
        self._runners: dict[tuple[str, str | None], Runner] = {}
        self._pair: PairRunner | bool | None = False  # not looked for yet

    def problem(self, map_: Map) -> Problem:
        """Return the problem that a map poses."""
        # A complex gradient takes the conjugate of the weight, which nothing kept knows of.
        frozen = self.frozen is not None and map_ != "g" and not self.dtype.is_complex
        return make_problem(
            map_,
            self.form,
            self.batch,
            self.dtype,
            self.device,
            self.options,
            channels_last=self.last,
            rank=self.rank if frozen else None,
            frozen=frozen,
        )

    def plan(self, map_: Map) -> Plan:
        """Return the plan of a map."""
        if map_ not in self._plans:
            self._plans[map_] = plan_problem(self.problem(map_), self.options.mode, self.frozen)
        return self._plans[map_]

    def forget(self) -> None:
        """Plan anew at the next call."""
        self._plans.clear()
        self._runners.clear()
        self._pair = False

    def runner(self, map_: Map, epilogue: str | None = None) -> Runner:
        """Return the prepared runner of a map, with an epilogue, in place, if one is named."""
        if self.device.type == "meta":  # there is nothing to run, and the operator knows shapes and strides
            return lambda a, b, _bias=None: self._operator(map_, a, b)  # type: ignore[misc]
        if (map_, epilogue) not in self._runners:
            kept = self.frozen if self.problem(map_).frozen else None
            with torch.no_grad():
                run = prepare(self.plan(map_), kept, epilogue)
            self._runners[map_, epilogue] = run if map_ == "c" else _owning(run)
        return self._runners[map_, epilogue]

    def torch_path(self, map_: Map, maps: tuple[Map, ...], switch: SwitchCost = SwitchCost()) -> Runner | None:
        """Return PyTorch's own convolution if it, with its own gradients, is the choice for these maps taken together.

        Its autograd runs h by its backward and writes a border out once for all maps; a transposed layer runs h forward.
        """
        if map_ == "h" and maps and switch is not COMPILED and any(a.n_in + 2 * a.lo != a.span for a in self.form.axes):
            return None  # PyTorch has no third gradients of a transposed convolution with output_padding
        own = {m: "aten-backward" if m == "h" and m != map_ else "aten" for m in (map_, *maps)}
        try:
            plans = {m: self.plan(m) for m in own}
        except NoEngineError:
            return None
        if not maps and engine_named(plans[map_].engine).transparent:
            return self.runner(map_)
        if all(plan.engine == own[m] for m, plan in plans.items()) or _hardly_slower(plans, own, switch):
            return engine_named("aten").prepare(self.problem(map_))
        return None

    def pair(self) -> PairRunner | None:
        """Return what makes h and g together, where both are one engine's and it has such a way."""
        if isinstance(self._pair, bool):
            h, g = self.plan("h"), self.plan("g")
            careful = h.engine != g.engine or self.frozen is not None
            self._pair = None if careful else engine_named(h.engine).prepare_pair(h.problem, g.problem)
        return self._pair

    def gradients(self, map_: Map, saved: tuple[Tensor, Tensor], up: Tensor, needed: tuple[bool, bool]) -> list[Tensor | None]:
        """Return the gradients to both operands: other maps of the same form, themselves differentiable."""
        first, second = (x.conj_physical() if x.is_complex() else x for x in saved)
        together = self.pair() if map_ == "c" and all(needed) and not torch.is_grad_enabled() else None
        if together is not None and all(state.is_plain(x, up) and not state.batched(x) for x in (first, second, up)):
            to_input, to_kernel = together(first, second, up)
            return [with_strides_of(to_kernel, first), to_input]
        named = {"first": first, "second": second, "up": up}
        return [
            self._gradient(other, named[a], named[b], like) if need else None
            for need, (other, a, b), like in zip(needed, ADJOINT[map_], saved, strict=True)
        ]

    def _gradient(self, map_: Map, a: Tensor, b: Tensor, of: Tensor) -> Tensor:
        """Run the map that is the gradient of an operand; that of a weight has the weight's strides."""
        out = self.apply(map_, a, b)
        return with_strides_of(out, of) if map_ == "g" and state.is_plain(out, of) and not state.batched(out) else out

    def apply(self, map_: Map, a: Tensor, b: Tensor) -> Tensor:
        """Run a map, differentiably where a gradient is asked for."""
        # backward alone may be transformed: is_grads_batched
        if not state.is_plain(a, b) or state.batched(a) or state.batched(b):
            return self._operator(map_, a, b)
        if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
            out: Tensor = ThinMap.apply(a, b, None, self, map_)
            return out
        return self.runner(map_)(a, b, None)

    def _operator(self, map_: Map, a: Tensor, b: Tensor) -> Tensor:
        text = f"{_text(self.form)}\n{self.options.to_text()}"
        out: Tensor = getattr(torch.ops.ninefold, map_)(a, b, text, self.form.n_in, self.form.n_out)
        return out


def _owning(run: Runner) -> Runner:
    def run_owned(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        return owned(run(a, b, bias))

    return run_owned


def _hardly_slower(plans: dict[Map, Plan], own: dict[Map, str], switch: SwitchCost) -> bool:
    """Whether PyTorch takes no longer than the picks and what leaving it costs."""
    theirs = [plan.standing(own[m]) for m, plan in plans.items()]
    picked = [plan.chosen for plan in plans.values()]
    known = all(a.reason is None and (a.measured is None) == (b.measured is None) for a, b in zip(theirs, picked, strict=True))
    saved = switch.seconds if len(plans) > 1 else 0.0
    told = any(plan.source == "file" for plan in plans.values())
    return known and not told and sum(c.seconds for c in theirs) <= switch.factor * sum(c.seconds for c in picked) + saved


@lru_cache(maxsize=1024)
def _text(form: Form) -> str:
    """Return the text of a spec that gives this form for its two sizes."""
    channels = form.channels
    table = channels.edges if isinstance(channels, ChannelTable) else None
    pads = tuple((a.lo, a.hi) for a in form.axes)
    period = tuple(None if a.period == a.n_out else a.period for a in form.axes) if form.tiled else 1
    ends = (channels.inputs, channels.outputs, form.kernel)
    return ConvSpec(*ends, form.stride, pads, form.dilation, channels.groups, form.mode, form.flip, period, table).to_text()


class ThinMap(torch.autograd.Function):
    """One map of plain eager tensors with its gradients; the old style of Function, which costs least per call."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, bias: Tensor | None, executor: FormExecutor, map_: Map) -> Tensor:  # type: ignore[no-untyped-def]  # noqa: ANN001
        """Run the map."""
        ctx.save_for_backward(a, b)
        ctx.executor, ctx.map = executor, map_
        return executor.runner(map_)(a, b, bias)

    @staticmethod
    def backward(ctx, up: Tensor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        """Run the adjoint maps."""
        need_a, need_b, need_bias = ctx.needs_input_grad[:3]
        da, db = ctx.executor.gradients(ctx.map, ctx.saved_tensors, up, (need_a, need_b))
        dbias = up.sum((0, *range(2, up.ndim))) if need_bias else None
        return da, db, dbias, None, None


EXECUTORS: Held[FormExecutor] = Held(16 << 20, lambda executor: plan_bytes(executor.form))


def executor_for(
    form: Form,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    last: bool,
    options: "Options",
    threads: int,
) -> FormExecutor:
    """Return the executor of the maps for these operands and this number of threads, remembered."""
    key = (form, batch, dtype, device, last, options, threads)
    return EXECUTORS.get(key, lambda: FormExecutor(form, batch, dtype, device, last, options))
