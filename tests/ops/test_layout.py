"""Gradients lie in memory as what they are gradients of: exactly so for weights, as torch.nn's for inputs."""

import itertools
import warnings

import pytest
import torch
import torch.nn.functional as tF

import ninefold.functional as F
from ninefold import nn
from ninefold.engines import ENGINES
from ninefold.ops import PlannedCall
from ninefold.ops.layout import channels_last, with_strides_of
from ninefold.spec import ConvSpec, Problem

LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
NATIVE = ("aten", "aten-backward")


def in_memory(x, last):
    return x.clone(memory_format=LAST[x.ndim] if last and x.ndim in LAST else torch.contiguous_format)  # single positions, too


def is_last(strides):
    return len(strides) in LAST and strides[1] == 1


LAYERS = {  # channels, outputs, kernel, size, and the rest
    "depthwise": (16, 16, 7, (12, 10), {"groups": 16, "padding": 3}),
    "dense": (6, 4, 3, (9, 7), {}),
    "many channels": (32, 48, 3, (11, 9), {"padding": 1}),
    "pointwise": (6, 4, 1, (9, 7), {}),
    "pointwise groups": (6, 4, 1, (9, 7), {"groups": 2}),
    "one channel": (1, 4, 3, (9, 7), {}),
    "one output": (4, 1, 3, (9, 7), {}),
    "strided groups": (6, 4, 3, (9, 7), {"stride": 2, "groups": 2}),
    "one position": (6, 4, 3, (3, 3), {}),
    "a row": (6, 4, (1, 5), (9, 7), {"padding": (0, 2)}),
    "mirrored": (6, 4, 3, (9, 7), {"padding": 1, "padding_mode": "reflect"}),
    "volume": (6, 4, 3, (5, 7, 6), {}),
    "depthwise volume": (6, 6, 3, (5, 7, 6), {"groups": 6}),
    "pointwise volume": (6, 4, 1, (5, 7, 6), {}),
    "line": (6, 6, 31, (57,), {"groups": 6}),
}


def strides(layer, x):
    """Return those of the output, of both gradients as asked for, and of the weight's as it is kept."""
    layer.zero_grad()
    leaf = x.detach().requires_grad_()
    up = torch.ones(()).expand(layer(leaf).shape)
    asked = torch.autograd.grad(layer(leaf), (leaf, layer.weight), up)
    layer(leaf).backward(up)
    return layer(leaf).stride(), *(g.stride() for g in asked), layer.weight.grad.stride()


@pytest.mark.parametrize("formats", list(itertools.product((False, True), repeat=2)), ids=str)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_as_torchs_or_better(name, transposed, formats):
    ins, outs, kernel, size, rest = LAYERS[name]
    if transposed and "padding_mode" in rest:
        rest = {"padding": 1}
    kind = f"Conv{'Transpose' if transposed else ''}{len(size)}d"
    x = in_memory(torch.randn(2, ins, *size), formats[1])
    layers = [getattr(lib, kind)(ins, outs, kernel, **rest) for lib in (torch.nn, nn)]
    for layer in layers:
        layer.weight.data = in_memory(layer.weight.data, formats[0])
    torchs, ours = (strides(layer, x) for layer in layers)
    weight = layers[1].weight.stride()
    # PyTorch's volumes on one thread lose the format
    assert ours[0] == torchs[0] or (any(formats) and is_last(ours[0]))
    assert ours[1] == torchs[1] or (any(formats) and is_last(ours[1]))
    assert ours[2] in (weight, torchs[2])
    assert ours[3] in (weight, torchs[3])
    assert torchs[3] != weight or ours[3] == weight


