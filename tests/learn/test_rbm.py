"""The convolutional Boltzmann machine against enumeration: probabilities, free energies, gradients; and what fitting promises."""

import pickle
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn.boltzmann import Boltzmann, fitting
from ninefold.learn.compare import Comparison
from ninefold.learn.rbm import ConvRBM
from ninefold.learn.whiten import whiten_photographs

KINDS = pytest.mark.parametrize("gaussian", [False, True], ids=["binary", "gaussian"])


def generator(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def machine(count=2, channels=2, size=(3, 2), pool=2, *, gaussian=False, seed=0):
    weight = normal(count, channels, *size, seed=seed)
    return Boltzmann(
        weight, normal(count, seed=seed + 1) - 0.5, normal(channels, seed=seed + 2), pool, gaussian, 1.3 if gaussian else 1.0
    )


def image(model, batch=1, size=(4, 5), seed=7):
    v = normal(batch, model.weight.shape[1], *size, seed=seed)
    return v if model.gaussian else (v > 0).double()


def energy(model, v, h):
    """By the definition, term by term; v is (C, H, W), h (K, H', W')."""
    c = model.visible_bias.view(-1, 1, 1)
    total = float((v - c).square().sum() / 2) if model.gaussian else -float((c * v).sum())
    height, width = model.weight.shape[2:]
    for k, i, j in zip(*np.nonzero(h.numpy()), strict=True):
        total -= float((model.weight[k] * v[:, i : i + height, j : j + width]).sum() + model.hidden_bias[k])
    return total / model.sigma**2


def allowed(count, height, width, pool):
    """All states (K, H', W') with one on in each block at most."""
    places = [(k, i, j) for k in range(count) for i in range(0, height, pool) for j in range(0, width, pool)]
    for choice in product(range(pool * pool + 1), repeat=len(places)):
        h = torch.zeros(count, height, width, dtype=torch.float64)
        for (k, i, j), state in zip(places, choice, strict=True):
            if state:
                h[k, i + (state - 1) // pool, j + (state - 1) % pool] = 1
        yield h


# --- the model against its definition ---


@KINDS
def test_probabilities_and_free_energy_are_those_of_all_states(gaussian):
    model = machine(gaussian=gaussian)
    v = image(model)
    states = list(allowed(2, 2, 4, 2))  # 4x5 pixels, kernels of 3x2: 2x4 detectors, two blocks for each of two filters
    assert len(states) == 5**4
    weights = torch.tensor([-energy(model, v[0], h) for h in states], dtype=torch.float64)
    chances = torch.softmax(weights, 0)
    detectors, pools = model.hidden(v)
    expected = sum(p * h for p, h in zip(chances, states, strict=True))
    torch.testing.assert_close(detectors[0], expected)
    torch.testing.assert_close(pools[0, :, 0], torch.stack([expected[:, :, :2].sum((1, 2)), expected[:, :, 2:].sum((1, 2))], 1))
    torch.testing.assert_close(model.free_energy(v)[0], -weights.logsumexp(0))
    for h in states[17:400:91]:  # the product of the blocks' probabilities is the joint one
        off = 1 - torch.stack([h[:, :, :2].sum((1, 2)), h[:, :, 2:].sum((1, 2))], 1)
        parts = detectors[0][h > 0].prod() * (1 - pools[0, :, 0])[off > 0].prod()
        torch.testing.assert_close(parts, chances[next(n for n, s in enumerate(states) if torch.equal(s, h))])


@KINDS
def test_the_expected_image_is_that_of_the_energy(gaussian):
    model = machine(gaussian=gaussian)
    v = image(model)[0]
    h = next(s for n, s in enumerate(allowed(2, 2, 4, 2)) if n == 394)
    assert h.sum() > 2
    mean = model.visible(h[None])[0]
    for c, i, j in ((0, 0, 0), (1, 2, 3), (0, 3, 4), (1, 1, 0)):
        one, two = v.clone(), v.clone()
        if gaussian:  # the least energy is at the mean, and E rises by d^2 / (2 sigma^2)
            one[c, i, j], two[c, i, j] = mean[c, i, j], mean[c, i, j] + 0.5
            assert energy(model, two, h) - energy(model, one, h) == pytest.approx(0.125 / 1.3**2)
        else:
            one[c, i, j], two[c, i, j] = 1, 0
            odds = np.exp(energy(model, two, h) - energy(model, one, h))
            assert float(mean[c, i, j]) == pytest.approx(odds / (1 + odds))


def test_a_block_of_equal_logits_shares_evenly_with_off():
    model = Boltzmann(torch.zeros(2, 1, 2, 3), torch.zeros(2), torch.zeros(1), 3, gaussian=False)
    detectors, pools = model.hidden(torch.ones(1, 1, 7, 5))
    torch.testing.assert_close(detectors, torch.full((1, 2, 6, 3), 1 / 10))
    torch.testing.assert_close(pools, torch.full((1, 2, 2, 1), 9 / 10))


def test_probabilities_of_a_block_sum_to_one_whatever_the_logits():
    model = machine(3, 2, (2, 3), 2)
    for scale in (1.0, 40.0, 1e5):
        model.weight = normal(3, 2, 2, 3) * scale
        detectors, pools = model.hidden(image(model, 5, (7, 10)))
        assert bool(torch.isfinite(detectors).all())
        sums = detectors.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).sum((3, 5))
        torch.testing.assert_close(sums, pools)
        assert float(pools.max()) <= 1
        assert float(detectors.min()) >= 0


def test_reconstruction_is_the_adjoint_of_inference():
    g = np.random.default_rng(0)
    weight, v, h = (
        torch.from_numpy(g.integers(-4, 5, shape).astype(np.float64)) for shape in ((3, 2, 2, 3), (2, 2, 7, 6), (2, 3, 6, 4))
    )
    model = Boltzmann(weight, torch.zeros(3, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), 2, gaussian=True)
    assert float((model.logits(v) * h).sum()) == float((v * model.visible(h)).sum()) != 0
    assert float(model.logits(v)[1, 2, 3, 1]) == float((weight[2] * v[1, :, 3:5, 1:4]).sum())  # a correlation: nothing is flipped


def test_input_from_above_counts_as_a_logit_and_infinity_forces():
    model = machine(2, 2, (3, 2), 2)
    v = image(model)
    free, _ = model.hidden(v)
    above = torch.tensor([[[[0.7, float("inf")]], [[float("-inf"), -1.5]]]], dtype=torch.float64)
    detectors, pools = model.hidden(v, above)
    logits = model.logits(v)
    block = (logits[0, 0, :, :2] + 0.7).exp()  # the softmax over (I + t, 0)
    torch.testing.assert_close(detectors[0, 0, :, :2], block / (1 + block.sum()))
    block = logits[0, 1, :, 2:]
    torch.testing.assert_close(
        detectors[0, 1, :, 2:], block.exp() / (np.exp(1.5) + block.exp().sum())
    )  # ... is that over (I, -t)
    assert float(pools[0, 0, 0, 1]) == 1
    torch.testing.assert_close(detectors[0, 0, :, 2:], logits[0, 0, :, 2:].flatten().softmax(0).view(2, 2))
    assert float(pools[0, 1, 0, 0]) == float(detectors[0, 1, :, :2].sum()) == 0
    assert not torch.allclose(free, detectors)
    drawn = torch.cat([model.draw_hidden(detectors, pools, generator(seed)) for seed in range(200)])
    assert bool((drawn[:, 0, :, 2:].sum((1, 2)) == 1).all())
    assert not bool(drawn[:, 1, :, :2].any())


def test_forced_units_are_never_missed_by_rounding():
    model = Boltzmann(torch.zeros(1, 1, 1, 2), torch.zeros(1), torch.zeros(1), 3, gaussian=False)
    detectors, pools = model.hidden(torch.zeros(1, 1, 600, 301), torch.full((1, 1, 200, 100), float("inf")))
    drawn = model.draw_hidden(detectors * (1 - 1e-4), pools, generator())
    assert bool((drawn.unflatten(3, (-1, 3)).unflatten(2, (-1, 3)).sum((3, 5)) == 1).all())


def test_draws_have_one_on_at_most_and_the_probabilities():
    model = machine(2, 2, (3, 2), 2, seed=3)
    detectors, pools = model.hidden(image(model))
    times = 20_000
    drawn = model.draw_hidden(detectors.expand(times, -1, -1, -1), pools.expand(times, -1, -1, -1), generator())
    sums = drawn.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).sum((3, 5))
    assert set(drawn.unique().tolist()) == {0, 1}
    assert float(sums.max()) == 1
    bound = 5 * (detectors * (1 - detectors) / times).sqrt() + 1e-9
    assert bool(((drawn.mean(0) - detectors[0]).abs() <= bound).all())


