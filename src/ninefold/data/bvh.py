"""Animated skeletons in Biovision's BVH: a hierarchy of joints, and one line of numbers for every frame."""

import re
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

import numpy as np
import torch

from ninefold.data.opening import present
from ninefold.data.sample import Sample, finite
from ninefold.data.skeleton import Joint, Offset, Skeleton, skeleton_of
from ninefold.errors import ArgumentError, DataError
from ninefold.storing import write_whole

__all__ = ["read_bvh", "write_bvh"]

_JOINED = re.compile(r"[0-9.][-+]")
_CHANNELS = {f"{axis}{kind}".lower(): f"{axis}{kind}" for axis in "XYZ" for kind in ("position", "rotation")}


def read_bvh(path: str | Path, *, incomplete: str = "error", encoding: str = "utf-8-sig") -> Sample:
    """Read an animated skeleton: joint angles, and translations, over time.

    Joints may have any number of channels in any order. Time is linear in the length of the file.

    Parameters
    ----------
    path : str or Path
    incomplete : {"error", "keep"}
        What is done with a file that holds more or fewer frames than it says, or ends within one: "keep" reads whole frames.
    encoding : str
        Of the joints' names, as Python calls it, such as ``"latin-1"`` or ``"shift-jis"``.

    Returns
    -------
    Sample
        ``(C, T)`` float64, for a number of six decimals does not fit float32; axis ``time`` in seconds. Rotations are in degrees.
        `meta`: ``skeleton`` (`Skeleton`), ``channels`` (names such as ``Hips.Zrotation``), ``promised`` (frames, by its header).

    Raises
    ------
    DataError
        With the number of the line, if the file is something else, a frame has too few or too many numbers, or frames lack.

    Examples
    --------
    >>> import tempfile
    >>> hand = Joint("hand", 0, (2, 0, 0), ("Yrotation", "Xrotation"))
    >>> arm = Skeleton((Joint("shoulder", -1, (0, 0, 0), ("Zrotation",)), hand))
    >>> moves = torch.tensor([[0.0, 9.5], [1.25, 2.0], [3.0, -4.0]], dtype=torch.float64, device="cpu")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_bvh(f"{folder}/wave.bvh", Sample(moves, ("time",), (1 / 60,), ("s",), {"skeleton": arm}))
    ...     again = read_bvh(f"{folder}/wave.bvh")
    >>> torch.equal(again.data, moves), again.meta["channels"], again.spacing == (1 / 60,)
    (True, ('shoulder.Zrotation', 'hand.Yrotation', 'hand.Xrotation'), True)
    """
    if incomplete not in ("error", "keep"):
        raise ArgumentError(f"incomplete={incomplete!r} is not one of 'error', 'keep'")
    path = present(path, "BVH animation")
    try:
        lines = path.read_text(encoding).splitlines()
    except LookupError as error:
        raise ArgumentError(f"encoding={encoding!r} is none that Python knows") from error
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} is not BVH, which is text: {error}; names in another alphabet need encoding=") from error
    motion = next((k for k, line in enumerate(lines) if line.strip().upper() == "MOTION"), None)
    if not lines or "HIERARCHY" not in next((line.upper() for line in lines if line.strip()), ""):
        raise DataError(f"{path} is not BVH: it must begin with HIERARCHY")
    if motion is None:
        raise DataError(
            f"{path}: no line of {len(lines)} says MOTION, after which the frames come; the file has been cut or has none"
        )
    skeleton = Skeleton(tuple(_Hierarchy(path, lines[:motion]).joints))
    frames, step, begin = _header(path, lines, motion)
    data = _frames(path, lines, begin, len(skeleton.channels), None if incomplete == "keep" else frames)
    meta = {"skeleton": skeleton, "channels": skeleton.channels, "promised": frames}
    return Sample(torch.from_numpy(data).T.contiguous(), ("time",), (step,), ("s",), meta)


