"""Convolutional Boltzmann machines on top of one another, against enumeration of both layers and against one layer at a time."""

import pickle
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn.dbn import ConvDBN
from ninefold.learn.rbm import ConvRBM

IMAGES = np.random.default_rng(0).normal(size=(60, 2, 14, 17))


def stack(**arguments):
    below = ConvRBM(4, (3, 2), pool=2, n_epochs=2, random_state=0)
    return ConvDBN(
        [below, ConvRBM(5, (2, 3), pool=2, visible="binary", n_epochs=3, random_state=1)], channels="first", **arguments
    )


@pytest.fixture(scope="module")
def fitted():
    return stack().fit(IMAGES)


def set_machine(rbm, *, sigma=None, scale=1.0, seed=0):
    """Give a fitted machine random weights, so that its layers have something to say."""
    g = torch.Generator("cpu").manual_seed(seed)
    for parameter in (rbm._model.weight, rbm._model.hidden_bias, rbm._model.visible_bias):
        parameter.copy_(torch.randn(parameter.shape, generator=g) * scale)
    if sigma:
        rbm._model.sigma = sigma
    return rbm._model


def states_of(count, height, width, pool):
    places = [(k, i, j) for k in range(count) for i in range(0, height, pool) for j in range(0, width, pool)]
    found = []
    for choice in product(range(pool * pool + 1), repeat=len(places)):
        h = torch.zeros(count, height, width)
        for (k, i, j), state in zip(places, choice, strict=True):
            if state:
                h[k, i + (state - 1) // pool, j + (state - 1) % pool] = 1
        found.append(h)
    return torch.stack(found)


@pytest.fixture(scope="module")
def small():
    """Binary images of 3x4 pixels; 2x4 detectors of one filter in two blocks; above them two detectors of 1x2 pools, each alone."""
    images = (np.random.default_rng(1).random((20, 3, 4)) < 0.5).astype(np.float32)
    below = ConvRBM(1, (2, 1), pool=2, visible="binary", n_epochs=1, random_state=0)
    above = ConvRBM(2, (1, 2), pool=1, visible="binary", n_epochs=1, random_state=0)
    dbn = ConvDBN([below, above]).fit(images)
    return dbn, images, set_machine(dbn.layers_[0], seed=3), set_machine(dbn.layers_[1], seed=4, scale=2.0)


def joint(one, two, v):
    """Return all states of both layers, and their chances given the image, by the sum of the energies."""
    lower, upper = states_of(1, 2, 4, 2), states_of(2, 1, 1, 1)
    chances = torch.empty(len(lower), len(upper), dtype=torch.float64)
    for a, h in enumerate(lower):
        pools = torch.stack([h[:, :2, :2].sum((1, 2)), h[:, :2, 2:].sum((1, 2))], 1)[:, None]  # (1, 1, 2)
        first = sum(
            float((one.weight[k] * v[:, i : i + 2, j : j + 1]).sum() + one.hidden_bias[k]) for k, i, j in h.nonzero().tolist()
        )
        for b, g in enumerate(upper):
            second = sum(float((two.weight[k] * pools).sum() + two.hidden_bias[k]) for k, _, _ in g.nonzero().tolist())
            chances[a, b] = first + second
    return lower, upper, torch.softmax(chances.flatten(), 0).view(chances.shape)


def test_a_layer_given_its_neighbours_is_that_of_all_states(small):
    dbn, images, one, two = small
    v = torch.from_numpy(images[:1])[:, None]
    lower, upper, chances = joint(one, two, v[0])
    for b, g in enumerate(upper):
        conditional = chances[:, b] / chances[:, b].sum()
        expected = (conditional.float().view(-1, 1, 1, 1) * lower).sum(0)
        found, _ = dbn._update(v, [(None, None), (g[None], None)], 0)
        torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-6)
    a = 7
    pools = torch.stack([lower[a][:, :, :2].sum((1, 2)), lower[a][:, :, 2:].sum((1, 2))], 1)[None, :, None]
    found, _ = dbn._update(v, [(lower[a][None], pools), (None, None)], 1)
    expected = (chances[a] / chances[a].sum()).float().view(-1, 1, 1, 1) * upper
    torch.testing.assert_close(found[0], expected.sum(0), rtol=1e-4, atol=1e-6)


