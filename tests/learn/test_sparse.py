"""Convolutional sparse coding and its predictor: identities, and what ISTA must do (Kavukcuoglu et al. 2010, Wohlberg 2014)."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

import ninefold.learn.sparse as module
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn import ConvFeatures
from ninefold.learn.coding import (
    Splitting,
    analysis,
    energy,
    largest_penalty,
    lipschitz,
    objective,
    sparse_codes,
    synthesis,
)
from ninefold.learn.encoders import sparse_code
from ninefold.learn.sparse import SparseCodingFilters, updated_atoms

BORDERS = ("circular", "zero")


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(k, c, h, w, seed=0):
    atoms = drawn(k, c, h, w, seed=seed)
    return atoms / atoms.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def textures(n=3, height=26, width=33, channels=1, seed=0):
    """Images that few atoms make: three shapes at few places, and a little noise."""
    rng = np.random.default_rng(seed)
    shapes = torch.from_numpy(np.random.default_rng(9).normal(size=(3, channels, 4, 3)))
    codes = rng.normal(size=(n, 3, height - 3, width - 2)) * (rng.random((n, 3, height - 3, width - 2)) < 0.03)
    x = synthesis(torch.from_numpy(codes), shapes).numpy() + 0.02 * rng.normal(size=(n, channels, height, width))
    return x[:, 0] if channels == 1 else x


# The maps


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_analysis_is_the_adjoint_of_synthesis(border, channels):
    atoms, x = unit(5, channels, 3, 4), drawn(2, channels, 9, 11, seed=1)
    z = drawn(*analysis(x, atoms, border).shape, seed=2)
    assert torch.allclose((synthesis(z, atoms, border) * x).sum(), (z * analysis(x, atoms, border)).sum())


@pytest.mark.parametrize("border", BORDERS)
def test_synthesis_adds_up_atoms_by_their_top_left_corner(border):
    atoms = unit(3, 2, 2, 4)
    z = torch.zeros(1, 3, *((5, 4) if border == "zero" else (6, 7)), dtype=torch.float64)
    z[0, 1, 2, 3], z[0, 2, 4, 1] = 2.0, -3.0
    wanted = torch.zeros(1, 2, 6, 7, dtype=torch.float64)
    wanted[0, :, 2:4, 3:7] += 2 * atoms[1]
    wanted[0, :, 4:6, 1:5] -= 3 * atoms[2]
    assert torch.allclose(synthesis(z, atoms, border), wanted)


def test_circular_synthesis_goes_on_at_the_other_side():
    atoms = unit(2, 1, 2, 3)
    z = torch.zeros(1, 2, 5, 6, dtype=torch.float64)
    z[0, 1, 4, 5] = 1.0
    got = synthesis(z, atoms, "circular")[0, 0]
    assert torch.allclose(got.roll((1, 1), (0, 1))[:2, :3], atoms[1, 0])
    assert float(got.abs().sum()) == pytest.approx(float(atoms[1].abs().sum()))


@pytest.mark.parametrize("channels", [1, 2])
def test_lipschitz_is_the_largest_eigenvalue_and_a_bound_for_zero_borders(channels):
    atoms, size = unit(3, channels, 2, 3), (5, 6)
    for border in BORDERS:
        shape = analysis(torch.zeros(1, channels, *size, dtype=torch.float64), atoms, border).shape
        eye = torch.eye(shape.numel(), dtype=torch.float64).view(-1, *shape[1:])
        most = float(torch.linalg.matrix_norm(synthesis(eye, atoms, border).flatten(1), 2)) ** 2
        if border == "circular":
            assert most == pytest.approx(lipschitz(atoms, size))
        else:
            assert most <= lipschitz(atoms, size) * (1 + 1e-12)


def test_energy_is_that_of_the_images_for_odd_and_even_widths():
    for width in (5, 6):
        x = drawn(2, 3, 7, width)
        assert energy(torch.fft.rfft2(x), width) == pytest.approx(float(x.square().sum()))


# Codes


@pytest.mark.parametrize("border", BORDERS)
def test_ista_never_increases_the_objective(border):
    atoms, x, history = unit(5, 2, 3, 4), drawn(2, 2, 9, 11, seed=1), []
    sparse_codes(x, atoms, 0.2, n_iter=200, method="ista", border=border, history=history)
    assert (np.diff(history) <= 1e-10).all()
    assert history[0] < float(x.square().sum()) / 2


def test_a_step_above_two_over_l_does_not(monkeypatch):
    """The bound that `lipschitz` gives is needed: with an eighth of it ISTA runs away."""
    from ninefold.learn import coding

    monkeypatch.setattr(coding, "lipschitz", lambda atoms, size: lipschitz(atoms, size) / 8)
    history = []
    sparse_codes(drawn(2, 2, 9, 11, seed=1), unit(5, 2, 3, 4), 0.2, n_iter=50, method="ista", border="circular", history=history)
    assert max(np.diff(history)) > 0


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_methods_agree_and_are_optimal(border, channels):
    atoms, x, penalty = unit(5, channels, 3, 4), drawn(2, channels, 9, 12, seed=1), 0.3
    found = {m: sparse_codes(x, atoms, penalty, n_iter=n, method=m, border=border) for m, n in (("fista", 2000), ("admm", 600))}
    values = [objective(x, atoms, z, penalty, border) for z in found.values()]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    slope = analysis(x - synthesis(found["fista"], atoms, border), atoms, border)
    on = found["fista"] != 0
    assert float(slope.abs().max()) <= penalty + 1e-4
    assert torch.allclose(slope[on], penalty * found["fista"][on].sign(), atol=1e-4)
    assert 0 < int(on.sum()) < on.numel()


@pytest.mark.parametrize("method", ["admm", "fista", "ista"])
@pytest.mark.parametrize("border", BORDERS)
def test_zero_is_optimal_from_the_largest_product_on(method, border):
    atoms, x = unit(4, 2, 3, 2), drawn(1, 2, 8, 7, seed=1)
    most = largest_penalty(x, atoms, border)
    assert not bool(sparse_codes(x, atoms, most * 1.0001, n_iter=200, method=method, border=border).any())
    z = sparse_codes(x, atoms, most * 0.95, n_iter=400, method=method, border=border)
    assert bool(z.any())
    assert objective(x, atoms, z, most * 0.95, border) < float(x.square().sum()) / 2


@pytest.mark.parametrize(("method", "n"), [("admm", 300), ("fista", 1), ("ista", 1)])
def test_a_delta_makes_a_soft_threshold(method, n):
    x = drawn(2, 1, 6, 9)
    z = sparse_codes(x, torch.ones(1, 1, 1, 1, dtype=torch.float64), 0.7, n_iter=n, method=method)
    assert torch.allclose(z, torch.nn.functional.softshrink(x, 0.7), atol=1e-6)


def test_a_delta_within_a_larger_atom_is_a_shifted_soft_threshold():
    atoms = torch.zeros(1, 1, 3, 4, dtype=torch.float64)
    atoms[0, 0, 1, 2] = 1
    x = drawn(1, 1, 6, 9)
    z = sparse_codes(x, atoms, 0.7, n_iter=1, method="ista", border="circular")
    assert torch.allclose(z, torch.nn.functional.softshrink(x.roll((-1, -2), (2, 3)), 0.7))


def test_pull_of_a_delta_is_between_image_and_target():
    """For D = 1, the minimum of (x - z)^2 / 2 + a (z - t)^2 / 2 + l |z| is the soft threshold of (x + a t) / (1 + a) by l / (1 + a)."""
    x, t, a, penalty = drawn(1, 1, 5, 8), drawn(1, 1, 5, 8, seed=3), 1.7, 0.4
    wanted = torch.nn.functional.softshrink((x + a * t) / (1 + a), penalty / (1 + a))
    for method, n in (("admm", 300), ("ista", 100)):
        got = sparse_codes(x, torch.ones(1, 1, 1, 1, dtype=torch.float64), penalty, n_iter=n, method=method, target=t, pull=a)
        assert torch.allclose(got, wanted, atol=1e-6)


def test_codes_of_a_stack_are_those_of_its_images():
    atoms, x = unit(4, 2, 3, 2), drawn(3, 2, 8, 7, seed=1)
    together = sparse_codes(x, atoms, 0.3, n_iter=9, rho=1.0)
    assert torch.allclose(together, torch.cat([sparse_codes(i[None], atoms, 0.3, n_iter=9, rho=1.0) for i in x]))


# Atoms


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("channels", [1, 2])
def test_updated_atoms_improve_and_stay_within_norm_and_support(border, channels):
    atoms, x = unit(4, channels, 3, 5), drawn(2, channels, 9, 12, seed=1)
    state = Splitting(x, (3, 5), 4, 0.2, border=border)
    for _ in range(5):
        codes = state.step(atoms, keep=True)
    values = [2 * objective(x, atoms, codes, 0.0, border)]
    for _ in range(6):
        atoms, squared = updated_atoms(state, atoms, 1)
        assert squared == pytest.approx(2 * objective(x, atoms, codes, 0.0, border))
        assert float(atoms.flatten(1).norm(dim=1).max()) <= 1 + 1e-12
        values.append(squared)
    assert (np.diff(values) < 0).all()
    assert atoms.shape == (4, channels, 3, 5)


def test_gradient_of_the_atoms_is_that_of_autograd():
    atoms, x = unit(3, 2, 2, 4).requires_grad_(), drawn(2, 2, 7, 9, seed=1)
    state = Splitting(x, (2, 4), 3, 0.2, border="zero")
    codes = state.step(atoms.detach(), keep=True)
    (x - synthesis(codes, atoms)).square().sum().div(2).backward()
    with torch.no_grad():
        wanted = atoms - atoms.grad / codes.square().sum((0, 2, 3)).view(-1, 1, 1, 1)
        wanted /= wanted.flatten(1).norm(dim=1).clamp_min(1).view(-1, 1, 1, 1)
        way = updated_atoms(state, atoms, 1)[0] - atoms
        share = way / (wanted - atoms)
    assert torch.allclose(share, share.flatten()[0].expand_as(share), rtol=1e-6)
    assert 0 < float(share.mean()) <= 1 + 1e-9


def test_objective_falls_and_is_that_of_the_definition():
    source = SparseCodingFilters(
        6, (4, 3), penalty=0.1, n_iter=25, window=None, predictor_iter=0, border="circular", random_state=0
    )
    x = textures()
    source.fit(x)
    assert source.objective_[-1] < 0.6 * source.objective_[0]
    assert source.objective_[-1] < 0.5 * float(np.square(x).sum() / 2 / 3)
    assert np.allclose(np.square(source.atoms_).sum((1, 2, 3)), 1, atol=1e-5)
    z = torch.from_numpy(source.encode(x, 200))
    value = objective(torch.from_numpy(x).float()[:, None], torch.from_numpy(source.atoms_), z, 0.1, "circular") / 3
    assert value <= source.objective_[-1] * 1.001
    assert 0 < source.sparsity_[-1] < 0.2


def test_shapes_that_made_the_images_are_found_up_to_sign_and_shift():
    x = textures(n=4, height=40, width=37)
    source = SparseCodingFilters(6, (5, 4), penalty=0.1, n_iter=120, window=None, predictor_iter=0, random_state=1).fit(x)
    true = np.random.default_rng(9).normal(size=(3, 4, 3))
    true /= np.sqrt(np.square(true).sum((1, 2), keepdims=True))
    wide = torch.nn.functional.pad(torch.from_numpy(source.atoms_).double(), (2, 2, 3, 3))
    found = analysis(wide, torch.from_numpy(true)[:, None]).abs().amax((0, 2, 3))
    assert float(found.min()) > 0.95


def test_whole_images_need_fewer_codes_than_patches_at_equal_error():
    """The claim of Kavukcuoglu et al.: atoms that may stand anywhere are not needed at all places."""
    x = textures(n=2, height=24, width=32)
    source = SparseCodingFilters(6, (4, 4), penalty=0.15, n_iter=60, window=None, predictor_iter=0, random_state=1).fit(x)
    z = source.encode(x, 200)
    error = np.square(source.decode(z)[:, 0] - x).sum()
    atoms = source.atoms_.reshape(6, -1)
    rows = x.reshape(2, 6, 4, 8, 4).swapaxes(2, 3).reshape(-1, 16)  # patches that hold each pixel once
    dots, gram = torch.from_numpy(rows @ atoms.T).float(), torch.from_numpy(atoms @ atoms.T)
    counts = []
    for penalty in np.geomspace(0.5, 0.001, 25):
        codes = sparse_code(dots, gram, float(penalty), 300).numpy()
        if np.square(rows - codes @ atoms).sum() <= error:
            counts.append(np.count_nonzero(codes))
    assert np.count_nonzero(z) <= min(counts, default=codes.size)


# The predictor


def test_predictor_learns_to_predict_and_is_what_it_says():
    x = textures(n=4)
    source = SparseCodingFilters(6, (4, 3), penalty=0.1, n_iter=25, predictor_iter=150, random_state=0).fit(x)
    errors = source.prediction_error_
    assert np.mean(errors[-20:]) < 0.5 * np.mean(errors[:3])
    weight, bias, gain = source.predictor_weight_, source.predictor_bias_, source.predictor_gain_
    patch = source._normalised(torch.from_numpy(x).float()[:, None])[1, 0, 5:9, 7:10].numpy()
    wanted = gain * np.tanh((weight[:, 0] * patch).sum((1, 2)) + bias)
    assert np.allclose(source.predict(x)[1, :, 5, 7], wanted, atol=1e-5)


def test_pull_brings_codes_nearer_to_their_prediction():
    x = textures(n=2)

    def gap(pull):
        how = {"penalty": 0.1, "n_iter": 15, "n_epochs": 3, "pull": pull, "predictor_iter": 40, "random_state": 0}
        return np.mean(SparseCodingFilters(6, (4, 3), **how).fit(x).prediction_error_[-10:])

    assert gap(2.0) < gap(0.0)


# As an estimator


@pytest.mark.parametrize("channels", [1, 2])
def test_parts_and_features(channels, monkeypatch):
    monkeypatch.setattr(module, "_CODES", 5 * 26 * 33 * 8)  # one image at a time
    x = textures(channels=channels)
    source = SparseCodingFilters(5, (4, 3), penalty=0.2, n_iter=6, n_epochs=2, predictor_iter=3, random_state=0).fit(x)
    assert len(source.objective_) == 2 * 3 * 6
    assert source._parts_seen == 6
    rows = ConvFeatures(source, "soft", prefit=True).fit(x).transform(x)
    assert rows.shape == (3, 4 * 10)
    assert source.reconstruct(x).shape == (3, channels, 26, 33)


def test_same_seed_clone_pickle_and_global_state():
    before, x = torch.random.get_rng_state(), textures()
    make = SparseCodingFilters(5, (4, 3), penalty=0.2, n_iter=4, predictor_iter=3, random_state=3)
    a, b = clone(make).fit(x), clone(make).fit(x)
    assert np.array_equal(a.filters_, b.filters_)
    assert torch.equal(before, torch.random.get_rng_state())
    again = pickle.loads(pickle.dumps(a))
    assert np.array_equal(again.encode(x), a.encode(x))
    assert np.array_equal(again.partial_fit(x).atoms_, a.partial_fit(x).atoms_)
    assert not hasattr(clone(a), "atoms_")


def test_atoms_that_nothing_uses_are_put_on_what_is_left():
    x = textures()
    init = np.random.default_rng(0).normal(size=(5, 1, 4, 3))
    init[3] *= 1e-3
    source = SparseCodingFilters(5, (4, 3), penalty=0.2, n_iter=3, predictor_iter=0, window=None, init=init, random_state=0)
    source.fit(x)
    state = Splitting(torch.from_numpy(x).float()[:, None], (4, 3), 5, 0.2, border="zero")
    state.step(source._atoms)
    state.y[:, 3] = 0
    new = source._revived(state, source._atoms, torch.Generator().manual_seed(0))
    assert torch.equal(new[[0, 1, 2, 4]], source._atoms[[0, 1, 2, 4]])
    assert not torch.equal(new[3], source._atoms[3])
    assert float(new[3].norm()) == pytest.approx(1)


def test_interrupt_keeps_what_was_reached(monkeypatch):
    x, calls, real = textures(), [], module.updated_atoms
    make = SparseCodingFilters(5, (4, 3), penalty=0.2, n_iter=9, predictor_iter=0, random_state=3)

    def interrupted(state, atoms):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(1)
        return real(state, atoms)

    monkeypatch.setattr(module, "updated_atoms", interrupted)
    source = clone(make)
    with pytest.raises(KeyboardInterrupt):
        source.fit(x)
    monkeypatch.undo()
    assert np.array_equal(source.atoms_, clone(make).set_params(n_iter=4).fit(x).atoms_)
    assert len(source.objective_) == 4
    assert len(source.partial_fit(x).objective_) == 13


# Bad input


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"n_filters": 0}, ArgumentError, "n_filters=0 must be at least 1"),
        ({"n_iter": 2.5}, ArgumentTypeError, "n_iter=2.5 must be a whole number"),
        ({"penalty": 0.0}, ArgumentError, "penalty=0.0 must be above 0"),
        ({"penalty": float("nan")}, ArgumentError, "penalty=nan must be above 0"),
        ({"penalty": 1e4}, ArgumentError, r"penalty=10000 makes all codes zero; it must be below max \|D corr x\| = "),
        ({"pull": -1.0}, ArgumentError, "pull=-1.0 must not be below"),
        ({"pull": 1.0, "predictor_iter": 0}, ArgumentError, "predictor_iter=0 does not learn"),
        ({"border": "same"}, ArgumentError, "border='same' is not one of"),
        ({"window": 4}, ArgumentError, "window=4 must be odd"),
        ({"patch_size": (3, 40)}, ShapeError, "an image of 26x33 is smaller than an atom of 3x40"),
        ({"init": np.ones((5, 2, 4, 3))}, ShapeError, r"init has shape \(5, 2, 4, 3\), but the atoms will have \(5, 1, 4, 3\)"),
    ],
)
def test_parameters_out_of_range(arguments, error, words):
    with pytest.raises(error, match=words):
        SparseCodingFilters(**{"n_filters": 5, "patch_size": (4, 3), "n_iter": 2, **arguments}).fit(textures())


def test_images_that_do_not_fit():
    make = SparseCodingFilters(5, (4, 3), penalty=0.2, n_iter=2, predictor_iter=0, random_state=0)
    with pytest.raises(ArgumentError, match="all 2 images are constant"):
        clone(make).fit(np.full((2, 9, 12), 3.0))
    with pytest.raises(ArgumentError, match="NaN or infinity"):
        clone(make).fit(np.full((2, 9, 12), np.nan))
    with pytest.raises(ShapeError, match="of 1 channels, but the atoms have 2"):
        clone(make).fit(textures(channels=2)).partial_fit(textures())
    with pytest.raises(ShapeError, match="of different sizes"):
        clone(make).fit(textures()).encode([np.ones((9, 12)), np.ones((10, 12))])
    with pytest.raises(ArgumentError, match="n_epochs=2, but the images can be read only once"):
        clone(make).set_params(n_epochs=2).fit(iter(textures()))
    with pytest.raises(ArgumentError, match="no predictor was learned"):
        clone(make).fit(textures()).predict(textures())
    with pytest.raises(ArgumentError, match="there are no images"):
        clone(make).fit(iter([]))
    with pytest.warns(UserWarning, match="n_filters=50 .* from 16 patches: there will be 16"):
        assert clone(make).set_params(n_filters=50).fit(textures(1, 7, 6)).filters_.shape == (16, 1, 4, 3)


def test_functions_refuse_what_does_not_fit():
    atoms, x = unit(4, 2, 3, 2), drawn(1, 2, 8, 7)
    for call, words in [
        (lambda: sparse_codes(x, atoms, -1.0), "penalty=-1.0"),
        (lambda: sparse_codes(x, atoms, 0.1, method="lars"), "method='lars' is not one of"),
        (lambda: sparse_codes(x, atoms, 0.1, pull=1.0), "pull=1.0 towards no target"),
        (lambda: sparse_codes(x, atoms, 0.1, rho=0.0), "rho=0.0 must be above 0"),
        (lambda: sparse_codes(x[:, :1], atoms, 0.1), "1 and 2 channels must be the same"),
        (lambda: synthesis(x, atoms), "2 and 4 atoms must be the same"),
        (lambda: analysis(x[0], atoms), "must have four axes"),
        (lambda: analysis(x[:, :, :2], atoms), "images of 2x7 are smaller than atoms of 3x2"),
    ]:
        with pytest.raises((ArgumentError, ShapeError), match=words):
            call()
