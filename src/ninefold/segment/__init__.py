"""From a folder of pictures and masks to objects: training, prediction, refinement, partition, scores."""

__all__: list[str] = []
