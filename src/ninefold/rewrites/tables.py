"""Channel tables: a few convolutions on gathered channels, at the cost of the edges alone (fig. 9.15), or a dense one with zeros.

Channels on the side that is written, outputs for c and g, inputs for h, are put together where the table gives them the same
neighbours: such a cluster is a dense block of the table, and every edge lies in exactly one. Clusters of equal size are the
groups of one grouped convolution, so that there are as many convolutions as different sizes of clusters, never as many as edges::

    c:  Z[outs]   = grouped(K[edges], V[ins])          every output is in one cluster
    h:  R[ins]    = grouped^T(K[edges], G[outs])       every input is in one cluster: nothing is summed twice
    g:  D[edges]  = grouped's own g of V[ins], G[outs]

Clusters of a single output are instead a depthwise convolution with a channel per edge, summed over each output's edges, where
PyTorch has vectorised kernels for that: its grouped convolutions with one output per group take ten times as long.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from ninefold.engines.base import Runner, Traits
from ninefold.engines.final import Final
from ninefold.engines.machine import Machine
from ninefold.rewrites.base import Rewrite, Wrapped, left_of
from ninefold.spec.channels import ChannelTable, Grouped
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem
from ninefold.tensors.layout import BLOCK, add_bias, blocks, empty

__all__ = ["Bucket", "ChannelClusters", "TableFilled", "buckets"]


@dataclass(frozen=True)
class Bucket:
    """Clusters of equal size: a grouped convolution.

    Parameters
    ----------
    outputs, inputs : tuple of int
        Channels, group by group; those on the side that is read may appear more than once.
    edges : tuple of int
        Places in the table, in the order of a grouped weight's leading dimensions.
    groups : int
    """

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    edges: tuple[int, ...]
    groups: int

    def part(self, chosen: slice) -> "Bucket":
        """Return some of the groups."""

        def cut(values: tuple[int, ...]) -> tuple[int, ...]:
            each = len(values) // self.groups
            return values[chosen.start * each : chosen.stop * each]

        return Bucket(cut(self.outputs), cut(self.inputs), cut(self.edges), chosen.stop - chosen.start)


@lru_cache(maxsize=256)
def buckets(table: ChannelTable, by_input: bool = False) -> tuple[Bucket, ...]:
    """Return the grouped convolutions of a table; every edge is in one of them.

    Parameters
    ----------
    table : ChannelTable
    by_input : bool
        Cluster the inputs instead of the outputs.

    Examples
    --------
    >>> from ninefold.spec.tables import lenet5_table
    >>> [(b.groups, len(b.inputs), len(b.outputs)) for b in buckets(ChannelTable(6, 16, lenet5_table()))]
    [(6, 18, 6), (9, 36, 9), (1, 6, 1)]
    """
    place = {edge: k for k, edge in enumerate(table.edges)}
    neighbours: dict[int, list[int]] = defaultdict(list)
    for o, i in sorted(table.edges):
        neighbours[i if by_input else o].append(o if by_input else i)
    clusters: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for channel in sorted(neighbours):
        clusters[tuple(neighbours[channel])].append(channel)
    sizes: dict[tuple[int, int], list[tuple[tuple[int, ...], tuple[int, ...]]]] = defaultdict(list)
    for seen, members in clusters.items():
        outs, ins = (seen, tuple(members)) if by_input else (tuple(members), seen)
        sizes[len(outs), len(ins)].append((outs, ins))
    return tuple(
        Bucket(
            tuple(o for outs, _ in same for o in outs),
            tuple(i for _, ins in same for i in ins),
            tuple(place[o, i] for outs, ins in same for o in outs for i in ins),
            len(same),
        )
        for same in sizes.values()
    )


def _refusal(problem: Problem) -> str | None:
    channels = problem.form.channels
    if not isinstance(channels, ChannelTable):
        return f"channels in equal groups, {channels.groups} of them, need no table"
    if not (problem.is_float or problem.is_complex):
        return f"the {channels.connections} edges are convolved in floating-point or complex numbers, not {problem.dtype}"
    return None


class ChannelClusters(Rewrite):
    """A grouped convolution for the clusters of each size, on gathered channels."""

    name = "channel clusters"
    traits = Traits(plain_sums=True, exact=True, confines_nan=True)

    def refuses(self, problem: Problem) -> str | None:
        return _refusal(problem)

    def inner(self, problem: Problem) -> tuple[Problem, ...]:
        return tuple(part for _, part in _parts(problem))

    def cost(self, problem: Problem, machine: Machine) -> float:
        parts = self.inner(problem)
        return 2 * sum(part.bytes for part in parts) / machine.stream + 4 * len(parts) * machine.call

    def scratch(self, problem: Problem) -> int:
        # what is gathered, and the result before it is summed and put in its place
        return max((2 * part.bytes for part in self.inner(problem)), default=0)

    def pointwise(self, problem: Problem) -> bool:
        return False  # products of edges may still have to be summed

    def weights(self, problem: Problem, weight: Final) -> tuple[Final | None, ...]:
        return (None,) * len(self.inner(problem))  # channels are gathered at every call

    def wrap(self, problem: Problem, weights: Sequence[Final | None]) -> Wrapped:
        steps = [_Step(bucket, part.form.channels.outputs // len(bucket.outputs)) for bucket, part in _parts(problem)]
        return (_kernel if problem.map == "g" else _data)(problem, steps)


class TableFilled(Rewrite):
    """The dense convolution with zeros where the table has no edge: more products in fewer, faster calls."""

    name = "table filled with zeros"
    traits = Traits(plain_sums=False, exact=True, confines_nan=False)

    def refuses(self, problem: Problem) -> str | None:
        return _refusal(problem)

    def inner(self, problem: Problem) -> tuple[Problem, ...]:
        return (_dense(problem),)

    def cost(self, problem: Problem, machine: Machine) -> float:
        return 2 * _dense_weight(problem) / machine.stream + 4 * machine.call

    def scratch(self, problem: Problem) -> int:
        return 2 * _dense_weight(problem)

    def weights(self, problem: Problem, weight: Final) -> tuple[Final | None, ...]:
        return (weight.part("filled", lambda: _filled(problem.form, weight.tensor)),)

    def wrap(self, problem: Problem, weights: Sequence[Final | None]) -> Wrapped:
        form, kept = problem.form, weights[0]

        def filled(runners: Sequence[Runner], K: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
            return runners[0](_filled(form, K) if kept is None else kept.tensor, x, bias)

        def picked(runners: Sequence[Runner], V: Tensor, G: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG001
            D = runners[0](V, G, None)
            D = D.movedim(1 + form.ndim, 1) if form.tiled else D
            return D.flatten(0, 1).index_select(0, _at(_places(form), D))

        return picked if problem.map == "g" else filled


def _places(form: Form) -> tuple[int, ...]:
    return tuple(o * form.channels.inputs + i for o, i in form.channels.edges)


def _filled(form: Form, K: Tensor) -> Tensor:
    """Return the dense weight with the kernels of the table's edges, and zeros elsewhere."""
    channels = form.channels
    shape = (channels.outputs, channels.inputs, *(form.period if form.tiled else ()), *form.kernel)
    W = K.new_zeros((shape[0] * shape[1], *shape[2:])).index_copy_(0, _at(_places(form), K), K).view(shape)
    return W.movedim(1, 1 + form.ndim) if form.tiled else W


