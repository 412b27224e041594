"""What was measured is remembered: in SQLite in the user's cache folder, and in files one can export and load.

Nothing here can change a result: a plan only names an engine, and an engine that now refuses is not run. Therefore any
failure of the disk costs one warning and the memory of this process goes on alone.
"""

import contextlib
import hashlib
import json
import os
import platform
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import astuple, fields
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from ninefold.engines import ENGINES
from ninefold.engines.machine import Machine
from ninefold.errors import CacheWarning, PlanFileError
from ninefold.planning.rates import unlikely
from ninefold.rewrites import REWRITES, engine_names
from ninefold.spec.problem import Problem
from ninefold.storing import user_cache_folder, write_whole

__all__ = ["PlanCache", "cache_folder", "fingerprint", "plan_cache"]

_T = TypeVar("_T")

LIMIT = 20_000
PATIENCE = 5.0  # seconds to wait for other processes that use the file; on a busy machine they may need some
_FORMAT = "ninefold-plans-1"
_PLANS = "CREATE TABLE IF NOT EXISTS plans (key TEXT PRIMARY KEY, engine TEXT, seconds TEXT, problem TEXT, used REAL)"
_NOTES = "CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, value TEXT, used REAL)"
_RATES = """CREATE TABLE IF NOT EXISTS rates (machine TEXT, threads INTEGER, product REAL, stream REAL, transform REAL, call REAL,
measured REAL, PRIMARY KEY (machine, threads))"""
_CALIBRATION = 1  # of how rates are measured: a change makes them be measured anew


