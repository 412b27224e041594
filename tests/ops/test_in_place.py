"""Whichever engine ran: its result may be changed in place, and an operand that is changed too late is refused."""

from itertools import product

import pytest
import torch

from ninefold.engines import ENGINES
from ninefold.ops import PlannedCall
from ninefold.ops.executor import EXECUTORS
from ninefold.spec import ConvSpec

from .conftest import KINDS

SPECS = {
    **{kind.name: (kind.spec, kind.size) for kind in KINDS},
    "plain": (ConvSpec(4, 6, (3, 3), 1, (1, 0)), (9, 8)),
    "depthwise": (ConvSpec(4, 4, (3, 2), 1, (1, 0), groups=4), (9, 8)),
    "depthwise-1d": (ConvSpec(4, 4, (5,), 1, 2, groups=4), (17,)),
    "pointwise": (ConvSpec(4, 6, (1, 1)), (5, 3)),
    "symmetric": (ConvSpec(2, 3, (4, 3), padding=2, padding_mode="symmetric"), (7, 9)),
    "long": (ConvSpec(1, 1, (9,), padding=4), (40,)),
}


@pytest.fixture(params=[engine.name for engine in ENGINES])
def engine(request, prefer):
    prefer(request.param)
    return request.param


def operands(spec, size, dtype=torch.float32):
    channels, outputs = (spec.out_channels, spec.in_channels) if spec.transposed else (spec.in_channels, spec.out_channels)
    generator = torch.Generator().manual_seed(3)
    shapes = ((2, channels, *size), spec.weight_shape(size), (outputs,))
    return [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes]


@pytest.mark.parametrize("name", SPECS)
def test_a_result_may_be_changed_in_place(engine, name):
    spec, size = SPECS[name]
    found = []
    for change in (lambda y: y.clone().mul_(1.5), lambda y: y.mul_(1.5)):
        EXECUTORS.clear()
        x, w, b = operands(spec, size)
        out = torch.relu_(change(PlannedCall(spec)(x, w, b)))
        weights = torch.linspace(-1, 2, out.numel()).view(out.shape)
        found.append((out.detach(), *torch.autograd.grad((out * weights).sum(), (x, w, b))))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", SPECS)
def test_a_result_is_nobody_elses_memory(engine, name):
    spec, size = SPECS[name]
    x, w, b = (t.detach() for t in operands(spec, size))
    for frozen, bias in product((None, w), (None, b)):
        site = PlannedCall(spec, frozen=frozen)
        first = site(x, w, bias)
        kept = first.clone()
        first.fill_(7)
        assert torch.equal(site(x, w, bias), kept)


@pytest.mark.parametrize("name", SPECS)
def test_an_operand_changed_before_the_gradient_is_refused_or_does_not_matter(engine, name):
    spec, size = SPECS[name]
    leaves = operands(spec, size)
    wanted = torch.autograd.grad(PlannedCall(spec)(*leaves).square().sum(), leaves)
    for which in (0, 1):
        held = [leaf * 1 for leaf in leaves]
        out = PlannedCall(spec)(*held)
        held[which].detach().mul_(2)
        try:
            found = torch.autograd.grad(out.square().sum(), leaves)
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
        else:
            torch.testing.assert_close(found, wanted)
