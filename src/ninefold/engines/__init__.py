"""HOW: one file per algorithm. The order is the order of preference at equal cost; the reference, last, accepts everything."""

from ninefold.engines.aten import Aten, AtenBackward, AtenOther, AtenPadded
from ninefold.engines.bags import Bags
from ninefold.engines.base import Engine
from ninefold.engines.fft import FFT
from ninefold.engines.gemm import Gemm
from ninefold.engines.reference import Reference
from ninefold.engines.separable import Separable
from ninefold.engines.table import Table, TableFilled
from ninefold.engines.winograd import Winograd
from ninefold.engines.tiles import Interleaved, Phases

__all__ = ["ENGINES"]

ENGINES: tuple[Engine, ...] = (
    Aten(),
    AtenBackward(),
    AtenPadded(),
    AtenOther(),
    Separable(),
    Winograd(),
    FFT(),
    Bags(),
    Interleaved(),
    Phases(),
    Gemm(),
    Table(),
    TableFilled(),
    Reference(),
)
