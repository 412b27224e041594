"""Native walks against plain Python on small graphs: equality, ties included."""

import numpy as np
import pytest
import torch

from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from ninefold.structured.partition import (
    Affinities,
    AffinityGraph,
    MergeTree,
    connected_components,
    malis_loss,
    maximin_affinities,
    maximin_matrix,
    maximin_pairs,
    merge_tree,
    mutex_watershed,
    neighbour_offsets,
    optimal_cover,
    region_graph,
    superpixel_mean,
    superpixel_vote,
    watershed,
)
from ninefold.structured.partition.definitions import all_paths, basins, edges_of, mutex_clusters, pair_loss, threshold_components
from ninefold.structured.room import RoomError

LONG = ((1, 0), (0, 1), (2, -1), (0, 3))


def grid(seed, shape=(3, 5), offsets=LONG, levels=6, dtype=np.float32, neighbour="next"):
    """Few levels, powers of two apart: many ties, and 1 - a is exact."""
    rng = np.random.default_rng(seed)
    return Affinities((rng.integers(0, levels + 1, (len(offsets), *shape)) / 8).astype(dtype), offsets, neighbour)


def random_list(seed, nodes=7):
    rng = np.random.default_rng(seed)
    ends = [(u, v) for u in range(nodes) for v in range(u) if rng.random() < 0.5]
    return AffinityGraph(nodes, ends or [(0, 1)], rng.integers(0, 9, len(ends) or 1) / 8)


def plain(graph):
    return [edge for _, edge in edges_of(graph)]


def nodes_of(graph):
    return graph.nodes if isinstance(graph, AffinityGraph) else int(np.prod(graph.shape))


GRAPHS = [grid(s) for s in range(6)] + [grid(6, (2, 3, 4), ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, -2)), dtype=np.float64)]
GRAPHS += [grid(7, (1, 6)), grid(8, (9,), ((1,), (4,))), grid(9, neighbour="previous")] + [random_list(s) for s in range(12)]


@pytest.mark.parametrize("graph", GRAPHS)
def test_components(graph):
    for threshold in (0.0, 0.25, 0.5, 1.0):
        found = connected_components(graph, threshold)
        assert found.ravel().tolist() == threshold_components(nodes_of(graph), plain(graph), threshold)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("lowest", [0.0, 0.375])
def test_watershed(graph, lowest):
    assert watershed(graph, lowest=lowest).ravel().tolist() == basins(nodes_of(graph), plain(graph), lowest)
    seeds = np.random.default_rng(3).integers(0, 4, nodes_of(graph)) * (np.arange(nodes_of(graph)) % 3 == 0)
    seeds[0] = 5
    found = watershed(graph, seeds.reshape(getattr(graph, "shape", (-1,))), lowest=lowest)
    assert found.ravel().tolist() == basins(nodes_of(graph), plain(graph), lowest, seeds.tolist())


def test_watershed_of_a_plateau_is_one_basin_and_highest_makes_one():
    flat = Affinities(np.full((2, 4, 5), 0.5), neighbour_offsets(2))
    assert (watershed(flat) == 1).all()
    two = Affinities(np.array([[0.9, 0.6, 0.8, 0.0]]), ((1,),))
    assert watershed(two).tolist() == [1, 1, 2, 2]
    assert watershed(two, highest=0.5).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("graph", GRAPHS)
def test_mutex_watershed(graph):
    if isinstance(graph, AffinityGraph):
        attractive = np.arange(len(graph.values)) % 2 == 0
        edges = [(not joins, (a if joins else 1 - a, u, v)) for joins, (a, u, v) in zip(attractive, plain(graph), strict=True)]
    else:
        attractive = len(graph.offsets) // 2
        edges = [(k >= attractive, (1 - a if k >= attractive else a, u, v)) for k, (a, u, v) in edges_of(graph)]
    assert mutex_watershed(graph, attractive).ravel().tolist() == mutex_clusters(nodes_of(graph), edges)


@pytest.mark.parametrize("seed", range(8))
def test_mutex_watershed_without_ties(seed):
    rng = np.random.default_rng(seed)
    graph = Affinities(rng.random((4, 6, 9)), LONG)
    edges = [(k >= 2, (1 - a if k >= 2 else a, u, v)) for k, (a, u, v) in edges_of(graph)]
    assert mutex_watershed(graph, 2).ravel().tolist() == mutex_clusters(54, edges)


