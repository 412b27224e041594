"""The definitions against torch, SciPy and NumPy, and the exact tests of sections 1 and 4 of the chapter's facts."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from scipy import linalg, signal

from ninefold import reference
from ninefold.errors import ShapeError
from ninefold.spec import ConvSpec
from ninefold.testing.strategies import shapes

RNG = np.random.default_rng(3)
CONV = (F.conv1d, F.conv2d, F.conv3d)


def ints(*shape):
    return RNG.integers(1, 6, shape) * RNG.choice((-1, 1), shape)


def problem(spec, size, batch=2):
    form = spec.form(size)
    return form, ints(*form.weight_shape), ints(*form.input_shape(batch)), ints(*form.output_shape(batch))


def conv(x, k, padding, *, flip=False, mode="zeros"):
    """Two images, one channel."""
    spec = ConvSpec(1, 1, k.shape, padding=padding, flip_kernel=flip, padding_mode=mode)
    return reference.c(spec.form(x.shape), k[None, None], x[None, None])[0, 0]


# against others


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(shapes())
def test_all_maps_are_torchs_and_its_gradients(shape):
    """Torch's own padding writes the border out, and its autograd gives h and g."""
    spec = shape.spec.replace(transposed=False, output_padding=0)
    assume(spec.table is None and not spec.tiled and shape.batch)
    try:
        form, K, V, G = problem(spec, shape.form.n_in, shape.batch)
    except ShapeError:
        form = None
    assume(form is not None and 0 not in form.n_in)
    assume(form.mode in ("zeros", "reflect", "replicate", "circular") and all(a.lo >= 0 and a.hi >= 0 for a in form.axes))
    fits = {"reflect": lambda a: max(a.lo, a.hi) < a.n_in, "circular": lambda a: max(a.lo, a.hi) <= a.n_in}
    assume(all(fits.get(form.mode, lambda a: True)(a) for a in form.axes))
    Kt, Vt = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (K, V))
    pads = [p for a in reversed(form.axes) for p in (a.lo, a.hi)]
    x = F.pad(Vt, pads, mode="constant" if form.mode == "zeros" else form.mode) if any(pads) else Vt
    k = Kt.flip(tuple(range(2, Kt.ndim))) if form.flip else Kt
    Z = CONV[form.ndim - 1](x, k, None, form.stride, 0, form.dilation, form.channels.groups)
    assert Z.shape == form.output_shape(shape.batch)
    Z.backward(torch.tensor(G, dtype=torch.float64))
    assert np.array_equal(reference.c(form, K, V), Z.detach().numpy())
    assert np.array_equal(reference.h(form, K, G), Vt.grad.numpy())
    assert np.array_equal(reference.g(form, V, G), Kt.grad.numpy())


@pytest.mark.parametrize("mode", ["valid", "full", "same"])
@pytest.mark.parametrize(("size", "kernel"), [((7, 9), (3, 5)), ((8, 5), (2, 4)), ((6, 11), (5, 2))])
def test_correlation_and_convolution_are_scipys(mode, size, kernel):
    """SciPy's "same" with even kernels: ``convolve2d`` puts the odd zero in front, ``correlate2d`` at the end."""
    x, k = ints(*size), ints(*kernel)
    ours = {"convolve2d": "same_lower", "correlate2d": "same_upper"}
    for name, flip in (("convolve2d", True), ("correlate2d", False)):
        policy = ours[name] if mode == "same" else mode
        expected = getattr(signal, name)(x, k, mode)
        assert np.array_equal(conv(x, k, policy, flip=flip), expected), name


@pytest.mark.parametrize("mode", ["valid", "full", "same"])
def test_true_convolution_is_numpys(mode):
    x, k = ints(11), ints(4)
    spec = ConvSpec(1, 1, (4,), padding="same_lower" if mode == "same" else mode, flip_kernel=True)
    ours = reference.c(spec.form(11), k[None, None], x[None, None])[0, 0]
    if mode == "same":
        assert np.convolve([1, 2, 3], [1, 1], "same").tolist() == [1, 3, 5]
    assert np.array_equal(ours, np.convolve(x, k, mode))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("reflect", "reflect"),
        ("symmetric", "symmetric"),
        ("replicate", "edge"),
        ("circular", "wrap"),
        ("zeros", "constant"),
    ],
)
def test_borders_are_those_of_numpy_pad(ours, theirs):
    form, K, V, _ = problem(ConvSpec(2, 3, (3, 2), padding=((2, 3), (1, 4)), padding_mode=ours, stride=(2, 1)), (6, 5))
    inside = ConvSpec(2, 3, (3, 2), stride=(2, 1)).form((11, 10))
    padded = np.pad(V, ((0, 0), (0, 0), (2, 3), (1, 4)), theirs)
    assert np.array_equal(reference.c(form, K, V), reference.c(inside, K, padded))


