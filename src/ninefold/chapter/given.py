"""What the entries are given: small whole numbers, on which equality is exact, and the count of where two tensors differ."""

import torch
from torch import Tensor

from ninefold.chapter.entry import Finding

__all__ = ["agree", "differing", "integers"]


def integers(*shape: int, seed: int = 0) -> Tensor:
    """Return whole numbers from -4 to 4 in double precision.

    Examples
    --------
    >>> integers(2, 3).shape, integers(2, 3).dtype
    (torch.Size([2, 3]), torch.float64)
    """
    return torch.randint(-4, 5, shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu").double()


def differing(a: Tensor, b: Tensor) -> int:
    """Return at how many positions two tensors differ, all of them if their shapes do.

    Examples
    --------
    >>> differing(torch.tensor([1, 2]), torch.tensor([1, 3]))
    1
    """
    return int((a != b).sum()) if a.shape == b.shape else a.numel()


def agree(a: Tensor, b: Tensor, what: str = "numbers") -> Finding:
    """Find whether two tensors are equal, number by number.

    Examples
    --------
    >>> agree(torch.ones(3), torch.ones(3)).measured
    '3 of 3 numbers equal'
    """
    wrong = differing(a, b)
    return Finding(f"{a.numel() - wrong:,} of {a.numel():,} {what} equal", wrong == 0, {"compared": a.numel(), "differ": wrong})
