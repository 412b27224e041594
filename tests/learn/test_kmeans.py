import pickle
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans

from ninefold import nn
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn import KMeansFilters, RandomFilters, SampledPatches
from ninefold.learn import kmeans as module

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(40, 9, 8, 2)) * [1.0, 3.0] + 20


def test_centroids_are_means_of_their_members():
    source = KMeansFilters(6, (3, 2), n_patches=500, max_iter=300, random_state=0).fit(IMAGES)
    assert source.filters_.shape == source.atoms_.shape == (6, 2, 3, 2)
    assert source.filters_.dtype == np.float32
    from ninefold.learn import Images
    from ninefold.learn.patches import draw_patches

    rows = source.preparation_(draw_patches(Images(IMAGES), (3, 2), 500, 0)).numpy()
    atoms = source.atoms_.reshape(6, -1)
    nearest = ((rows[:, None] - atoms) ** 2).sum(-1).argmin(1)
    for k in range(6):
        np.testing.assert_allclose(atoms[k], rows[nearest == k].mean(0), atol=0.05)
    assert source.inertia_ == pytest.approx(((rows - atoms[nearest]) ** 2).sum(), rel=1e-3)
    assert source.inertia_ < 1.1 * KMeans(6, n_init=5, random_state=0).fit(rows).inertia_


def test_double_and_empty_centroids_are_revived():
    """Two images of few values: most patches are alike, and scikit-learn alone leaves centroids double."""
    flat = np.zeros((30, 8, 9))
    flat[::2, 3, 4] = 1.0
    flat[::3, 6, 2] = 2.0
    source = KMeansFilters(12, 3, contrast=None, whitening=None, random_state=0).fit(flat)
    atoms = source.atoms_.reshape(len(source.atoms_), -1)
    assert len(np.unique(atoms, axis=0)) == len(atoms) == 12
    assert np.isfinite(source.filters_).all()


@pytest.mark.parametrize("kind", [KMeansFilters, SampledPatches])
def test_fewer_patches_than_filters_are_clipped_with_a_word(kind):
    with pytest.warns(UserWarning, match=r"n_filters=50 filters cannot be learned from 12 patches: there will be 12"):
        source = kind(50, 3, random_state=0).fit(RNG.normal(size=(2, 4, 5)))
    assert source.filters_.shape == (12, 1, 3, 3)


@pytest.mark.parametrize("kind", [KMeansFilters, SampledPatches, RandomFilters])
def test_constant_images_give_finite_filters(kind):
    warned = pytest.warns(UserWarning, match="from 1 patches: there will be 1") if kind is KMeansFilters else nullcontext()
    with warned:
        source = kind(4, 3, random_state=0).fit(np.full((3, 6, 7), 128, np.uint8))
    assert np.isfinite(source.filters_).all()


def test_the_seed_decides_and_the_global_one_is_left_alone():
    state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    first, second, other = (KMeansFilters(6, 3, n_patches=300, random_state=s).fit(IMAGES) for s in (1, 1, 2))
    assert np.array_equal(first.filters_, second.filters_)
    assert not np.array_equal(first.filters_, other.filters_)
    assert np.array_equal(np.random.get_state()[1], state)
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_partial_fit_learns_what_fit_learns():
    whole = KMeansFilters(6, (3, 2), n_patches=2000, random_state=0).fit(IMAGES)
    parts = KMeansFilters(6, (3, 2), n_patches=2000, random_state=0)
    for _ in range(5):
        for k in range(0, 40, 10):
            parts.partial_fit(IMAGES[k : k + 10])

    def error(source):
        from ninefold.learn import Images
        from ninefold.learn.patches import draw_patches

        rows = whole.preparation_(draw_patches(Images(IMAGES), (3, 2), 2000, 0)).numpy()
        return ((rows[:, None] - source.atoms_.reshape(6, -1)) ** 2).sum(-1).min(1).sum()

    assert error(parts) < 1.15 * error(whole)


class Stop:
    """Interrupts learning when progress is told for the n-th time, and keeps what was told."""

    def __init__(self, at=None):
        self.at, self.told = at, []

    def __call__(self, done, total):
        self.told.append((done, total))
        if len(self.told) == self.at:
            raise KeyboardInterrupt


def slow(**how):
    return KMeansFilters(9, (3, 2), n_patches=1500, contrast=None, whitening=None, max_iter=35, **how)


