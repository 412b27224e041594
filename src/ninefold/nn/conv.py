"""Convolution layers as subclasses of torch's: same constructor, same ``state_dict``, planned execution, and more variants."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ninefold.engines.base import EPILOGUES
from ninefold.engines.separable import numerical_rank
from ninefold.errors import ArgumentError
from ninefold.ops import PlannedCall
from ninefold.ops.call import spatial_end
from ninefold.ops.fields import call_traced
from ninefold.ops.traced import hooked, node
from ninefold.settings import Options
from ninefold.spec.conv import ConvSpec
from ninefold.spec.parse import boolean, per_axis

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Planned", "fuses", "hooked"]

_SPEC_FIELDS = frozenset(
    (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "padding_mode",
        "output_padding",
        "flip_kernel",
    )
)
_TORCH_MODES = ("zeros", "reflect", "replicate", "circular")
_WEIGHT_HOOKS = (WeightNorm, SpectralNorm, BasePruningMethod)
"""What ``torch.nn.utils`` hangs before a call to compute the weight: deterministic in evaluation mode."""


class Planned(torch.nn.Module):
    """What all planned layers share: a call site made from the layer's attributes, and whether the weight is final.

    Nothing of this is a parameter or a buffer, so the ``state_dict`` stays torch's; and nothing that is remembered is copied or
    pickled, except whether the weight is final, and the options and the epilogue that ``optimize`` fixed.
    """

    _ndim: int
    weight: Any
    bias: Any
    padding_mode: Any
    flip_kernel: bool = False
    plan_options: Options | None = None
    frozen: bool = False
    epilogue: str | None = None

    @property
    def spec(self) -> ConvSpec:
        """What the layer computes, without its weight."""
        return self.site.spec

    @property
    def site(self) -> PlannedCall:
        """The call site: made when first needed, and anew after a change of an attribute."""
        known = self.__dict__.get("_site")
        if known is None:
            known = self.__dict__["_site"] = self._make_site()
        return known

    def freeze(self) -> None:
        """Declare the weight final: prepared forms of it may be kept; one that a parametrization or a hook computes is so once.

        Undone by ``train()``, ``load_state_dict``, moves to another device or dtype, and `unfreeze`.
        """
        self.unfreeze()
        self.frozen = True
        self._let_hooks_rest()

    def unfreeze(self) -> None:
        """Take `freeze` back: every call sees the weight as it then is."""
        for name in ("_site", "_final", "frozen"):
            self.__dict__.pop(name, None)
        for key, hook in self.__dict__.pop("_resting", {}).items():
            self._forward_pre_hooks[key] = hook

    def current_weight(self) -> Tensor:
        """Return the weight that a call uses: a frozen one that is computed, as it was when it was first needed.

        If what it is computed from is another tensor by now, or was written to, that takes `freeze` back.
        """
        held: dict[str, Any] = self._parameters
        if "weight" in held:
            return held["weight"]  # type: ignore[no-any-return]
        if not self.frozen:
            return self.weight  # type: ignore[no-any-return]
        if "_final" not in self.__dict__:
            with torch.inference_mode(mode=False), torch.no_grad():  # it outlives the call, and gradients may pass it later
                self.__dict__["_final"] = self.weight.detach(), self._sources()
        weight, sources = self.__dict__["_final"]
        if all(table.get(name) is x and _version(x) == version for table, name, x, version in sources):
            return weight  # type: ignore[no-any-return]
        self.unfreeze()
        for hook in self._weight_hooks().values():
            hook(self, ())
        return self.weight  # type: ignore[no-any-return]

    def _sources(self) -> list[tuple[dict[str, Any], str, Tensor, int]]:
        """Return what a weight may be computed from, each with the table that holds it and its version."""
        tables: list[dict[str, Any]] = [table for m in self.modules() for table in (m._parameters, m._buffers)]  # noqa: SLF001  their own tables
        return [(t, name, x, _version(x)) for t in tables for name, x in t.items() if x is not None and name != "bias"]

    def _weight_hooks(self) -> dict[int, Any]:
        return {key: hook for key, hook in self._forward_pre_hooks.items() if isinstance(hook, _WEIGHT_HOOKS)}

    def _let_hooks_rest(self) -> None:
        """Run the hooks of torch that compute the weight before each call once more, and keep them aside."""
        hooks = self._weight_hooks()
        with torch.inference_mode(mode=False), torch.no_grad():
            for key, hook in hooks.items():
                hook(self, ())
                del self._forward_pre_hooks[key]
        if hooks:
            self.__dict__["_resting"] = hooks

    def _make_site(self) -> PlannedCall:
        spec = ConvSpec.from_module(_Bare(self)).replace(flip_kernel=self.flip_kernel)
        if not self.frozen:
            return PlannedCall(spec, self.plan_options, epilogue=self.epilogue)
        weight = self.current_weight()
        return PlannedCall(spec, self.plan_options, weight, numerical_rank(spec, weight), self.epilogue)

    def _fields(self) -> tuple[Any, ...]:
        """Return the spec as plain values, which a compiler can read."""
        ends = (self.out_channels, self.in_channels) if self.transposed else (self.in_channels, self.out_channels)
        how = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups, self.padding_mode)
        return (*ends, *how, self.flip_kernel, 1, self.transposed, self.output_padding if self.transposed else 0)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SPEC_FIELDS or name in ("plan_options", "epilogue"):
            self.__dict__.pop("_site", None)
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_site", "_final")}

    def finished(self, out: Tensor) -> Tensor:
        """Apply the epilogue, if there is one, where no call site does."""
        return out if self.epilogue is None else EPILOGUES[self.epilogue].apply(out)

    def train(self, mode: bool = True) -> Any:
        """Set the mode; training takes `freeze` back."""
        if mode:
            self.unfreeze()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.unfreeze()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.unfreeze()
        super()._load_from_state_dict(*args, **kwargs)

    def extra_repr(self) -> str:
        """Return torch's text, with what torch lacks where it is set."""
        extras = [text for text, on in ((", flip_kernel=True", self.flip_kernel), (", frozen", self.frozen)) if on]
        extras += [] if self.epilogue is None else [f", then {self.epilogue}"]
        return super().extra_repr() + "".join(extras)


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else x._version  # noqa: SLF001  no public name


