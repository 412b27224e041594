"""What is drawn is valid, and the awkward is drawn."""

import pytest
from hypothesis import HealthCheck, find, given, settings

from ninefold.spec.padding import MODES, POLICIES
from ninefold.testing.strategies import shapes, specs

QUIET = settings(max_examples=3000, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(shapes())
def test_shapes_are_valid_and_small(shape):
    form = shape.form
    assert shape.macs <= 20_000
    assert 0 not in form.n_out
    assert len(shape.size) == form.ndim == shape.spec.ndim
    assert shape.problem("c").macs == shape.macs
    for axis in form.axes:  # no mode is asked for what it cannot continue
        axis.overlap()


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_ndim_can_be_asked_for(ndim):
    assert find(specs(ndim), lambda spec: True, settings=QUIET).ndim == ndim


@pytest.mark.parametrize(
    "wanted",
    [
        lambda s: s.batch == 0,
        lambda s: s.spec.transposed and any(s.spec.output_padding),
        lambda s: s.spec.table is not None,
        lambda s: s.spec.groups > 1 and s.spec.in_channels != s.spec.out_channels,
        lambda s: s.spec.flip_kernel and s.spec.tiled,
        lambda s: None in s.spec.period and any(t not in (None, 1) for t in s.spec.period),
        lambda s: any(a.lo < 0 for a in s.form.axes),
        lambda s: any(a.hi < 0 for a in s.form.axes) and any(a.stride > a.kernel for a in s.form.axes),
        lambda s: any(n == 1 for n in s.size),
        *[lambda s, m=m: s.form.mode == m for m in MODES],
        *[lambda s, p=p: s.spec.padding == p for p in POLICIES],
    ],
)
def test_the_awkward_is_drawn(wanted):
    assert wanted(find(shapes(), wanted, settings=QUIET))
