"""Section 9.5 of the supplement: the checkerboard, before and after training, in networks that double a picture's size.

Energy at the artefact's frequency, one half along one axis or both: of a constant picture, as a fraction of all; of the
error on photographs, against its energy at the frequencies beside. The second is 1 where nothing repeats every second pixel.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ninefold import nn
from ninefold.chapter.data import photograph
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.training import Interval, fit, interval, seeded, tabled

__all__ = ["ENTRIES", "UPSAMPLERS", "constant_energy", "picture", "residual_energy"]

MAPS, COARSE, EDGE = 8, 20, 4
LEARNT, UNSEEN = ("china", "camera", "chelsea"), ("flower", "astronaut", "coffee")


def _resized(mode: str) -> list[torch.nn.Module]:
    return [torch.nn.Upsample(scale_factor=2, mode=mode), nn.Conv2d(MAPS, 1, 3, padding=1, padding_mode="replicate")]


UPSAMPLERS: dict[str, Callable[[], list[torch.nn.Module]]] = {
    "transposed 3/2": lambda: [nn.ConvTranspose2d(MAPS, 1, 3, 2, 1, 1)],
    "transposed 4/2": lambda: [nn.ConvTranspose2d(MAPS, 1, 4, 2, 1)],
    "transposed 3/2, convolution": lambda: [nn.ConvTranspose2d(MAPS, MAPS, 3, 2, 1, 1), nn.Conv2d(MAPS, 1, 3, padding=1)],
    "nearest, convolution": lambda: _resized("nearest"),
    "bilinear, convolution": lambda: _resized("bilinear"),
}


def network(name: str) -> torch.nn.Sequential:
    """Return a convolution, ReLU and an upsampler; for ``"bilinear"`` the interpolation alone, which learns nothing.

    Examples
    --------
    >>> {network(name)(torch.zeros(1, 1, 5, 6)).shape for name in (*UPSAMPLERS, "bilinear")}
    {torch.Size([1, 1, 10, 12])}
    """
    if name == "bilinear":
        return torch.nn.Sequential(torch.nn.Upsample(scale_factor=2, mode="bilinear"))
    first = nn.Conv2d(1, MAPS, 3, padding=1, padding_mode="replicate")
    return torch.nn.Sequential(first, torch.nn.ReLU(), *UPSAMPLERS[name]())


def picture() -> Any:
    """Draw what each network gives for a constant, untrained, and for a photograph, untrained and trained."""
    from matplotlib.figure import Figure  # noqa: PLC0415  loaded by those who look

    names = (*UPSAMPLERS, "bilinear")
    figure = Figure(figsize=(2 * len(names), 6), layout="constrained")
    axes = figure.subplots(3, len(names))
    for column, name in zip(axes.T, names, strict=True):
        with seeded(0):
            model, unseen = network(name), crops(UNSEEN, 3, 1)[0][1:2]
            with torch.no_grad():
                shown = [model(torch.full((1, 1, COARSE, COARSE), 0.5)), model(unseen)]
            if name != "bilinear":
                fit(model, *crops(LEARNT, 100, 0), steps=300, batch=16, rate=3e-3, loss=torch.nn.functional.mse_loss)
            with torch.no_grad():
                shown.append(model(unseen))
        for axis, image in zip(column, shown, strict=True):
            axis.imshow(image[0, 0, EDGE:-EDGE, EDGE:-EDGE], cmap="gray")
            axis.set(xticks=[], yticks=[])
        column[0].set_title(name, fontsize="small")
    for axis, row in zip(axes[:, 0], ("flat, untrained", "photograph, untrained", "photograph, trained"), strict=True):
        axis.set_ylabel(row, fontsize="small")
    return figure


@entry(
    "S.3 checkerboard trained",
    "What training leaves of the checkerboard",
    "棋盘效应(训练后)",
    claim="A kernel divisible by the stride, or a convolution of stride 1 at the end, relieves the checkerboard of a transposed "
    "convolution; resizing and then convolving avoids it.",
    correction="Untrained, a divisible kernel has the artefact too, its four interleaved parts being drawn apart. Training takes it "
    "out of constants nearly everywhere, but not out of photographs, where nearest and then convolving has a little of it as well.",
    source="notes, supplement 3; Odena, Dumoulin and Olah 2016",
    uses=("ninefold.nn.ConvTranspose2d", "ninefold.nn.Conv2d"),
    picture=picture,
    long=True,
)
def trained_artefact(*, trial: bool = False) -> Finding:
    size = {"seeds": 2, "steps": 1, "squares": 6} if trial else {"seeds": 8, "steps": 1000, "squares": 300}
    found = {name: doubled(name, **size) for name in (*UPSAMPLERS, "bilinear")}
    *transposed, nearest, bilinear = (found[name] for name in UPSAMPLERS)
    never = all(by[f"constant {when}"].high < 1e-9 for by in (nearest, bilinear) for when in ("before", "after"))
    fades = all(by["constant before"].above(1e-3) and by["constant before"].above(by["constant after"]) for by in transposed)
    stays = all(by["photographs after"].above(nearest["photographs after"]) for by in transposed)
    told = ", ".join(f"{name} {by['photographs after'].text(1, 1)}" for name, by in found.items())
    return Finding(f"energy against beside it after training: {told}", never and fades and stays, tabled(found))


def doubled(name: str, *, seeds: int, steps: int, squares: int) -> dict[str, Interval]:
    """Return the energies before and after training, and the error, over the seeds."""
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        with seeded(seed):
            model, told, unseen = network(name), crops(LEARNT, squares, 2 * seed), crops(UNSEEN, squares // 2, 2 * seed + 1)
            for when in ("before", "after"):
                if when == "after" and name != "bilinear":
                    fit(model, *told, steps=steps, batch=16, rate=3e-3, loss=torch.nn.functional.mse_loss)
                with torch.no_grad():
                    flat, out = model(torch.full((1, 1, COARSE, COARSE), 0.5)), model(unseen[0])
                found.setdefault(f"constant {when}", []).append(constant_energy(flat))
                found.setdefault(f"photographs {when}", []).append(residual_energy(out - unseen[1]))
                found.setdefault(f"mean square error {when}", []).append(float((out - unseen[1]).square().mean()))
    return {what: interval(values) for what, values in found.items()}


def crops(names: tuple[str, ...], count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return squares of photographs at half their size, by means over 2x2 pixels, and as they are."""
    draw = torch.Generator().manual_seed(seed)
    sources, fine, side = [photograph(name) for name in names], [], 2 * COARSE
    for i in range(count):
        source = sources[i % len(sources)]
        top, left = (int(torch.randint(n - side + 1, (), generator=draw)) for n in source.shape)
        fine.append(source[top : top + side, left : left + side])
    stack = torch.stack(fine)[:, None]
    return torch.nn.functional.avg_pool2d(stack, 2), stack


