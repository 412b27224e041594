"""Separable layers against the dense ones they stand for, their errors against singular values, their counts against formulas."""

import copy
import pickle
from math import prod

import pytest
import torch

import ninefold as nf
from ninefold import nn
from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.spec import ConvSpec, direct_products, two_pass_products

SIZES = {2: (9, 8), 3: (6, 5, 7)}
KERNELS = {2: (3, 4), 3: (3, 2, 4)}


def whole(layer):
    for p in layer.double().parameters():
        p.data = torch.randint(-3, 4, p.shape).double()
    return layer


def make(n, **more):
    given = {"rank": 2, "groups": 2, "stride": 2, "padding": 1} | more
    return whole(getattr(nn, f"SpatiallySeparableConv{n}d")(4, 6, KERNELS[n], **given))


def image(n, batch=2):
    return torch.randint(-4, 5, (batch, 4, *SIZES[n])).double()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"padding": "same", "dilation": 2, "padding_mode": "symmetric"},
        {"padding": "full", "groups": 1, "flip_kernel": True},
        {"padding": 2, "padding_mode": "circular", "stride": 1, "rank": 1, "bias": False},
    ],
)
@pytest.mark.parametrize("n", [2, 3])
def test_passes_are_the_dense_layer_of_their_product(n, settings):
    layer, x = make(n, **settings), image(n)
    dense = layer.to_dense()
    assert dense.weight.shape == (6, 4 // settings.get("groups", 2), *KERNELS[n])
    assert torch.equal(layer(x), dense(x))
    assert torch.equal(layer(x[0]), dense(x)[0])
    assert layer.specs[-1].bias == settings.get("bias", True)


def test_a_product_is_a_sum_of_outer_products():
    layer = make(2, groups=1)
    row, column = (p.weight.detach() for p in layer.passes)
    expected = sum(column[:, None, r, :, :] * row[None, r, :, :, :] for r in range(2))
    assert torch.equal(layer.to_dense().weight.detach(), expected)
    three = whole(nn.SpatiallySeparableConv3d(4, 4, (3, 2, 4), groups=4, rank=1))
    c, b, a = (p.weight.detach().flatten(1) for p in three.passes)
    assert torch.equal(three.to_dense().weight.detach()[:, 0], a[:, :, None, None] * b[:, None, :, None] * c[:, None, None, :])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_an_error_is_exactly_the_singular_values_left_out(groups):
    torch.manual_seed(0)
    dense = torch.nn.Conv2d(4, 8, (3, 5), groups=groups, dtype=torch.double)
    matrices = dense.weight.detach().unflatten(0, (groups, -1)).transpose(2, 3).reshape(groups, 8 // groups * 3, -1)
    values = torch.linalg.svdvals(matrices)
    for rank in range(1, 1 + min(8 // groups * 3, 4 // groups * 5)):
        near = nn.SpatiallySeparableConv2d.from_dense(dense, rank)
        left = (near.to_dense().weight - dense.weight).norm().item()
        assert near.truncation.error == pytest.approx(values[:, rank:].norm().item(), abs=1e-12)
        assert left == pytest.approx(near.truncation.error, abs=1e-12)
        assert near.truncation.relative == pytest.approx(left / dense.weight.norm().item(), abs=1e-12)
        assert len(near.truncation.kept[0]) == groups * rank
    assert near.truncation.error < 1e-12
    x = torch.randn(2, 4, 9, 8, dtype=torch.double)
    torch.testing.assert_close(near(x), dense(x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("ranks", [(1, 1), (2, 3), (4, 2), (6, 4)])
def test_errors_of_the_cuts_of_three_axes_add_up(ranks):
    torch.manual_seed(0)
    dense = torch.nn.Conv3d(2, 4, (3, 2, 4), padding=1, groups=2, dtype=torch.double)
    near = nn.SpatiallySeparableConv3d.from_dense(dense, ranks)
    left = (near.to_dense().weight - dense.weight).norm().item()
    assert left == pytest.approx(near.truncation.error, abs=1e-12)
    assert (left < 1e-12) == (ranks == (6, 4))
    kernel = dense.weight.detach().unflatten(0, (2, 2))  # groups, outs, ins, three axes
    least = []
    for before, rank in ((1, ranks[0]), (2, ranks[1])):
        rows = (1, *range(3, 3 + before))
        columns = (2, *range(3 + before, 6))
        size = 2 * prod(kernel.shape[3 : 3 + before])
        values = torch.linalg.svdvals(kernel.permute(0, *rows, *columns).reshape(2, size, -1))
        least.append(values[:, rank:].norm().item())
    assert max(least) - 1e-12 <= left <= sum(e * e for e in least) ** 0.5 + 1e-12


def test_a_kernel_of_low_rank_is_found_again():
    layer = make(2, rank=2, groups=1).double()
    again = nn.SpatiallySeparableConv2d.from_dense(layer.to_dense(), 2)
    assert again.truncation.relative < 1e-14
    x = image(2)
    torch.testing.assert_close(again(x), layer(x), rtol=1e-11, atol=1e-11)


def test_what_is_made_of_a_dense_layer_keeps_its_ways():
    dense = nn.Conv2d(4, 6, (3, 5), 2, "same", padding_mode="symmetric", flip_kernel=True, dtype=torch.double).eval()
    near = nn.SpatiallySeparableConv2d.from_dense(dense, 9)
    x = image(2)
    torch.testing.assert_close(near(x), nf.nn.SpatiallySeparableConv2d.from_dense(near.to_dense(), 9)(x), rtol=1e-9, atol=1e-9)
    assert near.to_dense().spec == dense.spec
    assert not near.training
    full = nn.SpatiallySeparableConv2d.from_dense(dense, 18)
    torch.testing.assert_close(full(x), dense(x), rtol=1e-10, atol=1e-10)
    zero = torch.nn.Conv2d(2, 2, 3)
    torch.nn.init.zeros_(zero.weight)
    assert nn.SpatiallySeparableConv2d.from_dense(zero, 1).truncation.relative == 0
    assert torch.equal(nn.SpatiallySeparableConv2d.from_dense(zero, 1).to_dense().weight, zero.weight)


def test_counts_are_those_of_the_formulas():
    layer = nn.SpatiallySeparableConv2d(1, 1, 7, rank=1, bias=False)
    assert layer.macs((64, 64)) == two_pass_products(64, 7) == 49532
    assert layer.to_dense().spec.macs((64, 64)) == direct_products(64, 7) == 164836
    for n in (2, 3):
        layer = make(n)
        assert layer.parameter_count() == sum(p.numel() for p in layer.parameters())
        seen, x = 0, image(n, 1)
        for spec, one in zip(layer.specs, layer.passes, strict=True):
            assert one.spec == spec.replace(padding=one.spec.padding)
            seen += spec.macs(x.shape[2:])
            x = one(x)
        assert layer.macs(SIZES[n]) == seen
    same = ConvSpec(1, 1, (7, 7), padding="same")
    assert nn.SpatiallySeparableConv2d(1, 1, 7, padding="same", rank=1).macs((20, 30)) * 7 == 2 * same.macs((20, 30))


def test_passes_keep_the_variance_and_the_last_is_torchs():
    torch.manual_seed(0)
    layer, dense = nn.SpatiallySeparableConv2d(32, 64, 5, rank=48), torch.nn.Conv2d(32, 64, 5)
    x = torch.randn(4, 32, 20, 20)
    assert 0.7 < (layer(x).std() / dense(x).std()).item() < 1.4


def test_layers_are_copied_pickled_loaded_compiled_and_converted():
    layer, x = make(2), image(2)
    z, other = layer(x), make(2)
    other.load_state_dict(layer.state_dict())
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other, compiled, nf.revert(layer)):
        assert torch.equal(twin(x), z)
    last = x.contiguous(memory_format=torch.channels_last)
    assert layer(last).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.func.vmap(layer)(x[:, None])[:, 0], z)
    assert layer(x[:0]).shape == (0, *z.shape[1:])


def test_gradients_of_gradients():
    layer = whole(nn.SpatiallySeparableConv2d(1, 2, (2, 3), rank=1))
    x = torch.randn(1, 1, 3, 4, dtype=torch.double, requires_grad=True)
    names = list(dict(layer.named_parameters()))
    run = lambda x, *w: torch.func.functional_call(layer, dict(zip(names, w, strict=True)), (x,))
    inputs = (x, *(p.detach().requires_grad_() for p in layer.parameters()))
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_the_text_shows_the_rank_and_what_it_left_out():
    assert "rank=2" in repr(make(2))
    assert "rank=(1, 2)" in repr(make(3, rank=(1, 2)))
    near = nn.SpatiallySeparableConv2d.from_dense(torch.nn.Conv2d(3, 4, 3), 2)
    assert f"truncated by {near.truncation.relative:.2g} of its norm" in repr(near)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: make(2, rank=10), ArgumentError, "rank=10 between axes 0 and 1 .* the most is 8"),
        (lambda: make(3, rank=(10, 8)), ArgumentError, "rank=10 between axes 0 and 1 .* the most is 9"),
        (lambda: make(3, rank=(3, 1)), ArgumentError, "rank=3 between axes 0 and 1 .* the most is 2"),
        (lambda: make(2, rank=0), ArgumentError, "rank must be at least 1, got 0"),
        (lambda: make(3, rank=(1, 2, 3)), ArgumentError, r"rank must be one number or 2 \(one per cut"),
        (lambda: nn.SpatiallySeparableConv2d.from_dense(torch.nn.ReLU(), 1), ArgumentTypeError, "ReLU is no convolution"),
        (lambda: nn.SpatiallySeparableConv2d.from_dense(torch.nn.Conv3d(1, 1, 3), 1), ArgumentError, "2-D forward convolution"),
        (lambda: nn.SpatiallySeparableConv2d.from_dense(torch.nn.ConvTranspose2d(1, 1, 3), 1), ArgumentError, "2-D forward"),
        (lambda: nn.SpatiallySeparableConv2d.from_dense(nn.TiledConv2d(1, 1, 3, period=2), 1), ArgumentError, "one kernel"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_ranks_up_to_the_largest_are_taken():
    for rank in ((1, 1), (2, 1), (1, 8), (9, 8)):
        assert make(3, rank=rank).rank == rank
