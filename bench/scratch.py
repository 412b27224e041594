"""``python -m bench.scratch``: whether the memory that engines say they need is what the process takes, and a cap holds.

Every engine that a cap admits runs each map of each shape, warm, in one process; the rise of its resident memory at its highest,
less the result, is set against the cap. The C library is told to return what is freed at once: what it keeps for later is not the
engines'. Pages and threads of libraries come on top, less than a megabyte that is no scratch.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.case import operands
from ninefold import NinefoldError
from ninefold.memory import peak_memory
from ninefold.ops import PlannedCall
from ninefold.planning.choose import choose
from ninefold.rewrites import engine_named
from ninefold.settings import Options
from ninefold.testing.shapes import Shape, load_shapes

_SLACK = 1 << 20  # bytes of pages that a run touches beside its arrays
_PROMPT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}  # read by the C library as a process starts
_TOO_LONG = 1.0  # estimated seconds from which an engine is not tried


def over(shape: Shape, cap: int) -> list[tuple[str, str, int, int]]:
    """Return (map, engine, promised, taken) of everything that was run under the cap."""
    given = operands(shape)
    x = given.G if shape.spec.transposed else given.V
    bound = PlannedCall(shape.spec, Options(max_scratch=cap)).bind(x, given.K)
    found = []
    for map_ in shape.maps:
        problem = bound.problem(map_)
        try:
            plan = choose(problem)
        except NinefoldError:  # nothing fits: that is an answer, and the tests look at its words
            continue
        for c in plan.candidates:
            if c.reason is not None or c.cost > _TOO_LONG or c.engine == "reference":
                continue
            a, b = given.of(map_)
            with torch.no_grad():
                run = engine_named(c.engine).prepare(problem)
                size = run(a, b, None).nbytes
                with peak_memory() as peak:
                    out = run(a, b, None)
                del out
            if peak.bytes is None:
                raise SystemExit("this system does not say how much memory a process takes")
            found.append((map_, c.engine, c.scratch, peak.bytes - size))
    return found


def main() -> int:
    """Print the runs that took more than the cap, and how many did not."""
    parser = argparse.ArgumentParser(prog="python -m bench.scratch", description=__doc__)
    parser.add_argument("--cap", type=float, default=16.0, help="megabytes (default: %(default)s)")
    parser.add_argument("--shapes", type=Path, default=Path(__file__).resolve().parent / "shapes")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in _PROMPT.items()):
        os.execve(sys.executable, [sys.executable, "-m", "bench.scratch", *sys.argv[1:]], os.environ | _PROMPT)  # noqa: S606
    cap, console = int(options.cap * 1e6), Console(width=None if sys.stdout.isatty() else 140)
    table = Table(title=f"took more than {options.cap:g} MB and {_SLACK / 1e6:.1f} MB of slack", title_justify="left")
    for heading in ("shape", "map", "engine", "promised MB", "taken MB"):
        table.add_column(heading)
    count, worse = 0, 0
    for shape in load_shapes(options.shapes):
        if not shape.batch or 0 in shape.size or shape.group == "contract":
            continue
        for map_, engine, promised, taken in over(shape, cap):
            count += 1
            if taken > cap + _SLACK:
                worse += 1
                table.add_row(shape.name, map_, engine, f"{promised / 1e6:.2f}", f"{taken / 1e6:.2f}")
    console.print(machine.line(machine.describe()))
    if worse:
        console.print(table)
    console.print(f"{count} runs under a cap of {options.cap:g} MB, {worse} took more")
    return int(worse > 0)


if __name__ == "__main__":
    raise SystemExit(main())
