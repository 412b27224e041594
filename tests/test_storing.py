"""Files are there whole, or as they were before."""

from pathlib import Path

import pytest
import torch

from ninefold import storing
from ninefold.errors import ArgumentError, PlanFileError
from ninefold.storing import packed_tensors, unpacked_tensors, user_cache_folder, write_whole


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    target = tmp_path / "f"
    target.write_text("before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storing.os, "fsync", full)
    with pytest.raises(PlanFileError, match="No space left.*as it was"):
        write_whole(target, b"after", PlanFileError)
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_others_may_read_what_was_written_and_a_file_keeps_its_mode(tmp_path):
    write_whole(tmp_path / "f", b"a")
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644
    (tmp_path / "f").chmod(0o600)
    write_whole(tmp_path / "f", b"b")
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "f").read_bytes() == b"b"


def test_folders_are_made_only_when_asked_for(tmp_path):
    with pytest.raises(ArgumentError, match="cannot be written"):
        write_whole(tmp_path / "no" / "f", b"a")
    write_whole(tmp_path / "no" / "f", b"a", parents=True)
    assert (tmp_path / "no" / "f").exists()


def test_any_byte_that_changes_is_found(tmp_path):
    tensors = {"a": torch.arange(6, dtype=torch.float32).view(2, 3), "b": torch.tensor([True, False])}
    whole = packed_tensors(tensors, {"step": 3}, "a test", 1)
    path = tmp_path / "f"
    path.write_bytes(whole)
    about, read = unpacked_tensors(path, "a test", 1, ArgumentError)
    assert about == {"step": 3}
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ArgumentError):
            unpacked_tensors(path, "a test", 1, ArgumentError)


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {"XDG_CACHE_HOME": "/var/caches"}, "/var/caches/ninefold"),
        ("linux", {"XDG_CACHE_HOME": " ", "HOME": "/home/ann"}, "/home/ann/.cache/ninefold"),
        ("darwin", {"HOME": "/Users/ann"}, "/Users/ann/Library/Caches/ninefold"),
        ("win32", {"LOCALAPPDATA": "/ann/Local"}, "/ann/Local/ninefold/ninefold/Cache"),
    ],
)
def test_caches_lie_where_the_platform_keeps_them(monkeypatch, platform, environment, folder):
    monkeypatch.setattr("sys.platform", platform)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert user_cache_folder() == Path(folder)
