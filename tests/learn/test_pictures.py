"""Pictures of what was learned: the numbers in their images, lines and words, not how these are rendered."""

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from sklearn.exceptions import NotFittedError

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn import (
    ConvDBN,
    ConvRBM,
    KMeansFilters,
    OMPFilters,
    RandomFilters,
    SparseEncoderDecoder,
    grating,
    history,
    mosaic,
    optimal_input,
    reconstructions,
    samples,
)

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
    assert sheet.shape == (3 * 4 + 2, 2 * 3 + 1)
    for k in range(3):
        for c in range(2):
            tile = sheet[5 * k : 5 * k + 4, 4 * c : 4 * c + 3]
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


# Images and what is made of them


IMAGES = RNG.normal(size=(6, 9, 8)).cumsum(1)


def note(ax):
    return ax.texts[-1].get_text()


def test_reconstructions_stand_below_their_images_on_the_scale_of_the_images():
    made = IMAGES[:5] * 0.5 + 0.1
    ax = reconstructions(IMAGES[:5], made, columns=3, title="pairs")
    sheet = array(ax)
    assert sheet.shape == (2 * (2 * 9 + 1) + 3, 3 * 8 + 2)
    for k in range(5):
        y, x = 22 * (k // 3), 9 * (k % 3)
        np.testing.assert_allclose(sheet[y : y + 9, x : x + 8], IMAGES[k], rtol=1e-6)
        np.testing.assert_allclose(sheet[y + 10 : y + 19, x : x + 8], made[k], rtol=1e-6)
    assert int((~np.ma.getmaskarray(sheet)).sum()) == 10 * 72
    assert ax.images[0].get_clim() == pytest.approx((IMAGES[:5].min(), IMAGES[:5].max()))
    error = np.square(IMAGES[:5] - made).mean()
    assert note(ax) == f"mean squared difference {error:.3g}, {error / IMAGES[:5].var():.1%} of the images' variance"
    rows = [(text.get_text(), text.xy[1]) for text in ax.texts[:-1]]
    assert rows == [("image", 4), ("reconstructed", 14), ("image", 26), ("reconstructed", 36)]


def test_a_trimmed_reconstruction_stands_where_it_was_trimmed():
    """A Boltzmann machine trims 9x8 to 8x7 at the lower and right ends, an encoder and decoder 9x8 to 8x8 below."""
    rbm = ConvRBM(4, (3, 2), n_epochs=1, random_state=0).fit(IMAGES)
    found = rbm.reconstruct(IMAGES[:2])
    assert found.shape == (2, 1, 8, 7)
    sheet = array(reconstructions(IMAGES[:2], found))
    np.testing.assert_allclose(sheet[10:18, :7], found[0, 0], rtol=1e-6)
    assert np.ma.getmaskarray(sheet)[18].all()
    source = SparseEncoderDecoder(4, (3, 2), n_epochs=1, crop=2, n_crops=20, random_state=0).fit(IMAGES)
    found = source.reconstruct(IMAGES[:2])
    here = IMAGES[:2, : found.shape[2], : found.shape[3]]
    ax = reconstructions(IMAGES[:2], found, offset=(0, 0))
    assert note(ax).startswith(f"mean squared difference {np.square(here - found[:, 0]).mean():.3g},")
    middle = array(reconstructions(IMAGES[:1], IMAGES[:1, 1:6, 2:7]))
    np.testing.assert_allclose(middle[12:17, 1:6], IMAGES[0, 1:6, 2:7], rtol=1e-6)


def test_reconstructions_in_colour():
    images = RNG.integers(50, 200, size=(2, 6, 5, 3)).astype(np.uint8)
    made = images.transpose(0, 3, 1, 2).astype(np.float32)[:, :, :4] + 100.0
    sheet = array(reconstructions(images, made, channels="last", offset=(2, 0)))
    low, high = float(images.min()), float(images.max())
    np.testing.assert_allclose(sheet[:6, :5], (images[0] - low) / (high - low), rtol=1e-5)
    wanted = np.clip((made[1].transpose(1, 2, 0) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(sheet[9:13, 6:], wanted, rtol=1e-5)
    assert (sheet[[6, 7, 8]] == 1).all()


class Machine:
    """Makes up images that tell how it was asked."""

    def sample(self, n_samples, size=(2, 3), channels=1, random_state=None):
        assert random_state == 4
        return np.arange(n_samples * channels * size[0] * size[1], dtype=np.float32).reshape(n_samples, channels, *size) - 5


def test_samples_are_those_that_the_machine_makes_up():
    ax = samples(Machine(), n_samples=3, columns=2, size=(4, 2), random_state=4)
    sheet, made = array(ax), np.arange(24).reshape(3, 4, 2) - 5
    np.testing.assert_array_equal(sheet[:4, 3:], made[1])
    np.testing.assert_array_equal(sheet[5:, :2], made[2])
    assert ax.images[0].get_clim() == (-5, 18)
    sheet = array(samples(Machine(), n_samples=2, columns=2, gap=0, channels=3, random_state=4))
    np.testing.assert_allclose(sheet[:, :3], np.arange(18).reshape(3, 2, 3).transpose(1, 2, 0) / 35)
    with pytest.raises(ShapeError, match="samples have 2 channels, and pictures 1 or 3"):
        samples(Machine(), channels=2, random_state=4)


@pytest.fixture(scope="module")
def dbn():
    below = ConvRBM(4, (3, 2), n_epochs=3, random_state=0)
    return ConvDBN([below, ConvRBM(5, 2, visible="binary", n_epochs=2, random_state=0)]).fit(RNG.normal(size=(30, 13, 12)))


def test_samples_and_filters_of_a_stack(dbn):
    how = {"size": (13, 12), "n_steps": 3, "random_state": 0}
    made = dbn.sample(4, **how)
    sheet = array(samples(dbn, n_samples=4, columns=4, gap=0, **how))
    np.testing.assert_allclose(sheet, np.concatenate(made[:, 0], 1), rtol=1e-6)
    filters = dbn.filters_of(1)
    sheet = array(mosaic(filters, columns=5, gap=0, scale="all"))
    np.testing.assert_allclose(sheet, np.concatenate(filters[:, 0], 1) / np.abs(filters).max(), rtol=1e-6)


# Gratings and histories


def test_a_filter_stands_beside_its_optimal_input():
    kernel = RNG.normal(size=(3, 4))
    ax = grating(kernel, (8, 10), title="both")
    sheet, found = array(ax), optimal_input(kernel, (8, 10))
    assert sheet.shape == (8, 4 + 2 + 10)
    np.testing.assert_allclose(sheet[2:5, :4], kernel / np.abs(kernel).max())
    np.testing.assert_allclose(sheet[:, 6:], found.image / np.abs(found.image).max())
    assert int((~np.ma.getmaskarray(sheet)).sum()) == 12 + 80
    assert ax.images[0].get_clim() == (-1, 1)


def test_the_words_under_a_grating_say_what_it_is():
    rows, columns = np.arange(8)[:, None], np.arange(12)[None]
    wave = np.cos(2 * np.pi * (2 * rows / 8 - 3 * columns / 12))  # it falls to the right
    ax = grating(wave, (8, 12))
    assert note(ax) == "filter of 8x12, grating of 8x12\n2 periods down, -3 across, wavelength 2.83 pixels"
    assert note(grating(np.ones((2, 3)), (6, 5))) == "filter of 2x3, grating of 6x5\nconstant"
    np.testing.assert_array_equal(array(grating(np.ones((2, 3)), (6, 5)))[:, 5:], 1)


@pytest.mark.parametrize(("channels", "shape"), [(3, (5, 3 + 2 + 6, 3)), (2, (5, 7 + 2 + 13))])
def test_gratings_of_several_channels(channels, shape):
    kernel = RNG.normal(size=(channels, 2, 3))
    ax = grating(torch.tensor(kernel), (5, 6))
    sheet, found = array(ax), optimal_input(kernel, (5, 6)).image
    assert sheet.shape == shape
    if channels == 3:
        np.testing.assert_allclose(sheet[:, 5:], 0.5 + 0.5 * found.transpose(1, 2, 0) / np.abs(found).max(), atol=1e-12)
    else:
        np.testing.assert_allclose(sheet[:, 9:15], found[0] / np.abs(found).max(), atol=1e-12)
        assert note(ax).endswith("2 channels side by side")


def curves(ax):
    ax.figure.canvas.draw()
    return [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in ax.lines if len(line.get_xdata()) > 2]


def test_history_has_error_at_the_left_and_sparsity_at_the_right():
    source = OMPFilters(7, 3, max_iter=6, random_state=0).fit(IMAGES)
    ax = history(source, title="pursuit")
    both = ax.figure.axes
    assert both[0] is ax
    assert [curves(each) for each in both] == [[([1, 2, 3, 4, 5, 6], source.history_[key])] for key in ("error", "sparsity")]
    assert [each.get_ylabel() for each in both] == ["error", "sparsity"]
    assert [each.yaxis.get_label_position() for each in both] == ["left", "right"]
    assert ax.get_xlabel() == "iteration"
    assert ax.get_title("left") == "pursuit"
    assert all(each.get_ylim()[0] == 0 and each.get_ylim()[1] > max(each.lines[0].get_ydata()) for each in both)


def test_layers_of_a_stack_follow_one_another(dbn):
    ax = history(dbn)
    below, above = (layer.history_["error"] for layer in dbn.layers_)
    found = [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines]
    assert ([1, 2, 3], below) in found
    assert ([4, 5], above) in found
    assert [text.get_text() for text in ax.texts] == ["layer 0", "layer 1"]
    assert [text.xy[0] for text in ax.texts] == [0.5, 3.5]
    assert ax.get_xlabel() == "epoch"


def test_one_pass_is_a_point():
    ax = history(KMeansFilters(5, 3, max_iter=2, random_state=0).fit(IMAGES))
    assert [line.get_marker() for line in ax.lines] == ["o"]
    assert list(ax.lines[0].get_xdata()) == [1]


# Axes in, axes out

DRAWN = {
    "mosaic": lambda ax=None: mosaic(SIGNED, ax),
    "reconstructions": lambda ax=None: reconstructions(IMAGES, IMAGES, ax),
    "samples": lambda ax=None: samples(Machine(), ax, random_state=4),
    "grating": lambda ax=None: grating(SIGNED[0, 0], 6, ax),
    "history": lambda ax=None: history(OMPFilters(4, 3, max_iter=2, random_state=0).fit(IMAGES), ax),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_axes_given_are_those_returned_and_pyplot_knows_nothing_of_it(draw):
    from matplotlib import pyplot as plt

    known = plt.get_fignums()
    figure = plt.figure()
    try:
        left, right = figure.subplots(1, 2)
        plt.sca(right)
        assert draw(left) is left
        figure.canvas.draw()
        new = draw()
        assert isinstance(new, Axes)
        assert new.figure not in (figure, left.figure)
        assert plt.gcf() is figure
        assert plt.gca() is right
        assert plt.get_fignums() == [*known, figure.number]
        assert not right.images
        assert not right.lines
    finally:
        plt.close(figure)


def test_on_a_new_figure_every_value_has_as_many_dots_as_the_others():
    pictures = [mosaic(SIGNED, columns=2, title="a title"), mosaic(RNG.normal(size=(60, 2, 9, 8)))]
    for ax in [*pictures, reconstructions(IMAGES, IMAGES, title="pairs"), grating(SIGNED[0, 0], (20, 30)), DRAWN["samples"]()]:
        high, wide = array(ax).shape[:2]
        box = ax.get_window_extent()
        assert box.width / wide == pytest.approx(box.height / high)
        assert box.width / wide == pytest.approx(round(box.width / wide), abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"filters": np.ones((2, 3))}, ShapeError, r"filters have shape \(2, 3\); they must be \(K, C, h, w\)"),
        ({"filters": np.ones((0, 3, 3))}, ShapeError, "at least one"),
        ({"filters": np.array([[["a"]]])}, ArgumentTypeError, "filters must be an array of numbers, got ndarray of dtype <U1"),
        ({"filters": np.array([[[1.0, np.nan]]])}, ArgumentError, "filters must be finite, got NaN or infinity in 1 of 2 values"),
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


@pytest.mark.parametrize(
    ("draw", "error", "words"),
    [
        (lambda: reconstructions(IMAGES, IMAGES[:4]), ShapeError, "6 images of 1 channels, but 4 reconstructions of 1"),
        (lambda: reconstructions(IMAGES[:, :7], IMAGES), ShapeError, "a reconstruction of 9x8 does not fit into an image of 7x8"),
        (
            lambda: reconstructions(IMAGES, IMAGES[:, :7], offset=(3, 0)),
            ShapeError,
            r"a reconstruction of 7x8 does not fit into an image of 9x8 at offset=\(3, 0\)",
        ),
        (
            lambda: reconstructions(np.ones((2, 2, 6, 5)), np.ones((2, 2, 6, 5)), channels="first"),
            ShapeError,
            "images have 2 channels, and pictures 1 or 3: choose some of them",
        ),
        (
            lambda: reconstructions([IMAGES[0], IMAGES[0, 1:]], IMAGES[:2]),
            ShapeError,
            r"images must be of one size, \(C, H, W\), got",
        ),
        (lambda: reconstructions([], IMAGES), ShapeError, "got none at all"),
        (lambda: samples(RandomFilters(4)), ArgumentTypeError, "RandomFilters makes up no images: it has no method sample"),
        (lambda: grating(np.ones((9, 2)), 8), ShapeError, "a filter of 9x2 is larger than an image of 8x8"),
        (lambda: grating([["a"]], 8), ArgumentTypeError, "kernel must be an array of numbers"),
        (lambda: history(SIGNED), ArgumentTypeError, "ndarray is no source of filters"),
        (
            lambda: history(RandomFilters(4, 3).fit(IMAGES)),
            ArgumentTypeError,
            "RandomFilters learns in no passes of which it could keep a history_",
        ),
        (lambda: history(ConvRBM()), NotFittedError, "This ConvRBM instance is not fitted yet"),
        (lambda: mosaic(KMeansFilters()), NotFittedError, "This KMeansFilters instance is not fitted yet"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(draw, error, words):
    with pytest.raises(error, match=words):
        draw()


def test_a_history_that_has_not_begun_is_refused(monkeypatch):
    def interrupted(self, v, generator):
        raise KeyboardInterrupt

    monkeypatch.setattr(ConvRBM, "_step", interrupted)
    rbm = ConvRBM(3, 3, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        rbm.fit(IMAGES)
    with pytest.raises(ArgumentError, match="ConvRBM has not ended a pass: there is no history to draw"):
        history(rbm)
