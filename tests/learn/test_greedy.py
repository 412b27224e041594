"""Layers upon layers: against one layer at a time, by hand; what is frozen, thrown away, resumed and refused."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator

from ninefold import nn
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError, UnsupportedError
from ninefold.learn import (
    ClusterPool,
    ConvFeatures,
    ConvRBM,
    DesignedFilters,
    FilterLayer,
    GreedyLayers,
    GridPool,
    KMeansFilters,
    LearnedRegions,
    OMPFilters,
    RandomFilters,
    SoftThreshold,
    SparseCodingFilters,
    SupervisedFilters,
)
from ninefold.learn import layers as module
from ninefold.learn.compare import Comparison
from ninefold.learn.images import Images

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (14, 15, 13, 3)).astype(np.uint8)
LABELS = np.array(["no", "yes"] * 7)
FIRST = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float()


def lines(X):
    """Make images of one line of the rows that scikit-learn's checks are made of."""
    X = X if hasattr(X, "toarray") else np.asarray(X)
    return X[:, None, :] if X.ndim == 2 and not hasattr(X, "toarray") else X


class OfRows:
    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags

    def fit(self, X, y=None):
        return super().fit(lines(X), y)


class GreedyLayersOfRows(OfRows, GreedyLayers):
    def transform(self, X):
        return super().transform(lines(X))

    def fit_transform(self, X, y=None):
        return self.fit(X, y).transform(X)

    def partial_fit(self, X, y=None):
        return super().partial_fit(lines(X), y)


class SupervisedFiltersOfRows(OfRows, SupervisedFilters):
    pass


ROWS_ONLY = {  # and why: docs/learn.md
    "check_n_features_in",
    "check_n_features_in_after_fitting",
    "check_estimators_empty_data_messages",
    "check_transformer_general",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["layers", "source"])
