"""Section 3 of the notes: the three stages of a layer, and pooling."""

from itertools import product

import torch

from ninefold import functional as F
from ninefold import pooling_theory
from ninefold.chapter import drawn
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.given import differing, integers
from ninefold.models import figure_9_11
from ninefold.spec.conv import ConvSpec
from ninefold.spec.pool import PoolSpec

__all__ = ["ENTRIES"]


@entry(
    "9.7 figure",
    "Three stages: convolution, detector, pooling",
    "卷积层的三个阶段: 卷积, 探测, 池化",
    claim="A layer convolves, passes each output through a non-linearity, and pools.",
    correction="The last two may be exchanged for maxima and a rising non-linearity, never for averages: pooling first is legal, and "
    "cheaper, for max pooling and ReLU.",
    source="figure 9.7",
    uses=("ninefold.nn.Conv2d", "ninefold.functional.max_pool2d", "ninefold.functional.avg_pool2d"),
)
def three_stages() -> Finding:
    detected = integers(1, 4, 8, 10)
    greatest = differing(F.max_pool2d(detected.relu(), 2), F.max_pool2d(detected, 2).relu())
    average = differing(F.avg_pool2d(detected.relu(), 2), F.avg_pool2d(detected, 2).relu())
    return Finding(
        f"exchanged, {greatest} of 80 maxima differ, {average} of 80 averages",
        greatest == 0 < average,
        {"maximum": greatest, "average": average},
    )


@entry(
    "9.3 definition",
    "Is pooling at odds with convolution?",
    "pooling 与工程或数学中的卷积定义",
    claim="The pooling of networks differs from the definition of convolution in engineering and mathematics.",
    correction="It is the convolution of networks that differs, by not flipping and by its channels. Average pooling is a convolution with "
    "equal weights and a stride; a maximum is not even linear.",
    source="chapter 9, introduction",
    uses=("ninefold.functional.avg_pool2d", "ninefold.functional.max_pool2d"),
)
def pooling_and_convolution() -> Finding:
    x, y = integers(1, 3, 6, 9), integers(1, 3, 6, 9, seed=1)
    even = torch.full((3, 1, 2, 3), 1 / 6, dtype=torch.float64)
    gap = (F.avg_pool2d(x, (2, 3)) - F.conv2d(x, even, stride=(2, 3), groups=3)).abs().max().item()
    linear = differing(F.max_pool2d(x + y, 2), F.max_pool2d(x, 2) + F.max_pool2d(y, 2))
    return Finding(
        f"average pooling and a convolution part by {gap:.0e}; {linear} of 36 maxima of a sum are not the sum of maxima",
        gap < 1e-12 and linear > 0,
        {"gap": gap, "not_linear": linear},
    )


@entry(
    "9.8 figure",
    "A shift by one changes every detector, and half of the maxima",
    "pooling: 对小的平移不变",
    claim="After a shift of the input by one, all values of the detector stage have changed, but only half of those of the pooling stage.",
    source="figure 9.8",
    uses=("ninefold.functional.max_pool1d",),
)
def shift() -> Finding:
    row = torch.tensor([[[0.3, 0.1, 1.0, 0.2, 0.1]]])
    before, after = row[..., 1:], row[..., :-1]  # what four cells show of it, one apart
    pooled = F.max_pool1d(row, 3, 1, "same")[..., 1:]
    moved = F.max_pool1d(torch.nn.functional.pad(row, (1, 0), value=0.3), 3, 1, "same")[..., 1:-1]
    return Finding(
        f"{differing(before, after)} of 4 detectors change, {differing(pooled, moved)} of 4 maxima",
        differing(before, after) == 4 and 2 * differing(pooled, moved) == 4,
        {"detectors": differing(before, after), "maxima": differing(pooled, moved)},
    )


@entry(
    "9.3 forgets",
    "Invariance does not keep the position",
    "不变性在一定程度上可以维持特征的位置",
    claim="Seen from another side, invariance keeps the position of a feature to some extent.",
    correction="The opposite: it is what forgets the position. Where the position matters, less must be pooled.",
    source="section 9.3",
    uses=("ninefold.functional.max_pool2d",),
)
def invariance_forgets() -> Finding:
    places = torch.eye(64).reshape(64, 1, 8, 8)
    told = {width: len(torch.unique(F.max_pool2d(places, width), dim=0)) for width in (1, 2, 4, 8)}
    return Finding(
        "of 64 positions, pooling tells apart " + ", ".join(f"{n} ({w}x{w})" for w, n in told.items()),
        all(told[width] == 64 for width in told),
        {f"{w}x{w}": n for w, n in told.items()},
    )


