"""The thin route: a call looks its runner up by what the operands look like, and runs it."""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ninefold.engines.aten import Aten, without_channels
from ninefold.engines.base import EPILOGUES
from ninefold.engines.final import Final
from ninefold.engines.held import plan_bytes
from ninefold.errors import ArgumentTypeError, UnsupportedError
from ninefold.ops import operator, state
from ninefold.ops.checks import check_data, check_operands, check_strided
from ninefold.ops.executor import FormExecutor, ThinMap, executor_for
from ninefold.ops.layout import result_is_channels_last
from ninefold.ops.traced import overridable, stand_ins
from ninefold.settings import CURRENT, Options
from ninefold.spec.conv import ConvSpec
from ninefold.spec.form import Form
from ninefold.spec.problem import Map

__all__ = ["PlannedCall", "trilinear"]

Run = Callable[[Tensor, Tensor, Tensor | None], Tensor]
_REMEMBERED = 256  # kinds of operands per call, where their plans are small
_PLANNED = 8 << 20  # bytes that plans may take: those of long kernels are remembered for fewer kinds
_KEPT, _TIMES = 4 << 20, 16  # bytes that forms of a final weight may take, and times its own bytes on top
_NAMES = {"c": ("weight", "input"), "h": ("weight", "input"), "g": ("input", "gradient")}


def trilinear(map_: Map, spec: ConvSpec, form: Form, a: Tensor, b: Tensor) -> Tensor:
    """Run one map of a form on checked, batched operands, by the route that this call needs."""
    if not torch.compiler.is_compiling():
        if state.is_plain(a, b):
            executor = executor_for(
                form, len(b), a.dtype, a.device, result_is_channels_last(b, a), CURRENT.get(), torch.get_num_threads()
            )
            return executor.apply(map_, a, b)
        if (dtype := state.autocast_dtype(a)) is not None:
            with torch.autocast(a.device.type, enabled=False):
                return trilinear(map_, spec, form, a.to(dtype), b.to(dtype))
    return operator.call(map_, spec.to_text(), form.n_in, form.n_out, a, b)


