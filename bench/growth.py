"""``python -m bench.growth``: how a layer's time grows with channels, image, kernel and batch, and shrinks with a second thread.

Each family starts from one layer, and one number is changed at a time. Beside the time of the measured pick stand the parts of
two limits that it reaches, timed in the same rounds: multiply-adds against one large matrix product (over 100% where an algorithm
needs fewer than the definition), and bytes of operands and result against a copy of as many. Shortest runs are compared.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.limits import copying, product_of
from bench.timing import interleave
from ninefold.memory import retain_memory
from ninefold.ops import PlannedCall
from ninefold.settings import Options
from ninefold.spec import ConvSpec
from ninefold.spec.problem import Map


@dataclass(frozen=True)
class Layer:
    """A 2-D layer padded by half its kernel; `each` is the input channels per group, 0 for all of them."""

    outputs: int
    inputs: int
    each: int = 0
    size: int = 56
    kernel: int = 3
    batch: int = 4
    stride: int = 1
    unshared: bool = False

    @property
    def spec(self) -> ConvSpec:
        """What it computes."""
        groups = self.inputs // self.each if self.each else 1
        period = None if self.unshared else 1
        kernel = (self.kernel,) * 2
        return ConvSpec(self.inputs, self.outputs, kernel, self.stride, self.kernel // 2, groups=groups, period=period)

    def grown(self, what: str, times: int) -> "Layer":
        """Return the layer with one number so many times as large; channels grow on both sides, three of an image do not."""
        if what != "channels":
            return replace(self, **{what: self.kernel + 2 * (times - 1) if what == "kernel" else getattr(self, what) * times})
        return replace(self, outputs=self.outputs * times, inputs=self.inputs * (1 if self.inputs == 3 else times))


FAMILIES = {
    "depthwise": Layer(64, 64, each=1),
    "dense": Layer(32, 32),
    "pointwise": Layer(64, 64, kernel=1),
    "strided": Layer(64, 64, stride=2),
    "grouped": Layer(64, 64, each=4),
    "image": Layer(32, 3),
    "unshared": Layer(8, 8, size=28, unshared=True),
}
CHANGES = ("channels", "size", "kernel", "batch")


def points(layer: Layer) -> Iterator[tuple[str, Layer]]:
    """Yield the layer itself, then it changed, with words for the change."""
    words = f", stride {layer.stride}" if layer.stride > 1 else ""
    yield f"{layer.inputs}->{layer.outputs}, {layer.size}, {layer.kernel}x{layer.kernel}{words}, batch {layer.batch}", layer
    for what in CHANGES:
        for times in (2, 4):
            grown = layer.grown(what, times)
            value = f"{grown.inputs}->{grown.outputs}" if what == "channels" else getattr(grown, what)
            yield f"{what} {value}", grown


def timed(layer: Layer, map_: Map, last: bool, seconds: float) -> tuple[str, float, float, float]:
    """Return the engine, its seconds, and the parts of the product's and of the copy's rate."""
    form = layer.spec.form((layer.size,) * 2)
    fmt = torch.channels_last if last else torch.contiguous_format
    V, G = (torch.randn(s).contiguous(memory_format=fmt) for s in (form.input_shape(layer.batch), form.output_shape(layer.batch)))
    K = torch.randn(form.weight_shape)
    bound = PlannedCall(layer.spec, Options(mode="measure")).bind(V, K)
    runner, problem = bound.runner(map_), bound.problem(map_)
    a, b = {"c": (K, V), "h": (K, G), "g": (V, G)}[map_]
    product, macs = product_of()
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: runner(a, b, None),
        "copy": copying(problem.bytes),
        "product": product,
    }
    with torch.no_grad():
        times = interleave(runs, seconds, pairs=runs)
    ours = times["ours"].least
    return bound.plan(map_).engine, ours, times["product"].least * problem.macs / macs / ours, times["copy"].least / ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.1, help="per layer and number of threads (default: %(default)s)")
    parser.add_argument("--family", action="append", choices=FAMILIES)
    parser.add_argument("--map", choices=("c", "h", "g"), default="c")
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()
    most = torch.get_num_threads()
    console = Console(width=130)
    retain_memory()
    with machine.own_cache():
        for family in options.family or FAMILIES:
            columns = (
                "layer",
                "engine",
                "ms, 1 thread",
                f"ms, {most} threads",
                "scaling",
                "of the product",
                "of the copy",
                "of the larger",
            )
            table = Table(*columns, title=family)
            for words, layer in points(FAMILIES[family]):
                torch.set_num_threads(1)
                _, one, *_ = timed(layer, options.map, options.channels_last, options.seconds)
                torch.set_num_threads(most)
                engine, ours, products, copied = timed(layer, options.map, options.channels_last, options.seconds)
                parts = (f"{products:.0%}", f"{copied:.0%}", f"{max(products, copied):.0%}")
                table.add_row(words, engine, f"{one * 1e3:.3f}", f"{ours * 1e3:.3f}", f"{one / ours:.2f}", *parts)
            console.print(table)
    console.print(machine.line(machine.describe()))


if __name__ == "__main__":
    main()