@entry(
    "9.3 poolers",
    "Between the average and the maximum",
    "平均, L2 范数, 最大, 距离加权",
    claim="Maximum, average, L2 norm and an average weighted by distance summarise a window.",
    correction="They are points of families: (mean |d|^P)^(1/P) rises from the average of |d| at P = 1 to the maximum, the weighted average "
    "goes from the centre to the average; (1/r) log mean exp(r d) from average to maximum.",
    source="section 9.3; Boureau, Ponce and LeCun 2010",
    uses=("ninefold.functional.lp_pool1d", "ninefold.functional.gaussian_pool1d", "ninefold.functional.log_sum_exp_pool1d"),
)
def families() -> Finding:
    d = torch.tensor([[[0.2, 1.0, 3.0, 0.5, 2.0]]]).double()
    norms = [F.lp_pool1d(d, p, 5, convention="mean").item() for p in (1, 2, 4, 16, 256)]
    soft = [F.log_sum_exp_pool1d(d, 5, r=r).item() for r in (1e-6, 1, 4, 16, 256)]
    near = [F.gaussian_pool1d(d, 5, sigma=s).item() for s in (0, 1, 100)]
    return Finding(
        f"P = 1 to 256: {norms[0]:.2f} to {norms[-1]:.2f}; r = 0 to 256: {soft[0]:.2f} to {soft[-1]:.2f}; "
        f"sigma = 0 to 100: {near[0]:.2f} to {near[-1]:.2f}",
        norms == sorted(norms)
        and soft == sorted(soft)
        and abs(norms[0] - d.mean()) < 1e-9
        and abs(norms[-1] - 3) < 0.05
        and near[0] == 3.0
        and abs(near[-1] - d.mean()) < 1e-3,
        {"norms": norms, "log_sum_exp": soft, "gaussian": near},
    )


@entry(
    "9.9 figure",
    "Pooling over channels: invariance that is learned",
    "多通道之间的 pooling: 对旋转等变换的不变性",
    claim="A maximum over detectors of turned features does not see the turn, whichever detector fires.",
    source="figure 9.9; Goodfellow et al. 2013 (maxout)",
    uses=("ninefold.functional.maxout", "ninefold.functional.conv2d"),
)
def pooled_over_channels() -> Finding:
    image, kernel = integers(1, 1, 9, 9), integers(3, 3, seed=1)
    turned_kernels = torch.stack([kernel.rot90(q) for q in range(4)])[:, None]

    def pooled(x: torch.Tensor) -> float:
        return F.maxout(F.conv2d(x, turned_kernels), 4).amax().item()

    values = [pooled(image.rot90(q, (2, 3))) for q in range(4)]
    single = [F.conv2d(image.rot90(q, (2, 3)), turned_kernels[:1]).amax().item() for q in range(4)]
    return Finding(
        f"four turns: {len(set(values))} value pooled over the group, {len(set(single))} of one detector",
        len(set(values)) == 1 < len(set(single)),
        {"pooled": values, "single": single},
    )


@entry(
    "9.10 figure",
    "Pooling with downsampling, nothing dropped",
    "降采样的 pooling",
    claim="Windows of width 3, two apart; the last one is smaller, or some detectors would be ignored.",
    source="figure 9.10",
    uses=("ninefold.functional.max_pool1d", "ninefold.spec.PoolSpec"),
    picture=drawn.pooling_windows,
)
def covered() -> Finding:
    row = torch.tensor([[[0.1, 1.0, 0.2, 0.1, 0.0, 0.1]]])
    kept, dropped = F.max_pool1d(row, 3, 2, ceil_mode="cover"), F.max_pool1d(row, 3, 2)
    padded = F.max_pool1d(torch.nn.functional.pad(row, (0, 1), value=-torch.inf), 3, 2)
    (axis,) = PoolSpec((3,), stride=2, ceil_mode=True).axes(6)
    read = {i for j in range(axis.n_out) for i in axis.reads(j) if i is not None}
    return Finding(
        f"{[round(v, 1) for v in kept.flatten().tolist()]} from all {len(read)} detectors; by default {dropped.numel()} windows drop one",
        torch.equal(kept, padded) and len(read) == 6 and kept.numel() == 3,
        {"kept": kept.numel(), "default": dropped.numel(), "read": len(read)},
    )


