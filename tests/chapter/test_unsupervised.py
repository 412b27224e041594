"""What the entries on features without labels are made of: who sees which labels, what stays as it is, and what is measured."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin

from ninefold.chapter import few_labels, learned_layers, pretraining, screening
from ninefold.chapter.data import digits
from ninefold.learn import ConvFeatures, RandomFilters
from ninefold.learn.architectures import architectures_of


class Spy(TransformerMixin, BaseEstimator):
    """Rows of pixels, and what it was given."""

    given: ClassVar[list] = []

    def fit(self, X, y=None):
        self.given.append((X, y))
        return self

    def transform(self, X):
        self.given.append(X)
        return X.reshape(len(X), -1)


@pytest.fixture
def given():
    Spy.given = []
    return Spy.given


@pytest.mark.parametrize("each", [1, 7])
def test_few_have_labels_and_none_is_tested_that_was_seen(each):
    labels = digits().labels.numpy()
    pool, labelled, unseen = few_labels.parted(labels, seed=3, each=each)
    assert np.bincount(labels[labelled]).tolist() == [each] * 10
    assert set(labelled) <= set(pool)
    assert sorted([*pool, *unseen]) == list(range(len(labels)))
    other = few_labels.parted(labels, seed=4, each=each)[1]
    assert set(other) != set(labelled)


def test_filters_are_learned_from_all_without_labels_or_from_few_with_them(given):
    few_labels.scores(Spy(), each=3, seeds=1)
    (seen, labels), *rest = given
    assert labels is None
    assert [len(seen), *map(len, rest)] == [898, 30, 899]
    given.clear()
    few_labels.scores(Spy(), each=3, seeds=1, with_labels=True)
    (seen, labels), *rest = given
    assert [len(seen), len(labels), *map(len, rest)] == [30, 30, 30, 899]
    assert np.array_equal(seen, rest[0])


def test_a_score_is_the_share_of_unseen_digits_that_are_told_right(monkeypatch):
    told = digits()
    right = torch.nn.functional.one_hot(told.labels, 64).float().reshape(-1, 1, 8, 8)
    monkeypatch.setattr(few_labels, "digits", lambda: told._replace(pictures=right))
    assert few_labels.scores(few_labels.pixels(), each=2, seeds=2) == [1.0, 1.0]
    monkeypatch.setattr(few_labels, "digits", lambda: told._replace(pictures=torch.zeros(1797, 1, 8, 8)))
    blind = few_labels.scores(few_labels.pixels(), each=2, seeds=2)
    assert all(0.05 < score < 0.15 for score in blind)


def test_a_seed_reaches_the_filters_and_leaves_the_given_ones():
    features = ConvFeatures(RandomFilters(5, (3, 2), random_state=1))
    made = few_labels.seeded(features, 9).fit(np.zeros((2, 8, 7)))
    expected = RandomFilters(5, (3, 2), random_state=9).fit(np.zeros((2, 8, 7)))
    assert np.array_equal(made.source_.filters_, expected.filters_)
    assert features.filters.random_state == 1


@pytest.mark.parametrize("start", ["k-means, frozen", "random, frozen", "k-means, then all trained"])
def test_frozen_kernels_stay_and_others_learn(start, monkeypatch):
    kept = []
    monkeypatch.setattr(pretraining, "error", lambda model, told: kept.append(model[0].weight.detach().clone()) or 0.0)
    pretraining.trained(start, 2, 6, seeds=1, trial=True)
    pool, _, _ = few_labels.parted(digits().labels.numpy(), 0, 2)
    source = pretraining._source(start, 6, 0).fit(digits().pictures[torch.from_numpy(pool), 0])
    moved = float((kept[0] - torch.from_numpy(source.filters_)).abs().max())
    assert (moved < 1e-4) == ("frozen" in start), moved  # learned again, with as many threads as there are: equal to rounding


def test_networks_learn_from_the_digits_and_labels_of_the_scores(given, monkeypatch):
    seen = []
    monkeypatch.setattr(pretraining, "fit", lambda model, pictures, labels, **how: seen.append((pictures, labels)))
    pretraining.trained("all trained", 3, 4, seeds=2, trial=True)
    few_labels.scores(Spy(), each=3, seeds=2)
    assert np.array_equal(seen[0][0][:, 0].numpy(), given[1])
    assert np.array_equal(seen[1][0][:, 0].numpy(), given[4])
    assert seen[0][1].bincount().tolist() == [3] * 10


def test_codes_of_a_delta_are_thresholds():
    images = torch.tensor([[[[3.0, -0.5], [-2.0, 0.0], [0.75, 0.0]]]])
    left, used = learned_layers._coded(images, torch.ones(1, 1, 1, 1), 1.0)
    assert used == pytest.approx(2 / 6)
    assert left == pytest.approx((1 + 0.25 + 1 + 0.5625) / 13.8125, rel=1e-4)


def test_squares_are_cut_row_by_row():
    image = torch.arange(42.0).reshape(6, 7)
    found = learned_layers._cut(image, 3)
    assert found.shape == (4, 1, 3, 3)
    assert torch.equal(found[1, 0], image[:3, 3:6])


def test_what_is_noticed_is_none_of_the_same_and_all_of_strangers():
    class Same:
        def pooled(self, X):
            return X.numpy()

    draw = torch.Generator().manual_seed(0)
    one, other = torch.randn(2000, 1, 3, 2, generator=draw), torch.randn(2000, 1, 3, 2, generator=draw)
    assert learned_layers._noticed(Same(), one, one) == 0
    assert learned_layers._noticed(Same(), one, other) == pytest.approx(1, abs=0.05)


def test_all_architectures_of_the_space_take_digits():
    tried = architectures_of(screening.SPACE)
    assert len(tried) == 24
    assert not any(a.misfit(8, 8) for a in tried)
