"""The pictures of sections 9.6 and 9.7: walls with a gap, boundaries that a dense CRF puts back, a melody in two octaves."""

from math import pi
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from ninefold.data import Sample, log_spectrogram, spectrogram
from ninefold.segment.scenes import texture_scenes
from ninefold.structured.crf import BilateralKernel, DenseCRF, GaussianKernel
from ninefold.structured.networks import label_grid
from ninefold.structured.partition import Affinities, connected_components

__all__ = ["coarse_scores", "crf", "gap", "melody", "octaves", "refined"]


def gap() -> Figure:
    """Draw walls and the objects between them: true, with a gap of one pixel, and off by a pixel."""
    wall = np.zeros((20, 31))
    wall[:, 15] = 1
    gapped = wall.copy()
    gapped[7, 15] = 0
    walls = {"true": wall, "one pixel missing": gapped, "off by one pixel": np.roll(wall, 1, 1)}
    found = {name: connected_components(Affinities.from_boundary_map(each), 0.5, minimum_size=2) for name, each in walls.items()}
    return _side_by_side(found, 1.9)


def coarse_scores(mask: Tensor, seed: int) -> Tensor:
    """Return scores as a network of stride 8 gives them at best, enlarged: true labels in some noise, ``(classes, *space)``.

    Examples
    --------
    >>> coarse_scores(torch.ones(16, 24, dtype=torch.int64), 0).shape
    torch.Size([3, 16, 24])
    """
    draw = torch.Generator("cpu").manual_seed(seed)
    coarse = one_hot(label_grid(mask[None], 8, offset=4), 3).movedim(-1, 1).float() * 3
    coarse += torch.randn(coarse.shape, generator=draw, dtype=torch.float32, device="cpu")
    return interpolate(coarse, tuple(mask.shape), mode="bilinear", align_corners=False)[0]


def crf(scores: Tensor, image: Tensor) -> Tensor:
    """Return scores refined by a dense CRF in place and colour.

    Examples
    --------
    >>> crf(torch.zeros(3, 16, 24), torch.zeros(3, 16, 24)).shape
    torch.Size([3, 16, 24])
    """
    layer = DenseCRF([GaussianKernel(3.0, 3.0), BilateralKernel(15.0, 1.5, 5.0)])
    with torch.no_grad():
        found: Tensor = layer(scores[None], image[None])[0]
    return found


def refined() -> Figure:
    """Draw a scene, its labels, coarse scores, and what the dense CRF makes of them."""
    ((image, mask),) = texture_scenes(1, 1, tint=2.0)
    scores = coarse_scores(mask, 0)
    bright = (image.permute(1, 2, 0) / 8 + 0.5).clamp(0, 1)
    found = {"image": bright, "labels": mask, "scores of stride 8": scores.argmax(0), "dense CRF": crf(scores, image).argmax(0)}
    return _side_by_side(found, 2.1)


def melody(octave: int) -> Sample:
    """Return two chords, one after the other, so many octaves up, a second each at 8 kHz.

    Examples
    --------
    >>> melody(1).data.shape
    torch.Size([1, 16000])
    """
    time = torch.arange(8000, dtype=torch.float32, device="cpu") / 8000
    chords = [[torch.sin(2 * pi * hz * 2**octave * time) / 4 for hz in chord] for chord in ((220.0, 330.0), (277.2, 440.0))]
    sound = torch.cat([torch.stack(notes).sum(0) for notes in chords])
    return Sample(sound[None], ("time",), (1 / 8000,), ("s",))


def octaves() -> Figure:
    """Draw a melody and the same an octave up, on a logarithmic and on a linear axis."""
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for k, ax in enumerate(figure.subplots(1, 4)):
        sound = melody(k % 2)
        found = (
            log_spectrogram(sound, 24, 110.0, 96, 200, scale="magnitude")
            if k < 2
            else spectrogram(sound, 512, 200, scale="magnitude")
        )
        ax.imshow(found.data[0, :96].numpy(), origin="lower", aspect="auto", cmap="viridis", interpolation="nearest")
        ax.set_title(f"{'logarithmic' if k < 2 else 'linear'}{', an octave up' if k % 2 else ''}", fontsize="medium")
        ax.set_xticks([])
        ax.set_ylabel("row of frequency" if k == 0 else "")
    return figure


def _side_by_side(pictures: dict[str, Any], height: float) -> Figure:
    figure = Figure(figsize=(2.4 * len(pictures), height), layout="constrained")
    for ax, (title, picture) in zip(figure.subplots(1, len(pictures)), pictures.items(), strict=True):
        ax.imshow(np.asarray(picture), cmap="viridis", vmin=0, vmax=2, interpolation="nearest")
        ax.set_title(title, fontsize="medium")
        ax.set_axis_off()
    return figure