@entry(
    "9.3 saves",
    "Pooling saves computation",
    "pooling 减小计算量",
    claim="With pooling regions k apart, the next layer has about k times fewer inputs to process, k^2 in two dimensions.",
    source="section 9.3",
    uses=("ninefold.spec.PoolSpec", "ninefold.ConvSpec.macs"),
)
def saves() -> Finding:
    following, pool = ConvSpec(64, 64, 3, padding=1), PoolSpec(2)
    before, after = following.macs((56, 56)), following.macs(pool.output_size((56, 56)))
    return Finding(
        f"{before:,} multiply-adds become {after:,}, {before / after:.0f} times fewer",
        before == 4 * after,
        {"before": before, "after": after},
    )


@entry(
    "9.11 figure",
    "Networks for images of one size and of any",
    "图 9.11: 尺寸各异的 input",
    claim="Pooling to a grid of fixed size lets a dense layer follow images of any size; a network without a dense layer needs none.",
    source="figure 9.11",
    uses=("ninefold.models.figure_9_11", "ninefold.functional.adaptive_max_pool2d"),
    picture=drawn.networks_of_any_size,
)
def any_size() -> Finding:
    sizes = [F.adaptive_max_pool2d(torch.zeros(1, 64, h, w), 3).flatten(1).shape[1] for h, w in ((64, 64), (3, 5), (17, 40))]
    dense = {kind: figure_9_11(kind).dense.weight.numel() for kind in ("fixed", "variable")}
    convolutional = figure_9_11("convolutional", num_classes=7)
    given = [tuple(convolutional(torch.zeros(1, 3, h, w)).shape) for h, w in ((20, 33), (64, 48))]
    return Finding(
        f"{sizes[0]} values at 3 of 3 sizes; dense layers of {dense['fixed']:,} and {dense['variable']:,} weights",
        set(sizes) == {576} and dense == {"fixed": 16_384_000, "variable": 576_000} and set(given) == {(1, 7)},
        {"values": sizes, **dense},
    )


