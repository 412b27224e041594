"""Maximum pooling at random steps, against the definition and torch's function with the same numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as tF

import ninefold.functional as F
from ninefold import reference
from ninefold.errors import ArgumentError, DTypeError, ShapeError

SIZES = {2: (9, 13), 3: (6, 9, 13)}
KERNELS = {2: (2, 3), 3: (2, 3, 2)}
OUTPUTS = {2: (4, 5), 3: (3, 4, 5)}


def both(n):
    return [getattr(where, f"fractional_max_pool{n}d") for where in (F, tF)]


def image(n, batch=2):
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(batch, 3, *SIZES[n], generator=generator, dtype=torch.double)
    return x, torch.rand(batch, 3, n, generator=generator, dtype=torch.double)


@pytest.mark.parametrize("n", [2, 3])
def test_the_definition(n):
    x, samples = image(n)
    ours, theirs = both(n)
    in_order = samples if n == 3 else samples.flip(-1)  # torch takes width and height, but depth, height and width
    want = reference.pool_fractions(x.numpy(), KERNELS[n], OUTPUTS[n], in_order.numpy(), reference.reductions["max"])
    z, at = ours(x, KERNELS[n], OUTPUTS[n], None, True, samples)
    assert np.array_equal(z.numpy(), want)
    assert torch.equal(x.flatten(2).gather(2, at.flatten(2)).view_as(z), z)
    for got, wanted in zip((z, at), theirs(x, KERNELS[n], OUTPUTS[n], None, True, samples), strict=True):
        assert torch.equal(got, wanted)
    unbatched = ours(x[1], KERNELS[n], OUTPUTS[n], _random_samples=samples[1:])
    assert torch.equal(unbatched, z[1])


@pytest.mark.parametrize("n", [2, 3])
def test_one_seed_gives_the_windows_of_torch(n):
    x, _ = image(n)
    for how in (
        {"output_size": OUTPUTS[n]},
        {"output_ratio": (0.55,) * n},
        {"output_ratio": (0.5, 0.6, 0.7)[:n]},
        {"output_size": 3},
    ):
        found = []
        for function in both(n):
            torch.manual_seed(3)
            found.append(function(x, 2, **how))
        assert torch.equal(*found)


@pytest.mark.parametrize("n", [2, 3])
def test_gradients_transforms_and_formats(n):
    x, samples = image(n, 1)
    leaf = x.requires_grad_()

    def function(x):
        return both(n)[0](x, 2, OUTPUTS[n], _random_samples=samples)

    assert torch.autograd.gradcheck(function, leaf, fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: function(x).square(), leaf, fast_mode=True)
    many = torch.randn(3, *x.shape, dtype=torch.double)
    assert torch.equal(torch.func.vmap(function)(many)[2], function(many[2]))
    torch._dynamo.reset()
    assert torch.equal(torch.compile(function, fullgraph=True, backend="aot_eager")(x.detach()), function(x))
    last = torch.channels_last if n == 2 else torch.channels_last_3d
    out = function(x.detach().contiguous(memory_format=last))
    assert torch.equal(out, function(x))
    assert out.is_contiguous(memory_format=last)
    assert function(x[:0]).shape == (0, 3, *OUTPUTS[n])
    changed = torch.relu_(function(leaf)).sum()
    changed.backward()
    kept = leaf.grad.clone()
    leaf.grad = None
    torch.relu(function(leaf)).sum().backward()
    assert torch.equal(kept, leaf.grad)


@pytest.mark.parametrize("n", [2, 3])
def test_mistakes(n):
    x, samples = image(n)
    ours = both(n)[0]
    for words, kind, call in (
        ("give output_size or output_ratio, got neither", ArgumentError, lambda f: f(x, 2)),
        (rf"9 windows of 2 along axis \d need {8 + n} positions, but the input has", ShapeError, lambda f: f(x, 2, 9)),
        ("no channels", ShapeError, lambda f: f(x[:, :0], 2, 3)),
        ("int64", DTypeError, lambda f: f(x.long(), 2, 3, _random_samples=samples)),
    ):
        with pytest.raises(kind, match=words):
            call(ours)
        with pytest.raises(Exception) as caught:
            call(both(n)[1])
        assert isinstance(caught.value, ValueError | RuntimeError)
    with pytest.raises(ArgumentError, match="output_ratio=1.5 must lie between 0 and 1"):
        ours(x, 2, output_ratio=1.5)
