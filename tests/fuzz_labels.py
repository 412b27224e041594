"""Random lattices, graphs and dictionaries against their definitions: ``python tests/fuzz_labels.py --cases 1000``.

A case depends on its number alone: ``python tests/fuzz_labels.py --first 4711 --cases 1``.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.structured.test_lattice import twin

from ninefold.engines import native
from ninefold.errors import ShapeError
from ninefold.learn import GridPool, Hard, Pyramid, SampledPatches, SoftThreshold, Triangle
from ninefold.learn.bands import Bands
from ninefold.learn.compare import Comparison
from ninefold.structured import (
    Affinities,
    AffinityGraph,
    LatticeFilter,
    MergeTree,
    RoomError,
    connected_components,
    malis_loss,
    maximin_matrix,
    merge_tree,
    mutex_watershed,
    optimal_cover,
    watershed,
)
from ninefold.structured.crf.field import Term, mean_field
from ninefold.structured.partition.definitions import all_paths, basins, edges_of, mutex_clusters, pair_loss, threshold_components

Draw = np.random.Generator


def same(found, expected, what, allowed=1e-4):
    """Raise AssertionError unless numbers are near, by the largest of the expected."""
    found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    if found.shape != expected.shape or not bool(((found - expected).abs() <= allowed * scale + 1e-30).all()):
        raise AssertionError(f"{what}: {found} is not {expected}")


TIED = 1  # points on borders of simplices, where rounding decides which vertices of weight 0 are there, and blurs go by them


def features_of(draw: Draw, kind: int, points: int, dims: int) -> torch.Tensor:
    """Return features: alike, on a grid of few values, spread, or far out."""
    if kind == 0:
        return torch.full((points, dims), float(draw.standard_normal()), dtype=torch.float32)
    if kind == TIED:
        return torch.from_numpy(draw.integers(-3, 4, (points, dims)).astype(np.float32) / 2)
    return torch.from_numpy((draw.standard_normal((points, dims)) * (1.5 if kind == 2 else 300)).astype(np.float32))


def lattice_case(draw: Draw, number: int, counts: Counter[str]) -> None:
    """Compare a filter with its definition, and steps of a mean field with sums over its matrix."""
    points, dims = int(draw.choice([1, 2, 3, 17, 31, 64])), int(draw.integers(1, 13))
    kind = int(draw.integers(4))
    features = features_of(draw, kind, points, dims)
    blur = str(draw.choice(["one", "both"]))
    try:
        LatticeFilter(features, int(draw.integers(0, 3)), blur)
    except RoomError:
        counts["lattices refused"] += 1
    lattice = LatticeFilter(features, blur=blur)
    values = torch.from_numpy(draw.standard_normal((points, int(draw.choice([1, 2, 3, 8, 21, 33, 65])))).astype(np.float32))
    what = f"case {number}, lattice {points}x{dims} {blur}"
    matrix, transposed = (lattice.apply(torch.eye(points, dtype=torch.float32), transposed=t) for t in (False, True))
    same(transposed, matrix.T, f"{what}, adjoint")
    same(lattice.apply(values), matrix.double() @ values.double(), f"{what}, matrix")
    if kind != TIED:
        forward, backward = twin(features, values), twin(features, values, reverse=True)
        same(lattice.apply(values), forward if blur == "one" else (forward + backward) / 2, f"{what}, definition")
    same(lattice.diagonal(), matrix.diagonal(), f"case {number}, diagonal", 1e-3)
    labels = int(draw.choice([1, 2, 3, 4, 7, 21, 64]))
    compatibility = torch.from_numpy(draw.standard_normal(labels).astype(np.float32))
    unary = torch.from_numpy(draw.standard_normal((labels, points)).astype(np.float32))
    self_term = bool(draw.integers(2))
    term = Term.made(lattice, compatibility, str(draw.choice(["none", "before", "after", "symmetric"])), self_term=self_term)
    start = (-unary).softmax(0)
    step = (-unary - term.energies(start.T.contiguous()).T).softmax(0)
    same(mean_field(unary, [term] * int(draw.integers(1, 2)), 1), step, f"case {number}, mean field of {labels} labels", 1e-3)
    counts["lattices"] += 1


def threads_case(draw: Draw, number: int, counts: Counter[str]) -> None:
    """Compare many points by several threads with one thread."""
    points, dims = int(draw.integers(16385, 30000)), int(draw.integers(1, 6))
    features = torch.from_numpy((draw.standard_normal((points, dims)) * 4).astype(np.float32))
    values = torch.from_numpy(draw.standard_normal((points, int(draw.choice([1, 3, 9])))).astype(np.float32))
    unary = torch.from_numpy(draw.standard_normal((int(draw.choice([2, 5])), points)).astype(np.float32))
    blur, found = str(draw.choice(["one", "both"])), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        lattice = LatticeFilter(features, blur=blur)
        term = Term.made(lattice, torch.full((len(unary),), -1.0, dtype=torch.float32), "symmetric", self_term=False)
        found.append((lattice.apply(values), lattice.apply(values, transposed=True), mean_field(unary, [term, term], 2)))
    torch.set_num_threads(1)
    for other in found[1:]:
        for one, several in zip(found[0], other, strict=True):
            same(several, one, f"case {number}, {points} points of {dims} features by several threads", 1e-3)
    counts["lattices of several threads"] += 1


def graph_of(draw: Draw) -> Affinities | AffinityGraph:
    """Return a grid of up to 3 axes with any offsets, or a list with double edges, or none; many affinities are equal."""
    dtype = draw.choice([np.float32, np.float64])
    if draw.integers(3) == 0:
        nodes, edges = int(draw.integers(1, 8)), int(draw.integers(0, 12))
        ends = draw.integers(0, nodes, (edges, 2))
        ends = ends[ends[:, 0] != ends[:, 1]]
        return AffinityGraph(nodes, ends, (draw.integers(0, 9, len(ends)) / 8).astype(dtype))
    axes = int(draw.integers(1, 4))
    shape = tuple(int(n) for n in draw.integers(1, 4 if axes > 1 else 9, axes))
    offsets = {tuple(int(d) for d in draw.integers(-3, 4, axes)) for _ in range(int(draw.integers(1, 5)))}
    offsets = tuple(sorted(offset for offset in offsets if offset > (0,) * axes)) or ((1,) + (0,) * (axes - 1),)
    values = draw.integers(0, 9, (len(offsets), *shape)) / 8 if draw.integers(2) else draw.random((len(offsets), *shape))
    return Affinities(values.astype(dtype), offsets, str(draw.choice(["next", "previous"])))


def graph_case(draw: Draw, number: int, counts: Counter[str]) -> None:
    """Compare walks through a graph with plain Python."""
    graph = graph_of(draw)
    numbered = edges_of(graph)
    edges = [edge for _, edge in numbered]
    nodes = graph.nodes if isinstance(graph, AffinityGraph) else int(np.prod(graph.shape))
    shape = (nodes,) if isinstance(graph, AffinityGraph) else graph.shape
    what = f"case {number}, {graph}"
    threshold, lowest = float(draw.integers(0, 9)) / 8, float(draw.integers(0, 4)) / 8
    same(connected_components(graph, threshold).ravel(), threshold_components(nodes, edges, threshold), f"{what}, components", 0)
    same(watershed(graph, lowest=lowest).ravel(), basins(nodes, edges, lowest), f"{what}, basins", 0)
    seeds = draw.integers(0, 3, nodes) * int(draw.choice([1, 2**40]))
    seeds[0] = 1
    found = watershed(graph, seeds.reshape(shape), lowest=lowest).ravel()
    same(found, basins(nodes, edges, lowest, seeds.tolist()), f"{what}, seeds", 0)
    if isinstance(graph, AffinityGraph):
        attractive = draw.integers(0, 2, len(edges)).astype(bool)
        joins = attractive.tolist()
    else:
        attractive = int(draw.integers(1, len(graph.offsets) + 1))
        joins = [channel < attractive for channel, _ in numbered]
    weighed = [(not j, (a if j else 1 - a, u, v)) for j, (a, u, v) in zip(joins, edges, strict=True)]
    same(mutex_watershed(graph, attractive).ravel(), mutex_clusters(nodes, weighed), f"{what}, mutex", 0)
    tree = merge_tree(graph)
    same(tree.cut(threshold).ravel(), threshold_components(nodes, edges, threshold), f"{what}, cut", 0)
    cover_case(draw, tree, f"{what}, cover")
    if nodes <= 7:
        same(maximin_matrix(graph), all_paths(nodes, edges), f"{what}, maximin", 1e-6)
    if nodes <= 7 and isinstance(graph, Affinities):
        labels = draw.integers(0, 3, nodes)
        parts = pair_loss(labels.tolist(), edges)
        ids = torch.from_numpy(labels * int(draw.choice([1, 2**40]))).reshape(shape)
        predicted = Affinities(torch.from_numpy(graph.values).requires_grad_(), graph.offsets, graph.neighbour)
        loss = malis_loss(predicted, ids, normalize="none")
        loss.backward()
        same(loss.detach(), sum(parts), f"{what}, MALIS", 1e-5)
    counts["graphs"] += 1


def cover_case(draw: Draw, tree: MergeTree, what: str) -> None:
    """Compare the cheapest ancestors of leaves with those found by going up from each."""
    costs = draw.integers(0, 5, tree.nodes).astype(float)
    labels, chosen = optimal_cover(tree, costs)
    above = {int(child): tree.leaves + k for k, pair in enumerate(tree.children) for child in pair}
    for leaf, label in enumerate(labels.ravel().tolist()):
        ways = [leaf]
        while ways[-1] in above:
            ways.append(above[ways[-1]])
        if chosen[label - 1] not in ways or costs[chosen[label - 1]] != min(costs[way] for way in ways):
            raise AssertionError(f"{what} of leaf {leaf}: {chosen[label - 1]} of {ways}")


def encode_case(draw: Draw, number: int, counts: Counter[str]) -> None:
    """Compare sums of a dictionary's codes with those of whole maps."""
    size = tuple(int(n) for n in draw.integers(1, 5, 2))
    channels = int(draw.integers(1, 4))
    atoms = int(size[0] * size[1] * channels + draw.integers(0, 40))
    images = torch.from_numpy(draw.standard_normal((int(draw.integers(1, 4)), channels, *(size + draw.integers(0, 12, 2)))) * 30)
    images = images.to(torch.float32)
    many = torch.from_numpy((draw.standard_normal((40, channels, size[0] + 3, size[1] + 4)) * 30).astype(np.float32))
    source = SampledPatches(atoms, size, random_state=number).fit(many)
    encoder = [Triangle(), Hard(), SoftThreshold(0.1), SoftThreshold(0.1, split=False)][draw.integers(4)]
    pooling = [GridPool((1, 1), "sum"), Pyramid((1, 2, 3), "mean"), GridPool((2, 1), "mean")][draw.integers(3)]
    comparison = Comparison(source, int(draw.integers(1, 4)))
    height, width = comparison.fit(images)
    torch.set_num_threads(int(draw.integers(1, 4)))
    try:
        rows = Bands(comparison, encoder, pooling)(images)
    except ShapeError:  # fewer positions than regions
        return
    torch.set_num_threads(1)
    patches = comparison.patches(images).flatten(3).flatten(0, 2).contiguous()
    dots = torch.empty(len(patches), comparison.count, dtype=torch.float32)
    compared = comparison.of_rows(patches, dots, (len(images), height, width))
    same(rows, pooling(encoder(compared)), f"case {number}, {atoms} atoms {size} of {tuple(images.shape)}", 1e-3)
    counts["dictionaries"] += 1


CASES = {"lattice": lattice_case, "graph": graph_case, "encode": encode_case, "threads": threads_case}


def main(arguments: list[str] | None = None) -> int:
    """Run the cases; return 1 at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", choices=CASES)
    options = parser.parse_args(arguments)
    if native.instruction_set() is None:
        print("there is no native extension to test")
        return 2
    counts: Counter[str] = Counter()
    native.extension_module().poison(True)
    torch.set_num_threads(1)
    try:
        for number in range(options.first, options.first + options.cases):
            for name, case in CASES.items():
                if options.only in (None, name) and (name != "threads" or number % 20 == 0):
                    case(np.random.default_rng(number), number, counts)
    except AssertionError as error:
        print(error)
        return 1
    finally:
        native.extension_module().poison(False)
    print(
        f"{options.cases} cases on {native.instruction_set()}: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
