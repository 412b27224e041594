"""Memory formats: one rule, torch's own, for every engine and route.

A tensor is channels-last if its strides say so; where one memory is both formats at once (one channel, or one position), the
strides decide, and strides that fit both are contiguous. The result of a convolution is channels-last if its input or its
weight is: a tensor comes back in the format it came in, and a model moved to channels-last moves its activations.
"""

from torch import Tensor

__all__ = ["channels_last", "result_strides"]


def channels_last(x: Tensor) -> bool:
    """Return whether the strides of a batched 2-D or 3-D image are channels-last, by torch's rule.

    Examples
    --------
    >>> import torch
    >>> x = torch.zeros(2, 3, 4, 5)
    >>> channels_last(x), channels_last(x.contiguous(memory_format=torch.channels_last))
    (False, True)
    """
    if x.ndim not in (4, 5):
        return False
    strides = x.stride()
    if strides[1] == 0:
        return False
    least = 0
    for dim in (1, *range(x.ndim - 1, 1, -1), 0):
        if x.shape[dim] == 0 or strides[dim] < least or (dim == 0 and least == strides[1]):
            return False
        least = strides[dim] * max(x.shape[dim], 1)
    return True


def result_strides(x: Tensor, weight: Tensor) -> bool:
    """Return whether the result of a convolution is channels-last."""
    return channels_last(x) or (weight.ndim == x.ndim and channels_last(weight))
