"""Gain-shape vector quantisation, and orthogonal matching pursuit with more than one atom (Coates and Ng 2011)."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.base import PatchSource, seed_of, size_of, whole
from ninefold.learn.images import Channels, Images
from ninefold.learn.patches import Preparation, draw_patches
from ninefold.learn.simple import at_most

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OMPFilters", "matching_pursuit"]

_BLOCK = 1 << 22
"""Products of patches and atoms in memory at a time: 16 MiB, whatever the number of either."""


class OMPFilters(PatchSource):
    """Unit atoms of which each patch takes the best few: OMP-k training, gain-shape vector quantisation for one atom.

    Each iteration gives every patch its code, by orthogonal matching pursuit, and then every atom the direction that is best for
    the codes: for ``n_nonzero=1`` the sum of its patches, each weighted with its signed product, normalised. The mean squared
    error of ``n_nonzero=1`` never increases, except where atoms are revived. Products are made in blocks, so that memory does
    not grow with the number of patches times the number of atoms. Parameters are those of `PatchSource` and these.

    Parameters
    ----------
    n_nonzero : int
        Atoms in a code, no more than there are filters.
    max_iter : int
    revival : float or None
        An atom whose coefficients have less than this share of the mean energy of all atoms is replaced by a patch, drawn with a
        chance in proportion to its squared error; None never does. (The published code takes random numbers; a patch cannot
        be of no use to any patch.)
    progress : callable, optional
        Called with (iterations done, `max_iter`) after each of `fit`, when its atoms are in place.

    Attributes
    ----------
    objective_ : list of float
        Mean over the patches of ``|x - D z|^2``, by iteration, before the atoms are updated.
    history_ : dict of str to list of float
        By iteration: ``"error"``, `objective_` over the mean of ``|x|^2``, and ``"sparsity"``, the share of coefficients, of all
        atoms, that are not zero.
    revived_ : int
        How many atoms were replaced.
    sums_ : Tensor
        ``(K, d)``: patches weighted with coefficients; `partial_fit` adds to it.
    energy_ : Tensor
        ``(K,)``: squared coefficients.
    products_ : Tensor or None
        ``(K, K)``: products of coefficients; None for ``n_nonzero=1``, where they are diagonal.

    Examples
    --------
    >>> images = np.random.default_rng(0).normal(size=(30, 9, 8))
    >>> source = OMPFilters(7, 3, max_iter=10, random_state=0).fit(images)
    >>> source.filters_.shape, bool(np.allclose(np.square(source.atoms_).sum((1, 2, 3)), 1))
    ((7, 1, 3, 3), True)
    """

    _random: Tensor

    def __init__(
        self,
        n_filters: int = 256,
        patch_size: int | tuple[int, int] = 6,
        *,
        n_nonzero: int = 1,
        n_patches: int = 100_000,
        contrast: Any = "auto",
        whitening: float | None = 0.1,
        max_iter: int = 50,
        revival: float | None = 1e-3,
        channels: Channels = "auto",
        random_state: Any = None,
        progress: "Callable[[int, int], None] | None" = None,
    ) -> None:
        super().__init__(
            n_filters,
            patch_size,
            n_patches=n_patches,
            contrast=contrast,
            whitening=whitening,
            channels=channels,
            random_state=random_state,
        )
        self.n_nonzero = n_nonzero
        self.max_iter = max_iter
        self.revival = revival
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Draw patches and learn from them; an interrupt leaves the atoms of the last full iteration, and `partial_fit` goes on.

        Raises
        ------
        ArgumentError, ArgumentTypeError, ShapeError
            If a parameter is out of its range, or the images do not fit, or are constant.
        """
        whole(self.max_iter, "max_iter")
        return self._iterated(*self._started(X, afresh=True))

    def _resume(self, X: Any) -> Self:
        """Go on with a `fit` of a seed that ended early, with the same images, as if it had not."""
        rows, generator, shape = self._started(X, afresh=False)
        generator.set_state(self._random)
        return self._iterated(rows, generator, shape)

    def _iterated(self, rows: Tensor, generator: torch.Generator, shape: tuple[int, ...]) -> Self:
        try:
            for k in range(len(self.objective_), self.max_iter):
                self._iterate(rows, generator, kept=0.0)
                if self.progress is not None:
                    self._random = generator.get_state()
                    self._learned(self._atoms.reshape(shape), self.preparation_)
                    self.progress(k + 1, self.max_iter)
        finally:
            self._learned(self._atoms.reshape(shape), self.preparation_)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Go on with one iteration over patches of more images, added to what the atoms were made of before.

        The first call fixes brightness, contrast and whitening.

        Raises
        ------
        ArgumentError, ArgumentTypeError, ShapeError
            As `fit`; and if the images have other channels than those before.

        Examples
        --------
        >>> source, images = OMPFilters(7, 3, random_state=0), np.random.default_rng(0).normal(size=(30, 9, 8))
        >>> source.partial_fit(images[:15]).partial_fit(images[15:]).filters_.shape
        (7, 1, 3, 3)
        """
        rows, generator, shape = self._started(X, afresh=not hasattr(self, "sums_"))
        self._iterate(rows, generator, kept=1.0)
        return self._learned(self._atoms.reshape(shape), self.preparation_)

    def _started(self, X: Any, *, afresh: bool) -> tuple[Tensor, torch.Generator, tuple[int, ...]]:
        """Return prepared patches, a generator and the shape of the atoms, which are there afterwards."""
        count, size, seed = whole(self.n_filters, "n_filters"), size_of(self.patch_size), seed_of(self.random_state)
        if whole(self.n_nonzero, "n_nonzero") > count:
            raise ArgumentError(
                f"n_nonzero={self.n_nonzero} atoms in a code, but n_filters={count}: a code takes each atom once at most; lower "
                "n_nonzero or learn more filters"
            )
        if self.revival is not None and not 0 <= self.revival < 1:
            raise ArgumentError(f"revival={self.revival} must be from 0 to below 1, or None to leave all atoms as they are")
        generator = torch.Generator("cpu").manual_seed(seed)
        patches = draw_patches(Images(X, self.channels), size, whole(self.n_patches, "n_patches"), seed)
        if not afresh and self.atoms_.shape[1:] != patches.shape[1:]:
            raise ShapeError(f"patches of shape {tuple(patches.shape[1:])}, but the atoms have {self.atoms_.shape[1:]}")
        if afresh:
            self.preparation_ = Preparation.fitted(patches, self._contrast(patches), self.whitening)
        rows = self.preparation_(patches)
        if afresh:
            self._atoms = self._start(rows, count)
            self.sums_: Tensor = torch.zeros_like(self._atoms)
            self.products_: Tensor | None = None
            self.energy_ = torch.zeros(len(self._atoms), dtype=torch.float32, device="cpu")
            self.objective_: list[float] = []
            self.history_: dict[str, list[float]] = {"error": [], "sparsity": []}
            self.revived_ = 0
        return rows, generator, (-1, *patches.shape[1:])

    def _start(self, rows: Tensor, count: int) -> Tensor:
        """Return directions of the first patches, which come in random order, as many as there are different ones."""
        norms = rows.norm(dim=1)
        rows = rows[norms > 1e-5 * norms.max()]
        if not len(rows):
            raise ArgumentError(
                f"all {len(norms)} patches are zero once brightness is taken out: the images are constant, and nothing can be "
                "learned from them"
            )
        found = _different(rows, count)
        count = at_most(count, len(found))
        if count < self.n_nonzero:
            raise ArgumentError(f"n_nonzero={self.n_nonzero}, but the patches have only {count} different directions")
        return found[:count]

    def _iterate(self, rows: Tensor, generator: torch.Generator, kept: float) -> None:
        """Code all patches and update the atoms; `kept` is 1 if what they were made of before counts, too."""
        atoms, k = self._atoms, self.n_nonzero
        sums = self.sums_ * kept
        products = None if k == 1 else torch.zeros(len(atoms), len(atoms), dtype=torch.float32, device="cpu")
        if products is not None and self.products_ is not None:
            products += kept * self.products_
        errors, used, squares, energy = [], 0, 0.0, self.energy_ * kept
        for part in rows.split(max(1, _BLOCK // max(len(atoms), k * atoms.shape[1]))):
            chosen, codes = _best(part, atoms) if k == 1 else matching_pursuit(part, atoms, k)
            used, squares = used + int(codes.count_nonzero()), squares + float(part.square().sum())
            errors.append((part - torch.einsum("ns,nsd->nd", codes, atoms[chosen])).square().sum(1))
            for s in range(k):
                sums.index_add_(0, chosen[:, s], codes[:, s, None] * part)
                energy.index_add_(0, chosen[:, s], codes[:, s].square())
            if products is not None:
                where = chosen[:, :, None] * len(atoms) + chosen[:, None, :]
                products.view(-1).index_add_(0, where.flatten(), (codes[:, :, None] * codes[:, None, :]).flatten())
        error = torch.cat(errors)
        atoms = _updated(atoms, sums, products)
        dead = self._dead(energy)
        if len(dead) and bool(error.any()):
            atoms[dead] = _drawn(rows, error, atoms[dead], generator)
            energy[dead], sums[dead] = 0, 0
            if products is not None:
                products[dead], products[:, dead] = 0, 0
            self.revived_ += len(dead)
        self.objective_.append(float(error.double().mean()))
        self.history_["error"].append(float(error.double().sum()) / squares if squares else 0.0)
        self.history_["sparsity"].append(used / (len(rows) * len(atoms)))
        # All together and behind all work, so that an interrupt splits nothing.
        self._atoms, self.sums_, self.products_, self.energy_ = atoms, sums, products, energy

    def _dead(self, energy: Tensor) -> Tensor:
        limit = -1.0 if self.revival is None else self.revival * float(energy.mean())
        return (energy <= limit).nonzero().flatten()

    def _dictionary(self, patches: Tensor, count: int, seed: int) -> Tensor:  # pragma: no cover
        raise NotImplementedError  # `fit` keeps its state between iterations


def matching_pursuit(rows: Tensor, atoms: Tensor, n_nonzero: int) -> tuple[Tensor, Tensor]:
    """Code every row by orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad 1993).

    The atom of the largest product with what is left joins, and all coefficients are then the best ones for the atoms that
    have joined. Atoms that depend on those before get a coefficient of zero.

    Parameters
    ----------
    rows : Tensor
        ``(N, d)``.
    atoms : Tensor
        ``(K, d)``, of unit norm.
    n_nonzero : int

    Returns
    -------
    Tensor of int64, Tensor
        ``(N, n_nonzero)``: which atoms, in the order in which they joined, and their coefficients.

    Raises
    ------
    ArgumentError
        If more atoms are asked for than there are.

    Examples
    --------
    >>> chosen, codes = matching_pursuit(torch.tensor([[3.0, -4.0]]), torch.eye(2), 2)
    >>> chosen.tolist(), codes.tolist()
    ([[1, 0]], [[-4.0, 3.0]])
    """
    if n_nonzero > len(atoms):
        raise ArgumentError(f"n_nonzero={n_nonzero} atoms in a code, but there are {len(atoms)}")
    n, d = rows.shape
    basis = torch.zeros(n, n_nonzero, d, dtype=rows.dtype, device=rows.device)
    factor = torch.zeros(n, n_nonzero, n_nonzero, dtype=rows.dtype, device=rows.device)
    chosen = torch.zeros(n, n_nonzero, dtype=torch.int64, device=rows.device)
    left = rows.clone()
    for s in range(n_nonzero):
        dots = (left @ atoms.T).abs_()
        dots.scatter_(1, chosen[:, :s], -1.0)
        chosen[:, s] = dots.argmax(1)
        new = atoms[chosen[:, s]]
        before = basis[:, :s]
        for _ in range(2):  # once more, for what rounding leaves: "twice is enough"
            shares = torch.einsum("nsd,nd->ns", before, new)
            factor[:, :s, s] += shares
            new = new - torch.einsum("ns,nsd->nd", shares, before)
        norm = new.norm(dim=1)
        depends = norm < 1e-4
        basis[:, s] = torch.where(depends[:, None], torch.zeros_like(new), new / norm.clamp_min(1e-30)[:, None])
        factor[:, s, s] = torch.where(depends, torch.ones_like(norm), norm)
        left -= torch.einsum("nd,nd->n", basis[:, s], left)[:, None] * basis[:, s]
    right = torch.einsum("nsd,nd->ns", basis, rows)
    return chosen, torch.linalg.solve_triangular(factor, right[:, :, None], upper=True)[:, :, 0]


def _best(rows: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
    """Return the atom of the largest product, and the product: matching pursuit of one atom."""
    dots = rows @ atoms.T
    high, at_high = dots.max(1)
    low, at_low = dots.min(1)
    upper = high >= -low
    return torch.where(upper, at_high, at_low)[:, None], torch.where(upper, high, low)[:, None]


def _updated(atoms: Tensor, sums: Tensor, products: Tensor | None) -> Tensor:
    """Return the best unit atoms for the codes: all at once if these hold one atom each, else one after the other.

    With the others fixed, the error is ``-2 d_k (sums_k - sum_{j != k} products_kj d_j)`` and what does not depend on d_k.
    """
    if products is None:
        norms = sums.norm(dim=1, keepdim=True)
        return torch.where(norms > 0, sums / norms.clamp_min(1e-30), atoms)
    atoms = atoms.clone()
    for k in range(len(atoms)):
        wanted = sums[k] - products[k] @ atoms + products[k, k] * atoms[k]
        norm = wanted.norm()
        if norm > 1e-12:
            atoms[k] = wanted / norm
    return atoms


def _drawn(rows: Tensor, error: Tensor, dead: Tensor, generator: torch.Generator) -> Tensor:
    """Return the directions of rows drawn in proportion to their error, one for each dead atom; atoms stay where rows end.

    Those with the largest of ``log(u) / error``, u uniform, are such a draw without putting back (Efraimidis and Spirakis 2006).
    """
    uniform = torch.rand(len(error), generator=generator, dtype=torch.float64, device="cpu")
    keys = uniform.log_().div_(error.double().clamp_min_(1e-300))
    drawn = rows[keys.topk(min(len(dead), len(rows))).indices]
    norms, dead = drawn.norm(dim=1, keepdim=True), dead.clone()
    dead[: len(drawn)] = torch.where(norms > 0, drawn / norms.clamp_min(1e-30), dead[: len(drawn)])
    return dead


def _different(rows: Tensor, count: int) -> Tensor:
    """Return the directions of rows, no two the same or opposite, in order: all of them, or at least `count`."""
    for part in (rows[: 4 * count], rows):
        units = part / part.norm(dim=1, keepdim=True)
        first = units.gather(1, units.abs().argmax(1, keepdim=True)).sign()
        _, at = np.unique((units * first).numpy().round(5) + 0.0, axis=0, return_index=True)
        if len(at) >= count:
            break
    return units[torch.from_numpy(np.sort(at))]
