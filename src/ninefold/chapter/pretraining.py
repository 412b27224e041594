"""Section 7 of the notes: what features cost that are not trained, when they are paid for, and when they pay."""

from typing import Any

import torch

from ninefold import models, nn
from ninefold.chapter.data import Labelled, digits
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.few_labels import parted, pixels, scores
from ninefold.chapter.figures import curves
from ninefold.chapter.networks import multiply_adds
from ninefold.chapter.training import Errors, error, fit, interval, seeded, tabled
from ninefold.learn import ConvFeatures, KMeansFilters, RandomFilters, initialize
from ninefold.spec.conv import ConvSpec

__all__ = ["ENTRIES", "FIRST", "network", "trained"]

PATCHES = 3000  # of digits, to learn kernels from


@entry(
    "9.9 frozen",
    "Features that are not trained",
    "用不需要训练的特征减少训练开销",
    claim="The output layer is cheap, learning the features is dear: every step runs the whole network forwards and backwards. Features that "
    "are not trained save that.",
    source="section 9.9",
    uses=("ninefold.learn.initialize", "ninefold.models.mobilenet_v1"),
)
def frozen() -> Finding:
    told = Labelled(*(part[:500] for part in digits()))
    source = KMeansFilters(32, 4, contrast=None, whitening=0.01, n_patches=PATCHES, random_state=0).fit(told.pictures[:, 0])
    with seeded(0):
        model = network(32)
        names = initialize(model, source, frozen=True)
        features = model[:-1].eval()(told.pictures).detach()  # once
        last = torch.nn.Linear(128, 10)
        model[-1].load_state_dict(last.state_dict())
    for layer, given in ((last, features), (model, told.pictures)):
        steps = torch.optim.SGD([p for p in layer.parameters() if p.requires_grad], 0.1)
        for _ in range(10):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(layer(given), told.labels).backward()
            steps.step()
    apart = float((model[-1].weight - last.weight).detach().abs().max())
    whole, output = multiply_adds(models.mobilenet_v1()), 1024 * 1000
    saved = 90 * 3 * whole / (whole - output + 90 * 2 * output)  # forwards and two gradients, against forwards once
    return Finding(
        f"MobileNet: output layer {output / whole:.1%} of the work, 90 epochs of it alone {saved:.0f} times cheaper; on digits the same weights to {apart:.0e}",
        model[0].weight.grad is None and names == ["0"] and apart < 1e-5 and output / whole < 0.01,
        {"share": output / whole, "saved": saved, "apart": apart},
    )


@entry(
    "9.9 inference",
    "When patches are paid for",
    "用 patches 训练出非常大的模型, 使 inference 的时间增加",
    claim="Learning kernels from patches, very large models can be trained, and the time of inference increases.",
    correction="Learning runs no convolution at all: that is paid for at inference only, and there it is what any network of as many kernels "
    "pays. What grows is the model.",
    source="section 9.9; Coates, Lee and Ng 2011; Coates et al. 2013",
    uses=("ninefold.learn.KMeansFilters", "ninefold.ConvSpec.macs"),
)
def inference() -> Finding:
    kernels, values = 1600, 6 * 6 * 3
    learning = 100_000 * values * kernels  # distances of 100,000 patches: an iteration of k-means, whatever the images' size
    layer = ConvSpec(3, kernels, 6)
    once = {side: layer.macs((side, side)) for side in (32, 96)}
    epoch = {side: 2 * 50_000 * n for side, n in once.items()}  # of 50,000 images: forwards, and the kernels' gradient
    return Finding(
        f"1,600 kernels: learning {learning / 1e9:.0f}G multiply-adds an iteration, by gradient {epoch[32] / 1e9:,.0f}G an epoch; at inference {once[32] / 1e9:.2f}G an image",
        once[32] == 729 * values * kernels and learning < epoch[32] < epoch[96],
        {"learning": learning, "inference": {str(k): v for k, v in once.items()}, "epoch": {str(k): v for k, v in epoch.items()}},
    )