def test_strides_leave_repulsive_edges_out():
    graph = grid(4, (6, 7))
    kept = graph.values.copy()
    rows, columns = np.indices((6, 7))
    kept[2:, (rows % 2 != 0) | (columns % 3 != 0)] = 1
    assert (mutex_watershed(graph, 2, strides=(2, 3)) == mutex_watershed(Affinities(kept, LONG), 2)).all()
    drawn = [mutex_watershed(graph, 2, strides=(2, 3), random_strides=True, seed=s) for s in (0, 0, 1, 2, 3)]
    assert (drawn[0] == drawn[1]).all()
    assert any((drawn[0] != other).any() for other in drawn[2:])


@pytest.mark.parametrize("graph", [g for g in GRAPHS if nodes_of(g) <= 9])
def test_maximin_is_the_best_of_all_paths(graph):
    want = all_paths(nodes_of(graph), plain(graph))
    found = maximin_matrix(graph)
    assert (found == want).all()
    pairs = np.argwhere(np.ones_like(want))[::3]
    assert (maximin_affinities(graph, pairs) == want[tuple(pairs.T)]).all()


@pytest.mark.parametrize("graph", GRAPHS)
def test_maximin_above_a_threshold_is_being_in_one_component(graph):
    between, tree = maximin_matrix(graph), merge_tree(graph)
    for threshold in (0.0, 0.125, 0.5, 0.75):
        labels = connected_components(graph, threshold)
        assert ((between > threshold) == (labels.ravel()[:, None] == labels.ravel())).all()
        assert (tree.cut(threshold) == labels).all()


@pytest.mark.parametrize("seed", range(4))
def test_optimal_cover_is_the_cheapest_ancestor_of_each_leaf(seed):
    graph = grid(seed)
    tree = merge_tree(graph)
    costs = np.random.default_rng(seed).integers(0, 20, tree.nodes) / 4
    parent = {int(c): tree.leaves + k for k, pair in enumerate(tree.children) for c in pair}
    want = []
    for leaf in range(tree.leaves):
        line = [leaf]
        while line[-1] in parent:
            line.append(parent[line[-1]])
        want.append(min(reversed(line), key=lambda n: costs[n]))
    labels, chosen = optimal_cover(tree, costs)
    assert chosen[labels.ravel() - 1].tolist() == want
    assert labels.shape == graph.shape
    assert labels.ravel()[0] == 1


def test_trees_and_linkages():
    from scipy.cluster.hierarchy import fcluster, linkage

    table = linkage(np.random.default_rng(0).random((7, 3)), "single")
    tree = MergeTree.from_linkage(table)
    np.testing.assert_allclose(tree.to_linkage(), table, atol=1e-12)
    assert tree.sizes()[7:].tolist() == table[:, 3].tolist()
    cut, other = tree.cut(1 - 0.4 - 1e-9), fcluster(table, 0.4, "distance")
    assert ((cut[:, None] == cut) == (other[:, None] == other)).all()


LABELLED = [(grid(s, (2, 4), ((1, 0), (0, 1), (0, 2))), np.random.default_rng(s).integers(0, 3, (2, 4))) for s in range(8)]


