"""Gaussian filters by their definition: the sum over all pairs of points, in chunks."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ninefold.errors import ArgumentError, DTypeError, ShapeError

__all__ = ["ExactFilter", "checked_features", "checked_values", "refuse_no_numbers"]

_PAIRS = 1 << 23  # of a chunk: 32 MiB of float32


class ExactFilter:
    """The kernel ``exp(-|f_i - f_j|^2 / 2)`` of N points, applied in O(N^2): the definition that a lattice approximates.

    Parameters
    ----------
    features : Tensor
        ``(N, d)``, float32 or float64, divided by their widths. Gradients flow into them.

    Examples
    --------
    >>> features = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64, device="cpu")
    >>> ExactFilter(features)(torch.ones(3, 1, dtype=torch.float64, device="cpu"))[:, 0]
    tensor([1.6065, 1.6069, 1.0003], dtype=torch.float64)
    """

    def __init__(self, features: Tensor) -> None:
        self.features = checked_features(features)
        refuse_no_numbers(features)

    def __call__(self, values: Tensor) -> Tensor:
        """Return ``K values``, ``(N, C)``: every point's own value is in its sum, with weight 1.

        Raises
        ------
        ShapeError, DTypeError
            If values are not ``(N, C)``, or of another dtype than the features.
        """
        checked_values(values, self.features)
        rows = max(1, _PAIRS // len(self.features))
        parts = self.features.split(rows)
        if torch.is_grad_enabled() and (values.requires_grad or self.features.requires_grad) and len(parts) > 1:
            return torch.cat([checkpoint(_rows, part, self.features, values, use_reentrant=False) for part in parts])
        return torch.cat([_rows(part, self.features, values) for part in parts])

    def diagonal(self) -> Tensor:
        """Return every point's weight in its own sum, ``(N,)``: ones."""
        return self.features.new_ones(len(self.features))


def _rows(some: Tensor, features: Tensor, values: Tensor) -> Tensor:
    squares = (some[:, None, 0] - features[None, :, 0]).square()
    for k in range(1, features.shape[1]):  # differences, not products: nothing cancels where points are far from 0
        squares = squares + (some[:, None, k] - features[None, :, k]).square()
    return torch.exp(-0.5 * squares) @ values


def checked_features(features: Tensor) -> Tensor:
    """Return features if they are ``(N, d)``, of a dtype that a filter takes."""
    if features.ndim != 2 or 0 in features.shape:
        raise ShapeError(f"features of shape {tuple(features.shape)}; they must be (points, features), at least one of each")
    if features.dtype not in (torch.float32, torch.float64):
        raise DTypeError(f"features are {features.dtype}; they must be float32 or float64")
    return features


def refuse_no_numbers(features: Tensor) -> None:
    """Refuse features that are NaN or infinite."""
    if not bool(torch.isfinite(features.detach()).all()):
        bad = int((~torch.isfinite(features.detach())).sum())
        raise ArgumentError(f"{bad} of {features.numel()} features are NaN or infinite")


def checked_values(values: Tensor, features: Tensor) -> None:
    """Refuse values that are not ``(N, C)`` beside features ``(N, d)``, or of another dtype."""
    if values.ndim != 2 or len(values) != len(features) or not values.shape[1]:
        raise ShapeError(
            f"values of shape {tuple(values.shape)} for {len(features)} points; they must be ({len(features)}, channels)"
        )
    if values.dtype != features.dtype:
        raise DTypeError(f"values are {values.dtype}, features {features.dtype}; they must be the same")
