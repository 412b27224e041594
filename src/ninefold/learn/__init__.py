"""Filters without labels, and pooling that is learned: scikit-learn estimators on planned convolutions."""

from ninefold.learn.base import FilterSource
from ninefold.learn.encoders import Encoder, Hard, Rectified, SoftThreshold, SparseCode, Triangle
from ninefold.learn.features import ConvFeatures
from ninefold.learn.images import Images
from ninefold.learn.kmeans import KMeansFilters
from ninefold.learn.pooling import GridPool, Pyramid, QuadrantSums
from ninefold.learn.simple import RandomFilters, SampledPatches

__all__ = [
    "ConvFeatures",
    "Encoder",
    "FilterSource",
    "GridPool",
    "Hard",
    "Images",
    "KMeansFilters",
    "Pyramid",
    "QuadrantSums",
    "RandomFilters",
    "Rectified",
    "SampledPatches",
    "SoftThreshold",
    "SparseCode",
    "Triangle",
]
