"""Section 1 of the notes: what a convolution is."""

import numpy as np
import torch
from scipy import signal

from ninefold import functional as F
from ninefold import nn, reference
from ninefold.chapter import drawn
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.given import agree, differing, integers
from ninefold.matrix import conv_matrix, singular_values
from ninefold.prior import tie_map
from ninefold.spec.conv import ConvSpec

__all__ = ["ENTRIES"]


@entry(
    "9.4",
    "Convolution turns the kernel over",
    "卷积: 翻转, 平移, 相乘, 求和",
    claim="S(i, j) = sum I(m, n) K(i - m, j - n): one function is mirrored, shifted, multiplied with the other, and summed.",
    source="eq. 9.4",
    uses=("ninefold.functional.conv2d", "ninefold.reference.c"),
    picture=drawn.convolution_and_correlation,
)
def definition() -> Finding:
    image, kernel = integers(6, 7), integers(3, 2, seed=1)
    ours = F.conv2d(image[None, None], kernel[None, None], padding="full", flip_kernel=True)[0, 0]
    summed = torch.zeros(8, 8).double()
    for (i, j), (m, n) in ((ij, mn) for ij in np.ndindex(8, 8) for mn in np.ndindex(6, 7)):
        if 0 <= i - m < 3 and 0 <= j - n < 2:
            summed[i, j] += image[m, n] * kernel[i - m, j - n]
    return agree(ours, summed, "sums")


@entry(
    "9.4 finite",
    "An infinite sum with finitely many terms",
    "有限个元素的和实现无限求和",
    claim="Functions that are zero but for finitely many points turn the infinite sum into a finite one.",
    source="section 9.1",
    uses=("ninefold.functional.conv1d",),
)
def finite_support() -> Finding:
    signal, kernel = integers(1, 1, 9), integers(1, 1, 4, seed=1)
    near = F.conv1d(signal, kernel, padding="full", flip_kernel=True)
    far = F.conv1d(torch.nn.functional.pad(signal, (500, 500)), kernel, padding="full", flip_kernel=True)
    outside = far.numel() - near.numel() - int((far[..., :500] == 0).sum() + (far[..., -500:] == 0).sum())
    return Finding(
        f"12 sums among {far.numel():,} can differ from 0; {outside} others do",
        outside == 0 and torch.equal(far[..., 500:-500], near),
        {"sums": far.numel(), "beyond": outside},
    )


@entry(
    "9.5",
    "Convolution commutes, full size",
    "交换律",
    claim="The kernel is flipped so that convolution commutes.",
    source="eq. 9.5",
    uses=("ninefold.functional.conv2d",),
)
def commutes() -> Finding:
    a, b = integers(1, 1, 5, 7), integers(1, 1, 3, 4, seed=1)
    return agree(F.conv2d(a, b, padding="full", flip_kernel=True), F.conv2d(b, a, padding="full", flip_kernel=True))


@entry(
    "9.5 associates",
    "Convolution associates",
    "结合律",
    claim="(a * b) * c = a * (b * c).",
    source="section 9.1",
    uses=("ninefold.functional.conv2d",),
)
def associates() -> Finding:
    a, b, c = integers(1, 1, 5, 7), integers(1, 1, 3, 4, seed=1), integers(1, 1, 2, 3, seed=2)

    def conv(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, y, padding="full", flip_kernel=True)

    return agree(conv(conv(a, b), c), conv(a, conv(b, c)))


@entry(
    "9.6",
    "Cross-correlation does not commute",
    "互相关没有翻转, 不可交换",
    claim="Cross-correlation slides without flipping; exchanging its operands turns the result over instead.",
    source="eq. 9.6",
    uses=("ninefold.functional.conv2d",),
)
def correlation() -> Finding:
    a, b = integers(1, 1, 5, 7), integers(1, 1, 3, 4, seed=1)
    ab, ba = F.conv2d(a, b, padding="full"), F.conv2d(b, a, padding="full")
    apart, turned = differing(ab, ba), differing(ab, ba.flip(-1, -2))
    return Finding(
        f"{apart} of {ab.numel()} sums differ when exchanged, {turned} after turning over",
        apart > 0 and turned == 0,
        {"sums": ab.numel(), "differ": apart, "differ_turned": turned},
    )


