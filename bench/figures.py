"""``python -m bench.figures``: the five ratios that the library is meant to reach, each with what it is compared to.

Forward, float32, default allocator unless ``--kept``. PyTorch gets its padding as an argument, as layers give it; that it
can be many times faster on long kernels when the input is padded before is told beside the ratio. The Gaussian takes
PyTorch most of a minute on the whole photograph, so that it is timed on a strip of output rows and scaled by their number.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bench import machine, torch_peer
from bench.case import disagreement
from bench.timing import interleave, ratio
from ninefold.engines.separable import numerical_rank
from ninefold.memory import peak_memory, retain_memory
from ninefold.ops import PlannedCall
from ninefold.settings import Options
from ninefold.spec import ConvSpec

_MEASURE = Options(mode="measure")
_STRIP = 4


@dataclass
class Figure:
    """A comparison: functions of both sides, the target ratio, and how many times PyTorch's work counts."""

    name: str
    target: float
    torch: Callable[[], Tensor]
    ours: Callable[[], Tensor]
    engine: str
    scale: float = 1.0
    compared: Callable[[Tensor], Tensor] = lambda result: result
    padded_first: Callable[[], Tensor] | None = None
    memory: bool = False
    note: str = ""


def shared(name: str, target: float, spec: ConvSpec, batch: int, size: tuple[int, ...]) -> Figure:
    """Return a figure of an ordinary convolution with PyTorch's own."""
    form = spec.form(size)
    torch.manual_seed(0)
    x, w = torch.randn(form.input_shape(batch)), torch.randn(form.weight_shape)
    site, peer = PlannedCall(spec, _MEASURE), torch_peer.torch_peer(spec, form)
    conv = (F.conv1d, F.conv2d)[spec.ndim - 1]
    pads = [n for pair in reversed(spec.pads(size)) for n in pair]
    return Figure(
        name,
        target,
        lambda: peer.layer(x, w),
        lambda: site(x, w),
        site.bind(x, w).plan("c").engine,
        padded_first=lambda: conv(F.pad(x, pads), w, groups=spec.groups),
    )


def gaussian() -> Figure:
    """Return the photograph through a frozen Gaussian of 131x131, channel by channel, borders reflected."""
    from sklearn.datasets import load_sample_image

    image = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1).float()[None].div_(255)
    taps = torch.exp(-0.5 * (torch.arange(-65, 66, dtype=torch.float64) / 21.0) ** 2)
    kernel = torch.outer(taps, taps)
    w = (kernel / kernel.sum()).float().expand(3, 1, 131, 131).contiguous()
    spec = ConvSpec(3, 3, (131, 131), padding=65, padding_mode="reflect", groups=3)
    size = tuple(image.shape[2:])
    site = PlannedCall(spec, _MEASURE, frozen=w, rank=numerical_rank(spec.form(size), w))
    middle = size[0] // 2
    rows = slice(middle, middle + _STRIP)
    strip = F.pad(image, (65, 65, 65, 65), mode="reflect")[:, :, middle : middle + _STRIP + 130].contiguous()
    return Figure(
        "131x131 Gaussian, frozen, on china.jpg",
        50,
        lambda: F.conv2d(strip, w, groups=3),
        lambda: site(image, w),
        site.bind(image, w).plan("c").engine,
        scale=size[0] / _STRIP,
        compared=lambda result: result[:, :, rows],
        note=f"PyTorch on {_STRIP} of {size[0]} rows, its time times {size[0] / _STRIP:.1f}",
    )


def unshared() -> Figure:
    """Return the locally connected layer against unfold + bmm."""
    spec = ConvSpec(16, 32, (3, 3), period=(None, None))
    form = spec.form((32, 32))
    torch.manual_seed(0)
    x, w = torch.randn(form.input_shape(16)), torch.randn(form.weight_shape)
    site, peer = PlannedCall(spec, _MEASURE), torch_peer.torch_peer(spec, form)
    packed = peer.pack(w)
    return Figure(
        "unshared 3x3, 16->32, 16x32x32",
        2,
        lambda: peer.layer(x, packed),
        lambda: site(x, w),
        site.bind(x, w).plan("c").engine,
        memory=True,
        note="PyTorch: unfold + bmm",
    )


