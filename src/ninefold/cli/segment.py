"""The commands under ``ninefold segment``: train, predict, refine, partition, score."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from ninefold.cli.answers import StoppedError, answer
from ninefold.cli.options import Json
from ninefold.errors import ArgumentError, MissingExtraError

__all__ = ["segment_app"]


segment_app = typer.Typer(
    no_args_is_help=False, help="A label for every pixel of your own images, refined, cut into objects, and scored."
)


@segment_app.callback(invoke_without_command=True)
def segment(
    context: typer.Context,
    demo: Annotated[bool, typer.Option("--demo", help="Show it on textures and nuclei; under three minutes.")] = False,
    out: Annotated[Path, typer.Option(help="Where the demo writes its pictures and its page.")] = Path("segment-demo"),
    as_json: Json = False,
) -> None:
    """Show the demo, or say what there is."""
    if context.invoked_subcommand is not None:
        return
    if not demo:
        if as_json:
            raise ArgumentError(
                "'ninefold segment --json' has nothing to answer; give --demo or a command: 'ninefold segment --help'"
            )
        typer.echo(context.get_help())
        return
    _needs()
    from ninefold.segment.demo import run

    with _bar() as progress:
        told = run(out, progress=progress)
    if as_json:
        *tables, last = told
        answer({"path": out, "tables": tables, "told": last})
    else:
        _print(told)


@segment_app.command()
def train(
    images: Annotated[str | None, typer.Option(help="A folder of images or volumes.")] = None,
    masks: Annotated[str | None, typer.Option(help="The folder of their masks, of the same names.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder for the model, checkpoints, log and pictures.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings in YAML; those given here come before.")] = None,
    crop: Annotated[str | None, typer.Option(help="Side of the crops, or one an axis: 64,64,16.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting, such as epochs=50; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Train on a folder of images and masks. The same command goes on after an interrupt. With several processes: torchrun."""
    _needs()
    from ninefold.segment.commands import train_folder
    from ninefold.segment.config import TrainConfig
    from ninefold.segment.parallel import world

    sides = None if crop is None else _sides(crop, "--crop")
    named = {"images": images, "masks": masks, "out": out, "crop": sides}
    given = {name: value for name, value in named.items() if value is not None}
    settings = TrainConfig.from_yaml(_text(config) if config else "", **(_settings(set_ or [], TrainConfig) | given))
    with _bar() as progress:
        try:
            outcome = train_folder(settings, tell=progress.tell, progress=progress)
        except KeyboardInterrupt as stop:
            raise StoppedError(str(stop)) from None
    if world().first and as_json:
        answer({"path": outcome.path, "score": outcome.score, "best": outcome.best, "epochs": outcome.history,
                "ended": outcome.ended, "notes": progress.told})  # fmt: skip
    elif world().first:
        typer.echo(str(outcome))


