"""Convolutional sparse coding: codes of whole images, and dictionaries for them.

``min |x - sum_k D_k * z_k|^2 / 2 + lambda |z|_1``, where ``*`` convolves and every atom ``D_k`` has unit norm. Codes come from
ISTA or FISTA (Beck and Teboulle 2009), whose two maps are planned convolutions, or from ADMM (Wohlberg 2014). There each
frequency is a system of as many unknowns as there are atoms, whose matrix is the identity and one of rank C, the number of
channels: with ``v = y - u``,

    x^ = v^ + D^H (rho + D D^H)^-1 (s^ - D v^),

which for one channel is the formula of Sherman and Morrison. All but the soft threshold is linear, so that the dual variable
stays in the frequency domain, and an iteration takes one transform there and one back.
"""

from typing import Any

import torch
from torch import Tensor

from ninefold import functional as F
from ninefold.errors import ArgumentError, ShapeError

__all__ = ["Splitting", "analysis", "largest_penalty", "lipschitz", "objective", "sparse_codes", "synthesis"]

BORDERS = ("circular", "zero")
_RELAX = 1.8  # over-relaxation of ADMM; 1.5 to 1.8 is what Boyd et al. (2011) advise


def synthesis(codes: Tensor, atoms: Tensor, border: str = "zero") -> Tensor:
    """Return the images that codes stand for, ``sum_k D_k * z_k``, true convolutions.

    Parameters
    ----------
    codes : Tensor
        ``(N, K, H, W)`` for ``"circular"``, ``(N, K, H - h + 1, W - w + 1)`` for ``"zero"``, where no atom crosses the border.
    atoms : Tensor
        ``(K, C, h, w)``, of the dtype of the codes.
    border : {"circular", "zero"}

    Returns
    -------
    Tensor
        ``(N, C, H, W)``.

    Raises
    ------
    ArgumentError, ShapeError
        If there is no such border, or the numbers of atoms differ.

    Examples
    --------
    >>> codes = torch.zeros(1, 2, 4, 5)
    >>> codes[0, 1, 3, 2] = 2.0
    >>> synthesis(codes, torch.ones(2, 1, 2, 3))[0, 0]
    tensor([[0., 0., 0., 0., 0., 0., 0.],
            [0., 0., 0., 0., 0., 0., 0.],
            [0., 0., 0., 0., 0., 0., 0.],
            [0., 0., 2., 2., 2., 0., 0.],
            [0., 0., 2., 2., 2., 0., 0.]])
    """
    _check(codes, atoms, 0, border, "codes")
    height, width = atoms.shape[2:]
    before, mode = ((height - 1, 0), (width - 1, 0)), "circular"
    if border == "zero":
        before, mode = ((height - 1, height - 1), (width - 1, width - 1)), "zeros"
    return F.conv2d(codes, atoms.transpose(0, 1).contiguous(), padding=before, padding_mode=mode, flip_kernel=True)


def analysis(images: Tensor, atoms: Tensor, border: str = "zero") -> Tensor:
    """Return the products of every patch with every atom, correlations: the adjoint of `synthesis`.

    Parameters
    ----------
    images : Tensor
        ``(N, C, H, W)``.
    atoms : Tensor
        ``(K, C, h, w)``.
    border : {"circular", "zero"}
        "circular" also takes patches that go on at the other side.

    Returns
    -------
    Tensor
        Of the shape of the codes.

    Raises
    ------
    ArgumentError, ShapeError
        If there is no such border, or channels differ, or an atom is larger than the images.

    Examples
    --------
    >>> analysis(torch.ones(1, 1, 4, 5), torch.ones(2, 1, 2, 3)).shape
    torch.Size([1, 2, 3, 3])
    """
    _check(images, atoms, 1, border, "images")
    if border == "zero":
        return F.conv2d(images, atoms)
    after = ((0, atoms.shape[2] - 1), (0, atoms.shape[3] - 1))
    return F.conv2d(images, atoms, padding=after, padding_mode="circular")