# 1.1 convolution, cross-correlation, commutativity


@pytest.mark.parametrize("mode", ["valid", "full", "same"])
def test_convolution_is_correlation_with_the_flipped_kernel(mode):
    x, k = ints(8, 6), ints(3, 5)
    assert np.array_equal(conv(x, k, mode, flip=True), conv(x, k[::-1, ::-1], mode))
    assert not np.array_equal(conv(x, k, mode, flip=True), conv(x, k, mode))


def test_full_convolution_commutes_and_associates_and_correlation_does_not():
    a, b, c = ints(6, 5), ints(3, 4), ints(2, 3)

    def star(x, y):
        return conv(x, y, "full", flip=True)

    assert np.array_equal(star(a, b), star(b, a))
    assert np.array_equal(star(star(a, b), c), star(a, star(b, c)))
    assert np.array_equal(conv(a, b, "full"), conv(b, a, "full")[::-1, ::-1])
    assert not np.array_equal(conv(a, b, "full"), conv(b, a, "full"))


# 1.2 Toeplitz and doubly block circulant matrices


def matrix_of(form, K):
    """Return the matrix of c, column by column."""
    n, m = np.prod(form.input_shape(1)), np.prod(form.output_shape(1))
    units = np.eye(n, dtype=np.int64).reshape(n, *form.input_shape(1)[1:])
    return reference.c(form, K, units).reshape(n, m).T


def test_valid_correlation_is_a_toeplitz_matrix():
    n, w = 9, np.array([2, -3, 5, 7])
    form = ConvSpec(1, 1, (4,)).form(n)
    T = matrix_of(form, w[None, None])
    assert np.array_equal(T, linalg.toeplitz([2, *[0] * 5], [*w, *[0] * 5]))
    assert np.count_nonzero(T) == 4 * (n - 4 + 1)
    assert set(np.unique(T)) - {0} == set(w)
    G = ints(1, 1, 6)
    assert np.array_equal(reference.h(form, w[None, None], G)[0, 0], T.T @ G[0, 0])


def test_circular_correlation_is_diagonal_under_the_fourier_transform():
    shape, k = (5, 6), ints(2, 3)
    spec = ConvSpec(1, 1, k.shape, padding=((0, 1), (0, 2)), padding_mode="circular")
    C = matrix_of(spec.form(shape), k[None, None])
    assert (C**2).sum() == 30 * (k**2).sum()
    padded = np.zeros(shape)
    padded[:2, :3] = k
    dft = np.kron(np.fft.fft(np.eye(5)), np.fft.fft(np.eye(6)))
    diagonal = dft @ C @ np.linalg.inv(dft)
    assert np.allclose(diagonal, np.diag(np.fft.fft2(padded).conj().ravel()))


# 1.4 equivariance


def test_circular_convolution_is_equivariant_to_every_shift():
    x, k = ints(7, 6), ints(3, 2)
    for s in itertools.product(range(7), range(6)):
        shifted = conv(np.roll(x, s, (0, 1)), k, ((1, 1), (0, 1)), mode="circular")
        assert np.array_equal(shifted, np.roll(conv(x, k, ((1, 1), (0, 1)), mode="circular"), s, (0, 1)))


def test_zero_padding_is_equivariant_only_away_from_the_border():
    x, k = ints(12, 11), ints(5, 3)
    shifted, z = conv(np.roll(x, (1, 2), (0, 1)), k, "same"), np.roll(conv(x, k, "same"), (1, 2), (0, 1))
    inner = (slice(1 + 2, -2), slice(2 + 1, -1))
    assert np.array_equal(shifted[inner], z[inner])
    assert not np.array_equal(shifted, z)


def test_strides_and_periods_are_equivariant_to_their_multiples_only():
    spec = ConvSpec(1, 2, (3,), stride=3, padding=((0, 0),), padding_mode="circular")
    form, K, V, _ = problem(ConvSpec(1, 2, (3,), stride=3), 12)
    z = reference.c(form, K, V)
    assert spec.form(12).n_out == form.n_out
    assert np.array_equal(reference.c(form, K, np.roll(V, 3, 2)), np.roll(z, 1, 2))
    assert not any(np.array_equal(reference.c(form, K, np.roll(V, 1, 2)), np.roll(z, s, 2)) for s in range(4))
    tiled, K, V, _ = problem(ConvSpec(1, 2, (3,), period=(2,), padding=((1, 1),), padding_mode="circular"), 8)
    z = reference.c(tiled, K, V)
    for s in range(8):
        assert np.array_equal(reference.c(tiled, K, np.roll(V, s, 2)), np.roll(z, s, 2)) == (s % 2 == 0)


