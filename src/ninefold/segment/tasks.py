"""What a network is trained to give: a class for every pixel, or affinities that are cut into objects."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ninefold.segment.config import TrainConfig
from ninefold.segment.crops import NOTHING, Pairs
from ninefold.segment.cutting import objects_of
from ninefold.segment.losses import affinity_sums, label_sums
from ninefold.segment.model import Segmenter, Shape
from ninefold.segment.parallel import World
from ninefold.structured.partition import Affinities, Confusion, adapted_rand_error, malis_loss, match_objects

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Task", "task_of"]


class Task(ABC):
    """Targets, loss, and score of a training."""

    score: str
    """Name of the score that a model is chosen by; more is better."""

    @abstractmethod
    def sums(self, steps: Sequence[Tensor], labels: Tensor, done: int) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of a share of a batch, and what the sums of all shares are divided by.

        Parameters
        ----------
        steps : sequence of Tensor of shape (share, outputs, *space)
            Logits.
        labels : Tensor of int64, shape (share, *space)
        done : int
            Steps before.
        """

    @abstractmethod
    def measure(self, model: Segmenter, pairs: Pairs, held: Sequence[int], world: World) -> dict[str, float]:
        """Return scores over the images that all processes hold out, each with its share."""

    @abstractmethod
    def labels(self, probabilities: Tensor) -> "np.ndarray":
        """Return the label map of what `Segmenter.predict` gives."""


def task_of(config: TrainConfig, shape: Shape, weight: Tensor | None) -> Task:
    """Return what a training is for."""
    return Labels(config, shape, weight) if config.task == "labels" else Objects(config, shape)


class Labels(Task):
    """A class for every pixel."""

    score = "mean IoU"

    def __init__(self, config: TrainConfig, shape: Shape, weight: Tensor | None) -> None:
        self.config, self.classes, self.weight = config, shape.classes, weight

    def sums(self, steps: Sequence[Tensor], labels: Tensor, done: int) -> tuple[Tensor, Tensor]:  # noqa: ARG002  the same at every step
        return label_sums(steps, labels, NOTHING, self.weight)

    def measure(self, model: Segmenter, pairs: Pairs, held: Sequence[int], world: World) -> dict[str, float]:
        counts = Confusion(self.classes, ignore=self.config.ignore)
        for k in held:
            image, mask = pairs[k]
            counts.update(mask, model.predict(image).argmax(0))
        counts.matrix[:] = world.total(torch.from_numpy(counts.matrix)).numpy()
        return {self.score: counts.mean_iou(), "accuracy": counts.pixel_accuracy}

    def labels(self, probabilities: Tensor) -> "np.ndarray":
        return probabilities.argmax(0).numpy()


class Objects(Task):
    """Affinities of pixels, cut into objects."""

    # the adapted Rand error does not see what is found between objects, and would prefer a network that finds none
    score = "AP at IoU 0.5"

    def __init__(self, config: TrainConfig, shape: Shape) -> None:
        self.config, self.shape, self.warm = config, shape, config.malis_after

    def sums(self, steps: Sequence[Tensor], labels: Tensor, done: int) -> tuple[Tensor, Tensor]:
        offsets, balanced = self.shape.offsets, self.config.balance != "none"
        target, there = (
            torch.as_tensor(Affinities.from_labels(marked, offsets).values, device="cpu")
            for marked in (labels.clamp(min=0), (labels != NOTHING).long())
        )
        sums = [affinity_sums(logits, target.to(logits.dtype), there > 0, balanced=balanced) for logits in steps]
        total, count = torch.stack([s for s, _ in sums]).sum(), torch.stack([n for _, n in sums]).sum()
        if self.config.loss == "cross_entropy" or done < self.warm:
            return total, count
        images = len(labels)
        return total / count.clamp(min=1) * images + self._malis(steps, labels), total.new_tensor(images)

    def _malis(self, steps: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Return the sum of the losses of pairs over images and steps; the near edges alone have paths."""
        ndim, outside = self.shape.ndim, int(labels.max()) + 1
        marked = torch.where(labels == NOTHING, outside, labels)
        near = [Affinities(logits[:, :ndim].sigmoid(), self.shape.offsets[:ndim]) for logits in steps]
        return torch.stack([malis_loss(one, marked, ignore=outside, reduction="sum") for one in near]).sum()

    def measure(self, model: Segmenter, pairs: Pairs, held: Sequence[int], world: World) -> dict[str, float]:
        # of all images together: by the mean of their scores, those without objects would favour a network that finds none
        sums = torch.zeros(4, dtype=torch.float64, device="cpu")
        for k in held:
            image, mask = pairs[k]
            found, there = self.labels(model.predict(image)), bool(mask.any())
            matches = match_objects(mask.numpy(), found)
            wrong = matches.false_positives + matches.false_negatives
            error = adapted_rand_error(mask.numpy(), found, background=0).error if there else 0.0
            sums += torch.tensor([matches.true_positives, wrong, error, there], dtype=torch.float64, device="cpu")
        right, wrong, error, count = world.total(sums)
        return {self.score: float(right / (right + wrong)), "adapted Rand error": float(error / count)}

    def labels(self, probabilities: Tensor) -> "np.ndarray":
        return objects_of(Affinities(probabilities.numpy(), self.shape.offsets))
