"""The training: steps, scores of what is held out, checkpoints that are gone on from bit for bit, and an end."""

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ninefold.errors import ArgumentError, CheckpointError
from ninefold.segment.checkpoint import Checkpoints
from ninefold.segment.config import BEFORE, TrainConfig
from ninefold.segment.crops import Crops, Kept, Pairs, check_held, split, survey
from ninefold.segment.logs import Logs
from ninefold.segment.losses import class_weights
from ninefold.segment.model import Segmenter
from ninefold.segment.parallel import World, silent, world
from ninefold.segment.room import LITTLE, peak_bytes, probe, share_of_memory, weights_bytes
from ninefold.segment.tasks import Task, task_of
from ninefold.structured.room import refuse_beyond

__all__ = ["Outcome", "train"]

_WARM = 20
"""Steps over which the learning rate rises."""


@dataclass
class Outcome:
    """What came of a training.

    Parameters
    ----------
    path : Path
        The model of the best epoch.
    score : str
        What was measured on the held-out images.
    best : float
        The best score.
    history : list of dict
        Loss and score of each epoch.
    ended : str
        Why it ended.

    Examples
    --------
    >>> print(Outcome(Path("run/model.safetensors"), "mean IoU", 0.75, [{}, {}], "all epochs are done"))
    2 epochs, all epochs are done; best mean IoU 0.750; run/model.safetensors
    """

    path: Path
    score: str
    best: float
    history: list[dict[str, float]]
    ended: str

    def __str__(self) -> str:
        epochs = f"{len(self.history)} epoch{'s' * (len(self.history) != 1)}"
        return f"{epochs}, {self.ended}; best {self.score} {self.best:.3f}; {self.path}"


def train(
    config: TrainConfig,
    pairs: Pairs,
    *,
    names: list[str] | None = None,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int, str], None] | None = None,
) -> Outcome:
    """Train a network on images and masks.

    Under ``torchrun`` every process takes its share of each batch; gradients are those of the whole batch, so that the result is
    one process's to rounding.

    Parameters
    ----------
    config : TrainConfig
    pairs : Pairs
        Images (channels, *space) of float32 and masks (*space) of whole numbers, by number, such as `ninefold.data.Folder`.
    names : list of str, optional
        Of the pairs, for pictures.
    tell : callable
        Called with sentences.
    progress : callable, optional
        Called with (steps done, steps in all, a word on how it goes).

    Returns
    -------
    Outcome

    Raises
    ------
    ArgumentError, ShapeError
        If there is nothing to train on, or images and labels do not fit the settings.
    CheckpointError
        If ``config.out`` holds another training.
    RoomError
        If network, crops or the largest image held out need more memory than there is.
    KeyboardInterrupt
        With a sentence on what is kept.

    Examples
    --------
    >>> import tempfile
    >>> torch.manual_seed(0)
    <torch...>
    >>> images = [torch.rand(1, 12, 10, device="cpu") for _ in range(3)]
    >>> pairs = [(image, (image[0] > 0.5).long()) for image in images]
    >>> with tempfile.TemporaryDirectory() as out:
    ...     config = TrainConfig("a", "b", out, crop=8, epochs=1, width=4, depth=2, repeats=1)
    ...     outcome = train(config, pairs, tell=lambda sentence: None)
    >>> outcome.score, outcome.ended
    ('mean IoU', 'all epochs are done')
    """
    return _Training(config, Kept(pairs), names, tell, progress).run()


@dataclass
class _State:
    """Where a training stands, beside weights."""

    epoch: int = 0
    step: int = 0
    best: float | None = None
    waited: int = 0
    loss: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


