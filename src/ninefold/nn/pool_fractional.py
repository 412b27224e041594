"""Maximum pooling at random steps, as subclasses of torch's layers."""

from typing import Any

import torch
from torch import Tensor

from ninefold import functional as F
from ninefold.ops.traced import node

__all__ = ["FractionalMaxPool2d", "FractionalMaxPool3d"]


class _FractionalMaxPool(torch.nn.Module):
    """The docstring is shared by both; torch's constructor checks its arguments."""

    _ndim: int

    @node
    def forward(self, input: Tensor) -> Any:  # noqa: A002  torch's name
        """Pool; shapes as torch's, batched or not."""
        how = (self.kernel_size, self.output_size, self.output_ratio, self.return_indices)
        return _FRACTIONAL[self._ndim](input, *how, _random_samples=self._random_samples)

    def extra_repr(self) -> str:
        """Return the arguments, which torch's layer does not show."""
        size = f"output_size={self.output_size}" if self.output_size is not None else f"output_ratio={self.output_ratio}"
        return f"kernel_size={self.kernel_size}, {size}" + (", return_indices=True" if self.return_indices else "")


_FRACTIONAL: dict[int, Any] = {2: F.fractional_max_pool2d, 3: F.fractional_max_pool3d}
_DOC = """Maximum pooling at random steps in {n}-D (Graham 2014), a drop-in for ``torch.nn.FractionalMaxPool{n}d``.

    See ``ninefold.functional.fractional_max_pool{n}d``.

    Parameters
    ----------
    kernel_size, output_size, output_ratio, return_indices
        As in torch, in torch's order.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> nn.FractionalMaxPool{n}d(2, output_ratio=0.6)(torch.zeros(2, 3, {nine})).shape
    torch.Size([2, 3, {five}])
    """


def _text(n: int) -> str:
    return _DOC.format(n=n, nine=", ".join(["9"] * n), five=", ".join(["5"] * n))


class FractionalMaxPool2d(_FractionalMaxPool, torch.nn.FractionalMaxPool2d):
    __doc__ = _text(2)
    _ndim = 2


class FractionalMaxPool3d(_FractionalMaxPool, torch.nn.FractionalMaxPool3d):
    __doc__ = _text(3)
    _ndim = 3
