"""From one template for any number of axes to the functions of 1, 2 and 3: names, docstrings and signatures of their own."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ninefold.ops.traced import overridable

__all__ = ["make"]


def make(template: Callable[..., Any], name: str, ndim: int) -> Any:
    """Return the function of one number of axes; its template's docstring has places to fill.

    Examples
    --------
    >>> def _double(ndim, x):
    ...     "Double {n}-D images ({sizes})."
    ...     return 2 * x
    >>> double = make(_double, "double2d", 2)
    >>> double.__name__, double.__doc__, double(3)
    ('double2d', 'Double 2-D images (height, width).', 6)
    """
    sides = ("depth", "height", "width")[3 - ndim :]

    def each(value: Any) -> str:
        return ", ".join([str(value)] * ndim)

    text = {
        "n": ndim,
        "sizes": ", ".join(sides),
        "kernels": ", ".join(f"kernel_{s}" for s in sides),
        "outs": ", ".join(f"out_{s}" for s in sides),
        "twos": each(2),
        "three": each(3),
        "four": each(4),
        "five": each(5),
        "six": each(6),
        "seven": each(7),
        "eleven": each(11),
        "ones": "1, " * (ndim - 1),
    }
    function: Any = overridable(partial(template, ndim))
    function.__name__ = function.__qualname__ = name
    function.__doc__ = (template.__doc__ or "").format(**text)
    function.__module__ = "ninefold.functional"
    return function
