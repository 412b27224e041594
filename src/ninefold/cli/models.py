"""``ninefold optimize``."""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ninefold.cli.answers import answer
from ninefold.cli.options import Json, Scratch, Tolerance, tolerance_of
from ninefold.errors import ArgumentError, ImageError, ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["optimize"]


def optimize(
    model: Annotated[str, typer.Argument(help="A built-in name, or package.module:callable that returns a model.")],
    input: Annotated[str | None, typer.Option(help="Shape of the example, like 1x3x224x224.")] = None,  # noqa: A002
    image: Annotated[Path | None, typer.Option(help="An image file to use as the example.")] = None,
    train: Annotated[bool, typer.Option("--train", help="Tune a training step, not inference.")] = False,
    tolerance: Tolerance = "default",
    max_scratch: Scratch = None,
    fold: Annotated[bool, typer.Option(help="Fold batch normalisations into the convolutions before them (inference).")] = True,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long all of it may take, about.")] = 30.0,
    report: Annotated[Path | None, typer.Option(help="Also write the report, as JSON, to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Run every convolution of MODEL by the fastest exact-enough engine, and say what that gained."""
    import json

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from ninefold.network import optimize as run
    from ninefold.storing import write_whole

    network = _model(model)
    example = _example(network, input, image)
    allowed: Any = tolerance_of(tolerance)
    columns = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("recording")
        _, found = run(
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
    if report is not None:
        write_whole(report, found.to_json().encode())
    if as_json:
        answer(json.loads(found.to_json()))
        return
    Console().print(found)
    if report is not None:
        typer.echo(f"report written to {report}")


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
