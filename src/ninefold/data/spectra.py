"""Sound as an image of frequency over time: with a linear axis of frequencies, and with a logarithmic one.

On a logarithmic axis an interval is a distance: the same melody an octave higher is the same picture, moved by `bins_per_octave`
rows, so that convolving along it is equivariant to pitch. On the linear axis of a short-time Fourier transform it is not: an
octave doubles all distances.
"""

from math import ceil, floor, log, log2
from typing import Any

import torch
from torch import Tensor

from ninefold.data.sample import Sample, sample_of
from ninefold.errors import ArgumentError, ShapeError

__all__ = ["inverse_spectrogram", "log_spectrogram", "shift_pitch", "spectrogram"]

_SCALES = ("power", "magnitude", "log", "complex")
_FLOOR = 1e-10  # of powers before their logarithm


def spectrogram(sample: Sample, window: int = 1024, hop: int = 256, *, scale: str = "power") -> Sample:
    """Return the short-time Fourier transform of a waveform, at frequencies evenly spaced from 0 to half the rate.

    The window is Hann's, periodic, centred on positions 0, hop, 2 hop and so on; what lies outside is silent. A sine of
    amplitude A has magnitude ``A window / 4`` in its bin.

    Parameters
    ----------
    sample : Sample
        A waveform ``(C, T)``, floating-point.
    window, hop : int
        In positions; `hop` at most half a `window` can be inverted.
    scale : {"power", "magnitude", "log", "complex"}
        ``log`` is the natural logarithm of the power plus 1e-10.

    Returns
    -------
    Sample
        ``(C, window // 2 + 1, 1 + T // hop)``; axes ``frequency`` in Hz and ``time`` in s. `meta`: ``rate``, ``window``, ``hop``,
        ``scale``, ``length`` (T), and ``frequencies`` in Hz of every row.

    Raises
    ------
    ShapeError, ArgumentError

    Examples
    --------
    >>> time = torch.arange(8000, dtype=torch.float32, device="cpu") / 8000
    >>> tone = Sample(torch.sin(2 * torch.pi * 1000 * time)[None], ("time",), (1 / 8000,), ("s",))
    >>> spectrogram(tone, 400, 100).data[0, :, 40].argmax() * 20
    tensor(1000)
    """
    data, rate = _waveform(sample)
    _check(scale, window=window, hop=hop)
    waves = torch.stft(
        data,
        window,
        hop,
        window=torch.hann_window(window, dtype=data.dtype, device=data.device),
        pad_mode="constant",
        return_complex=True,
    )
    meta = {"rate": rate, "window": window, "hop": hop, "scale": scale, "length": data.shape[1]}
    meta["frequencies"] = [k * rate / window for k in range(window // 2 + 1)]
    return Sample(_scaled(waves, scale), ("frequency", "time"), (rate / window, hop / rate), ("Hz", "s"), meta)


def inverse_spectrogram(sample: Sample, phase: Tensor | None = None) -> Sample:
    """Return the waveform of a spectrogram with a linear axis, by least squares (Griffin and Lim 1984, eq. 6).

    Parameters
    ----------
    sample : Sample
        As `spectrogram` returns it.
    phase : Tensor of shape ``(C, frequencies, frames)``, optional
        Angles in radians, such as ``spectrogram(x, scale="complex").data.angle()``; needed unless the scale is ``complex``.

    Returns
    -------
    Sample
        ``(C, T)``.

    Raises
    ------
    ArgumentError, ShapeError
        If the axis is logarithmic, or there are no phases, or other ones.

    Examples
    --------
    >>> sound = Sample(torch.randn(2, 500, dtype=torch.float64, device="cpu"), ("time",), (1 / 8000,), ("s",))
    >>> again = inverse_spectrogram(spectrogram(sound, 64, 16, scale="complex"))
    >>> torch.allclose(again.data, sound.data)
    True
    """
    meta = sample_of(sample, "a spectrogram").meta
    if "window" not in meta or sample.axes != ("frequency", "time"):
        raise ArgumentError(f"{sample!r} is not what spectrogram returns: only that has an inverse")
    waves = sample.data
    if meta["scale"] != "complex":
        if phase is None:
            raise ArgumentError(
                f"a spectrogram of scale {meta['scale']!r} has no phases; give them, or keep them: scale='complex'"
            )
        if phase.shape != waves.shape:
            raise ShapeError(f"phase has shape {tuple(phase.shape)}; the spectrogram has {tuple(waves.shape)}")
        waves = torch.polar(_magnitude(waves, meta["scale"]), phase)
    window = torch.hann_window(meta["window"], dtype=waves.real.dtype, device=waves.device)
    if 2 * meta["hop"] > meta["window"]:
        raise ArgumentError(
            f"hop={meta['hop']} of a window of {meta['window']} leaves gaps; up to {meta['window'] // 2} can be inverted"
        )
    short = meta["length"] < meta["hop"] * (waves.shape[2] - 1)
    if short or waves.shape[1] != meta["window"] // 2 + 1:
        raise ShapeError(f"{tuple(waves.shape)} is not the shape of a spectrogram of {meta['length']} positions")
    data = torch.istft(waves, meta["window"], meta["hop"], window=window, length=meta["length"])
    return Sample(data, ("time",), (1 / meta["rate"],), ("s",), {"rate": meta["rate"]})


def log_spectrogram(
    sample: Sample,
    bins_per_octave: int = 12,
    lowest: float = 55.0,
    bins: int | None = None,
    hop: int = 256,
    *,
    scale: str = "power",
) -> Sample:
    """Return the constant-Q transform of a waveform: row k is the frequency ``lowest * 2 ** (k / bins_per_octave)``.

    Row k is the product of the sound around each position with ``w_k(n) exp(-2 pi i f_k n / rate)``, where ``w_k`` is a Hann
    window of ``Q rate / f_k`` positions that sums to 1 and ``Q = 1 / (2 ** (1 / bins_per_octave) - 1)`` (Brown 1991). A sine of
    amplitude A has magnitude ``A / 2`` in its row, at any pitch. It is computed from one Fourier transform of the whole sound,
    exactly.

    Parameters
    ----------
    sample : Sample
        A waveform ``(C, T)``, floating-point.
    bins_per_octave : int
    lowest : float
        Hz of row 0; 55 is the lowest A but one of a piano.
    bins : int, optional
        Rows; None takes all whose band ends below half the rate.
    hop : int
        Positions from frame to frame; frames are centred on 0, hop, 2 hop and so on, and what lies outside is silent.
    scale : {"power", "magnitude", "log", "complex"}

    Returns
    -------
    Sample
        ``(C, bins, 1 + T // hop)``; axis ``frequency`` in octaves, a spacing of ``1 / bins_per_octave``, and ``time`` in s.
        `meta`: ``rate``, ``hop``, ``scale``, ``length``, ``bins_per_octave``, ``lowest``, and ``frequencies`` in Hz of every row.

    Raises
    ------
    ShapeError, ArgumentError
        With the largest number of bins, if the rate does not carry so many.

    Examples
    --------
    >>> time = torch.arange(8000, dtype=torch.float32, device="cpu") / 8000
    >>> def tone(hz):
    ...     return Sample(torch.sin(2 * torch.pi * hz * time)[None], ("time",), (1 / 8000,), ("s",))
    >>> [int(log_spectrogram(tone(hz), 12, 110.0).data[0, :, 15].argmax()) for hz in (220.0, 440.0)]
    [12, 24]
    """
    data, rate = _waveform(sample)
    _check(scale, bins_per_octave=bins_per_octave, hop=hop)
    if not lowest > 0:
        raise ArgumentError(f"lowest={lowest} must be a positive number of Hz")
    ratio = 2 ** (1 / bins_per_octave)
    q = 1 / (ratio - 1)
    # A Hann window's band ends two bins of its own length from its middle.
    most = floor(bins_per_octave * log2(rate / 2 / (lowest * (1 + 2 / q)))) + 1 if lowest * (1 + 2 / q) <= rate / 2 else 0
    count = most if bins is None else bins
    if not 1 <= count <= most:
        raise ArgumentError(
            f"bins={bins} from {lowest:g} Hz, {bins_per_octave} an octave: a rate of {rate} Hz carries 1 to {most}"
        )
    frequencies = [lowest * ratio**k for k in range(count)]
    waves = _constant_q(data, rate, frequencies, q, hop)
    meta: dict[str, Any] = {"rate": rate, "hop": hop, "scale": scale, "length": data.shape[1]}
    meta |= {"bins_per_octave": bins_per_octave, "lowest": lowest, "frequencies": frequencies}
    return Sample(_scaled(waves, scale), ("frequency", "time"), (1 / bins_per_octave, hop / rate), ("octave", "s"), meta)


def shift_pitch(sample: Sample, bins: int) -> Sample:
    """Return a spectrogram with a logarithmic axis moved up by a number of rows: what the sound would be at another pitch.

    Rows that come in are silent, those that leave are gone.

    Raises
    ------
    ArgumentError
        If the axis is linear, on which another pitch is no shift.

    Examples
    --------
    >>> sound = Sample(torch.randn(1, 4000, dtype=torch.float32, device="cpu"), ("time",), (1 / 8000,), ("s",))
    >>> rows = log_spectrogram(sound, 12, 220.0, bins=30)
    >>> torch.equal(shift_pitch(rows, 12).data[:, 12:], rows.data[:, :18])
    True
    """
    if "bins_per_octave" not in sample_of(sample, "a spectrogram").meta or sample.axes[0] != "frequency":
        raise ArgumentError(
            f"{sample!r} has no logarithmic axis of frequencies, and on another, a pitch is no shift: log_spectrogram"
        )
    data, n = sample.data, sample.data.shape[1]
    moved = torch.full_like(data, log(_FLOOR) if sample.meta["scale"] == "log" else 0)
    if abs(bins) < n:
        moved[:, max(bins, 0) : n + min(bins, 0)] = data[:, max(-bins, 0) : n - max(bins, 0)]
    return sample.with_data(moved)


def _waveform(sample: Sample) -> tuple[Tensor, int]:
    data = sample_of(sample, "a waveform").data
    if sample.axes != ("time",) or not data.is_floating_point() or not data.shape[1]:
        raise ShapeError(f"a spectrogram is made of a floating-point waveform (C, T), got {sample!r}")
    if not bool(data.isfinite().all()):
        raise ArgumentError(f"the waveform holds NaN or infinity, {int((~data.isfinite()).sum())} of {data.numel()} values")
    return data, round(1 / sample.spacing[0])


def _check(scale: str, **numbers: int) -> None:
    if scale not in _SCALES:
        raise ArgumentError(f"scale={scale!r} is not one of {list(_SCALES)}")
    for name, value in numbers.items():
        if not isinstance(value, int) or value < (2 if name == "window" else 1):
            raise ArgumentError(f"{name}={value!r} must be a whole number, at least {2 if name == 'window' else 1}")


def _scaled(waves: Tensor, scale: str) -> Tensor:
    if scale == "complex":
        return waves
    if scale == "magnitude":
        return waves.abs()
    power = waves.real.square() + waves.imag.square()
    return power if scale == "power" else (power + _FLOOR).log()


def _magnitude(values: Tensor, scale: str) -> Tensor:
    if scale == "magnitude":
        return values
    power = values if scale == "power" else values.exp() - _FLOOR
    return power.clamp_min(0).sqrt()


def _constant_q(data: Tensor, rate: int, frequencies: list[float], q: float, hop: int) -> Tensor:
    """Return ``sum_n x(hop t + n) conj(kernel_k(n))`` for every row k and frame t.

    The sum is a correlation, which is a product of Fourier transforms; taking every hop-th of its values adds up the hop aliases
    of its spectrum, so that the transform back is hop times shorter.
    """
    reach = ceil(q * rate / frequencies[0] / 2)
    frames = 1 + data.shape[1] // hop
    length = hop * ceil((data.shape[1] + 2 * reach) / hop)
    spectrum = torch.fft.fft(data, length)
    rows = []
    for frequency in frequencies:
        kernel = _kernel(rate, frequency, q, data)
        half = len(kernel) // 2
        around = torch.zeros(length, dtype=kernel.dtype, device=kernel.device)
        around[: half + 1], around[length - half :] = kernel[half:], kernel[:half]
        product = spectrum * torch.fft.fft(around).conj()
        rows.append(torch.fft.ifft(product.unflatten(-1, (hop, length // hop)).mean(-2))[..., :frames])
    return torch.stack(rows, 1)


def _kernel(rate: int, frequency: float, q: float, like: Tensor) -> Tensor:
    """Return a wave under a window from ``-half`` to ``half``.

    The window's length is no whole number of positions, so that all rows have the same shape in time times frequency.
    """
    length = q * rate / frequency
    half = floor(length / 2)
    n = torch.arange(-half, half + 1, device=like.device).to(torch.float64)
    window = 1 + (2 * torch.pi * n / length).cos()
    kernel = torch.polar(window / window.sum(), 2 * torch.pi * frequency / rate * n)
    return kernel.to(torch.complex128 if like.dtype == torch.float64 else torch.complex64)
