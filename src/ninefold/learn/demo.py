"""``ninefold learn --demo``: what filters without labels are worth on digits, by the number of labels, beside raw pixels.

Half of scikit-learn's digits, drawn at random, may be learned from, and some of them have labels; the other half is tested on.
Filters are learned once, without labels. Splits draw other labels each time, the same for all rows; the classifier is always the
same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from ninefold import nn
from ninefold.learn.base import FilterSource
from ninefold.learn.dbn import ConvDBN
from ninefold.learn.designed import DesignedFilters
from ninefold.learn.features import ConvFeatures
from ninefold.learn.initialize import initialize
from ninefold.learn.kmeans import KMeansFilters
from ninefold.learn.omp import OMPFilters
from ninefold.learn.rbm import ConvRBM
from ninefold.learn.search import Score
from ninefold.learn.simple import RandomFilters, SampledPatches
from ninefold.learn.sparse import SparseCodingFilters

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Row", "contenders", "draws", "features_table", "few_labels", "networks_table", "run", "told"]

_FILTERS, _PATCH = 160, 4
_COUNTS = (1, 5, 10)


@dataclass
class Row:
    """One line of a table: accuracies by the number of labels a class, one for each split.

    Examples
    --------
    >>> row = Row("raw pixels", "", {5: np.array([0.75, 0.85])})
    >>> row.name, row.accuracies[5].mean()
    ('raw pixels', np.float64(0.8))
    """

    name: str
    encoder: str
    accuracies: "dict[int, NDArray[np.float64]]" = field(default_factory=dict)
    learning: float = 0.0
    extracting: float = 0.0
    source: Any = None


def contenders(seed: int = 0) -> "dict[tuple[str, str], Any]":
    """Return transformers by name and encoder.

    Examples
    --------
    >>> list(contenders())[0]
    ('random', 'soft')
    """
    size: dict[str, Any] = {"n_filters": _FILTERS, "patch_size": _PATCH, "random_state": seed}
    below = ConvRBM(24, 3, sigma=0.4, sigma_floor=0.4, n_epochs=10, random_state=seed)
    above = ConvRBM(40, 2, pool=1, visible="binary", n_epochs=10, random_state=seed)
    return {
        ("random", "soft"): ConvFeatures(RandomFilters(**size), "soft"),
        ("designed Gabor", "soft"): ConvFeatures(DesignedFilters("gabor", _PATCH), "soft"),
        ("sampled patches", "triangle"): ConvFeatures(SampledPatches(**size)),
        ("k-means unwhitened", "triangle"): ConvFeatures(KMeansFilters(**size, whitening=None)),
        ("k-means", "hard"): ConvFeatures(KMeansFilters(**size), "hard"),
        ("k-means", "triangle"): ConvFeatures(KMeansFilters(**size)),
        ("OMP-1", "soft"): ConvFeatures(OMPFilters(**size), "soft"),
        ("sparse coding", "soft"): ConvFeatures(SparseCodingFilters(32, _PATCH, n_iter=5, random_state=seed), "soft"),
        ("RBM", "probabilities"): ConvDBN([below]),
        ("DBN of two layers", "probabilities"): ConvDBN([below, above]),
    }


def draws(labels: "ArrayLike", each: int, splits: int, seed: int = 0) -> "list[NDArray[np.intp]]":
    """Return which examples have labels, `each` of a class, in each of some splits.

    Examples
    --------
    >>> [len(one) for one in draws([0, 1, 1, 0, 2, 2], 1, 2)]
    [3, 3]
    """
    labels, generator = np.asarray(labels), np.random.default_rng(seed)
    classes = np.unique(labels)
    return [
        np.concatenate([generator.choice(np.flatnonzero(labels == c), each, replace=False) for c in classes])
        for _ in range(splits)
    ]


def few_labels(
    seen: "NDArray[Any]",
    labels: "NDArray[Any]",
    unseen: "NDArray[Any]",
    answers: "NDArray[Any]",
    counts: Sequence[int] = _COUNTS,
    splits: int = 20,
    seed: int = 0,
) -> "dict[int, NDArray[np.float64]]":
    """Return accuracies on unseen rows by the number of labels a class, one for each split: standardised, logistic.

    Parameters
    ----------
    seen, unseen : ndarray
        Features, ``(N, F)`` and ``(M, F)``.
    labels, answers : ndarray
        Their labels.
    counts : sequence of int
    splits, seed : int
        The same seed draws the same labels, whatever the features.

    Examples
    --------
    >>> rows = np.array([[0.0], [0.1], [1.0], [1.1]])
    >>> few_labels(rows, np.array([0, 0, 1, 1]), rows, np.array([0, 0, 1, 1]), counts=(1,), splits=2)
    {1: array([1., 1.])}
    """
    found: dict[int, NDArray[np.float64]] = {}
    with threadpool_limits(1):  # a hundred rows: threads would wait for one another
        for each in counts:
            accuracies = []
            for chosen in draws(labels, each, splits, seed):
                classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
                accuracies.append(classifier.fit(seen[chosen], labels[chosen]).score(unseen, answers))
            found[each] = np.array(accuracies)
    return found


def features_table(
    transformers: Mapping[tuple[str, str], Any],
    images: "NDArray[Any]",
    labels: "NDArray[Any]",
    *,
    counts: Sequence[int] = _COUNTS,
    splits: int = 20,
    tell: Callable[[str], object] = lambda _: None,
) -> list[Row]:
    """Learn from the first half of images without labels, extract, classify; raw pixels are the first row.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits(n_class=3)
    >>> some = {("random", "soft"): ConvFeatures(RandomFilters(8, 4, random_state=0), "soft")}
    >>> [row.name for row in features_table(some, digits.images, digits.target, counts=(2,), splits=2)]
    ['raw pixels', 'random']
    """
    half = len(images) // 2
    flat = np.asarray(images, np.float32).reshape(len(images), -1)
    rows = [Row("raw pixels", "", few_labels(flat[:half], labels[:half], flat[half:], labels[half:], counts, splits))]
    for (name, encoder), transformer in transformers.items():
        tell(name)
        start = perf_counter()
        transformer.fit(images[:half])
        learned = perf_counter()
        features = transformer.transform(images)
        row = Row(name, encoder, learning=learned - start, extracting=perf_counter() - learned)
        row.source = getattr(transformer, "source_", None) or transformer.layers_[0]
        row.accuracies = few_labels(features[:half], labels[:half], features[half:], labels[half:], counts, splits)
        rows.append(row)
    return rows


def networks_table(
    images: "NDArray[Any]",
    labels: "NDArray[Any]",
    *,
    counts: Sequence[int] = _COUNTS,
    splits: int = 20,
    steps: int = 60,
    tell: Callable[[str], object] = lambda _: None,
) -> list[Row]:
    """Train one small network three ways: from random numbers, on filters that stay, and from filters that are then trained, too.

    All have as many steps of Adam: the last has the first half of them on its last layer alone.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits(n_class=3)
    >>> [row.name for row in networks_table(digits.images, digits.target, counts=(2,), splits=1, steps=2)]
    ['supervised only', 'k-means, frozen', 'k-means, fine-tuned']
    """
    half = len(images) // 2
    x = torch.from_numpy(np.asarray(images, np.float32))[:, None] / float(np.max(images))
    answers = torch.from_numpy(np.asarray(labels, np.int64))
    source = KMeansFilters(64, _PATCH, contrast=None, whitening=0.01, random_state=0).fit(x[:half].numpy())
    ways: dict[str, tuple[bool, bool]] = {
        "supervised only": (False, True),
        "k-means, frozen": (True, False),
        "k-means, fine-tuned": (True, True),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a hundred digits: threads would wait for one another
    try:
        rows = []
        for name, (filters, tuned) in ways.items():
            tell(name)
            row, start = Row(name, ""), perf_counter()
            for each in counts:
                accuracies = []
                for seed, chosen in enumerate(draws(labels[:half], each, splits)):
                    network = _network(seed, len(source.filters_), len(np.unique(labels)), source if filters else None)
                    _trained(network, x[chosen], answers[chosen], steps // 2 if filters and tuned else steps)
                    if filters and tuned:
                        network.requires_grad_(True)
                        _trained(network, x[chosen], answers[chosen], steps - steps // 2)
                    with torch.no_grad():
                        right = network(x[half:]).argmax(1) == answers[half:]
                    accuracies.append(float(right.double().mean()))
                row.accuracies[each] = np.array(accuracies)
            row.learning = (perf_counter() - start) / (splits * len(counts))
            rows.append(row)
    finally:
        torch.set_num_threads(threads)
    return rows


def _network(seed: int, filters: int, classes: int, source: FilterSource | None) -> torch.nn.Sequential:
    """Return a convolution, a ReLU, means of quadrants and a linear layer, of numbers drawn by a seed of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = torch.nn.Sequential(
            nn.Conv2d(1, filters, _PATCH, device="cpu", dtype=torch.float32),
            torch.nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            torch.nn.Flatten(),
            torch.nn.BatchNorm1d(4 * filters, affine=False, device="cpu", dtype=torch.float32),
            torch.nn.Linear(4 * filters, classes, device="cpu", dtype=torch.float32),
        )
    if source is not None:
        initialize(network, source, frozen=True)
    return network


