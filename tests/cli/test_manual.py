"""``--help`` as a manual page, ``--version``, completion, and the command where its packages are missing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ninefold
from ninefold import cli

SOURCE = Path(ninefold.__file__).parent
HEADINGS = ["NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "OPTIONS", "EXAMPLES", "ENVIRONMENT", "FILES", "EXIT STATUS"]


@pytest.fixture(scope="module")
def page():
    done = CliRunner().invoke(cli.app, ["--help"])
    assert done.exit_code == 0
    return done.output


def section(page, heading):
    following = HEADINGS[HEADINGS.index(heading) + 1 :]
    text = page[page.index(f"\n{heading}\n") :]
    return text[: text.index(f"\n{following[0]}\n")] if following else text


def test_the_page_has_the_sections_of_one_and_fits_a_terminal(page):
    assert [line for line in page.splitlines() if line and not line.startswith(" ")] == HEADINGS
    assert max(map(len, page.splitlines())) <= 130


def test_every_environment_variable_that_is_read_is_on_the_page(page):
    read = {name for path in SOURCE.rglob("*.py") for name in re.findall(r"environ[^\n]*?\"(NINEFOLD_\w+)\"", path.read_text())}
    assert {"NINEFOLD_CACHE", "NINEFOLD_ISA"} <= read
    for name in read:
        assert f"\n    {name}\n" in section(page, "ENVIRONMENT"), name


def test_the_options_of_the_examples_are_those_of_their_commands(page):
    examples = [line.split("|")[0] for line in section(page, "EXAMPLES").splitlines() if line.startswith("    ninefold ")]
    assert len(examples) == 8
    for line in examples:
        words = line.split()[1:]
        command = words[:2] if words[0] == "segment" else words[:1]
        told = CliRunner().invoke(cli.app, [*command, "--help"], env={"COLUMNS": "200"}).output
        for option in re.findall(r"--[a-z-]+", line):
            assert f"{option} " in told, (line, option)


def test_files_that_are_named_are_those_of_the_code(page):
    sources = "".join(path.read_text() for path in SOURCE.rglob("*.py") if path.parent.name != "cli")
    for name in ("plans.sqlite", ".partial", "checkpoint.safetensors", "model.safetensors"):
        assert name in section(page, "FILES")
        assert name in sources


def test_version():
    assert CliRunner().invoke(cli.app, ["--version"]).output == f"ninefold {ninefold.__version__}\n"
    assert re.fullmatch(r"\d+\.\d+\.\d+([.a-z]\S*)?|\d+\.\d+\S*", ninefold.__version__)


@pytest.mark.parametrize(
    ("shell", "settings"),
    [
        ("bash", {"COMP_WORDS": "ninefold segment pre", "COMP_CWORD": "2"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "ninefold segment pre"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "ninefold segment pre", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_shells_are_told_what_goes_on(shell, settings):
    environment = {"_NINEFOLD_COMPLETE": f"complete_{shell}", **settings}
    done = CliRunner().invoke(cli.app, [], env=environment, prog_name="ninefold")
    assert done.exit_code == 0
    assert "predict" in done.output
    assert "partition" not in done.output


BLOCKED = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv = ["ninefold", *{words}]
from ninefold.cli import main
main()
"""


def without(packages, *words):
    """Run the command in a process that lacks packages."""
    code = BLOCKED.format(packages=set(packages), words=list(words))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_its_packages_the_command_says_which_extra_brings_them(package):
    done = without([package], "plan", "1x3x9x8 -> 4 k=3")
    assert done.returncode == 2
    assert done.stderr == f"ninefold: the command needs {package}, which the library does not: pip install 'ninefold[cli]'\n"
    assert done.stdout == ""


def test_without_its_packages_the_version_is_told_and_a_program_gets_its_object():
    assert without(["typer"], "--version").stdout == f"ninefold {ninefold.__version__}\n"
    done = without(["typer"], "plan", "--json")
    assert done.returncode == 2
    assert '"type": "MissingExtraError"' in done.stdout
