"""What releases are made of: workflows, templates, fragments, the citation, the recipe; each read as its program reads it."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from jinja2 import Environment, StrictUndefined

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, TOOL = SETTINGS["project"], SETTINGS["tool"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(path):
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_jobs_and_steps_are_well_formed(path):
    """`make check` holds them against the schema, too; this is what the schema does not say."""
    flow = read(path)
    assert set(flow) >= {"name", True, "permissions", "jobs"}  # YAML reads the word on as true
    assert flow["permissions"] == {"contents": "read"}
    for name, job in flow["jobs"].items():
        assert job["runs-on"], name
        needed = job.get("needs", [])
        assert set([needed] if isinstance(needed, str) else needed) <= set(flow["jobs"]) - {name}
        matrix = job.get("strategy", {}).get("matrix", {})
        there = set(matrix) - {"include"} | {key for one in matrix.get("include", []) for key in one}
        assert set(re.findall(r"matrix\.(\w+)", yaml.safe_dump(job))) <= there, name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), (name, step)
            if "uses" in step:
                assert re.fullmatch(r"[\w.-]+/[\w./-]+@v\d[\w.]*", step["uses"]), step["uses"]
            else:
                assert "${{" not in step["run"] or "github.event" not in step["run"], "text of strangers is no part of a script"


def test_every_target_that_workflows_make_is_one():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = {word for path in WORKFLOWS for word in re.findall(r"\bmake ([a-z-]+)", path.read_text())}
    assert {"check", "test"} <= made <= targets
    assert {"wheel", "wheel-test", "changelog"} <= targets


def test_wheels_are_built_for_the_pythons_that_are_tested():
    tested = read(ROOT / ".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    tags = {f"cp{version.replace('.', '')}" for version in tested}
    assert {tag.removesuffix("-*") for tag in TOOL["cibuildwheel"]["build"].split()} == tags
    wheels = read(ROOT / ".github/workflows/wheels.yml")["jobs"]["wheels"]
    (built,) = (step["env"]["CIBW_BUILD"] for step in wheels["steps"] if "cibuildwheel" in step.get("uses", ""))
    assert set(re.findall(r"cp\d+", built)) == tags
    platforms = {one["platform"] for one in wheels["strategy"]["matrix"]["include"]}
    assert platforms == {"manylinux_x86_64", "manylinux_aarch64", "macosx_arm64", "win_amd64"}
    assert PROJECT["requires-python"] == f">={min(tested, key=lambda version: int(version.split('.')[1]))}"


def test_files_that_the_settings_name_are_there():
    commands = [TOOL["cibuildwheel"]["test-command"], TOOL["cibuildwheel"]["linux"]["repair-wheel-command"]]
    named = [name for command in commands for name in re.findall(r"\{project\}/([\w./-]+)", command)]
    assert len(named) == 4
    for name in (*named, TOOL["towncrier"]["template"], TOOL["towncrier"]["filename"]):
        assert (ROOT / name).is_file(), name
    assert TOOL["towncrier"]["start_string"] in (ROOT / "CHANGELOG.md").read_text()


def test_every_change_is_of_a_kind_that_is_gathered_and_says_something():
    kinds = {one["directory"] for one in TOOL["towncrier"]["type"]}
    told = (ROOT / "changes" / "README.md").read_text()
    assert kinds == set(re.findall(r"`(\w+)`", told.split("where KIND is")[1].split(":")[0]))
    fragments = set((ROOT / "changes").iterdir()) - {ROOT / "changes" / name for name in ("README.md", "template.md.jinja")}
    for path in fragments:
        assert re.fullmatch(rf"[a-z0-9-]+\.({'|'.join(kinds)})\.md", path.name), path.name
        assert path.read_text().strip(), path.name


def test_the_section_of_a_release_has_its_texts_under_their_kinds():
    template = Environment(trim_blocks=True, undefined=StrictUndefined).from_string(
        (ROOT / TOOL["towncrier"]["template"]).read_text()
    )
    definitions = {one["directory"]: {"name": one["name"]} for one in TOOL["towncrier"]["type"]}
    told = template.render(
        definitions=definitions, sections={"": {"fix": {"One is mended.": ["a"]}, "feature": {"One is new.": ["b"]}}}
    )
    assert [line for line in told.splitlines() if line] == ["### New", "- One is new.", "### Mended", "- One is mended."]


def test_issue_templates_ask_for_what_they_name():
    for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")):
        form = read(path)
        if path.stem == "config":
            assert form == {"blank_issues_enabled": True}
            continue
        assert {"name", "description", "body"} <= set(form)
        ids = [part["id"] for part in form["body"]]
        assert len(ids) == len(set(ids)) > 0
        assert all(part["attributes"]["label"] for part in form["body"])


def test_the_citation_is_of_this_project():
    cited = read(ROOT / "CITATION.cff")
    assert (cited["cff-version"], cited["title"].split(":")[0], cited["license"]) == (
        "1.2.0",
        PROJECT["name"],
        PROJECT["license"],
    )
    assert {"message", "authors", "type"} <= set(cited)
    assert ("repository-code" in cited) == bool(PROJECT["urls"])  # neither names an address before there is one


def test_the_recipe_asks_for_what_the_project_asks_for():
    text = (ROOT / "recipe" / "meta.yaml").read_text()
    compilers = {"compiler": lambda name: f"{name}-compiler", "stdlib": lambda name: f"{name}-stdlib"}
    rendered = Environment(undefined=StrictUndefined).from_string(text).render(environ={}, PYTHON="python", **compilers)
    recipe = yaml.safe_load(rendered)
    assert recipe["package"] == {"name": PROJECT["name"], "version": TOOL["setuptools_scm"]["fallback_version"]}

    def named(requirements):
        return {one.replace(" ", "").replace("pytorch", "torch") for one in requirements}

    needed = recipe["requirements"]
    assert named(needed["run"]) - {"python"} == named(PROJECT["dependencies"])
    assert named(needed["run_constrained"]) == named(PROJECT["optional-dependencies"]["cli"])
    assert named(needed["host"]) - {"python", "pip"} == named(SETTINGS["build-system"]["requires"])
    assert recipe["build"]["entry_points"] == [f"{name} = {place}" for name, place in PROJECT["scripts"].items()]
    assert recipe["about"]["license"] == PROJECT["license"]
    assert all((ROOT / name).is_file() for name in recipe["test"]["source_files"])
