"""Gathering sums, in plain Python, against what an axis reads and feeds."""

import itertools

import pytest

from ninefold.engines.gather import gather_c, gather_h, staged
from ninefold.spec.axis import Axis
from ninefold.spec.padding import MODES
from ninefold.spec.runs import backwards, runs

AXES = [
    Axis(kernel, stride, dilation, lo, n_in, n_out, period)
    for kernel, stride, dilation, lo, (n_in, n_out), period in itertools.product(
        (1, 3, 4), (1, 2, 3), (1, 2, 3), (-1, 0, 2), ((11, 5), (4, 7)), (1, 2, 3)
    )
]


def indices(spans):
    """The indices of some spans, side by side."""
    return [first + k * step for first, count, step in spans for k in range(count)]


@pytest.mark.parametrize("unit", [True, False])
def test_residues_read_what_the_axis_reads(unit):
    for axis in AXES:
        reads = gather_c(axis)
        side = staged(reads.residues, reads.step, unit=unit)
        sources = indices(side.spans)
        assert len(sources) == side.count
        found = {}
        for residue, at in zip(reads.residues, side.at, strict=True):
            for q in range(residue.count):
                read = [sources[q * side.step + t] for t in at]
                found[residue.first + q * reads.jump] = tuple(i if 0 <= i < axis.n_in else None for i in read)
                assert [w for w, _ in residue.weights] == [(residue.first + q * reads.jump) % axis.period] * axis.kernel
        assert found == {j: axis.reads(j) for j in range(axis.n_out)}


@pytest.mark.parametrize("unit", [True, False])
def test_residues_are_fed_by_what_feeds_the_axis(unit):
    for axis in AXES:
        reads = gather_h(axis)
        side = staged(reads.residues, reads.step, unit=unit)
        sources = indices(side.spans)
        assert len(sources) == side.count
        for residue, at in zip(reads.residues, side.at, strict=True):
            for q in range(residue.count):
                fed = [(sources[q * side.step + t], m) for t, (_, m) in zip(at, residue.weights, strict=True)]
                inside = sorted((j, m) for j, m in fed if 0 <= j < axis.n_out)
                assert inside == sorted(axis.feeds(residue.first + q * reads.jump))
                kernels = {j % axis.period for j, _ in fed}
                assert kernels <= {w for w, _ in residue.weights}


def written_out(pieces):
    """The position that stands at each place of some pieces, None for zeros."""
    found = []
    for to, first, count, step in pieces:
        assert to == len(found)
        assert count > 0
        found += [None if first < 0 else first + k * step for k in range(count)]
    return found


@pytest.mark.parametrize("mode", MODES)
def test_runs_are_what_stands_at_every_index(mode):
    for n, first, count, step in itertools.product((2, 3, 11), (-25, -3, 0, 2, 12), (0, 1, 2, 40), (1, 2, 5)):
        axis = Axis(kernel=3, stride=1, dilation=1, lo=0, n_in=n, n_out=1, mode=mode)
        spans = [(first, count, step), (first + 1, 3, step)]
        pieces = runs(axis, spans)
        assert written_out(pieces) == [axis.source(i) for i in indices(spans)]
        assert written_out(backwards(pieces)) == [axis.source(i) for i in indices(spans)][::-1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("step", [1, 3])
def test_runs_are_few_however_long_the_axis_is(mode, step):
    counts = []
    for n in (1_000, 64_000_000):
        axis = Axis(kernel=9, stride=1, dilation=1, lo=8, n_in=n, n_out=n, mode=mode)
        counts.append(len(runs(axis, [(phase - 8, (n + 16) // step, step) for phase in range(step)])))
    assert counts[0] == counts[1] <= 9 * step
