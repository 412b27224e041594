"""The manual page: what ``ninefold --help`` prints."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["GROUPS", "ManualPage", "page"]

from typer.core import TyperGroup

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Models and single convolutions": ("optimize", "plan"),
    "What is known of this machine": ("calibrate", "cache show", "cache export", "cache clear"),
    "Filters without labels": ("learn", "features"),
    "Label maps": ("segment", "segment train", "segment predict", "segment refine", "segment partition", "segment score"),
    "The book": ("chapter",),
}
"""Every command, under a heading. A command of a group is named with its group."""

_HEAD = """
NAME
    ninefold - plan, run and explain the convolutions of PyTorch models

SYNOPSIS
    ninefold COMMAND [ARGUMENTS] [--json]
    ninefold COMMAND --help
    ninefold --version

DESCRIPTION
    ninefold looks at every convolution of a model: what it sees, what it costs, and which algorithm runs it fastest within a
    stated error. It learns filters from images without labels. It trains, refines and scores networks that label every pixel.
    Everything that a command does is also a function of the Python library.

    Some commands need packages that the library does not. A command that lacks one names the extra that brings it.
"""

_TAIL = """
OPTIONS
    --json
        Of every command. Prints one JSON object on standard output and nothing else there. Progress and messages go to standard
        error. A failure is {"error": {"type": ..., "message": ...}, "exit_code": ...}; the exit code is the same.
    --version
        Prints the version.
    --install-completion
        Installs completion of commands and options for the shell that runs: bash, zsh, fish or PowerShell. Then open a new one.
    --show-completion
        Prints the script that --install-completion would install.
    --help
        Prints this page; of a command, what it takes.

EXAMPLES
    ninefold optimize mobilenet_v1 --input 1x3x224x224
        Measures the engines for each convolution of a built-in model, and prints what that gained.
    ninefold optimize my.package:make_model --input 8x3x64x64 --train --report report.json
        The same for the training step of a model of your own; the report is also written to a file.
    ninefold plan '1x128x56x56 -> 128 k=31 p=15 g=128'
        Says which engine runs a depthwise 31x31 convolution, and why the others do not.
    ninefold plan '4x64x56x56 -> 64 k=3 p=1' --json | jq -r .engine
        Prints the name of the engine only.
    ninefold learn --data photographs/ --out filters.safetensors --filters kmeans --count 400
    ninefold features --filters filters.safetensors --data photographs/ --out features.npz
        Learns 400 filters from a folder of images, and writes the features of each image.
    ninefold segment train --images images/ --masks masks/ --out run/
    ninefold segment predict --model run/model.safetensors --images new/ --out labels/
        Trains on images and masks of the same names, and labels other images.

ENVIRONMENT
    NINEFOLD_CACHE
        The folder of the plan cache, instead of the user's cache folder.
    NINEFOLD_ISA
        The instruction set of the native kernels: baseline, avx2 or avx512. The widest of the processor by default.
    OMP_NUM_THREADS
        How many threads compute. Plans and rates are kept for each number of threads.

FILES
    plans.sqlite
        Measured plans and the rates of this machine, in the folder of the plan cache. 'ninefold cache show' prints its path;
        'ninefold cache clear' removes it.
    OUT.partial
        What an interrupted 'ninefold learn' had finished. The same command goes on from there.
    checkpoint.safetensors, log/, model.safetensors
        In the folder of 'ninefold segment train': where it goes on after an interrupt, the log for TensorBoard, the best model.

EXIT STATUS
    0     The command did what was asked.
    1     It failed in a way that is a fault of ninefold or of the model it was given; the traceback is on standard error.
    2     What was asked cannot be done: one sentence on standard error says why, and what to do.
    130   It was interrupted. What was finished is kept.
"""


class ManualPage(TyperGroup):
    """The group of all commands; its help is the page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        formatter.write(page(self, ctx))


def page(group: Any, context: Any) -> str:
    """Return the manual page, with the commands as the tree has them."""
    lines = ["COMMANDS"]
    for heading, names in GROUPS.items():
        lines.append(f"    {heading}")
        for name in names:
            lines += _described(name, _command(group, context, name.split()))
        lines.append("")
    return "\n".join([_HEAD.strip("\n"), "", *lines[:-1], "", _TAIL.strip("\n")]) + "\n"


def _command(group: Any, context: Any, names: Iterable[str]) -> Any:
    for name in names:
        group = group.get_command(context, name)
    return group


def _described(name: str, command: Any) -> list[str]:
    """Return a command's name with the arguments it cannot do without, and its first paragraph."""
    arguments = [part.name.upper() for part in command.params if part.param_type_name == "argument" and part.required]
    paragraph = " ".join((command.help or "").split("\n\n")[0].split())
    return [" " * 8 + " ".join([name, *arguments]), *(" " * 12 + line for line in textwrap.wrap(paragraph, 118))]
