import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ninefold import data as module
from ninefold.data import Sample, Skeleton, read, read_arrays, spectrogram, write, write_arrays
from ninefold.data.opening import needed, replacing
from ninefold.data.skeleton import Joint
from ninefold.errors import ArgumentError, ArgumentTypeError, DataError, MissingExtraError, ShapeError

RANDOM = torch.Generator().manual_seed(0)
SOUND = Sample(torch.rand(2, 900, generator=RANDOM) / 2, ("time",), (1 / 8000,), ("s",))
ROWS = {  # of table 9.1
    "a.wav": SOUND,
    "a.bvh": Sample(torch.rand(2, 9, generator=RANDOM, dtype=torch.float64), ("time",), (0.01,), ("s",), {"skeleton": Skeleton((Joint("a", -1, (0.0, 0.0, 0.0), ("Xrotation", "Zrotation")),))}),
    "a.npz": spectrogram(SOUND, 64, 16),
    "b.safetensors": spectrogram(SOUND, 64, 16, scale="complex"),
    "a.png": Sample(torch.rand(3, 8, 12, generator=RANDOM), ("height", "width"), (1, 1), ("pixel", "pixel")),
    "a.nii.gz": Sample(torch.rand(1, 4, 5, 6, generator=RANDOM), ("x", "y", "z"), (1.0, 2.0, 3.0), ("mm",) * 3),
    "a.tif": Sample(torch.rand(1, 4, 5, 6, generator=RANDOM), ("z", "y", "x"), (1.0, 2.0, 4.0), ("mm",) * 3),
    "a.mkv": Sample(torch.rand(3, 4, 16, 32, generator=RANDOM), ("time", "height", "width"), (1 / 25, 1, 1), ("s", "pixel", "pixel")),
}  # fmt: skip
READERS = {
    "read_waveform": "a.wav", "read_bvh": "a.bvh", "read_arrays": "a.npz", "read_image": "a.png", "read_mask": "a.png",
    "read_volume": "a.nii.gz", "read_video": "a.mkv",
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_written_and_read_by_one_name(tmp_path, name):
    given = ROWS[name]
    write(tmp_path / name, given, **({"codec": "ffv1"} if name == "a.mkv" else {}))
    found = read(tmp_path / name)
    assert (found.axes, found.units) == (given.axes, given.units)
    assert found.spacing == pytest.approx(given.spacing)
    close = {"a.wav": 2**-15, "a.png": 0.5 / 255 + 1e-6, "a.mkv": 0.5 / 255 + 1e-6}.get(name, 0)
    assert (found.data - given.data).abs().max() <= close
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.wav", "a.bvh", "a.png", "a.tif", "a.mkv", "a.npz"])
def test_what_a_file_is_is_told_by_its_first_bytes(tmp_path, name):
    write(tmp_path / name, ROWS[name], **({"codec": "ffv1"} if name == "a.mkv" else {}))
    (tmp_path / name).rename(tmp_path / "unnamed")
    if name == "a.tif":  # a stack needs its suffix, for `read_volume` reads several formats by it
        (tmp_path / "unnamed").rename(tmp_path / name)
        assert read(tmp_path / name).axes == ("z", "y", "x")
    else:
        assert read(tmp_path / "unnamed").axes == ROWS[name].axes


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["missing", "empty", "folder", "text", "noise", "half"])
def test_bad_files_are_one_sentence_of_every_reader(tmp_path, name, kind):
    path = tmp_path / READERS[name]
    write(path, ROWS[path.name], **({"codec": "ffv1"} if path.suffix == ".mkv" else {}))
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(
            {
                "empty": b"",
                "text": b"all work and no play " * 50,
                "noise": bytes((k * k + 7 * k) % 251 for k in range(4000)),
                "half": content[: len(content) // 2],
            }[kind]
        )
    for reader in (getattr(module, name), read):
        with pytest.raises(DataError) as caught:
            reader(path)
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_another_kind_is_said(tmp_path, name):
    suffix = READERS[name].removeprefix("a")
    other = "a.wav" if suffix != ".wav" else "a.png"
    write(tmp_path / other, ROWS[other])
    path = tmp_path / f"other{suffix}"
    (tmp_path / other).rename(path)
    with pytest.raises(DataError, match="other"):
        getattr(module, name)(path)


FULL = """
import resource, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_formats import ROWS
from ninefold.data import write
from ninefold.errors import DataError
folder = Path(sys.argv[2])
for name, sample in ROWS.items():
    write(folder / name, sample, **({"codec": "ffv1"} if name == "a.mkv" else {}))
before = {path.name: path.read_bytes() for path in folder.iterdir()}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
for name, sample in ROWS.items():
    try:
        write(folder / name, sample, **({"codec": "ffv1"} if name == "a.mkv" else {}))
    except DataError as error:
        assert "cannot be written" in str(error), error
    else:
        raise SystemExit(f"of {name} nothing was said")
assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
print(len(before))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", FULL, here, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(len(ROWS)), done.stderr[-1500:]


def test_an_interrupt_leaves_the_old_file_and_no_other(tmp_path):
    (tmp_path / "a").write_text("before")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a") as temporary:
        temporary.write_text("after")
        raise KeyboardInterrupt
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "before")]
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("after")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "after")]


def test_what_json_does_not_hold_is_said_and_pickles_are_not_read(tmp_path):
    with pytest.raises(ArgumentTypeError, match="meta must be what JSON holds: .*Skeleton"):
        write_arrays(tmp_path / "a.npz", ROWS["a.bvh"])
    with pytest.raises(ArgumentError, match="written as .npz or .safetensors"):
        write_arrays(tmp_path / "a.pt", SOUND)
    import numpy as np

    np.savez(tmp_path / "b.npz", data=np.array([{}], object), about=np.array("{}"))
    np.savez(tmp_path / "c.npz", x=np.zeros(3))
    for name in ("b", "c"):
        with pytest.raises(DataError, match="cannot be read as a sample of write_arrays"):
            read_arrays(tmp_path / f"{name}.npz")
    assert not (tmp_path / "a.npz").exists()


def test_every_scale_of_a_spectrogram_keeps_all_it_knows(tmp_path):
    for name in ("a.npz", "a.safetensors"):
        write_arrays(tmp_path / name, ROWS["a.npz"])
        again = read_arrays(tmp_path / name)
        assert dict(again.meta) == dict(ROWS["a.npz"].meta)
        assert torch.equal(
            module.inverse_spectrogram(again, ROWS["b.safetensors"].data.angle()).data,
            module.inverse_spectrogram(ROWS["a.npz"], ROWS["b.safetensors"].data.angle()).data,
        )


def test_no_writer_and_no_sample(tmp_path):
    with pytest.raises(ArgumentError, match="no writer has the suffix '.doc'"):
        write(tmp_path / "a.doc", SOUND)
    with pytest.raises(ArgumentTypeError, match="is a Sample, got type Tensor"):
        write(tmp_path / "a.wav", SOUND.data)


@pytest.mark.parametrize("package", ["soundfile", "PIL.Image", "nibabel", "tifffile", "av"])
def test_a_package_that_lacks_is_named_with_its_extra(tmp_path, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"needs {package}: pip install 'ninefold\[data\]'") as caught:
        needed(package, "this")
    assert isinstance(caught.value, ImportError)


def test_importing_loads_none_of_the_packages():
    code = "import sys, ninefold.data; print([m for m in ('av', 'PIL', 'soundfile', 'nibabel', 'tifffile', 'safetensors', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("how", "kind", "match"),
    [
        ({"data": [1.0]}, ArgumentTypeError, "got type list"),
        ({"data": torch.zeros(3)}, ShapeError, r"shape \(3,\); with axes \('time',\) it must have 2"),
        ({"spacing": (1.0, 2.0)}, ArgumentError, "must hold 1 values"),
        ({"spacing": (0.0,)}, ArgumentError, r"spacing=\(0.0,\) must be positive"),
        ({"spacing": (float("nan"),)}, ArgumentError, "must be positive"),
        ({"units": ("s", "s")}, ArgumentError, "must hold 1 values"),
    ],
)
def test_a_sample_that_contradicts_itself(how, kind, match):
    with pytest.raises(kind, match=match):
        Sample(**{"data": torch.zeros(2, 5), "axes": ("time",), "spacing": (1.0,), "units": ("s",)} | how)


def test_a_sample_goes_elsewhere_and_becomes_an_array():
    x = torch.arange(6.0, requires_grad=True).reshape(1, 6)
    sample = Sample(x, ("time",), (0.5,), (None,), {"a": 1})
    assert sample.units is None
    assert sample.numpy().tolist() == [[0, 1, 2, 3, 4, 5]]
    assert sample.to(torch.float64).data.dtype == torch.float64
    assert sample.to("meta").meta == {"a": 1}
    assert repr(sample) == "Sample(1 channel, time 6 x 0.5 (no unit), float32 0..5)"
    assert repr(sample.to("meta")) == "Sample(1 channel, time 6 x 0.5 (no unit), float32)"


@pytest.mark.parametrize("given", [torch.zeros(1, 100), [[0.0] * 100], "a.wav", None])
@pytest.mark.parametrize(
    "call",
    [
        module.spectrogram,
        module.log_spectrogram,
        module.inverse_spectrogram,
        lambda x: module.shift_pitch(x, 1),
        module.joint_positions,
        lambda x: module.write_bvh("a.bvh", x),
        lambda x: module.write_volume("a.nii", x),
        lambda x: module.write_volume("a.tif", x),
        lambda x: module.write_waveform("a.wav", x),
        lambda x: module.write_arrays("a.npz", x),
    ],
)
def test_a_tensor_alone_does_not_say_what_its_axes_are(tmp_path, monkeypatch, given, call):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentTypeError, match=rf"is a Sample, got type {type(given).__name__}: Sample\(data, axes, spacing\)"):
        call(given)
    assert not list(tmp_path.iterdir())
