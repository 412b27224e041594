"""The theory of pooling against exhaustive enumeration and simulation, and the advice drawn from it."""

import itertools
from math import inf

import numpy as np
import pytest
import torch

import ninefold as nf
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError

theory = nf.pooling_theory


def enumerated(alpha, cardinality, pool):
    """Mean and variance over all outcomes."""
    total = square = 0.0
    for outcome in itertools.product((0, 1), repeat=cardinality):
        weight = alpha ** sum(outcome) * (1 - alpha) ** (cardinality - sum(outcome))
        total += weight * pool(outcome)
        square += weight * pool(outcome) ** 2
    return total, square - total**2


@pytest.mark.parametrize("cardinality", range(1, 13))
@pytest.mark.parametrize("alpha", [0.0, 0.02, 0.05, 0.5, 0.93, 1.0])
def test_moments_are_those_of_all_outcomes(alpha, cardinality):
    mean = theory.bernoulli_average(alpha, cardinality)
    assert (mean.mean, mean.variance) == pytest.approx(enumerated(alpha, cardinality, np.mean), abs=1e-12)
    top = theory.bernoulli_max(alpha, cardinality)
    assert (top.mean, top.variance) == pytest.approx(enumerated(alpha, cardinality, max), abs=1e-12)
    assert top.deviation == pytest.approx(top.variance**0.5)


@pytest.mark.parametrize("cardinality", [1, 7, 10, 40])
def test_moments_are_those_of_simulated_pools(cardinality):
    rng = np.random.default_rng(5)
    binary = rng.random((100_000, cardinality)) < 0.04
    waiting = rng.exponential(3.0, (100_000, cardinality))
    for moments, pooled in (
        (theory.bernoulli_average(0.04, cardinality), binary.mean(1)),
        (theory.bernoulli_max(0.04, cardinality), binary.max(1)),
        (theory.exponential_average(3.0, cardinality), waiting.mean(1)),
        (theory.exponential_max(3.0, cardinality), waiting.max(1)),
    ):
        assert moments.mean == pytest.approx(pooled.mean(), abs=5 * moments.deviation / 100_000**0.5)
        assert moments.variance == pytest.approx(pooled.var(), rel=0.06)


def test_the_maximum_of_ten_exponentials():
    assert theory.exponential_max(1.0, 10).mean == pytest.approx(2.9290, abs=5e-5)
    assert theory.exponential_max(2.0, 3) == theory.Moments(
        pytest.approx(2 * (1 + 1 / 2 + 1 / 3)), pytest.approx(4 * (1 + 1 / 4 + 1 / 9))
    )


def test_the_best_cardinality_of_two_rare_features():
    best = theory.best_cardinality(0.05, 0.02)
    assert best.exact == pytest.approx(29.97, abs=0.005)
    assert best.whole == 30
    assert best == theory.best_cardinality(0.02, 0.05)


@pytest.mark.parametrize("pair", [(0.05, 0.02), (0.5, 0.4), (0.9, 0.2), (0.011, 0.01), (0.3, 1e-4), (0.999, 0.5), (1.0, 0.3)])
def test_the_formula_is_the_integer_search(pair):
    best = theory.best_cardinality(*pair)
    gaps = [theory.separation(*pair, p) for p in range(1, 2000)]
    assert best.whole == 1 + int(np.argmax(gaps))
    assert best.separation == pytest.approx(max(gaps))
    peak = gaps.index(max(gaps))
    assert all(np.diff(gaps[: peak + 1]) > 0)  # one peak
    assert all(np.diff(gaps[peak:]) <= 0)
    assert gaps[0] == pytest.approx(pair[0] - pair[1])
    assert gaps[-1] < max(gaps)


def test_limits_of_the_best_cardinality():
    assert theory.best_cardinality(0.1, 0.1).exact == pytest.approx(theory.best_cardinality(0.1, 0.1 - 1e-7).exact, rel=1e-5)
    assert theory.best_cardinality(0.1, 0.0).exact == inf
    with pytest.raises(ArgumentError, match="both 0: no cardinality separates"):
        theory.best_cardinality(0.0, 0)


def test_an_average_never_loses_a_small_difference_but_a_feature_of_one_class_only():
    for alpha, cardinality in itertools.product((0.01, 0.1, 0.6), (2, 9, 50)):
        pairs = [
            [pool(a, cardinality) for a in (alpha, alpha * 1.001)] for pool in (theory.bernoulli_average, theory.bernoulli_max)
        ]
        assert theory.signal_to_noise(*pairs[0]) > theory.signal_to_noise(*pairs[1])
        alone = [[pool(a, cardinality) for a in (alpha, 0.0)] for pool in (theory.bernoulli_average, theory.bernoulli_max)]
        assert theory.signal_to_noise(*alone[0]) < theory.signal_to_noise(*alone[1])
    assert theory.signal_to_noise(theory.Moments(1, 0), theory.Moments(1, 0)) == 0


