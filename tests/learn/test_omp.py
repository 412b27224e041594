"""Orthogonal matching pursuit and gain-shape vector quantisation (Coates and Ng 2011)."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import orthogonal_mp

import ninefold.learn.omp as module
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn.omp import OMPFilters, matching_pursuit


def images(n=40, seed=0, channels=2):
    """Sums of a few bars and noise, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    x = 0.3 * rng.normal(size=(n, 11, 9, channels))
    for k in range(n):
        x[k, rng.integers(11), :, rng.integers(channels)] += 2
        x[k, :, rng.integers(9), rng.integers(channels)] -= 2
    return x


def unit(n, d, seed=0):
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


def dense(chosen, codes, atoms):
    return torch.zeros(len(codes), len(atoms)).scatter_add_(1, chosen, codes)


# Codes


@pytest.mark.parametrize("k", [1, 2, 4])
def test_pursuit_is_scikit_learns(k):
    rows, atoms = torch.randn(30, 7, generator=torch.Generator().manual_seed(1)), unit(11, 7)
    z = dense(*matching_pursuit(rows, atoms, k), atoms)
    theirs = orthogonal_mp(atoms.double().T.numpy(), rows.double().T.numpy(), n_nonzero_coefs=k).T
    assert np.allclose(z.numpy(), theirs, atol=1e-4)


def test_one_atom_is_the_best_of_all_single_atoms():
    rows, atoms = torch.randn(20, 5, generator=torch.Generator().manual_seed(2)), unit(6, 5, 3)
    z = dense(*module._best(rows, atoms), atoms)
    best = torch.stack([(rows - (rows @ d)[:, None] * d).square().sum(1) for d in atoms]).amin(0)
    assert torch.allclose((rows - z @ atoms).square().sum(1), best, atol=1e-5)
    assert torch.equal((z != 0).sum(1), torch.ones(20, dtype=torch.int64))
    assert torch.allclose(z, dense(*matching_pursuit(rows, atoms, 1), atoms), atol=1e-6)


def test_orthonormal_atoms_make_the_best_of_all_pairs():
    atoms = torch.linalg.qr(unit(5, 5, 4))[0]
    rows = torch.randn(12, 5, generator=torch.Generator().manual_seed(5))
    z = dense(*matching_pursuit(rows, atoms, 2), atoms)
    pairs = [(rows - rows @ atoms[list(p)].T @ atoms[list(p)]).square().sum(1) for p in itertools.combinations(range(5), 2)]
    assert torch.allclose((rows - z @ atoms).square().sum(1), torch.stack(pairs).amin(0), atol=1e-5)


def test_atoms_that_depend_on_each_other_do_no_harm():
    atoms = torch.cat([unit(1, 4)] * 3 + [unit(1, 4, 1)])
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(6))
    z = dense(*matching_pursuit(rows, atoms, 4), atoms)
    span = torch.linalg.lstsq(atoms[[0, 3]].T, rows.T).solution
    assert bool(z.isfinite().all())
    assert torch.allclose(z @ atoms, span.T @ atoms[[0, 3]], atol=1e-4)


def test_more_nonzeros_than_atoms():
    with pytest.raises(ArgumentError, match="n_nonzero=5 .* there are 4"):
        matching_pursuit(torch.ones(2, 3), unit(4, 3), 5)
    with pytest.raises(ArgumentError, match="n_nonzero=9 .* n_filters=8"):
        OMPFilters(8, 3, n_nonzero=9).fit(images())


# Atoms


def test_objective_never_increases_without_revival():
    source = OMPFilters(12, (3, 2), max_iter=40, revival=None, random_state=0).fit(images())
    steps = np.diff(source.objective_)
    assert len(steps) == 39
    assert (steps <= 1e-6 * source.objective_[0]).all()
    assert source.objective_[-1] < 0.9 * source.objective_[0]


