"""The command ``ninefold``: optimize a model, ask for a plan, calibrate, look after the plan cache."""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ninefold.cli_segment import StoppedError, segment_app
from ninefold.errors import ArgumentError, ImageError, ModelError, NinefoldError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from ninefold.engines.base import Machine

__all__ = ["app", "main"]

_Usage: Any = typer.BadParameter.__mro__[2]  # click's ClickException, wherever this version of typer keeps it


app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)
cache_app = typer.Typer(no_args_is_help=True, help="Look after the measured plans that are remembered.")
app.add_typer(cache_app, name="cache")
app.add_typer(segment_app, name="segment")


@app.command()
def optimize(
    model: Annotated[str, typer.Argument(help="A built-in name, or package.module:callable that returns a model.")],
    input: Annotated[str | None, typer.Option(help="Shape of the example, like 1x3x224x224.")] = None,  # noqa: A002
    image: Annotated[Path | None, typer.Option(help="An image file to use as the example.")] = None,
    train: Annotated[bool, typer.Option("--train", help="Tune a training step, not inference.")] = False,
    tolerance: Annotated[str, typer.Option(help="default, strict, or a number.")] = "default",
    max_scratch: Annotated[int | None, typer.Option(help="Bytes an engine may hold beside its operands.")] = None,
    fold: Annotated[bool, typer.Option(help="Fold batch normalisations into the convolutions before them (inference).")] = True,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long all of it may take, about.")] = 30.0,
    json: Annotated[Path | None, typer.Option(help="Also write the report to this file.")] = None,
) -> None:
    """Run every convolution of MODEL by the fastest exact-enough engine, and say what that gained."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from ninefold.network import optimize as run
    from ninefold.storing import write_whole

    network = _model(model)
    example = _example(network, input, image)
    allowed: Any = tolerance if tolerance in ("default", "strict") else _number(tolerance)
    console = Console()
    columns = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("recording")
        _, report = run(
            network,
            example,
            tolerance=allowed,
            max_scratch=max_scratch,
            train=train,
            inplace=True,
            fold=fold,
            seconds=seconds,
            progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
    console.print(report)
    if json is not None:
        write_whole(json, report.to_json().encode())
        console.print(f"report written to {json}")


@app.command()
def plan(
    what: Annotated[str, typer.Argument(help="Like '1x128x56x56 -> 128 k=31 p=15 g=128'.")],
    map: Annotated[str, typer.Option(help="c (output), h (input's gradient) or g (kernel's gradient).")] = "c",  # noqa: A002
    dtype: Annotated[str, typer.Option(help="Such as float32.")] = "float32",
    measure: Annotated[bool, typer.Option("--measure", help="Time the candidates instead of estimating.")] = False,
    tolerance: Annotated[str, typer.Option(help="default, strict, or a number.")] = "default",
    max_scratch: Annotated[int | None, typer.Option(help="Bytes an engine may hold beside its operands.")] = None,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="Operands in channels-last memory.")] = False,
) -> None:
    """Say which engine runs a convolution, what that costs, and why each other one lost or refused."""
    import torch

    from ninefold.planning.ask import plan as ask
    from ninefold.settings import options
    from ninefold.spec.text import from_description

    spec, batch, size = from_description(what)
    if map not in ("c", "h", "g"):
        raise ArgumentError(f"--map {map!r} is not c, h or g")
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ArgumentError(f"--dtype {dtype!r} is not a dtype of torch, such as float32 or bfloat16")
    allowed: Any = tolerance if tolerance in ("default", "strict") else _number(tolerance)
    with options(mode="measure" if measure else "estimate", tolerance=allowed, max_scratch=max_scratch):
        typer.echo(str(ask(spec, size, batch=batch, map=map, dtype=kind, channels_last=channels_last)))  # type: ignore[arg-type]


@app.command()
def chapter(
    key: Annotated[str | None, typer.Argument(help="An entry of the table, like 9.16.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Run the long experiments, too, and say where a verdict changed.")] = False,
    record: Annotated[bool, typer.Option("--record", help="With --full, keep what the long experiments gave.")] = False,
    write: Annotated[Path | None, typer.Option(help="Also write the pages of the documentation to this folder.")] = None,
) -> None:
    """Run the chapter: every claim, the number that came out, and the verdict."""
    from rich.console import Console
    from rich.markdown import Markdown

    try:
        from ninefold.chapter.running import run
        from ninefold.chapter.show import changed, sheet, table
    except ModuleNotFoundError as error:
        raise ArgumentError(f"the chapter needs {error.name}: pip install 'ninefold[chapter]'") from None

    console = Console()
    with console.status("") as status:
        results, before = run(key, full=full, record=record, write=write, tell=status.update)
    console.print(Markdown(sheet(results[0])) if key else table(results))
    if key is None:
        counts = {verdict: sum(r.verdict == verdict for r in results) for verdict in dict.fromkeys(r.verdict for r in results)}
        console.print(f"{len(results)} entries: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    for sentence in changed(before, results):
        console.print(sentence)
    if full and not changed(before, results):
        console.print("no verdict changed")


@app.command()
def calibrate(
    threads: Annotated[
        list[int] | None, typer.Option(help="Measure with so many; may be repeated. Default: 1, 2, 4, ...")
    ] = None,
) -> None:
    """Measure what this machine does per second (about a second per number of threads); estimates are made from that."""
    from rich.console import Console

    from ninefold.planning.ask import calibrate as run
    from ninefold.planning.cache import plan_cache

    console = Console()
    with console.status("measuring"):
        found = run(threads or None)
    console.print(_rates(found, f"measured, and kept in {plan_cache().path}"))


@cache_app.command("show")
def cache_show() -> None:
    """List the measured plans, most recently used first, and the rates of this machine."""
    from rich.console import Console
    from rich.table import Table

    from ninefold.planning.cache import plan_cache

    cache = plan_cache()
    rows = cache.rows()
    table = Table("engine", "seconds by engine", "problem", title=f"{len(rows)} plans in {cache.path}", title_justify="left")
    for row in rows:
        seconds = ", ".join(f"{name} {value:.2e}" for name, value in sorted(row["seconds"].items(), key=lambda item: item[1]))
        table.add_row(row["engine"], seconds, row["problem"])
    Console().print(table)
    known = cache.rates()
    Console().print(_rates(known, "rates of this machine") if known else "no rates of this machine: 'ninefold calibrate'")


@app.command()
def learn(
    data: Annotated[Path | None, typer.Option(help="A folder of images, or an .npy or .npz file.")] = None,
    out: Annotated[Path | None, typer.Option(help="The safetensors file to write; of the demo a folder.")] = None,
    filters: Annotated[str, typer.Option(help="kmeans, omp, random, rbm, sampled or sparse.")] = "kmeans",
    count: Annotated[int, typer.Option("-k", "--count", help="How many filters.")] = 400,
    patch: Annotated[int, typer.Option(help="The side of a filter.")] = 6,
    channels: Annotated[str, typer.Option(help="auto, first, last or none: where an array has them.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    demo: Annotated[bool, typer.Option("--demo", help="Compare what filters are worth on digits: some two minutes.")] = False,
) -> None:
    """Learn filters from images without labels; after an interrupt, the same command goes on."""
    if demo:
        _learn_demo(out or Path("learn-demo"))
        return
    if data is None or out is None:
        raise _Usage("--data and --out are needed: what to learn from, and where filters go (or --demo)")
    from rich.console import Console
    from rich.progress import Progress

    from ninefold.learn import commands

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(filters, total=None)
        try:
            told = commands.learn(
                data,
                filters,
                count,
                patch,
                out,
                channels=channels,  # type: ignore[arg-type]
                seed=seed,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                tell=lambda sentence: bar.console.print(sentence, markup=False, highlight=False, soft_wrap=True),
            )
        except KeyboardInterrupt as stop:
            raise StoppedError(str(stop)) from None
    typer.echo(told)


def _learn_demo(folder: Path) -> None:
    """Print the demo's tables."""
    from rich.console import Console

    from ninefold.learn.demo import run, told

    console, errors = Console(), Console(stderr=True)
    with errors.status("digits") as status:
        features, networks, written = run(folder, tell=lambda name: status.update(f"digits: {name}"))
    console.print(told(features, "Unseen digits told right in percent, 20 splits; seconds to learn, to extract"))
    console.print(told(networks, "The same by a small network trained in three ways; seconds of one training"))
    console.print(f"{len(written)} pictures of filters in {folder}")


