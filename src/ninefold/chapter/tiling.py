"""Section 5 of the notes, the end: tiled convolution, biases, and the gradients that training needs."""

import numpy as np
import torch

from ninefold import functional as F
from ninefold import nn
from ninefold.chapter import drawn
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.given import differing, integers
from ninefold.spec.conv import ConvSpec

__all__ = ["ENTRIES"]


@entry(
    "9.10",
    "Tiled convolution cycles through its kernels",
    "平铺卷积 (tiled convolution)",
    claim="The input is divided into regions; kernels differ within a region and are shared between regions.",
    correction="Nothing divides the input: output j uses kernel j mod t, and the fields of neighbouring outputs overlap. Eq. 9.10 begins "
    "with kernel 2 when counted from 1, which only renames them.",
    source="eq. 9.10; Gregor and LeCun 2010; Le et al. 2010",
    uses=("ninefold.nn.TiledConv2d", "ninefold.functional.tiled_conv2d"),
)
def tiled() -> Finding:
    V, K = integers(1, 3, 7, 9), integers(4, 2, 3, 3, 2, 3, seed=1)
    Z = F.tiled_conv2d(V, K, period=(2, 3))
    wrong = sum(differing(Z[..., a::2, b::3], F.conv2d(V[..., a:, b:], K[:, a, b], stride=(2, 3))) for a, b in np.ndindex(2, 3))
    return Finding(
        f"{Z.numel() - wrong} of {Z.numel()} outputs are those of 6 strided convolutions, interleaved",
        wrong == 0,
        {"outputs": Z.numel(), "differ": wrong, "convolutions": 6},
    )


@entry(
    "9.16",
    "Local, tiled and standard convolution",
    "图 9.16: 局部连接, 平铺卷积, 标准卷积的比较",
    claim="Tiled convolution lies between: period 1 is the standard convolution, a period of the output's size the local layer.",
    source="figure 9.16",
    uses=("ninefold.nn.TiledConv2d", "ninefold.nn.LocallyConnected2d", "ninefold.nn.Conv2d"),
    picture=drawn.who_shares,
)
def between() -> Finding:
    V, W = integers(1, 2, 5, 6), integers(3, 4, 4, 2, 2, 3, seed=1)
    whole = differing(F.tiled_conv2d(V, W, period=(4, 4)), F.locally_connected2d(V, W))
    one = differing(F.tiled_conv2d(V, W[:, :1, :1], period=1), F.conv2d(V, W[:, 0, 0]))
    counts = [ConvSpec(2, 3, (2, 3), period=t).parameters((5, 6)) for t in (1, 2, None)]
    return Finding(
        f"{whole} and {one} of 48 differ in the limits; {counts[0]}, {counts[1]} and {counts[2]} parameters",
        whole == one == 0 and counts == [36, 36 * 4, 36 * 16],
        {"differ_unshared": whole, "differ_shared": one, "parameters": counts},
    )


@entry(
    "9.5 transformations",
    "Pooling over tiles: invariance to what the kernels learned",
    "max pooling 后对学到的变换具有不变性",
    claim="If the kernels of a tile hold turned versions of one feature, the maximum over the tile does not see the turn; a "
    "convolution, sharing one kernel, cannot do this over space.",
    source="section 9.5; Le et al. 2010",
    uses=("ninefold.functional.tiled_conv2d", "ninefold.functional.conv2d"),
)
def pooled_tiles() -> Finding:
    feature = integers(3, 3)
    turns = torch.stack([feature.rot90(q) for q in range(4)]).reshape(1, 2, 2, 1, 3, 3)
    images = torch.stack([feature.rot90(q).repeat(3, 3) for q in range(4)])[:, None]  # the feature at every place
    tiled = F.tiled_conv2d(images, turns, period=2, stride=3).amax((1, 2, 3))
    shared = F.conv2d(images, feature[None, None], stride=3).amax((1, 2, 3))
    return Finding(
        f"pooled over the tile {sorted(set(tiled.tolist()))}, with one kernel {sorted(set(shared.tolist()))}",
        len(set(tiled.tolist())) == 1 < len(set(shared.tolist())),
        {"tiled": tiled.tolist(), "shared": shared.tolist()},
    )


