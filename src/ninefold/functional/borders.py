"""A border by every mode and by everybody's names for them, around any number of axes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.functional.sliding import exactly
from ninefold.ops.checks import check_tensor
from ninefold.ops.layout import channels_last
from ninefold.ops.traced import overridable
from ninefold.spec.axis import Axis
from ninefold.spec.parse import integer
from ninefold.tensors.border import extended_along
from ninefold.tensors.layout import in_format

__all__ = ["pad"]

_NAMES = {
    "zeros": ("constant", "zeros", "grid-constant"),
    "reflect": ("reflect", "mirror"),
    "symmetric": ("symmetric", "grid-mirror"),
    "replicate": ("replicate", "edge", "nearest"),
    "circular": ("circular", "wrap", "grid-wrap"),
}
_MODES = {name: mode for mode, names in _NAMES.items() for name in names}
_REACH = {"reflect": -1, "circular": 0, "replicate": 2**62}  # past the size, what torch's own kernels continue


@overridable
def pad(
    input: Tensor,  # noqa: A002  torch's name
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Tensor:
    """Write a border around the last axes: torch's ``pad``, for every mode, width, dtype and number of axes.

    Parameters
    ----------
    input : Tensor
        Of any shape.
    pad : sequence of int
        ``(before, after)`` of the last axis, then of the one before it, and so on; negative ones crop.
    mode : str
        What stands there, by the names of torch, NumPy or SciPy; ``"reflect"`` and ``"wrap"`` are NumPy's:

        =============  ===================================  ==================
        here           also                                 a b c, continued
        =============  ===================================  ==================
        ``constant``   ``zeros``, ``grid-constant``         0 0 | a b c | 0 0
        ``reflect``    ``mirror``                           c b | a b c | b a
        ``symmetric``  ``grid-mirror``                      b a | a b c | c b
        ``replicate``  ``edge``, ``nearest``                a a | a b c | c c
        ``circular``   ``wrap``, ``grid-wrap``              b c | a b c | a b
        =============  ===================================  ==================

        A border wider than the input goes on in the same way. With ``"circular"`` what is cropped is gone before the ends meet,
        as in torch; the others continue the whole input.
    value : float, optional
        What is written in ``"constant"``: 0 by default.

    Returns
    -------
    Tensor
        Never the input itself; in its memory format.

    Raises
    ------
    ShapeError, ArgumentError, ArgumentTypeError
        With the actual numbers and the repair.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> x = torch.tensor([1, 2, 3])
    >>> F.pad(x, (2, 1), "symmetric"), F.pad(x, (5, 0), "reflect")
    (tensor([2, 1, 1, 2, 3, 3]), tensor([2, 1, 2, 3, 2, 1, 2, 3]))
    """
    check_tensor(input)
    if not isinstance(mode, str) or mode not in _MODES:
        raise ArgumentError(f"mode={mode!r} is not one of {list(_MODES)}")
    pairs = _pairs(input, pad)
    flat = [width for pair in pairs for width in pair]
    kind = _MODES[mode]
    if kind == "zeros":
        return torch.constant_pad_nd(input, flat, 0 if value is None else value)
    if value is not None and value != 0:
        raise ArgumentError(f"value={value} is written by mode='constant' only, not by {mode!r}")
    crops = [min(width, 0) for width in flat]
    if kind == "circular" and any(crops):
        cut, rest = torch.constant_pad_nd(input, crops), [max(width, 0) for width in flat]
        return _again(cut, rest, mode) if any(rest) else cut
    if all(width <= 0 for width in flat):
        return torch.constant_pad_nd(input, flat)
    known = _has_kernel(input, pairs, kind)
    padded = torch.nn.functional.pad(input, flat, kind) if known else _continued(input, pairs, kind)
    return in_format(padded, channels_last(input))


def _pairs(x: Tensor, pad: Any) -> list[tuple[int, int]]:
    """Return ``(before, after)`` per axis, the last axis first, checked."""
    if not isinstance(pad, Sequence) or isinstance(pad, str):
        raise ArgumentTypeError(f"pad must be a sequence of whole numbers, two for an axis, the last axis first, got {pad!r}")
    widths = [integer(width, f"pad[{k}]") for k, width in enumerate(pad)]
    if len(widths) % 2 or len(widths) > 2 * x.ndim:
        raise ArgumentError(
            f"pad={tuple(pad)} holds {len(widths)} numbers; it must hold two for each of at most {x.ndim} axes, the last first"
        )
    pairs = list(zip(widths[::2], widths[1::2], strict=True))
    for dim, (lo, hi) in enumerate(pairs, 1):
        if x.shape[-dim] + lo + hi < 0:
            raise ShapeError(f"pad=({lo}, {hi}) crops more than the {x.shape[-dim]} positions of axis {x.ndim - dim}")
    return pairs


def _has_kernel(x: Tensor, pairs: list[tuple[int, int]], mode: str) -> bool:
    """Whether torch's own function does it: of the last one to three axes, of floating-point numbers, no wider than the input."""
    reach = _REACH.get(mode)
    trailing = len(pairs) <= 3 and x.ndim in (len(pairs) + 1, len(pairs) + 2)
    if reach is None or not trailing or exactly(x) or not (x.is_floating_point() or x.is_complex()) or not x.numel():
        return False
    return all(0 <= width <= x.shape[-dim] + reach for dim, pair in enumerate(pairs, 1) for width in pair)


def _continued(x: Tensor, pairs: list[tuple[int, int]], mode: str) -> Tensor:
    """Go axis by axis, taking what stands outside by its index."""
    for back, (lo, hi) in enumerate(pairs, 1):
        dim, n = x.ndim - back, x.shape[-back]
        x = extended_along(x, dim, Axis(1, 1, 1, lo, n, n + lo + hi, mode=mode))
    return x


_again = pad  # under a name that no argument hides
pad.__module__ = "ninefold.functional"
__test__ = {name: globals()[name].__doc__ for name in __all__}
"""The examples, for doctest, which does not look behind decorators."""
