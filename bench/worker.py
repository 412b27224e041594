"""The process that times: fresh, with one kind of memory and its own plan cache; a JSON record per line on stdout."""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

from bench.case import FORMATS, FORWARD_BACKWARD, Record, run_case
from ninefold.memory import retain_memory
from ninefold.testing.shapes import Shape, load_shapes

PEERS = ("onnxruntime", "openvino", "jax", "scipy", "opencv")


def available_peers() -> tuple[list[ModuleType], dict[str, str]]:
    """Return the adapters whose library is installed, and a sentence for each that is not."""
    found, missing = [], {}
    for name in PEERS:
        adapter = import_module(f"bench.peers.{name}_peer")
        try:
            adapter.load()
        except ImportError as error:
            missing[adapter.NAME] = f"{adapter.NAME} is not installed ({error}); pip install 'ninefold[peers]'"
        else:
            found.append(adapter)
    return found, missing


def maps_of(shape: Shape, wanted: list[str]) -> list[str]:
    """Return what is run of a shape, in order."""
    whole = len(shape.maps) == 3
    return [m for m in wanted if (m in shape.maps) or (m == FORWARD_BACKWARD and whole)]


def records(shape: Shape, name: str, seconds: float, peers: list[ModuleType]) -> list[Record]:
    """Run a case; what breaks it as a whole is a record with an error, and the next case goes on."""
    try:
        return run_case(shape, name, seconds, peers)
    except Exception as error:
        what = f"the case raised {type(error).__name__}: {error}"
        return [Record(shape.name, shape.group, name, FORMATS[0], "", errors=[what])]


def main() -> int:
    """Run the cases that are named on stdin, one ``shape`` a line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", type=Path, required=True)
    parser.add_argument("--memory", choices=("cold", "kept"), required=True)
    parser.add_argument("--maps", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--peers", action="store_true")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.memory == "kept" and not retain_memory():
        return 3
    peers, missing = available_peers() if arguments.peers else ([], {})
    print(json.dumps({"missing": missing}), flush=True)
    shapes = {s.name: s for s in load_shapes(arguments.shapes)}
    for line in sys.stdin:
        shape = shapes[line.strip()]
        for name in maps_of(shape, arguments.maps.split(",")):
            for record in records(shape, name, arguments.seconds, peers):
                print(json.dumps(record.to_json() | {"memory": arguments.memory}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
