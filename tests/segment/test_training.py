"""A training ends as it would have whatever interrupted it, and however many processes share it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.segment.scenes import cells, scenes
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ninefold import storing
from ninefold.errors import ArgumentError, ArgumentTypeError, CheckpointError, DTypeError, ModelError, ShapeError
from ninefold.segment.config import TrainConfig
from ninefold.segment.crops import NOTHING, Crops, split
from ninefold.segment.model import Segmenter
from ninefold.segment.tasks import Labels
from ninefold.segment.training import train

torch.manual_seed(0)


def config_of(out, **others):
    settings = {"crop": 16, "epochs": 2, "batch": 3, "width": 4, "depth": 2, "repeats": 3, "checkpoint_steps": 2} | others
    return TrainConfig("images", "masks", str(out), **settings)


def silent(_):
    pass


def weights(out):
    return Segmenter.load(Path(out) / "model.safetensors").state_dict()


def checkpoint(out):
    """Return all that it holds, to the bit."""
    about, tensors = storing.unpacked_tensors(Path(out) / "checkpoint.safetensors", "ninefold training", 1, CheckpointError)
    return about, {name: value.numpy().tobytes() for name, value in tensors.items()}


class _Killed(BaseException):
    pass


class Dying:
    """Progress that ends the process, as it were, after some steps."""

    def __init__(self, after):
        self.after = after

    def __call__(self, done, total, words):
        if done == self.after:
            raise _Killed


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    outcome = train(config_of(out), scenes(), tell=silent)
    return out, outcome


def test_it_learns_and_says_what_came_of_it(tmp_path):
    told, steps = [], []
    config = config_of(tmp_path, epochs=8, repeats=6, width=8, network="recurrent", kernel=7, learning_rate=1e-2)
    outcome = train(config, scenes(), tell=told.append, progress=lambda *now: steps.append(now))
    assert outcome.best > 0.7
    assert outcome.history[0]["mean IoU"] < outcome.best
    assert [done for done, _, _ in steps] == list(range(1, steps[0][1] + 1))
    assert told[0].startswith("4 images 2x?x? to train on, 1 held out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.before.safetensors",
        "checkpoint.safetensors",
        "config.yaml",
        "history.csv",
        "log",
        "model.safetensors",
        "overlays",
    ]
    assert TrainConfig.from_yaml((tmp_path / "config.yaml").read_text()) == config
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 9
    assert any((tmp_path / "log").iterdir())


@pytest.mark.parametrize("network", ["unet", "recurrent"])
@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_training_that_ended_anywhere_goes_on_bit_for_bit(network, after, tmp_path):
    expected = tmp_path / "whole"
    train(config_of(expected, network=network), scenes(), tell=silent)
    out = tmp_path / "out"
    with pytest.raises(_Killed):
        train(config_of(out, network=network), scenes(), tell=silent, progress=Dying(after))
    told = []
    outcome = train(config_of(out, network=network), scenes(), tell=told.append)
    assert any(sentence.startswith("going on from") for sentence in told) == (after > 2)
    assert checkpoint(out) == checkpoint(expected)
    assert all(torch.equal(value, weights(expected)[name]) for name, value in weights(out).items())
    assert len(outcome.history) == 2


SCRIPT = """
import sys
from tests.segment.scenes import scenes
from tests.segment.test_training import config_of, train

def tell(sentence):
    print(sentence, flush=True)

