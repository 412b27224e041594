"""The operator route: ``torch.ops.ninefold``, for torch.compile, export, subclasses and dispatch modes.

``ninefold::c``, ``h`` and ``g`` are opaque to compilers; a spec goes in as text and sizes as symbolic integers, so that one
graph serves many sizes. ``ninefold::conv`` is what a layer calls: a composite that becomes PyTorch's own convolution where
the plan says so, and nothing is then lost to fusion, and the opaque operators elsewhere.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ninefold.errors import NoEngineError
from ninefold.options import CURRENT
from ninefold.ops.bound import ADJOINT, Bound, bound_for
from ninefold.ops.layout import in_format, result_strides
from ninefold.spec.conv import ConvSpec
from ninefold.spec.form import Form
from ninefold.spec.problem import Map

__all__ = ["call", "form_of", "own"]

_LIBRARY = torch.library.Library("ninefold", "DEF")
_OPERANDS: dict[Map, tuple[str, str]] = {"c": ("K", "V"), "h": ("K", "G"), "g": ("V", "G")}


@lru_cache(maxsize=4096)
def form_of(text: str, n_in: tuple[int, ...], n_out: tuple[int, ...]) -> Form:
    """Return the form of a spec's text with both sizes."""
    return own(ConvSpec.from_text(text)).form(n_in, n_out)


@lru_cache(maxsize=4096)
def own(spec: ConvSpec) -> ConvSpec:
    """Return the spec of the form itself: not transposed, without bias."""
    return spec.replace(transposed=False, output_padding=0, bias=False)


def call(map_: Map, text: str, n_in: Sequence[Any], n_out: Sequence[Any], a: Tensor, b: Tensor) -> Tensor:
    """Call a map as an operator."""
    out: Tensor = getattr(torch.ops.ninefold, map_)(a, b, text, n_in, n_out)
    return out


def _bound(map_: Map, text: str, n_in: Sequence[int], n_out: Sequence[int], a: Tensor, b: Tensor) -> Bound:
    last = False if map_ == "g" else result_strides(b, a)
    form = form_of(text, tuple(n_in), tuple(n_out))
    return bound_for(form, len(b), a.dtype, a.device, last, CURRENT.get(), torch.get_num_threads())


def _shape(map_: Map, text: str, n_in: Sequence[Any], n_out: Sequence[Any], b: Tensor) -> tuple[Any, ...]:
    spec = ConvSpec.from_text(text)
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
    _LIBRARY.define(f"{map_}(Tensor {first}, Tensor {second}, str spec, SymInt[] n_in, SymInt[] n_out) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))

    def run(a: Tensor, b: Tensor, spec: str, n_in: Sequence[int], n_out: Sequence[int]) -> Tensor:
        bound = _bound(map_, spec, n_in, n_out, a, b)
        with torch.no_grad():
            out = bound.runner(map_)(a, b, None)
        return in_format(out, bound.last)

    def fake(a: Tensor, b: Tensor, spec: str, n_in: Sequence[Any], n_out: Sequence[Any]) -> Tensor:
        out = a.new_empty(_shape(map_, spec, n_in, n_out, b))
        return in_format(out, map_ != "g" and result_strides(b, a))

    def gradient(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        saved = [x.conj() if x.is_complex() else x for x in ctx.saved_tensors]
        named = {"first": saved[0], "second": saved[1], "up": up}
        grads = [
            call(other, ctx.spec, ctx.n_in, ctx.n_out, named[x], named[y]) if need else None
            for need, (other, x, y) in zip(ctx.needs_input_grad[:2], ADJOINT[map_], strict=True)
        ]
        return (*grads, None, None, None)

    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001  torch's signature
        a, b, ctx.spec, ctx.n_in, ctx.n_out = inputs
        ctx.save_for_backward(a, b)

    def flops(a: Any, b: Any, spec: str, n_in: Any, n_out: Any, *_: Any, **__: Any) -> int:  # noqa: ARG001  torch's signature
        batch = b[0]
        return 2 * batch * form_of(spec, tuple(n_in), tuple(n_out)).macs

    name = f"ninefold::{map_}"
    _LIBRARY.impl(map_, run, "CompositeExplicitAutograd")
    torch.library.register_fake(name, fake, lib=_LIBRARY)
    torch.library.register_autograd(name, gradient, setup_context=save, lib=_LIBRARY)
    register_flop_formula(getattr(torch.ops.ninefold, map_))(flops)


for _map in ("c", "h", "g"):
    _define(_map)

_LIBRARY.define("conv(Tensor x, Tensor weight, Tensor? bias, str spec, SymInt[] n_in, SymInt[] n_out, bool transposed) -> Tensor")


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, spec: str, n_in: Any, n_out: Any, transposed: bool) -> Tensor:
    """Decompose a layer into PyTorch's convolution where the plan says so, and into the opaque maps elsewhere."""
    map_: Map = "h" if transposed else "c"
    sizes_in, sizes_out = tuple(map(_hint, n_in)), tuple(map(_hint, n_out))
    try:
        form = form_of(spec, sizes_in, sizes_out)
        bound = bound_for(
            form, _hint(x.shape[0]), x.dtype, x.device, result_strides(x, weight), CURRENT.get(), torch.get_num_threads()
        )
        grad = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        other: Map = "c" if transposed else "h"
        native = bound.native(map_, ("g", other) if grad else ()) and all(type(n) is int for n in (*n_in, *n_out, x.shape[0]))
    except NoEngineError:
        native = False
    if native:
        return bound.runner(map_)(weight, x, bias)
    out = call(map_, spec, n_in, n_out, weight, x)
    return out if bias is None else out + bias.view(-1, *(1,) * (out.ndim - 2))


def _hint(n: Any) -> int:
    return n if type(n) is int else n.node.hint


_LIBRARY.impl("conv", _conv, "CompositeImplicitAutograd")
