"""Section 4 of the notes: convolution and pooling as infinitely strong priors; what is exact about it."""

import torch

from ninefold import functional as F
from ninefold import nn
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.given import differing, integers
from ninefold.prior import project, tie_map, to_linear
from ninefold.spec.conv import ConvSpec

__all__ = ["ENTRIES"]


@entry(
    "9.4 dense",
    "A convolution is a dense layer under an infinitely strong prior",
    "卷积网络等价于基于强 prior 的全连接网络",
    claim="Weights equal to those of the neighbour, shifted, and zero outside a small neighbourhood: all else has probability 0.",
    source="section 9.4",
    uses=("ninefold.to_linear", "ninefold.tie_map"),
)
def dense_twin() -> Finding:
    conv, x = nn.Conv2d(2, 3, (3, 2), bias=False).double(), integers(5, 2, 6, 7)
    conv.weight.data = integers(3, 2, 3, 2, seed=1)
    dense = to_linear(conv, (6, 7))
    ties = tie_map(conv, (6, 7))
    free, zero = len(ties[ties >= 0].unique()), int((ties < 0).sum())
    wrong = differing(dense(x.flatten(1)), conv(x).flatten(1))
    return Finding(
        f"{wrong} of {conv(x).numel()} outputs differ; of {ties.numel():,} weights {zero:,} are 0 and {free} may vary",
        wrong == 0 and free == conv.weight.numel(),
        {"differ": wrong, "weights": ties.numel(), "zero": zero, "free": free},
    )


@entry(
    "9.4 gradient",
    "Tied weights collect their gradients",
    "参数共享下的梯度",
    claim="The gradient of a shared weight is the sum of the dense layer's over the entries that share it.",
    source="section 9.4",
    uses=("ninefold.to_linear", "ninefold.tie_map"),
)
def tied_gradient() -> Finding:
    conv, x, up = nn.Conv2d(2, 3, (3, 2), bias=False).double(), integers(5, 2, 6, 7), integers(5, 72, seed=1)
    dense = to_linear(conv, (6, 7))
    (conv(x).flatten(1) * up).sum().backward()
    (dense(x.flatten(1)) * up).sum().backward()
    ties = tie_map(conv, (6, 7))
    summed = torch.zeros(36).double().index_add_(0, ties[ties >= 0], dense.weight.grad[ties >= 0])
    wrong = differing(summed, conv.weight.grad.flatten())
    return Finding(f"{wrong} of {summed.numel()} gradients differ", wrong == 0, {"differ": wrong, "compared": summed.numel()})


@entry(
    "9.4 projection",
    "The nearest convolution",
    "无限强先验即投影",
    claim="Forcing the prior on a dense layer is a projection: the mean over the weights that are tied, zero elsewhere.",
    source="section 9.4",
    uses=("ninefold.project", "ninefold.prior_penalty"),
)
def projection() -> Finding:
    spec, dense = ConvSpec(1, 2, (2,)), integers(8, 5) / 4
    kernel = project(dense, spec, 5)
    again = project(to_linear_of(spec, kernel), spec, 5)
    by_hand = torch.stack([dense.reshape(2, 4, 5).diagonal(m, 1, 2)[:, :4].mean(1) for m in range(2)], dim=1)[:, None]
    gap = float((kernel - by_hand).abs().max())
    return Finding(
        f"differs from the mean of the diagonals by {gap:.0e}; projecting again changes {differing(again, kernel)} of {kernel.numel()}",
        gap < 1e-12 and torch.equal(again, kernel),
        {"gap": gap, "changed": differing(again, kernel)},
    )


def to_linear_of(spec: ConvSpec, kernel: torch.Tensor) -> torch.Tensor:
    """Return the dense weight in which a kernel stands where it is tied to."""
    ties = tie_map(spec, 5)
    return torch.where(ties >= 0, kernel.flatten()[ties.clamp(min=0)], 0.0)


@entry(
    "9.4 permuted",
    "Permuting the pixels",
    "与排列不变的模型不可比",
    claim="A dense network learns as well from images whose pixels are all permuted alike; a convolutional one loses what it assumed.",
    source="section 9.4",
    uses=("ninefold.nn.Conv2d", "ninefold.to_linear"),
)
def permuted_pixels() -> Finding:
    x, y = integers(64, 1, 6, 7) / 4, integers(64, 10, seed=1)[:, :1] / 4
    order = torch.randperm(42, generator=torch.Generator().manual_seed(3))
    mixed = x.flatten(1)[:, order].view_as(x)

    def curve(first: torch.nn.Module, images: torch.Tensor) -> list[float]:
        last = torch.linspace(-1, 1, 90).double()[:, None].requires_grad_()
        optimizer, losses = torch.optim.SGD([*first.parameters(), last], lr=0.05), []
        for _ in range(20):
            loss = (first(images).flatten(1).relu() @ last / 9 - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    def layers() -> tuple[torch.nn.Module, torch.nn.Module]:
        conv = nn.Conv2d(1, 3, (2, 2), bias=False).double()
        conv.weight.data = integers(3, 1, 2, 2, seed=4) / 4
        return conv, torch.nn.Sequential(torch.nn.Flatten(), to_linear(conv, (6, 7)))

    straight, turned = layers()[1], layers()[1]
    turned[1].weight.data = turned[1].weight.data[:, order]
    dense = max(abs(a - b) for a, b in zip(curve(straight, x), curve(turned, mixed), strict=True))
    shared = max(abs(a - b) for a, b in zip(curve(layers()[0], x), curve(layers()[0], mixed), strict=True))
    return Finding(
        f"training curves part by {dense:.0e} (dense, columns permuted alike) and {shared:.2f} (convolution)",
        dense < 1e-9 and shared > 1e-2,
        {"dense": dense, "convolution": shared},
    )


@entry(
    "9.4 average",
    "Pooling is a prior, too: one that no kernel can undo",
    "pooling 的强 prior: 对 small translation 不变",
    claim="Pooling assumes that each unit is invariant to small translations; what moves within a window cannot be told apart.",
    source="section 9.4",
    uses=("ninefold.functional.conv1d",),
)
def pooling_is_a_prior() -> Finding:
    bumps = torch.eye(12)[:, None]
    pooled = torch.nn.functional.max_pool1d(F.conv1d(bumps, torch.ones(1, 1, 1)), 4)
    distinct = len(torch.unique(pooled, dim=0))
    return Finding(
        f"12 positions of one detector give {distinct} pooled patterns: {12 // distinct} positions each that nothing after can separate",
        distinct == 3,
        {"positions": 12, "patterns": distinct},
    )


ENTRIES = (dense_twin, tied_gradient, projection, permuted_pixels, pooling_is_a_prior)
