"""Partition: affinity graphs cut into objects, losses on partitions, and scores."""

from ninefold.structured.partition.affinities import Affinities, edge_mask
from ninefold.structured.partition.boundaries import BoundaryScores, boundary_f, boundary_voxels
from ninefold.structured.partition.cells import cell_image, voronoi_cells
from ninefold.structured.partition.contingency import Contingency, contingency
from ninefold.structured.partition.graph import AffinityGraph, region_graph
from ninefold.structured.partition.instances import (
    ObjectMatches,
    PanopticQuality,
    average_precision,
    match_objects,
    panoptic_quality,
)
from ninefold.structured.partition.malis import MaximinPairs, malis_loss, maximin_pairs
from ninefold.structured.partition.objects import connected_components, mutex_watershed, watershed
from ninefold.structured.partition.offsets import neighbour_offsets
from ninefold.structured.partition.pixels import Confusion
from ninefold.structured.partition.scores import (
    AdaptedRand,
    PartitionScores,
    VariationOfInformation,
    adapted_rand_error,
    rand_index,
    score,
    variation_of_information,
)
from ninefold.structured.partition.trees import MergeTree, maximin_affinities, maximin_matrix, merge_tree, optimal_cover
from ninefold.structured.partition.voting import superpixel_mean, superpixel_vote

__all__ = [
    "AdaptedRand",
    "Affinities",
    "AffinityGraph",
    "BoundaryScores",
    "Confusion",
    "Contingency",
    "MaximinPairs",
    "MergeTree",
    "ObjectMatches",
    "PanopticQuality",
    "PartitionScores",
    "VariationOfInformation",
    "adapted_rand_error",
    "average_precision",
    "boundary_f",
    "boundary_voxels",
    "cell_image",
    "connected_components",
    "contingency",
    "edge_mask",
    "malis_loss",
    "match_objects",
    "maximin_affinities",
    "maximin_matrix",
    "maximin_pairs",
    "merge_tree",
    "mutex_watershed",
    "neighbour_offsets",
    "optimal_cover",
    "panoptic_quality",
    "rand_index",
    "region_graph",
    "score",
    "superpixel_mean",
    "superpixel_vote",
    "variation_of_information",
    "voronoi_cells",
    "watershed",
]
