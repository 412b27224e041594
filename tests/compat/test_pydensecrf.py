"""Scripts written for pydensecrf, with another import; and what that package does not take."""

import numpy as np
import pytest
import torch

import ninefold.compat.pydensecrf.densecrf as dcrf
from ninefold.compat.pydensecrf import utils
from ninefold.engines.native import instruction_set
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.structured import RoomError

native = pytest.mark.skipif(instruction_set() is None, reason="the lattice is native code")
RANDOM = np.random.default_rng(0)
H, W, L = 12, 17, 3
IMAGE = RANDOM.integers(0, 256, (H, W, 3), dtype=np.uint8)
ENERGIES = RANDOM.random((L, H * W)).astype(np.float32)
ALL = (dcrf.NO_NORMALIZATION, dcrf.NORMALIZE_BEFORE, dcrf.NORMALIZE_AFTER, dcrf.NORMALIZE_SYMMETRIC)


def script(image=IMAGE, energies=ENERGIES, compat=4, normalization=dcrf.NORMALIZE_SYMMETRIC):
    d = dcrf.DenseCRF2D(W, H, L)
    d.setUnaryEnergy(energies)
    d.addPairwiseGaussian(sxy=(3, 3), compat=compat, kernel=dcrf.DIAG_KERNEL, normalization=normalization)
    d.addPairwiseBilateral(
        sxy=(8, 5), srgb=(40, 50, 60), rgbim=image, compat=compat, kernel=dcrf.FULL_KERNEL, normalization=normalization
    )
    return d


@native
@pytest.mark.parametrize("normalization", ALL)
@pytest.mark.parametrize("compat", [2.0, [1.0, 2.0, 0.5], [[0.0, 1, 2], [3, 0, 1], [1, 1, 0]]])
def test_a_step_is_the_definition_on_the_lattice(compat, normalization):
    from ninefold.structured.crf import LatticeFilter

    matrix = np.array(compat, np.float32)
    matrix = -matrix * np.eye(L) if matrix.ndim == 0 else np.diag(matrix) if matrix.ndim == 1 else (matrix + matrix.T) / 2
    y, x = np.mgrid[:H, :W].astype(np.float32)
    colors = IMAGE.reshape(-1, 3) / [40, 50, 60]
    energies = ENERGIES.astype(np.float64)
    start = np.exp(-energies) / np.exp(-energies).sum(0)
    for rows in ([x.ravel() / 3, y.ravel() / 3], [x.ravel() / 8, y.ravel() / 5, *colors.T]):
        k = (
            LatticeFilter(torch.from_numpy(np.stack(rows, 1).astype(np.float32)))
            .apply(torch.eye(H * W, dtype=torch.float32))
            .double()
            .numpy()
        )
        sums = k.sum(1) + 1e-20
        if normalization in (dcrf.NORMALIZE_AFTER, dcrf.NORMALIZE_SYMMETRIC):
            k = k / (np.sqrt(sums) if normalization == dcrf.NORMALIZE_SYMMETRIC else sums)[:, None]
        if normalization in (dcrf.NORMALIZE_BEFORE, dcrf.NORMALIZE_SYMMETRIC):
            k = k / (np.sqrt(sums) if normalization == dcrf.NORMALIZE_SYMMETRIC else sums)
        energies = energies + matrix @ (start @ k.T)
    want = np.exp(-energies) / np.exp(-energies).sum(0)
    np.testing.assert_allclose(np.array(script(compat=compat, normalization=normalization).inference(1)), want, atol=2e-5)


@native
def test_steps_one_by_one_are_inference():
    d = script()
    Q, tmp1, tmp2 = d.startInference()
    divergences = [d.klDivergence(Q)]
    for _ in range(5):
        d.stepInference(Q, tmp1, tmp2)
        divergences.append(d.klDivergence(Q))
    np.testing.assert_allclose(np.array(Q), np.array(d.inference(5)), atol=1e-5)
    assert divergences[-1] < divergences[0]
    assert np.argmax(Q, axis=0).reshape((H, W)).shape == (H, W)


