"""Maximum spanning forests: maximin affinities, and the tree of merges with its cuts and covers.

The maximin affinity of two nodes is the largest, over all paths between them, of the least affinity on the path. It is the least
affinity on their path in a maximum spanning tree, that is of the merge that first puts both into one set.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ninefold.engines.native import extension_module
from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.structured.partition.affinities import Affinities
from ninefold.structured.partition.arrays import Labels, label_array, plain_array
from ninefold.structured.partition.graph import AffinityGraph, Prepared, enough_memory, prepared

__all__ = ["MergeTree", "maximin_affinities", "maximin_matrix", "merge_tree", "optimal_cover"]


def _single(graph: Affinities | AffinityGraph, mask: Any = None) -> Prepared:
    if isinstance(graph, Affinities) and graph.batched:
        raise ShapeError(
            f"affinities {tuple(graph.values.shape)} are a batch; give one image at a time, Affinities(values[k], ...)"
        )
    return prepared(graph, mask, per_edge=16)[0]


def maximin_affinities(graph: Affinities | AffinityGraph, pairs: Any, *, mask: Any = None) -> NDArray[Any]:
    """Return the maximin affinities of given pairs, by Kruskal's walk: n log n, and log n for each pair.

    Parameters
    ----------
    graph : Affinities or AffinityGraph
        Of one image.
    pairs : array of int, shape (pairs, 2), or (pairs, 2, axes) of coordinates
        Nodes: voxels by their number in raster order or by their coordinates.
    mask : array of bool, shape (*space), optional
        Voxels through which paths may go.

    Returns
    -------
    array, shape (pairs,), of the dtype of the affinities
        0 where no path is, 1 of a node and itself.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        If pairs are no nodes.
    ImportError, MemoryError
        As `connected_components`.

    Examples
    --------
    >>> graph = AffinityGraph(4, [(0, 1), (1, 2), (0, 2)], [0.9, 0.4, 0.7])
    >>> maximin_affinities(graph, [(1, 2), (0, 3)])
    array([0.7, 0. ])
    """
    one = _single(graph, mask)
    plain = label_array(pairs, "pairs", (2, 3))
    if plain.ndim == 3:
        if plain.shape[1:] != (2, len(one.shape)):
            raise ShapeError(f"pairs have the shape {plain.shape}; coordinates in {one.shape} are (pairs, 2, {len(one.shape)})")
        if (plain >= one.shape).any():
            raise ArgumentError(f"coordinates go up to {tuple(plain.max((0, 1)).tolist())}, outside of the image {one.shape}")
        plain = np.ravel_multi_index(tuple(np.moveaxis(plain, -1, 0)), one.shape).astype(np.int64)
    if plain.shape[1:] != (2,):
        raise ShapeError(f"pairs have the shape {plain.shape}; they must be (pairs, 2)")
    if plain.max() >= one.nodes:
        raise ArgumentError(f"pairs name node {plain.max()}; there are {one.nodes}, from 0 to {one.nodes - 1}")
    out = np.empty(len(plain), one.values.dtype)
    extension_module().graph_maximin(one.handle, one.values, np.ascontiguousarray(plain), out)
    return out


def maximin_matrix(graph: Affinities | AffinityGraph, *, mask: Any = None) -> NDArray[Any]:
    """Return the maximin affinities of all pairs of a small graph.

    Returns
    -------
    array, shape (nodes, nodes), of the dtype of the affinities
        Symmetric, 1 on the diagonal.

    Raises
    ------
    ShapeError, ImportError
        As `maximin_affinities`.
    RoomError
        If the matrix takes more memory than there is.

    Examples
    --------
    >>> maximin_matrix(AffinityGraph(3, [(0, 1), (1, 2)], [0.9, 0.4]))
    array([[1. , 0.9, 0.4],
           [0.9, 1. , 0.4],
           [0.4, 0.4, 1. ]])
    """
    one = _single(graph, mask)
    enough_memory(one.nodes**2 * (16 + one.values.itemsize), f"the matrix of all pairs of {one.nodes:,} nodes")
    out = np.empty(one.nodes**2, one.values.dtype)
    pairs = np.stack(np.divmod(np.arange(one.nodes**2, dtype=np.int64), one.nodes), 1)
    extension_module().graph_maximin(one.handle, one.values, pairs, out)
    return out.reshape(one.nodes, one.nodes)


@dataclass(frozen=True, eq=False)
class MergeTree:
    """A hierarchy: leaves are nodes of a graph, and every merge joins two trees at a height.

    Parameters
    ----------
    shape : tuple of int
        Of the leaves: an image, or (nodes,).
    children : array of int, shape (merges, 2)
        Merge k makes the tree with number leaves + k out of two; numbers below leaves are leaves.
    heights : array of float, shape (merges,)
        Affinities, which never rise from merge to merge.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        If they do not fit, a tree is merged twice or before it is made, or heights rise or are NaN.

    Examples
    --------
    >>> tree = merge_tree(AffinityGraph(4, [(0, 1), (1, 2), (2, 3)], [0.9, 0.2, 0.8]))
    >>> tree.children.tolist(), tree.heights.tolist()
    ([[0, 1], [2, 3], [4, 5]], [0.9, 0.8, 0.2])
    >>> tree.cut(0.5)
    array([1, 1, 2, 2])
    """

    shape: tuple[int, ...]
    children: NDArray[np.int64]
    heights: NDArray[Any]

    def __post_init__(self) -> None:
        heights = np.ascontiguousarray(plain_array(self.heights, "heights"))
        children = plain_array(self.children, "children")
        children = label_array(children, "children") if children.size else np.zeros((0, 2), np.int64)
        if heights.dtype.kind != "f":
            raise DTypeError(f"heights are of {heights.dtype}; they are float32 or float64")
        if children.shape != (len(heights), 2) or heights.ndim != 1:
            raise ShapeError(f"children {children.shape} and heights {heights.shape}; they are (merges, 2) and (merges,)")
        joined = children.ravel()
        if len(joined) and ((children.max(1) >= self.leaves + np.arange(len(children))).any() or np.bincount(joined).max() > 1):
            raise ArgumentError(f"a tree is merged twice, or before it is made; merge k makes number {self.leaves} + k")
        if np.isnan(heights).any() or (np.diff(heights) > 0).any():
            raise ArgumentError("heights are NaN or rise from one merge to the next; sort merges by falling affinity")
        object.__setattr__(self, "children", children)
        object.__setattr__(self, "heights", heights)

    @property
    def leaves(self) -> int:
        """How many there are."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nodes(self) -> int:
        """Leaves and merges together."""
        return self.leaves + len(self.children)

    @classmethod
    def from_linkage(cls, linkage: Any) -> "MergeTree":
        """Return the tree of SciPy's linkage matrix; a height is 1 minus the distance.

        Raises
        ------
        ShapeError, ArgumentError
            If it is not of shape (leaves - 1, 4), or distances fall.

        Examples
        --------
        >>> MergeTree.from_linkage([[0, 1, 0.25, 2], [2, 3, 0.5, 3]]).heights
        array([0.75, 0.5 ])
        """
        table = np.asarray(plain_array(linkage, "linkage"), np.float64)
        if table.ndim != 2 or table.shape[1] != 4 or not len(table):
            raise ShapeError(f"a linkage matrix has the shape (leaves - 1, 4), this one {table.shape}")
        return cls((len(table) + 1,), table[:, :2].astype(np.int64), 1 - table[:, 2])

    def to_linkage(self) -> NDArray[np.float64]:
        """Return SciPy's linkage matrix, for `scipy.cluster.hierarchy`; a distance is 1 minus the height.

        Raises
        ------
        ArgumentError
            If the tree is a forest: the graph was in parts.

        Examples
        --------
        >>> MergeTree((2,), np.array([[0, 1]]), np.array([0.75])).to_linkage()
        array([[0.  , 1.  , 0.25, 2.  ]])
        """
        trees = self.leaves - len(self.children)
        if trees != 1:
            raise ArgumentError(f"{self.leaves} leaves with {len(self.children)} merges are {trees} trees; a linkage is one")
        return np.column_stack(
            [self.children.astype(np.float64), 1 - self.heights.astype(np.float64), self.sizes()[self.leaves :]]
        )

    def sizes(self) -> Labels:
        """Return how many leaves are below each node.

        Examples
        --------
        >>> MergeTree((2,), np.array([[0, 1]]), np.array([0.75])).sizes()
        array([1, 1, 2])
        """
        return self.sums(np.ones(self.leaves, np.int64))

    def sums(self, of: Any) -> NDArray[Any]:
        """Return sums over the leaves below each node, e.g. of one-hot labels for the costs of `optimal_cover`.

        Parameters
        ----------
        of : array of shape (leaves, ...)
            Numbers of the leaves.

        Raises
        ------
        ShapeError
            If there are not as many as leaves.

        Examples
        --------
        >>> MergeTree((2,), np.array([[0, 1]]), np.array([0.75])).sums([3, 4])
        array([3, 4, 7])
        """
        given = plain_array(of, "of")
        if len(given) != self.leaves:
            raise ShapeError(f"{len(given)} numbers for {self.leaves} leaves; give one for each")
        out = np.concatenate([given, np.zeros((len(self.children), *given.shape[1:]), given.dtype)])
        for k, (a, b) in enumerate(self.children.tolist()):
            out[self.leaves + k] = out[a] + out[b]
        return out

    def cut(self, threshold: float) -> Labels:
        """Return the objects when all merges above a threshold are made, labelled from 1 in order of their first leaves.

        That is `connected_components` at the threshold, without walking through the edges again.

        Raises
        ------
        ArgumentError
            If the threshold is NaN.

        Examples
        --------
        >>> MergeTree((3,), np.array([[0, 1], [2, 3]]), np.array([0.75, 0.5])).cut(0.5)
        array([1, 1, 2])
        """
        if not threshold == threshold:  # noqa: PLR0124
            raise ArgumentError(f"threshold={threshold} is not a number")
        count = int(np.searchsorted(-self.heights.astype(np.float64), -threshold))
        labels = np.empty(self.shape, np.int64)
        extension_module().tree_cut(self.leaves, self.children, count, labels)
        return labels


