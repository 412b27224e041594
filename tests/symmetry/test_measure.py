"""Equivariance and invariance against what the chapter says of each kind of layer, exactly: small integers in double precision."""

import json

import pytest
import torch

import ninefold as nf
from ninefold import nn
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.symmetry import Custom, Flip, Rot90, Rotate, Scale, Shift, error_map

IMAGE = (2, 3, 11, 14)


def image(*shape, seed=0):
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).double()


def whole(layer):
    """Return a layer with small integers for weights, so that every error that is none is exactly none."""
    generator = torch.Generator().manual_seed(1)
    for parameter in layer.parameters():
        parameter.data = torch.randint(-4, 5, parameter.shape, generator=generator).double()
    return layer.double()


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (-3, 5), (10, 13)], ids=str)
def test_a_circular_border_is_equivariant_to_every_shift(shift):
    conv = whole(torch.nn.Conv2d(3, 4, (3, 5), padding=(1, 2), padding_mode="circular"))
    found = nf.equivariance(conv, image(*IMAGE), Shift(*shift))[Shift(*shift)]
    assert found.border == 0
    assert found.error in (0, None)  # a shift by nearly the whole leaves nothing that is not at a border
    assert (found.error is None) == (shift == (10, 13))


def test_zeros_break_it_at_the_border_and_only_there():
    conv = whole(torch.nn.Conv2d(3, 4, (3, 5), padding=(1, 2)))
    found = nf.equivariance(conv, image(*IMAGE), Shift(1, -2))
    assert found["Shift(1, -2)"].error == 0
    assert found["Shift(1, -2)"].border > 0.1
    assert found.holds("Shift(1, -2)")
    differs = error_map(conv, image(*IMAGE), Shift(1, -2)) > 0
    rows, columns = differs.any(1), differs.any(0)
    inside = torch.zeros(11, 14, dtype=torch.bool)
    inside[2:-1, 2:-4] = True  # farther from the border than half the kernel, and from what came in
    assert not (differs & inside).any()
    assert rows.all()
    assert columns.all()


def test_without_padding_there_is_no_border():
    found = nf.equivariance(whole(torch.nn.Conv2d(3, 4, (3, 4))), image(*IMAGE), "shift")
    assert [(t.error, t.border) for t in found.tests] == [(0, None), (0, None)]


def test_stride_s_commutes_with_multiples_of_s_only():
    conv = whole(torch.nn.Conv2d(3, 4, 3, stride=(2, 3), padding=1, padding_mode="circular"))
    x = image(2, 3, 12, 15)
    found = nf.equivariance(conv, x, [Shift(a, b) for a in range(5) for b in range(7)])
    assert [t.transform for t in found.tests if found.holds(t.transform) and not t.border] == [
        str(Shift(a, b)) for a in (0, 2, 4) for b in (0, 3, 6)
    ]
    assert "part of a position" in found["Shift(1, 0)"].whole.note


def test_tiles_of_period_t_commute_with_multiples_of_t_only():
    tiled = whole(nn.TiledConv1d(2, 3, 4, period=3, padding="same", padding_mode="circular"))
    found = nf.equivariance(tiled, image(2, 2, 12), [Shift(s) for s in range(8)])
    assert [t.transform for t in found.tests if found.holds(t.transform)] == ["Shift(0)", "Shift(3)", "Shift(6)"]


def test_an_unshared_layer_commutes_with_no_shift():
    local = whole(nn.LocallyConnected1d(2, 3, 3, input_size=12, padding=1, padding_mode="circular"))
    found = nf.equivariance(local, image(2, 2, 12), [Shift(s) for s in range(1, 12)])
    assert not any(found.holds(t.transform) for t in found.tests)


def test_max_pooling_commutes_with_multiples_of_its_stride_and_with_flips_that_fit():
    found = nf.equivariance(torch.nn.MaxPool2d(2), image(2, 3, 8, 9), [Shift(1, 0), Shift(2, 0), Shift(0, 4), Flip(0), Flip(1)])
    assert [found.holds(t.transform) for t in found.tests] == [False, True, True, True, False]  # nine columns lose the last one


def test_a_transposed_convolution_moves_farther_than_its_input():
    conv = whole(torch.nn.ConvTranspose1d(2, 3, 3, stride=2))
    found = nf.equivariance(conv, image(2, 2, 9), [Shift(1), Shift(-4)])
    assert [t.error for t in found.tests] == [0, 0]


