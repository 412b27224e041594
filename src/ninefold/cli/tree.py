"""The tree of commands."""

from typing import Annotated

import typer

import ninefold
from ninefold.cli.chapter import chapter
from ninefold.cli.learning import features, learn
from ninefold.cli.manual import ManualPage
from ninefold.cli.models import optimize
from ninefold.cli.planning import cache_app, calibrate, plan
from ninefold.cli.segment import segment_app

__all__ = ["app"]

app = typer.Typer(cls=ManualPage, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(cache_app, name="cache")
app.add_typer(segment_app, name="segment")
for command in (optimize, plan, calibrate, learn, features, chapter):
    app.command()(command)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ninefold {ninefold.__version__}")
        raise typer.Exit


@app.callback()
def ninefold_(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Plan, run and explain the convolutions of PyTorch models."""