@pytest.mark.parametrize(("graph", "labels"), LABELLED)
@pytest.mark.parametrize(("loss", "margin"), [("square", 0.0), ("square", 0.25), ("hinge", 0.125)])
def test_malis_is_the_sum_over_pairs(graph, labels, loss, margin):
    together, apart = pair_loss(labels.ravel().tolist(), plain(graph), loss, margin)
    values = torch.from_numpy(graph.values).double()
    options = {"loss": loss, "margin": margin}
    found = malis_loss(Affinities(values, graph.offsets), labels, normalize="none", **options)
    assert found.item() == together + apart
    inside = labels[labels > 0]
    same = sum(int(n * (n - 1) // 2) for n in np.bincount(inside))
    other = len(inside) * (len(inside) - 1) // 2 - same
    (pairs,) = maximin_pairs(graph, labels)
    assert (pairs.all_together, pairs.all_apart) == (same, other)
    each = malis_loss(Affinities(values, graph.offsets), labels, **options).item()
    assert each == pytest.approx(together / max(1, same) + apart / max(1, other), abs=1e-12)
    everything = malis_loss(Affinities(values, graph.offsets), labels, normalize="all", **options).item()
    assert everything == pytest.approx((together + apart) / max(1, same + other), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_of_malis_is_that_of_the_sum_over_pairs_and_on_its_edges_only(seed):
    rng = np.random.default_rng(seed)
    values, labels = torch.from_numpy(rng.random((3, 2, 4))).requires_grad_(), rng.integers(0, 3, (2, 4))
    offsets = ((1, 0), (0, 1), (0, 2))
    graph = Affinities(values, offsets)
    malis_loss(graph, labels, normalize="none").backward()
    slopes, step = np.zeros(values.shape), 1e-6
    for at in np.ndindex(*values.shape):
        ends = []
        for sign in (1, -1):
            moved = values.detach().numpy().copy()
            moved[at] = np.clip(moved[at] + sign * step, 0, 1)
            ends.append(sum(pair_loss(labels.ravel().tolist(), plain(Affinities(moved, offsets)))))
        slopes[at] = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(values.grad.numpy(), slopes, atol=1e-7)
    (pairs,) = maximin_pairs(graph, labels)
    others = np.ones(values.numel(), bool)
    others[pairs.together], others[pairs.apart] = False, False
    assert (values.grad.numpy().ravel()[others] == 0).all()
    assert torch.autograd.gradcheck(lambda v: malis_loss(Affinities(v, offsets), labels, loss="hinge", margin=0.1), values)


def test_malis_conventions_of_background_and_batches():
    graph, labels = grid(5, (3, 4), ((1, 0), (0, 1))), np.random.default_rng(5).integers(0, 3, (3, 4))
    values = torch.from_numpy(graph.values).double()
    alone = labels.copy()
    alone[labels == 0] = 10 + np.arange((labels == 0).sum())
    for background, same_as in (("singletons", alone), ("object", labels + 1)):
        a = malis_loss(Affinities(values, graph.offsets), labels, background=background)
        assert a == malis_loss(Affinities(values, graph.offsets), same_as)
    batch = torch.stack([values, values.flip(-1)])
    both = np.stack([labels, labels[:, ::-1]])
    each = malis_loss(Affinities(batch, graph.offsets), both, reduction="none")
    assert each[0] == malis_loss(Affinities(batch[0], graph.offsets), labels)
    assert each[1] == malis_loss(Affinities(batch[1], graph.offsets), both[1])
    assert malis_loss(Affinities(batch, graph.offsets), both) == each.mean()
    for names in ([0, 1, 2**32 + 1], [0, 2**32, 2**40]):  # the same, or background, in 32 bits
        assert malis_loss(Affinities(values, graph.offsets), np.array(names)[labels]) == each[0]
    assert malis_loss(Affinities(values, graph.offsets), labels * 0) == 0
    part = malis_loss(Affinities(values[:, :2], graph.offsets), labels[:2], normalize="none")
    ignored = np.concatenate([labels[:2], np.full((1, 4), 9)])
    assert malis_loss(Affinities(values, graph.offsets), ignored, ignore=9, normalize="none") == part


def test_perfect_affinities_cost_nothing_and_all_wrong_ones_everything():
    labels = np.array([[1, 1, 0, 2, 2], [1, 1, 0, 2, 2], [3, 3, 3, 0, 2]])
    right = Affinities.from_labels(torch.from_numpy(labels))
    assert malis_loss(right, labels) == 0
    wrong = Affinities(1 - right.values, right.offsets)
    assert malis_loss(wrong, labels) == 2


def test_masks_take_voxels_out():
    graph, mask = grid(2, (4, 5)), np.random.default_rng(2).random((4, 5)) > 0.3
    cut = graph.values.copy()
    for k, (dy, dx) in enumerate(graph.offsets):
        for y, x in np.ndindex(4, 5):
            inside = 0 <= y + dy < 4 and 0 <= x + dx < 5
            if not mask[y, x] or (inside and not mask[y + dy, x + dx]):
                cut[k, y, x] = 0 if k < 2 else 1
    less = Affinities(cut, LONG)
    for found, want in (
        (
            connected_components(Affinities(graph.values[:2], LONG[:2]), 0.4, mask=mask),
            connected_components(Affinities(cut[:2], LONG[:2]), 0.4),
        ),
        (mutex_watershed(graph, 2, mask=mask), mutex_watershed(less, 2)),
    ):
        assert (found[~mask] == 0).all()
        a, b = found[mask], want[mask]
        assert ((a[:, None] == a) == (b[:, None] == b)).all()
        assert sorted(set(a.tolist())) == list(range(1, a.max() + 1))
    assert (watershed(Affinities(graph.values[:2], LONG[:2]), mask=mask)[~mask] == 0).all()


def test_where_edges_are_stored_changes_nothing_and_kinds_are_kept():
    graph = grid(3, (4, 6))
    back = graph.to("previous")
    assert (mutex_watershed(graph, 2) == mutex_watershed(back, 2)).all()
    assert (watershed(graph) == watershed(back)).all()
    tensor = Affinities(torch.from_numpy(graph.values), LONG)
    found = connected_components(tensor)
    assert found.dtype == torch.int64
    assert (found.numpy() == connected_components(graph)).all()
    batch = Affinities(np.stack([graph.values, graph.values[:, ::-1]]), LONG)
    assert (watershed(batch)[1] == watershed(Affinities(graph.values[:, ::-1], LONG))).all()
    frozen = graph.values.copy()
    frozen.flags.writeable = False
    assert (watershed(Affinities(frozen, LONG)) == watershed(graph)).all()


def test_small_components_are_background():
    labels = np.array([[1, 1, 0, 2], [1, 1, 0, 0]])
    found = connected_components(Affinities.from_labels(labels), minimum_size=2)
    assert found.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]


def test_graphs_of_regions():
    graph = grid(1, (4, 5), neighbour_offsets(2))
    regions = np.array([[3, 3, 3, 7, 7], [3, 3, 0, 7, 7], [5, 5, 0, 7, 7], [5, 5, 5, 7, 7]])
    joined, names = region_graph(regions, graph.to("previous"))
    assert names.tolist() == [3, 5, 7]
    want = {}
    for a, u, v in plain(graph):
        pair = tuple(sorted((regions.ravel()[u], regions.ravel()[v])))
        if pair[0] != pair[1] and pair[0]:
            want.setdefault(pair, []).append(a)
    for statistic, of in (("mean", np.mean), ("max", np.max), ("min", np.min)):
        joined, _ = region_graph(regions, graph, statistic)
        found = {tuple(names[e].tolist()): a for e, a in zip(joined.ends, joined.values, strict=True)}
        assert found == {pair: pytest.approx(of(a)) for pair, a in want.items()}


def test_votes():
    rng = np.random.default_rng(0)
    classes, regions = rng.integers(0, 4, (7, 9)), rng.integers(0, 6, (7, 9)) * 11
    found = superpixel_vote(classes, regions)
    for r in np.unique(regions):
        counts = np.bincount(classes[regions == r])
        assert (found[regions == r] == counts.argmax()).all()
    assert (superpixel_vote(found, regions) == found).all()
    less = superpixel_vote(classes, regions, ignore=0)
    for r in np.unique(regions):
        assert (less[regions == r] == 1 + np.bincount(classes[(regions == r) & (classes > 0)])[1:].argmax()).all()
    assert superpixel_vote([0, 0, 1], [1, 1, 2], ignore=0).tolist() == [0, 0, 1]
    scores = torch.from_numpy(rng.random((3, 7, 9))).float()
    mean = superpixel_mean(scores, torch.from_numpy(regions))
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean[:, regions == 11][:, 0], scores[:, regions == 11].mean(1))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: connected_components(np.ones((2, 3, 3))), ArgumentTypeError, "ndarray is no graph; make Affinities"),
        (lambda: connected_components(grid(0), float("nan")), ArgumentError, "threshold=nan is not finite"),
        (lambda: connected_components(grid(0), "high"), ArgumentTypeError, "threshold='high'; it is a number"),
        (lambda: connected_components(grid(0), minimum_size=0), ArgumentError, "minimum_size=0"),
        (lambda: connected_components(grid(0), mask=np.ones((3, 4), bool)), ShapeError, r"mask has the shape \(3, 4\), the image \(3, 5\)"),
        (lambda: connected_components(grid(0), mask=np.ones((3, 5))), DTypeError, "mask is of float64; it must be bool"),
        (lambda: watershed(grid(0), np.zeros((3, 5), int)), ArgumentError, "all 15 seeds are 0"),
        (lambda: watershed(grid(0), np.zeros((5, 3), int)), ShapeError, r"seeds has the shape \(5, 3\)"),
        (lambda: watershed(grid(0), -np.ones((3, 5), int)), ArgumentError, "seeds goes down to -1"),
        (lambda: watershed(grid(0), lowest=0.5, highest=0.5), ArgumentError, "lowest=0.5 is not below highest=0.5"),
        (lambda: mutex_watershed(grid(0), 0), ArgumentError, "attractive=0; with 4 offsets it is 1 to 4"),
        (lambda: mutex_watershed(grid(0), True), ArgumentTypeError, "attractive=True"),
        (lambda: mutex_watershed(grid(0), 2, strides=(2,)), ArgumentError, "they are 2 whole numbers"),
        (lambda: mutex_watershed(grid(0), 2, random_strides=True), ArgumentError, "needs strides"),
        (lambda: mutex_watershed(random_list(0), [True]), ShapeError, r"attractive is bool \(1,\)"),
        (lambda: merge_tree(Affinities(np.ones((2, 1, 3)), ((1,),))), ShapeError, "are a batch; give one image"),
        (lambda: maximin_affinities(grid(0), [(0, 15)]), ArgumentError, "node 15; there are 15"),
        (lambda: maximin_affinities(grid(0), [[(0, 0), (3, 0)]]), ArgumentError, r"coordinates go up to \(3, 0\)"),
        (lambda: malis_loss(grid(0), np.ones((3, 5), int)), ArgumentTypeError, "with a tensor in them, not of ndarray"),
        (lambda: maximin_pairs(grid(0), np.ones((3, 4), int)), ShapeError, r"labels has the shape \(3, 4\)"),
        (lambda: maximin_pairs(grid(0), np.ones((3, 5))), DTypeError, "labels is of float64"),
        (lambda: AffinityGraph(2, [(0, 2)], [0.5]), ArgumentError, "ends at node 2; with nodes=2"),
        (lambda: AffinityGraph(2, [(1, 1)], [0.5]), ArgumentError, "edge 0 joins a node to itself"),
        (lambda: AffinityGraph(2, [(0, 1)], [np.nan]), ArgumentError, "1 of 1 affinities are NaN"),
        (lambda: AffinityGraph(2, [(0, 1)], [1.5]), ArgumentError, r"lie in \[1.5, 1.5\]"),
        (lambda: optimal_cover(merge_tree(grid(0)), [1.0]), ShapeError, r"costs have the shape \(1,\); 15 leaves"),
        (lambda: MergeTree((3,), np.array([[0, 4]]), np.array([0.5])), ArgumentError, "before it is made"),
        (lambda: superpixel_vote(np.zeros((0, 3), int), np.zeros((0, 3), int)), ShapeError, "nothing in it"),
        (lambda: superpixel_vote([1, 2], [1, 2, 3]), ShapeError, r"\(2,\), superpixels \(3,\)"),
    ],
)  # fmt: skip
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_too_little_memory_is_said_before(monkeypatch):
    monkeypatch.setattr("ninefold.structured.partition.graph.available_memory", lambda: 1000)
    with pytest.raises(RoomError, match=r"15 voxels with 4 offsets needs .* MiB may be used; cut the volume into blocks"):
        mutex_watershed(grid(0), 2)


def test_a_missing_extension_is_said(without_native):
    with pytest.raises(ImportError, match="without its native extension"):
        connected_components(grid(0))


@pytest.mark.parametrize("maps", [np.zeros((2, 5, 6), np.float32), torch.zeros(2, 5, 6), [0.5, 0.5]])
@pytest.mark.parametrize(
    "call",
    [
        connected_components,
        watershed,
        lambda x: mutex_watershed(x, 2),
        merge_tree,
        maximin_matrix,
        lambda x: maximin_affinities(x, [[0, 1]]),
        lambda x: maximin_pairs(x, np.ones((5, 6), int)),
        lambda x: malis_loss(x, np.ones((5, 6), int)),
        lambda x: region_graph(np.ones((5, 6), int), x),
    ],
)
def test_maps_alone_are_no_graph(maps, call):
    with pytest.raises(ArgumentTypeError, match=rf"a {type(maps).__name__} is no graph; make Affinities of maps"):
        call(maps)
