"""WHAT: descriptions in pure Python integers, importable without torch."""

from ninefold.spec.artefacts import Checkerboard, Gridding, checkerboard, gridding
from ninefold.spec.axis import Axis
from ninefold.spec.chain import ReceptiveField, coverage, positions, receptive_field, receptive_fields
from ninefold.spec.channels import Channels, ChannelTable, Grouped
from ninefold.spec.conv import ConvSpec
from ninefold.spec.costs import (
    depthwise_separable_products,
    depthwise_separable_ratio,
    direct_products,
    standard_products,
    two_pass_products,
    two_pass_ratio,
)
from ninefold.spec.counts import Counted, Counts, connectivity_counts
from ninefold.spec.form import Form
from ninefold.spec.pool import PoolSpec
from ninefold.spec.problem import Map, Problem
from ninefold.spec.tables import grouped_table, lenet5_table, random_table, window_table

__all__ = [
    "Axis",
    "ChannelTable",
    "Channels",
    "Checkerboard",
    "ConvSpec",
    "Counted",
    "Counts",
    "Form",
    "Gridding",
    "Grouped",
    "Map",
    "PoolSpec",
    "Problem",
    "ReceptiveField",
    "checkerboard",
    "connectivity_counts",
    "coverage",
    "depthwise_separable_products",
    "depthwise_separable_ratio",
    "direct_products",
    "gridding",
    "grouped_table",
    "lenet5_table",
    "positions",
    "random_table",
    "receptive_field",
    "receptive_fields",
    "standard_products",
    "two_pass_products",
    "two_pass_ratio",
    "window_table",
]
