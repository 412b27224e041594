"""The optimal input by eigenvalues, one architecture as features and as a network, and a search that can be repeated."""

import copy
import importlib
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.naive_bayes import GaussianNB

from ninefold import functional as F
from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.architectures import Architecture, StageNetwork, architectures_of, train
from ninefold.learn.search import Score, SearchResult, optimal_input, random_against_trained, search

module = importlib.import_module("ninefold.learn.search")  # the package has the function under this name


def wrapped(kernel, images):
    """Correlate ``(C, h, w)`` with images ``(N, C, H, W)`` that wrap around, through the library, in float64."""
    kernel = torch.from_numpy(np.asarray(kernel, float))
    right, below = kernel.shape[2] - 1, kernel.shape[1] - 1
    around = torch.cat([images, images[..., :right]], 3) if right else images
    around = torch.cat([around, around[:, :, :below]], 2) if below else around
    return F.conv2d(around, kernel[None])


def eigenvalues(kernel, size):
    """Return those of ``F^T F``, ascending, F the matrix of the convolution."""
    channels, (height, width) = len(kernel), size
    unit = torch.eye(channels * height * width, dtype=torch.float64).reshape(-1, channels, height, width)
    matrix = wrapped(kernel, unit).flatten(1).T
    return torch.linalg.eigvalsh(matrix.T @ matrix).numpy()


def answer(kernel, image):
    return float(wrapped(kernel, torch.from_numpy(image).reshape(1, len(kernel), *image.shape[-2:])).square().sum())


