"""Tables of migration: each row's two calls give the same, by the peer itself or by the definition in its documentation."""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as T
from scipy import signal

DOCS = Path(__file__).parents[2] / "docs"
ROW = re.compile(r"^\| `([^|]+)` \| `([^|]+)` \|(?: (\([^|]*\)) \|)?$", re.MULTILINE)
spec = importlib.util.spec_from_file_location("migration_pictures", DOCS / "pictures.py")
pictures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pictures)


def page(name):
    """The rows of a page, and the names that its blocks make."""
    file = DOCS / "migration" / f"{name}.md"
    names = {}
    torch.manual_seed(0)
    for kind, code, _ in pictures.blocks(file):
        if kind == "python":
            exec(compile(code, str(file), "exec"), names)
    return ROW.findall(file.read_text()), names


def same(ours, theirs):
    ours, theirs = (torch.as_tensor(value).double() for value in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)  # sums of a thousand float32 numbers of size 1


def run(layer, x):
    torch.manual_seed(1)  # of parameters that are drawn at the first call
    return layer(x)


def test_torch():
    rows, names = page("torch")
    assert len(rows) > 30
    for theirs, ours, _ in rows:
        torch.manual_seed(0)
        peer = eval(theirs, names)
        torch.manual_seed(0)
        mine = eval(ours, names)
        if isinstance(peer, torch.nn.Module):
            assert not type(peer).__module__.startswith("ninefold")
            assert type(mine).__module__.startswith("ninefold")
            peer, mine = (run(layer, names["x"]) for layer in (peer, mine))
        same(mine, peer)


def test_scipy():
    rows, names = page("scipy")
    assert len(rows) > 25
    for theirs, ours, _ in rows:
        same(eval(ours, names), eval(theirs, names))


