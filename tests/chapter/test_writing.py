"""What is damaged or cannot be written is said in one sentence, before anything runs."""

import pytest

from ninefold.chapter.record import Record, keep, load
from ninefold.chapter.running import run
from ninefold.errors import ArgumentError


def refused(told):
    raise AssertionError(f"{told} ran first")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArgumentError, match="cannot write to .*file: "):
        run(write=tmp_path / "file", tell=refused)
    with pytest.raises(ArgumentError, match="cannot write to .*file: "):
        run(full=True, record=True, path=tmp_path / "file" / "r.json", tell=refused)
    assert (tmp_path / "file").read_text() == "mine"


def test_only_full_runs_are_recorded(tmp_path):
    with pytest.raises(ArgumentError, match="without --full"):
        run("9.16", record=True, path=tmp_path / "r.json", tell=refused)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ['"seconds": 0.1', '"holds": true', '"numbers": {'])
def test_damaged_records(tmp_path, damage):
    path = tmp_path / "r.json"
    keep("0.0", Record("1 of 1", True, {}, 0.1, "2020-01-31", "a CPU"), path)
    text = path.read_text()
    assert damage in text
    path.write_text(text.replace(damage, damage.split(":")[0] + ': "x"' + (', "y": {' if damage.endswith("{") else "")))
    with pytest.raises(ArgumentError, match=r"r\.json holds no records"):
        load(path)
