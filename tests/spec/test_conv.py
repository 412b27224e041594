import pickle
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.spec import ConvSpec
from ninefold.spec.padding import MODES, POLICIES


@st.composite
def specs(draw):
    ndim = draw(st.integers(1, 3))

    def per_axis(least, most):
        return draw(st.tuples(*[st.integers(least, most)] * ndim))

    table, groups, ends = None, draw(st.integers(1, 3)), draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    if draw(st.booleans()):
        edges = st.tuples(st.integers(0, ends[1] - 1), st.integers(0, ends[0] - 1))
        table, groups = tuple(draw(st.lists(edges, unique=True, max_size=5))), 1
    pads = st.tuples(st.integers(-2, 4), st.integers(-2, 4))
    padding = draw(st.one_of(st.sampled_from(list(POLICIES)), st.tuples(*[pads] * ndim)))
    transposed = draw(st.booleans())
    same = isinstance(padding, str) and padding.startswith("same")
    return ConvSpec(
        ends[0] * groups,
        ends[1] * groups,
        per_axis(1, 5),
        stride=per_axis(1, 4),
        padding=padding,
        dilation=per_axis(1, 3),
        groups=groups,
        padding_mode=draw(st.sampled_from(list(MODES))),
        flip_kernel=draw(st.booleans()),
        period=draw(st.tuples(*[st.one_of(st.none(), st.integers(1, 4))] * ndim)),
        table=table,
        bias=draw(st.booleans()),
        transposed=transposed,
        output_padding=per_axis(0, 2) if transposed and not same else 0,
    )


@settings(max_examples=200, deadline=None)
@given(specs())
def test_text_round_trip(spec):
    text = spec.to_text()
    assert "\n" not in text
    assert ConvSpec.from_text(text) == spec
    assert hash(ConvSpec.from_text(text)) == hash(spec)
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.replace() == spec


def test_sugar_is_gone():
    sugar = ConvSpec(2, 3, 5, padding="same", stride=[2, 3], table=None)
    assert sugar == ConvSpec(2, 3, (5, 5), padding="same_upper", stride=(2, 3))
    assert ConvSpec(2, 3, 5, padding=((0, 1), (2, 3), (4, 5))).kernel_size == (5, 5, 5)
    assert ConvSpec(2, 3, 5, period=(2, None, 3)).ndim == 3
    assert sugar.replace(stride=1).stride == (1, 1)


# Section 1.3: edge detection by a kernel of two taps on an image 320 wide and 280 high


def test_edge_detection_figure_9_6():
    spec, size = ConvSpec(1, 1, (1, 2)), (280, 320)
    assert spec.output_size(size) == (280, 319)
    units_in, units_out = 280 * 320, 280 * 319
    assert (units_out, units_in) == (89320, 89600)
    assert spec.macs(size) == spec.connections(size) == 178_640
    flops = 2 * spec.macs(size) - units_out
    assert flops == 267_960
    dense = ConvSpec(units_in, units_out, (1,)).connections(1)
    assert dense == 8_003_072_000
    assert 2 * dense > 16e9
    assert round(2 * dense / flops) == 59_733
    assert dense // spec.parameters() == 4_001_536_000


# Sections 7.2, 7.3, 7.5: counts


def test_separable_counts_are_macs():
    n, m = 64, 7
    column, row = ConvSpec(1, 1, (m, 1)), ConvSpec(1, 1, (1, m))
    assert ConvSpec(1, 1, m).macs((n, n)) == 164_836
    assert column.macs((n, n)) + row.macs(column.output_size((n, n))) == 49_532
    same = [ConvSpec(1, 1, k, padding="same").macs((60, n)) for k in ((m, m), (m, 1), (1, m))]
    assert m * (same[1] + same[2]) == 2 * same[0]


def test_depthwise_separable_counts_are_macs():
    size, d, nc = (9, 9), 4, 6
    assert ConvSpec(d, nc, 3).macs(size) == 10_584
    depthwise = ConvSpec(d, d, 3, groups=d)
    pointwise = ConvSpec(d, nc, 1)
    assert depthwise.macs(size) + pointwise.macs(depthwise.output_size(size)) == 2_940
    assert depthwise.parameters() + pointwise.parameters() == d * 9 + d * nc


