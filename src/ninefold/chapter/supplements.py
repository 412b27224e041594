"""The supplements to the notes: 3-D, 1x1, transposed and dilated convolution."""

import numpy as np
import torch
from scipy import ndimage

from ninefold import functional as F
from ninefold.chapter import drawn
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.given import differing, integers
from ninefold.matrix import conv_matrix
from ninefold.spec.chain import coverage, receptive_field
from ninefold.spec.conv import ConvSpec

__all__ = ["ENTRIES"]


@entry(
    "S.1",
    "3-D convolution moves in three directions",
    "3D 卷积",
    claim="3-D convolution generalises 3-D convolution: the kernel is less deep than the volume and moves along depth, too.",
    correction="It generalises 2-D convolution; channels are summed in full, as ever.",
    source="the notes' first supplement",
    uses=("ninefold.functional.conv3d",),
)
def three_dimensions() -> Finding:
    V, K = integers(1, 2, 5, 6, 7), integers(3, 2, 2, 3, 2, seed=1)
    ours = F.conv3d(V, K)
    scipys = sum(
        np.stack([ndimage.correlate(V[0, i].numpy(), K[o, i].numpy(), mode="constant", origin=(-1, 0, -1)) for o in range(3)])
        for i in range(2)
    )
    thin = differing(F.conv3d(V, K[:, :, :1])[:, :, 2], F.conv2d(V[:, :, 2], K[:, :, 0]))
    deep_kernel = integers(3, 2, 5, 3, 2, seed=2)
    deep = differing(F.conv3d(V, deep_kernel)[:, :, 0], F.conv2d(V.flatten(1, 2), deep_kernel.flatten(1, 2)))
    wrong = differing(ours[0], torch.from_numpy(np.asarray(scipys))[:, :4, 1:5, :6])
    return Finding(
        f"{wrong} of {ours.numel()} differ from SciPy; depth 1 is 2-D per slice ({thin} differ), full depth 2-D with 10 channels ({deep})",
        wrong == thin == deep == 0,
        {"scipy": wrong, "depth_1": thin, "full_depth": deep},
    )


@entry(
    "S.1 separable",
    "In three dimensions separability saves more",
    "3D 可分离",
    claim="A rank-one kernel of w^3 taps costs 3 w.",
    source="section 9.8",
    uses=("ninefold.functional.conv3d",),
)
def three_passes() -> Finding:
    V = integers(1, 1, 6, 7, 8)
    a, b, c = integers(1, 1, 3, 1, 1, seed=1), integers(1, 1, 1, 3, 1, seed=2), integers(1, 1, 1, 1, 3, seed=3)
    wrong = differing(F.conv3d(F.conv3d(F.conv3d(V, a), b), c), F.conv3d(V, a * b * c))
    return Finding(
        f"{wrong} of 120 differ; {a.numel() + b.numel() + c.numel()} weights instead of {(a * b * c).numel()}",
        wrong == 0,
        {"differ": wrong, "passes": 9, "direct": 27},
    )


@entry(
    "S.2",
    "1x1 convolution is a matrix at every pixel",
    "1x1 卷积: 降维",
    claim="It mixes channels only: dimensions are reduced, positions untouched.",
    source="Lin, Chen and Yan 2013 (arXiv 1312.4400)",
    uses=("ninefold.functional.conv2d",),
    picture=drawn.pointwise,
)
def pointwise() -> Finding:
    V, K = integers(1, 8, 5, 6), integers(3, 8, 1, 1, seed=1)
    Z = F.conv2d(V, K)
    product = differing(Z.flatten(2), K.flatten(1) @ V.flatten(2))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(2))
    moved = differing(F.conv2d(V.flatten(2)[..., order].view_as(V), K), Z.flatten(2)[..., order].view_as(Z))
    return Finding(
        f"8 to 3 channels: {product} of 90 differ from the product, {moved} when all pixels are permuted",
        product == moved == 0,
        {"product": product, "permuted": moved},
    )