def cache_folder() -> Path:
    """Return the folder of the cache: ``NINEFOLD_CACHE``, or the user's cache folder."""
    return Path(os.environ.get("NINEFOLD_CACHE") or user_cache_folder())


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Return what, beside the problem, a measurement depends on: machine, instruction set, versions, engine revisions."""
    engines = [*(f"{e.name}{e.revision}" for e in ENGINES), *(f"{r.name}{r.revision}" for r in REWRITES)]
    return f"{_machine()}|{','.join(engines)}"


def _engines() -> str:
    return f"{', '.join(e.name for e in ENGINES)}, as they are and after {', '.join(r.name for r in REWRITES)}"


@lru_cache(maxsize=1)
def _machine() -> str:
    return f"{_processor()}|{torch.backends.cpu.get_cpu_capability()}|torch {torch.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


class PlanCache:
    """Measured choices by problem, and the machine's rates by number of threads, on disk; safe under concurrent processes.

    Choices are bounded, least recently used out first. `calibrating` and `tried` belong to who measures rates.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loaded: dict[str, str] = {}
        self.calibrating = threading.Lock()
        self.tried: set[int] = set()
        self._loaded_rates: dict[int, Machine] = {}
        self._rates: dict[int, Machine] | None = None
        self._memory: dict[str, tuple[str, dict[str, float]]] = {}
        self._notes: dict[str, str] = {}
        self._lock = threading.Lock()
        self._broken = False

    def get(self, problem: Problem) -> tuple[str, dict[str, float], str] | None:
        """Return (engine, seconds by engine, where it was found) of a measured problem, or None."""
        if problem.key in self.loaded:
            return self.loaded[problem.key], {}, "file"
        if (known := self._memory.get(problem.key)) is not None:
            return *known, "cache"
        key = self._key(problem)

        def find(db: sqlite3.Connection) -> tuple[str, str] | None:
            if not _has(db, "plans"):
                return None
            row: tuple[str, str] | None = db.execute("SELECT engine, seconds FROM plans WHERE key = ?", (key,)).fetchone()
            if row is not None and os.access(self.path, os.W_OK):
                db.execute("UPDATE plans SET used = ? WHERE key = ?", (time.time(), key))
            return row

        row = self._transact(find, None) if self.path.exists() else None
        if row is None:
            return None
        self._remember(problem, row[0], json.loads(row[1]))
        return *self._memory[problem.key], "cache"

    def put(self, problem: Problem, engine: str, seconds: dict[str, float]) -> None:
        """Remember a measurement."""
        self._remember(problem, engine, seconds)
        row = (self._key(problem), engine, json.dumps(seconds), repr(problem), time.time())

        def insert(db: sqlite3.Connection) -> None:
            _make_tables(db)
            db.execute("INSERT OR REPLACE INTO plans VALUES (?, ?, ?, ?, ?)", row)
            db.execute("DELETE FROM plans WHERE key IN (SELECT key FROM plans ORDER BY used DESC LIMIT -1 OFFSET ?)", (LIMIT,))

        self._transact(insert, None)

    def recall(self, key: str) -> str | None:
        """Return what `remember` was told under a key on this machine, or None."""

        def find(db: sqlite3.Connection) -> str | None:
            sql = "SELECT value FROM notes WHERE key = ?"
            row = db.execute(sql, (self._here(key),)).fetchone() if _has(db, "notes") else None
            return None if row is None else str(row[0])

        return self._notes.get(key) or (self._transact(find, None) if self.path.exists() else None)

    def remember(self, key: str, value: str) -> None:
        """Remember a line of text under a key; bounded as plans are, oldest out first."""
        self._notes[key] = value

        def insert(db: sqlite3.Connection) -> None:
            _make_tables(db)
            db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", (self._here(key), value, time.time()))
            db.execute("DELETE FROM notes WHERE key IN (SELECT key FROM notes ORDER BY used DESC LIMIT -1 OFFSET ?)", (LIMIT,))

        self._transact(insert, None)

    def _here(self, key: str) -> str:
        return f"{key}@{fingerprint()}"

    def rates(self) -> dict[int, Machine]:
        """Return what this machine was measured to do, by number of threads: read once, and the same for the whole process.

        Another process may calibrate meanwhile. What is planned here stays as it was: not wrong, only older.
        """
        if self._rates is None:
            self._rates = self._transact(_stored_rates, _no_rates()) if self.path.exists() else {}
        return self._rates | self._loaded_rates

    def put_rates(self, found: dict[int, Machine], *, keep: bool = False) -> None:
        """Remember rates; `keep` those that another process may have stored meanwhile."""
        values = [(_rates_key(), threads, *astuple(machine), time.time()) for threads, machine in found.items()]

        def insert(db: sqlite3.Connection) -> dict[int, Machine]:
            _make_tables(db)
            verb = "IGNORE" if keep else "REPLACE"
            db.executemany(f"INSERT OR {verb} INTO rates VALUES (?, ?, ?, ?, ?, ?, ?)", values)  # noqa: S608  constants
            return _stored_rates(db)

        known = self.rates()
        self._rates = known | found | self._transact(insert, _no_rates())

    def stamp(self) -> str:
        """Return what changes whenever a plan may: for caches of compiled graphs, which hold what was planned while tracing.

        Estimates depend on the rates, so these belong to it: those that this process plans by, not those on disk.
        """

        def last(db: sqlite3.Connection) -> tuple[int | None, int]:
            if not _has(db, "plans"):
                return None, 0
            row: tuple[int | None, int] = db.execute("SELECT max(rowid), count(*) FROM plans").fetchone()
            return row

        stored = self._transact(last, None) if self.path.exists() else None
        unsaved = sorted(self._memory) if self._broken else None
        rates = sorted((threads, astuple(machine)) for threads, machine in self.rates().items())
        known = repr((version("ninefold"), fingerprint(), stored or (None, 0), unsaved, sorted(self.loaded.items()), rates))
        return hashlib.sha256(known.encode()).hexdigest()[:16]

    def rows(self) -> list[dict[str, Any]]:
        """Return what is on disk, most recent first."""
        columns = ("key", "engine", "seconds", "problem", "used")

        def select(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
            if not _has(db, "plans"):
                return []
            return db.execute(f"SELECT {', '.join(columns)} FROM plans ORDER BY used DESC").fetchall()  # noqa: S608  constants

        nothing: list[tuple[Any, ...]] = []
        found = self._transact(select, nothing) if self.path.exists() else nothing
        return [dict(zip(columns, row, strict=True)) | {"seconds": json.loads(row[2])} for row in found]

    def clear(self) -> int:
        """Forget everything, rates and disk too (a damaged file is removed); return how many plans that were."""
        count = len(self.rows())
        self._memory.clear()
        self._notes.clear()
        self.loaded.clear()
        self._loaded_rates.clear()
        self._rates = None
        self.tried.clear()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self._broken = False
        return count

    def export(self, path: Path) -> int:
        """Write the plans and rates of this machine to a file, whole or not at all; return how many plans."""
        mark = "@" + fingerprint()
        plans = {r["key"].removesuffix(mark): r["engine"] for r in self.rows() if r["key"].endswith(mark)}
        plans |= {key: engine for key, (engine, _) in self._memory.items()}
        rates = {str(threads): astuple(machine) for threads, machine in self.rates().items()}
        content = json.dumps({"format": _FORMAT, "plans": plans, "rates": rates}, indent=1)
        write_whole(path, content.encode(), PlanFileError)
        return len(plans)

    def load(self, path: Path) -> int:
        """Prefer the plans and rates of an exported file to all others; return how many plans."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PlanFileError(f"cannot read plans from {path}: {error}") from error
        names = engine_names()
        if not isinstance(data, dict) or data.get("format") != _FORMAT or not isinstance(data.get("plans"), dict):
            raise PlanFileError(f"{path} is no plan file; 'ninefold cache export' writes one")
        if unknown := sorted({str(e) for e in data["plans"].values()} - names):
            raise PlanFileError(f"{path} names engines {unknown} that this version does not have; it has {_engines()}")
        try:
            rates = {int(threads): _machine_of(values) for threads, values in data.get("rates", {}).items()}
        except (TypeError, ValueError, AttributeError) as error:
            raise PlanFileError(f"{path} has rates that are no numbers: {error}") from error
        if wrong := next((reason for threads, machine in rates.items() if (reason := unlikely(machine, threads))), None):
            raise PlanFileError(f"{path} has rates that no machine has: {wrong}")
        self.loaded |= data["plans"]
        self._loaded_rates |= rates
        return len(data["plans"])

    def _key(self, problem: Problem) -> str:
        return self._here(problem.key)

    def _remember(self, problem: Problem, engine: str, seconds: dict[str, float]) -> None:
        with self._lock:
            if len(self._memory) >= LIMIT:
                self._memory.pop(next(iter(self._memory)))
            self._memory[problem.key] = engine, seconds

    def _transact(self, work: Callable[[sqlite3.Connection], _T], otherwise: _T) -> _T:
        """Do some work in one transaction; where the file cannot be used, warn once and go on without it."""
        if self._broken:
            return otherwise
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self.path, timeout=PATIENCE)) as db, db:
                return work(db)
        except (sqlite3.Error, OSError) as error:
            self._broken = True
            advice = "'ninefold cache clear' starts it anew, NINEFOLD_CACHE names another folder"
            warnings.warn(
                f"the plan cache {self.path} cannot be used ({error}); plans are kept in memory. {advice}",
                CacheWarning,
                stacklevel=2,
            )
            return otherwise


def _make_tables(db: sqlite3.Connection) -> None:
    db.execute(_PLANS)
    db.execute(_NOTES)
    db.execute(_RATES)


def _has(db: sqlite3.Connection, table: str) -> bool:
    """Whether a table is there: a file may be older than it, or another process is just making it."""
    return bool(db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone())


def _no_rates() -> dict[int, Machine]:
    return {}


def _machine_of(values: list[Any]) -> Machine:
    if len(values) != len(fields(Machine)):
        raise ValueError(f"{values} must be {len(fields(Machine))} rates")
    return Machine(*map(float, values))


def _rates_key() -> str:
    return f"{_machine()}|{_CALIBRATION}"


def _stored_rates(db: sqlite3.Connection) -> dict[int, Machine]:
    if not _has(db, "rates"):
        return {}
    rows = db.execute("SELECT threads, product, stream, transform, call FROM rates WHERE machine = ?", (_rates_key(),))
    found = {int(threads): Machine(*values) for threads, *values in rows}
    return {threads: machine for threads, machine in found.items() if unlikely(machine, threads) is None}


@lru_cache(maxsize=8)
def _cache_at(path: Path) -> PlanCache:
    return PlanCache(path)


def plan_cache() -> PlanCache:
    """Return the cache of this process' folder."""
    return _cache_at(cache_folder() / "plans.sqlite")
