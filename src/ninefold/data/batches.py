"""Samples of different sizes in one batch: of one size each, padded with what is padding marked, or one by one."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.utils.data import Sampler

from ninefold.data.sample import Sample
from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError

__all__ = ["BucketSampler", "Padded", "collate"]

IGNORED = -100
"""Label of positions that no loss counts, as in PyTorch."""


@dataclass(frozen=True, eq=False, repr=False)
class Padded:
    """Samples of different sizes in one tensor, each at its beginning, padding behind it along every axis.

    Parameters
    ----------
    data : Tensor of shape ``(B, C, *space)``
    sizes : tuple of tuple of int
        How much of each sample's space is not padding.

    Raises
    ------
    ShapeError
        If sizes do not fit the data.

    Examples
    --------
    >>> x = torch.ones(1, 3, device="cpu", dtype=torch.float32)
    >>> batch = Padded.of([x[:, :2], x])
    >>> batch, batch.mask[0]
    (Padded(2 samples of 1 channel, sizes (2,), (3,) in (3,)), tensor([[ True,  True, False]]))
    """

    data: Tensor
    sizes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        space = tuple(self.data.shape[2:])
        if len(self.sizes) != len(self.data) or any(
            len(size) != len(space) or any(not 0 < n <= m for n, m in zip(size, space, strict=True)) for size in self.sizes
        ):
            raise ShapeError(
                f"sizes {self.sizes} do not fit data of shape {tuple(self.data.shape)}: one of 1 to {space} for each"
            )

    def __repr__(self) -> str:
        count, space = self.data.shape[1], tuple(self.data.shape[2:])
        sizes = ", ".join(map(str, self.sizes))
        return f"Padded({len(self)} samples of {count} channel{'s'[: count != 1]}, sizes {sizes} in {space})"

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield each sample ``(C, *space)`` without its padding, as a view."""
        for row, size in zip(self.data, self.sizes, strict=True):
            yield row[(slice(None), *map(slice, size))]

    @classmethod
    def of(cls, samples: Sequence[Tensor], value: float = 0, multiple: int = 1) -> Self:
        """Pad samples ``(C, *space)`` to the largest size along each axis.

        Parameters
        ----------
        samples : sequence of Tensor
        value : float
            Of the padding.
        multiple : int
            Sizes become multiples of it, as networks that halve their maps need.

        Raises
        ------
        ShapeError, DTypeError
            If there are none, or they differ in channels, axes or dtype.
        """
        _alike(samples)
        sizes = tuple(tuple(sample.shape[1:]) for sample in samples)
        space = [-(-max(ns) // multiple) * multiple for ns in zip(*sizes, strict=True)]
        ends = [[(0, most - n) for n, most in zip(size, space, strict=True)] for size in sizes]
        flat = [[n for pair in reversed(pairs) for n in pair] for pairs in ends]  # as torch wants them, the last axis first
        data = torch.stack([torch.nn.functional.pad(x, pads, value=value) for x, pads in zip(samples, flat, strict=True)])
        return cls(data, sizes)

    @property
    def mask(self) -> Tensor:
        """True where a sample is, ``(B, 1, *space)``, on the device of the data."""
        mask = torch.ones((len(self), 1, *self.data.shape[2:]), dtype=torch.bool, device=self.data.device)
        for axis, n in enumerate(self.data.shape[2:]):
            ends = torch.tensor([size[axis] for size in self.sizes], dtype=torch.int64, device=self.data.device)
            along = torch.arange(n, device=self.data.device) < ends[:, None]
            mask &= along.view(len(self), 1, *(n if k == axis else 1 for k in range(self.data.ndim - 2)))
        return mask

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return the same with ``data.to(...)``."""
        return replace(self, data=self.data.to(*args, **kwargs))

    def pin_memory(self) -> Self:
        """Return the same in pinned memory, as a `DataLoader` asks for."""
        return replace(self, data=self.data.pin_memory())

    def filled(self, value: float) -> Self:
        """Return the same with another value in the padding.

        Examples
        --------
        >>> x = torch.ones(1, 2, device="cpu", dtype=torch.float32)
        >>> Padded.of([x, x[:, :1]]).filled(-7).data[1]
        tensor([[ 1., -7.]])
        """
        return replace(self, data=self.data.masked_fill(~self.mask, value))


def collate(
    items: Sequence[Any],
    how: Literal["stack", "pad", "single"] = "stack",
    *,
    value: float = 0,
    multiple: int = 1,
    ignore: int = IGNORED,
) -> Any:
    """Make a batch: the `collate_fn` of a ``DataLoader``, with ``functools.partial`` where it is another than "stack".

    Parameters
    ----------
    items : sequence
        Tensors or `Sample` of ``(C, *space)``, or tuples whose first element is one and whose others are masks ``(*space)`` or
        numbers.
    how : {"stack", "pad", "single"}
        ``stack`` needs one size, as `BucketSampler` gives it; ``pad`` makes a `Padded`, and masks of `ignore` in the padding;
        ``single`` makes a list of batches of one.
    value : float
        Of the padding.
    multiple : int
        Of which padded sizes are multiples.
    ignore : int
        Label of the padding.

    Returns
    -------
    Tensor, `Padded` or list
        Or a tuple of it and what becomes of the others.

    Raises
    ------
    ShapeError
        With the sizes, if they differ and are to be stacked; if a mask has another size than its image.

    Examples
    --------
    >>> x = torch.ones(2, 3, 4, dtype=torch.float32, device="cpu")
    >>> batch, masks = collate([(x, x[0].long()), (x[:, :2], x[0, :2].long())], "pad")
    >>> batch.sizes, masks[1]
    (((3, 4), (2, 4)), tensor([[   1,    1,    1,    1],
            [   1,    1,    1,    1],
            [-100, -100, -100, -100]]))
    """
    if how not in ("stack", "pad", "single"):
        raise ArgumentError(f"how={how!r} is not one of ['stack', 'pad', 'single']")
    if not items:
        raise ShapeError("a batch is of at least one item, got none")
    rows = [tuple(item) if isinstance(item, (tuple, list)) else (item,) for item in items]
    if len({len(row) for row in rows}) > 1:
        raise ShapeError(f"items are tuples of different lengths: {[len(row) for row in rows]}")
    rows = [tuple(part.data if isinstance(part, Sample) else part for part in row) for row in rows]
    for k, row in enumerate(rows):
        _check_item(row, k)
    if how == "single":
        batches = [_stacked([row]) for row in rows]
        return [batch if len(rows[0]) > 1 else batch[0] for batch in batches]
    batch = _stacked(rows) if how == "stack" else _padded(rows, value, multiple, ignore)
    return batch if len(rows[0]) > 1 else batch[0]


def _check_item(row: tuple[Any, ...], k: int) -> None:
    if not isinstance(row[0], Tensor) or row[0].ndim < 1:
        raise ArgumentTypeError(f"item {k} begins with a {type(row[0]).__name__}; a batch is of tensors (C, *space) or Sample")
    for part in row[1:]:
        if isinstance(part, Tensor) and part.ndim and part.shape != row[0].shape[1:]:
            raise ShapeError(f"item {k}: a mask of {tuple(part.shape)} for an image of {tuple(row[0].shape[1:])}")


def _alike(samples: Sequence[Tensor]) -> None:
    if not samples:
        raise ShapeError("a batch is of at least one sample, got none")
    if len({(sample.shape[0], sample.ndim) for sample in samples}) > 1:
        raise ShapeError(
            f"samples of shapes {[tuple(s.shape) for s in samples]} differ in channels or axes; read them with one mode"
        )
    if len({sample.dtype for sample in samples}) > 1:
        raise DTypeError(f"samples have dtypes {[str(s.dtype) for s in samples]}; bring them to one")


def _stacked(rows: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    images = [row[0] for row in rows]
    _alike(images)
    if len({image.shape for image in images}) > 1:
        raise ShapeError(
            f"sizes {[tuple(image.shape[1:]) for image in images]} cannot be stacked: BucketSampler brings equal ones together, "
            "how='pad' pads, how='single' takes them one by one"
        )
    return torch.stack(images), *(_joined(parts) for parts in list(zip(*rows, strict=True))[1:])


def _padded(rows: list[tuple[Any, ...]], value: float, multiple: int, ignore: int) -> tuple[Any, ...]:
    batch = Padded.of([row[0] for row in rows], value, multiple)
    others = []
    for parts in list(zip(*rows, strict=True))[1:]:
        if isinstance(parts[0], Tensor) and parts[0].ndim:
            others.append(Padded.of([part[None] for part in parts], ignore, multiple).data[:, 0])
        else:
            others.append(_joined(parts))
    return batch, *others


def _joined(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.stack(list(parts))
    if isinstance(parts[0], (bool, int)):
        return torch.tensor(parts, dtype=torch.int64, device="cpu")
    return torch.tensor(parts, dtype=torch.float32, device="cpu") if isinstance(parts[0], float) else list(parts)


class BucketSampler(Sampler[list[int]]):
    """Batches of items of one size: the ``batch_sampler`` of a ``DataLoader``, the same for the same seed and epoch.

    Parameters
    ----------
    sizes : sequence of tuple of int
        Of every item, such as ``Folder.sizes()``.
    batch_size : int
        The last batch of a size may be smaller.
    shuffle : bool
        Within a size, and the order of batches; anew every epoch.
    seed : int
    drop_last : bool
        Leave out batches that are not full.
    multiple : int
        Sizes that round up to the same multiple of it go together; they need padding.
    key : callable, optional
        What of a size must be equal; instead of `multiple`.

    Raises
    ------
    ArgumentError, ShapeError

    Notes
    -----
    The order is drawn from (`seed`, `epoch`) only, so that ``state_dict`` is three numbers. A ``DataLoader`` with workers asks
    for batches before they are needed: give ``state_dict(position=...)`` the number of batches that were trained on in this
    epoch.

    Examples
    --------
    >>> sampler = BucketSampler([(4, 4), (4, 6), (4, 4), (4, 6), (4, 4)], 2, shuffle=False)
    >>> list(sampler)
    [[0, 2], [4], [1, 3]]
    >>> sampler.load_state_dict({"seed": 0, "epoch": 0, "position": 2})
    >>> list(sampler), sampler.state_dict()
    ([[1, 3]], {'seed': 0, 'epoch': 1, 'position': 0})
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, ...]],
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        multiple: int = 1,
        key: Callable[[tuple[int, ...]], Any] | None = None,
    ) -> None:
        if not len(sizes):
            raise ShapeError("sizes holds nothing: there is no item to sample")
        if min(batch_size, multiple) < 1:
            raise ArgumentError(f"batch_size={batch_size} and multiple={multiple} must be at least 1")
        self.batch_size, self.shuffle, self.seed, self.drop_last = batch_size, shuffle, seed, drop_last
        self.epoch = self.position = 0
        buckets: dict[Any, list[int]] = {}
        for k, size in enumerate(sizes):
            rounded = key(size) if key is not None else tuple(-(-n // multiple) for n in size)
            buckets.setdefault(rounded, []).append(k)
        self._buckets = list(buckets.values())
        if not len(self):
            counts = Counter(len(bucket) for bucket in self._buckets)
            raise ArgumentError(
                f"drop_last=True leaves no batch: no size has {batch_size} items (items of a size: {dict(counts)})"
            )

    def __len__(self) -> int:
        if self.drop_last:
            return sum(len(bucket) // self.batch_size for bucket in self._buckets)
        return sum(-(-len(bucket) // self.batch_size) for bucket in self._buckets)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of this epoch from the position on; behind the last one the next epoch begins."""
        batches = self._order(self.epoch)
        epoch = self.epoch
        for k in range(self.position, len(batches)):
            self.position = k + 1
            yield batches[k]
        if self.epoch == epoch:
            self.epoch, self.position = epoch + 1, 0

    def _order(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator("cpu").manual_seed(self.seed * 1_000_003 + epoch)
        batches = []
        for bucket in self._buckets:
            items = self._shuffled(bucket, generator)
            batches += [items[k : k + self.batch_size] for k in range(0, len(items), self.batch_size)]
        if self.drop_last:
            batches = [batch for batch in batches if len(batch) == self.batch_size]
        return self._shuffled(batches, generator)

    def _shuffled(self, items: list[Any], generator: torch.Generator) -> list[Any]:
        if not self.shuffle:
            return items
        return [items[k] for k in torch.randperm(len(items), generator=generator, device="cpu").tolist()]

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch."""
        self.epoch, self.position = epoch, 0

    def state_dict(self, position: int | None = None) -> dict[str, int]:
        """Return where the sampler is: seed, epoch, and batches of this epoch that were handed out or are said to be done."""
        position = self.position if position is None else position
        return {"seed": self.seed, "epoch": self.epoch, "position": position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where a state was taken.

        Raises
        ------
        ArgumentError
            If there are not so many batches: the items are others.
        """
        if not 0 <= state["position"] <= len(self):
            raise ArgumentError(
                f"a state at batch {state['position']} of an epoch of {len(self)}: the items or the batch size are others"
            )
        self.seed, self.epoch, self.position = state["seed"], state["epoch"], state["position"]
