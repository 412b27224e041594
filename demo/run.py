"""The main job on real input, in three acts, in under a minute: ``make demo``.

1. A photograph through a very large separable kernel and a large one that is not separable.
2. An unshared (locally connected) layer against ``unfold`` + ``bmm``.
3. ``ninefold optimize`` on a network with large kernels, inference and training step, and on MobileNetV1.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median

import matplotlib as mpl
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_sample_image
from torch import Tensor

import ninefold as nf
import ninefold.functional as F
from ninefold import nn
from ninefold.memory import peak_memory
from ninefold.models import MODELS
from ninefold.network import Report
from ninefold.planning.measure import interleaved

mpl.use("Agg")
import matplotlib.pyplot as plt

STRIP = 16  # output rows on which PyTorch is timed where the whole picture takes it most of a minute
console = Console(width=max(Console().width, 110))


def photograph() -> Tensor:
    """Return china.jpg as (1, 3, 427, 640), float32 in 0..1."""
    return torch.tensor(load_sample_image("china.jpg")).permute(2, 0, 1)[None].float().div(255).contiguous()


def gaussian(size: int, sigma: float) -> Tensor:
    """Return a Gaussian kernel of sum 1: the outer product of two 1-D ones."""
    t = torch.arange(size) - size // 2
    one = torch.exp(-(t**2) / (2 * sigma**2))
    one /= one.sum()
    return one[:, None] * one


def curved_edge(size: int) -> Tensor:
    """Return a kernel that answers to bright arcs bending one way: not separable, not symmetric."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    bend = y + 0.6 * x**2 + 0.3 * x
    kernel = bend * torch.exp(-12 * bend**2 - 2 * (x**2 + y**2))
    kernel -= kernel.mean()
    return kernel / kernel.abs().sum()


