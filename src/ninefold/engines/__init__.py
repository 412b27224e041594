"""HOW: one file per algorithm. The order is the order of preference at equal cost; the reference, last, accepts everything."""

from ninefold.engines.aten import Aten, AtenBackward
from ninefold.engines.bags import Bags
from ninefold.engines.base import Engine
from ninefold.engines.direct import Direct
from ninefold.engines.fft import FFT
from ninefold.engines.gemm import Gemm
from ninefold.engines.implicit import Implicit
from ninefold.engines.local import Local
from ninefold.engines.reference import Reference
from ninefold.engines.separable import Separable
from ninefold.engines.winograd import Winograd

__all__ = ["ENGINES"]

ENGINES: tuple[Engine, ...] = (
    Aten(),
    AtenBackward(),
    Direct(),
    Local(),
    Separable(),
    Winograd(),
    Implicit(),
    FFT(),
    Bags(),
    Gemm(),
    Reference(),
)
