"""Section 7 of the notes: convolution by transforms, and kernels that factor."""

from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor

from ninefold import functional as F
from ninefold.chapter import drawn
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.given import agree, differing, integers
from ninefold.planning.ask import plan
from ninefold.settings import options
from ninefold.spec import costs
from ninefold.spec.conv import ConvSpec

__all__ = ["ENTRIES"]


def _seconds(*runs: Callable[[], Tensor]) -> list[float]:
    """Return the shortest time of each, taken in turns: what else runs on a machine only adds."""
    taken: list[list[float]] = [[] for _ in runs]
    for k in range(24):
        for run, times in zip(runs, taken, strict=True):
            start = perf_counter()
            run()
            if k >= 3:
                times.append(perf_counter() - start)
    return [min(times) for times in taken]


@entry(
    "9.8 FFT",
    "A product of spectra is a circular convolution",
    "傅立叶变换: 频域点乘",
    claim="Transform, multiply point by point, transform back: that is the convolution.",
    correction="The circular one, unless both are padded to n + k - 1 first.",
    source="section 9.8; Mathieu, Henaff and LeCun 2013",
    uses=("ninefold.functional.conv1d",),
)
def fft() -> Finding:
    x, w = integers(1, 1, 13), integers(1, 1, 5, seed=1)

    def spectra(n: int) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x, n) * torch.fft.rfft(w, n), n).round()

    full = F.conv1d(x, w, padding="full", flip_kernel=True)
    around = F.conv1d(x, w, padding=((4, 0),), padding_mode="circular", flip_kernel=True)
    wrong = differing(spectra(17), full), differing(spectra(13), full[..., :13]), differing(spectra(13), around)
    return Finding(
        f"padded to 17: {wrong[0]} of 17 sums differ; unpadded: {wrong[1]} of 13, {wrong[2]} from the circular one",
        wrong[0] == wrong[2] == 0 < wrong[1],
        {"padded": wrong[0], "unpadded": wrong[1], "circular": wrong[2]},
    )


@entry(
    "9.8 FFT faster",
    "Transforms are faster for some sizes",
    "在某些问题里比直接卷积快",
    claim="The way through the Fourier domain is faster than direct summation in some problems.",
    source="section 9.8",
    uses=("ninefold.plan", "ninefold.options"),
)
def fft_is_faster() -> Finding:
    chosen, times = {}, {}
    for taps in (3, 1001):
        x, w = torch.randn(1, 1, 100_000), torch.randn(1, 1, taps)
        chosen[taps] = plan(ConvSpec(1, 1, (taps,)), 100_000).engine
        direct, ours = _seconds(lambda x=x, w=w: torch.conv1d(x, w), lambda x=x, w=w: F.conv1d(x, w))
        times[taps] = direct / ours
    return Finding(
        f"100,000 samples: {chosen[1001]} for 1,001 taps, {times[1001]:.0f} times as fast as directly; {chosen[3]} for 3 taps",
        chosen[1001] == "fft" != chosen[3] and times[1001] > 1,
        {"engine_1001": chosen[1001], "times_1001": times[1001], "engine_3": chosen[3], "times_3": times[3]},
    )


@entry(
    "N.4-6",
    "Spatially separable kernels, counted",
    "空间可分离卷积 (spatially separable convolution)",
    claim="Direct (N-m+1)^2 m^2 multiplications, two passes (N-m+1) N m + (N-m+1)^2 m; their ratio is 1/m + 1/(m (1 - (m-1)/N)).",
    correction="Eq. 6 is right; '0 padding' above eq. 4 means no padding. With same padding the ratio is 2/m at every N.",
    source="eq. 4 to 6 of the notes; section 9.8",
    uses=("ninefold.spec.costs",),
)
def separable_counts() -> Finding:
    direct, passes, ratio = costs.direct_products(64, 7), costs.two_pass_products(64, 7), costs.two_pass_ratio(64, 7)
    column, row = ConvSpec(1, 1, (7, 1)), ConvSpec(1, 1, (1, 7))
    counted = column.macs((64, 64)) + row.macs(column.output_size((64, 64)))
    return Finding(
        f"N = 64, m = 7: {direct:,} and {passes:,} multiplications, ratio {float(ratio):.5f}",
        (direct, passes) == (164_836, 49_532) == (ConvSpec(1, 1, 7).macs((64, 64)), counted) and ratio * direct == passes,
        {"direct": direct, "two_passes": passes, "ratio": float(ratio)},
    )


