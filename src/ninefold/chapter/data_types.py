"""Section 9.7: the six kinds of data of table 9.1, each with what moves when the data moves; and data of any size."""

import torch
from torch import Tensor
from torch import nn as torch_nn

from ninefold import nn
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.given import differing, integers
from ninefold.chapter.scenes_drawn import melody, octaves
from ninefold.chapter.training import interval
from ninefold.data import FixedGrid, Padded, Sample, joint_positions, log_spectrogram, run_padded, spectrogram
from ninefold.data.skeleton import Joint, Skeleton
from ninefold.matrix import conv_matrix
from ninefold.spec.conv import ConvSpec

__all__ = ["ENTRIES", "moves_along"]

_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def moves_along(sample: Sample, kernel: tuple[int, ...]) -> Finding:
    """Find whether output follows input along each axis: of data that begins later, the output is the same one, later.

    Examples
    --------
    >>> moves_along(Sample(integers(1, 20), ("time",), (0.1,)), (3,)).holds
    True
    """
    layer = _CONVS[len(kernel)](len(sample.data), 4, kernel, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(integers(*layer.weight.shape, seed=1))
        whole = layer(sample.data[None])
        pairs = [(layer(_from(sample.data[None], axis)), _from(whole, axis)) for axis in range(len(kernel))]
    compared, wrong = sum(a.numel() for a, _ in pairs), sum(differing(a, b) for a, b in pairs)
    still = sum(int((a == whole[tuple(map(slice, a.shape))]).sum()) for a, _ in pairs)
    shape, found = ("x".join(map(str, x.shape)) for x in (sample.data, whole[0]))
    return Finding(
        f"{shape} to {found}; {compared - wrong:,} of {compared:,} numbers move along with {', '.join(sample.axes)}; {still:,} stay as they are",
        wrong == 0 and still < compared / 4,
        {"shape": [*sample.data.shape], "output": [*whole.shape[1:]], "compared": compared, "differ": wrong, "still": still},
    )


def _from(x: Tensor, axis: int, start: int = 3) -> Tensor:
    return x.narrow(2 + axis, start, x.shape[2 + axis] - start)


@entry(
    "9.7 waveform",
    "1-D, one channel: sound",
    "表格 9.1: 音频波形",
    claim="An audio waveform: the axis convolved over is time, and what is heard later comes out later.",
    source="table 9.1",
    uses=("ninefold.data.Sample", "ninefold.nn.Conv1d"),
)
def waveform() -> Finding:
    return moves_along(Sample(integers(1, 400), ("time",), (1 / 8000,), ("s",)), (5,))


@entry(
    "9.7 skeleton",
    "1-D, many channels: a skeleton that moves",
    "表格 9.1: 骨架动画",
    claim="Skeleton animation: every time has the angles of all joints, a channel each; a movement made later comes out later.",
    correction="Along time alone. The order of the joints is no axis: channels are mixed by weights of their own, and exchanging two joints "
    "changes both the pose and the output.",
    source="table 9.1",
    uses=("ninefold.data.joint_positions", "ninefold.nn.Conv1d"),
)
def skeleton() -> Finding:
    turns = ("Zrotation", "Xrotation", "Yrotation")
    joints = Joint("hip", -1, (0, 0, 0), turns), Joint("knee", 0, (0, -4, 0), turns), Joint("foot", 1, (0, -3, 1), turns)
    moves = Sample(10 * integers(9, 60), ("time",), (1 / 60,), ("s",), {"skeleton": Skeleton(joints)})
    later, exchanged = moves.with_data(moves.data[:, 3:]), moves.with_data(moves.data.roll(3, 0))
    places = joint_positions(moves)
    follows = (joint_positions(later) - places[..., 3:]).abs().max().item()
    apart = (joint_positions(exchanged)[2] - places[2]).abs().max().item()
    found = moves_along(moves, (4,))
    return Finding(
        f"{found.measured}; feet to {follows:.0e}, joints exchanged {apart:.1f}",
        found.holds and follows < 1e-12 and apart > 1,
        found.numbers | {"positions": follows, "exchanged": apart},
    )


@entry(
    "9.7 spectrogram",
    "2-D, one channel: sound over frequency",
    "表格 9.1: 音频频谱, 平移对应音高",
    claim="A spectrogram turns sound into an image of frequency over time: convolved along frequency, the same melody in another octave gives "
    "the same output, moved.",
    correction="On a logarithmic axis. On the linear one of a Fourier transform, an octave doubles all distances, and no move makes the outputs "
    "alike.",
    source="table 9.1",
    uses=("ninefold.data.log_spectrogram", "ninefold.data.spectrogram", "ninefold.nn.Conv2d"),
    picture=octaves,
)
def pitch() -> Finding:
    torch.manual_seed(0)
    layer, octave = nn.Conv2d(1, 3, (5, 3), bias=False), 24
    frames = [*range(8, 30), *range(48, 70)]  # in the middle of each chord, whose windows are shorter an octave up
    with torch.no_grad():
        low, high = (
            layer(log_spectrogram(melody(k), octave, 110.0, 96, 200, scale="magnitude").data[None])[..., frames] for k in (0, 1)
        )
        plain, up = (layer(spectrogram(melody(k), 512, 200, scale="magnitude").data[None])[..., frames] for k in (0, 1))
    change = (high[:, :, octave:] - low[:, :, octave:]).abs().max()
    left = float((high[:, :, octave:] - low[:, :, :-octave]).abs().max() / change)
    rows = plain.shape[2]
    best = min(float((up[:, :, s:] - plain[:, :, : rows - s]).abs().max() / (up - plain).abs().max()) for s in range(64))
    return Finding(
        f"of the change that an octave makes, {left:.1%} is left after a move of {octave} rows; on the linear axis {best:.0%} after the best of 64",
        left < 0.05 and best > 0.3,
        {"logarithmic": left, "linear": best, "rows": octave},
    )


@entry(
    "9.7 image",
    "2-D, many channels: a colour image",
    "表格 9.1: 彩色图像",
    claim="A colour image: red, green and blue are channels; the kernel moves over height and width, and the output with the image along both.",
    source="table 9.1",
    uses=("ninefold.data.Sample", "ninefold.nn.Conv2d"),
)
def image() -> Finding:
    return moves_along(Sample(integers(3, 22, 31), ("height", "width"), (1, 1), ("pixel", "pixel")), (3, 2))


@entry(
    "9.7 volume",
    "3-D, one channel: a scan",
    "表格 9.1: CT 等体数据",
    claim="Volumetric data, mostly of medical scans such as CT: one channel, and three axes along which the output moves with the body.",
    source="table 9.1",
    uses=("ninefold.data.Sample", "ninefold.nn.Conv3d"),
)
def volume() -> Finding:
    return moves_along(Sample(integers(1, 14, 11, 12), ("x", "y", "z"), (1, 1, 2.5), ("mm", "mm", "mm")), (3, 2, 4))


@entry(
    "9.7 video",
    "3-D, many channels: colour video",
    "表格 9.1: 彩色视频",
    claim="Colour video: the axes are time, height and width, and the output moves along all three.",
    source="table 9.1; Chen et al. 2010",
    uses=("ninefold.data.Sample", "ninefold.nn.Conv3d"),
)
def video() -> Finding:
    return moves_along(
        Sample(integers(3, 11, 16, 20), ("time", "height", "width"), (1 / 25, 1, 1), ("s", "pixel", "pixel")), (2, 3, 4)
    )


@entry(
    "9.7 sizes",
    "The same kernel on images of different sizes",
    "处理尺寸各异的数据: kernel 被利用的次数由 input 的 size 决定",
    claim="A kernel is applied as often as the input's size asks, and the output has as many numbers: one layer induces another matrix for each "
    "size, with the same few weights.",
    source="section 9.7; notes, section 6",
    uses=("ninefold.nn.Conv2d", "ninefold.matrix.conv_matrix"),
)
def sizes() -> Finding:
    layer = nn.Conv2d(1, 1, (3, 2), bias=False).double()
    weight = torch.arange(1.0, 7.0).double().reshape(1, 1, 3, 2)
    x = integers(1, 1, 11, 13)
    with torch.no_grad():
        layer.weight.copy_(weight)
        small, large, padded = layer(x[..., :8, :9]), layer(x), layer(torch.nn.functional.pad(x, (2, 1, 1, 3)))
    matrices = [conv_matrix(ConvSpec.from_module(layer), size, weight=weight).toarray() for size in ((8, 9), (11, 13))]
    weights = [len(set(matrix[matrix != 0].tolist())) for matrix in matrices]
    made = [torch.from_numpy(m) @ part.flatten() for m, part in zip(matrices, (x[..., :8, :9], x), strict=True)]
    wrong = [differing(small, large[..., :6, :8]), differing(padded[..., 1:10, 2:14], large)]
    wrong += [differing(a, y.flatten()) for a, y in zip(made, (small, large), strict=True)]
    shapes = " and ".join("x".join(map(str, m.shape)) for m in matrices)
    return Finding(
        f"applied {small.numel()} and {large.numel()} times; matrices {shapes}, both of {weights[0]} weights; {sum(wrong)} of {small.numel() + large.numel()} numbers differ inside",
        not sum(wrong) and weights == [6, 6] and [m.shape for m in matrices] == [(48, 72), (108, 143)],
        {
            "applied": [small.numel(), large.numel()],
            "matrices": [[*m.shape] for m in matrices],
            "weights": weights,
            "differ": wrong,
        },
    )


@entry(
    "9.7 fixed output",
    "A fixed number of outputs from any size",
    "插入一个 pooling layer 使 pooling region 同 input 的 size 成比例",
    claim="Where the output must have a fixed size, a pooling layer whose regions grow with the input gives it; a dense layer alone takes one "
    "size only.",
    source="section 9.7; figure 9.11; notes, section 6",
    uses=("ninefold.data.FixedGrid", "ninefold.data.run_padded", "ninefold.data.Padded"),
)
def fixed_output() -> Finding:
    torch.manual_seed(0)
    convolutions = nn.Conv2d(1, 4, 3, padding=1), torch_nn.ReLU(), nn.Conv2d(4, 4, (2, 3))
    net = torch_nn.Sequential(*convolutions, FixedGrid(3), torch_nn.Flatten(), torch_nn.Linear(36, 5)).double()
    dense = torch_nn.Sequential(*convolutions, torch_nn.Flatten(), torch_nn.Linear(4 * 8 * 12, 5)).double()
    pictures = [torch.rand(1, h, w, dtype=torch.float64) for h, w in ((9, 14), (16, 11), (23, 30))]
    refused = 0
    with torch.no_grad():
        alone = torch.cat([net(picture[None]) for picture in pictures])
        apart = (run_padded(net, Padded.of(pictures)) - alone).abs().max().item()
        for picture in pictures:
            try:
                dense(picture[None])
            except RuntimeError:
                refused += 1
    return Finding(
        f"5 scores each at 3 of 3 sizes, padded in one batch to {apart:.0e}; without the pooling {refused} of 3 sizes do not fit",
        alone.shape == (3, 5) and apart < 1e-12 and refused == 2,
        {"scores": [*alone.shape], "apart": apart, "refused": refused},
    )


@entry(
    "9.7 no sense",
    "Sizes that differ because things do",
    "如果数据的尺寸各异是由于模式的不同而引起的, 那么卷积就没有意义了",
    claim="Convolution makes sense for sizes that differ because more or less was observed of the same kind; not where some have another kind "
    "of observation, too: grades of all who apply to a college, tests of some.",
    source="section 9.7; notes, section 6",
    uses=("ninefold.nn.Conv1d", "ninefold.data.FixedGrid"),
)
def no_sense() -> Finding:
    missed: dict[str, list[float]] = {"same kind": [], "other kind": [], "own weights": []}
    for seed in range(4):
        draw = torch.Generator().manual_seed(seed)
        truth, taken = torch.randn(600, generator=draw), torch.rand(600, generator=draw) < 0.5
        marks = [t + 0.5 * torch.randn(4 + 8 * int(k), generator=draw) for t, k in zip(truth, taken, strict=True)]
        missed["same kind"].append(_missed(_shared(marks), truth))
        grade, test = torch.randn(2, 600, generator=draw)
        wanted = torch.where(taken, grade - 0.5 * test, grade)
        forms = [torch.stack((g, t)) if k else g[None] for g, t, k in zip(grade, test, taken, strict=True)]
        missed["other kind"].append(_missed(_shared(forms), wanted))
        missed["own weights"].append(_missed(torch.stack((grade, test * taken, taken), 1), wanted))
    same, other, own = (interval(shares) for shares in missed.values())
    return Finding(
        f"variance missed: 4 or 12 marks {same}; a grade and perhaps a test, shared weights {other}, own weights {own.mean:.1%}",
        other.above(same) and other.above(0.2) and own.high < 0.01,
        missed,
    )


def _shared(rows: list[Tensor]) -> Tensor:
    """Return what 32 random units with the same weights for all observations give, their mean over the observations."""
    torch.manual_seed(0)
    net = torch_nn.Sequential(nn.Conv1d(1, 32, 1), torch_nn.ReLU(), FixedGrid(1))
    with torch.no_grad():
        found: Tensor = run_padded(net, Padded.of([row[None] for row in rows])).flatten(1)
    return found


def _missed(features: Tensor, wanted: Tensor) -> float:
    """Return the share of the variance of unseen examples that the best linear readout of the others misses."""
    told = torch.cat((features, torch.ones(len(features), 1)), 1).double()
    half, y = len(told) // 2, wanted.double()
    seen = told[:half]
    readout = torch.linalg.solve(seen.T @ seen + 1e-3 * half * torch.eye(told.shape[1], dtype=torch.float64), seen.T @ y[:half])
    left = y[half:] - told[half:] @ readout
    return float(left.square().mean() / y[half:].var())


ENTRIES = (waveform, skeleton, pitch, image, volume, video, sizes, fixed_output, no_sense)
