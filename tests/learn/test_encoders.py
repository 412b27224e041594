"""Every encoder against its definition on patches that were really cut out."""

import numpy as np
import pytest
import torch

from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn import Hard, KMeansFilters, RandomFilters, Rectified, SampledPatches, SoftThreshold, SparseCode, Triangle
from ninefold.learn.compare import Comparison
from ninefold.learn.encoders import encoder_named, sparse_code
from ninefold.learn.patches import Preparation
from ninefold.nn import LocalContrastNorm2d

SIZE = (3, 2)


def images(count=5, channels=2, height=9, width=7):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, height, width, generator=generator) * 200 + 20


def cut(x, stride=1):
    """Return the patches of images, ``(B, h, w, C, kh, kw)``."""
    return x.unfold(2, SIZE[0], stride).unfold(3, SIZE[1], stride).permute(0, 2, 3, 1, 4, 5)


SOURCES = {
    "whitened": lambda: SampledPatches(11, SIZE, random_state=0),
    "normalised": lambda: SampledPatches(11, SIZE, whitening=None, random_state=0),
    "plain": lambda: SampledPatches(11, SIZE, contrast=None, whitening=None, random_state=0),
    "only whitened": lambda: SampledPatches(11, SIZE, contrast=None, random_state=0),
    "random": lambda: RandomFilters(11, SIZE, random_state=0),
    "k-means": lambda: KMeansFilters(11, SIZE, random_state=0),
}


@pytest.fixture(params=SOURCES, ids=str)
def fitted(request):
    return SOURCES[request.param]().fit(images(30))


def prepared(source, x, stride=1):
    """Return prepared patches ``(B, h, w, d)`` in double precision, and the atoms."""
    patches = cut(x, stride)
    rows = patches.reshape(-1, *patches.shape[3:])
    given = source.preparation_
    white = Preparation(given.mean.double(), given.matrix.double(), given.contrast)(rows.double())
    return white.reshape(*patches.shape[:3], -1), torch.from_numpy(source.atoms_).flatten(1).double()


@pytest.mark.parametrize("stride", [1, 2])
def test_triangle_is_the_mean_distance_less_the_distance(fitted, stride):
    x = images()
    white, atoms = prepared(fitted, x, stride)
    z = (white.unsqueeze(-2) - atoms).square().sum(-1).sqrt()  # not squared
    expected = (z.mean(-1, keepdim=True) - z).clamp_min(0).movedim(-1, 1)
    found = Triangle()(Comparison(fitted, stride)(x))
    scale = float(expected.max())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-3 * scale)
    assert bool((found == 0).any(1).all())  # the farthest
    assert bool((found >= 0).all())


def test_triangle_of_one_atom_is_zero_and_sees_no_brightness():
    x = images()
    single = SampledPatches(1, SIZE, random_state=0).fit(x)
    assert not Triangle()(Comparison(single)(x)).any()
    source = SampledPatches(9, SIZE, random_state=0).fit(x)
    before, after = (Triangle()(Comparison(source)(y)) for y in (x, x + 1000))
    torch.testing.assert_close(after, before, rtol=0, atol=2e-3)


def test_a_mean_patch_counts_without_a_matrix():
    x = images()
    source = SampledPatches(6, SIZE, contrast=None, whitening=None, random_state=0).fit(x)
    source.preparation_.mean = torch.arange(12, dtype=torch.float32, device="cpu")
    white, _ = prepared(source, x)
    torch.testing.assert_close(Comparison(source)(x).energy()[:, 0].double(), white.square().sum(-1), rtol=1e-4, atol=1e-2)


def test_hard_is_the_nearest_one(fitted):
    x = images()
    white, atoms = prepared(fitted, x)
    nearest = (white.unsqueeze(-2) - atoms).square().sum(-1).argmin(-1)
    found = Hard()(Comparison(fitted)(x))
    assert torch.equal(found.sum(1), torch.ones_like(found[:, 0]))
    assert (found.argmax(1) == nearest).float().mean() > 0.99  # ties are rounding's


