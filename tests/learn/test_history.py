"""What sources that learn in several passes record of them: the error that is left, and how sparse the codes are."""

import pickle

import numpy as np
import pytest

from ninefold.learn import ConvRBM, Images, KMeansFilters, OMPFilters, SparseCodingFilters, SparseEncoderDecoder, sparse
from ninefold.learn.coding import synthesis
from ninefold.learn.omp import matching_pursuit
from ninefold.learn.patches import draw_patches

IMAGES = np.random.default_rng(0).normal(size=(12, 15, 13)).cumsum(1).cumsum(2)

SOURCES = {
    "rbm": (ConvRBM(5, (3, 2), n_epochs=3, random_state=0), 3),
    "kmeans": (KMeansFilters(5, (3, 2), max_iter=15, random_state=0), 2),
    "omp": (OMPFilters(5, (3, 2), n_nonzero=2, max_iter=4, random_state=0), 4),
    "sparse": (SparseCodingFilters(5, (3, 2), n_iter=6, predictor_iter=2, random_state=0), 6),
    "switches": (SparseEncoderDecoder(5, (3, 2), n_epochs=3, random_state=0), 3),
}


@pytest.mark.parametrize(("source", "passes"), SOURCES.values(), ids=SOURCES)
def test_an_entry_for_each_pass_over_pickling_and_afresh_when_fitted_again(source, passes):
    source.fit(IMAGES)
    assert {key: len(values) for key, values in source.history_.items()} == {"error": passes, "sparsity": passes}
    assert all(0 < value < 1.5 for values in source.history_.values() for value in values)
    first = source.history_
    more = pickle.loads(pickle.dumps(source)).partial_fit(IMAGES)
    assert all(more.history_[key][:passes] == first[key] and len(more.history_[key]) > passes for key in first)
    assert len(source.history_["error"]) == passes
    assert source.fit(IMAGES).history_ == first
    assert source.history_ is not first


def test_a_boltzmann_machine_records_its_errors_and_activities():
    rbm = ConvRBM(5, (3, 2), n_epochs=2, random_state=0).fit(IMAGES).partial_fit(IMAGES)
    assert rbm.history_ == {"error": rbm.errors_, "sparsity": rbm.sparsity_}
    assert len(rbm.errors_) == 3


def left(rows, atoms):
    """Return the share of the squares of rows that the nearest atoms leave."""
    return ((rows[:, None] - atoms.reshape(len(atoms), -1)) ** 2).sum(-1).min(1).sum() / (rows**2).sum()


def test_k_means_records_what_centroids_leave():
    rows = draw_patches(Images(IMAGES), (3, 2), 900, 0)
    source = KMeansFilters(6, (3, 2), n_patches=900, max_iter=300, random_state=0).fit(IMAGES)
    assert source.history_["error"][-1] == pytest.approx(left(source.preparation_(rows).numpy(), source.atoms_), rel=1e-3)
    assert source.history_["sparsity"] == [1 / 6] * len(source.history_["error"])
    assert source.history_["error"] == sorted(source.history_["error"], reverse=True)
    parts = KMeansFilters(6, (3, 2), n_patches=900, random_state=0)
    for _ in range(3):
        parts.partial_fit(IMAGES)
    assert parts.history_["error"][-1] == pytest.approx(left(parts.preparation_(rows).numpy(), parts.atoms_), rel=1e-3)
    assert parts.history_["sparsity"] == [1 / 6] * 3


def test_k_means_of_nothing_leaves_nothing():
    with pytest.warns(UserWarning, match="there will be 1"):
        source = KMeansFilters(4, 3, random_state=0).fit(np.full((3, 6, 7), 128, np.uint8))
    assert source.history_ == {"error": [0.0], "sparsity": [1.0]}


def test_matching_pursuit_records_what_it_leaves_and_the_coefficients_that_are_not_zero():
    source = OMPFilters(6, (3, 2), n_nonzero=2, max_iter=1, n_patches=50, random_state=0)
    rows, generator, _ = source._started(IMAGES, afresh=True)
    atoms = source._atoms.clone()
    source._iterate(rows, generator, kept=0.0)
    chosen, codes = matching_pursuit(rows, atoms, 2)
    errors = (rows - (codes[:, :, None] * atoms[chosen]).sum(1)).square().sum()
    assert source.history_["error"] == [pytest.approx(float(errors / rows.square().sum()), rel=1e-5)]
    assert source.history_["sparsity"] == [float(codes.count_nonzero()) / (50 * 6)]


def test_sparse_coding_records_what_the_stepped_atoms_leave(monkeypatch):
    found, real = [], sparse.updated_atoms

    def seen(state, atoms):
        new, squared = real(state, atoms)
        found.append(synthesis(state.codes(), new, "circular"))
        return new, squared

    monkeypatch.setattr(sparse, "updated_atoms", seen)
    images = (IMAGES - IMAGES.mean()) / IMAGES.std()
    source = SparseCodingFilters(5, (3, 2), n_iter=4, window=None, border="circular", predictor_iter=0, random_state=0).fit(
        images
    )
    wanted = [float(np.square(made[:, 0].numpy() - images).sum() / np.square(images).sum()) for made in found]
    np.testing.assert_allclose(source.history_["error"], wanted, rtol=1e-3)
    assert source.history_["sparsity"] == source.sparsity_


def test_an_encoder_and_decoder_record_means_over_the_steps_of_an_epoch():
    source = SparseEncoderDecoder(5, (3, 2), n_crops=25, batch_size=10, n_epochs=2, random_state=0).fit(IMAGES)
    assert len(source.error_) == 6
    np.testing.assert_allclose(source.history_["error"], np.reshape(source.error_, (2, 3)).mean(1))
    np.testing.assert_allclose(source.history_["sparsity"], np.reshape(source.activity_, (2, 3)).mean(1))
