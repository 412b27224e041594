"""Copies of a model that somebody else wrote, of which parts cannot be copied: what is not ours is then shared."""

import copy
from typing import Any

from torch import Tensor
from torch.nn import Module

from ninefold.errors import ModelError

__all__ = ["copied", "share"]


def copied(model: Module, train: bool) -> Module:
    """Return a copy in one of the two modes, with parameters and buffers of its own.

    Raises
    ------
    ModelError
        If a module itself cannot be copied; nothing has happened then.
    """
    return _copy(model, {}).train(train)


def share(model: Module) -> Module:
    """Copy a model's structure, with the very same parameters and buffers.

    Raises
    ------
    ModelError
        If a module itself cannot be copied; nothing has happened then.
    """
    return _copy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})


def _copy(model: Module, memo: dict[int, Any]) -> Module:
    try:
        return copy.deepcopy(model, dict(memo))
    except Exception:  # noqa: BLE001  whatever a user's own object raises, it is looked at one by one
        memo = memo | _uncopyable(model, memo)
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} cannot be copied: {error}; give the parts that can be, or define __deepcopy__ on what cannot"
        ) from error


def _uncopyable(model: Module, memo: dict[int, Any]) -> dict[int, Any]:
    """Return what `copy.deepcopy` refuses among all that the modules hold, and what stands for it in a copy.

    A tensor with a history, such as the weight that ``torch.nn.utils.weight_norm`` computes before each call, is there without
    it. A lock, an open file, or a hook's own object is shared.
    """
    found: dict[int, Any] = {}

    def look(value: Any) -> None:
        if id(value) in memo or id(value) in found or isinstance(value, Module):
            return
        if isinstance(value, Tensor):
            if value.grad_fn is not None:
                found[id(value)] = value.detach().clone()
        elif isinstance(value, dict):
            for part in value.values():
                look(part)
        elif isinstance(value, (list, tuple, set, frozenset)):
            for part in value:
                look(part)
        else:
            try:
                copy.deepcopy(value, dict(memo))
            except Exception:  # noqa: BLE001  as above
                found[id(value)] = value

    for module in model.modules():
        for name, value in vars(module).items():
            if name != "_modules":
                look(value)
    return found
