"""``python -m bench.pooling``: pooling against PyTorch's kernels where it has them, else against its ``unfold``, interleaved.

Every result is compared with the other's before anything is timed. The floor is a copy of as many bytes as must be moved, in the
same rounds: forward the input and the output; backward the gradients of both, and the input again where they depend on it.
"""

import argparse
import sys
from collections.abc import Callable
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as tF
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ninefold.functional as F
from bench import machine
from bench.limits import copying
from bench.timing import interleave, ratio
from ninefold.memory import retain_memory
from ninefold.ops import native_pool

Pool = Callable[[Tensor], Tensor]


class Row(NamedTuple):
    """One line: what it is, the input's shape, ours and theirs; a linear pooling's gradient does not depend on the input."""

    name: str
    shape: tuple[int, ...]
    ours: Pool
    theirs: Pool
    last: bool = False
    linear: bool = False


def both(name: str, ndim: int, *arguments: object) -> tuple[Pool, Pool]:
    """Return our function and torch's of the same name."""
    ours, theirs = getattr(F, f"{name}{ndim}d"), getattr(tF, f"{name}{ndim}d")
    return lambda x: ours(x, *arguments), lambda x: theirs(x, *arguments)


def unfolded(kernel: tuple[int, int], stride: int, pads: tuple[int, ...], value: float, reduce: Pool, dilation: int = 1) -> Pool:
    """Return what reduces a copy of every window: how pooling is written where PyTorch has none."""

    def run(x: Tensor) -> Tensor:
        padded = tF.pad(x, pads, value=value)
        extent = [(k - 1) * dilation + 1 for k in kernel]
        size = [(n - e) // stride + 1 for n, e in zip(padded.shape[2:], extent, strict=True)]
        columns = tF.unfold(padded, kernel, dilation, stride=stride).view(*x.shape[:2], prod(kernel), *size)
        return reduce(columns)

    return run


def log_mean_exp(r: float) -> Pool:
    return lambda columns: (columns.mul(r).logsumexp(2) - torch.tensor(columns.shape[2]).log()) / r


def rows() -> list[Row]:
    """Return what is measured."""
    image, volume, signal = (4, 64, 56, 56), (2, 16, 16, 28, 28), (4, 64, 4096)
    both_have = [
        Row(f"{name} {text}{', channels-last' * last}", shape, *both(name, len(shape) - 2, *arguments), last, name == "avg_pool")
        for name in ("max_pool", "avg_pool")
        for text, arguments, shape, last in (
            ("2, stride 2", (2, 2), image, False),
            ("3, stride 1, pad 1", (3, 1, 1), image, False),
            ("3, stride 2, pad 1", (3, 2, 1), image, False),
            ("3, stride 2, pad 1", (3, 2, 1), image, True),
            ("13, stride 1, pad 6", (13, 1, 6), image, False),
            ("13, stride 1, pad 6", (13, 1, 6), image, True),
            ("3, stride 2, pad 1", (3, 2, 1), volume, False),
            ("3, stride 2, pad 1", (3, 2, 1), volume, True),
            ("3, stride 1, pad 1", (3, 1, 1), (1, 16, 32, 56, 56), False),
            ("3, stride 2, pad 1", (3, 2, 1), (32, 64, 14, 14), False),
            ("3, stride 2, pad 1", (3, 2, 1), (1, 64, 112, 112), False),
            ("3, stride 2, pad 1", (3, 2, 1), signal, False),
            ("2, stride 2, tiny", (2, 2), (1, 2, 6, 6), False),
        )
    ]
    norm = Row("lp_pool 2 of 3, stride 2", image, *both("lp_pool", 2, 2, 3, 2))
    dilated = Row("max_pool 3, dilation 2", image, *both("max_pool", 2, 3, 1, 0, 2))
    grid = Row("adaptive_avg_pool to 7", image, *both("adaptive_avg_pool", 2, 7))
    none, around, below = (0, 0, 0, 0), (1, 1, 1, 1), -torch.inf
    own = [
        Row(
            "avg_pool 3, dilation 2",
            image,
            lambda x: F.avg_pool2d(x, 3, 1, dilation=2),
            unfolded((3, 3), 1, none, 0, mean, 2),
        ),
        Row("max_pool 4, same", image, lambda x: F.max_pool2d(x, 4, 1, "same"), unfolded((4, 4), 1, (1, 2, 1, 2), below, top)),
        Row(
            "gaussian_pool 5, sigma 1",
            image,
            lambda x: F.gaussian_pool2d(x, 5, 1, sigma=1.0),
            unfolded((5, 5), 1, none, 0, weighted(5, 1.0)),
        ),
        Row(
            "log_sum_exp_pool 3",
            image,
            lambda x: F.log_sum_exp_pool2d(x, 3, 1, r=5.0),
            unfolded((3, 3), 1, none, 0, log_mean_exp(5.0)),
        ),
        Row("lp_pool 3 mean, pad 1", image, cubic, unfolded((3, 3), 1, around, torch.nan, cubic_mean)),
        Row("maxout of 4 channels", image, lambda x: F.maxout(x, 4), lambda x: x.unflatten(1, (-1, 4)).amax(2)),
    ]
    return [*both_have, norm, dilated, grid, *own]


def mean(columns: Tensor) -> Tensor:
    return columns.mean(2)


def top(columns: Tensor) -> Tensor:
    return columns.amax(2)


def weighted(k: int, sigma: float) -> Pool:
    steps = torch.arange(k) - (k - 1) / 2
    bell = (-(steps[:, None] ** 2 + steps**2) / (2 * sigma**2)).flatten().softmax(0)
    return lambda columns: (columns * bell.view(-1, 1, 1)).sum(2)


def cubic(x: Tensor) -> Tensor:
    return F.lp_pool2d(x, 3, 3, 1, padding=1, convention="mean")


def cubic_mean(columns: Tensor) -> Tensor:
    return columns.abs().pow(3).nanmean(2).pow(1 / 3)


def step(pool: Pool, x: Tensor) -> Callable[[], object]:
    """Return forward and backward."""
    x = x.clone().requires_grad_()
    up = torch.ones_like(pool(x))
    return lambda: torch.autograd.grad(pool(x), x, up)


def axiswise(run: Callable[[], object]) -> Callable[[], object]:
    """Return the same without the native kernels."""

    def without() -> object:
        find, native_pool.find = native_pool.find, lambda *_, **__: None
        try:
            return run()
        finally:
            native_pool.find = find

    return without


def contenders(row: Row, x: Tensor, with_gradient: bool, axes: bool) -> dict[str, Callable[[], object]]:
    """Return what is timed together."""
    z = row.ours(x)
    moved = x.numel() + z.numel()
    if with_gradient:
        moved += moved + (0 if row.linear else x.numel())
    runs = {"torch": row.theirs, "nine": row.ours}
    calls = {k: step(f, x) if with_gradient else (lambda f=f: f(x)) for k, f in runs.items()}
    if axes:
        calls["axes"] = axiswise(calls["nine"])
    return {**calls, "copy": copying(moved)}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.pooling", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="per measurement (default: %(default)s)")
    parser.add_argument("--axes", action="store_true", help="time also without the native kernels")
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    retain_memory()
    console = Console(width=None if sys.stdout.isatty() else 200)
    made = Table(title="how many times as long PyTorch takes: median, 95% interval; shortest runs", title_justify="left")
    times_of = " / ".join(["PyTorch", "ninefold", *["axes"] * given.axes, "copy"]) + ", ms"
    for heading in (
        "pooling",
        "shape",
        "forward",
        times_of,
        "copy / ninefold",
        "forward + backward",
        times_of,
        "copy / ninefold",
    ):
        made.add_column(heading)
    wrong = 0
    for row in rows():
        x = torch.randn(row.shape)
        if row.last:
            x = x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
        if not torch.allclose(row.ours(x), row.theirs(x), rtol=1e-4, atol=1e-5):
            console.print(f"[red]ERROR[/red]: {row.name} differs")
            wrong += 1
            continue
        cells = []
        for with_gradient in (False, True):
            calls = contenders(row, x, with_gradient, given.axes)
            with torch.set_grad_enabled(with_gradient):
                times = interleave(calls, given.seconds, pairs=calls)
            middle, low, high = ratio(times["torch"], times["nine"])
            cells += [
                f"{middle:.2f} ({low:.2f} to {high:.2f})",
                " / ".join(f"{1e3 * times[k].least:.3f}" for k in calls),
                f"{times['copy'].least / times['nine'].least:.0%}",
            ]
        made.add_row(row.name, "x".join(map(str, row.shape)), *cells)
    console.print(machine.line(machine.describe()))
    console.print(made)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