@pytest.mark.parametrize("size", [(8, 9), (11, 7), (6, 10)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_grating_is_optimal_and_its_value_the_largest_eigenvalue(size, channels):
    for seed in range(4):
        kernel = np.random.default_rng(seed).normal(size=(channels, 3, 5))
        kernel -= kernel.mean((1, 2), keepdims=True)
        best, values = optimal_input(kernel, size, phase=0.0), eigenvalues(kernel, size)
        assert best.value == pytest.approx(values[-1], rel=1e-10)
        assert np.linalg.norm(best.image) == pytest.approx(1, abs=1e-12)
        assert answer(kernel, best.image) == pytest.approx(values[-1], rel=1e-10)
        assert np.sum(values > values[-1] * (1 - 1e-9)) == (2 if best.free_phase else 1)


def test_every_phase_is_optimal():
    kernel = np.random.default_rng(1).normal(size=(5, 5))
    kernel -= kernel.mean()
    found = [optimal_input(kernel, (16, 12), phase=phase) for phase in (0.0, 0.4, 1.3, 2.2, -3.0)]
    assert found[0].free_phase
    assert np.ptp([answer(kernel[None], g.image) for g in found]) < 1e-10
    assert not np.allclose(found[0].image, found[1].image)
    (v, h), rows, columns = found[1].frequency, np.arange(16)[:, None], np.arange(12)[None]
    wave = np.sqrt(2 / 192) * np.cos(2 * np.pi * (v * rows / 16 + h * columns / 12) + 0.4)
    assert np.allclose(found[1].image, wave, atol=1e-12)


def test_no_other_input_of_unit_norm_is_better():
    kernel = np.random.default_rng(2).normal(size=(1, 4, 3))
    best = optimal_input(kernel[0], (7, 9))
    others = np.random.default_rng(3).normal(size=(200, 1, 7, 9))
    others /= np.linalg.norm(others.reshape(200, -1), axis=1)[:, None, None, None]
    assert max(answer(kernel, other) for other in others) < best.value


@pytest.mark.parametrize(
    ("kernel", "frequency"),
    [([[1, 2, 3], [4, 5, 6]], (0, 0)), ([[2, -2], [1, -1]], (0, 4)), ([[2, 1], [-2, -1]], (3, 0)), ([[1, -1], [-1, 1]], (3, 4))],
)
def test_at_zero_and_at_nyquist_there_is_one_phase(kernel, frequency):
    kernel = np.asarray(kernel, float)
    best, values = optimal_input(kernel, (6, 8)), eigenvalues(kernel[None], (6, 8))
    assert best.frequency == frequency
    assert not best.free_phase
    assert np.allclose(np.abs(best.image), 1 / np.sqrt(48))
    assert answer(kernel[None], best.image) == pytest.approx(values[-1], rel=1e-12)
    assert np.sum(values > values[-1] * (1 - 1e-9)) == len(best.ties) == 1
    assert np.allclose(optimal_input(kernel, (6, 8), phase=np.pi).image, -best.image)
    with pytest.raises(ArgumentError, match="must be a multiple of pi"):
        optimal_input(kernel, (6, 8), phase=0.3)


def test_of_an_odd_size_nyquist_is_no_frequency():
    best = optimal_input([[1.0, -1.0]], (6, 7))
    assert best.frequency == (0, 3)
    assert best.free_phase


def test_frequencies_that_tie_are_all_named():
    kernel = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]  # a difference along a diagonal
    best, values = optimal_input(kernel, (4, 4)), eigenvalues(np.array([kernel]), (4, 4))
    pairs = [1 if (-v % 4, -h % 4) == (v, h) else 2 for v, h in best.ties]
    assert best.ties == ((0, 2), (1, 3), (2, 0))
    assert sum(pairs) == np.sum(values > values[-1] * (1 - 1e-9)) == 4
    delta = optimal_input([[2.0]], (3, 5))
    assert delta.frequency == (0, 0)
    assert sum(1 if (v, h) == (0, 0) else 2 for v, h in delta.ties) == 15


def test_without_wrapping_the_optimum_is_near_that_frequency():
    kernel = np.random.default_rng(0).normal(size=(5, 4))
    height, width = 16, 14
    unit = torch.eye(height * width, dtype=torch.float64).reshape(-1, 1, height, width)
    matrix = F.conv2d(unit, torch.from_numpy(kernel)[None, None]).flatten(1)
    values, vectors = torch.linalg.eigh(matrix @ matrix.T)
    best = optimal_input(kernel, (height, width))
    power = np.abs(np.fft.fft2(vectors[:, -1].reshape(height, width).numpy()))
    found = np.array(np.unravel_index(power.argmax(), power.shape))
    gaps = [np.abs((found - sign * np.array(best.frequency) + 8) % (16, 14) - 8).max() for sign in (1, -1)]
    assert min(gaps) <= 1
    assert float(values[-1]) <= best.value


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (np.ones(3), "give one filter"),
        (np.ones((4, 9)), "4x9 is larger than an image of 6x8"),
        (np.zeros((2, 3)), "is zero"),
        ([[np.nan, 1]], "NaN"),
    ],
)
def test_filters_without_an_optimum(kernel, words):
    with pytest.raises((ArgumentError, ShapeError), match=words):
        optimal_input(kernel, (6, 8))


