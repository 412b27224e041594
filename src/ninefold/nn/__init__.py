"""Layers: parameters and a spec, nothing else."""

from ninefold.nn.blocks import (
    MLPConv1d,
    MLPConv2d,
    MLPConv3d,
    PointwiseGroupConv1d,
    PointwiseGroupConv2d,
    PointwiseGroupConv3d,
    ShuffleUnit,
)
from ninefold.nn.channel_table import ChannelTableConv1d, ChannelTableConv2d, ChannelTableConv3d
from ninefold.nn.contrast import LocalContrastNorm1d, LocalContrastNorm2d, LocalContrastNorm3d
from ninefold.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from ninefold.nn.resize import ResizeConv1d, ResizeConv2d, ResizeConv3d
from ninefold.nn.separable import DepthwiseSeparableConv1d, DepthwiseSeparableConv2d, DepthwiseSeparableConv3d
from ninefold.nn.shuffle import ChannelShuffle
from ninefold.nn.spatially_separable import SpatiallySeparableConv2d, SpatiallySeparableConv3d, Truncation
from ninefold.nn.stage import ConvStage
from ninefold.nn.tiled import (
    LocallyConnected1d,
    LocallyConnected2d,
    LocallyConnected3d,
    TiledConv1d,
    TiledConv2d,
    TiledConv3d,
)
from ninefold.nn.tiled_transpose import (
    LocallyConnectedTranspose1d,
    LocallyConnectedTranspose2d,
    LocallyConnectedTranspose3d,
    TiledConvTranspose1d,
    TiledConvTranspose2d,
    TiledConvTranspose3d,
)

__all__ = [
    "ChannelShuffle",
    "ChannelTableConv1d",
    "ChannelTableConv2d",
    "ChannelTableConv3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvStage",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DepthwiseSeparableConv1d",
    "DepthwiseSeparableConv2d",
    "DepthwiseSeparableConv3d",
    "LocalContrastNorm1d",
    "LocalContrastNorm2d",
    "LocalContrastNorm3d",
    "LocallyConnected1d",
    "LocallyConnected2d",
    "LocallyConnected3d",
    "LocallyConnectedTranspose1d",
    "LocallyConnectedTranspose2d",
    "LocallyConnectedTranspose3d",
    "MLPConv1d",
    "MLPConv2d",
    "MLPConv3d",
    "PointwiseGroupConv1d",
    "PointwiseGroupConv2d",
    "PointwiseGroupConv3d",
    "ResizeConv1d",
    "ResizeConv2d",
    "ResizeConv3d",
    "ShuffleUnit",
    "SpatiallySeparableConv2d",
    "SpatiallySeparableConv3d",
    "TiledConv1d",
    "TiledConv2d",
    "TiledConv3d",
    "TiledConvTranspose1d",
    "TiledConvTranspose2d",
    "TiledConvTranspose3d",
    "Truncation",
]
