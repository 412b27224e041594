"""JAX: `lax.conv_general_dilated`, and `conv_general_dilated_local` where no kernel repeats, compiled."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bench.peers import Refused, plain_pads
from ninefold.spec import ConvSpec, Form

NAME = "JAX"
_LETTERS = "DHW"


def load() -> None:
    """Import what is needed."""
    import jax  # noqa: F401


def prepare(spec: ConvSpec, form: Form, x: Tensor, weight: Tensor) -> Callable[[], Any]:
    """Return a function that runs the compiled convolution and waits for it."""
    import jax
    import numpy as np
    from jax import lax

    data = jax.numpy.asarray(x.numpy())
    space = _LETTERS[3 - form.ndim :]
    layout = (f"NC{space}", f"OI{space}", f"NC{space}")
    if form.tiled:
        return _local(form, data, weight, layout)
    kernel = jax.numpy.asarray(weight.numpy())
    pads = plain_pads(spec, form)

    def convolve(v: Any, k: Any) -> Any:
        return lax.conv_general_dilated(
            v, k, form.stride, pads, None, form.dilation, layout, feature_group_count=form.channels.groups
        )

    compiled = jax.jit(convolve)
    np.asarray(compiled(data, kernel))
    return lambda: np.asarray(compiled(data, kernel))


def _local(form: Form, data: Any, weight: Tensor, layout: tuple[str, str, str]) -> Callable[[], Any]:
    import jax
    import numpy as np
    from jax import lax

    if any(a.period < a.n_out for a in form.axes) or form.channels.groups != 1 or form.mode != "zeros" or form.flip:
        raise Refused("it has unshared layers without groups, zeros around, and no tiled ones")
    d = form.ndim
    order = (0, 1 + d, *range(2 + d, 2 + 2 * d), *range(1, 1 + d))
    kernel = jax.numpy.asarray(weight.permute(order).flatten(1, 1 + d).contiguous().numpy())
    pads = [(a.lo, a.hi) for a in form.axes]

    def convolve(v: Any, k: Any) -> Any:
        return lax.conv_general_dilated_local(
            v, k, form.stride, pads, form.kernel, rhs_dilation=form.dilation, dimension_numbers=layout
        )

    compiled = jax.jit(convolve)
    np.asarray(compiled(data, kernel))
    return lambda: np.asarray(compiled(data, kernel))