@lru_cache(maxsize=1024)
def _dense(problem: Problem) -> Problem:
    channels = Grouped(problem.form.channels.inputs, problem.form.channels.outputs)
    form = replace(problem.form, channels=channels)
    return replace(problem, form=form, rank=None, max_scratch=left_of(problem, 2 * _dense_weight(problem)))


def _dense_weight(problem: Problem) -> int:
    form = problem.form
    tile = prod(form.period) if form.tiled else 1
    return form.channels.outputs * form.channels.inputs * tile * prod(form.kernel) * problem.itemsize


@lru_cache(maxsize=256)
def _parts(problem: Problem) -> tuple[tuple[Bucket, Problem], ...]:
    """Return the buckets and their problems, of as many groups at a time as fit a block."""
    return tuple(_cut(problem))


def _cut(problem: Problem) -> Iterator[tuple[Bucket, Problem]]:
    allowed = BLOCK if problem.max_scratch is None else min(BLOCK, problem.max_scratch // 4)

    def part_of(bucket: Bucket) -> Problem:
        form = replace(problem.form, channels=_channels(problem, bucket))
        return replace(problem, form=form, frozen=False, rank=None)

    for bucket in buckets(problem.form.channels, problem.map == "h"):
        whole = part_of(bucket).bytes
        for chosen in blocks(bucket.groups, max(1, bucket.groups * allowed // max(1, whole))):
            part = bucket.part(chosen)
            yield part, part_of(part)


_VECTORISED = ("float32", "bfloat16", "float16")


def _channels(problem: Problem, bucket: Bucket) -> Grouped:
    """Return a bucket's groups, or a channel per edge."""
    lone = len(bucket.outputs) == bucket.groups < len(bucket.inputs)
    quick = problem.map != "h" and problem.dtype in _VECTORISED and problem.device == "cpu" and not problem.form.tiled
    edges = len(bucket.edges)
    return Grouped(edges, edges, edges) if lone and quick else Grouped(len(bucket.inputs), len(bucket.outputs), bucket.groups)


@dataclass(frozen=True)
class _Step:
    """A convolution on gathered channels; of its outputs, `fan` after another are summed into one."""

    bucket: Bucket
    fan: int

    @property
    def outputs(self) -> tuple[int, ...]:
        return tuple(o for o in self.bucket.outputs for _ in range(self.fan))


def _at(places: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.tensor(places, dtype=torch.int64, device=like.device)


def _whole(places: tuple[int, ...]) -> bool:
    """Whether places are consecutive."""
    return places == tuple(range(places[0], places[0] + len(places)))


def _take(x: Tensor, dim: int, places: tuple[int, ...]) -> Tensor:
    """Return x at these places along a dimension: a view of it where they are consecutive."""
    part: Tensor = x.narrow(dim, places[0], len(places)) if _whole(places) else x.index_select(dim, _at(places, x))
    return part


def _put(out: Tensor, dim: int, places: tuple[int, ...], values: Tensor) -> None:
    """Set ``out`` at these places along a dimension."""
    if _whole(places):
        out.narrow(dim, places[0], len(places)).copy_(values)
    else:
        out.index_copy_(dim, _at(places, out), values)


def _weight(K: Tensor, step: _Step, form: Form) -> Tensor:
    """Return a grouped weight, ``(outputs, *period, inputs / groups, *kernel)``, of packed kernels."""
    W: Tensor = _take(K, 0, step.bucket.edges).unflatten(0, (len(step.bucket.outputs) * step.fan, -1))
    return W.movedim(1, 1 + form.ndim) if form.tiled else W


def _data(problem: Problem, steps: list[_Step]) -> Wrapped:
    """Return what runs c, which reads inputs and writes outputs, or h, which reads outputs and writes inputs."""
    form, forward = problem.form, problem.map == "c"
    shape, channels = (form.output_shape, form.channels.outputs) if forward else (form.input_shape, form.channels.inputs)
    ends = [(s.bucket.inputs, s.bucket.outputs) if forward else (s.outputs, s.bucket.inputs) for s in steps]
    complete = sum(len(into) for _, into in ends) == channels

    def run(runners: Sequence[Runner], K: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        out = empty(x, shape(len(x)), problem.channels_last)
        if not complete:
            out.zero_()
        for runner, step, (read, into) in zip(runners, steps, ends, strict=True):
            values = runner(_weight(K, step, form), _take(x, 1, read), None)
            _put(out, 1, into, values if step.fan == 1 else values.unflatten(1, (-1, step.fan)).sum(2))
        return add_bias(out, bias)

    return run


def _kernel(problem: Problem, steps: list[_Step]) -> Wrapped:
    form = problem.form

    def run(runners: Sequence[Runner], V: Tensor, G: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG001  no bias
        D = V.new_empty(form.weight_shape)
        for runner, step in zip(runners, steps, strict=True):
            part = runner(_take(V, 1, step.bucket.inputs), _take(G, 1, step.outputs), None)
            part = part.movedim(1 + form.ndim, 1) if form.tiled else part
            _put(D, 0, step.bucket.edges, part.flatten(0, 1))
        return D

    return run
