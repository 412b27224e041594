"""How a problem is turned into others: one file per kind of rewrite. A chain of them is applied in the order of the list."""

from collections.abc import Iterator
from itertools import combinations

from ninefold.engines import ENGINES
from ninefold.engines.base import Engine
from ninefold.rewrites.base import Rewrite, Rewritten
from ninefold.rewrites.border import BorderWrittenOut
from ninefold.rewrites.formats import OtherMemoryFormat
from ninefold.rewrites.half import ConversionToFloat32
from ninefold.rewrites.strides import StrideResidues
from ninefold.rewrites.tables import ChannelClusters, TableFilled
from ninefold.rewrites.tiles import TilePhases, TileResidues
from ninefold.spec.problem import Problem

__all__ = ["DEPTH", "REWRITES", "after", "engine_named", "engine_names"]

DEPTH = 2
"""Most rewrites of one problem."""

REWRITES: tuple[Rewrite, ...] = (
    ConversionToFloat32(),
    BorderWrittenOut(),
    ChannelClusters(),
    TableFilled(),
    TileResidues(),
    TilePhases(),
    StrideResidues(),
    OtherMemoryFormat(),
)


def _joined(chain: tuple[Rewrite, ...], engine: Engine) -> Rewritten:
    first, *others = chain
    return Rewritten(first, _joined(tuple(others), engine) if others else engine)


# the reference, last, takes every problem as it is
_CHAINS = {
    chain: tuple(_joined(chain, engine) for engine in ENGINES[:-1])
    for depth in range(1, DEPTH + 1)
    for chain in combinations(REWRITES, depth)
}
_NAMED: dict[str, Engine] = {engine.name: engine for engine in (*ENGINES, *(e for found in _CHAINS.values() for e in found))}


def after(rewrite: Rewrite, problem: Problem) -> Iterator[Rewritten]:
    """Yield the engines after a rewrite that applies, and after that and one more; an engine may still refuse what it is given.

    Examples
    --------
    >>> from ninefold.spec import ConvSpec
    >>> problem = Problem("c", ConvSpec(2, 3, (3, 5)).form((7, 9)), 4)
    >>> [engine.name for engine in after(REWRITES[-1], problem)][:2]
    ['aten after other memory format', 'aten-backward after other memory format']
    """
    for chain, engines in _CHAINS.items():
        if chain[0] is rewrite and all(then.refuses(part) is None for then in chain[1:] for part in rewrite.inner(problem)):
            yield from engines


def engine_named(name: str) -> Engine:
    """Return the engine of this name, rewritten where it says so.

    Examples
    --------
    >>> engine_named("winograd after border written out").algorithm.name
    'winograd'
    """
    return _NAMED[name]


def engine_names() -> frozenset[str]:
    """Return the names of all engines, rewritten ones included.

    Examples
    --------
    >>> {"winograd", "aten after other memory format"} <= engine_names()
    True
    """
    return frozenset(_NAMED)
