"""Everything that is no layer, called where tensors are made on another device, and in another dtype, by default."""

import copy

import pytest
import torch
from torch.utils._pytree import tree_leaves

import ninefold as nf
import ninefold.functional as F
from ninefold.chapter import ENTRIES
from ninefold.chapter.data import TASKS, digits, halves_of, rotated, textures
from ninefold.chapter.given import integers
from ninefold.engines.separable import numerical_rank
from ninefold.network.fields import receptive_fields
from ninefold.nn import ChannelTableConv2d, Conv2d
from ninefold.planning.measure import measure, measure_rates, operands
from ninefold.planning.rates import measured_rates
from ninefold.spec import Problem
from ninefold.testing import elsewhere

RANDOM = torch.Generator().manual_seed(0)


def drawn(*shape):
    return torch.randn(shape, generator=RANDOM)


X, W, UP = drawn(2, 4, 9, 7), drawn(6, 2, 3, 2), drawn(2, 6, 7, 6)
LINE = drawn(3, 4, 2100)
SPEC = nf.ConvSpec(1, 2, (3, 2), padding=1)
KERNEL, DENSE = drawn(2, 1, 3, 2), drawn(2 * 5 * 6, 5 * 5)
NET = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 3, padding=1, device="cpu"), torch.nn.BatchNorm2d(8, device="cpu"), torch.nn.ReLU(),
    torch.nn.Conv2d(8, 8, 5, padding=2, groups=8, device="cpu"), torch.nn.AvgPool2d(2),
).eval()  # fmt: skip
PICTURE = drawn(1, 3, 24, 20)


def trained(net):
    net = copy.deepcopy(net)
    (net(PICTURE).square().sum()).backward()
    return [p.grad for p in net.parameters()]


def frozen(net):
    with torch.no_grad():
        return nf.freeze(nf.convert(copy.deepcopy(net)))(PICTURE)


def separable():
    layer = Conv2d(2, 2, 9, padding=4, groups=2, bias=False, device="cpu", dtype=torch.float)
    with torch.no_grad():
        layer.weight.copy_(LINE[0, :2, :9, None, None].transpose(1, 2) * LINE[1, :2, None, None, :9].transpose(1, 2))
        return nf.freeze(torch.nn.Sequential(layer))(X[:, :2].repeat(1, 1, 9, 9)), numerical_rank(layer.spec, layer.weight)


def tables():
    layer = ChannelTableConv2d(3, 2, 3, table=((0, 1), (1, 0), (1, 2)), device="cpu", dtype=torch.float)
    with torch.no_grad():
        layer.weight.copy_(W.flatten()[: layer.weight.numel()].view(layer.weight.shape))
        layer.bias.zero_()
        return layer(PICTURE), layer.to_dense()(PICTURE)


CALLS = {
    "conv": lambda: F.conv2d(X, W, padding="same", padding_mode="symmetric", groups=2),
    "long": lambda: F.conv1d(LINE, LINE[:, :, :1025]),
    "input": lambda: F.conv2d_input(X.shape, W, UP, groups=2),
    "weight": lambda: F.conv2d_weight(X, W.shape, UP, groups=2),
    "transposed": lambda: F.conv_transpose2d(UP, W, stride=2, groups=2),
    "unshared": lambda: F.locally_connected2d(X, drawn_like(6, 7, 6, 4, 3, 2)),
    "unshared, transposed": lambda: F.locally_connected_transpose2d(UP, drawn_like(6, 7, 6, 4, 3, 2)),
    "tiled": lambda: F.tiled_conv2d(X, drawn_like(6, 2, 3, 4, 3, 2), period=(2, 3)),
    "tiled, transposed": lambda: F.tiled_conv_transpose2d(UP, drawn_like(6, 2, 3, 4, 3, 2), period=(2, 3)),
    "maxima": lambda: [F.max_pool2d(X, 3, 2, "same", 2, return_indices=i, padding_mode="reflect") for i in (False, True)],
    "averages": lambda: [F.avg_pool2d(x, 3, 2, "same", padding_mode="symmetric") for x in (X, X.double())],
    "norms": lambda: [F.lp_pool2d(X, p, 3, 2, padding="same", convention="norm") for p in (1, 2, 3.5)],
    "gaussian": lambda: F.gaussian_pool2d(X, 3, 2, "same", sigma=0.8),
    "exponential": lambda: F.log_sum_exp_pool2d(X, 3, 2, "same", r=1.5),
    "adaptive": lambda: [F.adaptive_max_pool2d(X, (2, 3), True, bins="disjoint"), F.adaptive_avg_pool2d(X, 2, bins="disjoint")],
    "pyramid": lambda: F.spatial_pyramid_pool2d(X, [1, 3]),
    "channels": lambda: [F.channel_pool(X, 2, "average"), F.maxout(X, 2)],
    "unpooling": lambda: [F.max_unpool2d(*F.max_pool2d(UP, 2, return_indices=True), 2, output_size=(7, 6)), F.top_left_unpool2d(X, 2)],
    "tables": tables,
    "convert": lambda: nf.convert(copy.deepcopy(NET))(PICTURE),
    "training": lambda: trained(nf.convert(copy.deepcopy(NET))),
    "freeze": lambda: frozen(NET),
    "separable": separable,
    "plan": lambda: str(nf.plan(SPEC, (30, 40))),
    "matrix": lambda: nf.conv_matrix(SPEC, (5, 5), weight=KERNEL).toarray().tolist(),
    "operator": lambda: nf.as_linear_operator(SPEC, (5, 5), weight=KERNEL).matvec(DENSE[0].numpy()).tolist(),
    "norm": lambda: [nf.operator_norm(SPEC, 5, weight=KERNEL), nf.singular_values(SPEC, 5, weight=KERNEL, count=3).tolist()],
    "prior": lambda: [nf.tie_map(SPEC, 5), nf.project(DENSE, SPEC, 5), nf.prior_penalty(DENSE, SPEC, 5)],
    "linear": lambda: nf.to_linear(NET[3], (5, 4)).weight,
    "equivariance": lambda: str(nf.equivariance(NET, PICTURE[..., :20])),
    "invariance": lambda: str(nf.invariance(torch.nn.Sequential(NET, torch.nn.AdaptiveAvgPool2d(1)), PICTURE)),
    "fields": lambda: str(receptive_fields(NET, PICTURE)),
    "advice": lambda: str(nf.advise_pooling(X)),
    "counts": lambda: str(nf.connectivity_counts(SPEC, (9, 7))),
    "artefacts": lambda: [str(nf.checkerboard(SPEC.replace(transposed=True, stride=2))), str(nf.gridding([SPEC]))],
    "drawn channels": lambda: nf.drawing.channels([nf.nn.PointwiseGroupConv1d(4, 6, groups=2, device="cpu"), nf.nn.ChannelShuffle(3)])
    is None,
    "tasks": lambda: [task(20, seed) for task in TASKS.values() for seed in (0, 1)],
    "data": lambda: [integers(2, 3), halves_of(digits())(5, 1), textures(4, 1), rotated(PICTURE, X[:1, 0, 0, 0])],
}  # fmt: skip


