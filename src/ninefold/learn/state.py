"""What a source holds while it learns, as a file: tensors in safetensors, all else as JSON beside them; never a pickle."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ninefold.errors import ArgumentTypeError, FilterFileError
from ninefold.learn.base import FilterSource
from ninefold.learn.boltzmann import Boltzmann
from ninefold.learn.coding import Splitting
from ninefold.learn.patches import Preparation
from ninefold.storing import packed_tensors, unpacked_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["State", "load_state", "put_back", "state_of"]

_FORMAT, _VERSION = "ninefold learning", 2
_CLASSES: dict[str, Any] = {kind.__name__: kind for kind in (Boltzmann, Preparation, Splitting)}
"""All that is made anew by name: nothing that a file names is imported or called."""
_PLAIN = (bool, int, float, str, type(None))


@dataclass
class State:
    """Values apart as tensors and text.

    Parameters
    ----------
    tensors : dict of str to Tensor
        Those of the source itself: it goes on writing to some of them.
    text : str
        JSON.
    """

    tensors: dict[str, Tensor]
    text: str

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def to_bytes(self, about: dict[str, Any]) -> bytes:
        """Return a safetensors file, `about` (JSON) in its metadata."""
        return packed_tensors(self.tensors, {"state": self.text, "about": about}, _FORMAT, _VERSION)


def state_of(source: FilterSource) -> State:
    """Return all that a source holds beside its parameters.

    Raises
    ------
    ArgumentTypeError
        If it holds something other than numbers, text, lists, tuples, dictionaries, arrays, tensors and what is learned with.

    Examples
    --------
    >>> from ninefold.learn import SampledPatches
    >>> images = np.random.default_rng(0).normal(size=(4, 9, 8))
    >>> source = SampledPatches(5, (3, 2), random_state=0).fit(images)
    >>> again = put_back(SampledPatches(5, (3, 2), random_state=0), state_of(source))
    >>> np.array_equal(again.filters_, source.filters_)
    True
    """
    parameters = source.get_params(deep=False)
    writer = _Writer()
    text = json.dumps({name: writer(value, name) for name, value in vars(source).items() if name not in parameters})
    return State(writer.tensors, text)


def put_back(source: FilterSource, state: State) -> FilterSource:
    """Give a source what another one of its class and parameters held; return it.

    Raises
    ------
    FilterFileError
        If that is no state.
    """
    parameters, reader = source.get_params(deep=False), _Reader(state.tensors)
    try:
        values = {name: reader(node) for name, node in json.loads(state.text).items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FilterFileError(f"this is no state of learning: {type(error).__name__}: {error}") from error
    if odd := [name for name in values if name in parameters or name.startswith("__") or "_" not in (name[:1], name[-1:])]:
        raise FilterFileError(f"a state of learning holds no {', '.join(odd)}")
    source.__dict__.update(values)
    return source


def load_state(path: Path) -> tuple[dict[str, Any], State]:
    """Read a file of `State.to_bytes`: what it is about, and the state.

    Raises
    ------
    FilterFileError
        If it is damaged, or something else.
    """
    told, tensors = unpacked_tensors(path, _FORMAT, _VERSION, FilterFileError)
    try:
        return told["about"], State(tensors, told["state"])
    except (KeyError, TypeError) as error:
        raise FilterFileError(f"{path} lacks part of a state of learning: {error}") from error


class _Writer:
    """Makes JSON of values; what occurs twice is written once, so that it is one thing again when it is read."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._seen: dict[int, tuple[int, Any]] = {}
        self._memory: set[int] = set()

    def __call__(self, value: Any, name: str) -> Any:
        if type(value) in _PLAIN:
            return value
        if id(value) in self._seen:
            return ["again", self._seen[id(value)][0], None]
        number = len(self._seen)
        self._seen[id(value)] = number, value  # kept, so that no other gets its id
        kind, content = self._content(value, name, number)
        return [kind, number, content]

    def _content(self, value: Any, name: str, number: int) -> tuple[str, Any]:
        kind = type(value)
        if kind in (list, tuple):
            return kind.__name__, [self(item, f"{name}[{k}]") for k, item in enumerate(value)]
        if kind is dict:
            return "dict", [[self(key, name), self(item, f"{name}[{key!r}]")] for key, item in value.items()]
        if isinstance(value, Tensor):
            return "complex" if value.is_complex() else "tensor", self._tensor(value, number)
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biuf":
            copied = np.array(value) if isinstance(value, np.generic) or not value.flags.writeable else value
            return "scalar" if isinstance(value, np.generic) else "array", self._tensor(torch.from_numpy(copied), number)
        if kind in _CLASSES.values():
            return kind.__name__, [[key, self(item, f"{name}.{key}")] for key, item in vars(value).items()]
        raise ArgumentTypeError(f"{name} is a {kind.__name__}, which a state of learning does not hold")

    def _tensor(self, value: Tensor, number: int) -> str:
        plain = (torch.view_as_real(value.resolve_conj()) if value.is_complex() else value).detach().contiguous()
        place = plain.untyped_storage().data_ptr()
        self.tensors[str(number)] = plain.clone() if place in self._memory else plain  # safetensors refuses memory that is shared
        self._memory.add(place)
        return str(number)


class _Reader:
    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        self._made: dict[int, Any] = {}

    def __call__(self, node: Any) -> Any:
        if type(node) in _PLAIN:
            return node
        kind, number, content = node
        if kind == "again":
            return self._made[number]
        made = self._made[number] = self._value(kind, content)
        return made

    def _value(self, kind: str, content: Any) -> Any:
        simple: dict[str, Callable[[Tensor], Any]] = {
            "tensor": lambda tensor: tensor,
            "complex": torch.view_as_complex,
            "array": lambda tensor: tensor.numpy(),
            "scalar": lambda tensor: tensor.numpy()[()],
        }
        if kind in simple:
            return simple[kind](self._tensors[content])
        if kind == "dict":
            return {self(key): self(item) for key, item in content}
        if kind in ("list", "tuple"):
            items = [self(item) for item in content]
            return items if kind == "list" else tuple(items)
        made = object.__new__(_CLASSES[kind])
        vars(made).update({str(key): self(item) for key, item in content})
        return made