WIDE = np.exp(2 * RNG.normal(size=(40, 9, 8, 2)))
"""Images of small and large values: their patches are rounded each time that scikit-learn takes the mean out."""


def test_iterations_in_chunks_are_those_of_one_run(monkeypatch):
    source = slow(random_state=0).fit(IMAGES)
    assert 20 < source.n_iter_ <= 35
    assert len(source.history_["error"]) == -(-source.n_iter_ // 10)
    monkeypatch.setattr(module, "_CHUNK", 1000)
    whole = slow(random_state=0).fit(IMAGES)
    assert len(whole.history_["error"]) == 1
    np.testing.assert_allclose(source.atoms_, whole.atoms_, rtol=1e-4)


def test_patches_are_never_copied(monkeypatch):
    places, real = set(), KMeans.fit

    def fit(self, rows):
        places.add(rows.__array_interface__["data"][0])
        assert not self.copy_x
        fitted = real(self, rows)
        assert rows.flags.c_contiguous
        assert rows.dtype == np.float32
        return fitted

    monkeypatch.setattr(KMeans, "fit", fit)
    assert len(slow(random_state=0).fit(IMAGES).history_["error"]) > 2
    assert len(places) == 1


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("seed", [0, None])
def test_an_interrupted_fit_goes_on_as_if_nothing_had_been(at, seed, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 3)
    if seed is None:
        seeds = iter([5, 6, 7])
        monkeypatch.setattr(module, "seed_of", lambda _: next(seeds))
    source = slow(random_state=seed, warm_start=True, progress=(stop := Stop(at)))
    with pytest.raises(KeyboardInterrupt):
        source.fit(WIDE)
    assert stop.told == [(3 * k, 35) for k in range(1, at + 1)]
    assert source.n_iter_ == 3 * at
    reached = source.atoms_.copy()
    again = pickle.loads(pickle.dumps(source.set_params(progress=None))).fit(WIDE)
    if seed is None:
        seeds = iter([5])
    whole = slow(random_state=seed, progress=(stop := Stop())).fit(WIDE)
    assert np.array_equal(again.filters_, whole.filters_)
    assert not np.array_equal(again.atoms_, reached)
    assert again.history_ == whole.history_
    assert (again.inertia_, again.n_iter_, again.revived_) == (whole.inertia_, whole.n_iter_, whole.revived_)
    assert [done for done, _ in stop.told] == [*range(3, whole.n_iter_, 3), whole.n_iter_]


def test_how_scikit_learn_leaves_the_rows_is_known():
    rows = WIDE.reshape(-1, 6).astype(np.float32)
    before = rows.copy()
    KMeans(3, n_init=1, max_iter=1, copy_x=False, random_state=0).fit(rows)
    assert not np.array_equal(rows, before)
    module._rounded(before)
    assert np.array_equal(rows, before)


def test_interrupts_among_centroids_that_are_replaced(monkeypatch):
    def revived(means, rows):
        centres = means.cluster_centers_.copy()
        centres[0] = rows[means.n_iter_]
        return centres, 1

    monkeypatch.setattr(module, "_revived", revived)
    whole = slow(random_state=0, progress=(stop := Stop())).fit(IMAGES)
    assert whole.revived_ == 5
    assert len(stop.told) > 6
    for at in range(1, len(stop.told) + 1):
        source = slow(random_state=0, progress=Stop(at))
        with pytest.raises(KeyboardInterrupt):
            source.fit(IMAGES)
        source.set_params(progress=None)._resume(IMAGES)
        assert np.array_equal(source.filters_, whole.filters_)
        assert (source.revived_, source.n_iter_, source.history_) == (5, whole.n_iter_, whole.history_)


def test_a_warm_start_after_a_finished_fit_begins_at_its_centroids():
    first = slow(random_state=0, warm_start=True).fit(IMAGES)
    preparation, passes, inertia = first.preparation_, len(first.history_["error"]), first.inertia_
    first.fit(IMAGES)
    assert first.preparation_ is preparation
    assert len(first.history_["error"]) > passes
    assert first.inertia_ <= inertia * (1 + 1e-6)
    with pytest.raises(ArgumentError, match="n_filters=8, but 9 are to start warm"):
        clone(first).fit(IMAGES).set_params(n_filters=8).fit(IMAGES)
    with pytest.raises(ShapeError, match=r"patches of shape \(1, 3, 2\), but the centroids so far have \(2, 3, 2\)"):
        first.fit(IMAGES[..., 0])
    assert np.array_equal(first.set_params(warm_start=False).fit(IMAGES).filters_, slow(random_state=0).fit(IMAGES).filters_)


def test_partial_fit_goes_on_from_an_interrupted_fit():
    source = slow(random_state=0, progress=Stop(1))
    with pytest.raises(KeyboardInterrupt):
        source.fit(IMAGES)
    reached, preparation = source.inertia_, source.preparation_
    for _ in range(3):
        source.partial_fit(IMAGES)
    assert source.preparation_ is preparation
    assert len(source.history_["error"]) == 4
    assert source.minibatch_.inertia_ < reached * 1.01


def test_fit_after_partial_fit_forgets_the_mini_batches():
    source = slow(random_state=0).partial_fit(IMAGES * 3 + 50)
    fitted = source.fit(IMAGES).filters_.copy()
    assert np.array_equal(fitted, slow(random_state=0).fit(IMAGES).filters_)
    assert not hasattr(source, "minibatch_")
    source.partial_fit(IMAGES)
    assert np.array_equal(source.filters_, slow(random_state=0).fit(IMAGES).partial_fit(IMAGES).filters_)
    assert 0 < np.abs(source.filters_ - fitted).max() < 1.0
    with pytest.raises(ShapeError, match=r"patches of shape \(1, 3, 2\)"):
        source.partial_fit(IMAGES[..., 0])


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "orthogonal"])
def test_random_filters(kind):
    source = RandomFilters(30, (3, 4), kind=kind, zero_mean=False, random_state=0).fit(IMAGES)
    rows = source.filters_.reshape(30, -1)  # of 24 values
    assert source.filters_.shape == (30, 2, 3, 4)
    assert (rows**2).sum(1).mean() == pytest.approx(1, abs=0.15)
    if kind == "orthogonal":
        np.testing.assert_allclose(rows[:24] @ rows[:24].T, np.eye(24), atol=1e-5)
        np.testing.assert_allclose(rows[24:] @ rows[24:].T, np.eye(6), atol=1e-5)
    centred = RandomFilters(30, (3, 4), kind=kind, random_state=0).fit(IMAGES)
    np.testing.assert_allclose(centred.filters_.sum((1, 2, 3)), 0, atol=1e-5)


