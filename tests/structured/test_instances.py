"""Matches of objects against every assignment there is; hand-made objects whose counts are known."""

import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest
import torch

from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from ninefold.structured.partition import average_precision, match_objects, panoptic_quality

TRUE = np.array([[1, 1, 1, 1, 0, 2, 2, 2], [1, 1, 1, 1, 0, 2, 2, 2], [0, 0, 0, 0, 0, 3, 3, 0]])
FOUND = np.array([[7, 7, 7, 0, 0, 9, 9, 9], [7, 7, 7, 0, 0, 5, 5, 5], [0, 4, 4, 0, 0, 0, 3, 3]])


def overlap(a, b, criterion="iou"):
    return (a & b).sum() / {"iou": (a | b).sum(), "iot": a.sum(), "iop": b.sum()}[criterion]


def by_trying(true, found, threshold, criterion="iou", background=0):
    """The best of all one-to-one assignments: most matches, then the largest sum; as (matches, sum)."""
    a, b = ([x == k for k in np.unique(x) if k != background] for x in (true, found))
    table = np.array([[overlap(p, q, criterion) for q in b] for p in a]).reshape(len(a), len(b))
    if len(a) > len(b):
        table = table.T
    best = (0, 0.0)
    for columns in permutations(range(table.shape[1]), table.shape[0]):
        scores = table[np.arange(table.shape[0]), list(columns)]
        scores = scores[scores >= threshold]
        best = max(best, (len(scores), round(float(scores.sum()), 9)))
    return best


def objects(seed, shape=(4, 9), labels=5):
    rng = np.random.default_rng(seed)
    true = np.sort(rng.integers(0, labels, shape), axis=1)
    return true, np.roll(np.where(rng.random(shape) < 0.25, rng.integers(0, labels + 1, shape), true), rng.integers(0, 2), 1)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("criterion", ["iou", "iot", "iop"])
def test_matches_are_the_best_of_all_assignments(seed, criterion):
    true, found = objects(seed)
    for threshold in (1e-9, 0.1, 0.25, 0.5, 0.6, 0.9):
        matches = match_objects(true, found, threshold, criterion)
        assert (matches.true_positives, round(float(matches.scores.sum()), 9)) == by_trying(true, found, threshold, criterion)
        for a, b, s in zip(matches.true, matches.predicted, matches.scores, strict=True):
            assert s == overlap(true == a, found == b, criterion) >= threshold
        assert sorted([*matches.true, *matches.missed]) == [k for k in np.unique(true) if k]
        assert sorted([*matches.predicted, *matches.invented]) == [k for k in np.unique(found) if k]
        assert len(set(matches.true)) == len(set(matches.predicted)) == matches.true_positives
        assert (np.diff(matches.true) > 0).all()


def test_more_matches_before_better_ones():
    """Object 1 overlaps both, 2 only the first: greedy by overlap would leave 2 alone."""
    true = np.array([1] * 5 + [2] * 4)
    found = np.array([8] + [7] * 6 + [0] * 2)
    greedy = match_objects(true, found, 0.3)
    assert (greedy.true.tolist(), greedy.predicted.tolist()) == ([1], [7])
    both = match_objects(true, found, 0.2)
    assert (both.true.tolist(), both.predicted.tolist()) == ([1, 2], [8, 7])
    assert both.scores.tolist() == [1 / 5, 2 / 8]


def test_matches_by_hand():
    matches = match_objects(TRUE, torch.from_numpy(FOUND))
    assert matches.true.tolist() == [1, 2]
    assert matches.predicted[0] == 7
    assert matches.predicted[1] in (5, 9)
    assert matches.scores.tolist() == [6 / 8, 3 / 6]
    assert matches.missed.tolist() == [3]
    assert len(matches.invented) == 3
    assert (matches.true_positives, matches.false_positives, matches.false_negatives) == (2, 3, 1)
    assert (matches.precision, matches.recall, matches.f, matches.average_precision) == (2 / 5, 2 / 3, 4 / 8, 2 / 6)
    assert str(matches).splitlines()[0].split() == ["true", "positives", "2"]
    assert str(matches).splitlines()[-1].split() == ["average", "precision", "0.3333"]


def test_average_precision_by_hand_and_over_thresholds():
    assert average_precision(TRUE, FOUND, 0.5) == 2 / 6
    assert average_precision(TRUE, FOUND, (0.3, 0.5, 0.75, 0.76)).tolist() == [3 / 5, 2 / 6, 1 / 7, 0]
    standard = average_precision(TRUE, FOUND)
    assert standard.shape == (10,)
    assert standard.tolist() == [2 / 6] + [1 / 7] * 5 + [0] * 4


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_falls_with_the_threshold_and_agrees_both_ways(seed):
    true, found = objects(seed)
    levels = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
    falling = average_precision(true, found, levels)
    assert (np.diff(falling) <= 0).all()
    assert falling.tolist() == average_precision(found, true, levels).tolist()
    names = np.array([0, 10**12, 3, 77, 5, 6])
    renamed = average_precision(names[true], names[found], levels)
    assert falling.tolist() == renamed.tolist()
    assert (average_precision(true, true, levels) == 1).all()


