from itertools import combinations

import numpy as np
import pytest
import torch
from skimage.metrics import adapted_rand_error as skimage_rand
from skimage.metrics import variation_of_information as skimage_voi

from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.structured.partition import adapted_rand_error, contingency, rand_index, score, variation_of_information

RNG = np.random.default_rng(0)
TRUE, FOUND = RNG.integers(0, 4, (5, 7)), RNG.integers(0, 6, (5, 7))


def by_pairs(true, found):
    """Pairs together in both, in truth, in the prediction, and all."""
    pairs = list(combinations(range(len(true)), 2))
    a = [true[i] == true[j] for i, j in pairs]
    b = [found[i] == found[j] for i, j in pairs]
    return sum(x and y for x, y in zip(a, b, strict=True)), sum(a), sum(b), len(pairs)


@pytest.mark.parametrize("names", [lambda x: x, lambda x: x * 10**12])
def test_pairs_by_brute_force(names):
    both, a, b, n = by_pairs(TRUE.ravel(), FOUND.ravel())
    true, found = names(TRUE), torch.from_numpy(names(FOUND))
    assert rand_index(true, found) == pytest.approx((n - a - b + 2 * both) / n)
    rand = adapted_rand_error(true, found)
    assert (rand.precision, rand.recall) == (both / b, both / a)
    assert rand.error == pytest.approx(1 - 2 * rand.precision * rand.recall / (rand.precision + rand.recall))


def test_precision_and_recall_the_right_way_round():
    merged, split = np.array([1, 1, 1, 1]), np.array([1, 2, 3, 4])
    true = np.array([1, 1, 2, 2])
    rand = adapted_rand_error(true, merged)
    assert (rand.precision, rand.recall) == (2 / 6, 1)
    voi = variation_of_information(true, merged)
    assert (voi.split, voi.merge, voi.total) == (0, 1, 1)
    voi = variation_of_information(true, split)
    assert (voi.split, voi.merge) == (1, 0)
    rand = adapted_rand_error(true, split)
    assert (rand.precision, rand.recall) == (1, 0)


def test_the_same_as_scikit_image_but_for_its_names():
    error, precision, recall = skimage_rand(TRUE, FOUND, ignore_labels=(0,))
    rand = adapted_rand_error(TRUE, FOUND, background=0)
    assert rand.error == pytest.approx(error)
    assert (rand.recall, rand.precision) == pytest.approx((precision, recall))
    split, merge = skimage_voi(TRUE, FOUND, ignore_labels=(0,))
    voi = variation_of_information(TRUE, FOUND, background=0)
    assert (voi.split, voi.merge) == pytest.approx((split, merge))


def test_relabelling_changes_nothing_and_only_the_same_partition_scores_one():
    names = np.array([7, 3, 900, 12])
    assert rand_index(names[TRUE], FOUND) == rand_index(TRUE, FOUND)
    assert rand_index(TRUE, names[TRUE]) == 1
    moved = TRUE.copy()
    moved[2, 3] = 5
    assert rand_index(TRUE, moved) < 1


def test_background_and_labels_that_do_not_count():
    inside = TRUE > 0
    assert score(TRUE, FOUND, background=0) == score(TRUE[inside], FOUND[inside])
    assert score(TRUE, FOUND, ignore=[2, 3]) == score(TRUE[TRUE < 2], FOUND[TRUE < 2])
    alone = [np.where(x == 0, 100 + np.arange(35).reshape(5, 7), x) for x in (TRUE, FOUND)]
    assert score(TRUE, FOUND, background=0, background_as="singletons") == score(*alone)
    one = contingency(TRUE, FOUND)
    assert one.voxels == 35
    assert one.true_sizes.tolist() == np.bincount(TRUE.ravel()).tolist()


def test_one_missing_wall_pixel_is_a_small_pixel_error_and_a_large_rand_error():
    from scipy.ndimage import label

    wall = np.zeros((20, 30), bool)
    wall[:, 15] = True
    gap = wall.copy()
    gap[9, 15] = False
    true, found = label(~wall)[0], label(~gap)[0]
    assert (wall != gap).mean() < 0.002
    assert adapted_rand_error(true, found, background=0).error > 0.3
    shifted = np.roll(wall, 3, 1)
    assert (wall != shifted).mean() > 0.05
    assert adapted_rand_error(true, label(~shifted)[0], background=0).error < 0.3


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: rand_index(TRUE, FOUND.T), ShapeError, r"true has the shape \(5, 7\), predicted \(7, 5\)"),
        (lambda: rand_index(TRUE * 1.0, FOUND), DTypeError, "true is of float64"),
        (lambda: rand_index(TRUE, FOUND - 9), ArgumentError, "predicted goes down to -9"),
        (lambda: rand_index(TRUE[:0], FOUND[:0]), ShapeError, "nothing in it"),
        (lambda: score(TRUE * 0, FOUND, background=0), ArgumentError, r"all 35 voxels are of labels that do not count, \[0\]"),
        (lambda: score(TRUE, FOUND, background=0, background_as="none"), ArgumentError, "background_as='none'"),
    ],
)
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()
