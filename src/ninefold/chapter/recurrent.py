"""Figure 9.17: labels of pixels that the same weights refine, step after step."""

from typing import Any

import torch
from torch import Tensor, nn

from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.figures import curves
from ninefold.chapter.training import interval, parameters, seeded
from ninefold.segment.scenes import texture_scenes
from ninefold.structured.networks import RecurrentConvNet, step_loss

__all__ = ["ENTRIES"]


@entry(
    "9.17 figure",
    "The recurrent convolutional network",
    "recurrent convolutional network, 图 9.17",
    claim="H(t) = act(U * X + W * Y(t-1)) and Y(t) = softmax(V * H(t)): a first guess of the labels without W, then refined by the same "
    "kernels U, V, W as often as one likes.",
    source="section 9.6; figure 9.17",
    uses=("ninefold.structured.networks.RecurrentConvNet",),
)
def network() -> Finding:
    torch.manual_seed(0)
    net = RecurrentConvNet(2, 5, 3, kernel_size=5, label_kernel_size=3, output_kernel_size=1).double()
    x = torch.rand(1, 2, 11, 8, dtype=torch.float64)
    of_image: list[Tensor] = []
    hook = net.U.register_forward_hook(lambda _layer, _given, found: of_image.append(found))
    found = net(x, 3)
    hook.remove()
    apart = {"two layers": _apart(found[0], net.V(net.act(net.U(x))))}
    apart["by the formula"] = _apart(found[2], net.V(net.act(net.U(x) + net.W(found[1].softmax(1)))))
    apart["continued"] = _apart(found[2], net(x, 2, labels=found[0].softmax(1))[1])
    whole = torch.autograd.grad(found[2].square().sum(), net.U.weight)[0]
    copies = [net.U(x) for _ in range(3)]
    labels = None
    for copy in copies:  # unrolled: one copy of U for each step
        logits = net.V(net.act(copy if labels is None else copy + net.W(labels)))
        labels = logits.softmax(1)
    parts = [torch.autograd.grad(logits.square().sum(), (copy,), retain_graph=True)[0] for copy in copies]
    summed = sum(torch.autograd.grad(net.U(x), net.U.weight, part)[0] for part in parts)
    apart["gradients of the copies"] = _apart(whole, summed)
    count, formula = parameters(net), 25 * 2 * 5 + 5 + 9 * 3 * 5 + 5 * 3 + 3
    with torch.no_grad():
        net.W.weight.zero_()
        still = [_apart(net(x, 1)[0], later) for later in net(x, 3)]
    return Finding(
        f"{count} parameters for any number of steps; U * X computed {len(of_image)} time in 3; {len(apart)} identities to {max(apart.values()):.0e}; W = 0: {max(still):.0e}",
        count == formula and len(of_image) == 1 and max(apart.values()) < 1e-10 and max(still) == 0,
        {"parameters": count, "computed": len(of_image), "apart": apart, "still": still},
    )


def _apart(a: Any, b: Any) -> float:
    return float((a - b).detach().abs().max())


@entry(
    "9.17 refined",
    "Each step improves the labels",
    "利用近邻像素通过数次迭代来 refine",
    claim="From an estimate of each pixel's label, interactions between neighbouring pixels refine it: with each repetition of the same "
    "convolutions, fewer pixels of unseen pictures are labelled wrong, in a network trained with a loss at every step.",
    source="section 9.6; figure 9.17; Pinheiro and Collobert 2014",
    uses=("ninefold.structured.networks.RecurrentConvNet", "ninefold.structured.networks.step_loss"),
    picture=lambda: curves("9.17 refined", "step", "wrong pixels of unseen scenes"),
    long=True,
)
def refined(*, trial: bool = False) -> Finding:
    seeds, scenes, unseen, steps, size = (1, 4, 3, 2, (24, 28)) if trial else (2, 40, 30, 400, (96, 112))
    seen = texture_scenes(scenes, 0, size=size)
    held = texture_scenes(unseen, 1, size=size, half="right")  # of the other halves of the photographs
    wrong = torch.stack([_wrong(seed, seen, held, steps) for seed in range(seeds)]).mean(0)
    errors = [interval(column.tolist()) for column in wrong.T]
    gains = [interval((wrong[:, k] - wrong[:, k + 1]).tolist()) for k in range(2)]
    told = ", ".join(str(error) for error in errors)
    return Finding(
        f"wrong pixels after steps 1, 2, 3: {told}; better by {gains[0]}, then {gains[1]}",
        all(gain.above(0.0) for gain in gains),
        {
            "wrong pixels": {str(k + 1): {"test": error.json()} for k, error in enumerate(errors)},
            "gains": [gain.json() for gain in gains],
        },
    )


def _wrong(seed: int, scenes: list[tuple[Tensor, Tensor]], held: list[tuple[Tensor, Tensor]], steps: int) -> Tensor:
    """Return the share of wrong pixels of each scene after each step, ``(scenes, 3)``, of a network trained here."""
    with seeded(seed):
        net = RecurrentConvNet(1, 24, 3, kernel_size=11, label_kernel_size=11, activation=nn.ReLU)
        adam = torch.optim.AdamW(net.parameters(), 0.01)
        falling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, steps)
        images, masks = (torch.stack(each) for each in zip(*scenes, strict=True))
        for _ in range(steps):
            chosen = torch.randperm(len(images))[:4]
            loss = step_loss(net(images[chosen], 3), masks[chosen])
            adam.zero_grad()
            loss.backward()
            adam.step()
            falling.step()
        with torch.no_grad():
            rows = [[(s.argmax(1)[0] != mask).double().mean() for s in net(image[None], 3)] for image, mask in held]
    return torch.tensor(rows, dtype=torch.float64)


ENTRIES = (network, refined)
