"""``python -m bench.partition``: growth of partitions, MALIS and scores with the volume; mutex watershed beside bioimage-cpp's.

Volumes are made cells with noisy affinities to three near and three far neighbours. Each measurement is a process of its own,
so that its memory is its own, too: CPU seconds of the median call, and the highest resident memory above what was there before.
Work in n log n keeps the last column level. ``--voxels 1e7`` goes on to ten million (minutes, 4 GB). With ``pip install
bioimage-cpp``, which is optional, the peer takes turns with ninefold in ``--rounds`` pairs of processes, and both partitions are
compared first.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from math import log2
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench import machine
from ninefold.memory import peak_memory
from ninefold.structured import partition as nfp

OFFSETS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (4, 0, 0), (0, 4, 0), (0, 0, 4))
NEAR = 3  # offsets that attract
SIDES = (46, 100, 215)  # 10^5, 10^6, 10^7 voxels
PAIRS = 100_000
OURS, PEER = "mutex watershed", "mutex watershed, bioimage-cpp"
_ALIKE = 0.01  # adapted Rand error between both mutex watersheds, which break ties in their own ways
_FEW, _SOON = 5, 1.0  # at most so many calls, none begun after so many seconds


def volume(side: int, folder: Path) -> None:
    """Write labels and affinities of a cube."""
    generator, half = np.random.default_rng(0), -(-side // 2)
    cells = nfp.voronoi_cells((half,) * 3, max(8, side**3 // 4000), walls=False)
    labels = cells.repeat(2, 0).repeat(2, 1).repeat(2, 2)[:side, :side, :side]
    exact = nfp.Affinities.from_labels(labels, OFFSETS).values
    noisy = 0.7 * exact + 0.3 * generator.random(exact.shape, dtype=np.float32)
    noisy += 0.25 * generator.standard_normal(exact.shape, dtype=np.float32)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "affinities.npy", np.clip(noisy, 0, 1).astype(np.float32))


def runs(labels: np.ndarray, affinities: np.ndarray) -> dict[str, Callable[[], Callable[[], Any]]]:
    """Return what is measured by name: a function that prepares, off the clock, and returns the call."""
    near, every = nfp.Affinities(affinities[:NEAR], OFFSETS[:NEAR]), nfp.Affinities(affinities, OFFSETS)

    def maximin() -> Callable[[], Any]:
        pairs = np.random.default_rng(1).integers(0, labels.size, (PAIRS, 2))
        return lambda: nfp.maximin_affinities(near, pairs)

    def rand() -> Callable[[], Any]:
        found = nfp.connected_components(near, 0.5)
        return lambda: nfp.rand_index(labels, found)

    def peer() -> Callable[[], Any]:
        from bioimage_cpp.segmentation import mutex_watershed

        weights = np.concatenate([affinities[:NEAR], 1 - affinities[NEAR:]])
        return lambda: mutex_watershed(weights, OFFSETS, NEAR)

    return {
        "connected components": lambda: lambda: nfp.connected_components(near, 0.5),
        "watershed": lambda: lambda: nfp.watershed(near),
        "MALIS pairs": lambda: lambda: nfp.maximin_pairs(near, labels),
        f"maximin, {PAIRS:,} pairs": maximin,
        "Rand index": rand,
        OURS: lambda: lambda: nfp.mutex_watershed(every, NEAR),
        PEER: peer,
    }


def one(name: str, folder: Path) -> None:
    """Measure within this process; print seconds and bytes as JSON."""
    torch.set_num_threads(1)
    call = runs(np.load(folder / "labels.npy"), np.load(folder / "affinities.npy"))[name]()
    with peak_memory() as peak:
        times, found = [], None
        while len(times) < _FEW and sum(times) < _SOON:
            del found
            start = process_time()
            found = call()
            times.append(process_time() - start)
    if name in (OURS, PEER):
        np.save(folder / f"{name}.npy", np.asarray(found).astype(np.int64))
    print(json.dumps([median(times), peak.bytes]))


def measured(name: str, folder: Path) -> tuple[float, int | None]:
    """Return seconds and bytes of a process."""
    command = [sys.executable, "-m", "bench.partition", "--one", name, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stderr}")
    seconds, taken = json.loads(done.stdout.splitlines()[-1])
    return seconds, taken


def compare(side: int, rounds: int, table: Table, peer: bool) -> str:
    """Measure a cube of one size into the table; return what is said of the mutex watersheds."""
    said, voxels = "", side**3
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        volume(side, folder)
        names = list(runs(np.load(folder / "labels.npy"), np.load(folder / "affinities.npy")))
        found = {name: [measured(name, folder)] for name in names[:-2]}
        mutex = [OURS, PEER] if peer else [OURS]
        found |= {name: [] for name in mutex}
        for k in range(rounds):
            for name in mutex[:: 1 if k % 2 else -1]:
                found[name].append(measured(name, folder))
        if peer:
            gap = nfp.adapted_rand_error(*(np.load(folder / f"{name}.npy") for name in mutex)).error
            if gap > _ALIKE:
                raise SystemExit(f"mutex watersheds of {voxels:,} voxels differ: adapted Rand error {gap:.3f}")
            ratios = [a[0] / b[0] for a, b in zip(found[OURS], found[PEER], strict=True)]
            said = f"{voxels:,} voxels: ninefold takes {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of "
            said += f"bioimage-cpp's time; adapted Rand error between both {gap:.1e}"
    for name, each in found.items():
        seconds, taken = median(s for s, _ in each), [b for _, b in each if b is not None]
        memory = f"{max(taken) / voxels:.0f}" if taken else "?"
        table.add_row(name, f"{voxels:,}", f"{seconds:.3f}", memory, f"{1e9 * seconds / voxels / log2(voxels):.2f}")
    table.add_section()
    return said


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=float, default=1e6, help="the largest volume, up to 1e7")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each mutex watershed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one, arguments.folder)
        return
    peer = find_spec("bioimage_cpp") is not None
    title = machine.line(machine.describe() | {"threads": 1})
    table = Table("", "voxels", "CPU s", "bytes a voxel", "ns / (n log2 n)", title=title)
    said = [compare(side, arguments.rounds, table, peer) for side in SIDES if side**3 <= 1.01 * arguments.voxels]
    Console(width=140).print(table)
    print(*(said if peer else ["bioimage-cpp is not installed: pip install bioimage-cpp"]), sep="\n")


if __name__ == "__main__":
    main()
