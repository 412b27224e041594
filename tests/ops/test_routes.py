"""Every transform of torch, by every route, over every kind of engine, against torch's own or the definition in torch."""

import os

import pytest
import torch
import torch._functorch.config
from torch import func
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from ninefold.ops import PlannedCall


def _tracked(f, x, w, b):
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    return leaves, f(*leaves)


def autograd(f, x, w, b):
    leaves, z = _tracked(f, x, w, b)
    z.sin().sum().backward()
    return [t.grad for t in leaves]


def double_backward(f, x, w, b):
    leaves, z = _tracked(f, x, w, b)
    first = torch.autograd.grad(z.sin().sum(), leaves, create_graph=True)
    return torch.autograd.grad(sum(g.cos().sum() for g in first), leaves)


def batched_backward(f, x, w, b):
    leaves, z = _tracked(f, x, w, b)
    return torch.autograd.grad(z, leaves, torch.stack([z.sin(), z.cos()]), is_grads_batched=True)


def saved_on_disk(f, x, w, b):
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy(force=True), torch.from_numpy):
        return autograd(f, x, w, b)


def anomaly(f, x, w, b):
    with torch.autograd.detect_anomaly(check_nan=True):
        return autograd(f, x, w, b)


def checkpointed(f, x, w, b):
    return [autograd(lambda *a, r=r: checkpoint(f, *a, use_reentrant=r), x, w, b) for r in (False, True)]


def dual(f, x, w, b):
    with forward_ad.dual_level():
        first = f(forward_ad.make_dual(x, x.sin()), w, b)
        both = f(forward_ad.make_dual(x, x.sin()), forward_ad.make_dual(w, w.cos()), forward_ad.make_dual(b, b.sin()))
        return [forward_ad.unpack_dual(y).tangent for y in (first, both)]


def dual_and_gradient(f, x, w, b):
    with forward_ad.dual_level():
        leaf = w.clone().requires_grad_()
        tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(x, x.sin()), leaf, b)).tangent
        return torch.autograd.grad(tangent.sin().sum(), leaf)


def _loss(f):
    return lambda *a: f(*a).square().sum()


def hvp(f, x, w, b):
    return func.jvp(func.grad(_loss(f), (0, 1, 2)), (x, w, b), (x.sin(), w.cos(), b.sin()))


def reverse_over_forward(f, x, w, b):
    return func.grad(lambda x: func.jvp(lambda w: _loss(f)(x, w, b), (w,), (w.cos(),))[1])(x)


def reverse_over_reverse(f, x, w, b):
    return func.grad(lambda x: func.grad(_loss(f), (0, 1, 2))(x, w, b)[1].sin().sum())(x)


def nested_vmap(f, x, w, b):
    inner = func.vmap(lambda x, w: f(x, w, b), in_dims=(None, 1))
    return func.vmap(inner, in_dims=(0, None))(torch.stack([x, x.sin()]), torch.stack([w, w.cos(), w.sin()], 1))


def vmap_all(f, x, w, b):
    def layer(x, w, b):  # the compiler of torch 2.6 asks what is mapped for its name
        return f(x, w, b)

    return func.vmap(layer, (2, 0, 1))(*(torch.stack([t, t.sin()], d) for t, d in ((x, 2), (w, 0), (b, 1))))


def per_sample(f, x, w, b):
    return func.vmap(func.grad(lambda w, b, x: _loss(f)(x[None], w, b), (0, 1)), in_dims=(None, None, 0))(w, b, x)


def hessian(f, x, w, b):
    return func.hessian(lambda s: _loss(f)(x, w * s, b))(torch.tensor([1.3], dtype=x.dtype))


class _Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.b = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))

    def forward(self, f, x):
        return f(x, self.w, self.b)


LAYER = _Layer()


def functional_call(f, x, w, b):
    loss = lambda p: func.functional_call(LAYER, p, (f, x)).sin().sum()
    return list(func.grad(loss)({"w": w, "b": b}).values())


def ensemble(f, x, w, b):
    run = func.vmap(lambda p: func.functional_call(LAYER, p, (f, x)))
    return run({"w": torch.stack([w, w.sin()]), "b": torch.stack([b, b.cos()])})


