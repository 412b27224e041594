from dataclasses import replace

import pytest
import torch

from ninefold.spec import ConvSpec, Problem

SPEC = ConvSpec(4, 6, (3, 5), stride=(2, 1), padding=(1, 0))
FORM = SPEC.form((7, 9))
PROBLEM = Problem("c", FORM, 3)


def test_counts():
    assert FORM.n_out == (4, 5)
    assert PROBLEM.macs == 3 * 24 * 15 * 20
    assert PROBLEM.bytes == 4 * (3 * 4 * 63 + 3 * 6 * 20 + 6 * 4 * 15)


DTYPES = "float64 float32 float16 bfloat16 complex64 complex128 int64 int32 int16 int8 uint8 bool"


@pytest.mark.parametrize("name", DTYPES.split())
def test_dtypes_are_torchs(name):
    dtype, problem = getattr(torch, name), replace(PROBLEM, dtype=name)
    assert problem.itemsize == dtype.itemsize
    assert problem.is_complex == dtype.is_complex
    assert problem.is_float == dtype.is_floating_point


def test_key_is_stable():
    again = Problem("c", ConvSpec.from_text(SPEC.to_text()).form((7, 9)), 3)
    assert again == PROBLEM
    assert again.key == PROBLEM.key
    assert len(PROBLEM.key) == 32


@pytest.mark.parametrize(
    "changes",
    [
        {"map": "h"},
        {"form": SPEC.form((8, 9))},
        {"form": SPEC.replace(padding_mode="reflect").form((7, 9))},
        {"form": SPEC.replace(flip_kernel=True).form((7, 9))},
        {"form": SPEC.replace(groups=2).form((7, 9))},
        {"form": SPEC.replace(period=(2, 1)).form((7, 9))},
        {"form": SPEC.replace(table=((0, 0), (5, 3))).form((7, 9))},
        {"form": SPEC.replace(table=((0, 0), (5, 2))).form((7, 9))},
        {"batch": 4},
        {"dtype": "float64"},
        {"device": "cuda"},
        {"channels_last": True},
        {"threads": 2},
        {"tolerance": 0.0},
        {"max_scratch": 0},
        {"deterministic": True},
        {"finite": True},
        {"rank": 1},
        {"frozen": True},
    ],
    ids=lambda c: next(iter(c)),
)
def test_key_depends_on_everything(changes):
    assert replace(PROBLEM, **changes).key != PROBLEM.key