def test_grouped_counts():
    conv2 = ConvSpec(96, 256, 5, groups=2, padding=2)
    assert conv2.parameters() == 307_200
    assert conv2.replace(groups=1).parameters() == 614_400
    block = [ConvSpec(256, 128, 1), ConvSpec(128, 128, 3, groups=32), ConvSpec(128, 256, 1)]
    assert sum(layer.parameters() for layer in block) == 70_144
    bottleneck = [ConvSpec(256, 64, 1), ConvSpec(64, 64, 3), ConvSpec(64, 256, 1)]
    assert sum(layer.parameters() for layer in bottleneck) == 69_632


def test_zeros_of_the_border_are_multiplied_but_no_connections():
    spec = ConvSpec(2, 3, (3, 5), padding=((0, 1), (2, 2)))
    assert spec.macs((4, 6)) == 6 * (3 * 3) * (6 * 5)
    assert spec.connections((4, 6)) == 6 * (3 + 3 + 2) * (3 + 4 + 5 + 5 + 4 + 3)
    assert spec.replace(padding_mode="reflect").connections((4, 6)) == spec.macs((4, 6))


# Section 9.4, 9.5: transposed


def test_transposed_sizes():
    assert ConvSpec(1, 1, 3, transposed=True).output_size((2, 2)) == (4, 4)
    assert ConvSpec(5, 7, (4, 3), stride=(2, 3), padding=(1, 0), transposed=True).output_size((5, 7)) == (10, 21)


@pytest.mark.parametrize(
    ("k", "s", "counts"),
    [
        (3, 2, {1, 2, 4}),
        (5, 2, {4, 6, 9}),
        (5, 3, {1, 2, 4}),
        (4, 2, {4}),
        (6, 3, {4}),
        (2, 2, {1}),
        (3, 3, {1}),
    ],
)
def test_checkerboard_counts_in_the_interior(k, s, counts):
    rows, columns = ConvSpec(3, 2, k, stride=s, transposed=True).overlap((9, 11))
    assert len(rows) == 8 * s + k
    assert len(columns) == 10 * s + k
    inner = [axis[k : len(axis) - k] for axis in (rows, columns)]
    assert {a * b for a, b in product(*inner)} == counts
    if k % s == 0:
        assert counts == {(k // s) ** 2}


@pytest.mark.parametrize("output_size", [(7, 13), (8, 14), (7, 15)])
def test_output_size_chooses_among_the_consistent(output_size):
    spec = ConvSpec(2, 3, (3, 5), stride=(2, 3), padding=(1, 2), transposed=True)
    form = spec.form((4, 5), output_size)
    assert (form.n_in, form.n_out) == (output_size, (4, 5))


# Shapes


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (6, 4, 3, 5)),
        ({"groups": 2}, (6, 2, 3, 5)),
        ({"period": (2, 3)}, (6, 2, 3, 4, 3, 5)),
        ({"period": (2, 1), "groups": 2}, (6, 2, 1, 2, 3, 5)),
        ({"period": None}, (6, 5, 4, 4, 3, 5)),
        ({"period": (None, 2)}, (6, 5, 2, 4, 3, 5)),
        ({"table": ((0, 0), (5, 3), (2, 1))}, (3, 3, 5)),
        ({"table": ((0, 0), (5, 3), (2, 1)), "period": 2}, (3, 2, 2, 3, 5)),
    ],
)
def test_weight_shapes(options, shape):
    spec = ConvSpec(4, 6, (3, 5), bias=True, **options)
    assert spec.weight_shape((7, 8)) == shape == spec.form((7, 8)).weight_shape
    assert spec.parameters((7, 8)) == torch.empty(shape).numel() + 6