def constant_energy(flat: Tensor) -> float:
    """Return which fraction of the energy of pictures ``(N, 1, H, W)``, without their edges, is at the artefact's frequencies.

    Examples
    --------
    >>> stripes = torch.tensor([1.0, -1.0]).repeat(1, 1, 16, 8)
    >>> constant_energy(stripes), constant_energy(torch.ones(1, 1, 16, 16)), constant_energy(stripes + 1)
    (1.0, 0.0, 0.5)
    """
    power = spectrum(flat)
    return float(torch.stack([power[at] for at in halves(power)]).sum() / power.sum())


def residual_energy(error: Tensor) -> float:
    """Return the energy at the artefact's frequencies in errors ``(N, 1, H, W)``, against that three steps of frequency beside.

    Examples
    --------
    >>> noise = torch.randn(2000, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    >>> abs(residual_energy(noise) - 1) < 0.1, residual_energy(noise + torch.tensor([0.5, -0.5]).repeat(12)) > 10
    (True, True)
    """
    power = spectrum(error)
    steps = [(down, across) for down in range(-3, 4) for across in range(-3, 4) if max(abs(down), abs(across)) == 3]
    height, width = power.shape
    at = torch.stack([power[place] for place in halves(power)])
    beside = torch.stack([power[(y + down) % height, (x + across) % width] for y, x in halves(power) for down, across in steps])
    return float(at.mean() / beside.mean())


def spectrum(pictures: Tensor) -> Tensor:
    """Return the energy of each frequency, mean over the pictures, without their edges."""
    energy: Tensor = torch.fft.fft2(pictures[:, 0, EDGE:-EDGE, EDGE:-EDGE].double()).abs().square()
    return energy.mean(0)


def halves(power: Tensor) -> tuple[tuple[int, int], ...]:
    """Return the places of frequency one half along the rows, the columns, and both."""
    y, x = (n // 2 for n in power.shape)
    return (y, 0), (0, x), (y, x)


ENTRIES = (trained_artefact,)
