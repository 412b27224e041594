"""What importing costs: descriptions need no torch, and nothing loads what only the command line or one feature needs."""

import subprocess
import sys

import pytest


def loaded(code, *forbidden):
    """Return which of the forbidden packages a fresh interpreter has loaded after running the code."""
    report = f"{code}\nimport sys\nprint(*[m for m in {forbidden!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split() if done.stdout.strip() else []


HEAVY = ("torch", "numpy", "scipy", "typer", "rich", "sqlite3", "matplotlib", "sklearn")


@pytest.mark.parametrize(
    "code",
    [
        "import ninefold",
        "import ninefold as nf; nf.ConvSpec(3, 96, 11, stride=4).output_size((227, 231))",
        "import ninefold.spec",
        "import ninefold as nf\nwith nf.options(tolerance='strict'): pass",
        "import ninefold.errors",
    ],
)
def test_descriptions_and_options_need_no_torch(code):
    assert loaded(code, *HEAVY) == []


@pytest.mark.parametrize(
    "code",
    [
        "import ninefold.functional",
        "import ninefold.nn",
        "import ninefold as nf; nf.plan(nf.ConvSpec(2, 3, (5, 3)), (9, 8))",
        "import torch, ninefold.functional as F; F.conv2d(torch.ones(1, 2, 40, 30), torch.ones(3, 2, 9, 5))",
        "import ninefold.models, ninefold.network",
    ],
)
def test_convolving_and_planning_load_neither_scipy_nor_the_command_line(code):
    assert loaded(code, "scipy", "typer", "rich", "matplotlib", "sklearn", "torch._dynamo", "torch._inductor") == []


def test_every_public_name_is_there_and_a_wrong_one_is_said():
    import ninefold

    for name in ninefold.__all__:
        assert getattr(ninefold, name) is not None
    with pytest.raises(AttributeError, match="'ninefold' has no attribute 'convole'"):
        _ = ninefold.convole


def test_one_copy_of_the_thread_pool_is_loaded():
    code = "import torch, ninefold.functional as F; F.conv2d(torch.ones(1, 2, 40, 30), torch.ones(3, 2, 9, 5))\n"
    code += "print(len({line.split()[-1] for line in open('/proc/self/maps') if 'gomp' in line or 'iomp' in line}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if not sys.platform.startswith("linux"):
        pytest.skip("the maps of a process are read from /proc, which this platform lacks")
    assert int(done.stdout) <= 1, done.stderr