def test_quarter_turns_are_broken_by_a_kernel_unless_it_has_the_symmetry():
    conv = whole(torch.nn.Conv2d(1, 1, 3, padding=1, bias=False))
    x = image(1, 1, 10, 10)
    found = nf.equivariance(conv, x, ["rot90", Flip(0)])
    assert not found.holds("Rot90(1)")
    assert not found.holds("Flip(0)")
    kernel = conv.weight.data
    conv.weight.data = sum(kernel.rot90(turn, (-2, -1)) for turn in range(4))
    found = nf.equivariance(conv, x, ["rot90", Rot90(2), Flip(0)])
    assert [t.error for t in found.tests][:2] == [0, 0]
    assert [t.border for t in found.tests][:2] == [0, 0]
    turned = Custom(lambda v: v.rot90(1, (-2, -1)), name="turned")
    assert nf.equivariance(conv, x, turned)["turned"].error == 0


def test_quarter_turns_exchange_the_sizes():
    conv = whole(torch.nn.Conv2d(3, 2, 3, padding=1, bias=False))
    conv.weight.data = sum(conv.weight.data.rot90(turn, (-2, -1)) for turn in range(4))
    assert nf.equivariance(conv, image(*IMAGE), Rot90(3))["Rot90(3)"].error == 0
    stride = nf.equivariance(whole(torch.nn.Conv2d(3, 2, 2, stride=(1, 2))), image(*IMAGE), Rot90())
    assert stride["Rot90(1)"].error == float("inf")
    assert "shape" in stride["Rot90(1)"].whole.note


def test_interpolated_transforms_are_told_and_small_where_they_commute():
    smooth = torch.nn.functional.interpolate(image(1, 1, 5, 5), size=33, mode="bicubic")
    blur = torch.nn.Conv2d(1, 1, 5, padding=2, bias=False).double()
    line = torch.tensor([1.0, 4, 6, 4, 1]).double()
    blur.weight.data = torch.outer(line, line)[None, None] / 256
    edge = torch.nn.Conv2d(1, 1, 5, padding=2, bias=False).double()
    edge.weight.data = blur.weight.data * torch.tensor([-2.0, -1, 0, 1, 2]).double()
    round_, directed = (nf.equivariance(c, smooth, [Rotate(30), Scale(1.5)]) for c in (blur, edge))
    assert all(t.interpolated for t in round_.tests)
    assert 0 < round_["Rotate(30)"].error < 0.05
    assert directed["Rotate(30)"].error > 0.2
    assert directed["Scale(1.5)"].error > 0.2  # a slope changes with the scale
    assert nf.equivariance(torch.nn.Identity(), smooth, [Rotate(30), Scale(1.5)])["Rotate(30)"].error == 0


def network(second, *more):
    first = torch.nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")
    return whole(torch.nn.Sequential(first, second, torch.nn.ReLU(inplace=True), torch.nn.Conv2d(5, 2, 1), *more))


def test_the_layer_that_breaks_it_is_named():
    net = network(nn.LocallyConnected2d(4, 5, 3, input_size=(9, 10), padding=1, padding_mode="circular"))
    x = image(2, 3, 9, 10)
    before = x.clone()
    found = nf.equivariance(net, x, "shift")
    assert [t.layer for t in found.tests] == ["1", "1"]
    assert [f.layer for f in found.tests[0].layers] == ["0", "1", "2", "3"]
    assert [f.holds(found.tolerance) for f in found.tests[0].layers] == [True, False, True, True]
    assert torch.equal(x, before)
    plain = network(torch.nn.Conv2d(4, 5, 3, padding=1, padding_mode="circular"))
    assert [t.layer for t in nf.equivariance(plain, x, "shift").tests] == [None, None]


def test_a_layer_gets_the_shift_that_arrives():
    pools = torch.nn.Sequential(torch.nn.MaxPool1d(2), torch.nn.MaxPool1d(2), torch.nn.MaxPool1d(2))
    found = nf.equivariance(pools, image(1, 2, 32), [Shift(2), Shift(4), "shift"])
    assert [t.transform for t in found.tests] == ["Shift(2)", "Shift(4)", "Shift(1)", "Shift(8)"]
    assert [t.layer for t in found.tests] == ["1", "2", "0", None]
    assert [f.error is None for f in found["Shift(2)"].layers] == [False, False, True]


def test_a_layer_at_the_border_is_named_apart():
    net = torch.nn.Sequential(torch.nn.Conv1d(2, 2, 3), torch.nn.Conv1d(2, 2, 3, padding=1))
    test = nf.equivariance(whole(net), image(1, 2, 20), "shift")["Shift(1)"]
    assert (test.layer, test.border_layer, test.error) == (None, "1", 0)