def test_sampled_patches_are_prepared_patches():
    source = SampledPatches(9, (3, 2), n_patches=400, normalise=True, random_state=0).fit(IMAGES)
    np.testing.assert_allclose(np.linalg.norm(source.atoms_.reshape(9, -1), axis=1), 1, rtol=1e-5)
    plain = SampledPatches(9, (3, 2), contrast=None, whitening=None, random_state=0).fit(IMAGES)
    there = {
        IMAGES[n, i : i + 3, j : j + 2].transpose(2, 0, 1).astype(np.float32).tobytes()
        for n in range(40)
        for i in range(7)
        for j in range(7)
    }
    assert {atom.tobytes() for atom in plain.atoms_} <= there
    assert np.array_equal(plain.atoms_, plain.filters_)


def test_a_layer_has_the_filters():
    source = SampledPatches(5, (3, 2), random_state=0).fit(IMAGES)
    state = torch.get_rng_state()
    layer = source.to_layer(stride=2, padding=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(layer) is nn.Conv2d
    assert np.array_equal(layer.weight.detach().numpy(), source.filters_)
    layer.weight.data.zero_()
    assert source.filters_.any()


@pytest.mark.parametrize(
    ("how", "error", "match"),
    [
        ({"n_filters": 0}, ArgumentError, "n_filters=0 must be at least 1"),
        ({"n_filters": 2.5}, ArgumentTypeError, "n_filters=2.5 must be a whole number, not float"),
        ({"patch_size": (3, 2, 1)}, ArgumentError, "must be one whole number or two"),
        ({"patch_size": 0}, ArgumentError, "patch_size=0"),
        ({"whitening": 0.0}, ArgumentError, "must be above 0"),
        ({"n_patches": True}, ArgumentTypeError, "n_patches=True"),
        ({"max_iter": 0}, ArgumentError, "max_iter=0"),
        ({"channels": "middle"}, ArgumentError, "channels='middle'"),
    ],
)
def test_what_is_refused(how, error, match):
    source = KMeansFilters(4, 3, random_state=0).set_params(**how)
    with pytest.raises(error, match=match):
        source.fit(IMAGES)
    assert not hasattr(source, "filters_")
    assert clone(source).get_params() == source.get_params()
