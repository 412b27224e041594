"""Refinement of label maps: fully connected random fields, grids, spatial models."""

from ninefold.structured.crf.exact import ExactFilter
from ninefold.structured.crf.kernels import BilateralKernel, FeatureKernel, GaussianKernel, PairwiseKernel
from ninefold.structured.crf.lattice import LatticeFilter
from ninefold.structured.crf.layer import DenseCRF
from ninefold.structured.room import RoomError

__all__ = [
    "BilateralKernel",
    "DenseCRF",
    "ExactFilter",
    "FeatureKernel",
    "GaussianKernel",
    "LatticeFilter",
    "PairwiseKernel",
    "RoomError",
]
