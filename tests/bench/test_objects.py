"""The comparison of partitions cuts what it says, and chooses nothing on what it tests on."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from bench import objects
from ninefold.segment.config import TrainConfig
from ninefold.segment.model import Segmenter, Shape
from ninefold.structured.partition import Affinities, adapted_rand_error


class Told:
    """A model that gives what it was told for each image, by its first value."""

    def __init__(self, maps: list[np.ndarray]) -> None:
        self.maps = maps

    def predict(self, image: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.maps[int(image.flatten()[0])])


def numbered(truths: list[np.ndarray]) -> list[objects.Pair]:
    return [(torch.full((1, *truth.shape), float(k)), torch.from_numpy(truth)) for k, truth in enumerate(truths)]


@pytest.mark.parametrize("shape", [(23, 31), (9, 11, 14)])
def test_components_of_a_boundary_map_are_those_of_the_thresholded_map(shape):
    boundary = ndimage.gaussian_filter(np.random.default_rng(0).random(shape), 1.5).astype(np.float32)
    boundary = (boundary - boundary.min()) / np.ptp(boundary)
    found = objects.map_cut("components")(np.stack([boundary, 1 - boundary]), 0.4)
    labels, _ = ndimage.label(1 - boundary > 0.4)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    expected = np.where(sizes[labels] >= objects.SMALLEST, labels, 0)
    assert len(np.unique(expected)) > 1
    assert ((found > 0) == (expected > 0)).all()
    assert adapted_rand_error(expected, found, background=0).error == 0


def test_the_threshold_is_that_of_the_held_out_images():
    truth = np.repeat([[1] * 7 + [0] + [2] * 8], 6, 0)
    sure = np.where(truth > 0, 0.92, 0.02).astype(np.float32)  # any threshold but the largest two does
    weak = np.where(truth > 0, 0.92, 0.55).astype(np.float32)  # the wall is above most thresholds
    maps = [np.stack([1 - inside, inside]) for inside in (weak, sure)]
    pairs, cuts = numbered([truth, truth]), {"cut": objects.map_cut("components")}
    found = objects.measured(Told(maps), cuts, pairs[:1], pairs[1:], objects.ADAPTED)["cut"]
    assert found["chosen"] == 0.8  # of 0.6 to 0.9, which part the held-out image's cells
    other = objects.measured(Told(maps), cuts, pairs[1:], pairs[:1], objects.ADAPTED)["cut"]
    assert other["chosen"] == 0.5
    assert found["at chosen"].shape == (1, 6)
    assert found["at chosen"][0, objects.ADAPTED] == 0
    together, every = 42 * 41 / 2 + 48 * 47 / 2, 90 * 89 / 2  # pairs of pixels of the two cells, merged at 0.5
    assert other["at default"][0, objects.ADAPTED] == pytest.approx(1 - 2 * together / (together + every))
    by_precision = objects.measured(Told(maps), cuts, pairs[:1], pairs[1:], objects.AP)["cut"]
    assert by_precision["chosen"] == 0.8


def test_scores_are_of_perfect_and_of_merged_cells():
    truth = torch.tensor([[1, 1, 0, 2, 2]], device="cpu")
    assert objects.scores(truth, truth.numpy()).tolist() == [0, 1, 1, 0, 1, 2]
    merged = objects.scores(truth, np.ones((1, 5), np.int64))
    # of 6 pairs of 4 pixels, 2 are together in truth
    assert merged[[0, 1, 2, 3, 5]] == pytest.approx([0.5, 1 / 3, 1, 4 / 6, 1])


def test_training_for_a_time_ends_with_it(monkeypatch):
    clock = itertools.count(0.0, 1.0)
    monkeypatch.setattr(objects, "process_time", lambda: next(clock))
    config = TrainConfig("a", "b", "", task="objects", width=2, depth=1, crop=16, batch=2, loss="malis", malis_after=2)
    pairs = objects.cells((20, 24), 6, range(2), 0.1, 0.0)
    model, steps = objects.timed(config, pairs, 5.0)
    assert steps == 4  # a second for each look at the clock
    torch.manual_seed(config.seed)
    fresh = Segmenter(config, Shape(1, 2), [0.0], [1.0])
    pairwise = zip(model.parameters(), fresh.parameters(), strict=True)
    assert all(bool(a.isfinite().all()) and not torch.equal(a, b) for a, b in pairwise)


def test_near_edges_are_the_first_maps():
    maps = np.random.default_rng(1).random((6, 3, 4, 5)).astype(np.float32)
    near = objects.near(maps)
    assert near.offsets == ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    assert np.array_equal(near.values, maps[:3])
    assert np.array_equal(near.exists(), Affinities.from_labels(np.ones((3, 4, 5), np.int64), near.offsets).values > 0)