@app.command()
def features(
    filters: Annotated[Path, typer.Option(help="What 'ninefold learn' wrote.")],
    data: Annotated[Path, typer.Option(help="A folder of images, or an .npy or .npz file.")],
    out: Annotated[Path, typer.Option(help="The npz file to write.")],
    encoder: Annotated[str, typer.Option(help="triangle, hard, soft, rectified or sparse.")] = "triangle",
    pooling: Annotated[str, typer.Option(help="quadrants or pyramid.")] = "quadrants",
    stride: Annotated[int, typer.Option(help="Between patches.")] = 1,
    channels: Annotated[str, typer.Option(help="auto, first, last or none: where an array has them.")] = "auto",
) -> None:
    """Write features of images, by filters that were learned, for any classifier."""
    from rich.console import Console
    from rich.progress import Progress

    from ninefold.learn import commands

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("features", total=None)
        told = commands.extract(
            filters,
            data,
            out,
            encoder=encoder,
            pooling=pooling,
            stride=stride,
            channels=channels,  # type: ignore[arg-type]
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    typer.echo(told)


@cache_app.command("clear")
def cache_clear() -> None:
    """Forget all plans and rates; a damaged file is removed."""
    from ninefold.planning.cache import plan_cache

    cache = plan_cache()
    typer.echo(f"{cache.clear()} plans forgotten; {cache.path} is gone")


@cache_app.command("export")
def cache_export(path: Annotated[Path, typer.Argument(help="The file to write.")]) -> None:
    """Write this machine's plans to a file that nf.load_plans reads."""
    from ninefold.planning.ask import export_plans

    typer.echo(f"{export_plans(path)} plans written to {path}")


def _rates(found: "dict[int, Machine]", title: str) -> Any:
    from rich.table import Table

    units = ("G multiply-adds/s", "GB/s copied", "G elements x log2(length)/s transformed", "us a call")
    table = Table("threads", *units, title=title, title_justify="left")
    for threads, rates in sorted(found.items()):
        numbers = (rates.product / 1e9, rates.stream / 1e9, rates.transform / 1e9, rates.call * 1e6)
        table.add_row(str(threads), *(f"{number:.3g}" for number in numbers))
    return table


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentError(f"--tolerance {text!r} is not 'default', 'strict' or a number") from None


def _model(name: str) -> "Module":
    """Return the model of a built-in name or of ``package.module:callable``."""
    from torch.nn import Module

    from ninefold.models import MODELS

    module, colon, attribute = name.partition(":")
    if not colon:
        if name not in MODELS:
            raise ModelError(f"{name!r} is no built-in model ({', '.join(MODELS)}) and not of the form package.module:callable")
        return MODELS[name]()
    sys.path.insert(0, str(Path.cwd()))
    try:
        make = getattr(importlib.import_module(module), attribute)
        model = make() if not isinstance(make, Module) else make
    except Exception as error:
        raise ModelError(f"{name!r} gives no model: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(model, Module):
        raise ModelError(f"{name!r} returned {type(model).__name__}, not a torch.nn.Module")
    return model


def _example(model: "Module", shape: str | None, image: Path | None) -> "Tensor":
    """Return the example: an image, or random numbers of the shape given or of the model's own."""
    import torch

    from ninefold.spec.text import shape_from_text

    own = getattr(model, "input_size", None)
    if shape is None and own is None:
        raise ArgumentError("this model does not say what it takes; give --input, like --input 1x3x224x224")
    sizes = shape_from_text(shape) if shape is not None else (1, *tuple(own or ()))
    torch.manual_seed(0)
    return torch.randn(sizes, dtype=torch.float32, device="cpu") if image is None else _picture(image, sizes)


def _picture(path: Path, sizes: tuple[int, ...]) -> "Tensor":
    """Return an image file as a batch of the given shape: resized, scaled to -1..1, repeated over the batch."""
    import torch

    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ImageError("reading images needs Pillow: pip install 'ninefold[image]'") from None
    if len(sizes) != 4 or sizes[1] not in (1, 3):
        raise ArgumentError(f"--image fills an input of shape Nx3xHxW or Nx1xHxW, not {'x'.join(map(str, sizes))}")
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB" if sizes[1] == 3 else "L").resize((sizes[3], sizes[2]))
    except UnidentifiedImageError:
        raise ImageError(f"{path} is not an image that Pillow can decode") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path} cannot be read as an image: {error}") from error
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).float() / 127.5 - 1
    return values.view(1, sizes[2], sizes[3], sizes[1]).permute(0, 3, 1, 2).repeat(sizes[0], 1, 1, 1).contiguous()


def main() -> None:
    """Run the command; a mistake of the user's is one sentence and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except NinefoldError as error:
        typer.echo(f"ninefold: {error}", err=True)
        raise SystemExit(2) from None
    except _Usage as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except typer.Exit as stop:
        raise SystemExit(stop.exit_code) from None
    except (StoppedError, KeyboardInterrupt, typer.Abort) as stop:
        _interrupted(str(stop))
    if code == 130:  # what some versions of typer make of an interrupt
        _interrupted()


def _interrupted(kept: str = "") -> NoReturn:
    typer.echo(f"ninefold: interrupted; {kept or 'finished measurements are kept, nothing else was changed'}", err=True)
    raise SystemExit(130) from None


if __name__ == "__main__":
    main()