class PlannedCall:
    """A convolution of one spec as it is called: by a layer, or by a function for one set of arguments.

    Parameters
    ----------
    spec : ConvSpec
    options : Options, optional
        Fixed ones; by default those of the calling context.
    frozen : Tensor, optional
        A weight that is final; calls with another one see that other one.
    rank : int, optional
        Its numerical rank over the axes.
    epilogue : str, optional
        One of ``ninefold.engines.base.EPILOGUES``, behind the bias: in the engine's own pass where no gradient is needed.
    """

    __slots__ = ("_each", "_runs", "_then", "epilogue", "final", "frozen", "map", "options", "rank", "spec", "text")

    def __init__(
        self,
        spec: ConvSpec,
        options: Options | None = None,
        frozen: Tensor | None = None,
        rank: int | None = None,
        epilogue: str | None = None,
    ) -> None:
        self.spec, self.options, self.frozen, self.rank, self.epilogue = spec, options, frozen, rank, epilogue
        self._then: PlannedCall | None = None
        self.final = None if frozen is None else Final(frozen)
        self.text = spec.to_text() if options is None else f"{spec.to_text()}\n{options.to_text()}"
        self.map: Map = "h" if spec.transposed else "c"
        self._each = 1
        self._runs: dict[Any, tuple[Run, Options]] = {}

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, size: tuple[int, ...] | None = None) -> Tensor:
        """Convolve; `size` is the output's spatial size where a transposed convolution leaves a choice."""
        if torch.compiler.is_compiling() or not state.is_plain(x, weight):
            return self._other_routes(x, weight, bias, size)
        options = self.options or CURRENT.get()
        try:
            grad = (
                (x.requires_grad, weight.requires_grad, bias is not None and bias.requires_grad)
                if torch.is_grad_enabled()
                else None
            )
            added = None if bias is None else (bias.shape, bias.dtype, bias.device)
            shape = x.shape
        except AttributeError:
            raise ArgumentTypeError(
                f"the bias must be a tensor (out_channels,) or None, got type {type(bias).__name__}"
            ) from None
        except RuntimeError:  # a nested tensor has none
            check_strided(x)
            raise
        key = (
            shape,
            x.stride(),
            x.dtype,
            x.device,
            weight.shape,
            weight.stride(),
            weight.dtype,
            weight.device,
            grad,
            added,
            size,
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            id(options),
            weight is self.frozen,
        )
        known = self._runs.get(key)
        if known is None:
            known = self._runs[key] = self._prepare(x, weight, bias, size, grad, options), options
            self._let_go()
        return known[0](weight, x, bias)

    def _let_go(self) -> None:
        """Forget the oldest kinds while there are too many, or while what they keep of a final weight takes too many bytes."""
        final, many = self.final, min(_REMEMBERED, max(8, _PLANNED // self._each))
        most = 0 if final is None else _KEPT + _TIMES * final.tensor.nbytes
        for old in list(self._runs)[:-1]:
            if len(self._runs) <= many and (final is None or final.nbytes <= most):
                return
            self._runs.pop(old, None)

    def then(self, epilogue: str) -> "PlannedCall":
        """Return the call with an epilogue; the last one is remembered."""
        if self._then is None or self._then.epilogue != epilogue:
            self._then = PlannedCall(self.spec, self.options, self.frozen, self.rank, epilogue)
            self._then.final = self.final
        return self._then

    def bind(self, x: Tensor, weight: Tensor, size: tuple[int, ...] | None = None) -> FormExecutor:
        """Return the executor of the maps for these operands, checked; `x` has a batch."""
        form = self._form(x, weight, None, size)
        options = self.options or CURRENT.get()
        last = result_is_channels_last(x, weight)
        if weight is self.frozen and weight is not None:
            return FormExecutor(form, len(x), x.dtype, x.device, last, options, self.final, self.rank)
        return executor_for(form, len(x), x.dtype, x.device, last, options, torch.get_num_threads())

    def _prepare(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        size: tuple[int, ...] | None,
        grad: tuple[bool, bool, bool] | None,
        options: Options,
    ) -> Run:
        """Check the operands and return what runs them from now on."""
        check_data(self.spec, x)
        if x.ndim == self.spec.ndim + 1:
            inner = self._prepare(x.unsqueeze(0), weight, bias, size, grad, options)
            return lambda w, x, b: inner(w, x.unsqueeze(0), b).squeeze(0)
        form = self._form(x, weight, bias, size)
        if self.spec.in_channels == 0:
            empty = without_channels(form)
            return lambda w, x, b: self._finished(empty(w, x, b))
        executor, map_ = self.bind(x, weight, size), self.map
        if grad is None or not any(grad):
            return executor.runner(map_, self.epilogue)
        other: Map = "c" if map_ == "h" else "h"
        needed: tuple[Map, ...] = tuple(m for m, need in ((other, grad[0]), ("g", grad[1])) if need)
        own = executor.torch_path(map_, needed)
        run = own or (lambda w, x, b: ThinMap.apply(w, x, b, executor, map_))
        if self.epilogue is None:
            return run
        return lambda w, x, b: self._finished(run(w, x, b))

    def _finished(self, out: Tensor) -> Tensor:
        return out if self.epilogue is None else EPILOGUES[self.epilogue].apply(out)

    def _form(self, x: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, ...] | None) -> Form:
        form = self.spec.form(x.shape[2:], size)
        self._each = plan_bytes(form)
        shape = form.input_shape if self.map == "c" else form.output_shape
        name_a, name_b = _NAMES[self.map]
        check_operands(form, (name_a, weight, form.weight_shape), (name_b, x, shape(len(x))))
        if bias is not None:
            channels = form.channels.outputs if self.map == "c" else form.channels.inputs
            check_operands(form, ("bias", bias, (channels,)), (name_b, x, tuple(x.shape)))
        return form

    def _other_routes(self, x: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, ...] | None) -> Tensor:
        if not torch.compiler.is_compiling() and stand_ins((x, weight, bias)):
            return self._finished(convolved(x, weight, bias, self.text, size))
        check_data(self.spec, x)
        if x.ndim == self.spec.ndim + 1:
            return self._other_routes(x.unsqueeze(0), weight, bias, size).squeeze(0)
        if torch.compiler.is_compiling():
            return self._finished(self._operator(x, weight, bias, size))
        if (dtype := state.autocast_dtype(x)) is not None:
            with torch.autocast(x.device.type, enabled=False):
                return self(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype), size)
        if state.tracing():
            return self._finished(self._traced(x, weight, bias, size))
        return self._finished(self._operator(x, weight, bias, size))

    def _operator(self, x: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, ...] | None) -> Tensor:
        out: Tensor = torch.ops.ninefold.conv(x, weight, bias, self.text, size)
        return out

    def _traced(self, x: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, ...] | None) -> Tensor:
        """Trace PyTorch's own convolution: a traced graph runs where ninefold is not, and at other sizes than these."""
        executor = self.bind(x, weight, size)
        problem = executor.problem(self.map)
        if reason := Aten().refuses(problem) or _varies(self.spec):
            raise UnsupportedError(f"torch.jit.trace and the ONNX exporter built on it cannot hold this layer: {reason}")
        pads = tuple(self.spec.pads(executor.form.n_in))
        if not self.spec.transposed and (self.spec.padding_mode != "zeros" or any(lo != hi or lo < 0 for lo, hi in pads)):
            mode = "constant" if self.spec.padding_mode == "zeros" else self.spec.padding_mode
            padded = torch.nn.functional.pad(x, [p for pair in reversed(pads) for p in pair], mode)
            bare = PlannedCall(self.spec.replace(padding=0, padding_mode="zeros"), self.options)
            return bare._traced(padded, weight, bias, None)
        return Aten().prepare(problem)(weight, x, bias)


@overridable
def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, text: str, size: tuple[int, ...] | None = None) -> Tensor:
    """Convolve by the text of a spec: what torch.fx's graphs hold where a layer's own call is traced."""
    return _call_of(text)(x, weight, bias, size)


@overridable
def spatial_end(size: Sequence[int] | None, ndim: int) -> tuple[int, ...] | None:
    """Return the spatial part of an ``output_size``, which may be a whole shape."""
    return None if size is None else tuple(size)[-ndim:]


@lru_cache(maxsize=1024)
def _call_of(text: str) -> PlannedCall:
    spec, _, fixed = text.partition("\n")
    return PlannedCall(ConvSpec.from_text(spec), Options(**json.loads(fixed)) if fixed else None)


def _varies(spec: ConvSpec) -> str | None:
    """Return why PyTorch's operations, fixed while tracing, would be wrong for inputs of another size; None if right."""
    if isinstance(spec.padding, str) and spec.padding.startswith("same") and any(s > 1 for s in spec.stride):
        return f"padding={spec.padding!r} with stride {spec.stride} depends on the input's size; give pads as numbers"
    if spec.padding_mode == "symmetric":
        return "PyTorch has no padding_mode='symmetric'"
    uneven = isinstance(spec.padding, str) or any(lo != hi or lo < 0 for lo, hi in spec.padding)
    if spec.transposed and (uneven or spec.padding_mode != "zeros"):
        return f"PyTorch transposes with even zero padding only, not {spec.padding} of {spec.padding_mode}"
    return None