OUTSIDE = {  # torch's state lies around the call: what is compiled is the convolution
    "plain": lambda f, x, w, b: f(x, w, b),
    "no bias": lambda f, x, w, b: f(x, w, None),
    "autograd": autograd,
    "double backward": double_backward,
    "is_grads_batched": batched_backward,
    "saved tensor hooks": saved_on_disk,
    "anomaly mode": anomaly,
    "checkpoint": checkpointed,
    "forward_ad dual": dual,
    "dual and gradient": dual_and_gradient,
    "functionalize": lambda f, *a: func.functionalize(f)(*a),
}
INSIDE = {  # transforms that a compiler may see whole
    "func.grad": lambda f, *a: func.grad(_loss(f), (0, 1, 2))(*a),
    "func.vjp": lambda f, x, w, b: func.vjp(f, x, w, b)[1](f(x, w, b).sin()),
    "func.jvp": lambda f, x, w, b: func.jvp(f, (x, w, b), (x.sin(), w.cos(), b.sin())),
    "hvp": hvp,
    "reverse over forward": reverse_over_forward,
    "reverse over reverse": reverse_over_reverse,
    "vmap x": lambda f, x, w, b: func.vmap(lambda x: f(x, w, b), 2, 1)(torch.stack([x, x.sin(), x.cos()], 2)),
    "vmap w": lambda f, x, w, b: func.vmap(lambda w: f(x, w, b), 1)(torch.stack([w, w.sin(), w.cos()], 1)),
    "vmap x, w and b": vmap_all,
    "vmap nested": nested_vmap,
    "per-sample gradients": per_sample,
    "jacrev": lambda f, x, w, b: func.jacrev(lambda w: f(x[:1], w, b).flatten(2).sum((0, 2)))(w),
    "jacfwd": lambda f, x, w, b: func.jacfwd(lambda s: f(x * s, w, b))(torch.tensor([0.7], dtype=x.dtype)),
    "hessian": hessian,
    "functional_call": functional_call,
    "ensemble": ensemble,
}  # fmt: skip
TRANSFORMS = OUTSIDE | INSIDE
WHOLE = bool(os.environ.get("NINEFOLD_WHOLE_MATRIX"))
ALWAYS = {"compiled": ("aten", "fft", "tiled"), "dynamic": ("fft",)}  # compiling takes half a second a cell
# What torch refuses of anything that is compiled, its own convolution included: which of these depends on its version.
MAY_BE_REFUSED = ("double backward", "functionalize", "forward_ad dual", "dual and gradient")


def _refusal(run):
    try:
        run()
    except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
        return error
    return None


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("route", ["eager", "operator"])
def test_uncompiled(route, transform, kind, record):
    run, site = TRANSFORMS[transform], PlannedCall(kind.spec)
    operator = lambda x, w, b=None: torch.ops.ninefold.conv(x, w, b, site.text, None)
    with record(transform, route):
        kind.check(run(site if route == "eager" else operator, *kind.operands()), run(kind.reference, *kind.operands()))


@torch._functorch.config.patch(
    donated_buffer=False
)  # else torch refuses some second derivatives for that, and some for another reason
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("route", ["compiled", "dynamic"])
def test_compiled(route, transform, kind, record):
    if not WHOLE and kind.name not in ALWAYS[route] and transform not in ("plain", "autograd", "func.grad"):
        pytest.skip("NINEFOLD_WHOLE_MATRIX=1 compiles every cell")
    torch._dynamo.reset()
    run, site = TRANSFORMS[transform], PlannedCall(kind.spec)
    options = {"backend": "aot_eager", "fullgraph": True, "dynamic": route == "dynamic"}
    if transform in MAY_BE_REFUSED:
        theirs = _refusal(lambda: run(torch.compile(kind.reference, **options), *kind.operands()))
        torch._dynamo.reset()
        if theirs is not None:
            with record(transform, route, "t"), pytest.raises(type(theirs)) as ours:
                run(torch.compile(site, **options), *kind.operands())
            assert str(ours.value).splitlines()[0] == str(theirs).splitlines()[0]
            return
    want = run(kind.reference, *kind.operands())
    with record(transform, route):
        if transform in INSIDE:
            got = torch.compile(lambda *a: run(site, *a), **options)(*kind.operands())
        else:
            got = run(torch.compile(site, **options), *kind.operands())
        kind.check(got, want)


def test_a_device_that_knows_no_autocast_takes_the_other_routes_too():
    from ninefold.nn import Conv2d

    layer = Conv2d(3, 5, (2, 3), device="meta")
    x = torch.zeros(4, 2, 3, 7, 9, device="meta")
    assert torch.vmap(layer)(x).shape == (4, 2, 5, 6, 7)