@entry(
    "9.5 bias",
    "Biases are shared as the kernels are, or otherwise",
    "偏置的共享",
    claim="A convolution has a bias per channel, a local layer one per unit, a tiled one as its kernels; one per position makes up for "
    "a border that drives units less.",
    source="section 9.5",
    uses=("ninefold.nn.TiledConv2d", "ninefold.nn.LocallyConnected2d"),
)
def biases() -> Finding:
    zero = torch.zeros(1, 2, 6, 8)
    layers = {
        "channel": nn.Conv2d(2, 3, 3, padding=1),
        "unit": nn.LocallyConnected2d(2, 3, 3, padding=1, input_size=(6, 8)),
        "tile": nn.TiledConv2d(2, 3, 3, padding=1, period=2),
        "location": nn.TiledConv2d(2, 3, 3, padding=1, period=1, bias="location", input_size=(6, 8)),
    }
    counts = {name: layer.bias.numel() for name, layer in layers.items()}
    shown = {name: len(layer(zero).unique()) for name, layer in layers.items()}
    return Finding(
        ", ".join(f"{name} {n}" for name, n in counts.items()) + ": a zero image shows each of them",
        counts == shown == {"channel": 3, "unit": 144, "tile": 12, "location": 144},
        counts,
    )


@entry(
    "9.11",
    "Forward, backward and kernel gradient are one form",
    "训练所需的梯度 (Goodfellow 2010)",
    claim="The gradients of a convolution are g (to the kernel) and h (to the input); <c(K,V), G> = <V, h(K,G)> = <K, g(V,G)>.",
    source="eq. 9.11 to 9.13; Goodfellow 2010",
    uses=("ninefold.functional.conv2d_input", "ninefold.functional.conv2d_weight"),
)
def trilinear() -> Finding:
    products = []
    for stride in (1, 2, 3):
        V, K = integers(2, 3, 9, 11), integers(4, 3, 2, 3, seed=1)
        Z = F.conv2d(V, K, stride=stride)
        G = integers(*Z.shape, seed=2)
        h, g = F.conv2d_input(V.shape, K, G, stride=stride), F.conv2d_weight(V, K.shape, G, stride=stride)
        products.append([int((a * b).sum()) for a, b in ((Z, G), (V, h), (K, g))])
    return Finding(
        "strides 1, 2, 3: " + "; ".join(f"{a} = {b} = {c}" for a, b, c in products),
        all(a == b == c for a, b, c in products),
        {"products": products},
    )


@entry(
    "9.13 equation",
    "The gradient's size does not follow from the output's",
    "反向传播需要原输入的大小",
    claim="Several input sizes give one output size, so the transposed convolution must be told which; what no output read gets zero.",
    source="eq. 9.13",
    uses=("ninefold.functional.conv2d_input", "ninefold.ConvSpec.form"),
)
def size_not_determined() -> Finding:
    spec, K, G = ConvSpec(1, 1, (3,), stride=3), integers(1, 1, 3), integers(1, 1, 4, seed=1)
    fitting = [n for n in range(1, 30) if n >= 3 and spec.output_size(n) == (4,)]
    grads = [F.conv1d_input((1, 1, n), K, G, stride=3) for n in fitting]
    untouched = sum(int(grad[..., 12:].abs().sum()) for grad in grads)
    return Finding(
        f"inputs of {fitting} all give 4 outputs; positions past the last window get {untouched}",
        fitting == [12, 13, 14] and untouched == 0,
        {"sizes": fitting, "untouched": untouched},
    )


@entry(
    "9.5 autoencoder",
    "A convolutional autoencoder from the three maps",
    "卷积自编码器",
    claim="R = h(K, H, s); with E = dJ/dR the decoder's gradient is g(H, E, s), the encoder's c(K, E, s).",
    source="section 9.5",
    uses=("ninefold.functional.conv_transpose2d", "ninefold.functional.conv2d_weight", "ninefold.functional.conv2d"),
)
def autoencoder() -> Finding:
    H, K = integers(1, 4, 3, 5).requires_grad_(), integers(4, 2, 3, 2, seed=1).requires_grad_()
    R = F.conv_transpose2d(H, K, stride=2)
    E = integers(*R.shape, seed=2)
    to_code, to_kernel = torch.autograd.grad(R, (H, K), E)
    wrong = differing(to_code, F.conv2d(E, K, stride=2)), differing(to_kernel, F.conv2d_weight(E, K.shape, H, stride=2))
    return Finding(
        f"{sum(wrong)} of {H.numel() + K.numel()} gradients differ",
        sum(wrong) == 0,
        {"code": wrong[0], "kernel": wrong[1], "compared": H.numel() + K.numel()},
    )


ENTRIES = (
    tiled,
    between,
    pooled_tiles,
    biases,
    trilinear,
    size_not_determined,
    autoencoder,
)
