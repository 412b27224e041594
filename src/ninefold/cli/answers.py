"""What commands answer to programs: one JSON object on standard output, and nothing else there."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TextIO

__all__ = ["StoppedError", "answer", "only_answers"]

_place: TextIO | None = None  # where answers go; None is standard output


class StoppedError(Exception):
    """An interrupt with something to say; of a KeyboardInterrupt typer leaves no more than a number."""


def answer(value: Mapping[str, Any]) -> None:
    """Print one JSON object: paths as text, data classes as objects, what is no finite number as null.

    Examples
    --------
    >>> answer({"seconds": float("inf"), "path": Path("a/b"), "sizes": (2, 3)})
    {"seconds": null, "path": "a/b", "sizes": [2, 3]}
    """
    print(json.dumps(_plain(value), allow_nan=False, ensure_ascii=False), file=_place, flush=True)


@contextmanager
def only_answers() -> Iterator[None]:
    """Send to standard error what anything but `answer` prints: models of the user's, libraries, processes that are started."""
    global _place  # noqa: PLW0603  there is one standard output
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as _place, redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        _place = None
        os.dup2(kept, 1)
        os.close(kept)


def _plain(value: Any) -> Any:
    """Return what JSON holds."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    if hasattr(value, "tolist"):  # a number or an array of NumPy, or a tensor
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