def test_objective_is_that_of_the_definition():
    source = OMPFilters(6, (3, 2), max_iter=1, contrast=None, whitening=None, n_patches=50, random_state=0)
    rows, generator, _ = source._started(images(), afresh=True)
    before = source._atoms.clone()
    source._iterate(rows, generator, kept=0.0)
    dots = rows @ before.T
    k = dots.abs().argmax(1)
    gain = dots[torch.arange(len(rows)), k]
    assert source.objective_[0] == pytest.approx(float((rows - gain[:, None] * before[k]).square().sum(1).mean()), rel=1e-5)
    sums = torch.stack([(gain[k == j, None] * rows[k == j]).sum(0) for j in range(6)])
    assert torch.allclose(source._atoms, sums / sums.norm(dim=1, keepdim=True), atol=1e-5)


def test_updated_atoms_are_the_best_for_their_codes_one_after_the_other():
    rows, atoms = torch.randn(40, 6, generator=torch.Generator().manual_seed(1)), unit(5, 6)
    z = dense(*matching_pursuit(rows, atoms, 2), atoms)
    new = module._updated(atoms, z.T @ rows, z.T @ z)
    errors = [float((rows - z @ torch.cat([new[:k], atoms[k:]])).square().sum()) for k in range(6)]
    assert errors == sorted(errors, reverse=True)
    others = [float((rows - z @ torch.cat([new[:4], u[None]])).square().sum()) for u in unit(200, 6, 9)]
    assert min(others) > errors[-1]
    assert torch.allclose(new.norm(dim=1), torch.ones(5))


def test_atoms_that_made_the_patches_are_found():
    true, rng = unit(4, 12, 7), np.random.default_rng(0)
    gains = np.where(rng.random(600) < 0.5, -1, 1) * rng.uniform(1, 3, 600)
    patches = torch.from_numpy(gains[:, None]).float() * true[torch.from_numpy(rng.integers(4, size=600))]
    patches += 0.02 * torch.from_numpy(rng.normal(size=patches.shape)).float()
    source = OMPFilters(12, (3, 4), contrast=None, whitening=None, max_iter=20, channels="none", random_state=1)
    source.fit(patches.reshape(-1, 3, 4))
    assert float((torch.from_numpy(source.atoms_).flatten(1) @ true.T).abs().amax(0).min()) > 0.999
    assert source.objective_[-1] < 12 * 0.02**2
    assert source.objective_[-1] < source.objective_[0]


def test_two_atoms_in_a_code_explain_more_than_one():
    one, two = (OMPFilters(12, 3, n_nonzero=k, max_iter=15, random_state=0).fit(images()) for k in (1, 2))
    assert two.objective_[-1] < one.objective_[-1]
    assert two.objective_[-1] < two.objective_[0]
    assert np.allclose(np.square(two.atoms_).sum((1, 2, 3)), 1, atol=1e-5)


def test_dead_atoms_are_revived_and_become_of_use():
    source = OMPFilters(6, (3, 2), random_state=0)
    rows, generator, _ = source._started(images(), afresh=True)
    source._atoms[1:] = source._atoms[0]  # the first of equal atoms takes all
    source._iterate(rows, generator, kept=0.0)
    assert source.revived_ == 5
    for _ in range(5):
        source._iterate(rows, generator, kept=0.0)
    assert len(module._best(rows, source._atoms)[0].unique()) == 6


def test_blocks_do_not_change_the_result(monkeypatch):
    whole = OMPFilters(5, (3, 2), n_nonzero=2, max_iter=4, random_state=0).fit(images())
    monkeypatch.setattr(module, "_BLOCK", 5 * 17)
    parts = OMPFilters(5, (3, 2), n_nonzero=2, max_iter=4, random_state=0).fit(images())
    assert np.allclose(whole.atoms_, parts.atoms_, atol=1e-4)


# As an estimator


def test_same_seed_same_atoms_and_global_state_untouched():
    before = torch.random.get_rng_state()
    a, b = (OMPFilters(5, 3, max_iter=3, random_state=4).fit(images()) for _ in range(2))
    assert np.array_equal(a.atoms_, b.atoms_)
    assert torch.equal(before, torch.random.get_rng_state())


