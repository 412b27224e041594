"""Functions and methods that classifiers call: those that look at one number, those of two maps, and the poolings."""

import operator
from inspect import Parameter, Signature
from typing import Any

import torch

from ninefold import functional as F

__all__ = [
    "BATCH_NORM",
    "BINARY",
    "BINARY_METHODS",
    "COMPARISONS",
    "ELEMENTWISE_FUNCTIONS",
    "ELEMENTWISE_METHODS",
    "POOLS",
    "signature",
]

_T = torch.nn.functional
ELEMENTWISE_FUNCTIONS: set[Any] = {
    *(torch.relu, torch.relu_, torch.sigmoid, torch.tanh, _T.sigmoid, _T.tanh),
    *(_T.relu, _T.relu6, _T.leaky_relu, _T.elu, _T.selu, _T.celu, _T.gelu, _T.silu, _T.mish, _T.hardswish, _T.hardtanh),
    *(
        _T.local_response_norm,
        _T.hardsigmoid,
        _T.softplus,
        _T.softsign,
        _T.logsigmoid,
        _T.dropout,
        _T.dropout1d,
        _T.dropout2d,
        _T.dropout3d,
    ),
}
ELEMENTWISE_METHODS = {"relu", "relu_", "sigmoid", "sigmoid_", "tanh", "tanh_", "contiguous", "clone"}
BINARY: set[Any] = {
    *(operator.add, operator.iadd, operator.sub, operator.isub, operator.mul, operator.imul, operator.truediv),
    *(torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum),
}
BINARY_METHODS = {"add", "add_", "sub", "mul", "mul_", "div"}


def signature(*names: str, **defaults: Any) -> Signature:
    """Return what binds the arguments of a call."""
    bare = [Parameter(n, Parameter.POSITIONAL_OR_KEYWORD) for n in names]
    return Signature(bare + [Parameter(n, Parameter.POSITIONAL_OR_KEYWORD, default=v) for n, v in defaults.items()])


_MAX = signature(
    "input", "kernel_size", stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False, padding_mode=None
)
_MEAN = signature(
    "input", "kernel_size", stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None, dilation=1,
    padding_mode=None,
)  # fmt: skip
_GRID = signature("input", "output_size", return_indices=False)
POOLS: dict[Any, tuple[str, Signature]] = {
    getattr(place, f"{function}{n}d"): (f"{kind}{n}d", how)
    for function, kind, how in (
        ("max_pool", "MaxPool", _MAX),
        ("avg_pool", "AvgPool", _MEAN),
        ("adaptive_max_pool", "AdaptiveMaxPool", _GRID),
        ("adaptive_avg_pool", "AdaptiveAvgPool", _GRID),
    )
    for n in (1, 2, 3)
    for place in (_T, F)
}
POOLS |= {torch.max_pool1d: POOLS[_T.max_pool1d], torch.max_pool2d: POOLS[_T.max_pool2d]}
COMPARISONS: set[Any] = {operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge}
BATCH_NORM = signature("input", "running_mean", "running_var", weight=None, bias=None, training=False, momentum=0.1, eps=1e-5)
