"""Section 9.6: graphical models of labels, and convolutional networks that are trained with them."""

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.scenes_drawn import coarse_scores, crf, refined
from ninefold.chapter.training import interval, seeded
from ninefold.segment.scenes import texture_scenes
from ninefold.structured.crf import BilateralKernel, DenseCRF, GaussianKernel
from ninefold.structured.crf.models import EnergyCleaning, GridMRF, SpatialModel
from ninefold.structured.partition import boundary_f

__all__ = ["ENTRIES"]


@entry(
    "9.6 grid field",
    "Probabilities of neighbouring labels",
    "图模型可以描述相邻像素的概率关系",
    claim="Graphical models describe how probable labels of neighbouring pixels are together: what a pixel shows is weighed against what its "
    "neighbours are.",
    source="section 9.6; notes, section 6",
    uses=("ninefold.structured.crf.models.GridMRF",),
)
def grid_field() -> Finding:
    draw = torch.Generator().manual_seed(0)
    chain = GridMRF(3, ndim=1, weight=0.75, method="sum_product", iterations=7).double()
    unary = torch.randn(1, 3, 7, generator=draw, dtype=torch.float64)
    maps = torch.tensor([*product(range(3), repeat=7)])
    logs = unary[0, maps, torch.arange(7)].sum(1) - 0.75 * (maps[:, 1:] != maps[:, :-1]).sum(1)
    exact = torch.stack([((maps == k) * logs.softmax(0)[:, None]).sum(0) for k in range(3)])
    apart = _apart(chain(unary).softmax(1)[0], exact)
    masks = torch.stack([mask for _, mask in texture_scenes(6, 0, size=(48, 56))])
    seen = 2.0 * nn.functional.one_hot(masks).movedim(-1, 1) + 1.5 * torch.randn(6, 3, 48, 56, generator=draw)
    wrong = [_wrong(logits, masks) for logits in (seen, GridMRF(3, weight=1.5)(seen).detach())]
    return Finding(
        f"{len(maps):,} labellings counted: marginals agree to {apart:.0e}; scenes in noise: {wrong[0]:.1%} wrong pixels alone, {wrong[1]:.1%} with neighbours",
        apart < 1e-12 and wrong[1] < wrong[0] / 4,
        {"labellings": len(maps), "apart": apart, "wrong": wrong},
    )


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


def _wrong(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1) != labels).double().mean())


@entry(
    "9.6 Ning",
    "Trained to maximise what?",
    "卷积网络可以极大化图模型的近似解 (Ning et al. 2005)",
    claim="A convolutional network can maximise the approximate solution of the graphical model.",
    correction="A slip: it is trained to maximise an approximation of the graphical model's training objective, whose normalisation sums over "
    "all label maps. It matters which: an energy trained through its own descent cleans label maps; trained by pseudo-likelihood, each label "
    "given the true ones around it, the same energy and descent make them worse.",
    source="section 9.6; Ning et al. 2005; Besag 1975",
    uses=("ninefold.structured.crf.models.EnergyCleaning",),
    long=True,
)
def ning(*, trial: bool = False) -> Finding:
    seeds, steps = (2, 2) if trial else (4, 40)
    objectives = {
        "through the descent": lambda model, x, y: nn.functional.cross_entropy(model(x), y),
        "by pseudo-likelihood": lambda model, x, y: model.pseudo_likelihood(x, y),
    }
    seen, found = [], {}
    for name, objective in objectives.items():
        pairs = [_cleaned(seed, steps, objective) for seed in range(seeds)]
        seen, found[name] = [before for before, _ in pairs], [after for _, after in pairs]
    gains = {name: interval([a - b for a, b in zip(seen, after, strict=True)]) for name, after in found.items()}
    told = ", ".join(f"{name} {interval(after)}" for name, after in found.items())
    return Finding(
        f"wrong labels of unseen maps: {interval(seen)} in noise; cleaned, trained {told}",
        gains["through the descent"].above(0.0) and gains["by pseudo-likelihood"].high < 0,
        {"seen": seen, "cleaned": found, "gains": {name: gain.json() for name, gain in gains.items()}},
    )


