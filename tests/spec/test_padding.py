import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninefold.spec import ConvSpec
from ninefold.spec.padding import MODES, POLICIES

CONTINUED = {  # a b c, and two elements on either side
    "zeros": [None, None, 0, 1, 2, None, None],
    "reflect": [2, 1, 0, 1, 2, 1, 0],
    "symmetric": [1, 0, 0, 1, 2, 2, 1],
    "replicate": [0, 0, 0, 1, 2, 2, 2],
    "circular": [1, 2, 0, 1, 2, 0, 1],
}


def test_every_mode_is_named():
    assert CONTINUED.keys() == MODES.keys()


@pytest.mark.parametrize("mode", MODES)
def test_modes_by_hand(mode):
    assert [MODES[mode](i, 3) for i in range(-2, 5)] == CONTINUED[mode]


@pytest.mark.parametrize(
    ("mode", "theirs"),
    [("reflect", "reflect"), ("symmetric", "symmetric"), ("replicate", "edge"), ("circular", "wrap")],
)
@pytest.mark.parametrize("n", [2, 3, 7])
def test_modes_far_outside_are_numpys(mode, theirs, n):
    wide = np.pad(np.arange(n), 4 * n, theirs)
    assert [MODES[mode](i, n) for i in range(-4 * n, 5 * n)] == wide.tolist()


@pytest.mark.parametrize(
    ("policy", "pads"),
    [
        ("valid", (0, 0)),
        ("same_upper", (1, 2)),
        ("same_lower", (2, 1)),
        ("full", (3, 3)),
        ("causal", (3, 0)),
    ],
)
def test_policies_by_hand(policy, pads):
    assert POLICIES[policy](9, 4, 1) == pads


def test_same_depends_on_the_size_where_there_is_a_stride():
    assert POLICIES["same_upper"](9, 3, 2) == (1, 1)
    assert POLICIES["same_upper"](10, 3, 2) == (0, 1)
    assert POLICIES["same_lower"](10, 3, 2) == (1, 0)
    assert POLICIES["same_upper"](10, 2, 5) == (0, 0)


@given(n=st.integers(1, 40), k=st.integers(1, 9), s=st.integers(1, 11), d=st.integers(1, 5), upper=st.booleans())
def test_same_gives_ceil_outputs(n, k, s, d, upper):
    policy = "same_upper" if upper else "same_lower"
    spec = ConvSpec(1, 1, (k,), stride=s, dilation=d, padding=policy)
    assert spec.output_size(n) == (-(-n // s),)
    ((lo, hi),) = spec.pads(n)
    assert (hi if upper else lo) - (lo if upper else hi) in (0, 1)


@given(n=st.integers(1, 30), k=st.integers(1, 9), s=st.integers(1, 6), d=st.integers(1, 5))
def test_causal_reads_nothing_behind(n, k, s, d):
    (axis,) = ConvSpec(1, 1, (k,), stride=s, dilation=d, padding="causal").form(n).axes
    assert axis.n_out == -(-n // s)
    for j in range(axis.n_out):
        assert axis.reads(j)[-1] == j * s
        assert all(i is None or i <= j * s for i in axis.reads(j))


@given(n=st.integers(1, 25), k=st.integers(1, 9), d=st.integers(1, 4))
def test_full_visits_every_element_with_every_tap(n, k, d):
    spec = ConvSpec(1, 1, (k,), dilation=d, padding="full")
    assert spec.output_size(n) == (n + (k - 1) * d,)
    assert spec.overlap(n) == ((k,) * n,)


def test_widths_of_section_4_2():
    m, k = 17, 6
    assert ConvSpec(1, 1, (k,)).output_size(m) == (m - k + 1,)
    assert ConvSpec(1, 1, (k,), padding="same").output_size(m) == (m,)
    assert ConvSpec(1, 1, (k,), padding="full").output_size(m) == (m + k - 1,)
    assert sum(*ConvSpec(1, 1, (k,), padding="same").pads(m)) == k - 1
    assert ConvSpec(1, 1, (k,), padding="full").pads(m) == ((k - 1, k - 1),)


def test_symmetric_padding_of_an_even_kernel_is_one_too_wide():
    assert ConvSpec(1, 1, (4,), padding=2).output_size(9) == (10,)


def test_figure_9_13():
    shrinking = ConvSpec(1, 1, (6,))
    widths = [16]
    for _ in range(3):
        widths += shrinking.output_size(widths[-1])
    assert widths == [16, 11, 6, 1]
    kept = ConvSpec(1, 1, (6,), padding="same")
    assert sum(*kept.pads(16)) == 5
    assert kept.output_size(16) == (16,)


@pytest.mark.parametrize(
    ("padding", "visits"),
    [
        ("valid", (1, 2, 3, 4, 4, 3, 2, 1)),
        ("same_upper", (2, 3, 4, 4, 4, 4, 4, 3)),
        ("same_lower", (3, 4, 4, 4, 4, 4, 3, 2)),
        ("full", (4, 4, 4, 4, 4, 4, 4, 4)),
        ("causal", (4, 4, 4, 4, 4, 3, 2, 1)),
    ],
)
def test_visits_of_every_element(padding, visits):
    assert ConvSpec(1, 1, (4,), padding=padding).overlap(8) == (visits,)


def test_numpys_same_is_same_lower():
    (axis,) = ConvSpec(1, 1, (2,), padding="same_lower").form(3).axes
    x = [1, 2, 3]
    ours = [sum(x[i] for i in axis.reads(j) if i is not None) for j in range(3)]
    assert ours == [1, 3, 5] == np.convolve(x, [1, 1], "same").tolist()
