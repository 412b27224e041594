"""The command ``ninefold``; needs the extra ``cli`` (``pip install 'ninefold[cli]'``).

``ninefold --help`` is its manual page, ``tree`` holds its commands.
"""

import sys
from contextlib import nullcontext
from importlib import import_module
from typing import Any, NoReturn

import ninefold
from ninefold.cli.answers import answer, only_answers
from ninefold.errors import NinefoldError

__all__ = ["main"]

_NEEDED = ("typer", "rich")


def __getattr__(name: str) -> Any:
    """Return ``app``, the tree of commands: importing it needs typer, importing `main` does not."""
    if name != "app":
        raise AttributeError(f"module 'ninefold.cli' has no attribute {name!r}")
    return import_module("ninefold.cli.tree").app


def main() -> None:
    """Run the command; a mistake of the user's is one sentence and exit code 2, with ``--json`` one object and the same code."""
    arguments = sys.argv[1:]
    as_json = "--json" in arguments
    for package in _NEEDED:
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package:
                raise
            _without(package, arguments, as_json)
    with only_answers() if as_json else nullcontext():
        _run(as_json)


def _without(package: str, arguments: list[str], as_json: bool) -> NoReturn:
    """Answer ``--version``, which needs nothing, and say what everything else needs."""
    if arguments == ["--version"]:
        print(f"ninefold {ninefold.__version__}")
        raise SystemExit(0)
    told = f"the command needs {package}, which the library does not: pip install 'ninefold[cli]'"
    _fail("MissingExtraError", told, 2, as_json)


def _run(as_json: bool) -> None:
    import typer

    from ninefold.cli.answers import StoppedError
    from ninefold.cli.options import MisusedError
    from ninefold.cli.tree import app

    try:
        code = app(standalone_mode=False, prog_name="ninefold")
    except NinefoldError as error:
        _fail(type(error).__name__, str(error), 2, as_json)
    except MisusedError.__base__ as error:  # all that click says of its own
        if as_json:
            _fail("UsageError", error.format_message(), error.exit_code, as_json)
        error.show()
        raise SystemExit(error.exit_code) from None
    except typer.Exit as stop:
        raise SystemExit(stop.exit_code) from None
    except (StoppedError, KeyboardInterrupt, typer.Abort) as stop:
        _interrupted(str(stop), as_json)
    except Exception as error:
        if as_json:
            answer(_failure(type(error).__name__, str(error), 1))
        raise
    if code == 130:  # what some versions of typer make of an interrupt
        _interrupted("", as_json)
    if isinstance(code, int):
        raise SystemExit(code)


def _interrupted(kept: str, as_json: bool) -> NoReturn:
    told = f"interrupted; {kept or 'finished measurements are kept, nothing else was changed'}"
    _fail("KeyboardInterrupt", told, 130, as_json)


def _fail(kind: str, message: str, code: int, as_json: bool) -> NoReturn:
    """Say what is wrong, for people on standard error, for programs on standard output; leave with the code."""
    print(f"ninefold: {message}", file=sys.stderr)
    if as_json:
        answer(_failure(kind, message, code))
    raise SystemExit(code) from None


def _failure(kind: str, message: str, code: int) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message}, "exit_code": code}