@entry(
    "N.6 rank",
    "A kernel is separable when its rank is one",
    "并不是所有的卷积核都是 separable",
    claim="A kernel that is an outer product of vectors runs as one pass per axis; not every kernel is one.",
    source="section 9.8",
    uses=("ninefold.functional.conv2d",),
)
def rank_one() -> Finding:
    x, column, row = integers(1, 1, 9, 11), integers(1, 1, 4, 1, seed=1), integers(1, 1, 1, 3, seed=2)
    product, general = column * row, integers(1, 1, 4, 3, seed=3)
    wrong = differing(F.conv2d(F.conv2d(x, column), row), F.conv2d(x, product))
    ranks = [int(torch.linalg.matrix_rank(kernel[0, 0])) for kernel in (product, general)]
    u, s, v = torch.linalg.svd(general[0, 0])
    near = (u[:, :1] * s[:1]) @ v[:1]
    left = float((general[0, 0] - near).square().sum() - s[1:].square().sum())
    return Finding(
        f"rank {ranks[0]}: {wrong} of 54 differ in two passes; rank {ranks[1]}: one pass leaves the tail {float(s[1:].norm()):.3f}",
        wrong == 0 and ranks == [1, 3] and abs(left) < 1e-10,
        {"differ": wrong, "ranks": ranks, "tail": float(s[1:].norm())},
    )


@entry(
    "N.6 measured",
    "Separable kernels, measured",
    "空间可分离卷积的实际耗时",
    claim="Two passes instead of one save time in proportion to the multiplications.",
    correction="They save time, in another proportion: memory traffic and each pass's own efficiency stand beside the multiplications.",
    source="section 9.8",
    uses=("ninefold.functional.conv2d",),
)
def separable_measured() -> Finding:
    x, column, row = torch.randn(1, 1, 512, 512), torch.randn(1, 1, 15, 1), torch.randn(1, 1, 1, 15)
    kernel = column * row
    one, two = _seconds(lambda: torch.conv2d(x, kernel), lambda: torch.conv2d(torch.conv2d(x, column), row))
    counted = float(costs.two_pass_ratio(512, 15))
    return Finding(
        f"15x15 on 512x512: counted {counted:.3f} of the multiplications, measured {two / one:.3f} of the time",
        two < one,
        {"counted": counted, "measured": two / one},
    )


@entry(
    "N.7-9",
    "Depthwise separable convolution, counted",
    "深度可分离卷积 (depthwise separable convolution)",
    claim="A depthwise convolution, then Nc 1x1 ones: 1/Nc + 1/h^2 of the multiplications; 1/9 for 3x3 when Nc >> h.",
    correction="The ratio is exact in any padding and stride, but tends to 1/h^2 only for Nc >> h^2: 3x3 gains 8 to 9 times. The notes' d "
    "is the outputs in the prose, the inputs in the formula.",
    source="eq. 7 to 9 of the notes",
    uses=("ninefold.spec.costs", "ninefold.ConvSpec.macs"),
)
def depthwise_counts() -> Finding:
    whole, parts = costs.standard_products(9, 9, 3, 4, 6), costs.depthwise_separable_products(9, 9, 3, 4, 6)
    depthwise, pointwise = ConvSpec(4, 4, 3, groups=4), ConvSpec(4, 6, 1)
    counted = depthwise.macs((9, 9)) + pointwise.macs((7, 7))
    gains = [float(1 / costs.depthwise_separable_ratio(3, outputs)) for outputs in (9, 64, 512)]
    return Finding(
        f"{whole:,} and {parts:,} multiplications; {gains[0]:.1f}, {gains[1]:.1f}, {gains[2]:.2f} times fewer for Nc = 9, 64, 512",
        (whole, parts) == (10_584, 2_940) == (ConvSpec(4, 6, 3).macs((9, 9)), counted),
        {"standard": whole, "separable": parts, "gains": gains},
    )