def layer(kernel: Tensor, kind: type[torch.nn.Conv2d]) -> torch.nn.Conv2d:
    """Return a depthwise layer that applies one kernel to each of three channels, with the border mirrored."""
    size = kernel.shape[-1]
    conv = kind(3, 3, size, padding=size // 2, groups=3, bias=False, padding_mode="reflect").eval()
    conv.weight.data = kernel.expand(3, 1, size, size).clone()
    return conv


def timed(runs: dict[str, Callable[[], Tensor]], seconds: float = 1.0) -> dict[str, tuple[float, float]]:
    """Return (median seconds, peak megabytes) of each function, called in turn."""
    peaks = {}
    for name, run in runs.items():
        with peak_memory() as peak:
            run()
        peaks[name] = peak.bytes / 1e6
    times = interleaved(runs, seconds)
    return {name: (median(times[name]), peaks[name]) for name in runs}


def act_one(folder: Path, progress: Progress) -> Table:
    """Filter the photograph."""
    image = photograph()
    rows = image.shape[2]
    table = Table(title="1. china.jpg, 3x427x640, float32", title_justify="left")
    for head in ("kernel", "PyTorch ms", "MB", "ninefold ms", "MB", "ratio", "error", "engine"):
        table.add_column(head, justify="right")
    kernels = {"131x131 Gaussian": gaussian(131, 22.0), "31x31 curved edge": curved_edge(31)}
    task = progress.add_task("1. filtering a photograph", total=len(kernels))
    for name, kernel in kernels.items():
        theirs, ours = layer(kernel, torch.nn.Conv2d), nf.freeze(layer(kernel, nn.Conv2d))
        size = kernel.shape[-1]
        scaled = size > 100
        padded = torch.nn.functional.pad(image, [size // 2] * 4, mode="reflect")
        seen = padded[:, :, : STRIP + size - 1] if scaled else image
        with torch.no_grad(), nf.options(mode="measure"):
            out = ours(image)

            def pytorch(seen: Tensor = seen, theirs: torch.nn.Conv2d = theirs, scaled: bool = scaled) -> Tensor:
                return torch.conv2d(seen, theirs.weight, None, groups=3) if scaled else theirs(seen)

            def ninefold(ours: nn.Conv2d = ours) -> Tensor:
                return ours(image)

            exact = torch.conv2d(padded[:, :, : size + 1].double(), theirs.weight.double(), groups=3)
            figures = timed({"PyTorch": pytorch, "ninefold": ninefold}, seconds=0.5)
            plan = ours.site.bind(image, ours.weight).plan("c")
        factor = rows / STRIP if scaled else 1.0
        error = float((out[:, :, :2] - exact).abs().max() / (image.max() * kernel.abs().sum()))
        (t, mb), (t2, mb2) = figures["PyTorch"], figures["ninefold"]
        mark = f"~{t * factor * 1e3:,.0f} *" if scaled else f"{t * 1e3:,.0f}"
        table.add_row(
            name,
            mark,
            f"{mb:.0f}",
            f"{t2 * 1e3:.1f}",
            f"{mb2:.0f}",
            f"{t * factor / t2:,.0f}x",
            f"{error:.0e}",
            plan.engine,
        )
        picture(folder / f"1-{name.replace(' ', '-')}.png", image, kernel, out, name)
        progress.advance(task)
    table.caption = f"* PyTorch timed on {STRIP} of {rows} output rows and scaled: the whole picture takes it most of a minute"
    return table


def picture(path: Path, image: Tensor, kernel: Tensor, out: Tensor, name: str) -> None:
    """Draw photograph, kernel and result side by side."""

    def shown(x: Tensor) -> np.ndarray:
        x = x[0].permute(1, 2, 0)
        return ((x - x.min()) / (x.max() - x.min())).numpy()

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.4), width_ratios=(3, 2, 3), layout="constrained")
    axes[0].imshow(shown(image))
    limit = float(kernel.abs().max())
    axes[1].imshow(kernel, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes[2].imshow(shown(out))
    for axis, title in zip(axes, ("photograph", f"kernel: {name}", "result"), strict=True):
        axis.set_title(title)
        axis.set_axis_off()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def act_two(progress: Progress) -> Table:
    """Run a locally connected layer."""
    task = progress.add_task("2. an unshared layer", total=2)
    table = Table(title="2. unshared 3x3, 16->32 channels on 32x32", title_justify="left")
    for head in ("batch", "unfold + bmm ms", "MB", "ninefold ms", "MB", "ratio", "largest difference"):
        table.add_column(head, justify="right")
    weight = torch.randn(32, 30, 30, 16, 3, 3)
    as_products = weight.flatten(3).flatten(1, 2).transpose(0, 1).contiguous()
    for batch in (1, 16):
        x = torch.randn(batch, 16, 32, 32)

        def theirs(x: Tensor = x) -> Tensor:
            columns = torch.nn.functional.unfold(x, 3)
            return torch.bmm(as_products, columns.permute(2, 1, 0)).permute(2, 1, 0).unflatten(2, (30, 30))

        def ours(x: Tensor = x) -> Tensor:
            return F.locally_connected2d(x, weight)

        with torch.no_grad():
            difference = float((theirs() - ours()).abs().max() / theirs().abs().max())
            (t, mb), (t2, mb2) = timed({"theirs": theirs, "ours": ours}).values()
        table.add_row(
            str(batch),
            f"{t * 1e3:.2f}",
            f"{mb:.0f}",
            f"{t2 * 1e3:.2f}",
            f"{mb2:.0f}",
            f"{t / t2:.1f}x",
            f"{difference:.0e}",
        )
        progress.advance(task)
    return table


def act_three(folder: Path, progress: Progress) -> list[Report]:
    """Optimize networks."""
    image = photograph()
    small = torch.nn.functional.interpolate(image, (128, 128), mode="area") * 2 - 1
    reports = []
    for name, example, train in (("large_kernel_net", small, False), ("large_kernel_net", small, True)):
        task = progress.add_task(f"3. {name}", total=None)
        torch.manual_seed(0)
        model = MODELS[name]()
        _, report = nf.optimize(
            model,
            example,
            train=train,
            inplace=True,
            progress=lambda what, done, total, task=task: progress.update(
                task, description=f"3. {what}", completed=done, total=total
            ),
        )
        progress.remove_task(task)
        bars(folder / f"3-{name}-{report.mode}.png", report, name)
        reports.append(report)
    task = progress.add_task("3. mobilenet_v1", total=None)
    photo = torch.nn.functional.interpolate(image, (224, 224), mode="area") * 2 - 1
    _, report = nf.optimize(MODELS["mobilenet_v1"](), photo, inplace=True)
    progress.remove_task(task)
    return [*reports, report]


def bars(path: Path, report: Report, name: str) -> None:
    """Draw the time of each convolution before and after."""
    figure, axis = plt.subplots(figsize=(9, 0.32 * len(report.rows) + 1.4), layout="constrained")
    places = np.arange(len(report.rows))
    axis.barh(places - 0.2, [r.before * 1e3 for r in report.rows], 0.4, label="PyTorch", color="0.7")
    axis.barh(places + 0.2, [r.after * 1e3 for r in report.rows], 0.4, label="ninefold", color="tab:blue")
    axis.set_yticks(places, [f"{r.name}: {r.what}" for r in report.rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel("ms per step")
    axis.set_title(f"{name}, {report.mode}: {report.before * 1e3:.0f} ms -> {report.after * 1e3:.0f} ms")
    axis.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    """Run the three acts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for the pictures")
    folder: Path = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    console.print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads; times are medians of interleaved runs")
    with Progress(console=console, transient=True) as progress:
        progress.console.print(act_one(folder, progress))
        progress.console.print(act_two(progress))
        *reports, mobile = act_three(folder, progress)
    for report in reports:
        console.rule(f"3. large_kernel_net, {report.mode}")
        console.print(report)
    console.rule("3. mobilenet_v1")
    console.print(mobile.summary())
    console.print(f"pictures: {', '.join(sorted(str(p) for p in folder.glob('*.png')))}")


if __name__ == "__main__":
    main()
