"""What tensors a call takes, what comes back, and that every change of a weight is seen."""

import os
import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as tF

import ninefold.functional as F
from ninefold import nn
from ninefold.errors import CacheWarning
from ninefold.ops import PlannedCall
from ninefold.settings import options
from ninefold.spec import ConvSpec
from ninefold.testing.tolerances import defined

ENGINES = ("aten", "fft", "gemm", "reference")


def test_empty_batch_and_its_gradients(kind):
    x, w, b = kind.operands()
    z = PlannedCall(kind.spec)(x[:0].requires_grad_(), w.requires_grad_(), b)
    assert z.shape == kind.reference(x[:1], w, b)[:0].shape
    gx, gw = torch.autograd.grad(z.sum(), (x[:0].requires_grad_(), w), allow_unused=True)
    assert gx is None
    assert gw.shape == w.shape
    assert not gw.any()


def test_without_a_batch(kind):
    x, w, b = kind.operands()
    kind.check(PlannedCall(kind.spec)(x[1], w, b), kind.reference(x, w, b)[1])
    kind.check(PlannedCall(kind.spec)(x[1], w), kind.reference(x, w)[1])


def test_strided_expanded_and_negative_operands(kind):
    x, w, b = kind.operands()
    site = PlannedCall(kind.spec)
    gaps = torch.stack([x, x.cos()], -1)[..., 0]
    expanded = x[:1].expand_as(x)
    upside_down = x.transpose(0, -1).contiguous().transpose(0, -1)
    negative = torch.complex(torch.zeros_like(x), x).conj().imag  # lazily negative
    assert negative.is_neg()
    for given in (gaps, expanded, upside_down, negative):
        assert not given.is_contiguous() or given.is_neg()
        kind.check(site(given, w, b), kind.reference(given.clone(), w, b))
        kind.check(site(x, torch.stack([w, w.cos()], -1)[..., 0], b), kind.reference(x, w, b))
    flipped = torch.complex(torch.zeros_like(w), w).conj().imag
    kind.check(site(x, flipped, b), kind.reference(x, flipped.clone(), b))
    assert x.equal(kind.operands()[0])  # no operand is written to


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("engine", ENGINES)
def test_complex_results_and_gradients_are_torchs(engine, dtype, prefer):
    prefer(engine)
    x, w, b = (torch.randn(s, dtype=dtype) for s in ((2, 4, 7, 6), (6, 2, 3, 2), (6,)))
    results = []
    for function in (tF.conv2d, F.conv2d):
        leaves = [t.clone().requires_grad_() for t in (x, w, b)]
        z = function(*leaves, (2, 1), (1, 0), 1, 2)
        first = torch.autograd.grad((z * z.conj().sin()).abs().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.abs().square().sum() for g in first), leaves)
        results.append((z, *first, *second))
    bound = 2e-4 if dtype == torch.complex64 else 1e-11
    for want, got in zip(*results, strict=True):
        assert (got - want).abs().max() <= bound * want.abs().max()


@pytest.mark.parametrize("engine", ENGINES)
def test_lazily_conjugated_operands(engine, prefer):
    prefer(engine)
    x, w = torch.randn(2, 3, 5, 6, dtype=torch.complex128), torch.randn(4, 3, 2, 3, dtype=torch.complex128)
    for a, c in ((x.conj(), w), (x, w.conj()), (x.conj(), w.conj())):
        assert a.is_conj() or c.is_conj()
        want = tF.conv2d(a.resolve_conj(), c.resolve_conj())
        torch.testing.assert_close(F.conv2d(a, c), want, rtol=1e-12, atol=1e-12)
        spec = ConvSpec(3, 4, (2, 3)).to_text()
        torch.testing.assert_close(torch.ops.ninefold.c(c, a, spec, (5, 6), (4, 4)), want, rtol=1e-12, atol=1e-12)


