"""What a convolution's matrix looks like (section 9.1): Toeplitz, block Toeplitz, and circulant where the border is circular."""

import numpy as np
import pytest
import torch
from scipy import linalg

import ninefold as nf


def integers(*shape, seed=0):
    """Return integers of which none is zero and none occurs twice."""
    values = np.random.default_rng(seed).permutation(np.arange(1, np.prod(shape) + 1))
    return torch.from_numpy(values.reshape(shape).astype(float))


def dense(spec, size, K):
    return nf.conv_matrix(spec, size, weight=K).toarray()


@pytest.mark.parametrize("pads", [(0, 0), (2, 1), (3, 3)], ids=["valid", "same", "full"])
def test_each_row_is_the_one_before_moved_by_one(pads):
    spec, K = nf.ConvSpec(1, 1, (4,), padding=(pads,)), integers(1, 1, 4)
    T = dense(spec, (9,), K)
    assert np.array_equal(T[1:, 1:], T[:-1, :-1])
    assert np.array_equal(T, linalg.toeplitz(T[:, 0], T[0]))
    wrapped = np.array_equal(np.roll(T, 1, axis=1)[:-1], T[1:])  # circulant as far as the rows go: valid only
    assert wrapped == (pads == (0, 0))


@pytest.mark.parametrize(("n", "k"), [(9, 4), (13, 1), (6, 6), (40, 7)])
def test_the_kernels_entries_and_no_others(n, k):
    K = integers(1, 1, k)
    T = nf.conv_matrix(nf.ConvSpec(1, 1, (k,)), n, weight=K)
    assert T.shape == (n - k + 1, n)
    assert T.nnz == np.count_nonzero(T.toarray()) == k * (n - k + 1)
    assert set(T.data) == set(K.numpy().ravel())
    assert np.square(T.data).sum() == (n - k + 1) * float(K.square().sum())


def test_a_stride_moves_rows_by_itself_and_dilation_spreads_them():
    T = dense(nf.ConvSpec(1, 1, (3,), stride=2, dilation=3), (14,), integers(1, 1, 3))
    assert np.array_equal(T[1:, 2:], T[:-1, :-2])
    assert np.flatnonzero(T[0]).tolist() == [0, 3, 6]


@pytest.mark.parametrize("padding", [0, ((1, 0), (2, 1)), "full"], ids=["valid", "same", "full"])
def test_in_two_dimensions_it_is_block_toeplitz_with_toeplitz_blocks(padding):
    spec, size = nf.ConvSpec(1, 1, (2, 4), padding=padding), (5, 7)
    K = integers(1, 1, 2, 4)
    (rows, columns), (high, wide) = spec.output_size(size), size
    blocks = dense(spec, size, K).reshape(rows, columns, high, wide).transpose(0, 2, 1, 3)  # block row, block column, inside
    assert np.array_equal(blocks[1:, 1:], blocks[:-1, :-1])
    for a in range(rows):
        for b in range(high):
            assert np.array_equal(blocks[a, b], linalg.toeplitz(blocks[a, b][:, 0], blocks[a, b][0]))
    assert sum(blocks[0, b].any() for b in range(high)) <= 2  # a band as wide as the kernel is high
    turned = np.roll(blocks, 1, axis=1)
    assert not np.array_equal(turned[:-1], blocks[1:]) or padding == 0  # circulant it is not, the border aside


def test_with_a_circular_border_the_fourier_transform_makes_it_diagonal():
    spec, size = nf.ConvSpec(1, 1, (2, 3), padding=((1, 0), (2, 0)), padding_mode="circular", flip_kernel=True), (4, 5)
    K = integers(1, 1, 2, 3)
    C = dense(spec, size, K)
    blocks = C.reshape(4, 5, 4, 5)
    for a in range(4):
        for b in range(5):
            assert np.array_equal(blocks[a, b], np.roll(blocks[0, 0], (a, b), (0, 1)))
    F = np.kron(np.fft.fft(np.eye(4)), np.fft.fft(np.eye(5)))
    eigenvalues = np.fft.fft2(K[0, 0].numpy(), s=size).ravel()  # of the true convolution: zeros behind the kernel
    np.testing.assert_allclose(np.linalg.inv(F) @ np.diag(eigenvalues) @ F, C, atol=1e-10)
    np.testing.assert_allclose(C @ F.conj().T, F.conj().T * eigenvalues, atol=1e-9)
    assert np.square(C).sum() == 4 * 5 * float(K.square().sum())


def test_a_circular_matrix_commutes_with_every_other_and_a_linear_one_does_not():
    size = (4, 5)
    ring = {"padding": ((1, 0), (2, 0)), "padding_mode": "circular"}
    A, B = (dense(nf.ConvSpec(1, 1, (2, 3), **ring), size, integers(1, 1, 2, 3, seed=s)) for s in (1, 2))
    assert np.array_equal(A @ B, B @ A)
    A, B = (dense(nf.ConvSpec(1, 1, (2, 3), padding="same"), size, integers(1, 1, 2, 3, seed=s)) for s in (1, 2))
    assert not np.array_equal(A @ B, B @ A)


def test_the_matrix_grows_with_the_input_and_the_kernel_does_not():
    spec, K = nf.ConvSpec(2, 3, (3, 2)), integers(3, 2, 3, 2)
    small, large = (nf.conv_matrix(spec, size, weight=K) for size in ((4, 5), (6, 9)))
    assert (small.shape, large.shape) == ((3 * 2 * 4, 2 * 20), (3 * 4 * 8, 2 * 54))
    assert set(small.data) == set(large.data) == set(K.numpy().ravel())


def test_tiles_repeat_with_their_period_and_unshared_rows_have_nothing_in_common():
    tiled = nf.ConvSpec(1, 1, (2,), period=3)
    T = dense(tiled, (10,), integers(1, 3, 1, 2))
    assert np.array_equal(T[3:, 3:], T[:-3, :-3])
    assert not np.array_equal(T[1:, 1:], T[:-1, :-1])
    local = nf.conv_matrix(nf.ConvSpec(1, 1, (2,), period=None), 10, weight=integers(1, 9, 1, 2))
    assert len(set(local.data)) == local.nnz == 18
