"""The model behind `ConvRBM`: detectors in blocks of which one is on at most, and images (Lee et al. 2009)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ninefold import functional as F
from ninefold.errors import ArgumentError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Boltzmann", "check_above", "fitting", "measured", "stacked", "trimmed"]


@dataclass
class Boltzmann:
    r"""The energy of images and detectors, and all that follows from it; tensors only, float32 or float64.

    Detectors stand in blocks of `pool` x `pool`; at most one of a block is on, and the block's pooling unit is on if one is
    (probabilistic max pooling, Lee et al. 2009). With ``sigma = 1`` for binary images,

    ``E(v, h) = (e(v) - sum_kij h_kij ((W_k * v)_ij + b_k)) / sigma^2``,

    ``e(v) = -sum c v`` for binary v and ``|v - c|^2 / 2`` for Gaussian v; ``*`` is the valid correlation. So the logit of a
    detector is ``I = ((W * v)_ij + b) / sigma^2``, and with a top-down input t for its pooling unit a block is the softmax over
    ``(I_1 + t, ..., I_n + t, 0)``, the last for "all off".

    Parameters
    ----------
    weight : Tensor
        ``(K, C, h, w)``.
    hidden_bias : Tensor
        ``b``, ``(K,)``.
    visible_bias : Tensor
        ``c``, ``(C,)``.
    pool : int
    gaussian : bool
    sigma : float
        Deviation of Gaussian visibles.

    Examples
    --------
    >>> nothing = Boltzmann(torch.zeros(2, 1, 2, 3), torch.zeros(2), torch.zeros(1), pool=3, gaussian=False)
    >>> detectors, pools = nothing.hidden(torch.ones(1, 1, 4, 5))  # nine detectors and "off", all alike
    >>> detectors.shape, detectors[0, 0, 0, 0], pools
    (torch.Size([1, 2, 3, 3]), tensor(0.1000), tensor([[[[0.9000]],
    <BLANKLINE>
             [[0.9000]]]]))
    """

    weight: Tensor
    hidden_bias: Tensor
    visible_bias: Tensor
    pool: int
    gaussian: bool
    sigma: float = 1.0

    def logits(self, v: Tensor) -> Tensor:
        """Return the bottom-up input of the detectors, ``(B, K, H - h + 1, W - w + 1)``."""
        return F.conv2d(v, self.weight, self.hidden_bias).div_(self.sigma**2)

    def hidden(self, v: Tensor, top_down: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the probabilities of detectors and of pooling units, ``(B, K, H', W')`` and ``(B, K, H'/pool, W'/pool)``.

        `top_down` is added to the logits of a block, for each pooling unit; infinity forces it on, minus infinity off.
        """
        blocks = self._blocks(self.logits(v))
        total = blocks.logsumexp((3, 5))
        pools = torch.sigmoid(total if top_down is None else total + top_down)
        shape = (*total.shape[:3], 1, total.shape[3], 1)
        return (blocks - total.view(shape)).exp_().mul_(pools.view(shape)).flatten(4).flatten(2, 3), pools

    def visible(self, h: Tensor) -> Tensor:
        """Return the expected image of detectors: the adjoint of the correlation, then a sigmoid if binary."""
        mean = F.conv_transpose2d(h, self.weight).add_(self.visible_bias.view(1, -1, 1, 1))
        return mean if self.gaussian else mean.sigmoid_()

    def free_energy(self, v: Tensor) -> Tensor:
        """Return ``F(v) = -log sum_h exp(-E(v, h))`` of each image, ``(B,)``."""
        c = self.visible_bias.view(1, -1, 1, 1)
        own = (v - c).square().sum((1, 2, 3)) / (2 * self.sigma**2) if self.gaussian else -(c * v).sum((1, 2, 3))
        blocks = self._blocks(self.logits(v)).logsumexp((3, 5))
        return own - torch.nn.functional.softplus(blocks).sum((1, 2, 3))

    def ascent(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradient of ``-E(v, h)`` for weight, hidden and visible bias, summed over images.

        With ``h = hidden(v)[0]`` it is the gradient of ``-F(v)``: the positive phase for data, the negative phase for samples.
        """
        own = v - self.visible_bias.view(1, -1, 1, 1) if self.gaussian else v
        found = F.conv2d_weight(v, self.weight.shape, h), h.sum((0, 2, 3)), own.sum((0, 2, 3))
        return tuple(g / self.sigma**2 for g in found)  # type: ignore[return-value]

    def draw_hidden(self, detectors: Tensor, pools: Tensor, generator: torch.Generator) -> Tensor:
        """Draw detectors, 0 or 1, from the probabilities that `hidden` returns."""
        blocks = self._blocks(detectors).movedim(3, 4)
        below = blocks.flatten(4).cumsum(4)
        below[..., -1] = pools  # exactly: a pooling unit that is forced on must never be missed by rounding
        chance = torch.rand(below.shape[:4], generator=generator, dtype=below.dtype, device=below.device)
        drawn = below > chance.unsqueeze(4)
        drawn[..., 1:] ^= drawn[..., :-1].clone()  # the first that is above only; they are monotone
        drawn[..., -1] &= ~drawn[..., :-1].any(4)  # ... but for rounding of the last but one
        return drawn.to(detectors.dtype).view(blocks.shape).movedim(4, 3).reshape(detectors.shape)

    def draw_visible(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        """Draw images of the expectation that `visible` returns."""
        if self.gaussian:
            noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
            return noise.mul_(self.sigma).add_(mean)
        return (torch.rand(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device) < mean).to(mean.dtype)

    def chain(
        self, detectors: Tensor, pools: Tensor, steps: int, generator: torch.Generator, top_down: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run `steps` of Gibbs sampling from the probabilities that `hidden` returned.

        Returns
        -------
        tuple of Tensor
            The expected image of the first detectors, the last image, and the probabilities of its detectors: those of the
            negative phase.
        """
        first = mean = self.visible(self.draw_hidden(detectors, pools, generator))
        for step in range(steps):
            if step:
                mean = self.visible(self.draw_hidden(detectors, pools, generator))
            v = self.draw_visible(mean, generator)
            detectors, pools = self.hidden(v, top_down)
        return first, v, detectors

    def _blocks(self, x: Tensor) -> Tensor:
        """Return ``(B, K, H'/pool, pool, W'/pool, pool)``."""
        return x.unflatten(3, (-1, self.pool)).unflatten(2, (-1, self.pool))


def fitting(size: int, kernel: int, pool: int) -> int:
    """Return the largest size, up to `size`, of which the valid correlation fills whole blocks.

    Examples
    --------
    >>> fitting(10, 4, 3)  # 7 detectors, of which 6 fill two blocks
    9
    """
    blocks = (size - kernel + 1) // pool
    if blocks < 1:
        raise ShapeError(
            f"{size} pixels do not hold one block of {pool} detectors of {kernel} pixels: it takes {kernel + pool - 1}"
        )
    return kernel - 1 + blocks * pool


def trimmed(images: Tensor, kernel: Any, pool: int) -> Tensor:
    """Return the middle of images ``(B, C, H, W)``, of the size that `fitting` says; an odd surplus loses one more at the end.

    Examples
    --------
    >>> trimmed(torch.arange(18.0).view(1, 1, 6, 3), (2, 2), pool=2)[0, 0, :, 0]  # 5 rows of detectors, of which 4 fill blocks
    tensor([ 0.,  3.,  6.,  9., 12.])
    """
    for axis, k in zip((2, 3), kernel, strict=True):
        size = fitting(images.shape[axis], k, pool)
        images = images.narrow(axis, (images.shape[axis] - size) // 2, size)
    return images


def check_above(above: Tensor, done: int, count: int, model: Boltzmann, v: Tensor) -> None:
    """Refuse top-down input of another shape than the pooling units' of these images."""
    units = [(n - k + 1) // model.pool for n, k in zip(v.shape[2:], model.weight.shape[2:], strict=True)]
    wanted = (len(model.weight), *units)
    if tuple(above.shape[1:]) != wanted or len(above) < done + count:
        raise ShapeError(
            f"top_down has shape {tuple(above.shape)}; for {done + count} images it must be {(done + count, *wanted)}"
        )
    if bool(above.isnan().any()):
        raise ArgumentError("top_down holds NaN")


def measured(batches: "Iterable[Tensor]") -> tuple[Tensor, float]:
    """Return the mean of images by channel, and their deviation from it.

    Examples
    --------
    >>> measured([torch.tensor([[[[1.0, 3.0]], [[6.0, 6.0]]]])])
    (tensor([2., 6.]), 0.7071067811865476)
    """
    sums = squares = torch.zeros(0, dtype=torch.float64, device="cpu")
    count = 0
    for batch in batches:
        if count and batch.shape[1] != len(sums):
            raise ShapeError(f"images of {len(sums)} and of {batch.shape[1]} channels are mixed; convert them to one number")
        wide = batch.double()
        first, second = wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3))
        sums, squares = (sums + first, squares + second) if count else (first, second)
        count += batch.numel() // batch.shape[1]
    if not count:
        raise ArgumentError("there are no images to learn from")
    mean = sums / count
    variance = float((squares / count - mean.square()).mean())
    return mean.float(), max(0.0, variance) ** 0.5


def stacked(parts: list[Tensor]) -> "NDArray[np.float32]":
    """Return results of a few images at a time as one array."""
    if not parts:
        raise ArgumentError("there are no images")
    return torch.cat(parts).numpy()
