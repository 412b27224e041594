import re
from pathlib import Path

from sklearn.utils.validation import check_is_fitted

from ninefold import learn

PAGE = (Path(__file__).parents[2] / "docs" / "learn.md").read_text()


def test_the_page_runs():
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    *statements, last = block.strip().splitlines()
    names = {}
    exec("\n".join(statements), names)
    right, _, asked = last.partition(").score")
    names["classifier"].set_params(convfeatures__filters__n_filters=20)
    names["digits"].images = names["digits"].images[:300]
    names["digits"].target = names["digits"].target[:300]
    assert eval(right + ").score" + asked, names) > 0.6
    check_is_fitted(names["classifier"][0], "source_")


def test_what_the_page_names_is_there():
    named = set(re.findall(r"^\| `([A-Z]\w+)`", PAGE, re.MULTILINE)) | {
        "Pyramid",
        "GridPool",
        "search",
        "optimal_input",
        "initialize",
    }
    assert named <= set(learn.__all__)
    assert len(named) > 15
