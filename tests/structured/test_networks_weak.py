from itertools import pairwise
from math import inf

import pytest
import torch

from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.structured.networks import WeakLabels, aggregate

SIZES = {1: (11,), 2: (5, 7), 3: (3, 4, 2)}


def scores_of(ndim=2):
    torch.manual_seed(0)
    scores = 2 * torch.randn(2, 3, *SIZES[ndim], dtype=torch.float64)
    mask = torch.rand(2, *SIZES[ndim]) < 0.6
    return scores, mask


def by_definition(scores, r, mask):
    rows = []
    for image, m in zip(scores, mask, strict=True):
        s = image[:, m]
        rows.append(s.mean(1) if r == 0 else s.amax(1) if r == inf else (r * s).exp().mean(1).log() / r)
    return torch.stack(rows)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("r", [0, 0.3, 1, 5, inf])
def test_it_is_its_definition(ndim, r):
    scores, mask = scores_of(ndim)
    torch.testing.assert_close(aggregate(scores, r, mask), by_definition(scores, r, mask))
    everything = torch.ones_like(mask)
    torch.testing.assert_close(aggregate(scores, r), by_definition(scores, r, everything))
    torch.testing.assert_close(aggregate(scores, r, everything), aggregate(scores, r))


def test_limits_and_order():
    scores, mask = scores_of()
    mean, top = aggregate(scores, 0, mask), aggregate(scores, inf, mask)
    torch.testing.assert_close(aggregate(scores, 1e-6, mask), mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(aggregate(scores, 1e4, mask), top, rtol=0, atol=1e-3)
    rising = [aggregate(scores, r, mask) for r in (0, 0.1, 1, 3, 10, 100, inf)]
    assert all((a < b).all() for a, b in pairwise(rising))


@pytest.mark.parametrize("r", [0, 2.0, inf])
def test_what_is_masked_counts_for_nothing(r):
    scores, mask = scores_of()
    other = torch.where(mask.unsqueeze(1), scores, 1e6).requires_grad_()
    got = aggregate(other, r, mask)
    torch.testing.assert_close(got, aggregate(scores, r, mask))
    got.sum().backward()
    assert not other.grad.masked_select(~mask.unsqueeze(1)).any()
    assert other.grad.isfinite().all()
    if r != inf:
        assert torch.autograd.gradcheck(lambda s: aggregate(s, r, mask), scores.requires_grad_())


def test_loss_of_labels_of_images():
    scores, mask = scores_of()
    head = WeakLabels(3)
    s = by_definition(scores, 3, mask).log_softmax(1)
    torch.testing.assert_close(head.loss(scores, torch.tensor([2, 0]), mask), -(s[0, 2] + s[1, 0]) / 2)
    several = torch.tensor([[True, False, True], [False, True, False]])
    torch.testing.assert_close(head.loss(scores, several, mask), -((s[0, 0] + s[0, 2]) / 2 + s[1, 1]) / 2)


def test_the_prior_of_the_image():
    scores, mask = scores_of()
    head = WeakLabels()
    want = scores.softmax(1) * head(scores, mask).softmax(1)[:, :, None, None]
    torch.testing.assert_close(head.with_prior(scores, mask).exp(), want)
    assert torch.equal(head.labels(scores, mask), want.argmax(1))
    assert (want.argmax(1) != scores.argmax(1)).any()


def test_it_learns_where_from_what():
    """A bright square is the second class: the network is told only whether there is one."""
    torch.manual_seed(0)
    net = torch.nn.Conv2d(1, 2, 3, padding=1)
    head, optimizer = WeakLabels(), torch.optim.Adam(net.parameters(), 0.05)
    images, present = 0.1 * torch.randn(40, 1, 10, 9), torch.arange(40) % 2
    where = torch.zeros(40, 10, 9, dtype=torch.bool)
    for k in range(1, 40, 2):
        where[k, k % 7 : k % 7 + 3, k % 5 : k % 5 + 3] = True
    images[:, 0][where] += 1
    for _ in range(80):
        optimizer.zero_grad()
        head.loss(net(images), present).backward()
        optimizer.step()
    score = net(images)[1::2].diff(dim=1)[:, 0]
    inside, outside = score[where[1::2]], score[~where[1::2]]
    assert (inside.unsqueeze(1) > outside).double().mean() > 0.9


def test_what_does_not_fit_is_said():
    scores, mask = scores_of()
    with pytest.raises(ArgumentError, match="image 1 of the batch"):
        aggregate(scores, 1, mask & torch.tensor([True, False]).reshape(2, 1, 1))
    with pytest.raises(DTypeError, match="torch.uint8"):
        aggregate(scores, 1, mask.to(torch.uint8))
    with pytest.raises(ShapeError, match=r"\(2, 5, 6\); it must be \(2, 5, 7\)"):
        aggregate(scores, 1, mask[..., :6])
    with pytest.raises(ArgumentError, match="r=-1"):
        WeakLabels(-1)
    with pytest.raises(ArgumentError, match="0 to 2"):
        WeakLabels().loss(scores, torch.tensor([0, 3]))
    with pytest.raises(ArgumentError, match="image 0 of the batch holds no class"):
        WeakLabels().loss(scores, torch.tensor([[False] * 3, [True] * 3]))
    with pytest.raises(ShapeError):
        WeakLabels().loss(scores, torch.zeros(3, dtype=torch.long))
    with pytest.raises(ShapeError):
        aggregate(torch.zeros(3, 3))
