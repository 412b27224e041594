import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ninefold import storing
from ninefold.errors import FilterFileError
from ninefold.learn import ConvFeatures, KMeansFilters, SampledPatches
from ninefold.learn.files import load_filters, save_features, save_filters

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 9, 11, 2)).astype(np.uint8)


@pytest.fixture
def source():
    return KMeansFilters(5, (3, 2), n_patches=300, random_state=0).fit(IMAGES)


def test_what_was_saved_gives_the_same_features(source, tmp_path):
    save_filters(source, tmp_path / "deep" / "a.safetensors")
    again = load_filters(tmp_path / "deep" / "a.safetensors")
    assert np.array_equal(again.filters_, source.filters_)
    assert again.origin_["parameters"]["n_filters"] == 5
    expected = ConvFeatures(source, prefit=True).fit(IMAGES).transform(IMAGES)
    assert np.array_equal(ConvFeatures(again, prefit=True).fit(IMAGES).transform(IMAGES), expected)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.safetensors"]


def test_without_contrast_infinity_comes_back(tmp_path):
    source = SampledPatches(5, (3, 2), contrast=None, random_state=0).fit(IMAGES)
    save_filters(source, tmp_path / "a.safetensors")
    assert load_filters(tmp_path / "a.safetensors").preparation_.contrast == float("inf")


def damaged(source, path, kind):
    save_filters(source, path)
    content = path.read_bytes()
    about = {"format": "ninefold filters", "version": "1", "contrast": "1.0", "origin": "{}"}
    tensors = {"atoms": torch.zeros(5, 2, 3, 2), "mean": torch.zeros(12), "matrix": torch.eye(12)}
    if kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "pickle":
        torch.save(tensors, path)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing":
        path.unlink()
    elif kind == "weights":
        save_file({"weight": torch.zeros(3)}, path)
    elif kind == "newer":
        save_file(tensors, path, about | {"version": "2"})
    elif kind == "part":
        save_file({"atoms": tensors["atoms"]}, path, about)
    elif kind == "sizes":
        save_file(tensors | {"mean": torch.zeros(11)}, path, about)
    elif kind == "nan":
        save_file(tensors | {"atoms": torch.full((5, 2, 3, 2), torch.nan)}, path, about)
    elif kind == "double":
        save_file({k: v.double() for k, v in tensors.items()}, path, about)
    else:
        save_file(tensors, path, about | {"contrast": "-1"})


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("cut", "cannot be read as safetensors"),
        ("pickle", "cannot be read as safetensors"),
        ("empty", "cannot be read as safetensors"),
        ("missing", "there is no file"),
        ("weights", "but not of filters"),
        ("newer", "has version 2, and this ninefold reads 1"),
        ("part", "cannot be read|lacks part"),
        ("sizes", r"mean \(11,\).*do not fit"),
        ("nan", "numbers that are none"),
        ("double", "float64"),
        ("contrast", "contrast -1.0"),
    ],
)
def test_a_file_from_elsewhere(source, tmp_path, kind, match):
    path = tmp_path / "a.safetensors"
    damaged(source, path, kind)
    with pytest.raises(FilterFileError, match=match):
        load_filters(path)


@pytest.mark.parametrize("full_at", ["write", "replace"])
def test_a_full_disk_leaves_what_was_there(source, tmp_path, monkeypatch, full_at):
    path = tmp_path / "a.safetensors"
    save_filters(source, path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storing.os, "fsync", full) if full_at == "write" else monkeypatch.setattr(storing.Path, "replace", full)
    with pytest.raises(FilterFileError, match="No space left on device"):
        save_filters(SampledPatches(4, 3, random_state=0).fit(IMAGES), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_features_beside_others(tmp_path):
    features = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_features(tmp_path / "f.npz", features, labels=np.array(["a", "b"]))
    with np.load(tmp_path / "f.npz") as found:
        assert np.array_equal(found["features"], features)
        assert found["labels"].tolist() == ["a", "b"]
