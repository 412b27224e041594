import pytest

from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.spec import ChannelTable, Grouped


@pytest.mark.parametrize(
    ("channels", "edges"),
    [
        (Grouped(2, 3), ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))),
        (Grouped(4, 6, groups=2), tuple((o, i) for o in range(6) for i in ((0, 1) if o < 3 else (2, 3)))),
        (Grouped(3, 6, groups=3), ((0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2))),
    ],
)
def test_edges_of_groups(channels, edges):
    assert channels.edges == edges
    assert channels.connections == len(edges)


def test_weight_of_groups():
    channels = Grouped(6, 4, groups=2)
    assert (*channels.weight_head, *channels.weight_tail) == (4, 3)


def test_groups_divide_connections():
    assert Grouped(96, 256).connections == 24576
    assert Grouped(96, 256, groups=2).connections == 12288


def test_table_is_packed():
    table = ChannelTable(4, 3, ((0, 0), (0, 1), (2, 3)))
    assert (table.connections, table.weight_head, table.weight_tail, table.groups) == (3, (3,), (), 1)


def test_table_takes_lists_and_index_types():
    class Two:
        def __index__(self):
            return 2

    table = ChannelTable(4, 3, [[0, 1], (Two(), 3)])
    assert table.edges == ((0, 1), (2, 3))
    assert hash(table) == hash(ChannelTable(4, 3, ((0, 1), (2, 3))))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((6, 4, 3), ArgumentError, r"groups=3 must divide in_channels=6 and out_channels=4; .* both are 1, 2$"),
        ((4, 6, 0), ArgumentError, r"groups must be at least 1, got 0"),
        ((-1, 6), ArgumentError, r"in_channels must be at least 0, got -1"),
        ((5, -2), ArgumentError, r"out_channels must be at least 1, got -2"),
        ((2**61, 2**60, 7), ArgumentError, r"groups=7 must divide .* both are 1, 2, 4, 8, 16, 32, 64, 128, \.\.\.$"),
    ],
)
def test_bad_groups(arguments, error, message):
    with pytest.raises(error, match=message):
        Grouped(*arguments)


@pytest.mark.parametrize(
    ("edges", "error", "message"),
    [
        (((0, 4),), ArgumentError, r"edge \(0, 4\) .* outside 3 outputs x 4 inputs"),
        (((3, 1),), ArgumentError, r"edge \(3, 1\) .* outside 3 outputs x 4 inputs"),
        (((0, -1),), ArgumentError, r"edge \(0, -1\) .* outside"),
        (((0, 1), (1, 2), (0, 1)), ArgumentError, r"edge \(0, 1\) appears twice"),
        (((0, 1.5),), ArgumentTypeError, r"table\[0\]\[1\] must be a whole number, got 1.5 of type float"),
        (((0, 1), (1, 2, 3)), ArgumentTypeError, r"table\[1\] must be a pair \(output, input\), got \(1, 2, 3\)"),
        ((7,), ArgumentTypeError, r"table\[0\] must be a pair \(output, input\), got 7"),
        (7, ArgumentTypeError, r"table must be a sequence of pairs \(output, input\), got 7"),
    ],
)
def test_bad_tables(edges, error, message):
    with pytest.raises(error, match=message):
        ChannelTable(4, 3, edges)
