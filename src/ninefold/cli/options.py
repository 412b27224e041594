"""Options that several commands share."""

from typing import Annotated, Any

import typer

from ninefold.errors import ArgumentError

__all__ = ["Json", "MisusedError", "Scratch", "Tolerance", "tolerance_of"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")]
Tolerance = Annotated[str, typer.Option(help="default, strict, or a number.")]
Scratch = Annotated[int | None, typer.Option(help="Bytes an engine may hold beside its operands.")]


MisusedError: Any = typer.BadParameter.__mro__[1]  # click's UsageError, wherever this version of typer keeps it


def tolerance_of(text: str) -> Any:
    """Return a tolerance as `ninefold.options` takes it.

    Examples
    --------
    >>> tolerance_of("strict"), tolerance_of("1e-3")
    ('strict', 0.001)
    """
    if text in ("default", "strict"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ArgumentError(f"--tolerance {text!r} is not 'default', 'strict' or a number") from None
