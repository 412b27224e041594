"""WHAT: descriptions in pure Python integers, importable without torch."""

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

__all__ = [
    "Axis",
    "ChannelTable",
    "Channels",
    "ConvSpec",
    "Counted",
    "Counts",
    "Form",
    "Grouped",
    "Map",
    "PoolSpec",
    "Problem",
    "ReceptiveField",
    "connectivity_counts",
    "coverage",
    "depthwise_separable_products",
    "depthwise_separable_ratio",
    "direct_products",
    "positions",
    "receptive_field",
    "receptive_fields",
    "standard_products",
    "two_pass_products",
    "two_pass_ratio",
]
