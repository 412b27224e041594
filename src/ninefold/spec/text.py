"""A convolution described in one line of text, as the command line takes it."""

import re
from typing import Any

from ninefold.errors import ArgumentError
from ninefold.spec.conv import ConvSpec

__all__ = ["from_description", "shape_from_text"]

_KEYS = {
    "k": "kernel_size",
    "s": "stride",
    "p": "padding",
    "d": "dilation",
    "g": "groups",
    "mode": "padding_mode",
    "period": "period",
}
_HELP = "write it like '1x128x56x56 -> 128 k=31 p=15 g=128' (also s=, d=, mode=, period=, flip)"


def shape_from_text(text: str) -> tuple[int, ...]:
    """Return the sizes in ``"1x3x224x224"``.

    Raises
    ------
    ArgumentError
        If it is anything else.

    Examples
    --------
    >>> shape_from_text("1x3x224x224")
    (1, 3, 224, 224)
    """
    if not re.fullmatch(r"\d+([x,]\d+)*", text.strip()):
        raise ArgumentError(f"{text!r} is no shape; write sizes with x between them, like 1x3x224x224")
    return tuple(int(n) for n in re.split("[x,]", text.strip()))


def from_description(text: str) -> tuple[ConvSpec, int, tuple[int, ...]]:
    """Return (spec, batch, spatial input size) of a line such as ``"4x256x2048 -> 256 k=1024 g=256"``.

    Parameters
    ----------
    text : str
        The input's shape with its batch, an arrow, the output channels, then ``k=`` kernel, ``s=`` stride,
        ``p=`` padding (a number or a policy), ``d=`` dilation, ``g=`` groups, ``mode=`` padding mode,
        ``period=`` (``none`` for unshared), ``flip``.

    Raises
    ------
    ArgumentError
        With what is missing or not understood.

    Examples
    --------
    >>> spec, batch, size = from_description("4x256x2048 -> 256 k=1024 g=256")
    >>> spec.kernel_size, batch, size
    ((1024,), 4, (2048,))
    """
    head, arrow, rest = text.partition("->")
    words = rest.split()
    if not arrow or not words or not words[0].isdigit():
        raise ArgumentError(f"{text!r} describes no convolution; {_HELP}")
    shape = shape_from_text(head)
    if len(shape) < 3:
        raise ArgumentError(f"the input {head.strip()!r} must have a batch, channels and at least one spatial size; {_HELP}")
    ndim = len(shape) - 2
    fields: dict[str, Any] = {"flip_kernel": "flip" in words}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if word == "flip":
            continue
        if not equals or key not in _KEYS:
            raise ArgumentError(f"{word!r} is not understood in {text!r}; {_HELP}")
        fields[_KEYS[key]] = _value(value, ndim)
    if "kernel_size" not in fields:
        raise ArgumentError(f"{text!r} names no kernel; {_HELP}")
    kernel = fields.pop("kernel_size")
    kernel = (kernel,) * ndim if isinstance(kernel, int) else kernel
    return ConvSpec(shape[1], int(words[0]), kernel, **fields), shape[0], shape[2:]


def _value(text: str, ndim: int) -> Any:
    if text == "none":
        return None
    if not text[:1].isdigit():
        return text
    numbers = shape_from_text(text)
    return numbers[0] if len(numbers) == 1 else numbers if ndim > 1 else numbers[:1]
