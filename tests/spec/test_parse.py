import numpy as np
import pytest
import torch

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.spec import parse


class Symbol:
    """Stands for torch.SymInt: it has a node, and asking it for a number would be a mistake."""

    node = object()

    def __index__(self):
        raise AssertionError


def test_integer():
    assert parse.integer(7, "stride", 7) == 7
    assert parse.integer(-7, "padding") == -7
    whole = parse.integer(np.int32(5), "stride")
    assert (whole, type(whole)) == (5, int)
    assert parse.integer(torch.tensor(5), "stride") == 5
    symbol = Symbol()
    assert parse.integer(symbol, "input_size", 1) is symbol


@pytest.mark.parametrize("value", [2.0, "3", None, True, np.float64(3), np.array([3, 5]), torch.tensor([3, 5]), 3j])
def test_no_integer(value):
    with pytest.raises(ArgumentTypeError, match=r"stride must be a whole number, got .* of type \w+"):
        parse.integer(value, "stride")


@pytest.mark.parametrize(
    ("value", "minimum", "message"),
    [
        (0, 1, r"stride must be at least 1, got 0"),
        (-3, 0, r"stride must be at least 0, got -3"),
        (2**63, None, r"stride=9223372036854775808 does not fit a 64-bit integer"),
        (-(2**64), None, r"stride=-18446744073709551616 does not fit"),
    ],
)
def test_integer_out_of_range(value, minimum, message):
    with pytest.raises(ArgumentError, match=message):
        parse.integer(value, "stride", minimum)


def test_largest_integer():
    assert parse.integer(2**63 - 1, "stride") == 2**63 - 1


def test_per_axis():
    assert parse.per_axis(3, 2, "stride") == (3, 3)
    assert parse.per_axis((3,), 3, "stride") == (3, 3, 3)
    assert parse.per_axis([3, 5], 2, "stride") == (3, 5)
    assert parse.per_axis(torch.Size([3, 5, 7]), 3, "stride") == (3, 5, 7)
    with pytest.raises(ArgumentError, match=r"stride must be one number or 2 .* got \(1, 2, 3\)"):
        parse.per_axis((1, 2, 3), 2, "stride")
    with pytest.raises(ArgumentTypeError, match=r"stride\[1\] must be a whole number, got 2.5"):
        parse.per_axis((1, 2.5), 2, "stride")
    with pytest.raises(ArgumentTypeError, match=r"stride must be a whole number, got '33' of type str"):
        parse.per_axis("33", 2, "stride")


def test_ndim_of():
    assert parse.ndim_of(3, 1, "same") == 2
    assert parse.ndim_of(3, (1,), (1, 2, 3)) == 1
    with pytest.raises(ArgumentError, match=r"at least 1 spatial axis, got \(\)"):
        parse.ndim_of(())


def test_paddings():
    assert parse.paddings("same", 2) == "same_upper"
    assert parse.paddings("causal", 1) == "causal"
    assert parse.paddings(3, 2) == ((3, 3), (3, 3))
    assert parse.paddings((1, -2), 2) == ((1, 1), (-2, -2))
    assert parse.paddings([[0, 1], (2, -3)], 2) == ((0, 1), (2, -3))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("SAME", ArgumentError, r"padding='SAME' is not one of .*'same'.*'causal'"),
        (
            ((0, 1),),
            ArgumentError,
            r"must hold one \(before, after\) pair for each of 2 .* such as \(\(0, 1\), \(0, 1\)\)",
        ),
        (((0, 1), 2), ArgumentError, r"padding=\(\(0, 1\), 2\) must hold one"),
        (((0, 1, 2), (3, 4)), ArgumentError, r"must hold one \(before, after\) pair"),
        ((1, 2, 3), ArgumentError, r"padding must be one number or 2 .* got \(1, 2, 3\)"),
        (((0, 1.5), (2, 3)), ArgumentTypeError, r"padding must be a whole number, got 1.5"),
        (None, ArgumentTypeError, r"padding must be a whole number, got None"),
    ],
)
def test_bad_paddings(value, error, message):
    with pytest.raises(error, match=message):
        parse.paddings(value, 2)


@pytest.mark.parametrize("value", ["constant", ["zeros"], None, 0])
def test_bad_padding_mode(value):
    with pytest.raises(ArgumentError, match=r"padding_mode=.* is not one of \['zeros', 'reflect'"):
        parse.padding_mode(value)


def test_periods():
    assert parse.periods(None, 3) == (None, None, None)
    assert parse.periods((2, None), 2) == (2, None)
    with pytest.raises(ArgumentError, match=r"period must be one number or 2 .* got \(1, 2, 3\)"):
        parse.periods((1, 2, 3), 2)
    with pytest.raises(ArgumentError, match=r"period\[1\] must be at least 1, got 0"):
        parse.periods((2, 0), 2)


def test_size():
    assert parse.size(torch.Size([7, 0]), 2, "input_size") == (7, 0)
    assert parse.size(np.array([7, 9]), 2, "input_size") == (7, 9)
    assert parse.size((n for n in (7, 9)), 2, "input_size") == (7, 9)
    assert parse.size(7, 3, "input_size") == (7, 7, 7)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ((7,), ShapeError, r"input_size must hold 2 spatial sizes, one per axis, got 1: \(7,\)"),
        ((3, 7, 9), ShapeError, r"input_size must hold 2 spatial sizes, one per axis, got 3: \(3, 7, 9\)"),
        ((7, -1), ArgumentError, r"input_size\[1\] must be at least 0, got -1"),
        ((7, 9.0), ArgumentTypeError, r"input_size\[1\] must be a whole number, got 9.0 of type float"),
    ],
)
def test_bad_size(value, error, message):
    with pytest.raises(error, match=message):
        parse.size(value, 2, "input_size")
