from fractions import Fraction

import pytest

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.spec import (
    ConvSpec,
    depthwise_separable_products,
    depthwise_separable_ratio,
    direct_products,
    standard_products,
    two_pass_products,
    two_pass_ratio,
)


def test_published_integers():
    assert direct_products(64, 7) == 164_836
    assert two_pass_products(64, 7) == 49_532
    assert round(float(two_pass_ratio(64, 7)), 5) == 0.30049
    assert standard_products(9, 9, 3, inputs=4, outputs=6) == 10_584
    assert depthwise_separable_products(9, 9, 3, inputs=4, outputs=6) == 2_940
    assert round(float(depthwise_separable_ratio(3, outputs=6)), 5) == 0.27778


@pytest.mark.parametrize(("n", "m"), [(9, 4), (7, 1), (5, 5), (31, 8)])
def test_image_counts_by_counting(n, m):
    direct = sum(1 for _ in range(n - m + 1) for _ in range(n - m + 1) for _ in range(m) for _ in range(m))
    first = sum(1 for _ in range(n - m + 1) for _ in range(n) for _ in range(m))
    second = sum(1 for _ in range(n - m + 1) for _ in range(n - m + 1) for _ in range(m))
    assert direct_products(n, m) == direct == ConvSpec(1, 1, m).macs((n, n))
    assert two_pass_products(n, m) == first + second
    assert two_pass_ratio(n, m) == Fraction(first + second, direct)


@pytest.mark.parametrize(("height", "width", "kernel", "inputs", "outputs"), [(9, 9, 3, 4, 6), (8, 11, 5, 3, 7)])
def test_channel_counts_are_macs(height, width, kernel, inputs, outputs):
    size = (height, width)
    dense = ConvSpec(inputs, outputs, kernel)
    depthwise = ConvSpec(inputs, inputs, kernel, groups=inputs)
    two = depthwise.macs(size) + ConvSpec(inputs, outputs, 1).macs(depthwise.output_size(size))
    assert standard_products(height, width, kernel, inputs, outputs) == dense.macs(size)
    assert depthwise_separable_products(height, width, kernel, inputs, outputs) == two
    assert depthwise_separable_ratio(kernel, outputs) == Fraction(two, dense.macs(size))


def test_ratio_with_any_padding_and_stride():
    size, options = (8, 11), {"stride": (2, 3), "padding": (1, 2)}
    depthwise = ConvSpec(4, 4, 3, groups=4, **options)
    two = depthwise.macs(size) + ConvSpec(4, 6, 1).macs(depthwise.output_size(size))
    assert Fraction(two, ConvSpec(4, 6, 3, **options).macs(size)) == depthwise_separable_ratio(3, 6) == Fraction(5, 18)


def test_limits():
    assert 0 < two_pass_ratio(10**9, 7) - Fraction(2, 7) < Fraction(1, 10**8)
    # Nc = 9 is large against h = 3 only for the notes: the gain is not 9 but 4.5
    assert depthwise_separable_ratio(3, 9) == Fraction(2, 9)
    assert 8 < 1 / depthwise_separable_ratio(3, 128) < 9


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: direct_products(4, 7), ShapeError, r"kernel of 7 does not fit into image of 4 .* at least 7"),
        (lambda: two_pass_products(7, 0), ArgumentError, r"kernel must be at least 1, got 0"),
        (lambda: two_pass_ratio(4, 7), ShapeError, r"kernel of 7 does not fit into image of 4"),
        (lambda: standard_products(9, 2, 3, 4, 6), ShapeError, r"kernel of 3 does not fit into width of 2"),
        (lambda: standard_products(9, 8, 3, 4, 0), ArgumentError, r"outputs must be at least 1, got 0"),
        (lambda: depthwise_separable_products(9, 8, 3, 4.0, 6), ArgumentTypeError, r"inputs must be a whole number"),
        (lambda: depthwise_separable_ratio(0, 6), ArgumentError, r"kernel must be at least 1, got 0"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
