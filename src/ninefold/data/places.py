"""Where the voxels of a volume lie in space, compared between an image and its mask."""

from itertools import product
from pathlib import Path

import numpy as np

from ninefold.data.opening import needed
from ninefold.data.sample import Sample

__all__ = ["misplaced"]

_HALF = 0.5  # voxels


def misplaced(one: Sample, other: Sample, first: str | Path, second: str | Path) -> str | None:
    """Return a sentence if the second volume lies elsewhere than the first: mirrored, turned, moved, or with other steps.

    The measure is how far any corner is from the same corner, more than half a voxel or not. Nothing is said of files that do not
    say where they lie, nor of an affine of ones, which is what many programs write who do not know.

    Parameters
    ----------
    one, other : Sample
        Of the same shape, as they are compared voxel by voxel.
    first, second : str or Path
        What they are called in the sentence.

    Examples
    --------
    >>> import torch
    >>> def volume(*steps):
    ...     affine = np.diag([*steps, 1.0])
    ...     data = torch.zeros(1, 4, 5, 6, dtype=torch.uint8, device="cpu")
    ...     return Sample(data, ("x", "y", "z"), (1.0, 2.0, 2.0), ("mm",) * 3, {"affine": affine.tolist(), "placed": True})
    >>> misplaced(volume(1, 2, 2), volume(-1, 2, 2), "a.nii", "m.nii")
    'm.nii lies elsewhere than a.nii: its axes run to LAS, those of the other to RAS; nibabel.as_closest_canonical ...'
    >>> misplaced(volume(1, 2, 2), volume(1, 2, 2.01), "a.nii", "m.nii") is None
    True
    """
    if one.axes != other.axes or one.data.shape[1:] != other.data.shape[1:] or not (_known(one) and _known(other)):
        return None
    ours, theirs = (np.asarray(sample.meta["affine"], np.float64) for sample in (one, other))
    last = [n - 1 for n in one.data.shape[1:]] + [0] * (3 - len(one.axes))
    corners = np.array([[*corner, 1] for corner in product(*((0, n) for n in last))])
    apart = float(np.linalg.norm((corners @ (ours - theirs).T)[:, :3], axis=1).max())
    if apart <= _HALF * min(one.spacing):
        return None
    codes = ["".join(str(c) for c in needed("nibabel", "orientations").aff2axcodes(affine)) for affine in (ours, theirs)]
    if codes[0] != codes[1]:
        told = f"its axes run to {codes[1]}, those of the other to {codes[0]}; nibabel.as_closest_canonical brings both to one"
    else:
        unit = (one.units or (None,))[0] or "of the file's units"
        told = f"a corner is {apart:.4g} {unit} from that of the other; resample it to the other's voxels"
    return f"{second} lies elsewhere than {first}: {told}"


def _known(sample: Sample) -> bool:
    affine = sample.meta.get("affine")
    return bool(sample.meta.get("placed")) and affine is not None and not np.array_equal(affine, np.eye(4))
