"""Write docs/api-stability.md: every public name and how long it stays (``make api``).

Names are read from ``__all__``; nothing is imported. A new public package gets a line in `PACKAGES`; a new name of a package
has the package's stability unless it stands in `EXCEPTIONS`. A test holds the page against the packages.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "ninefold"
PAGE = ROOT / "docs" / "api-stability.md"

STABLE, PROVISIONAL = "stable", "provisional"

PACKAGES = {
    "ninefold": STABLE,
    "ninefold.nn": STABLE,
    "ninefold.functional": STABLE,
    "ninefold.errors": STABLE,
    "ninefold.spec": PROVISIONAL,
    "ninefold.models": PROVISIONAL,
    "ninefold.network": PROVISIONAL,
    "ninefold.symmetry": PROVISIONAL,
    "ninefold.drawing": PROVISIONAL,
    "ninefold.pooling_theory": PROVISIONAL,
    "ninefold.learn": PROVISIONAL,
    "ninefold.data": PROVISIONAL,
    "ninefold.structured": PROVISIONAL,
    "ninefold.structured.crf": PROVISIONAL,
    "ninefold.structured.networks": PROVISIONAL,
    "ninefold.structured.partition": PROVISIONAL,
    "ninefold.segment": PROVISIONAL,
    "ninefold.compat.pydensecrf": STABLE,
    "ninefold.reference": PROVISIONAL,
    "ninefold.testing": PROVISIONAL,
}
"""Public packages, with the stability of their names."""

EXCEPTIONS = {
    PROVISIONAL: {
        "ninefold": (
            *("advise_pooling", "checkerboard", "connectivity_counts", "equivariance", "gridding", "invariance"),
            *("prior_penalty", "project", "retain_memory", "tie_map", "to_linear"),
        ),
    },
    STABLE: {"ninefold.spec": ("ConvSpec",)},
}
"""Names of another stability than their package."""

INTERNAL = (
    *("chapter", "cli", "engines", "ops", "planning"),
    *("matrix", "memory", "pooling_advice", "prior", "rewrites", "settings", "storing", "tensors", "text_table"),
)
"""Packages and modules of which no name is promised; what is public of them is a name of ``ninefold``."""

HEAD = """---
orphan: true
---

# What stays: the public names and their stability

A name is public if it stands on this page. Everything else is internal, whatever its spelling.

| stability | what may change | how |
| --- | --- | --- |
| stable | what a call that is documented means; its arguments; the type of what it returns | after a release that warns |
| provisional | anything | in a release 0.N, with an entry in the changelog |
| internal | anything | at any time |

Results are not part of it: a new release may choose another engine, and its results differ by less than the stated error.
A release that warns raises a `DeprecationWarning` that names the replacement and the release in which the name goes.

Commands and their options are stable. Fields of what `--json` prints are provisional: some are added, and those that go
are in the changelog.

Internal are {internal}.

`make api` writes this page.
"""


def names_of(path: Path) -> list[str]:
    """Return ``__all__`` of a module, sorted."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return sorted(ast.literal_eval(node.value), key=lambda name: (name.lower(), name))
    raise ValueError(f"{path} has no __all__")


def place_of(package: str) -> Path:
    """Return the file of a package or module."""
    place = SOURCE.joinpath(*package.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def stability(package: str, name: str) -> str:
    """Return how long a name stays."""
    for other, packages in EXCEPTIONS.items():
        if name in packages.get(package, ()):
            return other
    return PACKAGES[package]


def page() -> str:
    """Return the whole page."""
    text = HEAD.format(internal=", ".join(f"`ninefold.{name}`" for name in INTERNAL))
    for package in PACKAGES:
        text += f"\n## {package}\n\n| name | stability |\n| --- | --- |\n"
        text += "".join(f"| `{name}` | {stability(package, name)} |\n" for name in names_of(place_of(package)))
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
