"""Rules of the house for native/: which folder may include which, and how long files and lines are."""

import re
from pathlib import Path

NATIVE = Path(__file__).parents[1] / "native"
FILES = {p.relative_to(NATIVE).as_posix(): p.read_text() for p in sorted(NATIVE.rglob("*")) if p.suffix in (".cpp", ".hpp")}
FAMILIES = {
    *("depthwise", "direct", "encode", "graphs", "grouped", "implicit"),
    *("lattice", "pooling", "unshared", "winograd"),
}
# What a folder may include besides itself. A family knows no other family.
ALLOWED = {
    "common": set(),
    **{family: {"common"} for family in FAMILIES},
    "dispatch": {"common", *FAMILIES},
    "bindings": {"common", *FAMILIES, "dispatch"},
}
MOST_LINES = 400
WIDEST = 130


def test_every_file_lies_in_a_known_folder():
    assert {name.partition("/")[0] for name in FILES} == set(ALLOWED)
    assert len(FILES) > 50


def test_includes_go_one_way():
    wrong = []
    for name, text in FILES.items():
        folder = name.partition("/")[0]
        for included in re.findall(r'#include "([^"]+)"', text):
            assert included in FILES, f"{name} includes {included}: paths begin at native/"
            if included.partition("/")[0] not in {folder, *ALLOWED[folder]}:
                wrong.append(f"{name} includes {included}")
    assert wrong == []


def test_files_stay_short():
    lines = {name: len(text.splitlines()) for name, text in FILES.items()}
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}


def test_lines_stay_short_and_hold_no_tabs():
    lines = [(name, k, line) for name, text in FILES.items() for k, line in enumerate(text.splitlines(), 1)]
    assert [place for *place, line in lines if len(line) > WIDEST or "\t" in line] == []


def test_every_source_is_compiled_and_listed():
    built = set(re.findall(r"[\w/]+\.cpp", (NATIVE / "CMakeLists.txt").read_text()))
    assert built == {name for name in FILES if name.endswith(".cpp")}
    listed = set(re.findall(r"`([\w/]+\.[ch]pp)`", (NATIVE / "README.md").read_text()))
    assert listed == set(FILES)
