from collections.abc import Sequence
from typing import TypeAlias

_Line: TypeAlias = tuple[int, int, Sequence[int], Sequence[int]]

def isas() -> list[str]: ...
def poison(on: bool) -> None: ...

class DirectPlan:
    def __init__(self, isa: str, kind: int, threads: int, weights: bool) -> None: ...
    def add(
        self,
        channels: Sequence[int],
        read: Sequence[int],
        written: Sequence[int],
        weight: Sequence[int],
        staged: Sequence[int],
        source_z: Sequence[int],
        source_y: Sequence[int],
        runs: Sequence[Sequence[int]],
        z: _Line,
        y: _Line,
        x: Sequence[_Line],
        in_place: bool,
        /,
    ) -> None: ...
    @property
    def scratch(self) -> int: ...
    def __call__(self, a: int, b: int, bias: int, out: int, /) -> None: ...