def test_the_divergence_of_a_crf_without_pairs_is_its_unary_terms():
    d = dcrf.DenseCRF(2, 2)
    d.setUnaryEnergy([[1, 2], [3, 4]])
    q = np.array([[0.5, 1.0], [0.5, 0.0]])
    assert d.klDivergence(q) == pytest.approx(-np.log(2) + 0.5 * 1 + 2 + 0.5 * 3)


@native
def test_any_array_will_do():
    want = np.array(script().inference(3))
    image, energies = np.asfortranarray(IMAGE), np.asfortranarray(ENERGIES)
    image.flags.writeable = energies.flags.writeable = False
    for i in (image, image.astype(np.float64), image[:, ::-1][:, ::-1], image.astype(np.float16)):
        for u in (energies, energies.astype(np.float64)):
            assert np.array_equal(script(i, u).inference(3), want)
    np.testing.assert_allclose(script(energies=energies.astype(np.float16)).inference(3), want, atol=0.01)
    assert np.array_equal(ENERGIES, energies)


@native
def test_features_of_utils_are_the_kernels_of_images():
    want = np.array(script().inference(2))
    d = dcrf.DenseCRF(H * W, L)
    d.setUnary(dcrf.ConstUnary(ENERGIES))
    d.addPairwiseEnergy(utils.create_pairwise_gaussian(sdims=(3, 3), shape=(H, W)), compat=4)
    d.addPairwiseEnergy(utils.create_pairwise_bilateral(sdims=(5, 8), schan=(40, 50, 60), img=IMAGE, chdim=2), compat=4)
    assert np.abs(np.array(d.inference(2)) - want).mean() < 0.02  # axes in another order: another place in the lattice


def test_energies_of_labels_and_probabilities():
    sm = RANDOM.random((3, 4, 5))
    sm /= sm.sum(0)
    np.testing.assert_allclose(utils.unary_from_softmax(sm), -np.log(sm.reshape(3, -1)), rtol=1e-5)
    np.testing.assert_allclose(utils.unary_from_softmax(sm, scale=0.7), -np.log(0.7 * sm + 0.1).reshape(3, -1), rtol=1e-5)
    np.testing.assert_allclose(utils.softmax_to_unary(sm, 0.7), -np.log(0.7 * sm + 0.1).reshape(3, -1), rtol=1e-5)
    assert utils.unary_from_softmax(np.array([[0.0], [1.0]])).ravel() == pytest.approx([-np.log(1e-5), 0])
    want = -np.log([[1 / 3, 0.6, 0.2], [1 / 3, 0.2, 0.2], [1 / 3, 0.2, 0.6]])
    np.testing.assert_allclose(utils.unary_from_labels(np.array([0, 1, 3]), 3, 0.6), want, rtol=1e-6)
    np.testing.assert_allclose(utils.compute_unary(np.array([0, 1, 3]), 3, 0.6), want, rtol=1e-6)
    np.testing.assert_allclose(utils.unary_from_labels([0, 2], 3, 0.6, zero_unsure=False), want[:, 1:], rtol=1e-6)


def test_a_logistic_unary_is_a_product():
    d = dcrf.DenseCRF(5, 2)
    matrix, features = RANDOM.random((2, 3)), RANDOM.random((3, 5))
    d.setUnary(dcrf.LogisticUnary(matrix, features))
    first = np.array(d.inference(0))
    d.setUnaryEnergy(matrix, features)
    assert np.array_equal(first, d.inference(0))
    np.testing.assert_allclose(np.log(first[0] / first[1]), (matrix @ features)[1] - (matrix @ features)[0], atol=1e-5)


