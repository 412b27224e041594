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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from ninefold.engines.aten import Aten
from ninefold.engines.base import BLOCK, Engine, Error, Machine, Runner, Traits, add_bias, blocks, direct_error, empty
from ninefold.engines.final import Final
from ninefold.engines.gemm import Gemm
from ninefold.spec.channels import ChannelTable, Grouped
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem

__all__ = ["Bucket", "Table", "TableFilled", "buckets"]

_INNER: tuple[Engine, ...] = (Aten(), Gemm())


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


class Table(Engine):
    """Convolutions of a table's clusters, by PyTorch, or by products of matrices where kernels change with the position."""

    name = "table"
    revision = 1
    traits = Traits(direct=True, exact=True, local=True)

    def refuses(self, problem: Problem) -> str | None:
        channels = problem.form.channels
        if not isinstance(channels, ChannelTable):
            return f"channels in equal groups, {channels.groups} of them, need no table"
        if not (problem.is_float or problem.is_complex):
            return f"the {channels.connections} edges are convolved in floating-point or complex numbers, not {problem.dtype}"
        return None

    def cost(self, problem: Problem, machine: Machine) -> float:
        parts = [part for _, part in _parts(problem)]
        moved = 2 * sum(part.bytes for part in parts) / machine.stream
        return sum(_inner(part).cost(part, machine) for part in parts) + moved + 4 * len(parts) * machine.call

    def error(self, problem: Problem) -> Error:
        return direct_error(problem)

    def scratch(self, problem: Problem) -> int:
        # what is gathered, and the result before it is summed and put in its place, beside what the convolution itself holds
        return max((2 * part.bytes + _inner(part).scratch(part) for _, part in _parts(problem)), default=0)

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        steps = [_step(bucket, part) for bucket, part in _parts(problem)]
        return (_kernel if problem.map == "g" else _data)(problem, steps)


class TableFilled(Engine):
    """The dense convolution with zeros where the table has no edge: more products in fewer, faster calls."""

    name = "table-filled"
    revision = 1
    traits = Traits(direct=False, exact=True, local=False)

    def refuses(self, problem: Problem) -> str | None:
        return Table().refuses(problem)

    def cost(self, problem: Problem, machine: Machine) -> float:
        dense = _dense(problem)
        return _inner(dense).cost(dense, machine) + 2 * _dense_weight(dense) / machine.stream + 4 * machine.call

    def error(self, problem: Problem) -> Error:
        return direct_error(problem)

    def scratch(self, problem: Problem) -> int:
        dense = _dense(problem)
        return 2 * _dense_weight(dense) + _inner(dense).scratch(dense)

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        dense, form = _dense(problem), problem.form
        inner, channels = _inner(dense).prepare(dense), form.channels
        at = tuple(o * channels.inputs + i for o, i in channels.edges)
        shape = (channels.outputs, channels.inputs, *(form.period if form.tiled else ()), *form.kernel)

        def filled(K: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
            W = K.new_zeros((shape[0] * shape[1], *shape[2:])).index_copy_(0, _at(at, K), K).view(shape)
            return inner(W.movedim(1, 1 + form.ndim) if form.tiled else W, x, bias)

        def picked(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
            D = inner(V, G, None)
            D = D.movedim(1 + form.ndim, 1) if form.tiled else D
            return D.flatten(0, 1).index_select(0, _at(at, D))

        return picked if problem.map == "g" else filled


def _dense(problem: Problem) -> Problem:
    channels = problem.form.channels
    return _on(problem, Grouped(channels.inputs, channels.outputs))


def _dense_weight(dense: Problem) -> int:
    return prod(dense.form.weight_shape) * dense.itemsize


def _on(problem: Problem, channels: Grouped) -> Problem:
    """Return the problem with other channels."""
    return replace(problem, form=replace(problem.form, channels=channels), frozen=False, rank=None)


def _inner(problem: Problem) -> Engine:
    return next(engine for engine in _INNER if engine.refuses(problem) is None)


@lru_cache(maxsize=256)
def _parts(problem: Problem) -> tuple[tuple[Bucket, Problem], ...]:
    """Return the buckets and their problems, of as many groups at a time as fit a block."""
    return tuple(_cut(problem))


def _cut(problem: Problem) -> Iterator[tuple[Bucket, Problem]]:
    allowed = BLOCK if problem.max_scratch is None else min(BLOCK, problem.max_scratch // 4)
    for bucket in buckets(problem.form.channels, problem.map == "h"):
        whole = _on(problem, _channels(problem, bucket)).bytes
        for chosen in blocks(bucket.groups, max(1, bucket.groups * allowed // max(1, whole))):
            part = bucket.part(chosen)
            yield part, _on(problem, _channels(problem, part))


_VECTORISED = ("float32", "bfloat16", "float16")


def _channels(problem: Problem, bucket: Bucket) -> Grouped:
    """Return a bucket's groups, or a channel per edge."""
    lone = len(bucket.outputs) == bucket.groups < len(bucket.inputs)
    quick = problem.map != "h" and problem.dtype in _VECTORISED and problem.device == "cpu" and not problem.form.tiled
    edges = len(bucket.edges)
    return Grouped(edges, edges, edges) if lone and quick else Grouped(len(bucket.inputs), len(bucket.outputs), bucket.groups)


class _Step(NamedTuple):
    """A convolution on gathered channels; of its `outputs`, `fan` after another are summed into one."""

    run: Runner
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    edges: tuple[int, ...]
    fan: int


def _step(bucket: Bucket, part: Problem) -> _Step:
    fan = part.form.channels.outputs // len(bucket.outputs)
    outputs = tuple(o for o in bucket.outputs for _ in range(fan))
    return _Step(_inner(part).prepare(part), bucket.inputs, outputs, bucket.edges, fan)


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
    W: Tensor = _take(K, 0, step.edges).unflatten(0, (len(step.outputs), -1))
    return W.movedim(1, 1 + form.ndim) if form.tiled else W


def _data(problem: Problem, steps: list[_Step]) -> Runner:
    """Return the runner of c, which reads inputs and writes outputs, or of h, which reads outputs and writes inputs."""
    form, forward = problem.form, problem.map == "c"
    shape, channels = (form.output_shape, form.channels.outputs) if forward else (form.input_shape, form.channels.inputs)
    ends = [(s.inputs, s.outputs[:: s.fan]) if forward else (s.outputs, s.inputs) for s in steps]
    complete = sum(len(into) for _, into in ends) == channels

    def run(K: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        out = empty(x, shape(len(x)), problem.channels_last)
        if not complete:
            out.zero_()
        for step, (read, into) in zip(steps, ends, strict=True):
            values = step.run(_weight(K, step, form), _take(x, 1, read), None)
            _put(out, 1, into, values if step.fan == 1 else values.unflatten(1, (-1, step.fan)).sum(2))
        return add_bias(out, bias)

    return run


def _kernel(problem: Problem, steps: list[_Step]) -> Runner:
    form = problem.form

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        D = V.new_empty(form.weight_shape)
        for step in steps:
            part = step.run(_take(V, 1, step.inputs), _take(G, 1, step.outputs), None)
            part = part.movedim(1 + form.ndim, 1) if form.tiled else part
            _put(D, 0, step.edges, part.flatten(0, 1))
        return D

    return run
