"""Blocks of columns: every output is in exactly one, and a cap makes them smaller."""

import numpy as np
import pytest

from ninefold.engines.columns import blocks_of, column_bytes, count_blocks, row_length
from ninefold.engines.gemm import Gemm
from ninefold.engines.unshared import most_rows
from ninefold.spec import ConvSpec, Problem
from ninefold.tensors.layout import blocks

SPECS = {
    "plain": ConvSpec(2, 3, (3, 2), padding=((1, 0), (0, 1))),
    "strided": ConvSpec(2, 3, (3, 2), stride=(2, 3)),
    "tiled": ConvSpec(2, 3, (3, 2), period=(2, 3)),
    "tiled along one axis": ConvSpec(2, 3, (3, 2), period=(None, 2)),
    "unshared": ConvSpec(2, 3, (3, 2), period=None),
}
CAPS = (1, 3_000, 20_000, 1 << 20, None)


SHARED = {name: spec for name, spec in SPECS.items() if name != "unshared"}


def outputs_of(block, form):
    """Return the indices of a block's outputs, (first axis, second axis)."""
    counts = (range(block.rows.start, block.rows.stop), range(block.outputs[1]))
    return np.ix_(
        *(
            [f + r + a.period * q for r in range(m) for q in count]
            for f, m, a, count in zip(block.first, block.many, form.axes, counts, strict=True)
        )
    )


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("spec", SHARED.values(), ids=SHARED)
def test_blocks_cover_every_example_and_output_once(spec, cap):
    problem = Problem("c", spec.form((13, 8)), 3, max_scratch=cap)
    seen = np.zeros((3, *problem.form.n_out), int)
    for block in blocks_of(problem):
        for n in range(block.batch.start, block.batch.stop):
            seen[n][outputs_of(block, problem.form)] += 1
    assert (seen == 1).all()
    assert count_blocks(problem) == len(list(blocks_of(problem)))


@pytest.mark.parametrize("spec", SHARED.values(), ids=SHARED)
def test_a_block_is_under_its_share_of_the_cap_or_a_singlerow_length(spec):
    for cap in CAPS[:-1]:
        problem = Problem("c", spec.form((13, 8)), 3, max_scratch=cap)
        for b in blocks_of(problem):
            rows = (b.rows.stop - b.rows.start) * (b.batch.stop - b.batch.start) * b.many[0] * b.many[1]
            assert rows == 1 or rows * b.outputs[1] * column_bytes(problem) <= cap / 4


@pytest.mark.parametrize("cap", CAPS)
def test_rows_of_an_unshared_layer_are_cut_under_the_cap(cap):
    problem = Problem("c", SPECS["unshared"].form((13, 8)), 3, max_scratch=cap)
    seen = np.zeros(problem.form.n_out[0], int)
    for rows in blocks(problem.form.n_out[0], most_rows(problem)):
        seen[rows] += 1
        assert (
            rows.stop - rows.start == 1
            or cap is None
            or (rows.stop - rows.start) * row_length(problem) * column_bytes(problem) <= cap
        )
    assert (seen == 1).all()


def test_a_1x1_kernel_needs_no_columns_and_a_larger_one_never_all_of_them():
    assert Gemm().scratch(Problem("c", ConvSpec(64, 32, (1, 1)).form((56, 56)), 4)) == 0
    problem = Problem("c", ConvSpec(64, 32, (5, 5)).form((256, 256)), 4)
    columns = 4 * 64 * 25 * 252 * 252 * 4
    assert Gemm().scratch(problem) < columns / 10
