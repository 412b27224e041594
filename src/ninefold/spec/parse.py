"""The only place where sugar is understood: ``3`` for ``(3, 3)``, ``"same"`` for ``"same_upper"``, pairs for pads."""

import operator
from collections.abc import Iterable, Sequence
from math import isnan
from numbers import Real
from typing import Any

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.spec.padding import MODES, POLICIES

__all__ = [
    "Padding",
    "Pads",
    "boolean",
    "edges",
    "integer",
    "ndim_of",
    "number",
    "padding_mode",
    "paddings",
    "per_axis",
    "periods",
    "shape",
    "size",
    "spatial",
]

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

    Examples
    --------
    >>> integer(7, "stride", 1)
    7
    >>> integer(2.5, "stride")
    Traceback (most recent call last):
    ninefold.errors.ArgumentTypeError: stride must be a whole number, got 2.5 of type float
    """
    if type(value) is not int:
        if hasattr(value, "node"):  # torch.SymInt, which operator.index would specialise
            return value  # type: ignore[no-any-return]
        try:
            whole = None if isinstance(value, bool) else operator.index(value)
        except TypeError:  # arrays and tensors have __index__, too, and may refuse it
            whole = None
        if whole is None:
            raise ArgumentTypeError(f"{name} must be a whole number, got {value!r} of type {type(value).__name__}")
        value = whole
    if minimum is not None and value < minimum:
        raise ArgumentError(f"{name} must be at least {minimum}, got {value}")
    if abs(value) > _LARGEST:
        raise ArgumentError(f"{name}={value} does not fit a 64-bit integer")
    return int(value)


def number(value: Any, name: str) -> float:
    """Return ``value`` as a float, which may be infinite.

    Raises
    ------
    ArgumentTypeError
        If it is no real number (a bool is none).
    ArgumentError
        If it is not a number, or larger than floats are.

    Examples
    --------
    >>> number(3, "r")
    3.0
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentTypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    try:
        found = float(value)
    except OverflowError:
        raise ArgumentError(f"{name} must be a number that a float can hold, got {value}") from None
    if isnan(found):
        raise ArgumentError(f"{name} must be a number, got nan")
    return found


def boolean(value: Any, name: str) -> bool:
    """Return ``value`` if it is True or False; what else is true in an ``if`` may have been meant for another argument.

    Examples
    --------
    >>> boolean("no", "flip_kernel")
    Traceback (most recent call last):
    ninefold.errors.ArgumentTypeError: flip_kernel must be True or False, got 'no' of type str
    """
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"{name} must be True or False, got {value!r} of type {type(value).__name__}")
    return value


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
    lengths = [len(v) for v in values if _is_sequence(v)]
    ndim = lengths[0] if lengths else 2
    if ndim == 0:
        raise ArgumentError("a convolution needs at least 1 spatial axis, got (); give one number per axis, such as (3,)")
    return ndim


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
            raise ArgumentError(
                f"padding={value!r} must hold one (before, after) pair for each of {ndim} spatial axes, "
                f"such as {((0, 1),) * ndim}"
            )
        return tuple((integer(a, "padding"), integer(b, "padding")) for a, b in value)
    return tuple((p, p) for p in per_axis(value, ndim, "padding"))


def padding_mode(value: Any) -> str:
    """Return the name of a padding mode, or say which there are.

    Examples
    --------
    >>> padding_mode("reflect")
    'reflect'
    """
    if not isinstance(value, str) or value not in MODES:
        raise ArgumentError(f"padding_mode={value!r} is not one of {list(MODES)}")
    return value


def periods(value: Any, ndim: int) -> tuple[int | None, ...]:
    """Return a period per axis; None is a kernel of its own at every output position.

    Examples
    --------
    >>> periods(2, 2), periods((3, None), 2), periods(None, 1)
    ((2, 2), (3, None), (None,))
    """
    if value is None:
        return (None,) * ndim
    if not _is_sequence(value):
        return per_axis(value, ndim, "period", 1)
    if len(value) != ndim:
        raise ArgumentError(f"period must be one number or {ndim} (one per spatial axis), got {tuple(value)!r}")
    return tuple(None if v is None else integer(v, f"period[{k}]", 1) for k, v in enumerate(value))


def edges(value: Any) -> tuple[tuple[int, int], ...]:
    """Return the edges of a channel table as pairs of whole numbers.

    Examples
    --------
    >>> edges([[0, 1], (2, 0)])
    ((0, 1), (2, 0))
    """
    if not _iterable(value):
        raise ArgumentTypeError(f"table must be a sequence of pairs (output, input), got {value!r}")
    out = []
    for k, edge in enumerate(value):
        if not _is_sequence(edge) or len(edge) != 2:
            raise ArgumentTypeError(f"table[{k}] must be a pair (output, input), got {edge!r}")
        out.append((integer(edge[0], f"table[{k}][0]"), integer(edge[1], f"table[{k}][1]")))
    return tuple(out)


def size(value: Any, ndim: int, name: str) -> tuple[int, ...]:
    """Return a spatial size: one whole number, 0 or more, per axis; a sequence is never stretched.

    Examples
    --------
    >>> size((7, 9), 2, "input_size"), size(7, 2, "input_size")
    ((7, 9), (7, 7))
    """
    if _iterable(value) and not isinstance(value, Sequence):
        value = tuple(value)
    if _is_sequence(value) and len(value) != ndim:
        raise ShapeError(f"{name} must hold {ndim} spatial sizes, one per axis, got {len(value)}: {tuple(value)!r}")
    return per_axis(value, ndim, name, 0)


def shape(value: Any, name: str) -> tuple[Any, ...]:
    """Return a whole shape, unchecked but for being one.

    Examples
    --------
    >>> shape([1, 3, 7], "input_size")
    (1, 3, 7)
    """
    if not _is_sequence(value):
        raise ArgumentTypeError(f"{name} must be a whole shape, a number per dimension, got {value!r}")
    return tuple(value)


def spatial(value: Any, ndim: int) -> Any:
    """Return an output's spatial size from one, or from a whole shape.

    Examples
    --------
    >>> spatial((1, 3, 7, 9), 2), spatial(7, 2)
    ((7, 9), 7)
    """
    if not _is_sequence(value):
        return integer(value, "output_size", 0)
    whole = tuple(integer(n, f"output_size[{k}]", 0) for k, n in enumerate(value))
    return whole[-ndim:] if len(whole) in (ndim + 1, ndim + 2) else whole


def _iterable(value: Any) -> bool:
    """Whether there is something to iterate over; a tensor of no dimensions has an iterator, which refuses."""
    return isinstance(value, Iterable) and getattr(value, "ndim", None) != 0


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
