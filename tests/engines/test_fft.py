"""Tilings and layouts: every output is in a tile, every tile fits its transform, and a cap leaves less in flight."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninefold.engines.fft import FFT, _correlation, _good, _layout, _tiling
from ninefold.spec import ConvSpec, Problem


@given(st.integers(1, 200_000))
def test_lengths_are_even_smooth_and_not_below(n):
    length = rest = _good(n)
    assert length >= n
    assert length % 2 == 0
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    assert rest == 1


FORMS = {
    "long": (ConvSpec(1, 2, (9,), padding=((3, 5),)), (100_003,)),
    "prime image": (ConvSpec(2, 3, (5, 3)), (509, 211)),
    "strided": (ConvSpec(2, 4, (7, 5), stride=(3, 2), groups=2), (130, 301)),
    "dilated": (ConvSpec(1, 1, (7, 3), dilation=(5, 9)), (301, 120)),
    "volume": (ConvSpec(1, 2, (3, 5, 2)), (40, 33, 61)),
    "one tile": (ConvSpec(3, 2, (31, 29)), (40, 37)),
}


@pytest.mark.parametrize("map_", ["c", "h", "g"])
@pytest.mark.parametrize(("spec", "size"), FORMS.values(), ids=FORMS)
def test_tiles_cover_the_outputs_and_fit_their_transforms(spec, size, map_):
    problem = Problem(map_, spec.form(size), 2)
    tiling = _tiling(problem)
    totals, extents = _correlation(problem)
    for length, step, count, total, extent in zip(tiling.length, tiling.step, tiling.count, totals, extents, strict=True):
        assert step + extent - 1 <= length  # circular products are right where nothing wraps round
        assert count * step >= total
        assert (count - 1) * step < total  # no tile without an output


def test_several_tiles_are_chosen_along_several_axes():
    counts = [_tiling(Problem("c", spec.form(size), 2)).count for spec, size in FORMS.values()]
    assert any(sum(n > 1 for n in count) >= 2 for count in counts)


@pytest.mark.parametrize(("spec", "size"), FORMS.values(), ids=FORMS)
def test_a_smaller_cap_never_promises_more(spec, size):
    problems = [Problem("c", spec.form(size), 4, max_scratch=cap) for cap in (None, 1 << 22, 1 << 18, 1 << 14, 1)]
    promised = [FFT().scratch(problem) for problem in problems]
    assert promised[1:] == sorted(promised[1:], reverse=True)
    for problem, total in zip(problems[1:], promised[1:], strict=True):
        layout = _layout(problem)
        least = layout.groups == 1 and layout.batch == 1 and layout.lines == 1
        assert total <= problem.max_scratch or least
