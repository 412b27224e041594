import subprocess
import sys

import av
import numpy as np
import pytest
import torch

from ninefold.data.sample import Sample
from ninefold.data.video import Video, read_video, write_video
from ninefold.errors import ArgumentError, DataError, ShapeError

FRAMES = 23


def film(channels=3, height=32, width=48):
    noise = torch.rand(channels, FRAMES, height, width, generator=torch.Generator().manual_seed(0))
    data = torch.nn.functional.avg_pool3d(noise, 5, 1, 2)
    return Sample(data, ("time", "height", "width"), (1 / 25, 1, 1), ("s", "pixel", "pixel"))


@pytest.fixture(scope="module", params=["mp4", "mpeg4.mp4", "mkv", "avi"])
def path(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("films") / f"a.{request.param}"
    codec = {"mpeg4.mp4": "mpeg4", "mkv": "ffv1", "avi": "mpeg4"}.get(request.param)
    write_video(path, film(), codec=codec)
    return path


def test_frames_come_back_with_their_rate(path):
    found = read_video(path)
    assert found.data.shape == (3, FRAMES, 32, 48)
    assert (found.axes, found.spacing, found.units) == (("time", "height", "width"), (1 / 25, 1, 1), ("s", "pixel", "pixel"))
    assert found.meta["promised"] == FRAMES
    assert (found.data - film().data).abs().max() < (0.003 if path.suffix == ".mkv" else 0.25)
    assert read_video(path, colours="grey", scale="values").data.dtype == torch.uint8


def test_a_part_is_the_part_of_the_whole(path):
    whole = read_video(path).data
    for start, stop in ((1, None), (13, None), (FRAMES - 1, None), (5, 9), (0, 1)):
        part = read_video(path, start, stop)
        assert torch.equal(part.data, whole[:, start:stop]), (start, stop)
        assert part.meta["index"] == start


@pytest.mark.parametrize(("length", "stride"), [(4, None), (5, 2), (2, 7), (FRAMES, 1), (FRAMES + 1, 1)])
def test_clips_are_windows_over_the_film(path, length, stride):
    whole, clips = read_video(path).data, list(Video(path).clips(length, stride))
    starts = list(range(0, FRAMES - length + 1, stride or length))
    assert [clip.meta["index"] for clip in clips] == starts
    for clip, start in zip(clips, starts, strict=True):
        assert torch.equal(clip.data, whole[:, start : start + length])


def test_a_stream_holds_no_more_than_it_is_asked_for(path, monkeypatch):
    alive = []
    tensor = Video._tensor

    def counted(self, frame):
        import weakref

        made = tensor(self, frame)
        alive.append(weakref.ref(made))
        return made

    monkeypatch.setattr(Video, "_tensor", counted)
    most = 0
    for _ in Video(path).clips(3):
        most = max(most, sum(ref() is not None for ref in alive))
    assert len(alive) == FRAMES
    assert most <= 3


def test_frames_as_they_are_made_become_a_film(tmp_path):
    frames = (frame for frame in film(1).data.unbind(1))
    write_video(tmp_path / "a.mkv", frames, 12.5, codec="ffv1")
    found = read_video(tmp_path / "a.mkv", colours="grey")
    assert found.spacing[0] == 1 / 12.5
    assert (found.data - film(1).data).abs().max() < 0.01


CUTS = """
import sys
from pathlib import Path
from ninefold.data import read_video
from ninefold.errors import DataError
path, content = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()
for at in range(0, len(content), max(1, len(content) // 40)):
    path.write_bytes(content[:at])
    for incomplete in ("error", "keep"):
        try:
            print(at, incomplete, read_video(path, incomplete=incomplete).data.shape[1], flush=True)
        except DataError as error:
            assert "\\n" not in str(error)
            print(at, incomplete, "said", "promises" in str(error), flush=True)
print("end")
"""


def test_wherever_a_film_is_cut_off_the_process_lives_and_says_it(path, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CUTS, str(tmp_path / f"cut{path.suffix}"), str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, last = done.stdout.split("\n")[:-1]
    assert last == "end"
    rows = [line.split() for line in lines]
    assert len(rows) >= 80
    # Without "keep" fewer frames than promised are an error; Matroska promises a duration, which may be that of one frame less.
    least = FRAMES - (path.suffix == ".mkv")
    assert all(row[2] == "said" or int(row[2]) >= least for row in rows if row[1] == "error")
    if path.suffix in (".mkv", ".avi"):  # which say at their beginning what is in them
        kept = [int(row[2]) for row in rows if row[1] == "keep" and row[2] != "said"]
        assert kept == sorted(kept)
        assert 0 < kept[0] < FRAMES // 2


def test_a_stream_without_a_decoder_is_said_before_it_is_touched(path, monkeypatch):
    class Stream:
        type, codec_context = "video", None

        def __getattr__(self, name):
            raise AssertionError(f"{name} of a stream without a codec context was asked for")

    class Container:
        streams = (Stream(),)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(av, "open", lambda _: Container())
    with pytest.raises(DataError, match="no decoder takes; it may have been cut off"):
        Video(path)


def test_a_film_that_ends_early_says_how_much_there_was(tmp_path):
    write_video(tmp_path / "a.avi", film(), codec="mpeg4")
    content = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "b.avi").write_bytes(content[: 5700 + (len(content) - 5700) // 2])
    kept = read_video(tmp_path / "b.avi", incomplete="keep")
    assert 0 < kept.data.shape[1] < FRAMES
    assert kept.meta["promised"] == FRAMES
    with pytest.raises(
        DataError, match=rf"{kept.data.shape[1]} frames could be read from frame 0 on, and the film promises {FRAMES}"
    ):
        read_video(tmp_path / "b.avi")
    read = []
    with pytest.raises(DataError):
        read.extend(iter(Video(tmp_path / "b.avi").frames()))
    with pytest.raises(DataError, match="from frame 20 on"):
        read_video(tmp_path / "b.avi", 20, incomplete="error")


@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (lambda p: write_video(p, film(3, 31, 48)), ShapeError, "frames are 31x48, and yuv420p needs even sides"),
        (lambda p: write_video(p, film(2)), ShapeError, r"\(1 or 3, H, W\), got \(2, 32, 48\)"),
        (lambda p: write_video(p, iter([]), 25), ShapeError, "at least one frame, got none"),
        (lambda p: write_video(p, [torch.zeros(3, 4, 4)]), ArgumentError, "rate=None"),
        (lambda p: write_video(p, [torch.zeros(3, 4, 4) - 1], 25), ArgumentError, "from -1 to -1"),
        (lambda p: write_video(p, [torch.zeros(3, 16, 16), torch.zeros(3, 16, 32)], 25), ShapeError, "have one size"),
        (lambda p: write_video(p, film(), codec="no such codec"), DataError, "cannot be written"),
        (lambda p: write_video(p.with_suffix(".xyz"), film()), DataError, "cannot be written"),
    ],
)
def test_what_is_no_film_leaves_what_was_there(tmp_path, make, kind, match):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"before")
    with pytest.raises(kind, match=match):
        make(path)
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (3, 3), (5, 2)])
def test_parts_that_are_none(path, start, stop):
    with pytest.raises(ArgumentError, match=f"start={start}, stop={stop}"):
        read_video(path, start, stop)
    with pytest.raises(ArgumentError, match="length=0"):
        next(Video(path).clips(0))


