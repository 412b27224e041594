"""The maps c and h in PyTorch's own operations, nothing in place: for graphs that run where ninefold is not.

One kernel for all positions is PyTorch's convolution; a channel table is that with zeros. Kernels that depend on the position are
a product per position with a patch taken by index, ``Z[j] = K[j mod t] X[j]``; transposed, what the products give is added up
where the patches lay.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ninefold.engines.base import Runner
from ninefold.engines.columns import straight
from ninefold.errors import UnsupportedError
from ninefold.rewrites import engine_named
from ninefold.spec.axis import Axis
from ninefold.spec.channels import ChannelTable, Grouped
from ninefold.spec.conv import ConvSpec
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem
from ninefold.tensors.border import extension, folding

__all__ = ["composed", "needs_size"]


def composed(problem: Problem) -> Runner:
    """Return the runner of a problem of c or h.

    Raises
    ------
    UnsupportedError
        If PyTorch's operations cannot be composed to it.
    """
    form, channels = problem.form, problem.form.channels
    if isinstance(channels, ChannelTable):
        dense = replace(form, channels=Grouped(channels.inputs, channels.outputs))
        return _filled(form, channels, composed(replace(problem, form=dense)))
    if not form.tiled:
        engine = engine_named("aten")
        if reason := engine.refuses(problem):
            raise UnsupportedError(f"the exported graph cannot hold this layer: {reason}")
        return engine.prepare(problem)
    if problem.map == "c":
        return _gathered(form)
    if form.mode != "zeros":
        raise UnsupportedError(f"the exported graph cannot fold back a border of padding_mode={form.mode!r}; use 'zeros'")
    return _scattered(form)


def needs_size(spec: ConvSpec, size: Sequence[Any] | None) -> str | None:
    """Return why what is composed for one size, or to give one, would be wrong for another, or None."""
    if size is not None:
        return f"output_size={tuple(size)} was chosen for one"
    if spec.tiled:
        return "which kernel a position has, and where its patch lies, is written out"
    if isinstance(spec.padding, str) or spec.padding_mode != "zeros" or any(lo != hi or lo < 0 for lo, hi in spec.padding):
        return f"padding={spec.padding!r} with padding_mode={spec.padding_mode!r} is written out"
    return None


def _filled(form: Form, channels: ChannelTable, inner: Runner) -> Runner:
    """Fill a table up with zeros; stacked, for a graph takes no constant that is made while it is decomposed."""
    places = {edge: k for k, edge in enumerate(channels.edges)}

    def run(K: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        kernels, nothing = K.unbind(0), torch.zeros_like(K[0])
        rows = [(o, i) for o in range(channels.outputs) for i in range(channels.inputs)]
        W = torch.stack([kernels[places[at]] if at in places else nothing for at in rows])
        W = W.unflatten(0, (channels.outputs, channels.inputs))
        return inner(W.movedim(1, 1 + form.ndim) if form.tiled else W, x, bias)

    return run


def _gathered(form: Form) -> Runner:
    """Return c, a product per position with the patch that it reads."""
    border, d, groups = extension(form), form.ndim, form.channels.groups

    def run(K: Tensor, V: Tensor, bias: Tensor | None = None) -> Tensor:
        X = border(V)
        for k, axis in enumerate(form.axes):
            X = X.index_select(2 + 2 * k, _reads(axis, X.device)).unflatten(2 + 2 * k, (axis.n_out, axis.kernel))
        X = X.unflatten(1, (groups, -1))  # (batch, groups, inputs, position, tap, position, tap, ...)
        positions, taps = range(3, 3 + 2 * d, 2), range(4, 4 + 2 * d, 2)
        X = X.permute(*positions, 1, 2, *taps, 0).flatten(0, d - 1).flatten(2, 2 + d)
        Z = torch.matmul(_kernels(form, K), X)
        return _plus(Z.flatten(1, 2).unflatten(0, form.n_out).permute(d + 1, d, *range(d)), bias)

    return run


def _scattered(form: Form) -> Runner:
    """Return h, whose patches are added up where c reads them."""
    border, d, groups = folding(form), form.ndim, form.channels.groups
    inputs = form.channels.inputs // groups

    def run(K: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:
        flat = G.permute(*range(2, 2 + d), 1, 0).flatten(0, d - 1).unflatten(1, (groups, -1))
        X = torch.matmul(_kernels(form, K).transpose(2, 3), flat)
        X = X.unflatten(2, (inputs, *form.kernel)).unflatten(0, form.n_out)
        pairs = [i for k in range(d) for i in (k, d + 2 + k)]
        X = X.permute(2 * d + 2, d, d + 1, *pairs).flatten(1, 2)
        for k, axis in reversed(list(enumerate(form.axes))):
            X = X.flatten(2 + 2 * k, 3 + 2 * k)
            whole = X.new_zeros((*X.shape[: 2 + 2 * k], axis.span, *X.shape[3 + 2 * k :]))
            X = whole.index_add(2 + 2 * k, _reads(axis, X.device), X)
        return _plus(border(X), bias)

    return run


def _kernels(form: Form, K: Tensor) -> Tensor:
    """Return the kernel of every position, (positions, groups, outputs / groups, inputs / groups * taps)."""
    d, K = form.ndim, straight(form, K)
    for k, axis in enumerate(form.axes, start=1):
        if axis.period != axis.n_out:
            K = K.index_select(k, torch.arange(axis.n_out, device=K.device) % axis.period)
    grouped: Tensor = K.flatten(1, d).flatten(2).unflatten(0, (form.channels.groups, -1))
    return grouped.permute(2, 0, 1, 3)


def _reads(axis: Axis, device: torch.device) -> Tensor:
    """Return what every output reads of an extended input, its taps in order."""
    firsts, taps = torch.arange(axis.n_out, device=device) * axis.stride, torch.arange(axis.kernel, device=device)
    return (firsts[:, None] + taps * axis.dilation).flatten()


def _plus(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias.view(-1, *(1,) * (x.ndim - 2))
