"""Options of the calling context: which plans are looked for, and what they must respect."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.spec.parse import integer

__all__ = ["CURRENT", "Options", "options"]


@dataclass(frozen=True, slots=True)
class Options:
    """What `options` sets; read by every call.

    Parameters
    ----------
    mode : {"estimate", "measure"}
        Whether an unknown problem is planned from costs, or timed once on made-up operands and remembered.
    tolerance : float or str
        ``"default"`` (1e-5 in float32, by dtype), ``"strict"`` (direct summation only), or a number on the scale
        ``max|V| * ||K_o||_1``.
    max_scratch : int, optional
        Bytes that an engine may hold beside operands and result; None leaves each engine its own, moderate choice.
    deterministic : bool
        Admit only engines that give the same bits at every run; also on where torch's deterministic mode is.
    check_finite : bool, optional
        Compute directly where a NaN or an infinity, of the operands or by overflow, may have reached more of a result than the
        definition says. By default on CPUs, where to see that takes a percent of a call; on an accelerator every call would wait
        for the device, so that only True looks there. A call that meets one takes the time of both algorithms.
    """

    mode: Literal["estimate", "measure"] = "estimate"
    tolerance: float | Literal["default", "strict"] = "default"
    max_scratch: int | None = None
    deterministic: bool = False
    check_finite: bool | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("estimate", "measure"):
            raise ArgumentError(f"mode={self.mode!r} is not 'estimate' or 'measure'")
        if isinstance(self.tolerance, str) and self.tolerance not in ("default", "strict"):
            raise ArgumentError(f"tolerance={self.tolerance!r} is not 'default', 'strict' or a number")
        if not isinstance(self.tolerance, (str, int, float)) or isinstance(self.tolerance, bool):
            raise ArgumentTypeError(f"tolerance must be 'default', 'strict' or a number, got {self.tolerance!r}")
        if not isinstance(self.deterministic, bool):
            raise ArgumentTypeError(f"deterministic must be True or False, got {self.deterministic!r}")
        if self.check_finite is not None and not isinstance(self.check_finite, bool):
            raise ArgumentTypeError(f"check_finite must be True, False or None, got {self.check_finite!r}")
        if not isinstance(self.tolerance, str) and not self.tolerance >= 0:
            raise ArgumentError(f"tolerance={self.tolerance!r} must be a number of at least 0; 1e-5 is the default in float32")
        if self.max_scratch is not None:
            integer(self.max_scratch, "max_scratch", 0)

    def to_text(self) -> str:
        """Return the options as one line of JSON, for what takes text only: ``Options(**json.loads(line))`` makes them again.

        Examples
        --------
        >>> Options(tolerance="strict").to_text()
        '{"mode": "estimate", "tolerance": "strict", "max_scratch": null, "deterministic": false, "check_finite": null}'
        """
        return json.dumps(asdict(self))


CURRENT: ContextVar[Options] = ContextVar("ninefold.settings", default=Options())  # noqa: B039  frozen


@contextmanager
def options(**changes: Any) -> Iterator[Options]:
    """Change options within a ``with`` block, in this thread or task only.

    Parameters
    ----------
    **changes
        Fields of `Options`: ``mode``, ``tolerance``, ``max_scratch``, ``deterministic``, ``check_finite``.

    Raises
    ------
    ArgumentError
        If a name or a value is unknown.

    Examples
    --------
    >>> with options(tolerance="strict") as now:
    ...     now.tolerance
    'strict'
    """
    known = Options.__dataclass_fields__
    if unknown := [name for name in changes if name not in known]:
        raise ArgumentError(f"unknown options {unknown}; there are {list(known)}")
    token = CURRENT.set(replace(CURRENT.get(), **changes))
    try:
        yield CURRENT.get()
    finally:
        CURRENT.reset(token)