FORMATS = {
    "contiguous": lambda x: x.contiguous(),
    "channels-last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "neither": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("x_format", FORMATS)
@pytest.mark.parametrize("w_format", FORMATS)
@pytest.mark.parametrize("shape", [(2, 4, 7, 6), (2, 4, 1, 1), (3, 1, 5, 4), (1, 4, 5, 4), (2, 4, 3, 1)])
def test_the_memory_format_is_torchs(shape, w_format, x_format, engine, prefer):
    prefer(engine)
    x = FORMATS[x_format](torch.randn(shape))
    w = FORMATS[w_format](torch.randn(6, shape[1], 3, 2))
    pad = (1, 1)
    want, got = tF.conv2d(x, w, None, 1, pad), F.conv2d(x, w, None, 1, pad)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert got.stride() == want.stride()
    routed = torch.ops.ninefold.conv(x, w, None, ConvSpec(shape[1], 6, (3, 2), padding=pad).to_text(), None)
    assert routed.stride() == want.stride()


@pytest.mark.parametrize("engine", ["fft", "gemm", "reference"])
def test_the_memory_format_of_volumes_and_transposed_ones(engine, prefer):
    prefer(engine)
    for last in (torch.contiguous_format, torch.channels_last_3d):
        x, w = torch.randn(2, 3, 4, 5, 6).contiguous(memory_format=last), torch.randn(4, 3, 2, 1, 3)
        assert F.conv3d(x, w).stride() == tF.conv3d(x, w).stride()
        x, w = torch.randn(2, 4, 4, 5, 6).contiguous(memory_format=last), torch.randn(4, 3, 2, 1, 3)
        assert F.conv_transpose3d(x, w, stride=2).stride() == tF.conv_transpose3d(x, w, stride=2).stride()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types(dtype, kind):
    halves = [t.to(dtype) for t in kind.operands()]
    leaves = [t.clone().requires_grad_() for t in halves]
    z = PlannedCall(kind.spec)(*leaves)
    assert z.dtype == dtype
    z.float().sum().backward()
    wide = [t.double().requires_grad_() for t in halves]
    want = kind.reference(*wide)
    want.sum().backward()
    u = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-11
    for got, exact in ((z, want), *((a.grad, c.grad) for a, c in zip(leaves, wide, strict=True))):
        assert got.dtype == dtype
        assert (got.double() - exact).abs().max() <= 8 * u * exact.abs().max()


def _changes():
    def inference(layer, w):
        with torch.inference_mode():
            layer.weight.copy_(w)

    def no_grad(layer, w):
        with torch.no_grad():
            layer.weight.copy_(w)

    def data(layer, w):
        layer.weight.data = w.clone()

    def in_data(layer, w):
        layer.weight.data.copy_(w)

    def state(layer, w):
        layer.load_state_dict({"weight": w})

    def assigned(layer, w):
        layer.load_state_dict({"weight": w}, assign=True)

    def optimizer(layer, w):
        layer.weight.grad = layer.weight.detach() - w
        torch.optim.SGD(layer.parameters(), lr=1.0).step()

    def storage(layer, w):
        torch.from_numpy(layer.weight.detach().numpy()).copy_(w)

    def parameter(layer, w):
        layer.weight = torch.nn.Parameter(w.clone())

    return [inference, no_grad, data, in_data, state, assigned, optimizer, storage, parameter]


@pytest.mark.parametrize("engine", ["aten", "fft", "gemm"])
@pytest.mark.parametrize("change", _changes(), ids=lambda f: f.__name__)
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_a_changed_weight_is_seen_by_the_next_call(mode, change, engine, prefer):
    prefer(engine)
    layer = nn.Conv2d(2, 3, (3, 2), padding=(1, 0), bias=False).double()
    x, w = torch.randn(1, 2, 6, 5, dtype=torch.double), torch.randn(3, 2, 3, 2, dtype=torch.double)
    with mode():
        before = layer(x)
    change(layer, w)
    with mode():
        after = layer(x)
    want = tF.conv2d(x, w, None, 1, (1, 0))
    assert (before - want).abs().max() > 1e-3
    torch.testing.assert_close(after.detach().clone(), want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("thaw", ["train", "load_state_dict", "double", "half", "to", "unfreeze", "new weight", "deepcopied"])
def test_a_frozen_weight_and_what_takes_it_back(thaw):
    layer = nn.Conv2d(2, 2, (9, 7), groups=2, padding="same", bias=False).eval()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(2, 1, 9, 1) * torch.randn(2, 1, 1, 7))
    x = torch.randn(1, 2, 20, 17)
    plain = layer(x)
    layer.freeze()
    assert layer.frozen
    torch.testing.assert_close(layer(x), plain, rtol=1e-4, atol=1e-4)
    w = torch.randn(2, 1, 9, 7)
    if thaw == "train":
        assert layer.train() is layer
    elif thaw == "load_state_dict":
        layer.load_state_dict({"weight": w})
    elif thaw in ("double", "half"):
        getattr(layer, thaw)()
        layer.float()
    elif thaw == "to":
        layer.to(torch.float64).to(torch.float32)
    elif thaw == "unfreeze":
        layer.unfreeze()
    elif thaw == "new weight":
        layer.weight = torch.nn.Parameter(w)
    if thaw == "deepcopied":  # a copy is frozen, too, with its own weight
        import copy

        twin = copy.deepcopy(layer)
        assert twin.frozen
        layer.unfreeze()
        torch.testing.assert_close(twin(x), plain, rtol=1e-4, atol=1e-4)
        return
    assert layer.frozen == (thaw == "new weight")
    with torch.no_grad():
        layer.weight.copy_(w)
    want = tF.conv2d(x, w, None, 1, "same", 1, 2)
    torch.testing.assert_close(layer(x), want, rtol=1e-4, atol=1e-4)


def test_several_threads_at_once(kind):
    x, w, b = kind.operands()
    site, wrong = PlannedCall(kind.spec), []
    sizes = [x, torch.cat([x, x.sin()]), x.cos()]
    want = [kind.reference(s, w, b) for s in sizes]

    def work(first):
        for k in range(12):
            i = (first + k) % 3
            with options(tolerance="default" if k % 2 else 1e-9):
                got = site(sizes[i], w.clone().requires_grad_(), b)
            if not torch.allclose(got, want[i], rtol=1e-9, atol=1e-9):
                wrong.append((first, k))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


FORKED = """
import os, signal, sys
import torch
import ninefold.functional as F
torch.set_num_threads(2)
calls = {
    "aten": lambda: F.conv2d(torch.ones(4, 16, 100, 110), torch.ones(24, 16, 5, 4)),
    "unshared": lambda: F.locally_connected2d(torch.ones(8, 16, 30, 31), torch.ones(24, 26, 28, 16, 5, 4)),
    "fft": lambda: F.conv1d(torch.ones(4, 32, 4000), torch.ones(32, 1, 900), groups=32),
}
call = calls[sys.argv[1]]
want = float(call().double().sum())
child = os.fork()
if child == 0:
    signal.alarm(600)  # ends a child that hangs, and no other, however busy the machine is
    good = torch.get_num_threads() == 1 and abs(float(call().double().sum()) / want - 1) < 1e-4
    os._exit(0 if good else 3)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert torch.get_num_threads() == 2  # the parent keeps its own
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="hasattr(os, 'fork') is False: this platform has no fork")
@pytest.mark.parametrize("what", ["aten", "unshared", "fft"])
def test_a_forked_child_convolves_and_exits(what):
    """The parent has used two threads, which the child does not have."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED, what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("map_", ["c", "h", "g"])
def test_nan_and_infinity_stay_local(map_, value, prefer):
    prefer("fft")
    x, g = torch.randn(2, 3, 12, 11), torch.randn(2, 4, 11, 8)
    w = torch.randn(4, 3, 2, 4)
    form = ConvSpec(3, 4, (2, 4)).form((12, 11))
    x[1, 2, 5, 3] = g[1, 2, 5, 3] = value
    if map_ == "g":
        g = g.nan_to_num(0.25, 0.25, 0.25)  # one infinity is enough: two may cancel
    runs = {
        "c": (lambda: F.conv2d(x, w), w, x),
        "h": (lambda: F.conv2d_input(x.shape, w, g), w, g),
        "g": (lambda: F.conv2d_weight(x, w.shape, g), x, g),
    }
    run, a, b = runs[map_]
    want = defined(map_, form, a, b)
    with options(check_finite=False):
        spread = run()
    local = run()
    assert torch.equal(local.isfinite(), want.isfinite())
    keep = want.isfinite()
    torch.testing.assert_close(local[keep].double(), want[keep], rtol=1e-4, atol=1e-4)
    assert bool((~spread.isfinite()[~want.isfinite()]).all())  # at least the defined ones, in any case


def test_no_warning_is_given_in_ordinary_use(recwarn, kind):
    PlannedCall(kind.spec)(*kind.operands())
    assert not [w for w in recwarn if issubclass(w.category, (CacheWarning, RuntimeWarning))]
