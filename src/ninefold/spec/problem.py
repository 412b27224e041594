"""Problem: everything a plan depends on, and therefore the key under which it is remembered."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from math import prod
from typing import Literal

from ninefold.spec.form import Form

__all__ = ["TOLERANCES", "Map", "Problem"]

Map = Literal["c", "h", "g"]

_BYTES = {
    "float64": 8,
    "float16": 2,
    "bfloat16": 2,
    "complex64": 8,
    "complex128": 16,
    "int64": 8,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}


@dataclass(frozen=True)
class Problem:
    """One map of one form, with all that decides how fast it runs: no tensor, no pointer.

    Parameters
    ----------
    map : {"c", "h", "g"}
        Which of the three (output, input, kernel).
    form : Form
        The numbers, both sizes included.
    batch : int
        Examples that are computed together.
    dtype : str
        Such as ``"float32"``.
    device : str
        ``"cpu"``, or an accelerator's type and name.
    channels_last : bool
        Whether the operand that has the batch (``V`` for c and g, ``G`` for h) is channels-last.
    threads : int
        Threads that an engine may use.
    tolerance : float
        Largest admitted error on the scale ``max|V| * ||K_o||_1``; 0 admits direct summation only.
    max_scratch : int, optional
        Largest number of bytes that an engine may hold beside operands and result.
    deterministic : bool
        Whether the same bits are asked for at every run.
    finite : bool
        Whether NaN and infinity must not spread further than the definition spreads them.
    rank : int, optional
        Numerical rank over the axes of a frozen weight; None where the weight may change.
    frozen : bool
        Whether the weight is final, so that what is derived from it may be kept.

    Examples
    --------
    >>> from ninefold.spec import ConvSpec
    >>> problem = Problem("c", ConvSpec(2, 3, (3, 5)).form((7, 9)), batch=4)
    >>> problem.macs, problem.bytes
    (9000, 3576)
    """

    map: Map
    form: Form
    batch: int
    dtype: str = "float32"
    device: str = "cpu"
    channels_last: bool = False
    threads: int = 1
    tolerance: float = 1e-5
    max_scratch: int | None = None
    deterministic: bool = False
    finite: bool = False
    rank: int | None = None
    frozen: bool = False

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """The hash, once."""
        return hash(tuple(getattr(self, f.name) for f in fields(self)))

    def __getstate__(self) -> dict[str, object]:
        """Return the fields: another process hashes text differently."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return _BYTES.get(self.dtype, 4)

    @property
    def is_complex(self) -> bool:
        """Whether elements are complex."""
        return self.dtype.startswith("complex")

    @property
    def is_float(self) -> bool:
        """Whether elements are real floating-point numbers."""
        return "float" in self.dtype

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of the whole batch; the same for all three maps."""
        return self.form.macs * self.batch

    @cached_property
    def bytes(self) -> int:
        """Bytes of both operands and the result: the least that can be moved."""
        f = self.form
        count = prod(f.input_shape(self.batch)) + prod(f.output_shape(self.batch)) + prod(f.weight_shape)
        return count * self.itemsize

    @cached_property
    def key(self) -> str:
        """A digest of every field, for caches that outlive the process."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


TOLERANCES = {
    "float64": 1e-13,
    "complex128": 1e-13,
    "float32": 1e-5,
    "complex64": 1e-5,
    "float16": 4e-3,
    "bfloat16": 3e-2,
}
"""Default tolerances by dtype, on the scale ``max|V| * ||K_o||_1``; integers admit no error."""
