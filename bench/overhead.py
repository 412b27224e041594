"""``python -m bench.overhead``: what a call costs beside the convolution, on 1x8x8x8, over torch.nn.Conv2d.

Targets: 3 microseconds without grad, 10 with, 30 for forward and backward.
"""

import argparse
import random
import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter_ns

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import ninefold.nn
from bench import machine
from ninefold.ops import PlannedCall
from ninefold.spec import ConvSpec

_TARGETS = {"no grad": 3.0, "with grad": 10.0, "forward + backward": 30.0}
_BURST = 20  # calls per reading of the clock

Layer = Callable[[Tensor], Tensor]


def ours(layer: nn.Conv2d) -> tuple[str, Layer]:
    """Return ninefold's layer with the same parameters, or a bare call site while there is no such layer."""
    if hasattr(ninefold.nn, "Conv2d"):
        twin = ninefold.nn.Conv2d(8, 8, 3, padding=1)
        twin.load_state_dict(layer.state_dict())
        return "ninefold.nn.Conv2d", twin
    site = PlannedCall(ConvSpec.from_module(layer))
    return "PlannedCall", lambda x: site(x, layer.weight, layer.bias)


def action(name: str, layer: Layer, x: Tensor) -> Callable[[], object]:
    """Return what is timed."""
    if name == "forward + backward":
        return lambda: layer(x).sum().backward()
    return lambda: layer(x)


def microseconds(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Return microseconds per call, in bursts that take turns in a random order."""
    order, times = random.Random(0), {name: [] for name in calls}  # noqa: S311  an order, not a secret
    names = list(calls)
    for name in names * 50:
        calls[name]()
    end = perf_counter_ns() + int(seconds * 1e9)
    while perf_counter_ns() < end:
        order.shuffle(names)
        for name in names:
            call = calls[name]
            start = perf_counter_ns()
            for _ in range(_BURST):
                call()
            times[name].append((perf_counter_ns() - start) / _BURST / 1e3)
    return times


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="per row (default: %(default)s)")
    seconds = parser.parse_args().seconds
    console = Console(width=None if sys.stdout.isatty() else 160)
    layer, x = nn.Conv2d(8, 8, 3, padding=1), torch.randn(1, 8, 8, 8)
    what, twin = ours(layer)
    made = Table(title=f"microseconds per call, 1x8x8x8: torch.nn.Conv2d and {what}", title_justify="left")
    for heading in ("", "torch min / median", "ninefold min / median", "over, min / median", "target", ""):
        made.add_column(heading)
    for name, target in _TARGETS.items():
        with machine.own_cache(), torch.set_grad_enabled(name != "no grad"):
            times = microseconds({"torch": action(name, layer, x), "nine": action(name, twin, x)}, seconds)
        least, middle = ({k: f(v) for k, v in times.items()} for f in (min, median))
        over = (least["nine"] - least["torch"], middle["nine"] - middle["torch"])
        made.add_row(
            name,
            f"{least['torch']:.1f} / {middle['torch']:.1f}",
            f"{least['nine']:.1f} / {middle['nine']:.1f}",
            f"{over[0]:+.1f} / {over[1]:+.1f}",
            f"<= {target:.0f}",
            "reached" if max(over) <= target else "reached by the minimum" if over[0] <= target else "not reached",
        )
    console.print(machine.line(machine.describe()))
    console.print(made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
