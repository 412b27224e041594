"""Features by bands are those of whole maps, however the bands fall."""

import numpy as np
import pytest
import torch

from ninefold.engines import native
from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn import (
    ClusterPool,
    ConvFeatures,
    Encoder,
    GridPool,
    Hard,
    KMeansFilters,
    Pyramid,
    QuadrantSums,
    RandomFilters,
    Rectified,
    SampledPatches,
    SoftThreshold,
    SparseCode,
    Triangle,
)
from ninefold.learn import bands as module
from ninefold.learn.bands import Bands
from ninefold.learn.compare import Comparison

ENCODERS = [Triangle(), Hard(), SoftThreshold(0.1), SoftThreshold(0.1, split=False), SparseCode(n_iter=3)]
POOLINGS = [QuadrantSums(), GridPool((3, 2), "mean"), Pyramid((1, 3)), GridPool((2, 1), "max"), Pyramid((2,), "sum")]


def images(count=5, channels=2, height=11, width=8):
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(1)) * 40 + 90


SOURCES = {
    "whitened": KMeansFilters(13, (3, 2), random_state=0),
    "normalised": KMeansFilters(13, (3, 2), whitening=None, random_state=0),
    "plain": RandomFilters(13, (3, 2), random_state=0),
}


@pytest.fixture(params=SOURCES, ids=str)
def source(request):
    return SOURCES[request.param].fit(images(30))


@pytest.mark.parametrize("encoder", ENCODERS, ids=repr)
@pytest.mark.parametrize("pooling", POOLINGS, ids=repr)
@pytest.mark.parametrize(("stride", "limit"), [(1, 1), (1, 13 * 4 * 7 * 4), (2, 1 << 20), (1, 1 << 20)])
def test_bands_give_what_whole_maps_give(source, encoder, pooling, stride, limit, monkeypatch):
    monkeypatch.setattr(module, "_BAND", limit)
    comparison, x = Comparison(source, stride), images()
    assert Bands.fitting(comparison, encoder, pooling)
    expected = pooling(encoder(comparison(x)))
    found = Bands(comparison, encoder, pooling)
    for _ in range(2):  # the second time in memory that was used before
        torch.testing.assert_close(found(x), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    torch.testing.assert_close(found(x[:1]), expected[:1], rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_images_of_other_sizes_follow_one_another(source):
    comparison = Comparison(source)
    found = Bands(comparison, Triangle(), QuadrantSums())
    for x in (images(3), images(2, height=5, width=14), images(7, height=20)):
        torch.testing.assert_close(found(x), QuadrantSums()(Triangle()(comparison(x))), rtol=1e-3, atol=0.05)


def test_who_looks_beside_a_position_gets_whole_maps(source):
    comparison = Comparison(source)

    class Own(Encoder):
        def __call__(self, compared):
            return compared.dots

    assert not Bands.fitting(comparison, Rectified(), QuadrantSums())
    assert not Bands.fitting(comparison, Own(), QuadrantSums())
    assert not Bands.fitting(comparison, Triangle(), ClusterPool(3))
    assert not Bands.fitting(comparison, Triangle(), lambda maps: maps.sum((2, 3)))
    few = Comparison(SampledPatches(5, (3, 2), random_state=0).fit(images()))
    assert not Bands.fitting(few, Triangle(), QuadrantSums())


def test_images_are_left_as_they_are(source):
    x = images()
    before = x.clone()
    Bands(Comparison(source), Triangle(), QuadrantSums())(x)
    assert torch.equal(x, before)


def test_bad_images_and_poolings_are_named(source):
    made = Bands(Comparison(source), Triangle(), QuadrantSums())
    with pytest.raises(ShapeError, match="3 channels, and the filters were learned from 2"):
        made(images(channels=3))
    with pytest.raises(ShapeError, match="smaller than the filters"):
        made(images(height=2))
    with pytest.raises(ArgumentError, match="operation='median'"):
        Bands(Comparison(source), Triangle(), GridPool(2, "median"))(images())


def test_features_of_one_image_are_its_row_among_many():
    x = images(9).numpy()
    features = ConvFeatures(SOURCES["whitened"], channels="first").fit(x)
    rows = features.transform(x)
    np.testing.assert_allclose(features.transform(x[4:5]), rows[4:5], rtol=1e-4, atol=1e-3)


def test_a_pooling_that_is_a_grid_and_more_pools_as_it_does():
    x = images(20).numpy()
    features = ConvFeatures(SOURCES["whitened"], pooling=ClusterPool(3, random_state=0), channels="first").fit(x)
    rows = features.transform(x)
    assert rows.shape[1] == len(features.get_feature_names_out())
    whole = features.pooling_(Triangle()(Comparison(features.source_)(images(20))))
    np.testing.assert_allclose(rows, whole.numpy(), rtol=1e-4, atol=1e-3)


@pytest.fixture
def kernel():
    if native.instruction_set() is None:
        pytest.skip("needs the native extension")
    return native.extension_module()


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("encoder", ENCODERS[:4], ids=repr)
def test_the_kernel_gives_what_torch_gives(kernel, encoder, stride, threads, count, monkeypatch):
    x = images(count, channels=3, height=14, width=19)
    comparison = Comparison(KMeansFilters(71, (5, 4), random_state=0).fit(images(30, channels=3)), stride)
    pooling = Pyramid((1, 2, 3), "mean")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        made = Bands(comparison, encoder, pooling)
        found = [made(x) for _ in range(2)]
        kernel.poison(True)
        found.append(Bands(comparison, encoder, pooling)(x))
        kernel.poison(True, denormal=True)
        kernel.met_denormals(threads)
        found.append(Bands(comparison, encoder, pooling)(x))
        assert not kernel.met_denormals(threads)
    finally:
        kernel.poison(False)
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])
    monkeypatch.setattr(Bands, "_code", lambda _: None)
    expected = Bands(comparison, encoder, pooling)(x)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_the_kernel_takes_whom_it_knows(kernel, source):
    class Own(Triangle):
        def __call__(self, compared):
            return super().__call__(compared) * 2

    comparison, x = Comparison(source), images()
    assert Bands(comparison, Triangle(), QuadrantSums())._code() == (0, 0.0)
    assert Bands(comparison, Triangle(), GridPool(2, "max"))._code() is None
    assert Bands(comparison, SparseCode(), QuadrantSums())._code() is None
    assert Bands(comparison, Own(), QuadrantSums())._code() is None
    twice = Bands(comparison, Own(), QuadrantSums())(x)
    torch.testing.assert_close(twice, 2 * Bands(comparison, Triangle(), QuadrantSums())(x), rtol=1e-3, atol=0.1)
    with pytest.raises(ArgumentError, match="alpha=-1"):
        Bands(comparison, SoftThreshold(-1), QuadrantSums())(x)


def test_many_regions_at_one_position(kernel, source):
    pooling = Pyramid((1,) * 100, "sum")
    rows = Bands(Comparison(source), Triangle(), pooling)(images()).view(5, 100, -1)
    torch.testing.assert_close(rows, rows[:, :1].expand_as(rows), rtol=0, atol=0)
    assert rows.any()
