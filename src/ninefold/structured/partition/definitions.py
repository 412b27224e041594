"""What the native walks must give, in plain Python: for tests, on small graphs.

Edges are triples (affinity, one end, other end) by number; `in_order` is the order that everything follows.
"""

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np

from ninefold.structured.partition.affinities import Affinities
from ninefold.structured.partition.graph import AffinityGraph

__all__ = ["all_paths", "basins", "edges_of", "in_order", "mutex_clusters", "numbered", "pair_loss", "threshold_components"]

Edge = tuple[float, int, int]


def edges_of(graph: Affinities | AffinityGraph) -> list[tuple[int, Edge]]:
    """Return (channel, edge) of all edges by number; the channel of a list is 0.

    Examples
    --------
    >>> edges_of(Affinities(np.array([[0.5, 0.0]]), ((1,),)))
    [(0, (0.5, 0, 1))]
    """
    if isinstance(graph, AffinityGraph):
        return [(0, (float(a), int(u), int(v))) for a, (u, v) in zip(graph.values, graph.ends, strict=True)]
    values: Any = np.asarray(graph.values)
    found = []
    for k, step in enumerate(graph.signed):
        for p in np.ndindex(*graph.shape):
            q = tuple(x + d for x, d in zip(p, step, strict=True))
            if all(0 <= x < n for x, n in zip(q, graph.shape, strict=True)):
                u, v = (int(np.ravel_multi_index(x, graph.shape)) for x in (p, q))
                found.append((k, (float(values[(k, *p)]), u, v)))
    return found


def in_order(edges: Iterable[Edge]) -> list[Edge]:
    """Return edges, the largest affinity first, equal ones by number.

    Examples
    --------
    >>> in_order([(0.5, 0, 1), (0.9, 1, 2), (0.5, 2, 3)])
    [(0.9, 1, 2), (0.5, 0, 1), (0.5, 2, 3)]
    """
    return sorted(edges, key=lambda edge: -edge[0])


def numbered(of: list[int]) -> list[int]:
    """Return labels as 1, 2, ... by first appearance; those below 0 are 0.

    Examples
    --------
    >>> numbered([7, -1, 3, 7])
    [1, 0, 2, 1]
    """
    names: dict[int, int] = {}
    return [0 if x < 0 else names.setdefault(x, len(names) + 1) for x in of]


def threshold_components(nodes: int, edges: Iterable[Edge], threshold: float) -> list[int]:
    """Return connected components of the edges above a threshold.

    Examples
    --------
    >>> threshold_components(3, [(0.5, 0, 1), (0.9, 1, 2)], 0.5)
    [1, 2, 2]
    """
    of = list(range(nodes))
    for a, u, v in edges:
        if a > threshold:
            of = [of[u] if x == of[v] else x for x in of]
    return numbered(of)


def all_paths(nodes: int, edges: list[Edge]) -> np.ndarray:
    """Return maximin affinities by trying all paths: the definition, for up to about 8 nodes.

    Examples
    --------
    >>> all_paths(3, [(0.5, 0, 1), (0.9, 1, 2)])[0]
    array([1. , 0.5, 0.5])
    """
    best = np.eye(nodes)
    beside: dict[int, list[tuple[float, int]]] = {u: [] for u in range(nodes)}
    for a, u, v in edges:
        beside[u].append((a, v))
        beside[v].append((a, u))

    def go(start: int, at: int, least: float, seen: frozenset[int]) -> None:
        for a, to in beside[at]:
            if to not in seen:
                low = min(least, a)
                best[start, to] = max(best[start, to], low)
                go(start, to, low, seen | {to})

    for u in range(nodes):
        go(u, u, 1.0, frozenset({u}))
    return best


def basins(nodes: int, edges: list[Edge], lowest: float = 0.0, seeds: list[int] | None = None) -> list[int]:
    """Return a watershed: seeds, or regional maxima, grown along edges in order.

    Examples
    --------
    >>> basins(4, [(0.9, 0, 1), (0.2, 1, 2), (0.8, 2, 3)])
    [1, 1, 2, 2]
    """
    used = [edge for edge in edges if edge[0] > lowest]
    labels = _maxima(nodes, used) if seeds is None else list(seeds)
    of = list(range(nodes))
    for _, u, v in in_order(used):
        if of[u] != of[v] and not (labels[of[u]] and labels[of[v]]):
            label = labels[of[u]] or labels[of[v]]
            of = [of[u] if x == of[v] else x for x in of]
            labels[of[u]] = label
    found = [labels[x] for x in of]
    return numbered([x or -1 for x in found]) if seeds is None else found


def _maxima(nodes: int, edges: list[Edge]) -> list[int]:
    """Return seeds: nodes reached from each other by edges of one affinity, beside which all others are lower."""
    steepest = [max((a for a, u, v in edges if x in (u, v)), default=0.0) for x in range(nodes)]
    plateau = list(range(nodes))
    for a, u, v in edges:
        if a == steepest[u] == steepest[v]:
            plateau = [plateau[u] if x == plateau[v] else x for x in plateau]
    leads_up = {plateau[x] for a, u, v in edges for x, y in ((u, v), (v, u)) if a == steepest[x] < steepest[y]}
    return [plateau[x] + 1 if steepest[x] > 0 and plateau[x] not in leads_up else 0 for x in range(nodes)]


def mutex_clusters(nodes: int, edges: list[tuple[bool, Edge]]) -> list[int]:
    """Return a mutex watershed of (repulsive, edge), the strength of an edge in the place of its affinity.

    Examples
    --------
    >>> mutex_clusters(3, [(False, (0.9, 0, 1)), (False, (0.5, 1, 2)), (True, (0.7, 0, 2))])
    [1, 1, 2]
    """
    of = list(range(nodes))
    apart: set[frozenset[int]] = set()
    for repulsive, (strength, u, v) in sorted(edges, key=lambda edge: -edge[1][0]):
        a, b = of[u], of[v]
        if a == b or strength <= 0:
            continue
        if repulsive:
            apart.add(frozenset((a, b)))
        elif frozenset((a, b)) not in apart:
            of = [a if x == b else x for x in of]
            apart = {frozenset(a if x == b else x for x in pair) for pair in apart}
    return numbered(of)


def pair_loss(labels: list[int], edges: list[Edge], loss: str = "square", margin: float = 0.0) -> tuple[float, float]:
    """Return the two parts of the constrained MALIS loss, summed over pairs by brute force; label 0 is in no pair.

    Examples
    --------
    >>> pair_loss([1, 1, 2, 2], [(0.75, 0, 1), (0.5, 1, 2), (1.0, 2, 3)])
    (0.0625, 1.0)
    """
    within = [bool(labels[u]) and labels[u] == labels[v] for _, u, v in edges]
    low = all_paths(len(labels), [(a if w else 0.0, u, v) for (a, u, v), w in zip(edges, within, strict=True)])
    high = all_paths(len(labels), [(1.0 if w else a, u, v) for (a, u, v), w in zip(edges, within, strict=True)])
    parts = [0.0, 0.0]
    for i, j in combinations(range(len(labels)), 2):
        if labels[i] and labels[j]:
            same = labels[i] == labels[j]
            rest = max(0.0, float(1 - margin - low[i, j] if same else high[i, j] - margin))
            parts[0 if same else 1] += rest**2 if loss == "square" else rest
    return parts[0], parts[1]
