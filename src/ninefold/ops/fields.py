"""From arguments as they are given to a remembered spec, and to the text of one while a compiler traces."""

from dataclasses import dataclass
from functools import lru_cache
from operator import index
from typing import Any

import torch
from torch import Tensor

from ninefold.ops.state import constant
from ninefold.planning.cache import plan_cache
from ninefold.settings import Options
from ninefold.spec.conv import ConvSpec

__all__ = ["call_traced", "spec_of", "text_of"]

_NAMES = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
    "flip_kernel",
    "period",
    "transposed",
    "output_padding",
    "table",
)


@dataclass(frozen=True, slots=True)
class _Typed:
    """``True`` or ``2.0``, which equal whole numbers and are none: a remembered spec must not answer for them."""

    kind: type
    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class _Other:
    """What is no number: equal to nothing, so that it is looked at, and refused, each time."""

    value: Any


def spec_of(fields: tuple[Any, ...]) -> ConvSpec:
    """Return the spec of its fields, in the order of `ConvSpec` without bias, a table, if any, last; remembered.

    Examples
    --------
    >>> spec_of((3, 4, (2, 5), 1, "same", [1, 2], 1, "zeros", False, 1, False, 0)).dilation
    (1, 2)
    """
    return _remembered(*map(hashable, fields))


@lru_cache(maxsize=4096, typed=True)
def _remembered(*fields: Any) -> ConvSpec:
    return ConvSpec(**dict(zip(_NAMES, map(bare, fields), strict=False)))  # most have no table


def hashable(value: Any) -> Any:
    """Return an argument as something to remember by; `bare` gives the argument back."""
    if value is None or isinstance(value, (int, str, float)):
        return value
    return tuple(map(_nested, value)) if isinstance(value, (list, tuple)) else _settled_now(value)


def _nested(value: Any) -> Any:
    if type(value) is int:
        return value
    return _Typed(type(value), value) if isinstance(value, (bool, float)) else hashable(value)


def _settled_now(value: Any) -> Any:
    """Return the number that a tensor or an array holds now, for it may hold another at the next call."""
    if hasattr(value, "node"):  # torch.SymInt
        return value
    try:
        return index(value)
    except TypeError:
        return _Other(value)


def bare(value: Any) -> Any:
    """Return the argument that `hashable` took."""
    if isinstance(value, tuple):
        return tuple(map(bare, value))
    return value.value if isinstance(value, (_Typed, _Other)) else value


def call_traced(
    x: Tensor, weight: Tensor, bias: Tensor | None, size: Any, fields: tuple[Any, ...], options: Options | None = None
) -> Tensor:
    """Call a layer while a compiler traces: one operator, whatever the engine.

    Its text ends with a stamp of the plans as they are, by which compilers tell apart what they keep on disk.
    """
    batched = x.ndim != len(fields[2]) + 1
    fixed = "" if options is None else _line(*_values(options))
    text = "\n".join((text_of(fields), fixed, _stamp()))
    out: Tensor = torch.ops.ninefold.conv(x if batched else x.unsqueeze(0), weight, bias, text, size)
    return out if batched else out.squeeze(0)


def _values(options: Options) -> tuple[Any, ...]:
    return options.mode, options.tolerance, options.max_scratch, options.deterministic, options.check_finite


@constant
def _line(*values: Any) -> str:
    return Options(*values).to_text()


@constant
def _stamp() -> str:
    return plan_cache().stamp()


def text_of(fields: tuple[Any, ...]) -> str:
    """Return the text of a spec while a compiler traces; symbolic numbers are settled, for they are part of the text."""
    return _text(_settled(fields))


def _settled(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_settled(v) for v in value)
    return index(value) if isinstance(value, int) and not isinstance(value, bool) else value


@constant
def _text(fields: tuple[Any, ...]) -> str:
    return spec_of(fields).to_text()
