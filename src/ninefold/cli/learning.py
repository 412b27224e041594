"""``ninefold learn`` and ``ninefold features``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ninefold.cli.answers import StoppedError, answer
from ninefold.cli.options import Json, MisusedError
from ninefold.errors import MissingExtraError

__all__ = ["features", "learn"]


def learn(
    data: Annotated[Path | None, typer.Option(help="A folder of images, or an .npy or .npz file.")] = None,
    out: Annotated[Path | None, typer.Option(help="The safetensors file to write; of the demo a folder.")] = None,
    filters: Annotated[str, typer.Option(help="kmeans, omp, random, rbm, sampled or sparse.")] = "kmeans",
    count: Annotated[int, typer.Option("-k", "--count", help="How many filters.")] = 400,
    patch: Annotated[int, typer.Option(help="The side of a filter.")] = 6,
    channels: Annotated[str, typer.Option(help="auto, first, last or none: where an array has them.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    demo: Annotated[bool, typer.Option("--demo", help="Compare what filters are worth on digits: some two minutes.")] = False,
    as_json: Json = False,
) -> None:
    """Learn filters from images without labels; after an interrupt, the same command goes on."""
    if demo:
        _learn_demo(out or Path("learn-demo"), as_json)
        return
    if data is None or out is None:
        raise MisusedError("--data and --out are needed: what to learn from, and where filters go (or --demo)")
    from rich.progress import Progress

    commands = _commands()
    notes: list[str] = []

    with Progress(console=_errors(), transient=True) as bar:
        task = bar.add_task(filters, total=None)

        def tell(sentence: str) -> None:
            notes.append(sentence)
            bar.console.print(sentence, markup=False, highlight=False, soft_wrap=True)

        try:
            told = commands.learn(
                data,
                filters,
                count,
                patch,
                out,
                channels=channels,
                seed=seed,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                tell=tell,
            )
        except KeyboardInterrupt as stop:
            raise StoppedError(str(stop)) from None
    if as_json:
        answer(
            {"path": out, "filters": filters, "shape": commands.load_filters(out).filters_.shape, "notes": notes, "told": told}
        )
    else:
        typer.echo(told)


def _learn_demo(folder: Path, as_json: bool) -> None:
    """Print the demo's tables."""
    from rich.console import Console

    _commands()
    from ninefold.learn.demo import run, told

    console = Console()
    with _errors().status("digits") as status:
        features, networks, written = run(folder, tell=lambda name: status.update(f"digits: {name}"))
    if as_json:
        answer({"features": [*map(_row, features)], "networks": [*map(_row, networks)], "pictures": written})
        return
    console.print(told(features, "Unseen digits told right in percent, 20 splits; seconds to learn, to extract"))
    console.print(told(networks, "The same by a small network trained in three ways; seconds of one training"))
    console.print(f"{len(written)} pictures of filters in {folder}")


def features(
    filters: Annotated[Path, typer.Option(help="What 'ninefold learn' wrote.")],
    data: Annotated[Path, typer.Option(help="A folder of images, or an .npy or .npz file.")],
    out: Annotated[Path, typer.Option(help="The npz file to write.")],
    encoder: Annotated[str, typer.Option(help="triangle, hard, soft, rectified or sparse.")] = "triangle",
    pooling: Annotated[str, typer.Option(help="quadrants or pyramid.")] = "quadrants",
    stride: Annotated[int, typer.Option(help="Between patches.")] = 1,
    channels: Annotated[str, typer.Option(help="auto, first, last or none: where an array has them.")] = "auto",
    as_json: Json = False,
) -> None:
    """Write features of images, by filters that were learned, for any classifier."""
    from rich.progress import Progress

    commands = _commands()
    with Progress(console=_errors(), transient=True) as bar:
        task = bar.add_task("features", total=None)
        told = commands.extract(
            filters,
            data,
            out,
            encoder=encoder,
            pooling=pooling,
            stride=stride,
            channels=channels,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        answer({"path": out, "shape": _shape(out), "told": told})
    else:
        typer.echo(told)


def _shape(path: Path) -> tuple[int, ...]:
    """Return images and features of a file that was written."""
    import numpy as np

    with np.load(path, allow_pickle=False) as found:
        shape: tuple[int, ...] = found["features"].shape
    return shape


def _row(row: Any) -> dict[str, Any]:
    """Return a row of the demo for programs: means over splits."""
    means = {n: scores.mean() for n, scores in row.accuracies.items()}
    seconds = {"learning": row.learning, "extracting": row.extracting}
    return {"name": row.name, "encoder": row.encoder, "accuracy": means, "seconds": seconds}


def _commands() -> Any:
    """Return what the commands do, or say which package is missing."""
    try:
        from ninefold.learn import commands
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"filters without labels need {error.name}: pip install 'ninefold[learn]'") from None
    return commands


def _errors() -> Any:
    from rich.console import Console

    return Console(stderr=True)
