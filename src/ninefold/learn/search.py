"""Architecture search without training: networks of random filters, of which only the last layer learns (Saxe et al. 2011)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.architectures import Architecture, StageNetwork, architectures_of, train
from ninefold.learn.base import seed_of, whole
from ninefold.learn.gratings import Grating, optimal_input
from ninefold.learn.images import Channels, Images

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Candidate",
    "Grating",
    "RankCorrelation",
    "Score",
    "SearchResult",
    "optimal_input",
    "random_against_trained",
    "search",
]

_DRAWS = 2000
"""Bootstrap samples of an interval."""


@dataclass(frozen=True)
class Score:
    """A mean and its 95% interval by the bootstrap.

    Examples
    --------
    >>> print(Score(0.5, 0.25, 0.75))
    0.500 [0.250, 0.750]
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @classmethod
    def of(cls, values: "ArrayLike", seed: int) -> "Score":
        """Return it of values that may be drawn again: splits, or examples."""
        found = np.asarray(values, float)
        drawn = np.random.default_rng(seed).integers(len(found), size=(_DRAWS, len(found)))
        low, high = np.quantile(found[drawn].mean(1), (0.025, 0.975))
        return cls(float(found.mean()), float(low), float(high))


@dataclass
class Candidate:
    """An architecture and what was measured of it.

    Attributes
    ----------
    architecture : Architecture
    values : ndarray
        Accuracy by split, with filters drawn anew for each.
    score : Score
        Of the splits.
    behind : Score
        By how much it is behind the best, split by split.
    held_out : Score or None
        On images that the search never used; the interval is over these images. None unless it was confirmed.
    """

    architecture: Architecture
    values: "NDArray[np.float64]"
    score: Score
    behind: Score = Score(0.0, 0.0, 0.0)
    held_out: Score | None = None


@dataclass
class SearchResult:
    """What `search` found, and how far it came.

    Attributes
    ----------
    ranking_ : list of Candidate
        The best first.
    skipped_ : dict
        Why architectures do not take these images.
    network_ : StageNetwork or None
        The best architecture, all of it trained, for images less `centre_`, divided by `spread_`; its outputs are by `classes_`.
    trained_ : Score or None
        Its accuracy on the held-out images.
    """

    ranking_: list[Candidate] = field(default_factory=list)
    skipped_: dict[Architecture, str] = field(default_factory=dict)
    network_: StageNetwork | None = None
    trained_: Score | None = None
    centre_: float = 0.0
    spread_: float = 1.0
    classes_: Any = None
    started_: Any = None

    @property
    def best_(self) -> Architecture:
        """The architecture that was best while screening; looking at the held-out images for it would spoil their estimate."""
        if not self.ranking_:
            raise ArgumentError("nothing has been screened yet")
        return self.ranking_[0].architecture

    def table(self) -> str:
        """Return all of it as text, a line for each architecture."""
        lines = [f"{'last layer only':22} {'behind the best':22} {'held out':22} architecture"]
        for c in self.ranking_:
            held = "" if c.held_out is None else str(c.held_out)
            lines.append(f"{c.score!s:22} {c.behind!s:22} {held:22} {c.architecture}")
        lines += [f"{'does not fit':68} {a}: {reason}" for a, reason in self.skipped_.items()]
        if self.trained_ is not None:
            lines.append(f"the best one trained whole: {self.trained_} held out")
        return "\n".join(lines)

    __str__ = table


