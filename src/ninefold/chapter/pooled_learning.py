"""Section 3 of the notes, the end: pooling that is learned, and pooling in models that also run downwards."""

from itertools import product
from statistics import fmean

import torch

from ninefold.chapter.data import digits
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.few_labels import gained, scores
from ninefold.learn import ClusterPool, ConvFeatures, GridPool, KMeansFilters, LearnedRegions, SparseEncoderDecoder
from ninefold.learn.boltzmann import Boltzmann

__all__ = ["ENTRIES"]


@entry(
    "9.3 clusters learned",
    "What pooling by clusters adds",
    "动态地 pool: 将聚类算法应用在感兴趣的特征 (Boureau et al. 2011)",
    claim="Pooling only what is near in the image and alike keeps more than pooling over the image alone.",
    correction="Not on digits with 100 labels: four clusters add nothing certain to features of a small dictionary, four parts of the image do.",
    source="section 9.3; Boureau et al. 2011",
    uses=("ninefold.learn.ClusterPool", "ninefold.learn.GridPool"),
)
def clusters() -> Finding:
    filters = KMeansFilters(24, 5, n_patches=3000)
    whole, alike, parts = (
        scores(ConvFeatures(filters, "triangle", pooling), seeds=4)
        for pooling in (GridPool(1, "mean"), ClusterPool(4, 1, "mean", n_samples=3000, max_iter=20), GridPool(2, "mean"))
    )
    gain, behind = gained(alike, whole), gained(parts, alike)
    return Finding(
        f"24 features {fmean(whole):.1%}, times 4 clusters {fmean(alike):.1%} ({gain} more), times 4 quadrants {fmean(parts):.1%} ({behind} more)",
        gain.above(0.0) and behind.above(0.0),
        {"whole": whole, "clusters": alike, "quadrants": parts, "gain": gain.json(), "behind": behind.json()},
    )


@entry(
    "9.3 regions learned",
    "Regions that a classifier needs",
    "学习一个单一的 pool 结构, 然后应用到所有图像上 (Jia et al. 2012)",
    claim="One structure of pooling regions is learned and then used for all images.",
    correction="It takes labels to learn it: where one rectangle says the label it is found, but with 100 labels of digits no better "
    "regions than quadrants are.",
    source="section 9.3; Jia, Huang and Darrell 2012",
    uses=("ninefold.learn.LearnedRegions",),
)
def regions() -> Finding:
    maps = torch.rand(200, 6, 8, 12, generator=torch.Generator().manual_seed(0))
    label = (maps[:, 4, 2:6, :6].mean((1, 2)) > 0.5).numpy()  # one code, in one rectangle of two by two of sixteen cells
    (first,) = LearnedRegions(1, 4, "mean").fit([maps], label).selected_
    filters = KMeansFilters(24, 5, n_patches=3000)
    learned = scores(
        ConvFeatures(filters, "triangle", LearnedRegions(96, 4, "mean", per_round=32, max_iter=100)), with_labels=True, seeds=4
    )
    fixed = scores(ConvFeatures(filters, "triangle", "quadrants"), with_labels=True, seeds=4)
    gain = gained(learned, fixed)
    return Finding(
        f"the code and rectangle of the label is found first, of 600; digits, 96 learned {fmean(learned):.1%}, 96 over quadrants {fmean(fixed):.1%}",
        first == (4, 1, 3, 0, 2) and not gain.above(0.0),
        {"first": list(first), "learned": learned, "quadrants": fixed, "gain": gain.json()},
    )


@entry(
    "20.6",
    "Pooling in a Boltzmann machine",
    "pooling 使 Boltzmann machines 等结构变得复杂: 概率最大池化",
    claim="Pooling complicates models with top-down information: all states of n detectors under a pooling unit count 2^n.",
    correction="If at most one of them may be on, n + 1: probabilistic max pooling, a softmax over the block, to which input from above is "
    "added. Windows may not overlap.",
    source="sections 9.3 and 20.6; Lee et al. 2009",
    uses=("ninefold.learn.ConvRBM", "ninefold.learn.boltzmann.Boltzmann"),
)
def probabilistic() -> Finding:
    draw = torch.Generator().manual_seed(0)
    weight, v = torch.randn(1, 1, 2, 3, generator=draw).double(), torch.rand(1, 1, 5, 6, generator=draw).double()
    above = torch.randn(1, 1, 2, 2, generator=draw).double()
    model = Boltzmann(weight, torch.tensor([0.25]).double(), torch.zeros(1).double(), pool=2, gaussian=False)
    total, on, pools = torch.tensor(0.0).double(), torch.zeros(4, 4).double(), torch.zeros(2, 2).double()
    for chosen in product((None, (0, 0), (0, 1), (1, 0), (1, 1)), repeat=4):  # at most one detector of each of four blocks
        h, p = torch.zeros(4, 4).double(), torch.zeros(2, 2).double()
        for (i, j), at in zip(product((0, 1), repeat=2), chosen, strict=True):
            if at is not None:
                h[2 * i + at[0], 2 * j + at[1]] = p[i, j] = 1
        odds = (
            sum((v[0, 0, i : i + 2, j : j + 3] * weight[0, 0]).sum() + 0.25 for i, j in h.nonzero().tolist()) + (p * above).sum()
        )
        total, on, pools = total + odds.exp(), on + odds.exp() * h, pools + odds.exp() * p
    given = model.hidden(v, above)
    apart = max(float((told[0, 0] - counted / total).abs().max()) for told, counted in zip(given, (on, pools), strict=True))
    forced = float(model.hidden(v, torch.full_like(above, torch.inf))[1].min())
    return Finding(
        f"625 states, counted one by one: probabilities agree to {apart:.0e}; a 3x3 block has 10 states instead of {2**9}; forced from above: {forced:.0f}",
        apart < 1e-12 and forced == 1.0,
        {"apart": apart, "states": 10, "all_states": 2**9, "forced": forced},
    )


@entry(
    "20.10.6 switches",
    "What pooling forgets, the decoder is told",
    "可微网络所需要的逆 pooling 操作: switches",
    claim="A decoder needs to undo pooling; with the positions of the maxima, the switches, it can.",
    source="section 20.10.6; Ranzato et al. 2007b",
    uses=("ninefold.learn.SparseEncoderDecoder",),
)
def switches() -> Finding:
    told = digits().pictures[:, 0].numpy()
    source = SparseEncoderDecoder(16, 3, window=2, n_epochs=5, n_crops=400, penalty=0.02, random_state=0).fit(told[:600])
    features, where = source.encode(told[600:])
    rows, columns = where // 6, where % 6
    corners = where - (rows % 2) * 6 - columns % 2  # the top left of each window, wherever the maximum stood
    target = told[600:, None]
    left = [float(((source.decode(features, at) - target) ** 2).mean() / target.var()) for at in (where, corners)]
    return Finding(
        f"of the variance of unseen digits {left[0]:.1%} is missed with switches, {left[1]:.1%} with the corner of each window instead",
        left[0] < 0.5 * left[1],
        {"switches": left[0], "corners": left[1]},
    )


ENTRIES = (clusters, regions, probabilistic, switches)