LAYERS = [
    (torch.nn.Conv1d(4, 6, 3, stride=2, padding=1, bias=False), (11,)),
    (torch.nn.Conv2d(4, 6, (3, 5), padding="same", dilation=(2, 3), groups=2), (7, 9)),
    (torch.nn.Conv2d(4, 6, (3, 4), stride=(2, 3), padding=(1, 0), padding_mode="reflect"), (7, 9)),
    (torch.nn.Conv3d(2, 3, (1, 2, 3), stride=(3, 2, 1), padding_mode="circular"), (4, 5, 6)),
    (torch.nn.ConvTranspose1d(4, 6, 5, stride=3, padding=2, output_padding=1, groups=2), (7,)),
    (torch.nn.ConvTranspose2d(4, 6, (3, 5), stride=(2, 1), dilation=(1, 4), output_padding=(0, 3), bias=False), (7, 9)),
    (torch.nn.ConvTranspose3d(2, 3, (1, 2, 3), stride=(3, 2, 1)), (4, 5, 6)),
]


@pytest.mark.parametrize(("layer", "size"), LAYERS, ids=lambda v: type(v).__name__ if hasattr(v, "weight") else "")
def test_from_module(layer, size):
    spec = ConvSpec.from_module(layer)
    given = layer(torch.zeros(2, layer.in_channels, *size))
    assert spec.output_size(size) == tuple(given.shape[2:])
    assert spec.weight_shape(size) == tuple(layer.weight.shape)
    assert spec.parameters() == sum(p.numel() for p in layer.parameters())
    assert (spec.transposed, spec.padding_mode) == (layer.transposed, layer.padding_mode)
    form = spec.form(size)
    ends = form.channels.outputs, form.channels.inputs
    assert ends == ((layer.in_channels, layer.out_channels) if spec.transposed else (layer.out_channels, layer.in_channels))


def test_from_module_takes_its_own_spec():
    layer = torch.nn.Conv2d(2, 3, 5)
    layer.spec = ConvSpec(2, 3, 5, padding="full")
    assert ConvSpec.from_module(layer) is layer.spec


# Bad input

CONV = {"in_channels": 4, "out_channels": 6, "kernel_size": (3, 5)}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"in_channels": 0, "period": 2}, ArgumentError, r"in_channels must be at least 1, got 0"),
        ({"out_channels": 6.0}, ArgumentTypeError, r"out_channels must be a whole number, got 6.0 of type float"),
        ({"kernel_size": (3, 0)}, ArgumentError, r"kernel_size\[1\] must be at least 1, got 0"),
        ({"kernel_size": ()}, ArgumentError, r"at least 1 spatial axis, got \(\)"),
        ({"stride": (1, 2, 3)}, ArgumentError, r"stride must be one number or 2 .* got \(1, 2, 3\)"),
        ({"stride": 0}, ArgumentError, r"stride must be at least 1, got 0"),
        ({"dilation": (1, -2)}, ArgumentError, r"dilation\[1\] must be at least 1, got -2"),
        ({"groups": 3}, ArgumentError, r"groups=3 must divide in_channels=4 and out_channels=6; .* are 1, 2"),
        ({"groups": 2, "table": ((0, 0),)}, ArgumentError, r"groups=2 and a channel table exclude each other"),
        ({"table": ((6, 0),)}, ArgumentError, r"edge \(6, 0\) .* outside 6 outputs x 4 inputs"),
        ({"table": (1, 2)}, ArgumentTypeError, r"table\[0\] must be a pair \(output, input\), got 1"),
        ({"padding": "sane"}, ArgumentError, r"padding='sane' is not one of"),
        ({"padding_mode": "mirror"}, ArgumentError, r"padding_mode='mirror' is not one of"),
        ({"output_padding": (0, 1)}, ArgumentError, r"output_padding=\(0, 1\) belongs to transposed convolutions"),
        ({"output_padding": -1, "transposed": True}, ArgumentError, r"output_padding must be at least 0, got -1"),
        (
            {"output_padding": (0, 1), "transposed": True, "padding": "same", "stride": 2},
            ArgumentError,
            r"output_padding=\(0, 1\) has no place with padding='same_upper'.*give output_size",
        ),
        ({"period": (2, 0)}, ArgumentError, r"period\[1\] must be at least 1, got 0"),
        ({"kernel_size": 2**64}, ArgumentError, r"kernel_size=18446744073709551616 does not fit a 64-bit"),
    ],
)
def test_bad_specs(changes, error, message):
    with pytest.raises(error, match=message):
        ConvSpec(**{**CONV, **changes})


