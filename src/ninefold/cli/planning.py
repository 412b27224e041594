"""``ninefold plan``, ``ninefold calibrate`` and ``ninefold cache``: one convolution, and what is known of this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ninefold.cli.answers import answer
from ninefold.cli.options import Json, Scratch, Tolerance, tolerance_of
from ninefold.errors import ArgumentError

if TYPE_CHECKING:
    from ninefold.engines.machine import Machine
    from ninefold.planning.plan import Candidate, Plan

__all__ = ["cache_app", "calibrate", "plan"]

cache_app = typer.Typer(no_args_is_help=True, help="Look after the measured plans that are remembered.")


def plan(
    what: Annotated[str, typer.Argument(help="Like '1x128x56x56 -> 128 k=31 p=15 g=128'.")],
    map: Annotated[str, typer.Option(help="c (output), h (input's gradient) or g (kernel's gradient).")] = "c",  # noqa: A002
    dtype: Annotated[str, typer.Option(help="Such as float32.")] = "float32",
    measure: Annotated[bool, typer.Option("--measure", help="Time the candidates instead of estimating.")] = False,
    tolerance: Tolerance = "default",
    max_scratch: Scratch = None,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="Operands in channels-last memory.")] = False,
    as_json: Json = False,
) -> None:
    """Say which engine runs a convolution, what that costs, and why each other one lost or refused."""
    import torch

    from ninefold.planning.ask import plan as ask
    from ninefold.settings import options
    from ninefold.spec.text import from_description

    spec, batch, size = from_description(what)
    if map not in ("c", "h", "g"):
        raise ArgumentError(f"--map {map!r} is not c, h or g")
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ArgumentError(f"--dtype {dtype!r} is not a dtype of torch, such as float32 or bfloat16")
    with options(mode="measure" if measure else "estimate", tolerance=tolerance_of(tolerance), max_scratch=max_scratch):
        found = ask(spec, size, batch=batch, map=map, dtype=kind, channels_last=channels_last)  # type: ignore[arg-type]
    if as_json:
        answer(_told(found))
    else:
        typer.echo(str(found))


def _told(found: "Plan") -> dict[str, Any]:
    """Return a plan for programs: seconds, bytes, and errors on the scale of ``max|V| * ||K_o||_1``."""
    problem = found.problem
    return {
        "engine": found.engine,
        "source": found.source,
        "map": problem.map,
        "dtype": problem.dtype,
        "device": problem.device,
        "threads": problem.threads,
        "channels_last": problem.channels_last,
        "input": problem.form.input_shape(problem.batch),
        "output": problem.form.output_shape(problem.batch),
        "multiply_adds": problem.macs,
        "bytes": problem.bytes,
        "engines": [_standing(one) for one in found.candidates],
    }


def _standing(one: "Candidate") -> dict[str, Any]:
    if one.reason is not None:
        return {"engine": one.engine, "refuses": one.reason}
    error = {"estimate": one.error.estimate, "bound": one.error.bound}
    return {"engine": one.engine, "estimated": one.cost, "measured": one.measured, "scratch": one.scratch, "error": error}


def calibrate(
    threads: Annotated[
        list[int] | None, typer.Option(help="Measure with so many; may be repeated. Default: 1, 2, 4, ...")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what this machine does per second (about a second per number of threads); estimates are made from that."""
    from rich.console import Console

    from ninefold.planning.ask import calibrate as run
    from ninefold.planning.cache import plan_cache

    with Console(stderr=True).status("measuring"):
        found = run(threads or None)
    if as_json:
        answer({"path": plan_cache().path, "rates": found})
    else:
        Console().print(_rates(found, f"measured, and kept in {plan_cache().path}"))


@cache_app.command("show")
def cache_show(as_json: Json = False) -> None:
    """List the measured plans, most recently used first, and the rates of this machine."""
    from rich.console import Console
    from rich.table import Table

    from ninefold.planning.cache import plan_cache

    cache = plan_cache()
    rows, known = cache.rows(), cache.rates()
    if as_json:
        plans = [{name: row[name] for name in ("engine", "seconds", "problem")} for row in rows]
        answer({"path": cache.path, "plans": plans, "rates": known or {}})
        return
    table = Table("engine", "seconds by engine", "problem", title=f"{len(rows)} plans in {cache.path}", title_justify="left")
    for row in rows:
        seconds = ", ".join(f"{name} {value:.2e}" for name, value in sorted(row["seconds"].items(), key=lambda item: item[1]))
        table.add_row(row["engine"], seconds, row["problem"])
    Console().print(table)
    Console().print(_rates(known, "rates of this machine") if known else "no rates of this machine: 'ninefold calibrate'")


@cache_app.command("clear")
def cache_clear(as_json: Json = False) -> None:
    """Forget all plans and rates; a damaged file is removed."""
    from ninefold.planning.cache import plan_cache

    cache = plan_cache()
    count = cache.clear()
    if as_json:
        answer({"path": cache.path, "forgotten": count})
    else:
        typer.echo(f"{count} plans forgotten; {cache.path} is gone")


@cache_app.command("export")
def cache_export(path: Annotated[Path, typer.Argument(help="The file to write.")], as_json: Json = False) -> None:
    """Write this machine's plans to a file that nf.load_plans reads."""
    from ninefold.planning.ask import export_plans

    count = export_plans(path)
    if as_json:
        answer({"path": path, "written": count})
    else:
        typer.echo(f"{count} plans written to {path}")


def _rates(found: "dict[int, Machine]", title: str) -> Any:
    from rich.table import Table

    units = ("G multiply-adds/s", "GB/s copied", "G elements x log2(length)/s transformed", "us a call")
    table = Table("threads", *units, title=title, title_justify="left")
    for threads, rates in sorted(found.items()):
        numbers = (rates.product / 1e9, rates.stream / 1e9, rates.transform / 1e9, rates.call * 1e6)
        table.add_row(str(threads), *(f"{number:.3g}" for number in numbers))
    return table
