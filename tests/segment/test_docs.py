"""The page on label maps: its code runs, its sessions give what they say, and its tables name what there is."""

import doctest
import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ninefold import cli
from ninefold.data import write_image, write_mask
from ninefold.segment.config import TrainConfig
from ninefold.segment.scenes import texture_scenes
from ninefold.structured import crf, networks, partition

PLACE = Path(__file__).parents[2] / "docs"
PAGE = (PLACE / "segment.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Go where the folders are that the page speaks of."""
    for root, count, seed in ((tmp_path, 4, 0), (tmp_path / "test", 2, 1)):
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True)
        for k, (image, mask) in enumerate(texture_scenes(count, seed, size=(33, 40), tint=0.7)):
            low, high = image.aminmax()
            write_image(root / "images" / f"{k}.png", ((image - low) / (high - low) * 255).to(torch.uint8))
            write_mask(root / "masks" / f"{k}.png", mask)
    (tmp_path / "colour-masks").mkdir()
    colours = torch.tensor([[0, 0, 0], [128, 0, 0], [0, 128, 0]], dtype=torch.uint8)
    write_image(tmp_path / "colour-masks" / "a.png", colours[torch.tensor([[0, 2, 1], [1, 1, 2]])].permute(2, 0, 1).contiguous())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_page_gives_what_it_says(folders, capsys):
    torch.manual_seed(0)
    names, tried = {}, 0
    for kind, code in BLOCKS:
        if kind == "python":
            exec(compile(code, "segment.md", "exec"), names)
        elif kind == "pycon":
            test = doctest.DocTestParser().get_doctest(code, names, "segment.md", "docs/segment.md", 0)
            runner, said = doctest.DocTestRunner(verbose=False), []
            runner.run(test, out=said.append, clear_globs=False)
            names.update(test.globs)
            assert runner.failures == 0, "".join(said)
            tried += runner.tries
    assert tried > 50
    assert "boundary F within 2 pixels" in capsys.readouterr().out
    assert names["read_mask"](folders / "indices" / "a.png").data.tolist() == [[[0, 2, 1], [1, 1, 2]]]
    assert names["labels"].shape == (40, 56)
    assert names["mask"].data.tolist() == [[[0, 1, 1], [1, 1, 1]]]


def test_every_setting_is_in_the_table_with_its_default():
    rows = dict(re.findall(r"^\| (`[a-z_`, ]+`) \|([^|]*)\|", PAGE.split("## Training")[1].split("**Before")[0], re.MULTILINE))
    found = {name.strip("` "): value.strip() for names, value in rows.items() for name in names.split(",")}
    assert set(found) == {field.name for field in fields(TrainConfig)}
    for field in fields(TrainConfig):
        default = field.default
        said = found[field.name].strip("`").strip('"')
        assert said == ("" if default is MISSING else str(default).lower() if isinstance(default, bool) else str(default)), (
            field.name
        )


def test_the_tables_name_what_there_is():
    named = set(re.findall(r"`(\w+)[`(]", PAGE))
    assert set(networks.__all__) - {"Dense", "context_module", "deeplab_v1"} <= named
    objects = {
        "connected_components",
        "watershed",
        "mutex_watershed",
        "merge_tree",
        "optimal_cover",
        "superpixel_vote",
        "malis_loss",
    }
    scores = {"Confusion", "boundary_f", "rand_index", "adapted_rand_error", "average_precision", "panoptic_quality", "score"}
    assert objects | scores <= named & set(partition.__all__)
    assert set(crf.__all__) - {"PairwiseKernel", "RoomError"} <= named
    for link in re.findall(r"\]\(([^):#]+)[^)]*\)", PAGE):
        assert (PLACE / link).exists(), link


def test_every_option_of_a_command_is_one():
    lines = [line for kind, code in BLOCKS if not kind for line in code.splitlines() if " segment " in line]
    assert len(lines) == 9
    for line in lines:
        words = line.split(" segment ")[1].split()
        told = CliRunner().invoke(cli.app, ["segment", words[0], "--help"], env={"COLUMNS": "200"}).output
        for option in (word for word in words if word.startswith("--")):
            assert f"{option} " in told, (words[0], option)