@pytest.mark.parametrize(
    ("changes", "size", "output_size", "error", "message"),
    [
        (
            {"dilation": (1, 2), "padding": (0, 1)},
            (7, 6),
            None,
            ShapeError,
            (
                r"kernel 5 with dilation 2 spans 9 positions, but the padded input has only 8 along axis 1 "
                r"\(input size 6 \+ padding \(1, 1\)\); give an input of at least 7, or padding='same'"
            ),
        ),
        ({"padding": "causal"}, (7, 0), None, ShapeError, r"only 4 along axis 1 .*give an input of at least 1$"),
        ({}, (7, 8, 9), None, ShapeError, r"input_size must hold 2 spatial sizes, one per axis, got 3"),
        ({}, (7,), None, ShapeError, r"input_size must hold 2 spatial sizes, one per axis, got 1"),
        ({}, (7, -8), None, ArgumentError, r"input_size\[1\] must be at least 0, got -8"),
        (
            {"stride": (2, 3), "padding": (1, 2)},
            (7, 13),
            (4, 6),
            ShapeError,
            (
                r"output_size=6 along axis 1 does not follow from input size 13 with kernel 5, stride 3, dilation 1 "
                r"and padding \(2, 2\); give 5"
            ),
        ),
        ({"padding": "same", "stride": 2}, (7, 9), (4, 4), ShapeError, r"output_size=4 along axis 1 .*; give 5"),
        (
            {"transposed": True, "stride": (2, 3), "padding": (1, 2)},
            (4, 5),
            (8, 16),
            ShapeError,
            r"output_size=16 along axis 1 does not follow from input size 5 .* give 13 to 15",
        ),
        (
            {"transposed": True, "padding": "same", "stride": (2, 3), "dilation": 5},
            (4, 5),
            (8, 16),
            ShapeError,
            r"output_size=16 along axis 1 .* give 13 to 15",
        ),
        (
            {"transposed": True, "stride": (2, 3), "dilation": (4, 1), "output_padding": (3, 3)},
            (4, 5),
            None,
            ArgumentError,
            r"output_padding=3 along axis 1 must be smaller than stride=3 or dilation=1; the most is 2",
        ),
        (
            {"transposed": True, "padding": (0, 6)},
            (4, 5),
            None,
            ShapeError,
            (
                r"of 5 positions with kernel extent 5, stride 1, output_padding 0 and padding \(6, 6\) gives -3 "
                r"positions along axis 1; pad by at least 3 less"
            ),
        ),
        ({"transposed": True}, (4, 0), None, ShapeError, r"needs at least 1 input position along axis 1, got 0"),
    ],
)
def test_bad_sizes(changes, size, output_size, error, message):
    with pytest.raises(error, match=message):
        ConvSpec(**{**CONV, **changes}).form(size, output_size)


def test_unshared_weight_needs_a_size():
    with pytest.raises(ArgumentError, match=r"one kernel per output position: give input_size"):
        ConvSpec(2, 3, 5, period=None).weight_shape()


def test_no_module():
    with pytest.raises(ArgumentTypeError, match=r"Linear is no convolution layer: it has no in_channels, .*padding_mode; give"):
        ConvSpec.from_module(torch.nn.Linear(2, 3))
    with pytest.raises(ArgumentTypeError, match=r"MaxPool2d is no convolution layer: it has no in_channels, out_channels"):
        ConvSpec.from_module(torch.nn.MaxPool2d(3))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1, 2]", '{"in_channels": 3}', '{"in_channels": 3, "out_channels": 4, "kernel_size": [3], "sride": 2}'],
)
def test_no_spec_text(text):
    with pytest.raises(ArgumentError, match=r"is no spec as to_text writes it"):
        ConvSpec.from_text(text)
