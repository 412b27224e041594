"""One observation of any of the six kinds: channels over space, with what its axes are called and how far apart positions lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError

__all__ = ["Sample", "finite", "sample_of", "tensor_of"]

_WIDE: dict[str, Any] = {
    "uint16": np.int32,
    "uint32": np.int64,
    "uint64": np.int64,
    "longdouble": np.float64,
    "float128": np.float64,
}


@dataclass(frozen=True, eq=False, repr=False)
class Sample:
    """A recording, an image, a volume or a video.

    Parameters
    ----------
    data : Tensor of shape ``(C, *space)``
    axes : tuple of str
        Name of each axis of space, such as ``("height", "width")``.
    spacing : tuple of float
        From one position to the next along each axis, positive.
    units : tuple of (str or None), optional
        Of the spacings. None where nothing is known of them, as in a volume that does not say: its spacing is 1 then.
    meta : mapping
        What else the file said. What is under each key is in the docstring of the reader.

    Raises
    ------
    ArgumentTypeError, ShapeError, ArgumentError
        If they do not fit one another.

    Examples
    --------
    >>> Sample(torch.zeros(2, 8000, dtype=torch.float32, device="cpu"), ("time",), (1 / 8000,), ("s",))
    Sample(2 channels, time 8000 x 0.000125 s, float32 0..0)
    """

    data: Tensor
    axes: tuple[str, ...]
    spacing: tuple[float, ...]
    units: tuple[str | None, ...] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.data, Tensor):
            raise ArgumentTypeError(f"data must be a tensor (C, *space), got type {type(self.data).__name__}")
        shape, n = tuple(self.data.shape), len(self.axes)
        if self.data.ndim != n + 1:
            raise ShapeError(f"data has shape {shape}; with axes {tuple(self.axes)} it must have {n + 1} dimensions, (C, *space)")
        if len(self.spacing) != n or (self.units is not None and len(self.units) != n):
            raise ArgumentError(
                f"spacing={self.spacing} and units={self.units} must hold {n} values, one for each of {self.axes}"
            )
        if not all(isfinite(s) and s > 0 for s in self.spacing):
            raise ArgumentError(f"spacing={self.spacing} must be positive")
        object.__setattr__(self, "spacing", tuple(float(s) for s in self.spacing))
        if self.units is not None and all(unit is None for unit in self.units):
            object.__setattr__(self, "units", None)

    def __repr__(self) -> str:
        units = self.units or (None,) * len(self.axes)
        space = [
            f"{axis} {n} x {step:.6g} {unit or '(no unit)'}"
            for axis, n, step, unit in zip(self.axes, self.data.shape[1:], self.spacing, units, strict=True)
        ]
        count = f"{self.data.shape[0]} channel{'' if self.data.shape[0] == 1 else 's'}"
        return f"Sample({', '.join([count, *space])}, {_values(self.data)})"

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return the same with ``data.to(...)``: another device or dtype.

        Examples
        --------
        >>> Sample(torch.ones(1, 4, dtype=torch.uint8, device="cpu"), ("time",), (0.5,), ("s",)).to(torch.float64)
        Sample(1 channel, time 4 x 0.5 s, float64 1..1)
        """
        return replace(self, data=self.data.to(*args, **kwargs))

    def numpy(self) -> np.ndarray:
        """Return the data as an array ``(C, *space)``, on the CPU and without its gradient.

        Examples
        --------
        >>> Sample(torch.ones(1, 3, dtype=torch.uint8, device="cpu"), ("time",), (0.5,)).numpy()
        array([[1, 1, 1]], dtype=uint8)
        """
        array: np.ndarray = self.data.detach().cpu().numpy()
        return array

    def along(self, axes: Sequence[str]) -> Self:
        """Return the same with its axes in another order, such as that of an image for its mask.

        Axes of other names are left as they are: there is nothing to go by.

        Examples
        --------
        >>> x = Sample(torch.ones(1, 3, 5, dtype=torch.uint8, device="cpu"), ("x", "y"), (0.5, 2.0))
        >>> x.along(("y", "x"))
        Sample(1 channel, y 5 x 2 (no unit), x 3 x 0.5 (no unit), uint8 1..1)
        """
        if tuple(axes) == self.axes or sorted(axes) != sorted(self.axes):
            return self
        order = [self.axes.index(axis) for axis in axes]
        units = None if self.units is None else tuple(self.units[k] for k in order)
        data = self.data.permute(0, *(k + 1 for k in order)).contiguous()
        return replace(self, data=data, axes=tuple(axes), spacing=tuple(self.spacing[k] for k in order), units=units)

    def with_data(self, data: Tensor, **meta: Any) -> Self:
        """Return another tensor of the same axes, and `meta` beside what is known.

        Examples
        --------
        >>> x = Sample(torch.ones(1, 3, dtype=torch.uint8, device="cpu"), ("time",), (0.5,))
        >>> x.with_data(x.data[:, :2], start=0).meta
        {'start': 0}
        """
        return replace(self, data=data, meta={**self.meta, **meta})


def _values(data: Tensor) -> str:
    name = str(data.dtype).removeprefix("torch.")
    if not data.numel() or data.is_complex() or data.device.type == "meta":
        return name
    low, high = (float(v) for v in torch.aminmax(data.detach()))
    return f"{name} {low:.6g}..{high:.6g}"


def sample_of(x: Any, what: str) -> Sample:
    """Return what must be a sample, as it is.

    Raises
    ------
    ArgumentTypeError
        If it is a tensor, an array or something else, which do not say what their axes are.

    Examples
    --------
    >>> sample_of(torch.zeros(1, 8, device="cpu"), "a waveform")
    Traceback (most recent call last):
    ninefold.errors.ArgumentTypeError: a waveform is a Sample, got type Tensor: Sample(data, axes, spacing) says what its axes are
    """
    if not isinstance(x, Sample):
        raise ArgumentTypeError(
            f"{what} is a Sample, got type {type(x).__name__}: Sample(data, axes, spacing) says what its axes are"
        )
    return x


def finite(data: Any, what: str) -> Tensor:
    """Return data that is written if it is a tensor of numbers.

    Raises
    ------
    ArgumentTypeError, DTypeError, ShapeError, ArgumentError
        If it is something else, complex, empty, or holds NaN or infinity.
    """
    if not isinstance(data, Tensor):
        raise ArgumentTypeError(f"{what} must be a tensor, got type {type(data).__name__}")
    if data.is_complex():
        raise DTypeError(f"{what} is {data.dtype}; complex numbers are written as npz or safetensors only")
    if not data.numel():
        raise ShapeError(f"{what} has shape {tuple(data.shape)} and holds nothing")
    if data.is_floating_point() and not bool(data.isfinite().all()):
        raise ArgumentError(f"{what} holds NaN or infinity, {int((~data.isfinite()).sum())} of {data.numel()} values")
    return data.detach().cpu()


def tensor_of(values: np.ndarray) -> Tensor:
    """Return an array of any byte order and layout as a tensor, unsigned numbers of 16 bits and more as wider signed ones.

    Examples
    --------
    >>> tensor_of(np.array([1, 65535], ">u2"))
    tensor([    1, 65535], dtype=torch.int32)
    """
    plain = values.astype(_WIDE.get(values.dtype.newbyteorder("=").name, values.dtype.newbyteorder("=")))
    return torch.from_numpy(np.ascontiguousarray(plain))
