"""What is done in place behind a layer, or to its input, as PyTorch's own layers allow it or refuse it: never silently wrong.

An activation in place behind a pooling, a residual added in place: a result must not be kept for its own gradient, nor be the
input itself.
"""

from math import inf

import pytest
import torch

import ninefold.functional as F
from ninefold import nn
from ninefold.functional.sliding import SMALL

SIZES = {1: (11,), 2: (7, 6), 3: (5, 4, 3)}
IN_PLACE = {
    "relu_": (torch.relu_, torch.relu),
    "mul_": (lambda y: y.mul_(1.5), lambda y: y * 1.5),
    "add_": (lambda y: y.add_(y.detach().square()), lambda y: y + y.detach().square()),
    "fill": (lambda y: y.index_fill_(-1, torch.tensor([0]), 0.25), lambda y: y.index_fill(-1, torch.tensor([0]), 0.25)),
}


def windows(n):
    """Poolings over windows that stand apart, overlap, reach over a border, are dilated, and are one element each."""
    for kernel, stride, padding, dilation in ((2, 2, 0, 1), (3, 2, 1, 1), (3, 1, "same", 2), (1, 1, 0, 1)):
        where = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
        text = f"{kernel}-{stride}-{padding}-{dilation}"
        for name, how in (
            ("max", {}),
            ("max", {"padding_mode": "symmetric"}),
            ("avg", {}),
            ("avg", {"count_include_pad": False}),
            ("gaussian", {"sigma": 0.7}),
            ("gaussian", {"sigma": 0}),
            *(("log_sum_exp", {"r": r}) for r in (1.3, -2.0, 0.0, inf, -inf)),
        ):
            pool = getattr(F, f"{name}_pool{n}d")
            yield f"{name}{n}d-{text}-{how}", lambda x, pool=pool, where=where, how=how: pool(x, **where, **how)
        for p in (1, 2, 3, 5, inf):
            for convention in ("torch", "norm", "mean"):
                pool = getattr(F, f"lp_pool{n}d")

                def lp(x, pool=pool, p=p, where=where, convention=convention):
                    return pool(x.abs() if convention == "torch" else x, p, **where, convention=convention)

                yield f"lp{n}d-{text}-{p}-{convention}", lp


def others(n):
    """Everything else with one tensor in and one out."""
    size = SIZES[n]
    for bins in ("overlapping", "disjoint"):
        for cells in (2, None):
            for name in ("avg", "max"):
                pool = getattr(F, f"adaptive_{name}_pool{n}d")
                yield f"adaptive_{name}{n}d-{bins}-{cells}", lambda x, p=pool, c=cells, b=bins: p(x, c, bins=b)
        pyramid = getattr(F, f"spatial_pyramid_pool{n}d")
        yield f"pyramid{n}d-{bins}", lambda x, p=pyramid, b=bins: p(x, [1, 2], bins=b)
        yield f"pyramid{n}d-{bins}-one", lambda x, p=pyramid, b=bins: p(x, [tuple(x.shape[2:])], bins=b)
    for groups in (1, 2, 4):
        for reduction in ("max", "average"):
            yield f"channel{n}d-{groups}-{reduction}", lambda x, g=groups, r=reduction: F.channel_pool(x, g, r)
        yield f"shuffle{n}d-{groups}", nn.ChannelShuffle(groups)
    for kernel in (1, 2):
        yield f"top_left{n}d-{kernel}", lambda x, k=kernel: getattr(F, f"top_left_unpool{n}d")(x, k)

        def unpool(x, k=kernel):
            places = torch.arange(x.shape[2:].numel()).view(x.shape[2:]).expand(x.shape)
            return getattr(F, f"max_unpool{n}d")(x, places, k)

        yield f"unpool{n}d-{kernel}", unpool
        yield f"unfold{n}d-{kernel}", lambda x, k=kernel: F.unfold(x, (k,) * n)
        yield f"unfold{n}d-{kernel}-reflect", lambda x, k=kernel: F.unfold(x, (k,) * n, padding="same", padding_mode="reflect")

        def fold(x, k=kernel):
            return F.fold(x.flatten(2).repeat(1, k**n, 1), tuple(s + k - 1 for s in x.shape[2:]), (k,) * n)

        yield f"fold{n}d-{kernel}", fold
    for pads in ((0, 0), (1, 0), (2, 1, 0, 1)[: 2 * n], (-1, 1), (-1, 0)):
        for mode in ("constant", "reflect", "symmetric", "replicate", "circular"):
            yield f"pad{n}d-{pads}-{mode}", lambda x, p=pads, m=mode: F.pad(x, p, m)
    if n > 1:
        numbers = torch.full((10**4, 4, n), 0.3, dtype=torch.double)
        fractional = getattr(F, f"fractional_max_pool{n}d")
        yield f"fractional{n}d", lambda x, f=fractional, s=numbers: f(x, 2, output_size=4 - n, _random_samples=s)
    for kernel in (1, 3):
        for border in ("normalized", "zeros", "reflect"):
            yield f"contrast{n}d-{kernel}-{border}", getattr(nn, f"LocalContrastNorm{n}d")(kernel, border=border)
    for name, args, how in (
        ("Conv", (4, 3, 3), {"padding": 1}),
        ("Conv", (4, 3, 1), {}),
        ("Conv", (4, 6, (3, 2, 2)[:n]), {"padding": "same", "padding_mode": "reflect", "groups": 2, "flip_kernel": True}),
        ("ConvTranspose", (4, 3, 3, 2, 1, 1), {}),
        ("LocallyConnected", (4, 3, 3), {"input_size": size}),
        ("TiledConv", (4, 3, 3), {"period": 2}),
        ("TiledConvTranspose", (4, 3, 3), {"period": 2, "stride": 2}),
        ("ChannelTableConv", (4, 3, 3), {"table": ((0, 1), (1, 2), (2, 3))}),
        ("DepthwiseSeparableConv", (4, 3, 3), {}),
        ("ResizeConv", (4, 3, 1), {"scale_factor": 2}),
        ("ResizeConv", (4, 3, 3), {"scale_factor": 1}),
    ):
        yield f"{name}{n}d-{how}", getattr(nn, f"{name}{n}d")(*args, **how, dtype=torch.double)
    if n == 2:
        for detector in (torch.nn.ReLU(), torch.nn.ReLU(inplace=True), torch.relu, torch.nn.LeakyReLU(0.1, inplace=True)):
            yield (
                f"stage-{getattr(detector, '__name__', detector)}",
                nn.ConvStage(nn.Conv2d(4, 3, 3, dtype=torch.double), detector, nn.MaxPool2d(2)),
            )
        yield "spatially_separable", nn.SpatiallySeparableConv2d(4, 3, 3, rank=2, dtype=torch.double)


