"""Filters without labels, and pooling that is learned: scikit-learn estimators on planned convolutions."""

from ninefold.learn import distributed
from ninefold.learn.base import FilterSource
from ninefold.learn.clusters import ClusterPool
from ninefold.learn.dbn import ConvDBN
from ninefold.learn.designed import DesignedFilters
from ninefold.learn.encoders import Encoder, Hard, Rectified, SoftThreshold, SparseCode, Triangle
from ninefold.learn.features import ConvFeatures
from ninefold.learn.files import SavedFilters, load_filters, save_filters
from ninefold.learn.gratings import optimal_input
from ninefold.learn.greedy import GreedyLayers
from ninefold.learn.images import Images
from ninefold.learn.initialize import initialize
from ninefold.learn.kmeans import KMeansFilters
from ninefold.learn.layers import FilterLayer
from ninefold.learn.omp import OMPFilters
from ninefold.learn.pictures import grating, history, mosaic, reconstructions, samples
from ninefold.learn.pooling import GridPool, Pyramid, QuadrantSums
from ninefold.learn.rbm import ConvRBM
from ninefold.learn.regions import LearnedRegions
from ninefold.learn.search import SearchResult, random_against_trained, search
from ninefold.learn.simple import GivenFilters, RandomFilters, SampledPatches
from ninefold.learn.sparse import SparseCodingFilters
from ninefold.learn.supervised import SupervisedFilters
from ninefold.learn.switches import SparseEncoderDecoder
from ninefold.learn.tiled import TiledICA
from ninefold.learn.whiten import whiten_photographs

__all__ = [
    "ClusterPool",
    "ConvDBN",
    "ConvFeatures",
    "ConvRBM",
    "DesignedFilters",
    "Encoder",
    "FilterLayer",
    "FilterSource",
    "GivenFilters",
    "GreedyLayers",
    "GridPool",
    "Hard",
    "Images",
    "KMeansFilters",
    "LearnedRegions",
    "OMPFilters",
    "Pyramid",
    "QuadrantSums",
    "RandomFilters",
    "Rectified",
    "SampledPatches",
    "SavedFilters",
    "SearchResult",
    "SoftThreshold",
    "SparseCode",
    "SparseCodingFilters",
    "SparseEncoderDecoder",
    "SupervisedFilters",
    "TiledICA",
    "Triangle",
    "distributed",
    "grating",
    "history",
    "initialize",
    "load_filters",
    "mosaic",
    "optimal_input",
    "random_against_trained",
    "reconstructions",
    "samples",
    "save_filters",
    "search",
    "whiten_photographs",
]
