"""What a training leaves beside its model: a table of its epochs, TensorBoard's log, and pictures of what is held out."""

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ninefold.segment.config import TrainConfig
from ninefold.segment.crops import Pairs
from ninefold.segment.pictures import as_picture, overlay, side_by_side
from ninefold.storing import write_whole

if TYPE_CHECKING:
    from torch import Tensor

    from ninefold.segment.model import Segmenter
    from ninefold.segment.tasks import Task

__all__ = ["Logs"]

_SHOWN = 2


class Logs:
    """The log of a training.

    Parameters
    ----------
    config : TrainConfig
    names : list of str, optional
        Of the images.
    history : list of dict
        Epochs that are gone on from.
    """

    def __init__(self, config: TrainConfig, names: list[str] | None, history: list[dict[str, float]]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  takes seconds to load

        self.config, self.names = config, names
        self.board = SummaryWriter(str(config.folder / "log"), purge_step=len(history) + 1)
        write_whole(config.folder / "config.yaml", config.to_yaml().encode(), parents=True)

    def epoch(self, history: list[dict[str, float]], model: "Segmenter", task: "Task", pairs: Pairs, held: Sequence[int]) -> None:
        """Write what the last epoch gave."""
        last = history[-1]
        for name, value in last.items():
            if name != "epoch":
                self.board.add_scalar(name.replace(" ", "_"), value, int(last["epoch"]))
        table = io.StringIO()
        rows = csv.DictWriter(table, list(last), lineterminator="\n")
        rows.writeheader()
        rows.writerows(history)
        write_whole(self.config.folder / "history.csv", table.getvalue().encode())
        for k in list(held)[:_SHOWN]:
            image, mask = pairs[k]
            if mask.dim() == 1:
                continue
            self._picture(k, image, mask, task.labels(model.predict(image)))

    def _picture(self, k: int, image: "Tensor", mask: "Tensor", found: np.ndarray) -> None:
        picture = as_picture(image)
        ignore = self.config.ignore if self.config.task == "labels" else None
        row = [picture, *(overlay(picture, labels, ignore=ignore) for labels in (mask.numpy(), found))]
        content = io.BytesIO()
        Image.fromarray(side_by_side(row)).save(content, "PNG")
        name = self.names[k] if self.names else str(k)
        write_whole(self.config.folder / "overlays" / f"{name}.png", content.getvalue(), parents=True)

    def close(self) -> None:
        """Write what is left."""
        self.board.close()
