"""Affinity graphs cut into objects: connected components, watershed, mutex watershed.

All look at edges in one order, the largest affinity first, equal ones by channel and then in raster order, so that results are
the same on every machine, with any number of threads, and wherever edges are stored.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ninefold.engines.native import extension_module
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.structured.partition.affinities import Affinities
from ninefold.structured.partition.arrays import label_array, plain_array, same_shape
from ninefold.structured.partition.graph import AffinityGraph, prepared, stacked

__all__ = ["connected_components", "mutex_watershed", "watershed"]


def connected_components(
    graph: Affinities | AffinityGraph, threshold: float = 0.5, *, minimum_size: int = 1, mask: Any = None
) -> Any:
    """Label the connected components of the edges whose affinity is above a threshold (Turaga et al. 2010).

    Parameters
    ----------
    graph : Affinities or AffinityGraph
        Short edges; long ones join what does not touch.
    threshold : float
        Edges above it join, those of just this affinity do not.
    minimum_size : int
        Components of fewer voxels become 0. With 2, voxels that nothing joins are background, as walls are in
        `Affinities.from_labels`.
    mask : array of bool, shape (*space) or (batch, *space), optional
        Voxels that count; the others become 0.

    Returns
    -------
    array or tensor of int64, shape (*space), (batch, *space), or (nodes,)
        Labels 1, 2, ... in raster order of their first voxels, for each image anew.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        If a parameter is out of its range, or the mask does not fit.
    ImportError
        If ninefold was built without its native extension.
    MemoryError
        If there is too little; nothing was started.

    Examples
    --------
    >>> a = Affinities.from_labels(np.array([[5, 5, 0, 2], [5, 5, 0, 2]]))
    >>> connected_components(a, minimum_size=2)
    array([[1, 1, 0, 2],
           [1, 1, 0, 2]])
    """
    _number(threshold, "threshold")
    if isinstance(minimum_size, bool) or not isinstance(minimum_size, (int, np.integer)) or minimum_size < 1:
        raise ArgumentError(f"minimum_size={minimum_size!r}; it is a whole number of at least 1")
    found = []
    for one in prepared(graph, mask):
        labels = np.zeros(one.shape, np.int64)
        extension_module().graph_components(one.handle, one.values, float(threshold), int(minimum_size), labels)
        found.append(labels)
    return stacked(found, graph)


def watershed(
    graph: Affinities | AffinityGraph, seeds: Any = None, *, lowest: float = 0.0, highest: float = 1.0, mask: Any = None
) -> Any:
    """Label the basins of a watershed of affinities: a maximum spanning forest (Cousty et al. 2009).

    Every voxel gets the seed to which its path of largest least affinity leads; among equal ones the order of edges decides.
    Without seeds, these are the regional maxima: connected edges of one affinity beside which all others are lower. There is one
    basin for each, so that plateaus stay whole, and a path of steepest ascent never leaves its basin.

    Parameters
    ----------
    graph : Affinities or AffinityGraph
        Short edges.
    seeds : array or tensor of int, shape (*space), (batch, *space) or (nodes,), optional
        Labels from 1; 0 is no seed.
    lowest : float
        Edges of this affinity and less join nothing; what no edge above it reaches is 0.
    highest : float
        Affinities above it count as 1: fewer, larger basins without seeds.
    mask : array of bool, shape (*space) or (batch, *space), optional
        Voxels that count; the others become 0.

    Returns
    -------
    array or tensor of int64
        The labels of the seeds; without seeds 1, 2, ... in raster order of their first voxels.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        If a parameter is out of its range, seeds or mask do not fit, or there is not one seed.
    ImportError
        If ninefold was built without its native extension.
    MemoryError
        If there is too little; nothing was started.

    Examples
    --------
    >>> a = Affinities(np.array([[[0.9, 0.3, 0.2, 0.8, 0.0]]]), ((0, 1),))
    >>> watershed(a)
    array([[1, 1, 1, 2, 2]])
    >>> watershed(a, np.array([[0, 7, 0, 0, 3]]))
    array([[7, 7, 7, 3, 3]])
    """
    _number(lowest, "lowest")
    _number(highest, "highest")
    if lowest >= highest:
        raise ArgumentError(f"lowest={lowest} is not below highest={highest}; no edge would be left")
    graphs = prepared(graph, mask, per_edge=16)
    given = None if seeds is None else label_array(seeds, "seeds").copy()
    if given is not None:
        wanted = (len(graphs), *graphs[0].shape) if isinstance(graph, Affinities) and graph.batched else graphs[0].shape
        same_shape(given, np.empty(wanted, bool), "seeds", "the image")
        if not given.any():
            raise ArgumentError(
                f"all {given.size} seeds are 0; give at least one label, or seeds=None for a basin of each maximum"
            )
        given = given.reshape(len(graphs), *graphs[0].shape)
    found = []
    for k, one in enumerate(graphs):
        labels = np.zeros(one.shape, np.int64) if given is None else given[k]
        extension_module().graph_watershed(one.handle, one.values, float(lowest), float(highest), given is not None, labels)
        found.append(labels)
    return stacked(found, graph)


def mutex_watershed(
    graph: Affinities | AffinityGraph,
    attractive: int | Any,
    *,
    strides: Sequence[int] | None = None,
    random_strides: bool = False,
    seed: int = 0,
    mask: Any = None,
) -> Any:
    """Partition by attractive short edges and repulsive long ones, without threshold or seeds (Wolf et al. 2018).

    Edges are taken by falling strength: the affinity a of an attractive one, 1 - a of a repulsive one. An attractive edge joins
    two clusters that need not stay apart, a repulsive one keeps its two apart from then on. Edges of strength 0 do nothing.

    Parameters
    ----------
    graph : Affinities or AffinityGraph
        All values are affinities: 1 is the same object, also of repulsive edges.
    attractive : int, or array of bool, shape (edges,)
        The first so many offsets attract, the others repel; of an `AffinityGraph`, which edges attract.
    strides : sequence of int, optional
        One for each axis: of the repulsive edges only those stored at multiples are looked at.
    random_strides : bool
        Instead of these, one in product(strides), drawn.
    seed : int
        Of what is drawn; the same draws on every machine.
    mask : array of bool, shape (*space) or (batch, *space), optional
        Voxels that count; the others become 0.

    Returns
    -------
    array or tensor of int64
        Labels 1, 2, ... in raster order of their first voxels.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        If a parameter is out of its range, or the mask does not fit.
    ImportError
        If ninefold was built without its native extension.
    MemoryError
        If there is too little; nothing was started.

    Examples
    --------
    >>> a = Affinities(np.array([[0.9, 0.6, 0.9, 0], [0.8, 0.1, 0, 0]]), ((1,), (2,)))
    >>> mutex_watershed(a, attractive=1)
    array([1, 1, 2, 2])
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ArgumentError(f"seed={seed!r}; it is a whole number of 0 and more")
    apart, count = None, 0
    if isinstance(graph, AffinityGraph):
        joins = plain_array(attractive, "attractive")
        if joins.dtype != bool or joins.shape != graph.values.shape:
            raise ShapeError(f"attractive is {joins.dtype} {joins.shape}; of a list it is bool, shape {graph.values.shape}")
        apart = np.ascontiguousarray(~joins).view(np.uint8)
    else:
        if isinstance(attractive, bool) or not isinstance(attractive, (int, np.integer)):
            raise ArgumentTypeError(f"attractive={attractive!r}; of Affinities it is how many of the offsets attract")
        count = int(attractive)
    graphs = prepared(graph, mask, per_edge=36)
    if isinstance(graph, Affinities) and not 1 <= count <= len(graph.offsets):
        raise ArgumentError(f"attractive={count}; with {len(graph.offsets)} offsets it is 1 to {len(graph.offsets)}")
    steps = _strides(strides, random_strides, graph)
    found = []
    for one in graphs:
        labels = np.zeros(one.shape, np.int64)
        extension_module().graph_mutex(one.handle, one.values, count, apart, steps, random_strides, int(seed), labels)
        found.append(labels)
    return stacked(found, graph)


def _strides(strides: Sequence[int] | None, random: bool, graph: Affinities | AffinityGraph) -> list[int]:
    if strides is None:
        if random:
            raise ArgumentError("random_strides=True needs strides: one in product(strides) is drawn")
        return []
    if isinstance(graph, AffinityGraph):
        raise ArgumentError(f"strides={tuple(strides)} are for grids; leave edges out of a list instead")
    steps = label_array(list(strides), "strides").tolist()
    if len(steps) != len(graph.shape) or min(steps) < 1:
        raise ArgumentError(f"strides={tuple(strides)}; they are {len(graph.shape)} whole numbers of at least 1")
    return [int(s) for s in steps]


def _number(x: Any, name: str) -> None:
    if isinstance(x, bool) or not isinstance(x, (int, float, np.number)) or not -np.inf < x < np.inf:
        raise (
            ArgumentTypeError(f"{name}={x!r}; it is a number")
            if not isinstance(x, (float, np.floating))
            else ArgumentError(f"{name}={x!r} is not finite")
        )
