"""Filters in a file: safetensors with what patches go through before, checked on the way in; never a pickle."""

import io
import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ninefold.errors import FilterFileError
from ninefold.learn.base import FilterSource, tensor_of
from ninefold.learn.patches import Preparation
from ninefold.storing import write_whole

__all__ = ["SavedFilters", "load_filters", "save_features", "save_filters"]

_FORMAT, _VERSION = "ninefold filters", 1
_TENSORS = ("atoms", "mean", "matrix")


class SavedFilters(FilterSource):
    """Filters as `load_filters` read them: fitted, and `fit` leaves them as they are.

    Parameters
    ----------
    path : str or Path
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path

    def fit(self, X: Any = None, y: Any = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Read the file."""
        atoms, preparation, self.origin_ = _read(Path(self.path))
        return self._learned(atoms, preparation)


def save_filters(source: FilterSource, path: str | Path) -> None:
    """Write the filters of a fitted source to a file; it is there whole, or as it was before.

    Parameters
    ----------
    source : FilterSource
    path : str or Path

    Raises
    ------
    FilterFileError
        If it cannot be written, such as on a full disk.

    Examples
    --------
    >>> import tempfile
    >>> from ninefold.learn import SampledPatches
    >>> source = SampledPatches(5, (3, 2), random_state=0).fit(np.random.default_rng(0).normal(size=(4, 9, 8)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_filters(source, f"{folder}/patches.safetensors")
    ...     again = load_filters(f"{folder}/patches.safetensors")
    >>> np.array_equal(again.filters_, source.filters_), again.origin_["class"]
    (True, 'SampledPatches')
    """
    check_is_fitted(source, "atoms_")
    preparation = source.preparation_
    tensors = {"atoms": tensor_of(source.atoms_), "mean": preparation.mean, "matrix": preparation.matrix}
    parameters = {k: v if isinstance(v, (int, float, str, bool, type(None))) else repr(v) for k, v in source.get_params().items()}
    about = {
        "format": _FORMAT,
        "version": str(_VERSION),
        "contrast": repr(preparation.contrast),
        "origin": json.dumps({"class": type(source).__name__, "parameters": parameters}),
    }
    write_whole(Path(path), save({k: v.contiguous() for k, v in tensors.items()}, about), FilterFileError, parents=True)


def load_filters(path: str | Path) -> SavedFilters:
    """Read filters that `save_filters` wrote.

    Raises
    ------
    FilterFileError
        If there is no such file, or it holds something else.
    """
    return SavedFilters(path).fit()


def _read(path: Path) -> tuple[Tensor, Preparation, dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != _FORMAT:
                raise FilterFileError(f"{path} is a safetensors file, but not of filters: save_filters writes those")
            if about.get("version") != str(_VERSION):
                raise FilterFileError(f"{path} has version {about.get('version')}, and this ninefold reads {_VERSION}: update it")
            atoms, mean, matrix = (file.get_tensor(name) for name in _TENSORS)
            contrast, origin = float(about["contrast"]), json.loads(about["origin"])
    except FileNotFoundError as error:
        raise FilterFileError(f"there is no file {path}") from error
    except (OSError, SafetensorError) as error:
        raise FilterFileError(f"{path} cannot be read as safetensors: {error}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise FilterFileError(f"{path} lacks part of what save_filters writes: {error}") from error
    d = atoms[0].numel() if atoms.ndim == 4 and len(atoms) else 0
    fits = d and mean.shape == (d,) and matrix.shape == (d, d)
    if (
        not fits
        or any(x.dtype != torch.float32 or not bool(x.isfinite().all()) for x in (atoms, mean, matrix))
        or not contrast > 0
    ):
        shapes = ", ".join(f"{n} {tuple(x.shape)} {x.dtype}" for n, x in zip(_TENSORS, (atoms, mean, matrix), strict=True))
        raise FilterFileError(
            f"{path} holds {shapes}, contrast {contrast}, which do not fit one another, or numbers that are none"
        )
    return atoms, Preparation(mean, matrix, contrast), origin


def save_features(path: str | Path, features: np.ndarray, **others: Any) -> None:
    """Write features as ``features`` of an npz file, and `others` beside them; whole, or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, features=features, **others)
    write_whole(Path(path), buffer.getvalue(), FilterFileError, parents=True)