class _Training:
    def __init__(
        self,
        config: TrainConfig,
        pairs: Pairs,
        names: list[str] | None,
        tell: Callable[[str], None],
        progress: Callable[[int, int, str], None] | None,
    ) -> None:
        self.config, self.pairs, self.progress = config, pairs, progress
        self.world: World = world()
        self.tell = tell if self.world.first else silent
        taught, self.held = split(len(pairs), config.validation, config.seed)
        found = survey(pairs, taught, config, self.held)
        check_held(pairs, self.held, config)
        refuse_beyond(
            weights_bytes(lambda: Segmenter(config, found.shape, found.mean, found.deviation)),
            share_of_memory(),
            f"a {config.network} of width {config.width} and depth {config.depth}",
            "take smaller ones",
        )
        torch.manual_seed(config.seed)
        self.model = Segmenter(config, found.shape, found.mean, found.deviation)
        self.task: Task = task_of(
            config, found.shape, class_weights(torch.tensor(found.counts, dtype=torch.int64, device="cpu"), config.balance)
        )
        self.crops = Crops(pairs, taught, config, self.world)
        self._fits(found.largest)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, foreach=False
        )
        self.state, self.names, self.kept = _State(), names, ""
        about = config.fingerprint() | {"number of images": len(pairs)}
        self.checkpoints = Checkpoints(config.folder, about, self.tell, BEFORE)
        self.path = config.folder / "model.safetensors"
        size = "x".join(map(str, [found.shape.channels, *["?"] * found.shape.ndim]))
        self.tell(
            f"{len(taught)} images {size} to train on, {len(self.held)} held out; {self._parameters()} parameters, "
            f"{len(self.crops)} steps an epoch"
        )

    def _fits(self, largest: tuple[int, ...]) -> None:
        """Refuse crops and images that memory has no room for, before anything starts."""
        config, model, share = self.config, self.model, math.ceil(self.config.batch / self.world.size)
        space = config.crop_sides(model.shape.ndim)
        if share * math.prod(space) * config.width > LITTLE:
            size, times = probe(space, model.least)
            images = torch.zeros(1, model.shape.channels, *size, dtype=torch.float32, device="cpu")
            labels = torch.zeros(1, *size, dtype=torch.int64, device="cpu")

            def step() -> None:
                self.task.sums(model(images), labels, -1)[0].backward()

            peak = peak_bytes(step)
            model.zero_grad()
            crops = 2 * (images.nbytes + labels.nbytes)  # those of the next step are read meanwhile
            refuse_beyond(
                int((peak + crops) * times) * share,
                share_of_memory(),
                f"a step of {share} crops of {'x'.join(map(str, space))} pixels with a network of width {config.width}",
                "take a smaller crop, batch or width",
            )
        model.fitting_tile(largest)

    def _parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def run(self) -> Outcome:
        self._resume()
        self.network: nn.Module = DistributedDataParallel(self.model) if self.world.size > 1 else self.model
        self.logs = Logs(self.config, self.names, self.state.history) if self.world.first else None
        with _stopping() as stop:
            try:
                ended = self._epochs(stop)
            finally:
                if self.logs:
                    self.logs.close()
        return Outcome(self.path, self.task.score, float(self.state.best or 0.0), self.state.history, ended)

    def _epochs(self, stop: Callable[[], bool]) -> str:
        config, state = self.config, self.state
        while state.epoch < config.epochs:
            if config.patience and state.waited >= config.patience:
                return f"no better score for {state.waited} epochs"
            self._epoch(stop)
            self._scored()
            state.epoch, state.step, state.loss = state.epoch + 1, 0, 0.0
            self._save()
        return "all epochs are done"

    def _epoch(self, stop: Callable[[], bool]) -> None:
        state, steps = self.state, len(self.crops)
        self.network.train()
        for images, labels in self.crops.epoch(state.epoch, state.step):
            state.loss += self._step(images, labels)
            state.step += 1
            done = state.epoch * steps + state.step
            if self.progress and self.world.first:
                self.progress(done, steps * self.config.epochs, f"epoch {state.epoch + 1}, loss {state.loss / state.step:.4f}")
            if stop():
                self._save()
                raise KeyboardInterrupt(f"{self.kept or 'nothing is kept'}; the same command goes on from there")
            if done % self.config.checkpoint_steps == 0:
                self._save()

    def _step(self, images: Tensor, labels: Tensor) -> float:
        """Take one step; return the loss of the whole batch."""
        done = self.state.epoch * len(self.crops) + self.state.step
        rate = self._rate(done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        total, count = self.task.sums(self.network(images), labels, done)
        both = self.world.total(torch.stack([total.detach(), count.detach()]))
        divisor = both[1].clamp(min=1e-12)
        # the gradients of all processes are averaged: their sum is what the whole batch gives
        (total * self.world.size / divisor).backward()
        if not bool(both.isfinite().all()):
            raise ArgumentError(
                f"the loss is {float(both[0] / divisor)} at step {done}: take a smaller learning_rate than {rate:g}"
            )
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip, foreach=False)
        self.optimizer.step()
        return float(both[0] / divisor)

    def _rate(self, done: int) -> float:
        all_steps = len(self.crops) * self.config.epochs
        warm = min(1.0, (done + 1) / _WARM)
        return self.config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * done / all_steps))

    def _scored(self) -> None:
        """Measure what is held out; keep the model if it is the best."""
        state = self.state
        score = self.task.measure(self.model, self.pairs, self.world.mine(self.held), self.world)
        state.history.append({"epoch": state.epoch + 1, "loss": state.loss / max(1, state.step), **score})
        value = score[self.task.score]
        better = state.best is None or value > state.best
        state.best, state.waited = (value, 0) if better else (state.best, state.waited + 1)
        if self.world.first and self.logs:
            # among equals the later one: where nothing is found for epochs, the first one is as it was drawn
            if better or value == state.best:
                self.model.save(self.path, epoch=state.epoch + 1, **score)
            self.logs.epoch(state.history, self.model, self.task, self.pairs, self.held)
        self.tell(f"epoch {state.epoch + 1}: loss {state.history[-1]['loss']:.4f}, {self.task.score} {value:.4f}")

    def _resume(self) -> None:
        """Go on from what is there, if it is of this training."""
        if not self.config.resume:
            return
        found = self.checkpoints.load()
        if found is None:
            return
        try:
            self.model.load_state_dict(found["model"])
            self.optimizer.load_state_dict(found["optimizer"])
            torch.set_rng_state(found["random"])
            self.state = _State(**found["state"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.checkpoints.newest} is no state of this training: {error}") from error
        done = self.state.epoch >= self.config.epochs
        self.tell("this training is done" if done else f"going on from epoch {self.state.epoch + 1}, step {self.state.step}")

    def _save(self) -> None:
        """Keep where it stands; a full disk is told of, and stops nothing."""
        if not self.world.first:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "state": asdict(self.state),
        }
        try:
            self.checkpoints.save(state)
            self.kept = f"epoch {self.state.epoch + 1}, step {self.state.step} is kept in {self.config.folder}"
        except CheckpointError as error:
            self.tell(f"{error}; training goes on, and an interrupt goes back to {self.kept or 'the start'}")


@contextlib.contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Take the first interrupt as a wish to stop after the step; a second one stops at once."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)
        del frame

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
