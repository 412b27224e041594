"""Results of the long experiments, kept with the numbers, the time they took and the machine."""

import json
import os
import platform
import tempfile  # noqa: F401  for the examples
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ninefold.chapter.entry import Entry, Finding
from ninefold.errors import ArgumentError
from ninefold.storing import write_whole

__all__ = ["RECORDED", "Record", "keep", "load", "machine"]

RECORDED = Path(__file__).with_name("recorded.json")


@dataclass(frozen=True)
class Record:
    """A finding, how long it took, when, and where.

    Examples
    --------
    >>> record = Record("2 of 2", True, {"agree": 2}, seconds=0.1, date="2020-01-31", machine="a CPU, 2 cores")
    >>> record.finding.holds
    True
    """

    measured: str
    holds: bool
    numbers: dict[str, Any]
    seconds: float
    date: str
    machine: str

    @classmethod
    def of(cls, entry: Entry, *, trial: bool = False) -> "Record":
        """Run an entry, a long one in its smallest version for a trial, and return what it gave."""
        start = time.perf_counter()
        found = entry.run(trial=trial) if entry.long else entry.run()
        seconds = round(time.perf_counter() - start, 1)
        return cls(found.measured, found.holds, found.numbers, seconds, date.today().isoformat(), machine())

    @property
    def finding(self) -> Finding:
        """What the entry gave."""
        return Finding(self.measured, self.holds, self.numbers)


def machine() -> str:
    """Return the model of the processor and how many of its cores this process may use.

    Examples
    --------
    >>> machine().endswith(("core", "cores"))
    True
    """
    model = platform.processor() or platform.machine()
    told = Path("/proc/cpuinfo")
    if told.is_file():
        names = [line.partition(":")[2].strip() for line in told.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{model}, {cores} core{'s' if cores > 1 else ''}"


def load(path: Path = RECORDED) -> dict[str, Record]:
    """Return what was recorded, by the key of the entry; nothing where there is no file.

    Raises
    ------
    ArgumentError
        If the file is not a table of records.

    Examples
    --------
    >>> load(Path("no such file"))
    {}
    """
    if not path.is_file():
        return {}
    try:
        found = {key: Record(**fields) for key, fields in json.loads(path.read_text("utf-8")).items()}
    except (TypeError, AttributeError, ValueError, OSError) as error:
        raise ArgumentError(f"{path} holds no records ({error}); run the long entries anew") from error
    for key, record in found.items():
        for field, kind in (("measured", str), ("holds", bool), ("numbers", dict), ("seconds", int | float)):
            if not isinstance(given := getattr(record, field), kind):
                raise ArgumentError(f"{path} holds no records ({field}={given!r} of {key!r}); run the long entries anew")
    return found


def keep(key: str, record: Record, path: Path = RECORDED) -> None:
    """Write a record beside the others, whole or not at all.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keep("0.0", Record("1 of 1", True, {"n": 1}, 0.1, "2020-01-31", "a CPU, 2 cores"), Path(folder, "r.json"))
    ...     list(load(Path(folder, "r.json")))
    ['0.0']
    """
    records = {**load(path), key: record}
    text = json.dumps({key: asdict(records[key]) for key in sorted(records)}, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, (text + "\n").encode())
