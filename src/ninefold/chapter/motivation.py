"""Section 2 of the notes: sparse interactions, parameter sharing, equivariance."""

from math import prod

import numpy as np
import torch

from ninefold import functional as F
from ninefold.chapter import drawn
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.given import differing, integers
from ninefold.matrix import conv_matrix
from ninefold.spec.chain import positions, receptive_field
from ninefold.spec.conv import ConvSpec
from ninefold.spec.pool import PoolSpec

__all__ = ["ENTRIES"]


@entry(
    "9.2",
    "Sparse connectivity",
    "稀疏交互 (sparse interactions)",
    claim="An input affects only as many outputs as the kernel has taps, an output sees as many inputs; in a dense layer, all.",
    source="figures 9.2 and 9.3",
    uses=("ninefold.conv_matrix", "ninefold.ConvSpec.overlap"),
    picture=drawn.sparse,
)
def sparse() -> Finding:
    matrix = conv_matrix(ConvSpec(1, 1, (3,), padding="same"), 20, weight=torch.ones(1, 1, 3)).toarray() != 0
    fed, seen = int(matrix.sum(axis=0).max()), int(matrix.sum(axis=1).max())
    return Finding(
        f"an input feeds {fed} outputs, an output sees {seen} inputs, of 20",
        fed == seen == 3,
        {"fed": fed, "seen": seen, "dense": 20},
    )


@entry(
    "9.4 figure",
    "Deeper units see more",
    "深层的感受域比浅层的大",
    claim="Connections are sparse, yet units of deep layers see much of the input: 2 L + 1 positions after L layers of three taps.",
    source="figure 9.4",
    uses=("ninefold.spec.receptive_field",),
    picture=drawn.deeper,
)
def deeper_sees_more() -> Finding:
    formula = [receptive_field([ConvSpec(1, 1, (3,))] * depth)[0] for depth in range(1, 11)]
    x = torch.zeros(1, 1, 61, dtype=torch.float64, requires_grad=True)
    measured, y = [], x
    for _ in range(10):
        y = F.conv1d(y, torch.ones(1, 1, 3, dtype=torch.float64), padding="same")
        (reached,) = torch.autograd.grad(y[0, 0, 30], x, retain_graph=True)
        measured.append(int((reached != 0).sum()))
    return Finding(
        f"{measured[0]}, {measured[1]}, {measured[2]}, ... {measured[-1]} positions reach a unit",
        measured == formula == [2 * depth + 1 for depth in range(1, 11)],
        {"by_impulse": measured, "by_formula": formula},
    )


@entry(
    "9.4 deep",
    "The receptive field of a deep stack, by formula and by impulse",
    "感受域 (receptive field)",
    claim="R_i = R_(i-1) + (k_i - 1) d_i J_(i-1), J_i = J_(i-1) s_i, whatever kernels, strides, dilations and pooling are stacked.",
    source="section 9.2",
    uses=("ninefold.spec.receptive_field", "ninefold.spec.positions"),
)
def deep_receptive_field() -> Finding:
    stack = [(7, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2), (5, 1, 3), (2, 2, 1), (3, 1, 1), (3, 1, 4), (4, 3, 1), (3, 1, 1)]
    specs: list[ConvSpec | PoolSpec] = [ConvSpec(1, 1, (k,), stride=s, dilation=d) for k, s, d in stack]
    specs[5] = PoolSpec((2,), stride=2, reduction="average")
    x = torch.zeros(1, 1, 700, dtype=torch.float64, requires_grad=True)
    y = x
    for k, s, d in stack:
        y = F.conv1d(y, torch.ones(1, 1, k, dtype=torch.float64), stride=s, dilation=d)
    (reached,) = torch.autograd.grad(y[0, 0, 0], x)
    seen = reached.flatten().nonzero().flatten()
    measured, (formula,) = int(seen[-1] - seen[0]) + 1, receptive_field(specs)
    return Finding(
        f"{measured} by impulse, {formula} by formula, through {len(stack)} layers; {len(seen)} of them used",
        measured == formula and tuple(seen.tolist()) == positions(specs)[0],
        {"by_impulse": measured, "by_formula": formula, "used": len(seen), "layers": len(stack)},
    )