def test_scikit_learns_own_checks(name):
    one = FilterLayer(KMeansFilters(2, 1, random_state=0))
    checked = {
        "layers": lambda: GreedyLayersOfRows([one, one], GridPool(1)),
        "source": lambda: SupervisedFiltersOfRows(2, 1, grid=1, n_epochs=1, batch_size=200),
    }[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(checked, on_fail=None)
    failed = {r["check_name"]: str(r["exception"]) for r in results if r["status"] == "failed"}
    assert set(failed) <= ROWS_ONLY, failed
    assert sum(r["status"] == "passed" for r in results) > 30


def kmeans(count=5, size=(3, 2)):
    return KMeansFilters(count, size, n_patches=400, random_state=0)


def supervised(count=6, size=(3, 2), **arguments):
    return SupervisedFilters(count, size, n_epochs=arguments.pop("n_epochs", 6), random_state=0, **arguments)


def two(**arguments):
    below = FilterLayer(kmeans(), pool=(2, 3), operation="mean")
    return GreedyLayers([below, FilterLayer(kmeans(7, (2, 3)), "soft", stride=1)], **arguments)


@pytest.mark.parametrize("encoder", ["triangle", "soft", "rectified"])
@pytest.mark.parametrize("stride", [1, 2])
def test_one_layer_is_conv_features_bit_for_bit(encoder, stride):
    pooling = GridPool((2, 3), "mean")
    expected = ConvFeatures(kmeans(), encoder, pooling, stride=stride).fit(IMAGES)
    layers = GreedyLayers([FilterLayer(kmeans(), encoder, stride=stride)], pooling).fit(IMAGES)
    np.testing.assert_array_equal(layers.layers_[0].source_.filters_, expected.source_.filters_)
    np.testing.assert_array_equal(layers.transform(IMAGES), expected.transform(IMAGES))
    assert list(layers.get_feature_names_out()) == list(expected.get_feature_names_out())
    assert layers.transform(IMAGES).dtype == np.float32


def test_two_layers_are_those_made_by_hand():
    layers = two().fit(IMAGES)
    below = kmeans().fit(IMAGES)
    maps = ConvFeatures(below, prefit=True).fit(IMAGES)
    (maps,) = maps._maps([FIRST])  # (14, 5, 13, 12)
    rows = [range(k, min(k + 2, 13)) for k in range(0, 13, 2)]
    columns = [range(k, k + 3) for k in range(0, 12, 3)]
    pooled = torch.stack([torch.stack([maps[:, :, r][:, :, :, c].mean((2, 3)) for c in columns], 2) for r in rows], 2)
    assert pooled.shape == (14, 5, 7, 4)
    above = kmeans(7, (2, 3)).set_params(channels="first").fit(pooled)
    np.testing.assert_allclose(layers.layers_[1].source_.filters_, above.filters_, atol=1e-4)
    codes = SoftThreshold()(Comparison(layers.layers_[1].source_)(pooled))  # (14, 14, 6, 2)
    expected = torch.cat([codes[:, :, r][:, :, :, c].sum((2, 3)) for r in (range(3), range(3, 6)) for c in ([0], [1])], 1)
    np.testing.assert_allclose(layers.transform(IMAGES), expected, rtol=1e-4, atol=1e-4)
    assert layers.get_feature_names_out()[14] == "r0c1_filter0"
    (first,) = layers.maps(IMAGES, 0)
    torch.testing.assert_close(first, pooled)


def test_the_maximum_of_a_window_that_is_cut_is_of_what_is_left():
    layer = FilterLayer(RandomFilters(2, (3, 2), random_state=0), SoftThreshold(0, split=False), pool=(4, 5)).fit(IMAGES)
    plain = clone(layer).set_params(pool=1).fit(IMAGES)
    (pooled,), (maps,) = layer.maps([FIRST]), plain.maps([FIRST])
    assert pooled.shape == (14, 2, 4, 3)
    torch.testing.assert_close(pooled[:, :, 3, 2], maps[:, :, 12:, 10:].amax((2, 3)))


SOURCES = {
    "random": lambda: RandomFilters(4, 2, random_state=0),
    "designed": lambda: DesignedFilters("sobel"),
    "omp": lambda: OMPFilters(6, 2, n_patches=300, random_state=0),
    "sparse": lambda: SparseCodingFilters(3, 2, n_epochs=1, n_iter=3, random_state=0),
    "rbm": lambda: ConvRBM(4, 2, n_epochs=2, random_state=0),
    "supervised": lambda: supervised(4, 2),
}


@pytest.mark.parametrize("name", SOURCES)
def test_any_source_learns_from_many_channels(name):
    below = FilterLayer(kmeans(6, 3), pool=2)
    layers = GreedyLayers([below, FilterLayer(SOURCES[name](), "soft")], GridPool(1)).fit(IMAGES, LABELS)
    assert layers.layers_[1].source_.filters_.shape[1] == 6
    features = layers.transform(IMAGES)
    assert np.isfinite(features).all()
    assert np.ptp(features, 0).any()


@pytest.mark.parametrize("keep", [0, 6000, 1 << 28])
def test_maps_once_computed_are_those_computed_anew(monkeypatch, keep):
    monkeypatch.setattr(module, "_MAPS", 4000)  # bytes: an image at a time
    passes = []
    whole = module.through
    monkeypatch.setattr(module, "through", lambda *a: (passes.append(1), whole(*a))[1])
    layers = GreedyLayers([FilterLayer(kmeans(), pool=2), FilterLayer(supervised(4, 2), "soft")], keep=keep)
    layers.fit(IMAGES, LABELS)
    # For the whitening, a look at the size, and six epochs.
    assert len(passes) == (8 if keep <= 6000 else 1)
    monkeypatch.undo()
    expected = GreedyLayers([FilterLayer(kmeans(), pool=2), FilterLayer(supervised(4, 2), "soft")]).fit(IMAGES, LABELS)
    np.testing.assert_allclose(layers.transform(IMAGES), expected.transform(IMAGES), rtol=1e-2, atol=1e-2)


def test_maps_exist_for_a_few_images_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "_MAPS", 1)
    seen = []
    layers = two().fit(IMAGES)
    for part in layers.maps(iter(IMAGES)):
        seen.append(len(part))
        assert torch.is_grad_enabled()  # whatever is done between two parts
    assert seen == [1] * 14
    next(layers.maps(IMAGES))  # and is left there
    assert torch.is_grad_enabled()


def stripes(n=40):
    rng, y = np.random.default_rng(1), np.arange(n) % 2
    lines = np.sin(np.arange(13) * 1.7)
    x = np.where(y[:, None, None] == 0, lines[:11, None], lines[None, :]) + rng.normal(size=(n, 11, 13)) * 0.5
    return np.stack([np.roll(image, rng.integers(0, 4, 2), (0, 1)) for image in x]) * 50 + 100, np.array(["lie", "stand"])[y]


