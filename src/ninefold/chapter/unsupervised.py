"""Section 7 of the notes: filters that are drawn, designed, or learned from patches without labels."""

from statistics import fmean
from typing import Any

import numpy as np
import torch

from ninefold import functional as F
from ninefold.chapter.data import digits
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.few_labels import gained, pixels, scores
from ninefold.chapter.filters_drawn import learned, random_and_optimal
from ninefold.learn import (
    ConvFeatures,
    DesignedFilters,
    GridPool,
    KMeansFilters,
    OMPFilters,
    RandomFilters,
    SampledPatches,
    SoftThreshold,
    optimal_input,
)
from ninefold.matrix import conv_matrix
from ninefold.spec.conv import ConvSpec

__all__ = ["ENTRIES"]

PATCHES = 3000  # of digits, from which 64 filters are learned


@entry(
    "9.9 random",
    "Random filters work well",
    "随机滤波 (random filter) 往往会惊人的好",
    claim="Random filters often work surprisingly well in convolutional networks.",
    source="section 9.9; Jarrett et al. 2009; Saxe et al. 2011; Pinto et al. 2011; Cox and Pinto 2011",
    uses=("ninefold.learn.RandomFilters", "ninefold.learn.ConvFeatures"),
)
def random_filters() -> Finding:
    raw = scores(pixels())
    random = scores(ConvFeatures(RandomFilters(32, 4), "soft"))
    trained = scores(ConvFeatures(KMeansFilters(64, 4, n_patches=PATCHES), "triangle"))
    gain = gained(random, raw)
    return Finding(
        f"10 labels a digit: pixels {fmean(raw):.1%}, random filters {fmean(random):.1%} (+{gain}), k-means {fmean(trained):.1%}",
        gain.above(0.0),
        {"pixels": raw, "random": random, "k-means": trained, "gain": gain.json()},
    )


@entry(
    "9.9 optimal input",
    "What a random filter answers to most",
    "频率选择 (frequency selective) 与平移不变",
    claim="With random weights, convolution and pooling have frequency-selective invariance and translation invariance.",
    correction="They are selective for a frequency, and invariant to translation. The best input of any filter is a grating, at every phase: "
    "this comes with the architecture, a convolution that wraps around, squares, and a sum. Without wrapping it holds nearly.",
    source="section 9.9; Saxe et al. 2011",
    uses=("ninefold.learn.optimal_input", "ninefold.matrix.conv_matrix"),
    picture=random_and_optimal,
)
def optimal() -> Finding:
    layer: dict[str, Any] = {"padding": ((0, 4), (0, 4)), "padding_mode": "circular"}
    below, phases, moved = [], [], []
    for kernel in RandomFilters(10, 5, random_state=0).fit(np.zeros((1, 15, 13))).filters_[:, 0]:
        weight = torch.from_numpy(kernel).double()[None, None]
        largest = np.linalg.norm(conv_matrix(ConvSpec(1, 1, 5, **layer), (15, 13), weight=weight).toarray(), 2) ** 2
        best = torch.stack([torch.from_numpy(optimal_input(kernel, (15, 13), phase=p).image) for p in (0.0, 0.7, 1.9, 4.4)])[
            :, None
        ]
        pooled = F.conv2d(best, weight, **layer).square().sum((1, 2, 3)) / largest
        shifted = F.conv2d(best.roll((3, 5), (2, 3)), weight, **layer).square().sum((1, 2, 3)) / largest
        below.append(abs(1 - pooled[0].item()))
        phases.append((pooled.max() - pooled.min()).item())
        moved.append((pooled - shifted).abs().max().item())
    return Finding(
        f"10 filters: the grating misses the largest eigenvalue by {max(below):.0e}; phases part by {max(phases):.0e}, shifts by {max(moved):.0e}",
        max(*below, *phases, *moved) < 1e-10,
        {"below": max(below), "phases": max(phases), "shifts": max(moved)},
    )


