"""Every named shape against PyTorch: ``python -m bench``, which ``make bench`` calls."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if __package__ in (None, ""):  # started as python bench/run.py: then this folder is on the path, and its parent is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import machine, report
from ninefold.testing.shapes import Shape, load_shapes

ROOT = Path(__file__).resolve().parent
MAPS = ("c", "h", "g", "fb")
_CORRECTNESS = "contract"  # tiny shapes that are there for the tests
_ELSEWHERE = {"depthwise-131x131-photograph": "PyTorch takes most of a minute there; see python -m bench.figures"}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--group", action="append", help="only this group (a file of bench/shapes); may be repeated")
    parser.add_argument("--name", action="append", help="only shapes whose name contains this; may be repeated")
    parser.add_argument("--map", action="append", choices=MAPS, help="only this map; may be repeated")
    parser.add_argument("--memory", action="append", choices=("cold", "kept"), help="only this kind of memory")
    parser.add_argument("--seconds", type=float, default=0.2, help="of timed runs per case, about (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a tenth of a second per case, first two shapes per group")
    parser.add_argument("--threads", type=int, default=0, help="default: PyTorch's own choice")
    parser.add_argument("--peers", action="store_true", help="add ONNX Runtime, OpenVINO, JAX, SciPy, OpenCV, forward only")
    parser.add_argument("--shapes", type=Path, default=ROOT / "shapes", help="a TOML file or a folder of them")
    parser.add_argument("--json", type=Path, help="where to write the records (default: bench/results/DATE.json)")
    return parser.parse_args(arguments)


def chosen(options: argparse.Namespace) -> tuple[list[Shape], list[str]]:
    """Return the shapes to run, and sentences on those that are left out."""
    shapes = [s for s in load_shapes(options.shapes) if s.batch and 0 not in s.size]
    if options.group:
        shapes = [s for s in shapes if s.group in options.group]
    else:
        shapes = [s for s in shapes if s.group != _CORRECTNESS or options.name]
    if options.name:
        return [s for s in shapes if any(part in s.name for part in options.name)], []
    left = [f"{s.name} is left out: {_ELSEWHERE[s.name]}" for s in shapes if s.name in _ELSEWHERE]
    shapes = [s for s in shapes if s.name not in _ELSEWHERE]
    if options.quick:
        groups: dict[str, list[Shape]] = {}
        for s in shapes:
            groups.setdefault(s.group, []).append(s)
        shapes = [s for members in groups.values() for s in members[:2]]
    return shapes, left


def records_of(options: argparse.Namespace, shapes: list[Shape], memory: str, cache: str) -> Iterator[report.Json]:
    """Run the shapes in a fresh process; yield what it writes, or an error where it dies."""
    command = [sys.executable, "-m", "bench.worker", "--shapes", str(options.shapes), "--memory", memory]
    command += ["--maps", ",".join(options.map or MAPS), "--threads", str(options.threads)]
    command += ["--seconds", str(min(options.seconds, 0.1) if options.quick else options.seconds)]
    command += ["--peers"] if options.peers else []
    environment = os.environ | {"NINEFOLD_CACHE": cache}
    with (
        tempfile.TemporaryFile("w+") as names,
        tempfile.TemporaryFile("w+") as complaints,
    ):
        names.write("".join(f"{s.name}\n" for s in shapes))
        names.seek(0)
        with subprocess.Popen(
            command, cwd=ROOT.parent, env=environment, stdin=names, stdout=subprocess.PIPE, stderr=complaints, text=True
        ) as worker:
            if worker.stdout is not None:
                yield from map(json.loads, worker.stdout)
        complaints.seek(0)
        if worker.returncode:
            last = complaints.read().strip().splitlines()[-8:]
            yield {"failed": f"the {memory} process ended with {worker.returncode}: " + " | ".join(last)}


def collect(options: argparse.Namespace, shapes: list[Shape], console: Console) -> tuple[list[report.Json], list[str]]:
    """Run everything behind a progress bar; return records and sentences. An interrupt keeps what there is."""
    memories = options.memory or ["cold", "kept"]
    records: list[report.Json] = []
    notes: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with contextlib.suppress(KeyboardInterrupt), Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("bench", total=len(shapes) * len(memories))
        for memory in memories:
            seen: set[str] = set()
            with tempfile.TemporaryDirectory() as cache:
                for record in records_of(options, shapes, memory, cache):
                    if "missing" in record:
                        notes += [s for s in record["missing"].values() if s not in notes]
                    elif "failed" in record:
                        notes.append(record["failed"])
                    else:
                        records.append(record)
                        if record["shape"] not in seen:
                            seen.add(record["shape"])
                            progress.update(task, advance=1, description=f"{memory} {record['shape']}")
    return records, notes


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write; return 1 where a case is an error."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run that is ended keeps its records, however it is ended
    console = Console(width=None if sys.stdout.isatty() else 200)
    facts = machine.describe() | ({"threads": options.threads} if options.threads else {})
    shapes, left = chosen(options)
    if not shapes:
        console.print("no shape has such a name or group; see bench/shapes")
        return 2
    console.print(machine.line(facts))
    records, notes = collect(options, shapes, console)
    found = report.show(console, records) if records else {}
    for sentence in left + notes:
        console.print(sentence, markup=False)
    target = options.json or ROOT / "results" / f"{str(facts['date']).replace(':', '-')}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"machine": facts, "figures": found, "notes": notes, "records": records}, indent=1))
    console.print(f"records: {target}")
    failed = any(r["errors"] for r in records) or any("process ended" in n for n in notes)
    return 1 if failed or not records else 0


if __name__ == "__main__":
    raise SystemExit(main())
