"""``python -m bench.choosing``: how long `ninefold.optimize` itself takes on networks that somebody else wrote.

Hugging Face's networks, 224x224, batch 1, random weights, batch normalisations with the statistics of random images. Each runs in
a process of its own with an empty plan cache: ``first`` is the first call on a machine, its rates (0.9 s) included; ``second`` is
the same call again. One step of the network, untouched and best, stands beside: a second of choosing is made of such steps.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from bench import machine

NETWORKS = {
    "resnet-50": ("ResNetConfig", "ResNetModel", {}),
    "mobilenet-v2": ("MobileNetV2Config", "MobileNetV2Model", {}),
    "efficientnet-b0": (
        "EfficientNetConfig",
        "EfficientNetModel",
        {"width_coefficient": 1.0, "depth_coefficient": 1.0, "image_size": 224, "hidden_dim": 1280},
    ),
    "convnext-tiny": ("ConvNextConfig", "ConvNextModel", {}),
}


def network(name: str) -> nn.Module:
    """Return a network of ``transformers`` whose batch normalisations have the statistics of random images."""
    import transformers

    config, model, sizes = NETWORKS[name]
    torch.manual_seed(0)
    net: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**sizes))
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = None  # a plain mean
        norm.reset_running_stats()
    with torch.no_grad():
        for _ in range(2):
            net.train()(torch.randn(4, 3, 224, 224))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return net.eval()


def worker(name: str) -> None:
    """Print the seconds of both calls, and milliseconds of a step before and after."""
    import ninefold as nf

    net, x = network(name), torch.randn(1, 3, 224, 224)
    seconds = []
    for _ in range(2):
        start = perf_counter()
        _, report = nf.optimize(net, x)
        seconds.append(perf_counter() - start)
    print(*seconds, report.before * 1e3, report.after * 1e3)


def main() -> None:
    """Run every network, or those that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(NETWORKS), help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.names[0])
        return
    table = Table("network", "first, s", "second, s", "step before, ms", "after, ms")
    for name in given.names:
        with tempfile.TemporaryDirectory() as cache:
            command = [sys.executable, "-m", "bench.choosing", "--worker", name]
            done = subprocess.run(
                command, env=os.environ | {"NINEFOLD_CACHE": cache}, stdout=subprocess.PIPE, text=True, check=True
            )
        first, second, before, after = map(float, done.stdout.split()[-4:])
        table.add_row(name, f"{first:.1f}", f"{second:.1f}", f"{before:.1f}", f"{after:.1f}")
    console = Console()
    console.print(machine.line(machine.describe()))
    console.print(table)


if __name__ == "__main__":
    main()
