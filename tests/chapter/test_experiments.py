"""The long experiments: each runs in its smallest form; what was recorded of the true runs is there and drawn."""

import json
from importlib import import_module

import pytest
import torch

from ninefold import chapter
from ninefold.chapter import checkerboard, figures, record, rotation, separable
from ninefold.errors import ArgumentError

ENTRIES = [entry for entry in chapter.ENTRIES if entry.long]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.key)
def test_the_smallest_run_gives_numbers(entry):
    found = entry.run(trial=True)
    assert entry.long
    assert isinstance(found.holds, bool)
    assert json.loads(json.dumps(found.numbers, allow_nan=False)) == found.numbers
    if entry.key in record.load():
        assert set(found.numbers) == set(record.load()[entry.key].numbers)


def test_keys_are_unique_and_all_are_recorded():
    keys = [entry.key for entry in ENTRIES]
    assert len(set(keys)) == len(keys)
    assert set(keys) <= set(record.load())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.key)
def test_what_it_uses_is_there(entry):
    for name in entry.uses:
        home, _, thing = name.rpartition(".")
        assert getattr(import_module(home), thing)


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.picture and "trained" not in e.key], ids=lambda e: e.key)
def test_curves_are_drawn_of_what_was_recorded(entry):
    axes = entry.picture().axes[0]
    assert len(axes.lines) >= 1
    assert all(len(line.get_xdata()) > 1 for line in axes.lines)


def test_what_was_not_recorded_is_not_drawn():
    with pytest.raises(ArgumentError, match="nothing is recorded for 'x'"):
        figures.curves("x", "", "")


def test_energy_of_a_checkerboard_is_found_and_of_slow_waves_not():
    steps = torch.arange(24.0)
    slow = torch.cos(2 * torch.pi * steps / 8).expand(1, 1, 24, 24)
    board = (-1.0) ** (steps[:, None] + steps).expand(1, 1, 24, 24)
    assert checkerboard.constant_energy(board + 1) == pytest.approx(0.5)
    assert checkerboard.constant_energy(slow) == pytest.approx(0, abs=1e-12)
    noise = torch.randn(50, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    assert checkerboard.residual_energy(noise + board) > 10 * checkerboard.residual_energy(noise)


def test_a_resized_constant_has_no_artefact_and_a_transposed_one_has():
    torch.manual_seed(0)
    energy = {
        name: checkerboard.constant_energy(checkerboard.network(name)(torch.full((1, 1, 20, 20), 0.5)).detach())
        for name in checkerboard.UPSAMPLERS
    }
    assert energy["nearest, convolution"] < 1e-10
    assert energy["bilinear, convolution"] < 1e-10
    assert min(energy[name] for name in energy if name.startswith("transposed")) > 1e-4


def test_networks_differ_in_the_kind_of_their_layers_alone():
    models = {kind: separable.network(kind, 8, 3) for kind in separable.KINDS}
    assert {tuple(m(torch.zeros(2, 1, 9, 7)).shape) for m in models.values()} == {(2, 3)}
    full, apart = (sum(p.numel() for p in models[kind].parameters()) for kind in ("full", "separable"))
    assert full - apart == 2 * (9 * 8 * 8 - 9 * 8 - 8 * 8)


def test_turned_copies_are_alike_and_strangers_are_not():
    model = rotation.Unit(3, "max")
    kernel = torch.zeros(10, 1, 10, 10)
    for i in range(10):
        kernel[i, 0, 1 + i % 4 : 3 + i % 4, 1 + i % 3 : 8] = 1
    with torch.no_grad():
        for turn, degrees in enumerate((-30.0, 0.0, 30.0)):
            model.conv.weight[turn::3] = data_rotated(kernel, degrees)
    alike, strangers = rotation.likeness(model)
    assert alike > 0.85
    assert alike > strangers + 0.1


def data_rotated(kernel, degrees):
    from ninefold.chapter.data import rotated

    return rotated(kernel, torch.full((len(kernel),), degrees))


def test_a_unit_pools_what_it_says():
    torch.manual_seed(0)
    x = torch.rand(4, 1, 10, 10)
    model = rotation.Unit(3, "max")
    responses = model.conv(x).reshape(4, 10, 3)
    assert torch.equal(model(x), responses.max(2).values)
    model.pool = "mean"
    assert torch.allclose(model(x), responses.mean(2))