@KINDS
def test_images_are_drawn_around_their_expectation(gaussian):
    model = machine(gaussian=gaussian)
    mean = torch.full((40_000, 1, 1, 1), 0.3, dtype=torch.float64)
    drawn = model.draw_visible(mean, generator())
    assert float(drawn.mean()) == pytest.approx(0.3, abs=0.03)
    assert float(drawn.std()) == pytest.approx(1.3 if gaussian else 0.21**0.5, rel=0.02)
    assert gaussian or set(drawn.unique().tolist()) == {0, 1}


# --- gradients ---


@KINDS
def test_the_positive_phase_is_the_gradient_of_the_free_energy(gaussian):
    model = machine(gaussian=gaussian)
    v = image(model, 3, (4, 5))
    found = model.ascent(v, model.hidden(v)[0])
    for parameter, gradient in zip((model.weight, model.hidden_bias, model.visible_bias), found, strict=True):
        flat, numeric = parameter.view(-1), []
        for n in range(flat.numel()):
            value, ends = float(flat[n]), []
            for shift in (1e-5, -1e-5):
                flat[n] = value + shift
                ends.append(-float(model.free_energy(v).sum()))
            flat[n] = value
            numeric.append((ends[0] - ends[1]) / 2e-5)
        torch.testing.assert_close(gradient.reshape(-1), torch.tensor(numeric, dtype=torch.float64), rtol=1e-6, atol=1e-7)


