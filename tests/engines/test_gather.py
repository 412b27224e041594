"""Gathering sums, in plain Python, against what an axis reads and feeds."""

import itertools

import pytest

from ninefold.engines.gather import gather_c, gather_h, staged
from ninefold.spec.axis import Axis

AXES = [
    Axis(kernel, stride, dilation, lo, n_in, n_out, period)
    for kernel, stride, dilation, lo, (n_in, n_out), period in itertools.product(
        (1, 3, 4), (1, 2, 3), (1, 2, 3), (-1, 0, 2), ((11, 5), (4, 7)), (1, 2, 3)
    )
]


@pytest.mark.parametrize("unit", [True, False])
def test_residues_read_what_the_axis_reads(unit):
    for axis in AXES:
        reads = gather_c(axis)
        side = staged(reads.residues, reads.step, unit=unit)
        found = {}
        for residue, at in zip(reads.residues, side.at, strict=True):
            for q in range(residue.count):
                read = [side.sources[q * side.step + t] for t in at]
                found[residue.first + q * reads.jump] = tuple(i if 0 <= i < axis.n_in else None for i in read)
                assert [w for w, _ in residue.weights] == [(residue.first + q * reads.jump) % axis.period] * axis.kernel
        assert found == {j: axis.reads(j) for j in range(axis.n_out)}


@pytest.mark.parametrize("unit", [True, False])
def test_residues_are_fed_by_what_feeds_the_axis(unit):
    for axis in AXES:
        reads = gather_h(axis)
        side = staged(reads.residues, reads.step, unit=unit)
        for residue, at in zip(reads.residues, side.at, strict=True):
            for q in range(residue.count):
                fed = [(side.sources[q * side.step + t], m) for t, (_, m) in zip(at, residue.weights, strict=True)]
                inside = sorted((j, m) for j, m in fed if 0 <= j < axis.n_out)
                assert inside == sorted(axis.feeds(residue.first + q * reads.jump))
                kernels = {j % axis.period for j, _ in fed}
                assert kernels <= {w for w, _ in residue.weights}
