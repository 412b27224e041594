"""Photographs whitened as wholes: all frequencies as strong as one another."""

from typing import TYPE_CHECKING, Any

import torch

from ninefold.errors import ArgumentError
from ninefold.learn.images import Channels, Images

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["whiten_photographs"]


def whiten_photographs(X: Any, *, cutoff: float = 0.4, channels: Channels = "auto") -> "list[NDArray[np.float32]]":
    """Flatten the spectrum of photographs, which falls as one over the frequency; each has mean 0 and deviation 1 afterwards.

    The amplitude at f cycles a pixel is multiplied by ``f exp(-(f / cutoff)^4)``, which spares the noise of the highest
    frequencies (Olshausen and Field 1996). The image is mirrored at its border, so that there is no edge where it ends.

    Parameters
    ----------
    X : images
        Of any sizes.
    cutoff : float
    channels : {"auto", "first", "last", "none"}
        As in `Images`.

    Returns
    -------
    list of ndarray
        ``(C, H, W)`` each, float32.

    Raises
    ------
    ArgumentError
        If an image is constant.

    Examples
    --------
    >>> import numpy as np
    >>> ramp = np.arange(56.0).reshape(1, 7, 8) ** 2
    >>> white, = whiten_photographs(ramp)
    >>> white.shape, abs(float(white.mean())) < 1e-6, round(float(white.std()), 4)
    ((1, 7, 8), True, 1.0)
    """
    if not cutoff > 0:
        raise ArgumentError(f"cutoff={cutoff} must be above 0")
    found: list[NDArray[np.float32]] = []
    for batch in Images(X, channels):
        for image in batch:
            height, width = image.shape[1:]
            both = torch.cat([image, image.flip(1)], 1)
            both = torch.cat([both, both.flip(2)], 2).double()
            down = torch.fft.fftfreq(2 * height, device="cpu", dtype=torch.float64).unsqueeze(1)
            f = torch.hypot(down, torch.fft.rfftfreq(2 * width, device="cpu", dtype=torch.float64).unsqueeze(0))
            flat = torch.fft.irfft2(torch.fft.rfft2(both) * f * (-((f / cutoff) ** 4)).exp(), s=both.shape[1:])
            flat = flat[:, :height, :width]
            flat = flat - flat.mean()
            deviation = float(flat.std(correction=0))
            if not deviation > 1e-6 * float(image.abs().max()):
                raise ArgumentError(
                    f"image {len(found)} is constant, {float(image.mean()):g} throughout: there is nothing to whiten"
                )
            found.append((flat / deviation).float().numpy())
    return found
