"""Pooling in feature space and over learned rectangles: identities, brute force, optimality, and a label that one rectangle carries."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn import ConvFeatures, GridPool, KMeansFilters, clusters
from ninefold.learn.regions import ClusterPool, LearnedRegions, rectangles


def integers(*shape, low=0, high=9, seed=0):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed)).float()


def blobs(*shape, seed=0):
    """Maps of positions that belong to one of three kinds."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, 3, (shape[0], 1, *shape[2:]), generator=generator)
    return 10.0 * kinds * torch.arange(1, shape[1] + 1).view(1, -1, 1, 1) + integers(*shape, high=3, seed=seed)


@pytest.mark.parametrize("operation", ["sum", "mean", "max"])
def test_one_bin_is_ordinary_pooling(operation):
    maps = blobs(4, 3, 7, 5)
    found = ClusterPool(1, (2, 3), operation, random_state=0).fit([maps])(maps)
    assert torch.equal(found, GridPool((2, 3), operation)(maps))


def pooled(operation, maps, grid=(3, 2), **arguments):
    """Return the pool and ``(B, cells, P, F)``."""
    pool = ClusterPool(3, grid, operation, random_state=1, **arguments).fit([maps])
    return pool, pool(maps).reshape(len(maps), grid[0] * grid[1], 3, maps.shape[1])


def test_over_bins_maxima_and_sums_are_those_of_ordinary_pooling():
    maps = blobs(4, 2, 7, 5)
    for operation, over in (("max", lambda h: h.amax(2)), ("sum", lambda h: h.sum(2)), ("mean", lambda h: h.sum(2))):
        _, found = pooled(operation, maps)
        assert torch.allclose(over(found).flatten(1), GridPool((3, 2), operation)(maps), rtol=1e-6), operation


def test_means_of_bins_weighted_by_their_counts_are_the_ordinary_mean():
    maps = blobs(4, 2, 7, 5)
    pool, found = pooled("mean", maps, divisor="bin")
    kinds = torch.stack([pool.bins(maps) == p for p in range(3)], 1).float()
    shares = GridPool((3, 2), "mean")(kinds).reshape(4, 6, 3, 1)
    assert torch.allclose((shares * found).sum(2).flatten(1), GridPool((3, 2), "mean")(maps), rtol=1e-5)


@pytest.mark.parametrize("operation", ["sum", "mean", "max"])
@pytest.mark.parametrize("divisor", ["cell", "bin"])
def test_it_is_its_definition_and_empty_bins_are_zero(operation, divisor):
    maps = blobs(3, 2, 5, 7) - 4
    pool, found = pooled(operation, maps, (2, 3), divisor=divisor)
    where, empty = pool.bins(maps), 0
    for n in range(3):
        for m, (top, bottom, left, right) in enumerate(pool.regions(5, 7)):
            for p in range(3):
                codes = maps[n, :, top:bottom, left:right][:, where[n, top:bottom, left:right] == p]
                empty += codes.shape[1] == 0
                if codes.shape[1] == 0:
                    expected = torch.zeros(2)
                elif operation == "max":
                    expected = codes.amax(1)
                else:
                    by = {"sum": 1, "mean": codes.shape[1] if divisor == "bin" else (bottom - top) * (right - left)}[operation]
                    expected = codes.sum(1) / by
                assert torch.allclose(found[n, m, p], expected)
    assert empty > 0


def test_bins_are_the_kinds_that_there_are():
    maps = blobs(5, 2, 6, 7)
    pool, _ = pooled("max", maps)
    kinds = (maps[:, 0] / 10).floor().long()
    where = pool.bins(maps)
    assert len(torch.unique(torch.stack([kinds.flatten(), where.flatten()]), dim=1).T) == 3
    gaps = torch.cdist(maps.movedim(1, -1).flatten(0, 2), torch.from_numpy(pool.centres_))
    assert torch.equal(gaps.argmin(1), where.flatten())


def test_the_order_of_positions_in_a_cell_does_not_matter():
    maps = blobs(4, 2, 6, 5)
    pool, _ = pooled("max", maps, (1, 1))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    mixed = maps.flatten(2)[:, :, order].reshape(maps.shape)
    assert torch.equal(pool(maps), pool(mixed))


def test_bins_may_come_from_other_descriptors():
    codes, descriptors = integers(4, 5, 6, 7), blobs(4, 2, 6, 7)
    pool = ClusterPool(3, 2, "sum", random_state=0).fit([descriptors])
    found = pool.pool(codes, descriptors).reshape(4, 4, 3, 5)
    assert torch.equal(found.sum(2).flatten(1), GridPool(2, "sum")(codes))
    with pytest.raises(ShapeError, match="different positions"):
        pool.pool(codes, descriptors[:, :, :5])
    with pytest.raises(ShapeError, match="have 5 channels, and those before had 2"):
        pool(codes)


