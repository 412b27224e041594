"""Graphs of affinities as native code takes them: a grid of voxels, or a list of edges."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ninefold.engines.native import extension_module
from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from ninefold.structured.partition.affinities import Affinities
from ninefold.structured.partition.arrays import Labels, in_kind, label_array, plain_array, same_shape
from ninefold.structured.partition.offsets import ends, one_of
from ninefold.structured.room import available_memory, refuse_beyond

__all__ = ["AffinityGraph", "Prepared", "enough_memory", "prepared", "region_graph", "require_graph", "stacked"]

_MOST = 2**32 - 1


@dataclass(frozen=True, eq=False)
class AffinityGraph:
    """A graph given as a list of edges: of regions, or of anything else that has affinities.

    Parameters
    ----------
    nodes : int
        How many; they are numbered from 0.
    ends : array of int, shape (edges, 2)
        Nodes that each edge joins. More than one edge between two nodes is allowed.
    values : array of float32 or float64, shape (edges,)
        Affinities, in [0, 1].

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        If they do not fit together, an end is no node, an edge joins a node to itself, or an affinity is NaN or outside [0, 1].

    Examples
    --------
    >>> AffinityGraph(3, [(0, 1), (1, 2)], [0.9, 0.2]).nodes
    3
    """

    nodes: int
    ends: Any
    values: Any

    def __post_init__(self) -> None:
        if isinstance(self.nodes, bool) or not isinstance(self.nodes, (int, np.integer)):
            raise ArgumentTypeError(f"nodes={self.nodes!r}; it is a whole number")
        if self.nodes < 1:
            raise ArgumentError(f"nodes={self.nodes}; a graph has at least 1 node")
        values = np.ascontiguousarray(plain_array(self.values, "values"))
        if values.dtype not in (np.float32, np.float64):
            raise DTypeError(f"affinities are of {values.dtype}; they must be float32 or float64: convert them with a cast")
        joined = np.reshape(plain_array(self.ends, "ends"), (-1, 2)) if np.size(self.ends) == 0 else self.ends
        joined = label_array(joined, "ends", (2,)) if len(joined) else np.zeros((0, 2), np.int64)
        if joined.shape[1:] != (2,) or values.shape != joined.shape[:1]:
            raise ShapeError(
                f"ends of shape {joined.shape} and values of shape {values.shape}; they must be (edges, 2) and (edges,)"
            )
        if len(joined) and joined.max() >= self.nodes:
            raise ArgumentError(f"an edge ends at node {joined.max()}; with nodes={self.nodes} they go up to {self.nodes - 1}")
        if (joined[:, 0] == joined[:, 1]).any():
            raise ArgumentError(f"edge {int((joined[:, 0] == joined[:, 1]).argmax())} joins a node to itself; take it out")
        if np.isnan(values).any():
            raise ArgumentError(f"{int(np.isnan(values).sum())} of {values.size} affinities are NaN; mend what made them")
        if len(values) and not (values.min() >= 0 and values.max() <= 1):
            raise ArgumentError(f"affinities lie in [{values.min():g}, {values.max():g}], not in [0, 1]")
        object.__setattr__(self, "nodes", int(self.nodes))
        object.__setattr__(self, "ends", joined)
        object.__setattr__(self, "values", values)


def require_graph(graph: Any, *kinds: type) -> None:
    """Refuse what is no graph, such as the maps alone, which do not say where their edges lead.

    Raises
    ------
    ArgumentTypeError
    """
    if not isinstance(graph, kinds):
        raise ArgumentTypeError(
            f"a {type(graph).__name__} is no graph; make Affinities of maps, or an AffinityGraph of a list of edges"
        )


@dataclass(frozen=True)
class Prepared:
    """A graph that native code can walk: its handle, values as they lie, and the shape of labels."""

    handle: Any
    values: NDArray[Any]
    shape: tuple[int, ...]

    @property
    def nodes(self) -> int:
        """How many there are."""
        return int(np.prod(self.shape, dtype=np.int64))


def prepared(graph: Affinities | AffinityGraph, mask: Any = None, per_edge: float = 0.0) -> list[Prepared]:
    """Return one graph for each image of a batch, or the only one.

    Parameters
    ----------
    graph : Affinities or AffinityGraph
        What to walk.
    mask : array of bool, shape (*space) or (batch, *space), optional
        Voxels that count.
    per_edge : float
        Bytes that the walk will take for each edge of float32, twice as many of float64, besides 20 for each node.

    Raises
    ------
    ImportError
        If ninefold was built without its native extension.
    RoomError
        If it takes more memory than there is; nothing was started.
    """
    native = extension_module()
    if isinstance(graph, AffinityGraph):
        if mask is not None:
            raise ArgumentError("mask is for grids; leave edges out of a list instead")
        _countable(graph.nodes, len(graph.values))
        per_edge *= graph.values.itemsize / 4
        enough_memory(int(20 * graph.nodes + per_edge * len(graph.values)), f"a graph of {graph.nodes:,} nodes")
        return [Prepared(native.list_graph(graph.nodes, graph.ends), graph.values, (graph.nodes,))]
    require_graph(graph, Affinities)
    voxels = int(np.prod(graph.shape))
    _countable(voxels, voxels * len(graph.offsets))
    per_edge *= 2 if str(graph.values.dtype).endswith("64") else 1
    enough_memory(
        int(voxels * (20 + per_edge * len(graph.offsets))), f"a graph of {voxels:,} voxels with {len(graph.offsets)} offsets"
    )
    values = np.ascontiguousarray(plain_array(graph.values, "values"))
    images = values if graph.batched else values[None]
    masks: Any = [None] * len(images)
    if mask is not None:
        plain = plain_array(mask, "mask")
        if plain.dtype != bool:
            raise DTypeError(f"mask is of {plain.dtype}; it must be bool: compare it, e.g. mask > 0")
        same_shape(plain, np.empty((len(images), *graph.shape) if graph.batched else graph.shape, bool), "mask", "the image")
        masks = np.ascontiguousarray(plain).view(np.uint8).reshape(len(images), -1)
    flat = [d for step in graph.signed for d in step]
    return [Prepared(native.grid_graph(graph.shape, flat, m), v, graph.shape) for v, m in zip(images, masks, strict=True)]


def _countable(nodes: int, edges: int) -> None:
    if max(nodes, edges) > _MOST:
        raise ArgumentError(f"{edges:,} edges of {nodes:,} nodes; at most {_MOST:,} can be numbered: cut the volume into blocks")


def enough_memory(needed: int, what: str) -> None:
    """Refuse to start what will not fit.

    Raises
    ------
    RoomError
        If more bytes are needed than the system says are free; where it does not say, everything is let through.

    Examples
    --------
    >>> enough_memory(1000, "10 voxels")
    """
    refuse_beyond(needed, available_memory(), what, "cut the volume into blocks")


def region_graph(
    regions: Any, affinities: Affinities, statistic: Literal["mean", "max", "min"] = "mean"
) -> tuple[AffinityGraph, NDArray[np.int64]]:
    """Return the graph of regions that touch, with one affinity for each pair.

    Parameters
    ----------
    regions : array of int, shape (*space)
        Superpixels or basins; 0 belongs to none.
    affinities : Affinities
        Of the same image, not a batch; each offset counts as touching.
    statistic : {"mean", "max", "min"}
        Of the affinities of all edges between two regions.

    Returns
    -------
    AffinityGraph
        Its nodes are the regions in order of their labels, its edges sorted by their ends.
    array of int
        The label of each node.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        If the regions are not labels, not of the shape of the affinities, or there are none.

    Examples
    --------
    >>> a = Affinities(np.array([[[0.9, 0.2, 0.8, 0.0]]]), ((0, 1),))
    >>> graph, labels = region_graph([[4, 4, 7, 7]], a)
    >>> graph.ends.tolist(), graph.values.tolist(), labels.tolist()
    ([[0, 1]], [0.2], [4, 7])
    """
    one_of(statistic, ("mean", "max", "min"), "statistic")
    plain = label_array(regions, "regions")
    require_graph(affinities, Affinities)
    if affinities.batched:
        raise ShapeError(f"affinities {tuple(affinities.values.shape)} are a batch; make a graph of each image")
    same_shape(plain, np.empty(affinities.shape, bool), "regions", "the image of the affinities")
    labels, nodes = np.unique(plain, return_inverse=True)
    nodes = nodes.reshape(plain.shape).astype(np.int64)
    if labels[0] == 0:
        labels, nodes = labels[1:], nodes - 1
    if not len(labels):
        raise ArgumentError(f"all {plain.size} voxels are 0, of no region; there is nothing to join")
    values = plain_array(affinities.values, "values")
    codes, found = [], []
    for k, offset in enumerate(affinities.offsets):
        here, there = ends(affinities.shape, offset)
        a, b = nodes[here], nodes[there]
        touch = (a != b) & (a >= 0) & (b >= 0)
        codes.append(np.minimum(a, b)[touch] * len(labels) + np.maximum(a, b)[touch])
        found.append(values[k][there if affinities.neighbour == "previous" else here][touch])
    pairs, index = np.unique(np.concatenate(codes), return_inverse=True)
    return AffinityGraph(
        len(labels), np.stack(np.divmod(pairs, len(labels)), 1), _reduced(np.concatenate(found), index, len(pairs), statistic)
    ), labels


def _reduced(values: NDArray[Any], index: Labels, count: int, statistic: str) -> NDArray[Any]:
    if statistic == "mean":
        total = np.bincount(index, values, count) / np.bincount(index, minlength=count)
        return np.clip(total, 0, 1).astype(values.dtype)
    start = np.full(count, 0 if statistic == "max" else 1, values.dtype)
    {"max": np.maximum, "min": np.minimum}[statistic].at(start, index, values)
    return start


def stacked(found: list[NDArray[Any]], graph: Affinities | AffinityGraph) -> Any:
    """Return results of images as a batch, or the only one, in the kind of the graph."""
    out = np.stack(found) if isinstance(graph, Affinities) and graph.batched else found[0]
    return in_kind(out, graph.values)
