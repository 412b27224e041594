"""Write the table of every layer, ``layers.md``: ``python docs/layers.py``. The tests hold each row to what it says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    name: str
    order: str = "2"
    formats: str = "kept"
    unbatched: bool = True


ANY = ("ChannelTableConv Conv ConvTranspose DepthwiseSeparableConv LocallyConnected LocallyConnectedTranspose MLPConv PointwiseGroupConv ResizeConv ShuffleUnit SpatiallySeparableConv TiledConv TiledConvTranspose").split()

NO = "ChannelPool ChannelShuffle MaxOut SpatialPyramidPool".split()
REST = "AdaptiveAvgPool AdaptiveMaxPool AvgPool ChannelPool ChannelShuffle ConvStage GaussianPool LPPool LocalContrastNorm LogSumExpPool MaxOut MaxPool MaxUnpool SpatialPyramidPool TopLeftUnpool".split()
ROWS = tuple(Row(n, "any", unbatched=n != "ShuffleUnit") for n in ANY) + tuple(Row(n, unbatched=n not in NO, formats="vec" if "Pyr" in n else "kept") for n in REST)


def row(name):
    return next(r for r in ROWS if r.name == name)