CASES = [(n, name, function) for n in (1, 2, 3) for maker in (windows, others) for name, function in maker(n)]
EVERY = pytest.mark.parametrize(("n", "function"), [(n, f) for n, _, f in CASES], ids=[name for _, name, _ in CASES])


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def image(n, batch=2):
    """Different values, of both signs, none of them zero: no maximum has a kink nearby."""
    shape = (batch, 4, *SIZES[n])
    count = torch.Size(shape).numel()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(n))
    return (order.double().reshape(shape) - count / 3 + 0.25) * (3 / count)


def batches(n):
    """Return batch sizes below and above what the native kernels are for."""
    return 2, SMALL // (4 * torch.Size(SIZES[n]).numel()) + 1


def gradient(function, x, change):
    leaf = x.clone().requires_grad_()
    out = change(function(leaf))
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)
    (out * weights).sum().backward()
    return out.detach(), leaf.grad


@EVERY
def test_a_result_may_be_changed_in_place(n, function):
    for x in (image(n, batch) for batch in batches(n)):
        for inside, outside in IN_PLACE.values():
            torch.testing.assert_close(gradient(function, x, inside), gradient(function, x, outside), rtol=1e-12, atol=1e-12)


@EVERY
def test_a_result_is_not_the_input(n, function):
    for x in (image(n, batch) for batch in batches(n)):
        for grad in (False, True):
            given = x.clone().requires_grad_(grad)
            assert function(given).untyped_storage().data_ptr() != given.untyped_storage().data_ptr()


@EVERY
def test_an_input_changed_behind_the_call_is_refused_or_does_not_matter(n, function):
    for x in (image(n, batch) for batch in batches(n)):
        wanted = gradient(function, x, lambda y: y)[1]
        leaf = x.clone().requires_grad_()
        held = leaf * 1
        out = function(held)
        held.detach().mul_(-1.7).add_(0.3)
        try:
            (out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)).sum().backward()
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
        else:
            torch.testing.assert_close(leaf.grad, wanted, rtol=1e-12, atol=1e-12)


@EVERY
def test_second_gradients_behind_a_change_in_place(n, function):
    def changed(x):
        return function(x).mul_(1.5).square()

    assert torch.autograd.gradgradcheck(changed, image(n, 1).requires_grad_(), fast_mode=True)


def test_a_training_step_with_an_activation_in_place():
    """Of z = sqrt(sum x^2) it is x / z where the activation lets it through."""
    pool = nn.LPPool2d(2, (3, 2), convention="norm")
    for size in ((6, 4), (66, 64)):
        x = (torch.arange(2 * torch.Size(size).numel(), dtype=torch.double).view(1, 2, *size) - 9).requires_grad_()
        z = x.detach().unfold(2, 3, 3).unfold(3, 2, 2).square().sum((-1, -2)).sqrt()
        torch.relu_(pool(x).sub_(20)).sum().backward()
        shown = torch.where(z > 20, 1 / z, 0).repeat_interleave(3, 2).repeat_interleave(2, 3)
        torch.testing.assert_close(x.grad, x.detach() * shown, rtol=1e-12, atol=1e-12)
