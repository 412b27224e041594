"""Whole models: convert, revert, freeze, optimize."""

from ninefold.network.conversion import convert, freeze, revert, unconverted
from ninefold.network.fields import own_fields, receptive_fields
from ninefold.network.report import Report, Row
from ninefold.network.tune import optimize

__all__ = [
    "Report",
    "Row",
    "convert",
    "freeze",
    "optimize",
    "own_fields",
    "receptive_fields",
    "revert",
    "unconverted",
]
