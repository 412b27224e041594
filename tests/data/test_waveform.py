import numpy as np
import pytest
import soundfile
import torch

from ninefold.data.sample import Sample
from ninefold.data.waveform import read_waveform, stream_waveform, waveform_info, write_waveform
from ninefold.errors import ArgumentError, DataError

RATE = 44100
NOISE = torch.rand(2, 5003, generator=torch.Generator().manual_seed(0)) - 0.5


def sound(data=NOISE, rate=RATE):
    return Sample(data, ("time",), (1 / rate,), ("s",))


@pytest.fixture(params=["wav", "flac", "ogg"])
def path(request, tmp_path):
    write_waveform(tmp_path / f"a.{request.param}", sound())
    return tmp_path / f"a.{request.param}"


def test_what_was_written_is_read_as_libsndfile_reads_it(path):
    found = read_waveform(path)
    expected, rate = soundfile.read(path, dtype="float32")
    assert np.array_equal(found.numpy(), expected.T)
    assert (rate, found.spacing, found.units, found.axes) == (RATE, (1 / RATE,), ("s",), ("time",))
    if path.suffix != ".ogg":
        assert (found.data - NOISE).abs().max() <= 2**-15


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_24"])
def test_as_many_bits_as_are_asked_for_come_back(tmp_path, subtype):
    write_waveform(tmp_path / "a.wav", sound(NOISE.T.contiguous().T), subtype)
    assert (read_waveform(tmp_path / "a.wav").data - NOISE).abs().max() <= (0 if subtype == "FLOAT" else 2**-23)


def test_a_part_is_the_part_of_the_whole(path):
    whole = read_waveform(path).data
    part = read_waveform(path, 1200, 1250)
    assert part.meta["start"] == 1200
    assert torch.allclose(part.data, whole[:, 1200:1250], atol=1e-4 if path.suffix == ".ogg" else 0)
    assert torch.equal(read_waveform(path, 5000).data, whole[:, 5000:])


def test_blocks_together_are_the_whole_and_may_overlap(path):
    whole = read_waveform(path).data
    blocks = list(stream_waveform(path, 1000))
    assert [b.data.shape[1] for b in blocks] == [1000] * 5 + [3]
    assert torch.allclose(torch.cat([b.data for b in blocks], 1), whole, atol=1e-6)
    for block in stream_waveform(path, 1000, step=700, start=100, stop=4000):
        at = block.meta["start"]
        assert (at - 100) % 700 == 0
        assert torch.allclose(block.data, whole[:, at : min(at + 1000, 4000)], atol=1e-4 if path.suffix == ".ogg" else 0)
    assert waveform_info(path)["frames"] == 5003


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 5), (7, 5), (0, 5004), (5003, None)])
def test_parts_outside_are_refused_with_the_length(path, start, stop):
    with pytest.raises(ArgumentError, match=f"start={start}, stop={stop}.* positions 0 to 5003"):
        read_waveform(path, start, stop)


def test_a_wav_file_that_was_cut_off_says_how_much_is_left(tmp_path, path):
    content = path.read_bytes()
    cut = tmp_path / f"cut{path.suffix}"
    for at in (0, 3, 20, 44, 60, len(content) // 2, len(content) - 5):
        cut.write_bytes(content[:at])
        with pytest.raises(DataError) as caught:
            read_waveform(cut)
        assert "\n" not in str(caught.value)
        assert "cut." in str(caught.value)
    if path.suffix == ".wav":
        cut.write_bytes(content[: 44 + 4 * 1000])
        with pytest.raises(DataError, match="ends after 1000 of the 5003 samples that it promises"):
            read_waveform(cut)
        kept = read_waveform(cut, incomplete="keep")
        assert torch.equal(kept.data, read_waveform(path, 0, 1000).data)
        assert kept.meta["promised"] == 5003


def test_what_does_not_know_its_length_is_not_cut_off(tmp_path):
    write_waveform(tmp_path / "a.wav", sound())
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(content)
    assert read_waveform(tmp_path / "a.wav").data.shape == NOISE.shape


@pytest.mark.parametrize(
    ("data", "name", "subtype", "match"),
    [
        (NOISE * 3, "a.wav", None, r"largest value is 1\.49.* PCM_16 cuts off at 1"),
        (NOISE.masked_fill(NOISE > 0.4, torch.nan), "a.wav", None, r"NaN or infinity, \d+ of 10006"),
        (NOISE[:, :0], "a.wav", None, r"\(2, 0\) and holds nothing"),
        (NOISE.to(torch.int16), "a.wav", None, "torch.int16"),
        (NOISE, "a.xyz", None, "writes no '.xyz'"),
    ],
)
def test_what_cannot_be_written_leaves_what_was_there(tmp_path, data, name, subtype, match):
    path = tmp_path / name
    path.write_bytes(b"before")
    with pytest.raises(ValueError, match=match):
        write_waveform(path, sound(data), subtype)
    assert path.read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_loud_floats_are_written_as_they_are(tmp_path):
    write_waveform(tmp_path / "a.wav", sound(NOISE * 3), "FLOAT")
    assert torch.equal(read_waveform(tmp_path / "a.wav").data, NOISE * 3)


def test_rates_are_whole(tmp_path):
    with pytest.raises(ArgumentError, match=r"8000\.5 Hz"):
        write_waveform(tmp_path / "a.wav", sound(rate=8000.5))
