"""PyTorch's own samples and its own bad inputs, with our functions and layers in torch's place."""

import re

import pytest
import torch

import ninefold.functional as F
from ninefold import nn

pytest.importorskip("expecttest", reason="torch.testing._internal needs it")

from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

OPERATORS = [
    op
    for op in op_db
    if op.name.startswith("nn.functional.") and hasattr(F, op.name.split(".")[-1]) and op.variant_test_name != "grad"
]
LAYERS = [info for info in module_db if hasattr(nn, info.name.split(".")[-1])]
BEYOND = {  # what torch refuses and the documents promise
    "negative padding is not supported",
    "padding='same' is not supported for strided convolutions",
}
MOST = 60  # samples of one operator: torch has up to 1440, which differ little


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def named(op):
    return f"{op.name.split('.')[-1]}-{op.variant_test_name}" if op.variant_test_name else op.name.split(".")[-1]


def test_every_function_and_layer_of_torch_around_convolution_and_pooling_is_compared():
    about = re.compile(r"nn\.functional\.(conv|.*pool|unfold|fold|pad$|channel_shuffle)")
    assert {op.name for op in op_db if about.match(op.name)} == {op.name for op in OPERATORS if about.match(op.name)}
    about = re.compile(r"nn\.(Lazy)?(Conv|.*Pool|Fold|Unfold|ChannelShuffle)")
    assert {info.name for info in module_db if about.match(info.name)} == {info.name for info in LAYERS}


@pytest.mark.parametrize("op", OPERATORS, ids=named)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_samples_and_their_gradients(op, dtype):
    if dtype not in op.supported_dtypes("cpu"):
        pytest.skip(f"torch has no {named(op)} of {dtype}")
    function = getattr(F, op.name.split(".")[-1])
    samples = list(op.sample_inputs("cpu", dtype, requires_grad=dtype in op.supported_backward_dtypes("cpu")))
    for sample in samples[:: -(-len(samples) // MOST)]:
        found = []
        for run in (op.op, function):
            torch.manual_seed(42)  # as torch's samples of random functions do
            out = run(sample.input, *sample.args, **sample.kwargs)
            first = out[0] if isinstance(out, tuple) else out
            leaves = [x for x in (sample.input, *sample.args) if isinstance(x, torch.Tensor) and x.requires_grad]
            grads = (
                torch.autograd.grad(
                    (first.real + first.imag).sum() if first.is_complex() else first.sum(), leaves, allow_unused=True
                )
                if first.requires_grad
                else ()
            )
            found.append((out, [g for g in grads if g is not None]))
        torch.testing.assert_close(found[1], found[0], equal_nan=True)


@pytest.mark.parametrize("op", [op for op in OPERATORS if op.error_inputs_func], ids=named)
def test_bad_inputs_are_refused_by_the_same_class(op):
    function = getattr(F, op.name.split(".")[-1])
    for bad in op.error_inputs("cpu"):
        if bad.error_regex in BEYOND:
            continue
        with pytest.raises(bad.error_type):
            function(bad.sample_input.input, *bad.sample_input.args, **bad.sample_input.kwargs)


@pytest.mark.parametrize("info", LAYERS, ids=lambda info: info.name)
@pytest.mark.parametrize("training", [False, True])
def test_layers(info, training):
    kind = getattr(nn, info.name.split(".")[-1])
    for sample in info.module_inputs_func(info, "cpu", torch.float64, requires_grad=True, training=training):
        made, given = sample.constructor_input, sample.forward_input
        if given is None:
            continue
        found = []
        for build in (info.module_cls, kind):
            torch.manual_seed(0)
            layer = build(*made.args, **made.kwargs).double().train(training)
            out = layer(*given.args, **given.kwargs)
            first = out[0] if isinstance(out, tuple) else out
            leaves = [x for x in (*given.args, *layer.parameters()) if isinstance(x, torch.Tensor) and x.requires_grad]
            found.append(
                (
                    out,
                    list(torch.autograd.grad((first.real + first.imag).sum() if first.is_complex() else first.sum(), leaves))
                    if first.requires_grad
                    else [],
                )
            )
        torch.testing.assert_close(found[1], found[0], equal_nan=True)


@pytest.mark.parametrize("info", [info for info in LAYERS if info.module_error_inputs_func], ids=lambda info: info.name)
def test_bad_layers_are_refused_by_the_same_class(info):
    kind = getattr(nn, info.name.split(".")[-1])
    for bad in info.module_error_inputs_func(info, "cpu", torch.float64, requires_grad=False, training=False):
        made, given = bad.module_error_input.constructor_input, bad.module_error_input.forward_input

        def run(made=made, given=given):
            return kind(*made.args, **made.kwargs).double()(*given.args, **given.kwargs)

        with pytest.raises(bad.error_type):
            run()