def test_maps_come_in_parts_of_any_size_and_what_is_learned_is_the_same_again():
    parts = [blobs(4, 2, 6, 7), blobs(3, 2, 5, 9, seed=1)]
    pool = ClusterPool(3, 2, n_samples=50, random_state=0)
    first = clone(pool).fit(iter(parts))
    assert np.array_equal(first.centres_, clone(pool).fit(parts).centres_)
    assert torch.equal(pickle.loads(pickle.dumps(first))(parts[1]), first(parts[1]))
    assert first(parts[0]).shape == (4, 4 * 3 * 2)
    assert first.names()[:4] == ["r0c0b0", "r0c0b1", "r0c0b2", "r0c1b0"]


def test_an_interrupt_keeps_the_bins_and_learning_goes_on(monkeypatch):
    maps, calls, true = blobs(6, 2, 6, 7), [], clusters._iterated

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return true(*arguments)

    monkeypatch.setattr(clusters, "_iterated", interrupted)
    pool = ClusterPool(3, random_state=3)
    with pytest.raises(KeyboardInterrupt):
        pool.fit([maps])
    reached = pool.centres_.copy()
    pool.partial_fit([maps] * 5)
    assert pool.centres_.shape == reached.shape == (3, 2)
    assert not np.array_equal(pool.centres_, reached)
    assert pool(maps).shape == (6, 6)


def test_fewer_kinds_than_bins_are_said():
    with pytest.warns(UserWarning, match="clusters=4 bins cannot be made of 2 different descriptors: there will be 2"):
        pool = ClusterPool(4, random_state=0).fit([torch.tensor([[[[1.0, 2.0, 1.0]]]])])
    assert pool.names() == ["r0c0b0", "r0c0b1"]
    with pytest.warns(UserWarning, match="there will be 1"):
        assert ClusterPool(4).fit([torch.ones(2, 3, 4, 5)])(torch.ones(2, 3, 4, 5)).shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "maps", "words"),
    [
        ({"clusters": 0}, [torch.ones(1, 1, 2, 3)], "clusters=0 must be at least 1"),
        ({"operation": "median"}, [torch.ones(1, 1, 2, 3)], "operation='median'"),
        ({"divisor": "all"}, [torch.ones(1, 1, 2, 3)], "divisor='all'"),
        ({}, [], "there are no maps"),
        ({}, [torch.full((1, 1, 2, 3), float("nan"))], "hold 6 values of NaN"),
        ({}, [torch.ones(2, 3)], r"must have shape \(B, F, h, w\), got \(2, 3\)"),
        ({}, [torch.ones(1, 2, 2, 3), torch.ones(1, 3, 2, 3)], "have 3 channels, and those before had 2"),
    ],
)
def test_bad_input_of_bins(arguments, maps, words):
    with pytest.raises((ArgumentError, ShapeError), match=words):
        ClusterPool(**arguments).fit(maps)


def test_there_are_as_many_rectangles_as_pairs_of_edges():
    assert len(set(rectangles(4, 4))) == 100
    assert len(set(rectangles(2, 2))) == 9
    assert len(set(rectangles(2, 3))) == 3 * 6


@pytest.mark.parametrize("operation", ["sum", "mean", "max"])
def test_rectangles_pool_as_positions_do(operation):
    maps = integers(5, 3, 9, 7, low=-9)
    pool = LearnedRegions(grid=(3, 2), operation=operation)
    pool.n_codes_, pool.selected_ = 3, [(code, *region) for region in rectangles(3, 2) for code in range(3)]
    lines, columns, found = [0, 3, 6, 9], [0, 4, 7], pool(maps)
    reduce = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax}[operation]
    for k, (code, top, bottom, left, right) in enumerate(pool.selected_):
        expected = reduce(maps[:, code, lines[top] : lines[bottom], columns[left] : columns[right]], (1, 2))
        assert torch.allclose(found[:, k], expected, rtol=1e-6, atol=0), pool.names()[k]
        assert operation == "mean" or torch.equal(found[:, k], expected)


def task(region, code, n=300, seed=0):
    """Maps of noise; the label is whether one code is strong within one rectangle, the noise outside hides it in any other."""
    top, bottom, left, right = region
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(n, 4, 8, 12, generator=generator)
    total = maps[:, code, 2 * top : 2 * bottom, 3 * left : 3 * right].sum((1, 2))
    return maps, (total > total.median()).numpy()


