"""One case: a map of a named shape, by PyTorch, by every engine that is admitted, and by other libraries if wanted."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench import torch_peer
from bench.limits import copying, product_of
from bench.timing import HOPELESS, Times, interleave, once, ratio
from ninefold import reference
from ninefold.ops import PlannedCall
from ninefold.ops.layout import channels_last
from ninefold.planning.choose import choose
from ninefold.planning.plan import Plan
from ninefold.rewrites import engine_named
from ninefold.settings import Options
from ninefold.spec import Form, Map
from ninefold.testing.shapes import Shape

FORMATS = ("contiguous", "channels_last")
_REST = 0.005  # seconds that other libraries' threads may spin on
FORWARD_BACKWARD = "fb"
_TOLERANCE = {"float32": 1e-4, "float64": 1e-10, "complex64": 1e-4, "complex128": 1e-10, "float16": 2e-2}
_TOO_LONG = 2.0  # estimated seconds from which an engine that nobody picks is not even tried
_A_MOMENT = 0.05  # seconds above which an engine that the planner found hopeless is not run again
_CHECKABLE = 20_000_000  # multiply-adds up to which the definition itself is the judge where PyTorch has nothing


@dataclass(frozen=True)
class Contender:
    """What is timed, and what brings its result into the library's arrangement, outside of the time."""

    run: Callable[[], Any]
    finish: Callable[[Any], Any] = lambda result: result


@dataclass
class Record:
    """What one case found, in one memory format; `errors` makes it no result but a failure.

    `limits` are the seconds of as many multiply-adds in large products, and of copying as many bytes.
    """

    shape: str
    group: str
    map: str
    format: str
    peer: str
    measure: str = ""
    estimate: str = ""
    torch: float | None = None
    torch_single: bool = False
    other: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    least: dict[str, float] = field(default_factory=dict)
    singles: list[str] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)
    faults: dict[str, float] = field(default_factory=dict)
    ratio_measure: tuple[float, float, float] | None = None
    ratio_estimate: tuple[float, float, float] | None = None
    ratio_other: tuple[float, float, float] | None = None
    peers: dict[str, float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Operands:
    """The three tensors of a form, the input and the output in one memory format."""

    K: Tensor
    V: Tensor
    G: Tensor

    def of(self, map_: Map) -> tuple[Tensor, Tensor]:
        """Return the operands of a map, in its order."""
        return {"c": (self.K, self.V), "h": (self.K, self.G), "g": (self.V, self.G)}[map_]

    def formatted(self, name: str) -> "Operands":
        """Return the same numbers, input and output in another memory format; weights stay as layers keep them."""
        return Operands(self.K, _in_format(self.V, name), _in_format(self.G, name))


def _in_format(x: Tensor, name: str) -> Tensor:
    if name == "contiguous" or x.ndim not in (4, 5):
        return x.contiguous()
    return x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)


def operands(shape: Shape) -> Operands:
    """Make operands, always the same ones."""
    form, generator = shape.form, torch.Generator().manual_seed(0)
    dtype = getattr(torch, shape.dtype)

    def make(size: tuple[int, ...]) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float32).to(dtype)

    return Operands(make(form.weight_shape), make(form.input_shape(shape.batch)), make(form.output_shape(shape.batch)))


def formats(shape: Shape, given: Operands) -> tuple[str, ...]:
    """Return the memory formats that differ: one where a memory is both at once, or where PyTorch has to unfold."""
    data = given.G if shape.spec.transposed else given.V
    two = not shape.form.tiled and shape.spec.table is None and channels_last(_in_format(data, FORMATS[1]))
    return FORMATS if two else FORMATS[:1]


