"""Section 5 of the notes, to equation 3: channels, strides, padding, unshared convolution."""

import numpy as np
import torch
from scipy import signal

from ninefold import functional as F
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.given import agree, differing, integers
from ninefold.errors import ShapeError
from ninefold.spec.conv import ConvSpec

__all__ = ["ENTRIES"]


@entry(
    "9.7",
    "Many channels at once",
    "多通道卷积",
    claim="Z_ijk = sum over l, m, n of V_l,j+m-1,k+n-1 K_ilmn; K's indices are output channel, input channel, row, column offset.",
    source="eq. 9.7, eq. 1 of the notes",
    uses=("ninefold.functional.conv2d", "ninefold.reference.c"),
)
def multichannel() -> Finding:
    V, K = integers(3, 6, 7), integers(4, 3, 2, 3, seed=1)
    Z = torch.zeros(4, 5, 5).double()
    for i, j, k, l, m, n in np.ndindex(4, 5, 5, 3, 2, 3):
        Z[i, j, k] += V[l, j + m, k + n] * K[i, l, m, n]
    return agree(F.conv2d(V, K), Z, "outputs")


@entry(
    "9.7 commutes",
    "Many channels do not commute",
    "多通道卷积即使带翻转也不可交换",
    claim="Multi-channel convolution does not commute, even with flipped kernels.",
    correction="Equal numbers of input and output channels are necessary, not sufficient: two 1x1 layers commute when their matrices "
    "do, as those of two depthwise layers.",
    source="section 9.5",
    uses=("ninefold.functional.conv2d",),
)
def multichannel_does_not_commute() -> Finding:
    x, a, b = integers(1, 3, 4, 5), integers(3, 3, 1, 1, seed=1), integers(3, 3, 1, 1, seed=2)
    ab, ba = F.conv2d(F.conv2d(x, a), b), F.conv2d(F.conv2d(x, b), a)
    a, b = integers(3, 1, 2, 3, seed=1), integers(3, 1, 3, 2, seed=2)
    pq, qp = (F.conv2d(F.conv2d(x, one, groups=3), two, groups=3) for one, two in ((a, b), (b, a)))
    return Finding(
        f"{differing(ab, ba)} of {ab.numel()} differ for two dense 1x1 layers, {differing(pq, qp)} for two depthwise ones",
        differing(ab, ba) > 0 == differing(pq, qp),
        {"dense": differing(ab, ba), "depthwise": differing(pq, qp)},
    )


@entry(
    "9.8",
    "Convolution with a stride",
    "步幅 (stride)",
    claim="A strided convolution is the full one with outputs left out, only cheaper.",
    source="eq. 9.8, eq. 2 of the notes; figure 9.12",
    uses=("ninefold.functional.conv2d", "ninefold.ConvSpec.macs"),
)
def strided() -> Finding:
    V, K = integers(1, 3, 9, 11), integers(4, 3, 2, 3, seed=1)
    short, whole = F.conv2d(V, K, stride=(2, 3)), F.conv2d(V, K)[..., ::2, ::3]
    spec = ConvSpec(3, 4, (2, 3))
    saved = spec.macs((9, 11)) / spec.replace(stride=(2, 3)).macs((9, 11))
    return Finding(
        f"{short.numel() - differing(short, whole)} of {short.numel()} outputs equal, for 1/{saved:.0f} of the multiply-adds",
        torch.equal(short, whole) and saved > 1,
        {"outputs": short.numel(), "differ": differing(short, whole), "times_cheaper": saved},
    )


@entry(
    "9.13 sizes",
    "Valid, same and full",
    "补零: valid, same, full",
    claim="An input of width m and a kernel of width k give m - k + 1 (valid), m (same), m + k - 1 (full).",
    correction="The notes call the kernel's width k in one place and l in another; full pads k - 1 on each side, 2 k - 2 in all.",
    source="section 9.5",
    uses=("ninefold.ConvSpec",),
)
def sizes() -> Finding:
    right = sum(
        tuple(ConvSpec(1, 1, (k,), padding=p).output_size(m)[0] for p in ("valid", "same", "full")) == (m - k + 1, m, m + k - 1)
        for m in range(1, 21)
        for k in range(1, m + 1)
    )
    pads = ConvSpec(1, 1, (6,), padding="full").pads(16)
    return Finding(
        f"{right} of 210 pairs of widths; a kernel of 6 is padded by {pads[0][0]} on each side",
        right == 210 and pads == ((5, 5),),
        {"pairs": right, "pads": pads[0]},
    )


@entry(
    "9.13 visits",
    "Full lets every pixel be visited equally often",
    "full: 每个像素被访问 k 次",
    claim="With full padding every pixel is visited k times in each direction; with valid those at the border less.",
    source="section 9.5",
    uses=("ninefold.ConvSpec.overlap",),
)
def visits() -> Finding:
    (full,), (valid,) = (ConvSpec(1, 1, (4,), padding=p).overlap(9) for p in ("full", "valid"))
    return Finding(
        f"full: {min(full)} to {max(full)} visits, valid: {min(valid)} to {max(valid)}",
        set(full) == {4} and sum(full) == 36 and valid == (1, 2, 3, 4, 4, 4, 3, 2, 1),
        {"full": full, "valid": valid},
    )