@entry(
    "S.3",
    "Transposed convolution, the worked example",
    "转置卷积 (transposed convolution)",
    claim="A 2x2 input and a 3x3 kernel give 4x4: pad the input with 2x2 zeros to 6x6 and convolve with stride 1.",
    correction="Two rows and columns on each side, and the kernel flipped.",
    source="the notes' third supplement",
    uses=("ninefold.functional.conv_transpose2d", "ninefold.conv_matrix"),
)
def transposed_example() -> Finding:
    y, K = integers(1, 1, 2, 2), integers(1, 1, 3, 3, seed=1)
    ours, padded = F.conv_transpose2d(y, K), torch.nn.functional.pad(y, (2, 2, 2, 2))
    flipped, straight = differing(ours, F.conv2d(padded, K, flip_kernel=True)), differing(ours, F.conv2d(padded, K))
    matrix = conv_matrix(ConvSpec(1, 1, 3), (4, 4), weight=K)
    by_matrix = differing(ours.flatten(), torch.from_numpy(matrix.T @ y.numpy().ravel()))
    return Finding(
        f"{flipped} of {ours.numel()} differ with the kernel flipped, {straight} without; {by_matrix} from the transposed matrix",
        flipped == by_matrix == 0 < straight,
        {"flipped": flipped, "unflipped": straight, "matrix": by_matrix},
    )


@entry(
    "S.3 values",
    "Transposed in shape, or in values?",
    "矩阵形态上的转置, 并不是数值",
    claim="The matrices of a convolution and its transposed convolution are transposed in shape, not in values.",
    correction="By definition in values, too; only a layer that learns has a kernel of its own.",
    source="the notes' third supplement",
    uses=("ninefold.conv_matrix",),
)
def transposed_values() -> Finding:
    spec, K = ConvSpec(2, 3, (3, 2), stride=2), integers(3, 2, 3, 2)
    there = conv_matrix(spec, (7, 8), weight=K)
    back = conv_matrix(spec.replace(transposed=True), (3, 4), weight=K)
    wrong = int((back.toarray() != there.toarray().T).sum())
    return Finding(
        f"shapes {there.shape} and {back.shape}; {wrong} of {there.nnz} values differ",
        wrong == 0,
        {"differ": wrong, "stored": there.nnz},
    )


@entry(
    "S.3 not an inverse",
    "Deconvolution is no inverse",
    "叫反卷积似乎不是很合理",
    claim="The transposed convolution does not undo the convolution.",
    source="the notes' third supplement",
    uses=("ninefold.functional.conv_transpose2d",),
)
def not_an_inverse() -> Finding:
    x, K = integers(1, 1, 6, 7), integers(1, 1, 3, 2, seed=1)
    back = F.conv_transpose2d(F.conv2d(x, K), K)
    return Finding(
        f"{differing(back, x)} of {x.numel()} pixels are not what they were",
        differing(back, x) > 0,
        {"differ": differing(back, x), "pixels": x.numel()},
    )


@entry(
    "S.3 sampling",
    "Does convolution shrink, does its transpose enlarge?",
    "卷积下采样, 转置卷积上采样",
    claim="Convolution samples down, transposed convolution up.",
    correction="With a stride above 1, or by what padding adds and takes: with stride 1 and same padding both keep the size.",
    source="the notes' third supplement",
    uses=("ninefold.ConvSpec.output_size",),
)
def sampling() -> Finding:
    sizes = {
        stride: tuple(
            ConvSpec(1, 1, (4,), stride=stride, padding="same", transposed=turned).output_size(12)[0] for turned in (False, True)
        )
        for stride in (1, 2)
    }
    return Finding(
        f"of 12: stride 1 gives {sizes[1][0]} and {sizes[1][1]}, stride 2 gives {sizes[2][0]} and {sizes[2][1]}",
        sizes == {1: (12, 12), 2: (6, 24)},
        {"stride_1": sizes[1], "stride_2": sizes[2]},
    )


@entry(
    "S.3 fractional",
    "Fractionally strided convolution",
    "小数步长的卷积 (fractionally strided convolution)",
    claim="It is a convolution of the input with s - 1 zeros between its positions; its size is (i - 1) s - 2 p + k.",
    source="the notes' third supplement",
    uses=("ninefold.functional.conv_transpose1d",),
)
def fractionally_strided() -> Finding:
    y, K = integers(1, 1, 5), integers(1, 1, 4, seed=1)
    spread = torch.zeros(1, 1, 13).double()
    spread[..., ::3] = y
    ours = F.conv_transpose1d(y, K, stride=3, padding=1)
    return Finding(
        f"{differing(ours, F.conv1d(spread, K, padding=2, flip_kernel=True))} of {ours.shape[-1]} differ",
        torch.equal(ours, F.conv1d(spread, K, padding=2, flip_kernel=True)) and ours.shape[-1] == 4 * 3 - 2 + 4,
        {"size": ours.shape[-1]},
    )