def search(
    space: Mapping[str, Sequence[Any]] | Sequence[Architecture],
    X: Any,
    y: "ArrayLike",
    *,
    n_splits: int = 10,
    held_out: float = 0.25,
    confirm: int = 3,
    classifier: Any = None,
    epochs: int = 60,
    rate: float = 0.01,
    channels: Channels = "auto",
    random_state: Any = None,
    progress: Callable[[int, int], None] | None = None,
    into: SearchResult | None = None,
) -> SearchResult:
    """Compare architectures by what they do with random filters, confirm the best on other images, and train the winner whole.

    Random filters keep what an architecture does by itself, so that a network need not be trained to be ranked (Saxe et al. 2011;
    Pinto et al. 2011, Cox and Pinto 2011 screened thousands). The images are divided at the start: on the larger part every
    architecture is screened over the same splits, with a linear classifier on standardised features; the other part is used once,
    for the best few and for the network.

    Parameters
    ----------
    space : mapping or sequence of Architecture
        Lists of values for attributes of `Architecture`, of which all products are tried; or architectures.
    X : images
        As in `Images`, all of one size; they are held in memory.
    y : array-like
        Labels.
    n_splits : int
        Splits to screen with, a quarter for testing in each.
    held_out : float
        Share of the images that is kept for confirmation.
    confirm : int
        How many of the best are confirmed.
    classifier : estimator, optional
        Logistic regression with ``C=0.1`` unless given.
    epochs, rate : int, float
        Of the training of the winner, by Adam; 0 epochs leave that out.
    channels : {"auto", "first", "last", "none"}
    random_state : int, RandomState or None
    progress : callable, optional
        Called with (architectures screened, architectures in all).
    into : SearchResult, optional
        Is filled while the search runs; after an interrupt, the same call goes on from there.

    Returns
    -------
    SearchResult

    Raises
    ------
    ArgumentError, ShapeError
        If the space is empty or no architecture fits; images and labels do not match; or a class has too few of them.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> space = {"n_filters": [4], "patch_size": [3, 9]}
    >>> found = search(space, digits.images[:200], digits.target[:200], n_splits=2, epochs=1, random_state=0)
    >>> print(found.best_), len(found.skipped_)
    4 filters of 3x3, stride 1, rectified, 2x2 mean
    (None, 1)
    """
    tried = architectures_of(space)
    splits, confirmed = whole(n_splits, "n_splits"), whole(confirm, "confirm")
    images, targets, classes = _data(X, y, channels)
    result = SearchResult() if into is None else into
    seed = _resumed(result, seed_of(random_state), images, targets, splits, held_out)
    outer = StratifiedShuffleSplit(1, test_size=_share(held_out), random_state=seed)
    inside, outside = next(outer.split(targets, targets))
    result.centre_, result.spread_ = float(images[inside].mean()), float(images[inside].std()) or 1.0
    result.classes_ = classes
    images = (images - result.centre_) / result.spread_
    result.skipped_ = {a: reason for a in tried if (reason := a.misfit(*images.shape[2:])) is not None}
    fitting = [a for a in tried if a not in result.skipped_]
    if not fitting:
        raise ArgumentError(f"none of {len(tried)} architectures takes these images: {next(iter(result.skipped_.values()))}")
    done = {c.architecture: c for c in result.ranking_}
    for k, architecture in enumerate(fitting):
        if architecture not in done:
            values = _screened(architecture, images[inside], targets[inside], splits, classifier, seed)
            done[architecture] = Candidate(architecture, values, Score.of(values, seed))
            result.ranking_ = _ranked([done[a] for a in fitting if a in done], seed)
        if progress is not None:
            progress(k + 1, len(fitting))
    for c in result.ranking_[:confirmed]:
        if c.held_out is None:
            c.held_out = Score.of(_held_out(c.architecture, images, targets, inside, outside, classifier, seed), seed)
    if epochs and (result.network_ is None or result.network_.architecture != result.best_):
        network = _trained(result.best_, images[inside], targets[inside], len(classes), epochs, rate, seed)
        result.network_ = network
        result.trained_ = Score.of(_correct(network, images[outside], targets[outside]), seed)
    return result


