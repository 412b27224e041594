"""On two workers, which are processes of their own, and with one of them killed."""

import os
import pickle
import re
import signal
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from ninefold import options
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn import (
    ClusterPool,
    ConvFeatures,
    ConvRBM,
    DesignedFilters,
    Encoder,
    KMeansFilters,
    OMPFilters,
    RandomFilters,
    SampledPatches,
    distributed,
)
from ninefold.learn import patches as drawing
from ninefold.settings import CURRENT

dask, da, dd = (pytest.importorskip(name) for name in ("dask", "dask.array", "distributed"))

PAGE = (Path(__file__).parents[2] / "docs" / "learn.md").read_text()
PATIENCE = {
    "distributed.comm.timeouts.connect": "300s",
    "distributed.comm.timeouts.tcp": "300s",
    "distributed.scheduler.worker-ttl": None,  # however busy the machine is, a worker that says nothing is not dead
    "distributed.worker.memory.terminate": False,
}


@pytest.fixture(scope="module")
def client():
    how = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0", "memory_limit": 0}
    with dask.config.set(PATIENCE), dd.LocalCluster(**how) as cluster, dd.Client(cluster, set_as_default=False) as it:
        it.wait_for_workers(2)
        it.run(import_module, "ninefold.learn")
        yield it


@pytest.fixture
def two(client):
    """Return a client whose two workers are there, whatever the test before did to them."""
    client.wait_for_workers(2)
    return client


