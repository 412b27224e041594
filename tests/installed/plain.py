"""What runs with PyTorch and NumPy alone: run where nothing else is installed, or where nothing else can be imported."""

import subprocess
import sys

import torch

import ninefold as nf
import ninefold.functional as F
from ninefold import compat, data, drawing, models, network, nn, pooling_theory, structured, symmetry, testing
from ninefold.errors import MissingExtraError

torch.manual_seed(0)
x, weight = torch.randn(1, 2, 12, 9), torch.randn(3, 2, 5, 3)
assert torch.allclose(F.conv2d(x, weight), torch.nn.functional.conv2d(x, weight), atol=1e-5)
layer = nn.TiledConv2d(2, 3, (3, 5), period=2)
assert layer(x).shape == (1, 3, 10, 5)
assert "engine" in str(nf.plan(layer, (12, 9)))
_, report = nf.optimize(torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3)).eval(), x, seconds=0.0)
assert "whole step" in str(report) or "nothing was timed" in str(report)
assert "convolution" in str(nf.connectivity_counts(layer, (12, 9)))
assert "Shift" in str(nf.equivariance(layer, x))
assert len(models.MODELS) > 5
for package in (compat, data, drawing, network, pooling_theory, structured, symmetry, testing):
    assert package.__doc__

for name in ("learn", "segment"):
    try:
        getattr(nf, name)
    except MissingExtraError as error:
        assert f"pip install 'ninefold[{name}]'" in str(error), error  # noqa: PT017  no pytest here
    else:
        raise AssertionError(f"ninefold.{name} was imported, with more than PyTorch and NumPy")

if "--command" in sys.argv:  # where packages are really missing, for another process, too
    command = [sys.executable, "-m", "ninefold"]
    told = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    assert told == f"ninefold {nf.__version__}\n"
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'ninefold[cli]'" in done.stderr, done.stderr
print("plain install: ok")