@pytest.mark.parametrize("wrong", [(-0.1, 3), (1.2, 3), (0.5, 0), (0.5, inf)])
def test_what_is_no_probability_or_cardinality(wrong):
    for function in (theory.bernoulli_max, theory.bernoulli_average):
        with pytest.raises(ArgumentError, match="must be"):
            function(*wrong)
    with pytest.raises(ArgumentError, match=r"cardinality=2.5 must be a whole number"):
        theory.exponential_max(1.0, 2.5)


def activations(*alphas, size=(24, 20), batch=40, seed=0):
    made = torch.Generator().manual_seed(seed)
    return torch.stack(
        [(torch.rand(batch, *size, generator=made) < a) * torch.rand(batch, *size, generator=made) for a in alphas], 1
    )


def test_rare_features_want_the_maximum_and_frequent_ones_the_average():
    advice = nf.advise_pooling(activations(0.01, 0.02, 0.7), kernel_size=(3, 5))
    assert [c.preferred for c in advice.channels] == ["max", "max", "average"]
    assert advice.preferred == "max"
    for channel, alpha in zip(advice.channels, (0.01, 0.02, 0.7), strict=True):
        assert channel.alpha[0] == pytest.approx(alpha, rel=0.1)
        assert channel.effective == pytest.approx(15, rel=0.15)
        assert channel.best_cardinality == pytest.approx(theory.best_cardinality(alpha, alpha).exact, rel=0.1)
        (seen, _), count = channel.alpha, channel.effective
        slope = (theory.bernoulli_max(seen + 1e-6, count).mean - theory.bernoulli_max(seen - 1e-6, count).mean) / 2e-6
        assert channel.separation_max == pytest.approx(slope, rel=1e-4)
        assert channel.separation_average == 1
    assert "pool by max" in str(advice)
    assert "2 max, 1 average" in str(advice)
    quiet = nf.advise_pooling(activations(0.01, 0.02), kernel_size=(3, 5), criterion="signal_to_noise")
    assert quiet.preferred == "average"


def test_too_large_a_window_of_rare_features_wants_the_average_again():
    x = activations(0.02)
    assert nf.advise_pooling(x, kernel_size=4).preferred == "max"
    assert nf.advise_pooling(x).preferred == "average"  # 480 elements, ten times the best cardinality


def test_copies_of_an_activation_count_once():
    x = activations(0.05, size=(12, 10)).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert nf.advise_pooling(x, kernel_size=4).channels[0].effective == pytest.approx(1, abs=0.05)
    assert nf.advise_pooling(x, kernel_size=8).channels[0].effective == pytest.approx(4, rel=0.2)


def test_two_classes_are_the_papers():
    x = torch.cat([activations(0.05, 0.3), activations(0.02, 0.3, seed=1)])
    labels = torch.arange(80) // 40
    (first, second) = nf.advise_pooling(x, labels, kernel_size=5).channels
    assert first.alpha == (pytest.approx(0.05, rel=0.15), pytest.approx(0.02, rel=0.15))
    assert first.best_cardinality == pytest.approx(30, rel=0.15)
    assert first.separation_average == pytest.approx(0.03, rel=0.2)
    assert first.preferred == "max"
    assert second.preferred == "average"
    alone = torch.cat([activations(0.05), activations(0.0)])
    assert nf.advise_pooling(alone, labels, kernel_size=5, criterion="signal_to_noise").preferred == "max"


def test_a_dead_channel_tells_nothing():
    advice = nf.advise_pooling(torch.zeros(2, 3, 5, 4))
    assert advice.preferred == "either"
    assert advice.reason == "no channel tells one class from another"


def test_mistakes():
    x = torch.zeros(4, 2, 6, 5)
    with pytest.raises(ArgumentTypeError, match="activations must be a tensor, got type list"):
        nf.advise_pooling([[0.0]])
    with pytest.raises(ShapeError, match=r"activations have shape \(4, 2\)"):
        nf.advise_pooling(x[..., 0, 0])
    with pytest.raises(ShapeError, match=r"labels are \(3,\); they must be a tensor of shape \(4,\)"):
        nf.advise_pooling(x, torch.zeros(3))
    with pytest.raises(ArgumentError, match="labels name 3 classes; the theory is about 2"):
        nf.advise_pooling(x, torch.tensor([0, 1, 2, 2]))
    with pytest.raises(ArgumentError, match=r"criterion='noise' is not one of"):
        nf.advise_pooling(x, criterion="noise")
