"""Confusion matrices against sets of pixels, boundary scores against distances of all pairs."""

import pickle
from itertools import product

import numpy as np
import pytest
import torch

from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from ninefold.structured.partition import Confusion, boundary_f, boundary_voxels

RNG = np.random.default_rng(0)
TRUE, FOUND = RNG.integers(0, 4, (5, 7)), RNG.integers(0, 4, (5, 7))


def counted(true, found, classes, **options):
    confusion = Confusion(classes, **options)
    confusion.update(true, found)
    return confusion


def test_each_score_by_sets_of_pixels():
    confusion = counted(TRUE, FOUND, 4)
    of = [[{p for p in np.ndindex(x.shape) if x[p] == c} for c in range(4)] for x in (TRUE, FOUND)]
    pairs = list(zip(*of, strict=True))
    iou = [len(a & b) / len(a | b) for a, b in pairs]
    assert confusion.matrix.tolist() == [[len(a & b) for b in of[1]] for a in of[0]]
    assert confusion.pixel_accuracy == (TRUE == FOUND).mean()
    assert confusion.class_accuracy.tolist() == [len(a & b) / len(a) for a, b in pairs]
    assert confusion.iou.tolist() == iou
    assert confusion.dice.tolist() == [2 * len(a & b) / (len(a) + len(b)) for a, b in pairs]
    assert confusion.mean_iou() == pytest.approx(sum(iou) / 4)
    assert confusion.mean_dice() == pytest.approx(np.mean([2 * i / (1 + i) for i in iou]))
    assert confusion.mean_class_accuracy() == pytest.approx(confusion.class_accuracy.mean())
    assert confusion.frequency_weighted_iou == pytest.approx(sum(len(a) * i for (a, _), i in zip(pairs, iou, strict=True)) / 35)


def test_rows_are_truth():
    assert counted([[0, 0, 1]], [[1, 1, 1]], 2).matrix.tolist() == [[0, 2], [0, 1]]


