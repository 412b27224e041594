"""PyTorch's own convolution, nothing added: what every other engine has to beat.

``h`` is torch's transposed convolution where that can express both sizes, and otherwise the transposed convolution over
all positions that the outputs read, cropped or extended with zeros. ``g`` is torch's weight gradient. Borders that torch
cannot state (different on both sides, or continued by a mode) are written out first. A product of complex numbers is four
products of real ones.
"""

from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from ninefold.engines.base import Engine, Error, Runner, Traits, direct_error
from ninefold.engines.final import Final
from ninefold.engines.machine import Machine
from ninefold.spec.channels import ChannelTable
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem
from ninefold.tensors.border import extension, folding
from ninefold.tensors.layout import add_bias, empty, in_format

__all__ = ["VECTORISED", "Aten", "AtenBackward", "most_padding", "without_channels"]


class Aten(Engine):
    """``torch.convolution`` and its backward."""

    name = "aten"
    revision = 2
    traits = Traits(plain_sums=True, exact=True, confines_nan=True)
    transparent = True
    modelled = False

    def refuses(self, problem: Problem) -> str | None:
        form = problem.form
        if isinstance(form.channels, ChannelTable):
            return f"PyTorch has groups, not a table of {form.channels.connections} channel connections"
        if form.tiled:
            return f"PyTorch shares one kernel over all positions; this form cycles through {form.period} of them"
        if form.ndim > 3:
            return f"PyTorch has 1 to 3 spatial axes, not {form.ndim}"
        if not (problem.is_float or problem.is_complex):
            return f"PyTorch convolves floating-point and complex numbers, not {problem.dtype}"
        if 0 in (*form.n_in, *form.n_out):
            return f"PyTorch takes no empty axis; sizes are {form.n_in} and {form.n_out}"
        return None

    def cost(self, problem: Problem, machine: Machine) -> float:
        form = problem.form
        reordered = 2 * prod(form.weight_shape) * problem.itemsize
        if not (_unfolded if problem.map == "h" else _symmetric)(form):  # the border is written out, or folded back
            reordered += 3 * problem.batch * form.channels.inputs * prod(a.span for a in form.axes) * problem.itemsize
        return (problem.bytes + reordered) / machine.stream + problem.macs / _rate(problem, machine) + 2 * machine.call

    def error(self, problem: Problem) -> Error:
        return direct_error(problem)

    def scratch(self, problem: Problem) -> int:
        form = problem.form
        spans = prod(a.span for a in form.axes) * form.channels.inputs * problem.batch
        border = 0 if _symmetric(form) else spans * problem.itemsize
        size = prod(form.weight_shape) * problem.itemsize
        columns = form.channels.inputs // form.channels.groups * prod(form.kernel) * prod(form.n_out) * problem.itemsize
        unfolds = not _onednn(problem) or (form.channels.inputs > form.channels.groups and most_padding(form) > VECTORISED)
        data = prod(form.input_shape(problem.batch)) * _widened(problem, form.channels.inputs)
        data += prod(form.output_shape(problem.batch)) * _widened(problem, form.channels.outputs)
        return border + max(columns if unfolds else 0, int(2 * size + data * problem.itemsize))

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        run = {"c": _forward, "h": _transposed, "g": _weight}[problem.map](problem.form)
        last = problem.channels_last and problem.map != "g"
        bordered = not (_unfolded if problem.map == "h" else _symmetric)(problem.form)
        if problem.is_complex:
            run = _complex(run)
        elif problem.map == "g" or not (bordered or (last and problem.form.ndim == 3)):
            return run  # PyTorch itself keeps the format, save in three dimensions and of a border that is written out

        def formatted(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
            return in_format(run(a, b, bias), last)

        return formatted


def _widened(problem: Problem, channels: int) -> float:
    """Return how many times larger oneDNN's copy is, which holds channels by sixteen; measured by ``python -m bench.scratch``."""
    groups = problem.form.channels.groups
    if groups == 1:
        return -(-channels // 16) * 16 / channels
    lone = groups == channels and problem.map == "g" and problem.channels_last and max(problem.form.kernel) > 3
    return 16.0 if lone else 1.0


def _rate(problem: Problem, machine: Machine) -> float:
    """Return PyTorch's multiply-adds per second, as a part of a large product's: fitted to bench/shapes, class by class."""
    form, map_ = problem.form, problem.map
    part = 1.0 if _onednn(problem) else 0.25
    part /= 1 if problem.itemsize > 2 or problem.device != "cpu" or _multiplies(problem.dtype) else _EMULATED
    groups = form.channels.groups
    if groups == form.channels.inputs == form.channels.outputs:
        return (
            machine.product
            * part
            / (_slow_one(form, map_) if groups == 1 else _slow_depthwise(form, map_, problem.channels_last))
        )
    width = (form.channels.inputs if map_ == "h" else form.channels.outputs) // groups
    transposed_product = 0.5 if map_ == "h" and max(form.kernel) == 1 else 1.0
    read = (form.channels.outputs if map_ == "h" else form.channels.inputs) // groups
    few = min(1.0, read / 3) if map_ != "c" or form.ndim == 3 else 1.0  # a single channel is read at a third of the rate
    summed = 1.0 if map_ != "g" else 0.7 if not problem.channels_last or max(form.kernel) == 1 else 0.45
    return machine.product * part * transposed_product * few * summed * min(1.0, width / 16)


_EMULATED = 40  # times as long as in float32: half types on a processor that does not multiply them, measured


@lru_cache(maxsize=2)
def _multiplies(half: str) -> bool:
    """Whether this processor multiplies a half type, as far as PyTorch says; what it does not say counts as yes."""
    facts: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if facts.get("architecture") != "x86_64":
        return True
    names = ("avx512_bf16", "amx_bf16") if half == "bfloat16" else ("avx512_fp16", "amx_fp16")
    return any(facts.get(name) for name in names)


VECTORISED = 8
"""The padding up to which oneDNN keeps its vectorised kernels, measured."""


def most_padding(form: Form) -> int:
    """Return the largest padding of any side."""
    return max(max(a.lo, a.hi) for a in form.axes)


def _slow_one(form: Form, map_: str) -> float:
    """One channel: only the forward loop over images is vectorised."""
    padded = most_padding(form) > VECTORISED
    return 12 if map_ == "c" and not (padded and form.ndim == 1) else 80


def _slow_depthwise(form: Form, map_: str, channels_last: bool) -> float:
    """Depthwise: a padding past 8 leaves the vectorised path in contiguous memory; kernel gradients hardly have one."""
    long = most_padding(form) > VECTORISED
    if map_ == "h":
        return {1: 10, 2: 3, 3: 40}[form.ndim]
    if map_ == "g":
        return 6 if max(form.kernel) <= 3 else 20 if channels_last and not long else 60
    if form.ndim == 1:
        return 60 if long else 6
    if form.ndim == 3:
        return 60 if long else 3
    return 60 if long and not channels_last else 1.6


class AtenBackward(Aten):
    """The input half of ``convolution_backward``: how PyTorch's autograd computes ``h``, where `Aten` transposes a convolution.

    The two take different kernels of oneDNN, and either can be several times as fast as the other.
    """

    name = "aten-backward"
    revision = 2
    transparent = False

    def refuses(self, problem: Problem) -> str | None:
        if problem.map != "h":
            return f"it computes the gradient to the input, h, of {problem.form.ndim} axes, not {problem.map}"
        if problem.is_complex:
            return f"PyTorch's backward here is of real numbers, not {problem.dtype}"
        return super().refuses(problem)

    def scratch(self, problem: Problem) -> int:
        form = problem.form
        named = 0 if _symmetric(form) else prod(a.span for a in form.axes) * form.channels.inputs * problem.batch
        return super().scratch(problem) + named * problem.itemsize  # a shape is stated by memory of that size, never touched

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        form = problem.form
        plain, border, none = _symmetric(form), folding(form), [0] * form.ndim
        padding = [a.lo for a in form.axes] if plain else none
        shape = form.n_in if plain else tuple(a.span for a in form.axes)

        def run(K: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:
            shape_only = empty(G, (len(G), form.channels.inputs, *shape), problem.channels_last)  # never read, nor written
            R = torch.ops.aten.convolution_backward(
                G, shape_only, _kernel(form, K), None, form.stride, padding, form.dilation, False, none, form.channels.groups,
                [True, False, False],
            )[0]  # fmt: skip
            return add_bias(in_format(R if plain else border(R), problem.channels_last), bias)

        return run


def _onednn(problem: Problem) -> bool:
    return problem.dtype in ("float32", "bfloat16", "float16") and problem.device == "cpu"


def _symmetric(form: Form) -> bool:
    """Whether torch's single number per axis states the border, and gives this many outputs."""
    return form.mode == "zeros" and all(
        a.lo >= 0 and (a.n_in + 2 * a.lo - a.extent) // a.stride + 1 == a.n_out and a.n_in + 2 * a.lo >= a.extent
        for a in form.axes
    )


def _kernel(form: Form, K: Tensor) -> Tensor:
    return K.flip(tuple(range(2, K.ndim))) if form.flip else K


def _forward(form: Form) -> Runner:
    stride, dilation, groups = form.stride, form.dilation, form.channels.groups
    plain, border = _symmetric(form), extension(form)
    padding = tuple(a.lo for a in form.axes) if plain else (0,) * form.ndim
    none = (0,) * form.ndim

    def run(K: Tensor, V: Tensor, bias: Tensor | None = None) -> Tensor:
        V = V if plain else border(V)
        return torch.convolution(V, _kernel(form, K), bias, stride, padding, dilation, False, none, groups)

    return run


def without_channels(form: Form) -> Runner:
    """Return PyTorch's convolution of no input channels: whatever the weight says, its output has no channels either."""
    real = _forward(form)

    def run(K: Tensor, V: Tensor, bias: Tensor | None = None) -> Tensor:
        if not V.is_complex():
            return real(K, V, bias)
        # parts alone: products of real and imaginary parts would go to channels that are not there
        given = [x for x in (K, V, bias) if x is not None]
        return torch.complex(*(real(*(part(x).contiguous() for x in given)) for part in (torch.real, torch.imag)))

    return run


def _left_over(form: Form) -> tuple[int, ...]:
    """Return torch's output padding."""
    return tuple(a.n_in + 2 * a.lo - a.span for a in form.axes)


def _unfolded(form: Form) -> bool:
    """Whether torch's padding and output padding state the size of ``V``."""
    return form.mode == "zeros" and all(
        a.lo >= 0 and 0 <= p < max(a.stride, a.dilation) for a, p in zip(form.axes, _left_over(form), strict=True)
    )


def _transposed(form: Form) -> Runner:
    stride, dilation, groups = form.stride, form.dilation, form.channels.groups
    plain, border = _unfolded(form), folding(form)
    none = (0,) * form.ndim
    padding, output_padding = (tuple(a.lo for a in form.axes), _left_over(form)) if plain else (none, none)

    def run(K: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:
        fused = bias if plain else None
        R = torch.convolution(G, _kernel(form, K), fused, stride, padding, dilation, True, output_padding, groups)
        return R if plain else add_bias(border(R), bias)

    return run


def _weight(form: Form) -> Runner:
    stride, dilation, groups = form.stride, form.dilation, form.channels.groups
    plain, border = _symmetric(form), extension(form)
    padding = [a.lo for a in form.axes] if plain else [0] * form.ndim

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        V = V if plain else border(V)
        shape_only = V.new_empty(form.weight_shape)  # never read, nor written; PyTorch takes one of no strides for channels-last
        D = torch.ops.aten.convolution_backward(
            G, V, shape_only, None, stride, padding, dilation, False, [0] * form.ndim, groups, [False, True, False]
        )[1]
        return _kernel(form, D)

    return run


def _complex(run: Runner) -> Runner:
    def split(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        ar, ai, br, bi = a.real.contiguous(), a.imag.contiguous(), b.real.contiguous(), b.imag.contiguous()
        out = torch.complex(run(ar, br, None) - run(ai, bi, None), run(ar, bi, None) + run(ai, br, None))
        return add_bias(out, bias)

    return split