def test_a_layer_that_is_all_border_is_named_only_if_no_other_breaks_it():
    net = whole(torch.nn.Sequential(torch.nn.Conv1d(2, 2, 5, padding=2), torch.nn.Conv1d(2, 2, 5, padding=2)))
    test = nf.equivariance(net, image(1, 2, 9), "shift")["Shift(1)"]
    assert (test.error, test.layer) == (None, "0")  # at the ends of the picture; inside neither
    net = torch.nn.Sequential(net[0], whole(nn.LocallyConnected1d(2, 2, 1, input_size=9)))
    assert nf.equivariance(net, image(1, 2, 9), "shift")["Shift(1)"].layer == "1"


def test_a_position_that_is_lost_between_layers_is_seen_in_the_whole():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = whole(torch.nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"))

        def forward(self, x):
            y = self.conv(x)
            return y * torch.arange(y.shape[-1])

    found = nf.equivariance(Odd(), image(1, 2, 9), "shift")["Shift(1)"]
    assert found.layer == "no single layer"
    assert found.layers[0].error == 0


def test_skips_squeezes_and_shared_layers():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = whole(torch.nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"))
            self.gate = whole(torch.nn.Conv2d(3, 3, 1))

        def forward(self, x):
            y = self.conv(self.conv(x)) + x
            return y * self.gate(y.mean((2, 3), keepdim=True)).sign()

    found = nf.equivariance(Net(), image(2, 3, 7, 9), "shift")
    assert all(t.whole.holds(1e-12) for t in found.tests)
    assert [f.layer for f in found.tests[0].layers][:2] == ["conv", "conv#2"]


@pytest.mark.parametrize("shape", [(2, 3, 13), (2, 3, 7, 9), (1, 3, 5, 6, 7)], ids=len)
def test_one_two_and_three_dimensions(shape):
    n = len(shape) - 2
    conv = whole(getattr(torch.nn, f"Conv{n}d")(3, 4, 3, padding=1, padding_mode="circular"))
    found = nf.equivariance(conv, image(*shape))
    shifts = [t for t in found.tests if t.transform.startswith("Shift")]
    assert len(shifts) == n
    assert all(t.whole.holds(0) and t.border == 0 for t in shifts)
    flips = [t for t in found.tests if t.transform.startswith("Flip")]
    assert len(flips) == n
    assert not any(t.whole.holds(1e-3) for t in flips)


def test_a_network_with_global_pooling_is_invariant():
    net = network(torch.nn.Conv2d(4, 5, 3, padding=1, padding_mode="circular"), torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten())
    x = image(2, 3, 9, 9)
    found = nf.invariance(net, x, ["shift", "rot90"])
    assert [t.error for t in found.tests][:2] == [0, 0]
    assert found["Shift(1, 0)"].layer == "4"
    assert found["Shift(1, 0)"].layers[0].error > 0.1
    assert not found.holds("Rot90(1)")
    assert found["Rot90(1)"].layer is None
    equivariant = nf.equivariance(net, x, "shift")
    assert all(t.whole.holds(0) for t in equivariant.tests)


def test_four_turned_filters_and_a_maximum_do_not_notice_a_quarter_turn():
    class Turned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            kernel = image(1, 1, 3, 3, seed=2)
            self.conv = torch.nn.Conv2d(1, 4, 3, bias=False).double()
            self.conv.weight.data = torch.cat([kernel.rot90(r, (-2, -1)) for r in range(4)])

        def forward(self, x):
            return self.conv(x).amax((1, 2, 3))

    found = nf.invariance(Turned(), image(3, 1, 8, 8), [Rot90(r) for r in range(1, 4)])
    assert [t.error for t in found.tests] == [0, 0, 0]


def test_a_function_with_its_action_on_the_output():
    conv = whole(torch.nn.Conv1d(2, 3, 3, bias=False))
    x = image(2, 2, 9)
    mirrored = Custom(lambda v: -v, name="sign")
    assert nf.equivariance(conv, x, mirrored)["sign"].error == 0
    assert nf.equivariance(torch.nn.ReLU(), x, mirrored)["sign"].error == 1
    assert nf.equivariance(torch.nn.Softmax(1), x, Custom(lambda v: v + 1, lambda y: y, "offset"))["offset"].error < 1e-14
    assert nf.equivariance(torch.nn.ReLU(), x, torch.neg)["neg"].error == 1


def test_a_position_is_inside_only_if_the_one_it_is_compared_with_was():
    causal = nn.Conv1d(1, 1, 3, padding="causal", bias=False).double()
    causal.weight.data.fill_(1.0)
    test = nf.equivariance(causal, torch.ones(1, 1, 9).double(), Flip())["Flip(-1)"]
    assert (test.error, test.border) == (0, 2 / 3)


def test_the_shift_of_a_classifier_is_that_of_its_coarsest_map():
    ring = {"padding": 1, "padding_mode": "circular"}
    body = [torch.nn.Conv2d(3, 4, 3, stride=2, **ring), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 3, stride=(2, 1), **ring)]
    net = whole(torch.nn.Sequential(*body, torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten(), torch.nn.Linear(5, 3)))
    x = image(2, 3, 12, 8)
    for measure in (nf.equivariance, nf.invariance):
        found = measure(net, x, "shift")
        assert [t.transform for t in found.tests] == ["Shift(1, 0)", "Shift(4, 0)", "Shift(0, 1)", "Shift(0, 2)"]
        assert [found.holds(t.transform) for t in found.tests] == [False, True, False, True]


def test_of_half_a_position_the_better_side_counts():
    x = torch.arange(8).double().repeat_interleave(2)[None, None]
    found = nf.equivariance(torch.nn.MaxPool1d(2), x, [Shift(1), Shift(-1)])
    assert [t.error for t in found.tests] == [0, 0]  # of what rises, maxima do not notice


def test_a_layer_that_overwrites_its_input_overwrites_nothing():
    net = torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Conv1d(2, 2, 3))
    x = image(1, 2, 9)
    before = x.clone()
    assert all(f.holds(1e-6) for f in nf.equivariance(net.double(), (x,), "shift")["Shift(1)"].layers)
    nf.invariance(net, x, "shift")
    assert torch.equal(x, before)