@dataclass(frozen=True)
class RankCorrelation:
    """How architectures rank with random filters and after training, as `random_against_trained` returns it.

    Attributes
    ----------
    architectures : list of Architecture
    random, trained : ndarray
        Mean accuracy of each.
    rho : Score
        Spearman's; the interval is over architectures.
    """

    architectures: list[Architecture]
    random: "NDArray[np.float64]"
    trained: "NDArray[np.float64]"
    rho: Score

    def __str__(self) -> str:
        lines = [f"{r:.3f} {t:.3f}  {a}" for r, t, a in zip(self.random, self.trained, self.architectures, strict=True)]
        return "\n".join(["random trained", *lines, f"Spearman's rho {self.rho} over {len(lines)} architectures"])


def random_against_trained(
    space: Mapping[str, Sequence[Any]] | Sequence[Architecture],
    X: Any,
    y: "ArrayLike",
    *,
    n_splits: int = 2,
    train_size: float = 0.75,
    classifier: Any = None,
    epochs: int = 60,
    rate: float = 0.01,
    channels: Channels = "auto",
    random_state: Any = None,
) -> RankCorrelation:
    """Measure whether architectures that are good with random filters are good once they are trained (Saxe et al. 2011).

    Both start from the same filters, see the same images and are tested on the same; at least 12 architectures. Parameters are
    those of `search`, and `train_size`, the share of the images that is trained on.

    Raises
    ------
    ArgumentError
        If there are fewer than 12 architectures, or one does not take the images.
    """
    tried = architectures_of(space)
    images, targets, classes = _data(X, y, channels)
    misfits = [f"{a}: {reason}" for a in tried if (reason := a.misfit(*images.shape[2:])) is not None]
    if misfits:
        raise ArgumentError(f"{len(misfits)} of {len(tried)} architectures do not take these images, such as {misfits[0]}")
    if len(tried) < 12:
        raise ArgumentError(f"space holds {len(tried)} architectures; a rank correlation takes at least 12")
    seed = seed_of(random_state)
    random, trained = np.zeros((2, len(tried), whole(n_splits, "n_splits")))
    parts = StratifiedShuffleSplit(n_splits, train_size=_share(train_size, "train_size"), random_state=seed)
    for s, (seen, unseen) in enumerate(parts.split(targets, targets)):
        normal = (images - images[seen].mean()) / (images[seen].std() or 1)
        for k, architecture in enumerate(tried):
            source = architecture.filters(images, seed + s)
            right = _last_layer(architecture.features(normal, source), targets, seen, unseen, classifier)
            network = _trained(architecture, normal[seen], targets[seen], len(classes), epochs, rate, seed + s)
            random[k, s] = right.mean()
            trained[k, s] = _correct(network, normal[unseen], targets[unseen]).mean()
    return RankCorrelation(tried, random.mean(1), trained.mean(1), _rho(random.mean(1), trained.mean(1), seed))


def _rho(a: "NDArray[np.float64]", b: "NDArray[np.float64]", seed: int) -> Score:
    """Return Spearman's rho and its interval over pairs that are drawn again; samples in which all agree have none."""
    drawn = np.random.default_rng(seed).integers(len(a), size=(_DRAWS, len(a)))
    found = _correlations(a[drawn], b[drawn])
    found = found[np.isfinite(found)]
    low, high = np.quantile(found, (0.025, 0.975)) if len(found) else (np.nan, np.nan)
    return Score(float(_correlations(a[None], b[None])[0]), float(low), float(high))