def test_rotation_turns_the_kernel_with_the_image():
    x, k = ints(7, 5), ints(3, 2)
    assert np.array_equal(np.rot90(conv(x, k, "valid")), conv(np.rot90(x), np.rot90(k), "valid"))
    square = ints(3, 3)
    assert not np.array_equal(np.rot90(conv(x, square, "valid")), conv(np.rot90(x), square, "valid"))


# 4.1 strides, 4.2 padding


@pytest.mark.parametrize("stride", [(2, 3), (3, 1), (5, 4)])
def test_strided_is_unit_stride_subsampled(stride):
    form, K, V, _ = problem(ConvSpec(2, 3, (3, 2), stride=stride), (11, 13))
    whole = reference.c(ConvSpec(2, 3, (3, 2)).form((11, 13)), K, V)
    assert np.array_equal(reference.c(form, K, V), whole[:, :, :: stride[0], :: stride[1]])
    assert form.n_out == ((11 - 3) // stride[0] + 1, (13 - 2) // stride[1] + 1)


def test_valid_and_same_are_crops_of_full():
    x, k = ints(9, 7), ints(4, 3)
    full = conv(x, k, "full")
    assert full.shape == (9 + 4 - 1, 7 + 3 - 1)
    assert np.array_equal(full[3 : 3 + 6, 2 : 2 + 5], conv(x, k, "valid"))
    # same_upper pads 1 in front of a kernel of 4, full pads 3: two rows more
    assert np.array_equal(full[2 : 2 + 9, 1 : 1 + 7], conv(x, k, "same"))
    ones = conv(np.ones((9, 7), int), np.ones((4, 3), int), "full")
    assert ones.sum() == 9 * 7 * 4 * 3


def test_even_kernels_put_the_odd_zero_at_the_end_as_torch():
    x, k = ints(1, 1, 9), ints(1, 1, 4)
    ours = reference.c(ConvSpec(1, 1, (4,), padding="same").form(9), k, x)
    theirs = F.conv1d(torch.tensor(x).double(), torch.tensor(k).double(), padding="same")
    assert np.array_equal(ours, theirs.numpy())
    assert ConvSpec(1, 1, (4,), padding=2).output_size(9) == (10,)


# 4.3 unshared, 4.4 tiled, 4.5 groups


def test_unshared_with_equal_kernels_is_a_convolution_and_its_gradient_sums_to_the_shared_one():
    shared, K, V, G = problem(ConvSpec(2, 3, (3, 2), stride=(2, 1), padding=((1, 0), (0, 1))), (9, 6))
    unshared = ConvSpec(2, 3, (3, 2), stride=(2, 1), padding=((1, 0), (0, 1)), period=None).form((9, 6))
    W = np.broadcast_to(K[:, None, None], unshared.weight_shape)
    assert unshared.weight_shape == (3, *shared.n_out, 2, 3, 2)
    assert np.array_equal(reference.c(unshared, W, V), reference.c(shared, K, V))
    assert np.array_equal(reference.h(unshared, W, G), reference.h(shared, K, G))
    D = reference.g(unshared, V, G)
    assert np.array_equal(D.sum((1, 2)), reference.g(shared, V, G))
    one = reference.g(unshared, V[:1], G[:1])[1, 2, 3]  # one output position: gradient times what it reads
    assert np.array_equal(one, G[0, 1, 2, 3] * V[0, :, 3:6, 3:5])


def test_unshared_is_not_equivariant():
    form, W, V, _ = problem(ConvSpec(1, 2, (3,), period=None, padding=((1, 1),), padding_mode="circular"), 7)
    z = reference.c(form, W, V)
    assert not any(np.array_equal(reference.c(form, W, np.roll(V, s, 2)), np.roll(z, s, 2)) for s in range(1, 7))


@pytest.mark.parametrize("period", [(2, 3), (3, 1), (1, 2)])
def test_tiled_is_strided_convolutions_interleaved(period):
    form, K, V, _ = problem(ConvSpec(2, 3, (3, 2), stride=(1, 2), period=period), (10, 17))
    Z = reference.c(form, K, V)
    for a, b in itertools.product(*map(range, period)):
        spec = ConvSpec(2, 3, (3, 2), stride=(period[0], 2 * period[1]), padding=((-a, 0), (-2 * b, 0)))
        part = reference.c(spec.form((10, 17)), K[:, a, b], V)
        assert np.array_equal(Z[:, :, a :: period[0], b :: period[1]], part)


def test_period_one_is_shared_and_period_past_the_outputs_is_unshared():
    size, fields = (7, 8), {"kernel_size": (3, 2), "stride": (1, 2)}
    shared, K, V, _ = problem(ConvSpec(2, 3, **fields), size)
    n_out = shared.n_out
    W = ints(3, *n_out, 2, 3, 2)
    unshared, longest = (ConvSpec(2, 3, **fields, period=p).form(size) for p in (None, n_out))
    assert np.array_equal(reference.c(unshared, W, V), reference.c(longest, W, V))
    mixed = ConvSpec(2, 3, **fields, period=(1, None)).form(size)
    W = np.broadcast_to(K[:, None, None], mixed.weight_shape)
    assert np.array_equal(reference.c(mixed, W, V), reference.c(shared, K, V))


def test_grouped_is_concatenation_and_a_table_is_what_it_says():
    fields = {"kernel_size": (3, 2), "stride": (2, 1), "padding": ((1, 0), (0, 1))}
    form, K, V, G = problem(ConvSpec(4, 6, groups=2, **fields), (7, 6))
    half = ConvSpec(2, 3, **fields).form((7, 6))
    parts = [(K[3 * k : 3 * k + 3], V[:, 2 * k : 2 * k + 2], G[:, 3 * k : 3 * k + 3]) for k in range(2)]
    assert np.array_equal(reference.c(form, K, V), np.concatenate([reference.c(half, k, v) for k, v, _ in parts], 1))
    assert np.array_equal(reference.h(form, K, G), np.concatenate([reference.h(half, k, g) for k, _, g in parts], 1))
    assert np.array_equal(reference.g(form, V, G), np.concatenate([reference.g(half, v, g) for _, v, g in parts]))
    edges = form.channels.edges
    table = ConvSpec(4, 6, table=edges, **fields).form((7, 6))
    assert np.array_equal(reference.c(table, K.reshape(-1, 3, 2), V), reference.c(form, K, V))


# 4.7 gradients


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_form_is_trilinear_exactly(stride):
    form, K, V, G = problem(ConvSpec(2, 3, (3, 5), stride=stride, padding=((1, 2), (0, 3))), (11, 10))
    pairings = {
        (reference.c(form, K, V) * G).sum(),
        (V * reference.h(form, K, G)).sum(),
        (K * reference.g(form, V, G)).sum(),
    }
    assert len(pairings) == 1
    K2, V2 = ints(*K.shape), ints(*V.shape)
    assert np.array_equal(reference.c(form, 2 * K - 3 * K2, V), 2 * reference.c(form, K, V) - 3 * reference.c(form, K2, V))
    assert np.array_equal(reference.c(form, K, V + 5 * V2), reference.c(form, K, V) + 5 * reference.c(form, K, V2))


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(shapes())
def test_h_and_g_are_adjoint_to_c(shape):
    form, K, V, G = problem(shape.spec, shape.size, shape.batch)[0], *_operands(shape)
    z, r, d = reference.c(form, K, V), reference.h(form, K, G), reference.g(form, V, G)
    assert (z * G).sum() == (V * r).sum() == (K * d).sum()
    assert (z.dtype, r.dtype, d.dtype) == (np.int64,) * 3


def _operands(shape):
    form = shape.form
    return ints(*form.weight_shape), ints(*form.input_shape(shape.batch)), ints(*form.output_shape(shape.batch))


def test_h_needs_the_size_and_leaves_unread_positions_exactly_zero():
    spec = ConvSpec(2, 3, (3, 2), stride=(3, 4))
    forms = [spec.form((n, 11)) for n in (9, 10, 11)]
    assert len({form.n_out for form in forms}) == 1
    _, K, _, G = problem(spec, (9, 11))
    results = [reference.h(form, K, G) for form in forms]
    for form, R in zip(forms, results, strict=True):
        assert R.shape == form.input_shape(2)
        assert np.array_equal(R[:, :, :9], results[0])
        assert not R[:, :, 9:].any()
        assert not R[..., 10:].any()


def test_h_is_a_full_true_convolution_at_unit_stride():
    form, K, _, G = problem(ConvSpec(1, 1, (3, 2)), (8, 7), batch=1)
    assert np.array_equal(reference.h(form, K, G)[0, 0], signal.convolve2d(G[0, 0], K[0, 0], "full"))
    V = ints(1, 1, 8, 7)
    assert np.array_equal(reference.g(form, V, G)[0, 0], signal.correlate2d(V[0, 0], G[0, 0], "valid"))


def test_infinities_that_cancel_are_nan_without_a_warning(recwarn):
    form = ConvSpec(1, 1, (2,)).form(3)
    V, G = np.array([[[np.inf, -np.inf, 1.0]]]), np.array([[[1.0, 1.0]]])
    assert np.isnan(reference.g(form, V, G)[0, 0, 0])
    assert not recwarn.list