@pytest.mark.parametrize("split", [True, False])
def test_soft_threshold_of_both_signs(fitted, split):
    x = images()
    white, atoms = prepared(fitted, x)
    dots = (white @ atoms.T).movedim(-1, 1)
    expected = torch.cat([(dots - 0.5).clamp_min(0), (-dots - 0.5).clamp_min(0)], 1) if split else (dots - 0.5).clamp_min(0)
    found = SoftThreshold(0.5, split=split)(Comparison(fitted)(x))
    assert found.shape[1] == SoftThreshold(split=split).width(11)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=2e-3 * float(expected.max()))


def test_soft_threshold_swaps_its_halves_with_the_sign():
    x = images() - 120
    source = SampledPatches(6, SIZE, contrast=None, whitening=None, random_state=0).fit(x)
    up, down = (SoftThreshold(3.0)(Comparison(source)(y)) for y in (x, -x))
    torch.testing.assert_close(down, torch.cat([up[:, 6:], up[:, :6]], 1))


def test_rectified_takes_the_sign_away_and_normalises():
    x = images() - 120
    source = RandomFilters(6, SIZE, random_state=0).fit(x)
    comparison = Comparison(source)
    dots = comparison(x).dots.clone()
    expected = LocalContrastNorm2d((5, 5))((0.01 * dots).tanh().abs())
    torch.testing.assert_close(Rectified(0.01, 5)(comparison(x)), expected)
    torch.testing.assert_close(Rectified(0.01, 5)(comparison(-x)), expected)
    assert torch.equal(Rectified(0.01, 0)(comparison(x)), (0.01 * dots).tanh().abs())
    assert Rectified(window=99)(comparison(x)).shape == expected.shape  # cut to the map


@pytest.mark.parametrize("fast", [True, False])
def test_sparse_code_minimises(fast):
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(7, 12, generator=generator), dim=1)
    rows = torch.randn(9, 12, generator=generator)

    def objective(code):
        return 0.5 * (rows - code @ atoms).square().sum() + 0.3 * code.abs().sum()

    steps = [float(objective(sparse_code(rows @ atoms.T, atoms @ atoms.T, 0.3, n, fast=fast))) for n in (0, 1, 3, 10, 400)]
    assert steps == sorted(steps, reverse=True)
    code = sparse_code(rows @ atoms.T, atoms @ atoms.T, 0.3, 2000, fast=fast)
    gap = (rows - code @ atoms) @ atoms.T  # the optimum: at most the penalty, and exactly it where a value is not zero
    assert float(gap.abs().max()) < 0.3 + 1e-4
    torch.testing.assert_close(gap[code != 0], 0.3 * code[code != 0].sign(), rtol=0, atol=1e-3)


def test_sparse_code_of_orthonormal_atoms_is_a_soft_threshold():
    source = RandomFilters(12, SIZE, kind="orthogonal", zero_mean=False, random_state=0).fit(images())
    x = images()
    comparison = Comparison(source)
    dots = comparison(x).dots.clone()
    expected = torch.nn.functional.softshrink(dots, 40.0)
    found = SparseCode(40.0, n_iter=3, split=False)(comparison(x))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)
    both = SparseCode(40.0, n_iter=3)(comparison(x))
    torch.testing.assert_close(both[:, :12] - both[:, 12:], found)
    assert bool((both >= 0).all())


def test_what_is_refused():
    source = SampledPatches(6, SIZE, random_state=0).fit(images())
    with pytest.raises(ShapeError, match="have 3 channels, and the filters were learned from 2"):
        Comparison(source)(images(channels=3))
    with pytest.raises(ShapeError, match="smaller than the filters"):
        Comparison(source)(images(height=2))
    with pytest.raises(ArgumentError, match="neither an Encoder nor one of"):
        encoder_named("square")
    with pytest.raises(ArgumentError, match="alpha=-1"):
        SoftThreshold(-1)(Comparison(source)(images()))
    with pytest.raises(ArgumentError, match="method='cg'"):
        SparseCode(method="cg")(Comparison(source)(images()))
    assert isinstance(encoder_named("triangle"), Triangle)
    assert np.array_equal(source.atoms_.shape, (6, 2, *SIZE))
