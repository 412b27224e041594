"""``python -m bench.tiled_invariance``: what pooling over tiled filters leaves alone, beside a convolution (Le et al. 2010).

Filters are learned by `TiledICA` on some photographs of scikit-image, and measured on others. Period 1 is the twin: a
convolution of as many maps, of as many crops, learned in the same way. A unit is the pooled response of one map at one place
of the period. Its field, and nothing else, is seen twice, moved, turned or zoomed about its own centre: turns and zooms by half
the amount either way, so that both views are interpolated alike; shifts are whole pixels, not interpolated. With p and q the
responses to the two views, ``mean (p - q)^2 / (var p + var q)`` is 0 for what never notices and 1 for views that have nothing in
common. Printed is the mean over units, and over seeds with a 95% interval (Student's t); and, paired by seed, the difference
from the twin. Filters that were drawn and made orthonormal but not learned tell what learning did.
"""

import argparse
from collections.abc import Callable
from math import cos, radians, sin

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench import machine
from ninefold.learn import TiledICA
from ninefold.learn.tica import TICA

COUNT, SIDE, POOL, PERIODS = 16, 8, 3, (1, 2, 3)
FIELD = SIDE + POOL - 1
LEARN, MEASURE = ("camera", "astronaut", "coffee", "coins"), ("chelsea", "rocket", "gravel", "grass")
SHIFTS, TURNS, ZOOMS = (1, 2, 4), (10, 20, 40), (1.1, 1.25, 1.5)


def photographs(names: tuple[str, ...]) -> list[np.ndarray]:
    """Return grey ones of mean 0 and deviation 1."""
    from skimage import data

    found = []
    for name in names:
        picture = np.asarray(getattr(data, name)(), np.float64)
        grey = picture[..., :3].mean(-1) if picture.ndim == 3 else picture
        found.append((grey - grey.mean()) / grey.std())
    return found


class Views:
    """Fields at random places of photographs, and the same ones transformed about their centres."""

    def __init__(self, pictures: list[np.ndarray], count: int, generator: np.random.Generator) -> None:
        from scipy.ndimage import spline_filter

        self._pictures, self._smooth = pictures, [spline_filter(x, 3) for x in pictures]
        margin = 2 * FIELD
        self._tops = [
            np.stack([generator.integers(margin, n - margin, count // len(pictures)) for n in x.shape], 1) for x in pictures
        ]
        self._ways = [generator.integers(4, size=len(tops)) for tops in self._tops]

    def turned(self, matrix: np.ndarray) -> torch.Tensor:
        """Return fields ``(N, 1, FIELD, FIELD)`` whose coordinates are multiplied by a matrix."""
        from scipy.ndimage import map_coordinates

        around = np.indices((FIELD, FIELD)).reshape(2, -1) - (FIELD - 1) / 2
        found = []
        for smooth, tops in zip(self._smooth, self._tops, strict=True):
            at = (matrix @ around)[:, None] + tops.T[..., None] + (FIELD - 1) / 2
            found.append(map_coordinates(smooth, at, order=3, prefilter=False))
        return _fields(found)

    def shifted(self, pixels: int) -> torch.Tensor:
        """Return fields moved along one of the axes, drawn for each."""
        steps = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)]) * pixels
        found = []
        for picture, tops, ways in zip(self._pictures, self._tops, self._ways, strict=True):
            rows, columns = (tops + steps[ways]).T
            windows = np.lib.stride_tricks.sliding_window_view(picture, (FIELD, FIELD))
            found.append(windows[rows, columns])
        return _fields(found)


def _fields(found: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(found).reshape(-1, 1, FIELD, FIELD)).float()