def counted(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


def split(images, *sizes):
    return da.from_array(images, chunks=(sizes, *images.shape[1:]))


def made(make, images, *sizes):
    """Return a Dask array whose chunk k is what ``make(k, part)`` returns on a worker."""
    parts = np.split(images, np.cumsum(sizes)[:-1])
    return da.concatenate([da.from_delayed(dask.delayed(make)(k, p), p.shape, p.dtype) for k, p in enumerate(parts)])


@pytest.mark.parametrize(
    ("images", "sizes"),
    [
        (counted(23, 7, 9), (9, 0, 3, 11)),
        (counted(23, 7, 9, 3, dtype=np.uint8), (20, 3)),
        (counted(23, 2, 7, 9, dtype=np.int64), (1, 22)),
        (counted(23, 7, 9) > 99, (23,)),
    ],
)
@pytest.mark.parametrize("n_patches", [31, 10_000])
def test_the_patches_drawn_are_those_of_one_machine(two, monkeypatch, images, sizes, n_patches):
    monkeypatch.setattr(distributed, "_JOINED", 2)
    source = SampledPatches(31, (2, 3), n_patches=n_patches, contrast=None, whitening=None, random_state=5)
    told = []
    assert distributed.fit(source, split(images, *sizes), client=two, progress=lambda *now: told.append(now)) is source
    expected = SampledPatches(31, (2, 3), n_patches=n_patches, contrast=None, whitening=None, random_state=5).fit(images)
    assert np.array_equal(source.atoms_, expected.atoms_)
    assert len(told) == np.count_nonzero(sizes)
    assert told[-1] == (23, 23)
    assert source.channels == "auto"
    assert source.random_state == 5


def test_random_numbers_of_places_hang_on_no_block(monkeypatch):
    every = np.random.default_rng(3).random(1000)
    for block in (7, 1 << 22):
        monkeypatch.setattr(distributed, "_NUMBERS", block)
        assert np.array_equal(np.sort(distributed._least(3, 250, 700, 40)), np.sort(every[250:950])[:40])
        assert np.array_equal(distributed._least(3, 250, 9, 40), every[250:259])


@pytest.mark.parametrize(
    "source",
    [
        KMeansFilters(6, (2, 3), n_patches=200, random_state=1),
        OMPFilters(6, (2, 3), n_patches=200, max_iter=4, random_state=np.random.RandomState(4)),
        RandomFilters(6, (2, 3), random_state=2),
        DesignedFilters("sobel"),
    ],
    ids=lambda source: type(source).__name__,
)
def test_filters_are_those_of_one_machine(two, source):
    images, alone = counted(40, 6, 8, 3), pickle.loads(pickle.dumps(source)).fit(counted(40, 6, 8, 3))
    distributed.fit(source, split(images, 15, 15, 10), client=two)
    np.testing.assert_allclose(source.filters_, alone.filters_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(source.atoms_, alone.atoms_, rtol=1e-5, atol=1e-6)
    assert {name for name in vars(source) if name.endswith("_")} == {name for name in vars(alone) if name.endswith("_")}
    if hasattr(source, "partial_fit"):
        assert np.isfinite(source.partial_fit(images).filters_).all()  # learning goes on where it was left


@pytest.mark.parametrize("encoder", ["triangle", "soft"])
def test_features_are_those_of_one_machine(two, encoder):
    images = counted(31, 11, 12, 3, dtype=np.uint8)
    told = []
    features = ConvFeatures(
        KMeansFilters(7, (3, 2), n_patches=250, random_state=0), encoder, progress=lambda *now: told.append(now)
    )
    alone = ConvFeatures(KMeansFilters(7, (3, 2), n_patches=250, random_state=0), encoder).fit(images)
    stack = split(images, 10, 0, 20, 1)
    threads = two.run(torch.get_num_threads)
    assert distributed.fit(features, stack, client=two) is features
    assert not hasattr(features.filters, "filters_")
    assert features.channels == "auto"
    assert features.channels_ == alone.channels_ == "last"
    rows = distributed.transform(features, stack)
    assert (rows.shape, rows.dtype, rows.chunks[0]) == ((31, alone.transform(images).shape[1]), np.float32, (10, 0, 20, 1))
    assert rows._meta.dtype == np.float32
    found, expected = rows.compute(scheduler=two), alone.transform(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * expected.max())
    np.testing.assert_allclose(rows[25:27].compute(scheduler=two), found[25:27])
    assert list(features.get_feature_names_out()) == list(alone.get_feature_names_out())
    np.testing.assert_allclose(features.transform(images), found, rtol=1e-5, atol=1e-5 * expected.max())
    assert told[-1] == (31, 31)
    assert two.run(torch.get_num_threads) == threads  # nothing is set behind anybody's back


def test_filters_that_are_there_already(two):
    images = counted(12, 7, 9)
    source = SampledPatches(5, (2, 3), random_state=0).fit(images)
    features = distributed.fit(ConvFeatures(source, prefit=True), split(images, 12), client=two)
    assert features.source_ is source
    np.testing.assert_allclose(
        distributed.transform(features, split(images, 4, 8)).compute(scheduler=two),
        features.transform(images),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.fixture
def features():
    return ConvFeatures(SampledPatches(5, (2, 3), random_state=0)).fit(counted(6, 7, 9, 3))


def test_split_images_are_put_together(features):
    images = counted(6, 7, 9, 3)
    rows = distributed.transform(features, da.from_array(images, chunks=(4, 3, 9, 2)))
    np.testing.assert_allclose(rows.compute(scheduler="synchronous"), features.transform(images), rtol=1e-5)


class Remembering(Encoder):
    """Soft without a threshold that says which options it saw."""

    seen: ClassVar[list] = []

    def width(self, filters):
        return filters

    def __call__(self, compared):
        self.seen.append(CURRENT.get().tolerance)
        return compared.dots


def test_options_of_the_call_hold_where_it_is_computed():
    images = counted(6, 7, 9)
    features = ConvFeatures(SampledPatches(5, (2, 3), random_state=0), Remembering()).fit(images)
    with options(tolerance="strict"):
        rows = distributed.transform(features, split(images, 4, 2))
    assert Remembering.seen == []
    rows.compute(scheduler="synchronous")
    assert Remembering.seen == ["strict", "strict"]
    assert CURRENT.get().tolerance == "default"


def test_workers_get_no_more_than_they_need():
    images = counted(40, 7, 9)
    features = ConvFeatures(OMPFilters(100, 2, n_nonzero=2, max_iter=1, random_state=0), progress=print).fit(images)
    light = distributed._light(features, "none")
    assert light.progress is None
    assert len(pickle.dumps(light)) < len(pickle.dumps(features)) / 5
    assert features.progress is print
    assert np.array_equal(light.transform(images), features.transform(images))


UNKNOWN = da.from_array(counted(6, 7, 9), chunks=(3, -1, -1))[da.from_array(np.arange(6), chunks=3) > 1]


@pytest.mark.parametrize(
    ("images", "error", "match"),
    [
        (counted(6, 7, 9), ArgumentTypeError, r"must be a Dask array, got ndarray: dask.array.from_array"),
        (UNKNOWN, ShapeError, r"\(nan, 7, 9\).*compute_chunk_sizes"),
        (da.zeros((0, 7, 9)), ShapeError, r"0 sample\(s\)"),
        (da.zeros((4, 63)), ShapeError, "Reshape your data"),
        (da.zeros((4, 7, 9), dtype=complex), ArgumentError, "real numbers, got dtype complex128"),
        (da.zeros((4, 3, 7, 4)), ShapeError, "say channels="),
    ],
)
def test_images_that_are_refused_at_once(images, error, match):
    features = ConvFeatures(SampledPatches(5, (2, 3), random_state=0)).fit(counted(6, 7, 9))
    with pytest.raises(error, match=match):
        distributed.transform(features, images)
    with pytest.raises(error, match=match):
        distributed.fit(SampledPatches(5, (2, 3)), images)
    with pytest.raises(error, match=match):
        distributed.fit(RandomFilters(5, (2, 3)), images)


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (da.zeros((4, 7, 9)), "the images have 1 channels, and the filters were learned from 3"),
        (da.zeros((4, 1, 9, 3)), r"images of \(1, 9\) are smaller than the filters, \(2, 3\)"),
    ],
)
def test_images_that_do_not_fit_are_refused_at_once(features, images, match):
    with pytest.raises(ShapeError, match=match):
        distributed.transform(features, images)


def test_what_cannot_be_distributed_is_said(two):
    images = da.zeros((4, 7, 9))
    with pytest.raises(ArgumentError, match=r"no client was started: client = dask.distributed.Client\(\)"):
        distributed.fit(SampledPatches(5, 2), images)
    with pytest.raises(ArgumentTypeError, match="client=3 must be"):
        distributed.fit(SampledPatches(5, 2), images, client=3)
    with pytest.raises(ArgumentTypeError, match="ConvRBM learns from whole images in turn"):
        distributed.fit(ConvRBM(), images, client=two)
    with pytest.raises(ArgumentTypeError, match=r"pooling=ClusterPool\(...\) learns from feature maps"):
        distributed.fit(ConvFeatures(SampledPatches(5, 2), pooling=ClusterPool()), images, client=two)
    with pytest.raises(ArgumentTypeError, match="is no source of filters"):
        distributed.fit(ConvFeatures("kmeans"), images, client=two)
    with pytest.raises(ArgumentTypeError, match="must be ConvFeatures, not SampledPatches"):
        distributed.transform(SampledPatches(5, 2), images)
    with pytest.raises(ShapeError, match="no image is as large as a patch of 8x2"):
        distributed.fit(SampledPatches(5, (8, 2)), images, client=two)
    with pytest.raises(ArgumentError, match="n_patches=0 must be at least 1"):
        distributed.fit(SampledPatches(5, 2, n_patches=0), images, client=two)
    with pytest.warns(UserWarning, match="n_filters=50 filters cannot be learned from 9 patches"):
        distributed.fit(SampledPatches(50, 2, n_patches=9), da.random.default_rng(0).random((4, 7, 9)), client=two)


def test_a_chunk_that_fails(two, features):
    images = counted(9, 7, 9, 3)

    def broken(k, part):
        if k == 1:
            raise OSError("cannot read shelf-17.png")
        return part

    nan = images.copy()
    nan[5, 2, 3, 1] = np.nan
    source = SampledPatches(5, (2, 3), random_state=0)
    for stack, error, match in (
        (made(broken, images, 4, 3, 2), OSError, "cannot read shelf-17.png"),
        (split(nan, 4, 3, 2), ArgumentError, r"images 4 to 6: .*NaN or infinity, 1 of 567 values"),
    ):
        rows = distributed.transform(features, stack)
        with pytest.raises(error, match=match):
            rows.compute(scheduler=two)
        np.testing.assert_allclose(rows[7:].compute(scheduler=two), features.transform(images[7:]), rtol=1e-4, atol=1e-4)
        with pytest.raises(error, match=match):
            distributed.fit(source, stack, client=two)
        assert not hasattr(source, "filters_")
    assert distributed.fit(source, split(images, 4, 3, 2), client=two).filters_.shape == (5, 3, 2, 3)


def test_the_program_of_the_page_runs(two, tmp_path):
    (program,) = (block for block in re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL) if "Client(" in block)
    started, rest = "Client(n_workers=2, threads_per_worker=1)", f"Client({two.scheduler.address!r})"
    assert started in program
    names = {"__name__": "__main__"}
    try:
        exec(program.replace(started, rest).replace('"features"', repr(str(tmp_path / "features"))), names)
    finally:
        names["client"].close()
    rows = da.from_npy_stack(str(tmp_path / "features")).compute(scheduler="synchronous")
    assert rows.shape == (1797, 80)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, names["features"].transform(names["images"]), rtol=1e-4, atol=1e-4)