def lipschitz(atoms: Tensor, size: tuple[int, int]) -> float:
    """Return ``L``, the largest squared norm of `synthesis` on images of this size: the step of ISTA is ``1 / L``.

    For circular borders it is exact: the maximum over frequencies of the largest eigenvalue of ``D D^H``, for one channel of
    ``sum_k |D^_k|^2``. For zero borders, where codes are a part of these, it is a bound.

    Examples
    --------
    >>> lipschitz(torch.ones(1, 1, 2, 3), (8, 9))  # all frequencies at most that of the mean
    36.0
    """
    spectrum = torch.fft.rfft2(atoms, s=size)
    if atoms.shape[1] == 1:
        return float(spectrum.abs().square().sum(0).max())
    gram = torch.einsum("kchw,kdhw->hwcd", spectrum, spectrum.conj())
    return float(torch.linalg.eigvalsh(gram).max())


def largest_penalty(images: Tensor, atoms: Tensor, border: str = "zero") -> float:
    """Return the least penalty at which the codes of all images are zero: ``max |D corr x|``.

    Examples
    --------
    >>> largest_penalty(torch.tensor([[[[1.0, -3.0, 2.0]]]]), torch.ones(1, 1, 1, 1))
    3.0
    """
    return float(analysis(images, atoms, border).abs().max())


def objective(images: Tensor, atoms: Tensor, codes: Tensor, penalty: float, border: str = "zero") -> float:
    """Return ``|x - sum_k D_k * z_k|^2 / 2 + penalty |z|_1``, summed over the images.

    Examples
    --------
    >>> objective(torch.ones(1, 1, 2, 3), torch.ones(4, 1, 1, 2), torch.zeros(1, 4, 2, 2), 0.1)
    3.0
    """
    left = (images - synthesis(codes, atoms, border)).double().square().sum()
    return float(left / 2 + penalty * codes.double().abs().sum())


def sparse_codes(
    images: Tensor,
    atoms: Tensor,
    penalty: float,
    *,
    n_iter: int = 50,
    method: str = "admm",
    border: str = "zero",
    rho: float | None = None,
    target: Tensor | None = None,
    pull: float = 0.0,
    history: list[float] | None = None,
) -> Tensor:
    """Minimise ``|x - sum_k D_k * z_k|^2 / 2 + penalty |z|_1 + pull |z - target|^2 / 2`` over the codes z.

    Parameters
    ----------
    images : Tensor
        ``(N, C, H, W)``, float32 or float64.
    atoms : Tensor
        ``(K, C, h, w)``.
    penalty : float
    n_iter : int
    method : {"admm", "fista", "ista"}
        ADMM needs the fewest iterations; ISTA's objective never increases.
    border : {"circular", "zero"}
        As in `synthesis`.
    rho : float, optional
        Of ADMM; by default a guess from the penalty.
    target : Tensor, optional
        What a predictor says, of the shape of the codes; with `pull`, the code of predictive sparse decomposition.
    pull : float
    history : list, optional
        The objective after each iteration is appended, which costs one more convolution each.

    Returns
    -------
    Tensor
        Codes, of the shape that `synthesis` takes.

    Raises
    ------
    ArgumentError, ShapeError
        If an argument is out of its range or shapes do not fit.

    Examples
    --------
    >>> image = torch.tensor([[[[3.0, -0.5, -2.0]]]])
    >>> sparse_codes(image, torch.ones(1, 1, 1, 1), 1.0, n_iter=1, method="ista")  # a single delta: a soft threshold
    tensor([[[[ 2., -0., -1.]]]])
    """
    _check(images, atoms, 1, border, "images")
    if method not in ("admm", "fista", "ista"):
        raise ArgumentError(f"method={method!r} is not one of 'admm', 'fista', 'ista'")
    if not penalty >= 0 or not pull >= 0:
        raise ArgumentError(f"penalty={penalty} and pull={pull} must not be below 0")
    if pull and target is None:
        raise ArgumentError(f"pull={pull} towards no target; give the codes that a predictor returns")
    if method == "admm":
        return _by_admm(images, atoms, penalty, n_iter, border, rho, target, pull, history)
    step = 1 / max(lipschitz(atoms, (images.shape[2], images.shape[3])) + pull, 1e-12)
    code = torch.zeros_like(analysis(images[:1], atoms, border)).repeat(len(images), 1, 1, 1)
    ahead, t = code, 1.0
    for _ in range(n_iter):
        slope = analysis(images - synthesis(ahead, atoms, border), atoms, border)
        if target is not None and pull:
            slope += pull * (target - ahead)
        new = _shrunk(slope.mul_(step).add_(ahead), penalty * step)
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2 if method == "fista" else 1.0
        ahead = new + (t - 1) / following * (new - code) if method == "fista" else new
        code, t = new, following
        if history is not None:
            history.append(_pulled(images, atoms, code, penalty, border, target, pull))
    return code


