"""What pixels are compared by: place, place and colour, or any features; how wide, how strong, and for which labels."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ninefold.errors import ArgumentError, ShapeError

__all__ = ["BilateralKernel", "FeatureKernel", "GaussianKernel", "PairwiseKernel", "positions"]

Widths = float | Sequence[float]


def positions(space: Sequence[int], device: torch.device) -> Tensor:
    """Return the places of pixels, ``(N, axes)``, float32, first axis first, in the order of ``flatten``.

    Examples
    --------
    >>> positions((2, 3), torch.device("cpu"))[4]
    tensor([1., 1.])
    """
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in space]
    return torch.stack([grid.flatten() for grid in torch.meshgrid(*axes, indexing="ij")], 1)


class PairwiseKernel(nn.Module, ABC):
    """The parent of kernels: widths, a weight, and how labels go together.

    Parameters
    ----------
    widths : float or sequence of float
        What features are divided by, one for all or one each; positive. Learned as their logarithms.
    weight : float
        Of the kernel's messages.
    compatibility : "potts", or Tensor
        ``"potts"``: a pair of different labels costs the weight. ``(L,)``: a pair of equal labels l gains ``weight *
        compatibility[l]``; ones are Potts. ``(L, L)``: a pixel of label l beside one of label m costs ``weight *
        compatibility[l, m]``.

    Attributes
    ----------
    weight : Parameter
        A number.
    log_widths : Parameter
        ``(1,)``, or one per feature.
    compatibility : Parameter or None
        None for Potts.
    """

    def __init__(self, widths: Widths, weight: float, compatibility: "str | Tensor" = "potts") -> None:
        super().__init__()
        if not math.isfinite(float(weight)):
            raise ArgumentError(f"weight={weight}; it must be a finite number")
        self.log_widths = _logarithms(widths)
        self.weight = nn.Parameter(torch.tensor(float(weight), dtype=torch.float32, device="cpu"))
        self.compatibility: nn.Parameter | None = None
        if isinstance(compatibility, str):
            if compatibility != "potts":
                raise ArgumentError(f"compatibility={compatibility!r}; it must be 'potts', a vector (L,) or a matrix (L, L)")
        else:
            self.compatibility = nn.Parameter(torch.as_tensor(compatibility, dtype=torch.float32, device="cpu").clone())

    @property
    def widths(self) -> Tensor:
        """The widths, ``(1,)`` or one per feature."""
        return self.log_widths.exp()

    def matrix(self, labels: int) -> Tensor:
        """Return energies of pairs of labels, ``(L,)`` for a diagonal matrix or ``(L, L)``."""
        if self.compatibility is None:
            return (-self.weight).expand(labels)
        shape = tuple(self.compatibility.shape)
        if shape not in ((labels,), (labels, labels)):
            raise ShapeError(
                f"compatibility of shape {shape} for {labels} labels; it must be ({labels},) or ({labels}, {labels})"
            )
        return self.weight * (-self.compatibility if len(shape) == 1 else self.compatibility)

    @abstractmethod
    def dims(self, axes: int, channels: int, given: int) -> int:
        """Return how many features a point has, of so many axes, channels of the image, and given features."""

    @abstractmethod
    def features(self, places: Tensor, image: Tensor | None, given: Tensor | None) -> Tensor:
        """Return features ``(N, d)``, divided by widths, of places ``(N, axes)``, an image ``(N, C)`` or given features."""

    def extra_repr(self) -> str:
        """Say the numbers."""
        kind = "potts" if self.compatibility is None else tuple(self.compatibility.shape)
        return f"widths={[round(w, 4) for w in self.widths.tolist()]}, weight={self.weight.item():.4g}, compatibility={kind}"


def _logarithms(widths: Widths) -> nn.Parameter:
    numbers = [float(w) for w in (widths if isinstance(widths, Sequence) else [widths])]
    if not numbers or not all(math.isfinite(w) and w > 0 for w in numbers):
        raise ArgumentError(f"widths are {numbers}; they must be positive numbers")
    return nn.Parameter(torch.tensor(numbers, dtype=torch.float32, device="cpu").log())


def _divided(x: Tensor, widths: Tensor, what: str) -> Tensor:
    if len(widths) not in (1, x.shape[1]):
        raise ShapeError(f"{len(widths)} widths for {x.shape[1]} {what}; give one, or one each")
    return x / widths


class GaussianKernel(PairwiseKernel):
    """``weight exp(-|p_i - p_j|^2 / 2 width^2)``: near pixels have the same label.

    Examples
    --------
    >>> GaussianKernel(3.0, weight=3.0)
    GaussianKernel(widths=[3.0], weight=3, compatibility=potts)
    """

    def __init__(self, width: Widths = 3.0, weight: float = 3.0, compatibility: "str | Tensor" = "potts") -> None:
        super().__init__(width, weight, compatibility)

    def dims(self, axes: int, channels: int, given: int) -> int:  # noqa: ARG002
        """Return the number of axes."""
        return axes

    def features(self, places: Tensor, image: Tensor | None, given: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return places over widths."""
        return _divided(places, self.widths, "axes")


class BilateralKernel(PairwiseKernel):
    """Near pixels of like colour have the same label.

    ``weight exp(-|p_i - p_j|^2 / 2 width^2 - |I_i - I_j|^2 / 2 color_width^2)``.

    Widths of colours are in the units of the image: 3 to 13 for one of 0 to 255. Any number of channels will do.

    Examples
    --------
    >>> BilateralKernel(80.0, 13.0, weight=10.0).color_widths.shape
    torch.Size([1])
    """

    def __init__(
        self, width: Widths = 60.0, color_width: Widths = 10.0, weight: float = 5.0, compatibility: "str | Tensor" = "potts"
    ) -> None:
        super().__init__(width, weight, compatibility)
        self.log_color_widths = _logarithms(color_width)

    @property
    def color_widths(self) -> Tensor:
        """The widths of colours, ``(1,)`` or one per channel."""
        return self.log_color_widths.exp()

    def dims(self, axes: int, channels: int, given: int) -> int:  # noqa: ARG002
        """Return the number of axes and channels."""
        return axes + channels

    def features(self, places: Tensor, image: Tensor | None, given: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return places and colours over widths."""
        if image is None:
            raise ArgumentError("a BilateralKernel compares colours, and no image was given: pass image (N, C, *space)")
        colors = _divided(image, self.color_widths, "channels")
        return torch.cat([_divided(places, self.widths, "axes").to(colors.dtype), colors], 1)

    def extra_repr(self) -> str:
        """Say the numbers."""
        return f"{super().extra_repr()}, color_widths={[round(w, 4) for w in self.color_widths.tolist()]}"


class FeatureKernel(PairwiseKernel):
    """``weight exp(-|f_i - f_j|^2 / 2)`` of any features over widths: the next of those that are given to the layer.

    Examples
    --------
    >>> FeatureKernel([1.0, 2.0]).dims(2, 3, 2)
    2
    """

    def __init__(self, width: Widths = 1.0, weight: float = 1.0, compatibility: "str | Tensor" = "potts") -> None:
        super().__init__(width, weight, compatibility)

    def dims(self, axes: int, channels: int, given: int) -> int:  # noqa: ARG002
        """Return the number of given features."""
        return given

    def features(self, places: Tensor, image: Tensor | None, given: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return given features over widths."""
        if given is None:
            raise ArgumentError("a FeatureKernel compares features, and too few were given: pass features=[(N, d, *space), ...]")
        return _divided(given, self.widths, "features")
