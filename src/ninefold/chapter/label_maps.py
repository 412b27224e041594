"""Section 9.6: outputs with a label for every pixel, and what becomes of their resolution."""

import copy
from typing import Any

import torch
from torch import Tensor
from torch import nn as torch_nn

from ninefold import nn
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.given import differing, integers
from ninefold.chapter.training import parameters
from ninefold.segment.scenes import texture_scenes
from ninefold.structured.networks import (
    GrowingContextNet,
    MultiscaleNet,
    RestorationNet,
    UnitStrideNet,
    aggregate,
    densify,
    label_grid,
    laplacian_pyramid,
    plain_context_net,
    reconstruct,
    shift_and_stitch,
    slide,
)

__all__ = ["ENTRIES", "seen"]


def seen(model: torch_nn.Module, size: tuple[int, ...]) -> int:
    """Return how many positions along the first axis of an image reach the middle one of a model's output.

    A copy has small positive weights, so that no path is cut off by a ReLU and no two cancel.

    Examples
    --------
    >>> seen(torch_nn.Conv1d(1, 1, 5, padding=2), (11,))
    5
    """
    model = copy.deepcopy(model).double()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1 / p[0].numel())
    image = torch.rand(1, 1, *size, dtype=torch.float64, requires_grad=True)
    found = model(image)
    middle = found[(0, slice(None), *(n // 2 for n in found.shape[2:]))].sum()
    (slopes,) = torch.autograd.grad(middle, image)
    rows = slopes[0, 0].abs().reshape(size[0], -1).sum(1)
    return int((rows > 1e-10 * rows.max()).sum())  # less is rounding, of transforms


@entry(
    "9.6 structured",
    "A distribution over labels for every pixel",
    "structured outputs: 输出 plane 的 size 比输入 plane 的 size 小",
    claim="A network can put out a tensor S, where S_ijk is the probability that pixel (j, k) is of class i. Poolings of large stride make "
    "its planes smaller than the image; without pooling they keep its size.",
    source="section 9.6; Jain et al. 2007",
    uses=("ninefold.nn.Conv2d", "ninefold.nn.MaxPool2d"),
)
def structured() -> Finding:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 24, 40, dtype=torch.float64)
    stages = [part for k in range(3) for part in (nn.Conv2d(1 if k == 0 else 4, 4, 3, padding="same"), nn.MaxPool2d(2))]
    pooled = torch_nn.Sequential(*stages, nn.Conv2d(4, 5, 1)).double()(image).softmax(1)
    kept = torch_nn.Sequential(*stages[::2], nn.Conv2d(4, 5, 1)).double()(image).softmax(1)
    wrong = (kept.sum(1) - 1).abs().max().item()
    return Finding(
        f"24x40 pixels: {pooled[0, 0].numel()} distributions behind three poolings of stride 2, {kept[0, 0].numel()} without; sums part from 1 by {wrong:.0e}",
        pooled.shape[2:] == (3, 5) and kept.shape[2:] == (24, 40) and wrong < 1e-12,
        {"pooled": [*pooled.shape[2:]], "kept": [*kept.shape[2:]], "sums": wrong},
    )


@entry(
    "9.6 Jain",
    "No pooling at all",
    "避免使用 pooling (Jain et al. 2007)",
    claim="Volumes of electron microscopy were restored by a network without pooling, of more than 34,000 parameters, whose weights may "
    "refine the result again.",
    correction="The number fits five hidden layers of 8 maps and 5x5x5 kernels; this layout is not printed in the paper's abstract.",
    source="section 9.6; Jain et al. 2007",
    uses=("ninefold.structured.networks.RestorationNet",),
)
def jain() -> Finding:
    torch.manual_seed(0)
    model = RestorationNet()
    count, once = parameters(model), seen(model, (27, 3, 2))
    again = RestorationNet(ndim=1)
    twice = seen(_Repeated(again, 2), (51,))
    kept = tuple(model(torch.rand(1, 1, 9, 7, 11)).shape[2:])
    return Finding(
        f"{count:,} = (8 + 4 x 64 + 8) x 125 + 41 parameters; 9x7x11 voxels stay {'x'.join(map(str, kept))}; one pass sees {once} per axis, two {twice}",
        count == (8 + 4 * 64 + 8) * 125 + 41 == 34_041 and kept == (9, 7, 11) and (once, twice) == (25, 49),
        {"parameters": count, "sees": [once, twice]},
    )


class _Repeated(torch_nn.Module):
    """A restoration, repeated with the same weights."""

    def __init__(self, model: RestorationNet, repeats: int) -> None:
        super().__init__()
        self.model, self.repeats = model, repeats

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image, self.repeats)


@entry(
    "9.6 label grid",
    "Labels on a coarser grid",
    "输出一个更低分辨率的网格标签 (Pinheiro and Collobert 2014)",
    claim="Another strategy is to put out a grid of labels of lower resolution. Of 133x133 pixels a plain network labels the middle one; "
    "recurrent ones see 25 then 121 pixels, or 23, 67 and 155.",
    correction="It costs what lies between the labels: a coarse grid repeated to full size is wrong along boundaries, whatever network fills "
    "it. (Layouts are remembered; their arithmetic is run here.)",
    source="section 9.6; Pinheiro and Collobert 2014",
    uses=("ninefold.structured.networks.label_grid", "ninefold.structured.networks.GrowingContextNet"),
)
def grid() -> Finding:
    masks = torch.stack([mask for _, mask in texture_scenes(20, 0)])
    lost = {}
    for stride in (2, 4, 8, 16):
        coarse = label_grid(masks, stride, offset=stride // 2)
        full = coarse.repeat_interleave(stride, 1).repeat_interleave(stride, 2)
        lost[str(stride)] = (full != masks).double().mean().item()
    with torch.no_grad():
        plain = plain_context_net()(torch.zeros(1, 3, 133, 133)).shape[2:]
        contexts = {kind: [GrowingContextNet(kind).context(n) for n in (1, 2, 3)] for kind in ("rcnn2", "rcnn3")}
        ends = [
            GrowingContextNet("rcnn2")(torch.zeros(1, 3, 121, 121)),
            GrowingContextNet("rcnn3", instances=3)(torch.zeros(1, 3, 155, 155)),
        ]
    sizes = [[s.shape[2] for s in scores] for scores in ends]
    told = ", ".join(f"{stride}: {share:.1%}" for stride, share in lost.items())
    return Finding(
        f"sizes left {sizes[0]} of 121, {sizes[1]} of 155; wrong pixels under true labels by stride {told}",
        tuple(plain) == (1, 1)
        and sizes == [[25, 1], [67, 23, 1]]
        and (contexts["rcnn2"][:2], contexts["rcnn3"]) == ([25, 121], [23, 67, 155])
        and 0 < lost["2"] < lost["4"] < lost["8"] < lost["16"],
        {"contexts": contexts, "sizes": sizes, "wrong": lost},
    )


@entry(
    "9.6 weak labels",
    "Pixels labelled from labels of images",
    "Pinheiro and Collobert 2015",
    claim="Pinheiro and Collobert 2015 refine a grid of labels as their paper of 2014 does.",
    correction="The book and the notes cite both together, but the later network is not recurrent. It is weakly supervised: it learns labels of "
    "pixels from labels of images, through log(mean exp(r s)) / r over the positions, which lies between mean and maximum.",
    source="section 9.6; Pinheiro and Collobert 2015",
    uses=("ninefold.structured.networks.aggregate", "ninefold.structured.networks.WeakLabels"),
)
def weak() -> Finding:
    torch.manual_seed(0)
    scores = torch.randn(3, 4, 7, 9, dtype=torch.float64)
    flat = scores.flatten(2)
    values = torch.stack([aggregate(scores, r) for r in (0.0, 1e-6, 0.1, 1.0, 5.0, 50.0, 1e6, float("inf"))])
    falls = int((values.diff(dim=0) < -1e-12).sum())
    ends = max((values[k] - other).abs().max().item() for k, other in ((0, flat.mean(2)), (-1, flat.amax(2))))
    near = max((values[k] - values[e]).abs().max().item() for k, e in ((1, 0), (-2, -1)))
    return Finding(
        f"r from 0 to infinity: {falls} of {values[1:].numel()} steps fall; mean and maximum are met to {ends:.0e}, neared to {near:.0e}",
        falls == 0 and ends < 1e-12 and near < 1e-4,
        {"falls": falls, "ends": ends, "near": near},
    )


@entry(
    "9.6 unit stride",
    "Pooling with unit stride",
    "理论上可以使用单位 stride 的 pooling",
    claim="In principle, pooling with unit stride keeps the size, too.",
    correction="It does, but the field of view then grows by kernel + window - 2 per stage, no longer by a factor of the stride.",
    source="section 9.6; notes, section 6",
    uses=("ninefold.structured.networks.UnitStrideNet",),
)
def unit_stride() -> Finding:
    torch.manual_seed(0)
    unit = UnitStrideNet(1, 3, widths=(4, 4, 4), pool="average", ndim=1)
    stages: list[torch_nn.Module] = []
    for k in range(3):
        stages += [nn.Conv1d(4 if k else 1, 4, 3, padding=1), torch_nn.ReLU(), nn.AvgPool1d(3, 2, 1)]
    strided = torch_nn.Sequential(*stages, nn.Conv1d(4, 3, 1))
    fields = seen(unit, (64,)), seen(strided, (64,))
    image = torch.rand(1, 1, 64)
    left = unit(image).shape[2], strided(image).shape[2]
    return Finding(
        f"three stages of kernel and window 3, 64 positions: unit stride {left[0]} labels that see {fields[0]}, stride 2 {left[1]} that see {fields[1]}",
        left == (64, 8) and fields == (1 + 3 * 4, 1 + 4 * (1 + 2 + 4)),
        {"labels": left, "fields": fields},
    )


@entry(
    "9.6 densify",
    "Full resolution from a strided classifier",
    "shift-and-stitch 与空洞卷积",
    claim="Resolution that strides lose comes back when the classifier runs on every shift of the image and the scores are interleaved; "
    "turning strides into dilations gives the same numbers at once.",
    source="section 9.6; Sermanet et al. 2013; Chen et al. 2015",
    uses=(
        "ninefold.structured.networks.densify",
        "ninefold.structured.networks.shift_and_stitch",
        "ninefold.structured.networks.slide",
    ),
)
def dense() -> Finding:
    layers: Any = (
        nn.Conv2d(1, 3, (3, 2)),
        torch_nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, (2, 3), stride=2),
        torch_nn.ReLU(),
        nn.Conv2d(4, 5, 2),
    )
    net = torch_nn.Sequential(*layers).double()
    with torch.no_grad():
        for k, p in enumerate(net.parameters()):
            p.copy_(integers(*p.shape, seed=k))
        image, field = integers(1, 1, 25, 31, seed=9), (10, 11)
        coarse, at_once = net(image), densify(net)(image)
        stitched, windows = shift_and_stitch(net, image), slide(net, image, field)
    wrong = differing(at_once, stitched), differing(at_once, windows)
    return Finding(
        f"{coarse[0, 0].numel()} positions become {at_once[0, 0].numel()}; {wrong[0]} of {stitched.numel():,} numbers differ from 16 runs stitched, {wrong[1]} from {windows[0, 0].numel()} windows",
        wrong == (0, 0) and densify(net).stride == (4, 4),
        {"coarse": coarse[0, 0].numel(), "dense": at_once[0, 0].numel(), "differ": wrong},
    )


@entry(
    "9.6 scales",
    "One network for all scales",
    "多尺度 (Farabet et al. 2013)",
    claim="Farabet et al. run one network, with one set of weights, over the levels of a Laplacian pyramid, which together hold the whole image.",
    source="section 9.6; Farabet et al. 2013",
    uses=("ninefold.structured.networks.MultiscaleNet", "ninefold.structured.networks.laplacian_pyramid"),
)
def scales() -> Finding:
    torch.manual_seed(0)
    image = torch.rand(2, 3, 37, 50, dtype=torch.float64)
    apart = (reconstruct(laplacian_pyramid(image, 4)) - image).abs().max().item()
    nets = {levels: MultiscaleNet(1, 5, widths=(4, 6), kernel_size=3, levels=levels) for levels in (1, 2, 3)}
    shared = {n: parameters(net.trunk) for n, net in nets.items()}
    fields = {n: seen(net, (96, 8)) for n, net in nets.items()}
    return Finding(
        f"4 levels give the image back to {apart:.0e}; with 1, 2, 3 levels {[*shared.values()]} shared weights see {[*fields.values()]} rows",
        apart < 1e-12 and len({*shared.values()}) == 1 and fields[1] < fields[2] < fields[3],
        {"apart": apart, "shared": [*shared.values()], "fields": [*fields.values()]},
    )


ENTRIES = (structured, jain, grid, weak, unit_stride, dense, scales)
