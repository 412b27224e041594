"""Pictures of layers, drawn from their descriptions; needs Matplotlib (``pip install ninefold[draw]``)."""

from ninefold.drawing.channels import channels
from ninefold.drawing.grids import borders, kernels, maps, matrix, overlap
from ninefold.drawing.units import connectivity, receptive_field
from ninefold.drawing.windows import curves, pooling_regions

__all__ = [
    "borders",
    "channels",
    "connectivity",
    "curves",
    "kernels",
    "maps",
    "matrix",
    "overlap",
    "pooling_regions",
    "receptive_field",
]
