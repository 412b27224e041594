"""What the entries on label maps and data types are made of: fields, scores of a coarse grid, and what is measured."""

import pytest
import torch

from ninefold import nn
from ninefold.chapter import data_types, fields, recurrent, scenes_drawn
from ninefold.chapter.label_maps import seen
from ninefold.data import Sample
from ninefold.segment.scenes import texture_scenes


@pytest.mark.parametrize(("kernel", "padding", "rows"), [((5, 3), (2, 1), 5), ((3, 2), 0, 3)])
def test_what_a_layer_sees_is_its_kernel_along_the_first_axis(kernel, padding, rows):
    assert seen(nn.Conv2d(1, 4, kernel, padding=padding), (12, 9)) == rows


def test_a_stack_is_seen_through_and_the_model_is_left_as_it_is():
    net = torch.nn.Sequential(nn.Conv1d(1, 2, 3), torch.nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(2, 1, 3))
    before = [p.clone() for p in net.parameters()]
    pooled = torch.nn.Sequential(nn.Conv1d(1, 2, 3), torch.nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(2, 1, 3))
    assert seen(pooled, (31,)) == 8
    assert seen(net, (31,)) <= 8, "a maximum has one way only"
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(before, net.parameters(), strict=True))


def test_coarse_scores_are_right_inside_and_wrong_at_boundaries():
    (_, mask), *_ = texture_scenes(1, 3, size=(64, 72))
    scores = scenes_drawn.coarse_scores(mask, 0)
    assert scores.shape == (3, 64, 72)
    wrong = scores.argmax(0) != mask
    assert 0.02 < wrong.double().mean() < 0.2
    halves = (torch.arange(40) >= 18).long().expand(16, 40)  # the label at 20, the middle of its cell, is that of 16 to 23
    mean = torch.stack([scenes_drawn.coarse_scores(halves, k) for k in range(40)]).mean(0)
    assert torch.equal(mean.argmax(0), (torch.arange(40) >= 16).long().expand(16, 40))
    flat = scenes_drawn.coarse_scores(torch.full((16, 24), 2), 1)
    assert (flat.argmax(0) == 2).double().mean() > 0.8
    assert not torch.equal(scenes_drawn.coarse_scores(mask, 1), scores)


def test_what_does_not_move_along_is_found(monkeypatch):
    sample = Sample(torch.randn(2, 20, 9, dtype=torch.float64), ("height", "width"), (1, 1))
    assert data_types.moves_along(sample, (3, 2)).holds

    class Placed(nn.Conv2d):
        """A layer that knows where it is along the first axis."""

        def forward(self, x):
            y = super().forward(x)
            return y + torch.arange(y.shape[2], dtype=y.dtype)[:, None]

    monkeypatch.setitem(data_types._CONVS, 2, Placed)
    found = data_types.moves_along(sample, (3, 2))
    assert not found.holds
    assert found.numbers["differ"] == 4 * 15 * 8


def test_the_share_missed_is_none_of_what_is_linear_and_all_of_noise():
    draw = torch.Generator().manual_seed(0)
    x, noise = torch.randn(800, 3, generator=draw), torch.randn(800, generator=draw)
    assert data_types._missed(x, x @ torch.tensor([1.0, -2.0, 0.5]) + 3) < 1e-4
    assert data_types._missed(x, noise) > 0.95


def test_shared_weights_do_not_know_which_observation_is_which():
    rows = [torch.tensor([1.0, -0.5]), torch.tensor([-0.5, 1.0]), torch.tensor([0.25])]
    found = data_types._shared(rows)
    assert torch.allclose(found[0], found[1], atol=1e-6)
    assert torch.allclose(found[2], data_types._shared([torch.tensor([0.25, 0.25])])[0], atol=1e-6)


def test_stripes_are_two_wide_and_noise_hides_some():
    unary, labels = fields._stripes(5, 0)
    assert unary.shape == (5, 2, 12, 14)
    assert torch.equal(labels[:, :, 4:], labels[:, :, :-4])
    assert torch.equal(labels[:, :, 2:], 1 - labels[:, :, :-2])
    assert 0.1 < (unary.argmax(1) != labels).double().mean() < 0.3


def test_wrong_pixels_are_counted_for_each_scene_and_step():
    scenes = texture_scenes(4, 0, size=(20, 24))
    found = recurrent._wrong(0, scenes, scenes[:3], 2)
    assert found.shape == (3, 3)
    assert bool(((found >= 0) & (found <= 1)).all())
    assert torch.equal(found, recurrent._wrong(0, scenes, scenes[:3], 2))


@pytest.mark.parametrize("picture", [scenes_drawn.gap, scenes_drawn.octaves, scenes_drawn.refined], ids=lambda f: f.__name__)
def test_pictures_show_what_they_name(picture):
    axes = picture().axes
    assert len({ax.get_title() for ax in axes}) == len(axes)
    assert all(len(ax.images) == 1 for ax in axes)
    shown = [ax.images[0].get_array() for ax in axes]
    assert not any(a.shape == b.shape and (a == b).all() for a in shown for b in shown if a is not b)
