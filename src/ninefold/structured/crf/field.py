"""Mean field of a dense CRF: normalised messages, and parallel updates of the marginals."""

from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from ninefold.engines.native import address, extension_module
from ninefold.errors import ArgumentError
from ninefold.structured.crf.exact import ExactFilter
from ninefold.structured.crf.lattice import LatticeFilter

__all__ = ["Normalization", "Term", "mean_field", "normalization_named"]

Normalization = Literal["none", "before", "after", "symmetric"]
_NAMES = {"NO_NORMALIZATION": "none", **{f"NORMALIZE_{name.upper()}": name for name in get_args(Normalization)[1:]}}
_TINY = 1e-20
_LEFT = 1e-2  # of a pixel's weight in its own sum: less that is left of a lattice's sum would be mostly rounding, enlarged


def normalization_named(name: str) -> Normalization:
    """Return one of the four normalisations, by its name here or in pydensecrf.

    Examples
    --------
    >>> normalization_named("NORMALIZE_SYMMETRIC")
    'symmetric'
    """
    found = _NAMES.get(name, name)
    for known in get_args(Normalization):
        if found == known:
            return cast("Normalization", known)
    raise ArgumentError(f"normalization={name!r}; it must be one of {', '.join(get_args(Normalization))}, or {', '.join(_NAMES)}")


@dataclass
class Term:
    """A pairwise term: a filter, what is multiplied before and after it, and the energies of pairs of labels.

    ``message = after (K - self) (before q)``; its energies are ``message matrix'``.

    Parameters
    ----------
    filter : ExactFilter or LatticeFilter
        K of ``(N, d)`` features.
    matrix : Tensor
        ``(L, L)``, or ``(L,)`` for a diagonal one: the energy of a pair of labels, the pixel's own first.
    before, after, own : Tensor, optional
        ``(N,)`` each; `own` is the diagonal that is taken off.
    """

    filter: ExactFilter | LatticeFilter
    matrix: Tensor
    before: Tensor | None = None
    after: Tensor | None = None
    own: Tensor | None = None

    @classmethod
    def made(cls, kernel: ExactFilter | LatticeFilter, matrix: Tensor, normalization: Normalization, self_term: bool) -> "Term":
        """Return a term that is normalised by its kernel's sums of ones, without the self term where that is out."""
        term = cls(kernel, matrix, own=None if self_term else kernel.diagonal())
        if normalization == "none":
            return term
        features = kernel.features
        sums = kernel(features.new_ones(len(features), 1))[:, 0]
        if term.own is not None:
            left = sums - term.own
            alone = left <= _LEFT * term.own if isinstance(kernel, LatticeFilter) else left <= 0
            sums = torch.where(alone, torch.inf, left)  # who has no neighbours gets no message
        if normalization == "symmetric":
            term.before = term.after = (sums + _TINY).rsqrt()
        elif normalization == "before":
            term.before = 1 / (sums + _TINY)
        else:
            term.after = 1 / (sums + _TINY)
        return term

    def message(self, q: Tensor) -> Tensor:
        """Return the message of marginals ``(N, L)``, ``(N, L)``."""
        before = q if self.before is None else q * self.before[:, None]
        out = self.filter(before)
        if self.own is not None:
            out = out - self.own[:, None] * before
        return out if self.after is None else out * self.after[:, None]

    def energies(self, q: Tensor) -> Tensor:
        """Return what the term adds to the energies, ``(N, L)``."""
        message = self.message(q)
        return message * self.matrix if self.matrix.ndim == 1 else message @ self.matrix.T


def mean_field(unary: Tensor, terms: list[Term], steps: int, start: Tensor | None = None, *, log: bool = False) -> Tensor:
    """Return marginals after parallel updates ``q = softmax(-unary - sum of energies)``, or their logarithms.

    Parameters
    ----------
    unary : Tensor
        Energies ``(L, N)``.
    terms : list of Term
        All on lattices, or all exact.
    steps : int
        Updates; 0 gives the softmax of ``-unary``, or `start`.
    start : Tensor, optional
        Marginals to begin with, ``(L, N)``.
    log : bool
        Of marginals that are 0 in their dtype, too; of one step at least.
    """
    if log:
        q = mean_field(unary, terms, steps - 1, start)
        return (-_updated(unary.T, terms, q.T)).log_softmax(1).T
    tensors = [unary, *(x for t in terms for x in (t.matrix, t.before, t.after, t.filter.features) if x is not None)]
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    if not wanted and terms and _native(unary, terms):
        return _in_one_pass(unary, terms, steps, start)
    energies = unary.T
    q = (-energies).softmax(1) if start is None else start.T
    for _ in range(steps):
        q = (-_updated(energies, terms, q)).softmax(1)
    return q.T


def _updated(energies: Tensor, terms: list[Term], q: Tensor) -> Tensor:
    """Return all energies of an update, ``(N, L)``."""
    for term in terms:
        energies = energies + term.energies(q)
    return energies


def _native(unary: Tensor, terms: list[Term]) -> bool:
    if not all(isinstance(t.filter, LatticeFilter) for t in terms):
        return False
    module = extension_module()
    return bool(len(unary) <= module.LATTICE_LABELS and len(terms) <= module.LATTICE_TERMS)


def _in_one_pass(unary: Tensor, terms: list[Term], steps: int, start: Tensor | None) -> Tensor:
    """Run all steps in native code: per step one pass over the points, which read, update and spread at once."""
    unary = unary.detach().resolve_neg().contiguous()
    q = torch.empty_like(unary) if start is None else start.detach().clone(memory_format=torch.contiguous_format)
    held: list[Tensor] = []

    def at(x: Tensor | None) -> int:
        if x is None:
            return 0
        held.append(x.detach().resolve_neg().contiguous())
        return address(held[-1])

    numbers = []
    for t in terms:
        full = t.matrix.ndim == 2
        numbers += [at(t.before), at(t.after), at(t.own), at(t.matrix if full else None), at(None if full else t.matrix)]
        numbers.append(int(isinstance(t.filter, LatticeFilter) and t.filter.blur == "both"))
    lattices = [t.filter.native for t in terms if isinstance(t.filter, LatticeFilter)]
    extension_module().mean_field(
        lattices, numbers, address(unary), address(q), len(unary), steps, start is not None, torch.get_num_threads()
    )
    return q