@entry(
    "S.3 checkerboard",
    "Uneven overlap, counted",
    "棋盘效应 (checkerboard artifacts)",
    claim="A transposed convolution overlaps unevenly, unless its stride divides its kernel.",
    source="Odena, Dumoulin and Olah 2016",
    uses=("ninefold.ConvSpec.overlap",),
    picture=drawn.checkerboard,
)
def checkerboard() -> Finding:
    def inside(kernel: int, stride: int) -> list[int]:
        spec = ConvSpec(1, 1, kernel, stride=stride, transposed=True)
        per_axis = [counts[kernel:-kernel] for counts in spec.overlap((20, 20))]
        return sorted({a * b for a in per_axis[0] for b in per_axis[1]})

    found = {pair: inside(*pair) for pair in ((3, 2), (5, 2), (5, 3), (4, 2), (6, 3), (2, 2), (3, 3))}
    expected = {(3, 2): [1, 2, 4], (5, 2): [4, 6, 9], (5, 3): [1, 2, 4], (4, 2): [4], (6, 3): [4], (2, 2): [1], (3, 3): [1]}
    return Finding(
        ", ".join(f"{k}/{s}: {'-'.join(map(str, counts))}" for (k, s), counts in found.items()),
        found == expected,
        {f"{k}/{s}": counts for (k, s), counts in found.items()},
    )


@entry(
    "S.3 resize",
    "Enlarging first leaves no checkerboard",
    "先最近邻插值再卷积",
    claim="Enlarge with nearest or bilinear interpolation, then convolve: no artefacts.",
    correction="None are built in, with either. In the source nearest worked best and bilinear was difficult; nearest then convolution is "
    "a transposed convolution whose kernel is smoothed.",
    source="Odena, Dumoulin and Olah 2016",
    uses=("ninefold.functional.conv2d", "ninefold.functional.conv_transpose1d"),
)
def resize_then_convolve() -> Finding:
    flat, K = torch.ones(1, 1, 9, 9).double(), integers(1, 1, 3, 3)
    resized = F.conv2d(flat.repeat_interleave(2, 2).repeat_interleave(2, 3), K, padding_mode="replicate", padding=1)
    transposed = F.conv_transpose2d(flat, K, stride=2)[..., 4:-4, 4:-4]
    y, k = integers(1, 1, 7), integers(1, 1, 3, seed=1)
    smoothed = F.conv1d(k, torch.ones(1, 1, 2).double(), padding="full")
    nearest = F.conv1d(y.repeat_interleave(2, 2), k.flip(-1), padding="full")
    return Finding(
        f"a flat image: {len(resized.unique())} value resized, {len(transposed.unique())} transposed; "
        f"{differing(nearest, F.conv_transpose1d(y, smoothed, stride=2))} of {nearest.numel()} differ in 1-D",
        len(resized.unique()) == 1 < len(transposed.unique()) and torch.equal(nearest, F.conv_transpose1d(y, smoothed, stride=2)),
        {"resized": len(resized.unique()), "transposed": len(transposed.unique())},
    )


@entry(
    "S.4",
    "Dilated convolution",
    "空洞卷积 (dilated / atrous convolution)",
    claim="Rate l puts l - 1 gaps between the taps; rate 1 is the standard convolution.",
    source="Yu and Koltun 2016 (arXiv 1511.07122)",
    uses=("ninefold.functional.conv1d",),
)
def dilated() -> Finding:
    V, K = integers(1, 2, 19), integers(3, 2, 3, seed=1)
    holes = torch.zeros(3, 2, 7).double()
    holes[..., ::3] = K
    ours = F.conv1d(V, K, dilation=3)
    phases = sum(differing(ours[..., a::3], F.conv1d(V[..., a::3], K)) for a in range(3))
    return Finding(
        f"{differing(ours, F.conv1d(V, holes))} of {ours.numel()} differ from the kernel with holes, {phases} from 3 interleaved ones",
        torch.equal(ours, F.conv1d(V, holes)) and phases == 0,
        {"holes": differing(ours, F.conv1d(V, holes)), "interleaved": phases},
    )


@entry(
    "S.4 growth",
    "3, 7, 15: the receptive field grows, the parameters do not",
    "感受野 3x3, 7x7, 15x15",
    claim="l = 1 sees 3x3, l = 2 sees 7x7, l = 3 sees 15x15, with the same number of parameters; the dots are the output.",
    correction="A stack of rates 1, 2 and 4 does; alone, rates 1, 2 and 4 see 3, 5 and 9. The dots are the kernel's taps.",
    source="Yu and Koltun 2016",
    uses=("ninefold.spec.receptive_field",),
    picture=drawn.dilated,
)
def dilated_growth() -> Finding:
    layers = [ConvSpec(1, 1, (3,), dilation=rate) for rate in (1, 2, 4)]
    stacked = [receptive_field(layers[:n])[0] for n in (1, 2, 3)]
    alone = [receptive_field([layer])[0] for layer in layers]
    parameters = {layer.parameters() for layer in layers}
    return Finding(
        f"stacked {stacked}, alone {alone}, {max(parameters)} weights each",
        stacked == [3, 7, 15] and alone == [3, 5, 9] and parameters == {3},
        {"stacked": stacked, "alone": alone, "parameters": max(parameters)},
    )


