"""Which input channel feeds which output channel: dense, grouped, depthwise, or an explicit table."""

from collections import Counter
from dataclasses import dataclass
from math import gcd

from ninefold.errors import ArgumentError
from ninefold.spec import parse

__all__ = ["ChannelTable", "Channels", "Grouped"]


@dataclass(frozen=True, slots=True)
class Grouped:
    """Channels in equal groups that do not see one another; one group is a dense layer.

    Parameters
    ----------
    inputs, outputs : int
        Channels of ``V`` and of ``G``.
    groups : int
        Must divide both; ``groups == inputs`` is a depthwise layer.

    Examples
    --------
    >>> Grouped(96, 256, groups=2).connections
    12288
    """

    inputs: int
    outputs: int
    groups: int = 1

    def __post_init__(self) -> None:
        if self.inputs < 0:
            raise ArgumentError(f"in_channels must be at least 0, got {self.inputs}")
        for name, count in (("out_channels", self.outputs), ("groups", self.groups)):
            if count < 1:
                raise ArgumentError(f"{name} must be at least 1, got {count}")
        if self.inputs % self.groups or self.outputs % self.groups:
            common = gcd(self.inputs, self.outputs)
            fits = [g for g in range(1, min(common, 4096) + 1) if common % g == 0]
            raise ArgumentError(
                f"groups={self.groups} must divide in_channels={self.inputs} and out_channels={self.outputs}; "
                f"groups that divide both are {', '.join(map(str, fits[:8]))}{', ...' if fits[8:] else ''}"
            )

    @property
    def connections(self) -> int:
        """Pairs (output channel, input channel) that are connected."""
        return self.outputs * (self.inputs // self.groups)

    @property
    def weight_head(self) -> tuple[int, ...]:
        """Leading dimension of the weight, before any period."""
        return (self.outputs,)

    @property
    def weight_tail(self) -> tuple[int, ...]:
        """Dimension of the weight between period and kernel."""
        return (self.inputs // self.groups,)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Connected pairs ``(output, input)``, in the order of the weight's entries."""
        n_in, n_out = self.inputs // self.groups, self.outputs // self.groups
        return tuple((o, (o // n_out) * n_in + i) for o in range(self.outputs) for i in range(n_in))


@dataclass(frozen=True, slots=True)
class ChannelTable:
    """An explicit table of connections (fig. 9.15 of the book); weights are packed, one kernel per edge.

    Parameters
    ----------
    inputs, outputs : int
        Channels of ``V`` and of ``G``.
    edges : tuple of (int, int)
        Pairs ``(output, input)``, each at most once.

    Examples
    --------
    >>> ChannelTable(3, 2, ((0, 0), (0, 1), (1, 2))).connections
    3
    """

    inputs: int
    outputs: int
    edges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", parse.edges(self.edges))
        for o, i in self.edges:
            if not (0 <= o < self.outputs and 0 <= i < self.inputs):
                raise ArgumentError(
                    f"edge ({o}, {i}) of the channel table is outside {self.outputs} outputs x {self.inputs} inputs; "
                    "an edge is the pair (output, input), counted from 0"
                )
        if len(set(self.edges)) != len(self.edges):
            twice = next(e for e, count in Counter(self.edges).items() if count > 1)
            raise ArgumentError(f"edge {twice} appears twice in the channel table; name each connection once")

    @property
    def connections(self) -> int:
        """Pairs (output channel, input channel) that are connected."""
        return len(self.edges)

    @property
    def groups(self) -> int:
        """A table is one group: it may connect anything."""
        return 1

    @property
    def weight_head(self) -> tuple[int, ...]:
        """Leading dimension of the weight: the edges."""
        return (len(self.edges),)

    @property
    def weight_tail(self) -> tuple[int, ...]:
        """Nothing: the input channel is part of the edge."""
        return ()


Channels = Grouped | ChannelTable
