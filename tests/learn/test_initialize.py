"""Filters into layers: what they compute, what learns, and that nothing changes where something does not fit."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrizations

from ninefold import nn
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError, UnsupportedError
from ninefold.learn import KMeansFilters, RandomFilters, SampledPatches
from ninefold.learn.compare import Comparison
from ninefold.learn.initialize import initialize

IMAGES = np.random.default_rng(0).normal(size=(20, 9, 8, 3)).astype(np.float32)
BATCH = torch.from_numpy(IMAGES[:4]).movedim(-1, 1).contiguous()


def network(kind=nn, **arguments):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            kind.Conv2d(3, 5, (3, 2), **arguments), torch.nn.ReLU(), torch.nn.Sequential(kind.Conv2d(5, 4, (2, 3))),
            torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 5, 2),
        )  # fmt: skip


def source(count=5, size=(3, 2), **arguments):
    return RandomFilters(count, size, random_state=1, **arguments).fit(IMAGES)


@pytest.mark.parametrize("kind", [torch.nn, nn])
def test_the_gradient_into_frozen_layers_is_none(kind):
    model, filters = network(kind), source()
    before = copy.deepcopy(model.state_dict())
    assert initialize(model, filters) == ["0"]
    model(BATCH).square().sum().backward()
    assert model[0].weight.grad is None
    assert model[0].bias.grad is None
    assert bool(model[2][0].weight.grad.abs().sum() > 0)
    assert np.array_equal(model[0].weight.detach().numpy(), filters.filters_)
    assert torch.equal(model[2][0].weight, before["2.0.weight"])
    torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 0.1).step()
    assert np.array_equal(model[0].weight.detach().numpy(), filters.filters_)


def test_layers_to_be_fine_tuned_learn():
    model, filters = network(), source()
    model[0].requires_grad_(False)
    initialize(model, filters, frozen=False)
    model(BATCH).square().sum().backward()
    assert bool(model[0].weight.grad.abs().sum() > 0)
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert not np.array_equal(model[0].weight.detach().numpy(), filters.filters_)


def test_by_name_in_order_and_some_frozen():
    second = np.random.default_rng(2).normal(size=(4, 5, 2, 3))
    for sources in ([source(), second], {"2.0": second, "0": source()}):
        model = network()
        assert sorted(initialize(model, sources, frozen=["2.0"])) == ["0", "2.0"]
        assert np.array_equal(model[2][0].weight.detach().numpy(), second.astype(np.float32))
        assert np.array_equal(model[0].weight.detach().numpy(), source().filters_)
        assert [p.requires_grad for p in model[:3].parameters()] == [True, True, False, False]
    model = network()
    before = model[0].weight.detach().clone()
    assert initialize(model, {"2.0": torch.from_numpy(second)}) == ["2.0"]
    assert torch.equal(model[0].weight, before)


def test_a_layer_computes_what_patches_have_in_common_with_atoms():
    """Whitening alone is a linear map and a shift, which a layer with a bias is, too: a patch model used as kernels."""
    for learner in (SampledPatches, KMeansFilters):
        filters = learner(5, (3, 2), contrast=None, whitening=0.1, random_state=0).fit(IMAGES + 2)
        model = network()
        initialize(model, filters)
        expected = Comparison(filters)(BATCH + 2).dots
        assert torch.allclose(model[0](BATCH + 2), expected, atol=1e-4)
        assert bool(model[0].bias.abs().max() > 0.1)


def test_the_bias_is_zero_where_one_layer_cannot_do_it():
    model = network()
    initialize(model, SampledPatches(5, (3, 2), random_state=0).fit(IMAGES))
    assert not bool(model[0].bias.any())


def test_a_layer_that_flips_computes_the_same():
    plain, flipped = network(), network(flip_kernel=True)
    for model in (plain, flipped):
        initialize(model, source())
    assert torch.allclose(plain[0](BATCH), flipped[0](BATCH), atol=1e-6)
    assert not torch.equal(plain[0].weight, flipped[0].weight)


def test_a_final_weight_is_followed():
    model = network().eval()
    model[0].freeze()
    with torch.no_grad():
        stale = model[0](BATCH)
        initialize(model, source())
        fresh = model[0](BATCH)
        expected = torch.nn.functional.conv2d(BATCH, torch.from_numpy(source().filters_))
    assert model[0].frozen
    assert torch.allclose(fresh, expected, atol=1e-5)
    assert not torch.allclose(fresh, stale, atol=1e-2)


def test_groups_take_filters_of_their_size_only():
    model = torch.nn.Sequential(nn.Conv2d(6, 4, (3, 2), groups=2))
    with pytest.raises(ShapeError, match="with groups=2 each filter sees 3 of 6 channels"):
        initialize(model, np.zeros((4, 6, 3, 2)))
    filters = np.random.default_rng(0).normal(size=(4, 3, 3, 2))
    initialize(model, filters)
    assert np.array_equal(model[0].weight.detach().numpy(), filters.astype(np.float32))


def test_dtypes_are_the_layers():
    model = network().double()
    initialize(model, source())
    assert model[0].weight.dtype == torch.float64
    frozen = np.ones((5, 3, 3, 2), np.int64)
    frozen.setflags(write=False)
    initialize(model, frozen)
    assert torch.equal(model[0].weight, torch.ones(5, 3, 3, 2, dtype=torch.float64))


BAD = {
    "few": (lambda: [source(), np.zeros((3, 5, 2, 3))], ShapeError, r"layer '2.0' takes .*\(4, 5, 2, 3\).* and the source has \(3, 5, 2, 3\): the number of filters must"),
    "turned": (lambda: [source(), np.zeros((4, 5, 3, 2))], ShapeError, "the height and the width must agree"),
    "flat": (lambda: [source(), np.zeros((4, 30))], ShapeError, r"give real \(K, C, h, w\)"),
    "nan": (lambda: [source(), np.full((4, 5, 2, 3), np.nan)], ArgumentError, "hold 120 values of NaN or infinity"),
    "name": (lambda: {"0": source(), "conv": source()}, ArgumentError, r"the convolution layers of the model are \['0', '2.0'\]"),
    "many": (lambda: [source()] * 3, ArgumentError, "3 sources of filters, and the model has 2 convolutions"),
    "none": (list, ArgumentError, "give at least one"),
    "type": (lambda: [source(), "kmeans"], ArgumentTypeError, "is a str; give a FilterSource or an array"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_nothing_changes_where_something_does_not_fit(case):
    make, error, words = BAD[case]
    model = network()
    before, learns = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    with pytest.raises(error, match=words):
        initialize(model, make())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == learns


def test_what_is_not_fitted_or_frozen_by_a_wrong_name():
    with pytest.raises(ValueError, match="not fitted yet"):
        initialize(network(), RandomFilters(5, (3, 2)))
    for frozen in ("0", ["2.0"]):
        with pytest.raises(ArgumentError, match="list of names among"):
            initialize(network(), source(), frozen=frozen)


def test_weights_that_are_not_a_layers_own_are_refused():
    normed = torch.nn.Sequential(parametrizations.weight_norm(torch.nn.Conv2d(3, 5, (3, 2))))
    with pytest.raises(UnsupportedError, match="computed by a parametrization"):
        initialize(normed, source())
    lazy = torch.nn.Sequential(nn.LazyConv2d(5, (3, 2)))
    with pytest.raises(UnsupportedError, match="lazy"):
        initialize(lazy, source())
    shared = torch.nn.Sequential(nn.Conv2d(3, 5, (3, 2)), nn.Conv2d(3, 5, (3, 2)))
    shared[1].weight = shared[0].weight
    with pytest.raises(UnsupportedError, match="'0' and '1' share one weight"):
        initialize(shared, [source(), source()])