@entry(
    "S.4 gridding",
    "Gridding: what a dilated stack leaves out",
    "棋盘状采样 (gridding)",
    claim="A stack of dilated convolutions observes the whole of its receptive field.",
    correction="Rates 1, 2, 4 and 1, 2, 5 do; 2, 2, 2 sees 7 of 13 positions, 2, 4, 8 sees 15 of 29, 1, 2, 9 sees 21 of 25.",
    source="Wang et al. 2018 (arXiv 1702.08502)",
    uses=("ninefold.spec.coverage",),
    picture=drawn.gridding,
)
def gridding() -> Finding:
    stacks = ((1, 2, 4), (2, 2, 2), (2, 4, 8), (1, 2, 5), (1, 2, 9))
    seen = {rates: coverage([ConvSpec(1, 1, (3,), dilation=rate) for rate in rates])[0] for rates in stacks}
    return Finding(
        "; ".join(f"{','.join(map(str, rates))}: {used}/{extent}" for rates, (used, extent) in seen.items()),
        [*seen.values()] == [(15, 15), (7, 13), (15, 29), (17, 17), (21, 25)],
        {",".join(map(str, rates)): pair for rates, pair in seen.items()},
    )


@entry(
    "S.2 average",
    "An average after a 1x1 convolution needs it once",
    "全局平均池化 (global average pooling)",
    claim="1x1 convolution commutes with averaging over positions: the last layer of a convolutional classifier may follow the average.",
    source="Lin, Chen and Yan 2013; figure 9.11, right",
    uses=("ninefold.functional.conv2d", "ninefold.functional.adaptive_avg_pool2d"),
)
def averages_commute() -> Finding:
    V, K = integers(2, 8, 4, 8), integers(3, 8, 1, 1, seed=1)
    before, after = F.adaptive_avg_pool2d(F.conv2d(V, K), 1), F.conv2d(F.adaptive_avg_pool2d(V, 1), K)
    saved = ConvSpec(8, 3, 1).macs((4, 8)) // ConvSpec(8, 3, 1).macs((1, 1))
    return Finding(
        f"{differing(before, after)} of {before.numel()} differ, for {saved} times fewer multiplications",
        torch.equal(before, after),
        {"differ": differing(before, after), "times": saved},
    )


@entry(
    "S.3 spectrum",
    "A checkerboard before any training",
    "随机权重下的棋盘效应",
    claim="A kernel that the stride divides avoids the artefacts.",
    correction="It avoids uneven overlap. With random weights, as with learned ones, the phases differ all the same, and the energy beside the "
    "constant sits at the frequency 1/s.",
    source="Odena, Dumoulin and Olah 2016",
    uses=("ninefold.functional.conv_transpose2d", "ninefold.functional.conv2d"),
)
def spectrum() -> Finding:
    def beside(kernel: int, stride: int, *, random: bool) -> float:
        """Return the energy at 1/s of a flat image, relative to that of its mean."""
        weights = (
            torch.randn(1, 1, kernel, kernel, generator=torch.Generator().manual_seed(0)).double()
            if random
            else torch.ones(1, 1, kernel, kernel).double()
        )
        power = (
            torch.fft.fft2(F.conv_transpose2d(torch.ones(1, 1, 32, 32).double(), weights, stride=stride)[0, 0, 8:56, 8:56])
            .abs()
            .square()
        )
        at = 48 // stride
        return ((power[at, 0] + power[0, at] + power[at, at]) / power[0, 0]).item()

    found = {f"{k}/2 {'random' if r else 'ones'}": beside(k, 2, random=r) for k in (3, 4) for r in (False, True)}
    return Finding(
        ", ".join(f"{name} {share:.2g}" for name, share in found.items()) + " of the mean's energy",
        found["3/2 ones"] > 0.1 and found["4/2 ones"] < 1e-20 and found["4/2 random"] > 1e-3,
        found,
    )


ENTRIES = (
    three_dimensions,
    three_passes,
    pointwise,
    averages_commute,
    transposed_example,
    transposed_values,
    not_an_inverse,
    sampling,
    fractionally_strided,
    checkerboard,
    spectrum,
    resize_then_convolve,
    dilated,
    dilated_growth,
    gridding,
)
