"""``python -m bench.networks``: whole networks, ``nf.optimize`` against the best of PyTorch, and the bound that both have.

PyTorch's side is the network in ``torch.nn``'s layers: eager, channels-last (network and images converted for free), and compiled
with ``--compile``. All run in turns in one process that keeps its memory. For each case there is a bound: the time of what is no
convolution, measured in the same rounds on the network with its convolutions hollowed out (for inference the batch normalisations
that fold are gone), in the better format; and a floor for every map of every convolution that runs. A floor is the larger of two
times: the bytes of operands and result at the rate of a copy of that footprint, and the multiply-adds of the best algorithm known
at the rate of a large product. Both rates are the best of several moments of the run.
"""

import argparse
import contextlib
import copy
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from math import log2, prod
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import ninefold as nf
from bench import machine
from bench.hollow import hollowed
from bench.limits import copying, product_of
from bench.models import NETWORKS
from bench.report import geometric
from bench.timing import interleave, ratio
from ninefold.errors import NinefoldError
from ninefold.memory import retain_memory
from ninefold.network.conversion import as_torch
from ninefold.network.fold import fold_norms
from ninefold.network.kinds import TWINS
from ninefold.network.running import Call, step
from ninefold.nn.conv import Planned
from ninefold.planning import decide
from ninefold.spec import ConvSpec, Form, Problem

RESULTS = Path(__file__).resolve().parent / "results"
MODES = ("inference", "training")
_ALLOWED = 1e-3  # of the largest output: what deep networks of random weights make of rounding
_REACHED = 0.8
_SIDE = 1024  # of the product that the rate is taken from
_FOOTPRINTS = tuple(1 << k for k in range(16, 28, 2))  # bytes read and written


@dataclass
class Case:
    """One network, batch and mode: seconds, the bound, and what optimize chose."""

    network: str
    batch: int
    mode: str
    size: int
    seconds: dict[str, float] = field(default_factory=dict)
    best: str = ""
    ratio: tuple[float, float, float] | None = None
    outside: float = 0.0
    floors: float = 0.0
    format: str = ""
    engines: dict[str, int] = field(default_factory=dict)
    folded: int = 0
    fused: int = 0
    error: str | None = None
    problems: list[Problem] = field(default_factory=list, repr=False)

    @property
    def bound(self) -> float:
        """Seconds that the step cannot go below, as far as is known."""
        return self.outside + self.floors

    @property
    def reached(self) -> float:
        """The part of the bound that is reached: 1 is all."""
        return self.bound / self.seconds["ninefold"]


@dataclass(frozen=True)
class Rates:
    """Multiply-adds per second in a product, and bytes per second of copies by footprint."""

    product: float
    copies: dict[int, float]

    def best(self, other: "Rates") -> "Rates":
        """Return the higher of each: a floor must not be that of a busy moment."""
        copies = {size: max(rate, other.copies.get(size, 0.0)) for size, rate in self.copies.items()}
        return Rates(max(self.product, other.product), copies)

    def copied(self, size: int) -> float:
        """Return the seconds of moving so many bytes, at the rate of the next larger footprint."""
        footprint = next((n for n in self.copies if n >= size), max(self.copies))
        return size / self.copies[footprint]


