"""``python -m bench.floors``: unshared and tiled layers against what the machine allows at least.

The floor of a map is the larger of two times measured in the same rounds: copying as many bytes as operands and result have, and
as many multiply-adds in one matrix product. At batch 1 memory decides, for every weight is used once. Shortest runs are compared:
what else a machine does only adds.
"""

import argparse
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.case import operands
from bench.limits import copying, product_of
from bench.timing import interleave
from ninefold.memory import retain_memory
from ninefold.ops import PlannedCall
from ninefold.settings import Options
from ninefold.testing.shapes import load_shapes

SHAPES = Path(__file__).parent / "shapes"
_GROUP = "unshared-tiled"
_LIMITS = {1: 2.0, 16: 4.0}  # times the floor that are asked for, by batch


def _rows(batch: int, seconds: float) -> list[tuple[str, ...]]:
    product, macs = product_of()
    rows = []
    for shape in (replace(s, batch=batch) for s in load_shapes(SHAPES) if s.group == _GROUP):
        given, form = operands(shape), shape.form
        bound = PlannedCall(shape.spec, Options(mode="measure")).bind(given.V, given.K)
        moved = 4 * (prod(form.weight_shape) + batch * (prod(form.input_shape(1)) + prod(form.output_shape(1))))
        for map_ in ("c", "h", "g"):
            x, y = given.of(map_)
            runner = bound.runner(map_)
            runs = {
                "ours": lambda r=runner, x=x, y=y: r(x, y, None),
                "copy": copying(moved),
                "product": product,
            }
            with torch.no_grad():
                times = interleave(runs, seconds, pairs=runs)
            products, memory = times["product"].least * form.macs * batch / macs, times["copy"].least
            floor, ours = max(products, memory), times["ours"].least
            rows.append(
                (
                    shape.name,
                    map_,
                    bound.plan(map_).engine,
                    f"{ours * 1e3:.2f}",
                    f"{floor * 1e3:.2f}",
                    "memory" if memory >= products else "products",
                    f"{ours / floor:.1f}",
                    "" if ours <= _LIMITS[batch] * floor else "missed",
                )
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(width=130)
    retain_memory()
    with machine.own_cache():
        for batch in _LIMITS:
            table = Table("layer", "map", "engine", "ms", "floor ms", "set by", "times floor", "", title=f"batch {batch}")
            for row in _rows(batch, options.seconds):
                table.add_row(*row)
            console.print(table)
    console.print(machine.line(machine.describe()))


if __name__ == "__main__":
    main()
