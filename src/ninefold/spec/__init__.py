"""WHAT: descriptions in pure Python integers, importable without torch."""

from ninefold.spec.axis import Axis
from ninefold.spec.channels import Channels, ChannelTable, Grouped
from ninefold.spec.conv import ConvSpec
from ninefold.spec.form import Form
from ninefold.spec.problem import Map, Problem

__all__ = ["Axis", "ChannelTable", "Channels", "ConvSpec", "Form", "Grouped", "Map", "Problem"]
