"""The commands, on folders that people have."""

import json

import nibabel
import numpy as np
import pytest
import torch
from tests.segment.scenes import cells, scenes
from typer.testing import CliRunner

from ninefold import cli
from ninefold.data import Folder, Sample, read_arrays, read_mask, write_image, write_mask, write_volume
from ninefold.errors import ArgumentTypeError
from ninefold.segment.config import TrainConfig
from ninefold.segment.model import Segmenter
from ninefold.segment.scenes import texture_scenes
from ninefold.segment.scoring import score_folders

torch.manual_seed(0)


def ninefold(*words):
    """Return what is printed, and the exit code."""
    result = CliRunner().invoke(cli.app, list(map(str, words)))
    if result.exception and not isinstance(result.exception, SystemExit):
        return str(result.exception), 2
    return result.output, result.exit_code


def picture(path, values):
    low, high = values.aminmax()
    write_image(path, ((values - low) / (high - low) * 255).to(torch.uint8))


@pytest.fixture(scope="module")
def textures(tmp_path_factory):
    """Return a folder with pictures and masks, and a model trained on them."""
    root = tmp_path_factory.mktemp("textures")
    for kind in ("images", "masks"):
        (root / kind / "deep").mkdir(parents=True)
    for k, (image, mask) in enumerate(texture_scenes(4, 0, size=(40, 33), tint=0.7)):
        name = f"deep/s{k}" if k == 3 else f"s{k}"
        picture(root / "images" / f"{name}.png", image)
        write_mask(root / "masks" / f"{name}.png", mask)
    told, code = ninefold("segment", "train", *trained(root))
    assert code == 0, told
    return root


def trained(root, **others):
    settings = {"epochs": 1, "crop": 24, "width": 4, "depth": 2, "repeats": 1} | others
    words = ["--images", root / "images", "--masks", root / "masks", "--out", root / "run"]
    return [*words, *(word for name, value in settings.items() for word in ("--set", f"{name}={value}"))]


def test_from_pictures_to_scores(textures, tmp_path):
    model = textures / "run" / "model.safetensors"
    told, code = ninefold(
        "segment",
        "predict",
        "--model",
        model,
        "--images",
        textures / "images",
        "--out",
        tmp_path / "a",
        "--probabilities",
        "--overlays",
    )
    assert (code, told.splitlines()[-1]) == (0, f"4 masks written to {tmp_path / 'a'}")
    found = read_mask(tmp_path / "a" / "deep" / "s3.png").data
    probabilities = read_arrays(tmp_path / "a" / "deep" / "s3.npz").data
    assert torch.equal(probabilities.argmax(0, keepdim=True), found)
    torch.testing.assert_close(probabilities.sum(0), torch.ones(40, 33))
    assert (tmp_path / "a" / "overlays" / "s0.png").exists()
    told, code = ninefold(
        "segment", "refine", "--probabilities", tmp_path / "a", "--images", textures / "images", "--out", tmp_path / "b"
    )
    assert code == 0, told
    assert not torch.equal(read_mask(tmp_path / "b" / "deep" / "s3.png").data, found)
    for folder in ("a", "b"):
        told, code = ninefold(
            "segment",
            "score",
            "--predicted",
            tmp_path / folder,
            "--masks",
            textures / "masks",
            "--report",
            tmp_path / f"{folder}.json",
        )
        assert code == 0, told
        assert "boundary F within 2 pixels" in told
        scores = json.loads((tmp_path / f"{folder}.json").read_text())
        assert scores["masks"] == 4
        assert 0 < scores["pixel accuracy"] < 1
    told, code = ninefold(
        "segment", "score", "--predicted", textures / "masks", "--masks", textures / "masks", "--report", tmp_path / "c"
    )
    assert json.loads((tmp_path / "c").read_text())["mean IoU"] == 1.0


