"""An entry of the chapter: a claim, what implements it, the lines that test it, and the number that came out."""

import inspect
import textwrap
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch

from ninefold.errors import ArgumentError

__all__ = ["VERDICTS", "Entry", "Finding", "entry"]

VERDICTS = ("confirmed", "confirmed with a correction", "refuted")


@dataclass(frozen=True)
class Finding:
    """What running an entry gave.

    Parameters
    ----------
    measured : str
        The number that came out, in at most a line.
    holds : bool
        Whether the claim holds, as corrected where there is a correction: computed from the numbers.
    numbers : dict
        All of them by name, as JSON can hold them.

    Raises
    ------
    ArgumentError
        If there is no number: an entry without one shows nothing.

    Examples
    --------
    >>> Finding("2 of 2 agree", holds=True, numbers={"agree": 2}).holds
    True
    """

    measured: str
    holds: bool
    numbers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.numbers or not any(c.isdigit() for c in self.measured):
            raise ArgumentError(f"the finding {self.measured!r} with numbers={self.numbers} names no number; give what came out")


@dataclass(frozen=True)
class Entry:
    """A claim, formula or figure of the chapter that runs.

    Parameters
    ----------
    key : str
        The number of the book's section, equation or figure, N. and that of the notes' equation or section, or S. and that of the
        supplement, with a word where several share it.
    title, term : str
        What it is called in English and in Chinese.
    claim : str
        What is claimed.
    source : str
        Where: equation, figure, paper.
    uses : tuple of str
        The objects of the library that implement it, by their full names.
    run : callable
        Tests the claim; takes no argument, a long one ``trial=True`` for the smallest run that uses all its code.
    correction : str, optional
        What is right, where the source slips.
    picture : callable, optional
        Returns a Matplotlib figure.
    long : bool
        Whether it takes long enough that its result is recorded.

    Examples
    --------
    >>> from ninefold.chapter import ENTRIES
    >>> ENTRIES[0].verdict(Finding("1 of 1", holds=False, numbers={"agree": 1}))
    'refuted'
    """

    key: str
    title: str
    term: str
    claim: str
    source: str
    uses: tuple[str, ...]
    run: Callable[..., Finding]
    correction: str = ""
    picture: Callable[[], Any] | None = None
    long: bool = False

    def verdict(self, finding: Finding) -> str:
        """Return one of `VERDICTS`."""
        if not finding.holds:
            return "refuted"
        return "confirmed with a correction" if self.correction else "confirmed"

    @property
    def code(self) -> str:
        """The lines that test the claim, without decorator and signature."""
        lines = inspect.getsource(self.run).splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith(("def ", "    def ")))
        body = next(i for i, line in enumerate(lines) if i >= start and line.rstrip().endswith(":")) + 1
        text = textwrap.dedent("\n".join(lines[body:]))
        if text.startswith('"""'):
            text = text[text.index('"""', 3) + 3 :].lstrip("\n")
        return text


def entry(key: str, title: str, term: str, **told: Any) -> Callable[[Callable[..., Finding]], Entry]:
    """Make an `Entry` of the function that tests its claim; `told` is the rest of the entry's fields.

    Examples
    --------
    >>> @entry("0.0", "One and one", "一加一", claim="1 + 1 = 2", source="Peano", uses=("ninefold.ConvSpec",))
    ... def one_and_one():
    ...     total = 1 + 1
    ...     return Finding(f"{total}", holds=total == 2, numbers={"sum": total})
    >>> one_and_one.verdict(one_and_one.run())
    'confirmed'
    """

    def make(run: Callable[..., Finding]) -> Entry:
        picture = told.pop("picture", None)
        return Entry(key, title, term, run=_in_plain_torch(run), picture=picture and _in_plain_torch(picture), **told)

    return make


def _in_plain_torch(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run an entry on the CPU and in single precision, whatever its caller's tensors are made in; leave the caller's random state."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            there = (
                torch.empty(0).device.type == "cpu"
            )  # PyTorch 2.6 does not know of the mode; and one more costs time at every call
            with nullcontext() if there else torch.device("cpu"), torch.random.fork_rng(devices=[]):
                return function(*args, **kwargs)
        finally:
            torch.set_default_dtype(dtype)

    return run