def exact_negative(model):
    """Return the expected gradient of -E under the model, on one channel of 3x4 pixels with one block of each filter."""
    if not model.gaussian:  # all images
        v = torch.tensor(list(product((0.0, 1.0), repeat=12)), dtype=torch.float64).view(-1, 1, 3, 4)
        chances = torch.softmax(-model.free_energy(v), 0).view(-1, 1, 1, 1)
        root = chances.sqrt()  # p v h is linear in both: the square root on each side
        h = model.hidden(v)[0]
        weight, _, _ = model.ascent(v * root, h * root)
        return weight, (chances * h).sum((0, 2, 3)), (chances * v).sum((0, 2, 3))
    h = torch.stack(list(allowed(len(model.weight), 2, 2, 2)))  # all detectors, images integrated out
    mean = model.visible(h)
    own = mean.square().sum((1, 2, 3)) / 2 + (h.sum((2, 3)) * model.hidden_bias).sum(1)
    chances = torch.softmax(own / model.sigma**2, 0).view(-1, 1, 1, 1)
    root = chances.sqrt()
    weight, _, _ = model.ascent(mean * root, h * root)
    scale = model.sigma**2
    return weight, (chances * h).sum((0, 2, 3)) / scale, (chances * (mean - model.visible_bias)).sum((0, 2, 3)) / scale


@KINDS
def test_contrastive_divergence_approaches_the_exact_gradient(gaussian):
    model = machine(3, 1, (2, 3), 2, gaussian=gaussian, seed=5)
    model.weight *= 0.8 if gaussian else 3.0
    model.visible_bias *= 0.3
    data = image(model, 4, (3, 4), seed=9).repeat(4000, 1, 1, 1)
    h, pools = model.hidden(data)
    exact = torch.cat([g.flatten() for g in exact_negative(model)])
    gaps = []
    for steps in (1, 4, 30):
        _, v, after = model.chain(h, pools, steps, generator(steps))
        found = torch.cat([g.flatten() for g in model.ascent(v, after)]) / len(data)
        gaps.append(float((found - exact).norm()))
    assert gaps[0] > 2 * gaps[1]
    assert gaps[2] < 0.02 * float(exact.norm())
    assert gaps[0] > 4 * gaps[2]


def test_fitting_makes_the_images_more_probable():
    """The exact log-likelihood, over all 4096 images, grows; so the steps go uphill, scaled and clipped as they are."""
    bars = np.zeros((6, 3, 4), np.float32)
    for n in range(3):
        bars[n, n] = 1
    for n in range(3):
        bars[3 + n, :, n] = 1
    data, everything = torch.from_numpy(bars)[:, None], torch.tensor(list(product((0.0, 1.0), repeat=12))).view(-1, 1, 3, 4)

    def likelihood(rbm):
        return float((-rbm._model.free_energy(data)).mean() - (-rbm._model.free_energy(everything)).logsumexp(0))

    rbm = ConvRBM(
        6,
        (2, 3),
        visible="binary",
        sparsity=None,
        n_epochs=1,
        learning_rate=0.5,
        decay=0,
        weight_decay=0,
        batch_size=60,
        random_state=0,
    )
    many = np.tile(bars, (40, 1, 1))
    before = likelihood(rbm.fit(many))
    for _ in range(150):
        rbm.partial_fit(many)
    assert likelihood(rbm) > before + 1
    assert likelihood(rbm) < -np.log(6) + 1e-6  # no model can do better