def test_gibbs_sampling_reaches_the_joint_distribution(small):
    dbn, images, one, two = small
    v = torch.from_numpy(images[:1])[:, None]
    lower, upper, chances = joint(one, two, v[0])
    many, generator = v.expand(6000, -1, -1, -1), torch.Generator("cpu").manual_seed(0)
    states = dbn._up(many, generator=generator)
    for _ in range(15):
        for k in (0, 1):
            states[k] = dbn._update(many, states, k, generator=generator)
    torch.testing.assert_close(states[0][0].mean(0), (chances.sum(1).float().view(-1, 1, 1, 1) * lower).sum(0), atol=0.03, rtol=0)
    torch.testing.assert_close(states[1][0].mean(0), (chances.sum(0).float().view(-1, 1, 1, 1) * upper).sum(0), atol=0.03, rtol=0)
    assert bool((states[0][1].sum((2, 3)) == states[0][0].sum((2, 3))).all())


def test_mean_field_is_a_fixed_point_and_starts_from_the_pass_upwards(small):
    dbn, images, _, _ = small
    up = dbn.infer(images, rounds=0)
    one = dbn.layers_[0].infer(images)
    np.testing.assert_allclose(up[0][0], one[0], rtol=1e-5)
    settled = dbn.infer(images, rounds=60)
    assert np.abs(settled[0][0] - up[0][0]).max() > 0.01  # the layer above has a say
    for (h, p), (g, q) in zip(settled, dbn.infer(images, rounds=61), strict=True):
        np.testing.assert_allclose(h, g, atol=1e-4)
        np.testing.assert_allclose(p, q, atol=1e-4)


def test_input_from_above_goes_all_the_way_down(small):
    dbn, images, _, two = small
    forced = dbn.infer(images, rounds=1, top_down=np.full((20, 2, 1, 1), np.inf))
    assert (forced[1][1] == 1).all()
    above = (
        two.weight.sum(0).reshape(1, 1, 1, 2).expand(20, -1, -1, -1)
    )  # both units are on: the adjoint is the sum of their weights
    np.testing.assert_allclose(forced[0][1], dbn.layers_[0].infer(images, above.numpy())[1], rtol=1e-4, atol=1e-6)


def test_each_layer_learns_from_the_one_below(fitted):
    below = clone(fitted.layers[0]).set_params(channels="first").fit(IMAGES)
    pools = below.infer(IMAGES)[1]
    above = clone(fitted.layers[1]).set_params(channels="first").fit(pools)
    np.testing.assert_array_equal(fitted.layers_[0].filters_, below.filters_)
    np.testing.assert_array_equal(fitted.layers_[1].filters_, above.filters_)
    top = above.infer(pools)[1]
    np.testing.assert_allclose(fitted.transform(IMAGES), top.reshape(60, -1), rtol=1e-5)  # trimmed at once or layer by layer
    assert not hasattr(fitted.layers[0], "filters_")


def test_what_is_trimmed_is_what_the_layers_would_trim(fitted):
    """14x17 pixels: 12x16 detectors, 6x8 pools; 5x6 detectors above, of which 4x6 fill blocks. The last row of pools is lost."""
    detectors, pools = fitted.infer(IMAGES[:3], rounds=0)[0]
    assert detectors.shape == (3, 4, 10, 16)
    assert fitted.infer(IMAGES[:3])[1][1].shape == (3, 5, 2, 3)
    np.testing.assert_array_equal(detectors, fitted.layers_[0].infer(IMAGES[:3, :, :12])[0])
    assert pools.shape == (3, 4, 5, 8)
    assert fitted.reconstruct(IMAGES[:3]).shape == (3, 2, 12, 17)


