"""Label maps cleaned by an energy that a convolutional network defines (Ning et al. 2005)."""

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ninefold.errors import ArgumentError
from ninefold.spec.parse import integer, number, per_axis
from ninefold.structured.crf.maps import check_unary, no_features
from ninefold.structured.networks.parts import check_labels, function

__all__ = ["EnergyCleaning"]


class EnergyCleaning(nn.Module):
    """An energy of label maps, low where each window of labels looks like one of those learned from.

    ``E(y; x) = -sum_v y_v . (A x_v) - sum_(v, m) c_m g( (W_m * y)(v) + b_m )`` with ``g(u) = u^2 / (1 + u^2)``, for label maps y
    (one-hot, or probabilities) and observed logits x. The first sum holds y to what was seen. The second is a layer of
    convolutions on the labels, each of which rewards (c > 0) or punishes a pattern.

    *Toward automatic phenotyping of developing embryos from videos* (IEEE Transactions on Image Processing 14:1360) cleans the
    label maps of cells with an energy-based model of this kind. Its exact form is not restated here: g, A and c are choices.

    Parameters
    ----------
    classes : int
    patterns : int
        How many windows W are learned.
    kernel_size : int or tuple of int
        Of a window; odd.
    ndim : {1, 2, 3}
    iterations : int
        Steps of the descent of a call that does not say otherwise.
    rate : float
        Share of a step, above 0 and at most 1. Small ones never raise the free energy; 1 is the parallel mean-field update.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a model.

    Notes
    -----
    The usual sentence, that a convolutional network "can maximise the approximate solution of the graphical model", is a slip.
    It is trained to maximise an approximation of the graphical model's *training objective*, whose normalisation is a sum over
    all label maps. There are two here:

    * the cross-entropy of what a call gives: the descent's marginals in place of the exact ones, steps and all;
    * `pseudo_likelihood`: each label given the true ones around it, which is exact and needs no descent.

    The first is the one to clean with. Measured on stripes two positions wide under noise, 12 maps to learn from and 12 others:
    of 10.5, 18.8 and 24.9% wrong labels it leaves 0.0 to 0.4, 0.0 to 0.1 and 0.2 to 8.9% (two seeds). With the second, a label is
    certain given true neighbours, but neighbours are not true when the descent begins: it leaves 15 to 44%, more than there were.

    Examples
    --------
    >>> model = EnergyCleaning(3, 4)
    >>> model(torch.zeros(2, 3, 9, 7)).shape
    torch.Size([2, 3, 9, 7])
    """

    def __init__(
        self, classes: int, patterns: int = 10, kernel_size: Any = 5, *, ndim: int = 2, iterations: int = 10, rate: float = 0.5
    ) -> None:
        super().__init__()
        self.conv, self.transposed = function("conv", ndim), function("conv_transpose", ndim)
        self.classes, self.ndim = integer(classes, "classes", 1), ndim
        self.kernel_size = per_axis(kernel_size, ndim, "kernel_size", 1)
        if any(k % 2 == 0 for k in self.kernel_size):
            raise ArgumentError(f"kernel_size={self.kernel_size} must be odd along every axis, so that windows have a centre")
        if not 0 < number(rate, "rate") <= 1:
            raise ArgumentError(f"rate={rate} must be above 0 and at most 1")
        self.iterations, self.rate = integer(iterations, "iterations", 0), float(rate)
        count, kind = integer(patterns, "patterns", 1), torch.get_default_dtype()
        self.A = nn.Parameter(torch.eye(classes, device="cpu", dtype=kind))
        first = torch.randn(count, classes, *self.kernel_size, device="cpu", dtype=kind)
        self.W = nn.Parameter(first / prod(self.kernel_size) ** 0.5)
        self.b = nn.Parameter(torch.zeros(count, device="cpu", dtype=kind))
        self.c = nn.Parameter(torch.full((count,), 0.1, device="cpu", dtype=kind))

    @property
    def _pads(self) -> tuple[int, ...]:
        return tuple(k // 2 for k in self.kernel_size)

    def association(self, unary_logits: Tensor) -> Tensor:
        """Return ``A x`` at every position."""
        return torch.einsum("kl,nl...->nk...", self.A, unary_logits)

    def _along(self, v: Tensor) -> Tensor:
        """Return one number per pattern, to be multiplied with maps."""
        return v.reshape(-1, *[1] * self.ndim)

    def _windows(self, y: Tensor) -> Tensor:
        u: Tensor = self.conv(y, self.W, self.b, padding=self._pads)
        return u

    def energy(self, y: Tensor, unary_logits: Tensor) -> Tensor:
        """Return E, one number per example.

        Parameters
        ----------
        y : Tensor of shape ``(batch, classes, *space)``
            One-hot labels or probabilities.
        unary_logits : Tensor of the same shape
        """
        self._check(unary_logits)
        held: Tensor = (y * self.association(unary_logits)).flatten(1).sum(1)
        rewards: Tensor = (self._along(self.c) * _g(self._windows(y))).flatten(1).sum(1)
        return -held - rewards

    def score(self, y: Tensor, unary_logits: Tensor) -> Tensor:
        """Return ``-dE/dy``: how much each label of each position would lower the energy, to first order."""
        u = self._windows(y)
        slope = self._along(self.c) * 2 * u / (1 + u.square()).square()
        pulled: Tensor = self.transposed(slope, self.W, padding=self._pads)
        return self.association(unary_logits) + pulled

    def free_energy(self, y: Tensor, unary_logits: Tensor) -> Tensor:
        """Return the energy less the entropy of y, one number per example: what the descent lowers."""
        entropy: Tensor = -torch.special.xlogy(y, y).flatten(1).sum(1)
        return self.energy(y, unary_logits) - entropy

    def forward(self, unary_logits: Tensor, features: None = None, *, iterations: int | None = None) -> Tensor:
        """Return the logits of the cleaned label map, by mirror descent on the free energy from ``A x``; differentiable.

        Raises
        ------
        ArgumentError, ArgumentTypeError, DTypeError, ShapeError
            With the actual numbers; also if features are given, which this model does not read.
        """
        no_features(features, "an EnergyCleaning")
        self._check(unary_logits)
        logits = self.association(unary_logits)
        for _ in range(self.iterations if iterations is None else integer(iterations, "iterations", 0)):
            logits = torch.lerp(logits, self.score(logits.softmax(1), unary_logits), self.rate)
        return logits

    def conditional_logits(self, unary_logits: Tensor, labels: Tensor, *, ignore_index: int = -100) -> Tensor:
        """Return the exact logits of each position's label given those of all others, ``(batch, classes, *space)``.

        Parameters
        ----------
        unary_logits : Tensor of shape ``(batch, classes, *space)``
        labels : Tensor of whole numbers, of shape ``(batch, *space)``
        ignore_index : int
            Label of positions that have none: they are nothing in the windows of others.

        Raises
        ------
        ArgumentError, DTypeError, ShapeError
            If labels do not fit.

        Notes
        -----
        A label in another place changes the windows that it is in. All changes are counted tap by tap: ``taps classes`` passes
        over the patterns' maps, and memory for one.
        """
        self._check(unary_logits)
        check_labels(labels, (len(unary_logits), *unary_logits.shape[2:]))
        known = labels != ignore_index
        wrong = known & ((labels < 0) | (labels >= self.classes))
        if bool(wrong.any()):
            raise ArgumentError(f"label {int(labels[wrong][0])} is none of 0 to {self.classes - 1}")
        place = labels.long().where(known, 0)
        y = nn.functional.one_hot(place, self.classes).movedim(-1, 1) * known.unsqueeze(1)
        u = self._windows(y.to(unary_logits.dtype))
        changes = [torch.zeros_like(u[:, 0]) for _ in range(self.classes)]
        for tap, seen, there in self._taps(u):
            at: Any = (slice(None), slice(None), *tap)
            weights = self.W[at]
            own = weights[:, place].movedim(0, 1) * known.unsqueeze(1)
            before = _g(seen)
            for k in range(self.classes):
                change = _g(seen + self._along(weights[:, k]) - own) - before
                changes[k] = changes[k] + (self._along(self.c) * change * there).sum(1)
        return self.association(unary_logits) + torch.stack(changes, 1)

    def _taps(self, u: Tensor) -> Iterator[tuple[tuple[int, ...], Tensor, Tensor]]:
        """Give for each tap the patterns' maps at the windows in which a position is at that tap, and where there are such."""
        around = [p for pad in reversed(self._pads) for p in (pad, pad)]
        wide, there = nn.functional.pad(u, around), nn.functional.pad(torch.ones_like(u[:1, :1]), around)
        for tap in product(*map(range, self.kernel_size)):
            cut: Any = (
                ...,
                *(slice(k - 1 - t, k - 1 - t + n) for k, t, n in zip(self.kernel_size, tap, u.shape[2:], strict=True)),
            )
            yield tap, wide[cut], there[cut]

    def pseudo_likelihood(self, unary_logits: Tensor, labels: Tensor, *, ignore_index: int = -100) -> Tensor:
        """Return minus the mean log-probability of each label given all others (Besag 1975); the class says when to use it.

        Examples
        --------
        >>> model = EnergyCleaning(2, 1)
        >>> _ = torch.nn.init.zeros_(model.c)
        >>> model.pseudo_likelihood(torch.zeros(1, 2, 4, 3), torch.ones(1, 4, 3, dtype=torch.long)).item()
        0.6931...
        """
        logits = self.conditional_logits(unary_logits, labels, ignore_index=ignore_index)
        if not bool((labels != ignore_index).any()):
            return logits.sum() * 0
        return nn.functional.cross_entropy(logits, labels.long(), ignore_index=ignore_index)

    def _check(self, unary_logits: Tensor) -> None:
        check_unary(unary_logits, self.ndim, self.classes)
        if bool(unary_logits.isneginf().any()):
            raise ArgumentError("the unary logits hold minus infinity, which A mixes with other labels; clamp them, to -30 say")

    def extra_repr(self) -> str:
        """Return what it is made for."""
        return f"{self.classes}, {len(self.b)}, {self.kernel_size}, iterations={self.iterations}, rate={self.rate}"


def _g(u: Tensor) -> Tensor:
    square = u.square()
    return square / (1 + square)
