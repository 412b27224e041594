import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from ninefold.cli import app
from ninefold.errors import ArgumentError, FilterFileError, ImageError
from ninefold.learn import ConvFeatures, load_filters
from ninefold.learn.commands import SOURCES

PICTURES = np.random.default_rng(0).integers(0, 256, (5, 13, 11, 3)).astype(np.uint8)


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return " ".join(result.output.split())


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(folder / f"{k}.png")
    return folder


@pytest.mark.parametrize("source", SOURCES)
def test_from_digits_to_features(source, tmp_path):
    np.savez(tmp_path / "digits.npz", images=load_digits().images[:40], labels=load_digits().target[:40])
    told = run(
        "learn",
        "--data",
        tmp_path / "digits.npz",
        "--filters",
        source,
        "-k",
        6,
        "--patch",
        3,
        "--out",
        tmp_path / "f.safetensors",
    )
    assert "6 filters of 1x3x3 learned from 40 images" in told
    told = run(
        "features", "--filters", tmp_path / "f.safetensors", "--data", tmp_path / "digits.npz", "--out", tmp_path / "x.npz"
    )
    assert "24 features of 40 images" in told
    with np.load(tmp_path / "x.npz") as found:
        expected = ConvFeatures(load_filters(tmp_path / "f.safetensors"), prefit=True).fit(load_digits().images[:40])
        assert np.array_equal(found["features"], expected.transform(load_digits().images[:40]))
        assert found["names"][0] == "r0c0_filter0"


def test_a_folder_with_a_file_that_cannot_be_read(pictures, tmp_path):
    (pictures / "2.png").write_bytes((pictures / "2.png").read_bytes()[:60])
    told = run("learn", "--data", pictures, "--filters", "sampled", "-k", 4, "--patch", 3, "--out", tmp_path / "f.safetensors")
    assert "4 filters of 3x3x3 learned from 4 images (1 cannot be read: " in told
    told = run(
        "features", "--filters", tmp_path / "f.safetensors", "--data", pictures, "--out", tmp_path / "x.npz", "--encoder", "soft"
    )
    assert "32 features of 4 images (1 cannot be read: " in told
    with np.load(tmp_path / "x.npz") as found:
        assert found["features"].shape == (4, 32)
        assert [name.rpartition("/")[2] for name in found["files"]] == ["0.png", "1.png", "3.png", "4.png"]


def test_what_is_refused(pictures, tmp_path):
    out = tmp_path / "f.safetensors"
    with pytest.raises(ArgumentError, match="--filters 'pca' is not one of kmeans, omp"):
        run("learn", "--data", pictures, "--filters", "pca", "--out", out)
    with pytest.raises(ImageError, match="neither a folder nor a file"):
        run("learn", "--data", tmp_path / "nowhere", "--out", out)
    (tmp_path / "bad.npz").write_bytes(b"PK no archive")
    with pytest.raises(ImageError, match="cannot be read as an array"):
        run("learn", "--data", tmp_path / "bad.npz", "--out", out)
    np.savez(tmp_path / "two.npz", a=PICTURES, b=PICTURES)
    with pytest.raises(ImageError, match="holds a, b: name the images 'images'"):
        run("learn", "--data", tmp_path / "two.npz", "--out", out)
    with pytest.raises(FilterFileError, match="there is no file"):
        run("features", "--filters", out, "--data", pictures, "--out", tmp_path / "x.npz")
    assert not out.exists()
    assert not (tmp_path / "x.npz").exists()