def test_what_is_lost_at_the_beginning_counts_in_pixels():
    """Of 6 columns of detectors above, 4 fill a block: one column of pools, two of pixels, is lost on the left."""
    above = ConvRBM(3, (2, 3), pool=4, visible="binary", n_epochs=1, random_state=0)
    dbn = ConvDBN([ConvRBM(4, (3, 2), n_epochs=1, random_state=0), above], channels="first").fit(IMAGES)
    top = dbn.layers_[1].infer(dbn.layers_[0].infer(IMAGES)[1])[1]
    np.testing.assert_allclose(dbn.transform(IMAGES), top.reshape(60, -1), rtol=1e-5)
    np.testing.assert_array_equal(dbn.infer(IMAGES, rounds=0)[0][0], dbn.layers_[0].infer(IMAGES[:, :, :12, 2:15])[0])


def test_reconstruction_from_the_top_uses_what_from_above_and_where_from_below(fitted):
    dbn = pickle.loads(pickle.dumps(fitted))
    one, two = (layer._model for layer in dbn.layers_)
    set_machine(dbn.layers_[0], seed=5)
    two.weight.zero_()
    two.visible_bias.fill_(50.0)  # the top says that all pools are on
    forced = dbn.layers_[0].infer(IMAGES[:3, :, :12], np.full((3, 4, 5, 8), np.inf))[0]
    expected = dbn.layers_[0].pixels(one.visible(torch.from_numpy(forced)))
    np.testing.assert_allclose(dbn.reconstruct(IMAGES[:3]), expected, rtol=1e-4, atol=1e-5)
    two.visible_bias.fill_(-50.0)
    blank = dbn.layers_[0].pixels(one.visible_bias.view(1, -1, 1, 1))
    np.testing.assert_allclose(dbn.reconstruct(IMAGES[:3]), np.broadcast_to(blank, (3, 2, 12, 17)), rtol=1e-4, atol=1e-5)


def test_filters_in_pixels_are_sums_of_those_below(fitted):
    np.testing.assert_array_equal(fitted.filters_of(0), fitted.layers_[0].atoms_)
    found = fitted.filters_of(1)
    assert found.shape == (5, 2, 6, 7)  # 2x3 pools of 2x2 detectors of 3x2 pixels
    expected = np.zeros_like(found)
    for k, c, i, j in product(range(5), range(4), range(2), range(3)):
        expected[k, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 2] += fitted.layers_[1].atoms_[k, c, i, j] * fitted.layers_[0].atoms_[c]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_samples(fitted):
    made = fitted.sample(3, (14, 17), n_steps=4, random_state=0)
    assert made.shape == (3, 2, 12, 17)
    assert np.array_equal(made, fitted.sample(3, (14, 17), n_steps=4, random_state=0))
    assert np.isfinite(made).all()
    started = fitted.sample(start=IMAGES[:3], n_steps=1, random_state=0)
    assert started.shape == (3, 2, 12, 17)
    assert not np.array_equal(started, made)


def test_layers_may_be_three_and_images_of_several_sizes():
    g = np.random.default_rng(0)
    images = [g.normal(size=(25, 20)), g.normal(size=(19, 31)), g.normal(size=(25, 20))]
    above = {"visible": "binary", "n_epochs": 1, "random_state": 0}
    dbn = ConvDBN([ConvRBM(3, (4, 3), n_epochs=1), ConvRBM(4, 2, **above), ConvRBM(2, (2, 1), pool=1, **above)]).fit(images)
    states = dbn.infer(np.stack([images[0], images[2]]))
    assert [p.shape for _, p in states] == [(2, 3, 11, 9), (2, 4, 5, 4), (2, 2, 4, 4)]
    with pytest.raises(ShapeError, match="are mixed; give those of one size"):
        dbn.transform(images)


