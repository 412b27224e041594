"""Reference networks, untrained, written with plain ``torch.nn`` layers: what `optimize` is shown and measured on.

`MODELS` names them; every one has an attribute `input_size`, the shape of one example without the batch.

Examples
--------
>>> sorted(MODELS)[-1], MODELS["mobilenet_v1"]().input_size
('mobilenet_v1', (3, 224, 224))
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from ninefold.models.large_kernel import LargeKernelNet, large_kernel_net
from ninefold.models.mobilenet import MobileNetV1, mobilenet_v1
from ninefold.models.variable_size import Figure911, figure_9_11

__all__ = ["MODELS", "Figure911", "LargeKernelNet", "MobileNetV1", "figure_9_11", "large_kernel_net", "mobilenet_v1"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v1": mobilenet_v1,
    "large_kernel_net": large_kernel_net,
    "figure_9_11_fixed": partial(figure_9_11, "fixed"),
    "figure_9_11_variable": partial(figure_9_11, "variable"),
    "figure_9_11_convolutional": partial(figure_9_11, "convolutional"),
}
"""Network by name."""
