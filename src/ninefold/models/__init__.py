"""Reference networks of the chapter and its sources, untrained, made of this library's layers.

`MODELS` names them; every one has an attribute `input_size`, the shape of one example without the batch. What a source reports
of its trained network is quoted in each docstring as reported. ``ninefold.revert`` makes ``torch.nn``'s of their layers.

Examples
--------
>>> sorted(MODELS)[-1], MODELS["xception"]().input_size
('xception', (3, 299, 299))
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from ninefold.models.alexnet import AlexNet, alexnet
from ninefold.models.context import ContextModule, context_module
from ninefold.models.deeplab import DeepLabV1, deeplab_v1
from ninefold.models.inception import GoogLeNet, Inception, googlenet
from ninefold.models.large_kernel import LargeKernelNet, large_kernel_net
from ninefold.models.mobilenet import MobileNetV1, mobilenet_v1
from ninefold.models.nin import NetworkInNetwork, network_in_network
from ninefold.models.resnet import Bottleneck, ResNet, resnet, resnet50, resnext50
from ninefold.models.shufflenet import SHUFFLENET_CHANNELS, ShuffleNetV1, shufflenet_v1
from ninefold.models.variable_size import Figure911, figure_9_11
from ninefold.models.xception import Xception, xception

__all__ = [
    "MODELS",
    "AlexNet",
    "Bottleneck",
    "ContextModule",
    "DeepLabV1",
    "Figure911",
    "GoogLeNet",
    "Inception",
    "LargeKernelNet",
    "MobileNetV1",
    "NetworkInNetwork",
    "ResNet",
    "ShuffleNetV1",
    "Xception",
    "alexnet",
    "context_module",
    "deeplab_v1",
    "figure_9_11",
    "googlenet",
    "large_kernel_net",
    "mobilenet_v1",
    "network_in_network",
    "resnet",
    "resnet50",
    "resnext50",
    "shufflenet_v1",
    "xception",
]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "alexnet": alexnet,
    "network_in_network": network_in_network,
    "googlenet": googlenet,
    "resnet50": resnet50,
    "resnext50": resnext50,
    "xception": xception,
    "mobilenet_v1": mobilenet_v1,
    **{f"shufflenet_v1_g{groups}": partial(shufflenet_v1, groups) for groups in SHUFFLENET_CHANNELS},
    "large_kernel_net": large_kernel_net,
    **{f"figure_9_11_{kind}": partial(figure_9_11, kind) for kind in ("fixed", "variable", "convolutional")},
    **{f"deeplab_v1_{head}": partial(deeplab_v1, head) for head in ("7x7", "4x4", "large_fov")},
    **{f"context_{kind}": partial(context_module, kind) for kind in ("basic", "large")},
}
"""Network by name; all take `num_classes`."""