@pytest.mark.parametrize("operation", ["sum", "mean"])
@pytest.mark.parametrize("region", [(1, 3, 0, 2), (0, 1, 3, 4), (2, 4, 1, 4)])
def test_the_rectangle_that_carries_the_label_is_selected_first(operation, region):
    maps, labels = task(region, code=2)
    pool = LearnedRegions(3, operation=operation).fit(maps.split(70), labels)
    assert pool.selected_[0] == (2, *region)
    right = (pool.decision_function(maps).argmax(1).numpy() == labels).mean()
    assert right > 0.97


def test_the_rectangle_of_a_maximum_is_selected_first():
    maps, _ = task((0, 1, 0, 1), 0)
    maps[:, :, 2:6, :6] *= 0.5
    labels = np.arange(300) % 2
    rows = torch.randint(2, 6, (300,), generator=torch.Generator().manual_seed(1))
    columns = torch.randint(0, 6, (300,), generator=torch.Generator().manual_seed(2))
    maps[torch.arange(300), 3, rows, columns] = torch.from_numpy(0.2 + 0.7 * labels).float()
    pool = LearnedRegions(1, operation="max").fit([maps], labels)
    assert pool.selected_ == [(3, 1, 3, 0, 2)]


def classes_of_three(n=240):
    maps = torch.rand(n, 3, 6, 8, generator=torch.Generator().manual_seed(5))
    score = torch.stack([maps[:, 0, :3].sum((1, 2)), maps[:, 1, :, 4:].sum((1, 2)), maps[:, 2, 3:, :4].sum((1, 2)) + 5], 1)
    return maps, np.array(["a", "b", "c"])[score.argmax(1).numpy()]


def objective(pool, weights, bias, rows, labels):
    targets = torch.from_numpy(np.searchsorted(pool.classes_, labels))
    loss = torch.nn.functional.cross_entropy(rows @ weights + bias, targets)
    return loss + pool.l2 * weights.square().sum() + pool.group * weights.norm(dim=1).sum()


def test_what_is_fitted_is_optimal_among_what_was_selected_and_nothing_else_would_help():
    maps, labels = classes_of_three()
    pool = LearnedRegions(60, grid=2, operation="sum", group=0.03, l2=1e-3, max_iter=5000).fit([maps], labels)
    rows = (pool(maps).double() - torch.from_numpy(pool.mean_)) / torch.from_numpy(pool.scale_)
    weights = torch.from_numpy(pool.coef_).requires_grad_()
    bias = torch.from_numpy(pool.intercept_).requires_grad_()
    objective(pool, weights, bias, rows, labels).backward()
    assert 1 < len(weights) < 27
    assert float(weights.grad.abs().max()) < 1e-5
    assert float(bias.grad.abs().max()) < 1e-5
    assert 0 < pool.score_ <= 0.03
    every = LearnedRegions(grid=2, operation="sum")
    every.n_codes_, every.selected_ = 3, [(code, *region) for region in rectangles(2, 2) for code in range(3)]
    others = every(maps).double()
    others = (others - others.mean(0)) / others.std(0, unbiased=False)
    targets = torch.from_numpy(labels[:, None] == pool.classes_).double()
    gradient = others.T @ (torch.softmax(rows @ weights.detach() + bias.detach(), 1) - targets) / len(rows)
    norms = {feature: float(g.norm()) for feature, g in zip(every.selected_, gradient, strict=True)}
    left_out = [norm for feature, norm in norms.items() if feature not in pool.selected_]
    assert max(left_out) == pytest.approx(pool.score_, rel=1e-4)
    assert max(left_out) <= 0.03
    assert pool.coef_.shape == (len(pool.selected_), 3)
    assert pool.intercept_.shape == (3,)


def test_without_penalties_the_gradient_at_the_optimum_is_zero():
    maps, labels = classes_of_three(60)
    labels = np.where(np.arange(60) % 4 == 0, "a", labels)  # no hyperplane divides them: weights stay finite
    pool = LearnedRegions(4, grid=2, group=0.0, l2=0.0, operation="sum", max_iter=20_000).fit([maps], labels)
    rows = (pool(maps).double() - torch.from_numpy(pool.mean_)) / torch.from_numpy(pool.scale_)
    weights = torch.from_numpy(pool.coef_).requires_grad_()
    objective(pool, weights, torch.from_numpy(pool.intercept_), rows, labels).backward()
    assert float(weights.grad.abs().max()) < 1e-6


