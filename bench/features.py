"""``python -m bench.features``: features of images by k-means dictionaries, against patches cut out and multiplied.

Colour images of 32x32 from photographs, 1600 filters of 6x6, triangle, sums over quadrants: Coates, Lee and Ng (2011). Contenders
run in turn, and their features are compared first. ``--memory`` learns 6,000 centroids from a million patches instead,
extracts with them, and says how much memory that took.
"""

import argparse
import resource
from time import perf_counter

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.timing import interleave, ratio
from ninefold.learn import ConvFeatures, KMeansFilters
from ninefold.learn.compare import Comparison

SIDE, PATCH, FILTERS, IMAGES = 32, 6, 1600, 16


def photographs(count: int) -> np.ndarray:
    """Return `count` cuts of colour photographs, ``(count, 32, 32, 3)``, uint8."""
    from skimage import data

    pictures, generator = [data.astronaut(), data.cat(), data.coffee()], np.random.default_rng(0)
    cuts = []
    for k in range(count):
        picture = pictures[k % 3]
        row, column = (int(generator.integers(n - SIDE)) for n in picture.shape[:2])
        cuts.append(picture[row : row + SIDE, column : column + SIDE])
    return np.stack(cuts)


class Cut:
    """Patches cut out, prepared, and compared with all atoms, one image after another."""

    def __init__(self, source: KMeansFilters) -> None:
        self.preparation, self.atoms = source.preparation_, source.atoms_.reshape(len(source.atoms_), -1)
        self.norms = np.square(self.atoms).sum(1)

    def prepared(self, patches: np.ndarray) -> np.ndarray:
        """Return patches ``(N, 6, 6, 3)``, brightness, contrast and covariance taken out, ``(N, 108)``."""
        rows = np.ascontiguousarray(patches.transpose(0, 3, 1, 2), np.float32).reshape(len(patches), -1)
        rows -= rows.mean(1, keepdims=True)
        rows /= np.sqrt(np.square(rows).sum(1, keepdims=True) / (rows.shape[1] - 1) + np.float32(self.preparation.contrast))
        return (rows - self.preparation.mean.numpy()) @ self.preparation.matrix.numpy()

    def pooled(self, z: np.ndarray) -> np.ndarray:
        """Return triangles of distances ``(27 * 27, K)``, summed over quadrants."""
        z = np.maximum(z.mean(1, keepdims=True) - z, 0).reshape(27, 27, -1)
        return np.concatenate([z[a, b].sum((0, 1)) for a in (slice(14), slice(14, 27)) for b in (slice(14), slice(14, 27))])

    def numpy(self, images: np.ndarray) -> np.ndarray:
        """Return features by float32 products of NumPy."""
        out = []
        for image in images:
            cut = np.lib.stride_tricks.sliding_window_view(image, (PATCH, PATCH), (0, 1))
            rows = self.prepared(cut.reshape(-1, 3, PATCH, PATCH).transpose(0, 2, 3, 1))
            z = rows @ self.atoms.T
            z *= -2
            z += self.norms
            z += np.square(rows).sum(1, keepdims=True)
            out.append(self.pooled(np.sqrt(np.maximum(z, 0, out=z), out=z)))
        return np.stack(out)

    def together(self, images: np.ndarray) -> np.ndarray:
        """Return features by one float32 product of all patches of all images, each step written as its formula."""
        cut = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), (1, 2))
        rows = self.prepared(cut.reshape(-1, 3, PATCH, PATCH).transpose(0, 2, 3, 1))
        z = np.sqrt(np.maximum(np.square(rows).sum(1, keepdims=True) - 2 * rows @ self.atoms.T + self.norms, 0))
        return np.stack([self.pooled(one) for one in z.reshape(len(images), -1, FILTERS)])

    def sklearn(self, images: np.ndarray, means: object, dtype: type) -> np.ndarray:
        """Return features by `extract_patches_2d` and the `transform` of scikit-learn's `KMeans`."""
        from sklearn.feature_extraction.image import extract_patches_2d

        return np.stack(
            [
                self.pooled(means.transform(self.prepared(extract_patches_2d(image, (PATCH, PATCH))).astype(dtype)))  # type: ignore[attr-defined]
                for image in images
            ]
        )


def speed(seconds: float) -> None:
    """Time who extracts, beside the convolution alone and a product of as many numbers."""
    from sklearn.cluster import KMeans

    images = photographs(300)
    source = KMeansFilters(FILTERS, PATCH, n_patches=50_000, max_iter=5, random_state=0).fit(images)
    features, cut = ConvFeatures(source, prefit=True).fit(images), Cut(source)
    means = {}
    for dtype in (np.float32, np.float64):
        means[dtype] = KMeans(FILTERS, n_init=1, init=cut.atoms, max_iter=1).fit(cut.atoms)
        means[dtype].cluster_centers_ = cut.atoms.astype(dtype)
    few, comparison = images[:IMAGES], Comparison(source)
    tensor = torch.from_numpy(few).permute(0, 3, 1, 2).float()
    left, right = torch.randn(729 * IMAGES, 108), torch.randn(108, FILTERS)
    runs = {
        "ninefold": lambda: features.transform(few),
        "NumPy, float32, an image at a time, in place": lambda: cut.numpy(few),
        "NumPy, float32, all patches together": lambda: cut.together(few),
        "scikit-learn, float32": lambda: cut.sklearn(few, means[np.float32], np.float32),
        "scikit-learn, float64": lambda: cut.sklearn(few, means[np.float64], np.float64),
        "the convolution alone": lambda: [comparison(part) for part in tensor.split(2)],
        "one product of all patches alone": lambda: left @ right,
    }
    found = [runs[name]() for name in list(runs)[:5]]
    for other in found[1:]:
        gap = np.abs(found[0] - other).max() / np.abs(found[0]).max()
        if gap > 1e-4:
            raise SystemExit(f"features differ by {gap:.1e} of the largest")
    times = interleave(runs, seconds, pairs=runs, rest=0.2)
    table = Table("", "images a second", "ninefold is faster by (95%)", title=machine.line(machine.describe()))
    for name, took in times.items():
        middle, low, high = ratio(took, times["ninefold"])
        table.add_row(name, f"{IMAGES / took.median:.1f}", f"{middle:.2f} ({low:.2f} to {high:.2f})")
    Console(width=140).print(table)


def memory() -> None:
    """Learn 6,000 centroids from a million patches, two iterations, and extract; print the largest resident memory."""

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    images = photographs(1500)
    table = Table("", "seconds", "largest resident memory, GiB", title=machine.line(machine.describe()))
    table.add_row("packages and 1,500 images", "", f"{peak():.2f}")
    start = perf_counter()
    source = KMeansFilters(6000, PATCH, n_patches=1_000_000, max_iter=2, random_state=0).fit(images)
    table.add_row("6,000 centroids of 1,000,000 patches", f"{perf_counter() - start:.1f}", f"{peak():.2f}")
    features, start = ConvFeatures(source, prefit=True).fit(images), perf_counter()
    rows = sum(len(part) for part in features.stream(images))
    table.add_row(f"features of {rows:,} images", f"{perf_counter() - start:.1f}", f"{peak():.2f}")
    Console(width=140).print(table)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        memory()
    else:
        speed(arguments.seconds)


if __name__ == "__main__":
    main()
