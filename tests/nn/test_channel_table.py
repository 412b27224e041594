"""Layers with a table of channels: their definition, their dense and grouped equals, their counts and what they refuse."""

import copy
import pickle

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ninefold import nn, reference
from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.spec import ChannelTable, grouped_table, lenet5_table, window_table

SIZES = {1: (17,), 2: (7, 9), 3: (4, 6, 5)}
KERNELS = {1: (3,), 2: (2, 3), 3: (1, 2, 3)}
TABLE = ((4, 1), (0, 0), (0, 3), (1, 2), (4, 3), (2, 1), (2, 3))  # output 3 sees nothing


def whole(layer):
    for p in layer.double().parameters():
        p.data = torch.randint(-4, 5, p.shape).double()
    return layer


def make(n, table=TABLE, outputs=5, **more):
    given = {"stride": 2, "padding": 1, "dilation": 2} | more
    return whole(getattr(nn, f"ChannelTableConv{n}d")(4, outputs, KERNELS[n], table=table, **given))


def image(n, batch=3):
    return torch.randint(-4, 5, (batch, 4, *SIZES[n])).double()


@pytest.mark.parametrize("mode", ["zeros", "symmetric"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_layer_is_the_definition_and_the_dense_layer_with_zeros(n, mode):
    layer, x = make(n, padding_mode=mode, flip_kernel=True), image(n)
    form = layer.spec.form(SIZES[n])
    expected = torch.from_numpy(reference.c(form, layer.weight.detach().numpy(), x.numpy()))
    expected += layer.bias.detach().view(-1, *(1,) * n)
    assert layer.weight.shape == (7, *KERNELS[n])
    assert torch.equal(layer(x), expected)
    assert torch.equal(layer(x[0]), expected[0])
    assert torch.equal(layer.to_dense()(x), expected)
    assert torch.equal(layer(x)[:, 3], layer.bias[3].expand(3, *form.n_out))
    assert layer(x[:0]).shape == (0, 5, *form.n_out)


def test_a_grouped_table_is_a_grouped_convolution():
    layer, x = make(2, grouped_table(4, 6, 2), outputs=6), image(2)
    grouped = torch.nn.Conv2d(4, 6, (2, 3), 2, 1, 2, groups=2).double()
    grouped.weight.data, grouped.bias.data = layer.weight.data.view(6, 2, 2, 3), layer.bias.data
    assert torch.equal(layer(x), grouped(x))


def test_edges_may_come_in_any_order():
    order = torch.randperm(7)
    layer, other, x = make(2), make(2, [TABLE[k] for k in order]), image(2)
    other.weight.data, other.bias.data = layer.weight.data[order], layer.bias.data
    assert torch.equal(other(x), layer(x))
    assert make(2, ChannelTable(4, 5, TABLE)).spec == layer.spec


def test_lenet5s_c3_has_the_published_numbers():
    layer = nn.ChannelTableConv2d(6, 16, 5, table=lenet5_table())
    assert sum(p.numel() for p in layer.parameters()) == 1516
    assert layer.spec.macs((14, 14)) + 16 * 100 == 151_600  # connections, those of the biases included
    with FlopCounterMode(display=False) as counter:
        layer(torch.zeros(2, 6, 14, 14))
    assert counter.get_total_flops() == 2 * 2 * 60 * 25 * 100


def test_layers_are_copied_pickled_loaded_compiled_and_mapped():
    layer, x = make(2), image(2)
    z, other = layer(x), make(2)
    other.load_state_dict(layer.state_dict())
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other, compiled):
        assert torch.equal(twin(x), z)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(layer(last), z)
    assert layer(last).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.func.vmap(layer)(x[:, None])[:, 0], z)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(x.float()).dtype == torch.bfloat16


def test_gradients_of_gradients():
    layer, x = make(1), image(1, batch=2).requires_grad_()
    inputs = (x, layer.weight.detach().requires_grad_(), layer.bias.detach().requires_grad_())
    run = lambda x, w, b: torch.func.functional_call(layer, {"weight": w, "bias": b}, (x,))
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_gradients_are_those_of_the_dense_layer_on_its_edges():
    layer, x = make(2), image(2).requires_grad_()
    dense, y = layer.to_dense(), x.detach().clone().requires_grad_()
    up = torch.randint(-4, 5, layer(x).shape).double()
    layer(x).backward(up)
    dense(y).backward(up)
    assert torch.equal(x.grad, y.grad)
    assert torch.equal(layer.weight.grad, torch.stack([dense.weight.grad[o, i] for o, i in TABLE]))
    assert torch.equal(layer.bias.grad, dense.bias.grad)


def test_each_output_is_drawn_by_its_own_fan_in():
    torch.manual_seed(0)
    table = [(0, i) for i in range(40)] + [(1, 0), (1, 1), (1, 2), (1, 3)]
    layer = nn.ChannelTableConv2d(40, 3, (4, 5), table=table)
    for edges, fan_in in ((slice(40), 40), (slice(40, 44), 4)):
        bound = (fan_in * 20) ** -0.5
        assert 0.9 * bound < layer.weight[edges].abs().max() <= bound
    assert layer.bias[2] == 0
    assert layer.bias[0].abs() <= 800**-0.5


def test_the_text_shows_what_is_set_and_a_new_table_is_seen():
    layer = make(2, padding_mode="reflect", bias=False)
    for part in ("4, 5, kernel_size=(2, 3), stride=(2, 2)", "table of 7 edges", "padding_mode=reflect", "bias=False"):
        assert part in repr(layer)
    x, z = image(2), layer(image(2)[:, :4])
    layer.table = tuple((o, (i + 1) % 4) for o, i in TABLE)
    assert torch.equal(layer(x), make_like(layer)(x))
    assert z.shape == layer(x).shape


def make_like(layer):
    other = make(2, layer.table, padding_mode="reflect", bias=False)
    other.weight.data = layer.weight.data
    return other


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(ArgumentError, match=r"edge \(5, 0\) of the channel table is outside 5 outputs x 4 inputs"):
        make(2, [(5, 0)])
    with pytest.raises(ArgumentError, match=r"edge \(1, 2\) appears twice"):
        make(2, [(1, 2), (0, 0), (1, 2)])
    with pytest.raises(ArgumentError, match="0 edges connects none of 4 inputs to 5 outputs"):
        make(2, [])
    with pytest.raises(ArgumentTypeError, match=r"table\[0\] must be a pair"):
        make(2, [3])
    with pytest.raises(ArgumentError, match="width=9 is more than the 4 inputs"):
        make(2, window_table(4, 5, 9))
