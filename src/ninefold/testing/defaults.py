"""What a program may have changed around a call: the device and the dtype that tensors are made with where none is named."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["elsewhere"]


@contextmanager
def elsewhere(device: str = "meta", dtype: torch.dtype = torch.float64) -> Iterator[None]:
    """Within this block, tensors are made on another device and in another dtype by default.

    Memory of the ``"meta"`` device is nowhere: what is made there by mistake cannot become a result.

    Examples
    --------
    >>> with elsewhere():
    ...     x = torch.zeros(2)
    >>> x.device.type, x.dtype
    ('meta', torch.float64)
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)