class _Bare:
    """A layer's attributes without its `spec`, which is made from them."""

    def __init__(self, layer: torch.nn.Module) -> None:
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        if name == "spec":
            raise AttributeError(name)
        return getattr(self._layer, name)


class _Conv(Planned):
    """Forward layers; the docstring is shared by the three of them."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        flip_kernel: bool = False,
    ) -> None:
        ndim = self._ndim
        spec = ConvSpec(
            in_channels,
            out_channels,
            per_axis(kernel_size, ndim, "kernel_size", 1),
            stride,
            padding,
            dilation,
            groups,
            padding_mode,
        )
        known = torch_padding(spec, padding)
        super().__init__(
            in_channels,
            out_channels,
            spec.kernel_size,
            spec.stride,
            0 if known is None else known,
            spec.dilation,
            groups,
            bias,
            torch_mode(padding_mode),
            device,
            dtype,
        )
        go_beyond(self, spec, known, padding_mode, flip_kernel)

    @node
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Convolve; shapes as torch's, batched or not."""
        if torch.compiler.is_compiling():  # what is remembered may not exist yet, and cannot be made while tracing
            return self.finished(call_traced(input, self.weight, self.bias, None, self._fields(), self.plan_options))
        held: dict[str, Any] = self._parameters  # a quarter of the time of self.weight
        weight = held["weight"] if "weight" in held else self.current_weight()
        bias = held["bias"] if "bias" in held else self.bias  # noqa: SIM401
        return (self.__dict__.get("_site") or self.site)(input, weight, bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002  torch's name
        return self.site(input, weight, bias)


def torch_padding(spec: ConvSpec, padding: Any) -> str | tuple[int, ...] | None:
    """Return the padding as torch's constructor takes it, or None where it does not."""
    if spec.transposed and isinstance(padding, str):
        return None
    if isinstance(padding, str):
        known = padding == "valid" or (padding == "same" and all(s == 1 for s in spec.stride))
        return padding if known else None
    return tuple(lo for lo, _ in spec.padding) if all(lo == hi and lo >= 0 for lo, hi in spec.padding) else None


def torch_mode(padding_mode: str) -> str:
    """Return the padding mode if torch's constructor takes it, another where it does not."""
    return padding_mode if padding_mode in _TORCH_MODES else "zeros"


def go_beyond(layer: Any, spec: ConvSpec, known: Any, padding_mode: str, flip_kernel: bool) -> None:
    """Set what torch's constructor was not told, for it would not take it."""
    if known is None:
        layer.padding = spec.padding
    layer.padding_mode = padding_mode
    if boolean(flip_kernel, "flip_kernel"):
        layer.flip_kernel = True


class _ConvTranspose(Planned):
    """Transposed layers; the docstring is shared by the three of them."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        flip_kernel: bool = False,
    ) -> None:
        check_no_border(padding_mode)
        ndim = self._ndim
        kernel = per_axis(kernel_size, ndim, "kernel_size", 1)
        spec = ConvSpec(
            out_channels,
            in_channels,
            kernel,
            stride,
            padding,
            dilation,
            groups,
            transposed=True,
            output_padding=output_padding,
        )
        known = torch_padding(spec, padding)
        super().__init__(
            in_channels,
            out_channels,
            spec.kernel_size,
            spec.stride,
            0 if known is None else known,
            spec.output_padding,
            groups,
            bias,
            spec.dilation,
            padding_mode,
            device,
            dtype,
        )
        go_beyond(self, spec, known, padding_mode, flip_kernel)

    @node
    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:  # noqa: A002  torch's name
        """Transpose a convolution; `output_size` chooses among the sizes that belong to the input's."""
        size = None if output_size is None else spatial_end(output_size, self._ndim)
        if torch.compiler.is_compiling():
            return self.finished(call_traced(input, self.weight, self.bias, size, self._fields(), self.plan_options))
        return self.site(input, self.current_weight(), self.bias, size)


def check_no_border(padding_mode: str) -> None:
    """Refuse a padding mode of a transposed layer.

    Raises
    ------
    ArgumentError
        As torch, whose class for it, ValueError, this is, too.
    """
    if padding_mode != "zeros":
        raise ArgumentError(
            f"padding_mode={padding_mode!r}: a transposed layer has no border to continue; for the adjoint of a convolution "
            "with a continued border use ninefold.functional.conv_transpose2d(..., padding_mode=...)"
        )


_AT_SITE = (_Conv.forward, _ConvTranspose.forward)


def fuses(layer: torch.nn.Module) -> bool:
    """Return whether a layer's call site does all that it does, so that an epilogue there is one behind the layer."""
    return isinstance(layer, Planned) and type(layer).forward in _AT_SITE


_FORWARD = """A {n}-D convolution, a drop-in for ``torch.nn.Conv{n}d``: same constructor, same parameters, planned execution.

    Beyond torch: `padding` as pairs or as ``"same"`` with any stride, ``"same_lower"``, ``"full"``, ``"causal"``;
    ``padding_mode="symmetric"``; `flip_kernel` for true convolution (eq. 9.4 of the book). Values are within the ``tolerance`` of
    `ninefold.options`, not torch's bit for bit.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        As in torch, in torch's order.
    flip_kernel : bool
        Read the kernel backwards along every axis.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be a convolution.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> nn.Conv{n}d(3, 8, 5, stride=2, padding="same")(torch.zeros(2, 3, {nine})).shape
    torch.Size([2, 8, {five}])
    """
_TRANSPOSED = """A transposed {n}-D convolution, a drop-in for ``torch.nn.ConvTranspose{n}d``: the map h (eq. 9.13).

    Values are within the ``tolerance`` of `ninefold.options`, not torch's bit for bit.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode, device, dtype
        As in torch, in torch's order.
    flip_kernel : bool
        Read the kernel backwards along every axis.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be a transposed convolution.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> nn.ConvTranspose{n}d(4, 2, 4, stride=2, padding=1)(torch.zeros(1, 4, {five})).shape
    torch.Size([1, 2, {ten}])
    """


def _text(template: str, n: int) -> str:
    return template.format(n=n, nine=", ".join(["9"] * n), five=", ".join(["5"] * n), ten=", ".join(["10"] * n))


class Conv1d(_Conv, torch.nn.Conv1d):
    __doc__ = _text(_FORWARD, 1)
    _ndim = 1


class Conv2d(_Conv, torch.nn.Conv2d):
    __doc__ = _text(_FORWARD, 2)
    _ndim = 2


class Conv3d(_Conv, torch.nn.Conv3d):
    __doc__ = _text(_FORWARD, 3)
    _ndim = 3


class ConvTranspose1d(_ConvTranspose, torch.nn.ConvTranspose1d):
    __doc__ = _text(_TRANSPOSED, 1)
    _ndim = 1


class ConvTranspose2d(_ConvTranspose, torch.nn.ConvTranspose2d):
    __doc__ = _text(_TRANSPOSED, 2)
    _ndim = 2


class ConvTranspose3d(_ConvTranspose, torch.nn.ConvTranspose3d):
    __doc__ = _text(_TRANSPOSED, 3)
    _ndim = 3
