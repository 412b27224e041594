"""Sections 5 and 7 of the notes: layers learned without labels, each upon those below, for whole images, or with kernels in turn."""

from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ninefold import functional as F
from ninefold import nn
from ninefold.chapter.data import digits, photograph, rotated
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.few_labels import gained, pixels, scores
from ninefold.chapter.training import interval, seeded
from ninefold.learn import (
    ConvDBN,
    ConvRBM,
    FilterLayer,
    GreedyLayers,
    KMeansFilters,
    OMPFilters,
    SparseCodingFilters,
    TiledICA,
)
from ninefold.learn.coding import sparse_codes, synthesis

__all__ = ["ENTRIES", "TILED"]

PENALTIES = (0.3, 0.4, 0.5, 0.6, 0.8)


@entry(
    "9.9 greedy",
    "One layer after the other",
    "layer 级别的贪婪策略 (greedy layer-wise pretraining)",
    claim="Layers can be learned one by one: the first alone, the second from the features of the first, and so on, without a pass through "
    "the whole network.",
    source="section 9.9; chapter 8",
    uses=("ninefold.learn.GreedyLayers", "ninefold.learn.FilterLayer"),
)
def greedy() -> Finding:
    told = digits().pictures[:600, 0]
    first = FilterLayer(KMeansFilters(24, 3, n_patches=3000, random_state=0), "triangle", pool=2)
    second = FilterLayer(KMeansFilters(48, 2, n_patches=3000, random_state=0), "triangle")
    alone, both = (GreedyLayers(layers).fit(told).layers_[0].source_.filters_ for layers in ([first], [first, second]))
    moved = float(np.abs(alone - both).max())
    one, two = (scores(GreedyLayers(layers), seeds=4) for layers in ([first], [first, second]))
    gain = gained(two, one)
    return Finding(
        f"the second layer moves the first's filters by {moved:.0f}; digits, 10 labels each: one layer {fmean(one):.1%}, two {fmean(two):.1%} ({gain} more)",
        moved == 0,
        {"moved": moved, "one": one, "two": two, "gain": gain.json()},
    )


@entry(
    "9.9 belief network",
    "A stack of Boltzmann machines",
    "卷积深度信念网络 (convolutional deep belief network, Lee et al. 2009)",
    claim="Greedy layer-wise pre-training carries over to convolution, as in the convolutional deep belief network, layer upon layer.",
    source="section 9.9; Lee et al. 2009",
    uses=("ninefold.learn.ConvDBN", "ninefold.learn.ConvRBM"),
    long=True,
)
def belief_network(*, trial: bool = False) -> Finding:
    epochs, seeds = (1, 2) if trial else (8, 4)
    below = ConvRBM(24, 3, sigma=0.4, sparsity=0.05, n_epochs=epochs, random_state=0)
    above = ConvRBM(32, 2, pool=1, visible="binary", sparsity=0.06, n_epochs=epochs, random_state=0)
    raw, one, two = (scores(made, seeds=seeds) for made in (pixels(), ConvDBN([below]), ConvDBN([below, above])))
    gain = gained(two, one)
    return Finding(
        f"10 labels a digit: pixels {fmean(raw):.1%}, one layer {fmean(one):.1%}, two {fmean(two):.1%}: the second adds {gain}",
        gain.above(0.0) and fmean(two) > fmean(raw),
        {"pixels": raw, "one": one, "two": two, "gain": gain.json()},
    )


