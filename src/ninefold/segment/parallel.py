"""One process or several: what a training needs to know of the others (``torchrun``, gloo on processors)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

from ninefold.errors import ArgumentError

__all__ = ["World", "silent", "world"]

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """A process among all.

    Parameters
    ----------
    rank, size : int

    Examples
    --------
    >>> import torch
    >>> alone = World()
    >>> alone.first, alone.mine(range(5)), alone.total(torch.tensor([2.0], device="cpu"))
    (True, [0, 1, 2, 3, 4], tensor([2.]))
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def mine(self, items: Sequence[T]) -> list[T]:
        """Return this process's share: every `size`-th, so that shares differ by one at most."""
        return list(items[self.rank :: self.size])

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value


def silent(sentence: str) -> None:
    """Say nothing: what a process tells that is not the first.

    Examples
    --------
    >>> silent("words")
    """
    del sentence


def world() -> World:
    """Return where this process stands; under ``torchrun`` it joins the others.

    Raises
    ------
    ArgumentError
        If the environment names other processes that do not come.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if not dist.is_initialized():
        try:
            dist.init_process_group("gloo")
        except (RuntimeError, ValueError) as error:
            raise ArgumentError(
                f"{size} processes were asked for, and they do not meet: {error}; start them by torchrun"
            ) from error
    return World(dist.get_rank(), dist.get_world_size())