@entry(
    "9.6 edge detector",
    "The edge detector's five numbers",
    "参数共享节省存储与计算",
    claim="A 280 x 320 image minus its shifted self: 267,960 operations as a convolution, over 16 billion and eight billion stored "
    "numbers as a dense matrix; about 60,000 times less work.",
    source="figure 9.6",
    uses=("ninefold.ConvSpec", "ninefold.conv_matrix"),
)
def edge_detector() -> Finding:
    spec, size = ConvSpec(1, 1, (1, 2)), (280, 320)
    matrix = conv_matrix(spec, size, weight=torch.tensor([[[[-1.0, 1.0]]]]))
    image = integers(*size).numpy()
    right = bool(np.array_equal((matrix @ image.ravel()).reshape(280, 319), image[:, 1:] - image[:, :-1]))
    operations, dense = 3 * prod(spec.output_size(size)), prod(matrix.shape)
    ratio = 2 * dense / operations
    return Finding(
        f"{operations:,} operations, {matrix.nnz:,} of {dense:,} entries, {ratio:,.0f} times the work when dense",
        right and (operations, matrix.nnz, dense, round(ratio)) == (267_960, 178_640, 8_003_072_000, 59_733),
        {"operations": operations, "nonzero": matrix.nnz, "dense": dense, "ratio": ratio, "parameters": spec.parameters()},
    )


@entry(
    "9.5 parameters",
    "Parameters: dense, unshared, tiled, convolutional",
    "参数共享 (parameter sharing)",
    claim="A dense layer has m x n parameters, a local one k x n, a convolution k; the work of the last two is the same.",
    source="section 9.2, figure 9.5",
    uses=("ninefold.ConvSpec.parameters", "ninefold.ConvSpec.connections"),
)
def parameters() -> Finding:
    kinds = {"unshared": None, "tiled": 2, "convolutional": 1}
    specs = {name: ConvSpec(1, 1, (3, 3), period=t) for name, t in kinds.items()}
    held = {name: spec.parameters((32, 48)) for name, spec in specs.items()}
    work = {spec.macs((32, 48)) for spec in specs.values()}
    dense = 32 * 48 * 30 * 46
    return Finding(
        f"dense {dense:,}, unshared {held['unshared']:,}, tiled {held['tiled']}, convolutional {held['convolutional']} parameters; "
        f"{work} multiply-adds".replace("{", "").replace("}", ""),
        held == {"unshared": 9 * 30 * 46, "tiled": 36, "convolutional": 9} and work == {9 * 30 * 46},
        {"dense": dense, **held, "multiply_adds": sorted(work)},
    )


@entry(
    "9.2 translation",
    "Convolution is equivariant to translation",
    "平移同变性 (equivariance)",
    claim="Shifting, then convolving, is convolving, then shifting.",
    source="section 9.2",
    uses=("ninefold.nn.Conv2d",),
)
def translation() -> Finding:
    image, kernel = integers(1, 2, 6, 7), integers(3, 2, 3, 2, seed=1)

    def conv(x: torch.Tensor, mode: str) -> torch.Tensor:
        return F.conv2d(x, kernel, padding="same", padding_mode=mode)

    around = sum(
        differing(conv(image.roll(shift, (2, 3)), "circular"), conv(image, "circular").roll(shift, (2, 3)))
        for shift in np.ndindex(6, 7)
    )
    ahead, behind = conv(image.roll((1, 1), (2, 3)), "zeros"), conv(image, "zeros").roll((1, 1), (2, 3))
    inside = differing(ahead[..., 2:-1, 2:-1], behind[..., 2:-1, 2:-1])
    border = differing(ahead, behind) - inside
    return Finding(
        f"circular: {around} numbers differ in 42 shifts; zeros: {inside} inside, {border} at the border",
        around == inside == 0 < border,
        {"circular": around, "zeros_inside": inside, "zeros_border": border},
    )