# --- the estimator ---


DIGITS = load_digits().images[:400]


@pytest.fixture(scope="module")
def fitted():
    return ConvRBM(9, (4, 3), pool=2, n_epochs=3, random_state=0).fit(DIGITS[:, :, :7])


def test_what_is_learned_is_a_source_of_filters(fitted):
    assert fitted.filters_.shape == fitted.atoms_.shape == (9, 1, 4, 3)
    assert fitted.filters_.dtype == np.float32
    images = torch.from_numpy(DIGITS[:5, :, :7].astype(np.float32))[:, None]
    v = (images - float(fitted.mean_[0])) / fitted.scale_
    torch.testing.assert_close(torch.from_numpy(fitted.atoms_), fitted._model.weight)
    bias = fitted._model.hidden_bias.view(1, -1, 1, 1)
    expected = fitted._model.logits(v) * fitted.sigma_**2 - bias
    torch.testing.assert_close(Comparison(fitted)(images).dots, expected, rtol=1e-3, atol=1e-4)
    shift = fitted.filters_.sum((1, 2, 3)) * fitted.mean_[0]
    torch.testing.assert_close(
        fitted.to_layer()(images).detach() - torch.from_numpy(shift).view(1, -1, 1, 1), expected, rtol=1e-3, atol=1e-3
    )


def test_history_has_an_entry_for_each_epoch_and_errors_fall(fitted):
    assert len(fitted.errors_) == len(fitted.sparsity_) == fitted.n_epochs_ == 3
    assert fitted.errors_[2] < 0.95 * fitted.errors_[0]
    images = DIGITS[:, :, :7]
    gap = np.square(fitted.reconstruct(images)[:, 0] - images[:, :7, :6]).mean()
    assert gap < 0.8 * images[:, :7, :6].var()


def test_surplus_rows_are_lost_at_both_ends(fitted):
    detectors, pools = fitted.infer(DIGITS[:3, :, :7])  # 8x7: 5x5 detectors, one row and one column too many, at the end
    assert detectors.shape == (3, 9, 4, 4)
    assert pools.shape == (3, 9, 2, 2)
    np.testing.assert_array_equal(detectors, fitted.infer(DIGITS[:3, :7, :6])[0])
    assert fitted.reconstruct(DIGITS[:3, :, :7]).shape == (3, 1, 7, 6)
    rbm = ConvRBM(2, (2, 3), pool=4, n_epochs=1, random_state=0).fit(DIGITS)
    assert rbm.infer(DIGITS[:2])[0].shape == (
        2,
        2,
        4,
        4,
    )  # 7x6 detectors: 3 rows and 2 columns too many, 1 and 1 at the beginning
    np.testing.assert_array_equal(rbm.infer(DIGITS[:2])[0], rbm.infer(DIGITS[:2, 1:6, 1:7])[0])
    assert fitting(8, 2, 4) == 5


def test_units_and_brightness_do_not_matter(fitted):
    other = clone(fitted).fit(DIGITS[:, :, :7] * 16.0 + 100)
    np.testing.assert_allclose(other.atoms_, fitted.atoms_, atol=2e-3)
    np.testing.assert_allclose(
        other.reconstruct(DIGITS[:4, :, :7] * 16.0 + 100), fitted.reconstruct(DIGITS[:4, :, :7]) * 16 + 100, atol=2
    )


def test_binary_images_and_channels():
    images = (np.random.default_rng(0).random((30, 3, 9, 8)) < [[[[0.2]], [[0.5]], [[0.8]]]]).astype(np.uint8)
    rbm = ConvRBM(5, (2, 3), pool=3, visible="binary", n_epochs=2, random_state=0).fit(images)
    assert rbm.filters_.shape == (5, 3, 2, 3)
    assert np.array_equal(rbm.atoms_, rbm.filters_)
    assert torch.equal(rbm.preparation_.matrix, torch.eye(18))
    made = rbm.sample(6, (10, 9), n_steps=5, random_state=0)
    assert made.shape == (6, 3, 10, 8)
    assert made.min() >= 0
    assert made.max() <= 1
    assert made.mean((0, 2, 3)) == pytest.approx([0.2, 0.5, 0.8], abs=0.15)
    assert rbm.free_energy(images).shape == (30,)