@entry(
    "N.8",
    "A depthwise separable convolution is a dense one of low rank",
    "深度卷积 + 逐点卷积",
    claim="With nothing between, depthwise then pointwise is a dense convolution with K_il = P_il D_l.",
    source="Chollet 2017 (Xception)",
    uses=("ninefold.functional.conv2d",),
    picture=drawn.depthwise,
)
def depthwise_is_low_rank() -> Finding:
    x, depth, point = integers(1, 4, 6, 7), integers(4, 1, 2, 3, seed=1), integers(6, 4, 1, 1, seed=2)
    return agree(F.conv2d(F.conv2d(x, depth, groups=4), point), F.conv2d(x, point * depth[:, 0]), "outputs")


@entry(
    "N.9 measured",
    "Depthwise separable and grouped convolutions, measured",
    "深度可分离, 分组卷积的实际耗时",
    claim="They save time in proportion to the multiplications.",
    correction="They save time, in another proportion: with fewer multiplications per byte, memory sets the pace.",
    source="Howard et al. 2017, Krizhevsky et al. 2012",
    uses=("ninefold.functional.conv2d",),
)
def depthwise_measured() -> Finding:
    x, dense, grouped = torch.randn(2, 64, 56, 56), torch.randn(64, 64, 3, 3), torch.randn(64, 16, 3, 3)
    depth, point = torch.randn(64, 1, 3, 3), torch.randn(64, 64, 1, 1)
    with options(tolerance="strict"):  # all of them by direct summation: short products would save what is to be compared
        whole, separable, four = _seconds(
            lambda: F.conv2d(x, dense),
            lambda: F.conv2d(F.conv2d(x, depth, groups=64), point),
            lambda: F.conv2d(x, grouped, groups=4),
        )
    counted = float(costs.depthwise_separable_ratio(3, 64))
    return Finding(
        f"of 3x3, 64 to 64: depthwise separable {counted:.3f} counted, {separable / whole:.3f} measured; four groups 0.250, "
        f"{four / whole:.3f}",
        max(separable, four) < whole,
        {"separable_counted": counted, "separable": separable / whole, "groups_counted": 0.25, "groups": four / whole},
    )


@entry(
    "9.8 overlap-add",
    "Long signals, tile by tile",
    "重叠相加 (overlap-add)",
    claim="A long convolution is the sum of those of its pieces, shifted; the conjugate spectrum gives the cross-correlation.",
    source="section 9.8",
    uses=("ninefold.functional.conv1d",),
)
def overlap_add() -> Finding:
    x, w = integers(1, 1, 40), integers(1, 1, 6, seed=1)
    summed = torch.zeros(1, 1, 45).double()
    for start in range(0, 40, 8):
        summed[..., start : start + 13] += F.conv1d(x[..., start : start + 8], w, padding="full", flip_kernel=True)
    whole = F.conv1d(x, w, padding="full", flip_kernel=True)
    conjugate = torch.fft.irfft(torch.fft.rfft(x, 45) * torch.fft.rfft(w, 45).conj(), 45).round()[..., :35]
    wrong = differing(summed, whole), differing(conjugate, F.conv1d(x, w))
    return Finding(
        f"{wrong[0]} of 45 sums over 5 tiles differ, {wrong[1]} of 35 from the conjugate spectrum",
        not any(wrong),
        {"tiles": wrong[0], "conjugate": wrong[1]},
    )


ENTRIES = (
    fft,
    overlap_add,
    fft_is_faster,
    separable_counts,
    rank_one,
    separable_measured,
    depthwise_counts,
    depthwise_is_low_rank,
    depthwise_measured,
)