def test_tiles_give_the_same_masks_and_wrong_ones_none(textures, tmp_path):
    words = ["segment", "predict", "--model", textures / "run" / "model.safetensors", "--images", textures / "images"]
    for name, more in (("whole", []), ("one", ["--tile", "16"]), ("each", ["--tile", "9,40"])):
        told, code = ninefold(*words, "--probabilities", "--out", tmp_path / name, *more)
        assert code == 0, told
        found, whole = (read_arrays(tmp_path / folder / "s1.npz").data for folder in (name, "whole"))
        torch.testing.assert_close(found, whole, rtol=0, atol=2e-5)
    for tile, sentence in (
        ("0", "tile must be at least 1, got 0"),
        ("a", "--tile 'a' must be a whole number, or one for each axis, such as 64,64,16"),
        ("8,8,8", "tile must be one number or 2 (one per spatial axis), got (8, 8, 8)"),
    ):
        told, code = ninefold(*words, "--out", tmp_path / "none", "--tile", tile)
        assert (code, told) == (2, sentence)
    assert not (tmp_path / "none").exists()


def test_from_volumes_to_objects(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    axes = (("z", "y", "x"), (2.0, 1.0, 1.0), ("um",) * 3)
    for k, (image, mask) in enumerate(cells(3, 3)):
        write_volume(tmp_path / "images" / f"v{k}.tif", Sample(image, *axes))
        write_mask(tmp_path / "masks" / f"v{k}.tif", Sample(mask[None], *axes))
    words = ["segment", "train", *trained(tmp_path, task="objects", batch=2)]
    assert ninefold(*words, "--crop", "12,x") == (
        "--crop '12,x' must be a whole number, or one for each axis, such as 64,64,16",
        2,
    )
    told, code = ninefold(*words, "--crop", "12,12,8")
    assert code == 0, told
    assert TrainConfig.from_yaml((tmp_path / "run" / "config.yaml").read_text()).crop == [12, 12, 8]
    out, model = tmp_path / "a", tmp_path / "run" / "model.safetensors"
    words = ["--model", model, "--images", tmp_path / "images", "--probabilities", "--minimum-size", 1]
    told, code = ninefold("segment", "predict", *words, "--out", out)
    assert code == 0, told
    affinities = read_arrays(out / "v0.npz")
    assert affinities.spacing == (2.0, 1.0, 1.0)
    assert affinities.data.shape == (6, 13, 16, 15)
    for method in ("components", "mutex"):
        words = ["--affinities", out, "--out", tmp_path / method, "--method", method, "--minimum-size", 1]
        told, code = ninefold("segment", "partition", *words)
        assert code == 0, told
        assert told.splitlines()[-1].endswith(f"3 masks written to {tmp_path / method}")
    told, code = ninefold("segment", "score", "--predicted", tmp_path / "masks", "--masks", tmp_path / "masks", "--objects")
    assert code == 0, told
    assert told.splitlines()[-1].split() == ["mean", "0", "0", "0", "1", *([f"{objects(tmp_path):.4g}"] * 2)]


def objects(root):
    masks = [read_mask(path).data.numpy() for path in (root / "masks").iterdir()]
    return np.mean([len(np.unique(mask)) - 1 for mask in masks])


def folder_of(root, pairs, changed=lambda mask: mask):
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for k, (image, mask) in enumerate(pairs):
        picture(root / "images" / f"a{k}.png", image)
        write_mask(root / "masks" / f"a{k}.png", changed(mask))
    return root


def test_black_and_white_masks_are_not_one_class_and_may_be_named(tmp_path):
    root = folder_of(tmp_path, scenes(3, 3, classes=2), lambda mask: mask * 255)
    told, code = ninefold("segment", "train", *trained(root))
    assert code == 2
    assert "hold one class, [0] beside 255, which is ignored" in told
    assert "labels={255: 1}" in told
    told, code = ninefold("segment", "train", *trained(root, labels="{255: 1}"))
    assert code == 0, told
    assert Segmenter.load(root / "run" / "model.safetensors").shape.classes == 2


def test_grey_values_are_not_taken_for_classes_unless_so_many_are_asked_for(tmp_path):
    root = folder_of(tmp_path, scenes(3, 3), lambda mask: mask * 38)
    told, code = ninefold("segment", "train", *trained(root))
    assert code == 2
    assert "masks hold 3 labels up to 76, which look like grey values: --set 'labels={0: 0, 38: 1, 76: 2}'" in told
    told, code = ninefold("segment", "train", *trained(root, classes=77))
    assert code == 0, told


def test_masks_in_colour_are_read_by_their_colours(tmp_path):
    root = folder_of(tmp_path, scenes(3, 3, classes=2))
    for path in (root / "masks").iterdir():
        labels = read_mask(path).data
        write_image(path, torch.cat([labels * 200, labels * 10, 1 - labels]).to(torch.uint8))
    told, code = ninefold("segment", "train", *trained(root))
    assert code == 2
    told, code = ninefold("segment", "train", *trained(root, colours="[[0, 0, 1], [200, 10, 0]]"))
    assert code == 0, told


def test_one_object_for_many_pieces_is_said(tmp_path):
    root = folder_of(tmp_path, scenes(3, 3, classes=2))
    told, code = ninefold("segment", "train", *trained(root, task="objects"))
    assert code == 0, told
    assert "one object an image" in told


def test_masks_without_objects_are_scored_and_none_with_any_is_said(tmp_path):
    masks = {"empty": torch.zeros(4, 6), "full": torch.ones(4, 6), "void": torch.full((4, 6), 9)}
    for folder, change in (("a", 0), ("b", 5)):
        (tmp_path / folder).mkdir()
        for name, mask in masks.items():
            labels = mask.long()
            labels[0, change] *= name != "full"
            write_mask(tmp_path / folder / f"{name}.png", labels)
    words = ["--predicted", tmp_path / "b", "--masks", tmp_path / "a", "--ignore", 9, "--report", tmp_path / "s.json"]
    told, code = ninefold("segment", "score", *words, "--objects")
    assert code == 0, told
    rows = {line.split()[0]: line.split()[1:] for line in told.splitlines()[1:]}
    assert rows["empty"] == ["-", "-", "-", "1", "0", "0"]
    assert rows["void"] == ["-"] * 6
    assert rows["full"][3:] == ["1", "1", "1"]
    scores = json.loads((tmp_path / "s.json").read_text(), parse_constant=pytest.fail)
    assert scores["masks"]["empty"]["adapted_rand_error"] is None
    assert scores["mean"]["adapted_rand_error"] == scores["masks"]["full"]["adapted_rand_error"]
    told, code = ninefold("segment", "score", *words)
    assert code == 0, told
    for name in ("empty", "full"):
        (tmp_path / "a" / f"{name}.png").unlink()
    told, _ = ninefold("segment", "score", *words)
    assert "all pixels of the 1 true masks are of the ignored label 9" in told
    root = folder_of(tmp_path, [(image, mask * 0) for image, mask in scenes(3, 3)])
    told, _ = ninefold("segment", "train", *trained(root, task="objects"))
    assert "none of the 3 masks has an object" in told


def test_numbers_that_yaml_takes_for_text():
    assert TrainConfig.from_yaml("images: a\nmasks: b\nout: c\nlearning_rate: 1e-3").learning_rate == 1e-3
    with pytest.raises(ArgumentTypeError, match="learning_rate is 'much', a str"):
        TrainConfig.from_yaml("images: a\nmasks: b\nout: c\nlearning_rate: much")


def test_an_option_comes_before_a_setting_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told, code = ninefold("segment", "train", "--images", "no", "--masks", "m", "--out", "x", "--set", "images=other")
    assert (code, "there is no folder no" in told) == (2, True)


def test_an_image_of_other_channels_is_passed_over_and_named(textures, tmp_path):
    (tmp_path / "images").mkdir()
    for name, channels in (("colour", 3), ("grey", 1)):
        write_image(tmp_path / "images" / f"{name}.png", torch.zeros(channels, 9, 12, dtype=torch.uint8))
    model = textures / "run" / "model.safetensors"
    told, code = ninefold("segment", "predict", "--model", model, "--images", tmp_path / "images", "--out", tmp_path / "a")
    assert code == 0, told
    assert "1 masks written" in told
    assert "1 images were passed over" in told
    assert "grey.png" in told


def test_nifti_comes_back_as_nifti_in_its_own_axes(tmp_path):
    for kind in ("images", "masks", "tiff"):
        (tmp_path / kind).mkdir()
    affine = np.diag([0.5, 1.5, 3.0, 1.0])
    affine[:3, 3] = 4, 5, 6
    for k, (image, mask) in enumerate(cells(3, 3)):
        nibabel.save(nibabel.Nifti1Image(image[0].numpy(), affine), tmp_path / "images" / f"v{k}.nii.gz")
        # the mask as TIFF, whose axes are z, y, x
        write_mask(
            tmp_path / "masks" / f"v{k}.tif", Sample(mask.permute(2, 1, 0)[None], ("z", "y", "x"), (3.0, 1.5, 0.5), ("mm",) * 3)
        )
    told, code = ninefold("segment", "train", *trained(tmp_path, task="objects", crop=12, batch=2))
    assert code == 0, told
    words = ["--model", tmp_path / "run" / "model.safetensors", "--images", tmp_path / "images", "--minimum-size", 1]
    told, code = ninefold("segment", "predict", *words, "--out", tmp_path / "a", "--probabilities")
    assert code == 0, told
    told, code = ninefold("segment", "partition", "--affinities", tmp_path / "a", "--out", tmp_path / "b", "--minimum-size", 1)
    assert code == 0, told
    for folder in ("a", "b"):
        found = nibabel.load(tmp_path / folder / "v0.nii.gz")
        assert found.shape == (13, 16, 15)
        np.testing.assert_allclose(found.affine, affine)
    image, mask = Folder(tmp_path / "images", tmp_path / "masks")[1]
    assert torch.equal(mask, cells(3, 3)[1][1])
    assert image.shape[1:] == mask.shape


def test_scores_go_by_the_names_of_axes(tmp_path):
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
    mask = cells(1, 3)[0][1][:13, :13, :13]
    write_mask(tmp_path / "a" / "v.tif", Sample(mask[None], ("z", "y", "x"), (1.0,) * 3))
    nibabel.save(nibabel.Nifti1Image(mask.permute(2, 1, 0).numpy().astype(np.int16), np.eye(4)), tmp_path / "b" / "v.nii")
    told, code = ninefold("segment", "score", "--predicted", tmp_path / "a", "--masks", tmp_path / "b", "--objects")
    assert code == 0, told
    assert told.splitlines()[-1].split()[:5] == ["mean", "0", "0", "0", "1"]


def test_what_a_folder_lacks_is_said_before_anything_starts(textures, tmp_path):
    root = tmp_path / "copy"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    pairs = scenes(4, channels=3)
    for k, (image, mask) in enumerate(pairs):
        picture(root / "images" / f"a{k}.png", image)
        write_mask(root / "masks" / f"a{k}.png", mask if k else mask[:-2])
    (root / "images" / "a1.png").write_bytes((root / "images" / "a1.png").read_bytes()[:40])
    told, code = ninefold("segment", "train", *trained(root, classes=3))
    assert code == 0, told
    assert "4 pairs, 2 of them bad" in told
    assert (root / "run" / "model.safetensors").exists()
    told, code = ninefold("segment", "train", *trained(root, classes=2, out=str(tmp_path / "other")))
    assert code == 2
    del textures


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "--out", "x"), "the settings lack images, masks"),
        (("train", "--set", "epochs"), "must be name=value"),
        (("train", "--set", "epoch=3"), "there is no setting epoch"),
        (("train", "--config", "no.yaml"), "no.yaml cannot be read"),
        (("train", "--images", "no", "--masks", "no", "--out", "x"), "there is no folder no"),
        (("predict", "--model", "no", "--images", "no", "--out", "x"), "there is no file no"),
        (("refine", "--probabilities", "no", "--images", "no", "--out", "x"), "holds no .npz file"),
        (("partition", "--affinities", "no", "--out", "x"), "holds no .npz file"),
        (("score", "--predicted", "no", "--masks", "no"), "there is no folder no"),
    ],
)
def test_bad_input_is_a_sentence(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told, code = ninefold("segment", *words)
    assert said in told
    assert code == 2
    assert list(tmp_path.iterdir()) == []


def test_probabilities_of_classes_are_not_cut_and_affinities_not_refined(textures, tmp_path):
    model = textures / "run" / "model.safetensors"
    ninefold("segment", "predict", "--model", model, "--images", textures / "images", "--out", tmp_path / "a", "--probabilities")
    told, _ = ninefold("segment", "partition", "--affinities", tmp_path / "a", "--out", tmp_path / "b")
    assert "holds probabilities of classes, not affinities" in told


def test_scores_have_a_row_for_each_label_that_occurs_and_ignored_pixels_none(tmp_path):
    truth, found = torch.tensor([[0, 0, 9, 9, 200]]), torch.tensor([[0, 9, 9, 9, 77]])
    for name, mask in (("a", truth), ("b", found)):
        (tmp_path / name).mkdir()
        write_mask(tmp_path / name / "m.png", mask)
    words = ["--predicted", tmp_path / "b", "--masks", tmp_path / "a", "--ignore", 200, "--report", tmp_path / "s.json"]
    told, code = ninefold("segment", "score", *words)
    assert code == 0, told
    assert [line.split()[0] for line in told.splitlines()[2:4]] == ["0", "9"]
    assert len(told.splitlines()) == 8
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["IoU"] == {"0": 0.5, "9": pytest.approx(2 / 3)}
    assert scores["pixel accuracy"] == 0.75


def test_masks_of_volumes_that_lie_elsewhere_are_not_compared(tmp_path):
    labels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5) % 3
    for name, affine in (("a", np.diag([1.0, 1, 2, 1])), ("b", np.diag([-1.0, 1, 2, 1]))):
        (tmp_path / name).mkdir()
        nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / name / "m.nii.gz")
    told, code = ninefold("segment", "score", "--predicted", tmp_path / "b", "--masks", tmp_path / "a")
    assert code != 0
    assert "its axes run to LAS, those of the other to RAS" in " ".join(told.split())


