"""Engines forced at small sizes, and the matrix transform x route x kind printed at the end of a run."""

from dataclasses import replace

import pytest
import torch

from ninefold import functional
from ninefold.ops import bound
from ninefold.planning.choose import choose

_MATRIX: dict[tuple[str, str], dict[str, str]] = {}


@pytest.fixture(autouse=True)
def _one_thread():
    """Small problems on one thread: a parallel region that waits for a busy core costs more than the problem."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def prefer(monkeypatch):
    """Return a function that makes an engine the choice wherever it does not refuse, whatever the size."""

    def forget():
        bound.bound_for.cache_clear()
        functional._site.cache_clear()

    def set_engine(name):
        def plan(problem, mode="estimate", weight=None):
            found = choose(problem)
            admitted = any(c.engine == name and c.reason is None for c in found.candidates)
            return replace(found, engine=name) if admitted else found

        monkeypatch.setattr(bound, "plan_problem", plan)
        forget()

    yield set_engine
    forget()


@pytest.fixture
def record():
    """Return a function that notes one cell: transform, route, kind, how it ended."""

    def note(transform, route, kind, text):
        _MATRIX.setdefault((transform, route), {})[kind] = text

    return note


def pytest_terminal_summary(terminalreporter):
    if not _MATRIX:
        return
    kinds = list(dict.fromkeys(kind for row in _MATRIX.values() for kind in row))
    routes = list(dict.fromkeys(route for _, route in _MATRIX))
    transforms = list(dict.fromkeys(transform for transform, _ in _MATRIX))
    write = terminalreporter.write_line
    terminalreporter.section("transform x route, one letter per kind of engine")
    write("kinds: " + ", ".join(kinds) + "; o agrees with PyTorch, r refused in words, t refused by PyTorch, x wrong, . not run")
    write(f"{'':<22}" + "".join(f"{route:<{len(kinds) + 3}}" for route in routes))
    for transform in transforms:
        cells = ("".join(_MATRIX.get((transform, route), {}).get(kind, ".") for kind in kinds) for route in routes)
        write(f"{transform:<22}" + "".join(f"{cell:<{max(len(kinds), len(route)) + 3}}" for cell, route in zip(cells, routes, strict=True)))
