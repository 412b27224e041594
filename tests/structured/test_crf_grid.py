"""The grid model against enumeration of all label maps: exact on trees, a bound and a descent elsewhere."""

from itertools import product

import pytest
import torch

from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.structured.crf.models import GridMRF


def enumerated(model, unary, w):
    """Marginals and log Z of one example, by summing over all label maps of the definition."""
    size, classes, tables = tuple(unary.shape[1:]), len(unary), model.tables()
    places = list(product(*map(range, size)))
    scores, maps = [], []
    for labels in product(range(classes), repeat=len(places)):
        y = dict(zip(places, labels, strict=True))
        total = sum(unary[(y[v], *v)] for v in places)
        for a, v in product(range(len(size)), places):
            after = tuple(n + (k == a) for k, n in enumerate(v))
            if after in y:
                total = total + w[(a, *v)] * tables[a, y[v], y[after]]
        scores.append(total)
        maps.append(labels)
    scores, maps = torch.stack(scores), torch.tensor(maps)
    p = scores.softmax(0)
    marginals = torch.stack([(p[:, None] * (maps == k)).sum(0).reshape(size) for k in range(classes)])
    return marginals, scores.logsumexp(0)


def model_of(classes=2, **more):
    torch.manual_seed(0)
    model = GridMRF(classes, compatibility="matrix", **more).double()
    with torch.no_grad():
        model.psi.normal_()
    return model


def unary_of(*size, classes=2, batch=2):
    return torch.randn(batch, classes, *size, dtype=torch.float64)


def test_messages_are_exact_on_a_chain():
    model = model_of(3, ndim=1, method="sum_product", iterations=6)
    unary, edges = unary_of(6, classes=3), torch.rand(2, 1, 6, dtype=torch.float64)
    got = model(unary, edges=edges).softmax(1)
    for k in range(2):
        want, _ = enumerated(model, unary[k], edges[k])
        torch.testing.assert_close(got[k], want)
    assert not torch.allclose(model(unary, edges=edges, iterations=2).softmax(1), got)  # a message has not come through
    assert not torch.allclose(model(unary.flip(2)).softmax(1).flip(2), model(unary).softmax(1))  # the tables have a direction


@pytest.mark.parametrize(
    ("size", "cut"),
    [
        ((2, 3), [(0, 0, 1), (0, 0, 2)]),
        ((1, 5), []),
        ((2, 2, 2), [(1, 0, 0, 0), (2, 0, 0, 0), (2, 1, 0, 0), (2, 0, 1, 0), (1, 1, 0, 1)]),
    ],
)
def test_messages_are_exact_on_a_tree(size, cut):
    """A grid of which edges are cut until none goes round."""
    model = model_of(ndim=len(size), method="sum_product", iterations=8)
    unary = unary_of(*size)
    edges = torch.rand(2, len(size), *size, dtype=torch.float64) + 0.5
    for at in cut:
        edges[(slice(None), *at)] = 0
    got = model(unary, edges=edges).softmax(1)
    for k in range(2):
        want, _ = enumerated(model, unary[k], edges[k])
        torch.testing.assert_close(got[k], want)


def test_on_a_small_grid_both_are_near_and_neither_is_exact():
    torch.manual_seed(1)
    unary = unary_of(2, 3)
    for method in ("mean_field", "sum_product"):
        model = GridMRF(2, weight=0.5, method=method, iterations=50).double()
        got, w = model(unary).softmax(1), model.edge_weights(unary)
        for k in range(2):
            want, _ = enumerated(model, unary[k], w[k])
            assert 1e-6 < (got[k] - want).abs().max() < 0.1
            assert torch.equal(got[k].argmax(0), want.argmax(0))


@pytest.mark.parametrize("size", [(5,), (2, 3), (2, 2, 2)])
def test_the_free_energy_never_rises_and_bounds_log_z(size):
    model = model_of(ndim=len(size))
    unary = unary_of(*size)
    w = model.edge_weights(unary)
    energies = torch.stack([model.free_energy(unary, model(unary, iterations=n).softmax(1), w) for n in range(12)])
    assert (energies.diff(dim=0) <= 1e-12).all()
    for k in range(2):
        _, log_z = enumerated(model, unary[k], w[k])
        assert energies[-1, k] > -log_z
        assert energies[-1, k] < -log_z + 1.5