def test_training_under_the_head_lowers_its_loss_and_the_head_is_gone():
    x, y = stripes()
    source = supervised(5, (3, 4), n_epochs=15).fit(x, y)
    assert abs(source.losses_[0] - np.log(2)) < 0.3
    assert source.losses_[-1] < 0.6 * source.losses_[0]
    assert source.filters_.shape == (5, 1, 3, 4)
    assert list(source.classes_) == ["lie", "stand"]
    held = {name for name, value in vars(source).items() if isinstance(value, (torch.nn.Module, torch.Tensor))}
    assert held == set()
    layers = GreedyLayers([FilterLayer(source, "soft")]).fit(x, y)
    assert layers.transform(x).shape == (40, 4 * 10)  # regions and filters, no score of a class
    assert layers.layers_[0].source_.losses_ == source.losses_


def test_labels_are_what_it_learns_from():
    x, y = stripes()
    right = supervised(n_epochs=8).fit(x, y)
    other = supervised(n_epochs=8).fit(x, np.random.default_rng(2).permutation(y))
    assert other.losses_[-1] > right.losses_[-1] + 0.1
    assert not np.allclose(other.filters_, right.filters_)


def test_the_gradient_under_the_head_is_that_by_hand():
    """The filters' gradient is that of the network written out with patches that are cut."""
    x, _ = stripes(6)
    source = supervised(3, (3, 4), n_epochs=1, grid=(2, 1))
    images, encoder = Images(x), source._checked()
    preparation = source._preparation(torch.rand(50, 1, 3, 4, generator=torch.Generator().manual_seed(0)) * 9)
    from ninefold.learn.supervised import _Headed

    head = _Headed(source, encoder, preparation, (1, 11, 13), 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        head.weight.copy_(torch.randn(2, 12, generator=torch.Generator().manual_seed(1)))
    (batch,) = images
    targets = torch.tensor([0, 1, 0, 1, 1, 0])
    torch.nn.functional.cross_entropy(head(batch), targets).backward()
    atoms = head.atoms.detach().double().requires_grad_()
    patches = batch.double().unfold(2, 3, 1).unfold(3, 4, 1).reshape(6, 9, 10, 12)
    prepared = (patches - preparation.mean.double()) @ preparation.matrix.double()
    dots = prepared @ atoms.T
    codes = torch.cat([torch.relu(dots - 0.25), torch.relu(-dots - 0.25)], -1)
    rows = torch.cat([codes[:, :5].mean((1, 2)), codes[:, 5:].mean((1, 2))], 1)
    torch.nn.functional.cross_entropy(rows @ head.weight.detach().double().T, targets).backward()
    torch.testing.assert_close(head.atoms.grad, atoms.grad.float(), rtol=1e-3, atol=1e-4)


def test_layers_below_do_not_change_when_the_next_is_learned():
    x, y = stripes()
    below, above = FilterLayer(supervised(5, 3), "soft", pool=2), FilterLayer(supervised(7, (2, 3)), "soft")
    alone = GreedyLayers([below]).fit(x, y)
    both = GreedyLayers([below, above]).fit(x, y)
    np.testing.assert_array_equal(both.layers_[0].source_.filters_, alone.layers_[0].source_.filters_)
    grown = alone.set_params(layers=[below, above], warm_start=True)
    kept = grown.layers_[0].source_
    before = kept.filters_.copy()
    grown.fit(x, y)
    assert grown.layers_[0].source_ is kept
    np.testing.assert_array_equal(kept.filters_, before)
    np.testing.assert_array_equal(grown.transform(x), both.transform(x))
    assert not hasattr(below, "source_")


@pytest.mark.parametrize("how", ["partial_fit", "warm_start"])
def test_after_an_interrupt_the_layers_that_are_done_are_kept(how):
    def interrupt(done, total):
        assert total == 2
        if done == 1:
            raise KeyboardInterrupt

    expected = two().fit(IMAGES)
    layers = two(progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        layers.fit(IMAGES)
    done = layers.layers_[0].source_
    with pytest.raises(ArgumentError, match="1 of 2 layers have been learned; go on with partial_fit"):
        layers.transform(IMAGES)
    layers.progress = None
    if how == "partial_fit":
        layers.partial_fit(IMAGES)
    else:
        layers.set_params(warm_start=True).fit(IMAGES)
    assert layers.layers_[0].source_ is done
    np.testing.assert_array_equal(layers.transform(IMAGES), expected.transform(IMAGES))


def test_a_warm_start_learns_anew_what_was_changed_and_what_is_above_it():
    layers = two(warm_start=True).fit(IMAGES)
    sources = [layer.source_ for layer in layers.layers_]
    layers.fit(IMAGES)
    assert [layer.source_ for layer in layers.layers_] == sources
    layers.set_params(layer1__filters__n_filters=4).fit(IMAGES)
    assert layers.layers_[0].source_ is sources[0]
    assert layers.layers_[1].source_.filters_.shape == (4, 5, 2, 3)
    layers.set_params(layer0__pool=2).fit(IMAGES)
    assert layers.layers_[0].source_ is not sources[0]
    assert layers.set_params(warm_start=False).fit(IMAGES).layers_[0].source_ is not sources[0]


def test_where_all_are_done_the_top_one_goes_on_learning():
    layers = GreedyLayers([FilterLayer(kmeans(), pool=2), FilterLayer(kmeans(7, 2))]).fit(IMAGES[:7])
    below, above = (layer.source_ for layer in layers.layers_)
    before = below.filters_.copy(), above.filters_.copy()
    layers.partial_fit(IMAGES[7:])
    np.testing.assert_array_equal(layers.layers_[0].source_.filters_, before[0])
    assert not np.array_equal(layers.layers_[1].source_.filters_, before[1])
    with pytest.raises(ArgumentTypeError, match="layer 0: RandomFilters cannot go on learning"):
        GreedyLayers([FilterLayer(RandomFilters(5, 3))]).fit(IMAGES).partial_fit(IMAGES)


def test_images_of_different_sizes_and_however_they_come():
    layers = two().fit(IMAGES)
    expected = layers.transform(IMAGES)
    for given in (list(IMAGES), iter(IMAGES), IMAGES.transpose(0, 3, 1, 2), torch.from_numpy(IMAGES), IMAGES.astype(np.float64)):
        np.testing.assert_allclose(layers.transform(given), expected, rtol=1e-4, atol=1e-3)
    sizes = [IMAGES[0], IMAGES[1, :12], IMAGES[2, :, :11], IMAGES[3]]
    mixed = layers.transform(sizes)
    for row, image in zip(mixed, sizes, strict=True):
        np.testing.assert_allclose(row, layers.transform(image[None])[0], rtol=1e-4, atol=1e-3)
    learned = GreedyLayers([FilterLayer(supervised(), "soft", pool=2), FilterLayer(supervised(4, 2), "soft")])
    learned.fit(sizes, ["a", "b", "b", "a"])
    assert learned.transform(sizes).shape == (4, 4 * 8)
    assert learned.layers_[1].source_.losses_[-1] < learned.layers_[1].source_.losses_[0]


@pytest.mark.parametrize("pooling", ["pyramid", ClusterPool(2, 1, random_state=0), LearnedRegions(5, 2)])
def test_poolings_that_learn(pooling):
    top = FilterLayer(kmeans(4, 2), "soft")
    layers = GreedyLayers([FilterLayer(kmeans(), pool=2), top], pooling)
    out = layers.fit(IMAGES, LABELS).transform(IMAGES)
    assert out.shape == (14, len(layers.get_feature_names_out()))
    assert np.isfinite(out).all()


def test_copies_and_pickles_give_the_same_features():
    layers = two().fit(IMAGES)
    expected = layers.transform(IMAGES)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(layers)).transform(IMAGES), expected)
    fresh = clone(layers)
    assert not hasattr(fresh, "layers_")
    np.testing.assert_array_equal(fresh.fit(IMAGES).transform(IMAGES), expected)


