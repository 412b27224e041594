"""``python -m bench.sparse_coding``: dictionaries of whole images against sporco's (pip install sporco future filetype).

Four photographs of 128x128 less their blurred version, 32 atoms of 8x8, 20 iterations from the same random atoms, circular
borders. Contenders run in turn. Objectives are of each one's atoms and its own codes, and of its atoms with codes that are found
anew by many iterations. sporco updates atoms by consensus with its own settings, and by gradients with those of its example: its
own are far behind after so few iterations.
"""

import argparse
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.timing import interleave, ratio
from ninefold.learn.coding import objective, sparse_codes
from ninefold.learn.sparse import SparseCodingFilters

COUNT, SIDE, ITERATIONS, PENALTY = 32, 8, 20, 0.05


def images() -> np.ndarray:
    """Return them, ``(4, 128, 128)``."""
    from scipy.ndimage import gaussian_filter
    from skimage import data

    sharp = [np.asarray(picture(), np.float64) / 255 for picture in (data.camera, data.coins, data.moon, data.brick)]
    cut = [x[:: max(1, len(x) // 256), :: max(1, len(x) // 256)][40:168, 40:168] for x in sharp]
    return np.stack([x - gaussian_filter(x, 5, mode="wrap") for x in cut])


def starting() -> np.ndarray:
    """Return random atoms of unit norm, ``(K, 8, 8)``."""
    atoms = np.random.default_rng(0).normal(size=(COUNT, SIDE, SIDE))
    return np.asarray(atoms / np.sqrt(np.square(atoms).sum((1, 2), keepdims=True)))


def ours(x: np.ndarray, atoms: np.ndarray) -> SparseCodingFilters:
    """Learn with this library, in float32."""
    source = SparseCodingFilters(
        COUNT, SIDE, penalty=PENALTY, n_iter=ITERATIONS, window=None, predictor_iter=0, border="circular", init=atoms[:, None]
    )
    return source.fit(x)


def theirs(x: np.ndarray, atoms: np.ndarray, how: str, options: dict[str, dict[str, float]], dtype: str) -> tuple:
    """Learn with sporco; return its atoms ``(K, 8, 8)`` and codes ``(N, K, H, W)``."""
    from sporco.dictlrn.cbpdndl import ConvBPDNDictLearn

    signal, start = (np.ascontiguousarray(np.moveaxis(a, 0, -1), dtype) for a in (x, atoms))
    made = ConvBPDNDictLearn.Options({"Verbose": False, "MaxMainIter": ITERATIONS, **options}, dmethod=how)
    solver = ConvBPDNDictLearn(start, signal, PENALTY, made, dmethod=how)
    learned = np.moveaxis(solver.solve().squeeze(), -1, 0)
    return learned, np.moveaxis(solver.getcoef().squeeze(), (2, 3), (0, 1))


def contenders(dtype: str) -> dict[str, Callable[..., object]]:
    """Return sporco's ways by name, none if it is not there."""
    try:
        import sporco  # noqa: F401
    except ImportError:
        return {}
    ways = {
        "consensus, own settings": ("cns", {}),
        "gradient, of its example": ("pgm", {"CBPDN": {"rho": 50 * PENALTY + 0.5}, "CCMOD": {"L": 50.0}}),
    }
    return {
        f"sporco {name}, {dtype}": partial(theirs, how=how, options=options, dtype=dtype) for name, (how, options) in ways.items()
    }


def values(x: np.ndarray, atoms: np.ndarray, codes: np.ndarray | None) -> tuple[float, float]:
    """Return the objective with given codes, and with codes found anew."""
    given, kernels = torch.from_numpy(x)[:, None], torch.from_numpy(np.ascontiguousarray(atoms, np.float64))[:, None]
    anew = sparse_codes(given.float(), kernels.float(), PENALTY, n_iter=150, border="circular").double()
    own = float("nan") if codes is None else objective(
        given, kernels, torch.from_numpy(np.ascontiguousarray(codes, np.float64)), PENALTY, "circular"
    )  # fmt: skip
    return own, objective(given, kernels, anew, PENALTY, "circular")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of sporco")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    x, atoms = images(), starting()
    results: dict[str, object] = {}

    def keeping(name: str, run: Callable[..., object]) -> Callable[[], None]:
        def once() -> None:
            results[name] = run(x, atoms)

        return once

    runs = {name: keeping(name, run) for name, run in {"ninefold": ours, **contenders(arguments.dtype)}.items()}
    times = interleave(runs, arguments.seconds, pairs=runs)
    table = Table(
        "",
        "seconds, least",
        "median",
        "times ninefold (95%)",
        "objective",
        "with codes anew",
        title=machine.line(machine.describe()),
    )
    for name, took in times.items():
        found = results[name]
        if isinstance(found, SparseCodingFilters):
            own, anew = found.objective_[-1] * len(x), values(x, found.atoms_[:, 0], None)[1]
        else:
            own, anew = values(x, *found)  # type: ignore[misc]
        middle, low, high = ratio(took, times["ninefold"])
        share = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        table.add_row(name, f"{took.least:.2f}", f"{took.median:.2f}", share, f"{own:.2f}", f"{anew:.2f}")
    Console(width=140).print(table)
    if len(times) == 1:
        Console().print("sporco cannot be imported: there is nothing to compare with")


if __name__ == "__main__":
    main()