def test_mean_field_ends_where_its_equations_hold():
    model = model_of(3, iterations=200)
    unary = unary_of(4, 5, classes=3)
    logits = model(unary)
    torch.testing.assert_close(
        (unary + model.expected(logits.softmax(1), model.edge_weights(unary))).softmax(1), logits.softmax(1)
    )


@pytest.mark.parametrize("method", ["mean_field", "sum_product"])
def test_what_holds_of_both(method):
    unary, features = unary_of(4, 5, classes=3), torch.randn(2, 2, 4, 5, dtype=torch.float64)
    model = GridMRF(3, weight=0.7, method=method).double()
    out = model(unary, features)
    torch.testing.assert_close(model(unary[1:], features[1:]), out[1:])
    swap = [2, 0, 1]
    torch.testing.assert_close(model(unary[:, swap], features), out[:, swap])  # Potts knows no label by name
    torch.testing.assert_close(model(unary, torch.zeros_like(features)), model(unary))
    torch.testing.assert_close(model(unary, features * 1e4), unary + 0 * unary)  # no neighbour looks alike
    assert torch.equal(GridMRF(3, weight=0.0, method=method).double()(unary).softmax(1).argmax(1), unary.argmax(1))
    ruled = unary.clone()
    ruled[:, 1, 2] = -torch.inf
    q = model(ruled).softmax(1)
    assert q.isfinite().all()
    assert (q[:, 1, 2] == 0).all()
    torch.testing.assert_close(q.sum(1), torch.ones(2, 4, 5, dtype=torch.float64))


@pytest.mark.parametrize("method", ["mean_field", "sum_product"])
def test_gradients(method):
    unary = unary_of(2, 3, batch=1).requires_grad_()
    features = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    model = model_of(method=method, iterations=3, damping=0.2 if method == "sum_product" else 0.0)
    assert torch.autograd.gradcheck(model, (unary, features))
    parameters = dict(model.named_parameters())
    call = lambda psi, width: torch.func.functional_call(model, {"psi": psi, "width": width}, (unary.detach(), features.detach()))
    assert torch.autograd.gradcheck(call, (parameters["psi"], parameters["width"]))


def test_a_single_wrong_position_is_corrected_but_not_across_an_edge():
    unary = torch.full((1, 2, 7, 9), 1.0)
    unary[:, 1] = -1
    unary[0, :, 3, 4] = torch.tensor([-1.0, 1.0])
    assert not GridMRF(2, weight=1.0)(unary).argmax(1).any()
    features = torch.zeros(1, 1, 7, 9)
    features[0, 0, 3, 4] = 9
    assert GridMRF(2, weight=1.0)(unary, features).argmax(1).sum() == 1


def test_what_does_not_fit_is_said():
    model, unary = GridMRF(2), torch.zeros(1, 2, 4, 5)
    with pytest.raises(ShapeError, match=r"\(1, 3, 4, 5\); it must be \(batch, 2, 2 spatial axes\)"):
        model(torch.zeros(1, 3, 4, 5))
    with pytest.raises(DTypeError, match="int64"):
        model(unary.long())
    with pytest.raises(ArgumentError, match="hold 1 values that are NaN"):
        model(unary.index_put((torch.tensor([0]),) * 4, torch.tensor(float("nan"))))
    with pytest.raises(ArgumentError, match="rule out every label of 20 positions"):
        model(unary - torch.inf)
    with pytest.raises(ShapeError, match="the features have shape"):
        model(unary, torch.zeros(1, 3, 4, 4))
    with pytest.raises(ArgumentError, match="the features hold 60 NaN"):
        model(unary, torch.full((1, 3, 4, 5), float("nan")))
    with pytest.raises(ShapeError, match=r"the edges.*\(batch, 2, 2 spatial axes\)"):
        model(unary, edges=torch.zeros(1, 1, 4, 5))
    for wrong in ({"method": "cuts"}, {"compatibility": "linear"}, {"damping": 1}, {"width": 0}, {"ndim": 4}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            GridMRF(2, **wrong)