def test_as_a_frame():
    pandas = pytest.importorskip("pandas")
    frame = two().set_output(transform="pandas").fit_transform(IMAGES)
    assert isinstance(frame, pandas.DataFrame)
    assert frame.columns[1] == "r0c0_filter1"


def test_parameters_of_layers_go_by_name():
    layers = two()
    assert layers.get_params()["layer1__filters__n_filters"] == 7
    other = FilterLayer(kmeans(9))
    layers.set_params(layer0=other, layer1__encoder="hard", keep=7)
    assert layers.layers[0] is other
    assert (layers.layers[1].encoder, layers.keep) == ("hard", 7)
    with pytest.raises(ValueError, match="Invalid parameter 'layer2'"):
        layers.set_params(layer2=other)


def test_in_pipelines_and_searches():
    x, y = stripes()
    layers = GreedyLayers([FilterLayer(kmeans(4, 3), pool=2), FilterLayer(supervised(4, 2), "soft")])
    pipeline = make_pipeline(layers, StandardScaler(), LogisticRegression())
    grid = {"greedylayers__layer0__filters__n_filters": [2, 6], "greedylayers__layer0__pool": [1, 2]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(x, y)
    assert search.best_score_ > 0.8
    best = search.best_params_["greedylayers__layer0__filters__n_filters"]
    assert search.best_estimator_[0].layers_[1].source_.filters_.shape[1] == best
    assert layers.layers[0].filters.n_filters == 4


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("operation", ["max", "mean"])
def test_as_a_network(split, operation):
    encoder = SoftThreshold(0.1, split=split)
    below = FilterLayer(supervised(5, encoder=encoder), encoder, (2, 3), operation, stride=2)
    layers = GreedyLayers([below, FilterLayer(RandomFilters(6, (2, 1), random_state=0), encoder)]).fit(IMAGES, LABELS)
    network = layers.to_module()
    assert isinstance(network[0], nn.Conv2d)
    assert bool(network[0].bias.abs().max() > 0.2)
    out = network(FIRST)
    np.testing.assert_allclose(out.detach().numpy(), layers.transform(IMAGES), rtol=1e-3, atol=1e-3)
    (maps,) = layers.maps(IMAGES)
    torch.testing.assert_close(layers.to_module(rows=False)(FIRST), maps, rtol=1e-3, atol=1e-3)
    out.square().sum().backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in network.parameters())
    torch.optim.SGD(network.parameters(), 1e-3).step()  # the layers are not the network's
    np.testing.assert_allclose(layers.to_module()(FIRST).detach(), out.detach(), rtol=1e-5)


