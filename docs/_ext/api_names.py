"""The directive ``api-names``: a table of names with a line each, then what their docstrings say.

::

    ```{api-names} ninefold.nn
    Conv1d Conv2d Conv3d
    ```

One page holds a group of names. A page per name would be 500 pages, most of them three times the same text for 1-D, 2-D and 3-D.
With ``:same-as: ninefold`` names are only linked to the module on whose page they are described.
"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.ext import autosummary
from sphinx.util.docutils import SphinxDirective


def lines(module: str, names: list[str]) -> list[str]:
    """Return reStructuredText for names of a module: the table, then an entry for each.

    Raises
    ------
    AttributeError
        If the module has no such name.
    """
    room = import_module(module)
    described = [name for name in names if inspect.isclass(getattr(room, name)) or inspect.isroutine(getattr(room, name))]
    text = [f".. currentmodule:: {module}", ""]
    if described:
        text += [".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in described), ""]
    for name in names:
        text += [*entry(module, name, getattr(room, name)), ""]
    return text


def entry(module: str, name: str, value: object) -> list[str]:
    """Return the directive that describes one value."""
    if inspect.isclass(value):
        return [f".. autoclass:: {module}.{name}", "   :members:"]
    if inspect.ismodule(value):
        return [f".. automodule:: {value.__name__}", "   :members:"]
    if inspect.isroutine(value):
        return [f".. autofunction:: {module}.{name}"]
    return [f".. py:data:: {module}.{name}", "", f"   {told(value)}"]


def told(value: object) -> str:
    """Return what a constant is, without addresses of this process."""
    if isinstance(value, Mapping):
        return f"A dictionary with the keys {', '.join(f'``{key!r}``' for key in value)}."
    if isinstance(value, tuple):
        return f"A tuple of {', '.join(f'``{part.__name__}``' for part in value)}."
    return f"``{str(value).replace('typing.', '').replace('collections.abc.', '')}``"


def links(module: str, home: str, names: list[str]) -> list[str]:
    """Return a list of names, each with a link to the module where it is described.

    Raises
    ------
    ValueError
        If it is another value there.
    """
    here, there = import_module(module), import_module(home)
    if other := [name for name in names if getattr(here, name) is not getattr(there, name)]:
        raise ValueError(f"{other} of {module} are not those of {home}")
    return [f"* ``{module}.{name}`` is :py:obj:`{home}.{name}`" for name in names]


class ApiNames(SphinxDirective):
    """The directive: its argument is a module, its content are names of it."""

    required_arguments = 1
    has_content = True
    option_spec = {"same-as": directives.unchanged_required}  # noqa: RUF012  as docutils declares it

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the table and the entries."""
        module, names = self.arguments[0], " ".join(self.content).split()
        text = links(module, self.options["same-as"], names) if "same-as" in self.options else lines(module, names)
        text = ["````{eval-rst}", *text, "````"]  # pages are Markdown
        return self.parse_text_to_nodes(StringList(text, source=self.env.doc2path(self.env.docname)))


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive to Sphinx."""
    autosummary.WELL_KNOWN_ABBREVIATIONS += ("eq.", "fig.")  # a full stop after these ends no sentence
    app.add_directive("api-names", ApiNames)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
