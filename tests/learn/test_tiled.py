"""Tiled filters learned by topographic independent component analysis (Le et al. 2010)."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from ninefold import functional as F
from ninefold import nn
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn import ConvFeatures, TiledICA
from ninefold.learn.patches import Preparation
from ninefold.learn.tica import TICA, orthonormal, tangent

HOW = {
    "n_filters": 5,
    "patch_size": (3, 4),
    "period": (2, 3),
    "pool": (3, 2),
    "n_epochs": 3,
    "n_crops": 200,
    "batch_size": 50,
    "random_state": 0,
}


def pictures(n=12, height=17, width=19, channels=2, seed=0):
    """Edges at random places on a smooth ground, so that responses are sparse and patches correlated."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, channels, height, width)).cumsum(2).cumsum(3) * 0.1
    for k in range(n):
        x[k, :, rng.integers(height) :, rng.integers(width) :] += 3 * rng.normal()
        x[k, 0, rng.integers(height)] += 2
    return x * 10 + 100


def random_model(period=(2, 3), pool=(3, 2), count=4, epsilon=0.01, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(24, 24, generator=g, dtype=dtype)
    whitening = Preparation(torch.randn(24, generator=g, dtype=dtype), a @ a.T / 24, float("inf"))
    return TICA(torch.randn(count, *period, 2, 3, 4, generator=g, dtype=dtype), whitening, pool, epsilon)


def random_images(n=3, height=10, width=9, dtype=torch.float64, seed=1):
    return torch.randn(n, 2, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(scope="module")
def fitted():
    return TiledICA(**HOW).fit(pictures())


# The definition


def test_pooled_responses_are_those_of_the_definition(fitted):
    """Patch by patch: prepared, compared with the atom whose turn it is, squared, summed over windows."""
    images = pictures(2, 8, 10, seed=5)
    atoms = fitted.atoms_.reshape(5, 2, 3, 24)
    simple = np.zeros((2, 5, 6, 7))
    for i, j in np.ndindex(6, 7):
        patch = torch.from_numpy(images[:, :, i : i + 3, j : j + 4]).float()
        simple[:, :, i, j] = fitted.preparation_(patch).numpy() @ atoms[:, i % 2, j % 3].T
    expected = np.zeros((2, 5, 4, 6))
    for i, j in np.ndindex(4, 6):
        expected[:, :, i, j] = np.sqrt(0.01 + np.square(simple[:, :, i : i + 3, j : j + 2]).sum((2, 3)))
    np.testing.assert_allclose(fitted.pooled(images), expected, rtol=1e-4)
    np.testing.assert_array_equal(fitted.transform(images), fitted.pooled(images).reshape(2, -1))
    strided = clone(fitted).set_params(stride=2).fit(pictures())
    np.testing.assert_allclose(strided.pooled(images), expected[:, :, ::2, ::2], rtol=1e-4)


def test_the_layer_gives_the_simple_responses(fitted):
    images = torch.from_numpy(pictures(2, 9, 11, seed=5)).float()
    layer = fitted.to_layer()
    assert isinstance(layer, nn.TiledConv2d)
    with torch.no_grad():
        expected = fitted._model.simple(fitted._standardised(images), fitted._model.atoms)
        torch.testing.assert_close(layer(images), expected, rtol=1e-3, atol=2e-4)
        bare = fitted.to_layer(bias=False, padding=1)
        assert bare.bias is None
        assert torch.equal(bare.weight, layer.weight)
        assert bare(images).shape == (2, 5, 9, 10)
    with pytest.raises(ArgumentError, match="bias='channel'.*one for every filter"):
        fitted.to_layer(bias="channel")


def test_the_union_of_filters_is_in_the_order_of_the_layer(fitted):
    """One convolution with all filters holds what the tiled layer takes from it in turns."""
    images = torch.from_numpy(pictures(2, 9, 11, seed=5)).float()
    with torch.no_grad():
        tiled = fitted.to_layer(bias=False)(images)
        every = F.conv2d(images, torch.from_numpy(fitted.filters_)).unflatten(1, (5, 2, 3))
    for i, j in np.ndindex(7, 8):
        torch.testing.assert_close(tiled[..., i, j], every[:, :, i % 2, j % 3, i, j], rtol=1e-4, atol=1e-4)


def test_period_one_is_a_convolution():
    source, images = TiledICA(**{**HOW, "period": 1}).fit(pictures()), pictures(3, 9, 8, seed=7)
    assert source.filters_.shape == (5, 2, 3, 4)
    x = torch.from_numpy(images).float() - source.mean_
    off = torch.from_numpy(source.filters_).flatten(1) @ (source.preparation_.mean - source.mean_)
    simple = F.conv2d(x, torch.from_numpy(source.filters_)) - off.view(-1, 1, 1)
    expected = torch.nn.functional.lp_pool2d(simple, 2, (3, 2), 1).square().add(0.01).sqrt()
    np.testing.assert_allclose(source.pooled(images), expected.numpy(), rtol=1e-4)
    layer = source.to_layer(bias=False)
    torch.testing.assert_close(layer(x), F.conv2d(x, torch.from_numpy(source.filters_)), rtol=1e-5, atol=1e-4)


def test_a_period_of_the_maps_size_leaves_no_two_positions_alike():
    images = pictures(40, 7, 9)
    source = TiledICA(**{**HOW, "period": (5, 6)}).fit(images)
    assert source.filters_.shape == (5 * 30, 2, 3, 4)
    weight = torch.from_numpy(source.filters_).view(5, 5, 6, 2, 3, 4)
    x = torch.from_numpy(images).float()
    torch.testing.assert_close(source.to_layer(bias=False)(x), F.locally_connected2d(x, weight), rtol=1e-3, atol=1e-3)


def test_shifts_by_the_period_shift_pooled_responses_and_others_do_not(fitted):
    x = pictures(2, 14, 16, seed=3)
    whole = fitted.pooled(x)
    np.testing.assert_allclose(fitted.pooled(x[:, :, 2:, 3:]), whole[:, :, 2:, 3:], rtol=1e-4)
    assert np.abs(fitted.pooled(x[:, :, 1:]) - whole[:, :, 1:]).mean() > 0.05
    assert np.abs(fitted.pooled(x[..., 1:]) - whole[..., 1:]).mean() > 0.05


# The objective and its steps


def test_gradient_of_the_objective():
    model, images = random_model(), random_images()
    atoms = (model.atoms * 1.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: model.objective(images, w), (atoms,))


def test_the_objective_is_the_mean_of_pooled_responses():
    model, images = random_model(), random_images()
    assert float(model.objective(images, model.atoms)) == pytest.approx(float(model.pooled(images).mean()))
    nothing = torch.zeros_like(model.atoms)
    assert float(model.objective(images, nothing)) == pytest.approx(0.1)  # sqrt(epsilon)


def test_maps_can_be_exchanged():
    model, images = random_model(), random_images()
    order = torch.tensor([2, 0, 3, 1])
    other = random_model()
    other.atoms = model.atoms[order]
    assert torch.allclose(other.pooled(images), model.pooled(images)[:, order])
    before = model.step(images)
    assert other.step(images) == pytest.approx(before)
    assert torch.allclose(other.atoms, model.atoms[order])


def test_the_nearest_orthonormal_filters():
    """Those of the singular value decomposition without the singular values, place by place."""
    atoms = torch.randn(4, 2, 3, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = orthonormal(atoms).flatten(3)
    for a, b in np.ndindex(2, 3):
        u, _, v = torch.linalg.svd(atoms[:, a, b].flatten(1), full_matrices=False)
        assert torch.allclose(found[:, a, b], u @ v)
    assert torch.allclose(orthonormal(found.view(atoms.shape)).flatten(3), found)


def test_steps_keep_to_the_manifold_to_first_order():
    model = random_model()
    gradient = torch.randn(model.atoms.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    w, d = (x.flatten(3).movedim(0, -2) for x in (model.atoms, tangent(model.atoms, gradient)))
    change = w @ d.mT + d @ w.mT
    assert change.abs().max() < 1e-12
    assert torch.allclose((w - 0.7 * d) @ (w - 0.7 * d).mT, torch.eye(4).double() + 0.49 * d @ d.mT)


def test_the_objective_never_increases_on_the_same_crops():
    model, images = random_model(), random_images(20)
    values = [model.step(images) for _ in range(60)]
    assert all(b < a for a, b in pairwise(values))
    assert values[-1] < 0.95 * values[0]


def test_where_nothing_is_to_be_gained_filters_stay():
    """As many filters as values at one position under a window of one: but for signs and turns, all is said by the sum."""
    model, images = random_model(count=4), random_images() * 0
    model.whitening.mean.zero_()
    before = model.atoms.clone()
    assert model.step(images) == pytest.approx(0.1)
    assert torch.equal(model.atoms, before)


def test_one_batch_of_all_crops_is_monotone_over_epochs():
    """Crops are drawn anew, but they are the same ones where as many are wanted as there are."""
    images = pictures(4, 9, 10)
    source = TiledICA(**{**HOW, "n_epochs": 25, "n_crops": 10**4, "batch_size": 10**4}).fit(images)
    values = source.objective_
    assert len(values) == 25
    assert all(b <= a + 1e-6 for a, b in pairwise(values))
    assert values[-1] < 0.9 * values[0]


def test_independent_sources_are_found():
    """Period 1, window 1: plain independent component analysis, which unmixes sparse sources up to order and sign."""
    rng = np.random.default_rng(0)
    sources = rng.laplace(size=(3000, 6))
    mixing = np.linalg.qr(rng.normal(size=(6, 6)))[0] @ np.diag([1, 2, 0.5, 1.5, 3, 0.8])
    images = (sources @ mixing.T).reshape(-1, 2, 3)
    source = TiledICA(
        6, (2, 3), period=1, pool=1, components=6, epsilon=1e-4, n_epochs=40, batch_size=3000, channels="none", random_state=0
    ).fit(images)
    found = source.filters_.reshape(6, 6) @ mixing
    found = np.abs(found) / np.abs(found).max(1, keepdims=True)
    assert sorted(found.argmax(1)) == list(range(6))
    assert np.sort(found, 1)[:, -2].max() < 0.15


@pytest.mark.parametrize(("count", "components"), [(5, 0.5), (12, 0.5), (24, 24), (5, 1.0)])
def test_filters_of_one_position_are_orthonormal(count, components):
    source = TiledICA(**{**HOW, "n_filters": count, "components": components}).fit(pictures())
    atoms = source.atoms_.reshape(count, 2, 3, 24).astype(np.float64)
    for a, b in np.ndindex(2, 3):
        np.testing.assert_allclose(atoms[:, a, b] @ atoms[:, a, b].T, np.eye(count), atol=1e-5)


def test_patches_are_white_where_filters_are():
    """So no filter lowers the objective by what it does not see: responses have the variance 1, whatever was learned."""
    images = pictures(60)
    source = TiledICA(**{**HOW, "components": 9, "n_epochs": 12, "n_crops": 2000}).fit(images)
    x = torch.from_numpy(images).float()
    patches = x.unfold(2, 3, 1).unfold(3, 4, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 2, 3, 4)
    white = source.preparation_(patches)
    values = torch.linalg.eigvalsh(white.double().T.cov()).numpy()
    assert np.abs(values[:15]).max() < 1e-3
    np.testing.assert_allclose(values[15:], 1, atol=0.25)
    responses = white @ torch.from_numpy(source.atoms_).flatten(1).T
    np.testing.assert_allclose(responses.var(0).numpy(), 1, atol=0.25)
    inside = source.atoms_.reshape(30, 24) @ source._model.span.numpy()
    np.testing.assert_allclose(inside, source.atoms_.reshape(30, 24), atol=1e-5)


def test_patches_that_span_less_have_fewer_components():
    images = np.repeat(pictures(channels=1), 2, 1)
    assert TiledICA(**{**HOW, "n_filters": 12, "components": 1.0}).fit(images).filters_.shape[0] == 72
    with pytest.raises(ArgumentError, match="the 12 components that components=1.0"):
        TiledICA(**{**HOW, "n_filters": 13, "components": 1.0}).fit(images)


# As an estimator


def test_it_decreases_on_images_not_seen(fitted):
    crops = torch.from_numpy(pictures(30, seed=9)).float()
    trained, fresh = fitted._model, TICA(
        torch.randn(fitted._model.atoms.shape, generator=torch.Generator().manual_seed(4)),
        fitted._model.whitening, (3, 2), 0.01,
    )  # fmt: skip
    x = fitted._standardised(crops)
    assert float(trained.objective(x, trained.atoms)) < 0.95 * float(fresh.objective(x, fresh.atoms))
    assert len(fitted.objective_) == 3 * 4
    assert fitted.n_epochs_ == 3


def test_seeds():
    images = pictures()
    one, same, other = (TiledICA(**{**HOW, "random_state": s}).fit(images) for s in (3, 3, 4))
    np.testing.assert_array_equal(one.filters_, same.filters_)
    assert one.objective_ == same.objective_
    assert np.abs(one.filters_ - other.filters_).max() > 0.01
    drawn = TiledICA(**{**HOW, "random_state": np.random.RandomState(1)})
    first = drawn.fit(images).filters_
    assert not np.array_equal(first, drawn.fit(images).filters_)


def test_brightness_and_contrast_of_all_images_do_not_matter(fitted):
    images = pictures()
    other = TiledICA(**HOW).fit(images * 64 - 3000)
    np.testing.assert_allclose(other.atoms_, fitted.atoms_, atol=0.02)
    np.testing.assert_allclose(other.pooled(images[:2] * 64 - 3000), fitted.pooled(images[:2]), atol=0.05)


def test_clone_pickle_and_global_random_state(fitted):
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.transform(pictures(2)), fitted.transform(pictures(2)))
    assert not hasattr(clone(fitted), "filters_")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    again = clone(fitted).fit(pictures())
    again.to_layer()
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(again.filters_, fitted.filters_)
    copy.partial_fit(pictures())
    assert (copy.n_epochs_, fitted.n_epochs_) == (4, 3)


def test_an_interrupt_between_epochs_is_resumed_exactly(fitted):
    def interrupt(done, total):
        assert total == 3
        if done == 1:
            raise KeyboardInterrupt

    source = TiledICA(**HOW, progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        source.fit(pictures())
    assert source.n_epochs_ == 1
    source.partial_fit(pictures()).partial_fit(pictures())
    np.testing.assert_array_equal(source.filters_, fitted.filters_)
    assert source.objective_ == fitted.objective_


def test_an_interrupt_within_an_epoch_keeps_what_was_reached(fitted, monkeypatch):
    source, calls, step = pickle.loads(pickle.dumps(fitted)), [], TICA.step

    def interrupted(self, images):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(self, images)

    monkeypatch.setattr(TICA, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        source.partial_fit(pictures())
    monkeypatch.undo()
    assert source.n_epochs_ == 3
    assert len(source.objective_) == 14
    assert not np.array_equal(source.filters_, fitted.filters_)
    np.testing.assert_array_equal(source.atoms_, source._model.atoms.flatten(0, 2).numpy())
    assert source.partial_fit(pictures()).n_epochs_ == 4


def test_a_second_fit_that_fails_leaves_the_first(fitted):
    source = pickle.loads(pickle.dumps(fitted))
    with pytest.raises(ShapeError):
        source.fit(np.zeros((3, 2, 4, 4)))
    np.testing.assert_array_equal(source.transform(pictures(2)), fitted.transform(pictures(2)))
    np.testing.assert_array_equal(source.fit(pictures()).filters_, fitted.filters_)


def test_an_iterator_is_one_pass():
    source = TiledICA(**HOW)
    with pytest.raises(ArgumentError, match="cannot be read n_epochs=3 times"):
        source.fit(iter(pictures()))
    source.partial_fit(iter(pictures()))
    whole = TiledICA(**{**HOW, "n_epochs": 1}).fit(pictures())
    np.testing.assert_allclose(source.filters_, whole.filters_, rtol=1e-4, atol=1e-6)
    assert source.channels_ == "first"


def test_images_of_several_sizes_and_either_order_of_channels():
    images = [pictures(1, h, w, seed=h)[0] for h, w in ((17, 19), (30, 12), (16, 41), (5, 5))]
    source = TiledICA(**HOW).fit(images)
    assert source.image_size_ == (17, 19)
    last = TiledICA(**HOW).fit([np.moveaxis(x, 0, -1) for x in images])
    np.testing.assert_array_equal(source.filters_, last.filters_)
    with pytest.raises(ShapeError, match=r"of \(17, 19\) and of \(30, 12\) are mixed"):
        source.transform(images)


def test_names_and_frames(fitted):
    names = fitted.get_feature_names_out()
    rows = fitted.transform(pictures(2))
    assert len(names) == rows.shape[1] == 5 * 13 * 15
    assert (names[0], names[16], names[-1]) == ("filter0_r0c0", "filter0_r1c1", "filter4_r12c14")
    assert rows[1, 16] == fitted.pooled(pictures(2))[1, 0, 1, 1]
    strided = clone(fitted).set_params(stride=4).fit(pictures())
    assert len(strided.get_feature_names_out()) == strided.transform(pictures(2)).shape[1]


def test_a_pipeline_tells_lines_across_from_lines_down():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 9, 10)) * 0.1, np.arange(60) % 2
    for k in range(60):
        x[k, rng.integers(9)] += y[k]
        x[k, :, rng.integers(10)] += 1 - y[k]
    source = TiledICA(6, 3, period=2, components=1.0, n_epochs=3, random_state=0)
    model = make_pipeline(source, LogisticRegression(C=0.01)).fit(x[:40], y[:40])
    assert model.score(x[40:], y[40:]) > 0.9


def test_it_is_a_source_of_filters_for_other_features(fitted):
    features = ConvFeatures(clone(fitted), encoder="soft").fit(pictures())
    np.testing.assert_array_equal(features.source_.filters_, fitted.filters_)
    assert features.transform(pictures(3)).shape == (3, 2 * 30 * 4)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n_filters": 0}, "n_filters=0 must be at least 1"),
        ({"n_filters": 13}, "n_filters=13 filters cannot.*the 12 components that components=0.5 keeps of patches of 2x3x4"),
        ({"n_filters": 25, "components": 1.0}, "the 24 components that components=1.0"),
        ({"components": 4}, "the 4 components that components=4"),
        ({"components": 0}, "components=0 must be at least 1"),
        ({"components": 1.5}, "components=1.5 must be a share above 0 and up to 1"),
        ({"period": 0}, "period=0 must be at least 1"),
        ({"period": (1, 2, 3)}, r"period=\(1, 2, 3\) must be one whole number or two"),
        ({"pool": 0}, "pool=0 must be at least 1"),
        ({"stride": 0}, "stride=0"),
        ({"epsilon": 0.0}, "epsilon=0.0 must be above 0"),
        ({"epsilon": float("nan")}, "epsilon=nan must be above 0"),
        ({"n_epochs": 0}, "n_epochs=0"),
        ({"n_crops": 0}, "n_crops=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"crop": "whole"}, "crop='whole' must be 'auto'"),
        ({"crop": (5, 5)}, "a crop of 5x5 has 3x2 positions.*it must be 5x6 at least"),
        ({"crop": 18}, "no image is as large as a patch of 18x18"),
        ({"period": (16, 3)}, "the first image of 17x19 has 15x16 positions.*period=16x3.*it must be 18x6 at least"),
        ({"pool": (3, 17)}, "pool=3x17.*it must be 5x20 at least"),
        ({"patch_size": 20}, "has 0x0 positions of a filter of 20x20"),
    ],
)
def test_parameters_out_of_range_are_one_sentence(arguments, sentence):
    with pytest.raises((ArgumentError, ShapeError), match=sentence):
        TiledICA(**{**HOW, **arguments}).fit(pictures())


def test_a_float_is_no_count():
    with pytest.raises(ArgumentTypeError, match="period=2.5 must be a whole number"):
        TiledICA(**{**HOW, "period": 2.5}).fit(pictures())


def test_images_that_do_not_fit_are_one_sentence(fitted):
    source = TiledICA(**HOW)
    bad = pictures()
    bad[3, 1, 2, 2] = np.nan
    with pytest.raises(ArgumentError, match="NaN or infinity, 1 of"):
        source.fit(bad)
    with pytest.raises(ArgumentError, match="200 crops are constant, 3"):
        source.fit(np.full((4, 2, 17, 19), 3.0))
    with pytest.raises(ArgumentError, match="there are no images to learn from"):
        source.fit([])
    assert not hasattr(source, "filters_")
    with pytest.raises(ShapeError, match="images of 1 channels, but the filters have 2"):
        fitted.transform(pictures(2, channels=1))
    with pytest.raises(ShapeError, match="an image of 4x19 fills no pooling window; it must be 5x5 at least"):
        fitted.transform(pictures(2, 4))
    with pytest.raises(ArgumentError, match="NaN"):
        fitted.transform(bad)
    with pytest.raises(ArgumentError, match="there are no images"):
        fitted.transform([])


def test_going_on_with_what_does_not_fit(fitted):
    source = pickle.loads(pickle.dumps(fitted))
    with pytest.raises(ShapeError, match="images of 1 channels, but the filters have 2"):
        source.partial_fit(pictures(channels=1))
    with pytest.raises(ArgumentError, match=r"period=2, but it was \(2, 3\) when learning began; fit from the start"):
        source.set_params(period=2).partial_fit(pictures())
    np.testing.assert_array_equal(source.filters_, fitted.filters_)
    assert source.n_epochs_ == 3
