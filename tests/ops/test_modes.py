"""torch's modes around a call: what they see, what comes back, and what is refused in words."""

from contextlib import nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import ninefold as nf
from ninefold.errors import UnsupportedError
from ninefold.ops import PlannedCall, executor
from ninefold.settings import Options
from ninefold.spec import ConvSpec


class _Module(torch.nn.Module):
    """What export wants: a module around a call."""

    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x, w, b):
        return self.call(x, w, b)


class _Logged(torch.Tensor):
    """A subclass by __torch_function__ that counts what it sees."""

    seen = 0

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.seen += 1
        return super().__torch_function__(function, types, args, kwargs)


class _Wrapped(torch.Tensor):
    """A subclass by __torch_dispatch__ that holds a tensor and never is one."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=inner.device
        )

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        bare = torch.utils._pytree.tree_map_only(cls, lambda t: t.inner, (args, kwargs or {}))
        return torch.utils._pytree.tree_map_only(torch.Tensor, cls, op(*bare[0], **bare[1]))


class _Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.names.append(str(op))
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_gradient_modes(context, kind, record):
    x, w, b = kind.operands()
    w.requires_grad_()
    with record(context.__name__, "eager"), context():
        z = PlannedCall(kind.spec)(x, w, b)
        assert z.requires_grad == (context is torch.enable_grad)
        assert z.is_inference() == (context is torch.inference_mode)
        kind.check(z, kind.reference(x, w, b))


@pytest.mark.parametrize("tracing", ["real", "fake", "symbolic"])
def test_make_fx(tracing, kind, record):
    site, operands = PlannedCall(kind.spec), kind.operands()
    with record(f"make_fx {tracing}", "eager"):
        graph = make_fx(lambda x, w, b: torch.func.grad(lambda w: site(x, w, b).sin().sum())(w), tracing_mode=tracing)
        want = torch.func.grad(lambda w: kind.reference(operands[0], w, operands[2]).sin().sum())(operands[1])
        kind.check(graph(*operands)(*operands), want)


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict, kind, record):
    operands = kind.operands()
    with record(f"export strict={strict}", "eager"):
        program = torch.export.export(_Module(PlannedCall(kind.spec)), tuple(operands), strict=strict)
        kind.check(program.module()(*operands), kind.reference(*operands))


def test_export_with_a_dynamic_batch(kind, record):
    x, w, b = kind.operands()
    with record("export, any batch", "eager"):
        batch = {0: torch.export.Dim("batch", min=2, max=64)}
        program = torch.export.export(
            _Module(PlannedCall(kind.spec)), (x, w, b), dynamic_shapes=({"x": batch, "w": None, "b": None})
        )
        more = torch.cat([x, x.sin(), x.cos()])
        kind.check(program.module()(more, w, b), kind.reference(more, w, b))


@pytest.mark.parametrize("fmt", [torch.contiguous_format, torch.channels_last])
def test_fake_and_meta_tensors_have_the_shape_and_strides_of_real_ones(fmt, kind, record):
    x, w, b = (t.float() for t in kind.operands())  # where torch's own formats are settled
    x = x.contiguous(memory_format=fmt) if x.ndim == 4 else x
    real = PlannedCall(kind.spec)(x, w, b)
    with record("fake and meta", "eager"):
        with FakeTensorMode() as mode:
            fake = PlannedCall(kind.spec)(*(mode.from_tensor(t) for t in (x, w, b)))
        meta = PlannedCall(kind.spec)(*(t.to("meta") for t in (x, w, b)))
        for z in (fake, meta):
            assert (z.shape, z.stride(), z.dtype) == (real.shape, real.stride(), real.dtype)


def test_autocast(kind, record):
    x, w, b = (t.float() for t in kind.operands())
    half = [t.bfloat16() for t in (x, w, b)]
    with record("autocast bfloat16", "eager"):
        with torch.autocast("cpu", torch.bfloat16):
            z = PlannedCall(kind.spec)(x.requires_grad_(), w, b)
            doubles = PlannedCall(kind.spec)(*kind.operands())
        assert z.dtype == torch.bfloat16
        assert doubles.dtype == torch.float64
        torch.testing.assert_close(z.float(), kind.reference(*(t.double() for t in half)).float(), rtol=2e-2, atol=5e-2)
        z.float().sum().backward()
        assert x.grad.dtype == torch.float32


def test_autocast_under_func_grad(kind, record):
    x, w, b = (t.float() for t in kind.operands())
    with record("autocast, func.grad", "eager"), torch.autocast("cpu", torch.bfloat16):
        grad = torch.func.grad(lambda w: PlannedCall(kind.spec)(x, w, b).float().sum())(w)
        assert grad.dtype == torch.float32
    want = torch.func.grad(lambda w: kind.reference(x.double(), w, b.double()).sum())(w.double())
    torch.testing.assert_close(grad.double(), want, rtol=3e-2, atol=0.2)


def test_flops_are_counted_forward_and_backward(kind, record):
    x, w, b = kind.operands()
    macs = len(x) * kind.spec.macs(kind.size)
    with record("FlopCounterMode", "eager"):
        with FlopCounterMode(display=False) as counter:
            z = PlannedCall(kind.spec)(x.requires_grad_(), w.requires_grad_(), b)
            forward = counter.get_total_flops()
            z.sum().backward()
        if kind.engine == "aten":  # torch's formula counts its own convolution, and the backward of it by its own rule
            assert forward > 0
        else:
            assert (forward, counter.get_total_flops()) == (2 * macs, 6 * macs)
        kind.check(z, kind.reference(x, w, b))


def test_subclass_by_torch_function(kind, record):
    x, w, b = kind.operands()
    with record("__torch_function__", "eager"):
        _Logged.seen = 0
        z = PlannedCall(kind.spec)(x.as_subclass(_Logged), w, b)
        assert type(z) is _Logged
        assert _Logged.seen > 0
        kind.check(z.as_subclass(torch.Tensor), kind.reference(x, w, b))


def test_subclass_by_torch_dispatch(kind, record):
    x, w, b = kind.operands()
    with record("__torch_dispatch__", "eager"):
        z = PlannedCall(kind.spec)(_Wrapped(x), _Wrapped(w), _Wrapped(b))
        assert type(z) is _Wrapped
        kind.check(z.inner, kind.reference(x, w, b))


def test_dispatch_mode_sees_one_operator(kind, record):
    operands = kind.operands()
    with record("TorchDispatchMode", "eager"):
        with _Seen() as seen:
            z = PlannedCall(kind.spec)(*operands)
        name = "convolution" if kind.engine == "aten" else "ninefold.h" if kind.spec.transposed else "ninefold.c"
        assert any(name in n for n in seen.names)
        kind.check(z, kind.reference(*operands))


@pytest.mark.parametrize("mapped", [0, 1])
def test_vmap_is_one_call_and_not_one_per_example(mapped, kind):
    x, w, b = kind.operands()
    both = [(x, w), (torch.stack([x, x.sin(), x.cos()]), torch.stack([w, w.sin(), w.cos()]))]
    given = [both[mapped == k][k] for k in range(2)]
    with _Seen() as seen:
        torch.func.vmap(lambda x, w: PlannedCall(kind.spec)(x, w, b), tuple(0 if mapped == k else None for k in range(2)))(*given)
    assert sum("convolution" in n or n.startswith("ninefold.") for n in seen.names) == 1


@pytest.mark.filterwarnings("ignore")
def test_jit_trace_holds_torchs_own_convolution_or_is_refused(kind, record):
    operands = kind.operands()
    if kind.spec.tiled or kind.spec.table is not None:
        with (
            record("jit.trace", "eager", "r"),
            pytest.raises(UnsupportedError, match=r"torch\.jit\.trace .* cannot hold"),
        ):
            torch.jit.trace(_Module(PlannedCall(kind.spec)), tuple(operands), check_trace=False)
        return
    with record("jit.trace", "eager"):
        traced = torch.jit.trace(_Module(PlannedCall(kind.spec)), tuple(operands))
        assert "ninefold::" not in str(traced.graph)
        x, w, b = operands
        larger = torch.randn(3, x.shape[1], *(n + 3 - k for k, n in enumerate(x.shape[2:])), dtype=x.dtype)
        for given in (x, larger):
            kind.check(traced(given, w, b), kind.reference(given, w, b))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ConvSpec(2, 3, (3, 2), (2, 1), "same"), r"'same_upper' with stride \(2, 1\) depends on the input's size"),
        (ConvSpec(2, 3, (3, 2), padding=(1, 0), padding_mode="symmetric"), "no padding_mode='symmetric'"),
        (ConvSpec(3, 2, (3, 2), padding=((0, 1), (0, 0)), transposed=True), r"even zero padding only, not \(\(0, 1\)"),
    ],
)
def test_jit_trace_refuses_what_would_be_wrong_at_another_size(spec, words):
    x, w = torch.randn(1, 2, 5, 6), torch.randn(spec.weight_shape())
    with pytest.raises(UnsupportedError, match=words):
        torch.jit.trace(_Module(PlannedCall(spec)), (x, w, torch.zeros(spec.in_channels if spec.transposed else 3)))


def _vmapped(layer, x):
    return torch.func.vmap(layer)(x[None])


def _compiled(layer, x):
    return torch.compile(layer, backend="aot_eager")(x)


def _dual(layer, x):
    with torch.autograd.forward_ad.dual_level():
        return layer(torch.autograd.forward_ad.make_dual(x, x))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    "route", [_compiled, _vmapped, _dual, lambda layer, x: layer(x)], ids=["compile", "vmap", "dual", "thin"]
)
def test_options_fixed_in_a_layer_are_seen_on_every_route_and_by_its_gradients(route, train, monkeypatch):
    layer = nf.nn.Conv1d(1, 1, 601)
    layer.plan_options = Options(tolerance="strict", max_scratch=12_345_678)
    x = torch.randn(3, 1, 5003, requires_grad=train)
    posed = []
    plan_problem = executor.plan_problem
    monkeypatch.setattr(executor, "plan_problem", lambda problem, *rest: posed.append(problem) or plan_problem(problem, *rest))
    executor.EXECUTORS.clear()
    with nullcontext() if train else torch.no_grad():
        z = route(layer, x)
    if train:
        z.sum().backward()
    assert {p.map for p in posed} >= ({"c", "g"} if train else {"c"})
    assert {(p.tolerance, p.max_scratch) for p in posed} == {(0.0, 12_345_678)}
