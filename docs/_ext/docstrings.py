"""Docstrings are written to be read in a terminal; here they are made into what Sphinx reads.

Three things differ. ``*space`` and ``|x|`` are no markup, but shapes and formulas. An indented block is a formula, not a
quotation. Methods that scikit-learn adds to every estimator, such as ``set_transform_request``, are its own and left out.
"""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_CODE = re.compile(r"(``.+?``|`[^`]+`)")
_MARKUP = re.compile(r"([*|])(?=\S)")
_UNDERLINE = re.compile(r"-{3,}\s*$")
_REQUEST = re.compile(r"set_\w+_request")


def readable(lines: list[str]) -> list[str]:
    r"""Return lines of a docstring as reStructuredText.

    Examples
    --------
    >>> readable(["Shape ``(*n,)`` of (N, *space):", "", "    |x|", "", "End."])
    ['Shape ``(*n,)`` of (N, \\\\*space):', '', '::', '', '    |x|', '', 'End.']
    """
    result: list[str] = []
    sections = [k for k, line in enumerate(lines) if _UNDERLINE.match(line)]
    end = sections[0] if sections else len(lines)
    examples = next((k for k in sections if lines[k - 1].strip() == "Examples"), len(lines))
    block = False
    for k, line in enumerate(lines):
        before = lines[k - 1].strip() if k else "x"
        if block and line.strip() and not line.startswith("    "):
            block = False
        if not block and k < end and not before and line.startswith("    "):
            block = True
            if not _last_words(result).endswith("::"):
                result += ["::", ""]
        plain = block or k >= examples or line.lstrip().startswith((">>>", "..."))
        result.append(line if plain else _escaped(line))
    return result


def _last_words(lines: list[str]) -> str:
    return next((line.rstrip() for line in reversed(lines) if line.strip()), "")


def _escaped(line: str) -> str:
    return "".join(part if part.startswith("`") else _MARKUP.sub(r"\\\1", part) for part in _CODE.split(line))


def setup(app: "Sphinx") -> dict[str, Any]:
    """Let every docstring pass through `readable`, before NumPy sections are read."""
    app.connect("autodoc-process-docstring", lambda *said: said[-1].__setitem__(slice(None), readable(said[-1])), priority=400)
    app.connect("autodoc-skip-member", lambda *said: True if _REQUEST.fullmatch(said[2]) else None)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
