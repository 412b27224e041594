import numpy as np
import pytest
import torch

from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn import GridPool, Pyramid, QuadrantSums
from ninefold.learn.pooling import edges, pooling_of


@pytest.mark.parametrize(
    ("size", "cells", "expected"), [(27, 2, [0, 14, 27]), (25, 2, [0, 13, 25]), (7, 3, [0, 2, 5, 7]), (4, 4, [0, 1, 2, 3, 4])]
)
def test_halves_are_rounded_up(size, cells, expected):
    assert edges(size, cells) == expected


@pytest.mark.parametrize("operation", ["sum", "mean", "max"])
def test_regions_one_by_one(operation):
    maps = torch.arange(2 * 3 * 5 * 7, dtype=torch.float32).reshape(2, 3, 5, 7).sin()
    found = GridPool((2, 3), operation)(maps).reshape(2, 6, 3)
    rows, columns = edges(5, 2), edges(7, 3)
    reduce = {"sum": np.sum, "mean": np.mean, "max": np.max}[operation]
    for k, (i, j) in enumerate((i, j) for i in range(2) for j in range(3)):
        for n in range(2):
            for f in range(3):
                cell = maps[n, f, rows[i] : rows[i + 1], columns[j] : columns[j + 1]].numpy()
                assert float(found[n, k, f]) == pytest.approx(float(reduce(cell)), rel=1e-5, abs=1e-6)


def test_quadrants_add_up_and_levels_stand_one_after_another():
    maps = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(QuadrantSums()(maps).reshape(2, 4, 3).sum(1), maps.sum((2, 3)))
    pyramid = Pyramid((1, 2), "max")(maps)
    assert torch.equal(pyramid, torch.cat([GridPool(1, "max")(maps), GridPool(2, "max")(maps)], 1))
    assert Pyramid((1, 2)).names() == ["1r0c0", "2r0c0", "2r0c1", "2r1c0", "2r1c1"]


def test_what_is_refused():
    maps = torch.zeros(1, 1, 3, 2, dtype=torch.float32)
    with pytest.raises(ShapeError, match="a map of 3x2 positions cannot be cut into 3x3 regions"):
        GridPool(3)(maps)
    with pytest.raises(ArgumentError, match="operation='mode'"):
        GridPool(1, "mode")(maps)
    with pytest.raises(ArgumentError, match="grid=0"):
        GridPool(0)(maps)
    with pytest.raises(ArgumentError, match="neither a pooling nor one of"):
        pooling_of("halves")
    with pytest.raises(ArgumentError, match="neither a pooling nor one of"):
        pooling_of(GridPool)
