"""What planning costs does not depend on how long an axis is, and what is kept of many lengths stays under a budget of bytes."""

import sys
import tracemalloc

import pytest
import torch

from ninefold.engines import ENGINES
from ninefold.engines.final import Final
from ninefold.planning.choose import choose
from ninefold.spec import ConvSpec
from ninefold.spec.padding import MODES
from ninefold.spec.problem import Problem

FORMS = {
    "strided": (ConvSpec(1, 3, (10,), stride=5), (4_001,)),
    "dense": (ConvSpec(6, 5, (3,), padding=1), (4_001,)),
    "depthwise": (ConvSpec(5, 5, (40,), groups=5, padding=20), (4_001,)),
    "dilated": (ConvSpec(4, 6, (5,), dilation=3, stride=2, padding="causal", groups=2), (4_001,)),
    "tiled": (ConvSpec(2, 3, (4,), period=3), (4_001,)),
    "tiled by many": (ConvSpec(2, 3, (4,), period=70), (4_001,)),
    "unshared": (ConvSpec(2, 3, (4,), period=None, padding=2), (4_001,)),
    "table": (ConvSpec(3, 4, (4,), table=((0, 0), (1, 0), (1, 2), (3, 1))), (1_000_001,)),
    "1x1": (ConvSpec(6, 5, (1, 1)), (720, 840)),
    "two axes": (ConvSpec(3, 4, (5, 3), stride=(2, 1), padding=((2, 1), (0, 3))), (720, 840)),
    "separable": (ConvSpec(3, 3, (15, 13), groups=3, padding=7), (1200, 1400)),
    "three axes": (ConvSpec(2, 4, (3, 2, 3), padding=1), (300, 310, 320)),
    **{f"{mode} border": (ConvSpec(3, 4, (5, 3), padding=2, padding_mode=mode), (720, 840)) for mode in MODES if mode != "zeros"},
}
"""Sizes are past those from which tiles, blocks and threads are what they are for every larger one."""
TIMES = 64
LINES, BYTES = 1.1, 65_536  # what longer axes may cost more: numbers with more digits, a few more tiles to choose from


def problems(name, times, frozen):
    spec, size = FORMS[name]
    form = spec.form(tuple(times * n + k for k, n in enumerate(size)))
    for map_ in "ch" if frozen else "chg":
        rank = 1 if frozen and name == "separable" else None
        for last in (False, True) if form.ndim > 1 else (False,):
            yield Problem(map_, form, 2, channels_last=last, threads=2, frozen=frozen, rank=rank)


def work(do):
    """Return the lines of Python that something runs, each as often as it runs, and the bytes that it holds at most."""
    lines = 0

    def trace(_frame, event, _arg):
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    tracemalloc.start()
    sys.settrace(trace)
    try:
        do()
    finally:
        sys.settrace(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return lines, peak


def grows(do):
    """Raise where something that takes a length's multiple costs more for a long one: Python, and bytes."""
    do(1)  # what is made once is there
    (lines, held), (more, longer) = work(lambda: do(2)), work(lambda: do(2 * TIMES))
    assert more <= LINES * lines + 50, f"{lines} lines of Python, and {more} for an axis {TIMES} times as long"
    assert longer <= held + BYTES, f"{held} bytes, and {longer} for an axis {TIMES} times as long"


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen"])
def test_choosing_does_not_grow_with_the_length(name, frozen):
    grows(lambda times: [choose(p) for p in problems(name, times, frozen)])


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_preparing_does_not_grow_with_the_length(name, engine):
    def prepare(times):
        for frozen in (False, True):
            for p in problems(name, times, frozen):
                if engine.refuses(p) is None:
                    small = sum(p.form.weight_shape) < 1_000_000
                    final = Final(torch.randn(p.form.weight_shape)) if frozen and small and not p.form.tiled else None
                    if final is not None or engine.name != "separable":
                        engine.prepare(p, final)

    grows(prepare)
