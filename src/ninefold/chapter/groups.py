"""Section 5 of the notes, and what it promises: connections between some channels only."""

import torch

from ninefold import functional as F
from ninefold import nn, reference
from ninefold.chapter import drawn
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.given import differing, integers
from ninefold.spec.conv import ConvSpec

__all__ = ["ENTRIES"]


@entry(
    "9.15",
    "A table of channel connections",
    "每个 kernel 仅利用输入的几个 channel",
    claim="Outputs may see only some of the input channels, at a cost in proportion to the connections.",
    source="figure 9.15",
    uses=("ninefold.ConvSpec", "ninefold.functional.conv2d"),
    picture=drawn.channel_table,
)
def channel_table() -> Finding:
    table = ((0, 0), (0, 1), (1, 1), (2, 0), (2, 1), (2, 2), (3, 2))
    V, kernels = integers(1, 3, 5, 6), integers(len(table), 2, 3, seed=1)
    spec, dense = ConvSpec(3, 4, (2, 3), table=table), torch.zeros(4, 3, 2, 3).double()
    for kernel, (o, i) in zip(kernels, table, strict=True):
        dense[o, i] = kernel
    ours = torch.from_numpy(reference.c(spec.form((5, 6)), kernels.numpy(), V.numpy()))
    ratio = spec.macs((5, 6)) / ConvSpec(3, 4, (2, 3)).macs((5, 6))
    return Finding(
        f"{differing(ours, F.conv2d(V, dense))} of {ours.numel()} differ from the masked dense one, at {ratio:.3f} of its cost",
        torch.equal(ours, F.conv2d(V, dense)) and ratio == len(table) / 12,
        {"differ": differing(ours, F.conv2d(V, dense)), "cost": ratio, "edges": len(table)},
    )


@entry(
    "9.5 groups",
    "Grouped convolution",
    "分组卷积 (grouped convolution)",
    claim="Groups of channels that do not see one another: g times fewer weights and operations; AlexNet's conv2 has 307,200 of 614,400.",
    source="section 9.5, figure 9.15; Krizhevsky et al. 2012",
    uses=("ninefold.nn.Conv2d", "ninefold.ConvSpec.parameters"),
)
def grouped() -> Finding:
    V, K = integers(1, 4, 6, 7), integers(6, 2, 2, 3, seed=1)
    apart = torch.cat([F.conv2d(V[:, :2], K[:3]), F.conv2d(V[:, 2:], K[3:])], dim=1)
    half, whole = (ConvSpec(96, 256, 5, padding=2, groups=g).parameters() for g in (2, 1))
    wrong = differing(F.conv2d(V, K, groups=2), apart)
    return Finding(
        f"{wrong} of {apart.numel()} differ from separate convolutions; conv2 {half:,} instead of {whole:,} weights",
        wrong == 0 and (half, whole) == (307_200, 614_400),
        {"differ": wrong, "grouped": half, "dense": whole},
    )


@entry(
    "9.5 shuffle",
    "The channel shuffle",
    "混洗分组卷积 (shuffled grouped convolution)",
    claim="The notes promise shuffled group convolution.",
    correction="They never give it. Out[i g + j] = in[j n + i] for g groups of n; the inverse is the shuffle with n groups.",
    source="Zhang et al. 2017 (ShuffleNet)",
    uses=("ninefold.nn.ChannelShuffle",),
)
def shuffle() -> Finding:
    channels, mix = torch.arange(12)[None, :, None], nn.ChannelShuffle(3)
    order = mix(channels).flatten().tolist()
    return Finding(
        "3 groups of 4: " + " ".join(map(str, order)),
        order == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11] and torch.equal(mix.inverse(12)(mix(channels)), channels),
        {"order": order},
    )


@entry(
    "9.5 shuffled Jacobian",
    "Without shuffling, stacked groups never meet; with it, all do",
    "逐点分组卷积 (pointwise grouped convolution)",
    claim="Two stacked pointwise group convolutions have a block-diagonal Jacobian; a shuffle between them makes it dense.",
    source="Zhang et al. 2017 (ShuffleNet)",
    uses=("ninefold.nn.ChannelShuffle", "ninefold.nn.Conv1d"),
    picture=drawn.shuffled,
)
def shuffled_jacobian() -> Finding:
    one, two = (nn.Conv1d(12, 12, 1, groups=3, bias=False).double() for _ in range(2))

    def zeros(*layers: torch.nn.Module) -> int:
        jacobian = torch.autograd.functional.jacobian(torch.nn.Sequential(*layers), torch.zeros(1, 12, 1).double())
        return int((jacobian == 0).sum())

    apart, mixed = zeros(one, two), zeros(one, nn.ChannelShuffle(3), two)
    return Finding(
        f"{apart} of 144 entries are zero without the shuffle, {mixed} with it",
        apart == 144 - 3 * 16 and mixed == 0,
        {"zero_without": apart, "zero_with": mixed},
    )


ENTRIES = (
    channel_table,
    grouped,
    shuffle,
    shuffled_jacobian,
)