@pytest.mark.parametrize(("absent", "mean"), [("ignore", 1.5 / 3), ("zero", 1.5 / 5), ("one", 3.5 / 5)])
def test_a_class_in_neither_is_absent_and_one_that_is_only_predicted_is_not(absent, mean):
    """Class 0 is right, 1 half, 2 only predicted, 3 and 4 nowhere."""
    confusion = counted([0, 0, 1, 1], [0, 0, 1, 2], 5)
    np.testing.assert_array_equal(confusion.iou, [1, 0.5, 0, np.nan, np.nan])
    np.testing.assert_array_equal(confusion.class_accuracy, [1, 0.5, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(confusion.dice, [1, 2 / 3, 0, np.nan, np.nan])
    assert confusion.mean_iou(absent) == pytest.approx(mean)
    assert confusion.mean_class_accuracy() == 0.75
    assert confusion.frequency_weighted_iou == 0.75


def test_a_perfect_map_that_lacks_a_class_scores_one():
    confusion = counted([[0, 0, 2]], [[0, 0, 2]], 3)
    assert (confusion.mean_iou(), confusion.mean_dice(), confusion.mean_class_accuracy()) == (1, 1, 1)


def test_labels_that_do_not_count():
    true = np.where(TRUE == 3, 255, TRUE)
    inside = TRUE < 3
    want = counted(TRUE[inside], FOUND[inside], 4)
    assert (counted(true, FOUND, 4, ignore=255).matrix == want.matrix).all()
    assert (counted(np.where(inside, true, -100), np.where(inside, FOUND, 99), 4, ignore=[-100, 255]).matrix == want.matrix).all()
    within = counted(TRUE, FOUND, 4, ignore=3)
    assert (within.matrix == want.matrix).all()
    assert np.isnan(within.iou[3])
    assert within.mean_iou("zero") == within.mean_iou("one") == pytest.approx(want.iou[:3].mean())
    within.update([3, 3], [0, 1])
    assert within.pixels == inside.sum()


def test_parts_add_up_to_the_whole():
    whole, parts = counted(TRUE, FOUND, 4), [counted(TRUE[:2], FOUND[:2], 4), counted(TRUE[2:], FOUND[2:], 4)]
    together = sum(parts, start=Confusion(4))
    assert (together.matrix == whole.matrix).all()
    assert parts[0].pixels == 14
    parts[0].update(TRUE[2:], FOUND[2:])
    assert (parts[0].matrix == whole.matrix).all()
    back = pickle.loads(pickle.dumps(whole))
    assert (back.matrix == whole.matrix).all()
    shared = torch.from_numpy(whole.matrix)
    shared += shared.clone()  # what all_reduce of two equal processes does
    assert whole.pixels == 70


def test_kinds_of_arrays():
    want = counted(TRUE, FOUND, 4).matrix
    for a, b in [
        (torch.from_numpy(TRUE), torch.from_numpy(FOUND.astype(np.uint8))),
        (TRUE.astype(np.uint16), FOUND.tolist()),
        (np.asfortranarray(TRUE), torch.from_numpy(FOUND.T.copy()).T),
    ]:
        assert (counted(a, b, 4).matrix == want).all()
    fixed = TRUE.copy()
    fixed.setflags(write=False)
    assert (counted(fixed, FOUND, 4).matrix == want).all()
    assert (counted(TRUE > 1, FOUND > 1, 2).matrix == want.reshape(2, 2, 2, 2).sum((1, 3))).all()


def test_renumbered_classes_move_their_scores_and_leave_the_means():
    names = np.array([2, 0, 3, 1])
    a, b = counted(TRUE, FOUND, 4), counted(names[TRUE], names[FOUND], 4)
    assert (b.iou[names] == a.iou).all()
    assert b.mean_iou() == pytest.approx(a.mean_iou())
    swapped = counted(FOUND, TRUE, 4)
    assert (swapped.matrix == a.matrix.T).all()
    assert (swapped.iou == a.iou).all()


def test_the_table_of_classes():
    table = str(counted([0, 0, 1, 1], [0, 0, 1, 2], 4, names=("sky", "tree", "road", "boat"))).splitlines()
    assert table[0].split() == ["class", "true", "pixels", "accuracy", "IoU", "Dice"]
    assert table[2].split() == ["tree", "2", "0.5000", "0.5000", "0.6667"]
    assert table[3].split() == ["road", "0", "-", "0.0000", "0.0000"]
    assert table[4].split() == ["boat", "0", "-", "-", "-"]
    assert table[5].split()[-3:] == ["0.7500", "0.5000", "0.5556"]
    assert table[-1].split()[-1] == "0.7500"
    assert len({len(line) for line in table[:6]}) == 1
    assert str(Confusion(3, ignore=7)) == "Confusion(3, ignore=[7]): 0 pixels"


@pytest.mark.parametrize(
    ("true", "found", "error", "words"),
    [
        (TRUE + 1, FOUND, ArgumentError, r"true has \d+ of 35 counted pixels outside the classes 0 to 3: they go from 1 to 4"),
        (TRUE, FOUND - 1, ArgumentError, r"predicted has \d+ of 35 .* from -1 to 2"),
        (TRUE, FOUND.T, ShapeError, r"true has the shape \(5, 7\), predicted \(7, 5\)"),
        (TRUE, FOUND / 2, DTypeError, "predicted is of float64; .* argmax"),
        (TRUE * np.nan, FOUND, DTypeError, "true is of float64"),
        (TRUE, "cat", ArgumentTypeError, "predicted is a str"),
        (np.full((5, 7), 2**64 - 1, np.uint64), FOUND, ArgumentError, "18446744073709551615"),
    ],
)
def test_an_update_that_is_refused_counts_nothing(true, found, error, words):
    confusion = counted(TRUE, FOUND, 4)
    before = confusion.matrix.copy()
    with pytest.raises(error, match=words):
        confusion.update(true, found)
    assert (confusion.matrix == before).all()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Confusion(0), ArgumentError, "classes=0"),
        (lambda: Confusion(2.5), ArgumentTypeError, "classes=2.5"),
        (lambda: Confusion(2, ignore=[0.5]), ArgumentTypeError, "ignore=0.5"),
        (lambda: Confusion(2, names=["one"]), ArgumentError, "give 2, one for each class"),
        (lambda: Confusion(2) + Confusion(3), ArgumentError, "do not add up"),
        (lambda: Confusion(2) + Confusion(2, ignore=1), ArgumentError, "do not add up"),
        (lambda: Confusion(2) + 1, TypeError, "unsupported operand"),
        (lambda: Confusion(2).mean_iou(), ArgumentError, "0 pixels were counted"),
        (lambda: counted([3, 3], [0, 1], 2, ignore=3).pixel_accuracy, ArgumentError, r"0 pixels .* labels \[3\]"),
        (lambda: counted(TRUE, FOUND, 4).mean_iou("nan"), ArgumentError, "absent='nan'; it is one of 'ignore', 'zero', 'one'"),
    ],
)
def test_refusals_of_confusion(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_nothing_to_count_adds_nothing():
    assert counted(np.zeros((0, 3), int), np.zeros((0, 3), int), 2).pixels == 0


# Boundaries


def boundary(labels, counted):
    """Voxels with a counted neighbour of another label, by looking at each."""
    out = np.zeros(labels.shape, bool)
    for p in np.ndindex(labels.shape):
        for axis, step in product(range(labels.ndim), (-1, 1)):
            q = list(p)
            q[axis] += step
            if 0 <= q[axis] < labels.shape[axis] and counted[p] and counted[tuple(q)]:
                out[p] |= labels[p] != labels[tuple(q)]
    return out


def shares(a, b, tolerance, spacing):
    """Precision, recall and F of boundary `b` against truth `a`, by all distances."""
    p, q = (np.argwhere(x) * np.array(spacing) for x in (a, b))
    if not len(p) or not len(q):
        found = [float(not len(q)), float(not len(p))]
    else:
        near = np.sqrt(np.square(p[:, None] - q).sum(-1)) <= tolerance + 1e-9
        found = [near.any(0).mean(), near.any(1).mean()]
    return (*found, 2 * found[0] * found[1] / sum(found) if sum(found) else 0.0)


IMAGES = [(s, shape) for s, shape in enumerate([(6, 9), (5, 7), (3, 4, 5), (11,), (1, 8), (4, 1)])]


@pytest.mark.parametrize(("seed", "shape"), IMAGES)
@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2.5])
@pytest.mark.parametrize("ignore", [(), 3])
def test_boundaries_by_all_distances(seed, shape, tolerance, ignore):
    rng = np.random.default_rng(seed)
    true, found = (np.sort(rng.integers(0, 4, shape), axis=-1) for _ in range(2))
    true.flat[0] = 0
    spacing = (1.5, 1, 0.7)[-len(shape) :]
    counted = true != ignore if ignore else np.ones(shape, bool)
    lines = boundary(true, counted), boundary(found, counted)
    assert (boundary_voxels(true, counted) == lines[0]).all()
    scores = boundary_f(true, torch.from_numpy(found), tolerance=tolerance, spacing=spacing, ignore=ignore)
    assert (scores.precision, scores.recall, scores.f) == pytest.approx(shares(*lines, tolerance, spacing))
    there = [c for c in range(4) if any((line & (x == c)).any() for line, x in zip(lines, (true, found), strict=True))]
    assert scores.classes.tolist() == there
    want = [shares(lines[0] & (true == c), lines[1] & (found == c), tolerance, spacing) for c in there]
    got = list(zip(scores.class_precision, scores.class_recall, scores.class_f, strict=True))
    np.testing.assert_allclose(np.reshape(got, (-1, 3)), np.reshape(want, (-1, 3)), rtol=1e-12)
    assert scores.mean_f == pytest.approx(np.mean([w[2] for w in want]) if want else 1)