def merge_tree(graph: Affinities | AffinityGraph, *, mask: Any = None) -> MergeTree:
    """Return the hierarchy of a graph by its maximum spanning forest: single linkage.

    Voxels outside of the mask stay leaves that nothing joins.

    Raises
    ------
    ShapeError, DTypeError
        If affinities are a batch, or the mask does not fit.
    ImportError, MemoryError
        As `connected_components`.

    Examples
    --------
    >>> merge_tree(AffinityGraph(3, [(0, 1), (1, 2), (0, 2)], [0.2, 0.5, 0.9])).heights
    array([0.9, 0.5])
    """
    one = _single(graph, mask)
    forest = extension_module().graph_spanning(one.handle, one.values)
    children = np.empty((len(forest), 2), np.int64)
    extension_module().tree_merges(one.handle, forest, children)
    return MergeTree(one.shape, children, one.values.ravel()[forest])


def optimal_cover(tree: MergeTree, costs: Any) -> tuple[Labels, NDArray[np.int64]]:
    """Choose for each leaf the tree around it that costs least (Farabet et al. 2013).

    Parameters
    ----------
    tree : MergeTree
        Of segments.
    costs : array of shape (nodes,)
        Of each leaf, then of each merge: such as the entropy of the classes inside. The larger tree wins among equal costs.

    Returns
    -------
    array of int64, shape of the leaves
        Labels of what was chosen, from 1 in order of the first leaves.
    array of int64
        The node of the tree that each label stands for.

    Raises
    ------
    ShapeError, ArgumentError
        If there is not one cost for each node, or one is NaN.

    Examples
    --------
    >>> tree = MergeTree((3,), np.array([[0, 1], [2, 3]]), np.array([0.75, 0.5]))
    >>> optimal_cover(tree, [0.5, 0.3, 0.1, 0.2, 0.4])
    (array([1, 1, 2]), array([3, 2]))
    """
    if not isinstance(tree, MergeTree):
        raise ArgumentError(f"tree is a {type(tree).__name__}; make one with merge_tree or MergeTree.from_linkage")
    cost = np.ascontiguousarray(plain_array(costs, "costs"), np.float64)
    if cost.shape != (tree.nodes,):
        raise ShapeError(
            f"costs have the shape {cost.shape}; {tree.leaves} leaves and {len(tree.children)} merges need ({tree.nodes},)"
        )
    if np.isnan(cost).any():
        raise ArgumentError(f"{int(np.isnan(cost).sum())} of {cost.size} costs are NaN; mend what made them")
    best = np.empty(tree.nodes, np.int64)
    extension_module().tree_cheapest(tree.leaves, tree.children, cost, best)
    chosen, start, index = np.unique(best[: tree.leaves], return_index=True, return_inverse=True)
    order = np.argsort(start)
    number = np.empty_like(order)
    number[order] = np.arange(1, len(order) + 1)
    return number[index].reshape(tree.shape), chosen[order]
