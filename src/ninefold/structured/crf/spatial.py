"""The spatial model of Tompson et al. (2014): where one part is, given where the others seem to be, by large convolutions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ninefold.errors import ArgumentError
from ninefold.spec.parse import integer, per_axis
from ninefold.structured.crf.maps import check_unary, no_features
from ninefold.structured.networks.parts import function

__all__ = ["SpatialModel"]

_OWN, _OTHER, _BIAS = 1.0, 1e-3, 1e-3


class SpatialModel(nn.Module):
    """One step of sum-product between heat maps of parts, in the form that networks learn.

    ``e'_A = exp( sum_v log( softplus(K_(A|v)) * relu(e_v) + softplus(b_(v->A)) ) )``, where ``*`` is a true convolution:
    ``softplus(K_(A|v))`` at an offset d from its centre is the prior of part A lying at d from part v. Softplus and ReLU keep all
    factors positive, so that weights are free numbers. (*Joint training of a convolutional network and a graphical model for
    human pose estimation*, arXiv 1406.2984; the form is remembered.)

    Parameters
    ----------
    parts : int
    kernel_size : int or tuple of int
        Odd. Of the priors: twice the largest offset between two parts, and 1. Large ones are planned like any convolution here.
    ndim : {1, 2, 3}
    pairs : sequence of (int, int), optional
        Which parts tell of which, as (target A, source v); all by default, each with itself among them. A part that is no target
        keeps the logits 0.
    unary : {"relu", "softmax"}
        Whether scores become heat maps by ReLU, as in the paper, or by softmax over the positions: log-probabilities in, and
        exact sum-product on a tree out.

    Attributes
    ----------
    kernel : torch.nn.Parameter
        K of shape ``(pairs, *kernel_size)``. It begins with ``softplus(K)`` a peak at the centre for a part and itself, and even
        otherwise.
    bias : torch.nn.Parameter
        b of shape ``(pairs,)``.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a model.

    Examples
    --------
    >>> model = SpatialModel(3, kernel_size=(9, 7))
    >>> model(torch.rand(2, 3, 12, 10)).shape, model.kernel.shape
    (torch.Size([2, 3, 12, 10]), torch.Size([9, 9, 7]))
    """

    def __init__(
        self,
        parts: int,
        kernel_size: Any = 45,
        *,
        ndim: int = 2,
        pairs: Sequence[tuple[int, int]] | None = None,
        unary: str = "relu",
    ) -> None:
        super().__init__()
        if unary not in ("relu", "softmax"):
            raise ArgumentError(f"unary={unary!r} must be 'relu' or 'softmax'")
        self.conv = function("conv", ndim)
        self.parts, self.ndim, self.unary = integer(parts, "parts", 1), ndim, unary
        self.kernel_size = per_axis(kernel_size, ndim, "kernel_size", 1)
        if any(k % 2 == 0 for k in self.kernel_size):
            raise ArgumentError(f"kernel_size={self.kernel_size} must be odd along every axis, so that offset 0 has a place")
        given = [(a, v) for a in range(parts) for v in range(parts)] if pairs is None else [(int(a), int(v)) for a, v in pairs]
        outside = [p for p in given if not all(0 <= k < parts for k in p)]
        if outside or not given or len({*given}) < len(given):
            raise ArgumentError(f"pairs={given} must be different pairs (target, source) of parts 0 to {parts - 1}, at least one")
        self.pairs = tuple(given)
        kind = torch.get_default_dtype()
        self.kernel = nn.Parameter(torch.empty(len(given), *self.kernel_size, device="cpu", dtype=kind))
        self.bias = nn.Parameter(torch.empty(len(given), device="cpu", dtype=kind))
        for role in (0, 1):
            index = torch.tensor([p[role] for p in given], device="cpu", dtype=torch.long)
            self.register_buffer(("targets", "sources")[role], index, persistent=False)
        self.reset_parameters()

    targets: Tensor
    sources: Tensor

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set a peak for each part and itself, and even priors for all others."""
        for k, (a, v) in enumerate(self.pairs):
            even = 1 / self.kernel[k].numel()
            self.kernel[k] = _inverse_softplus(_OTHER * even if a == v else even)
            if a == v:
                self.kernel[(k, *(n // 2 for n in self.kernel_size))] = _inverse_softplus(_OWN)
        self.bias.fill_(_inverse_softplus(_BIAS))

    def heat_maps(self, unary_logits: Tensor) -> Tensor:
        """Return the maps that the messages are made of, none negative."""
        if self.unary == "relu":
            return unary_logits.relu()
        return unary_logits.flatten(2).softmax(2).view_as(unary_logits)

    def messages(self, heat: Tensor) -> Tensor:
        """Return ``softplus(K) * e_v + softplus(b)`` for every pair, of shape ``(batch, pairs, *space)``."""
        count, pads = len(self.pairs), tuple(k // 2 for k in self.kernel_size)
        kernel = nn.functional.softplus(self.kernel).unsqueeze(1)
        bias = nn.functional.softplus(self.bias)
        sent: Tensor = self.conv(heat[:, self.sources], kernel, bias, padding=pads, groups=count, flip_kernel=True)
        return sent

    def forward(self, unary_logits: Tensor, features: None = None) -> Tensor:
        """Return ``log e'``, of the shape of the scores.

        Raises
        ------
        ArgumentError, ArgumentTypeError, DTypeError, ShapeError
            With the actual numbers; also if features are given, which this model does not read.
        """
        no_features(features, "a SpatialModel")
        check_unary(unary_logits, self.ndim, self.parts)
        sent = self.messages(self.heat_maps(unary_logits))
        logs = sent.clamp_min(torch.finfo(sent.dtype).tiny).log()  # the transforms of large kernels may leave dust below 0
        return torch.zeros_like(unary_logits).index_add(1, self.targets, logs)

    def extra_repr(self) -> str:
        """Return what it is made for."""
        return f"{self.parts}, kernel_size={self.kernel_size}, pairs={len(self.pairs)}, unary={self.unary!r}"


def _inverse_softplus(value: float) -> Tensor:
    return torch.tensor(value, device="cpu", dtype=torch.double).expm1().log()
