"""The border written out and folded back: `extend` and `fold` are adjoint, in every mode, crops included."""

import numpy as np
import pytest
import torch

from ninefold.spec import ConvSpec
from ninefold.spec.padding import MODES
from ninefold.tensors.border import extension, folding
from ninefold.tensors.layout import blocks

PADS = {
    "both sides": ((2, 1), (3, 2)),
    "one side": ((0, 3), (2, 0)),
    "crop": ((-2, -1), (-1, 0)),
    "crop and border": ((-2, 3), (3, -1)),
    "one element": ((1, 0), (1, 1)),
    "only the border": ((9, -9), (0, 0)),
    "wider than the input": ((9, 4), (0, 8)),
    "twice as wide": ((8, 15), (13, 11)),
    "wider by little": ((8, 0), (6, 7)),
}


def form_of(pads, mode, stride=(1, 1)):
    return ConvSpec(2, 3, (2, 3), padding=pads, padding_mode=mode, stride=stride).form((7, 5))


def ints(*shape):
    return torch.randint(-4, 5, shape).double()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pads", PADS.values(), ids=PADS)
def test_extend_is_the_border_of_the_definition(mode, pads):
    form, V = form_of(pads, mode), ints(2, 2, 7, 5)
    X = extension(form)(V.clone())
    assert X.shape[2:] == tuple(a.span for a in form.axes)
    rows, columns = form.axes
    for i in range(rows.span):
        for j in range(columns.span):
            at = rows.source(i - rows.lo), columns.source(j - columns.lo)
            expected = torch.zeros(2, 2, dtype=torch.double) if None in at else V[:, :, at[0], at[1]]
            assert torch.equal(X[:, :, i, j], expected), (i, j)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pads", PADS.values(), ids=PADS)
@pytest.mark.parametrize("stride", [(1, 1), (3, 2)])
def test_fold_is_adjoint_to_extend(mode, pads, stride):
    form = form_of(pads, mode, stride)
    V, R = ints(2, 2, 7, 5), ints(2, 2, *(a.span for a in form.axes))
    folded = folding(form)(R.clone())
    assert folded.shape == V.shape
    assert (extension(form)(V.clone()) * R).sum() == (V * folded).sum()


def test_extend_leaves_the_input_alone():
    V = ints(2, 2, 7, 5)
    before = V.clone()
    for mode in MODES:
        extension(form_of(((2, 1), (3, 2)), mode))(V)
    assert torch.equal(V, before)


@pytest.mark.parametrize(("total", "size"), [(0, 3), (1, 3), (6, 3), (7, 3), (5, 9)])
def test_blocks_cover_everything_once(total, size):
    parts = list(blocks(total, size))
    assert np.concatenate([np.arange(total)[b] for b in parts] or [np.arange(0)]).tolist() == list(range(total))
    assert all(b.stop - b.start <= size for b in parts)