def cut(full, size, shape, kernel):
    """The part of a full convolution that MATLAB returns."""
    if shape == "full":
        return full
    first = [-(-(k - 1) // 2) for k in kernel] if shape == "same" else [k - 1 for k in kernel]
    count = size if shape == "same" else [n - k + 1 for n, k in zip(size, kernel, strict=True)]
    return full[tuple(slice(i, i + n) for i, n in zip(first, count, strict=True))]


def conv2(A, B, shape="full"):
    return cut(signal.convolve2d(A, B), A.shape, shape, B.shape)


def imfilter(A, h, option=0):
    if option == "conv":
        return imfilter(A, h[::-1, ::-1])
    sides = [((k - 1) // 2, k // 2) for k in h.shape]
    modes = {"symmetric": "symmetric", "replicate": "edge", "circular": "wrap"}
    return signal.correlate2d(np.pad(A, sides, modes[option]) if option else np.pad(A, sides), h, "valid")


MATLAB = {
    "conv": lambda u, v, shape="full": cut(np.convolve(u, v), u.shape, shape, v.shape),
    "conv2": conv2,
    "filter2": lambda h, A, shape="same": conv2(A, h[::-1, ::-1], shape),
    "filter": lambda b, _, u: np.convolve(u, b)[: len(u)],
    "imfilter": imfilter,
    "padarray": lambda A, sizes, mode: np.pad(A, [(n, n) for n in sizes], {"replicate": "edge"}.get(mode, mode)),
    "convmtx": lambda v, n: np.array([np.convolve(v, e) for e in np.eye(n)]).T,
    "deconv": lambda y, v: np.polydiv(y, v)[0],
}


def test_the_definitions_of_matlab_give_the_values_of_its_documentation():
    assert MATLAB["conv"](np.array([1, 0, 1]), np.array([2, 7])).tolist() == [2, 7, 2, 7]
    assert MATLAB["conv"](np.array([-1, 2, 3, -2, 0, 1, 2]), np.array([2, 4, -1, 1]), "same").tolist() == [15, 5, -9, 7, 6, 7, -1]
    assert MATLAB["deconv"](np.array([2, 7, 4, 9, 7, 6]), np.array([1, 1, 1])).tolist() == [2, 5, -3, 7]


def test_matlab():
    rows, names = page("matlab")
    assert len(rows) > 15
    for theirs, ours, _ in rows:
        same(eval(ours, names), eval(theirs, names | MATLAB))


def sides(n, k, stride, dilation, padding):
    """What TensorFlow puts at either side of an axis: ``SAME`` has ceil(n / stride) outputs, the odd zero at the end."""
    extent = (k - 1) * dilation + 1
    total = max((-(-n // stride) - 1) * stride + extent - n, 0) if padding == "SAME" else 0
    return total // 2, total - total // 2


def padded(X, kernel, stride, dilation, padding, value=0.0):
    """An image or a sequence with its border, channels first."""
    if not isinstance(padding, str):
        both = [tuple(pair) for pair in padding[1:-1]]
    else:
        both = [sides(n, k, stride, dilation, padding) for n, k in zip(X.shape[1:-1], kernel, strict=True)]
    return T.pad(X.movedim(-1, 1), [n for pair in both[::-1] for n in pair], value=value)


def conv2d(X, f, strides, padding, dilations=1, groups=1):
    X = padded(X, f.shape[:2], strides, dilations, padding)
    return T.conv2d(X, f.permute(3, 2, 0, 1), stride=strides, dilation=dilations, groups=groups)


def depthwise_conv2d(X, d, strides, padding):
    parts = [conv2d(X[..., i : i + 1], d[:, :, i : i + 1], strides[1], padding) for i in range(X.shape[-1])]
    return torch.cat(parts, 1)


def conv2d_transpose(Y, f, shape, strides, padding):
    """The gradient of the convolution to its input, as TensorFlow defines it."""
    X = torch.zeros(shape, dtype=Y.dtype, requires_grad=True)
    conv2d(X, f, strides, padding).backward(Y.permute(0, 3, 1, 2))
    return X.grad.permute(0, 3, 1, 2)


def pooled(X, k, stride, padding, summed):
    values, ones = (padded(a, (k, k), stride, 1, padding) for a in (X, torch.ones_like(X)))
    if summed:
        return T.avg_pool2d(values, k, stride) / T.avg_pool2d(ones, k, stride)
    return T.max_pool2d(padded(X, (k, k), stride, 1, padding, value=-torch.inf), k, stride)


def numpy_pad(X, pads, mode):
    return torch.from_numpy(np.pad(X.numpy(), pads, mode.lower())).permute(0, 3, 1, 2)


TF = SimpleNamespace(
    pad=numpy_pad,
    nn=SimpleNamespace(
        conv1d=lambda S, f, stride, padding: T.conv1d(
            padded(S, f.shape[:1], stride, 1, padding), f.permute(2, 1, 0), stride=stride
        ),
        conv2d=conv2d,
        atrous_conv2d=lambda X, f, rate, padding: conv2d(X, f, 1, padding, rate),
        depthwise_conv2d=depthwise_conv2d,
        separable_conv2d=lambda X, d, p, strides, padding: T.conv2d(
            depthwise_conv2d(X, d, strides, padding), p.permute(3, 2, 0, 1)
        ),
        conv2d_transpose=conv2d_transpose,
        max_pool2d=lambda X, k, stride, padding: pooled(X, k, stride, padding, summed=False),
        avg_pool2d=lambda X, k, stride, padding: pooled(X, k, stride, padding, summed=True),
    ),
)


def test_tensorflow():
    rows, names = page("tensorflow")
    assert len(rows) > 12
    for theirs, ours, _ in rows:
        same(eval(ours, names), eval(theirs, names | {"tf": TF}))


def test_keras():
    rows, names = page("keras")
    assert len(rows) > 12
    for theirs, ours, shape in rows:
        assert tuple(eval(ours, names).shape) == eval(shape), theirs
    pictures.run(DOCS / "migration" / "keras.md")


@pytest.mark.parametrize("name", ["torch", "scipy", "matlab", "tensorflow", "keras"])
def test_every_row_of_two_calls_is_compared(name):
    text = (DOCS / "migration" / f"{name}.md").read_text()
    lines = [line for line in text.splitlines() if re.match(r"\| `.*\(.*` \| `", line)]
    assert len(ROW.findall(text)) == len(lines)
