import math

import numpy as np
import pytest
import torch

from ninefold.data.sample import Sample
from ninefold.data.spectra import inverse_spectrogram, log_spectrogram, shift_pitch, spectrogram
from ninefold.errors import ArgumentError, ShapeError

RATE = 8000
NOISE = torch.randn(2, 1501, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def sound(data, rate=RATE):
    return Sample(data, ("time",), (1 / rate,), ("s",))


def chord(*hertz, seconds=1.0):
    time = torch.arange(int(seconds * RATE), dtype=torch.float64) / RATE
    waves = [torch.sin(2 * math.pi * f * time + k) / (k + 1) for k, f in enumerate(hertz)]
    return sound(sum(waves)[None] / 4)


def test_the_linear_one_is_the_definition():
    window, hop = 64, 24
    found = spectrogram(sound(NOISE), window, hop, scale="complex")
    assert found.data.shape == (2, 33, 1 + 1501 // 24)
    assert found.spacing == (125.0, 24 / RATE)
    assert found.units == ("Hz", "s")
    assert found.meta["frequencies"][4] == 500.0
    padded = np.pad(NOISE.numpy(), ((0, 0), (32, 64)))
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    for t in (0, 1, 17, 62):
        expected = np.fft.rfft(padded[:, t * hop : t * hop + window] * hann)
        assert np.allclose(found.data[:, :, t].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("scale", ["power", "magnitude", "log"])
def test_scales_are_of_one_another_and_have_an_inverse_with_phases(scale):
    waves = spectrogram(sound(NOISE), 64, 16, scale="complex")
    found = spectrogram(sound(NOISE), 64, 16, scale=scale)
    size = waves.data.abs()
    expected = {"power": size**2, "magnitude": size, "log": (size**2 + 1e-10).log()}[scale]
    assert torch.allclose(found.data, expected, atol=1e-12)
    again = inverse_spectrogram(found, waves.data.angle())
    assert torch.allclose(again.data, NOISE, atol=1e-6)
    assert again.spacing == (1 / RATE,)
    with pytest.raises(ArgumentError, match=f"scale '{scale}' has no phases"):
        inverse_spectrogram(found)


def definition(x, rate, f, q, hop):
    """Return row k of the constant-Q transform at every frame, term by term."""
    length = q * rate / f
    half = int(length // 2)
    n = np.arange(-half, half + 1)
    window = 1 + np.cos(2 * np.pi * n / length)
    kernel = window / window.sum() * np.exp(-2j * np.pi * f / rate * n)
    padded = np.pad(x, (half, half + hop))
    return np.array([padded[t : t + 2 * half + 1] @ kernel for t in range(0, len(x) + 1, hop)])


@pytest.mark.parametrize(("octave", "hop"), [(12, 50), (5, 7)])
def test_the_logarithmic_one_is_the_definition(octave, hop):
    found = log_spectrogram(sound(NOISE), octave, 200.0, bins=15, hop=hop, scale="complex")
    assert found.data.shape == (2, 15, 1 + 1501 // hop)
    assert found.units == ("octave", "s")
    assert found.spacing == (1 / octave, hop / RATE)
    q = 1 / (2 ** (1 / octave) - 1)
    for k in (0, 4, 14):
        for c in (0, 1):
            expected = definition(NOISE[c].numpy(), RATE, found.meta["frequencies"][k], q, hop)
            assert np.allclose(found.data[c, k].numpy(), expected, atol=1e-12)


def test_a_tone_has_half_its_amplitude_in_its_row_at_any_pitch():
    for k in (3, 15, 30):
        tone = chord(110 * 2 ** (k / 12), seconds=2)
        rows = log_spectrogram(tone, 12, 110.0, scale="magnitude").data[0, :, 30]
        assert int(rows.argmax()) == k
        assert abs(float(rows[k]) - 0.125) < 1e-3


@pytest.mark.parametrize("k", [8, 24])
def test_another_pitch_is_a_shift_along_the_logarithmic_axis_and_none_along_the_linear_one(k):
    low, high = (chord(*(220 * r * up for r in (1, 5 / 4, 3 / 2)), seconds=2) for up in (1, 2 ** (k / 24)))
    rows, moved = (log_spectrogram(x, 24, 110.0, 96, scale="magnitude") for x in (low, high))
    middle = slice(20, 40)  # frames in which all windows lie within the sound
    expected = shift_pitch(rows, k).data[0, :, middle]
    error = (moved.data[0, :, middle] - expected).abs().max()
    assert error < 0.01 * moved.data.max()
    assert (moved.data - rows.data)[0, :, middle].abs().max() > 0.5 * moved.data.max()
    if k == 24:
        plain, up = (spectrogram(x, 512, scale="magnitude").data[0, :, 20:40] for x in (low, high))
        best = min(float((up[s:] - plain[: len(plain) - s]).abs().max()) for s in range(1, 60))
        assert best > 0.3 * float(up.max())


def test_rows_that_come_in_are_silent():
    for scale, silent in (("power", 0.0), ("log", math.log(1e-10))):
        rows = log_spectrogram(sound(NOISE), 12, 200.0, bins=15, scale=scale)
        up, down = shift_pitch(rows, 4), shift_pitch(rows, -4)
        assert torch.equal(up.data[:, 4:], rows.data[:, :11])
        assert torch.equal(down.data[:, :11], rows.data[:, 4:])
        assert torch.allclose(up.data[:, :4], torch.tensor(silent, dtype=torch.float64))
        assert torch.allclose(shift_pitch(rows, 15).data, torch.tensor(silent, dtype=torch.float64))
    with pytest.raises(ArgumentError, match="no logarithmic axis"):
        shift_pitch(spectrogram(sound(NOISE)), 3)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: spectrogram(sound(NOISE), 1), "window=1 must be .* at least 2"),
        (lambda: spectrogram(sound(NOISE), hop=0), "hop=0 must be"),
        (lambda: spectrogram(sound(NOISE), scale="decibel"), "scale='decibel' is not one of"),
        (lambda: spectrogram(sound(NOISE / 0)), r"NaN or infinity, 3002 of 3002"),
        (lambda: spectrogram(sound(NOISE.to(torch.int16))), "int16"),
        (lambda: spectrogram(sound(NOISE[:, :0])), r"floating-point waveform \(C, T\), got"),
        (lambda: log_spectrogram(sound(NOISE), 12, 100.0, bins=200), "bins=200 from 100 Hz, 12 an octave: a rate of 8000 Hz carries 1 to 62"),
        (lambda: log_spectrogram(sound(NOISE), lowest=-3.0), "lowest=-3.0"),
        (lambda: inverse_spectrogram(log_spectrogram(sound(NOISE))), "not what spectrogram returns"),
        (lambda: inverse_spectrogram(spectrogram(sound(NOISE), 64, 40, scale="complex")), "hop=40 of a window of 64 leaves gaps; up to 32"),
        (lambda: inverse_spectrogram(spectrogram(sound(NOISE), 64, 16), NOISE), r"phase has shape \(2, 1501\)"),
    ],
)  # fmt: skip
def test_what_is_no_spectrogram_is_said(make, match):
    with pytest.raises((ArgumentError, ShapeError), match=match):
        make()


def test_the_last_row_that_a_rate_carries_is_within_it():
    rows = log_spectrogram(sound(NOISE), 12, 100.0)
    f, q = rows.meta["frequencies"][-1], 1 / (2 ** (1 / 12) - 1)
    assert f * (1 + 2 / q) <= RATE / 2 < f * 2 ** (1 / 12) * (1 + 2 / q)