@entry(
    "9.9 designed",
    "Filters designed by hand",
    "人工设定: 某一方向或者尺度上的边缘信息",
    claim="Kernels can be set by hand, such as to detect edges at a certain orientation or scale.",
    source="section 9.9",
    uses=("ninefold.learn.DesignedFilters",),
)
def designed() -> Finding:
    bank: dict[str, Any] = {"scales": (4.0, 8.0), "orientations": 6, "unit_norm": True}
    gabor = torch.from_numpy(DesignedFilters("gabor", 17, **bank).fit(np.zeros((1, 17, 17))).filters_)
    down, right = torch.arange(32.0)[:, None], torch.arange(32.0)
    found = []
    for length in bank["scales"]:
        for turn in range(6):
            angle = torch.tensor(turn * torch.pi / 6)
            wave = (2 * torch.pi / length * (right * angle.cos() + down * angle.sin())).cos()
            energy = F.conv2d(wave[None, None], gabor).square().sum((0, 2, 3))
            found.append(energy.reshape(-1, 2).sum(1).argmax().item())  # of cosine and sine together
    right_ones = sum(k == n for n, k in enumerate(found))
    raw, hand = (
        scores(pixels()),
        scores(ConvFeatures(DesignedFilters("gabor", 5, scales=(3.0, 6.0), orientations=4, unit_norm=True), SoftThreshold(0.1))),
    )
    gain = gained(hand, raw)
    return Finding(
        f"{right_ones} of 12 gratings are answered most by the filter of their angle and wavelength; digits {fmean(raw):.1%} to {fmean(hand):.1%}",
        right_ones == 12 and gain.above(0.0),
        {"found": right_ones, "pixels": raw, "gabor": hand, "gain": gain.json()},
    )


@entry(
    "9.9 k-means",
    "Centres of patches as kernels",
    "用 k-means 对 image patches 聚类, 把聚类中心当作卷积核 (Coates et al. 2011)",
    claim="k-means on small patches of images gives centres that serve as convolution kernels.",
    correction="Whitening, brightness and contrast go into the kernels, too: then the convolution gives what cutting out, preparing and "
    "comparing every patch gives.",
    source="section 9.9; Coates, Lee and Ng 2011",
    uses=("ninefold.learn.KMeansFilters", "ninefold.learn.ConvFeatures"),
    picture=learned,
)
def centres() -> Finding:
    told = digits().pictures[:, 0]
    source = KMeansFilters(64, (4, 3), n_patches=PATCHES, random_state=0).fit(told)
    convolved = ConvFeatures(source, "triangle", GridPool((5, 6)), prefit=True).fit(told).transform(told[:50])
    patches = told[:50].unfold(1, 4, 1).unfold(2, 3, 1).reshape(-1, 1, 4, 3)
    distances = torch.cdist(source.preparation_(patches), torch.from_numpy(source.atoms_).flatten(1))
    compared = (distances.mean(1, keepdim=True) - distances).relu().reshape(50, -1)
    apart = float((torch.from_numpy(convolved) - compared).abs().max() / compared.max())
    raw, trained = scores(pixels()), scores(ConvFeatures(KMeansFilters(64, 4, n_patches=PATCHES), "triangle"))
    gain = gained(trained, raw)
    return Finding(
        f"{compared.numel():,} codes agree to {apart:.0e}; digits, 10 labels each: {fmean(raw):.1%} to {fmean(trained):.1%} (+{gain})",
        apart < 1e-3 and gain.above(0.0),
        {"codes": compared.numel(), "apart": apart, "pixels": raw, "k-means": trained, "gain": gain.json()},
    )


@entry(
    "9.9 triangle",
    "How near, rather than which is nearest",
    "编码: triangle 与 hard",
    claim="The triangle code, how much nearer than the mean a centre is, does better than a 1 for the nearest centre alone.",
    source="Coates, Lee and Ng 2011",
    uses=("ninefold.learn.Triangle", "ninefold.learn.Hard"),
)
def triangle() -> Finding:
    source = KMeansFilters(64, 4, n_patches=PATCHES)
    soft, hard = scores(ConvFeatures(source, "triangle")), scores(ConvFeatures(source, "hard"))
    gain = gained(soft, hard)
    return Finding(
        f"64 centres, 10 labels a digit: triangle {fmean(soft):.1%}, hard {fmean(hard):.1%}; {gain} more",
        gain.above(0.0),
        {"triangle": soft, "hard": hard, "gain": gain.json()},
    )


