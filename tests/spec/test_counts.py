"""Counts side by side: the chapter's integers, and every number counted again from the definition."""

import numpy as np
import pytest

import ninefold as nf
from ninefold import reference
from ninefold.errors import ArgumentError, ShapeError
from ninefold.spec import connectivity_counts


def test_the_edge_detector_of_figure_9_6():
    counts = connectivity_counts(nf.ConvSpec(1, 1, (1, 2)), (280, 320))
    assert (counts.inputs, counts.outputs) == (89_600, 89_320)
    assert counts["convolution"].operations == 267_960
    assert counts["dense"].parameters == counts["dense"].connections == 8_003_072_000
    assert counts["convolution"].connections == counts["unshared"].parameters == 178_640
    assert counts["dense"].operations == 59_733 * counts["convolution"].operations
    assert counts["convolution"].parameters == 2
    assert counts["tiled"].parameters == 8


SPECS = {
    "strided": (nf.ConvSpec(2, 3, (3, 2), stride=(2, 1), padding=((1, 0), (0, 2)), bias=True), (6, 5)),
    "wide border": (nf.ConvSpec(1, 2, (2,), stride=3, padding=5, bias=True), (4,)),
    "table": (nf.ConvSpec(3, 4, (2, 3), table=((0, 0), (0, 2), (1, 1))), (4, 5)),
    "transposed": (nf.ConvSpec(2, 3, (2,), stride=3, transposed=True, bias=True), (4,)),
    "circular": (nf.ConvSpec(2, 3, (4,), padding="same", padding_mode="circular"), (5,)),
}


@pytest.mark.parametrize(("spec", "size"), SPECS.values(), ids=SPECS)
def test_every_number_is_that_of_the_definition(spec, size):
    counts, form = connectivity_counts(spec, size, period=3), spec.form(size)
    outputs, inputs, _ = reference.terms(form)
    given = inputs if spec.transposed else outputs
    units = np.prod((form.input_shape if spec.transposed else form.output_shape)(1))
    additions = sum(n - 1 + spec.bias for n in np.bincount(given, minlength=units) if n) + spec.bias * (
        units - len(np.unique(given))
    )
    channels = spec.in_channels if spec.transposed else spec.out_channels
    positions = units // channels
    assert counts.outputs == units
    for kind, period, biases in (("unshared", None, positions), ("tiled", 3, 3**spec.ndim), ("convolution", 1, 1)):
        row = counts[kind]
        assert row.connections == len(outputs)
        assert row.operations == len(outputs) + additions
        weights = np.prod(spec.replace(period=period).weight_shape(size))
        assert row.parameters == weights + spec.bias * channels * biases
    dense = counts["dense"]
    assert dense.parameters == counts.inputs * units + spec.bias * units
    assert dense.operations == units * (2 * counts.inputs - 1 + spec.bias)


def test_a_layer_counts_as_its_description_and_it_prints():
    import torch

    layer = torch.nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0))
    counts = nf.connectivity_counts(layer, (6, 5), period=(1, 2))
    assert counts == nf.connectivity_counts(nf.ConvSpec.from_module(layer), (6, 5), period=(1, 2))
    assert counts["tiled"].parameters == 2 * counts["convolution"].parameters == 2 * 39
    text = str(counts)
    for part in ("60 units to 36", "dense", "unshared", "tiled", "convolution", "2,196"):
        assert part in text


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(ArgumentError, match=r"kind='sparse' is not one of \['dense'"):
        connectivity_counts(nf.ConvSpec(1, 1, (2,)), 5)["sparse"]
    with pytest.raises(ShapeError, match="spans 3 positions"):
        connectivity_counts(nf.ConvSpec(1, 1, (3,)), 2)
