"""The pictures of the quick entries, drawn from the layers they are about."""

from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from torch import nn as torch_nn

from ninefold import drawing, nn, pooling_theory
from ninefold import functional as F
from ninefold.models import figure_9_11
from ninefold.spec.conv import ConvSpec
from ninefold.spec.pool import PoolSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "best_pooling",
    "channel_table",
    "checkerboard",
    "convolution_and_correlation",
    "deeper",
    "depthwise",
    "dilated",
    "gridding",
    "networks_of_any_size",
    "pointwise",
    "pooling_windows",
    "shuffled",
    "sparse",
    "toeplitz",
    "who_shares",
]


def convolution_and_correlation() -> Figure:
    """Draw a box and a ramp, convolved and correlated."""
    box, ramp = torch.zeros(40), torch.zeros(40)
    box[10:25], ramp[10:25] = 1, torch.linspace(1, 0, 15)
    figure = Figure(figsize=(7, 2.2), layout="constrained")
    for ax, (title, flip) in zip(figure.subplots(1, 2), {"convolution": True, "cross-correlation": False}.items(), strict=True):
        found = F.conv1d(box[None, None], ramp[None, None, 10:25], padding="full", flip_kernel=flip).flatten()[7:47] / 15
        lines = {
            name: (range(40), (line + up).tolist())
            for name, line, up in (("f", box, 2.4), ("g", ramp, 1.2), ("f and g", found, 0))
        }
        drawing.curves(lines, across="position", up="", title=title, ax=ax)
        ax.set_yticks([])
    return figure


def toeplitz() -> Figure:
    """Draw a matrix with its shared weights coloured alike, linear and circular, in one dimension and in two."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    one, two = figure.subplots(1, 2)
    drawing.matrix(ConvSpec(1, 1, (4,)), 12, title="Toeplitz", ax=one)
    drawing.matrix(ConvSpec(1, 1, (2, 2)), (4, 5), title="doubly block Toeplitz", ax=two)
    return figure


def sparse() -> Figure:
    """Draw what one input feeds, and what one output sees."""
    figure = Figure(figsize=(7, 1.8), layout="constrained")
    ones, seen = figure.subplots(1, 2)
    drawing.connectivity(ConvSpec(1, 1, (3,), padding=1), 7, feeds=3, title="an input feeds three outputs", border=False, ax=ones)
    drawing.connectivity(ConvSpec(1, 1, (3,), padding=1), 7, reads=3, title="an output sees three inputs", border=False, ax=seen)
    return figure


def deeper() -> Figure:
    """Draw what a unit sees through three layers."""
    return drawing.receptive_field([ConvSpec(1, 1, (3,), padding=1)] * 3, 11)


def pooling_windows() -> Figure:
    """Draw the windows of figure 9.10."""
    return drawing.pooling_regions(PoolSpec((3,), stride=2, ceil_mode=True), 6, values=[0.1, 1.0, 0.2, 0.1, 0.0, 0.1])


def best_pooling() -> Figure:
    """Draw how far apart two classes lie, and how sharply, over the cardinality."""
    figure, counts = Figure(figsize=(7, 2.6), layout="constrained"), list(range(1, 101))
    apart, sharp = figure.subplots(1, 2)
    pairs = {"0.05 and 0.02": (0.05, 0.02), "0.4 and 0.2": (0.4, 0.2)}
    gaps = {name: (counts, [pooling_theory.separation(*pair, n) for n in counts]) for name, pair in pairs.items()}
    drawing.curves(gaps, across="pooled together", up="distance of the means", log=True, title="maximum", ax=apart)
    one, two = pairs["0.05 and 0.02"]
    kinds = {"maximum": pooling_theory.bernoulli_max, "average": pooling_theory.bernoulli_average}
    ratio = pooling_theory.signal_to_noise
    clear = {name: (counts, [ratio(of(one, n), of(two, n)) for n in counts]) for name, of in kinds.items()}
    drawing.curves(clear, across="pooled together", up="distance over deviation", log=True, title="0.05 and 0.02", ax=sharp)
    return figure


def networks_of_any_size() -> Figure:
    """Draw the sizes through the three networks of figure 9.11."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    for ax, kind in zip(figure.subplots(1, 3), ("fixed", "variable", "convolutional"), strict=True):
        _sizes(ax, kind)
    return figure


