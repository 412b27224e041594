import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.spec import ConvSpec, PoolSpec, ReceptiveField, coverage, positions, receptive_field, receptive_fields


def dilated(*rates, k=3):
    return [ConvSpec(1, 1, (k,), dilation=d) for d in rates]


layers = st.builds(
    lambda pool, k, s, d, pad: PoolSpec((k,), s, min(pad, k - 1), d) if pool else ConvSpec(1, 1, (k,), s, pad, d),
    st.booleans(),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 4),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(layers, min_size=1, max_size=4), st.integers(0, 5))
def test_chains_by_following_every_read(chain, output):
    seen = {output}
    for layer in reversed(chain):
        ((lo, _),) = layer.padding
        seen = {j * layer.stride[0] + m * layer.dilation[0] - lo for j in seen for m in range(layer.kernel_size[0])}
    field = receptive_fields(chain)[-1]
    assert field.span((output,)) == ((min(seen), max(seen) + 1),)
    assert receptive_field(chain) == field.size == (max(seen) - min(seen) + 1,)
    assert positions(chain) == (tuple(sorted(i - min(seen) for i in seen)),)
    assert coverage(chain) == ((len(seen), field.size[0]),)


def test_gradient_support_is_the_receptive_field():
    chain = [
        ConvSpec(1, 1, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 3)),
        ConvSpec(1, 1, (2, 3), stride=(1, 2), dilation=(2, 1)),
    ]
    x = torch.zeros(1, 1, 17, 19, requires_grad=True)
    y = x
    for spec in chain:
        pads = [lo for lo, _ in spec.padding]
        y = torch.nn.functional.conv2d(y, torch.ones(spec.weight_shape()), None, spec.stride, pads, spec.dilation)
    at = (2, 1)
    y[0, 0][at].backward()
    rows, columns = (sorted(set(axis.tolist())) for axis in x.grad[0, 0].nonzero(as_tuple=True))
    field = receptive_fields(chain, (17, 19))[-1]
    (top, bottom), (left, right) = field.span(at)
    assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (top, bottom, left, right)
    used = positions(chain)
    assert rows == [top + i for i in used[0]]
    assert columns == [left + i for i in used[1]]
    assert coverage(chain) == ((len(rows), bottom - top), (len(columns), right - left))


@pytest.mark.parametrize("depth", [1, 2, 5, 9])
def test_three_taps_deep(depth):
    assert receptive_field(dilated(*[1] * depth)) == (2 * depth + 1,)


def test_strides_and_pooling_enlarge():
    chain = [ConvSpec(1, 4, (3, 5)), PoolSpec(2), ConvSpec(4, 2, (3, 5)), PoolSpec((2, 3)), ConvSpec(2, 2, (3, 5))]
    fields = receptive_fields(chain)
    assert [field.size for field in fields] == [(3, 5), (4, 6), (8, 14), (10, 18), (18, 42)]
    assert [field.jump for field in fields] == [(1, 1), (2, 2), (2, 2), (4, 6), (4, 6)]
    assert receptive_field(chain) == (18, 42)


def test_stacks_of_dilated_convolutions():
    assert [receptive_field(dilated(*(1, 2, 4)[: n + 1])) for n in range(3)] == [(3,), (7,), (15,)]
    for i in range(8):
        assert receptive_field(dilated(*[2**r for r in range(i + 1)])) == (2 ** (i + 2) - 1,)
    assert receptive_field(dilated(2)) == (5,)
    assert receptive_field(dilated(4)) == (9,)


def test_context_module():
    chain = [*dilated(1, 1, 2, 4, 8, 16, 1), *dilated(1, k=1)]
    assert [field.size[0] for field in receptive_fields(chain)] == [3, 5, 9, 17, 33, 65, 67, 67]


@pytest.mark.parametrize(
    ("rates", "used", "extent"),
    [((1, 2, 4), 15, 15), ((2, 2, 2), 7, 13), ((2, 4, 8), 15, 29), ((1, 2, 5), 17, 17), ((1, 2, 9), 21, 25)],
)
def test_gridding(rates, used, extent):
    assert coverage(dilated(*rates)) == ((used, extent),)


def test_positions_per_axis():
    chain = [ConvSpec(1, 1, (2, 3), stride=(3, 1), dilation=(1, 2)), ConvSpec(1, 1, (3, 2), dilation=(1, 5))]
    assert positions(chain) == ((0, 1, 3, 4, 6, 7), (0, 2, 4, 5, 7, 9))
    assert coverage(chain) == ((6, 8), (6, 10))


def test_starts_with_same_and_a_stride_need_the_size():
    chain = [ConvSpec(1, 1, (3, 4), padding="same"), ConvSpec(1, 1, (4, 3), stride=(1, 2), padding="same")]
    with pytest.raises(ArgumentError, match=r"layer 1 has padding='same_upper' with stride \(1, 2\).*give input_size"):
        receptive_fields(chain)
    assert [field.start for field in receptive_fields(chain, (7, 9))] == [(-1, -1), (-2, -2)]
    assert [field.start for field in receptive_fields(chain, (7, 10))] == [(-1, -1), (-2, -1)]
    assert receptive_fields(chain[:1])[0].start == (-1, -1)
    assert receptive_field(chain) == (6, 6)


def test_sizes_are_followed_through_the_chain():
    chain = [ConvSpec(1, 1, (2,), stride=2), ConvSpec(1, 1, (3,), stride=2, padding="same")]
    assert receptive_fields(chain, 10)[-1] == ReceptiveField((6,), (4,), (-2,))  # 5 positions: pads (1, 1)
    assert receptive_fields(chain, 12)[-1] == ReceptiveField((6,), (4,), (0,))  # 6 positions: pads (0, 1)


@pytest.mark.parametrize(
    ("chain", "error", "message"),
    [
        ([], ArgumentError, r"at least 1 layer, got 0"),
        ([ConvSpec(1, 1, (3,)), PoolSpec((2, 3))], ArgumentError, r"layer 1 has 2 spatial axes, but layer 0 has 1"),
        ([PoolSpec(2), ConvSpec(1, 1, 3, transposed=True)], ArgumentError, r"layer 1 is transposed"),
        ([ConvSpec(1, 1, 3), 3], ArgumentTypeError, r"layer 1 must be a ConvSpec or a PoolSpec, got int"),
    ],
)
@pytest.mark.parametrize("function", [receptive_field, receptive_fields, positions, coverage])
def test_bad_chains(function, chain, error, message):
    with pytest.raises(error, match=message):
        function(chain)


def test_bad_size():
    with pytest.raises(ShapeError, match=r"input_size must hold 1 spatial sizes, one per axis, got 2"):
        receptive_fields(dilated(1, 2), (7, 9))


def test_one_layer_is_a_chain():
    assert receptive_field(ConvSpec(1, 1, (3, 5))) == (3, 5)