def _correlations(a: "NDArray[np.float64]", b: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return Spearman's rho of each row of both, NaN where one has a single value."""
    x, y = (rankdata(v, axis=1) - (v.shape[1] + 1) / 2 for v in (a, b))
    norms = np.sqrt(np.square(x).sum(1) * np.square(y).sum(1))
    return np.where(norms > 0, (x * y).sum(1) / np.where(norms > 0, norms, 1), np.nan)


def _data(X: Any, y: Any, channels: Channels) -> tuple[Tensor, "NDArray[np.intp]", "NDArray[Any]"]:
    """Return images ``(N, C, H, W)``, labels as whole numbers, and the classes."""
    batches = list(Images(X, channels))
    if len({tuple(batch.shape[1:]) for batch in batches}) != 1:
        raise ShapeError(f"a search takes images of one size, got {sorted({tuple(b.shape[1:]) for b in batches})}")
    images, labels = torch.cat(batches), np.asarray(y)
    if labels.shape != (len(images),) or (labels.dtype.kind == "f" and not np.isfinite(labels).all()):
        raise ArgumentError(f"y must hold a label for each of {len(images)} images, without NaN; it has shape {labels.shape}")
    classes, targets = np.unique(labels, return_inverse=True)
    counts = np.bincount(targets)
    if len(classes) < 2 or counts.min() < 4:
        raise ArgumentError(
            f"y has {len(classes)} classes, the smallest of {counts.min()} images; a search takes two classes of four or more"
        )
    return images, targets, classes


def _share(value: float, name: str = "held_out") -> float:
    if not 0 < value < 1:
        raise ArgumentError(f"{name}={value} must be above 0 and below 1")
    return float(value)


def _resumed(result: SearchResult, seed: int, images: Tensor, targets: Any, *asked: float) -> int:
    """Return the seed of a search, which is that of the one that is gone on with; refuse to mix two."""
    mark = (tuple(images.shape), float(images.double().sum()), targets.tolist(), asked)
    if result.started_ is None:
        result.started_ = (seed, mark)
    if result.started_[1] != mark:
        raise ArgumentError("into= holds a search with other images, labels, n_splits or held_out; give a new SearchResult")
    return int(result.started_[0])


def _screened(
    architecture: Architecture, images: Tensor, targets: Any, n_splits: int, classifier: Any, seed: int
) -> "NDArray[np.float64]":
    """Return the accuracy of the last layer by split, with filters drawn anew for each."""
    splits = StratifiedShuffleSplit(n_splits, test_size=0.25, random_state=seed)
    found: list[float] = []
    for s, (seen, unseen) in enumerate(splits.split(targets, targets)):
        rows = architecture.features(images, architecture.filters(images, seed + s))
        found.append(float(_last_layer(rows, targets, seen, unseen, classifier).mean()))
    return np.array(found)


def _held_out(
    architecture: Architecture, images: Tensor, targets: Any, inside: Any, outside: Any, classifier: Any, seed: int
) -> "NDArray[np.float64]":
    """Return what the last layer, trained on all that the search saw, has right of the rest, with the filters of the network."""
    rows = architecture.features(images, architecture.filters(images, seed))
    return _last_layer(rows, targets, inside, outside, classifier)


def _last_layer(rows: Any, targets: Any, seen: Any, unseen: Any, classifier: Any) -> "NDArray[np.float64]":
    last = LogisticRegression(C=0.1, max_iter=1000) if classifier is None else clone(classifier)
    model = make_pipeline(StandardScaler(), last).fit(rows[seen], targets[seen])
    return (model.predict(rows[unseen]) == targets[unseen]).astype(float)


def _ranked(candidates: list[Candidate], seed: int) -> list[Candidate]:
    ranking = sorted(candidates, key=lambda c: -c.score.mean)
    for c in ranking:
        c.behind = Score.of(ranking[0].values - c.values, seed)
    return ranking


def _trained(
    architecture: Architecture, images: Tensor, targets: Any, classes: int, epochs: int, rate: float, seed: int
) -> StageNetwork:
    network = StageNetwork(architecture, architecture.filters(images, seed), images, classes)
    train(network, images, torch.from_numpy(targets), epochs=whole(epochs, "epochs"), rate=rate, seed=seed)
    return network


def _correct(network: StageNetwork, images: Tensor, targets: Any) -> "NDArray[np.float64]":
    with torch.no_grad():
        found = torch.cat([network(part).argmax(1) for part in images.split(256)])
    return (found.numpy() == targets).astype(float)
