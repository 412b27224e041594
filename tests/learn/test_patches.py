from collections import Counter

import numpy as np
import pytest
import torch

from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn import Images
from ninefold.learn.patches import Preparation, draw_patches


def numbered(count=3, height=5, width=7):
    return np.arange(count * height * width, dtype=np.float32).reshape(count, height, width)


def test_patches_are_patches_and_none_comes_twice():
    images = numbered()
    there = {images[n, i : i + 2, j : j + 3].tobytes() for n in range(3) for i in range(4) for j in range(5)}
    drawn = draw_patches(Images(images), (2, 3), 40, seed=1)
    assert drawn.shape == (40, 1, 2, 3)
    found = [patch.numpy().tobytes() for patch in drawn[:, 0]]
    assert set(found) <= there
    assert len(set(found)) == 40
    every = draw_patches(Images(images), (2, 3), 1000, seed=1)
    assert {patch.numpy().tobytes() for patch in every[:, 0]} == there
    assert len(every) == 60


@pytest.mark.parametrize("given", ["stack", "list", "iterator"])
def test_every_patch_is_as_likely_however_the_images_come(given):
    def images():
        made = numbered(4, 3, 3)
        return made if given == "stack" else iter(list(made)) if given == "iterator" else [made[0], *made[1:]]

    seen = Counter()
    for seed in range(600):
        seen.update(draw_patches(Images(images()), (2, 2), 5, seed)[:, 0, 0, 0].int().tolist())
    assert len(seen) == 16
    assert sum(seen.values()) == 3000
    spread = sum((n - 187.5) ** 2 / (187.5 * 11 / 16) for n in seen.values())  # 5 of 16: a variance of 11/16 of the mean
    assert spread < 16 + 5 * 32**0.5


def test_the_seed_decides():
    images = Images(numbered())
    assert torch.equal(draw_patches(images, (2, 3), 9, 5), draw_patches(images, (2, 3), 9, 5))
    assert not torch.equal(draw_patches(images, (2, 3), 9, 5), draw_patches(images, (2, 3), 9, 6))


def test_small_images_are_passed_over_and_mixed_channels_refused():
    mixed = [np.zeros((2, 9)), np.ones((4, 5))]
    assert draw_patches(Images(mixed), (3, 3), 9, 0).shape == (6, 1, 3, 3)
    with pytest.raises(ShapeError, match="no image is as large as a patch of 5x3"):
        draw_patches(Images(mixed), (5, 3), 9, 0)
    with pytest.raises(ShapeError, match="images of 1 and of 3 channels are mixed"):
        draw_patches(Images([np.zeros((5, 6)), np.zeros((5, 6, 3))]), (2, 2), 9, 0)


def patches(count=4000, shape=(2, 3, 2)):
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(12, 12, generator=generator)
    return (torch.randn(count, 12, generator=generator) @ mix).reshape(count, *shape) * 20 + 90


def test_normalisation_is_by_the_unbiased_variance():
    given = patches(6)
    normal = Preparation.fitted(given, contrast=10.0, whitening=None)(given)
    rows = given.flatten(1).double().numpy()
    expected = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, ddof=1, keepdims=True) + 10)
    np.testing.assert_allclose(normal, expected, rtol=1e-5, atol=1e-6)


def test_brightness_is_gone_and_contrast_nearly():
    preparation = Preparation.fitted(patches(), contrast=10.0, whitening=0.1)
    some = patches(5)
    torch.testing.assert_close(preparation(some + 50), preparation(some), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(preparation(some * 2), preparation(some), atol=1e-3)
    assert torch.allclose(preparation(some * 2), preparation(some), atol=0.2)


@pytest.mark.parametrize("whitening", [0.1, 1e-3])
def test_eigenvalues_of_the_whitened_covariance(whitening):
    given = patches()
    preparation = Preparation.fitted(given, contrast=10.0, whitening=whitening)
    before = torch.linalg.eigvalsh(preparation.normalised(given.flatten(1)).double().T.cov())
    after = torch.linalg.eigvalsh(preparation(given).double().T.cov())
    torch.testing.assert_close(after.sort()[0], (before / (before + whitening)).sort()[0], rtol=1e-3, atol=1e-4)
    assert torch.equal(preparation.matrix, preparation.matrix.T) or torch.allclose(
        preparation.matrix, preparation.matrix.T, atol=1e-5
    )


def test_folded_kernels_give_the_same_products():
    given = patches(50)
    dictionary = torch.randn(4, 12, generator=torch.Generator().manual_seed(1))
    preparation = Preparation.fitted(given, contrast=10.0, whitening=0.1)
    kernels, offsets = preparation.folded(dictionary)
    flat = given.flatten(1)
    deviation = (flat.var(1, keepdim=True) + 10).sqrt()
    torch.testing.assert_close(flat @ kernels.T / deviation - offsets, preparation(given) @ dictionary.T, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(kernels.sum(1), torch.zeros(4), rtol=0, atol=1e-4)


def test_none_leaves_patches_alone():
    given = patches(3)
    assert torch.equal(Preparation.none(12)(given), given.flatten(1))
    assert torch.equal(Preparation.fitted(given, None, None)(given), given.flatten(1))


@pytest.mark.parametrize("wrong", [{"contrast": 0.0, "whitening": 0.1}, {"contrast": 1.0, "whitening": -1.0}])
def test_what_is_added_is_above_zero(wrong):
    with pytest.raises(ArgumentError, match="must be above 0"):
        Preparation.fitted(patches(5), **wrong)
