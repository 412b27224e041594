import json
import os
import subprocess
import sys

import pytest

from ninefold import cli

MODEL = """
import torch
class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, (5, 3), padding="same")
    def forward(self, x):
        return self.conv(x)
def make():
    return Tiny()
def broken():
    raise RuntimeError("no weights here")
not_a_model = len
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Return a function that runs the command in this process."""
    (tmp_path / "mine.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["ninefold", *args])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return subprocess.CompletedProcess(args, code, *capfd.readouterr())

    yield call
    sys.modules.pop("mine", None)


@pytest.fixture
def process(tmp_path):
    """Return a function that runs the command in a process of its own, which measures by the machine's clock."""
    environment = os.environ | {"NINEFOLD_CACHE": str(tmp_path / "cache"), "COLUMNS": "150"}

    def call(*args):
        command = [sys.executable, "-m", "ninefold.cli", *args]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)

    return call


def test_optimize_a_model_of_ones_own(run, tmp_path):
    done = run("optimize", "mine:make", "--input", "1x3x20x24", "--report", "report.json")
    assert done.returncode == 0, done.stderr
    assert "5x3, 3->4" in done.stdout
    assert "outside convolutions" in done.stdout
    assert json.loads((tmp_path / "report.json").read_text())["rows"][0]["name"] == "conv"
    shown = run("cache", "show")
    assert "plans in" in shown.stdout
    exported = run("cache", "export", "plans.json")
    assert exported.returncode == 0
    assert json.loads((tmp_path / "plans.json").read_text())["format"] == "ninefold-plans-1"
    assert "plans forgotten" in run("cache", "clear").stdout
    assert "0 plans" in run("cache", "show").stdout


def test_plan_says_why(run):
    done = run("plan", "4x256x2048 -> 256 k=1024 g=256")
    assert done.returncode == 0
    assert "engine fft" in done.stdout
    assert "not frozen" in done.stdout


def test_calibrate_measures_and_keeps_or_says_why_not(process):
    """Which of both depends on what else the machine does."""
    assert "no rates of this machine: 'ninefold calibrate'" in process("cache", "show").stdout
    done, shown = process("calibrate", "--threads", "1"), process("cache", "show").stdout
    if done.returncode == 0:
        assert "G multiply-adds/s" in done.stdout
        assert "plans.sqlite" in done.stdout
        assert "rates of this machine" in shown
    else:
        assert done.returncode == 2
        (said,) = done.stderr.splitlines()
        assert said.startswith("ninefold: ")
        assert "no rates of this machine" in shown


def test_calibrate_prints_the_rates_with_units(monkeypatch, tmp_path, capsys):
    from ninefold.engines.machine import Machine
    from ninefold.planning import cost

    monkeypatch.setenv("NINEFOLD_CACHE", str(tmp_path))
    monkeypatch.setattr(cost, "measured_rates", lambda _: Machine(7e10, 3e10, 5e9, 2.5e-6))
    cli.app(["calibrate", "--threads", "1", "--threads", "2"], standalone_mode=False)
    cli.app(["cache", "show"], standalone_mode=False)
    shown = capsys.readouterr().out
    for words in ("70", "30", "2.5", "GB/s copied", "us a call"):
        assert shown.count(words) >= 2, shown


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("optimize", "nothing"), ("'nothing' is no built-in model", "mobilenet_v1")),
        (("optimize", "no.such:thing"), ("no.such:thing", "ModuleNotFoundError")),
        (("optimize", "mine:missing"), ("mine:missing", "AttributeError")),
        (("optimize", "mine:broken"), ("no weights here",)),
        (("optimize", "mine:not_a_model"), ("gives no model",)),
        (("optimize", "mine:make"), ("--input 1x3x224x224",)),
        (("optimize", "mine:make", "--input", "1x3xbig"), ("'1x3xbig' is no shape",)),
        (("optimize", "mine:make", "--input", "1x4x20x24"), ("cannot be called with the example", "(1, 4, 20, 24)")),
        (("optimize", "mine:make", "--input", "1x3x9x9", "--image", "mine.py"), ("mine.py is not an image",)),
        (("optimize", "mine:make", "--input", "1x3x9x9", "--image", "gone.png"), ("gone.png cannot be read",)),
        (("optimize", "mine:make", "--input", "1x3x9x9", "--tolerance", "tiny"), ("--tolerance 'tiny'",)),
        (("plan", "3x3"), ("describes no convolution", "k=31")),
        (("plan", "1x3x9x8 -> 4 k=11"), ("spans 11 positions", "only 9")),
        (("plan", "1x3x9x8 -> 4 k=3 g=2"), ("groups=2 must divide in_channels=3",)),
        (("plan", "1x3x9x8 -> 4 k=3", "--map", "z"), ("'z' is not c, h or g",)),
        (("cache", "export", "missing/folder/plans.json"), ("plans.json cannot be written",)),
        (("calibrate", "--threads", "0"), ("threads must be at least 1",)),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(run, args, words):
    done = run(*args)
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("ninefold: ")
    for word in words:
        assert word in lines[0]


def test_one_entry_of_the_chapter_is_shown_with_its_lines_and_verdict(run):
    done = run("chapter", "9.16")
    assert done.returncode == 0, done.stderr
    assert "Verdict: confirmed" in done.stdout
    assert "F.tiled_conv2d(V, W, period=(4, 4))" in done.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("chapter", "9.17"), "no entry '9.17'"),
        (("chapter", "--record"), "--full"),
        (("chapter", "9.16", "--write", "x"), "leave out"),
    ],
)
def test_a_mistake_with_the_chapter_is_one_sentence(run, tmp_path, args, said):
    done = run(*args)
    assert done.returncode == 2
    assert done.stderr.startswith("ninefold: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not (tmp_path / "x").exists()
