"""Gaussian filters on the permutohedral lattice (Adams, Baek and Davis 2010), and their gradients.

A point's features lie in a simplex of the lattice A*_d. Its value is spread over the simplex's d + 1 vertices (S'), vertices
are blurred
by (1/2, 1, 1/2) along each axis in turn (B), and the point reads its vertices (S): ``K = scale S B S'``. Vertices that no point
touches are not there. The axes' blurs do not commute where vertices are missing: K' has them in reversed order.

The gradient by features is that of the kernel ``exp(-|f_i - f_j|^2 / 2)``, its sums taken by the lattice (Kraehenbuehl and
Koltun 2013):
for the loss's gradient g by ``K a``,

    dL/df_i = sum_j K_ij (g_i . a_j + a_i . g_j) (f_j - f_i).
"""

from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from ninefold.engines.native import address, extension_module, instruction_set
from ninefold.errors import ArgumentError, DeviceError, DTypeError, NoEngineError, ShapeError
from ninefold.structured.crf.exact import checked_features, checked_values, refuse_no_numbers
from ninefold.structured.room import RoomError

__all__ = ["Blur", "LatticeFilter", "blur_named", "lattice_missing"]

Blur = Literal["one", "both"]
_MOST = 2**31 - 2
_CHANNELS = 24  # of products of features and values that are filtered at once


def blur_named(name: str) -> Blur:
    """Return the order of the axes' blurs of this name."""
    if name not in get_args(Blur):
        raise ArgumentError(f"blur={name!r}; it must be one of {', '.join(get_args(Blur))}")
    return cast("Blur", name)


def lattice_missing() -> str | None:
    """Return why there is no lattice here, or None."""
    if instruction_set() is None:
        return "the lattice is native code, and ninefold was built without its extension: use a C++20 compiler, or engine='exact'"
    return None


