"""What the experiments learn from: labels are what they claim, whoever finds the shape."""

import pytest
import torch

from ninefold.chapter import data
from ninefold.chapter.priors import LAYERS, network
from ninefold.errors import ArgumentError


def place(pictures, shape):
    """Row, column and score of the best match, by the definition."""
    windows = pictures[:, 0].unfold(1, shape.shape[0], 1).unfold(2, shape.shape[1], 1)
    scores = (windows * (2 * shape - 1)).sum((3, 4))
    best = scores.flatten(1).max(1)
    return best.indices // scores.shape[2], best.indices % scores.shape[2], best.values


def whether_lower(pictures):
    row, _, score = place(pictures, data.MOUTH)
    assert torch.equal(score, torch.full_like(score, float(data.MOUTH.sum())))  # one whole mouth is there
    return (row >= data.SIDE // 2).long()


def which_shape(pictures):
    return (place(pictures, data.TIMES)[2] > place(pictures, data.PLUS)[2]).long()


def columns(pictures):
    return [sorted(p[0].nonzero()[:, 1].tolist()) for p in pictures]


@pytest.mark.parametrize("alone", [True, False])
def test_the_half_is_that_of_the_mouth(alone):
    told = data.half(200, seed=3, noise=0.0, alone=alone)
    assert torch.equal(whether_lower(told.pictures), told.labels)
    up_or_down = told.pictures.roll(data.SIDE // 2, 2)
    assert torch.equal(whether_lower(up_or_down), 1 - told.labels)
    assert torch.equal(told.pictures.sum((1, 2, 3)), torch.full((200,), 5.0 if alone else 10.0))


def test_the_shape_is_the_same_wherever_it_goes():
    told = data.anywhere(200, seed=3, noise=0.0)
    assert torch.equal(which_shape(told.pictures), told.labels)
    rows = place(told.pictures, data.PLUS)[0]
    assert len(rows.unique()) == data.SIDE - 2
    crop = told.pictures[:, :, 1:, 1:]
    whole = crop.sum((1, 2, 3)) == 5
    assert whole.sum() > 100
    assert torch.equal(which_shape(torch.nn.functional.pad(crop, (0, 1, 0, 1)))[whole], told.labels[whole])


def test_the_column_is_odd_and_a_step_makes_it_even():
    told = data.column(200, seed=3, noise=0.0)
    assert [c[0] % 2 for c in columns(told.pictures)] == told.labels.tolist()
    assert [c[0] % 2 for c in columns(told.pictures.roll(1, 3))] == (1 - told.labels).tolist()


@pytest.mark.parametrize("gap", [3, 4])
def test_the_pixels_are_apart_and_in_one_row(gap):
    told = data.apart(300, seed=3, gap=gap, noise=0.0)
    apart = [c[1] - c[0] for c in columns(told.pictures)]
    assert [int(a == gap) for a in apart] == told.labels.tolist()
    assert set(apart) == {gap - 1, gap, gap + 1}
    assert torch.equal((told.pictures.sum(3) > 0).sum((1, 2)), torch.ones(300, dtype=torch.long))


@pytest.mark.parametrize("task", data.TASKS.values(), ids=data.TASKS)
def test_a_seed_gives_the_same_pictures_and_as_many_of_each_class(task):
    one, again, other = task(51, 0), task(51, 0), task(51, 1)
    assert torch.equal(one.pictures, again.pictures)
    assert torch.equal(one.labels, again.labels)
    assert not torch.equal(one.pictures, other.pictures)
    assert one.labels.bincount().tolist() == [26, 25]


@pytest.mark.parametrize(("layer", "steps"), [("convolution", 1), ("tiled", 2), ("unshared", 12)])
def test_a_pooled_network_is_invariant_to_what_its_prior_says(layer, steps):
    torch.manual_seed(0)
    model, x = network(layer).double(), torch.randn(3, 1, data.SIDE, data.SIDE, dtype=torch.float64)
    assert torch.allclose(model(x.roll((steps, 5 * steps), (2, 3))), model(x), rtol=0, atol=1e-12)
    if steps > 1:
        assert not torch.allclose(model(x.roll(1, 3)), model(x), rtol=0, atol=1e-3)


def test_widths_are_equal_and_parameters_are_not():
    x = torch.zeros(2, 1, data.SIDE, data.SIDE)
    assert {LAYERS[name]()(x).shape for name in LAYERS} == {(2, 8, 12, 12)}


def test_no_picture_is_fetched():
    with pytest.raises(ArgumentError, match="nothing is downloaded"):
        data.photograph("skin")


def test_textures_of_even_and_odd_seeds_share_no_pixel(monkeypatch):
    marked = torch.arange(40.0)[:, None].expand(40, 50)
    monkeypatch.setattr(data, "photograph", lambda name: marked)
    monkeypatch.setattr(torch.Tensor, "std", lambda self, *a, **k: torch.ones(()))
    monkeypatch.setattr(torch.Tensor, "mean", lambda self, *a, **k: torch.zeros(()))
    even, odd = (data.textures(60, seed, side=4).pictures for seed in (0, 1))
    assert even.max() == 19
    assert odd.min() == 20


def test_parts_of_a_set_share_no_example_and_are_refused_where_too_small():
    told = data.Labelled(torch.arange(20.0), torch.arange(20))
    task = data.halves_of(told, 0.7)
    learnt, unseen = task(14, 6).labels.tolist(), task(6, 7).labels.tolist()
    assert sorted(learnt + unseen) == list(range(20))
    assert task(14, 8).labels.tolist() != learnt
    with pytest.raises(ArgumentError, match=r"7 examples .* has 6"):
        task(7, 1)


def test_turned_pictures_turn_as_they_say():
    x = torch.rand(2, 1, 5, 5)
    turned = data.rotated(x, torch.tensor([90.0, 0.0]))
    assert torch.allclose(turned[0], x[0].rot90(1, (1, 2)), atol=1e-5)
    assert torch.allclose(turned[1], x[1], atol=1e-6)
