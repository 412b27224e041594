import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ninefold.errors import ShapeError
from ninefold.spec import ConvSpec, Form
from ninefold.spec.padding import MODES

CONV = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}
TRANSPOSED = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}
NAMES = ("kernel_size", "stride", "padding", "dilation", "input_size", "extra")


@st.composite
def problems(draw):
    ndim = draw(st.integers(1, 3))
    ranges = ((1, 5), (1, 4), (0, 3), (1, 4), (1, 9 if ndim < 3 else 5), (0, 3))
    out = {name: draw(st.tuples(*[st.integers(*r)] * ndim)) for name, r in zip(NAMES, ranges, strict=True)}
    return out | {"groups": draw(st.integers(1, 2)), "ends": draw(st.permutations((2, 3)))}


def spec_of(p, **changes):
    inputs, outputs = (c * p["groups"] for c in p["ends"])
    fields = {name: p[name] for name in NAMES[:4]}
    return ConvSpec(inputs, outputs, groups=p["groups"], **{**fields, **changes})


@settings(max_examples=150, deadline=None)
@given(problems())
def test_forward_sizes_are_torchs(p):
    spec, size = spec_of(p), p["input_size"]
    assume(all(n + 2 * a >= e for n, a, e in zip(size, p["padding"], spec.extent, strict=True)))
    form = spec.form(size)
    x = torch.ones(2, spec.in_channels, *size, dtype=torch.float64)
    w = torch.ones(form.weight_shape, dtype=torch.float64)
    y = CONV[spec.ndim](x, w, None, p["stride"], p["padding"], p["dilation"], p["groups"])
    assert tuple(y.shape) == form.output_shape(2)
    assert tuple(x.shape) == form.input_shape(2)
    assert y.sum().item() == 2 * form.connections
    assert form.macs == w.numel() * y[0, 0].numel()


@settings(max_examples=150, deadline=None)
@given(problems())
def test_transposed_sizes_and_overlap_are_torchs(p):
    """The output_padding reaches up to the larger of stride and dilation, as torch admits it."""
    extra = tuple(min(a, max(s, d) - 1) for a, s, d in zip(p["extra"], p["stride"], p["dilation"], strict=True))
    spec = spec_of(p, transposed=True, output_padding=extra)
    size = p["input_size"]
    least = zip(size, p["stride"], spec.extent, p["padding"], extra, strict=True)
    assume(all((n - 1) * s + e - 2 * a + x >= 1 for n, s, e, a, x in least))
    form = spec.form(size)
    y = torch.ones(2, spec.out_channels, *size, dtype=torch.float64)
    w = torch.ones(form.weight_shape, dtype=torch.float64)
    x = TRANSPOSED[spec.ndim](y, w, None, p["stride"], p["padding"], extra, p["groups"], p["dilation"])
    assert tuple(x.shape) == form.input_shape(2)
    assert tuple(y.shape) == form.output_shape(2)
    counts = torch.ones((), dtype=torch.float64)
    for axis in spec.overlap(size):
        counts = counts[..., None] * torch.tensor(axis, dtype=torch.float64)
    assert torch.equal(x[1, 0], counts * (spec.out_channels // p["groups"]))
    assert spec.form(size, form.n_in) == form


@settings(max_examples=100, deadline=None)
@given(problems())
def test_both_sizes_given_back_and_forth(p):
    spec, size = spec_of(p), p["input_size"]
    assume(all(n + 2 * a >= e for n, a, e in zip(size, p["padding"], spec.extent, strict=True)))
    form = spec.form(size)
    assert spec.form(size, form.n_out) == form
    assert spec.replace(transposed=True).form(form.n_out, size) == form


@pytest.mark.parametrize("padding", ["same_upper", "same_lower", "causal"])
@pytest.mark.parametrize("n", [4, 9])
def test_transposed_policies_have_the_forward_form(padding, n):
    spec = ConvSpec(2, 3, (5, 2), stride=(3, 4), padding=padding, transposed=True)
    form = spec.form((n, n + 1))
    assert form == spec.replace(transposed=False).form(form.n_in, (n, n + 1))
    if padding != "causal":
        assert form.n_in == (3 * n, 4 * (n + 1))


def test_form_by_hand():
    spec = ConvSpec(4, 6, (3, 5), stride=(2, 1), padding=((0, 1), (2, 2)), dilation=(1, 2), groups=2, period=(2, None))
    form = spec.form((8, 11))
    assert isinstance(form, Form)
    assert (form.ndim, form.kernel, form.stride, form.dilation) == (2, (3, 5), (2, 1), (1, 2))
    assert (form.n_in, form.n_out, form.period) == ((8, 11), (4, 7), (2, 7))
    assert form.weight_shape == (6, 2, 7, 2, 3, 5)
    assert form.macs == 6 * 2 * 15 * 28
    assert form.connections == 12 * (3 + 3 + 3 + 2) * (4 + 4 + 5 + 5 + 5 + 4 + 4)
    assert form == spec.form((8, 11))
    assert hash(form) == hash(spec.form((8, 11)))
    assert form != spec.form((8, 12))


@pytest.mark.parametrize("mode", MODES)
def test_mode_counts_only_where_something_reads_outside(mode):
    inside = ConvSpec(1, 1, (3, 2), padding_mode=mode)
    assert inside.form((7, 9)).mode == "zeros"
    assert inside.replace(padding=((-1, -1), (-2, 0))).form((7, 9)).mode == "zeros"
    assert inside.replace(padding=((0, 0), (0, 1))).form((7, 9)).mode == mode
    # the stride never reaches the padded end
    assert inside.replace(padding=((0, 1), (0, 0)), stride=(2, 1)).form((7, 9)).mode == "zeros"


def test_zero_sizes():
    form = ConvSpec(2, 3, (1, 2), padding="same").replace(padding=((0, 1), (1, 0))).form((0, 4))
    assert form.n_out == (1, 4)
    assert (form.connections, form.macs) == (0, 2 * 3 * 2 * 4)
    empty = ConvSpec(2, 3, (7, 2)).form((2, 4), (0, 3))
    assert (empty.macs, empty.connections, empty.output_shape(5)) == (0, 0, (5, 3, 0, 3))
    with pytest.raises(ShapeError, match=r"output_size=0 along axis 0 does not follow from input size 8 .*; give 2"):
        ConvSpec(2, 3, (7, 2)).form((8, 4), (0, 3))
