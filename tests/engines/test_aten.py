"""PyTorch's own call where PyTorch can state the problem: nothing is written out first, nothing folded afterwards."""

import pytest
import torch

from ninefold.engines import aten
from ninefold.spec import ConvSpec, Problem
from ninefold.testing import operands

PLAIN = {
    "symmetric pads": ConvSpec(2, 3, (3, 5), padding=(1, 2), stride=(2, 1)),
    "leftover": ConvSpec(2, 3, (3, 2), stride=(3, 2)),
    "dilated and grouped": ConvSpec(4, 6, (2, 3), dilation=(3, 2), groups=2, padding=(2, 1)),
    "volume": ConvSpec(2, 3, (2, 3, 1), padding=(1, 0, 0)),
    "output padding past the stride": ConvSpec(
        2, 3, (2, 3), stride=(2, 1), dilation=(4, 3), padding=(1, 2), output_padding=(3, 2), transposed=True
    ),
}
WRITTEN_OUT = {
    "uneven pads": ConvSpec(2, 3, (3, 5), padding=((1, 2), (2, 2))),
    "crop": ConvSpec(2, 3, (3, 5), padding=((-1, -1), (0, 0))),
    "mode": ConvSpec(2, 3, (3, 5), padding=(1, 2), padding_mode="circular"),
}


@pytest.fixture
def calls(monkeypatch):
    made = []
    for name in ("extension", "folding"):
        make = getattr(aten, name)

        def spy(form, name=name, make=make):
            return lambda x: made.append(name) or make(form)(x)

        monkeypatch.setattr(aten, name, spy)
    return made


def run(spec, map_):
    form = spec.form((7, 9, 5)[: spec.ndim])
    a, b = operands(map_, form, 2)
    return aten.Aten().prepare(Problem(map_, form, 2, "float64"))(a, b, None)


@pytest.mark.parametrize("map_", ["c", "h", "g"])
@pytest.mark.parametrize("spec", PLAIN.values(), ids=PLAIN)
def test_what_torch_can_state_is_torchs_call(spec, map_, calls):
    run(spec, map_)
    # an output padding past the stride has no convolution of the same sizes, so that c and g write the border out
    assert calls == (["extension"] if spec.transposed and map_ != "h" else [])


@pytest.mark.parametrize(("map_", "call"), [("c", "extension"), ("h", "folding"), ("g", "extension")])
@pytest.mark.parametrize("spec", WRITTEN_OUT.values(), ids=WRITTEN_OUT)
def test_what_torch_cannot_state_is_written_out(spec, map_, call, calls):
    run(spec, map_)
    assert calls == [call]


def test_the_result_is_the_bits_of_torch():
    K, V = (torch.randn(*shape) for shape in ((3, 2, 3, 5), (2, 2, 7, 9)))
    form = ConvSpec(2, 3, (3, 5), padding=(1, 2), stride=(2, 1)).form((7, 9))
    out = aten.Aten().prepare(Problem("c", form, 2))(K, V, None)
    assert torch.equal(out, torch.nn.functional.conv2d(V, K, None, (2, 1), (1, 2)))
