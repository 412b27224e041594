"""Section 9.6: from labels and affinities of pixels to a partition into objects."""

from itertools import combinations
from typing import Any

import numpy as np
import torch

from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.label_maps import seen
from ninefold.chapter.scenes_drawn import gap
from ninefold.chapter.training import interval, parameters
from ninefold.segment.scenes import texture_scenes
from ninefold.structured.networks import AffinityNet
from ninefold.structured.partition import (
    Affinities,
    AffinityGraph,
    connected_components,
    malis_loss,
    maximin_matrix,
    merge_tree,
    optimal_cover,
    rand_index,
    superpixel_vote,
    voronoi_cells,
)
from ninefold.structured.partition.definitions import all_paths, threshold_components

__all__ = ["ENTRIES"]


@entry(
    "9.6 alike",
    "Neighbours have the same label",
    "相邻相似像素具有同样的标签",
    claim="What cuts an image into regions assumes that contiguous pixels tend to have the same label, those that look alike above all.",
    source="section 9.6; Briggman et al. 2009; Turaga et al. 2010; Farabet et al. 2013",
    uses=("ninefold.structured.partition.Affinities",),
)
def alike() -> Finding:
    same, steps, apart = [], [], []
    for image, mask in texture_scenes(8, 0, tint=2.0):
        same.append(Affinities.from_labels(mask[:, 1:].numpy(), [(0, 1)], background=None).values[0, :, :-1].ravel() > 0)
        steps.append((image[:, :, 2:] - image[:, :, 1:-1]).square().sum(0).flatten().numpy())
        apart.append((mask[:, 56:] == mask[:, :56]).numpy().ravel())
    pairs, differ, far = (np.concatenate(each) for each in (same, steps, apart))
    near, unlike = pairs[differ < np.median(differ)].mean(), pairs[differ > np.quantile(differ, 0.99)].mean()
    return Finding(
        f"same label: {pairs.mean():.1%} of neighbours, {near:.1%} of the half most alike, {unlike:.1%} of the 1% least; {far.mean():.1%} 56 pixels apart",
        bool(near > pairs.mean() > 0.9 and unlike < near and far.mean() < 0.5),
        {"neighbours": pairs.mean().item(), "alike": near.item(), "unlike": unlike.item(), "far": far.mean().item()},
    )


@entry(
    "9.6 affinity graph",
    "A graph of which neighbours belong together",
    "Briggman et al. 2009; Turaga et al. 2010",
    claim="A network puts out one map per axis, of affinities between neighbouring voxels; the connected components of the edges above a "
    "threshold are the objects, also where objects touch.",
    correction="'Briggman et al. 2009' is Turaga, Briggman, Helmstaedter, Denk and Seung 2009 (maximin affinity learning). The layout of "
    "Turaga 2010's network is remembered: 1, 6, 6, 6, 3 maps, kernels 5x5x5.",
    source="section 9.6; Turaga et al. 2010",
    uses=("ninefold.structured.networks.AffinityNet", "ninefold.structured.partition.connected_components"),
)
def affinity_graph() -> Finding:
    torch.manual_seed(0)
    net = AffinityNet()
    count, field, maps = parameters(net), seen(net, (19, 2, 3)), net(torch.rand(1, 1, 6, 7, 9)).shape[1]
    cells = voronoi_cells((14, 17, 12), 12, walls=False)
    found = connected_components(Affinities.from_labels(cells), 0.5)
    inside = connected_components(Affinities.from_labels((cells > 0).astype(np.int64)), 0.5)
    agreed = rand_index(cells, found)
    return Finding(
        f"{count:,} parameters see {field}^3 voxels and give {maps} maps; 12 cells that touch: {found.max()} objects, Rand index {agreed:g}; by inside and outside {inside.max()}",
        (count, field, maps) == (12_021, 17, 3) and agreed == 1 and int(found.max()) == 12 and int(inside.max()) == 1,
        {"parameters": count, "field": field, "found": int(found.max()), "by labels": int(inside.max()), "Rand index": agreed},
    )


@entry(
    "9.6 one gap",
    "A gap of one pixel",
    "像素误差与 Rand 误差",
    claim="The share of wrong pixels does not say how good a partition is: one pixel missing in a wall is next to no pixel error, and joins "
    "two objects; a wall that is off by a pixel is much pixel error, and parts the same objects.",
    source="Turaga et al. 2009; Turaga et al. 2010",
    uses=("ninefold.structured.partition.rand_index", "ninefold.structured.partition.Affinities"),
    picture=gap,
)
def one_gap() -> Finding:
    wall = np.zeros((20, 31))
    wall[:, 15] = 1
    true = np.where(wall == 1, 0, 1 + (np.arange(31) > 15))
    gapped, moved = wall.copy(), np.roll(wall, 1, 1)
    gapped[7, 15] = 0
    errors = {}
    for name, found in (("gap", gapped), ("moved", moved)):
        objects = connected_components(Affinities.from_boundary_map(found), 0.5, minimum_size=2)
        errors[name] = float((found != wall).mean()), 1 - rand_index(true, objects, background=0)
    (pixel, rand), (other_pixel, other_rand) = errors.values()
    return Finding(
        f"gap: {pixel:.2%} of pixels, {rand:.1%} of pairs wrong; wall moved: {other_pixel:.1%} of pixels, {other_rand:.1%} of pairs",
        pixel < other_pixel / 30 and rand > 4 * other_rand,
        {name: [*pair] for name, pair in errors.items()},
    )


