"""Networks for volumes of electron microscopy: restoration (Jain et al. 2007) and affinity graphs (Turaga et al. 2010)."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ninefold.errors import ArgumentError
from ninefold.spec.parse import integer
from ninefold.structured.networks.parts import check_maps, layer, stack, widths_of

__all__ = ["AffinityNet", "RestorationNet"]


class RestorationNet(nn.Module):
    """A network without pooling from an image to the probability of "inside" at every position (Jain et al., ICCV 2007).

    Five hidden layers of eight maps and 5x5x5 kernels by default: ``(8 + 4 * 64 + 8) * 125 + 41`` = 34,041 parameters. The layout
    is one that gives the published "more than 34,000"; it is not printed in the abstract. The result may be refined by the same
    weights again.

    Parameters
    ----------
    in_channels : int
        Also of the result, which is thus an image of the same kind.
    widths : sequence of int
        Maps of the hidden layers.
    kernel_size : int or tuple of int
    ndim : {1, 2, 3}
    activation : callable
        Makes the module after each hidden layer.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a network.

    Notes
    -----
    Maps keep their size, with zeros outside. One pass sees ``1 + (layers) (k - 1)`` positions per axis: 25.

    Examples
    --------
    >>> import torch
    >>> net = RestorationNet()
    >>> sum(p.numel() for p in net.parameters()), net(torch.zeros(1, 1, 6, 7, 5)).shape
    (34041, torch.Size([1, 1, 6, 7, 5]))
    """

    def __init__(
        self,
        in_channels: int = 1,
        *,
        widths: Sequence[int] = (8,) * 5,
        kernel_size: Any = 5,
        ndim: int = 3,
        activation: Callable[[], nn.Module] = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.in_channels, self.ndim = integer(in_channels, "in_channels", 1), ndim
        self.layers = stack(ndim, (in_channels, *widths_of(widths), in_channels), kernel_size, activation)

    def forward(self, image: Tensor, repeats: int = 1) -> Tensor:
        """Return the logits after so many passes, of the shape of the image."""
        return self.refinements(image, repeats)[-1]

    def refinements(self, image: Tensor, repeats: int) -> tuple[Tensor, ...]:
        """Return the logits of every pass; each but the first reads the probabilities of the one before.

        Raises
        ------
        ArgumentError, ArgumentTypeError, DTypeError, ShapeError
            With the actual numbers.
        """
        check_maps(image, self.ndim, self.in_channels, "the image")
        found: list[Tensor] = []
        for _ in range(integer(repeats, "repeats", 1)):
            found.append(self.layers(found[-1].sigmoid() if found else image))
        return tuple(found)


class AffinityNet(nn.Module):
    """A network from an image to its affinity graph: one map per axis, of edges between neighbours (Turaga et al. 2010).

    1, 6, 6, 6 and 3 maps with 5x5x5 kernels by default: 12,021 parameters and a field of view of 17x17x17. The layout is
    remembered, not read from the paper (*Neural Computation* 22:511-538).

    Parameters
    ----------
    in_channels : int
    widths : sequence of int
        Maps of the hidden layers.
    kernel_size : int or tuple of int
    ndim : {1, 2, 3}
    neighbour : {"previous", "next"}
        Which voxel an edge leads to: map ``a`` at ``v`` is the edge from ``v`` to ``v - e_a``, or to ``v + e_a``. The first, or
        last, position along the axis then has no edge, and its value means nothing.
    padding : {"same", "valid"}
        Whether maps keep their size, or lose the border that the field of view reaches.
    activation : callable
        Makes the module after each hidden layer.

    Attributes
    ----------
    offsets : tuple of tuple of int
        Where the edge of each map leads, one row a map.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a network.

    Examples
    --------
    >>> import torch
    >>> net = AffinityNet(ndim=2)
    >>> net.offsets, net(torch.zeros(1, 1, 20, 19)).shape
    (((-1, 0), (0, -1)), torch.Size([1, 2, 20, 19]))
    """

    def __init__(
        self,
        in_channels: int = 1,
        *,
        widths: Sequence[int] = (6, 6, 6),
        kernel_size: Any = 5,
        ndim: int = 3,
        neighbour: str = "previous",
        padding: str = "same",
        activation: Callable[[], nn.Module] = nn.Tanh,
    ) -> None:
        super().__init__()
        if neighbour not in ("previous", "next"):
            raise ArgumentError(f"neighbour={neighbour!r} must be 'previous' or 'next'")
        if padding not in ("same", "valid"):
            raise ArgumentError(f"padding={padding!r} must be 'same' or 'valid'")
        layer("Conv", ndim)
        self.in_channels, self.ndim, self.neighbour = integer(in_channels, "in_channels", 1), ndim, neighbour
        step = -1 if neighbour == "previous" else 1
        self.offsets = tuple(tuple(step * (a == b) for b in range(ndim)) for a in range(ndim))
        channels = (in_channels, *widths_of(widths), ndim)
        self.layers = stack(ndim, channels, kernel_size, activation, padding if padding == "same" else 0)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of the affinities, ``(batch, ndim, *space)``; their sigmoid is the affinity."""
        check_maps(image, self.ndim, self.in_channels, "the image")
        logits: Tensor = self.layers(image)
        return logits
