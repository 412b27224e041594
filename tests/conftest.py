"""For every test: a plan cache of its own, ``gpu`` tests only where there is one, and the contract's counts at the end."""

import os
import shutil
import tempfile
from collections import Counter

import pytest

_CACHE = tempfile.mkdtemp(prefix="ninefold-test-")
os.environ["NINEFOLD_CACHE"] = _CACHE  # before anything of ninefold is imported

COUNTS = pytest.StashKey[Counter]()
RATIOS = pytest.StashKey[dict]()
MAPS = ("c", "h", "g")


def pytest_configure(config):
    config.stash[COUNTS] = Counter()
    config.stash[RATIOS] = {}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Add what a process that shared the tests counted."""
    output = getattr(node, "workeroutput", {})
    counts, ratios = node.config.stash[COUNTS], node.config.stash[RATIOS]
    counts.update({tuple(key): n for key, n in output.get("counts", ())})
    for key, ratio in output.get("ratios", ()):
        ratios[tuple(key)] = max(ratio, ratios.get(tuple(key), 0.0))


def pytest_sessionfinish(session):
    """Hand over what was counted here, if this is such a process."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["counts"] = list(session.config.stash[COUNTS].items())
        output["ratios"] = list(session.config.stash[RATIOS].items())


def pytest_unconfigure():
    shutil.rmtree(_CACHE, ignore_errors=True)


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="torch.cuda.is_available() is False: there is no accelerator"))


@pytest.fixture
def without_native(monkeypatch):
    """Take the native kernels away: for tests of what happens around an engine, whichever wins on this machine."""
    from ninefold.engines import native
    from ninefold.ops.bound import BOUNDS

    monkeypatch.setattr(native, "_module", None)
    monkeypatch.setattr(native, "_missing", "No module named 'ninefold._native'")
    native.instruction_set.cache_clear()
    BOUNDS.clear()
    yield
    monkeypatch.undo()
    native.instruction_set.cache_clear()
    BOUNDS.clear()


@pytest.fixture
def contract_counts(request):
    """Counter of (engine, map, "run" | "refused" | "runs"), printed at the end."""
    return request.config.stash[COUNTS]


@pytest.fixture
def error_ratios(request):
    """Largest error against the estimate by (engine, dtype), printed at the end."""
    return request.config.stash[RATIOS]


def pytest_terminal_summary(terminalreporter, config):
    counts, ratios = config.stash[COUNTS], config.stash[RATIOS]
    if not counts:
        return
    terminalreporter.section("contract: engine x map x shape")
    engines = list(dict.fromkeys(engine for engine, _, _ in counts))
    terminalreporter.write_line(f"{'engine':<14}{'map':<5}{'shapes run':>11}{'refused':>9}{'runs compared':>15}")
    for engine in engines:
        for map_ in MAPS:
            run, refused, runs = (counts[engine, map_, what] for what in ("run", "refused", "runs"))
            terminalreporter.write_line(f"{engine:<14}{map_:<5}{run:>11}{refused:>9}{runs:>15}")
    total = {what: sum(n for (_, _, kind), n in counts.items() if kind == what) for what in ("run", "refused", "runs")}
    terminalreporter.write_line(f"{'all':<19}{total['run']:>11}{total['refused']:>9}{total['runs']:>15}")
    if ratios:
        terminalreporter.write_line("largest error against the engine's estimate, by dtype:")
        for engine in engines:
            found = {dtype: ratio for (name, dtype), ratio in ratios.items() if name == engine}
            line = ", ".join(f"{dtype} {ratio:.2f}" for dtype, ratio in sorted(found.items()))
            terminalreporter.write_line(f"    {engine:<14}{line}")
