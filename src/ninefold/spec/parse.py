"""The only place where sugar is understood: ``3`` for ``(3, 3)``, ``"same"`` for ``"same_upper"``, pairs for pads."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.spec.padding import MODES, POLICIES

__all__ = ["Padding", "Pads", "integer", "ndim_of", "padding_mode", "paddings", "per_axis", "periods", "size"]

Pads = tuple[tuple[int, int], ...]
Padding = str | Pads

_SUGAR = {"same": "same_upper"}
_LARGEST = 2**63 - 1


def integer(value: Any, name: str, minimum: int | None = None) -> int:
    """Return ``value`` as an int of at least ``minimum``; symbolic sizes pass through.

    Raises
    ------
    ArgumentTypeError
        If it is no whole number (a bool is none).
    ArgumentError
        If it is below ``minimum`` or does not fit 64 bits.
    """
    if type(value) is not int:
        if hasattr(value, "node"):  # torch.SymInt, which operator.index would specialise
            return value  # type: ignore[no-any-return]
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise ArgumentTypeError(f"{name} must be a whole number, got {value!r} of type {type(value).__name__}")
        value = operator.index(value)
    if minimum is not None and value < minimum:
        raise ArgumentError(f"{name} must be at least {minimum}, got {value}")
    if abs(value) > _LARGEST:
        raise ArgumentError(f"{name}={value} does not fit a 64-bit integer")
    return int(value)


def per_axis(value: Any, ndim: int, name: str, minimum: int | None = None) -> tuple[int, ...]:
    """Return one whole number per spatial axis; a single one stands for all of them.

    Examples
    --------
    >>> per_axis(3, 2, "kernel_size")
    (3, 3)
    """
    if not _is_sequence(value):
        return (integer(value, name, minimum),) * ndim
    if len(value) == 1 != ndim:
        value = tuple(value) * ndim
    if len(value) != ndim:
        raise ArgumentError(f"{name} must be one number or {ndim} (one per spatial axis), got {tuple(value)!r}")
    return tuple(integer(v, f"{name}[{k}]", minimum) for k, v in enumerate(value))


def ndim_of(*values: Any) -> int:
    """Return the number of spatial axes that the first sequence among ``values`` names; 2 if there is none.

    Examples
    --------
    >>> ndim_of(3, 1), ndim_of(3, (1, 1, 2))
    (2, 3)
    """
    return next((len(v) for v in values if _is_sequence(v)), 2)


def paddings(value: Any, ndim: int) -> Padding:
    """Return a policy's name, or a pair ``(before, after)`` per axis.

    Examples
    --------
    >>> paddings((1, 2), 2)
    ((1, 1), (2, 2))
    >>> paddings(((0, 1), (2, 3)), 2), paddings("same", 2)
    (((0, 1), (2, 3)), 'same_upper')
    """
    if isinstance(value, str):
        name = _SUGAR.get(value, value)
        if name not in POLICIES:
            raise ArgumentError(f"padding={value!r} is not one of {[*_SUGAR, *POLICIES]}; pads are numbers or pairs")
        return name
    if _is_sequence(value) and any(_is_sequence(v) for v in value):
        if len(value) != ndim or not all(_is_sequence(v) and len(v) == 2 for v in value):
            raise ArgumentError(f"padding={value!r} must hold one (before, after) pair for each of {ndim} spatial axes")
        return tuple((integer(a, "padding"), integer(b, "padding")) for a, b in value)
    return tuple((p, p) for p in per_axis(value, ndim, "padding"))


def padding_mode(value: Any) -> str:
    """Return the name of a padding mode, or say which there are."""
    if value not in MODES:
        raise ArgumentError(f"padding_mode={value!r} is not one of {list(MODES)}")
    return str(value)


def periods(value: Any, ndim: int) -> tuple[int | None, ...]:
    """Return a period per axis; None is a kernel of its own at every output position."""
    if value is None:
        return (None,) * ndim
    if not _is_sequence(value):
        return per_axis(value, ndim, "period", 1)
    if len(value) != ndim:
        raise ArgumentError(f"period must be one number or {ndim} (one per spatial axis), got {tuple(value)!r}")
    return tuple(None if v is None else integer(v, "period", 1) for v in value)


def size(value: Any, ndim: int, name: str) -> tuple[int, ...]:
    """Return a spatial size: one whole number, 0 or more, per axis."""
    if isinstance(value, Iterable) and not isinstance(value, Sequence):
        value = tuple(value)
    return per_axis(value, ndim, name, 0)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
