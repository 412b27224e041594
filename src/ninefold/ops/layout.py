"""Memory formats: one rule, torch's own, for every engine and route.

A tensor is channels-last if its strides say so; where one memory is both formats at once (one channel, or one position), the
strides decide, and strides that fit both are contiguous. The result of a convolution is channels-last if its input or its
weight is: a tensor comes back in the format it came in, and a model moved to channels-last moves its activations. The gradient
of a weight has the weight's own strides, those of single positions, too: what torch asks of a gradient, so that it is kept as it
is, and all-reduced without a copy.
"""

import torch
from torch import Tensor

__all__ = ["channels_last", "result_is_channels_last", "with_strides_of"]


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


def result_is_channels_last(x: Tensor, weight: Tensor) -> bool:
    """Return whether the result of a convolution is channels-last."""
    return channels_last(x) or (weight.ndim == x.ndim and channels_last(weight))


def with_strides_of(x: Tensor, like: Tensor) -> Tensor:
    """Return x with the strides of a tensor of its shape: x itself, a view where only single positions differ, else a copy.

    Of a tensor with gaps or overlaps the result has the order of the strides, without these. Gradients flow through it.

    Examples
    --------
    >>> weight = torch.zeros(8, 1, 3, 3).to(memory_format=torch.channels_last)
    >>> with_strides_of(torch.ones(8, 1, 3, 3), weight).stride() == weight.stride() == (9, 1, 3, 1)
    True
    """
    have = x.stride()
    if have == like.stride():
        return x
    want = like.stride() if _dense(like) else torch.empty_like(like, device="meta").stride()
    if have == want:
        return x
    if not x.requires_grad and all(n == 1 or a == b for n, a, b in zip(x.shape, have, want, strict=True)):
        return x.as_strided(x.shape, want)
    return torch.empty_strided(x.shape, want, dtype=x.dtype, device=x.device).copy_(x)


def _dense(x: Tensor) -> bool:
    """Whether the elements lie side by side, each once, in any order; of single positions any stride will do."""
    step = 1
    for stride, size in sorted((s, n) for s, n in zip(x.stride(), x.shape, strict=True) if n != 1):
        if stride != step:
            return False
        step *= size
    return True
