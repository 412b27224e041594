"""From records to tables, geometric means per group, and the lines that say which figures are reached."""

from collections.abc import Iterable
from math import exp, log
from typing import Any

from rich.console import Console
from rich.table import Table

Json = dict[str, Any]
_SHORT = {"contiguous": "nc", "channels_last": "cl"}
LEAST, PICK, GUESS = 0.95, 1.05, 1.5


def geometric(values: Iterable[float]) -> float:
    """Return the geometric mean, NaN of nothing.

    Examples
    --------
    >>> geometric([1.0, 4.0])
    2.0
    """
    logs = [log(v) for v in values]
    return exp(sum(logs) / len(logs)) if logs else float("nan")


def sound(records: list[Json]) -> list[Json]:
    """Return the records without errors."""
    return [r for r in records if not r["errors"]]


def pick_quality(record: Json, mode: str) -> float | None:
    """Return how many times the picked engine takes as long as the fastest one, or None where nothing was picked."""
    seconds = record["seconds"]
    if record["map"] == "fb" or record[mode] not in seconds:
        return None
    return seconds[record[mode]] / min(seconds.values())


def same_call(record: Json) -> bool:
    """Whether the pick is the very call of PyTorch that it is compared with, so that the ratio is 1 and the rest is noise."""
    plain = record["peer"] in ("convolution", "transposed")
    return plain and (record["measure"] == "aten" or (record["map"], record["measure"]) == ("h", "aten-backward"))


def figures(records: list[Json]) -> Json:
    """Return the counts behind the lines: cases, and how many of them reach what is asked for."""
    good = sound(records)
    compared = [r for r in good if r["ratio_measure"] is not None]
    picks = [q for r in good if (q := pick_quality(r, "measure")) is not None]
    guesses = [q for r in good if (q := pick_quality(r, "estimate")) is not None]
    return {
        "cases": len(records),
        "errors": sum(len(r["errors"]) for r in records),
        "compared": len(compared),
        "not_slower": sum(r["ratio_measure"][1] >= LEAST for r in compared),
        "not_slower_median": sum(r["ratio_measure"][0] >= LEAST for r in compared),
        "slower_same_call": sum(r["ratio_measure"][1] < LEAST and same_call(r) for r in compared),
        "picks": len(picks),
        "picks_close": sum(q <= PICK for q in picks),
        "guesses_close": sum(q <= GUESS for q in guesses),
        "geometric_mean_measure": geometric(r["ratio_measure"][0] for r in compared),
        "geometric_mean_estimate": geometric(r["ratio_estimate"][0] for r in compared),
    }


def lines(found: Json) -> list[str]:
    """Return the figures in words."""
    picks, guesses = (found[k] / max(1, found["picks"]) for k in ("picks_close", "guesses_close"))
    return [
        f"{found['cases']} cases, {found['errors']} errors",
        (
            f"measure: lower end of the interval >= {LEAST} in {found['not_slower']} of {found['compared']} cases "
            f"(median >= {LEAST} in {found['not_slower_median']}); target: all; of the {found['compared'] - found['not_slower']} "
            f"below, {found['slower_same_call']} are the same call of PyTorch's on both sides"
        ),
        f"measure: the pick is within 5% of the fastest engine in {picks:.1%}; target: 95%",
        f"estimate: the pick is within 1.5x of the fastest engine in {guesses:.1%}; target: 90%",
        (
            f"geometric mean over PyTorch in the format given: measure {found['geometric_mean_measure']:.2f}, "
            f"estimate {found['geometric_mean_estimate']:.2f}"
        ),
    ]


def _milliseconds(value: float | None, single: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value * 1e3:.3g}{'*' if single else ''}"


def _ratio(value: list[float] | None) -> str:
    if value is None:
        return "-"
    middle, low, high = value
    style = "red" if low < LEAST else "green" if low > 1.05 else "default"
    return f"[{style}]{middle:.2f}[/] [dim]{low:.2f}..{high:.2f}[/]"


def limit_shares(record: Json) -> tuple[float, float] | None:
    """Return what parts of the product's and of the copy's rate the measured pick reaches, or None without its time."""
    seconds = record["seconds"].get(record["measure"])
    if seconds is None or not record["limits"]:
        return None
    return record["limits"]["product"] / seconds, record["limits"]["copy"] / seconds


def _limits(record: Json) -> str:
    found = limit_shares(record)
    return "-" if found is None else " / ".join(f"{part:.0%}" for part in found)