def square(row, column, side=6, shape=(20, 30)):
    out = np.zeros(shape, int)
    out[row : row + side, column : column + side] = 1
    return out


def test_a_moved_square_is_found_within_its_shift_and_not_below():
    true, moved = square(5, 8), square(5, 11)
    assert boundary_f(true, moved, tolerance=3).f == 1
    assert 0.3 < boundary_f(true, moved, tolerance=1).f < 0.7
    far = boundary_f(true, square(5, 8 + 6 + 5), tolerance=1)
    assert (far.precision, far.recall, far.f, far.mean_f) == (0, 0, 0, 0)


def test_an_outline_in_pieces_has_low_recall_and_noise_low_precision():
    true, noisy = square(5, 8), square(5, 8)
    noisy[15:18, 20:26] = 1
    scores = boundary_f(true, noisy, tolerance=1, background=0)
    assert scores.recall == 1
    assert scores.class_precision.tolist() == [20 / (20 + 14)]
    back = boundary_f(noisy, true, tolerance=1, background=0)
    assert (back.precision, back.class_recall.tolist()) == (1, [20 / (20 + 14)])


def test_spacing_scales_distances():
    true, moved = square(5, 8), square(6, 8)
    near = boundary_f(true, moved, tolerance=0.5, spacing=(0.5, 4))
    assert near.f == 1
    assert boundary_f(true, moved, tolerance=0.5, spacing=(4, 0.5)).f < 1
    assert boundary_f(true, square(5, 11), tolerance=0.3, spacing=(1, 0.1)).f == 1  # 3 * 0.1 > 0.3


