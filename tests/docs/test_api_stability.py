"""The list of public names is complete, and names that go say what comes instead."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "ninefold"


@pytest.fixture(scope="module")
def listed():
    spec = importlib.util.spec_from_file_location("api_stability", ROOT / "docs" / "api_stability.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_that_of_the_packages(listed):
    assert listed.PAGE.read_text() == listed.page(), "a public name came or went: run make api, and commit docs/api-stability.md"


def test_every_package_is_public_or_internal(listed):
    there = {path.stem for path in SOURCE.glob("*.py") if not path.stem.startswith("__")}
    there |= {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    public = {package.split(".")[1] for package in listed.PACKAGES if "." in package}
    assert there - public - set(listed.INTERNAL) == set(), "neither in PACKAGES nor in INTERNAL of docs/api_stability.py"
    assert not public & set(listed.INTERNAL)


def test_exceptions_are_names_of_their_packages(listed):
    for stability, packages in listed.EXCEPTIONS.items():
        for package, names in packages.items():
            assert set(names) <= set(listed.names_of(listed.place_of(package)))
            assert listed.PACKAGES[package] != stability


def test_names_are_looked_up_as_users_do(listed):
    import ninefold

    assert listed.names_of(listed.place_of("ninefold")) == sorted(ninefold.__all__, key=lambda n: (n.lower(), n))
    assert listed.stability("ninefold", "plan") == "stable"
    assert listed.stability("ninefold", "gridding") == "provisional"
    assert listed.stability("ninefold.spec", "ConvSpec") == "stable"


def without_replacement(source):
    """Return the lines of deprecations that do not say what to use and in which release the name goes."""
    calls = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and "DeprecationWarning" in ast.unparse(node)
    ]
    warned = [call for call in calls if ast.unparse(call.func).split(".")[-1] in ("warn", "deprecated")]
    said = re.compile(r"is deprecated and goes in \d+\.\d+: use ")
    return [call.lineno for call in warned if not said.search(ast.unparse(call))]


def test_a_deprecation_says_what_to_use_and_when_the_name_goes():
    good = 'warnings.warn("ninefold.old is deprecated and goes in 0.3: use ninefold.new", DeprecationWarning, stacklevel=2)'
    assert without_replacement(good) == []
    assert without_replacement('\nwarn("ninefold.old is deprecated", DeprecationWarning)') == [2]
    assert without_replacement('warnings.warn(f"{x} is deprecated and goes in 0.3", category=DeprecationWarning)') == [1]
    sources = {str(path.relative_to(SOURCE)): path.read_text() for path in SOURCE.rglob("*.py")}
    assert len(sources) > 200
    left = {name: without_replacement(source) for name, source in sources.items() if "DeprecationWarning" in source}
    assert not any(left.values()), left
