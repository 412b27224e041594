"""Kernels by formula: known integers, identities, and the exactness of steering."""

import pickle
from math import factorial

import numpy as np
import pytest
import torch
from sklearn.base import clone

from ninefold import functional as F
from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.designed import DesignedFilters

GREY = np.zeros((1, 9, 8))


def kernels(*args, **kwargs):
    return DesignedFilters(*args, **kwargs).fit(GREY).filters_[:, 0].astype(float)


def test_integer_kernels_are_the_known_ones():
    sobel, prewitt, laplacian = kernels("sobel"), kernels("prewitt"), kernels("laplacian")
    assert sobel.tolist() == [[[-1, -2, -1], [0, 0, 0], [1, 2, 1]], [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]]
    assert prewitt.tolist() == [[[-1, -1, -1], [0, 0, 0], [1, 1, 1]], [[-1, 0, 1]] * 3]
    assert laplacian.tolist() == [[[0, 1, 0], [1, -4, 1], [0, 1, 0]], [[1, 1, 1], [1, -8, 1], [1, 1, 1]]]


def test_sizes_need_not_be_square():
    down, right = kernels("sobel", (3, 5))
    assert down.tolist() == np.outer([-1, 0, 1], [1, 4, 6, 4, 1]).tolist()
    assert right.tolist() == np.outer([1, 2, 1], [-1, -2, 0, 2, 1]).tolist()
    down, right = kernels("prewitt", (5, 3))
    assert down.tolist() == np.outer([-2, -1, 0, 1, 2], [1, 1, 1]).tolist()
    assert right.tolist() == np.outer([1] * 5, [-1, 0, 1]).tolist()


def test_a_kernel_is_correlated_and_rows_come_first():
    rows, columns = np.mgrid[:6, :7].astype(np.float32)
    ramp = torch.from_numpy(2 * rows + 3 * columns)[None, None]
    for bank, weight in (("sobel", 8), ("prewitt", 6)):
        layer = DesignedFilters(bank).fit(GREY).to_layer()
        answers = layer(ramp).detach()[0]
        assert torch.equal(answers[0], torch.full_like(answers[0], 2 * weight))
        assert torch.equal(answers[1], torch.full_like(answers[1], 3 * weight))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_gaussian_derivative_differentiates_polynomials(order):
    rows, columns = np.mgrid[-14:15, -12:13].astype(float)
    bank = kernels("gaussian", (29, 25), orders=(order,), scales=(1.7,))
    for k, kernel in enumerate(bank):
        image = rows ** (order - k) * columns**k
        assert (kernel * image).sum() == pytest.approx(factorial(order - k) * factorial(k), rel=1e-3)
        for other in set(range(order + 1)) - {k}:
            assert abs((kernel * rows ** (order - other) * columns**other).sum()) < 1e-3


def test_order_zero_sums_to_one_and_all_others_to_zero():
    sums = kernels("gaussian", (9, 7)).sum((1, 2))
    assert len(sums) == 1 + 2 + 3 + 4 + 5
    assert sums == pytest.approx([1.0] + [0.0] * 14, abs=1e-6)


def hermite(n, t):
    return [t**0, t, t**2 - 1, t**3 - 3 * t, t**4 - 6 * t**2 + 3][n]


@pytest.mark.parametrize("unit_norm", [False, True])
@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_steering_is_exact_at_any_angle(order, unit_norm):
    source = DesignedFilters("gaussian", (11, 8), scales=(1.4,), unit_norm=unit_norm).fit(GREY)
    rows, columns = np.arange(11)[:, None] - 5.0, np.arange(8)[None] - 3.5
    gauss = np.exp(-(rows**2 + columns**2) / (2 * 1.4**2))
    for angle in (0.0, 0.3, 1.1, 2.5, -0.7):
        along = columns * np.cos(angle) + rows * np.sin(angle)
        expected = hermite(order, along / 1.4) * gauss / gauss.sum() / 1.4**order
        if order:
            expected = expected - expected.mean()
        found = np.tensordot(source.steer(order, angle), source.kernels_.astype(float), 1)
        assert np.abs(found - expected).max() < 1e-6 * max(1, np.abs(expected).max())


def test_steering_by_a_right_angle_swaps_the_axes():
    source = DesignedFilters("gaussian", orders=(1,))
    assert source.steer(1, 0).tolist() == [0, 1]
    assert source.steer(1, np.pi / 2) == pytest.approx([1, 0], abs=1e-15)


@pytest.mark.parametrize("bank", ["gabor", "morlet", "dog"])
@pytest.mark.parametrize("size", [(9, 6), (4, 11), None])
def test_waves_and_differences_of_gaussians_sum_to_zero(bank, size):
    assert np.abs(kernels(bank, size).sum((1, 2))).max() < 1e-6


