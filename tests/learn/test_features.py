import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn import ConvFeatures, GridPool, KMeansFilters, Pyramid, QuadrantSums, RandomFilters, SampledPatches, Triangle
from ninefold.learn import features as module
from ninefold.learn.compare import Comparison

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 9, 11, 3)).astype(np.uint8)


def source(count=7):
    return KMeansFilters(count, (3, 2), n_patches=400, random_state=0)


def rows_as_images(X):
    """Make images of one line of the rows that scikit-learn's checks are made of."""
    if hasattr(X, "toarray"):
        return X
    X = np.asarray(X)
    return X[:, None, :] if X.ndim == 2 else X


class OfRows:
    """Lets scikit-learn's checks run: the class that is checked, given rows."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags

    def fit(self, X, y=None):
        return super().fit(rows_as_images(X), y)


class ConvFeaturesOfRows(OfRows, ConvFeatures):
    def transform(self, X):
        return super().transform(rows_as_images(X))

    def fit_transform(self, X, y=None):
        return self.fit(X, y).transform(X)

    def partial_fit(self, X, y=None):
        return super().partial_fit(rows_as_images(X), y)


class KMeansOfRows(OfRows, KMeansFilters):
    def partial_fit(self, X, y=None):
        return super().partial_fit(rows_as_images(X), y)


class RandomOfRows(OfRows, RandomFilters):
    pass


class SampledOfRows(OfRows, SampledPatches):
    pass


ROWS_ONLY = {  # and why: docs/learn.md
    "check_n_features_in",
    "check_n_features_in_after_fitting",
    "check_estimators_empty_data_messages",
    "check_transformer_general",
}


@pytest.mark.parametrize(
    "estimator",
    [
        ConvFeaturesOfRows(KMeansFilters(2, 1, random_state=0), pooling=GridPool(1)),
        KMeansOfRows(2, 1),
        RandomOfRows(2, 1),
        SampledOfRows(2, 1),
    ],
    ids=lambda e: type(e).__name__,
)
def test_scikit_learns_own_checks(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None)
    failed = {r["check_name"]: str(r["exception"]) for r in results if r["status"] == "failed"}
    assert set(failed) <= ROWS_ONLY, failed
    assert sum(r["status"] == "passed" for r in results) > 30


def test_features_are_the_encoded_maps_pooled():
    features = ConvFeatures(source()).fit(IMAGES)
    out = features.transform(IMAGES)
    x = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float()
    maps = Triangle()(Comparison(features.source_)(x)).numpy()  # (12, 7, 7, 10)
    quadrants = [maps[:, :, :4, :5], maps[:, :, :4, 5:], maps[:, :, 4:, :5], maps[:, :, 4:, 5:]]
    np.testing.assert_allclose(out, np.concatenate([q.sum((2, 3)) for q in quadrants], 1), rtol=1e-4, atol=1e-3)
    assert out.dtype == np.float32
    names = features.get_feature_names_out()
    assert (names[0], names[8], names[-1], len(names)) == ("r0c0_filter0", "r0c1_filter1", "r1c1_filter6", out.shape[1])


def test_few_images_at_a_time_are_as_many(monkeypatch):
    features = ConvFeatures(source()).fit(IMAGES)
    whole = features.transform(IMAGES)
    seen = []
    monkeypatch.setattr(module, "_MAPS", 1)
    features.set_params(progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(features.transform(IMAGES), whole, rtol=1e-5, atol=1e-4)
    assert seen == [(k + 1, 12) for k in range(12)]


def test_images_however_they_come():
    features = ConvFeatures(source()).fit(IMAGES)
    expected = features.transform(IMAGES)
    for given in (IMAGES.transpose(0, 3, 1, 2), list(IMAGES), iter(IMAGES), torch.from_numpy(IMAGES), IMAGES.astype(np.float64)):
        np.testing.assert_allclose(features.transform(given), expected, rtol=1e-4, atol=1e-3)
    sizes = [IMAGES[0], IMAGES[1, :7], IMAGES[2, :, :8]]
    mixed = features.transform(sizes)
    for row, image in zip(mixed, sizes, strict=True):
        np.testing.assert_allclose(row, features.transform(image[None])[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("encoder", ["triangle", "hard", "soft", "rectified", "sparse"])
@pytest.mark.parametrize("pooling", ["quadrants", "pyramid", Pyramid((1, 3), "mean"), GridPool((1, 2), "max")])
def test_every_encoder_with_every_pooling(encoder, pooling):
    features = ConvFeatures(source(), encoder, pooling, stride=2 if pooling == "quadrants" else 1)
    out = features.fit_transform(IMAGES)
    assert out.shape == (12, len(features.get_feature_names_out()))
    assert np.isfinite(out).all()
    assert out.any()


def test_learning_does_not_touch_what_was_given_unless_prefit():
    given = source()
    features = ConvFeatures(given).fit(IMAGES)
    assert not hasattr(given, "filters_")
    ready = source().fit(IMAGES)
    again = ConvFeatures(ready, prefit=True).fit(IMAGES[:2])
    assert again.source_ is ready
    np.testing.assert_array_equal(again.transform(IMAGES), features.transform(IMAGES))


def test_copies_and_pickles_give_the_same_features():
    features = ConvFeatures(source()).fit(IMAGES)
    expected = features.transform(IMAGES)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(features)).transform(IMAGES), expected)
    np.testing.assert_array_equal(clone(features).fit(IMAGES).transform(IMAGES), expected)


def test_as_a_frame():
    pandas = pytest.importorskip("pandas")
    frame = ConvFeatures(source()).set_output(transform="pandas").fit_transform(IMAGES)
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns[:2]) == ["r0c0_filter0", "r0c0_filter1"]


def stripes():
    """Two classes, stripes that lie and that stand, in noise."""
    rng, y = np.random.default_rng(1), np.arange(40) % 2
    lines = np.sin(np.arange(12) * 1.7)
    x = np.where(y[:, None, None] == 0, lines[:10, None], lines[None, :]) + rng.normal(size=(40, 10, 12)) * 0.3
    return np.stack([np.roll(image, rng.integers(0, 4, 2), (0, 1)) for image in x]), y


def test_in_pipelines_and_searches():
    x, y = stripes()
    pipeline = make_pipeline(ConvFeatures(KMeansFilters(8, 3, random_state=0)), StandardScaler(), LogisticRegression())
    assert cross_val_score(pipeline, x, y, cv=4, n_jobs=2).mean() > 0.9
    search = GridSearchCV(
        pipeline,
        {
            "convfeatures__filters__n_filters": [2, 8],
            "convfeatures__encoder": ["triangle", "hard"],
            "convfeatures__pooling": [QuadrantSums()],
        },
        cv=2,
    ).fit(x, y)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_score_ > 0.8


def test_partial_fit_goes_on():
    features = ConvFeatures(KMeansFilters(5, 3, random_state=0))
    for part in (IMAGES[:6], IMAGES[6:]):
        features.partial_fit(part)
    assert features.transform(IMAGES).shape == (12, 20)
    with pytest.raises(ArgumentTypeError, match="RandomFilters cannot go on learning"):
        ConvFeatures(RandomFilters(5, 3)).partial_fit(IMAGES)


def test_what_is_refused():
    features = ConvFeatures(source()).fit(IMAGES)
    with pytest.raises(ArgumentError, match="no images to transform"):
        features.transform([])
    with pytest.raises(ShapeError, match="have 1 channels, and the filters were learned from 3"):
        features.transform(IMAGES[..., 0])
    with pytest.raises(ShapeError, match="smaller than the filters"):
        features.transform([IMAGES[0], IMAGES[0, :2]])
    with pytest.raises(ShapeError, match=r"a map of 1x10 positions cannot be cut into 2x2 regions"):
        features.transform(IMAGES[:, :3])
    with pytest.raises(ArgumentTypeError, match="no source of filters"):
        ConvFeatures("kmeans").fit(IMAGES)
    with pytest.raises(ArgumentError, match="stride=0"):
        ConvFeatures(source(), stride=0).fit(IMAGES)
    with pytest.raises(ArgumentError, match="encoder='squares'"):
        ConvFeatures(source(), "squares").fit(IMAGES)
    with pytest.raises(ArgumentError, match="pooling=3"):
        ConvFeatures(source(), pooling=3).fit(IMAGES)
    with pytest.raises(ArgumentError, match="operation='median'"):
        ConvFeatures(source(), pooling=GridPool(2, "median")).fit_transform(IMAGES)


@pytest.mark.parametrize("encoder", ["triangle", "rectified"])
def test_a_stream_leaves_gradients_to_whoever_reads_it(encoder):
    features = ConvFeatures(RandomFilters(20, 3, random_state=0), encoder).fit(IMAGES)
    streams = [features.stream(IMAGES) for _ in range(2)]
    for one in streams:
        next(one)
        assert torch.is_grad_enabled()
    del streams, one  # left in the order in which they were begun
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_filters_that_were_fitted_before_stay_so_under_validation(n_jobs):
    labels = np.arange(12) % 2
    fitted = source(20).fit(IMAGES)
    made = make_pipeline(ConvFeatures(fitted, prefit=True), LogisticRegression())
    search = GridSearchCV(made, {"convfeatures__encoder": ["triangle", "soft"]}, cv=2, n_jobs=n_jobs, error_score="raise")
    search.fit(IMAGES, labels)
    features = search.best_estimator_[0]
    assert np.array_equal(features.source_.filters_, fitted.filters_)
    rows = ConvFeatures(fitted, search.best_params_["convfeatures__encoder"], prefit=True).fit(IMAGES).transform(IMAGES)
    assert np.array_equal(search.best_estimator_.predict(IMAGES), search.best_estimator_[1].predict(rows))


def test_a_clone_shares_only_what_was_fitted_before():
    fitted = source().fit(IMAGES)
    assert clone(ConvFeatures(fitted, prefit=True)).filters is fitted
    assert clone(make_pipeline(ConvFeatures(fitted, prefit=True)))[0].filters is fitted
    assert not hasattr(clone(ConvFeatures(fitted)).filters, "filters_")
    encoder = Triangle()
    assert clone(ConvFeatures(fitted, encoder, prefit=True)).encoder is not encoder


def test_a_pipeline_with_a_memory_takes_filters_that_were_fitted_before(tmp_path):
    made = make_pipeline(ConvFeatures(source(20).fit(IMAGES), prefit=True), LogisticRegression(), memory=str(tmp_path))
    assert made.fit(IMAGES, np.arange(12) % 2).predict(IMAGES).shape == (12,)