def test_a_part_behind_the_end_is_an_error_with_the_count(path):
    with pytest.raises(DataError, match=f"promises {FRAMES}"):
        read_video(path, 10, FRAMES + 5)


def copied(source, target, skipped=0, sound=0.0):
    """Copy a film without a new encoding: its first frames hidden, as a cut leaves them, or a longer sound beside it."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        film = old.streams.video[0]
        stream = new.add_stream_from_template(film)
        audio = new.add_stream("pcm_s16le", rate=8000, layout="mono") if sound else None
        for packet in old.demux(film):
            if packet.dts is not None:
                step = round(skipped / film.average_rate / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - step, packet.dts - step, stream
                new.mux(packet)
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, round(8000 * sound)), np.int16), layout="mono")
            frame.rate = 8000
            new.mux([*audio.encode(frame), *audio.encode(None)])


def test_frames_that_a_cut_hides_are_not_promised(tmp_path):
    write_video(tmp_path / "a.mp4", film(), codec="mpeg4")
    copied(tmp_path / "a.mp4", tmp_path / "b.mp4", skipped=5)
    with av.open(str(tmp_path / "b.mp4")) as file:
        assert file.streams.video[0].frames == FRAMES
    assert Video(tmp_path / "b.mp4").promised == FRAMES - 5
    whole = read_video(tmp_path / "a.mp4").data[:, 5:]
    assert torch.equal(read_video(tmp_path / "b.mp4").data, whole)
    assert torch.equal(read_video(tmp_path / "b.mp4", 7).data, whole[:, 7:])


def test_a_longer_sound_promises_no_frames(tmp_path):
    write_video(tmp_path / "a.mkv", film(), codec="ffv1")
    copied(tmp_path / "a.mkv", tmp_path / "b.mkv", sound=1.7)
    with av.open(str(tmp_path / "b.mkv")) as file:
        assert file.duration > 1_600_000
    assert Video(tmp_path / "b.mkv").promised == FRAMES
    assert read_video(tmp_path / "b.mkv").data.shape[1] == FRAMES


@pytest.mark.parametrize("suffix", ["ts", "mpg", "m2v"])
def test_parts_of_streams_without_an_index_are_those_of_the_whole(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    write_video(path, film(), codec="mpeg2video")
    whole = read_video(path, incomplete="keep").data
    assert whole.shape[1] == FRAMES
    for start in (1, 13, FRAMES - 1):
        assert torch.equal(read_video(path, start, incomplete="keep").data, whole[:, start:])


@pytest.mark.skipif(not hasattr(av.video.stream.VideoStream, "set_display_matrix"), reason="PyAV writes no display matrix")
@pytest.mark.parametrize(
    ("matrix", "wanted"),
    [
        ((1, 0, 0, 1), lambda x: x),
        ((-1, 0, 0, 1), lambda x: x.flip(3)),
        ((1, 0, 0, -1), lambda x: x.flip(2)),
        ((-1, 0, 0, -1), lambda x: x.flip(2, 3)),
        ((0, 1, 1, 0), lambda x: x.transpose(2, 3)),
        ((0, -1, 1, 0), lambda x: x.rot90(1, (2, 3))),
        ((0, 1, -1, 0), lambda x: x.rot90(-1, (2, 3))),
        ((0, -1, -1, 0), lambda x: x.transpose(2, 3).flip(2, 3)),
    ],
)
@pytest.mark.parametrize("colours", ["rgb", "grey"])
def test_films_are_turned_and_mirrored_as_they_say(tmp_path, matrix, wanted, colours):
    pictures = (film().data * 255).to(torch.uint8)
    for name in ("plain", "turned"):
        with av.open(str(tmp_path / f"{name}.mp4"), "w") as file:
            stream = file.add_stream("mpeg4", rate=25)
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            if name == "turned":
                a, b, c, d = (v << 16 for v in matrix)
                stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
            for picture in pictures[:, :3].unbind(1):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture.movedim(0, -1).contiguous().numpy())))
            file.mux(stream.encode(None))
    plain, turned = (read_video(tmp_path / f"{name}.mp4", scale="values", colours=colours).data for name in ("plain", "turned"))
    assert torch.equal(turned, wanted(plain))
