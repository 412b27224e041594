"""Clusters of a table: every edge in exactly one, few convolutions, and no more products than the table has."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ninefold.engines import native
from ninefold.engines.direct import Direct
from ninefold.planning.choose import choose
from ninefold.rewrites import engine_named
from ninefold.rewrites.tables import _parts, buckets
from ninefold.spec import ChannelTable, ConvSpec, Problem, grouped_table, lenet5_table, random_table, window_table

CLUSTERS = engine_named("aten after channel clusters")
TABLES = {
    "lenet5": ChannelTable(6, 16, lenet5_table()),
    "window": ChannelTable(8, 12, window_table(8, 12, 3, block=2)),
    "random": ChannelTable(9, 14, random_table(9, 14, 4, seed=1)),
    "grouped": ChannelTable(6, 4, grouped_table(6, 4, 2)),
}


@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1), st.booleans(), st.randoms())
def test_every_edge_is_in_one_bucket_at_the_place_that_a_grouped_weight_has_for_it(edges, by_input, random):
    edges = random.sample(sorted(edges), len(edges))
    table = ChannelTable(5, 7, tuple(edges))
    found = []
    for bucket in buckets(table, by_input):
        outs, ins = len(bucket.outputs) // bucket.groups, len(bucket.inputs) // bucket.groups
        pairs = [
            (bucket.outputs[g * outs + a], bucket.inputs[g * ins + b])
            for g in range(bucket.groups)
            for a in range(outs)
            for b in range(ins)
        ]
        assert [table.edges[e] for e in bucket.edges] == pairs
        found += bucket.edges
        written = bucket.inputs if by_input else bucket.outputs
        assert len(set(written)) == len(written)
    assert sorted(found) == list(range(len(edges)))


def test_there_are_as_many_convolutions_as_sizes_of_clusters():
    assert [len(buckets(table)) for table in TABLES.values()] == [3, 1, 1, 1]
    assert buckets(TABLES["grouped"])[0].groups == 2
    large = ChannelTable(256, 512, random_table(256, 512, 16))
    assert len(buckets(large)) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("map_", ["c", "h", "g"])
@pytest.mark.parametrize("table", TABLES)
def test_products_are_those_of_the_edges(table, map_, dtype):
    channels = TABLES[table]
    spec = ConvSpec(channels.inputs, channels.outputs, (3, 2), table=channels.edges)
    problem = Problem(map_, spec.form((7, 9)), 2, dtype)
    assert sum(part.macs for _, part in _parts(problem)) == problem.macs == 2 * len(channels.edges) * 6 * 5 * 8


@pytest.mark.parametrize("map_", ["c", "g"])
def test_lone_outputs_are_depthwise_where_that_is_quick(map_):
    channels = TABLES["random"]
    problem = Problem(map_, ConvSpec(9, 14, (3, 2), table=channels.edges).form((7, 9)), 2)
    assert [part.form.channels.groups for _, part in _parts(problem)] == [56]
    assert [part.form.channels.groups for _, part in _parts(replace(problem, dtype="float64"))] == [14]
    assert [part.form.channels.groups for _, part in _parts(replace(problem, device="cuda:any"))] == [14]


def test_a_cap_cuts_the_groups():
    problem = Problem("c", ConvSpec(9, 14, (3, 2), table=TABLES["random"].edges).form((20, 21)), 2)
    whole, cut = _parts(problem), _parts(replace(problem, max_scratch=1 << 16))
    assert len(whole) == 1 < len(cut)
    assert sum((part.edges for part, _ in cut), ()) == whole[0][0].edges
    assert CLUSTERS.scratch(replace(problem, max_scratch=1 << 16)) < CLUSTERS.scratch(problem)


SPARSE = ConvSpec(64, 128, (3, 3), padding=1, table=random_table(64, 128, 2))


@pytest.mark.usefixtures("without_native")
def test_the_planner_takes_the_edges_of_a_sparse_table_and_fills_a_full_one():
    sparse = SPARSE
    full = ConvSpec(64, 64, (3, 3), padding=1, table=random_table(64, 64, 60))
    assert choose(Problem("c", sparse.form((56, 57)), 2)).engine == CLUSTERS.name
    assert choose(Problem("c", full.form((28, 29)), 8)).engine == "aten after table filled with zeros"
    assert choose(Problem("c", full.form((28, 29)), 8, tolerance=0.0)).engine == CLUSTERS.name


@pytest.mark.skipif(native.instruction_set() is None, reason="there is no native extension")
@pytest.mark.parametrize("map_", ["c", "h", "g"])
def test_edges_are_summed_natively_where_that_can_be_done(map_):
    assert choose(Problem(map_, SPARSE.form((56, 57)), 2)).engine == "direct"
    none = ConvSpec(3, 4, (3, 3), table=())
    assert "0 of 3 x 4 channels are connected" in Direct().refuses(Problem(map_, none.form((8, 9)), 2))


def test_infinities_stay_on_the_edges_and_spread_where_zeros_are_filled_in():
    spec = ConvSpec(3, 2, (2,), table=((0, 0), (1, 1), (1, 2)))
    problem = Problem("c", spec.form(5), 1, "float64")
    K, V = torch.ones(3, 2).double(), torch.ones(1, 3, 5).double()
    V[0, 0, 2] = float("inf")
    local = CLUSTERS.prepare(problem)(K, V, None).isfinite()
    assert local.tolist() == [[[True, False, False, True], [True] * 4]]
    assert not engine_named("aten after table filled with zeros").prepare(problem)(K, V, None)[0, 1].isfinite().all()
