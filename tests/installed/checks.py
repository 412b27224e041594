"""The installed wheel, away from the source tree: ``pytest checks.py`` in a folder of its own (see run.sh)."""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import files, version
from pathlib import Path

import pytest
import torch

import ninefold as nf
import ninefold.functional as F
from ninefold.engines import ENGINES, native
from ninefold.testing import check_against_reference, check_dot, load_shapes, refusal

SHAPES = """
[[shape]]
name = "dense-5x3"
batch = 2
size = [9, 12]
in_channels = 3
out_channels = 8
kernel_size = [5, 3]

[[shape]]
name = "depthwise-3x5"
batch = 1
size = [11, 8]
in_channels = 6
out_channels = 6
groups = 6
kernel_size = [3, 5]
padding = [1, 2]
"""


def python(code, **environment):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_is_the_installed_one():
    place = Path(nf.__file__)
    assert place.is_relative_to(sysconfig.get_path("platlib")), place
    assert version("ninefold") == nf.__version__


@pytest.mark.skipif("NINEFOLD_WHEEL" not in os.environ, reason="NINEFOLD_WHEEL names 1 wheel where there is no compiler")
def test_no_compiler_is_reachable_and_the_wheel_is_of_this_version():
    assert not any(shutil.which(name) for name in ("cc", "c++", "gcc", "g++", "clang", "clang++"))
    assert f"-{nf.__version__.replace('-', '_')}-" in os.environ["NINEFOLD_WHEEL"]


def test_the_wheel_brings_types_and_records_and_one_library():
    names = {str(path) for path in files("ninefold")}
    assert {"ninefold/py.typed", "ninefold/chapter/recorded.json", "ninefold/cli/__main__.py"} <= names
    assert sum(name.endswith(".so") for name in names) == 1
    assert not any(name.startswith(("tests/", "native/")) for name in names)


def test_the_kernels_are_there():
    assert native.instruction_set() in native.extension_module().isas()


@pytest.mark.parametrize("isa", native.extension_module().isas())
def test_each_instruction_set_computes_what_the_definition_says(isa):
    code = """
import torch, ninefold as nf
from ninefold.engines import ENGINES, native
from ninefold.testing import check_against_reference, load_shapes, refusal
from pathlib import Path
ran = set()
for shape in load_shapes(Path("shapes")):
    for engine in ENGINES:
        if refusal(engine, "c", shape) is None:
            check_against_reference(engine, "c", shape)
            ran.add(engine.name)
print(native.instruction_set(), len(ran))
"""
    write_shapes(Path("shapes"))
    name, count = python(code, NINEFOLD_ISA=isa).split()
    assert name == isa
    assert int(count) >= 5


def write_shapes(folder):
    folder.mkdir(exist_ok=True)
    (folder / "checks.toml").write_text(SHAPES)


@pytest.mark.parametrize("map_", ["c", "h", "g"])
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_contract_of_every_engine(engine, map_, tmp_path):
    write_shapes(tmp_path / "shapes")
    for shape in load_shapes(tmp_path / "shapes"):
        if refusal(engine, map_, shape) is None:
            check_against_reference(engine, map_, shape)
            check_dot(engine, map_, shape)


def test_gradients_through_the_chosen_engine():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 12, 9, requires_grad=True), torch.randn(4, 3, 5, 3, requires_grad=True)
    ours = torch.autograd.grad(F.conv2d(x, weight).square().sum(), (x, weight))
    theirs = torch.autograd.grad(torch.nn.functional.conv2d(x, weight).square().sum(), (x, weight))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-3) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the maps of a process are read from /proc, which 1 platform has"
)
def test_one_openmp_runtime_is_loaded_and_it_is_pytorchs():
    code = "import torch, ninefold.functional as F; F.conv2d(torch.ones(1, 2, 40, 30), torch.ones(3, 2, 9, 5))\n"
    code += "print(*{line.split()[-1] for line in open('/proc/self/maps') if 'gomp' in line or 'iomp' in line})"
    (runtime,) = python(code).split()
    assert Path(runtime).is_relative_to(Path(torch.__file__).parent), runtime


def test_the_command():
    command = [sys.executable, "-m", "ninefold"]
    told = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    assert told == f"ninefold {nf.__version__}\n"
    script = Path(sys.executable).with_name("ninefold")
    done = subprocess.run([script, "plan", "1x3x9x8 -> 4 k=3", "--json"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith('{"engine": ')