def _trained(network: torch.nn.Module, x: torch.Tensor, answers: torch.Tensor, steps: int) -> None:
    """Train what learns, on all examples at once."""
    network.train()
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), answers).backward()
        optimizer.step()
    network.eval()


def run(
    folder: Path, *, splits: int = 20, tell: Callable[[str], object] = lambda _: None
) -> tuple[list[Row], list[Row], list[Path]]:
    """Do all of it; return the rows of both tables and the pictures of filters that were written.

    Parameters
    ----------
    folder : Path
        Where mosaics go; made if it is not there.
    splits : int
    tell : callable
        Called with the name of what is at work.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415  reads a file

    from ninefold.learn.pictures import mosaic  # noqa: PLC0415  needs Matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))  # writers follow one another in it
    images, labels = digits.images[order], digits.target[order]
    features = features_table(contenders(), images, labels, splits=splits, tell=tell)
    networks = networks_table(images, labels, splits=splits, tell=tell)
    written = []
    for row in features[1:]:
        path = folder / f"{row.name} {row.encoder}.png".replace(",", "").replace(" ", "-")
        figure: Any = mosaic(row.source, title=row.name).figure
        figure.savefig(path, dpi=150)
        written.append(path)
    return features, networks, written


def told(rows: Sequence[Row], title: str) -> Any:
    """Return rows as a table for the terminal: means over splits in percent, and half of their 95% intervals.

    Examples
    --------
    >>> told([Row("raw pixels", "", {5: np.array([0.75, 0.85])})], "accuracy").row_count
    1
    """
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    counts = list(rows[0].accuracies)
    table = Table("labels a class:", title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for header in (*map(str, counts), "seconds"):
        table.add_column(header, justify="right")
    for row in rows:
        scores = [Score.of(row.accuracies[n], 0) for n in counts]
        cells = [f"{100 * score.mean:.1f} ±{50 * (score.high - score.low):.1f}" for score in scores]
        seconds = ", ".join(f"{value:.2f}" for value in (row.learning, row.extracting) if value)
        table.add_row(", ".join(filter(None, (row.name, row.encoder))), *cells, seconds)
    return table
