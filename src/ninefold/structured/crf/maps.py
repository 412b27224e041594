"""What the models of this folder that read maps say of wrong ones."""

from typing import Any

from ninefold.errors import ArgumentError
from ninefold.structured.networks.parts import check_maps

__all__ = ["check_unary", "no_features"]


def check_unary(unary: Any, ndim: int, classes: int, what: str = "the unary logits") -> None:
    """Refuse what is no batch of label scores; minus infinity rules a label out, NaN and plus infinity mean nothing.

    Raises
    ------
    ArgumentError, ArgumentTypeError, DTypeError, ShapeError
        With the actual numbers.

    Examples
    --------
    >>> import torch
    >>> check_unary(torch.full((1, 2, 3), float("nan")), 1, 2)
    Traceback (most recent call last):
    ninefold.errors.ArgumentError: the unary logits hold 6 values that are NaN or plus infinity; repair what made them
    """
    check_maps(unary, ndim, classes, what)
    wrong = int((unary.isnan() | unary.isposinf()).sum())
    if wrong:
        raise ArgumentError(f"{what} hold {wrong} values that are NaN or plus infinity; repair what made them")
    nothing = unary.isneginf().all(1)
    if bool(nothing.any()):
        raise ArgumentError(f"{what} rule out every label of {int(nothing.sum())} positions; leave at least one")


def no_features(features: Any, who: str) -> None:
    """Refuse features where a model reads none, rather than leave them out in silence."""
    if features is not None:
        raise ArgumentError(f"{who} reads no features; leave them out, or take a GridMRF or a DenseCRF")