def test_clone_and_pickle():
    source = OMPFilters(5, 3, n_nonzero=2, max_iter=3, random_state=4).fit(images())
    again = pickle.loads(pickle.dumps(source))
    assert np.array_equal(again.filters_, source.filters_)
    assert not hasattr(clone(source), "filters_")
    assert again.partial_fit(images(seed=1)).filters_.shape == (5, 2, 3, 3)


def test_partial_fit_of_the_same_patches_twice_is_two_iterations_and_what_was_before():
    source = OMPFilters(5, (3, 2), revival=None, random_state=0).partial_fit(images())
    first, sums = source._atoms.clone(), source.sums_.clone()
    source.partial_fit(images())
    rows, _, _ = OMPFilters(5, (3, 2), random_state=0)._started(images(), afresh=True)
    chosen, gains = module._best(rows, first)
    z = dense(chosen, gains, first)
    assert torch.allclose(source.sums_, sums + z.T @ rows, rtol=1e-3, atol=1e-2)
    assert len(source.objective_) == 2


def test_interrupt_keeps_what_was_reached(monkeypatch):
    source, steps, real = OMPFilters(5, 3, max_iter=9, random_state=0), [], OMPFilters._iterate

    def interrupted(self, rows, generator, kept):
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(1)
        real(self, rows, generator, kept)

    monkeypatch.setattr(OMPFilters, "_iterate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        source.fit(images())
    monkeypatch.undo()
    reference = OMPFilters(5, 3, max_iter=3, random_state=0).fit(images())
    assert np.array_equal(source.atoms_, reference.atoms_)
    assert source.objective_ == reference.objective_
    assert np.array_equal(source.partial_fit(images(seed=1)).atoms_, reference.partial_fit(images(seed=1)).atoms_)


# Bad input


def test_fewer_patches_than_filters():
    with pytest.warns(UserWarning, match="n_filters=30 .* from 12 patches: there will be 12"):
        source = OMPFilters(30, (3, 2), max_iter=2, contrast=None, whitening=None).fit(
            np.random.default_rng(0).normal(size=(1, 6, 4))
        )
    assert source.filters_.shape == (12, 1, 3, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"n_filters": 0}, ArgumentError, "n_filters=0 must be at least 1"),
        ({"n_nonzero": 0}, ArgumentError, "n_nonzero=0 must be at least 1"),
        ({"n_nonzero": 1.5}, ArgumentTypeError, "n_nonzero=1.5 must be a whole number"),
        ({"max_iter": 0}, ArgumentError, "max_iter=0 must be at least 1"),
        ({"revival": 1.0}, ArgumentError, "revival=1.0 must be from 0 to below 1"),
        ({"revival": float("nan")}, ArgumentError, "revival=nan must be"),
        ({"patch_size": 12}, ShapeError, "no image is as large as a patch of 12x12"),
    ],
)
def test_parameters_out_of_range(arguments, error, words):
    with pytest.raises(error, match=words):
        OMPFilters(**{"n_filters": 5, "patch_size": 3, **arguments}).fit(images())


def test_constant_images_nan_and_mixed_channels():
    with pytest.raises(ArgumentError, match="all 192 patches are zero .* constant"):
        OMPFilters(5, 3).fit(np.full((4, 10, 8), 7.0))
    x = images()
    x[3, 2, 1, 0] = np.nan
    with pytest.raises(ArgumentError, match="NaN or infinity, 1 of"):
        OMPFilters(5, 3).fit(x)
    with pytest.raises(ShapeError, match="of 1 and of 2 channels"):
        OMPFilters(5, 3).fit([np.ones((8, 9)), np.ones((8, 9, 2))])
    with pytest.raises(ShapeError, match=r"patches of shape \(1, 3, 3\), but the atoms have \(2, 3, 3\)"):
        OMPFilters(5, 3, max_iter=1).fit(images()).partial_fit(images()[..., 0])