def _sizes(ax: "Axes", kind: str) -> None:
    """Write a network's layers and what each gives, from the input at the bottom."""
    net, steps = figure_9_11(kind).to("meta"), [("image", (3, 256, 256))]
    x = torch.zeros(1, 3, 256, 256, device="meta")
    for name, layer in net.named_children():
        x = layer(x)
        if not isinstance(layer, torch_nn.ReLU):
            steps.append((name, tuple(x.shape[1:])))
    for k, (name, shape) in enumerate(steps):
        box = {"boxstyle": "round", "facecolor": "#eaf1fa" if "pool" not in name else "#fdebd3", "edgecolor": "none"}
        ax.text(
            0.5, (k + 0.5) / len(steps), f"{name}  {' x '.join(map(str, shape))}", ha="center", va="center", fontsize=8, bbox=box
        )
    ax.set_title(kind, fontsize=9)
    ax.axis("off")


def who_shares() -> Figure:
    """Draw the connections of figure 9.16, and the kernels at every position."""
    specs = {"locally connected": None, "tiled, period 2": 2, "convolution": 1}
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    above, below = figure.subplots(2, 3, height_ratios=(1, 1.4))
    torch.manual_seed(1)
    layers = nn.LocallyConnected2d(1, 1, 3, input_size=(6, 8)), nn.TiledConv2d(1, 1, 3, period=2), nn.Conv2d(1, 1, 3)
    for up, down, (title, period), layer in zip(above, below, specs.items(), layers, strict=True):
        drawing.connectivity(ConvSpec(1, 1, (2,), period=period), 6, title=title, border=False, ax=up)
        drawing.kernels(layer, (6, 8), title="its kernels", ax=down)
    return figure


def channel_table() -> Figure:
    """Draw which channel feeds which, in groups and by a table."""
    figure = Figure(figsize=(7, 2), layout="constrained")
    dense, groups, table = figure.subplots(1, 3)
    drawing.channels([ConvSpec(4, 4, 3)], title="dense", ax=dense)
    drawing.channels([ConvSpec(4, 4, 3, groups=2)], title="two groups", ax=groups)
    edges = ((0, 0), (0, 1), (1, 1), (2, 0), (2, 1), (2, 2), (3, 2), (3, 3))
    drawing.channels([ConvSpec(4, 4, 3, table=edges)], title="a table", ax=table)
    return figure


def shuffled() -> Figure:
    """Draw two stacked group convolutions, without and with the shuffle."""
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    plain, mixed = figure.subplots(1, 2)
    group = ConvSpec(6, 6, 1, groups=3)
    drawing.channels([group, group], title="groups never meet", ax=plain)
    drawing.channels([group, nn.ChannelShuffle(3), group], title="shuffled between", ax=mixed)
    return figure


def depthwise() -> Figure:
    """Draw a depthwise convolution and the pointwise one that follows."""
    return drawing.channels([ConvSpec(4, 4, 3, groups=4), ConvSpec(4, 6, 1)])


def pointwise() -> Figure:
    """Draw a 1x1 convolution that reduces eight channels to three."""
    return drawing.channels([ConvSpec(8, 3, 1)])


def checkerboard() -> Figure:
    """Draw how often each position is written."""
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    uneven, even = figure.subplots(1, 2)
    drawing.overlap(ConvSpec(1, 1, 3, stride=2, transposed=True), (6, 7), title="kernel 3, stride 2", ax=uneven)
    drawing.overlap(ConvSpec(1, 1, 4, stride=2, transposed=True), (6, 7), title="kernel 4, stride 2", ax=even)
    return figure


def dilated() -> Figure:
    """Draw what a stack of rates 1, 2 and 4 sees."""
    return drawing.receptive_field([ConvSpec(1, 1, (3,), dilation=rate, padding=rate) for rate in (1, 2, 4)], 19)


def gridding() -> Figure:
    """Draw what a stack of rates 2, 2 and 2 leaves out."""
    return drawing.receptive_field([ConvSpec(1, 1, (3,), dilation=2, padding=2)] * 3, 17)
