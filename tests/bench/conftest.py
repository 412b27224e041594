from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _bench(monkeypatch, clock):
    """The benchmarks, timed by the clock of tests."""
    if not (ROOT / "bench" / "case.py").exists():
        pytest.skip("the benchmarks are not part of this installation")
    from bench import timing

    monkeypatch.setattr(timing, "perf_counter", clock)