def _cleaned(seed: int, steps: int, objective: Any) -> tuple[float, float]:
    """Return the share of wrong labels of unseen maps, before and after an energy learned from twelve maps cleans them."""
    with seeded(seed):
        model = EnergyCleaning(2, 6, 5)
        adam = torch.optim.Adam(model.parameters(), 0.05)
        unary, labels = _stripes(12, 2 * seed)
        for _ in range(steps):
            adam.zero_grad()
            objective(model, unary, labels).backward()
            adam.step()
        unary, labels = _stripes(12, 2 * seed + 1)
        with torch.no_grad():
            return _wrong(unary, labels), _wrong(model(unary), labels)


def _stripes(count: int, seed: int, noise: float = 2.2) -> tuple[Tensor, Tensor]:
    """Return maps of upright stripes two pixels wide seen through noise, as logits, and their labels."""
    draw = torch.Generator().manual_seed(seed)
    shift = torch.randint(0, 4, (count, 1, 1), generator=draw)
    labels = ((torch.arange(14) + shift) // 2 % 2).expand(count, 12, 14)
    seen = 2 * (2 * labels - 1).float() + noise * torch.randn(count, 12, 14, generator=draw)
    return torch.stack((-seen, seen), 1) / 4, labels.contiguous()


@entry(
    "9.6 Tompson",
    "Where one part is tells where the others are",
    "Thompson et al. 2014",
    claim="Convolutions with large kernels pass the messages of a graphical model between maps of parts, so that network and model train together.",
    correction="The first author is Tompson. (The message's form is remembered.) A kernel that is one peak moves a map by its offset; on a tree "
    "of parts the result is the exact marginal.",
    source="section 9.6; Tompson et al. 2014 (arXiv 1406.2984)",
    uses=("ninefold.structured.crf.models.SpatialModel",),
)
def tompson() -> Finding:
    draw = torch.Generator().manual_seed(0)
    heat = torch.randn(1, 2, 6, 7, generator=draw, dtype=torch.float64)
    model = SpatialModel(2, (11, 13), pairs=[(1, 1), (1, 0)], unary="softmax").double()
    prior = torch.rand(11, 13, generator=draw, dtype=torch.float64) + 0.1
    peaks = torch.zeros(2, 11, 13, dtype=torch.float64)
    peaks[0, 5, 6], peaks[1, 7, 3] = 1, 1  # a part and itself; two below and three to the left of the other
    found = []
    with torch.no_grad():
        model.bias.fill_(-60)
        for kernel in (torch.stack((peaks[0], prior)), peaks):
            model.kernel.copy_(kernel.clamp_min(1e-26).expm1().log())
            found.append(model(heat)[0, 1].exp())
    place = heat.flatten(2).softmax(2).view_as(heat)[0]
    joint = torch.zeros(6, 7, dtype=torch.float64)
    for r, c, rr, cc in product(range(6), range(7), range(6), range(7)):
        joint[r, c] += place[1, r, c] * place[0, rr, cc] * prior[r - rr + 5, c - cc + 6]
    moved = torch.zeros(6, 7, dtype=torch.float64)
    moved[2:, :-3] = place[0, :-2, 3:]
    apart = _apart(found[0] / found[0].sum(), joint / joint.sum()), _apart(found[1], place[1] * moved)
    return Finding(
        f"two parts, {42 * 42:,} pairs of places summed: marginals agree to {apart[0]:.0e}; a map moved by (2, -3) to {apart[1]:.0e}",
        max(apart) < 1e-12,
        {"pairs": 42 * 42, "apart": apart},
    )


@entry(
    "9.6 dense CRF",
    "Every pixel a neighbour of every other",
    "DeepLab: 全连接 CRF",
    claim="A fully connected field, with kernels of place and colour, refines the labels of a network by mean field: a wrong pixel in a flat region "
    "is put right, and without kernels nothing changes.",
    source="Chen et al. 2015 (arXiv 1412.7062); Kraehenbuehl and Koltun 2011",
    uses=("ninefold.structured.crf.DenseCRF", "ninefold.structured.crf.BilateralKernel"),
)
def dense_crf() -> Finding:
    draw = torch.Generator().manual_seed(0)
    logits, image = (torch.randn(1, c, 9, 13, generator=draw, dtype=torch.float64) for c in (3, 2))
    kernels = GaussianKernel(2.0, 0.7), BilateralKernel(4.0, 0.8, 1.3)
    layer = partial(DenseCRF, normalization="none", self_term=False, engine="exact")
    with torch.no_grad():
        found, none = layer(kernels, steps=2)(logits, image), layer((), steps=2)(logits, image)
        places = torch.cartesian_prod(torch.arange(9.0), torch.arange(13.0)).double()
        colours, unary = image[0].flatten(1).T, logits[0].flatten(1)
        near, far = (torch.cdist(places, places) / width for width in (2.0, 4.0))
        pairs = 0.7 * (-(near**2) / 2).exp() + 1.3 * (-(far**2 + (torch.cdist(colours, colours) / 0.8) ** 2) / 2).exp()
        pairs.fill_diagonal_(0)
        q = unary.softmax(0)
        for _ in range(2):
            q = (unary + q @ pairs).softmax(0)
        flat = torch.zeros(1, 2, 12, 9)
        flat[:, 0], flat[0, :, 5, 4] = 1.0, torch.tensor([0.0, 1.0])
        wrong = [int(x.argmax(1).sum()) for x in (flat, DenseCRF(kernels, steps=5)(flat, torch.zeros(1, 2, 12, 9)))]
    apart, unchanged = _apart(found[0].flatten(1), q), _apart(none, logits.softmax(1))
    return Finding(
        f"two steps and all {117 * 116:,} pairs summed agree to {apart:.0e}; wrong pixels in a flat region: {wrong[0]}, then {wrong[1]}; no kernels: {unchanged:.0e}",
        apart < 1e-5 and unchanged < 1e-12 and wrong == [1, 0],
        {"apart": apart, "unchanged": unchanged, "wrong": wrong},
    )


@entry(
    "9.6 CRF boundaries",
    "Boundaries from the image",
    "DeepLab: 全连接 CRF 恢复边界",
    claim="Scores of stride 8, enlarged, know what is there, not where it ends; the dense CRF puts the boundaries back where the image has them.",
    correction="Where the image has any: where regions are told apart by texture and not by colour, it gains little. The scores are true labels on a "
    "grid, in noise.",
    source="Chen et al. 2015 (arXiv 1412.7062)",
    uses=("ninefold.structured.crf.DenseCRF", "ninefold.structured.partition.boundary_f"),
    picture=refined,
)
def boundaries() -> Finding:
    found: dict[str, tuple[list[float], list[float], list[float], list[float]]] = {}
    for name, tint in (("coloured", 2.0), ("grey", 0.0)):
        rows = []
        for k, (image, mask) in enumerate(texture_scenes(5, 1, size=(64, 72), tint=tint)):
            scores = coarse_scores(mask, k)
            cleaned = crf(scores, image)
            true = mask.numpy()
            maps = [x.argmax(0).numpy() for x in (scores, cleaned)]
            rows.append([*(boundary_f(true, m, tolerance=1).f for m in maps), *(float((m != true).mean()) for m in maps)])
        found[name] = tuple(map(list, zip(*rows, strict=True)))  # type: ignore[assignment]
    gains = {name: interval([b - a for a, b in zip(runs[0], runs[1], strict=True)]) for name, runs in found.items()}
    before, after, wrong, left = (float(np.mean(runs)) for runs in found["coloured"])
    grey = found["grey"]
    return Finding(
        f"boundary F {before:.2f} to {after:.2f}, wrong pixels {wrong:.1%} to {left:.1%}; grey: F {np.mean(grey[0]):.2f} to {np.mean(grey[1]):.2f}",
        gains["coloured"].above(0.0) and gains["coloured"].above(gains["grey"]),
        {"found": found, "gains": {name: gain.json() for name, gain in gains.items()}},
    )


ENTRIES = (grid_field, ning, tompson, dense_crf, boundaries)