@entry(
    "9.9 labels",
    "Whether it pays while labels are few",
    "标签数据较少时流行; 如今通常采取纯粹的监督学习",
    claim="Learning features without labels was popular while labels were few; today networks are mostly trained purely with labels.",
    source="section 9.9",
    uses=("ninefold.learn.ConvFeatures", "ninefold.learn.KMeansFilters", "ninefold.learn.initialize"),
    picture=lambda: curves("9.9 labels", "labels a digit", "test error"),
    long=True,
)
def labels(*, trial: bool = False) -> Finding:
    counts, seeds = ((2, 70), 2) if trial else ((1, 2, 5, 10, 30, 70), 6)
    rows = {
        "pixels": pixels(),
        "random, soft": ConvFeatures(RandomFilters(64, 4), "soft"),
        "k-means, triangle": ConvFeatures(KMeansFilters(64, 4, n_patches=PATCHES), "triangle"),
    }
    found = {name: {n: wrong(scores(made, each=n, seeds=seeds)) for n in counts} for name, made in rows.items()}
    for start in ("all trained", "k-means, then all trained"):
        found[start] = {n: trained(start, n, seeds=seeds, trial=trial) for n in counts}
    gain = {
        n: interval(
            [a - b for a, b in zip(found["all trained"][n].test_runs, found["k-means, triangle"][n].test_runs, strict=True)]
        )
        for n in counts
    }
    told = "; ".join(f"{n} labels a digit {gain[n]}" for n in (2, 10, 70) if n in counts)
    return Finding(
        f"test error saved by k-means: {told}",
        gain[2].above(0.0) and not gain[70].above(0.0),
        tabled(found) | {"saved": tabled({"": gain})},
    )


@entry(
    "9.9 width",
    "How many more kernels it takes without labels",
    "非常大的模型",
    claim="Features that are learned without labels need very large models.",
    correction="Larger than labels would: few kernels do worse without labels than with them; at 128 they are even, and drawn at random as well.",
    source="section 9.9; Coates, Lee and Ng 2011",
    uses=("ninefold.learn.initialize", "ninefold.learn.KMeansFilters"),
    picture=lambda: curves("9.9 width", "kernels", "test error"),
    long=True,
)
def width(*, trial: bool = False) -> Finding:
    widths = (2, 128) if trial else (2, 8, 128)
    found = {
        start: {w: trained(start, 70, w, seeds=4, trial=trial) for w in widths}
        for start in ("all trained", "k-means, frozen", "random, frozen")
    }
    plain, kept, _ = found.values()
    told = "; ".join(
        f"{start} " + ", ".join(f"{runs[w].test.mean:.1%} with {w}" for w in widths if w in (2, 8, 128))
        for start, runs in found.items()
    )
    return Finding(told, kept[widths[1]].worse(plain[widths[1]]) and not kept[128].worse(plain[128]), tabled(found))


def network(kernels: int) -> torch.nn.Sequential:
    """Return a convolution of 4x4, ReLU, means over a 2x2 grid, standardised, and a linear layer, for digits.

    Examples
    --------
    >>> network(8)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    pooled = [torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.BatchNorm1d(4 * kernels, affine=False)]
    return torch.nn.Sequential(nn.Conv2d(1, kernels, 4), torch.nn.ReLU(), *pooled, torch.nn.Linear(4 * kernels, 10))


def trained(start: str, each: int, kernels: int = 64, *, seeds: int = 6, trial: bool) -> Errors:
    """Return the errors of `network` by how its convolution starts and whether it learns, on the digits and labels of `scores`."""
    told, found = digits(), []
    for seed in range(seeds):
        pool, labelled, unseen = (torch.from_numpy(part) for part in parted(told.labels.numpy(), seed, each))
        with seeded(seed):
            model, seen = network(kernels), Labelled(told.pictures[labelled], told.labels[labelled])
            if start != "all trained":
                initialize(model, _source(start, kernels, seed).fit(told.pictures[pool, 0]), frozen="frozen" in start)
            fit(model, *seen, steps=1 if trial else 300, rate=1e-2)
            found.append((error(model, seen), error(model, Labelled(told.pictures[unseen], told.labels[unseen]))))
    return Errors(*map(list, zip(*found, strict=True)))


def wrong(right: list[float]) -> Errors:
    """Return errors of a classifier of which only what it has right of unseen pictures is known."""
    return Errors([0.0] * len(right), [1 - a for a in right])


def _source(start: str, kernels: int, seed: int) -> Any:
    if "random" in start:
        return RandomFilters(kernels, 4, random_state=seed)
    return KMeansFilters(kernels, 4, contrast=None, whitening=0.01, n_patches=PATCHES, random_state=seed)


FIRST = (frozen,)
ENTRIES = (inference, labels, width)