def pairs(views: Views) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the two views of each transform."""

    def turn(degrees: float) -> np.ndarray:
        angle = radians(degrees)
        return np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])

    made = {f"shift {n} px": (views.shifted(0), views.shifted(n)) for n in SHIFTS}
    made |= {f"turn {n} deg": (views.turned(turn(n / 2)), views.turned(turn(-n / 2))) for n in TURNS}
    return made | {f"zoom {s}": (views.turned(np.eye(2) * s**0.5), views.turned(np.eye(2) * s**-0.5)) for s in ZOOMS}


def units(source: TiledICA, atoms: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the responses ``(N, units)`` to fields: filters are rolled so that each place of the period comes first in turn."""
    places = [(a, b) for a in range(atoms.shape[1]) for b in range(atoms.shape[2])]
    models = [TICA(atoms.roll((-a, -b), (1, 2)), source.preparation_, (POOL, POOL), source.epsilon) for a, b in places]

    def responses(fields: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([model.pooled(fields).flatten(1) for model in models], 1).double()

    return responses


def change(p: torch.Tensor, q: torch.Tensor) -> float:
    """Return the mean over units of ``mean (p - q)^2 / (var p + var q)``."""
    return float(((p - q).square().mean(0) / (p.var(0) + q.var(0))).mean())


def frequency(atoms: torch.Tensor) -> float:
    """Return the mean frequency of filters, in cycles a pixel, weighted by power."""
    power = torch.fft.fft2(atoms.double(), s=(64, 64)).abs().square()
    axis = torch.fft.fftfreq(64, dtype=torch.float64)
    return float((power * torch.hypot(axis[:, None], axis)).sum() / power.sum())


def measured(seed: int, steps: int, fields: int) -> dict[tuple[int, bool], dict[str, float]]:
    """Return what is printed, by period and by whether filters were learned."""
    generator = np.random.default_rng(seed)
    seen = pairs(Views(photographs(MEASURE), fields, generator))
    found = {}
    for period in PERIODS:
        source = TiledICA(
            COUNT, SIDE, period=period, pool=POOL, n_crops=5000, batch_size=250, n_epochs=max(1, steps // 20), random_state=seed
        ).fit(photographs(LEARN))
        learned = torch.from_numpy(source.atoms_).unflatten(0, (COUNT, period, period))
        drawn = torch.randn(learned.shape, generator=torch.Generator().manual_seed(seed))
        within = TICA(drawn, source.preparation_, (POOL, POOL), source.epsilon).atoms
        for is_learned, atoms in ((True, learned), (False, within)):
            responses = units(source, atoms)
            row = {name: change(responses(a), responses(b)) for name, (a, b) in seen.items()}
            row["objective"] = float(responses(seen["shift 1 px"][0]).mean())
            row["cycles/px"] = frequency(atoms)
            found[period, is_learned] = row
    return found


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and half of its 95% interval."""
    from scipy.stats import t

    n = len(values)
    return float(np.mean(values)), float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5) if n > 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300, help="of learning, of 250 crops each")
    parser.add_argument("--fields", type=int, default=2000, help="that responses are measured on")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    runs = [measured(k, arguments.steps, arguments.fields) for k in track(range(arguments.seeds), "seeds")]
    names = list(runs[0][1, True])
    title = f"{arguments.seeds} seeds, {arguments.steps} steps; {machine.line(machine.describe())}"
    table = Table("", *[f"period {t}, {w}" for w in ("learned", "drawn") for t in PERIODS], title=title)
    less = Table("difference from period 1", *[f"period {t}, {w}" for w in ("learned", "drawn") for t in PERIODS[1:]])
    for name in names:
        cells, gaps = [], []
        for is_learned in (True, False):
            for period in PERIODS:
                middle, half = interval([run[period, is_learned][name] for run in runs])
                cells.append(f"{middle:.3f} +- {half:.3f}")
                if period > 1:
                    middle, half = interval([run[period, is_learned][name] - run[1, is_learned][name] for run in runs])
                    gaps.append(f"{middle:+.3f} +- {half:.3f}")
        table.add_row(name, *cells)
        less.add_row(name, *gaps)
    console = Console(width=150)
    console.print(table, less)


if __name__ == "__main__":
    main()
