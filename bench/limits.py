"""What the machine can do at most: bytes copied, and multiply-adds of one large matrix product."""

from collections.abc import Callable

import torch


def copying(size: int) -> Callable[[], object]:
    """Return a run that reads and writes `size` bytes in all."""
    x = torch.ones(max(1, size // 8))
    y = torch.empty_like(x)
    return lambda: y.copy_(x)


def product_of(dtype: torch.dtype = torch.float32, side: int = 512) -> tuple[Callable[[], object], int]:
    """Return a run of one large matrix product, and its multiply-adds."""
    a = torch.randn(side, side).to(dtype)
    c = torch.empty_like(a)
    return lambda: torch.mm(a, a, out=c), side**3