SPECS = {
    "depthwise": (ConvSpec(16, 16, (5, 3), padding=1, groups=16), (12, 10)),
    "dense": (ConvSpec(6, 8, (3, 5), padding=(1, 0)), (9, 8)),
    "pointwise": (ConvSpec(6, 4, (1, 1)), (9, 7)),
    "one channel": (ConvSpec(1, 4, (3, 3)), (9, 7)),
    "groups": (ConvSpec(8, 12, (3, 3), (2, 1), groups=4), (9, 7)),
    "volume": (ConvSpec(6, 6, (3, 1, 2), groups=6), (5, 7, 6)),
    "table": (ConvSpec(3, 2, (2, 3, 2), table=((0, 0), (0, 2), (1, 1))), (4, 6, 5)),
    "unshared line": (ConvSpec(2, 3, (3,), period=None), (9,)),
    "unshared": (ConvSpec(1, 3, (2, 3), (2, 1), period=None), (5, 4)),
    "tiled": (ConvSpec(2, 4, (2, 3), groups=2, period=(2, 3)), (5, 7)),
}


def permuted(weight):
    """Return a weight in memory of every order that a caller may give it: plain, channels-last, reversed, with gaps."""
    yield weight.contiguous()
    if weight.ndim in LAST:
        yield in_memory(weight, last=True)
    yield weight.permute(*reversed(range(weight.ndim))).contiguous().permute(*reversed(range(weight.ndim)))
    yield torch.stack((weight, weight), -1)[..., 0]


@pytest.mark.parametrize("engine", [e.name for e in ENGINES])
@pytest.mark.parametrize("name", SPECS)
def test_every_engines_weight_gradient_has_the_weights_strides(name, engine, prefer):
    spec, size = SPECS[name]
    form = spec.form(size)
    x, up = torch.randn(form.input_shape(2)), torch.randn(form.output_shape(2))
    if engine in NATIVE or next(e for e in ENGINES if e.name == engine).refuses(Problem("g", form, 2)) is not None:
        return
    prefer(engine)
    for data, w in itertools.product((x, in_memory(x, last=True)), permuted(torch.randn(form.weight_shape))):
        leaf = w.requires_grad_()
        out = convolved(spec, data, leaf)
        (grad,) = torch.autograd.grad(out, leaf, in_memory(up, channels_last(out)))
        dense = torch.empty_like(leaf).stride()
        assert grad.stride() == dense
        (recorded,) = torch.autograd.grad(convolved(spec, data, leaf), leaf, up, create_graph=True)
        assert recorded.stride() == dense
        torch.testing.assert_close(recorded, grad, rtol=1e-4, atol=1e-4)


def convolved(spec, x, w):
    return PlannedCall(spec)(x, w)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_compiled_weight_gradients_have_the_weights_strides(name, last, prefer):
    prefer("direct")
    spec, size = SPECS[name]
    form = spec.form(size)
    weight = torch.nn.Parameter(in_memory(torch.randn(form.weight_shape), last))
    x = in_memory(torch.randn(form.input_shape(2)), last)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, w: torch.ops.ninefold.conv(x, w, None, spec.to_text(), None), backend="aot_eager")
    compiled(x, weight).square().sum().backward()
    grad, weight.grad = weight.grad, None
    convolved(spec, x, weight).square().sum().backward()
    assert grad.stride() == weight.stride() == weight.grad.stride()
    torch.testing.assert_close(grad, weight.grad, rtol=1e-4, atol=1e-3)


def test_the_gradients_of_the_weight_map_keep_their_format():
    x, up = (in_memory(torch.randn(2, c, *n), last=True).requires_grad_() for c, n in ((6, (9, 7)), (4, (7, 6))))
    grads = torch.autograd.grad(F.conv2d_weight(x, (4, 6, 3, 2), up).square().sum(), (x, up))
    assert [g.stride() for g in grads] == [x.stride(), up.stride()]


def test_strides_of_another():
    x = torch.arange(24.0).view(2, 3, 4)
    for like in (x, x.permute(2, 0, 1).contiguous().permute(1, 2, 0), torch.zeros(2, 3, 8)[..., ::2]):
        out = with_strides_of(x, like)
        assert torch.equal(out, x)
        assert out.stride() == torch.empty_like(like).stride()
    assert with_strides_of(x, torch.zeros(2, 3, 8)[..., ::2]) is x
    narrow = torch.arange(6.0).view(2, 1, 3)
    same = with_strides_of(narrow, torch.empty_strided((2, 1, 3), (3, 1, 1)))
    assert (same.stride(), same.data_ptr()) == ((3, 1, 1), narrow.data_ptr())


