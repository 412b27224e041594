"""How atoms of convolutional sparse coding are improved while codes are what they are."""

import torch
from torch import Tensor

from ninefold.learn.coding import Splitting, applied, energy

__all__ = ["energies", "unit", "updated_atoms"]


def updated_atoms(state: Splitting, atoms: Tensor, steps: int = 3) -> tuple[Tensor, float]:
    """Improve atoms for the codes of `state`: the objective never increases, and no norm is above 1.

    Each step is of a projected gradient, each atom's divided by the energy of its codes (the diagonal of the Hessian), and as
    long as is best between nothing and the whole of it.

    Parameters
    ----------
    state : Splitting
    atoms : Tensor
        ``(K, C, h, w)``, of norms up to 1.
    steps : int

    Returns
    -------
    Tensor, float
        Atoms, and ``|x - sum_k D_k * z_k|^2`` summed over the images.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> state = Splitting(torch.randn(2, 1, 6, 7, generator=generator), (2, 3), 4, 0.1)
    >>> atoms = torch.randn(4, 1, 2, 3, generator=generator) / 6
    >>> codes = state.step(atoms)
    >>> updated_atoms(state, atoms, 2)[1] < updated_atoms(state, atoms, 1)[1]
    True
    """
    height, width = atoms.shape[2:]
    spectrum = torch.fft.rfft2(atoms, s=state.size)
    left = state.residual(spectrum)
    used = energies(state).clamp_min(1e-12).view(-1, 1, 1, 1)
    for _ in range(steps):
        slope = torch.zeros_like(spectrum)
        for y, r in zip(state.y, left.conj().resolve_conj(), strict=True):
            for c in range(len(r)):
                slope[:, c].addcmul_(y, r[c])
        gradient = torch.fft.irfft2(slope.conj(), s=state.size)[..., :height, :width]
        wanted = atoms - gradient / used
        way = wanted / wanted.flatten(1).norm(dim=1).clamp_min(1).view(-1, 1, 1, 1) - atoms
        turned = torch.fft.rfft2(way, s=state.size)
        change = torch.stack([applied(turned, y) for y in state.y])
        curvature = energy(change, state.size[1])
        if not curvature > 0:
            break
        length = min(1.0, max(0.0, -float((gradient * way).sum()) / curvature))
        atoms = atoms + length * way
        left.add_(change, alpha=length)
    return atoms, energy(left, state.size[1])


def energies(state: Splitting) -> Tensor:
    """Return the squared norm of the codes of each atom."""
    columns = torch.stack([torch.view_as_real(y).square().sum((1, 3)) for y in state.y]).sum(0)
    once = columns[:, 0] + (columns[:, -1] if state.size[1] % 2 == 0 else 0)
    return (2 * columns.sum(1) - once) / (state.size[0] * state.size[1])


def unit(atoms: Tensor) -> Tensor:
    """Return atoms of unit norm; those of nothing stay so."""
    return atoms / atoms.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
