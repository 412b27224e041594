"""ONNX Runtime: one Conv node, weights as an initializer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.peers import Refused, plain_pads
from ninefold.spec import ConvSpec, Form

NAME = "ONNX Runtime"


def load() -> None:
    """Import what is needed."""
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401


def model(spec: ConvSpec, form: Form, x: Tensor, weight: Tensor) -> Any:
    """Return an ONNX model of one convolution."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    pads = plain_pads(spec, form)
    if any(n < 0 for pair in pads for n in pair):
        raise Refused("it has no negative pads")
    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        strides=list(form.stride),
        dilations=list(form.dilation),
        group=form.channels.groups,
        kernel_shape=list(form.kernel),
        pads=[lo for lo, _ in pads] + [hi for _, hi in pads],
    )
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(form.output_shape(len(x))))],
        [numpy_helper.from_array(weight.numpy(), "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def prepare(spec: ConvSpec, form: Form, x: Tensor, weight: Tensor) -> Callable[[], Any]:
    """Return a function that runs the session."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    data = model(spec, form, x, weight).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    return lambda: session.run(None, feed)[0]