@entry(
    "9.6 libraries",
    "Libraries call cross-correlation convolution",
    "很多机器学习库将互相关叫做卷积",
    claim="What torch calls a convolution is a cross-correlation; flipping the kernel makes one of the other.",
    source="section 9.1",
    uses=("ninefold.nn.Conv2d",),
)
def libraries() -> Finding:
    x, w = integers(1, 2, 6, 7), integers(3, 2, 3, 2, seed=1)
    torchs, theirs = torch.conv2d(x, w), F.conv2d(x, w.flip(-1, -2), flip_kernel=True)
    unflipped = differing(torchs, F.conv2d(x, w, flip_kernel=True))
    return Finding(
        f"{differing(torchs, theirs)} of {torchs.numel()} differ with the kernel flipped, {unflipped} without",
        torch.equal(torchs, theirs) and unflipped > 0,
        {"sums": torchs.numel(), "differ_unflipped": unflipped},
    )


@entry(
    "9.6 learned",
    "A flipped operator learns the flipped kernel",
    "翻转与否只影响学到的核的方向",
    claim="Learning with convolution gives the kernel that learning with cross-correlation gives, turned over.",
    source="section 9.1",
    uses=("ninefold.nn.Conv2d",),
)
def flipped_learning() -> Finding:
    x, target = integers(4, 2, 6, 7) / 8, integers(4, 3, 4, 6, seed=1) / 8
    straight, turned = nn.Conv2d(2, 3, (3, 2)).double(), nn.Conv2d(2, 3, (3, 2), flip_kernel=True).double()
    turned.weight.data, turned.bias.data = straight.weight.data.flip(-1, -2), straight.bias.data.clone()
    for layer in (straight, turned):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        for _ in range(100):
            optimizer.zero_grad()
            (layer(x) - target).square().mean().backward()
            optimizer.step()
    gap = (straight.weight - turned.weight.flip(-1, -2)).abs().max().item()
    return Finding(f"largest difference of the kernels after 100 steps: {gap:.1g}", gap < 1e-12, {"largest_difference": gap})


@entry(
    "9.1 Toeplitz",
    "A convolution is a Toeplitz matrix",
    "离散卷积可以看成矩阵乘法 (Toeplitz matrix)",
    claim="In one dimension each row of the matrix is the one above it, shifted by one.",
    source="section 9.1",
    uses=("ninefold.conv_matrix", "ninefold.tie_map"),
    picture=drawn.toeplitz,
)
def toeplitz() -> Finding:
    layer = nn.Conv1d(1, 1, 4, bias=False)
    layer.weight.data = torch.tensor([[[3.0, -1.0, 2.0, 5.0]]])
    matrix = conv_matrix(layer, 12)
    rows = matrix.toarray()
    shifted = int((rows[1:, 1:] == rows[:-1, :-1]).all(axis=1).sum())
    return Finding(
        f"{shifted} of {len(rows) - 1} rows are the row above, shifted; {matrix.nnz} entries, {len(np.unique(matrix.data))} different",
        shifted == len(rows) - 1 and matrix.nnz == 4 * 9,
        {"rows": len(rows) - 1, "shifted": shifted, "stored": matrix.nnz, "distinct": len(np.unique(matrix.data))},
    )