def test_an_empty_prediction_and_an_empty_truth():
    nothing = np.zeros_like(TRUE)
    missed = match_objects(TRUE, nothing)
    assert (missed.true_positives, missed.missed.tolist(), missed.invented.tolist()) == (0, [1, 2, 3], [])
    assert (missed.precision, missed.recall, missed.f, missed.average_precision) == (1, 0, 0, 0)
    invented = match_objects(nothing, FOUND)
    assert (invented.precision, invented.recall, invented.average_precision) == (0, 1, 0)
    assert average_precision(nothing, nothing).tolist() == [1] * 10
    quality = panoptic_quality(TRUE, nothing)
    assert (quality.quality, quality.segmentation, quality.recognition, quality.false_negatives) == (0, 0, 0, 3)
    assert panoptic_quality(nothing, nothing).quality == 1


def test_background_counts_in_unions_and_is_no_object():
    whole = match_objects(TRUE, FOUND, 0.01, background=None)
    assert 0 in whole.true
    assert whole.scores[0] == overlap(TRUE == 0, FOUND == 0)
    assert match_objects(TRUE, FOUND).scores[0] == 6 / 8
    moved = match_objects(TRUE + 3, FOUND + 3, background=3)
    assert moved.true.tolist() == [4, 5]
    assert (match_objects(TRUE, np.where(FOUND == 0, 50, FOUND)).average_precision) == 2 / 7


def test_ignored_voxels_are_cut_out_of_both():
    ignored = np.where(TRUE == 3, 9, TRUE)
    ignored[2, 1:3] = 9
    matches = match_objects(ignored, FOUND, ignore=9)
    assert matches.true.tolist() == [1, 2]
    assert matches.missed.tolist() == []
    assert 4 not in matches.invented
    assert 3 in matches.invented  # a voxel of it lies outside
    cut = np.where(np.arange(8) >= 3, 9, TRUE)
    assert match_objects(cut, FOUND, ignore=[9]).scores.tolist() == [1.0]


@pytest.mark.parametrize("seed", range(12))
def test_panoptic_quality_is_its_definition(seed):
    true, found = objects(seed)
    a, b = ([x == k for k in np.unique(x) if k] for x in (true, found))
    iou = [s for p in a for q in b if (s := overlap(p, q)) > 0.5]
    halves = (len(a) + len(b) - 2 * len(iou)) / 2
    quality = panoptic_quality(true, found)
    assert quality.quality == pytest.approx(sum(iou) / (len(iou) + halves))
    assert quality.recognition == len(iou) / (len(iou) + halves)
    assert quality.segmentation == pytest.approx(np.mean(iou) if iou else 0)
    assert quality.quality == pytest.approx(quality.segmentation * quality.recognition)
    assert (quality.true_positives, quality.false_positives) == (len(iou), len(b) - len(iou))


def test_panoptic_quality_at_exactly_half():
    """Object 2 meets two halves of IoU 0.5: neither is above it."""
    quality = panoptic_quality(TRUE, FOUND)
    assert (quality.true_positives, quality.false_positives, quality.false_negatives) == (1, 4, 2)
    assert quality.quality == 0.75 / 4
    assert match_objects(TRUE, FOUND, 0.5).true_positives == 2


def test_many_objects_take_no_table_of_all_pairs():
    """A table of 40,000 x 40,000 objects would be 12 GB."""
    true = np.arange(1, 40_001).repeat(4).reshape(400, 400)
    found = np.roll(true.reshape(-1, 20), 1, axis=1).reshape(400, 400)  # rings of 5 objects
    matches = match_objects(true, found, 0.1)
    assert matches.true_positives == 40_000
    assert (matches.scores == 3 / 5).all()
    ring = match_objects(true.ravel()[:8000], np.roll(true.ravel()[:8000], 2), 0.3)  # one of 2,000
    assert ring.true_positives == 2000
    assert (ring.scores == 2 / 6).all()


def test_above_half_scipy_is_not_loaded():
    code = "import sys, ninefold.structured.partition as p; print(p.average_precision([1, 1, 2], [1, 1, 1], 0.6)); "
    code += "print([m for m in sys.modules if m.startswith('scipy')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["0.5", "[]"], done.stderr


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: match_objects(TRUE, FOUND, 0), ArgumentError, "threshold=0; it is above 0, up to 1"),
        (lambda: match_objects(TRUE, FOUND, 1.5), ArgumentError, "threshold=1.5"),
        (lambda: match_objects(TRUE, FOUND, np.nan), ArgumentError, "threshold=nan"),
        (lambda: match_objects(TRUE, FOUND, "0.5"), ArgumentTypeError, "threshold='0.5'"),
        (lambda: match_objects(TRUE, FOUND, criterion="dice"), ArgumentError, "criterion='dice'; it is one of 'iou'"),
        (lambda: match_objects(TRUE, FOUND[:2]), ShapeError, r"\(3, 8\), predicted \(2, 8\)"),
        (lambda: match_objects(TRUE, FOUND * 1.0), DTypeError, "predicted is of float64"),
        (lambda: match_objects(TRUE, FOUND - 1), ArgumentError, "predicted goes down to -1"),
        (lambda: match_objects(TRUE, FOUND, background=0.0), ArgumentTypeError, "background=0.0"),
        (lambda: match_objects(TRUE * 0, FOUND, ignore=0), ArgumentError, "all 24 voxels"),
        (lambda: average_precision(TRUE, FOUND, ()), ArgumentError, "0 thresholds"),
        (lambda: average_precision(TRUE, FOUND, (0.5, 2)), ArgumentError, "threshold=2"),
        (lambda: panoptic_quality(TRUE[:0], FOUND[:0]), ShapeError, "nothing in it"),
    ],
)
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()
