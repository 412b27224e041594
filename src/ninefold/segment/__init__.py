"""From a folder of pictures and masks to objects: training, prediction, refinement, partition, scores."""

from ninefold.segment.commands import partition, predict, refine, train_folder
from ninefold.segment.config import TrainConfig
from ninefold.segment.crops import Pairs
from ninefold.segment.cutting import objects_of
from ninefold.segment.model import Segmenter
from ninefold.segment.page import Pair, page
from ninefold.segment.pictures import as_picture, overlay
from ninefold.segment.scoring import score_folders
from ninefold.segment.training import Outcome, train

__all__ = [
    "Outcome",
    "Pair",
    "Pairs",
    "Segmenter",
    "TrainConfig",
    "as_picture",
    "objects_of",
    "overlay",
    "page",
    "partition",
    "predict",
    "refine",
    "score_folders",
    "train",
    "train_folder",
]
