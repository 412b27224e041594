"""``python -m bench.crf``: pydensecrf's job, by ninefold and by pydensecrf where another Python has it, whole processes in turn.

A photograph, `--labels` labels, a Gaussian kernel (3) and a bilateral one (80, 13), ten steps; lattices are built within the
time.
pydensecrf2 builds on Python 3.12 only: ``--peer /path/to/python3.12`` names one that has it. Recorded for it elsewhere:
500x500 with 21
labels 0.93 to 1.0 s on one core; 1000x1000 4.4 s, 709 MB; 4000x4000 with 2 labels 63 s, 3.1 GB.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from bench import machine

CHILD = """
import importlib, resource, sys, time
import numpy as np
package, threads, labels, path = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
d = importlib.import_module(package + ".densecrf")
if package.startswith("ninefold"):
    import torch
    torch.set_num_threads(threads)
image = np.load(path)
h, w = image.shape[:2]
u = np.random.default_rng(0).random((labels, h * w), dtype=np.float32) * 3
def run():
    c = d.DenseCRF2D(w, h, labels)
    c.setUnaryEnergy(u)
    c.addPairwiseGaussian(sxy=3, compat=3)
    c.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
    return np.array(c.inference(10))
if h * w < 10**6:
    run()
start, used = time.perf_counter(), time.process_time()
run()
print(time.perf_counter() - start, time.process_time() - used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def photograph(side: int, path: Path) -> None:
    """Write a square photograph of so many pixels a side."""
    from skimage import data, transform

    image = data.astronaut()[:500, :500]
    np.save(path, image if side == 500 else (transform.resize(image, (side, side), order=1) * 255).astype(np.uint8))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=500)
    parser.add_argument("--labels", type=int, default=21)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--peer", help="a Python that has pydensecrf")
    arguments = parser.parse_args()
    runs = {f"ninefold, {t} threads": (sys.executable, "ninefold.compat.pydensecrf", str(t)) for t in arguments.threads}
    if arguments.peer:
        runs["pydensecrf"] = (arguments.peer, "pydensecrf", "1")
    found: dict[str, list[list[float]]] = {name: [] for name in runs}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.npy"
        photograph(arguments.side, path)
        for _ in range(arguments.rounds):
            for name, (python, package, threads) in runs.items():
                command = [python, "-c", CHILD, package, threads, str(arguments.labels), str(path)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[name].append([float(x) for x in done.stdout.split()])
    table = Table("", "seconds", "CPU seconds", "largest resident memory, MiB", title=machine.line(machine.describe()))
    for name, rows in found.items():
        table.add_row(name, *(f"{median(column):.2f}" for column in zip(*rows, strict=True)))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
