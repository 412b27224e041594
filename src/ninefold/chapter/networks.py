"""The networks that the notes name, by their counts."""

import torch
from torch import nn as torch_nn

from ninefold import models
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.given import differing, integers
from ninefold.spec.chain import receptive_fields
from ninefold.spec.conv import ConvSpec

__all__ = ["GROUPS", "SEPARABLE", "SUPPLEMENTS", "multiply_adds"]


def _parameters(model: torch_nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def multiply_adds(model: torch_nn.Module) -> int:
    """Return the multiply-adds of an example, of convolutions and dense layers, without computing any.

    Examples
    --------
    >>> multiply_adds(models.alexnet())
    724406816
    """
    counts: list[int] = []

    def count(layer: torch_nn.Module, given: tuple[torch.Tensor, ...], _: object) -> None:
        if isinstance(layer, torch_nn.Linear):
            counts.append(layer.in_features * layer.out_features)
        else:
            counts.append(ConvSpec.from_module(layer).macs(tuple(given[0].shape[2:])))

    for layer in model.modules():
        if isinstance(layer, (torch_nn.Linear, torch_nn.Conv2d)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model.to("meta").eval()(torch.zeros(1, *model.input_size, device="meta"))
    return sum(counts)


@entry(
    "N.5 AlexNet",
    "AlexNet: groups in the large",
    "分组卷积的来历: AlexNet",
    claim="Conv2, 4 and 5 of AlexNet are split into two groups; the network has 60,965,224 parameters.",
    source="Krizhevsky, Sutskever and Hinton 2012",
    uses=("ninefold.models.alexnet",),
)
def alexnet() -> Finding:
    parameters = _parameters(models.alexnet())
    return Finding(f"{parameters:,} parameters", parameters == 60_965_224, {"parameters": parameters})


@entry(
    "N.5 ResNeXt",
    "ResNeXt: many groups in a bottleneck",
    "ResNeXt",
    claim="A block of 32 groups of 4 has 70,144 weights, the plain bottleneck it stands for 69,632.",
    source="Xie et al. 2017 (arXiv 1611.05431)",
    uses=("ninefold.models.Bottleneck",),
)
def resnext() -> Finding:
    blocks = models.Bottleneck(256, 128, 256, groups=32), models.Bottleneck(256, 64, 256)
    held = [sum(m.weight.numel() for m in block.modules() if isinstance(m, torch_nn.Conv2d)) for block in blocks]
    return Finding(f"{held[0]:,} and {held[1]:,} weights", held == [70_144, 69_632], {"grouped": held[0], "plain": held[1]})


@entry(
    "N.5 ShuffleNet",
    "ShuffleNet: pointwise groups and shuffles",
    "ShuffleNet: 逐点分组卷积 + 通道混洗",
    claim="With 1, 2, 3, 4 and 8 groups ShuffleNet takes 143, 141, 137, 134 and 138 million multiply-adds.",
    source="Zhang et al. 2017 (arXiv 1707.01083)",
    uses=("ninefold.models.shufflenet_v1", "ninefold.nn.ShuffleUnit", "ninefold.nn.ChannelShuffle"),
)
def shufflenet() -> Finding:
    counted = {groups: multiply_adds(models.shufflenet_v1(groups)) for groups in (1, 2, 3, 4, 8)}
    expected = dict(zip(counted, (143_078_976, 140_836_512, 137_460_672, 134_339_776, 138_365_952), strict=True))
    parameters = _parameters(models.shufflenet_v1(3, num_classes=1000))
    return Finding(
        ", ".join(f"g={g}: {n / 1e6:.1f}M" for g, n in counted.items()) + f"; {parameters:,} parameters for g=3",
        counted == expected,
        {**{f"g={g}": n for g, n in counted.items()}, "parameters": parameters},
    )


@entry(
    "N.9 MobileNet",
    "MobileNet: depthwise separable throughout",
    "MobileNet",
    claim="568,740,352 multiply-adds and 4,231,976 parameters, 4.87 billion and 29.3 million with full convolutions.",
    source="Howard et al. 2017 (arXiv 1704.04861)",
    uses=("ninefold.models.mobilenet_v1", "ninefold.nn.DepthwiseSeparableConv2d"),
)
def mobilenet() -> Finding:
    parameters, twin = _parameters(models.mobilenet_v1()), models.mobilenet_v1(separable=False)
    macs, whole = multiply_adds(models.mobilenet_v1()), _parameters(twin)
    full = multiply_adds(twin)
    return Finding(
        f"{macs:,} multiply-adds, {parameters:,} parameters; full convolutions {full / 1e6:,.0f}M and {whole / 1e6:.1f}M",
        (macs, parameters) == (568_740_352, 4_231_976) and round(full / 1e6) == 4867,
        {"macs": macs, "parameters": parameters, "full_macs": full, "full_parameters": whole},
    )


@entry(
    "N.9 Xception",
    "Xception",
    "Xception",
    claim="22,855,952 parameters (reported), with nothing between depthwise and pointwise convolution.",
    source="Chollet 2017 (arXiv 1610.02357); the count as in Keras",
    uses=("ninefold.models.xception",),
)
def xception() -> Finding:
    parameters = _parameters(models.xception())
    return Finding(f"{parameters:,} parameters", parameters == 22_855_952, {"parameters": parameters})


@entry(
    "S.2 NIN",
    "Network in network",
    "1x1 卷积: 反复应用非线性 (NIN)",
    claim="Each convolution is followed by two 1x1 layers; an average replaces the dense layers: 966,986 parameters for CIFAR-10.",
    source="Lin, Chen and Yan 2013 (arXiv 1312.4400)",
    uses=("ninefold.models.network_in_network", "ninefold.nn.MLPConv2d"),
)
def network_in_network() -> Finding:
    parameters = _parameters(models.network_in_network())
    return Finding(f"{parameters:,} parameters", parameters == 966_986, {"parameters": parameters})


@entry(
    "S.2 Inception",
    "Inception: 1x1 convolutions reduce before larger ones",
    "Inception: 大量利用 1x1 卷积",
    claim="Module 3a has 163,328 weights and takes 128,049,152 multiply-adds; without the reductions 387,072 weights.",
    source="Szegedy et al. 2015 (arXiv 1409.4842)",
    uses=("ninefold.models.Inception",),
)
def inception() -> Finding:
    module = models.googlenet().inception3a
    convolutions = [m for m in module.modules() if isinstance(m, torch_nn.Conv2d)]
    weights = sum(m.weight.numel() for m in convolutions)
    macs = sum(ConvSpec.from_module(m).macs((28, 28)) for m in convolutions)
    direct = 192 * (64 + 128 * 9 + 32 * 25)
    return Finding(
        f"{weights:,} weights, {macs:,} multiply-adds; without reductions {direct:,} weights",
        (weights, macs, direct) == (163_328, 128_049_152, 387_072),
        {"weights": weights, "macs": macs, "direct": direct},
    )


@entry(
    "S.4 DeepLab",
    "DeepLab: holes instead of pooling",
    "DeepLab (atrous convolution)",
    claim="The three heads on VGG-16 have 134.3, 65.1 and 20.5 million parameters.",
    source="Chen et al. 2015 (arXiv 1412.7062)",
    uses=("ninefold.models.deeplab_v1",),
)
def deeplab() -> Finding:
    counts = {head: _parameters(models.deeplab_v1(head)) for head in ("7x7", "4x4", "large_fov")}
    return Finding(
        ", ".join(f"{head}: {n:,}" for head, n in counts.items()),
        [*counts.values()] == [134_346_581, 65_140_565, 20_505_429],
        counts,
    )


@entry(
    "S.4 context",
    "The context module",
    "多尺度上下文聚合 (context module)",
    claim="Rates 1, 1, 2, 4, 8, 16, 1 see 67x67 without losing resolution, with 64 C^2 weights; begun as the identity, it passes on its input.",
    correction="What is not negative: it has ReLUs, so that it gives max(x, 0).",
    source="Yu and Koltun 2016 (arXiv 1511.07122)",
    uses=("ninefold.models.context_module", "ninefold.spec.receptive_fields"),
)
def context() -> Finding:
    module = models.context_module("basic", num_classes=3).double()
    convolutions = [m for m in module.modules() if isinstance(m, torch_nn.Conv2d)]
    seen = [field.size[0] for field in receptive_fields([ConvSpec.from_module(m).replace(padding=0) for m in convolutions])]
    module.reset_to_identity()
    x = integers(1, 3, 9, 11)
    wrong = differing(module(x), x.clamp(min=0))
    weights = sum(m.weight.numel() for m in convolutions)
    return Finding(
        f"sees {seen}; {weights} = 64 x 3^2 weights; {wrong} of {x.numel()} differ from max(x, 0)",
        seen == [3, 5, 9, 17, 33, 65, 67, 67] and weights == 64 * 9 and wrong == 0,
        {"seen": seen, "weights": weights, "differ": wrong},
    )


GROUPS = (alexnet, resnext, shufflenet)
SEPARABLE = (mobilenet, xception)
SUPPLEMENTS = (network_in_network, inception, deeplab, context)
