"""Learning that is interrupted, killed, or out of disk goes on, and ends with the filters of learning that was not."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.datasets import load_digits

from ninefold import cli
from ninefold.errors import ArgumentTypeError, FilterFileError
from ninefold.learn import (
    ConvRBM,
    KMeansFilters,
    OMPFilters,
    RandomFilters,
    SparseCodingFilters,
    commands,
    load_filters,
    resuming,
    sparse,
)
from ninefold.learn.coding import Splitting
from ninefold.learn.state import load_state, put_back, state_of

IMAGES = load_digits().images[:40, :, :7]

SOURCES = {
    "kmeans": KMeansFilters(6, (3, 2), random_state=0),
    "rbm": ConvRBM(6, (3, 2), n_epochs=5, crop=6, random_state=0),
    "omp": OMPFilters(6, (3, 2), n_nonzero=2, max_iter=8, revival=0.95, random_state=0),
    "sparse": SparseCodingFilters(6, (3, 2), penalty=0.2, n_iter=2, n_epochs=3, pull=0.3, predictor_iter=2, random_state=0),
}


def content(path):
    """Return what a file of filters holds; its bytes depend on the order in which its metadata were written."""
    with safe_open(path, framework="np") as file:
        return file.metadata(), {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


class Interrupting:
    """Progress that is interrupted when it is told for the n-th time."""

    def __init__(self, at=None):
        self.at, self.told = at, []

    def __call__(self, done, total):
        self.told.append((done, total))
        if len(self.told) == self.at:
            raise KeyboardInterrupt


def went_on(source):
    if isinstance(source, ConvRBM):
        while source.n_epochs_ < source.n_epochs:
            source.partial_fit(IMAGES)
        return source
    return source._resume(IMAGES)


@pytest.mark.parametrize(("name", "parts"), [*((name, 1) for name in SOURCES), ("sparse", 4)])
def test_a_state_taken_at_any_pass_leads_to_the_same_filters(name, parts, monkeypatch, tmp_path):
    source = SOURCES[name]
    monkeypatch.setattr(sparse, "_CODES", 40 // parts * 6 * 8 * 7 * 8)
    monkeypatch.setattr(sparse, "_CROP", 3)  # at random places
    states = []

    def take(_, total):
        assert (total is None) == (parts > 1)
        states.append(state_of(learner).to_bytes({"pass": len(states)}))

    learner = clone(source).set_params(progress=take)
    learner.fit(IMAGES)
    assert len(states) >= 3
    assert name != "omp" or learner.revived_ > 2  # by patches that are drawn
    for k in range(0, len(states), 3 * parts - 2):
        (tmp_path / "state").write_bytes(states[k])
        about, state = load_state(tmp_path / "state")
        assert about == {"pass": k}
        again = went_on(put_back(clone(source), state))
        assert np.array_equal(again.filters_, learner.filters_)
        assert again.history_ == learner.history_
        for key, value in vars(learner).items():
            assert type(getattr(again, key)) is type(value) or key == "progress"


def test_what_is_one_list_stays_one_list():
    source = ConvRBM(3, 2, n_epochs=2, random_state=0).fit(IMAGES)
    again = put_back(clone(source), state_of(source))
    assert again.history_["error"] is again.errors_
    assert again.errors_ == source.errors_
    assert again._model.sigma == source._model.sigma


class Odd(RandomFilters):
    pass


def test_values_of_all_kinds_come_back():
    source = Odd(3, 2, random_state=0)
    shared = [1.5, float("inf"), -0.0]
    source.values_ = {
        "tuple": (1, None, True, "\u00e4\0"),
        "shared": [shared, shared],
        "nan": float("nan"),
        "scalar": np.float32(1) / 3,
        "count": np.int64(2**60),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "empty": np.zeros((0, 3), bool),
        "complex": torch.tensor([1 + 2j, -3j]).conj(),
        "halves": tuple(torch.arange(6).view(2, 3)),
    }
    values = put_back(Odd(3, 2), state_of(source)).values_
    assert values["tuple"] == source.values_["tuple"]
    assert values["shared"][0] is values["shared"][1]
    assert str(values["shared"][0]) == "[1.5, inf, -0.0]"
    assert values["nan"] != values["nan"]
    assert type(values["scalar"]) is np.float32
    assert values["scalar"] == np.float32(1) / 3
    assert values["count"] == 2**60
    np.testing.assert_array_equal(values["fortran"], source.values_["fortran"])
    assert values["empty"].shape == (0, 3)
    assert values["empty"].dtype == bool
    assert torch.equal(values["complex"], source.values_["complex"].resolve_conj())
    assert [h.tolist() for h in values["halves"]] == [[0, 1, 2], [3, 4, 5]]
    source.values_ = {"deep": [object()]}
    with pytest.raises(ArgumentTypeError, match=r"values_\['deep'\]\[0\] is a object"):
        state_of(source)
    source.values_ = np.array(["text"])
    with pytest.raises(ArgumentTypeError, match="values_ is a ndarray"):
        state_of(source)


@pytest.mark.parametrize("name", ["n_filters", "fit", "__class__"])
def test_a_state_overwrites_neither_parameters_nor_methods(name):
    state = state_of(RandomFilters(3, 2, random_state=0).fit(IMAGES))
    state.text = state.text.replace('"atoms_"', f'"{name}"')
    with pytest.raises(FilterFileError, match=f"holds no {name}"):
        put_back(RandomFilters(3, 2), state)


def test_a_state_makes_nothing_but_what_learning_uses():
    state = state_of(RandomFilters(3, 2, random_state=0).fit(IMAGES))
    state.text = state.text.replace('"Preparation"', '"Popen"')
    with pytest.raises(FilterFileError, match="no state of learning: KeyError: 'Popen'"):
        put_back(RandomFilters(3, 2), state)


# The command


@pytest.fixture
def data(tmp_path):
    np.save(tmp_path / "digits.npy", IMAGES)
    return tmp_path / "digits.npy"


def learn(data, out, filters="omp", progress=None, count=6):
    sentences = []
    done = commands.learn(data, filters, count, 3, out, progress=progress, tell=sentences.append)
    assert done.startswith(f"{count} filters of 1x3x3 learned from 40 images")
    return sentences


@pytest.mark.parametrize(("filters", "at"), [("kmeans", 1), ("rbm", 7), ("omp", 13), ("sparse", 9), ("sparse", 31)])
def test_an_interrupted_command_goes_on_to_the_same_file(filters, at, data, tmp_path):
    out, partial = tmp_path / "f.safetensors", tmp_path / "f.safetensors.partial"
    with pytest.raises(KeyboardInterrupt, match=rf"are kept in {partial}, and the same command goes on from there"):
        learn(data, out, filters, Interrupting(at))
    assert not out.exists()
    kept = load_state(partial)[0]["done"]
    (told,) = learn(data, out, filters, progress := Interrupting())
    assert told == f"going on from {kept}, kept in {partial}"
    assert not partial.exists()
    assert learn(data, tmp_path / "whole.safetensors", filters, whole := Interrupting()) == []
    assert progress.told == whole.told[at:]
    assert content(out) == content(tmp_path / "whole.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits.npy", "f.safetensors", "whole.safetensors"]


@pytest.mark.parametrize("between", [0.0, 1e9])
def test_an_interrupt_between_two_writes_loses_nothing(between, data, tmp_path, monkeypatch):
    monkeypatch.setattr(resuming, "_SECONDS", between)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted|23 of 50 iterations are kept"):
        learn(data, tmp_path / "f", progress=Interrupting(23))
    assert load_state(tmp_path / "f.partial")[0]["done"] == "23 of 50 iterations"


def test_an_interrupt_before_anything_was_finished(data, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(OMPFilters, "_iterate", interrupted)
    with pytest.raises(KeyboardInterrupt, match="nothing was finished yet, and nothing was changed"):
        commands.learn(data, "omp", 6, 3, tmp_path / "f")
    assert [p.name for p in tmp_path.iterdir()] == ["digits.npy"]


def test_the_command_says_what_is_kept_and_ends_with_130(data, tmp_path, monkeypatch, capsys):
    real, calls = OMPFilters._iterate, []

    def interrupted(self, rows, generator, kept):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        real(self, rows, generator, kept)

    monkeypatch.setattr(OMPFilters, "_iterate", interrupted)
    out = tmp_path / "f.safetensors"
    monkeypatch.setattr(sys, "argv", ["ninefold", "learn", *f"--data {data} --filters omp -k 6 --patch 3 --out {out}".split()])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith(f"ninefold: interrupted; 4 of 50 iterations are kept in {out}.partial, and the same command goes on from there")
    )
    cli.main()
    told = capsys.readouterr()
    assert f"going on from 4 of 50 iterations, kept in {out}.partial" in told.err
    assert "6 filters of 1x3x3 learned from 40 images" in told.out
    assert len(calls) == 51


def test_other_interrupted_commands_end_with_130_too(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ninefold.spec.text.from_description", interrupted)
    monkeypatch.setattr(sys, "argv", ["ninefold", "plan", "1x3x9x8 -> 4 k=3"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130
    assert "interrupted; finished measurements are kept, nothing else was changed" in capsys.readouterr().err


def test_a_killed_process_is_gone_on_from(data, tmp_path):
    program = """