def _by_admm(
    images: Tensor,
    atoms: Tensor,
    penalty: float,
    n_iter: int,
    border: str,
    rho: float | None,
    target: Tensor | None,
    pull: float,
    history: list[float] | None,
) -> Tensor:
    state = Splitting(images, (atoms.shape[2], atoms.shape[3]), len(atoms), penalty, border=border, rho=rho)
    state.towards(target, pull)
    codes = state.codes()
    for k in range(n_iter):
        codes = state.step(atoms, keep=history is not None or k == n_iter - 1)
        if history is not None:
            history.append(_pulled(images, atoms, codes, penalty, border, target, pull))
    return codes


class Splitting:
    """What ADMM holds of a few images: sparse codes and the dual variable, both as half spectra.

    Parameters
    ----------
    images : Tensor
        ``(N, C, H, W)``.
    size : tuple of int
        Height and width of the atoms.
    count : int
        How many atoms.
    penalty : float
    border : {"circular", "zero"}
    rho : float, optional

    Examples
    --------
    >>> state = Splitting(torch.ones(2, 1, 6, 7), (2, 3), 4, 0.1, border="zero")
    >>> state.step(torch.ones(4, 1, 2, 3), keep=True).shape
    torch.Size([2, 4, 5, 5])
    """

    def __init__(
        self,
        images: Tensor,
        size: tuple[int, int],
        count: int,
        penalty: float,
        *,
        border: str = "circular",
        rho: float | None = None,
    ) -> None:
        self.rho = _guess(images, penalty) if rho is None else rho
        if not self.rho > 0:
            raise ArgumentError(f"rho={rho} must be above 0")
        self.penalty, self.border, self.size = penalty, border, (images.shape[2], images.shape[3])
        self.images = torch.fft.rfft2(images)
        self.y = self.images.new_zeros((len(images), count, *self.images.shape[2:]))
        self.u = torch.zeros_like(self.y)
        self.l1 = 0.0
        """Sum of the moduli of all codes."""
        self.nonzero = 0
        """How many codes are not zero."""
        self._target: Tensor | None = None
        self._pull = 0.0
        edge = (size[0] - 1, size[1] - 1) if border == "zero" else (0, 0)
        self._valid = (self.size[0] - edge[0], self.size[1] - edge[1])
        self.possible = len(images) * count * self._valid[0] * self._valid[1]
        """How many codes there are."""

    def towards(self, target: Tensor | None, pull: float) -> None:
        """Pull the codes towards a target of their shape."""
        self._pull = pull if target is not None else 0.0
        self._target = None if target is None or not pull else torch.fft.rfft2(self._whole(target))

    def codes(self) -> Tensor:
        """Return the codes, back from their spectra."""
        return torch.fft.irfft2(self.y, s=self.size)[..., : self._valid[0], : self._valid[1]].contiguous()

    def step(self, atoms: Tensor, *, keep: bool = False) -> Tensor:
        """Take one iteration and return the codes if they are to be kept; image by image, so that maps stay in the cache."""
        spectrum = torch.fft.rfft2(atoms, s=self.size)
        conjugate, inverse = spectrum.conj().resolve_conj(), _inverse(spectrum, self.rho + self._pull)
        kept = []
        self.l1, self.nonzero = 0.0, 0
        for n in range(len(self.y)):
            y = self._one(n, spectrum, conjugate, inverse)
            self.l1 += float(y.abs().sum())
            self.nonzero += int(y.count_nonzero())
            if keep:
                kept.append(y[:, : self._valid[0], : self._valid[1]])
        return torch.stack(kept) if keep else self.y

    def _one(self, n: int, spectrum: Tensor, conjugate: Tensor, inverse: Tensor) -> Tensor:
        y, u = self.y[n], self.u[n]
        v = y - u
        if self._target is not None:
            v = v.mul_(self.rho).add_(self._target[n], alpha=self._pull).div_(self.rho + self._pull)
        left = _times(inverse, self.images[n] - applied(spectrum, v))
        for c in range(len(left)):
            v.addcmul_(conjugate[:, c], left[c])
        u.add_(v, alpha=_RELAX).add_(y, alpha=1 - _RELAX)
        codes = _shrunk(torch.fft.irfft2(u, s=self.size), self.penalty / self.rho)
        codes[:, self._valid[0] :] = 0
        codes[:, :, self._valid[1] :] = 0
        torch.fft.rfft2(codes, out=y)
        u.sub_(y)
        return codes

    def _whole(self, codes: Tensor) -> Tensor:
        whole = codes.new_zeros((*codes.shape[:2], *self.size))
        whole[..., : codes.shape[2], : codes.shape[3]] = codes
        return whole

    def residual(self, spectrum: Tensor) -> Tensor:
        """Return ``sum_k D_k * z_k - x`` of the codes as half spectra, for the spectra of atoms."""
        return torch.stack([applied(spectrum, y) for y in self.y]) - self.images


