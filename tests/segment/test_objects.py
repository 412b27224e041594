"""Affinities are learned, and cut into objects."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.segment.scenes import cells

from ninefold.errors import ArgumentError
from ninefold.segment.config import TrainConfig
from ninefold.segment.crops import split
from ninefold.segment.cutting import METHODS, objects_of
from ninefold.segment.losses import affinity_sums
from ninefold.segment.model import Segmenter, Shape, long_offsets
from ninefold.segment.parallel import World
from ninefold.segment.tasks import task_of
from ninefold.segment.training import train
from ninefold.structured.partition import Affinities

torch.manual_seed(0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_exact_affinities_give_the_objects_back(method, ndim):
    image, truth = cells(1, ndim)[0]
    del image
    found = objects_of(Affinities.from_labels(truth.numpy(), long_offsets(ndim)), method, minimum_size=1)
    pairs = set(zip(truth.flatten().tolist(), found.flatten().tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert (0, 0) in pairs


def test_small_objects_are_left_out_and_the_rest_numbered_anew():
    labels = np.array([[3, 3, 3, 0, 1, 0, 2, 2]])
    found = objects_of(Affinities.from_labels(labels), "components", minimum_size=2)
    assert found.tolist() == [[1, 1, 1, 0, 0, 0, 2, 2]]
    assert objects_of(Affinities.from_labels(labels), "components", minimum_size=9).max() == 0


def test_methods_that_cannot_be():
    near = Affinities.from_labels(np.array([[1, 1, 2]]))
    with pytest.raises(ArgumentError, match="method is 'cut': it must be one of mutex, components, watershed"):
        objects_of(near, "cut")
    with pytest.raises(ArgumentError, match="needs far edges beside the 2 neighbours"):
        objects_of(near, "mutex")


def test_the_loss_is_that_of_edges_that_exist():
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    target, mask = (torch.rand(logits.shape) > 0.6).double(), torch.rand(logits.shape) > 0.3
    total, count = affinity_sums(logits, target, mask)
    each = torch.nn.functional.binary_cross_entropy(logits.sigmoid(), target, reduction="none")
    torch.testing.assert_close(total / count, each[mask].mean())
    total, count = affinity_sums(logits, target, mask, balanced=True)
    means = [
        torch.stack([each[b, k][mask[b, k] & (target[b, k] == kind)].mean() for kind in (0, 1)]).mean() * mask[b, k].sum()
        for b in range(2)
        for k in range(3)
    ]
    torch.testing.assert_close(total, torch.stack(means).sum())
    torch.testing.assert_close(count, mask.sum().double())


def test_balanced_edges_where_one_kind_lacks_are_finite():
    logits = torch.zeros(1, 1, 2, 3, requires_grad=True)
    total, count = affinity_sums(logits, torch.ones(1, 1, 2, 3), torch.ones(1, 1, 2, 3, dtype=torch.bool), balanced=True)
    (total / count).backward()
    assert logits.grad.isfinite().all()
    assert count > 0


def of(loss="cross_entropy", **others):
    settings = {
        "task": "objects",
        "loss": loss,
        "crop": 24,
        "batch": 2,
        "width": 8,
        "depth": 2,
        "epochs": 6,
        "repeats": 8,
    } | others
    return TrainConfig("a", "b", "c", **settings)


@pytest.mark.parametrize("loss", ["cross_entropy", "malis"])
def test_padding_has_no_part_in_the_loss(loss):
    task = task_of(of(loss, malis_after=0), Shape(1, 2), None)
    labels = cells(1, 2)[0][1][None, :12, :15]
    logits = torch.randn(1, 4, 12, 15)
    total, count = task.sums([logits], labels, 0)
    padded = torch.nn.functional.pad(labels, (0, 4, 0, 3), value=-1)
    more, number = task.sums([torch.nn.functional.pad(logits, (0, 4, 0, 3), value=3.0)], padded, 0)
    torch.testing.assert_close(more / number, total / count)


def test_the_loss_of_pairs_begins_when_it_shall():
    task, plain = (task_of(of(loss, malis_after=5), Shape(1, 2), None) for loss in ("malis", "cross_entropy"))
    labels, logits = cells(1, 2)[0][1][None], torch.zeros(1, 4, 40, 33)
    before, after = (torch.div(*task.sums([logits], labels, done)) for done in (4, 5))
    assert before == torch.div(*plain.sums([logits], labels, 4))
    assert after > before


@pytest.mark.parametrize("balance", ["none", "inverse"])
@pytest.mark.parametrize("loss", ["cross_entropy", "malis"])
def test_images_without_objects_are_trained_on_and_held_out(loss, balance, tmp_path):
    pairs = [(image, mask * (k % 2)) for k, (image, mask) in enumerate(cells(6, 2))]
    config = replace(of(loss, malis_after=1), out=str(tmp_path), epochs=2, validation=0.5, balance=balance)
    outcome = train(config, pairs, tell=lambda _: None)
    assert all(np.isfinite(list(epoch.values())).all() for epoch in outcome.history)
    with pytest.raises(ArgumentError, match="none of the 1 images that are held out has an object.*another seed than 0"):
        held = split(6, 0.1, 0)[1][0]
        train(replace(config, validation=0.1), [(x, y * (k != held)) for k, (x, y) in enumerate(pairs)], tell=lambda _: None)


def test_who_finds_nothing_is_not_chosen_for_images_without_objects():
    nothing = torch.zeros(6, 8, dtype=torch.int64)
    one = torch.zeros(6, 8, dtype=torch.int64)
    one[1:4, 2:6] = 1
    pairs = [(mask[None].float(), mask) for mask in (nothing, one, nothing)]
    scores = []
    for maps in ([nothing] * 3, [nothing, one, one]):  # by the mean of the images' scores both would be 2 / 3
        task, found = task_of(of("cross_entropy"), Shape(1, 2), None), iter(maps)
        task.labels = lambda _, found=found: next(found).numpy()
        scores.append(task.measure(SimpleNamespace(predict=torch.clone), pairs, range(3), World()))
    assert [score["AP at IoU 0.5"] for score in scores] == [0.0, 0.5]
    assert scores[1]["adapted Rand error"] == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", "malis"])
def test_objects_are_learned(loss, tmp_path):
    pairs = cells(4, 2)
    outcome = train(replace(of(loss, malis_after=10), out=str(tmp_path), epochs=10), pairs, tell=lambda _: None)
    assert outcome.score == "AP at IoU 0.5"
    assert outcome.best > 0.3
    assert outcome.best >= outcome.history[0]["AP at IoU 0.5"]
    model = Segmenter.load(tmp_path / "model.safetensors")
    assert model.predict(pairs[0][0]).shape == (4, 40, 33)
