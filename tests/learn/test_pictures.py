"""Pictures of what was learned: the numbers in their images, lines and words, not how these are rendered."""

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn import ConvDBN, ConvRBM, RandomFilters, mosaic

RNG = np.random.default_rng(0)
SIGNED = RNG.normal(size=(5, 1, 2, 3)) * np.arange(1, 6)[:, None, None, None]


def array(ax):
    """Draw it, so that what matplotlib refuses late is refused here, and return its only image."""
    ax.figure.canvas.draw()
    (image,) = ax.images
    assert image.get_interpolation() == "nearest"
    return image.get_array()


def test_each_filter_is_scaled_by_itself_about_zero_and_stands_in_its_place():
    ax = mosaic(SIGNED, columns=2, title="filters")
    sheet = array(ax)
    assert sheet.shape == (3 * 2 + 2, 2 * 3 + 1)
    for k, (y, x) in enumerate([(0, 0), (0, 4), (3, 0), (3, 4), (6, 0)]):
        np.testing.assert_allclose(sheet[y : y + 2, x : x + 3], SIGNED[k, 0] / np.abs(SIGNED[k]).max())
    drawn = np.zeros(sheet.shape, bool)
    for y, x in [(0, 0), (0, 4), (3, 0), (3, 4), (6, 0)]:
        drawn[y : y + 2, x : x + 3] = True
    np.testing.assert_array_equal(~np.ma.getmaskarray(sheet), drawn)
    assert ax.images[0].get_clim() == (-1, 1)
    assert ax.get_title("left") == "filters"
    assert not ax.axison


def test_all_filters_on_one_scale():
    sheet = array(mosaic(torch.tensor(SIGNED[:, 0]), scale="all", columns=5, gap=0))
    np.testing.assert_allclose(sheet, np.concatenate(SIGNED[:, 0], 1) / np.abs(SIGNED).max())


def test_filters_without_a_negative_value_go_from_black_to_white():
    positive = np.abs(SIGNED) + 3
    ax = mosaic(positive, columns=5, gap=0)
    wanted = [(f - f.min()) / (f.max() - f.min()) for f in positive[:, 0]]
    np.testing.assert_allclose(array(ax), np.concatenate(wanted, 1))
    assert ax.images[0].get_clim() == (0, 1)
    together = array(mosaic(positive, columns=5, gap=0, scale="all"))
    span = positive.max() - positive.min()
    np.testing.assert_allclose(together, np.concatenate((positive[:, 0] - positive.min()) / span, 1))


def test_three_channels_are_colours_on_one_scale_and_zero_is_grey():
    filters = RNG.normal(size=(2, 3, 4, 2))
    filters[1] = 0
    sheet = array(mosaic(filters, columns=2, gap=2))
    assert sheet.shape == (4, 6, 3)
    np.testing.assert_allclose(sheet[:, :2], 0.5 + 0.5 * filters[0].transpose(1, 2, 0) / np.abs(filters[0]).max())
    assert (sheet[:, 2:4] == 1).all()
    assert (sheet[:, 4:] == 0.5).all()


def test_other_channels_stand_side_by_side_and_that_is_said():
    filters = RNG.normal(size=(3, 2, 4, 3))
    ax = mosaic(filters, columns=1)
    sheet = array(ax)
    assert sheet.shape == (3 * 4 + 2 * 3, 2 * 3 + 1)
    for k in range(3):
        for c in range(2):
            tile = sheet[7 * k : 7 * k + 4, 4 * c : 4 * c + 3]
            np.testing.assert_allclose(tile, filters[k, c] / np.abs(filters[k]).max())
    assert np.ma.getmaskarray(sheet)[:, 3].all()
    assert [text.get_text() for text in ax.texts] == ["2 channels side by side"]


def test_channels_on_the_direction_of_most_of_their_squares():
    plain, direction = RNG.normal(size=(3, 4, 2)), np.array([0.6, 0.0, -0.8, 0.0])
    ax = mosaic(plain[:, None] * direction[:, None, None], channels="principal", columns=3, gap=0)
    wanted = [-f / np.abs(f).max() for f in plain]  # the largest part, 0.8, is positive
    np.testing.assert_allclose(array(ax), np.concatenate(wanted, 1), atol=1e-12)
    assert [text.get_text() for text in ax.texts] == ["first principal component of 4 channels: 100% of their squares"]


def test_a_source_shows_its_atoms():
    source = RandomFilters(6, (3, 5), random_state=0).fit(np.zeros((2, 9, 8)))
    sheet = array(mosaic(source, columns=6, gap=0, scale="all"))
    np.testing.assert_allclose(sheet, np.concatenate(source.atoms_[:, 0], 1) / np.abs(source.atoms_).max())


def test_by_itself_a_mosaic_is_about_square():
    assert array(mosaic(np.ones((400, 6, 6)))).shape == (20 * 7 - 1, 20 * 7 - 1)
    assert array(mosaic(np.ones((1, 6, 4)))).shape == (6, 4)
    high, wide = array(mosaic(np.ones((32, 2, 9)))).shape
    assert 0.5 < high / wide < 2


def test_axes_given_are_those_returned_and_pyplot_knows_nothing_of_it():
    from matplotlib import pyplot as plt

    figure = plt.figure()
    try:
        left, right = figure.subplots(1, 2)
        plt.sca(right)
        assert mosaic(SIGNED, left) is left
        assert isinstance(mosaic(SIGNED), Axes)
        assert plt.gcf() is figure
        assert plt.gca() is right
        assert plt.get_fignums() == [figure.number]
        assert not right.images
    finally:
        plt.close(figure)
    assert isinstance(mosaic(SIGNED).figure, Figure)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"filters": np.ones((2, 3))}, ShapeError, r"filters have shape \(2, 3\); they must be \(K, C, h, w\)"),
        ({"filters": np.ones((0, 3, 3))}, ShapeError, "at least one"),
        ({"filters": np.array([[["a"]]])}, ArgumentTypeError, "filters must be an array of numbers, got ndarray of dtype <U1"),
        ({"filters": np.array([[[1.0, np.nan]]])}, ArgumentError, "filters hold NaN or infinity, 1 of 2 values"),
        (
            {"filters": ConvDBN([ConvRBM()])},
            ArgumentTypeError,
            r"ConvDBN has several layers; give the filters of one: filters_of",
        ),
        ({"filters": np.ones((1, 2, 2)), "scale": "both"}, ArgumentError, "scale='both' is not one of 'each', 'all'"),
        ({"filters": np.ones((1, 2, 2)), "columns": 0}, ArgumentError, "columns=0 must be at least 1"),
        ({"filters": np.ones((1, 2, 2)), "gap": -1}, ArgumentError, "gap=-1 must be at least 0"),
        ({"filters": np.ones((1, 2, 2)), "channels": "red"}, ArgumentError, "channels='red' is not one of"),
        ({"filters": np.ones((1, 2, 2)), "channels": "colour"}, ShapeError, "channels='colour' needs three channels, not 1"),
    ],
)
def test_what_is_no_mosaic_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        mosaic(**arguments)
