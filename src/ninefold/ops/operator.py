"""The operator route: ``torch.ops.ninefold``, for torch.compile, export, torch.func, forward AD, subclasses and dispatch modes.

``ninefold::c``, ``h`` and ``g`` are opaque to compilers; a spec goes in as text, with a second line where options are fixed,
and sizes as symbolic integers, so that one graph serves many sizes. ``ninefold::conv`` is what a layer calls: a composite that
becomes PyTorch's own convolution where the plan says so, and nothing is then lost to fusion, and the opaque operators elsewhere.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function as _single_level
from torch.autograd.forward_ad import _set_fwd_grad_enabled
from torch.autograd.function import _SingleLevelFunction
from torch.utils.flop_counter import register_flop_formula

from ninefold.engines.aten import without_channels
from ninefold.errors import UnsupportedError
from ninefold.ops import state
from ninefold.ops.batching import fold_vmap
from ninefold.ops.checks import check_data, check_layer, check_operands
from ninefold.ops.composed import composed, needs_size
from ninefold.ops.executor import ADJOINT, COMPILED, FormExecutor, executor_for
from ninefold.ops.layout import result_is_channels_last, with_strides_of
from ninefold.settings import CURRENT, Options
from ninefold.spec.conv import ConvSpec
from ninefold.spec.form import Form
from ninefold.spec.problem import Map
from ninefold.tensors.layout import in_format

__all__ = ["call", "form_of", "own"]

_LIBRARY = torch.library.Library("ninefold", "DEF")
_OPERANDS: dict[Map, tuple[str, str]] = {"c": ("K", "V"), "h": ("K", "G"), "g": ("V", "G")}


@lru_cache(maxsize=4096)
def form_of(text: str, n_in: tuple[int, ...], n_out: tuple[int, ...]) -> Form:
    """Return the form of a spec's text with both sizes."""
    return own(_spec(text)).form(n_in, n_out)


@lru_cache(maxsize=4096)
def own(spec: ConvSpec) -> ConvSpec:
    """Return the spec of the form itself: not transposed, without bias."""
    return spec.replace(transposed=False, output_padding=0, bias=False)


def _spec(text: str) -> ConvSpec:
    return ConvSpec.from_text(text.partition("\n")[0])


def _options(text: str) -> Options:
    """Return the options that are fixed in a second line, else those of the calling context."""
    line = text.partition("\n")[2].partition("\n")[0]
    return _fixed(line) if line else CURRENT.get()


@lru_cache(maxsize=256)
def _fixed(line: str) -> Options:
    return Options(**json.loads(line))


def call(map_: Map, text: str, n_in: Sequence[Any], n_out: Sequence[Any], a: Tensor, b: Tensor) -> Tensor:
    """Call a map as an operator."""
    out: Tensor = getattr(torch.ops.ninefold, map_)(a, b, text, n_in, n_out)
    return out


def _bound(text: str, n_in: Sequence[int], n_out: Sequence[int], a: Tensor, b: Tensor) -> FormExecutor:
    form = form_of(text, tuple(n_in), tuple(n_out))
    return executor_for(form, len(b), a.dtype, a.device, result_is_channels_last(b, a), _options(text), torch.get_num_threads())


def _shape(map_: Map, text: str, n_in: Sequence[Any], n_out: Sequence[Any], b: Tensor) -> tuple[Any, ...]:
    spec = _spec(text)
    if map_ == "c":
        return (b.shape[0], spec.out_channels, *n_out)
    if map_ == "h":
        return (b.shape[0], spec.in_channels, *n_in)
    channels = spec.channels
    tile = tuple(n if t is None else t for n, t in zip(n_out, spec.period, strict=True)) if spec.tiled else ()
    return (*channels.weight_head, *tile, *channels.weight_tail, *spec.kernel_size)


def _define(map_: Map) -> None:
    """Define one map: real kernel, fake kernel, gradient, vmap and flop count."""
    first, second = _OPERANDS[map_]
    _LIBRARY.define(
        f"{map_}(Tensor {first}, Tensor {second}, str spec, SymInt[] n_in, SymInt[] n_out) -> Tensor",
        tags=(torch.Tag.pt2_compliant_tag,),
    )

    def run(a: Tensor, b: Tensor, spec: str, n_in: Sequence[int], n_out: Sequence[int]) -> Tensor:
        executor = _bound(spec, n_in, n_out, a, b)
        given = (executor.form.input_shape(len(b)), executor.form.output_shape(len(b)))
        shapes = given if map_ == "g" else (executor.form.weight_shape, given[map_ == "h"])
        check_operands(executor.form, (first, a, shapes[0]), (second, b, shapes[1]))
        with torch.no_grad():
            # Compilers run kernels with the lazy-conjugation fallback off: what is lazy is settled here.
            out = executor.runner(map_)(a.resolve_conj().resolve_neg(), b.resolve_conj().resolve_neg(), None)
        # a weight's single positions have the strides that the fake kernel says, too
        return out.reshape(-1).view(out.shape) if map_ == "g" else in_format(out, executor.last)

    def fake(a: Tensor, b: Tensor, spec: str, n_in: Sequence[Any], n_out: Sequence[Any]) -> Tensor:
        out = a.new_empty(_shape(map_, spec, n_in, n_out, b))
        return in_format(out, map_ != "g" and result_is_channels_last(b, a))

    def gradient(a: Tensor, b: Tensor, spec: str, n_in: Sequence[Any], n_out: Sequence[Any]) -> Tensor:
        with _single_level():
            out: Tensor = _Differentiated.apply(  # type: ignore[attr-defined]
                a, b, map_, spec, n_in, n_out
            )
            return out

    def batched(info: Any, dims: Any, a: Tensor, b: Tensor, spec: str, n_in: Sequence[Any], n_out: Sequence[Any]) -> Any:
        def run(a: Tensor, b: Tensor, wide: ConvSpec) -> Tensor:
            return call(map_, "".join((wide.to_text(), *spec.partition("\n")[1:])), n_in, n_out, a, b)

        return fold_vmap(run, info.batch_size, dims[:2], a, b, map_, own(_spec(spec)))

    def flops(a: Any, b: Any, spec: str, n_in: Any, n_out: Any, *_: Any, **__: Any) -> int:  # noqa: ARG001  torch's signature
        count: int = 2 * b[0] * form_of(spec, tuple(n_in), tuple(n_out)).macs
        return count

    name = f"ninefold::{map_}"
    _LIBRARY.impl(map_, run, "CompositeExplicitAutograd")
    torch.library.register_fake(name, fake, lib=_LIBRARY)
    torch.library.register_vmap(name, batched, lib=_LIBRARY)
    _LIBRARY.impl(map_, gradient, "Autograd")
    register_flop_formula(getattr(torch.ops.ninefold, map_))(flops)