@entry(
    "9.9 whitening",
    "Patches are whitened first",
    "白化 (whitening)",
    claim="Whitening helps k-means: neighbouring pixels are alike, and distances count what they share many times over.",
    source="Coates, Lee and Ng 2011",
    uses=("ninefold.learn.KMeansFilters",),
)
def whitening() -> Finding:
    white, plain = (scores(ConvFeatures(KMeansFilters(64, 4, whitening=w, n_patches=PATCHES))) for w in (0.1, None))
    gain = gained(white, plain)
    told = digits().pictures[:, 0]
    patches = told.unfold(1, 4, 1).unfold(2, 4, 1).reshape(-1, 1, 4, 4)
    spread = {}
    for name, w in (("plain", None), ("white", 0.1)):
        prepared = KMeansFilters(2, 4, whitening=w, n_patches=PATCHES, random_state=0).fit(told).preparation_(patches)
        values = torch.linalg.eigvalsh(prepared.T.cov())[1:]  # without the brightness, which is gone
        spread[name] = (values.max() / values.min()).item()
    return Finding(
        f"variances spread {spread['plain']:.0f} to 1, whitened {spread['white']:.1f}; digits {fmean(plain):.1%} to {fmean(white):.1%} (+{gain})",
        gain.above(0.0) and spread["white"] < spread["plain"],
        {"white": white, "plain": plain, "gain": gain.json(), "spread": spread},
    )


@entry(
    "9.9 sampled",
    "Patches as they were drawn",
    "随机抽取的 patches 作为核",
    claim="If the encoder is good, patches drawn at random are nearly as good filters as learned ones.",
    source="Coates and Ng 2011",
    uses=("ninefold.learn.SampledPatches", "ninefold.learn.OMPFilters", "ninefold.learn.SoftThreshold"),
)
def sampled() -> Finding:
    raw = scores(pixels(), seeds=4)
    drawn = scores(ConvFeatures(SampledPatches(64, 4, n_patches=PATCHES, normalise=True), "soft"), seeds=4)
    trained = scores(ConvFeatures(OMPFilters(64, 4, n_patches=PATCHES, max_iter=6), "soft"), seeds=4)
    coarse = scores(ConvFeatures(SampledPatches(64, 4, n_patches=PATCHES), "hard"), seeds=4)
    behind, gain = gained(trained, drawn), gained(drawn, raw)
    return Finding(
        f"soft threshold: drawn {fmean(drawn):.1%}, learned {fmean(trained):.1%}, pixels {fmean(raw):.1%}; drawn with the hard code {fmean(coarse):.1%}",
        gain.above(0.0) and fmean(trained) - fmean(drawn) < 0.25 * (fmean(drawn) - fmean(raw)),
        {"pixels": raw, "drawn": drawn, "learned": trained, "hard": coarse, "behind": behind.json()},
    )


@entry(
    "9.9 matching pursuit",
    "Atoms for one product, or for a few",
    "正交匹配追踪 (OMP), 增益-形状矢量量化",
    claim="Learning atoms by matching pursuit never makes the error of one-atom codes larger; more atoms a code leave less.",
    source="Coates and Ng 2011",
    uses=("ninefold.learn.OMPFilters",),
)
def matching_pursuit() -> Finding:
    told = digits().pictures[:, 0]
    sources = [
        OMPFilters(64, 4, n_nonzero=k, n_patches=PATCHES, max_iter=12, revival=None, random_state=0).fit(told) for k in (1, 2, 4)
    ]
    energy = float(sources[0].preparation_(told.unfold(1, 4, 1).unfold(2, 4, 1).reshape(-1, 1, 4, 4)).square().sum(1).mean())
    left = [source.objective_[-1] / energy for source in sources]
    rises = sum(b > a * (1 + 1e-6) for a, b in zip(sources[0].objective_, sources[0].objective_[1:], strict=False))
    return Finding(
        f"{rises} of 11 steps make it larger; {sources[0].objective_[0] / energy:.1%} left over at first, then {left[0]:.1%}; 2 atoms {left[1]:.1%}, 4 {left[2]:.1%}",
        rises == 0 and left[0] > left[1] > left[2] and sources[0].objective_[0] > sources[0].objective_[-1],
        {"rises": rises, "left": left, "objective": sources[0].objective_},
    )


ENTRIES = (random_filters, designed, centres, triangle, whitening, sampled, matching_pursuit, optimal)
