"""The contract: what every engine is held to, for every map and every named shape that it does not refuse.

A check takes an engine, a map and a shape, raises AssertionError with the numbers where the engine breaks its word, and
returns an `Outcome`. None knows any engine: a new one needs no new check.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product

import torch
from torch import Tensor

from ninefold.engines.base import EPILOGUES, Engine, Runner, direct_error
from ninefold.engines.final import Final
from ninefold.ops.executor import FormExecutor, ThinMap
from ninefold.ops.layout import result_is_channels_last
from ninefold.planning.choose import choose
from ninefold.planning.decide import prepare
from ninefold.planning.plan import Plan
from ninefold.settings import Options
from ninefold.spec import Form, Map
from ninefold.testing.cases import Case, cases, operands
from ninefold.testing.defaults import elsewhere
from ninefold.testing.dot import dot_test
from ninefold.testing.memory import PeakMemory, Poisoned
from ninefold.testing.shapes import Shape
from ninefold.testing.tolerances import defined, scaled_error

__all__ = [
    "CHECKS",
    "Check",
    "Outcome",
    "check_against_reference",
    "check_defaults",
    "check_dot",
    "check_dtypes",
    "check_epilogues",
    "check_finite",
    "check_gradients",
    "check_layouts",
    "check_nan_locality",
    "check_own_memory",
    "check_poisoned",
    "check_scratch",
    "check_threads",
]

_MAPS: tuple[Map, ...] = ("c", "h", "g")
DTYPES = ("float64", "float32", "bfloat16", "float16", "complex128", "complex64")
CAPS = (1 << 12, 1 << 15)
SMALL_MACS = 50_000
"""Multiply-adds up to which a shape goes through every variant of a check; larger ones go through the telling ones."""

GRADIENT_MACS = 5_000
LARGE_MACS = 700_000
ESTIMATE_SLACK = 2.0
"""Times its estimate that an error may be: estimates rank engines against a tolerance, and are calibrated on these shapes."""


@dataclass
class Outcome:
    """What a check did: how many runs it compared, and by dtype the largest error against the engine's estimate."""

    runs: int = 0
    ratios: dict[str, float] = field(default_factory=dict)


Check = Callable[[Engine, Map, Shape], Outcome]


def check_against_reference(engine: Engine, map_: Map, shape: Shape) -> Outcome:
    """Compare with the definition on small integers in double precision, with a bias and without."""
    outcome = Outcome()
    for case in cases(engine, map_, shape):
        case.check(case.run(), "against the definition")
        outcome.runs += 1
        if map_ != "g":
            bias = torch.arange(1.0, 1 + case.expected.shape[1], dtype=case.a.dtype, device=case.a.device)
            added = case.expected + bias.view(-1, *(1,) * shape.spec.ndim)
            replace(case, expected=added, scale=case.scale + bias.max()).check(case.run(bias), "with a bias")
            outcome.runs += 1
    return outcome


def check_epilogues(engine: Engine, map_: Map, shape: Shape) -> Outcome:
    """Put each epilogue behind the bias, by the engine itself where it names it: the definition's values through it, NaN kept."""
    outcome = Outcome()
    if unknown := engine.epilogues - set(EPILOGUES):
        raise AssertionError(f"{engine.name} names epilogues {sorted(unknown)} that nobody knows; there are {sorted(EPILOGUES)}")
    for case in cases(engine, map_, shape) if map_ != "g" else ():
        channels = case.expected.shape[1]
        bias = torch.arange(channels, dtype=case.a.dtype, device=case.a.device) % 5 - 2
        bias[-1] = float("nan")
        added = case.expected + bias.view(-1, *(1,) * shape.spec.ndim)
        for name, epilogue in EPILOGUES.items():
            expected = epilogue.apply(added)
            out = case.run(bias, name)
            if bool((out.isnan() != expected.isnan()).any()):
                raise AssertionError(f"{case}: {name} must keep NaN, and only NaN")
            finite = replace(case, expected=expected.nan_to_num(nan=7.0), scale=case.scale + 2)
            finite.check(out.nan_to_num(nan=7.0), f"through {name}")
            outcome.runs += 1
    return outcome