def all_figures(wanted: list[str] | None) -> Iterator[Figure]:
    """Yield the figures whose name contains one of the words."""
    makers: dict[str, Callable[[], Figure]] = {
        "depthwise 1-D k=1024, 4x256x2048": lambda: shared(
            "depthwise 1-D k=1024, 4x256x2048",
            30,
            ConvSpec(256, 256, (1024,), padding=512, groups=256),
            4,
            (2048,),
        ),
        "one channel, 31x31, 1024x1024": lambda: shared(
            "one channel, 31x31, 1024x1024", 5, ConvSpec(1, 1, (31, 31), padding=15), 1, (1024, 1024)
        ),
        "1-D k=1001 on 1e6": lambda: shared("1-D k=1001 on 1e6", 20, ConvSpec(1, 1, (1001,), padding=500), 1, (1_000_000,)),
        "131x131 Gaussian, frozen, on china.jpg": gaussian,
        "unshared 3x3, 16->32, 16x32x32": unshared,
    }
    for name, maker in makers.items():
        if wanted is None or any(word in name for word in wanted):
            yield maker()


def megabytes(run: Callable[[], Tensor]) -> str:
    """Return how much a call raises the memory of the process at its highest."""
    run()
    with peak_memory() as peak:
        run()
    return "?" if peak.bytes is None else f"{peak.bytes / 1e6:.1f}"


def row(figure: Figure, seconds: float) -> tuple[str, ...]:
    """Return a row of the table."""
    with torch.no_grad():
        wrong = disagreement(figure.compared(figure.ours()), figure.torch())
        if wrong is not None:
            return (figure.name, "[bold red]ERROR[/]", f"[red]{wrong}[/]", "", "", figure.engine, "", figure.note)
        runs = {"torch": figure.torch, "ours": figure.ours}
        if figure.padded_first is not None:
            runs["padded first"] = figure.padded_first
        times = interleave(runs, seconds, runs)
        middle, low, high = (figure.scale * r for r in ratio(times["torch"], times["ours"]))
        memory = f"{megabytes(figure.torch)} / {megabytes(figure.ours)}" if figure.memory else ""
    note = figure.note
    if figure.padded_first is not None:
        extra = times["padded first"].median
        note = f"PyTorch after F.pad, no padding argument: {extra * 1e3:.4g} ms, {extra / times['ours'].median:.1f}x"
    single = times["torch"].single or times["ours"].single
    interval = "one run" if single else f"{low:.1f}..{high:.1f}"
    return (
        figure.name,
        f"{times['torch'].median * figure.scale * 1e3:.4g} / {times['ours'].median * 1e3:.4g}",
        f"{middle:.1f} ({interval})",
        f">= {figure.target:g}",
        "[green]reached[/]" if middle >= figure.target else "[red]not reached[/]",
        figure.engine,
        memory,
        note,
    )


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.figures", description=__doc__)
    parser.add_argument("--name", action="append", help="only figures whose name contains this")
    parser.add_argument("--seconds", type=float, default=3.0, help="per figure (default: %(default)s)")
    parser.add_argument("--kept", action="store_true", help="with retained memory")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 200)
    if options.kept:
        retain_memory()
    made = Table(title=f"figures, {'kept' if options.kept else 'cold'} memory, forward", title_justify="left")
    headings = ("case", "ms torch / ninefold", "ratio", "target", "", "engine", "peak MB torch / ninefold", "remark")
    for heading in headings:
        made.add_column(heading)
    with machine.own_cache():
        rows = [row(figure, options.seconds) for figure in all_figures(options.name)]
    for cells in rows:
        made.add_row(*cells)
    console.print(machine.line(machine.describe()))
    console.print(made)
    return int(any("ERROR" in cells[1] for cells in rows))


if __name__ == "__main__":
    raise SystemExit(main())