def drawn_like(*shape):
    """Numbers that are the same in every call."""
    return LINE.flatten()[: torch.Size(shape).numel()].view(shape)


def numbers(found):
    return [x.detach() if isinstance(x, torch.Tensor) else x for x in tree_leaves(found)]


def same(a, b):
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("name", CALLS)
def test_the_defaults_of_the_caller_change_nothing(name):
    want = numbers(CALLS[name]())
    with elsewhere():
        got = numbers(CALLS[name]())
    assert len(got) == len(want) > 0
    assert all(map(same, got, want))


@pytest.mark.parametrize("map_", ["c", "h", "g"])
def test_measuring_on_another_default_device(map_, monkeypatch):
    monkeypatch.setattr("ninefold.planning.measure._HOPELESS", float("inf"))  # whatever estimates say, there is something to time
    problem = Problem(map_, nf.ConvSpec(16, 16, (31,), groups=16).form(200), batch=2, threads=torch.get_num_threads())
    with elsewhere():
        made = operands(problem)
        plan = measure(problem, seconds=0.01)
    assert all(x.is_cpu and x.dtype == torch.float for x in made)
    assert sum(c.measured is not None for c in plan.candidates) > 1


def test_rates_on_another_default_device(monkeypatch):
    """The rates of products in single precision; those in double precision are half of them."""
    made = []
    monkeypatch.setattr("ninefold.planning.rates._check_share", lambda *_: None)
    monkeypatch.setattr("ninefold.planning.rates.unlikely", lambda *_: None)
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *a, **k: made.append(randn(*a, **k)) or made[-1])
    with elsewhere():
        measured_rates(torch.get_num_threads(), seconds=0.01)
        measure_rates()
    assert made
    assert {(x.device.type, x.dtype) for x in made} == {("cpu", torch.float)}


def test_optimize_on_another_default_device():
    net = copy.deepcopy(NET)
    want = net(PICTURE)
    with elsewhere():
        fast, report = nf.optimize(net, PICTURE)
        got = fast(PICTURE)
        assert str(report)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.key in ("9.16", "9.4", "9.6", "9.10")], ids=lambda e: e.key)
def test_entries_of_the_chapter(entry):
    want = entry.run()
    with elsewhere():
        assert entry.run() == want


def test_an_address_is_in_the_memory_of_the_cpu():
    from ninefold.engines import native
    from ninefold.errors import DeviceError

    assert native.address(X) == X.data_ptr()
    with pytest.raises(DeviceError, match=r"a tensor \(2, 3\) is on meta"):
        native.address(torch.empty(2, 3, device="meta"))


@pytest.mark.parametrize("grad", [False, True])
def test_the_quick_route_is_taken_on_another_default_device(grad, monkeypatch):
    layer = nf.nn.Conv2d(4, 6, 3, device="cpu", dtype=torch.float)
    for p in layer.parameters():
        p.requires_grad_(grad)
    want = layer(X)
    monkeypatch.setattr("ninefold.ops.call.PlannedCall._operator", None)
    with elsewhere():
        assert torch.equal(layer(X), want)