IMAGES = torch.randn(12, 2, 13, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("encoder", ["rectified", "relu", "split", "square"])
@pytest.mark.parametrize("operation", ["mean", "max"])
@pytest.mark.parametrize("normalise", [False, True])
def test_features_and_network_are_one_architecture(encoder, operation, normalise):
    shape = Architecture(5, (4, 3), 1, encoder, normalise, (3, 2), operation)
    source = shape.filters(IMAGES, 3)
    expected = shape.features(IMAGES, source)
    network = StageNetwork(shape, source, IMAGES, 3)
    assert np.allclose(network.features(IMAGES).detach().numpy(), expected, atol=1e-5)
    assert expected.shape == (12, 6 * 5 * (2 if encoder == "split" else 1))
    standard = (network.features(IMAGES).detach() - network.mean) / network.scale
    assert torch.allclose(standard.mean(0), torch.zeros(expected.shape[1]), atol=1e-4)
    network.linear.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    network(IMAGES)[:, 0].sum().backward()
    assert bool((network.convolution.weight.grad != 0).any())


def test_training_lowers_the_loss_and_leaves_global_random_state_alone():
    shape, targets = Architecture(5, (4, 3)), torch.arange(12) % 3
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    network = StageNetwork(shape, shape.filters(IMAGES, 3), IMAGES, 3)
    start = network.convolution.weight.detach().clone()
    loss = torch.nn.functional.cross_entropy(network(IMAGES), targets)
    train(network, IMAGES, targets, epochs=30, rate=0.01, seed=0, batch=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.nn.functional.cross_entropy(network(IMAGES), targets).item() < loss.item() / 2
    assert not torch.equal(network.convolution.weight, start)


def test_spaces_are_products():
    made = architectures_of({"n_filters": [4, 8], "patch_size": [3, [2, 5]], "grid": [2, 2]})
    assert len(made) == 4
    assert made[1] == Architecture(4, (2, 5))
    for space, words in (
        ({"filters": [4]}, "space names 'filters', which is not one of"),
        ({"n_filters": []}, "must be a list of values, one or more"),
        ({"encoder": "relu"}, "must be a list of values"),
        ({"encoder": ["triangle"]}, "encoder='triangle' is not one of"),
        ({"operation": ["sum"]}, "operation='sum'"),
        ({"stride": [0]}, "stride=0 must be at least 1"),
        ([], "at least one Architecture"),
        ([3], "at least one Architecture"),
    ):
        with pytest.raises(ArgumentError, match=words):
            architectures_of(space)


X, Y = load_digits(return_X_y=True)
X, Y = X.reshape(-1, 8, 8)[:400, :, :7], Y[:400].astype(str)
SPACE = {"n_filters": [6], "patch_size": [(3, 2), (8, 7), 9], "encoder": ["rectified", "square"], "grid": [1, 2]}
QUICK = {"n_splits": 3, "epochs": 2, "random_state": 0, "classifier": GaussianNB()}


@pytest.fixture(scope="module")
def found():
    return search(SPACE, X, Y, **QUICK)


def test_a_search_ranks_confirms_and_trains(found):
    means = [c.score.mean for c in found.ranking_]
    assert len(found.ranking_) == 6  # filters as large as the images have one position
    assert len(found.skipped_) == 6
    assert means == sorted(means, reverse=True)
    assert found.best_ == found.ranking_[0].architecture
    assert found.best_.patch_size == (3, 2)
    assert all(c.score.low <= c.score.mean <= c.score.high and len(c.values) == 3 for c in found.ranking_)
    assert found.ranking_[0].behind == Score(0, 0, 0)
    assert all(c.behind.mean == pytest.approx(means[0] - c.score.mean) for c in found.ranking_)
    assert [c.held_out is not None for c in found.ranking_] == [True] * 3 + [False] * 3
    assert found.network_.architecture == found.best_
    assert found.classes_.tolist() == list("0123456789")
    table = found.table().splitlines()
    assert len(table) == 1 + 6 + 6 + 1
    assert str(found.best_) in table[1]
    assert "larger than images of 8x7" in table[-2]
    assert str(pickle.loads(pickle.dumps(found))) == str(found)


def test_a_search_is_the_same_again_and_another_with_another_seed(found):
    again = search(SPACE, X, Y, **QUICK)
    assert str(again) == str(found)
    assert torch.equal(again.network_.convolution.weight, found.network_.convolution.weight)
    other = search(SPACE, X, Y, **{**QUICK, "random_state": 1, "epochs": 0})
    assert other.network_ is other.trained_ is None
    assert [c.values.tolist() for c in other.ranking_] != [c.values.tolist() for c in found.ranking_]


def test_screening_never_sees_what_confirms(found):
    """The images that are held out may be anything: the ranking stays, and what is said of them does not."""
    from sklearn.model_selection import StratifiedShuffleSplit

    _, outside = next(StratifiedShuffleSplit(1, test_size=0.25, random_state=0).split(Y, Y))
    spoilt = X.copy()
    spoilt[outside] = np.random.default_rng(0).uniform(0, 16, spoilt[outside].shape)
    other = search(SPACE, spoilt, Y, **QUICK)
    assert [(c.architecture, c.score) for c in other.ranking_] == [(c.architecture, c.score) for c in found.ranking_]
    assert other.ranking_[0].held_out.mean < 0.3 < found.ranking_[0].held_out.mean
    assert other.trained_.mean < 0.3


def test_an_interrupted_search_goes_on(found, monkeypatch):
    calls, true, result = [], module._screened, SearchResult()

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return true(*arguments)

    monkeypatch.setattr(module, "_screened", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(SPACE, X, Y, into=result, **QUICK)
    assert len(result.ranking_) == 3
    assert "trained whole" not in result.table()
    seen = []
    assert search(SPACE, X, Y, into=result, progress=lambda done, of: seen.append((done, of)), **QUICK) is result
    assert len(calls) == 4 + 3
    assert seen == [(k, 6) for k in range(1, 7)]
    assert str(result) == str(found)
    with pytest.raises(ArgumentError, match="into= holds a search with other images"):
        search(SPACE, X[:300], Y[:300], into=copy.copy(result), **QUICK)


def test_a_score_is_a_mean_with_its_bootstrap_interval():
    values = np.random.default_rng(0).normal(size=400)
    score = Score.of(values, 0)
    half = 1.96 * values.std() / 20
    assert score.mean == pytest.approx(values.mean())
    assert score.low == pytest.approx(values.mean() - half, abs=0.02)
    assert score.high == pytest.approx(values.mean() + half, abs=0.02)
    assert Score.of([0.5, 0.5], 0) == Score(0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": Y[:-1]}, "a label for each of 400 images"),
        ({"y": np.full(400, np.nan)}, "without NaN"),
        ({"y": np.zeros(400)}, "y has 1 classes"),
        ({"y": np.arange(400) // 3}, "the smallest of 1 images"),
        ({"held_out": 1.0}, "held_out=1.0 must be above 0 and below 1"),
        ({"n_splits": 0}, "n_splits=0"),
        ({"confirm": 0}, "confirm=0"),
        ({"space": {"patch_size": [9, 12]}}, "none of 2 architectures takes these images: filters of 9x9"),
        ({"X": [np.zeros((8, 7)), np.zeros((7, 8))]}, "images of one size"),
        ({"X": np.where(X == 5, np.nan, X)}, "NaN"),
    ],
)
def test_bad_input(change, words):
    with pytest.raises((ArgumentError, ShapeError), match=words):
        search(**{"space": SPACE, "X": X, "y": Y, **QUICK, **change})


def test_ranks_with_random_filters_against_ranks_after_training():
    space = {"n_filters": [2], "patch_size": [2, 3, (4, 2)], "encoder": ["relu", "rectified"], "grid": [1, 2]}
    arguments = {"n_splits": 1, "epochs": 1, "random_state": 0, "classifier": GaussianNB()}
    found = random_against_trained(space, X[:200], Y[:200], **arguments)
    assert found.rho.mean == pytest.approx(spearmanr(found.random, found.trained).statistic)
    assert -1 <= found.rho.low <= found.rho.mean <= found.rho.high <= 1
    assert len(str(found).splitlines()) == 1 + 12 + 1
    assert np.array_equal(random_against_trained(space, X[:200], Y[:200], **arguments).trained, found.trained)
    with pytest.raises(ArgumentError, match="space holds 2 architectures; a rank correlation takes at least 12"):
        random_against_trained({"grid": [1, 2]}, X, Y)
    with pytest.raises(ArgumentError, match="1 of 2 architectures do not take these images"):
        random_against_trained({"patch_size": [3, 9]}, X, Y)


def test_the_interval_of_a_rank_correlation():
    values = np.arange(20.0)
    assert module._rho(values, values**3, 0) == Score(1, 1, 1)
    mixed = module._rho(values, np.random.default_rng(0).permutation(values), 0)
    assert mixed.low < 0 < mixed.high
    assert np.isnan(module._rho(values, np.ones(20), 0).mean)