def test_a_large_penalty_leaves_nothing():
    maps, labels = classes_of_three()
    pool = LearnedRegions(5, grid=2, group=2.0).fit([maps], labels)
    assert pool.selected_ == []
    assert pool(maps).shape == (240, 0)
    assert torch.softmax(pool.decision_function(maps), 1)[0].numpy() == pytest.approx(
        [np.mean(labels == c) for c in "abc"], abs=1e-6
    )


def test_features_are_not_kept_twice_and_copies_are_equal():
    maps, labels = classes_of_three()
    pool = LearnedRegions(12, grid=(2, 3), per_round=4).fit(iter(maps.split(50)), labels)
    assert len(set(pool.selected_)) == len(pool.selected_) == len(pool.names()) <= 12
    again = clone(pool).fit([maps], labels)
    assert again.selected_ == pool.selected_
    assert np.allclose(again.coef_, pool.coef_, atol=1e-6)
    assert torch.equal(pickle.loads(pickle.dumps(pool))(maps), pool(maps))


def test_an_interrupt_keeps_what_was_selected_and_selection_goes_on(monkeypatch):
    maps, labels = classes_of_three()
    whole = LearnedRegions(6, grid=2).fit([maps], labels)
    calls, true = [], LearnedRegions._fitted

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return true(self, *arguments)

    monkeypatch.setattr(LearnedRegions, "_fitted", interrupted)
    pool = LearnedRegions(6, grid=2)
    with pytest.raises(KeyboardInterrupt):
        pool.fit([maps], labels)
    assert pool.selected_ == whole.selected_[:2]
    assert pool(maps).shape == (240, 2)
    pool.partial_fit([maps], labels)
    assert pool.selected_ == whole.selected_
    assert np.allclose(pool.coef_, whole.coef_, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "maps", "labels", "words"),
    [
        ({}, [torch.ones(3, 1, 4, 5)], None, "needs labels"),
        ({}, [torch.ones(3, 1, 4, 5)], [1, 1, 1], r"all labels are \[1\]"),
        ({}, [torch.ones(3, 1, 4, 5)], [1.0, np.nan, 0.0], "without NaN"),
        ({}, [torch.ones(3, 1, 4, 5)], [1, 0], "more maps than the 2 labels"),
        ({}, [torch.ones(3, 1, 4, 5)], [1, 0, 1, 1], "3 maps and 4 labels"),
        ({}, [], [1, 0], "0 maps and 2 labels"),
        ({}, [torch.ones(2, 1, 3, 5)], [1, 0], "3x5 positions cannot be cut into 4x4"),
        ({}, [torch.ones(1, 1, 4, 5), torch.ones(1, 2, 4, 5)], [1, 0], "of 1 and of 2 codes are mixed"),
        ({}, [torch.full((2, 1, 4, 5), float("inf"))], [1, 0], "40 values of NaN or infinity"),
        ({"n_features": 0}, [torch.ones(2, 1, 4, 5)], [1, 0], "n_features=0"),
        ({"operation": "l2"}, [torch.ones(2, 1, 4, 5)], [1, 0], "operation='l2'"),
        ({"group": -1.0}, [torch.ones(2, 1, 4, 5)], [1, 0], "group=-1.0 and"),
    ],
)
def test_bad_input_of_regions(arguments, maps, labels, words):
    with pytest.raises((ArgumentError, ShapeError), match=words):
        LearnedRegions(**arguments).fit(maps, labels)


def test_constant_maps_select_nothing_and_other_labels_are_refused():
    pool = LearnedRegions().fit([torch.ones(4, 2, 5, 6)], [0, 1, 0, 1])
    assert pool.selected_ == []
    with pytest.raises(ArgumentError, match=r"labels \[7\] were not among those of fit, \[0, 1\]"):
        pool.partial_fit([torch.ones(2, 2, 5, 6)], [0, 7])
    with pytest.raises(ShapeError, match="have 3 channels, and those before had 2"):
        pool.partial_fit([torch.ones(2, 3, 5, 6)], [0, 1])


@pytest.mark.parametrize("pooling", [ClusterPool(2, 2, random_state=0), LearnedRegions(5, 2)])
def test_both_are_poolings_of_features(pooling):
    images = np.random.default_rng(0).normal(size=(30, 9, 8))
    images[::2, :4] *= 3
    features = ConvFeatures(KMeansFilters(5, 3, random_state=0), pooling=pooling).fit(images, np.arange(30) % 2)
    rows = features.transform(images)
    assert rows.shape == (30, 2 * 4 * 5 if isinstance(pooling, ClusterPool) else len(features.pooling_.names()))
    assert rows.shape[1] == len(set(features.get_feature_names_out()))
    assert rows.dtype == np.float32
    assert not hasattr(pooling, "centres_")
    assert not hasattr(pooling, "selected_")
