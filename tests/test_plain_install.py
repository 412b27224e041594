"""``pip install ninefold``: what it brings, and that this is enough."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

BLOCKED = """
import runpy, sys
class Others:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Others())
runpy.run_path({script!r}, run_name="__main__")
"""


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-").replace(".", "-")


def closure(requirements):
    """Return the names of distributions that requirements bring, without extras."""
    found, left = set(), [name_of(one) for one in requirements]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += [name_of(one) for one in requires(name) or () if "extra ==" not in one and "; " not in one]
    return found


def test_it_brings_pytorch_numpy_and_nothing_for_the_command_line():
    assert {name_of(one) for one in PROJECT["dependencies"]} == {"torch", "numpy"}


def test_what_it_brings_is_enough():
    """Everything else that is installed here cannot be imported there."""
    allowed = closure(PROJECT["dependencies"]) | {"ninefold", "setuptools"}
    there = packages_distributions()
    blocked = {top for top, names in there.items() if not {name_of(name) for name in names} & allowed}
    assert {"rich", "typer", "scipy", "safetensors", "sklearn", "PIL"} <= blocked
    script = BLOCKED.format(blocked=blocked, script=str(ROOT / "tests" / "installed" / "plain.py"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("plain install: ok\n"), done.stderr


def test_extras_whose_work_has_commands_bring_the_command():
    extras = PROJECT["optional-dependencies"]

    def brings(name):
        inner = [re.match(r"ninefold\[([\w,]+)\]", one) for one in extras[name]]
        return {name, *(deep for match in inner if match for one in match[1].split(",") for deep in brings(one))}

    for name in ("learn", "segment", "chapter", "demo", "test", "distributed"):
        assert "cli" in brings(name), name
