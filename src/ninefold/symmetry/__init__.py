"""Symmetries of networks, measured: equivariance and invariance under shifts, flips, turns, zooms (section 9.2 of the book)."""

from ninefold.symmetry.measure import equivariance, error_map, invariance
from ninefold.symmetry.report import Finding, Symmetry, Tested
from ninefold.symmetry.transforms import Custom, Flip, Rot90, Rotate, Scale, Shift, Transform

__all__ = [
    "Custom",
    "Finding",
    "Flip",
    "Rot90",
    "Rotate",
    "Scale",
    "Shift",
    "Symmetry",
    "Tested",
    "Transform",
    "equivariance",
    "error_map",
    "invariance",
]
