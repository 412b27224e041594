"""``ninefold chapter``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ninefold.cli.answers import answer
from ninefold.cli.options import Json
from ninefold.errors import ArgumentError

if TYPE_CHECKING:
    from ninefold.chapter.show import Result

__all__ = ["chapter"]


def chapter(
    key: Annotated[str | None, typer.Argument(help="An entry of the table, like 9.16.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Run the long experiments, too, and say where a verdict changed.")] = False,
    record: Annotated[bool, typer.Option("--record", help="With --full, keep what the long experiments gave.")] = False,
    write: Annotated[Path | None, typer.Option(help="Also write the pages of the documentation to this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Run the chapter: every claim, the number that came out, and the verdict."""
    from rich.console import Console
    from rich.markdown import Markdown

    try:
        from ninefold.chapter.running import run
        from ninefold.chapter.show import changed, sheet, table
    except ModuleNotFoundError as error:
        raise ArgumentError(f"the chapter needs {error.name}: pip install 'ninefold[chapter]'") from None

    with Console(stderr=True).status("") as status:
        results, before = run(key, full=full, record=record, write=write, tell=status.update)
    if as_json:
        answer({"entries": [_told(result) for result in results], "changed": list(changed(before, results))})
        return
    console = Console()
    console.print(Markdown(sheet(results[0])) if key else table(results))
    if key is None:
        counts = {verdict: sum(r.verdict == verdict for r in results) for verdict in dict.fromkeys(r.verdict for r in results)}
        console.print(f"{len(results)} entries: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    for sentence in changed(before, results):
        console.print(sentence)
    if full and not changed(before, results):
        console.print("no verdict changed")


def _told(result: "Result") -> dict[str, Any]:
    """Return what programs want to know of an entry."""
    entry, finding = result.entry, result.finding
    told = {"key": entry.key, "title": entry.title, "claim": entry.claim, "verdict": result.verdict}
    return told | {"measured": finding.measured, "numbers": finding.numbers, "recorded": result.recorded or None}
