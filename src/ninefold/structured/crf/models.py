"""Small graphical models with one interface, ``forward(unary_logits, features=None) -> logits``."""

from ninefold.structured.crf.energy import EnergyCleaning
from ninefold.structured.crf.grid import GridMRF
from ninefold.structured.crf.spatial import SpatialModel

__all__ = ["EnergyCleaning", "GridMRF", "SpatialModel"]