def measure_rates(seconds: float) -> Rates:
    """Measure both, shortest runs: what else a machine does only adds."""
    product_run, macs = product_of(side=_SIDE)
    runs: dict[str, Callable[[], object]] = {"product": product_run}
    repeats = {size: max(1, (1 << 20) // size) for size in _FOOTPRINTS}
    for size in _FOOTPRINTS:
        runs[str(size)] = partial(_repeated, copying(size), repeats[size])
    times = interleave(runs, seconds, pairs=runs)
    copies = {size: size * repeats[size] / times[str(size)].least for size in _FOOTPRINTS}
    copies = {size: max(r for n, r in copies.items() if n >= size) for size in copies}  # what is smaller is copied no slower
    return Rates(macs / times["product"].least, copies)


def _repeated(run: Callable[[], object], times: int) -> None:
    for _ in range(times):
        run()


def multiplications(form: Form, batch: int) -> float:
    """Return the multiply-adds of the best algorithm known: direct, Winograd's F(2x2, 3x3), or one transform per channel.

    Examples
    --------
    >>> form = ConvSpec(8, 8, (3, 3), padding=1).form((16, 18))
    >>> form.macs / multiplications(form, 1)
    2.25
    """
    direct = float(form.macs * batch)
    plain = set(form.stride) == set(form.dilation) == {1} and not form.tiled
    if not plain:
        return direct
    if form.channels.groups == 1 and set(form.kernel) == {3} and form.ndim == 2:
        return direct / 2.25
    points = prod(a.span for a in form.axes)
    ends = form.channels.inputs + form.channels.outputs
    # 2.5 n log2(n) operations make a real transform, and four products each of n / 2 complex ones
    return min(direct, batch * points * (1.25 * log2(points) * ends + 2 * form.channels.connections))


def floor_of(problem: Problem, rates: Rates) -> float:
    """Return the seconds that one map does not go below."""
    return max(multiplications(problem.form, problem.batch) / rates.product, rates.copied(problem.bytes))


def problems(model: nn.Module, x: Tensor, train: bool) -> Iterator[Problem]:
    """Yield the problem of every map of every convolution that runs; no gradient to what needs none."""
    found: list[Problem] = []

    def note(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        spec, read = ConvSpec.from_module(module), args[0]
        size = tuple(out.shape[2:]) if spec.transposed else None
        form = spec.form(tuple(read.shape[2:]), size)
        forward, backward = ("h", "c") if spec.transposed else ("c", "h")
        maps = (forward, "g", *((backward,) if read.requires_grad else ())) if train else (forward,)
        found.extend(Problem(m, form, len(read)) for m in maps)  # type: ignore[arg-type]

    layers = [m for m in model.modules() if type(m) in TWINS or isinstance(m, Planned)]
    handles = [m.register_forward_hook(note) for m in layers]
    with torch.set_grad_enabled(train):
        model(x)
    for handle in handles:
        handle.remove()
    yield from found


def last(model: nn.Module) -> nn.Module:
    """Return a channels-last copy."""
    return copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def contenders(model: nn.Module, x: Tensor, train: bool, compiled: bool) -> dict[str, tuple[nn.Module, Tensor]]:
    """Return PyTorch's side, each with images in its format."""
    plain = as_torch(copy.deepcopy(model).train(train))
    images = x.contiguous(memory_format=torch.channels_last)
    runs = {"eager": (plain, x), "channels-last": (last(plain), images)}
    if compiled:
        torch._dynamo.reset()  # noqa: SLF001  the documented way to forget earlier graphs
        runs["compiled"] = (torch.compile(copy.deepcopy(plain)), x)
    return runs


def difference(model: nn.Module, reference: nn.Module, x: Tensor) -> float:
    """Return the largest difference of their outputs, relative to the largest output."""
    with torch.no_grad():
        out, expected = model(x), reference(x)
    return float((out - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def bare(plain: nn.Module, x: Tensor, train: bool) -> dict[str, tuple[nn.Module, Tensor]]:
    """Return the network without its convolutions, in both formats; for inference without the normalisations that fold, too."""
    base = plain if train else fold_norms(plain, x)[0]
    images = x.contiguous(memory_format=torch.channels_last)
    return {"bare": (hollowed(base, x), x), "bare, last": (hollowed(last(base), images), images)}


def run_case(name: str, batch: int, mode: str, options: argparse.Namespace) -> Case:
    """Optimize, compare, time."""
    make, size = NETWORKS[name]
    case, train = Case(name, batch, mode, size), mode == "training"
    torch.manual_seed(0)
    model, x = make().train(train), torch.randn(batch, 3, size, size)
    theirs = contenders(model, x, train, options.compile)
    plain = theirs["eager"][0]
    try:
        fast, report = nf.optimize(model, x, train=train)
    except NinefoldError as error:
        case.error = str(error)
        return case
    if not (off := difference(fast, plain, x)) <= _ALLOWED:
        case.error = f"ninefold is off by {off:.1e} of the largest output, more than {_ALLOWED:.0e}"
        return case
    runs = {
        k: step(m, Call.of(given), train) for k, (m, given) in (theirs | {"ninefold": (fast, x)} | bare(plain, x, train)).items()
    }
    if "compiled" in runs:
        runs["compiled"]()  # compiles: half a minute that is no step
    times = interleave(runs, options.seconds, pairs=runs)
    case.seconds = {k: times[k].median for k in runs}
    case.best = min(theirs, key=lambda k: case.seconds[k])
    case.ratio = ratio(times[case.best], times["ninefold"])
    case.outside = min(case.seconds["bare"], case.seconds["bare, last"])
    case.problems = list(problems(plain, x, train))
    case.format, case.folded, case.fused = report.memory_format, len(report.folded), len(report.fused)
    case.engines = dict(Counter(engine for row in report.rows for engine in row.engines.values()).most_common())
    return case


@contextlib.contextmanager
def planning(seconds: float) -> Iterator[None]:
    """Time each candidate for about so long, for a benchmark of many networks that is to end today."""
    before = decide.measure
    decide.measure = partial(before, seconds=seconds)  # type: ignore[assignment]
    try:
        yield
    finally:
        decide.measure = before


def table(cases: list[Case]) -> Table:
    """Return what is shown."""
    made = Table(title="whole networks: milliseconds, medians of interleaved rounds", title_justify="left")
    for heading in ("network", "batch", "", "PyTorch", "ninefold", "ratio to the best", "outside + floors", "reached", "chosen"):
        made.add_column(heading, justify="left" if heading in ("network", "", "chosen") else "right")
    for case in cases:
        row = (f"{case.network} {case.size}", str(case.batch), case.mode)
        if case.error is not None or case.ratio is None:
            made.add_row(*row, "[bold red]ERROR[/]", "", "", "", "", f"[red]{case.error}[/]")
            continue
        ours = ("ninefold", "bare", "bare, last")
        peers = " / ".join(f"[b]{ms(s)}[/]" if k == case.best else ms(s) for k, s in case.seconds.items() if k not in ours)
        middle, low, high = case.ratio
        chosen = ", ".join(f"{engine} {n}" for engine, n in case.engines.items())
        made.add_row(
            *row,
            peers,
            ms(case.seconds["ninefold"]),
            f"{middle:.2f} ({low:.2f}..{high:.2f})",
            f"{ms(case.outside)} + {ms(case.floors)} = {ms(case.bound)}",
            f"{'[green]' if case.reached >= _REACHED else '[yellow]'}{case.reached:.0%}[/]",
            f"{'cl' if case.format == 'channels_last' else 'nc'}, {case.folded} folded, {case.fused} fused: {chosen}",
        )
    return made


def ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}"


def summary(cases: list[Case]) -> list[str]:
    """Return a line for each mode."""
    lines = []
    for mode in MODES:
        good = [c for c in cases if c.mode == mode and c.ratio is not None]
        if good:
            gain, part = geometric(c.ratio[0] for c in good if c.ratio), geometric(c.reached for c in good)
            near = sum(c.reached >= _REACHED for c in good)
            lines.append(
                f"{mode}: {gain:.2f} times as fast as the best of PyTorch, {part:.0%} of the bound reached (geometric means); "
                f"{near} of {len(good)} reach {_REACHED:.0%}"
            )
    return lines


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m bench.networks", description="Whole networks against PyTorch and a bound.")
    parser.add_argument("--name", action="append", choices=tuple(NETWORKS), help="only this network; may be repeated")
    parser.add_argument("--batch", action="append", type=int, help="may be repeated (default: 1 and 8)")
    parser.add_argument("--mode", action="append", choices=MODES, help="only this mode")
    parser.add_argument("--seconds", type=float, default=2.0, help="of timed rounds per case, about (default: %(default)s)")
    parser.add_argument("--planning", type=float, default=0.04, help="seconds per planned problem (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="default: PyTorch's own choice")
    parser.add_argument("--compile", action="store_true", help="also torch.compile, which takes minutes and a C++ compiler")
    parser.add_argument("--json", type=Path, help="where to write the records (default: bench/results/networks-DATE.json)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write; return 1 where a case is an error. An interrupt keeps what there is."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run that is ended keeps its cases, however it is ended
    console = Console(width=None if sys.stdout.isatty() else 190)
    if options.compile and not (shutil.which("g++") or shutil.which("clang++")):
        console.print("torch.compile needs a C++ compiler on the CPU, and there is neither g++ nor clang++")
        return 2
    if options.threads:
        torch.set_num_threads(options.threads)
    retain_memory()
    facts = machine.describe()
    console.print(machine.line(facts))
    cases: list[Case] = []
    rates = measure_rates(min(options.seconds, 0.5))
    with machine.own_cache(), planning(options.planning), contextlib.suppress(KeyboardInterrupt):
        for name, batch, mode in product(options.name or NETWORKS, options.batch or (1, 8), options.mode or MODES):
            with console.status(f"{name}, batch {batch}, {mode}"):
                cases.append(run_case(name, batch, mode, options))
                rates = rates.best(measure_rates(min(options.seconds, 0.5)))
    for case in cases:
        case.floors = sum(floor_of(p, rates) for p in case.problems)
    copies = ", ".join(f"{size >> 10} KiB {rate / 1e9:.0f}" for size, rate in rates.copies.items())
    console.print(f"{rates.product / 1e9:.0f} G multiply-adds/s in a product; GB/s copied by footprint: {copies}")
    console.print(table(cases))
    if (load := os.getloadavg()[0]) > facts["threads"] + 0.5:
        console.print(f"[yellow]others kept this machine busy (load {load:.1f}): these figures say little[/]")
    for line in summary(cases):
        console.print(line)
    target = options.json or RESULTS / f"networks-{str(facts['date']).replace(':', '-')}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    derived = [{} if c.ratio is None else {"bound": c.bound, "reached": c.reached} for c in cases]
    records = [asdict(replace(c, problems=[])) | more for c, more in zip(cases, derived, strict=True)]
    target.write_text(json.dumps({"machine": facts, "rates": asdict(rates), "cases": records}, indent=1))
    console.print(f"records: {target}")
    return int(any(c.error is not None for c in cases) or not cases)


if __name__ == "__main__":
    raise SystemExit(main())
