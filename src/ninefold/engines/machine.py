"""What a machine does per second: what estimates are made of."""

from dataclasses import dataclass

__all__ = ["Machine"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Rates of a machine, calibrated once (``ninefold calibrate``): the unit is one per second.

    The defaults are what is assumed of two threads of a machine that was never measured.

    Parameters
    ----------
    product : float
        Multiply-adds in a large float32 matrix product, with all threads in use.
    stream : float
        Bytes read or written while copying a large array.
    transform : float
        Elements times log2(length) in batched real Fourier transforms.
    call : float
        Seconds of one small torch operation.
    """

    product: float = 1.2e11
    stream: float = 2.0e10
    transform: float = 6.0e9
    call: float = 4e-6

    def __str__(self) -> str:
        return (
            f"{self.product / 1e9:.1f} G multiply-adds/s, {self.stream / 1e9:.1f} GB/s copied, "
            f"{self.transform / 1e9:.2f} G elements x log2(length)/s transformed, {self.call * 1e6:.1f} us a call"
        )