def test_samples_start_where_they_are_told_and_repeat(fitted):
    images = DIGITS[:3, :7, :6]
    one = fitted.sample(start=images, n_steps=1, random_state=1)
    assert np.array_equal(one, fitted.sample(start=images, n_steps=1, random_state=1))
    assert not np.array_equal(one, fitted.sample(start=images, n_steps=1, random_state=2))
    off = fitted.sample(start=images, n_steps=3, top_down=np.full((3, 9, 2, 2), -np.inf), random_state=1)
    blank = fitted.visible_bias_[0] * fitted.scale_ + fitted.mean_[0]
    np.testing.assert_allclose(off, np.full((3, 1, 7, 6), blank), rtol=1e-5)
    assert np.abs(one - blank).max() > 1


def test_crops_come_from_images_of_several_sizes():
    g = np.random.default_rng(0)
    images = [g.normal(size=(30, 41)), g.normal(size=(25, 20)), g.normal(size=(19, 60))]
    rbm = ConvRBM(4, (5, 4), pool=3, crop=(16, 12), n_crops=7, n_epochs=2, random_state=0)
    batches = []
    step = rbm._step
    rbm._step = lambda v, generator: batches.append(tuple(v.shape)) or step(v, generator)
    rbm.fit(images)
    assert batches == [(10, 1, 16, 12), (10, 1, 16, 12), (1, 1, 16, 12)] * 2


def test_clone_pickle_and_global_random_state(fitted):
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.infer(DIGITS[:2])[1], fitted.infer(DIGITS[:2])[1])
    assert not hasattr(clone(fitted), "filters_")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    again = clone(fitted).fit(DIGITS[:, :, :7])
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(again.filters_, fitted.filters_)
    copy.partial_fit(DIGITS[:, :, :7])
    assert copy.n_epochs_ == 4
    assert fitted.n_epochs_ == 3


def test_an_interrupt_between_epochs_is_resumed_exactly():
    def interrupt(done, total):
        assert total == 5
        if done == 2:
            raise KeyboardInterrupt

    rbm = ConvRBM(5, (3, 2), n_epochs=5, random_state=3, progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        rbm.fit(DIGITS)
    assert rbm.n_epochs_ == 2
    for _ in range(3):
        rbm.partial_fit(DIGITS)
    whole = ConvRBM(5, (3, 2), n_epochs=5, random_state=3).fit(DIGITS)
    np.testing.assert_array_equal(rbm.filters_, whole.filters_)
    np.testing.assert_array_equal(rbm.hidden_bias_, whole.hidden_bias_)
    assert rbm.errors_ == whole.errors_


def test_every_pass_has_an_order_of_its_own():
    rbm, seen = ConvRBM(5, (3, 2), n_epochs=2, random_state=3), []
    step = rbm._step
    rbm._step = lambda v, generator: seen.append(v) or step(v, generator)
    rbm.fit(DIGITS)
    assert len(seen) == 80
    assert not torch.equal(seen[0], seen[40])
    torch.testing.assert_close(torch.cat(seen[:40]).sum(0), torch.cat(seen[40:]).sum(0), rtol=1e-4, atol=1e-3)


def test_an_interrupt_within_an_epoch_keeps_what_was_reached():
    rbm = ConvRBM(5, (3, 2), n_epochs=1, random_state=3).fit(DIGITS)
    before, calls, step = rbm.filters_.copy(), [], rbm._step

    def interrupted(v, generator):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(v, generator)

    rbm._step = interrupted
    with pytest.raises(KeyboardInterrupt):
        rbm.partial_fit(DIGITS)
    del rbm._step
    assert rbm.n_epochs_ == 1
    assert not np.array_equal(rbm.filters_, before)
    assert np.array_equal(rbm.atoms_, rbm._model.weight.numpy())
    assert rbm.partial_fit(DIGITS).n_epochs_ == 2


def test_an_iterator_is_one_pass():
    rbm = ConvRBM(5, (3, 2), n_epochs=3, random_state=3)
    with pytest.raises(ArgumentError, match="cannot be read n_epochs=3 times"):
        rbm.fit(iter(DIGITS))
    rbm.partial_fit(iter(DIGITS)).partial_fit(iter(DIGITS))
    assert rbm.n_epochs_ == 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [0.05, 1.0])
