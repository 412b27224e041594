"""Messages between heat maps: identities of the form, and exact sum-product on a tree."""

from math import inf

import pytest
import torch

from ninefold.errors import ArgumentError, ShapeError
from ninefold.structured.crf.models import SpatialModel


def inverse(x):
    """What softplus makes x of."""
    return torch.expm1(torch.as_tensor(x, dtype=torch.float64)).log()


def with_priors(model, priors, bias=0.0):
    """Set softplus(K) and softplus(b)."""
    model = model.double()
    with torch.no_grad():
        model.kernel.copy_(inverse(priors))
        model.bias.fill_(-inf if not bias else inverse(bias))
    return model


def test_a_peak_and_no_bias_are_the_identity():
    model = SpatialModel(1, (5, 3))
    peak = torch.zeros(1, 5, 3)
    peak[0, 2, 1] = 1
    model = with_priors(model, peak)
    heat = torch.rand(2, 1, 8, 9, dtype=torch.float64)
    torch.testing.assert_close(model.messages(heat), heat)
    torch.testing.assert_close(model(heat).exp(), heat)


@pytest.mark.parametrize("offset", [(0, 0), (2, -1), (-3, 1)])
def test_a_prior_moved_moves_the_message(offset):
    """Of a part that lies at d from another, seen at one place."""
    prior = torch.zeros(1, 7, 5)
    prior[0, 3 + offset[0], 2 + offset[1]] = 0.5
    prior[0, 3, 2] += 0.25
    model = with_priors(SpatialModel(2, (7, 5), pairs=[(0, 1)]), prior)
    heat = torch.zeros(1, 2, 11, 9, dtype=torch.float64)
    heat[0, 1, 5, 4] = 2
    want = torch.zeros(11, 9, dtype=torch.float64)
    want[5, 4] = 0.5
    want[5 + offset[0], 4 + offset[1]] += 1
    torch.testing.assert_close(model.messages(heat)[0, 0], want)
    moved = model.messages(heat.roll((1, 2), (2, 3)))
    torch.testing.assert_close(moved[0, 0], want.roll((1, 2), (0, 1)))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_form_position_by_position(ndim):
    torch.manual_seed(0)
    size, kernel = (5, 4, 3)[:ndim], (3, 5, 1)[:ndim]
    model = SpatialModel(3, kernel, ndim=ndim, pairs=[(0, 0), (0, 2), (1, 0)]).double()
    with torch.no_grad():
        model.kernel.normal_()
        model.bias.normal_()
    scores = torch.randn(2, 3, *size, dtype=torch.float64)
    prior, bias = torch.nn.functional.softplus(model.kernel), torch.nn.functional.softplus(model.bias)
    want = torch.zeros(2, 3, *size, dtype=torch.float64)
    places = [tuple(p) for p in torch.ones(size).nonzero().tolist()]
    for k, (a, v) in enumerate(model.pairs):
        for x in places:
            total = bias[k].expand(2).clone()
            for y in places:
                d = tuple(i - j + n // 2 for i, j, n in zip(x, y, kernel, strict=True))
                if all(0 <= i < n for i, n in zip(d, kernel, strict=True)):
                    total = total + prior[(k, *d)] * scores[(slice(None), v, *y)].relu()
            want[(slice(None), a, *x)] += total.log().detach()
    torch.testing.assert_close(model(scores), want)


def test_it_is_sum_product_on_a_tree():
    """A star: part 0 in the middle, 1 and 2 at random offsets from it; its marginal by summing over all three places."""
    torch.manual_seed(0)
    n = 4
    priors = torch.rand(3, 7)  # every offset between places 0 to 3
    priors[0] = 0
    priors[0, 3] = 1
    model = with_priors(SpatialModel(3, 7, ndim=1, pairs=[(0, 0), (0, 1), (0, 2)], unary="softmax"), priors)
    scores = torch.randn(1, 3, n, dtype=torch.float64)
    p = scores[0].softmax(1)
    joint = torch.zeros(n, n, n, dtype=torch.float64)
    for a in range(n):
        for b in range(n):
            for c in range(n):
                joint[a, b, c] = p[0, a] * p[1, b] * p[2, c] * priors[1, a - b + 3] * priors[2, a - c + 3]
    want = joint.sum((1, 2)) / joint.sum()
    torch.testing.assert_close(model(scores)[0, 0].softmax(0), want)
    assert not model(scores)[0, 1:].any()  # no target, no message


def test_large_kernels_batch_and_gradients():
    torch.manual_seed(0)
    model = SpatialModel(2, (41, 33))
    x = torch.rand(2, 2, 30, 25)
    out = model(x)
    assert out.isfinite().all()
    torch.testing.assert_close(model(x[1:]), out[1:])
    out.sum().backward()
    assert model.kernel.grad.isfinite().all()
    small = SpatialModel(2, 3, ndim=1).double()
    assert torch.autograd.gradcheck(small, torch.rand(1, 2, 5, dtype=torch.float64, requires_grad=True) + 0.1)


def test_it_learns_where_a_part_is_from_the_other():
    """Part 1 lies 3 positions after part 0; its own scores are noise, which joint training overrules."""
    torch.manual_seed(0)
    model = SpatialModel(2, 9, ndim=1)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    first = torch.randint(0, 12, (60,))
    scores = 0.5 * torch.rand(60, 2, 16)
    scores[torch.arange(60), 0, first] += 2
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(scores)[:, 1], first + 3).backward()
        optimizer.step()
    assert (model(scores)[:, 1].argmax(1) == first + 3).double().mean() > 0.95
    learned = torch.nn.functional.softplus(model.kernel[model.pairs.index((1, 0))])
    assert learned.argmax() == 4 + 3


def test_what_does_not_fit_is_said():
    with pytest.raises(ArgumentError, match=r"kernel_size=\(4, 5\) must be odd"):
        SpatialModel(2, (4, 5))
    with pytest.raises(ArgumentError, match="pairs=.*parts 0 to 1"):
        SpatialModel(2, 3, pairs=[(0, 2)])
    with pytest.raises(ArgumentError, match="different pairs"):
        SpatialModel(2, 3, pairs=[(0, 1), (0, 1)])
    with pytest.raises(ArgumentError, match="'exp'"):
        SpatialModel(2, 3, unary="exp")
    with pytest.raises(ArgumentError, match="reads no features"):
        SpatialModel(2, 3)(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
    with pytest.raises(ShapeError):
        SpatialModel(2, 3)(torch.zeros(1, 3, 4, 4))
