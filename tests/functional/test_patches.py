"""Patches as columns and back, against the definition, torch, and the convolution that they make a product of."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as tF

import ninefold.functional as F
from ninefold import reference
from ninefold.errors import ArgumentError, ShapeError
from ninefold.spec import ConvSpec

SIZES = {1: (9,), 2: (7, 6), 3: (4, 5, 3)}
KERNELS = {1: (3,), 2: (3, 2), 3: (2, 3, 1)}
BORDERS = (
    (0, "zeros"),
    (1, "zeros"),
    ("same", "reflect"),
    ("full", "symmetric"),
    ("causal", "replicate"),
    ("same_lower", "circular"),
    ("pairs", "circular"),
    ("crops", "zeros"),
)


def settled(n, padding):
    return {"pairs": ((2, 1), (0, 3), (1, 0))[:n], "crops": ((-1, 2),) * n}.get(padding, padding)


def image(n):
    shape = (2, 3, *SIZES[n])
    return torch.randperm(int(np.prod(shape)), generator=torch.Generator().manual_seed(n)).double().view(shape)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("padding", "mode"), BORDERS)
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), ((1, 2, 3), (2, 1, 2))])
def test_the_definition_and_its_adjoint(n, padding, mode, stride, dilation):
    steps, holes = (v[:n] if isinstance(v, tuple) else (v,) * n for v in (stride, dilation))
    padding = settled(n, padding)
    x, spec = image(n), ConvSpec(1, 1, KERNELS[n], steps, padding, holes, padding_mode=mode)
    how = (KERNELS[n], holes, padding, steps)
    columns = F.unfold(x, *how, padding_mode=mode)
    assert np.array_equal(columns.numpy(), reference.unfold(spec.form(SIZES[n]), x.numpy()))
    assert torch.equal(F.unfold(x[1], *how, padding_mode=mode), columns[1])
    assert torch.equal(F.unfold(x.to(torch.int64), *how, padding_mode=mode), columns.long())
    g = torch.randint(-5, 6, columns.shape).double()
    back = F.fold(g, SIZES[n], *how, padding_mode=mode)
    assert np.array_equal(back.numpy(), reference.fold(spec.form(SIZES[n]), g.numpy()))
    assert torch.equal(F.fold(g[1], SIZES[n], *how, padding_mode=mode), back[1])
    assert torch.equal((columns * g).sum(), (x * back).sum())
    w = torch.randint(-5, 6, (4, 3, *KERNELS[n])).double()
    conv = getattr(F, f"conv{n}d")(x, w, None, steps, padding, holes, padding_mode=mode)
    torch.testing.assert_close(w.flatten(1) @ columns, conv.flatten(2), rtol=1e-12, atol=1e-12)
    for made, given in ((columns, x), (back, g)):
        assert made.untyped_storage().data_ptr() != given.untyped_storage().data_ptr()


def test_torchs_own():
    x = image(2)
    for kernel, dilation, padding, stride in itertools.product((2, (3, 2)), (1, (1, 2)), (0, (1, 2)), (1, (2, 3))):
        want = tF.unfold(x, kernel, dilation, padding, stride)
        assert torch.equal(F.unfold(x, kernel, dilation, padding, stride), want)
        assert torch.equal(
            F.fold(want, SIZES[2], kernel, dilation, padding, stride), tF.fold(want, SIZES[2], kernel, dilation, padding, stride)
        )
        assert torch.equal(F.unfold(x[0], kernel, dilation, padding, stride), tF.unfold(x[0], kernel, dilation, padding, stride))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("padding", "mode"), [(1, "zeros"), ("same", "symmetric")])
def test_gradients_and_transforms(n, padding, mode):
    x = torch.randn(2, 2, *SIZES[n], dtype=torch.double, requires_grad=True)
    how = {"kernel_size": KERNELS[n], "padding": padding, "stride": 2, "padding_mode": mode}

    def there(x):
        return F.unfold(x, **how).square()

    def back(g):
        return F.fold(g, SIZES[n], **how).square()

    g = torch.randn_like(there(x)).requires_grad_()
    for function, leaf in ((there, x), (back, g)):
        assert torch.autograd.gradcheck(function, leaf, fast_mode=True, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, leaf, fast_mode=True)
        many = torch.randn(3, *leaf.shape, dtype=torch.double)
        torch.testing.assert_close(torch.func.vmap(function)(many)[2], function(many[2]))
        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(leaf.detach()), function(leaf.detach()))
        empty = leaf[:0].detach().requires_grad_()
        out = function(empty)
        assert out.shape == (0, *function(leaf).shape[1:])
        out.sum().backward()
        assert empty.grad.shape == empty.shape


def test_mistakes():
    x = image(2)
    with pytest.raises(ShapeError, match=r"kernel 9 .* only 7 along axis 0"):
        F.unfold(x, 9)
    with pytest.raises(ShapeError, match=r"\(2, 3, 7, 6\); it must be \(batch, channels, 1 spatial sizes\)"):
        F.unfold(x, (3,))
    with pytest.raises(ArgumentError, match="stride must be at least 1, got 0"):
        F.unfold(x, 3, stride=0)
    with pytest.raises(ShapeError, match=r"unfolds to 30 positions of channels times 6 taps: \(batch, channels \* 6, 30\)"):
        F.fold(torch.zeros(2, 18, 29), (7, 7), (3, 2))
    with pytest.raises(ShapeError, match="unfolds to 30 positions of channels times 6 taps"):
        F.fold(torch.zeros(2, 17, 30), (7, 7), (3, 2))
    with pytest.raises(ShapeError, match="columns have"):
        F.fold(torch.zeros(1, 2, 18, 30), (7, 7), (3, 2))
    for bad in (
        lambda f: f.unfold(x, 9),
        lambda f: f.fold(torch.zeros(2, 18, 29), (7, 7), (3, 2)),
        lambda f: f.unfold(x, 3, stride=0),
    ):
        for module in (tF, F):
            with pytest.raises(RuntimeError):
                bad(module)
