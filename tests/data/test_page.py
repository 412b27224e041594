import doctest
from pathlib import Path

import torch

from ninefold import data

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def test_the_page_gives_what_it_says():
    torch.manual_seed(0)
    test = doctest.DocTestParser().get_doctest(PAGE.replace("```", ""), {}, "data.md", "docs/data.md", 0)
    runner = doctest.DocTestRunner(verbose=False)
    said = []
    runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)
    assert runner.tries > 25


def test_the_page_names_what_there_is():
    import re

    named = set(
        re.findall(r"`(read_\w+|write_\w+|stream_\w+|masked_\w+|check_masks|run_padded|collate|FixedGrid|Folder|Video)\b", PAGE)
    )
    assert named <= set(data.__all__)
    assert {name for name in data.__all__ if name.startswith(("read_", "write_"))} <= named
