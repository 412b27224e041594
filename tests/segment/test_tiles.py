"""An image predicted in tiles is what it is at once."""

import pytest
import torch
from tests.segment.test_training import config_of

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.segment.model import Segmenter, Shape
from ninefold.segment.room import peak_bytes
from ninefold.segment.tiles import cuts, reach
from ninefold.structured import RoomError

ROUNDING = 2e-5
"""In float32: windows of other sizes may be convolved by other methods."""

KINDS = [{"depth": depth} for depth in (1, 2, 3)] + [
    {"network": "recurrent", "kernel": kernel, "steps": steps} for kernel, steps in ((3, 1), (5, 3))
]


def model_of(ndim, classes=3, **settings):
    torch.manual_seed(0)
    return Segmenter(config_of("out", **settings), Shape(2, ndim, classes), [0.2, -0.1], [0.5, 2.0])


@pytest.fixture
def little(monkeypatch):
    """Return a function that says how much memory there is."""
    return lambda available: monkeypatch.setattr("ninefold.segment.room.available_memory", lambda: available)


@pytest.mark.parametrize("settings", [*KINDS, {"depth": 4}])
def test_reach_is_that_of_the_network(settings):
    """With positive weights an output is another one if a pixel that it depends on is."""
    model = model_of(1, **settings).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.abs() + 0.05 * (weight.dim() > 1))
        around, unit, far = reach(model.config), model.unit, []
        image = torch.ones(1, 2, (2 * around // unit + 4) * unit, dtype=torch.float64)
        plain = model(image)[-1]
        for place in range(around, around + 2 * unit):
            other = image.clone()
            other[..., place] += 1
            changed = ((model(other)[-1] - plain).abs() > 1e-12 * plain.abs()).any(1)[0].nonzero()
            far.append((place - int(changed.min()), int(changed.max()) - place))
    assert tuple(map(max, zip(*far, strict=True))) == (around, around)


@pytest.mark.parametrize("settings", KINDS)
@pytest.mark.parametrize(
    ("space", "tiles"),
    [
        ((83, 71), [16, (40, 23), (200, 9)]),  # shorter than what an output depends on, strips
        ((61, 3), [1, 7, (13, 2)]),  # a side below which images are padded
        ((37, 30, 41), [(17, 30, 9), 24]),
    ],
)
def test_tiles_are_the_whole(settings, space, tiles):
    model = model_of(len(space), **settings)
    image = torch.randn(2, *space)
    whole = model.predict(image)
    for tile in tiles:
        torch.testing.assert_close(model.predict(image, tile), whole, rtol=0, atol=ROUNDING)


def test_affinities_and_whole_numbers_in_tiles():
    model = model_of(2, classes=0)
    image = torch.randint(0, 9, (2, 45, 38), dtype=torch.uint8)
    found = model.predict(image, 20)
    assert found.shape == (4, 45, 38)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, model.predict(image), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 30, 37])
@pytest.mark.parametrize("side", [1, 4, 6, 50])
def test_tiles_cover_an_image_once_and_windows_hold_what_they_need(n, side):
    around, unit, least = 6, 4, 8
    covered, windows = [], set()
    for (inner,), (outer,), (place,) in cuts((n,), (side,), around, unit, least):
        covered += range(n)[inner]
        windows.add(outer.stop - outer.start)
        assert range(n)[outer][place] == range(n)[inner]
        assert outer.start % unit == 0
        assert outer.start <= max(0, inner.start - around)
        assert outer.stop >= min(n, inner.stop + around)
        assert outer.stop - outer.start >= min(n, least)
        assert outer.stop == n or outer.stop % unit == 0
    assert covered == list(range(n))


@pytest.mark.parametrize("space", [(600, 500), (66, 60, 70)])
def test_where_memory_is_short_tiles_are_chosen_that_keep_to_it(space, little, monkeypatch):
    monkeypatch.setattr("ninefold.segment.model.LITTLE", 0)
    model = model_of(len(space))
    image = torch.randn(2, *space)
    whole, needed = model.predict(image), model.memory_needed(space)
    limit = needed // 2
    little(limit)
    sides = model.fitting_tile(space)
    assert sides != space
    found = []
    assert peak_bytes(lambda: found.append(model.predict(image))) < limit
    torch.testing.assert_close(found[0], whole, rtol=0, atol=ROUNDING)
    little(needed * 2)
    assert model.fitting_tile(space) == space


@pytest.mark.parametrize(
    ("tile", "available", "words"),
    [
        (None, 1 << 22, "to predict an image of 1200x1000 pixels with a network of width 4, in tiles of .* a smaller tile"),
        ((1200, 950), 1 << 26, "in tiles of 1200x950, needs .* MiB at least, 64 MiB may be used; give a smaller tile"),
    ],
)
def test_what_no_tile_fits_is_said(tile, available, words, little):
    little(available)
    with pytest.raises(RoomError, match=words):
        model_of(2).predict(torch.zeros(2, 1200, 1000), tile)


@pytest.mark.parametrize(
    ("tile", "error", "words"),
    [
        (0, ArgumentError, "tile.*0"),
        (-8, ArgumentError, "tile.*-8"),
        ((16, 0), ArgumentError, r"tile\[1\]"),
        ((16, 16, 16), ArgumentError, r"tile must be one number or 2 \(one per spatial axis\), got \(16, 16, 16\)"),
        (2.5, ArgumentTypeError, "tile.*2.5"),
        (True, ArgumentTypeError, "tile.*True"),
        ("16", ArgumentTypeError, "tile.*'16'"),
    ],
)
def test_tiles_that_are_none_are_said(tile, error, words):
    with pytest.raises(error, match=words) as said:
        model_of(2).predict(torch.zeros(2, 30, 20), tile)
    assert "\n" not in str(said.value)


def test_images_that_do_not_fit_are_said_before_they_are_cut():
    for image in (torch.zeros(3, 9, 8), torch.zeros(9, 8), torch.zeros(2, 9, 8, 7)):
        with pytest.raises(ShapeError, match="this model takes"):
            model_of(2).predict(image, 4)