def test_one_machine_draws_as_workers_do():
    """The draw of one machine takes one number for each place, in order; the workers rely on it."""
    images = distributed.Images(counted(5, 4, 6))
    drawn = drawing.draw_patches(images, (2, 3), 7, seed=9)
    keys, patches = distributed._cut(counted(5, 4, 6), "none", (2, 3), 9, 0, float("inf"))
    assert np.array_equal(keys, np.random.default_rng(9).random(5 * 3 * 4))
    assert np.array_equal(patches[np.argsort(keys)][:7], drawn)


def kill(client, address):
    os.kill(client.run(os.getpid, workers=[address])[address], signal.SIGKILL)


def test_a_worker_that_dies_while_features_are_made(two, features, tmp_path):
    """It had finished the first chunk; the last one is being made, here or there, until it is dead."""
    images = counted(24, 7, 9, 3)

    def waiting(k, part):
        with (tmp_path / str(k)).open("ab") as times:
            times.write(b"x")
        if k == 5:
            dd.Event("the last chunk").set()
            dd.Event("a worker is dead").wait()
        return part

    rows = distributed.transform(features, made(waiting, images, *[4] * 6))
    kept = two.persist(rows)
    first = next(f for f in dd.futures_of(kept) if f.key == kept.__dask_keys__()[0][0])
    dd.Event("the last chunk", client=two).wait()
    first.result()
    (address,) = two.who_has([first])[first.key]
    kill(two, address)
    dd.Event("a worker is dead", client=two).set()
    found = two.compute(kept).result()
    expected = features.transform(images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * expected.max())
    assert (tmp_path / "0").stat().st_size == 2  # lost, and made anew


def test_a_worker_that_dies_while_patches_are_drawn(two, tmp_path):
    images = counted(24, 7, 9)
    source = SampledPatches(8, (2, 3), n_patches=40, contrast=None, whitening=None, random_state=3)

    def waiting(k, part):
        if k == 5:
            (tmp_path / "address").write_text(dd.get_worker().address)
            dd.Event("patches of the last chunk").set()
            dd.Event("one worker less").wait()
        return part

    def after_a_chunk(done, total):
        if done == 4:
            dd.Event("patches of the last chunk", client=two).wait()
            kill(two, (tmp_path / "address").read_text())
            dd.Event("one worker less", client=two).set()

    distributed.fit(source, made(waiting, images, *[4] * 6), client=two, progress=after_a_chunk)
    alone = SampledPatches(8, (2, 3), n_patches=40, contrast=None, whitening=None, random_state=3).fit(images)
    assert np.array_equal(source.atoms_, alone.atoms_)