class LatticeFilter:
    """The kernel ``exp(-|f_i - f_j|^2 / 2)`` of N points, approximated in O(N d): `ExactFilter` on a lattice.

    It is built once, and serves any values. A point's own value is in its sum, with a weight near 1 (`diagonal`).

    Parameters
    ----------
    features : Tensor
        ``(N, d)``, float32 on the CPU, d up to 12, divided by their widths. Gradients flow into them.
    most_vertices : int
        Building stops when more are needed.
    blur : "one" or "both"
        ``"both"`` takes the mean of the filters whose axes are blurred first to last and last to first: symmetric.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        If features are not ``(N, d)``, float32 and finite, or lie farther out than their places in a simplex can be computed.
    NoEngineError
        If there is no native extension.
    RoomError
        If more than `most_vertices` are needed.

    Notes
    -----
    Relative L2 error of one message of standard normal values against the sum over all pairs, a 48x48 photograph: spatial width
    1, 3, 10: .10, .10, .12; with colour (80, 13) .30, (20, 13) .21, (10, 5) .24, (3, 5) .28; normalised symmetrically
    .10, .10, .12, .12, .23, .28, .25, up to .05 more or less by what is drawn.

    Blurred in both orders the normalised ones fall in every draw but a few of places alone: by .002 to .004 there, with colour
    .165 to .127, .249 to .224, .297 to .277, .261 to .242 (means of 8 draws).

    Results are the same from run to run with as many threads; another number of threads adds in another order.

    Examples
    --------
    >>> from ninefold.structured.crf.exact import ExactFilter
    >>> y, x = torch.meshgrid(torch.arange(20.0, device="cpu"), torch.arange(30.0, device="cpu"), indexing="ij")
    >>> features = torch.stack([y.flatten() / 3, x.flatten() / 3], 1)
    >>> ones = torch.ones(600, 1, dtype=torch.float32, device="cpu")
    >>> gap = LatticeFilter(features)(ones) - ExactFilter(features)(ones)
    >>> bool(gap.norm() < 0.02 * ExactFilter(features)(ones).norm())
    True
    """

    def __init__(self, features: Tensor, most_vertices: int = _MOST, blur: Blur = "one") -> None:
        self.blur = blur_named(blur)
        if missing := lattice_missing():
            raise NoEngineError(missing)
        checked_features(features)
        self.features = (
            features if features.requires_grad else features.new_empty(len(features), 0)
        )  # a lattice has all else that it needs
        if features.dtype != torch.float32:
            raise DTypeError(f"features are {features.dtype}; the lattice takes float32")
        module, dims = extension_module(), features.shape[1]
        if dims > module.LATTICE_FEATURES:
            raise ShapeError(f"{dims} features per point; the lattice takes up to {module.LATTICE_FEATURES}: use engine='exact'")
        if not features.is_cpu:
            raise DeviceError(
                f"the lattice runs on the CPU, features are on {features.device}: call .cpu(), or use engine='exact'"
            )
        rows = features.detach().contiguous()
        most = min(most_vertices, _MOST)
        try:
            self.native: Any = module.Lattice(instruction_set(), address(rows), *rows.shape, most, torch.get_num_threads())
        except ValueError as error:
            if "vertices" not in str(error):
                raise
            raise RoomError(
                f"the lattice of {len(rows)} points with {dims} features needs more than {most} vertices, "
                "all that memory has room for; use larger widths or fewer pixels, or set memory_limit"
            ) from error
        except IndexError as error:
            refuse_no_numbers(features)
            raise ArgumentError(
                f"features reach {float(rows.abs().max()):.3g} widths from 0, farther than a lattice can tell places apart; "
                "use larger widths, or subtract the mean"
            ) from error

    @property
    def vertices(self) -> int:
        """How many vertices points touch."""
        return int(self.native.vertices)

    def __call__(self, values: Tensor) -> Tensor:
        """Return ``K values``, ``(N, C)``, float32; gradients flow into values and features."""
        checked_values(values, self.features)
        return _Filter.apply(values, self.features, self)  # type: ignore[no-any-return]

    def apply(self, values: Tensor, transposed: bool = False) -> Tensor:
        """Return ``K values`` or ``K' values``, without a gradient."""
        values = values.detach().resolve_neg().contiguous()
        out = torch.empty_like(values)
        order = 2 if self.blur == "both" else int(transposed)
        self.native.filter(address(values), address(out), values.shape[1], order, torch.get_num_threads())
        return out

    def diagonal(self) -> Tensor:
        """Return every point's weight in its own sum, ``(N,)``: near 1, as blur and vertices make it."""
        out = torch.empty(len(self.features), dtype=torch.float32, device="cpu")
        self.native.diagonal(address(out), torch.get_num_threads())
        return out


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, features: Tensor, lattice: LatticeFilter) -> Tensor:
        out = lattice.apply(values)
        ctx.lattice = lattice
        ctx.save_for_backward(values, features, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        values, features, out = ctx.saved_tensors
        back = ctx.lattice.apply(grad, transposed=True)
        by_features = _by_features(ctx.lattice, features, values, out, grad, back) if ctx.needs_input_grad[1] else None
        return back, by_features, None


def _by_features(lattice: LatticeFilter, features: Tensor, values: Tensor, out: Tensor, grad: Tensor, back: Tensor) -> Tensor:
    centred = features - features.mean(0)  # what is multiplied and subtracted again stays small
    total = -((grad * out).sum(1) + (values * back).sum(1))[:, None] * centred
    for one in range(features.shape[1]):
        f = centred[:, one, None]
        for k in range(0, values.shape[1], _CHANNELS):
            some = slice(k, k + _CHANNELS)
            total[:, one] += (grad[:, some] * lattice.apply(f * values[:, some])).sum(1)
            total[:, one] += (values[:, some] * lattice.apply(f * grad[:, some], transposed=True)).sum(1)
    return total