def test_nothing_diverges(seed, rate):
    """At the default rate, nor at twenty times as much."""
    rbm = ConvRBM(12, (4, 3), n_epochs=4, learning_rate=rate, random_state=seed).fit(DIGITS)
    assert np.isfinite(rbm.filters_).all()
    assert max(rbm.errors_) < 2.5
    assert np.linalg.norm(rbm.atoms_.reshape(12, -1), axis=1).max() < 4 * 12**0.5


def test_whitened_photographs_have_a_flat_spectrum():
    g = np.random.default_rng(0)
    f = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.fftfreq(80))
    f[0, 0] = 1
    pink = np.fft.ifft2(np.fft.fft2(g.normal(size=(96, 80))) / f).real
    (white,) = whiten_photographs(pink[None] * 30 + 100)
    power = np.abs(np.fft.fft2(white[0])) ** 2
    bands = [power[(f > low) & (f <= low + 0.05)].mean() for low in (0.05, 0.1, 0.15, 0.2)]
    assert max(bands) < 1.5 * min(bands)
    assert white.mean() == pytest.approx(0, abs=1e-5)
    assert white.std() == pytest.approx(1, rel=1e-4)
    with pytest.raises(ArgumentError, match="image 1 is constant, 3 throughout"):
        whiten_photographs([pink, np.full((5, 6), 3.0)])


# --- bad input ---


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n_filters": 0}, "n_filters=0 must be at least 1"),
        ({"pool": 0}, "pool=0"),
        ({"visible": "real"}, "visible='real' is not one of"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be above 0"),
        ({"sigma_floor": -1}, "sigma_floor=-1 must be above 0"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1 must not be below 0"),
        ({"momentum": (0.5, 1.0)}, "momentum=.* below 1"),
        ({"sparsity": 0.25}, "sparsity=0.25 must lie between 0 and 1/4"),
        ({"cd_steps": 0}, "cd_steps=0"),
        ({"patch_size": 9}, "8 pixels do not hold one block of 2 detectors of 9 pixels: it takes 10"),
        ({"crop": (8, 12)}, "crop=.* does not fit into an image of"),
        ({"crop": (3, 8)}, "3 pixels do not hold one block"),
    ],
)
def test_parameters_out_of_range_are_one_sentence(arguments, sentence):
    with pytest.raises((ArgumentError, ShapeError), match=sentence):
        ConvRBM(**{"n_filters": 3, "patch_size": 3, "n_epochs": 1, **arguments}).fit(DIGITS)


def test_a_float_is_no_count():
    with pytest.raises(ArgumentTypeError, match="n_epochs=2.5 must be a whole number"):
        ConvRBM(3, 3, n_epochs=2.5).fit(DIGITS)


def test_images_that_do_not_fit_are_one_sentence(fitted):
    small = ConvRBM(3, 3, n_epochs=1)
    with pytest.raises(ArgumentError, match="nothing to learn"):
        small.fit(np.full((4, 8, 7), 3.0))
    with pytest.raises(ArgumentError, match="NaN"):
        small.fit(np.full((4, 8, 7), np.nan))
    with pytest.raises(ArgumentError, match="no images"):
        small.fit([])
    with pytest.raises(ShapeError, match="of 1 and of 3 channels"):
        small.fit([np.zeros((8, 7)), np.ones((8, 7, 3))])
    with pytest.raises(ArgumentError, match="pixels from 0 to 16 are no probabilities"):
        clone(small).set_params(visible="binary").fit(DIGITS)
    with pytest.raises(ShapeError, match="3 channels among, or after, those of 1"):
        fitted.infer(np.zeros((2, 8, 7, 3)))
    with pytest.raises(ShapeError, match="are mixed; give those of one size"):
        fitted.infer([DIGITS[0], DIGITS[0, :, :7]])
    with pytest.raises(ShapeError, match=r"top_down has shape \(2, 9, 1, 2\); for 2 images it must be \(2, 9, 2, 2\)"):
        fitted.infer(DIGITS[:2, :, :7], np.zeros((2, 9, 1, 2)))
    with pytest.raises(ShapeError, match="top_down is given for 3 images, and there are 2"):
        fitted.infer(DIGITS[:2, :, :7], np.zeros((3, 9, 2, 2)))
    with pytest.raises(ArgumentError, match="top_down holds NaN"):
        fitted.infer(DIGITS[:2, :, :7], np.full((2, 9, 2, 2), np.nan))