POOLINGS = {
    "maxima": lambda lib, n, x: getattr(lib, f"max_pool{n}d")(x, 3, 2, 1),
    "dilated maxima": lambda lib, n, x: getattr(lib, f"max_pool{n}d")(x, 3, 2, 1, 2),
    "dilated maxima with indices": lambda lib, n, x: getattr(lib, f"max_pool{n}d")(x, 3, 2, 1, 2, return_indices=True)[0],
    "maxima with indices": lambda lib, n, x: getattr(lib, f"max_pool{n}d")(x, 2, 2, return_indices=True)[0],
    "averages": lambda lib, n, x: getattr(lib, f"avg_pool{n}d")(x, 3, 1, 1),
    "norms": lambda lib, n, x: getattr(lib, f"lp_pool{n}d")(x, 2, 3, 2),
    "other norms": lambda lib, n, x: getattr(lib, f"lp_pool{n}d")(x, 3.0, 3, 2),
    "grids of averages": lambda lib, n, x: getattr(lib, f"adaptive_avg_pool{n}d")(x, (2, 3, 4)[:n]),
    "grids of maxima": lambda lib, n, x: getattr(lib, f"adaptive_max_pool{n}d")(x, (2, 3, 4)[:n]),
}


@pytest.mark.parametrize("up", ["same", "other", "expanded"])
@pytest.mark.parametrize("shape", [(2, 6, 9, 7), (4, 32, 40, 38), (1, 1, 9, 7), (2, 6, 9, 7, 8), (2, 16, 20, 17, 18)], ids=str)
@pytest.mark.parametrize("name", POOLINGS)
def test_poolings_are_as_torchs_or_better(name, shape, up):
    x = in_memory(torch.randn(shape), last=True)
    found = []
    for lib in (tF, F):
        leaf = x.detach().requires_grad_()
        out = POOLINGS[name](lib, len(shape) - 2, leaf)
        given = torch.ones(out.shape)
        given = {"same": given.expand_as(out).clone(), "other": given, "expanded": torch.ones(()).expand(out.shape)}[up]
        given = in_memory(given, last=True) if up == "same" else given
        found.append((out.stride(), torch.autograd.grad(out, leaf, given)[0].stride()))
    torchs, ours = found
    assert ours[0] == torchs[0] or is_last(ours[0])
    assert ours[1] in (x.stride(), torchs[1])
    assert torchs[1] != x.stride() or ours[1] == x.stride()


def test_distributed_data_parallel_warns_of_no_strides(tmp_path):
    from torch import distributed

    # PyTorch 2.13 warns of torch.nn's own pointwise layers in plain memory under channels-last data, which therefore is not tried
    layers = [nn.Conv2d(16, 16, 7, padding=3, groups=16), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 1, 3), nn.Conv2d(1, 4, (3, 5))]
    net = torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)
    x = torch.randn(2, 16, 32, 30).contiguous(memory_format=torch.channels_last)
    distributed.init_process_group("gloo", store=distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(net)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            wrapped(x).sum().backward()
    finally:
        distributed.destroy_process_group()
    assert not [w for w in caught if "strides" in str(w.message)]
    assert all(p.grad.stride() == p.stride() for p in net.parameters())


@pytest.mark.parametrize("foreach", [False, True])
def test_optimizers_see_gradients_as_their_parameters(foreach):
    net = torch.nn.Sequential(nn.Conv2d(4, 4, 5, groups=4), nn.Conv2d(4, 6, 1)).to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 9, 8).contiguous(memory_format=torch.channels_last)
    before = [p.detach().clone() for p in net.parameters()]
    adam = torch.optim.AdamW(net.parameters(), foreach=foreach)
    net(x).sum().backward()
    adam.step()
    for p, was in zip(net.parameters(), before, strict=True):
        assert adam.state[p]["exp_avg"].stride() == p.grad.stride() == p.stride()
        assert not torch.equal(p, was)
