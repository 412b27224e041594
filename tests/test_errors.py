"""Bad input: the type, the built-in type it also is, and a sentence with the actual numbers, by every route."""

import inspect
import re

import numpy as np
import pytest
import torch
from torch import func

import ninefold.functional as F
from ninefold import errors, nn
from ninefold.errors import (
    ArgumentError,
    ArgumentTypeError,
    DeviceError,
    DTypeError,
    NinefoldError,
    ShapeError,
    UnsupportedError,
)

X, W = torch.randn(2, 4, 9, 8), torch.randn(6, 4, 3, 2)


def call(x=X, w=W, *rest, **named):
    return F.conv2d(x, w, *rest, **named)


def transposed(**named):
    return F.conv_transpose2d(X, torch.ones(4, 6, 3, 2), stride=2, **named)


OPERANDS = {  # refused by every route in the same words
    "five dimensions": (lambda: call(X[None]), ShapeError, r"shape \(1, 2, 4, 9, 8\), 5 dimensions; a 2-D .* \(batch, 4, H, W\)"),
    "two dimensions": (lambda: call(X[0, 0]), ShapeError, r"shape \(9, 8\), 2 dimensions"),
    "channels": (lambda: call(torch.ones(2, 5, 9, 8)), ShapeError, r"\(2, 5, 9, 8\) and 5 channels; .* \(batch, 4, H, W\)"),
    "channels last": (lambda: call(X.movedim(1, -1)), ShapeError, r"use x\.movedim\(-1, 1\)"),
    "kernel too large": (lambda: call(w=torch.ones(6, 4, 11, 2)), ShapeError, r"kernel 11 .* spans 11 .* only 9 along axis 0"),
    "dilation too large": (lambda: call(dilation=(1, 9)), ShapeError, r"dilation 9 spans 10 .* only 8 along axis 1 .* at least 10"),
    "no positions": (lambda: call(X[:, :, :0]), ShapeError, r"only 0 along axis 0 \(input size 0"),
    "dtypes": (lambda: call(w=W.double()), DTypeError, r"weight is torch\.float64 but the input is torch\.float32"),
    "dtype of the bias": (lambda: call(X, W, torch.ones(6).half()), DTypeError, r"bias is torch\.float16 but"),
    "devices": (lambda: call(w=W.to("meta")), DeviceError, r"weight is on meta but the input is on cpu; move one"),
    "device of the bias": (lambda: call(X, W, torch.ones(6, device="meta")), DeviceError, r"bias is on meta"),
    "bias too short": (lambda: call(X, W, torch.ones(5)), ShapeError, r"bias has shape \(5,\); .* needs \(6,\)"),
    "bias of one": (lambda: call(X, W, torch.ones(1)), ShapeError, r"bias has shape \(1,\); .* needs \(6,\)"),
    "bias of rank 2": (lambda: call(X, W, torch.ones(6, 1)), ShapeError, r"bias has shape \(6, 1\)"),
    "sparse weight": (lambda: call(w=W.to_sparse()), DTypeError, r"torch\.sparse_coo.*\.to_dense\(\)"),
    "sparse input": (lambda: call(X.to_sparse()), DTypeError, r"torch\.sparse_coo.*\.to_dense\(\)"),
    "unshared positions": (lambda: F.locally_connected2d(X, torch.ones(6, 6, 7, 4, 3, 2)), ShapeError, r"\(6, 6, 7, 4, 3, 2\); .* needs \(6, 7, 7, 4, 3, 2\)"),
    "output size": (lambda: transposed(output_size=(25, 16)), ShapeError, r"output_size=25 along axis 0 .* input size 9 .* give 19 to 20"),
    "reflect one": (lambda: call(X[:, :, :1], padding=(1, 0), padding_mode="reflect"), (ArgumentError, ShapeError), r"'reflect' needs at least 2|spans 3"),
}  # fmt: skip
ARGUMENTS = {
    "rank of the weight": (lambda: call(w=W[0]), ShapeError, r"weight has shape \(4, 3, 2\), 3 dimensions"),
    "groups": (lambda: call(torch.ones(2, 8, 9, 8), torch.ones(5, 4, 3, 2), groups=2), ArgumentError, r"groups=2 must divide in_channels=8 and out_channels=5"),
    "groups 0": (lambda: call(groups=0), ArgumentError, "groups must be at least 1, got 0"),
    "groups as text": (lambda: call(groups="2"), ArgumentTypeError, "groups must be a whole number, got '2'"),
    "stride 0": (lambda: call(stride=0), ArgumentError, "stride must be at least 1, got 0"),
    "stride negative": (lambda: call(stride=(1, -2)), ArgumentError, r"stride\[1\] must be at least 1, got -2"),
    "dilation 0": (lambda: call(dilation=0), ArgumentError, "dilation must be at least 1, got 0"),
    "no output channels": (lambda: call(w=W[:0]), ArgumentError, "out_channels must be at least 1, got 0"),
    "no channels, transposed": (lambda: F.conv_transpose2d(X[:, :0], torch.ones(0, 6, 3, 2)), ArgumentError, "out_channels must be at least 1, got 0"),
    "no channels, tiled": (lambda: F.tiled_conv2d(X[:, :0], torch.ones(6, 2, 3, 0, 3, 2)), ArgumentError, "in_channels must be at least 1, got 0"),
    "no channels, a gradient": (lambda: F.conv2d_input((2, 0, 9, 8), W[:, :0], torch.ones(2, 6, 7, 7)), ArgumentError, "in_channels must be at least 1 for a plan, got 0"),
    "empty kernel": (lambda: call(w=W[:, :, :0]), ArgumentError, r"kernel_size\[0\] must be at least 1, got 0"),
    "float": (lambda: call(stride=2.0), ArgumentTypeError, r"stride must be a whole number, got 2\.0 of type float"),
    "float in a tuple": (lambda: call(stride=(2, 1.0)), ArgumentTypeError, r"stride\[1\] must be .* got 1\.0"),
    "float pads": (lambda: call(padding=((0, 1), (1.0, 0))), ArgumentTypeError, r"padding must be .* got 1\.0"),
    "bool": (lambda: call(stride=True), ArgumentTypeError, "stride must be a whole number, got True of type bool"),
    "bool in a tuple": (lambda: call(dilation=(True, 1)), ArgumentTypeError, r"dilation\[0\] must be .* got True"),
    "three strides": (lambda: call(stride=(1, 2, 3)), ArgumentError, r"stride must be one number or 2 .* \(1, 2, 3\)"),
    "text": (lambda: call(stride="2"), ArgumentTypeError, "stride must be a whole number, got '2' of type str"),
    "policy": (lambda: call(padding="sam"), ArgumentError, r"padding='sam' is not one of \['same', "),
    "mode": (lambda: call(padding_mode="mirror"), ArgumentError, r"'mirror' is not one of \['zeros', 'reflect', 'symm"),
    "past 64 bits": (lambda: call(stride=2**64), ArgumentError, f"stride={2**64} does not fit"),
    "array": (lambda: call(X.numpy()), ArgumentTypeError, r"input must be a tensor \(batch, 4, H, W\), got type ndarray"),
    "no weight": (lambda: call(w=None), ArgumentTypeError, "weight must be a tensor .* got type NoneType"),
    "bias as a list": (lambda: call(X, W, [1.0] * 6), ArgumentTypeError, "bias must be a tensor .* or None, got type list"),
    "period": (lambda: F.tiled_conv2d(X, torch.ones(6, 2, 3, 4, 3, 2), period=2), ArgumentError, r"period=2 .* \(6, 2, 3, 4, 3, 2\) holds \(2, 3\)"),
    "period as text": (lambda: F.tiled_conv2d(X, torch.ones(6, 2, 3, 4, 3, 2), period="2"), ArgumentTypeError, "period must be a whole number, got '2'"),
    "output padding": (lambda: transposed(output_padding=2), ArgumentError, "output_padding=2 along axis 0 must be smaller than stride=2"),
    "output size, float": (lambda: transposed(output_size=(19.0, 16)), ArgumentTypeError, r"output_size\[0\] must be .* got 19\.0"),
    "output size, rank": (lambda: transposed(output_size=(19,)), ShapeError, r"output_size must hold 2 spatial sizes.* got 1: \(19,\)"),
    "one size of the output": (lambda: transposed(output_size=19), ShapeError, "output_size=19 along axis 1 .* give 16 to 17"),
    "input's rank": (lambda: F.conv2d_input((2, 4, 9), W, torch.ones(2, 6, 7, 7)), ShapeError, r"\(2, 4, 9\) must be \(batch, 4, 2 sizes\)"),
    "input's size, float": (lambda: F.conv2d_input((2, 4, 9.0, 8), W, torch.ones(2, 6, 7, 7)), ArgumentTypeError, r"input_size\[2\] must be .* 9\.0"),
    "gradient's size": (lambda: F.conv2d_input((2, 4, 9, 8), W, torch.ones(2, 6, 7, 6)), ShapeError, "output_size=6 along axis 1 .* give 7"),
    "gradient's batch": (lambda: F.conv2d_input((2, 4, 9, 8), W, torch.ones(3, 6, 7, 7)), ShapeError, r"\(3, 6, 7, 7\); .* gives \(2, 6, 7, 7\)"),
    "gradient's dtype": (lambda: F.conv2d_input((2, 4, 9, 8), W, torch.ones(2, 6, 7, 7).double()), DTypeError, r"weight is torch\.float32 but the grad_output is torch\.float64"),
    "gradient's device": (lambda: F.conv2d_weight(X, W.shape, torch.ones(2, 6, 7, 7, device="meta")), DeviceError, "grad_output is on meta"),
    "weight's rank": (lambda: F.conv2d_weight(X, (6, 4, 3), torch.ones(2, 6, 7, 7)), ShapeError, r"weight_size=\(6, 4, 3\) must name 4"),
    "weight's size, float": (lambda: F.conv2d_weight(X, (6, 4, 3.0, 2), torch.ones(2, 6, 7, 7)), ArgumentTypeError, r"kernel_size\[0\] must be .* 3\.0"),
    "layer, float": (lambda: nn.Conv2d(4, 6, 3.0), ArgumentTypeError, r"kernel_size must be .* got 3\.0"),
    "layer, bool": (lambda: nn.Conv3d(4, 6, True), ArgumentTypeError, "kernel_size must be .* got True"),
    "layer, kernel 0": (lambda: nn.ConvTranspose1d(4, 6, 0), ArgumentError, "kernel_size must be at least 1, got 0"),
    "layer, two axes": (lambda: nn.Conv1d(4, 6, (3, 5)), ArgumentError, r"kernel_size must be one number or 1 .* \(3, 5\)"),
    "layer, negative": (lambda: nn.Conv2d(-4, 6, 3), ArgumentError, "in_channels must be at least 0, got -4"),
    "layer, groups": (lambda: nn.Conv2d(4, 6, 3, groups=4), ArgumentError, "groups=4 must divide in_channels=4 and out_channels=6"),
    "layer, mode": (lambda: nn.Conv2d(4, 6, 3, padding_mode="mirror"), ArgumentError, "'mirror' is not one of"),
    "layer, border of a transposed one": (lambda: nn.ConvTranspose2d(4, 6, 3, padding_mode="reflect"), ArgumentError, "padding_mode='reflect': a transposed layer"),
}  # fmt: skip
BUILTIN = {
    ArgumentError: (ValueError, RuntimeError),
    ArgumentTypeError: (TypeError,),
    ShapeError: (ValueError, RuntimeError),
    DTypeError: (TypeError, RuntimeError),
    DeviceError: (RuntimeError,),
    UnsupportedError: (NotImplementedError,),
}