def test_a_gabor_answers_most_to_its_own_wave():
    bank = kernels("gabor", (17, 15), scales=(4.0,), orientations=4)
    rows, columns = np.mgrid[-8:9, -7:8].astype(float)
    for k in range(4):
        angle = np.pi * k / 4
        wave = np.exp(2j * np.pi / 4 * (columns * np.cos(angle) + rows * np.sin(angle)))
        energy = np.square(np.abs((bank * wave).sum((1, 2)))).reshape(4, 2).sum(1)
        assert energy.argmax() == k
        assert energy[k] > 10 * np.delete(energy, k).max()


def test_a_pair_of_a_morlet_is_even_and_odd():
    bank = kernels("morlet", (12, 9), orientations=3, scales=(0, 1)).reshape(6, 2, 12, 9)
    turned = bank[..., ::-1, ::-1]
    assert np.abs(bank[:, 0] - turned[:, 0]).max() < 1e-7
    assert np.abs(bank[:, 1] + turned[:, 1]).max() < 1e-7
    assert np.abs(bank[:, 1]).max() > 0.01


def test_colours_are_averaged_or_seen_one_by_one():
    images = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    grey = F.conv2d(images.mean(1, keepdim=True), torch.from_numpy(kernels("sobel")).float()[:, None])
    averaged = DesignedFilters("sobel").fit(images).to_layer()(images).detach()
    assert torch.allclose(averaged, grey, atol=1e-5)
    source = DesignedFilters("sobel", colour="each").fit(images)
    each = source.to_layer()(images).detach()
    single = [F.conv2d(images[:, c : c + 1], torch.from_numpy(kernels("sobel")).float()[:, None]) for c in range(3)]
    assert torch.allclose(each, torch.cat(single, 1), atol=1e-5)
    assert source.filters_.shape == (6, 3, 3, 3)


@pytest.mark.parametrize("colour", ["mean", "each"])
def test_unit_norm_is_that_of_whole_filters(colour):
    found = DesignedFilters(("sobel", "laplacian"), colour=colour, unit_norm=True).fit(np.zeros((1, 9, 8, 3))).filters_
    assert np.linalg.norm(found.reshape(len(found), -1), axis=1) == pytest.approx(1, abs=1e-6)


def test_banks_together_and_copies():
    source = DesignedFilters(["gaussian", "dog", "gabor"], (7, 5), orders=(1, 2)).fit(GREY)
    assert source.filters_.shape == (2 + 3 + 2 + 32, 1, 7, 5)
    assert source.names_[:6] == ["d1r0c", "d0r1c", "d2r0c", "d1r1c", "d0r2c", "dog_1"]
    assert np.array_equal(pickle.loads(pickle.dumps(source)).filters_, source.filters_)
    assert np.array_equal(clone(source).fit(GREY).filters_, source.filters_)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bank": "canny"}, "bank='canny' is not one of"),
        ({"bank": ()}, "names no bank"),
        ({"bank": "sobel", "patch_size": (2, 5)}, "must be at least 3"),
        ({"bank": "laplacian", "patch_size": 5}, "must be 3"),
        ({"bank": "gaussian", "orders": (5,)}, "whole numbers from 0 to 4"),
        ({"bank": "gaussian", "orders": (1, 1)}, "different whole numbers"),
        ({"bank": "gaussian", "scales": (0.0,)}, "above 0"),
        ({"bank": "gaussian", "patch_size": 1}, "is zero at a patch_size of 1x1"),
        ({"bank": "gabor", "scales": (1.5,)}, "at least 2 pixels"),
        ({"bank": "gabor", "orientations": 0}, "orientations=0 must be at least 1"),
        ({"bank": "morlet", "scales": ()}, "one or more"),
        ({"bank": "morlet", "aspect": -1.0}, "aspect=-1.0 must be above 0"),
        ({"bank": "dog", "ratio": 1.0}, "wider"),
        ({"bank": ("dog", "gabor"), "scales": (3.0,)}, "something else"),
        ({"bank": "sobel", "colour": "grey"}, "colour='grey'"),
    ],
)
def test_what_is_out_of_range_is_said(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        DesignedFilters(**arguments).fit(GREY)


def test_sizes_that_differ_no_images_and_what_cannot_be_steered():
    with pytest.raises(ShapeError, match=r"have sizes \[\(3, 3\), \(21, 21\), \(23, 23\)\]"):
        DesignedFilters(("sobel", "gabor", "dog")).fit(GREY)
    with pytest.raises(ArgumentError, match="there are no images"):
        DesignedFilters("sobel").fit(iter(()))
    with pytest.raises(ArgumentError, match="cannot be steered"):
        DesignedFilters("sobel").steer(1, 0.2)
    with pytest.raises(ArgumentError, match="order=3 is not among"):
        DesignedFilters("gaussian", orders=(1,)).steer(3, 0.2)
