"""Pictures of filters: what is drawn at random, what it answers to most, and what is learned from patches."""

import numpy as np
from matplotlib.figure import Figure

from ninefold.chapter.data import digits, photograph
from ninefold.learn import KMeansFilters, OMPFilters, RandomFilters, mosaic, optimal_input

__all__ = ["learned", "random_and_optimal"]


def random_and_optimal() -> Figure:
    """Draw random filters above the gratings that they answer to most."""
    kernels = RandomFilters(6, 5, random_state=0).fit(np.zeros((1, 20, 20))).filters_[:, 0]
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    for (above, below), kernel in zip(figure.subplots(2, 6).T, kernels, strict=True):
        mosaic(kernel[None], above, title="filter")
        mosaic(optimal_input(kernel, 20).image[None], below, title="best input")
    return figure


def learned() -> Figure:
    """Draw filters learned from digits and from a photograph."""
    told, camera = digits().pictures[:, 0], photograph("camera")[None]
    sets = {
        "k-means, digits": KMeansFilters(64, 4, n_patches=3000, random_state=0).fit(told).atoms_,
        "k-means, a photograph": KMeansFilters(64, 8, n_patches=10_000, contrast=0.01, random_state=0).fit(camera).atoms_,
        "matching pursuit, the same": OMPFilters(64, 8, n_patches=10_000, contrast=0.01, max_iter=20, random_state=0)
        .fit(camera)
        .atoms_,
    }
    figure = Figure(figsize=(7, 2.7), layout="constrained")
    for ax, (title, atoms) in zip(figure.subplots(1, 3), sets.items(), strict=True):
        mosaic(atoms, ax, columns=8, title=title)
    return figure
