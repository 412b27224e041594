import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ninefold.errors import ArgumentError, ShapeError
from ninefold.spec import Axis
from ninefold.spec.padding import MODES

NUMPY_MODE = {
    "zeros": "constant",
    "reflect": "reflect",
    "symmetric": "symmetric",
    "replicate": "edge",
    "circular": "wrap",
}
WIDE = 80

axes = st.builds(
    Axis,
    kernel=st.integers(1, 5),
    stride=st.integers(1, 7),
    dilation=st.integers(1, 4),
    lo=st.integers(-5, 7),
    n_in=st.integers(2, 11),
    n_out=st.integers(0, 7),
    mode=st.sampled_from(list(NUMPY_MODE)),
)


def padded(axis):
    """What NumPy puts around 0, 1, 2 ...; -1 stands for a zero."""
    extra = {"constant_values": -1} if axis.mode == "zeros" else {}
    return np.pad(np.arange(axis.n_in), WIDE, NUMPY_MODE[axis.mode], **extra)


def table(axis):
    """Return reads of every output and tap, from NumPy's padding; -1 for a zero."""
    wide = padded(axis)
    at = [[j * axis.stride + m * axis.dilation - axis.lo + WIDE for m in range(axis.kernel)] for j in range(axis.n_out)]
    return wide[np.array(at, dtype=int).reshape(axis.n_out, axis.kernel)]


@settings(max_examples=300, deadline=None)
@given(axes)
def test_reads_are_those_of_numpy_pad(axis):
    ours = [[-1 if i is None else i for i in axis.reads(j)] for j in range(axis.n_out)]
    assert ours == table(axis).tolist()


@settings(max_examples=300, deadline=None)
@given(axes)
def test_reads_feeds_overlap_connections_agree(axis):
    reads = table(axis)
    for i in range(axis.n_in):
        pairs = tuple((int(j), int(m)) for j, m in zip(*np.nonzero(reads == i), strict=True))
        assert axis.feeds(i) == pairs
    counts = tuple(int((reads == i).sum()) for i in range(axis.n_in))
    assert axis.overlap() == counts
    assert axis.connections() == sum(counts)


@settings(max_examples=300, deadline=None)
@given(axes)
def test_border_and_ends(axis):
    raw = [j * axis.stride + m * axis.dilation - axis.lo for j in range(axis.n_out) for m in range(axis.kernel)]
    assert axis.border == any(not 0 <= i < axis.n_in for i in raw)
    if raw:
        assert (min(raw), max(raw)) == (-axis.lo, axis.n_in - 1 + axis.hi)
        assert axis.span == max(raw) - min(raw) + 1
    else:
        assert axis.span == 0
    assert axis.extent == len(range(0, axis.kernel * axis.dilation, axis.dilation)) * axis.dilation - axis.dilation + 1


@pytest.mark.parametrize(
    ("axis", "reads"),
    [
        (Axis(2, 5, 1, 0, 9, 2), [(0, 1), (5, 6)]),  # stride > kernel leaves 2, 3, 4, 7, 8 unread
        (Axis(3, 1, 2, -1, 8, 2), [(1, 3, 5), (2, 4, 6)]),  # a negative pad crops
        (Axis(2, 2, 3, 4, 3, 3, mode="symmetric"), [(2, 0), (1, 1), (0, 2)]),
        (Axis(3, 2, 1, 4, 3, 2, mode="circular"), [(2, 0, 1), (1, 2, 0)]),
        (Axis(2, 1, 1, 0, 0, 1), [(None, None)]),
    ],
)
def test_reads_by_hand(axis, reads):
    assert [axis.reads(j) for j in range(axis.n_out)] == reads


def test_unread_positions_feed_nothing():
    axis = Axis(2, 5, 1, 0, 9, 2)
    assert axis.overlap() == (1, 1, 0, 0, 0, 1, 1, 0, 0)
    assert axis.feeds(3) == ()
    assert axis.hi == -2
    assert not axis.border


@pytest.mark.parametrize("mode", ["reflect", "symmetric", "replicate", "circular"])
def test_nothing_to_continue(mode):
    with pytest.raises(ShapeError, match=rf"padding_mode='{mode}' has nothing to continue at index -3: .* size 0"):
        Axis(2, 1, 1, 3, 0, 4, mode=mode).reads(0)


def test_reflect_of_one_element():
    axis = Axis(3, 1, 1, 1, 1, 1, mode="reflect")
    with pytest.raises(ArgumentError, match=r"'reflect' needs at least 2 elements .* got 1 \(index -1\); use 'symmetric'"):
        axis.reads(0)
    assert Axis(3, 1, 1, 1, 1, 1, mode="symmetric").reads(0) == (0, 0, 0)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_reached_and_what_reads_is_counted(mode):
    for kernel, stride, dilation, lo, (n_in, n_out) in itertools.product(
        (1, 2, 5), (1, 2, 4), (1, 3, 7), (-2, 0, 3, 9), ((2, 9), (11, 1), (7, 5), (13, 3))
    ):
        axis = Axis(kernel, stride, dilation, lo, n_in, n_out, mode=mode)
        assert axis.reached() == sum(count > 0 for count in axis.overlap()), axis
        assert axis.reading() == sum(any(i is not None for i in axis.reads(j)) for j in range(n_out)), axis