def test_it_works_in_a_pipeline():
    images, labels = load_digits(return_X_y=True)
    images, labels = images[:300].reshape(-1, 8, 8), labels[:300]
    below = ConvRBM(16, 3, sigma=0.4, sparsity=0.05, n_epochs=4, random_state=0)
    above = ConvRBM(24, 2, pool=1, visible="binary", sparsity=0.06, n_epochs=8, random_state=0)
    model = make_pipeline(ConvDBN([below, above]), StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
    model.fit(images[:200], labels[:200])
    assert model.score(images[200:], labels[200:]) > 0.4
    copy = pickle.loads(pickle.dumps(model))
    assert np.array_equal(copy.predict(images), model.predict(images))
    assert isinstance(clone(model)[0].layers[1], ConvRBM)


def test_every_feature_has_the_name_of_its_unit(fitted):
    names = fitted.get_feature_names_out()
    pools = fitted.infer(IMAGES[:4], rounds=0)[1][1]
    rows = fitted.transform(IMAGES[:4])
    assert (fitted.image_size_, pools.shape[1:]) == ((14, 17), (5, 2, 3))
    assert len(set(names)) == len(names) == rows.shape[1]
    for k, i, j in product(range(5), range(2), range(3)):
        (column,) = np.flatnonzero(names == f"r{i}c{j}_filter{k}")
        np.testing.assert_allclose(rows[:, column], pools[:, k, i, j], rtol=1e-5)
    unknown = stack()
    for _ in range(5):
        unknown.partial_fit(iter(IMAGES))
    with pytest.raises(ArgumentError, match="the size of images is unknown"):
        unknown.get_feature_names_out()


def test_as_a_frame(fitted):
    pandas = pytest.importorskip("pandas")
    frame = clone(fitted).set_output(transform="pandas").fit_transform(IMAGES)
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns[:4]) == ["r0c0_filter0", "r0c1_filter0", "r0c2_filter0", "r1c0_filter0"]


@pytest.mark.parametrize("stop", [(0, 1), (0, 2), (1, 2)])
def test_an_interrupt_is_resumed_exactly(fitted, stop):
    def interrupt(layer, done, total):
        assert total == (2, 3)[layer]
        if (layer, done) == stop:
            raise KeyboardInterrupt

    dbn = stack(progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        dbn.fit(IMAGES)
    dbn.progress = None
    for _ in range(5 - (2 * stop[0] + stop[1])):
        dbn.partial_fit(IMAGES)
    for k in (0, 1):
        assert dbn.layers_[k].n_epochs_ == (2, 3)[k]
        np.testing.assert_array_equal(dbn.layers_[k].filters_, fitted.layers_[k].filters_)
    assert dbn.partial_fit(iter(IMAGES)).layers_[1].n_epochs_ == 4


def test_bad_input_is_one_sentence(fitted):
    with pytest.raises(ArgumentTypeError, match=r"layers=\[\] must be a list of at least one ConvRBM"):
        ConvDBN([]).fit(IMAGES)
    with pytest.raises(ArgumentTypeError, match="layer 1 is 7, not a ConvRBM"):
        ConvDBN([ConvRBM(), 7]).fit(IMAGES)
    with pytest.raises(ArgumentError, match="layer 1 sees pooling units.*visible='gaussian' must be 'binary'"):
        ConvDBN([ConvRBM(), ConvRBM()]).fit(IMAGES)
    with pytest.raises(ArgumentError, match="an iterator cannot be read"):
        stack().fit(iter(IMAGES))
    with pytest.raises(NotFittedError):
        stack().transform(IMAGES)
    with pytest.raises(ArgumentError, match="1 of 2 layers have been learned"):
        stack().partial_fit(IMAGES).transform(IMAGES)
    with pytest.raises(ShapeError, match="do not hold one block"):
        fitted.transform(IMAGES[:, :, :5])
    with pytest.raises(ArgumentError, match="rounds=-1 must be"):
        fitted.infer(IMAGES, rounds=-1)
    with pytest.raises(ArgumentError, match="layer=2 is not one of the 2 layers"):
        fitted.filters_of(2)
    with pytest.raises(ShapeError, match=r"top_down has shape \(60, 5, 1, 1\); for 60 images it must be \(60, 5, 2, 3\)"):
        fitted.infer(IMAGES, top_down=np.zeros((60, 5, 1, 1)))
