"""Tables against what defines them, and LeNet-5's against what the paper says of it in words."""

from collections import Counter

import pytest

from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.spec import ChannelTable, Grouped, grouped_table, lenet5_table, random_table, window_table


def seen(table, output):
    return [i for o, i in table if o == output]


def test_lenet5_as_the_paper_describes_it():
    """60 edges: contiguous threes, contiguous fours, three discontinuous fours, and one that sees all; ten per input."""
    table = lenet5_table()
    assert len(table) == 60 == ChannelTable(6, 16, table).connections
    assert [set(seen(table, o)) for o in range(6)] == [{k, (k + 1) % 6, (k + 2) % 6} for k in range(6)]
    assert [set(seen(table, 6 + o)) for o in range(6)] == [{(k + n) % 6 for n in range(4)} for k in range(6)]
    assert [seen(table, o) for o in (12, 13, 14, 15)] == [[0, 1, 3, 4], [1, 2, 4, 5], [0, 2, 3, 5], [0, 1, 2, 3, 4, 5]]
    assert Counter(i for _, i in table) == dict.fromkeys(range(6), 10)
    assert len(table) * 25 + 16 == 1516  # the published number of trainable parameters of C3


def test_groups_are_those_of_a_grouped_convolution():
    assert grouped_table(6, 4, 2) == Grouped(6, 4, 2).edges


def test_windows_slide_and_wrap_around():
    table = window_table(5, 6, 3, step=2, block=2)
    assert [sorted(seen(table, o)) for o in range(6)] == [[0, 1, 2]] * 2 + [[2, 3, 4]] * 2 + [[0, 1, 4]] * 2
    assert list(table) == sorted(table)
    assert window_table(6, 9, 2, step=2, block=3) == grouped_table(6, 9, 3)


def test_random_tables_have_a_fan_in_and_a_seed():
    table = random_table(9, 7, 4, seed=3)
    assert Counter(o for o, _ in table) == dict.fromkeys(range(7), 4)
    assert len(set(table)) == 28
    assert {i for _, i in table} <= set(range(9))
    assert random_table(9, 7, 4, seed=3) == table != random_table(9, 7, 4, seed=4)


def test_what_cannot_be_a_table_is_refused_in_words():
    with pytest.raises(ArgumentError, match="width=6 is more than the 5 inputs"):
        window_table(5, 3, 6)
    with pytest.raises(ArgumentError, match="fan_in=6 is more than the 5 inputs"):
        random_table(5, 3, 6)
    with pytest.raises(ArgumentError, match="groups=2 must divide in_channels=5"):
        grouped_table(5, 4, 2)
    with pytest.raises(ArgumentTypeError, match="outputs must be a whole number, got 2.5"):
        random_table(5, 2.5, 2)
