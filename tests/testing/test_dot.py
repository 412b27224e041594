"""The dot test passes on adjoints and fails on each way of not being one."""

import pytest
import torch

from ninefold.spec import ConvSpec
from ninefold.testing import defined, dot_test, operands

FORM = ConvSpec(2, 3, (3, 2), stride=(2, 1), padding=((1, 0), (0, 1))).form((7, 5))
K, V = operands("c", FORM, 2)
G = operands("h", FORM, 2)[1]


def maps():
    return {m: lambda a, b, m=m: defined(m, FORM, a, b) for m in "chg"}


def test_the_definitions_are_adjoint():
    dot_test(*maps().values(), K, V, G)


@pytest.mark.parametrize("broken", ["c", "h", "g"])
@pytest.mark.parametrize(
    "fault",
    [lambda x: -x, lambda x: x.flip(-1), lambda x: x.roll(1, 2), lambda x: x * 1.0001, lambda x: x * float("nan")],
)
def test_a_broken_map_is_found(broken, fault):
    three = maps()
    right = three[broken]
    three[broken] = lambda a, b: fault(right(a, b))
    with pytest.raises(AssertionError, match="not adjoint: <c"):
        dot_test(*three.values(), K, V, G)
    if broken == "c":
        with pytest.raises(AssertionError, match="not adjoint"):
            dot_test(*three.values(), K, V, G, tolerance=1e-9)


def test_a_wrong_shape_is_named():
    three = maps()
    right = three["h"]
    three["h"] = lambda a, b: right(a, b)[..., :-1]
    with pytest.raises(AssertionError, match=r"h\(K, G\) has shape \(2, 2, 7, 4\), but what it pairs with has \(2, 2, 7, 5\)"):
        dot_test(*three.values(), K, V, G)


def test_rounding_is_admitted_where_it_is_asked_for():
    three = maps()
    right = three["g"]
    three["g"] = lambda a, b: right(a, b) * (1 + 1e-12)
    dot_test(*three.values(), K, V, G, tolerance=1e-11)
    with pytest.raises(AssertionError):
        dot_test(*three.values(), K, V, G)


def test_the_pairing_is_bilinear():
    a, b = (torch.tensor([[[1 + 2j, 3 - 1j]]]), torch.tensor([[[2 - 1j, 1j, 4 + 1j]]]))
    form = ConvSpec(1, 1, (2,)).form(3)
    G = torch.tensor([[[1j, 2 + 3j]]])
    three = {m: lambda x, y, m=m: defined(m, form, x, y) for m in "chg"}
    dot_test(*three.values(), a, b, G)
    with pytest.raises(AssertionError):
        dot_test(three["c"], lambda x, y: three["h"](x.conj(), y), three["g"], a, b, G)
