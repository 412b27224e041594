"""What exporters are given, PyTorch's own operations, is the definition, and refuses what would be wrong."""

import re

import pytest
import torch

from ninefold import reference
from ninefold.errors import UnsupportedError
from ninefold.ops.composed import composed, needs_size
from ninefold.ops.executor import executor_for
from ninefold.settings import CURRENT
from ninefold.spec import ConvSpec
from ninefold.tensors.border import extension

EDGES = ((0, 1), (1, 0), (1, 2), (2, 2), (5, 3), (4, 3))
KINDS = {
    "plain": {"groups": 2, "flip_kernel": True},
    "tiled": {"groups": 2, "period": (2, 3), "flip_kernel": True},
    "unshared": {"groups": 2, "period": None},
    "table": {"table": EDGES},
    "tiled table": {"table": EDGES, "period": (3, 2)},
    "grouped 3-D": {"kernel_size": (2, 1, 3), "stride": (1, 2, 2), "padding": 1, "period": (2, 1, 2), "groups": 2, "dilation": 1},
    "1-D": {"kernel_size": (3,), "stride": 2, "padding": ((2, 1),), "period": 4, "dilation": 1},
    "uneven border": {"padding": ((2, 0), (-1, 1)), "period": (2, 1)},
}


def whole(*shape):
    return torch.randint(-4, 5, shape).double()


def posed(kind, map_, **more):
    how = {"kernel_size": (3, 2), "stride": (2, 1), "padding": ((1, 1), (2, 2)), "dilation": (1, 2)} | KINDS[kind] | more
    spec = ConvSpec(4, 6, **how)
    form = spec.form((7, 8, 5)[: spec.ndim])
    bound = executor_for(form, 3, torch.double, torch.device("cpu"), False, CURRENT.get(), 1)
    return form, composed(bound.problem(map_))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("map_", ["c", "h"])
def test_it_is_the_definition_and_leaves_its_operands_alone(kind, map_):
    form, run = posed(kind, map_)
    data, out = form.input_shape(3), form.output_shape(3)
    K, x = whole(*form.weight_shape), whole(*(data if map_ == "c" else out))
    bias = whole((out if map_ == "c" else data)[1])
    kept = K.clone(), x.clone(), bias.clone()
    which = reference.c if map_ == "c" else reference.h
    want = torch.from_numpy(which(form, K.numpy(), x.numpy()))
    assert torch.equal(run(K, x), want)
    assert torch.equal(run(K, x, bias), want + bias.view(-1, *(1,) * form.ndim))
    assert all(torch.equal(a, b) for a, b in zip(kept, (K, x, bias), strict=True))


@pytest.mark.parametrize("mode", ["reflect", "symmetric", "replicate", "circular"])
def test_a_continued_border_is_written_out_but_not_folded_back(mode):
    form, run = posed("tiled", "c", padding_mode=mode)
    K, V = whole(*form.weight_shape), whole(*form.input_shape(3))
    assert extension(form)(V).shape != V.shape
    assert torch.equal(run(K, V), torch.from_numpy(reference.c(form, K.numpy(), V.numpy())))
    with pytest.raises(UnsupportedError, match=f"fold back a border of padding_mode='{mode}'"):
        posed("tiled", "h", padding_mode=mode)


def test_what_torch_has_no_convolution_for_is_refused():
    spec = ConvSpec(2, 3, (1, 1, 1, 2))
    bound = executor_for(spec.form((3, 3, 3, 4)), 1, torch.double, torch.device("cpu"), False, CURRENT.get(), 1)
    with pytest.raises(UnsupportedError, match="cannot hold this layer: PyTorch has 1 to 3 spatial axes, not 4"):
        composed(bound.problem("c"))


@pytest.mark.parametrize(
    ("how", "size", "words"),
    [
        ({}, None, None),
        ({"padding": 1, "stride": 2, "table": EDGES}, None, None),
        ({}, (13, 14), r"output_size=\(13, 14\) was chosen for one"),
        ({"period": 2}, None, "which kernel a position has"),
        ({"padding": "same"}, None, "padding='same_upper' with padding_mode='zeros' is written out"),
        ({"padding": 1, "padding_mode": "reflect"}, None, "padding_mode='reflect' is written out"),
        ({"padding": ((0, 1), (2, 2))}, None, "is written out"),
    ],
)
def test_what_depends_on_the_size(how, size, words):
    found = needs_size(ConvSpec(4, 6, (3, 2), **how), size)
    assert found is None if words is None else re.search(words, found)