class _Hierarchy:
    """The joints of lines that lie before MOTION."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        self.path, self.joints = path, list[Joint]()
        self.tokens, self.held, self.line = self._tokens(lines), list[str](), 0
        if self._next("HIERARCHY").upper() != "HIERARCHY":
            raise self._wrong("HIERARCHY must come first")
        while (word := self._word()) is not None:
            if word.upper() != "ROOT":
                raise self._wrong(f"{word!r} where ROOT or MOTION belongs")
            self._joints()
        if not self.joints:
            raise self._wrong("there is no ROOT before MOTION")

    def _tokens(self, lines: list[str]) -> Iterator[str]:
        """Yield words; names, which may hold spaces, in one piece."""
        for self.line, line in enumerate(lines, 1):
            words = line.replace("{", " { ").replace("}", " } ").split()
            while words:
                word = words.pop(0)
                yield word
                if word.upper() in ("ROOT", "JOINT", "END"):
                    name = []
                    while words and words[0] != "{":
                        name.append(words.pop(0))
                    yield " ".join(name)

    def _wrong(self, what: str) -> DataError:
        return DataError(f"{self.path}, line {self.line}: {what}")

    def _word(self) -> str | None:
        return self.held.pop() if self.held else next(self.tokens, None)

    def _next(self, wanted: str) -> str:
        word = self._word()
        if word is None:
            raise self._wrong(f"the hierarchy ends where {wanted} belongs")
        return word

    def _expect(self, wanted: str) -> None:
        if (word := self._next(wanted)).upper() != wanted:
            raise self._wrong(f"{word!r} where {wanted} belongs")

    def _joints(self) -> None:
        """Read a root and what hangs on it, however deep."""
        open_: list[int] = []  # joints whose brackets are open
        parent, word = -1, "ROOT"
        while True:
            if word.upper() in ("ROOT", "JOINT"):
                self._joint(parent)
                parent = len(self.joints) - 1
                open_.append(parent)
            elif word.upper() == "END":
                self._end(parent)
            elif word == "}":
                open_.pop()
                if not open_:
                    return
                parent = open_[-1]
            else:
                raise self._wrong(f"{word!r} where JOINT, End Site or }} belongs")
            word = self._next("}")
            if word.upper() == "ROOT":
                raise self._wrong("ROOT within a joint: a } is missing before it")

    def _joint(self, parent: int) -> None:
        name = self._next("a name")
        self._expect("{")
        self._expect("OFFSET")
        offset, channels = self._offset(), tuple[str, ...]()
        word = self._next("CHANNELS")
        if word.upper() == "CHANNELS":
            channels = self._channels(name)
        else:  # a joint that does not move
            self.held.append(word)
        self.joints.append(Joint(name, parent, offset, channels))

    def _channels(self, name: str) -> tuple[str, ...]:
        count = self._next("the number of channels")
        if not count.isdecimal():
            raise self._wrong(f"joint {name}: CHANNELS {count!r} is no number of channels")
        words = [self._next(f"channel {k} of {count}") for k in range(1, int(count) + 1)]
        if unknown := [word for word in words if word.lower() not in _CHANNELS]:
            raise self._wrong(f"joint {name}: CHANNELS {count}, but {unknown[0]!r} is none of {', '.join(_CHANNELS.values())}")
        channels = tuple(_CHANNELS[word.lower()] for word in words)
        if len(set(channels)) < len(channels):
            raise self._wrong(f"joint {name}: a channel comes twice in {' '.join(channels)}")
        return channels

    def _end(self, parent: int) -> None:
        self._next("Site")
        self._expect("{")
        self._expect("OFFSET")
        joint = self.joints[parent]
        self.joints[parent] = Joint(joint.name, joint.parent, joint.offset, joint.channels, (*joint.ends, self._offset()))
        word = self._next("}")
        if word.upper() == "CHANNELS" and self._channels("End Site") == ():  # some write that it has none
            word = self._next("}")
        if word != "}":
            raise self._wrong(f"{word!r} where }} belongs")

    def _offset(self) -> Offset:
        x, y, z = (self._number() for _ in range(3))
        return x, y, z

    def _number(self) -> float:
        word = self._next("a number")
        try:
            number = float(word)
        except ValueError:
            raise self._wrong(f"{word!r} where one of the three numbers of OFFSET belongs") from None
        if not isfinite(number):
            raise self._wrong(f"an OFFSET of {word}")
        return number


def _header(path: Path, lines: list[str], motion: int) -> tuple[int, float, int]:
    """Return the number of frames, the time between them in seconds, and the number of the line where frames begin."""
    found: list[str] = []
    at = motion + 1
    for key in ("Frames:", "Frame Time:"):
        while at < len(lines) and not lines[at].strip():
            at += 1
        line = " ".join(lines[at].split()).replace(" :", ":", 1) if at < len(lines) else ""
        if not line.lower().startswith(key.lower()):
            raise DataError(f"{path}, line {at + 1}: {line[:40]!r} where '{key}' and a number belong")
        found.append(line[len(key) :].strip())
        at += 1
    if not found[0].isdecimal():
        raise DataError(f"{path}, line {at - 1}: Frames: {found[0]!r} is no number of frames")
    try:
        step = float(found[1])
    except ValueError:
        step = 0.0
    if not (isfinite(step) and step > 0):
        raise DataError(f"{path}, line {at}: Frame Time: {found[1]!r} must be a positive number of seconds")
    return int(found[0]), step, at


def _frames(path: Path, lines: list[str], begin: int, channels: int, promised: int | None) -> np.ndarray:
    """Return the numbers (T, C) of lines from `begin` on; where nothing is promised, without a last frame that is cut off."""
    rows: list[np.ndarray] = []
    numbers = [k for k in range(begin, len(lines)) if lines[k].strip()]
    for k in numbers:
        words = lines[k].split()
        if len(words) < channels and promised is None and k == numbers[-1]:
            break
        if len(words) != channels:
            joined = next((word for word in words if _JOINED.search(word)), None)
            told = f"{len(words)} numbers in frame {len(rows) + 1}; the {channels} channels need {channels}"
            raise DataError(f"{path}, line {k + 1}: {told}" + (f"; {joined!r} lacks a space" if joined else ""))
        try:
            row = np.fromiter(map(float, words), np.float64, channels)
        except ValueError:
            raise DataError(f"{path}, line {k + 1}: {_no_number(words)!r} in frame {len(rows) + 1} is no number") from None
        rows.append(row)
    if promised is not None and len(rows) != promised:
        told = f"the file ends after {len(rows)} frames, and it promises {promised}"
        raise DataError(f"{path}, line {len(lines)}: {told}; incomplete='keep' reads those")
    data = np.stack(rows) if rows else np.empty((0, channels))
    if not np.isfinite(data).all():
        k = int(np.flatnonzero(~np.isfinite(data).all(1))[0])
        raise DataError(f"{path}, line {numbers[k] + 1}: frame {k + 1} holds NaN or infinity")
    return data


def _no_number(words: list[str]) -> str:
    for word in words:
        try:
            float(word)
        except ValueError:
            return word
    return ""  # pragma: no cover


def write_bvh(path: str | Path, sample: Sample, decimals: int | None = None) -> None:
    """Write an animated skeleton; the file is there whole, or as it was before.

    Parameters
    ----------
    path : str or Path
    sample : Sample
        ``(C, T)`` with a `Skeleton` under ``meta["skeleton"]``, and its spacing in seconds.
    decimals : int, optional
        Of every number in a frame; None writes as many digits as bring back the same float64 (or float32).

    Raises
    ------
    ArgumentError, ShapeError
        If there is no skeleton, it has other channels, or a number is none.
    DataError
        If the file cannot be written.
    """
    skeleton, data = skeleton_of(sample), finite(sample.data, "an animation")
    if sample.units not in (("s",), None):
        raise ArgumentError(f"an animation's spacing is in seconds, got {sample.units}")
    lines, order = ["HIERARCHY"], list[int]()
    for root in skeleton.children(-1):
        lines += _written(skeleton, root, 0, order)
    lines += ["MOTION", f"Frames: {data.shape[1]}", f"Frame Time: {sample.spacing[0]!r}"]
    form = str if decimals is None else f"{{:.{decimals}f}}".format
    lines += [" ".join(form(v) for v in row) for row in data[_rows(skeleton, order)].T.contiguous().numpy()]
    write_whole(Path(path), ("\n".join(lines) + "\n").encode(), DataError)


def _written(skeleton: Skeleton, root: int, depth: int, order: list[int]) -> list[str]:
    """Return the lines of a joint and of all that hang on it, and note their order."""
    order.append(root)
    joint, tab = skeleton.joints[root], "\t" * depth
    lines = [
        f"{tab}{'JOINT' if joint.parent >= 0 else 'ROOT'} {joint.name}",
        f"{tab}{{",
        f"{tab}\tOFFSET {_triple(joint.offset)}",
    ]
    if joint.channels:
        lines.append(f"{tab}\tCHANNELS {len(joint.channels)} {' '.join(joint.channels)}")
    for end in joint.ends:
        lines += [f"{tab}\tEnd Site", f"{tab}\t{{", f"{tab}\t\tOFFSET {_triple(end)}", f"{tab}\t}}"]
    for child in skeleton.children(root):
        lines += _written(skeleton, child, depth + 1, order)
    return [*lines, f"{tab}}}"]


def _rows(skeleton: Skeleton, order: list[int]) -> list[int]:
    """Return the numbers of the channels of joints in the order of a file, where all of a branch come together."""
    begins = [0]
    for joint in skeleton.joints:
        begins.append(begins[-1] + len(joint.channels))
    return [row for k in order for row in range(begins[k], begins[k + 1])]


def _triple(offset: Offset) -> str:
    return " ".join(repr(float(v)) for v in offset)
