from collections import Counter
from itertools import product

import pytest
import torch

from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.structured.networks import label_grid

SIZES = {1: (11,), 2: (7, 10), 3: (5, 4, 7)}


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("ignore", [None, 1])
@pytest.mark.parametrize("offset", [0, 1])
def test_majority_by_counting(ndim, ignore, offset):
    torch.manual_seed(ndim)
    steps = (3, 2, 4)[:ndim]
    labels = torch.randint(0, 3, (2, *SIZES[ndim]), dtype=torch.uint8)
    got = label_grid(labels, steps, how="majority", ignore=ignore, offset=offset)
    starts = [range(offset, n, s) for n, s in zip(SIZES[ndim], steps, strict=True)]
    assert got.shape == (2, *map(len, starts))
    assert got.dtype == torch.uint8
    for b in range(2):
        for at in product(*(enumerate(r) for r in starts)):
            cell = labels[(b, *(slice(o, o + s) for (_, o), s in zip(at, steps, strict=True)))]
            votes = Counter(v for v in cell.flatten().tolist() if v != ignore)
            want = min(votes, key=lambda v: (-votes[v], v)) if votes else ignore
            assert got[(b, *(k for k, _ in at))] == want


def test_nearest_takes_every_so_many():
    labels = torch.arange(2 * 7 * 9).reshape(2, 7, 9)
    assert torch.equal(label_grid(labels, 3), labels[:, ::3, ::3])
    assert torch.equal(label_grid(labels, (2, 4), offset=(1, 3)), labels[:, 1::2, 3::4])
    assert torch.equal(label_grid(labels, 1, how="majority"), labels)
    assert torch.equal(label_grid(labels, 100, how="majority", ignore=0), torch.tensor([[[1]], [[63]]]))


def test_what_does_not_fit_is_said():
    labels = torch.zeros(1, 4, 5, dtype=torch.long)
    with pytest.raises(ArgumentError, match="'mean'"):
        label_grid(labels, 2, how="mean")
    with pytest.raises(ArgumentError, match="stride must be at least 1, got 0"):
        label_grid(labels, 0)
    with pytest.raises(ArgumentError, match=r"offset=\(4, 0\) lies outside"):
        label_grid(labels, 2, offset=(4, 0))
    with pytest.raises(DTypeError, match="float32"):
        label_grid(labels.float(), 2)
    with pytest.raises(ShapeError):
        label_grid(labels[:, :0], 2)
