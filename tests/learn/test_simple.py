import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn import (
    ClusterPool,
    ConvFeatures,
    ConvRBM,
    FilterLayer,
    GivenFilters,
    GreedyLayers,
    KMeansFilters,
    RandomFilters,
    SampledPatches,
    SoftThreshold,
    SparseCodingFilters,
    SparseEncoderDecoder,
    distributed,
    initialize,
    load_filters,
    save_filters,
)
from ninefold.learn.patches import Preparation

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 9, 11, 3)).astype(np.uint8)
KERNELS = RNG.integers(-3, 4, (5, 3, 2, 4)).astype(np.float64)


def test_features_of_given_kernels_are_sums_of_their_products():
    maps = np.zeros((12, 5, 8, 8))
    for i in range(8):
        for j in range(8):
            patches = IMAGES[:, i : i + 2, j : j + 4].astype(float)
            maps[:, :, i, j] = np.einsum("nhwc,kchw->nk", patches, KERNELS)
    rows = ConvFeatures(GivenFilters(KERNELS), SoftThreshold(7.0, split=False)).fit(IMAGES).transform(IMAGES)
    above = np.maximum(maps - 7, 0)
    expected = [above[:, :, a : a + 4, b : b + 4].sum((2, 3)) for a in (0, 4) for b in (0, 4)]
    assert np.allclose(rows, np.concatenate(expected, 1), rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize(
    "kernels",
    [
        KERNELS.astype(np.int8),
        KERNELS.astype(">f4"),
        KERNELS.tolist(),
        torch.from_numpy(KERNELS).half(),
        torch.nn.Parameter(torch.from_numpy(KERNELS)),
        np.asfortranarray(KERNELS),
    ],
)
def test_kernels_of_any_kind(kernels):
    source = GivenFilters(kernels).fit(IMAGES)
    assert source.filters_.dtype == np.float32
    assert np.array_equal(source.filters_, KERNELS)
    assert np.array_equal(clone(source).fit(IMAGES).filters_, KERNELS)


def test_what_is_given_is_not_kept_from_being_changed():
    kernels = torch.from_numpy(KERNELS.astype(np.float32))
    source = GivenFilters(kernels).fit(IMAGES)
    kernels.zero_()
    assert np.array_equal(source.filters_, KERNELS)


@pytest.mark.parametrize(
    ("kernels", "error", "match"),
    [
        (KERNELS[0], ShapeError, r"shape \(3, 2, 4\); they must be \(K, C, h, w\)"),
        (KERNELS[:0], ShapeError, "none of these 0"),
        (KERNELS * 1j, ArgumentTypeError, "real numbers, got dtype complex128"),
        (torch.from_numpy(KERNELS) * 1j, ArgumentTypeError, "real numbers, got dtype torch.complex128"),
        (np.array([[[["a"]]]]), ArgumentTypeError, "real numbers"),
        (np.where(KERNELS == 3, np.nan, KERNELS), ArgumentError, "values of NaN or infinity"),
        (KERNELS[:, :2], ShapeError, "see 2 channels, and the images have 3"),
    ],
)
def test_kernels_that_are_refused(kernels, error, match):
    with pytest.raises(error, match=match):
        GivenFilters(kernels).fit(IMAGES)


def test_an_array_is_no_source_and_is_told_what_makes_one():
    for fit in (ConvFeatures(KERNELS).fit, GreedyLayers([FilterLayer(KERNELS)]).fit):
        with pytest.raises(ArgumentTypeError, match=r"filters=ndarray is no source of filters.*GivenFilters\(array\)"):
            fit(IMAGES)


def test_principal_components_validated_saved_and_put_into_a_network(tmp_path):
    patches = np.lib.stride_tricks.sliding_window_view(IMAGES, (2, 4), (1, 2)).reshape(-1, 24)
    components = PCA(6, random_state=0).fit(patches).components_.reshape(6, 3, 2, 4)
    made = make_pipeline(ConvFeatures(GivenFilters(components), "soft"), LogisticRegression())
    assert np.isfinite(cross_val_score(made, IMAGES, np.arange(12) % 2, cv=2, error_score="raise")).all()
    source = GivenFilters(components).fit(IMAGES)
    save_filters(source, tmp_path / "components.safetensors")
    assert np.array_equal(load_filters(tmp_path / "components.safetensors").filters_, source.filters_)
    layer = torch.nn.Conv2d(3, 6, (2, 4))
    assert initialize(layer, source) == [""]
    assert np.array_equal(layer.weight.detach().numpy(), components.astype(np.float32))


def test_given_kernels_need_no_worker():
    array = pytest.importorskip("dask.array")
    images = array.from_array(IMAGES, chunks=(5, -1, -1, -1))
    features = distributed.fit(ConvFeatures(GivenFilters(KERNELS), "soft"), images)
    assert np.allclose(distributed.transform(features, images).compute(), features.transform(IMAGES), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("side", [250, (181, 61)])
def test_patches_too_large_for_a_covariance_are_refused_before_they_are_drawn(side):
    images = np.broadcast_to(np.uint8(0), (2, 260, 255, 3))
    sources = [kind(4, side, random_state=0) for kind in (KMeansFilters, SampledPatches, RandomFilters)]
    for source in sources:
        with pytest.raises(ArgumentError, match=r"values, and a covariance of \d+ GB; at most 32766 are possible"):
            source.fit(images)
    with pytest.raises(ArgumentError, match="patches of 3 x 250 x 250 have 187500 values, and a covariance of 281 GB"):
        KMeansFilters(4, 250).fit(images)


def test_what_is_fitted_from_the_same_has_the_same_hash():
    def fitted():
        return KMeansFilters(7, (3, 2), n_patches=400, random_state=0).fit(IMAGES)

    first, again = fitted().preparation_, fitted().preparation_
    other = KMeansFilters(7, (3, 2), n_patches=400, random_state=1).fit(IMAGES).preparation_
    assert joblib.hash(first) == joblib.hash(again)
    assert joblib.hash(first) != joblib.hash(other)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("source", "use"),
    [
        (ConvFeatures(KMeansFilters(7, (3, 2), n_patches=400, random_state=0)), "transform"),
        (ConvFeatures(RandomFilters(7, (3, 2), random_state=0), pooling=ClusterPool(2, random_state=0)), "transform"),
        (SparseCodingFilters(4, (3, 2), n_iter=2, predictor_iter=2, random_state=0), "reconstruct"),
        (SparseCodingFilters(4, (3, 2), n_iter=2, predictor_iter=2, random_state=0), "predict"),
        (SparseEncoderDecoder(4, (3, 2), random_state=0), "encode"),
        (ConvRBM(3, 2, n_epochs=1, random_state=0), "reconstruct"),
    ],
)
def test_what_was_learned_may_lie_in_a_read_only_map(source, use, tmp_path):
    source.fit(IMAGES)
    joblib.dump(source, tmp_path / "source")
    mapped = joblib.load(tmp_path / "source", mmap_mode="r")
    given, expected = (getattr(which, use)(IMAGES) for which in (mapped, source))
    pairs = zip(given, expected, strict=True) if isinstance(expected, tuple) else [(given, expected)]
    assert all(np.array_equal(a, b) for a, b in pairs)
    inner = getattr(mapped, "source_", mapped)
    assert not inner.filters_.flags.writeable
    assert inner.to_layer()(torch.zeros(1, 3, 9, 11)).shape[0] == 1
    assert isinstance(inner.preparation_, Preparation)
    save_filters(inner, tmp_path / "filters.safetensors")