def test_nothing_to_find_and_nothing_found():
    flat = np.full((4, 6), 2)
    nothing = boundary_f(flat, flat + 1, tolerance=1)
    assert (nothing.precision, nothing.recall, nothing.f, nothing.mean_f, len(nothing.classes)) == (1, 1, 1, 1, 0)
    missed = boundary_f(square(5, 8), square(0, 0) * 0, tolerance=3)
    assert (missed.precision, missed.recall, missed.f, missed.class_f.tolist()) == (1, 0, 0, [0, 0])
    invented = boundary_f(square(0, 0) * 0, square(5, 8), tolerance=3)
    assert (invented.precision, invented.recall, invented.f) == (0, 1, 0)


def test_boundaries_do_not_depend_on_names_and_background_is_only_left_out():
    names = np.array([4, 10**15, 2**63 - 1, 0])
    a, b = np.sort(TRUE, 1), np.sort(FOUND, 1)
    plain, renamed = boundary_f(a, b, tolerance=1), boundary_f(names[a], names[b], tolerance=1)
    assert (plain.precision, plain.recall) == (renamed.precision, renamed.recall)
    order = np.argsort(names)
    assert renamed.classes.tolist() == names[order].tolist()
    assert renamed.class_f.tolist() == plain.class_f[order].tolist()
    inner = boundary_f(a, b, tolerance=1, background=2)
    assert inner.f == plain.f
    assert inner.classes.tolist() == [0, 1, 3]
    assert inner.class_f.tolist() == plain.class_f[[0, 1, 3]].tolist()
    turned = boundary_f(a.T[::-1], b.T[::-1], tolerance=1)
    assert turned.class_f.tolist() == plain.class_f.tolist()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"tolerance": -1}, ArgumentError, "tolerance=-1"),
        ({"tolerance": np.nan}, ArgumentError, "tolerance=nan"),
        ({"tolerance": "1"}, ArgumentTypeError, "tolerance='1'"),
        ({"tolerance": 1, "spacing": (1, 2, 3)}, ArgumentError, "image of 2 axes; give 2 numbers above 0"),
        ({"tolerance": 1, "spacing": (1, 0)}, ArgumentError, r"spacing=\(1.0, 0.0\)"),
        ({"tolerance": 1, "spacing": 2}, ArgumentTypeError, "spacing=2; give a number for each of the 2 axes"),
        ({"tolerance": 1, "background": 0.5}, ArgumentTypeError, "background=0.5"),
        ({"tolerance": 1, "ignore": range(4)}, ArgumentError, "all 35 voxels"),
    ],
)
def test_refusals_of_boundaries(options, error, words):
    with pytest.raises(error, match=words):
        boundary_f(TRUE, FOUND, **options)


def test_refusals_of_labels_by_boundaries():
    with pytest.raises(ShapeError, match=r"\(5, 7\), predicted \(7, 5\)"):
        boundary_f(TRUE, FOUND.T, tolerance=1)
    with pytest.raises(DTypeError, match="true is of float64"):
        boundary_f(TRUE * np.nan, FOUND, tolerance=1)
    with pytest.raises(ArgumentError, match="goes down to -1"):
        boundary_f(TRUE - 1, FOUND, tolerance=1)
