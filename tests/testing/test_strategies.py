"""What is drawn is valid, and the awkward is drawn."""

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

from ninefold.spec.padding import MODES, POLICIES
from ninefold.testing.strategies import shapes, specs

AWKWARD = {
    "empty batch": lambda s: s.batch == 0,
    "transposed with output padding": lambda s: s.spec.transposed and any(s.spec.output_padding),
    "table": lambda s: s.spec.table is not None,
    "groups of unequal ends": lambda s: s.spec.groups > 1 and s.spec.in_channels != s.spec.out_channels,
    "tiled and flipped": lambda s: s.spec.flip_kernel and s.spec.tiled,
    "mixed period": lambda s: None in s.spec.period and any(t not in (None, 1) for t in s.spec.period),
    "crop": lambda s: any(a.lo < 0 for a in s.form.axes),
    "leftover": lambda s: any(a.hi < 0 for a in s.form.axes),
    "stride past the kernel": lambda s: any(a.stride > a.kernel for a in s.form.axes),
    "one wide": lambda s: 1 in s.size,
    **{f"{ndim}-D": lambda s, n=ndim: s.spec.ndim == n for ndim in (1, 2, 3)},
    **{mode: lambda s, m=mode: s.form.mode == m for mode in MODES},
    **{policy: lambda s, p=policy: s.spec.padding == p for policy in POLICIES},
}


def test_shapes_are_valid_and_small_and_the_awkward_is_drawn():
    missing = dict(AWKWARD)

    @settings(
        max_examples=400,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(shapes())
    def look(shape):
        form = shape.form
        assert shape.macs <= 20_000
        assert 0 not in form.n_out
        assert len(shape.size) == form.ndim == shape.spec.ndim
        for axis in form.axes:  # no mode is asked for what it cannot continue
            axis.overlap()
        for name in [name for name, wanted in missing.items() if wanted(shape)]:
            del missing[name]

    look()
    assert not missing


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_ndim_and_direction_can_be_asked_for(ndim):
    assert find(specs(ndim, transposed=True), lambda spec: True).transposed
    assert find(specs(ndim, transposed=False), lambda spec: True).ndim == ndim