def applied(spectrum: Tensor, codes: Tensor) -> Tensor:
    """Return the half spectrum ``(C, H, W/2 + 1)`` of ``sum_k D_k * z_k`` for those of atoms and codes of one image."""
    return torch.stack([(spectrum[:, c] * codes).sum(0) for c in range(spectrum.shape[1])])


def energy(spectrum: Tensor, width: int) -> float:
    """Return the squared norm of images from half spectra (Parseval): all frequencies but the first and a middle one count twice.

    Examples
    --------
    >>> x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    >>> round(energy(torch.fft.rfft2(x), 6) / float(x.square().sum()), 5)
    1.0
    """
    return inner(spectrum, spectrum, width)


def inner(a: Tensor, b: Tensor, width: int) -> float:
    """Return the product of images from their half spectra."""
    columns = (torch.view_as_real(a) * torch.view_as_real(b)).sum((-1, -3)).double()
    once = columns[..., 0].sum() + (columns[..., -1].sum() if width % 2 == 0 else 0)
    return float((2 * columns.sum() - once) / (a.shape[-2] * width))


def _guess(images: Tensor, penalty: float) -> float:
    """Return a rho: the first threshold, ``penalty / rho``, is an eighth of what the images deviate from zero."""
    deviation = float(images.square().mean().sqrt())
    return max(8 * penalty / deviation, 0.1) if deviation else 1.0


def _inverse(spectrum: Tensor, rho: float) -> Tensor:
    """Return ``(rho + D D^H)^-1`` by frequency, ``(H, W/2 + 1, C, C)``."""
    if spectrum.shape[1] == 1:
        return 1 / (spectrum.abs().square().sum(0) + rho)
    gram = torch.einsum("kchw,kdhw->hwcd", spectrum, spectrum.conj())
    gram.diagonal(dim1=-2, dim2=-1).add_(rho)
    return torch.linalg.inv(gram)


def _times(inverse: Tensor, left: Tensor) -> Tensor:
    return inverse * left if len(left) == 1 else torch.einsum("hwcd,dhw->chw", inverse, left)


def _shrunk(x: Tensor, by: float) -> Tensor:
    return torch.nn.functional.softshrink(x, by)


def _pulled(
    images: Tensor, atoms: Tensor, codes: Tensor, penalty: float, border: str, target: Tensor | None, pull: float
) -> float:
    extra = 0.0 if target is None else pull / 2 * float((codes - target).double().square().sum())
    return objective(images, atoms, codes, penalty, border) + extra


def _check(x: Tensor, atoms: Any, axis: int, border: str, what: str) -> None:
    if border not in BORDERS:
        raise ArgumentError(f"border={border!r} is not one of {BORDERS}")
    if x.ndim != 4 or atoms.ndim != 4:
        raise ShapeError(f"{what} and atoms must have four axes, got {tuple(x.shape)} and {tuple(atoms.shape)}")
    if x.shape[1] != atoms.shape[axis]:
        raise ShapeError(
            f"{what} of shape {tuple(x.shape)} and atoms of shape {tuple(atoms.shape)}: {x.shape[1]} and {atoms.shape[axis]} "
            f"{'channels' if axis else 'atoms'} must be the same"
        )
    if axis and (x.shape[2] < atoms.shape[2] or x.shape[3] < atoms.shape[3]):
        raise ShapeError(f"images of {x.shape[2]}x{x.shape[3]} are smaller than atoms of {atoms.shape[2]}x{atoms.shape[3]}")
