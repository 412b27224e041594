"""What a training is: one dataclass, written as YAML beside its results."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.spec.parse import per_axis

__all__ = ["BEFORE", "TrainConfig"]

_FREE = ("images", "masks", "out", "patience", "checkpoint_steps", "resume")
"""What may be another when a training is gone on with."""

BEFORE = {"clip": 0.0}
"""Settings that checkpoints of earlier versions do not name, as these versions had them."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training.

    Parameters
    ----------
    images, masks : str
        Folders of pictures or volumes, and of their masks, paired by their names.
    out : str
        Folder for checkpoints, the model, logs and pictures.
    mask_name : str
        A mask's name by its image's, such as ``"{stem}_mask"``.
    mode : str, optional
        Channels that images are converted to, such as ``"RGB"`` or ``"L"``; needed where they are mixed.
    labels : dict of int to int, optional
        Labels of masks that stand for others, such as ``{255: 1}`` where masks are black and white.
    colours : list of [red, green, blue], optional
        Of masks in colour: the colour of label 0, of label 1 and so on.
    task : {"labels", "objects"}
        A class for every pixel, or affinities of pixels from masks that number objects (0 is what is between them).
    network : {"unet", "recurrent"}
        An encoder and decoder with skips, or the recurrent convolutional network of the book's figure 9.17.
    width : int
        Channels of the first stage.
    depth : int
        Stages of ``"unet"``, each of half the resolution.
    steps : int
        Steps of ``"recurrent"``; each has a loss.
    kernel : int
        Side of the kernels of ``"recurrent"``.
    classes : int, optional
        Found in the masks if None.
    ignore : int
        The label of pixels that count nowhere.
    crop : int or list of int
        Side of the crops that are trained on, or one for each axis, such as ``[64, 64, 16]``; smaller pictures are
        padded, and padding counts nowhere.
    batch : int
        Crops a step, over all processes.
    epochs, repeats : int
        Passes, and how many crops of each picture one pass has.
    learning_rate, weight_decay : float
        Of AdamW; the rate falls as a cosine to nothing.
    clip : float
        Norm that a step's gradient, of all weights together, is scaled down to; 0 leaves it as it is.
    balance : {"none", "median", "inverse"}
        Weights of classes: none, median frequency over frequency (Farabet 2013), or one over frequency.
        Of affinities: the two others give edges within and between objects the same weight.
    loss : {"cross_entropy", "malis"}
        Of affinities: of each alone, or that plus the loss of the pairs of pixels that they join (Turaga 2009).
    malis_after : int
        Steps before the loss of pairs begins.
    flip : bool
        Mirror crops at random along each axis.
    validation : float
        Share of the pictures that are held out; at least one.
    patience : int
        Epochs without a better score before training ends early; 0 never does.
    seed : int
        Of everything that is drawn.
    checkpoint_steps : int
        Steps between checkpoints.
    resume : bool
        Go on from what `out` holds.

    Examples
    --------
    >>> config = TrainConfig(images="pictures", masks="masks", out="run", epochs=5)
    >>> TrainConfig.from_yaml(config.to_yaml()) == config
    True
    """

    images: str
    masks: str
    out: str
    mask_name: str = "{stem}"
    mode: str | None = None
    labels: dict[int, int] | None = None
    colours: list[list[int]] | None = None
    task: Literal["labels", "objects"] = "labels"
    network: Literal["unet", "recurrent"] = "unet"
    width: int = 16
    depth: int = 3
    steps: int = 3
    kernel: int = 5
    classes: int | None = None
    ignore: int = 255
    crop: int | list[int] = 128
    batch: int = 4
    epochs: int = 20
    repeats: int = 4
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    clip: float = 1.0
    balance: Literal["none", "median", "inverse"] = "none"
    loss: Literal["cross_entropy", "malis"] = "cross_entropy"
    malis_after: int = 100
    flip: bool = True
    validation: float = 0.2
    patience: int = 0
    seed: int = 0
    checkpoint_steps: int = 50
    resume: bool = True

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        crop: Any = self.crop
        if isinstance(crop, tuple):  # YAML and JSON have lists alone
            object.__setattr__(self, "crop", list(crop))
        hints = get_type_hints(type(self))
        for field in fields(self):
            _check(field.name, getattr(self, field.name), hints[field.name])
        least = {"width": 1, "depth": 1, "steps": 1, "kernel": 1, "batch": 1, "epochs": 1, "repeats": 1} | {
            "checkpoint_steps": 1,
            "patience": 0,
            "malis_after": 0,
            "weight_decay": 0,
            "clip": 0,
        }
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise ArgumentError(f"{name} is {getattr(self, name)}: it must be {low} or more")
        self.crop_sides(len(self.crop) if isinstance(self.crop, list) else 1)
        if not self.learning_rate > 0:
            raise ArgumentError(f"learning_rate is {self.learning_rate}: it must be more than 0")
        if not 0 < self.validation < 1:
            raise ArgumentError(f"validation is {self.validation}: it is the share that is held out, more than 0 and less than 1")
        if self.kernel % 2 == 0:
            raise ArgumentError(f"kernel is {self.kernel}: it must be odd, so that labels lie on pixels")
        if self.classes is not None and self.classes < 2:
            raise ArgumentError(f"classes is {self.classes}: there must be 2 or more")
        if self.loss == "malis" and self.task != "objects":
            raise ArgumentError("loss='malis' is of affinities: it needs task='objects'")

    def to_yaml(self) -> str:
        """Return it as YAML, a setting a line."""
        import yaml  # noqa: PLC0415  comes with an extra

        return str(yaml.safe_dump(asdict(self), sort_keys=False))

    @classmethod
    def from_yaml(cls, text: str, **others: Any) -> "TrainConfig":
        """Read what `to_yaml` wrote, or what somebody did; `others` come before it.

        Raises
        ------
        ArgumentError, ArgumentTypeError
            If that is no YAML, or a setting is unknown, of another type, or lacks.
        """
        import yaml  # noqa: PLC0415  comes with an extra

        try:
            read = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise ArgumentError(f"the settings are no YAML: {' '.join(str(error).split())}") from error
        if not isinstance(read, dict):
            raise ArgumentError(f"the settings are a {type(read).__name__}: they must be lines of 'name: value'")
        return cls.of(read | others)

    @classmethod
    def of(cls, values: dict[str, Any]) -> "TrainConfig":
        """Make one from a dictionary, unknown names refused."""
        names = [field.name for field in fields(cls)]
        if odd := [str(name) for name in values if name not in names]:
            raise ArgumentError(f"there is no setting {', '.join(odd)}: there are {', '.join(names)}")
        if lacking := [name for name in ("images", "masks", "out") if name not in values]:
            raise ArgumentError(f"the settings lack {', '.join(lacking)}")
        kinds = get_type_hints(cls)
        return cls(**{name: _number(value) if kinds[name] is float else value for name, value in values.items()})

    def crop_sides(self, ndim: int) -> tuple[int, ...]:
        """Return the sides of crops of images of so many axes.

        Raises
        ------
        ArgumentError, ArgumentTypeError
            If `crop` is not one for each axis.

        Examples
        --------
        >>> TrainConfig("a", "b", "c", crop=64).crop_sides(2), TrainConfig("a", "b", "c", crop=[64, 64, 16]).crop_sides(3)
        ((64, 64), (64, 64, 16))
        """
        if self.crop == []:
            raise ArgumentError("crop is []: it must be one number, or one for each axis")
        return per_axis(self.crop, ndim, "crop", 1)

    def fingerprint(self) -> dict[str, Any]:
        """Return the settings that a checkpoint depends on."""
        found = {name: value for name, value in asdict(self).items() if name not in _FREE}
        return found | {"labels": [list(pair) for pair in (self.labels or {}).items()]}

    @property
    def folder(self) -> Path:
        """`out` as a path."""
        return Path(self.out)


def _number(value: Any) -> Any:
    """Return a number that YAML takes for text, such as 1e-3."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _check(name: str, value: Any, kind: Any) -> None:
    """Refuse a value of another type than the field's."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ArgumentError(f"{name} is {value!r}: it must be one of {', '.join(get_args(kind))}")
        return
    kinds = tuple(get_origin(k) or k for k in (get_args(kind) if get_origin(kind) is UnionType else (kind,)))
    fits = type(value) in kinds or (float in kinds and type(value) is int)
    if not fits:
        words = " or ".join("None" if k is type(None) else k.__name__ for k in kinds)
        raise ArgumentTypeError(f"{name} is {value!r}, a {type(value).__name__}: it must be {words}")
