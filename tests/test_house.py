"""Rules of the house that no linter knows."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "ninefold"


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