def test_it_prints_and_is_json():
    found = nf.equivariance(network(torch.nn.Conv2d(4, 5, 3, padding=1)), image(2, 3, 9, 9))
    text = str(found)
    for part in ("Shift(1, 0)", "Rotate(20)", "interpolated", "exactly", "inside", "at borders 1", "Conv2d"):
        assert part in text
    data = json.loads(found.to_json())
    assert data["tests"][0]["whole"]["error"] == 0
    assert "invariant from" in str(nf.invariance(torch.nn.ReLU(), image(2, 3, 9, 9)))


def test_modes_and_random_state_are_left_as_they_were():
    net = torch.nn.Sequential(torch.nn.Conv1d(2, 2, 3), torch.nn.BatchNorm1d(2), torch.nn.Dropout())
    net[1].eval()
    state = torch.get_rng_state()
    nf.equivariance(net, torch.randn(2, 2, 9, generator=torch.Generator()), "shift")
    assert [m.training for m in net] == [True, False, True]
    assert torch.equal(state, torch.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net)


def test_what_does_not_apply_is_refused_in_words():
    x = image(1, 2, 9)
    conv = whole(torch.nn.Conv1d(2, 3, 3))
    with pytest.raises(ArgumentError, match=r"Shift\(1, 0\) has 2 numbers for 1 spatial axes"):
        nf.equivariance(conv, x, Shift(1, 0))
    with pytest.raises(ArgumentError, match=r"Rotate\(20\) turns a plane"):
        nf.equivariance(conv, x, "rotate")
    with pytest.raises(ArgumentError, match=r"Flip\(1\) names axis 1, but there are only 1"):
        nf.equivariance(conv, x, Flip(1))
    with pytest.raises(ArgumentTypeError, match=r"'turn' is no transform: give one of \['shift', 'flip'"):
        nf.equivariance(conv, x, "turn")
    with pytest.raises(ArgumentTypeError, match="no tensor in the example"):
        nf.equivariance(conv, 3)
    with pytest.raises(ShapeError, match="spatial=5"):
        nf.equivariance(conv, x, spatial=5)
    with pytest.raises(ArgumentError, match=r"Flip\(0\) was not tested; these were: Shift\(1\)"):
        nf.equivariance(conv, x, "shift")["Flip(0)"]
    with pytest.raises(ArgumentError, match="factor=0 must be above 0"):
        Scale(0)


class ByName(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv1d(1, 2, 3, padding=1, padding_mode="circular")

    def forward(self, *, given):
        return self.conv(input=given["signal"])


def test_examples_are_any_nest_of_arguments():
    x = torch.randn(1, 1, 16)
    named = {"given": {"signal": x}}
    for measure in (nf.equivariance, nf.invariance):
        plain, nested = measure(ByName().conv, x, "shift"), measure(ByName(), named, "shift")
        assert [t.error for t in nested.tests] == [t.error for t in plain.tests]
    with pytest.raises(ArgumentTypeError, match="no tensor in the example"):
        nf.equivariance(ByName(), {"given": 3})