@segment_app.command()
def predict(
    model: Annotated[Path, typer.Option(help="model.safetensors of a training.")],
    images: Annotated[Path, typer.Option(help="A folder of images or volumes.")],
    out: Annotated[Path, typer.Option(help="The folder for the masks.")],
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write NAME.npz, for refine and partition.")
    ] = False,
    overlays: Annotated[bool, typer.Option("--overlays", help="Also write pictures with the labels over them.")] = False,
    method: Annotated[str, typer.Option(help="For objects: mutex, components or watershed.")] = "watershed",
    minimum_size: Annotated[int, typer.Option(min=0, help="For objects: smaller ones are left out.")] = 20,
    tile: Annotated[
        str | None,
        typer.Option(
            help="Side of tiles that are predicted one by one, or one an axis: 512,512,64. If not given: at once, where it fits."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a mask for every image."""
    _needs()
    from ninefold.segment import commands

    sides = None if tile is None else _sides(tile, "--tile")
    with _bar() as progress:
        told = commands.predict(
            model,
            images,
            out,
            probabilities=probabilities,
            overlays=overlays,
            method=method,  # type: ignore[arg-type]
            minimum_size=minimum_size,
            tile=sides,
            progress=progress,
        )
    _masks(out, told, progress, as_json)


@segment_app.command()
def refine(
    probabilities: Annotated[Path, typer.Option(help="What 'predict --probabilities' wrote.")],
    images: Annotated[Path, typer.Option(help="The folder of the images.")],
    out: Annotated[Path, typer.Option(help="The folder for masks and refined probabilities.")],
    steps: Annotated[int, typer.Option(min=0, help="Of the mean field.")] = 10,
    widths: Annotated[
        tuple[float, float, float],
        typer.Option(help="Smoothness and appearance in pixels, colour in 255ths of the image's range."),
    ] = (3.0, 40.0, 10.0),
    weights: Annotated[tuple[float, float], typer.Option(help="Of smoothness and appearance.")] = (3.0, 5.0),
    overlays: Annotated[bool, typer.Option("--overlays", help="Also write pictures with the labels over them.")] = False,
    as_json: Json = False,
) -> None:
    """Refine label maps by a fully connected random field: borders move to those of the image."""
    _needs()
    from ninefold.segment import commands

    with _bar() as progress:
        told = commands.refine(
            probabilities, images, out, steps=steps, widths=widths, weights=weights, overlays=overlays, progress=progress
        )
    _masks(out, told, progress, as_json)


@segment_app.command()
def partition(
    affinities: Annotated[Path, typer.Option(help="What 'predict --probabilities' wrote, by a model of objects.")],
    out: Annotated[Path, typer.Option(help="The folder for the masks.")],
    method: Annotated[str, typer.Option(help="mutex, components or watershed.")] = "watershed",
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="Edges above it join.")] = 0.5,
    minimum_size: Annotated[int, typer.Option(min=0, help="Smaller objects are left out.")] = 20,
    as_json: Json = False,
) -> None:
    """Cut affinities into objects."""
    _needs()
    from ninefold.segment import commands

    with _bar() as progress:
        told = commands.partition(
            affinities,
            out,
            method=method,  # type: ignore[arg-type]
            threshold=threshold,
            minimum_size=minimum_size,
            progress=progress,
        )
    _masks(out, told, progress, as_json)


@segment_app.command()
def score(
    predicted: Annotated[Path, typer.Option(help="A folder of masks.")],
    masks: Annotated[Path, typer.Option(help="The folder of the true ones, of the same names.")],
    objects: Annotated[bool, typer.Option("--objects", help="Masks number objects; 0 is what is between.")] = False,
    ignore: Annotated[int | None, typer.Option(help="The label of pixels that count nowhere.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="config.yaml of the training: its labels, colours and ignore are those of the true masks.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write the scores, as JSON, to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare masks with the true ones."""
    _needs()
    from json import dumps

    from ninefold.segment.config import TrainConfig
    from ninefold.segment.scoring import score_folders
    from ninefold.storing import write_whole

    trained = TrainConfig.from_yaml(_text(config)) if config else None
    labels, colours = (trained.labels, trained.colours) if trained else (None, None)
    ignore = trained.ignore if trained and ignore is None and trained.task == "labels" else ignore
    told, scores = score_folders(predicted, masks, objects=objects, ignore=ignore, labels=labels, colours=colours)
    if report is not None:
        write_whole(report, dumps(scores, indent=1).encode())
    if as_json:
        answer(scores)
    else:
        typer.echo(told)


def _masks(out: Path, told: str, progress: "_Progress", as_json: bool) -> None:
    """Say what was written: in a sentence, or the images by name."""
    if as_json:
        answer({"path": out, "images": progress.named, "told": told})
    else:
        typer.echo(told)


class _Progress:
    """A bar on standard error, and sentences above it."""

    def __init__(self, bar: Any) -> None:
        self.bar, self.task = bar, bar.add_task("", total=None)
        self.named: list[str] = []  # what is done, in words
        self.told: list[str] = []  # sentences

    def __call__(self, done: int, total: int, words: str) -> None:
        self.named.append(words)
        self.bar.update(self.task, completed=done, total=total, description=words)

    def tell(self, sentence: str) -> None:
        self.told.append(sentence)
        self.bar.console.print(sentence, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _bar() -> Iterator[_Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Progress(bar)


def _needs() -> None:
    """Say which extra is missing."""
    try:
        import nibabel
        import safetensors
        import skimage
        import yaml
    except ImportError as error:
        raise MissingExtraError(f"'ninefold segment' needs {error.name}: pip install 'ninefold[segment]'") from None
    del nibabel, safetensors, skimage, yaml


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path} cannot be read: {error}") from error


def _settings(words: list[str], kind: Any) -> dict[str, Any]:
    """Return settings of ``name=value``, read as YAML reads a value."""
    import yaml

    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ArgumentError(f"--set {word!r} must be name=value, with a name of {', '.join(f.name for f in fields(kind))}")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            found[name] = value
    return found


def _sides(text: str, name: str) -> list[int] | int:
    """Return one whole number, or one for each axis."""
    try:
        sides = [int(word) for word in text.split(",")]
    except ValueError:
        raise ArgumentError(f"{name} {text!r} must be a whole number, or one for each axis, such as 64,64,16") from None
    return sides[0] if len(sides) == 1 else sides


def _print(parts: list[Any]) -> None:
    """Print sentences and tables."""
    from rich.console import Console

    console = Console()
    for part in parts:
        console.print(part, markup=False, highlight=False)
