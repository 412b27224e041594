"""A convolution as an infinitely strong prior on a dense layer: the layer it stands for, the way back, and the distance between.

The dense layers that are a convolution form a subspace: entries that share a weight are equal, all others zero (section 9.4 of
the book). The nearest convolution is the mean over each set of tied entries; the squared distance to it is the energy of a
Gaussian prior, whose strength runs from 0, a dense layer, to infinity, the convolution.
"""

from typing import Any

import torch
from torch import Tensor

from ninefold import reference
from ninefold.errors import ArgumentTypeError, ShapeError, UnsupportedError
from ninefold.spec.conv import ConvSpec
from ninefold.spec.form import Form
from ninefold.spec.parse import per_axis

__all__ = ["prior_penalty", "project", "tie_map", "to_linear"]


def tie_map(layer: Any, input_size: Any) -> Tensor:
    """Return which weight stands where in the matrix of a convolution.

    Parameters
    ----------
    layer : module or ConvSpec
        A convolution with a border of zeros, transposed or not.
    input_size : int or sequence of int
        Spatial size of what the layer reads.

    Returns
    -------
    Tensor of int64 of shape ``(outputs, inputs)``
        The flat index into the weight, and -1 where there is no connection.

    Raises
    ------
    UnsupportedError
        If a continued border makes several weights share an entry.
    ShapeError
        If the layer does not fit the size.

    Examples
    --------
    >>> import ninefold as nf
    >>> nf.tie_map(nf.ConvSpec(1, 1, (2,)), 4).tolist()
    [[0, 1, -1, -1], [-1, 0, 1, -1], [-1, -1, 0, 1]]
    """
    spec = layer if isinstance(layer, ConvSpec) else ConvSpec.from_module(layer)
    form = _form(spec, input_size)
    outputs, inputs, weights = map(torch.from_numpy, reference.terms(form))
    ties = torch.full((_units(form.output_shape(1)), _units(form.input_shape(1))), -1, dtype=torch.int64, device="cpu")
    if len(torch.unique(outputs * ties.shape[1] + inputs)) < len(outputs):
        raise UnsupportedError(
            f"the border ({form.mode}) of {form.n_in} lets several weights share one of the {ties.numel()} entries; a tie map is "
            "of a convolution in which each entry is one weight: use padding_mode='zeros', or a larger input"
        )
    ties[outputs, inputs] = weights
    return ties.T.contiguous() if spec.transposed else ties


def to_linear(layer: Any, input_size: Any) -> torch.nn.Linear:
    """Return the dense layer that a convolution stands for: the same function of a flattened example, its parameters untied.

    Parameters
    ----------
    layer : module
        A convolution of ``torch.nn`` or ``ninefold.nn`` with a border of zeros; it is left as it was.
    input_size : int or sequence of int
        Spatial size of what the layer reads.

    Returns
    -------
    torch.nn.Linear
        From ``channels * positions`` of the input to those of the output; `tie_map` says which weight stands where.

    Raises
    ------
    UnsupportedError, ShapeError
        As in `tie_map`.

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> conv, x = torch.nn.Conv1d(2, 3, 2), torch.randn(5, 2, 4)
    >>> dense = nf.to_linear(conv, 4)
    >>> torch.allclose(dense(x.flatten(1)), conv(x).flatten(1), atol=1e-6)
    True
    """
    if isinstance(layer, ConvSpec):
        raise ArgumentTypeError("to_linear copies a layer's weights, and a ConvSpec has none: give the layer")
    ties = tie_map(layer, input_size)
    weight: Tensor = layer.weight.detach()
    bias = _spread(layer, input_size, len(ties))
    dense = torch.nn.Linear(ties.shape[1], ties.shape[0], bias is not None, weight.device, weight.dtype)
    with torch.no_grad():
        dense.weight.copy_(_filled(ties.to(weight.device), weight))
        if bias is not None:
            dense.bias.copy_(bias)
    return dense


def project(dense: Tensor, layer: ConvSpec, input_size: Any) -> Tensor:
    """Return the weight of the convolution that is nearest to a dense matrix: the mean over each set of tied entries.

    Parameters
    ----------
    dense : Tensor of shape ``(outputs, inputs)``
        The weight of a ``torch.nn.Linear``, say; gradients flow through.
    layer : ConvSpec
        What convolution; with a border of zeros.
    input_size : int or sequence of int
        Spatial size of what it reads.

    Returns
    -------
    Tensor of the weight's shape; a weight that no entry holds is zero

    Raises
    ------
    ShapeError
        If the matrix is not of the convolution's units.
    UnsupportedError
        As in `tie_map`.

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> nf.project(torch.tensor([[1.0, 2.0, 9.0], [9.0, 3.0, 6.0]]), nf.ConvSpec(1, 1, (2,)), 3)
    tensor([[[2., 4.]]])
    """
    ties = _ties_for(dense, layer, input_size)
    shape = _form(layer, input_size).weight_shape
    tied, index = ties >= 0, ties[ties >= 0]
    empty = dense.new_zeros(torch.Size(shape).numel())
    counts = empty.index_add(0, index, torch.ones_like(dense[tied]))
    return (empty.index_add(0, index, dense[tied]) / counts.clamp_min(1)).reshape(shape)


def prior_penalty(dense: Tensor, layer: ConvSpec, input_size: Any) -> Tensor:
    """Return the squared distance of a dense matrix to the nearest convolution.

    Times ``strength / 2`` it is the negative logarithm of a Gaussian prior: strength 0 leaves the layer dense, infinity makes it
    the convolution.

    Parameters
    ----------
    dense, layer, input_size
        As in `project`.

    Returns
    -------
    Tensor of no dimensions, differentiable

    Raises
    ------
    ShapeError, UnsupportedError
        As in `project`.

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> nf.prior_penalty(torch.tensor([[1.0, 2.0, 9.0], [9.0, 3.0, 6.0]]), nf.ConvSpec(1, 1, (2,)), 3)
    tensor(172.)
    """
    ties = _ties_for(dense, layer, input_size)
    return (dense - _filled(ties, project(dense, layer, input_size))).square().sum()


def _form(spec: ConvSpec, input_size: Any) -> Form:
    return spec.form(per_axis(input_size, spec.ndim, "input_size", 1))


def _units(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _filled(ties: Tensor, weight: Tensor) -> Tensor:
    """Return the matrix of a weight: its value where it stands, zero where there is no connection."""
    return torch.where(ties >= 0, weight.flatten()[ties.clamp_min(0)], weight.new_zeros(()))


def _ties_for(dense: Tensor, layer: ConvSpec, input_size: Any) -> Tensor:
    if not isinstance(dense, Tensor):
        raise ArgumentTypeError(f"dense must be a tensor (outputs, inputs), got type {type(dense).__name__}")
    ties = tie_map(layer, input_size)
    if dense.shape != ties.shape:
        raise ShapeError(
            f"the matrix has shape {tuple(dense.shape)}; this convolution of size {input_size} has {len(ties)} outputs and "
            f"{ties.shape[1]} inputs"
        )
    return ties.to(dense.device)


def _spread(layer: Any, input_size: Any, outputs: int) -> Tensor | None:
    """Return the bias with a number per output unit: what a layer gives for zeros."""
    spec = ConvSpec.from_module(layer)
    if layer.bias is None:
        return None
    weight: Tensor = layer.weight
    channels = spec.out_channels if spec.transposed else spec.in_channels
    zeros = weight.new_zeros((1, channels, *per_axis(input_size, spec.ndim, "input_size", 1)))
    with torch.no_grad():
        shown: Tensor = layer(zeros)
    return shown.reshape(outputs)