def _engines(record: Json) -> str:
    """Return the engines' times, the fastest first; M marks the measured pick, E the estimated one."""
    parts = []
    for name, seconds in sorted(record["seconds"].items(), key=lambda item: item[1]):
        marks = ("M" if name == record["measure"] else "") + ("E" if name == record["estimate"] else "")
        parts.append(f"{name}{f'({marks})' if marks else ''} {_milliseconds(seconds, name in record['singles'])}")
    parts += [f"[cyan]{name} {_milliseconds(s, name in record['singles'])}[/]" for name, s in record["peers"].items()]
    return ", ".join(parts)


def table(group: str, memory: str, records: list[Json]) -> Table:
    """Return the table of a group under one kind of memory."""
    made = Table(title=f"{group}, {memory} memory", title_justify="left", show_lines=False, pad_edge=False)
    ratios = ("torch ms", "ratio measure", "ratio estimate", "other fmt")
    for heading in ("shape", "map", "fmt", *ratios, "of product / copy", "faults t/n"):
        made.add_column(heading, no_wrap=True, justify="left" if heading == "shape" else "right")
    made.add_column("engines, ms")
    for r in records:
        head = (r["shape"], r["map"], _SHORT[r["format"]])
        if r["errors"]:
            made.add_row(*head, "[bold red]ERROR[/]", "", "", "", "", f"[red]{'; '.join(r['errors'])}[/]")
            continue
        faults = r["faults"]
        fresh = f"{faults.get('torch', 0):.0f}/{faults.get(r['measure'], 0):.0f}"
        other = "-" if r["ratio_other"] is None else f"{r['ratio_other'][0]:.2f}"
        made.add_row(
            *head,
            _milliseconds(r["torch"], r["torch_single"]),
            _ratio(r["ratio_measure"]),
            _ratio(r["ratio_estimate"]),
            other,
            _limits(r),
            fresh,
            _engines(r),
        )
    return made


def _by_kind(title: str, records: list[Json]) -> tuple[Table, list[tuple[str, str]]]:
    """Return an empty table of groups with a column for each memory and map, and those."""
    made, kinds = Table(title=title, title_justify="left"), sorted({(r["memory"], r["map"]) for r in records})
    made.add_column("group")
    for memory, map_ in kinds:
        made.add_column(f"{map_} {memory}", justify="right")
    return made, kinds


def _means(records: list[Json]) -> Table:
    made, kinds = _by_kind("geometric means over PyTorch in the format given (measure / estimate)", records)
    for group in (*dict.fromkeys(r["group"] for r in records), "all"):
        cells = []
        for kind in kinds:
            here = [
                r
                for r in sound(records)
                if (r["memory"], r["map"]) == kind and group in (r["group"], "all") and r["ratio_measure"] is not None
            ]
            pair = (geometric(r[f"ratio_{mode}"][0] for r in here) for mode in ("measure", "estimate"))
            cells.append(" / ".join(f"{g:.2f}" for g in pair) if here else "-")
        made.add_row(group, *cells)
    return made


def _shares(records: list[Json]) -> Table:
    made, kinds = _by_kind("geometric means of the larger of both shares of the machine's limits", records)
    for group in dict.fromkeys(r["group"] for r in records):
        here = [r for r in sound(records) if r["group"] == group]
        parts = {k: [max(p) for r in here if (r["memory"], r["map"]) == k and (p := limit_shares(r))] for k in kinds}
        made.add_row(group, *(f"{geometric(parts[k]):.0%}" if parts[k] else "-" for k in kinds))
    return made


def show(console: Console, records: list[Json]) -> Json:
    """Print everything; return the figures, in all and by memory."""
    for group in dict.fromkeys(r["group"] for r in records):
        for memory in dict.fromkeys(r["memory"] for r in records):
            here = [r for r in records if (r["group"], r["memory"]) == (group, memory)]
            if here:
                console.print(table(group, memory, here))
    console.print(_means(records))
    console.print(_shares(records))
    console.print(
        "ratio: PyTorch's time over ninefold's, median of rounds with a 95% bootstrap interval; other fmt: over PyTorch in the "
        "other memory format, converted for free; of product / copy: the multiply-adds of the measured pick against one large "
        "product, its operands and result against a copy of as many bytes; faults: page faults per call, PyTorch/ninefold; "
        "* a single run, more than 20 times slower; M measured pick, E estimated pick; fb: forward and backward through a "
        "call site."
    )
    found = {memory: figures([r for r in records if r["memory"] == memory]) for memory in {r["memory"] for r in records}}
    for memory, here in sorted(found.items()):
        console.print(f"[bold]{memory} memory[/]")
        for sentence in lines(here):
            console.print("  " + sentence)
    return found
