"""Blocks of columns: every output is in exactly one, and a cap makes them smaller."""

import numpy as np
import pytest

from ninefold.engines.gemm import Gemm, _blocks_of, _column_bytes, _row
from ninefold.spec import ConvSpec, Problem

SPECS = {
    "plain": ConvSpec(2, 3, (3, 2), padding=((1, 0), (0, 1))),
    "strided": ConvSpec(2, 3, (3, 2), stride=(2, 3)),
    "tiled": ConvSpec(2, 3, (3, 2), period=(2, 3)),
    "tiled along one axis": ConvSpec(2, 3, (3, 2), period=(None, 2)),
    "unshared": ConvSpec(2, 3, (3, 2), period=None),
}
CAPS = (1, 3_000, 20_000, 1 << 20, None)


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_blocks_cover_every_example_and_row_once(spec, cap):
    problem = Problem("c", spec.form((13, 8)), 3, max_scratch=cap)
    rows = -(-problem.form.n_out[0] // (1 if spec.period == (None, None) else problem.form.period[0]))
    seen = np.zeros((3, rows), int)
    for examples, block in _blocks_of(problem):
        seen[examples, block] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_block_is_under_its_share_of_the_cap_or_a_single_row(spec):
    for cap in CAPS[:-1]:
        problem = Problem("c", spec.form((13, 8)), 3, max_scratch=cap)
        for examples, block in _blocks_of(problem):
            rows = (block.stop - block.start) * (1 if spec.period == (None, None) else examples.stop - examples.start)
            assert rows == 1 or rows * _row(problem) * _column_bytes(problem) <= cap


def test_a_1x1_kernel_needs_no_columns_and_a_larger_one_never_all_of_them():
    assert Gemm().scratch(Problem("c", ConvSpec(64, 32, (1, 1)).form((56, 56)), 4)) == 0
    problem = Problem("c", ConvSpec(64, 32, (5, 5)).form((256, 256)), 4)
    columns = 4 * 64 * 25 * 252 * 252 * 4
    assert Gemm().scratch(problem) < columns / 20
