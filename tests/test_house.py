"""Rules of the house that no linter knows."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "ninefold"


def names(path):
    tree = ast.parse(path.read_text())
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {
        a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names
    }


def test_only_planning_names_the_list_of_engines():
    users = {p.relative_to(SOURCE).parts[0] for p in SOURCE.rglob("*.py") if "ENGINES" in names(p)}
    assert users <= {"engines", "planning"}, users


def test_no_public_function_shares_its_name_with_a_module():
    import ninefold

    modules = {p.stem for p in SOURCE.glob("*.py")} | {p.name for p in SOURCE.iterdir() if p.is_dir()}
    assert not set(ninefold.__all__) & modules


def test_every_engine_has_a_page():
    from ninefold.engines import ENGINES

    pages = {p.stem for p in (SOURCE.parent.parent / "docs" / "engines").glob("*.md")}
    assert {engine.name for engine in ENGINES} <= pages


def test_files_stay_small():
    long = {p.name: n for p in SOURCE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 450}
    assert not long


def test_no_kind_is_asked_for_by_a_union():
    """``isinstance(x, A | B)`` is not traced by the compiler of torch 2.6; a tuple is."""
    calls = [(p.name, n) for p in SOURCE.rglob("*.py") for n in ast.walk(ast.parse(p.read_text())) if isinstance(n, ast.Call)]
    asked = [(name, n) for name, n in calls if getattr(n.func, "id", "") in ("isinstance", "issubclass")]
    assert [(name, n.lineno) for name, n in asked if isinstance(n.args[1], ast.BinOp)] == []
    assert len(asked) > 100


def test_no_test_hangs_on_how_long_anything_takes():
    """On a busy machine a test may be slow, never red: what takes time takes it by the clock of ``conftest.py``."""
    clocks = re.compile(r"\b(time\.sleep|time\.time|monotonic|perf_counter|process_time)\(|\btimeout=")
    tests = [p for p in TESTS.rglob("*.py") if p.name not in ("fuzz.py", "test_house.py")]
    assert [(p.name, words[0]) for p in tests if (words := clocks.search(p.read_text()))] == []
    assert len(tests) > 50