def test_what_no_network_computes_is_refused():
    x, _ = stripes()
    with pytest.raises(UnsupportedError, match="layer 0: Triangle is no convolution and ReLU.*use SoftThreshold"):
        GreedyLayers([FilterLayer(kmeans())]).fit(x).to_module()
    with pytest.raises(UnsupportedError, match=r"layer 1: KMeansFilters divides every patch.*contrast=None"):
        GreedyLayers([FilterLayer(RandomFilters(4, 3), "soft"), FilterLayer(kmeans(), "soft")]).fit(x).to_module()
    plain = GreedyLayers([FilterLayer(kmeans().set_params(contrast=None), "soft")], ClusterPool(2, random_state=0)).fit(x)
    with pytest.raises(UnsupportedError, match="ClusterPool is no pooling over fixed regions"):
        plain.to_module()
    network = plain.to_module(rows=False)
    (maps,) = plain.maps(x)
    torch.testing.assert_close(network(torch.from_numpy(x)[:, None].float()), maps, rtol=1e-3, atol=1e-3)


def test_labels_that_do_not_fit():
    learner = FilterLayer(supervised(), "soft")
    layers = GreedyLayers([FilterLayer(kmeans(), pool=2), learner])
    assert get_tags(learner.filters).target_tags.required
    for y, words in (
        (None, "requires y to be passed, but the target y is None"),
        (LABELS[:13], r"y has shape \(13,\); it must hold one label for each of 14 images"),
        (LABELS[:, None], r"y has shape \(14, 1\)"),
        (["a"] * 14, r"y holds 1 class, \['a'\]"),
        (np.r_[np.nan, np.arange(13)], "y holds 1 labels of NaN"),
    ):
        with pytest.raises(ArgumentError, match=words):
            layers.fit(IMAGES, y)
        assert not hasattr(layers, "layers_")  # known before anything is learned
    endless = type("Images", (), {"__iter__": lambda _: iter(IMAGES)})()
    with pytest.raises(ArgumentError, match="layer 0: y holds 13 labels, and there are 14 images; give one for each"):
        GreedyLayers([learner]).fit(endless, LABELS[:13])


