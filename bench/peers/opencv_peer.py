"""OpenCV: `filter2D` per image and channel, for 2-D shapes whose channels do not mix."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.peers import Refused
from ninefold.spec import ConvSpec, Form

NAME = "OpenCV"


def load() -> None:
    """Import what is needed."""
    import cv2  # noqa: F401


def prepare(spec: ConvSpec, form: Form, x: Tensor, weight: Tensor) -> Callable[[], Any]:
    """Return a loop over images and channels; all modes that OpenCV has under another name."""
    import cv2
    import numpy as np

    borders = {"zeros": cv2.BORDER_CONSTANT, "replicate": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT_101}
    groups = form.channels.groups
    if form.ndim != 2 or form.tiled or spec.transposed or form.flip or spec.table is not None:
        raise Refused("it filters 2-D images with one shared kernel")
    if not form.channels.inputs == form.channels.outputs == groups or {*form.stride, *form.dilation} != {1}:
        raise Refused("it filters channel by channel, without strides or dilation")
    if form.n_in != form.n_out or form.mode not in borders:
        raise Refused(f"it keeps the size, with zeros, reflect or replicate around; here {form.n_in} -> {form.n_out}")
    cv2.setNumThreads(torch.get_num_threads())
    data, kernels = x.numpy(), weight.numpy()
    anchor = (form.axes[1].lo, form.axes[0].lo)
    out = np.empty(form.output_shape(len(x)), np.float32)

    def run() -> Any:
        for image, result in zip(data, out, strict=True):
            for c in range(groups):
                cv2.filter2D(image[c], -1, kernels[c, 0], result[c], anchor, 0, borders[form.mode])
        return out

    return run
