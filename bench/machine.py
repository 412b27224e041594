"""What a measurement was made on: machine, versions, threads, date. Goes into every file and under every table."""

import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = ("ninefold", "torch", "numpy", "scipy", "onnxruntime", "openvino", "jax", "opencv-python-headless")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _load() -> float | None:
    try:
        return float(Path("/proc/loadavg").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return None


@contextmanager
def own_cache() -> Iterator[None]:
    """Plan within the block from nothing: no plan that an earlier run remembered is used, and none is left behind."""
    before = os.environ.get("NINEFOLD_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NINEFOLD_CACHE"] = folder
        try:
            yield
        finally:
            if before is None:
                os.environ.pop("NINEFOLD_CACHE")
            else:
                os.environ["NINEFOLD_CACHE"] = before


def describe() -> dict[str, object]:
    """Return the facts as plain data."""
    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {p: v for p in _PACKAGES if (v := _version(p)) is not None},
        "date": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "load_before": _load(),
    }


def line(facts: dict[str, object]) -> str:
    """Return the facts that matter in one line."""
    versions = facts["versions"]
    shown = f"torch {versions['torch']}" if isinstance(versions, dict) else ""
    return f"{facts['processor']}, {facts['instructions']}, {facts['threads']} threads, {shown}, {facts['date']}"
