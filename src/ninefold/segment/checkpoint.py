"""Checkpoints of a training: the newest and the one before, each whole or not there, with a sum over all that it holds."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from ninefold.errors import CheckpointError
from ninefold.storing import packed_tensors, unpacked_tensors, write_whole

__all__ = ["Checkpoints"]

_KIND, _VERSION = "ninefold training", 1
_REPAIR = "give another out, remove the files, or set resume to false"


class Checkpoints:
    """The two newest states of a training in a folder.

    Parameters
    ----------
    folder : Path
    about : dict
        What must be the same for a state to be gone on from (JSON).
    tell : callable
        Called with a sentence on each file that cannot be used.
    before : dict
        What is taken for names of `about` that a state does not have, for it is of an earlier version.

    Examples
    --------
    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as name:
    ...     kept = Checkpoints(Path(name), {"width": 8})
    ...     kept.save({"step": 3, "weights": {"a": torch.ones(2, dtype=torch.float32, device="cpu")}})
    ...     kept.load()
    {'step': 3, 'weights': {'a': tensor([1., 1.])}}
    """

    def __init__(
        self, folder: Path, about: dict[str, Any], tell: Callable[[str], None] = print, before: dict[str, Any] | None = None
    ) -> None:
        self.newest, self.before = folder / "checkpoint.safetensors", folder / "checkpoint.before.safetensors"
        self.about, self.tell, self.before_names = about, tell, before or {}

    def save(self, state: dict[str, Any]) -> None:
        """Write a state; the newest becomes the one before.

        Parameters
        ----------
        state : dict
            Of tensors, numbers, text, None, lists and dictionaries.

        Raises
        ------
        CheckpointError
            If it cannot be written; both files are as they were.
        """
        tensors: dict[str, Tensor] = {}
        tree = _flattened(state, "", tensors)
        content = packed_tensors(tensors, {"state": tree, "of": self.about}, _KIND, _VERSION)
        fresh = self.newest.with_name("checkpoint.fresh.safetensors")
        write_whole(fresh, content, CheckpointError, parents=True)
        try:
            with contextlib.suppress(FileNotFoundError):
                self.newest.replace(self.before)
            fresh.replace(self.newest)
        except OSError as error:
            raise CheckpointError(f"{self.newest} cannot be written: {error}") from error

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that can be read, or None if there is none.

        Raises
        ------
        CheckpointError
            If there are states, and all are damaged, or of another training.
        """
        problems = []
        for path in (self.newest.with_name("checkpoint.fresh.safetensors"), self.newest, self.before):
            if not path.exists():
                continue
            try:
                found, tensors = unpacked_tensors(path, _KIND, _VERSION, CheckpointError)
                state: dict[str, Any] = _restored(found.get("state"), tensors)
            except CheckpointError as error:
                problems.append(str(error))
                self.tell(str(error))
                continue
            self._same(found.get("of", {}), path)
            return state
        if problems:
            raise CheckpointError(f"{problems[0]}; {_REPAIR}")
        return None

    def _same(self, other: dict[str, Any], path: Path) -> None:
        other = self.before_names | other
        odd = [key for key in self.about if other.get(key) != self.about[key]]
        if odd:
            what = ", ".join(f"{key} was {other.get(key)!r} and is {self.about[key]!r}" for key in odd)
            raise CheckpointError(f"{path} is of another training: {what}; {_REPAIR}")


def _flattened(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return JSON for a state, its tensors put aside under their names."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _flattened(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [_flattened(item, f"{name}/{k}", tensors) for k, item in enumerate(value)]}
    return {"value": value}


def _restored(node: Any, tensors: dict[str, Tensor]) -> Any:
    try:
        ((kind, content),) = node.items()
        if kind == "tensor":
            return tensors[content]
        if kind == "dict":
            return {key: _restored(item, tensors) for key, item in content}
        return [_restored(item, tensors) for item in content] if kind == "list" else content
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"this is no state of a training: {type(error).__name__}: {error}") from error
