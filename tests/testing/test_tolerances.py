import pytest
import torch

from ninefold.errors import DTypeError
from ninefold.spec import ConvSpec
from ninefold.testing import assert_close, defined, error_scale, operands, scaled_error, tolerance

SPECS = [
    ConvSpec(2, 3, (3, 2), padding=((1, 2), (0, 1))),
    ConvSpec(4, 6, (2, 3), groups=2, stride=(2, 1)),
    ConvSpec(2, 3, (3, 2), period=(2, None)),
    ConvSpec(3, 4, (2, 3), table=((0, 2), (1, 0), (3, 1), (3, 2)), period=(2, 1)),
    ConvSpec(2, 3, (3, 4), padding=((4, 3), (2, 5)), padding_mode="replicate"),
    ConvSpec(2, 3, (3,), padding=((5, 1),), padding_mode="circular"),
]


@pytest.mark.parametrize("spec", SPECS, ids=range(len(SPECS)))
@pytest.mark.parametrize("map_", ["c", "h", "g"])
def test_no_result_exceeds_the_scale_and_some_come_near(spec, map_):
    form = spec.form((7, 6)[: spec.ndim])
    a, b = operands(map_, form, 2, values="normal")
    scale = error_scale(map_, form, a, b)
    result = defined(map_, form, a.abs(), b.abs().amax() * torch.ones_like(b))
    if map_ == "g":
        result = defined(map_, form, a.abs().amax() * torch.ones_like(a), b.abs())
    assert (result <= scale * (1 + 1e-12)).all()
    assert (result / scale).nan_to_num().amax() > 0.1  # less than 1 where a stride or a period deals the terms out


def test_the_table_has_every_dtype_and_no_integers():
    assert tolerance("bfloat16") > tolerance(torch.float16) > tolerance(torch.float32) > tolerance("complex128")
    with pytest.raises(DTypeError, match="int64 has no tolerance"):
        tolerance(torch.int64)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_an_infinite_error(value):
    result, expected, scale = torch.tensor([1.0, value]), torch.tensor([1.0, 2.0]), torch.ones(1)
    assert scaled_error(result, expected, scale) == float("inf")
    with pytest.raises(AssertionError, match=r"error inf .* worst at \(1,\)"):
        assert_close(result, expected, scale, 1e30)


def test_zero_scale_admits_zero_error_only():
    zero, one = torch.zeros(2), torch.ones(2)
    assert_close(zero, zero.double(), zero, 0.0)
    with pytest.raises(AssertionError):
        assert_close(one, zero.double(), zero, 1e-3)


def test_shapes_are_compared_before_values():
    with pytest.raises(AssertionError, match=r"shape \(2, 1\), expected \(2,\)"):
        assert_close(torch.ones(2, 1), torch.ones(2).double(), torch.ones(1), 1.0)


def test_doubles_are_summed_in_more_than_double():
    form = ConvSpec(1, 1, (3,)).form(3)
    K, V = torch.tensor([[[1e17, 1.5, -1e17]]]).double(), torch.ones(1, 1, 3).double()
    assert defined("c", form, K, V).item() == 1.5
