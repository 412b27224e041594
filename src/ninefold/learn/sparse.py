"""Filters from convolutional sparse coding, and a convolution that predicts the codes (Kavukcuoglu et al. 2010)."""

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ninefold import nn
from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.atoms import energies, unit, updated_atoms
from ninefold.learn.base import FilterSource, seed_of, size_of, tensor_of, whole
from ninefold.learn.coding import BORDERS, Splitting, analysis, largest_penalty, sparse_codes, synthesis
from ninefold.learn.images import Channels, Images
from ninefold.learn.patches import Preparation, draw_patches
from ninefold.learn.simple import at_most

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["SparseCodingFilters", "updated_atoms"]

_CODES = 1 << 28
"""Bytes of codes and dual variables at a time, about; images come in parts of as many as that allows, at least one."""
_FIRST = 5  # iterations over codes alone when images come to atoms that have seen others: their first codes would spoil these
_CROP = 48  # side of what the predictor sees in a step
_RATE = 0.02  # of its steps, by Adam


class SparseCodingFilters(FilterSource):
    """A dictionary for whole images, ``min |x - sum_k D_k * z_k|^2 / 2 + penalty |z|_1``, and a predictor of its codes.

    An iteration takes one step of ADMM for all codes and three steps of projected gradient for the atoms, whose length is the
    best one (all is quadratic in them). Images that do not fit into memory together with their codes come in parts, and the atoms
    become a mean of what each part wants, later ones counting less.

    Parameters
    ----------
    n_filters : int
    patch_size : int or tuple of int
        Height and width of an atom.
    penalty : float
        In units of the images once they are normalised, where most values are within 3 of zero.
    n_iter : int
        Of learning, for each part of the images, in each epoch.
    n_epochs : int
    window : int or None
        Side of the window, odd, in which images are normalised to no mean and unit deviation; None leaves them as they are.
    pull : float
        Weight of ``|z - prediction|^2 / 2`` in the codes from the second epoch or part on (predictive sparse decomposition); 0
        learns the predictor from codes that know nothing of it.
    predictor_iter : int
        Steps in which the predictor is learned, for each part and epoch; 0 learns none.
    method : {"admm", "fista", "ista"}
        Of `encode`. Learning is always by ADMM.
    border : {"zero", "circular"}
        As in `synthesis`.
    init : array of shape (K, C, h, w), optional
        Atoms to start from; patches of the images by default.
    channels : {"auto", "first", "last", "none"}
        As in `Images`.
    random_state : int, RandomState or None
    progress : callable, optional
        Called after each iteration of `fit`, and at the end of each part of the images, with (iterations done, iterations in all,
        or None where the images come in parts).

    Attributes
    ----------
    predictor_weight_, predictor_bias_, predictor_gain_ : ndarray
        ``(K, C, h, w)``, ``(K,)``, ``(K,)``: codes are predicted as ``gain tanh(weight x + bias)``.
    objective_ : list of float
        Of each iteration, after the step of the atoms, by image.
    sparsity_ : list of float
        The share of codes that are not zero, of each iteration.
    history_ : dict of str to list of float
        By iteration: ``"error"``, ``|x - sum_k D_k * z_k|^2 / |x|^2`` of the images normalised, after the step of the atoms, and
        ``"sparsity"``, which is `sparsity_`.
    prediction_error_ : list of float
        ``|z - prediction|^2 / |z|^2`` on what the predictor saw, of each of its steps.
    revived_ : int
        Atoms that no code used and that were put on patches of what was left.

    Examples
    --------
    >>> images = np.random.default_rng(0).normal(size=(2, 20, 24))
    >>> source = SparseCodingFilters(6, (3, 4), n_iter=5, random_state=0).fit(images)
    >>> source.filters_.shape, source.encode(images).shape, source.predict(images).shape
    ((6, 1, 3, 4), (2, 6, 18, 21), (2, 6, 18, 21))
    """

    _atoms: Tensor
    _parts_seen: int
    _predicts: bool
    _raw_range: float
    _random: Tensor
    _place: tuple[int, int]
    """Of the next part: in which epoch, and which one of it."""
    _held: dict[str, Any] | None
    """What belongs to the part that is being learned from."""

    def __init__(
        self,
        n_filters: int = 64,
        patch_size: int | tuple[int, int] = 8,
        *,
        penalty: float = 0.5,
        n_iter: int = 30,
        n_epochs: int = 1,
        window: int | None = 9,
        pull: float = 0.0,
        predictor_iter: int = 50,
        method: str = "admm",
        border: str = "zero",
        init: Any = None,
        channels: Channels = "auto",
        random_state: Any = None,
        progress: "Callable[[int, int | None], None] | None" = None,
    ) -> None:
        self.n_filters = n_filters
        self.patch_size = patch_size
        self.penalty = penalty
        self.n_iter = n_iter
        self.n_epochs = n_epochs
        self.window = window
        self.pull = pull
        self.predictor_iter = predictor_iter
        self.method = method
        self.border = border
        self.init = init
        self.channels = channels
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Learn from images; an interrupt leaves the atoms of the last full iteration, and `partial_fit` goes on.

        Raises
        ------
        ArgumentError, ArgumentTypeError, ShapeError
            If a parameter is out of its range, or the images do not fit, or are constant, or so faint that no code is above zero.
        """
        self._check()
        images = Images(X, self.channels)
        if images.once and self.n_epochs > 1:
            raise ArgumentError(
                f"n_epochs={self.n_epochs}, but the images can be read only once; give a list of them or n_epochs=1"
            )
        for name in ("_atoms", "atoms_", "filters_"):
            self.__dict__.pop(name, None)
        return self._run(images, self.n_epochs, tell=True)

    def _resume(self, X: Any) -> Self:
        """Go on with a `fit` that ended early where `progress` was called, with the same images, as if it had not."""
        self._check()
        return self._run(Images(X, self.channels), self.n_epochs, tell=True, afresh=False)

    def partial_fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Go on learning from more images, one epoch.

        Raises
        ------
        ArgumentError, ArgumentTypeError, ShapeError
            As `fit`; and if the images have other channels than those before.

        Examples
        --------
        >>> images = np.random.default_rng(0).normal(size=(4, 20, 24))
        >>> source = SparseCodingFilters(6, (3, 4), n_iter=5, random_state=0)
        >>> source.partial_fit(images[:2]).partial_fit(images[2:]).filters_.shape
        (6, 1, 3, 4)
        """
        self._check()
        return self._run(Images(X, self.channels), 1)

    def _check(self) -> None:
        for name in ("n_filters", "n_iter", "n_epochs"):
            whole(getattr(self, name), name)
        size_of(self.patch_size)
        if self.predictor_iter != 0:
            whole(self.predictor_iter, "predictor_iter")
        if not self.penalty > 0 or not self.pull >= 0:
            raise ArgumentError(f"penalty={self.penalty} must be above 0, and pull={self.pull} must not be below it")
        if self.pull and not self.predictor_iter:
            raise ArgumentError(f"pull={self.pull} towards a predictor that predictor_iter=0 does not learn")
        if self.border not in BORDERS:
            raise ArgumentError(f"border={self.border!r} is not one of {BORDERS}")
        if self.window is not None and (whole(self.window, "window") % 2 == 0 or self.window < 3):
            raise ArgumentError(f"window={self.window} must be odd and at least 3, or None")

    def _run(self, images: Images, epochs: int, *, tell: bool = False, afresh: bool = True) -> Self:
        generator = torch.Generator("cpu").manual_seed(seed_of(self.random_state))
        if afresh:
            self._place, self._held = (0, 0), None
        else:
            generator.set_state(self._random)
        try:
            for epoch in range(self._place[0], epochs):
                parts = self._parts(images)
                first, second = next(parts, None), next(parts, None)
                if first is None:
                    raise ArgumentError("there are no images to learn from")
                single = second is None  # the codes are kept over all epochs
                for k, part in enumerate(chain((first,), () if second is None else (second,), parts)):
                    if k >= self._place[1]:
                        self._learn(part, generator, epochs if single else 1, single, tell)
                        self._place = epoch, k + 1
                        self._tell(generator, epochs, single, tell)
                self._place = epochs if single else epoch + 1, 0
                if single:
                    break
        finally:
            self._held = None
            if hasattr(self, "_atoms"):
                self._learned(unit(self._atoms), self.preparation_)
        return self

    def _parts(self, images: Images) -> Iterator[Tensor]:
        """Yield normalised images, as many at a time as their codes allow."""
        size = size_of(self.patch_size)
        for batch in images:
            if batch.shape[2] < size[0] or batch.shape[3] < size[1]:
                raise ShapeError(f"an image of {batch.shape[2]}x{batch.shape[3]} is smaller than an atom of {size[0]}x{size[1]}")
            if hasattr(self, "_atoms") and batch.shape[1] != self._atoms.shape[1]:
                raise ShapeError(f"images of {batch.shape[1]} channels, but the atoms have {self._atoms.shape[1]}")
            each = self.n_filters * batch.shape[2] * batch.shape[3] * 8
            for part in batch.split(max(1, _CODES // each)):
                if not hasattr(self, "_atoms"):
                    self._raw_range = float(part.max() - part.min())
                yield self._normalised(part)

    def _normalised(self, images: Tensor) -> Tensor:
        if self.window is None:
            return images
        fitting = tuple(min(self.window, n - 1 + n % 2) for n in images.shape[2:])
        return nn.LocalContrastNorm2d(fitting)(images)

    def _learn(self, part: Tensor, generator: torch.Generator, epochs: int, single: bool, tell: bool) -> None:
        fresh = not hasattr(self, "_atoms")
        if fresh:
            self._start(part, generator)
        if self._held is None:
            size = (self._atoms.shape[2], self._atoms.shape[3])
            state = Splitting(part, size, len(self._atoms), self.penalty, border=self.border)
            self._held = {"state": state, "before": self._atoms, "fresh": fresh, "epoch": 0, "iteration": 0}
        held = self._held
        state, squares = held["state"], float(part.double().square().sum())
        while held["epoch"] < epochs:
            if not held["iteration"]:
                if self.pull and self._predicts:
                    state.towards(self._predicted(part), self.pull)
                for _ in range(_FIRST if not held["fresh"] and not held["epoch"] else 0):
                    state.step(self._atoms)
            for done in range(held["iteration"], self.n_iter):
                self._iterate(state, squares, len(part))
                held["iteration"] = done + 1
                self._tell(generator, epochs, single, tell)
            if self.predictor_iter:
                self._learn_predictor(part, state.step(self._atoms, keep=True), generator)
            held["epoch"], held["iteration"] = held["epoch"] + 1, 0
        before, share = held["before"], 1 / (self._parts_seen + 1) ** 0.5
        mixed = self._atoms if share == 1 else before + share * (self._atoms - before)
        self._atoms = self._revived(state, mixed, generator)
        self._parts_seen, self._held = self._parts_seen + 1, None

    def _iterate(self, state: Splitting, squares: float, count: int) -> None:
        state.step(self._atoms)
        atoms, squared = updated_atoms(state, self._atoms)
        self.objective_.append((squared / 2 + self.penalty * state.l1) / count)
        self.sparsity_.append(state.nonzero / state.possible)
        self.history_["error"].append(squared / squares if squares else 0.0)
        self._atoms = atoms

    def _tell(self, generator: torch.Generator, epochs: int, single: bool, tell: bool) -> None:
        if tell and self.progress is not None:
            self._random = generator.get_state()
            self.progress(len(self.objective_), epochs * self.n_iter if single else None)

    def _start(self, part: Tensor, generator: torch.Generator) -> None:
        size, count, channels = size_of(self.patch_size), self.n_filters, part.shape[1]
        if not float(part.abs().max()) > 1e-6 * max(1e-30, self._raw_range):
            raise ArgumentError(f"all {len(part)} images are constant: nothing can be learned from them")
        if self.init is not None:
            atoms = torch.from_numpy(np.array(self.init, np.float32))
            if atoms.shape != (count, channels, *size):
                raise ShapeError(f"init has shape {tuple(atoms.shape)}, but the atoms will have {(count, channels, *size)}")
        else:
            seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device="cpu"))
            atoms = draw_patches(Images(part, "first"), size, count, seed)
            atoms = atoms[: at_most(count, len(atoms))]
        noise = torch.randn(atoms.shape, generator=generator, dtype=torch.float32, device="cpu")
        norms = atoms.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        atoms = unit(torch.where(norms > 1e-6, atoms, noise))
        if self.penalty >= (most := largest_penalty(part, atoms, self.border)):
            raise ArgumentError(f"penalty={self.penalty:g} makes all codes zero; it must be below max |D corr x| = {most:.4g}")
        self._predicts, self._parts_seen, self.revived_ = False, 0, 0
        self.objective_: list[float] = []
        self.sparsity_: list[float] = []
        self.history_: dict[str, list[float]] = {"error": [], "sparsity": self.sparsity_}
        self.prediction_error_: list[float] = []
        self.predictor_weight_, self.predictor_bias_, self.predictor_gain_ = _as_arrays(
            atoms, atoms.new_zeros(len(atoms)), atoms.new_ones(len(atoms))
        )
        self.preparation_ = Preparation.none(atoms[0].numel())
        if self.window is not None:
            self.preparation_.contrast = 10 * ((self._raw_range or 1.0) / 255) ** 2
        self._atoms = atoms

    def _revived(self, state: Splitting, atoms: Tensor, generator: torch.Generator) -> Tensor:
        """Put atoms that no code uses on patches of what the others leave."""
        unused = (energies(state) == 0).nonzero().flatten()
        if not len(unused):
            return atoms
        left = state.residual(torch.fft.rfft2(atoms, s=state.size)).neg()
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device="cpu"))
        drawn = draw_patches(Images(torch.fft.irfft2(left, s=state.size), "first"), size_of(self.patch_size), len(unused), seed)
        atoms = atoms.clone()
        atoms[unused[: len(drawn)]] = unit(drawn)
        self.revived_ += len(drawn)
        return atoms

    def _learn_predictor(self, images: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        """Fit the predictor to codes on crops at random positions."""
        values = [tensor_of(v).clone().requires_grad_() for v in self._predictor()]
        optimizer = torch.optim.Adam(values, lr=_RATE)
        height, width = (min(_CROP, n) for n in codes.shape[2:])
        edge = (values[0].shape[2] - 1, values[0].shape[3] - 1)
        for _ in range(self.predictor_iter):
            room = (images.shape[2] - edge[0] - height, images.shape[3] - edge[1] - width)
            top, left = (int(torch.randint(max(0, n) + 1, (1,), generator=generator, device="cpu")) for n in room)
            inside = images[:, :, top : top + height + edge[0], left : left + width + edge[1]]
            with torch.enable_grad():
                found = _predict(inside, values, "zero")
                wanted = codes[:, :, top : top + found.shape[2], left : left + found.shape[3]]
                error = (found - wanted).square().sum() / wanted.square().sum().clamp_min(1e-12)
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            self.prediction_error_.append(float(error.detach()))
        self.predictor_weight_, self.predictor_bias_, self.predictor_gain_ = _as_arrays(*(v.detach() for v in values))
        self._predicts = True

    def _predictor(self) -> "tuple[NDArray[np.float32], ...]":
        return self.predictor_weight_, self.predictor_bias_, self.predictor_gain_

    def _predicted(self, images: Tensor) -> Tensor:
        return _predict(images, [tensor_of(v) for v in self._predictor()], self.border)

    def encode(self, X: Any, n_iter: int = 50) -> "NDArray[np.float32]":
        """Return the sparse codes of images of one size, ``(N, K, H', W')``; see `synthesis` for their size.

        How many are not zero goes on falling when the objective has settled: take some 200 iterations before counting them.

        Raises
        ------
        ShapeError
            If the images differ in size, or do not fit the atoms.
        """
        check_is_fitted(self, "atoms_")
        atoms = tensor_of(self.atoms_)
        run = partial(sparse_codes, atoms=atoms, penalty=self.penalty, n_iter=n_iter, method=self.method, border=self.border)
        return self._each(X, run)

    def predict(self, X: Any) -> "NDArray[np.float32]":
        """Return what the predictor takes for the codes of images of one size, in one convolution.

        Raises
        ------
        ArgumentError
            If no predictor was learned.
        ShapeError
            If the images differ in size, or do not fit the atoms.
        """
        check_is_fitted(self, "atoms_")
        if not self._predicts:
            raise ArgumentError("no predictor was learned; predictor_iter must be above 0")
        return self._each(X, self._predicted)

    def decode(self, codes: Any) -> "NDArray[np.float32]":
        """Return the normalised images ``(N, C, H, W)`` that codes stand for."""
        check_is_fitted(self, "atoms_")
        given = torch.from_numpy(np.array(codes, np.float32))
        return synthesis(given, tensor_of(self.atoms_), self.border).numpy()

    def reconstruct(self, X: Any, n_iter: int = 50) -> "NDArray[np.float32]":
        """Return what sparse codes make of images, ``(N, C, H, W)``, in units of the normalised images."""
        return self.decode(self.encode(X, n_iter))

    def _each(self, X: Any, function: Any) -> "NDArray[np.float32]":
        found: list[NDArray[np.float32]] = []
        with torch.no_grad():
            for part in self._parts(Images(X, self.channels)):
                found.append(function(part).numpy())
                if found[0].shape[1:] != found[-1].shape[1:]:
                    raise ShapeError(f"images of different sizes have codes of different sizes, {found[0].shape[1:]} and "
                                     f"{found[-1].shape[1:]}; give those of one size at a time")  # fmt: skip
        if not found:
            raise ArgumentError("there are no images")
        return np.concatenate(found)


def _predict(images: Tensor, predictor: list[Tensor], border: str) -> Tensor:
    weight, bias, gain = predictor
    return gain.view(-1, 1, 1) * torch.tanh(analysis(images, weight, border) + bias.view(-1, 1, 1))


def _as_arrays(*tensors: Tensor) -> "tuple[NDArray[np.float32], ...]":
    return tuple(t.numpy().copy() for t in tensors)