import sys
from pathlib import Path
from ninefold.learn import commands

def hold(done, total):
    if done == 3:
        print("held", flush=True)
        sys.stdin.read()

commands.learn(Path(sys.argv[1]), "rbm", 6, 3, Path(sys.argv[2]), progress=hold)
"""
    out, partial = tmp_path / "f.safetensors", tmp_path / "f.safetensors.partial"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program, str(data), str(out)], stdin=pipe, stdout=pipe, text=True) as process:
        said = process.stdout.readline()
        process.kill()
    assert said == "held\n"
    assert process.returncode == -signal.SIGKILL
    assert partial.exists()
    assert not out.exists()
    (told,) = learn(data, out, "rbm")
    assert told.startswith("going on from ")
    learn(data, tmp_path / "whole", "rbm")
    assert content(out) == content(tmp_path / "whole")


# What the file may be


def started(data, out):
    with pytest.raises(KeyboardInterrupt):
        learn(data, out, progress=Interrupting(20))
    return out.with_name(out.name + ".partial")


@pytest.mark.parametrize("kind", ["cut", "flipped", "empty", "text", "filters", "newer", "folder"])
def test_a_file_that_is_no_state_is_moved_and_learning_starts_afresh(kind, data, tmp_path):
    out = tmp_path / "f"
    partial = started(data, out)
    whole = partial.read_bytes()
    if kind == "cut":
        partial.write_bytes(whole[: len(whole) // 2])
    elif kind == "flipped":
        partial.write_bytes(whole[:-5] + bytes([whole[-5] ^ 64]) + whole[-4:])
    elif kind == "newer":
        partial.write_bytes(whole.replace(b'"version":"2"', b'"version":"3"'))
    elif kind == "filters":
        save_file({"atoms": torch.zeros(3)}, partial, {"format": "ninefold filters"})
    elif kind == "folder":
        partial.unlink()
        partial.mkdir()
    else:
        partial.write_bytes(b"" if kind == "empty" else b"notes of mine")
    words = {"flipped": "is damaged", "filters": "but not of ninefold learning", "newer": "has version 3"}.get(
        kind, "cannot be read"
    )
    before = None if kind == "folder" else partial.read_bytes()
    (tmp_path / "f.partial.1").write_text("older")
    (told,) = learn(data, out)
    assert words in told
    assert told.endswith("it is now f.partial.2, and learning starts afresh")
    assert (tmp_path / "f.partial.1").read_text() == "older"
    assert (tmp_path / "f.partial.2").is_dir() if before is None else (tmp_path / "f.partial.2").read_bytes() == before
    assert not partial.exists()


@pytest.mark.parametrize("what", ["parameters", "data", "versions"])
def test_a_state_of_something_else_is_not_gone_on_from(what, data, tmp_path, monkeypatch):
    out = tmp_path / "f"
    partial = started(data, out)
    if what == "data":
        os.utime(data, ns=(1, 1))
    elif what == "versions":
        monkeypatch.setattr(resuming, "version", lambda name: "0.0.1")
    told = learn(data, out, count=5 if what == "parameters" else 6)
    assert told == [f"{partial} is of other {what}: learning starts afresh"]
    assert not partial.exists()
    assert len(load_filters(out).atoms_) == (5 if what == "parameters" else 6)


def test_data_of_a_folder_are_names_sizes_and_times(tmp_path):
    from PIL import Image

    for folder in ("a", "b"):
        (tmp_path / folder / "in").mkdir(parents=True)
        for name in ("1.png", "in/2.png"):
            Image.fromarray(np.full((5, 6), 7, np.uint8)).save(tmp_path / folder / name)
            os.utime(tmp_path / folder / name, ns=(5, 5))

    def found(folder):
        images = commands._images(tmp_path / folder, "auto")
        return resuming.fingerprint(KMeansFilters(3), tmp_path / folder, images)["data"]

    assert found("a") == found("b")
    (tmp_path / "b" / "1.png").rename(tmp_path / "b" / "3.png")
    assert found("a") != found("b")


# A full disk


def full(*_):
    raise OSError(28, "No space left on device")


def test_a_checkpoint_that_cannot_be_written_is_told_once_and_learning_goes_on(data, tmp_path, monkeypatch):
    monkeypatch.setattr(resuming, "_SECONDS", 0.0)
    expected = tmp_path / "whole"
    learn(data, expected)
    real, calls = resuming.write_whole, []

    def written(path, *_, **__):
        calls.append(path)
        raise FilterFileError(f"{path} cannot be written: No space left on device")

    monkeypatch.setattr(resuming, "write_whole", written)
    (told,) = learn(data, tmp_path / "f")
    assert told.endswith("No space left on device; learning goes on, but an interrupt goes back to the start")
    assert calls
    assert content(tmp_path / "f") == content(expected)
    monkeypatch.setattr(resuming, "write_whole", real)
    with pytest.raises(KeyboardInterrupt, match="kept"):
        learn(data, tmp_path / "g", progress=Interrupting(3))


def test_filters_that_cannot_be_written_leave_what_was_there_and_the_state(data, tmp_path, monkeypatch):
    out, partial = tmp_path / "f", tmp_path / "f.partial"
    out.write_text("before")
    monkeypatch.setattr(commands, "save_filters", lambda *_: resuming.write_whole(out / "no folder", b"", FilterFileError))
    with pytest.raises(FilterFileError, match=f"as it was; 50 of 50 iterations are kept in {partial}, and the same command"):
        learn(data, out)
    assert out.read_text() == "before"
    monkeypatch.undo()
    (told,) = learn(data, out, progress=(progress := Interrupting()))
    assert told == f"going on from 50 of 50 iterations, kept in {partial}"
    assert progress.told == []
    learn(data, tmp_path / "whole")
    assert content(out) == content(tmp_path / "whole")


def test_a_disk_that_is_full_of_both(data, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FilterFileError, match="No space left on device.*what was learned is lost"):
        learn(data, tmp_path / "f")
    assert [p.name for p in tmp_path.iterdir()] == ["digits.npy"]


def test_a_state_that_is_too_large_is_told_once(data, tmp_path, monkeypatch):
    monkeypatch.setattr(resuming, "_LARGE", 1 << 22)
    assert learn(data, tmp_path / "f", "sparse") == []
    monkeypatch.setattr(resuming, "_LARGE", 1 << 14)
    (told,) = learn(data, tmp_path / "g", "sparse")
    assert "MiB of state are too many to be kept: an interrupt goes back to the start" in told
    assert content(tmp_path / "f") == content(tmp_path / "g")


def test_a_file_keeps_the_spectra_of_a_part(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        learn(data, tmp_path / "f", "sparse", Interrupting(4))
    _, state = load_state(tmp_path / "f.partial")
    source = put_back(SparseCodingFilters(6, 3), state)
    assert isinstance(source._held["state"], Splitting)
    assert source._held["iteration"] == 4
    assert len(load_file(tmp_path / "f.partial")) == len(state.tensors)