@entry(
    "9.2 anywhere",
    "The same pattern is found anywhere",
    "检测同一模式在不同位置多次出现",
    claim="One kernel finds its pattern wherever, and however often, it appears.",
    source="section 9.2",
    uses=("ninefold.functional.conv2d",),
)
def anywhere() -> Finding:
    pattern = torch.tensor([[0, 2, 1], [3, 0, 2]]).double()
    image = torch.zeros(1, 1, 40, 60).double()
    places = [(3, 4), (20, 50), (33, 10), (12, 31)]
    for i, j in places:
        image[0, 0, i : i + 2, j : j + 3] += pattern
    response = F.conv2d(image, pattern[None, None])[0, 0]
    found = [tuple(at) for at in (response == pattern.square().sum()).nonzero().tolist()]
    return Finding(
        f"{len(found)} of {len(places)} copies found where they are, with the response {response.max():.0f}",
        sorted(found) == sorted(places) and bool(response.max() == pattern.square().sum()),
        {"found": len(found), "copies": len(places), "response": response.max().item()},
    )


@entry(
    "9.2 rotation",
    "Convolution is not equivariant to rotation or scale",
    "对尺度或旋转不具有同变性",
    claim="Turning or scaling the image does not turn or scale the feature map; the kernel would have to turn along.",
    source="section 9.2",
    uses=("ninefold.functional.conv2d",),
)
def rotation_and_scale() -> Finding:
    image, kernel = integers(1, 1, 6, 7), integers(1, 1, 3, 3, seed=1)
    turned = F.conv2d(image, kernel).rot90(1, (2, 3))
    alone, along = F.conv2d(image.rot90(1, (2, 3)), kernel), F.conv2d(image.rot90(1, (2, 3)), kernel.rot90(1, (2, 3)))
    doubled = F.conv2d(image.repeat_interleave(2, 2).repeat_interleave(2, 3), kernel)[..., :8, :10]
    scaled = differing(doubled, F.conv2d(image, kernel).repeat_interleave(2, 2).repeat_interleave(2, 3))
    return Finding(
        f"{differing(alone, turned)} of 20 differ when turned, {differing(along, turned)} when the kernel turns along; "
        f"{scaled} of 80 when doubled",
        differing(alone, turned) > 0 == differing(along, turned) and scaled > 0,
        {"turned": differing(alone, turned), "kernel_too": differing(along, turned), "doubled": scaled},
    )


@entry(
    "9.2 stride",
    "With a stride, only shifts by its multiples survive",
    "步幅下的同变性",
    claim="Convolution is equivariant to translation.",
    correction="With stride s only to shifts by multiples of s, which move the output by shift / s; a tiled layer of period t only to "
    "multiples of t.",
    source="section 9.2, eq. 9.8 and 9.10",
    uses=("ninefold.functional.conv1d", "ninefold.functional.tiled_conv1d"),
)
def strided_equivariance() -> Finding:
    signal, kernel, tiled = integers(1, 1, 24), integers(2, 1, 3, seed=1), integers(2, 3, 1, 3, seed=2)

    def strided(x: torch.Tensor) -> torch.Tensor:
        return F.conv1d(x, kernel, stride=3, padding="same", padding_mode="circular")

    def periodic(x: torch.Tensor) -> torch.Tensor:
        return F.tiled_conv1d(x, tiled, period=3, padding="same", padding_mode="circular")

    kept = [s for s in range(24) if any(torch.equal(strided(signal.roll(s, 2)), strided(signal).roll(q, 2)) for q in range(8))]
    cycle = [s for s in range(24) if torch.equal(periodic(signal.roll(s, 2)), periodic(signal).roll(s, 2))]
    return Finding(
        f"stride 3: {len(kept)} of 24 shifts survive; period 3: {len(cycle)} of 24",
        kept == cycle == list(range(0, 24, 3)),
        {"stride_3": kept, "period_3": cycle},
    )


ENTRIES = (
    sparse,
    deeper_sees_more,
    deep_receptive_field,
    edge_detector,
    parameters,
    translation,
    anywhere,
    rotation_and_scale,
    strided_equivariance,
)