@entry(
    "9.3 bins",
    "Bins of a dynamic pooling",
    "动态 pooling: 调节 pooling region 之间的 offset",
    claim="The offsets between pooling regions follow the input's size, so that the number of outputs does not.",
    correction="In which way is a choice: bins [floor(i n / o), ceil((i + 1) n / o)) overlap where o does not divide n, rounded ones do not.",
    source="section 9.3",
    uses=("ninefold.functional.adaptive_avg_pool1d",),
)
def bins() -> Finding:
    x = torch.eye(64)[None]
    shared = {kind: int((F.adaptive_avg_pool1d(x, 3, bins=kind)[0] > 0).sum()) for kind in ("overlapping", "disjoint")}
    edges = [((i * 64) // 3, -((-(i + 1) * 64) // 3)) for i in range(3)]
    return Finding(
        f"64 to 3: {edges}, {shared['overlapping']} memberships; disjoint {shared['disjoint']}",
        edges == [(0, 22), (21, 43), (42, 64)] and shared == {"overlapping": 66, "disjoint": 64},
        {"edges": edges, **shared},
    )


@entry(
    "9.3 Boureau",
    "Which pooling when",
    "在不同的情形选择不同的 pooling (Boureau et al. 2010)",
    claim="For binary features of probability alpha, P pooled: the maximum separates two classes best at a finite P; rare features want it.",
    source="Boureau, Ponce and LeCun 2010",
    uses=("ninefold.pooling_theory.best_cardinality", "ninefold.pooling_theory.bernoulli_max"),
    picture=drawn.best_pooling,
)
def which_pooling() -> Finding:
    best = pooling_theory.best_cardinality(0.05, 0.02)
    gap = 0.0
    for count in range(1, 13):
        chance = {0: 0.0, 1: 0.0}
        for bits in product((0, 1), repeat=count):
            chance[max(bits)] += 0.3 ** sum(bits) * 0.7 ** (count - sum(bits))
        told = pooling_theory.bernoulli_max(0.3, count)
        gap = max(gap, abs(told.mean - chance[1]), abs(told.variance - chance[0] * chance[1]))
    return Finding(
        f"0.05 against 0.02: best P = {best.exact:.2f}, of whole numbers {best.whole}; all cases to P = 12 agree to {gap:.0e}",
        best.whole == 30 and round(best.exact, 2) == 29.97 and gap < 1e-12,
        {"best": best.exact, "whole": best.whole, "gap": gap},
    )


@entry(
    "9.3 clusters",
    "Pooling by cluster of features",
    "将聚类算法应用在感兴趣的特征 (Boureau et al. 2011)",
    claim="Features are pooled only with those near in feature space as well as in the image: a bin per cluster and cell.",
    source="Boureau et al. 2011",
    uses=("ninefold.functional.adaptive_max_pool1d",),
)
def clustered() -> Finding:
    codes = integers(40, 6).abs()
    nearest = torch.cdist(codes, codes[:5]).argmin(1)  # five of them as centres
    pooled = torch.zeros(5, 6).double().index_reduce_(0, nearest, codes, "amax")
    sums = torch.zeros(5, 6).double().index_add_(0, nearest, codes)
    ordinary = F.adaptive_max_pool1d(codes.T[None], 1)[0, :, 0]
    wrong = differing(pooled.amax(0), ordinary) + differing(sums.sum(0), codes.sum(0))
    return Finding(
        f"{pooled.numel()} features instead of 6; their maximum and sum over clusters differ in {wrong} of 12 from ordinary pooling",
        wrong == 0,
        {"features": pooled.numel(), "differ": wrong},
    )


@entry(
    "9.3 rectangles",
    "Regions to choose from",
    "学习一个单一的 pool 结构 (Jia et al. 2012)",
    claim="Pooling regions can be learned once for all images, out of all rectangles of a grid.",
    source="Jia, Huang and Darrell 2012",
    uses=("ninefold.functional.adaptive_max_pool2d",),
)
def rectangles() -> Finding:
    spans = [(a, b) for a in range(4) for b in range(a + 1, 5)]
    image = integers(1, 1, 12, 16)
    cells = F.adaptive_max_pool2d(image, 4)[0, 0]
    wrong = sum(
        bool(cells[a:b, c:d].max() != image[0, 0, 3 * a : 3 * b, 4 * c : 4 * d].max()) for (a, b), (c, d) in product(spans, spans)
    )
    return Finding(
        f"{len(spans) ** 2} rectangles on a 4x4 grid; {wrong} maxima differ from those over their cells",
        len(spans) ** 2 == 100 and wrong == 0,
        {"rectangles": len(spans) ** 2, "differ": wrong},
    )


@entry(
    "20.10.6",
    "Unpooling",
    "逆 pooling 操作",
    claim="Networks that generate need an inverse of pooling.",
    correction="An approximate one: put the value top left, zeros elsewhere. Pooling undoes it for values that are not negative.",
    source="section 20.10.6; Dosovitskiy et al. 2015",
    uses=("ninefold.functional.top_left_unpool2d", "ninefold.functional.max_unpool2d"),
)
def unpooling() -> Finding:
    y = integers(1, 2, 3, 4)
    there = differing(F.max_pool2d(F.top_left_unpool2d(y.abs(), 2), 2), y.abs())
    signed = differing(F.max_pool2d(F.top_left_unpool2d(y, 2), 2), y)
    spread = F.conv2d(
        F.top_left_unpool2d(y, 2), torch.ones(2, 1, 2, 2).double(), padding=((1, 0), (1, 0)), groups=2, flip_kernel=True
    )
    nearest = differing(spread, y.repeat_interleave(2, 2).repeat_interleave(2, 3))
    return Finding(
        f"{there} of 24 change there and back, {signed} if signs are kept; with ones convolved, {nearest} of 96 differ from nearest upsampling",
        there == nearest == 0 < signed,
        {"positive": there, "signed": signed, "nearest": nearest},
    )


@entry(
    "9.3 continuous",
    "The maximum of continuous features",
    "连续特征的最大 pooling",
    claim="Of exponential features with mean mu the maximum of P has mean mu (1 + 1/2 + ... + 1/P) and variance mu^2 (1 + 1/4 + ... + 1/P^2).",
    source="Boureau, Ponce and LeCun 2010",
    uses=("ninefold.pooling_theory.exponential_max",),
)
def continuous() -> Finding:
    drawn = -torch.rand(400_000, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log()
    found, told = drawn.amax(1), pooling_theory.exponential_max(1.0, 10)
    off = abs(found.mean().item() - told.mean) / (told.deviation / len(found) ** 0.5)
    return Finding(
        f"P = 10: mean {told.mean:.4f}, drawn {found.mean():.4f} ({off:.1f} standard errors off); variance {told.variance:.3f}, drawn {found.var():.3f}",
        off < 4 and abs(found.var().item() / told.variance - 1) < 0.02,
        {"mean": told.mean, "drawn": found.mean().item(), "variance": told.variance, "drawn_variance": found.var().item()},
    )


ENTRIES = (
    three_stages,
    pooling_and_convolution,
    shift,
    invariance_forgets,
    families,
    pooled_over_channels,
    saves,
    covered,
    bins,
    which_pooling,
    continuous,
    clustered,
    rectangles,
    unpooling,
    any_size,
)