def check_dot(engine: Engine, map_: Map, shape: Shape) -> Outcome:
    """Pair the map with the two others, which are the engine's where it runs them and the definition elsewhere."""
    outcome = Outcome()
    for case in cases(engine, map_, shape):
        form, batch = case.problem.form, case.problem.batch
        K = case.a if map_ != "g" else operands("c", form, batch)[0]
        V = {"c": case.b, "g": case.a}.get(map_, operands("c", form, batch)[1])
        G = case.b if map_ != "c" else operands("h", form, batch)[1]
        c, h, g = (_pure(_runner(engine, case, m)) for m in _MAPS)
        with torch.no_grad():
            dot_test(c, h, g, K, V, G, tolerance=case.allowed)
        outcome.runs += 1
    return outcome


def check_gradients(engine: Engine, map_: Map, shape: Shape) -> Outcome:
    """Check first and second derivatives of the differentiable map, on small shapes, in real and complex numbers."""
    outcome = Outcome()
    if shape.macs > GRADIENT_MACS:
        return outcome
    for dtype in ("float64", "complex128"):
        for case in cases(engine, map_, shape, dtype, "normal"):
            if case.problem.frozen and case.problem.is_complex:
                continue  # the gradient takes the conjugate of the weight, which is not the weight that is frozen
            bound = _Forced(case)

            def run(a: Tensor, b: Tensor, bound: FormExecutor = bound) -> Tensor:
                out: Tensor = ThinMap.apply(a, b, None, bound, map_)
                return out

            pair = case.a.requires_grad_(not case.problem.frozen), case.b.requires_grad_()
            if shape.batch:
                torch.autograd.gradcheck(run, pair, fast_mode=True)
                torch.autograd.gradgradcheck(run, pair, fast_mode=True)
            else:
                _check_empty_gradients(run(*pair), pair)
            outcome.runs += 1
    return outcome


def _check_empty_gradients(out: Tensor, pair: tuple[Tensor, Tensor]) -> None:
    grads = torch.autograd.grad(out, [x for x in pair if x.requires_grad], torch.ones_like(out))
    if any(bool(g.any()) for g in grads):
        raise AssertionError("an empty batch has a gradient that is not zero")


def check_dtypes(engine: Engine, map_: Map, shape: Shape) -> Outcome:
    """Hold the error in every dtype that is not refused to the engine's bound, and report it against the estimate."""
    outcome = Outcome()
    dtypes = DTYPES if shape.macs <= SMALL_MACS else ("float32", "bfloat16", "complex64")
    for dtype, values in product(dtypes, ("normal", "positive")):
        for case in cases(engine, map_, shape, dtype, values):  # type: ignore[arg-type]
            out, error = case.run(), engine.error(case.problem)
            case.check(out, f"on {values} numbers", error.bound)
            ratio = scaled_error(out, case.expected, case.scale) / error.estimate
            if ratio > ESTIMATE_SLACK:
                raise AssertionError(
                    f"{case}: the error on {values} numbers is {ratio:.1f} times the estimate {error.estimate:.0e}"
                )
            outcome.ratios[dtype] = max(ratio, outcome.ratios.get(dtype, 0.0))
            outcome.runs += 1
    return outcome


def check_layouts(engine: Engine, map_: Map, shape: Shape) -> Outcome:
    """Give the same numbers in other memory: channels-last, strided, broadcast, lazily negated, lazily conjugated."""
    outcome = Outcome()
    for dtype in ("float64", "complex128") if shape.macs <= SMALL_MACS else ():
        for case in cases(engine, map_, shape, dtype):
            allowed = engine.error(case.problem).bound if dtype == "complex128" else case.allowed
            for name, a, b in _layouts(case.a, case.b):
                other = case if name in _SAME else case.having(a, b)
                last = map_ != "g" and result_is_channels_last(b, a)
                other = replace(other, a=a, b=b, problem=replace(other.problem, channels_last=last))
                out = other.run()
                other.check(out, name, allowed)
                if (
                    map_ != "g"
                    and out.numel()
                    and not out.is_contiguous(memory_format=_last(out) if last else torch.contiguous_format)
                ):
                    asked = "channels-last" if last else "contiguous"
                    raise AssertionError(f"{other}, {name}: the result must be {asked}, but has strides {out.stride()}")
                outcome.runs += 1
    return outcome