@entry(
    "9.1 block Toeplitz",
    "In two dimensions: block Toeplitz, and doubly block circulant",
    "分块循环矩阵",
    claim="The matrix of a convolution is a Toeplitz matrix.",
    correction="That is one dimension. In two a linear convolution gives a doubly block Toeplitz matrix; doubly block circulant, as the "
    "book has it, needs a circular border. The Fourier transform diagonalises only the latter.",
    source="section 9.1",
    uses=("ninefold.conv_matrix", "ninefold.singular_values"),
)
def doubly_blocked() -> Finding:
    kernel = integers(1, 1, 3, 2)
    linear = np.asarray(tie_map(ConvSpec(1, 1, (3, 2)), (6, 7))).reshape(4, 6, 6, 7)
    toeplitz = bool((linear[1:, 1:, 1:, 1:] == linear[:-1, :-1, :-1, :-1]).all())
    circular = ConvSpec(1, 1, (3, 2), padding=((1, 1), (0, 1)), padding_mode="circular")
    matrix = conv_matrix(circular, (6, 7), weight=kernel).toarray().reshape(6, 7, 6, 7)
    circulant = sum(bool((np.roll(matrix, (*s, *s), (0, 1, 2, 3)) == matrix).all()) for s in np.ndindex(6, 7))
    spectrum = np.sort(np.abs(np.fft.fft2(kernel[0, 0].numpy(), (6, 7))).ravel())[::-1]
    gap = float(np.abs(singular_values(circular, (6, 7), weight=kernel) - spectrum).max())
    return Finding(
        f"{circulant} of 42 double shifts leave the circular matrix; its singular values are |fft2(kernel)| to {gap:.0e}",
        toeplitz and circulant == 42 and gap < 1e-10,
        {"block_toeplitz": toeplitz, "shifts": circulant, "spectrum_gap": gap},
    )


@entry(
    "9.1 operator norm",
    "The norm of the operator is not that of its kernel",
    "算子范数",
    claim="The largest singular value of a layer is that of its reshaped kernel, as spectral normalisation takes it.",
    source="Miyato et al. 2018 (the approximation); Sedghi, Gupta and Long 2019 (the exact values)",
    uses=("ninefold.operator_norm", "ninefold.singular_values"),
)
def operator_norm_differs() -> Finding:
    layer = nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular", bias=False).double()
    layer.weight.data = integers(5, 3, 3, 3)
    exact = float(singular_values(layer, (9, 11))[0])
    reshaped = float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))
    return Finding(
        f"operator {exact:.2f}, reshaped kernel {reshaped:.2f}",
        abs(exact - reshaped) < 1e-9,
        {"operator": exact, "reshaped": reshaped},
    )


@entry(
    "9.1 adjoint",
    "The transposed matrix is the transposed convolution",
    "转置矩阵",
    claim="The transpose of a convolution's matrix, applied, is the transposed convolution with the same kernel.",
    source="section 9.5",
    uses=("ninefold.conv_matrix", "ninefold.reference.h"),
)
def transpose() -> Finding:
    spec, kernel, up = ConvSpec(2, 3, (3, 2), stride=2), integers(3, 2, 3, 2), integers(1, 3, 3, 4, seed=1)
    form = spec.form((7, 9))
    by_matrix = conv_matrix(spec, (7, 9), weight=kernel).T @ up.numpy().ravel()
    return agree(torch.from_numpy(by_matrix), torch.from_numpy(reference.h(form, kernel.numpy(), up.numpy()).ravel()))


@entry(
    "9.6 SciPy",
    "The same numbers as SciPy",
    "与 SciPy 一致",
    claim="Convolution and cross-correlation, valid, same and full, are those of scipy.signal.",
    source="scipy.signal.convolve2d, correlate2d",
    uses=("ninefold.functional.conv2d",),
)
def scipys() -> Finding:
    image, kernel = integers(6, 8), integers(3, 5, seed=1)
    wrong = {
        f"{name} {mode}": differing(
            F.conv2d(image[None, None], kernel[None, None], padding=mode, flip_kernel=name == "convolve2d")[0, 0],
            torch.from_numpy(getattr(signal, name)(image.numpy(), kernel.numpy(), mode)),
        )
        for name in ("convolve2d", "correlate2d")
        for mode in ("valid", "same", "full")
    }
    return Finding(
        f"{sum(n == 0 for n in wrong.values())} of {len(wrong)} agree to the last digit", not any(wrong.values()), wrong
    )


ENTRIES = (
    definition,
    finite_support,
    commutes,
    associates,
    correlation,
    libraries,
    scipys,
    flipped_learning,
    toeplitz,
    doubly_blocked,
    operator_norm_differs,
    transpose,
)