def test_what_is_refused():
    with pytest.raises(ArgumentTypeError, match=r"layers=\[\] must be a list of at least one FilterLayer"):
        GreedyLayers([]).fit(IMAGES)
    with pytest.raises(ArgumentTypeError, match="layer 1 is KMeansFilters.*put a source into one"):
        GreedyLayers([FilterLayer(kmeans()), kmeans()]).fit(IMAGES)
    with pytest.raises(ArgumentTypeError, match="layer 0: filters='kmeans' is no source"):
        GreedyLayers([FilterLayer("kmeans")]).fit(IMAGES)
    for name, value, words in (
        ("pool", 0, "layer 1: pool=0 must be at least 1"),
        ("pool", (1, 2, 3), "layer 1: pool=.* must be one whole number or two"),
        ("operation", "sum", "layer 1: operation='sum' is not one of 'max', 'mean'"),
        ("encoder", "squares", "layer 1: encoder='squares'"),
        ("stride", 0, "layer 1: stride=0"),
    ):
        with pytest.raises(ArgumentError, match=words):
            two().set_params(**{f"layer1__{name}": value}).fit(IMAGES)
    with pytest.raises(ArgumentError, match="keep=-1"):
        two(keep=-1).fit(IMAGES)
    with pytest.raises(ArgumentError, match="an iterator cannot be read for every one of 2 layers"):
        two().fit(iter(IMAGES))
    with pytest.raises(NotFittedError):
        two().transform(IMAGES)
    bad = IMAGES.astype(np.float32)
    bad[3, 2, 1] = np.nan
    with pytest.raises(ArgumentError, match="Input contains NaN or infinity, 3 of"):
        two().fit(bad)
    for name, value in (("learning_rate", 0), ("weight_decay", -1), ("n_epochs", 0), ("encoder", "triangle"), ("grid", 0)):
        with pytest.raises(ArgumentError, match=f"{name}="):
            supervised().set_params(**{name: value}).fit(IMAGES, LABELS)
    with pytest.raises(ArgumentError, match="an iterator cannot be read for every epoch"):
        supervised().fit(iter(IMAGES), LABELS)


def test_maps_that_are_too_small_are_named_by_their_layer():
    small = FilterLayer(RandomFilters(4, 3, random_state=0), "soft", pool=4)
    with pytest.raises(ShapeError, match=r"layer 1: images of \(4, 3\) are smaller than the filters, \(5, 5\)"):
        GreedyLayers([small, FilterLayer(RandomFilters(4, 5), "soft")]).fit(IMAGES)
    with pytest.raises(ShapeError, match=r"layer 1: no image is as large as a patch of 5x2"):
        GreedyLayers([small, FilterLayer(kmeans(4, (5, 2)))]).fit(IMAGES)
    with pytest.raises(ShapeError, match=r"^layer 0: images of \(2, 13\) are smaller than the filters, \(3, 3\)"):
        GreedyLayers([small, small], channels="last").fit(IMAGES[:, :2])
    with pytest.raises(ShapeError, match="layer 1: a map of 2x1 positions cannot be cut into 2x2 regions"):
        GreedyLayers([small, FilterLayer(RandomFilters(4, 3), "soft")]).fit(IMAGES)
    layers = GreedyLayers([small, FilterLayer(RandomFilters(4, 2), "soft")]).fit(IMAGES)
    with pytest.raises(ShapeError, match=r"^layer 1: images of \(1, 3\) are smaller than the filters, \(2, 2\)"):
        layers.transform([IMAGES[0], IMAGES[1, :5]])
    with pytest.raises(ShapeError, match="^layer 0: the images have 1 channels, and the filters were learned from 3"):
        layers.transform(IMAGES[..., 0])
    with pytest.raises(ArgumentError, match="layer=2 is not one of 2 layers"):
        layers.maps(IMAGES, 2)
    with pytest.raises(ArgumentError, match="no images to transform"):
        layers.transform([])


def test_two_layers_from_labels_on_digits():
    digits = load_digits()
    x, y = digits.images[:400], digits.target[:400]
    one = SupervisedFilters(12, 3, n_epochs=10, random_state=0)
    layers = GreedyLayers([FilterLayer(one, "soft"), FilterLayer(clone(one), "soft")])
    model = make_pipeline(layers, StandardScaler(), LogisticRegression(max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.fit(x[:150], y[:150]).score(x[150:], y[150:]) > 0.85
