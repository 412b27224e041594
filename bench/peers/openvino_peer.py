"""OpenVINO: one Convolution or GroupConvolution node, float32 execution."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.peers import plain_pads
from ninefold.spec import ConvSpec, Form

NAME = "OpenVINO"


def load() -> None:
    """Import what is needed."""
    import openvino  # noqa: F401


def prepare(spec: ConvSpec, form: Form, x: Tensor, weight: Tensor) -> Callable[[], Any]:
    """Return a function that infers with a compiled model."""
    import numpy as np
    import openvino as ov
    from openvino import opset8 as ops

    pads = plain_pads(spec, form)
    begin, end = [lo for lo, _ in pads], [hi for _, hi in pads]
    strides, dilations, groups = list(form.stride), list(form.dilation), form.channels.groups
    data = ops.parameter(list(x.shape), np.float32)
    if groups == 1:
        node = ops.convolution(data, weight.numpy(), strides, begin, end, dilations)
    else:
        grouped = weight.unflatten(0, (groups, -1)).contiguous().numpy()
        node = ops.group_convolution(data, grouped, strides, begin, end, dilations)
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = ov.Core().compile_model(ov.Model([node], [data]), "CPU", config).create_infer_request()
    request.set_input_tensor(ov.Tensor(x.numpy(), shared_memory=True))

    def run() -> Any:
        request.infer()
        return request.get_output_tensor().data

    return run