_FORMATS = ("channels-last", "second operand channels-last", "first operand channels-last")
_SAME = (*_FORMATS, "slices", "reversed", "negated")


def _layouts(a: Tensor, b: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    if b.ndim in (4, 5):
        # cloned: single positions, too, then have the strides of the format
        ends = a.clone(memory_format=_last(a)) if a.ndim == b.ndim else a, b.clone(memory_format=_last(b))
        yield from zip(_FORMATS, (ends[0], a, ends[0]), (ends[1], ends[1], b), strict=True)
    yield "slices", _sliced(a), _sliced(b)
    yield "reversed", _reversed(a), _reversed(b)
    yield "negated", torch._neg_view(a.neg()), torch._neg_view(b.neg())  # noqa: SLF001  no public way to a lazy negation
    yield "expanded second operand", a, b.flatten()[:1].sum().expand(b.shape)
    yield "expanded first operand", a.flatten()[:1].sum().expand(a.shape), b
    if a.is_complex():
        yield "lazily conjugated", a.conj(), b.conj()


def _last(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.ndim == 4 else torch.channels_last_3d


def _sliced(x: Tensor) -> Tensor:
    wide = x.new_full((*x.shape[:-1], 2 * x.shape[-1] + 1), 77)
    part = wide[..., 1::2]
    return part.copy_(x)


def _reversed(x: Tensor) -> Tensor:
    order = tuple(range(x.ndim))[::-1]
    return x.permute(order).contiguous().permute(order)


def check_own_memory(engine: Engine, map_: Map, shape: Shape) -> Outcome:
    """Look whose memory a result is: not an operand's, not one that the runner keeps, and for c no part of a larger tensor."""
    outcome = Outcome()
    for dtype in ("float32", "bfloat16") if shape.macs <= SMALL_MACS else ():
        for case in cases(engine, map_, shape, dtype):
            for posed in (case, *_channels_last(case)):
                run = engine.prepare(posed.problem, Final(posed.a) if posed.problem.frozen else None)
                with torch.no_grad():
                    first = run(posed.a, posed.b, None)
                    kept = first.clone()
                    first.fill_(7)
                    again = run(posed.a, posed.b, None)
                if not torch.equal(again, kept):
                    raise AssertionError(f"{posed}: a result that is overwritten changes the next one")
                if map_ == "c" and first._is_view():  # noqa: SLF001  no public name
                    raise AssertionError(f"{posed}: the result is a view, which autograd lets nobody change in place")
                outcome.runs += 1
    return outcome


def check_poisoned(engine: Engine, map_: Map, shape: Shape) -> Outcome:
    """Prepare and run where fresh memory holds NaN, in both memory formats."""
    outcome = Outcome()
    for dtype in ("float64", "float32", "complex128") if shape.macs <= SMALL_MACS else ("float32",):
        for case in cases(engine, map_, shape, dtype):
            for posed in (case, *_channels_last(case)):
                with Poisoned():
                    out = posed.run()
                posed.check(out, "in poisoned memory", engine.error(posed.problem).bound)
                outcome.runs += 1
    return outcome


def _channels_last(case: Case) -> list[Case]:
    """Return the case with its input and output channels-last, if it has such a format and the engine takes it."""
    problem = replace(case.problem, channels_last=True)
    if case.b.ndim not in (4, 5) or case.engine.refuses(problem) is not None:
        return []
    last = _last(case.b)
    a = case.a.contiguous(memory_format=last) if case.problem.map == "g" else case.a
    return [replace(case, a=a, b=case.b.contiguous(memory_format=last), problem=problem)]


def check_threads(engine: Engine, map_: Map, shape: Shape) -> Outcome:
    """Run on 1 and on 2 threads; where the engine is deterministic, two runs give the same bits."""
    outcome, before = Outcome(), torch.get_num_threads()
    if shape.macs > LARGE_MACS:
        return outcome
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for case in cases(engine, map_, shape, "float32", "normal"):
                first, second = case.run(), case.run()
                case.check(first, f"on {threads} threads")
                if engine.traits.deterministic and not torch.equal(first, second):
                    raise AssertionError(f"{case}: two runs on {threads} threads differ, but the engine is deterministic")
                outcome.runs += 1
    finally:
        torch.set_num_threads(before)
    return outcome


def check_nan_locality(engine: Engine, map_: Map, shape: Shape) -> Outcome:
    """Put a NaN or an infinity into an operand: all that the definition makes of it is there; no more if the engine is local.

    A NaN in a kernel makes NaN of whole channels; where it multiplies a zero of the border, or one that an algorithm puts
    between strided elements, the result may or may not be NaN with it; so it is with ``G`` in map g. Locality is therefore
    asked of the other operand: ``V`` for c and g, ``G`` for h.
    """
    outcome = Outcome()
    for dtype, value in (("float64", float("nan")), ("float32", float("inf"))) if shape.macs <= SMALL_MACS else ():
        for case in cases(engine, map_, shape, dtype):
            for operand in (0, 1) if not case.problem.frozen else (1,):
                pair = [case.a, case.b]
                if pair[operand].numel():
                    _check_spread(case, operand, value)
                    outcome.runs += 1
    return outcome


def _check_spread(case: Case, operand: int, value: float) -> None:
    pair, form, map_ = [case.a.clone(), case.b.clone()], case.problem.form, case.problem.map
    at = pair[operand].numel() * 2 // 3
    pair[operand].view(-1)[at] = value
    marks = [torch.ones_like(x) for x in pair]
    marks[operand] = torch.zeros_like(pair[operand])
    marks[operand].view(-1)[at] = 1
    must = defined(map_, form, marks[0], marks[1]) != 0
    may = must if operand == (0 if map_ == "g" else 1) else torch.ones_like(must)
    reached = ~replace(case, a=pair[0], b=pair[1]).run().isfinite()
    if bool((must & ~reached).any()):
        raise AssertionError(
            f"{case}: {value} in operand {operand} misses {int((must & ~reached).sum())} outputs that it reaches"
        )
    if case.engine.traits.confines_nan and bool((reached & ~may).any()):
        raise AssertionError(f"{case}: {value} in operand {operand} reaches {int((reached & ~may).sum())} outputs too many")


def check_finite(engine: Engine, map_: Map, shape: Shape) -> Outcome:
    """Put NaN, infinities, and numbers that overflow on the way, through a plan: they reach what the definition says."""
    outcome = Outcome()
    if engine.traits.confines_nan or shape.macs > SMALL_MACS:
        return outcome
    for case in (*cases(engine, map_, shape, "float32"), *cases(engine, map_, shape, "bfloat16")):
        problem = replace(case.problem, finite=True)
        kept = Final(case.a) if problem.frozen else None
        run = prepare(Plan(problem, engine.name, choose(problem).candidates, "estimate"), kept)
        case.check(run(case.a, case.b, None), "looked at")
        if not engine.prepare_watched(problem, kept)(case.a, case.b, None)[1]:
            raise AssertionError(f"{case}: whole numbers are said not to be finite")
        outcome.runs += 2
        for changed in _not_finite(case):
            unspoilt, out = changed.expected.isfinite(), run(changed.a, changed.b, None)
            if wrong := int((out.isfinite() != unspoilt).sum()):
                raise AssertionError(
                    f"{case}: with {float(changed.a.sum() + changed.b.sum())} in it, {wrong} elements are not finite as defined"
                )
            finite = replace(changed, expected=changed.expected.where(unspoilt, 0))
            finite.check(out.where(unspoilt, 0), "beside what is not finite", max(case.allowed, direct_error(problem).bound))
            outcome.runs += 1
    return outcome


def _not_finite(case: Case) -> Iterator[Case]:
    """Yield a case with a NaN or an infinity in its data, and with data that overflows where the definition's sums do not."""
    p = case.problem
    data, other = (0, 1) if p.map == "g" else (1, 0)
    for value in (float("nan"), float("inf"), -float("inf")):
        pair = [case.a.clone(), case.b.clone()]
        if pair[data].numel():
            pair[data].view(-1)[pair[data].numel() * 2 // 3] = value
            yield replace(case, a=pair[0], b=pair[1], expected=defined(p.map, p.form, *pair))
    if not p.frozen:
        pair = [case.a.sign(), case.b.sign()]
        pair[data], pair[other] = pair[data] * 2.0**126, pair[other] * 2.0**-100
        yield case.having(pair[0], pair[1])


def check_scratch(engine: Engine, map_: Map, shape: Shape) -> Outcome:
    """Cap the scratch so that the work is cut up: the result is right, and no more is held than the engine promised."""
    outcome = Outcome()
    if shape.macs > LARGE_MACS:
        return outcome
    for cap in (*CAPS, None) if shape.macs > SMALL_MACS else (1, *CAPS, None):
        for case in cases(engine, map_, shape, max_scratch=cap):
            with PeakMemory([case.a, case.b]) as memory:
                runner = engine.prepare(case.problem, Final(case.a) if case.problem.frozen else None)
                with torch.no_grad():
                    out = runner(case.a, case.b, None)
            case.check(out, f"under a cap of {cap} bytes")
            held, promised = memory.peak - out.untyped_storage().nbytes(), engine.scratch(case.problem)
            if held > promised + _UNCOUNTED:
                raise AssertionError(f"{case}: held {held} bytes under a cap of {cap}, but promised {promised}")
            outcome.runs += 1
    return outcome


def check_defaults(engine: Engine, map_: Map, shape: Shape) -> Outcome:
    """Prepare and run while tensors are made elsewhere by default: the same bits."""
    outcome = Outcome()
    if shape.macs > SMALL_MACS:
        return outcome
    for case in (*cases(engine, map_, shape), *cases(engine, map_, shape, "float32")):
        with elsewhere():
            out = case.run()
        if not torch.equal(out, case.run()):
            raise AssertionError(f"{case}: another default device or dtype changes the result")
        outcome.runs += 1
    return outcome


_UNCOUNTED = 4096
"""Bytes that no promise counts: index vectors, a bias."""


class _Forced(FormExecutor):
    """The three maps of a form by one engine, whatever the planner would say; by definition where it refuses."""

    __slots__ = ("case",)

    def __init__(self, case: Case) -> None:
        p = case.problem
        kept = Final(case.a) if p.frozen else None
        super().__init__(p.form, p.batch, case.a.dtype, case.a.device, False, Options(), kept, p.rank)
        self.case = case

    def runner(self, map_: Map, epilogue: str | None = None) -> Runner:  # noqa: ARG002  gradients are those of the map alone
        """Return the engine's runner."""
        with torch.no_grad():
            return _runner(self.case.engine, self.case, map_)


def _runner(engine: Engine, case: Case, map_: Map) -> Runner:
    frozen = case.problem.frozen and map_ != "g"
    problem = replace(case.problem, map=map_, frozen=frozen, rank=case.problem.rank if frozen else None)
    if engine.refuses(problem) is None:
        return engine.prepare(problem, Final(case.a) if frozen else None)
    return _by_definition(map_, problem.form)


def _pure(runner: Runner) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: runner(a, b, None)


def _by_definition(map_: Map, form: Form) -> Runner:
    return lambda a, b, _: defined(map_, form, a, b).to(a.dtype)


CHECKS: tuple[Check, ...] = (
    check_against_reference,
    check_defaults,
    check_epilogues,
    check_dot,
    check_gradients,
    check_dtypes,
    check_layouts,
    check_own_memory,
    check_poisoned,
    check_threads,
    check_nan_locality,
    check_finite,
    check_scratch,
)
