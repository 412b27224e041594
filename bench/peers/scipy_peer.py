"""SciPy: `signal.oaconvolve` per channel, for shapes whose channels do not mix (depthwise, or one channel)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bench.peers import Refused, plain_pads
from ninefold.spec import ConvSpec, Form

NAME = "SciPy"


def load() -> None:
    """Import what is needed."""
    import scipy.signal  # noqa: F401


def prepare(spec: ConvSpec, form: Form, x: Tensor, weight: Tensor) -> Callable[[], Any]:
    """Return overlap-add by Fourier transforms over the last axes."""
    import numpy as np
    from scipy import signal

    pads = plain_pads(spec, form)
    if not form.channels.inputs == form.channels.outputs == form.channels.groups:
        raise Refused("it convolves channel by channel")
    if any(n < 0 for pair in pads for n in pair) or {*form.stride, *form.dilation} != {1}:
        raise Refused("strides, dilation and negative pads are not compared here")
    axes = tuple(range(2, 2 + form.ndim))
    data = x.numpy()
    kernel = np.ascontiguousarray(np.flip(weight.numpy().swapaxes(0, 1), axes))
    keep = tuple(slice(k - 1 - lo, k - 1 - lo + n) for k, (lo, _), n in zip(form.kernel, pads, form.n_out, strict=True))
    if any(s.start < 0 for s in keep):
        raise Refused("pads past the kernel are not compared here")
    return lambda: np.ascontiguousarray(signal.oaconvolve(data, kernel, axes=axes)[(..., *keep)])
