"""Matrices: the definition row by row, the structure the chapter states, products, and singular values against a decomposition."""

import numpy as np
import pytest
import torch
from scipy import linalg

import ninefold as nf
from ninefold import nn, reference
from ninefold.errors import ArgumentError, ShapeError
from ninefold.testing import operands
from ninefold.testing.shapes import load_shapes

SPECS = {
    "strided": (nf.ConvSpec(2, 3, (3, 2), stride=(2, 1), padding=((1, 0), (0, 2))), (6, 5)),
    "mode": (nf.ConvSpec(2, 3, (4,), padding="same", padding_mode="reflect", dilation=2), (11,)),
    "flipped, tiled": (nf.ConvSpec(2, 4, (2, 3), groups=2, period=(2, 3), flip_kernel=True), (6, 7)),
    "table": (nf.ConvSpec(3, 2, (2, 3), table=((0, 0), (0, 2), (1, 1))), (4, 5)),
    "transposed": (nf.ConvSpec(2, 3, (3, 2), stride=2, padding=(1, 0), output_padding=(1, 0), transposed=True), (4, 3)),
}


def weight_of(spec, size, dtype=torch.double):
    return torch.randint(-4, 5, spec.weight_shape(size)).to(dtype)


@pytest.mark.parametrize(("spec", "size"), SPECS.values(), ids=SPECS)
def test_a_matrix_times_an_example_is_the_layer_and_its_transpose_the_adjoint(spec, size):
    K, form = weight_of(spec, size), spec.form(size)
    matrix = nf.conv_matrix(spec, size, weight=K)
    run, back = (reference.h, reference.c) if spec.transposed else (reference.c, reference.h)
    ends = (form.output_shape(1), form.input_shape(1)) if spec.transposed else (form.input_shape(1), form.output_shape(1))
    x, g = (np.random.default_rng(0).integers(-4, 5, s).astype(float) for s in ends)
    assert np.array_equal(matrix @ x.ravel(), run(form, K.numpy(), x).ravel())
    assert np.array_equal(matrix.T @ g.ravel(), back(form, K.numpy(), g).ravel())


@pytest.mark.parametrize("shape", [s for s in load_shapes("bench/shapes") if s.contract and s.batch], ids=lambda s: s.name)
def test_terms_are_the_form_itself(shape):
    form = shape.form
    if form.channels.connections * np.prod(form.kernel) * np.prod(form.n_out) > 1e6:
        pytest.skip("the terms of a large form are many")
    K, V = (x.double().round().numpy() for x in operands("c", form, 1))
    outputs, inputs, weights = reference.terms(form)
    total = np.zeros(form.output_shape(1)).ravel()
    np.add.at(total, outputs, V.ravel()[inputs] * K.ravel()[weights])
    assert np.array_equal(total.reshape(form.output_shape(1)), reference.c(form, K, V))
    assert form.mode != "zeros" or len(outputs) == form.connections


@pytest.mark.parametrize(("spec", "size"), SPECS.values(), ids=SPECS)
def test_an_operator_is_its_matrix(spec, size):
    K = weight_of(spec, size)
    matrix, operator = nf.conv_matrix(spec, size, weight=K), nf.as_linear_operator(spec, size, weight=K)
    assert operator.shape == matrix.shape
    np.testing.assert_allclose(operator @ np.eye(matrix.shape[1]), matrix.toarray(), atol=1e-12)
    np.testing.assert_allclose(operator.H @ np.eye(matrix.shape[0]), matrix.toarray().T, atol=1e-12)
    np.testing.assert_allclose(operator.matvec(np.arange(matrix.shape[1])), matrix @ np.arange(matrix.shape[1]), atol=1e-10)


def test_a_complex_operator_has_a_conjugate_adjoint():
    spec = nf.ConvSpec(2, 3, (3,), stride=2)
    K = torch.complex(weight_of(spec, 8), weight_of(spec, 8))
    matrix, operator = nf.conv_matrix(spec, 8, weight=K), nf.as_linear_operator(spec, 8, weight=K)
    np.testing.assert_allclose(operator.H @ np.eye(matrix.shape[0]), matrix.toarray().conj().T, atol=1e-12)