@pytest.mark.parametrize("name", OPERANDS | ARGUMENTS)
def test_bad_input_is_one_sentence_of_its_own_type(name):
    run, kind, words = (OPERANDS | ARGUMENTS)[name]
    call()  # what is remembered of a good call must not let a bad one pass
    call(X, W, torch.ones(6))
    with pytest.raises(kind, match=words) as caught:
        run()
    assert isinstance(caught.value, NinefoldError)
    for builtin in BUILTIN.get(type(caught.value), ()):
        assert isinstance(caught.value, builtin)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", OPERANDS)
def test_the_same_sentence_by_the_operator_route(name):
    run, kind, words = OPERANDS[name]
    with pytest.raises(kind, match=words):
        func.grad(lambda t: run().sum() * t)(torch.ones(()))


@pytest.mark.parametrize(
    "name",
    ["channels", "kernel too large", "dtypes", "bias of one", "unshared positions", "output size"],
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_same_sentence_while_compiling(name, dynamic):
    torch._dynamo.reset()
    run, _, words = OPERANDS[name]
    with pytest.raises(Exception) as caught:
        torch.compile(run, backend="eager", dynamic=dynamic)()
    assert re.search(words, str(caught.value))


def test_numbers_of_numpy_are_whole_numbers():
    three = np.int64(3)
    assert nn.Conv1d(4, 6, three).kernel_size == (3,)
    assert nn.Conv3d(4, 6, three, stride=np.int32(2)).stride == (2, 2, 2)
    assert torch.equal(call(stride=(np.int64(2), 1)), call(stride=(2, 1)))


def test_sizes_past_32_bits_are_computed_and_not_wrapped():
    def meta(*shape):
        return torch.empty(shape, device="meta")

    n = 2**31 + 7
    assert F.conv1d(meta(1, 1, n), meta(2, 1, 3)).shape == (1, 2, n - 2)
    assert F.conv2d(meta(3, 1, 2**20, 2**21), meta(2, 1, 3, 5), stride=2).shape == (3, 2, 2**19 - 1, 2**20 - 2)
    assert F.conv_transpose1d(meta(1, 2, 5), meta(2, 1, 3), stride=2**31).shape == (1, 1, 4 * 2**31 + 3)
    assert F.locally_connected1d(meta(1, 1, n), meta(2, n - 2, 1, 3)).shape == (1, 2, n - 2)
    assert F.conv1d_weight(meta(1, 1, n), (2, 1, 3), meta(1, 2, n - 2)).shape == (2, 1, 3)
    with pytest.raises(ShapeError, match=f"{(2**33 - 1) * 2**31 + 3}.* past 2\\*\\*62"):
        F.conv_transpose1d(meta(1, 1, 2**33), meta(1, 1, 3), stride=2**31)


def test_a_failed_call_leaves_its_operands_as_they_were():
    x, w = X.clone(), W.clone()
    for run, kind, _ in OPERANDS.values():
        with pytest.raises(kind):
            run()
    assert torch.equal(x, X)
    assert torch.equal(w, W)


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n not in ("NinefoldError", "CacheWarning")])
def test_each_error_is_ours_and_a_built_in_one(name):
    kind = getattr(errors, name)
    assert issubclass(kind, NinefoldError)
    assert [base for base in kind.__mro__ if base.__module__ == "builtins" and base not in (Exception, BaseException, object)]
    assert inspect.getdoc(kind)
