"""The version: that of the tag, counted on from it, that of an sdist, and one for a tree that nobody knows."""

import shutil
import subprocess
from pathlib import Path

import pytest
from setuptools_scm import Configuration, _get_version

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Return a folder with the project's settings, outside of any repository."""
    for name in ("SETUPTOOLS_SCM_PRETEND_VERSION", "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_NINEFOLD"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def version_of(tree):
    return _get_version(Configuration.from_file(str(tree / "pyproject.toml")), force_write_version_files=True)


def git(tree, *words):
    subprocess.run(["git", "-C", tree, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)


def test_a_tag_is_the_version_and_commits_count_on_from_it(tree):
    git(tree, "init")
    git(tree, "add", "pyproject.toml")
    git(tree, "commit", "-m", "one")
    assert version_of(tree).startswith("0.1.0.dev1+g")
    git(tree, "tag", "v1.2.3")
    assert version_of(tree) == "1.2.3"
    git(tree, "commit", "--allow-empty", "-m", "two")
    assert version_of(tree).startswith("1.2.4.dev1+g")


def test_an_sdist_has_its_version_with_it(tree):
    (tree / "PKG-INFO").write_text("Metadata-Version: 2.2\nName: ninefold\nVersion: 4.5.6\n")
    assert version_of(tree) == "4.5.6"


def test_a_tree_that_nobody_knows_has_one_too(tree):
    assert version_of(tree) == "0.1.0.dev0"


def test_a_tree_on_the_path_says_that_it_is_not_installed(monkeypatch):
    import importlib

    import ninefold

    def unknown(name):
        raise importlib.metadata.PackageNotFoundError(name)

    installed = ninefold.__version__
    monkeypatch.setattr("importlib.metadata.version", unknown)
    assert importlib.reload(ninefold).__version__ == "0+unknown"
    monkeypatch.undo()
    assert importlib.reload(ninefold).__version__ == installed