def test_rows_are_shifts_of_one_another():
    kernel = torch.tensor([3.0, 1.0, 4.0, 1.5])
    valid = nf.conv_matrix(nf.ConvSpec(1, 1, (4,)), 9, weight=kernel[None, None]).toarray()
    assert np.array_equal(valid, linalg.toeplitz([3.0, *[0] * 5], [3.0, 1.0, 4.0, 1.5, *[0] * 5]))
    ring = nf.ConvSpec(1, 1, (4,), padding=((0, 3),), padding_mode="circular")
    circulant = nf.conv_matrix(ring, 9, weight=kernel[None, None]).toarray()
    assert np.array_equal(circulant.T, linalg.circulant([3.0, 1.0, 4.0, 1.5, *[0] * 5]))
    two = nf.ConvSpec(1, 1, (2, 3), padding=((0, 1), (0, 2)), padding_mode="circular")
    doubly = nf.conv_matrix(two, (4, 5), weight=weight_of(two, (4, 5))).toarray().reshape(4, 5, 4, 5)
    for a in range(4):
        for b in range(5):
            assert np.array_equal(doubly[a, b], np.roll(doubly[0, 0], (a, b), (0, 1)))


def test_the_edge_detector_of_the_chapter():
    spec = nf.ConvSpec(1, 1, (1, 2))
    matrix = nf.conv_matrix(spec, (280, 320), weight=torch.tensor([[[[-1.0, 1.0]]]]))
    assert matrix.shape == (89_320, 89_600)
    assert matrix.nnz == 178_640
    assert matrix.shape[0] * matrix.shape[1] == 8_003_072_000
    x = np.random.default_rng(0).integers(0, 256, (280, 320))
    assert np.array_equal((matrix @ x.ravel()).reshape(280, 319), x[:, 1:] - x[:, :-1])


CIRCULAR = {
    "plain": (nf.ConvSpec(2, 3, (3, 2), padding=((1, 1), (0, 1)), padding_mode="circular"), (5, 6)),
    "dilated, grouped, flipped": (
        nf.ConvSpec(4, 6, (3,), padding=2, dilation=2, groups=2, padding_mode="circular", flip_kernel=True),
        (8,),  # even: with a size that is prime to the dilation the frequencies would only change places
    ),
    "transposed": (nf.ConvSpec(3, 2, (3,), padding=1, padding_mode="circular", transposed=True), (8,)),
}


@pytest.mark.parametrize(("spec", "size"), CIRCULAR.values(), ids=CIRCULAR)
def test_singular_values_in_closed_form_are_those_of_the_matrix(spec, size, monkeypatch):
    K = weight_of(spec, size)
    expected = np.linalg.svd(nf.conv_matrix(spec, size, weight=K).toarray(), compute_uv=False)
    monkeypatch.setattr("ninefold.matrix.conv_matrix", None)
    np.testing.assert_allclose(nf.singular_values(spec, size, weight=K), expected, atol=1e-10)


def test_the_operator_norm_by_iteration_and_of_a_layer(monkeypatch):
    layer = nn.Conv2d(3, 5, (3, 2), stride=2, padding=1)
    whole = np.linalg.svd(nf.conv_matrix(layer, (9, 8)).toarray(), compute_uv=False)
    for limit in ("_SMALL", "_DENSE"):
        monkeypatch.setattr(f"ninefold.matrix.{limit}", 1)
    np.testing.assert_allclose(nf.singular_values(layer, (9, 8), count=4), whole[:4], rtol=1e-6)
    assert nf.operator_norm(layer, (9, 8)) == pytest.approx(whole[0], rel=1e-6)
    with pytest.raises(ArgumentError, match="all singular values of a .* give count for a few"):
        nf.singular_values(layer, (9, 8))


def test_what_is_missing_is_said():
    with pytest.raises(ArgumentError, match=r"a description has no weight .* shape \(1, 1, 3\)"):
        nf.conv_matrix(nf.ConvSpec(1, 1, (3,)), 8)
    with pytest.raises(ShapeError, match=r"weight has shape \(1, 1, 2\); this convolution needs \(1, 1, 3\)"):
        nf.conv_matrix(nf.ConvSpec(1, 1, (3,)), 8, weight=torch.ones(1, 1, 2))
    with pytest.raises(ArgumentError, match="count=9 must be from 1 to 8, .* 8 x 10 matrix"):
        nf.singular_values(nf.ConvSpec(1, 1, (3,)), 10, weight=torch.ones(1, 1, 3), count=9)