@entry(
    "9.13",
    "Without padding the output shrinks to 1",
    "随着 layer 增多, 输出衰减至 1",
    claim="A kernel of 6 takes a width of 16 to 11, 6 and 1, and that is the end; five zeros a layer keep 16.",
    source="figure 9.13",
    uses=("ninefold.ConvSpec.output_size",),
)
def shrinking() -> Finding:
    layer, widths, kept = ConvSpec(1, 1, (6,)), [16], [16]
    while widths[-1] >= 6:
        widths.append(layer.output_size(widths[-1])[0])
        kept.append(layer.replace(padding="same").output_size(kept[-1])[0])
    try:
        layer.output_size(widths[-1])
    except ShapeError as error:
        ended = str(error)
    return Finding(
        " -> ".join(map(str, widths)) + ", then refused; with five zeros " + " -> ".join(map(str, kept)),
        widths == [16, 11, 6, 1] and kept == [16] * 4 and "give an input of at least 6" in ended,
        {"valid": widths, "same": kept},
    )


@entry(
    "9.13 same",
    "What libraries call same",
    "same convolution",
    claim="'same' is one thing, whichever library says it.",
    correction="For an odd kernel. For an even one NumPy and SciPy put the extra zero before, TensorFlow (reported) and torch after; "
    "MATLAB (reported) starts its crop of the full result one later than NumPy, which is convolution with the zero after.",
    source="numpy.convolve, scipy.signal.convolve, torch.nn.functional.conv1d",
    uses=("ninefold.functional.conv1d",),
)
def what_same_means() -> Finding:
    def ours(taps: int, padding: str, *, flip: bool) -> list[float]:
        a, v = torch.tensor([[[1.0, 2, 3]]]), torch.arange(1.0, taps + 1)[None, None]
        return F.conv1d(a, v, padding=padding, flip_kernel=flip).flatten().tolist()

    theirs = {taps: np.convolve([1, 2, 3], np.arange(1, taps + 1), "same").tolist() for taps in (2, 3)}
    scipys = {taps: signal.convolve([1, 2, 3], np.arange(1, taps + 1), "same").tolist() for taps in (2, 3)}
    odd = theirs[3] == ours(3, "same_lower", flip=True) == ours(3, "same_upper", flip=True)
    even = theirs[2] == scipys[2] == ours(2, "same_lower", flip=True) != ours(2, "same_upper", flip=True)
    given = torch.nn.functional.conv1d(torch.tensor([[[1.0, 2, 3]]]), torch.tensor([[[1.0, 2]]]), padding="same")
    return Finding(
        f"[1,2,3] with [1,2]: NumPy, SciPy {theirs[2]}, the zero after {ours(2, 'same', flip=True)}; torch {given.flatten().tolist()}",
        odd and even and given.flatten().tolist() == ours(2, "same_upper", flip=False),
        {"numpy": theirs[2], "scipy": scipys[2], "zero_after": ours(2, "same", flip=True), "torch": given.flatten().tolist()},
    )


@entry(
    "9.9",
    "Unshared convolution: locally connected layers",
    "局部连接层 (locally connected layers)",
    claim="Z_ijk = sum V_l,j+m-1,k+n-1 W_ijklmn: a kernel of its own at every position; W's fourth index is the output channel.",
    correction="The fourth index l is the input channel.",
    source="eq. 9.9, eq. 3 of the notes; figure 9.14",
    uses=("ninefold.nn.LocallyConnected2d", "ninefold.functional.locally_connected2d"),
)
def unshared() -> Finding:
    V, W = integers(3, 5, 6), integers(4, 4, 4, 3, 2, 3, seed=1)
    Z = torch.zeros(4, 4, 4).double()
    for i, j, k, l, m, n in np.ndindex(4, 4, 4, 3, 2, 3):
        Z[i, j, k] += V[l, j + m, k + n] * W[i, j, k, l, m, n]
    return agree(F.locally_connected2d(V, W), Z, "outputs")


@entry(
    "9.9 limit",
    "Unshared layers contain convolution",
    "与卷积的关键区别在于不再共享 kernel",
    claim="With equal kernels at all positions a locally connected layer is a convolution; a random one is not equivariant.",
    source="section 9.5",
    uses=("ninefold.functional.locally_connected2d",),
)
def unshared_limit() -> Finding:
    V, K, W = integers(1, 3, 5, 6), integers(4, 3, 2, 3, seed=1), integers(4, 4, 4, 3, 2, 3, seed=2)
    constant = K[:, None, None].expand(4, 4, 4, 3, 2, 3)
    apart = differing(F.locally_connected2d(V, constant), F.conv2d(V, K))
    moved = F.locally_connected2d(V.roll(1, 3), W)[..., 1:], F.locally_connected2d(V, W)[..., :-1]
    return Finding(
        f"{apart} of 64 differ from the convolution; shifted, {differing(*moved)} of 48 do",
        apart == 0 < differing(*moved),
        {"constant": apart, "shifted": differing(*moved)},
    )


ENTRIES = (
    multichannel,
    multichannel_does_not_commute,
    strided,
    sizes,
    visits,
    shrinking,
    what_same_means,
    unshared,
    unshared_limit,
)
