"""The layers of the growth benchmark: one number changes at a time, and what is timed is what the table says."""

import pytest
from bench.growth import CHANGES, FAMILIES, points, timed

from ninefold.spec import Problem


@pytest.mark.parametrize("family", FAMILIES)
def test_one_number_grows_at_a_time(family):
    (_, layer), *others = points(FAMILIES[family])
    work = Problem("c", layer.spec.form((layer.size,) * 2), layer.batch).macs
    assert layer.spec.form((layer.size,) * 2).n_out == (layer.size // layer.stride,) * 2
    assert len(others) == 2 * len(CHANGES)
    for words, grown in others:
        more = Problem("c", grown.spec.form((grown.size,) * 2), grown.batch).macs
        assert more > work
        assert sum(a != b for a, b in zip(vars(layer).values(), vars(grown).values(), strict=True)) <= 2, words


def test_a_layer_is_timed_beside_its_limits():
    layer = FAMILIES["depthwise"]
    small = type(layer)(4, 4, each=1, size=9, batch=1)
    engine, seconds, products, copied = timed(small, "c", last=False, seconds=0.01)
    assert engine
    assert seconds > 0
    assert 0 < products < 100
    assert 0 < copied < 100