@entry(
    "9.6 maximin",
    "An affinity of any two pixels: the weakest link of the best path",
    "Turaga et al. 2009 (maximin affinity)",
    claim="Two pixels are in one component at a threshold if and only if the largest least affinity over the paths between them is above it. "
    "A loss on these numbers has gradients at the edges of a spanning tree only: those that decide the partition.",
    source="Turaga, Briggman, Helmstaedter, Denk and Seung 2009",
    uses=("ninefold.structured.partition.maximin_matrix", "ninefold.structured.partition.malis_loss"),
)
def maximin() -> Finding:
    draw, wrong, parted, graphs = np.random.default_rng(0), 0, 0, 60
    for _ in range(graphs):
        ends = [pair for pair in combinations(range(7), 2) if draw.random() < 0.5] or [(0, 1)]
        values = draw.permutation(len(ends)) / len(ends)
        edges = [(float(a), *pair) for a, pair in zip(values, ends, strict=True)]
        best = maximin_matrix(AffinityGraph(7, ends, values))
        wrong += int((best != all_paths(7, edges)).sum())
        labels = np.array(threshold_components(7, edges, 0.5))
        parted += int(((labels[:, None] == labels) != ((best > 0.5) | np.eye(7, dtype=bool))).sum())
    given = torch.rand(2, 12, 15, generator=torch.Generator().manual_seed(0), requires_grad=True)
    malis_loss(Affinities(given, ((1, 0), (0, 1))), torch.from_numpy(voronoi_cells((12, 15), 5, walls=False))).backward()
    touched, edges_of_image = int((given.grad != 0).sum()), 11 * 15 + 12 * 14  # type: ignore[union-attr]
    return Finding(
        f"{graphs} graphs of 7: {wrong} of {49 * graphs:,} differ from all paths tried, {parted} pairs parted otherwise; gradient at {touched} of {edges_of_image} edges",
        wrong == parted == 0 and 0 < touched <= 12 * 15 - 1,
        {"differ": wrong, "parted": parted, "touched": touched, "edges": edges_of_image},
    )


@entry(
    "9.6 superpixels",
    "One label for a superpixel",
    "Farabet et al. 2013: superpixel 投票",
    claim="Give all pixels of a superpixel the label of most of them: wrong labels of single pixels go, boundaries become those of the image.",
    correction="What the superpixels get wrong stays wrong: the vote on perfect labels is not perfect.",
    source="section 9.6; Farabet et al. 2013",
    uses=("ninefold.structured.partition.superpixel_vote",),
)
def superpixels() -> Finding:
    from skimage.segmentation import slic  # noqa: PLC0415  loaded by those who ask for superpixels

    draw, again = np.random.default_rng(0), 0
    before, after, best = list[float](), list[float](), list[float]()
    for image, mask in texture_scenes(8, 0, size=(64, 80), tint=2.0):
        true = mask.numpy()
        noisy = np.where(draw.random(true.shape) < 0.4, draw.integers(3, size=true.shape), true)
        regions = slic(image.permute(1, 2, 0).double().numpy(), 60, compactness=1.0, sigma=2.0, convert2lab=False)
        voted = superpixel_vote(noisy, regions)
        again += int((superpixel_vote(voted, regions) != voted).sum())
        for rates, labels in ((before, noisy), (after, voted), (best, superpixel_vote(true, regions))):
            rates.append(float((labels != true).mean()))
    gain = interval([b - a for b, a in zip(before, after, strict=True)])
    return Finding(
        f"wrong pixels {np.mean(before):.1%}, after the vote {np.mean(after):.1%} (better by {gain}); of perfect labels {np.mean(best):.1%}; voting again: {again}",
        gain.above(0.0) and again == 0 and float(np.mean(best)) > 0,
        {"before": before, "after": after, "best": best, "gain": gain.json(), "again": again},
    )


@entry(
    "9.6 cover",
    "The best segments of a tree",
    "Farabet et al. 2013: optimal cover",
    claim="From a tree of segments, each pixel takes the segment around it that costs least: those that hold one class, and are as large as that allows.",
    source="section 9.6; Farabet et al. 2013",
    uses=("ninefold.structured.partition.merge_tree", "ninefold.structured.partition.optimal_cover"),
)
def cover() -> Finding:
    draw, wrong, leaves = np.random.default_rng(0), 0, 0
    for _ in range(50):
        tree = merge_tree(AffinityGraph(8, [*combinations(range(8), 2)], draw.random(28)))
        costs = draw.integers(20, size=tree.nodes).astype(float)
        above = {int(child): tree.leaves + k for k, pair in enumerate(tree.children) for child in pair}
        labels, chosen = optimal_cover(tree, costs)
        for leaf in range(8):
            around = [leaf]
            while around[-1] in above:
                around.append(above[around[-1]])
            least = min(costs[node] for node in around)
            wrong += chosen[labels[leaf] - 1] != [node for node in around if costs[node] == least][-1]
            leaves += 1
    true = texture_scenes(1, 0, size=(24, 30))[0][1].numpy()
    pieces = connected_components(Affinities.from_labels(true, background=None))
    tree = merge_tree(Affinities(np.where(Affinities.from_labels(true, background=None).values > 0, 0.9, 0.1), ((1, 0), (0, 1))))
    counts: Any = tree.sums(np.eye(3)[true.ravel()])
    share = counts / counts.sum(1, keepdims=True)
    purity = 1 - share.max(1)
    agreed = rand_index(pieces, optimal_cover(tree, purity)[0])
    return Finding(
        f"{wrong} of {leaves} leaves choose otherwise than by looking at all around them; regions of one class found again: Rand index {agreed:g}",
        wrong == 0 and agreed == 1,
        {"wrong": int(wrong), "leaves": leaves, "Rand index": agreed},
    )


ENTRIES = (alike, affinity_graph, one_gap, maximin, superpixels, cover)