BAD = {
    "image from 0 to 1": (ArgumentError, r"values from 0 to 1, and srgb=13: all its colours would be one; multiply it by 255", lambda d: d.addPairwiseBilateral(8, 13, IMAGE / IMAGE.max(), 3)),
    "turned image": (ShapeError, r"must be \(h, w, 3\), \(12, 17, 3\): DenseCRF2D takes the width first, \(12, 17, labels\)", lambda d: d.addPairwiseBilateral(8, 13, IMAGE.swapaxes(0, 1), 3)),
    "four channels": (ShapeError, "of other channels make features by create_pairwise_bilateral", lambda d: d.addPairwiseBilateral(8, 13, np.zeros((H, W, 4)), 3)),
    "labels": (ShapeError, r"unary energies of shape \(2, 204\); they must be \(labels, points\), \(3, 204\)", lambda d: d.setUnaryEnergy(ENERGIES[:2])),
    "not flat": (ShapeError, "must have 2 axes", lambda d: d.setUnaryEnergy(ENERGIES.reshape(L, H, W))),
    "nan": (ArgumentError, "204 of 612 numbers are NaN", lambda d: d.setUnaryEnergy(ENERGIES * np.array([[1], [np.nan], [1]]))),
    "complex": (ArgumentTypeError, "dtype complex64", lambda d: d.setUnaryEnergy(ENERGIES.astype(np.complex64))),
    "compat": (ShapeError, r"compat of shape \(2,\)", lambda d: d.addPairwiseGaussian(3, [1, 2])),
    "width": (ArgumentError, "sxy=0", lambda d: d.addPairwiseGaussian(0, 3)),
    "features": (ShapeError, "with 204 points", lambda d: d.addPairwiseEnergy(np.zeros((2, 9)), 3)),
    "steps": (ArgumentError, "niter=-1", lambda d: d.inference(-1)),
    "no unary": (ArgumentError, "call setUnaryEnergy first", lambda d: d.inference(1)),
    "unary": (ArgumentTypeError, "type int", lambda d: d.setUnary(3)),
    "size": (ArgumentError, "nlabels=0", lambda d: dcrf.DenseCRF(3, 0)),
    "gt": (ArgumentError, "labels are 0 to 4; they must be 0 to 3", lambda d: utils.unary_from_labels([0, 4], 3, 0.5)),
    "zero": (ArgumentError, "give a clip above 0", lambda d: utils.unary_from_softmax(np.zeros((2, 1)), clip=None)),
}  # fmt: skip


@native
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    error, message, call = BAD[name]
    with pytest.raises(error, match=message):
        call(dcrf.DenseCRF2D(W, H, L))


@native
def test_memory_is_said_before_anything_is_made(monkeypatch):
    monkeypatch.setattr(dcrf, "available_memory", lambda: 16 << 30)
    with pytest.raises(RoomError, match="900000000 points and 21 labels needs 144196 MiB at least, 16384 MiB may be used"):
        dcrf.DenseCRF2D(30000, 30000, 21)
    d = dcrf.DenseCRF2D(30000, 30000, 2)  # an integer for each number of points: no array is made
    image = np.broadcast_to(np.uint8(0), (30000, 30000, 3))
    with pytest.raises(RoomError, match="kernel 1 of 900000000 points and 2 labels needs 30899 MiB"):
        d.addPairwiseGaussian(3, 3)
    with pytest.raises(RoomError, match="kernel 1 of 900000000 points and 2 labels needs .* give it fewer pixels"):
        d.addPairwiseBilateral(80, 13, image, 10)


@native
def test_images_from_0_to_1_have_widths_of_their_own():
    whole, unit, black = dcrf.DenseCRF2D(W, H, L), dcrf.DenseCRF2D(W, H, L), dcrf.DenseCRF2D(W, H, L)
    for d, image, width in ((whole, IMAGE, 13), (unit, IMAGE / 255, 13 / 255), (black, np.zeros((H, W, 3)), 13)):
        d.setUnaryEnergy(ENERGIES)
        d.addPairwiseBilateral(sxy=8, srgb=width, rgbim=image, compat=3)
    np.testing.assert_allclose(unit.inference(3), whole.inference(3), atol=1e-4)
    assert np.isfinite(black.inference(3)).all()
