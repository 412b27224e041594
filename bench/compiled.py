"""``python -m bench.compiled``: torch.compile of a converted network against torch.compile of the network itself.

Target: never under 0.95. Needs a C++ compiler, which torch.compile uses on the CPU.
"""

import argparse
import copy
import os
import shutil
import sys
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import ninefold
from bench import machine
from bench.case import disagreement
from bench.models import MODELS
from bench.timing import interleave, ratio

_LEAST = 0.95


def why_not() -> str | None:
    """Return in a sentence why nothing can be measured here, or None."""
    compiler = os.environ.get("CXX") or "g++"
    if shutil.which(compiler) is None and shutil.which("clang++") is None:
        return f"skipped: torch.compile needs a C++ compiler on the CPU, and there is neither {compiler} nor clang++"
    if not hasattr(ninefold, "convert"):
        return "skipped: this ninefold has no convert()"
    return None


def steps(model: nn.Module, x: Tensor, train: bool) -> Callable[[], Tensor]:
    """Return a call of a compiled model, or a training step's forward and backward."""
    compiled = torch.compile(model)
    if not train:

        def infer() -> Tensor:
            with torch.no_grad():
                return compiled(x)

        return infer
    leaf = x.clone().requires_grad_()
    parameters = [leaf, *model.parameters()]

    def step() -> Tensor:
        return torch.autograd.grad(compiled(leaf).square().mean(), parameters)[0]

    return step


def compare(name: str, train: bool, seconds: float) -> tuple[str, ...]:
    """Return a row of the table."""
    torch.manual_seed(0)
    model, x = MODELS[name]()
    twin = ninefold.convert(copy.deepcopy(model))
    torch._dynamo.reset()  # noqa: SLF001  the documented way to forget earlier graphs
    runs = {"torch": steps(model, x, train), "ninefold": steps(twin, x, train)}
    row = (name, "train" if train else "infer")
    wrong = disagreement(runs["ninefold"](), runs["torch"]())
    if wrong is not None:
        return (*row, "[bold red]ERROR[/]", "", f"[red]{wrong}[/]")
    times = interleave(runs, seconds, runs)
    middle, low, high = ratio(times["torch"], times["ninefold"])
    verdict = "reached" if low >= _LEAST else "not reached"
    each = " / ".join(f"{times[n].median * 1e3:.2f}" for n in runs)
    return (*row, each, f"{middle:.2f} ({low:.2f}..{high:.2f})", verdict)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.compiled", description=__doc__)
    parser.add_argument("--name", action="append", choices=tuple(MODELS))
    parser.add_argument("--seconds", type=float, default=2.0, help="per row (default: %(default)s)")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    reason = why_not()
    if reason is not None:
        console.print(reason)
        return 0
    made = Table(title="torch.compile(convert(m)) against torch.compile(m)", title_justify="left")
    for heading in ("network", "mode", "ms torch / ninefold", "ratio", f"target >= {_LEAST}"):
        made.add_column(heading)
    with machine.own_cache():
        rows = [compare(name, train, options.seconds) for name in options.name or MODELS for train in (False, True)]
    for row in rows:
        made.add_row(*row)
    console.print(machine.line(machine.describe()))
    console.print(made)
    return int(any("ERROR" in row[2] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