def disagreement(result: Tensor, expected: Tensor) -> str | None:
    """Return in words how a result is wrong, or None: the largest difference over the largest expected value."""
    if result.shape != expected.shape:
        return f"has shape {tuple(result.shape)}, not {tuple(expected.shape)}"
    if expected.numel() == 0:
        return None
    off = float((result.detach() - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    allowed = _TOLERANCE.get(str(expected.dtype).removeprefix("torch."), 5e-2)
    return None if off <= allowed else f"is off by {off:.1e} of the largest value, more than {allowed:.0e}"


def run_case(shape: Shape, name: str, seconds: float, peers: Sequence[Any] = ()) -> list[Record]:
    """Run one map of a shape, or ``"fb"``, in each memory format; return a record per format."""
    given = operands(shape)
    names = formats(shape, given)
    by_format = {f: given.formatted(f) for f in names}
    contenders, records, expected = _torch(shape, name, by_format)
    for record in records.values():
        if name == FORWARD_BACKWARD:
            contenders |= _sites(shape, record, by_format[record.format])
        else:
            contenders |= _engines(shape, name, record, by_format[record.format])  # type: ignore[arg-type]
    before = len(contenders)
    if name == ("h" if shape.spec.transposed else "c"):
        contenders |= _others(peers, shape, given, records[FORMATS[0]])
    alive, tried = _checked(contenders, expected, records)
    wanted = [f"torch/{f}" for f in names]
    wanted += [f"{pick}/{r.format}" for r in records.values() for pick in (r.measure, r.estimate)]
    rest = _REST if len(contenders) > before else 0.0
    times = interleave(alive, seconds, [w for w in wanted if w in alive], tried, rest) if alive else {}
    limits = _limits(shape, name, given, seconds)
    for record in records.values():
        record.limits = limits
        _fill(record, times)
    return list(records.values())


def _limits(shape: Shape, name: str, given: Operands, seconds: float) -> dict[str, float]:
    """Return the seconds of a case's multiply-adds in large products, and of a copy of its operands and result, per map."""
    maps = 3 if name == FORWARD_BACKWARD else 1
    product, macs = product_of(given.K.dtype)
    copy = copying(sum(x.numel() * x.element_size() for x in (given.K, given.V, given.G)))
    times = interleave({"product": product, "copy": copy}, seconds / 4, ("product", "copy"))
    return {"product": maps * times["product"].least * shape.macs / macs, "copy": maps * times["copy"].least}


def _torch(
    shape: Shape, name: str, by_format: dict[str, Operands]
) -> tuple[dict[str, Contender], dict[str, Record], Tensor | None]:
    """Return PyTorch's contenders, an empty record per format, and what is expected (None: what the first one gives)."""
    spec, form = shape.spec, shape.form
    first = by_format[FORMATS[0]]
    try:
        peer = torch_peer.torch_peer(spec, form)
    except NotImplementedError as error:  # PyTorch cannot say this layer: the record says so, and the definition judges
        records = {f: Record(shape.name, shape.group, name, f, "none", notes=[str(error)]) for f in by_format}
        return {}, records, _definition(shape, form, name, first)
    contenders: dict[str, Contender] = {}
    for f, given in by_format.items():
        if name == FORWARD_BACKWARD:
            step = _step(peer.layer, peer.pack(given.K), given, shape)
            contenders[f"torch/{f}"] = Contender(step, lambda r: (*r[:2], peer.unpack(r[2])))
        else:
            run = torch_peer.runs(peer, spec, (given.K, given.V, given.G))[name]  # type: ignore[index]
            contenders[f"torch/{f}"] = Contender(run, peer.unpack if name == "g" else lambda r: r)
    records = {f: Record(shape.name, shape.group, name, f, peer.what) for f in by_format}
    return contenders, records, None


def _definition(shape: Shape, form: Form, name: str, given: Operands) -> Tensor | None:
    if name == FORWARD_BACKWARD or shape.macs > _CHECKABLE:
        return None
    a, b = given.of(name)  # type: ignore[arg-type]
    return torch.from_numpy(getattr(reference, name)(form, a.double().numpy(), b.double().numpy())).to(a.dtype)


def _step(
    layer: Callable[[Tensor, Tensor], Tensor], weight: Tensor, given: Operands, shape: Shape
) -> Callable[[], tuple[Tensor, ...]]:
    """Return a step as users run it: the layer, then the gradients to input and weight."""
    x, up = (given.G, given.V) if shape.spec.transposed else (given.V, given.G)
    leaf_x, leaf_w = x.detach().requires_grad_(), weight.detach().requires_grad_()

    def step() -> tuple[Tensor, ...]:
        out = layer(leaf_x, leaf_w)
        to_x, to_w = torch.autograd.grad(out, (leaf_x, leaf_w), up)
        return out.detach(), to_x, to_w

    return step


def _plans(shape: Shape, given: Operands, map_: Map) -> tuple[Plan, Plan]:
    """Return the plans of both modes; the estimate first, for what is measured is remembered."""
    x = given.G if shape.spec.transposed else given.V
    estimated = choose(PlannedCall(shape.spec, Options()).bind(x, given.K).problem(map_))
    return PlannedCall(shape.spec, Options(mode="measure")).bind(x, given.K).plan(map_), estimated


def _engines(shape: Shape, map_: Map, record: Record, given: Operands) -> dict[str, Contender]:
    """Return every admitted engine; of those that nobody picks, not the hopeless ones that take a while.

    Hopeless is who took 20 times the best of the planner's timing, or 30 times the best estimate where it was not timed.
    """
    measured, estimated = _plans(shape, given, map_)
    record.measure, record.estimate = measured.engine, estimated.engine
    admitted = [c for c in estimated.candidates if c.reason is None]
    record.costs = {c.engine: c.cost for c in admitted}
    contenders: dict[str, Contender] = {}
    a, b = given.of(map_)
    clock = {c.engine: c.measured for c in measured.candidates if c.measured is not None}
    for c in admitted:
        picked = c.engine in (measured.engine, estimated.engine)
        best = min(clock.values()) if c.engine in clock else estimated.chosen.cost * 1.5
        seconds = clock.get(c.engine, c.cost)
        hopeless = seconds > _A_MOMENT and seconds > HOPELESS * best
        if not picked and (c.engine == "reference" or c.cost > _TOO_LONG or hopeless):
            continue
        runner = engine_named(c.engine).prepare(estimated.problem)
        contenders[f"{c.engine}/{record.format}"] = Contender(lambda runner=runner: runner(a, b, None))  # type: ignore[misc]
    return contenders


def _sites(shape: Shape, record: Record, given: Operands) -> dict[str, Contender]:
    """Return a training step of a call site in either mode."""
    x = given.G if shape.spec.transposed else given.V
    sites = {"estimate": PlannedCall(shape.spec, Options()), "measure": PlannedCall(shape.spec, Options(mode="measure"))}
    for site in sites.values():  # the estimate first, for what is measured is remembered
        for map_ in ("c", "h", "g"):
            site.bind(x, given.K).plan(map_)
    record.measure, record.estimate = "measure", "estimate"
    return {f"{mode}/{record.format}": Contender(_step(site, given.K, given, shape)) for mode, site in sites.items()}


def _others(peers: Sequence[Any], shape: Shape, given: Operands, record: Record) -> dict[str, Contender]:
    """Return the other libraries, contiguous and forward only; who refuses leaves a sentence."""
    contenders = {}
    x = given.G if shape.spec.transposed else given.V
    for peer in peers:
        try:
            run = peer.prepare(shape.spec, shape.form, x, given.K)
        except Exception as error:
            record.notes.append(f"{peer.NAME}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
            continue
        contenders[f"{peer.NAME}/{FORMATS[0]}"] = Contender(run, torch.tensor)
    return contenders


def _checked(
    contenders: dict[str, Contender], expected: Any, records: dict[str, Record]
) -> tuple[dict[str, Callable[[], Any]], dict[str, tuple[float, int]]]:
    """Return who agrees with what is expected, and how long that run took; who does not is an error of its record."""
    alive, tried = {}, {}
    for who, contender in contenders.items():
        name, _, format_ = who.partition("/")
        try:
            results: list[Any] = []
            tried[who] = once(lambda run=contender.run, into=results: into.append(run()))  # type: ignore[misc]
            result = contender.finish(results[0])
        except Exception as error:
            records[format_].errors.append(f"{name} raised {type(error).__name__}: {error}")
            continue
        if expected is None:
            expected = result
        pairs = zip(result, expected, strict=True) if isinstance(expected, tuple) else [(result, expected)]
        wrong = [w for w in (disagreement(r, e) for r, e in pairs) if w is not None]
        if wrong:
            records[format_].errors.append(f"{name} {wrong[0]}")
        else:
            alive[who] = contender.run
    return alive, tried


def _fill(record: Record, times: dict[str, Times]) -> None:
    """Write what the clock said into the record; a record with errors gets no ratios."""
    here = {who.partition("/")[0]: t for who, t in times.items() if who.endswith(f"/{record.format}")}
    torch_times = here.pop("torch", None)
    record.seconds = {name: t.median for name, t in here.items()}
    record.least = {name: t.least for name, t in here.items()}
    record.singles = [name for name, t in here.items() if t.single]
    record.faults = {name: t.median_faults for name, t in here.items()}
    known = {*record.costs, "measure", "estimate"}
    record.peers = {name: record.seconds.pop(name) for name in list(record.seconds) if name not in known}
    if torch_times is not None:
        record.torch, record.torch_single = torch_times.median, torch_times.single
        record.faults["torch"] = torch_times.median_faults
    if record.errors or record.measure not in here or record.estimate not in here:
        return
    best = here[record.measure]
    if torch_times is not None:
        record.ratio_measure = ratio(torch_times, best)
        record.ratio_estimate = ratio(torch_times, here[record.estimate])
    others = [t for who, t in times.items() if who.startswith("torch/") and not who.endswith(f"/{record.format}")]
    if others:
        record.other = others[0].median
        record.ratio_other = ratio(others[0], best)
