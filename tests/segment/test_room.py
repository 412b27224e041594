"""What memory has no room for is refused before it starts, with what is needed."""

import pytest
import torch
from tests.segment.scenes import scenes
from tests.segment.test_training import config_of, silent

from ninefold.data import write_image
from ninefold.segment.commands import predict
from ninefold.segment.crops import split
from ninefold.segment.model import Segmenter, Shape
from ninefold.segment.room import peak_bytes, probe
from ninefold.segment.training import train
from ninefold.structured import RoomError


@pytest.fixture
def little(monkeypatch):
    """Return a function that says how much memory there is."""
    return lambda available: monkeypatch.setattr("ninefold.segment.room.available_memory", lambda: available)


def test_tensors_count_as_long_as_they_are_there():
    def apart():
        for _ in range(3):
            torch.zeros(500, dtype=torch.float32) + 1

    def together():
        held = [torch.zeros(500, dtype=torch.float32) for _ in range(3)]
        views = [one[::2] for one in held]
        return len(views)

    assert peak_bytes(apart) == 4000
    assert peak_bytes(together) == 6000


@pytest.mark.parametrize("network", ["unet", "recurrent"])
@pytest.mark.parametrize("space", [(210, 150), (30, 41, 35)])
def test_memory_is_that_of_a_probe_times_pixels(network, space):
    model = Segmenter(config_of("out", network=network, kernel=3), Shape(2, len(space), 3), [0.0] * 2, [1.0] * 2)
    exact = peak_bytes(lambda: model.predict(torch.zeros(2, *space)))
    assert probe(space, model.least)[1] > 7
    assert 0.9 * exact < model.memory_needed(space) < 1.3 * exact


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"width": 60000}, "a unet of width 60000 and depth 2 needs .* MiB at least, 1024 MiB may be used; take smaller ones"),
        ({"crop": 4000}, "a step of 3 crops of 4000x4000 pixels with a network of width 4 needs .* take a smaller crop"),
    ],
)
def test_too_little_memory_is_said_before_anything_starts(others, words, tmp_path, little):
    little(1 << 30)
    with pytest.raises(RoomError, match=words):
        train(config_of(tmp_path, **others), scenes(), tell=silent)
    assert list(tmp_path.iterdir()) == []


def test_an_image_held_out_for_which_memory_is_too_small_is_said(tmp_path, little):
    little(1 << 25)
    (held,) = split(5, 0.2, 0)[1]
    pairs = scenes()
    pairs[held] = torch.zeros(2, 1, 1).expand(2, 1900, 1700), torch.zeros(1, 1).long().expand(1900, 1700)
    with pytest.raises(
        RoomError,
        match="an image of 1900x1700 pixels with a network of width 4, in tiles of .* needs .* cut the image into parts",
    ):
        train(config_of(tmp_path), pairs, tell=silent)


def test_a_large_image_is_passed_over_and_named(tmp_path, little):
    model = Segmenter(config_of(tmp_path), Shape(1, 2, 3), [0.5], [0.2])
    model.save(tmp_path / "model.safetensors")
    (tmp_path / "images").mkdir()
    for name, space in (("large", (2200, 2000)), ("small", (20, 30))):
        write_image(tmp_path / "images" / f"{name}.png", torch.zeros(1, *space, dtype=torch.uint8))
    little(1 << 25)
    told = predict(tmp_path / "model.safetensors", tmp_path / "images", tmp_path / "out")
    assert "1 masks written" in told
    assert "1 images were passed over, the first: " in told
    assert "large.png: to predict an image of 2200x2000 pixels with a network of width 4, in tiles of" in told
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["small.png"]
