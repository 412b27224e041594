"""``--json``: one object on standard output, and nothing else there, of every command and of every failure."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from ninefold import cli
from ninefold.cli.answers import answer
from ninefold.cli.manual import GROUPS

CHATTY = """
import os
import torch
print("words of the model's own")
os.write(1, b"words from below Python\\n")
def make():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, (5, 3)))
def broken():
    raise RuntimeError("no weights here")
"""


@pytest.fixture
def ask(monkeypatch, tmp_path, capfd):
    """Return a function that runs the command in this process, and returns the object, the exit code and standard error."""
    (tmp_path / "chatty.py").write_text(CHATTY)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["ninefold", *map(str, words), "--json"])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        out, errors = capfd.readouterr()
        assert len(out.splitlines()) == 1, out
        return json.loads(out), code, errors

    yield run
    sys.modules.pop("chatty", None)


def digits(path, count=12):
    np.save(path, np.random.default_rng(0).integers(0, 256, (count, 9, 8)).astype(np.uint8))
    return path


def test_every_command_has_it_and_stands_on_the_manual_page_once():
    def commands(group, before=()):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from commands(command, (*before, name))
            if not hasattr(command, "commands") or command.invoke_without_command:
                yield " ".join((*before, name)), command

    tree = dict(commands(get_command(cli.app)))
    assert len(tree) == 15
    for name, command in tree.items():
        assert "--json" in {option for part in command.params for option in part.opts}, name
        assert command.help, name
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(tree)


def test_optimize_answers_its_report_whatever_the_model_prints(ask, tmp_path):
    found, code, errors = ask("optimize", "chatty:make", "--input", "1x3x12x10", "--seconds", "0.1", "--report", "r.json")
    assert code == 0
    assert found["rows"][0]["what"] == "5x3, 3->4"
    assert json.loads((tmp_path / "r.json").read_text()) == found
    assert "words of the model's own" in errors
    assert "words from below Python" in errors


def test_plan_answers_every_engine_with_its_numbers_or_its_refusal(ask):
    found, code, _ = ask("plan", "2x3x9x8 -> 4 k=5x3", "--map", "h")
    assert code == 0
    assert (found["map"], found["input"], found["output"]) == ("h", [2, 3, 9, 8], [2, 4, 5, 6])
    assert found["multiply_adds"] == 2 * 3 * 4 * 5 * 6 * 15
    chosen = [one for one in found["engines"] if one["engine"] == found["engine"]]
    assert len(chosen) == 1
    assert chosen[0]["estimated"] > 0
    assert all(("refuses" in one) != ("estimated" in one) for one in found["engines"])


def test_calibrate_and_the_cache(ask, monkeypatch, tmp_path):
    from ninefold.engines.machine import Machine
    from ninefold.planning import cost

    monkeypatch.setattr(cost, "measured_rates", lambda _: Machine(7e10, 3e10, 5e9, 2.5e-6))
    found, code, _ = ask("calibrate", "--threads", "1", "--threads", "2")
    assert code == 0
    assert found["rates"]["2"] == {"product": 7e10, "stream": 3e10, "transform": 5e9, "call": 2.5e-6}
    ask("plan", "1x3x9x8 -> 4 k=3", "--measure")
    shown, _, _ = ask("cache", "show")
    assert shown["rates"] == found["rates"]
    assert shown["path"] == found["path"]
    assert len(shown["plans"]) == 1
    assert set(shown["plans"][0]) == {"engine", "seconds", "problem"}
    assert ask("cache", "export", "plans.json")[0] == {"path": "plans.json", "written": 1}
    assert json.loads((tmp_path / "plans.json").read_text())["format"] == "ninefold-plans-1"
    assert ask("cache", "clear")[0] == {"path": shown["path"], "forgotten": 1}
    assert ask("cache", "show")[0] == {"path": shown["path"], "plans": [], "rates": {}}


def test_learn_and_features(ask, tmp_path):
    data = digits(tmp_path / "digits.npy")
    words = ("--data", data, "--channels", "none", "--out")
    found, code, _ = ask("learn", *words, "f.safetensors", "--filters", "sampled", "-k", 6, "--patch", 3)
    assert code == 0
    assert found["shape"] == [6, 1, 3, 3]
    assert (found["path"], found["filters"], found["notes"]) == ("f.safetensors", "sampled", [])
    assert "6 filters of 1x3x3 learned from 12 images" in found["told"]
    found, code, _ = ask("features", "--filters", "f.safetensors", *words, "x.npz")
    assert code == 0
    assert found["shape"] == [12, 24]
    assert "24 features of 12 images" in found["told"]


def test_the_demos_answer_their_tables(ask, monkeypatch, tmp_path):
    from ninefold.learn.demo import Row
    from ninefold.segment.demo import Table

    row = Row("raw pixels", "soft", {5: np.array([0.5, 1.0])}, 1.5)
    monkeypatch.setattr("ninefold.learn.demo.run", lambda *_, **__: ([row], [], [tmp_path / "a.png"]))
    found, _, _ = ask("learn", "--demo")
    told = {"name": "raw pixels", "encoder": "soft", "accuracy": {"5": 0.75}, "seconds": {"learning": 1.5, "extracting": 0.0}}
    assert found == {"features": [told], "networks": [], "pictures": [str(tmp_path / "a.png")]}
    monkeypatch.setattr("ninefold.segment.demo.run", lambda *_, **__: [Table("Scores", ["step"], [["one"]]), "pictures"])
    found, _, _ = ask("segment", "--demo", "--out", "shown")
    assert found == {"path": "shown", "tables": [{"title": "Scores", "names": ["step"], "rows": [["one"]]}], "told": "pictures"}


def test_segment_train_answers_every_epoch(ask, monkeypatch):
    from ninefold.segment.training import Outcome

    def train_folder(config, *, tell, progress):
        assert (config.images, config.epochs) == ("images", 2)
        tell("3 pairs, 1 of them bad")
        progress(1, 2, "epoch 1")
        return Outcome(
            Path("run/model.safetensors"), "mean IoU", 0.75, [{"loss": 0.5}, {"loss": float("nan")}], "all epochs are done"
        )

    monkeypatch.setattr("ninefold.segment.commands.train_folder", train_folder)
    found, code, errors = ask("segment", "train", "--images", "images", "--masks", "masks", "--out", "run", "--set", "epochs=2")
    assert code == 0
    assert (found["path"], found["score"], found["best"]) == ("run/model.safetensors", "mean IoU", 0.75)
    assert (found["epochs"], found["ended"]) == ([{"loss": 0.5}, {"loss": None}], "all epochs are done")
    assert found["notes"] == ["3 pairs, 1 of them bad"]
    assert "3 pairs, 1 of them bad" in errors


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("predict", ("--model", "m", "--images", "i")),
        ("refine", ("--probabilities", "p", "--images", "i")),
        ("partition", ("--affinities", "a")),
    ],
)
def test_segment_answers_the_images_that_have_a_mask(ask, monkeypatch, name, words):
    def run(*_, progress, **__):
        progress(1, 3, "deep/a")
        progress(3, 3, "b")
        return "2 masks written to masks; 1 images were passed over"

    monkeypatch.setattr(f"ninefold.segment.commands.{name}", run)
    found, code, _ = ask("segment", name, *words, "--out", "masks")
    assert code == 0
    assert found == {"path": "masks", "images": ["deep/a", "b"], "told": "2 masks written to masks; 1 images were passed over"}


def test_segment_score_answers_what_it_reports(ask, tmp_path):
    (tmp_path / "masks").mkdir()
    values = np.random.default_rng(0).integers(0, 2, (13, 11)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "masks" / "a.png")
    found, code, _ = ask("segment", "score", "--predicted", "masks", "--masks", "masks", "--report", "s.json")
    assert code == 0
    assert found == json.loads((tmp_path / "s.json").read_text())
    assert found


def test_chapter_answers_the_entry(ask):
    found, code, _ = ask("chapter", "9.16")
    assert code == 0
    (entry,) = found["entries"]
    assert (entry["key"], entry["verdict"], entry["recorded"]) == ("9.16", "confirmed", None)
    assert entry["numbers"]


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (("plan", "3x3"), "ArgumentError", "describes no convolution"),
        (("plan",), "UsageError", "Missing argument"),
        (("plam",), "UsageError", "No such command 'plam'"),
        (("learn",), "UsageError", "--data and --out are needed"),
        (("optimize", "chatty:broken"), "ModelError", "no weights here"),
        (("cache", "export", "missing/plans.json"), "PlanFileError", "cannot be written"),
        (("segment",), "ArgumentError", "give --demo"),
        (("features", "--filters", "gone", "--data", "gone.npy", "--out", "x"), "ImageError", "gone.npy"),
    ],
)
def test_a_mistake_is_an_object_with_the_exit_code_of_the_process(ask, words, kind, said):
    found, code, errors = ask(*words)
    assert code == found["exit_code"] == 2
    assert found["error"]["type"] == kind
    assert said in found["error"]["message"]
    assert found["error"]["message"] in errors


def test_a_fault_is_an_object_and_a_traceback(ask, monkeypatch, capfd):
    def faulty(_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("ninefold.spec.text.from_description", faulty)
    with pytest.raises(ZeroDivisionError):
        ask("plan", "1x3x9x8 -> 4 k=3")
    assert json.loads(capfd.readouterr().out) == {
        "error": {"type": "ZeroDivisionError", "message": "division by zero"},
        "exit_code": 1,
    }


def test_an_interrupt_is_an_object_and_130(ask, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ninefold.spec.text.from_description", interrupted)
    found, code, _ = ask("plan", "1x3x9x8 -> 4 k=3")
    assert code == found["exit_code"] == 130
    assert found["error"]["type"] == "KeyboardInterrupt"


def test_what_json_has_no_word_for_is_null(capsys):
    answer({"a": float("nan"), "b": [np.float32(-np.inf), np.arange(3)], "c": {1: None}, "d": True})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, [0, 1, 2]], "c": {"1": None}, "d": True}