class _Differentiated(_SingleLevelFunction):
    """The autograd kernel of the operators, handwritten: torch.library's own fails under func.grad and drops tangents."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, map_: Map, spec: str, n_in: Sequence[Any], n_out: Sequence[Any]) -> Tensor:
        """Run the map below autograd."""
        ctx.save_for_backward(a, b)
        ctx.save_for_forward(a, b)
        ctx.map, ctx.spec, ctx.n_in, ctx.n_out = map_, spec, n_in, n_out
        # A Function's forward runs without gradients, but a transform one level out still wants its own.
        with torch._C._AutoDispatchBelowAutograd(), torch.enable_grad(), _set_fwd_grad_enabled(mode=True):  # noqa: SLF001
            return call(map_, spec, n_in, n_out, a, b)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        """Call the adjoint maps, which are operators again."""
        operands = ctx.saved_tensors  # once: checkpoints recompute them at every access
        saved = [x.conj_physical() if x.is_complex() else x for x in operands]
        named = {"first": saved[0], "second": saved[1], "up": up}
        grads = [
            _gradient(ctx, other, named[x], named[y], like) if need else None
            for need, (other, x, y), like in zip(ctx.needs_input_grad[:2], ADJOINT[ctx.map], operands, strict=True)
        ]
        return (*grads, None, None, None, None)

    @staticmethod
    def jvp(ctx: Any, da: Tensor | None, db: Tensor | None, *_: Any) -> Tensor:
        """Apply the product rule."""
        a, b = ctx.saved_tensors
        parts = [
            call(ctx.map, ctx.spec, ctx.n_in, ctx.n_out, x, y) for x, y in ((da, b), (a, db)) if x is not None and y is not None
        ]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _gradient(ctx: Any, map_: Map, a: Tensor, b: Tensor, of: Tensor) -> Tensor:
    """Call the map that is the gradient of an operand; that of a weight has the weight's strides, but under transforms."""
    out = call(map_, ctx.spec, ctx.n_in, ctx.n_out, a, b)
    return with_strides_of(out, of) if map_ == "g" and not state.transformed(out) else out


for _map in ("c", "h", "g"):
    _define(_map)

_LIBRARY.define("conv(Tensor x, Tensor weight, Tensor? bias, str spec, SymInt[]? size) -> Tensor")


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, spec: str, size: Sequence[Any] | None = None) -> Tensor:
    """Decompose a layer into PyTorch's convolution where the plan says so, and into the opaque maps elsewhere."""
    layer = _spec(spec)
    check_data(layer, x)
    map_: Map = "h" if layer.transposed else "c"
    n_in, n_out = layer.sizes(x.shape[2:], size)
    form = _layer_form(spec, tuple(map(_hint, x.shape[2:])), None if size is None else tuple(map(_hint, size)))
    check_layer(layer, form, x, weight, bias)
    if layer.in_channels == 0:
        return without_channels(form)(weight, x, bias)
    executor = executor_for(
        form, _hint(x.shape[0]), x.dtype, x.device, result_is_channels_last(x, weight), _options(spec), torch.get_num_threads()
    )
    fixed = all(type(n) is int for n in (*n_in, *n_out))
    if state.exporting():
        if not fixed and (reason := needs_size(layer, size)):
            raise UnsupportedError(f"the exported graph cannot leave spatial sizes open: {reason}; export for one size")
        return composed(executor.problem(map_))(weight, x, bias)
    needed: list[Map] = []
    if torch.is_grad_enabled():
        other: Map = "c" if layer.transposed else "h"
        needed += [m for m, need in (("g", weight.requires_grad), (other, x.requires_grad)) if need]  # type: ignore[misc]
    if fixed and (own := executor.torch_path(map_, tuple(needed), COMPILED)) is not None:
        return own(weight, x, bias)
    out = call(map_, spec, n_in, n_out, weight, x)
    return out if bias is None else out + bias.view(-1, *(1,) * (out.ndim - 2))


@lru_cache(maxsize=4096)
def _layer_form(text: str, read: tuple[int, ...], size: tuple[int, ...] | None) -> Form:
    return _spec(text).form(read, size)


def _hint(n: Any) -> int:
    return n if type(n) is int else int(n.node.hint)


_LIBRARY.impl("conv", _conv, "CompositeImplicitAutograd")
# Without this a vmap would run the layer example by example, in torch 2.6 even with FuncTorchBatchedDecomposition.
_LIBRARY.impl("conv", _conv, "FuncTorchBatched")