train(config_of(sys.argv[1], epochs=int(sys.argv[2])), scenes(), tell=tell, progress=lambda *now: print("step", now[0], flush=True))
"""


def process(out, epochs, **options):
    words = [sys.executable, "-c", SCRIPT, str(out), str(epochs)]
    return subprocess.Popen(
        words, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def stopped(out, epochs, number, after):
    child = process(out, epochs)
    for line in child.stdout:
        if line.strip() == f"step {after}":
            child.send_signal(number)
            break
    rest = child.communicate()
    return child.returncode, rest


@pytest.mark.slow
def test_a_killed_process_is_gone_on_from_bit_for_bit(tmp_path):
    expected = process(tmp_path / "whole", 2)
    expected.communicate()
    assert expected.returncode == 0
    code, _ = stopped(tmp_path / "out", 2, signal.SIGKILL, 5)
    assert code == -signal.SIGKILL
    again = process(tmp_path / "out", 2)
    told, _ = again.communicate()
    assert "going on from epoch" in told
    assert checkpoint(tmp_path / "out") == checkpoint(tmp_path / "whole")


@pytest.mark.slow
def test_an_interrupt_ends_after_the_step_and_keeps_it(tmp_path):
    _, (_, errors) = stopped(tmp_path / "out", 200, signal.SIGINT, 3)
    assert "KeyboardInterrupt: epoch 1, step" in errors
    assert errors.rstrip().endswith(f"is kept in {tmp_path / 'out'}; the same command goes on from there")


def test_a_damaged_checkpoint_is_told_of_and_the_one_before_is_taken(whole, tmp_path):
    with pytest.raises(_Killed):
        train(config_of(tmp_path), scenes(), tell=silent, progress=Dying(5))
    path = tmp_path / "checkpoint.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])
    told = []
    train(config_of(tmp_path), scenes(), tell=told.append)
    assert "is damaged" in told[1]
    assert told[2] == "going on from epoch 1, step 4"
    assert checkpoint(tmp_path) == checkpoint(whole[0])


def test_two_damaged_checkpoints_are_not_started_over(tmp_path):
    with pytest.raises(_Killed):
        train(config_of(tmp_path), scenes(), tell=silent, progress=Dying(5))
    for path in tmp_path.glob("checkpoint*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="remove the files, or set resume to false"):
        train(config_of(tmp_path), scenes(), tell=silent)
    train(config_of(tmp_path, resume=False), scenes(), tell=silent)


@pytest.mark.parametrize(
    ("others", "words"), [({"width": 6}, "width"), ({"seed": 1}, "seed"), ({"crop": 20}, "crop"), ({"epochs": 3}, "epochs")]
)
def test_a_checkpoint_of_another_training_is_refused_and_left(whole, others, words, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    content = (whole[0] / "checkpoint.safetensors").read_bytes()
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"of another training.*{words}"):
        train(config_of(tmp_path, **others), scenes(), tell=silent)
    assert path.read_bytes() == content


def test_a_checkpoint_without_a_setting_that_there_was_not_is_gone_on_from(tmp_path):
    with pytest.raises(_Killed):
        train(config_of(tmp_path, clip=0.0), scenes(), tell=silent, progress=Dying(5))
    for path in tmp_path.glob("checkpoint*"):
        about, tensors = storing.unpacked_tensors(path, "ninefold training", 1, CheckpointError)
        assert about["of"].pop("clip") == 0.0
        path.write_bytes(storing.packed_tensors(tensors, about, "ninefold training", 1))
    with pytest.raises(CheckpointError, match=r"clip was 0.0 and is 1.0; give another out"):
        train(config_of(tmp_path), scenes(), tell=silent)
    told = []
    train(config_of(tmp_path, clip=0.0), scenes(), tell=told.append)
    assert told[1] == "going on from epoch 2, step 0"


@pytest.mark.parametrize("clip", [0.0, 0.03])
def test_gradients_are_scaled_down_to_a_norm(clip, tmp_path):
    found = []

    def look(optimizer, *_):
        found.append(float(torch.stack([p.grad.norm() for group in optimizer.param_groups for p in group["params"]]).norm()))

    hook = register_optimizer_step_pre_hook(look)
    try:
        train(config_of(tmp_path, clip=clip, epochs=1), scenes(), tell=silent)
    finally:
        hook.remove()
    assert len(found) == 4
    assert max(found) == pytest.approx(clip, rel=1e-4) if clip else max(found) > 0.1


def test_a_full_disk_stops_nothing(whole, tmp_path, monkeypatch):
    real = storing.os.fsync

    def full(number):
        if "checkpoint" in str(Path(f"/proc/self/fd/{number}").readlink()):
            raise OSError(28, "No space left on device")
        real(number)

    monkeypatch.setattr(storing.os, "fsync", full)
    told = []
    train(config_of(tmp_path), scenes(), tell=told.append)
    assert "No space left on device" in told[1]
    assert told[1].endswith("training goes on, and an interrupt goes back to the start")
    assert all(torch.equal(value, weights(whole[0])[name]) for name, value in weights(tmp_path).items())


def test_of_epochs_with_one_score_the_last_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(Labels, "measure", lambda *_: {"mean IoU": 0.0})
    for patience, epochs in ((0, 3), (1, 2)):
        out = tmp_path / str(patience)
        outcome = train(config_of(out, epochs=3, patience=patience), scenes(4), tell=silent)
        settings, _ = storing.unpacked_tensors(outcome.path, "ninefold segmenter", 1, ModelError)
        assert (len(outcome.history), settings["about"]["epoch"]) == (epochs, epochs)  # it is no better score: patience ends


def test_early_stop(tmp_path):
    outcome = train(config_of(tmp_path, epochs=30, patience=1, learning_rate=1e-12), scenes(), tell=silent)
    assert outcome.ended == "no better score for 1 epochs"
    assert len(outcome.history) == 2


@pytest.mark.parametrize(
    ("pairs", "others", "error", "words"),
    [
        (scenes(1), {}, ArgumentError, "1 images with masks: 2 or more"),
        ([(torch.full((2, 9, 8), torch.nan), torch.zeros(9, 8).long())] * 3, {}, ArgumentError, "holds 144 values that are NaN"),
        ([(torch.zeros(2, 9, 8), torch.full((9, 8), -4))] * 3, {}, ArgumentError, "holds the label -4"),
        ([(torch.zeros(2, 9, 8), torch.full((9, 8), 7))] * 3, {"classes": 3}, ArgumentError, "holds the label 7, and classes=3"),
        ([(torch.zeros(1 + k, 9, 8), torch.zeros(9, 8).long()) for k in range(3)], {}, ShapeError, "channels"),
        (scenes(), {"crop": [16, 16, 8]}, ArgumentError, r"crop must be one number or 2 \(one per.*got \(16, 16, 8\)"),
        (scenes(), {"learning_rate": 1e30, "epochs": 4}, ArgumentError, "take a smaller learning_rate"),
        (
            scenes(1) * 3 + [(scenes(1)[0][0], torch.full((22, 31), 255))] * 2,
            {"seed": 2},
            ArgumentError,
            "held out has a labelled",
        ),
        (
            [(image, mask * 0) for image, mask in scenes(3)],
            {"task": "objects"},
            ArgumentError,
            "that are trained on has an object",
        ),
        ([(image, mask * 0 + 9) for image, mask in scenes(3)], {"ignore": 9}, ArgumentError, "trained on has a labelled pixel"),
    ],
)
def test_what_cannot_be_trained_on_is_said(pairs, others, error, words, tmp_path):
    with pytest.raises(error, match=words):
        train(config_of(tmp_path, **others), pairs, tell=silent)


def test_a_class_that_held_out_masks_alone_have_is_one(tmp_path):
    pairs = scenes()
    (held,) = split(5, 0.2, 0)[1]
    pairs[held][1][3, 4] = 3
    outcome = train(config_of(tmp_path, epochs=1), pairs, tell=silent)
    assert Segmenter.load(outcome.path).shape.classes == 4


def test_a_held_out_image_that_does_not_fit_is_said_before_anything_starts(tmp_path):
    (held,) = split(5, 0.2, 0)[1]
    for image, error, words in (
        (torch.zeros(3, 9, 8), ShapeError, f"image {held} has 3 channels"),
        (torch.full((2, 9, 8), torch.nan), ArgumentError, f"image {held} holds 144 values that are NaN"),
    ):
        pairs = scenes()
        pairs[held] = image, torch.zeros(9, 8).long()
        with pytest.raises(error, match=words):
            train(config_of(tmp_path), pairs, tell=silent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda x, y: (x.numpy(), y), ArgumentTypeError, "image 0 is a ndarray.*torch.from_numpy"),
        (lambda x, y: (x, y.float()), DTypeError, r"mask 0 is torch.float32.*\.long\(\)"),
        (lambda x, y: (x, y[None]), ShapeError, r"\(2, 22, 31\) and its mask \(1, 22, 31\).*mask\[0\]"),
        (lambda x, y: (x, torch.nn.functional.one_hot(y).permute(2, 0, 1)), ShapeError, r"\(3, 22, 31\).*mask.argmax\(0\)"),
        (lambda x, y: (x.permute(1, 2, 0), y), ShapeError, r"\(22, 31, 2\).*image.movedim\(-1, 0\)"),
        (lambda x, y: (x[0], y), ShapeError, r"\(22, 31\).*image\[None\]"),
        (lambda x, y: (x[:, :20], y), ShapeError, r"\(2, 20, 31\) and its mask \(22, 31\): they must be \(channels"),
    ],
)
def test_pairs_of_other_layouts_are_said(change, error, words, tmp_path):
    pairs = [change(*scenes(1)[0]) for _ in range(3)]
    with pytest.raises(error, match=words):
        train(config_of(tmp_path), pairs, tell=silent)


def test_classes_are_weighed(tmp_path):
    pairs = scenes()
    for _, mask in pairs:
        mask[:2] = 2
        mask[2:] = 1
    plain = train(config_of(tmp_path / "a"), pairs, tell=silent)
    weighed = train(config_of(tmp_path / "b", balance="inverse"), pairs, tell=silent)
    assert plain.history[0]["loss"] != weighed.history[0]["loss"]


def test_crops_have_a_side_for_each_axis():
    labels = torch.arange(20 * 9 * 6).view(20, 9, 6)
    pairs = [(labels[None].float(), labels)]
    crops = Crops(pairs, [0], config_of("out", task="objects", crop=[7, 12, 4], batch=9, repeats=9, flip=False))
    images, found = crops.batch(0, 0)
    assert images.shape == (9, 1, 7, 12, 4)
    there = found != NOTHING
    assert there.flatten(1).sum(1).tolist() == [7 * 9 * 4] * 9  # the second axis is padded
    assert torch.equal(images[:, 0][there].long(), found[there])
    starts = found[:, 0, 0, 0]
    assert len(set(starts.tolist())) > 4
    for one, start in zip(found[:, :, :9], starts, strict=True):
        assert torch.equal(one - start, labels[:7, :, :4])


def test_a_volume_is_trained_on_by_a_side_for_each_axis_and_gone_on_with(tmp_path):
    pairs = cells(3, 3)
    settings = {"task": "objects", "crop": (12, 8, 5), "batch": 2}
    with pytest.raises(_Killed):
        train(config_of(tmp_path, **settings), pairs, tell=silent, progress=Dying(5))
    told = []
    outcome = train(config_of(tmp_path, **settings), pairs, tell=told.append)
    assert told[1].startswith("going on from epoch")
    assert Segmenter.load(outcome.path).config.crop == [12, 8, 5]


WORKER = """
import sys
from tests.segment.scenes import scenes
from tests.segment.test_training import config_of, silent, train

train(config_of(sys.argv[1], batch=4, learning_rate=1e-3), scenes(), tell=silent)
"""


@pytest.mark.slow
def test_two_processes_are_one_to_rounding(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
        str(tmp_path / "two"),
    ]
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    subprocess.run([sys.executable, str(script), str(tmp_path / "one")], cwd=root, env=environment, check=True)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=2e-5)
    losses = [(tmp_path / name / "history.csv").read_text().splitlines()[-1].split(",") for name in ("one", "two")]
    assert float(losses[0][1]) == pytest.approx(float(losses[1][1]), rel=1e-5)