def test_true_masks_have_the_labels_that_the_training_gave_them(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    write_mask(tmp_path / "a" / "m.png", torch.tensor([[0, 0, 100, 200]]))
    write_mask(tmp_path / "b" / "m.png", torch.tensor([[0, 0, 1, 2]]))
    write_image(tmp_path / "c" / "m.png", torch.tensor([[[0, 0, 9, 8]], [[0, 0, 7, 7]], [[5, 5, 5, 5]]], dtype=torch.uint8))
    told, scores = score_folders(tmp_path / "b", tmp_path / "a")
    assert scores["pixel accuracy"] == 0.5
    assert "labels 100, 200 are never predicted, and the predicted 1, 2 are in no true mask" in told
    for folder, how in (("a", {"labels": {100: 1, 200: 2}}), ("c", {"colours": [(0, 0, 5), (9, 7, 5), (8, 7, 5)]})):
        told, scores = score_folders(tmp_path / "b", tmp_path / folder, **how)
        assert scores["pixel accuracy"] == scores["mean IoU"] == 1
        assert "never predicted" not in told
    told, scores = score_folders(tmp_path / "b", tmp_path / "a", labels={100: 1, 200: 2}, objects=True)
    assert scores["mean"]["average precision"] == 1
    config = TrainConfig("a", "b", "c", labels={100: 1, 200: 2}, ignore=0)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    words = ["--predicted", tmp_path / "b", "--masks", tmp_path / "a", "--config", tmp_path / "config.yaml"]
    told, code = ninefold("segment", "score", *words)
    assert code == 0, told
    assert [line.split()[0] for line in told.splitlines()[2:4]] == ["1", "2"]
    assert "never predicted" not in told


def test_help_is_there():
    told, code = ninefold("segment")
    assert code == 0
    assert all(name in told for name in ("train", "predict", "refine", "partition", "score", "--demo"))