@entry(
    "9.9 redundancy",
    "Atoms for patches repeat themselves in images",
    "卷积稀疏编码 (Kavukcuoglu et al. 2010)",
    claim="Atoms that were learned from patches are redundant once they are shifted over an image; atoms learned for whole images leave less "
    "with fewer codes.",
    source="Kavukcuoglu et al. 2010",
    uses=("ninefold.learn.SparseCodingFilters", "ninefold.learn.OMPFilters"),
    long=True,
)
def redundancy(*, trial: bool = False) -> Finding:
    size, steps = (24, 3) if trial else (48, 25)
    normal = nn.LocalContrastNorm2d(9)(photograph("china")[None, None, 150:])[0, 0].detach()
    seen, unseen = _cut(normal[:, :320], size)[::4][:6], _cut(normal[:, 320:], size)[::6][:4]
    patches = OMPFilters(
        16, 7, n_nonzero=2, contrast=None, whitening=None, n_patches=5000, max_iter=20, channels="first", random_state=0
    ).fit(seen)
    whole: dict[str, Any] = {"window": None, "predictor_iter": 0, "n_iter": steps, "channels": "first", "random_state": 0}
    images = SparseCodingFilters(16, 7, init=patches.atoms_, **whole).fit(seen)
    alike, told = {}, {}
    for name, source in (("patches", patches), ("images", images)):
        atoms = torch.from_numpy(source.atoms_)
        other = (
            F.conv2d(atoms, atoms, padding="full").flatten(2).abs().amax(2).fill_diagonal_(0)
        )  # the best shift of each other atom
        alike[name] = other.amax(1).mean().item()
        told[name] = [_coded(unseen, atoms, penalty) for penalty in PENALTIES]
    used = np.interp(0.25, *zip(*told["patches"], strict=True)), np.interp(0.25, *zip(*told["images"], strict=True))
    return Finding(
        f"a quarter of the energy left: {used[0]:.2%} of codes used with atoms of patches, {used[1]:.2%} of images; nearest shifted atom {alike['patches']:.2f} and {alike['images']:.2f} alike",
        bool(used[1] < used[0] and alike["images"] < alike["patches"]),
        {
            "alike": alike,
            "left and used": {name: [list(pair) for pair in pairs] for name, pairs in told.items()},
            "used": [float(u) for u in used],
        },
    )


def _cut(image: Tensor, side: int) -> Tensor:
    return image.unfold(0, side, side).unfold(1, side, side).reshape(-1, 1, side, side)


def _coded(images: Tensor, atoms: Tensor, penalty: float) -> tuple[float, float]:
    """Return which share of the energy the codes leave, and which share of codes is used."""
    codes = sparse_codes(images, atoms, penalty)
    left = (images - synthesis(codes, atoms)).square().sum() / images.square().sum()
    return float(left), float((codes != 0).float().mean())


@entry(
    "9.5 learned tiles",
    "Pooling over kernels that take turns, learned",
    "平铺卷积 + pooling: 学到的不变性 (Le et al. 2010)",
    claim="Learned without labels under a pooling, kernels that take turns become invariant to more than shifts, such as to turns.",
    correction="What they gain is little, and is paid for: they notice shifts by a pixel more than a convolution does.",
    source="section 9.5; Le et al. 2010",
    uses=("ninefold.learn.TiledICA",),
    long=True,
)
def tiled_invariance(*, trial: bool = False) -> Finding:
    seen, fields = [photograph("camera")], _cut(photograph("gravel"), 24)[: 40 if trial else 400]
    turned = [rotated(fields, torch.full((len(fields),), degrees))[..., 7:17, 7:17] for degrees in (-7.5, 7.5)]
    shifted = [fields[..., 7:17, 7:17], fields[..., 7:17, 8:18]]
    noticed = {}
    for period in (1, 2, 3):
        runs = []
        for seed in range(2 if trial else 8):
            source = TiledICA(
                8, 8, period=period, pool=3, n_epochs=1 if trial else 5, n_crops=200 if trial else 2000, random_state=seed
            )
            with seeded(seed):
                source.fit(seen)
            runs.append([_noticed(source, *views) for views in (turned, shifted)])
        noticed[period] = runs
    more = {n: interval([a[0] - b[0] for a, b in zip(noticed[1], noticed[n], strict=True)]) for n in (2, 3)}
    means = {n: [fmean(run[k] for run in runs) for k in (0, 1)] for n, runs in noticed.items()}
    return Finding(
        "noticed of turns by 15 degrees and of shifts by 1: "
        + ", ".join(f"period {n} {a:.3f} and {b:.3f}" for n, (a, b) in means.items()),
        more[2].above(0.0),
        {
            "turns": {str(n): m[0] for n, m in means.items()},
            "shifts": {str(n): m[1] for n, m in means.items()},
            "saved": {str(n): i.json() for n, i in more.items()},
        },
    )


def _noticed(source: TiledICA, one: Tensor, other: Tensor) -> float:
    """Return ``mean (p - q)^2 / (var p + var q)`` of the pooled responses to two views: 0 if they are alike, 1 if strangers."""
    p, q = (torch.from_numpy(source.pooled(view)).flatten(1) for view in (one, other))
    return float(((p - q).square().mean(0) / (p.var(0) + q.var(0))).mean())


ENTRIES = (greedy, belief_network, redundancy)
TILED = (tiled_invariance,)
