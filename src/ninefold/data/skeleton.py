"""Skeletons of joints, and where their joints are: rotations and translations from the root outwards."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ninefold.data.sample import Sample, sample_of
from ninefold.errors import ArgumentError, ShapeError

__all__ = ["Joint", "Skeleton", "joint_positions"]

Offset = tuple[float, float, float]


@dataclass(frozen=True)
class Joint:
    """A joint: what it hangs on, how far from there, and which numbers move it.

    Parameters
    ----------
    name : str
    parent : int
        Number of the joint it hangs on, which comes before it; -1 for a root.
    offset : tuple of float
        From the parent, in the file's units of length.
    channels : tuple of str
        Any of ``Xposition``, ``Yrotation`` and so on, in the order in which they act; rotations in degrees.
    ends : tuple of offsets
        The tips of what hangs on it, which do not move (``End Site``).
    """

    name: str
    parent: int
    offset: Offset
    channels: tuple[str, ...]
    ends: tuple[Offset, ...] = ()


@dataclass(frozen=True)
class Skeleton:
    """Joints, parents before children.

    Parameters
    ----------
    joints : tuple of Joint

    Raises
    ------
    ArgumentError
        If a joint hangs on one that does not come before it.

    Examples
    --------
    >>> Skeleton((Joint("hip", -1, (0, 0, 0), ("Yposition", "Zrotation")), Joint("knee", 0, (0, -4, 0), ("Xrotation",))))
    Skeleton(2 joints, 3 channels)
    """

    joints: tuple[Joint, ...]

    def __post_init__(self) -> None:
        for k, joint in enumerate(self.joints):
            if not -1 <= joint.parent < k:
                raise ArgumentError(f"joint {k} ({joint.name}) hangs on joint {joint.parent}, which must come before it")

    def __repr__(self) -> str:
        return f"Skeleton({len(self.joints)} joints, {len(self.channels)} channels)"

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of all channels in their order, such as ``Hips.Xposition``."""
        return tuple(f"{joint.name}.{channel}" for joint in self.joints for channel in joint.channels)

    def children(self, k: int) -> list[int]:
        """Return the numbers of the joints that hang on joint k; those of the roots for -1."""
        return [n for n, joint in enumerate(self.joints) if joint.parent == k]


def joint_positions(sample: Sample, *, translation: str = "added", ends: bool = False) -> Tensor:
    """Return where every joint is at every time: forward kinematics, differentiable.

    A joint's frame is its parent's, moved by its offset and its position channels and turned by its rotation channels in the
    order in which they are listed: ``R = R_1 R_2 R_3`` for channels 1, 2, 3, applied to column vectors (Meredith and Maddock,
    Motion Capture File Formats Explained, 2001).

    Parameters
    ----------
    sample : Sample
        ``(C, T)`` with a `Skeleton` under ``meta["skeleton"]``, as `read_bvh` returns it; angles in degrees.
    translation : {"added", "instead"}
        Whether position channels are added to the offset, as the format says, or stand for it, as some exporters that write six
        channels for every joint mean them, and as the package bvhio takes those of the root.
    ends : bool
        Append the tips, those of the first joint first.

    Returns
    -------
    Tensor of shape ``(joints, 3, T)``
        In the file's units of length; of the sample's dtype.

    Raises
    ------
    ArgumentError, ShapeError
        If there is no skeleton, or it has other channels.

    Examples
    --------
    >>> arm = Skeleton((Joint("shoulder", -1, (0, 0, 0), ("Zrotation",)), Joint("hand", 0, (2, 0, 0), ())))
    >>> angles = torch.tensor([[0.0, 90.0]], dtype=torch.float64, device="cpu")
    >>> turned = Sample(angles, ("time",), (0.1,), ("s",), {"skeleton": arm})
    >>> joint_positions(turned)[1].round().int()
    tensor([[2, 0],
            [0, 2],
            [0, 0]], dtype=torch.int32)
    """
    skeleton, data = skeleton_of(sample), sample.data
    if translation not in ("added", "instead"):
        raise ArgumentError(f"translation={translation!r} is not one of 'added', 'instead'")
    places, turns, tips, at = list[Tensor](), list[Tensor](), list[Tensor](), 0
    for joint in skeleton.joints:
        moved, turn, at = _local(joint, data, at, translation)
        if joint.parent >= 0:
            up = turns[joint.parent]
            moved, turn = places[joint.parent] + _turned(up, moved), up @ turn
        places.append(moved)
        turns.append(turn)
        tips += [moved + _turned(turn, _column(end, data)) for end in joint.ends]
    return torch.stack([*places, *tips] if ends else places).movedim(1, 2)


def skeleton_of(sample: Sample) -> Skeleton:
    """Return the skeleton of an animation, checked.

    Raises
    ------
    ArgumentError, ShapeError
    """
    skeleton = sample_of(sample, "an animation").meta.get("skeleton")
    if not isinstance(skeleton, Skeleton):
        raise ArgumentError(f"meta['skeleton'] must be a Skeleton, as read_bvh gives it, got {type(skeleton).__name__}")
    shape, wanted = tuple(sample.data.shape), len(skeleton.channels)
    if sample.data.ndim != 2 or shape[0] != wanted:
        raise ShapeError(f"data has shape {shape}; the skeleton's {wanted} channels over time are ({wanted}, T)")
    return skeleton


def _local(joint: Joint, data: Tensor, at: int, translation: str) -> tuple[Tensor, Tensor, int]:
    """Return a joint's translation (T, 3) and rotation (T, 3, 3) within its parent, and the number of the next channel."""
    moves: dict[str, Tensor] = {}
    turn = torch.eye(3, dtype=data.dtype, device=data.device).expand(data.shape[1], 3, 3)
    for k, channel in enumerate(joint.channels):
        if channel.endswith("rotation"):
            turn = turn @ _rotation("XYZ".index(channel[0]), data[at + k].deg2rad())
        else:
            moves[channel[0]] = data[at + k]
    offset = torch.zeros_like(_column(joint.offset, data)) if moves and translation == "instead" else _column(joint.offset, data)
    nothing = torch.zeros_like(data[0]) if len(data) else data.new_zeros(data.shape[1])
    moved = torch.stack([moves.get(axis, nothing) for axis in "XYZ"], -1) + offset
    return moved, turn, at + len(joint.channels)


def _rotation(axis: int, angle: Tensor) -> Tensor:
    """Return rotations (T, 3, 3) about an axis; from the next axis towards the one after it."""
    cos, sin = angle.cos(), angle.sin()
    one, nothing = torch.ones_like(angle), torch.zeros_like(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rows = [[nothing] * 3 for _ in range(3)]
    rows[axis][axis], rows[i][i], rows[i][j], rows[j][i], rows[j][j] = one, cos, -sin, sin, cos
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _column(offset: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(tuple(offset), dtype=like.dtype, device=like.device)


def _turned(turn: Tensor, by: Tensor) -> Tensor:
    return (turn @ by.expand(len(turn), 3).unsqueeze(-1)).squeeze(-1)
