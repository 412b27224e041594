"""The edges of what torch takes, side by side: nothing in a batch, in the channels, along an axis; and what it refuses."""

import itertools
import re
import warnings

import pytest
import torch
import torch.nn.functional as tF

import ninefold.functional as F
from ninefold import errors, nn
from ninefold.errors import ArgumentError, DTypeError, ShapeError

SIZES = {1: (4,), 2: (4, 3), 3: (4, 3, 2)}


def shapes(n):
    """Batched and not, with nothing in each place in turn."""
    sizes = [SIZES[n], *(tuple(0 if i == k else s for i, s in enumerate(SIZES[n])) for k in range(n))]
    yield from ((batch, channels, *size) for batch in (0, 2) for channels in (0, 3) for size in sizes)
    yield from ((channels, *size) for channels in (0, 3) for size in sizes)
    yield from (SIZES[n][1:], (2, 3, 1, *SIZES[n]))  # no image at all


def outcome(call):
    """Return the shapes of what is given and of the gradient, or the error."""
    try:
        leaves, out = call()
    except Exception as error:  # whatever torch raises
        return error
    first = out[0] if isinstance(out, tuple) else out
    made = [tuple(x.shape) for x in (out if isinstance(out, tuple) else (out,))]
    try:
        if first.requires_grad:
            first.sum().real.backward()
    except RuntimeError:  # torch's kernels do not go back from nothing, though they go there
        return made, None
    return made, [None if x.grad is None else (tuple(x.grad.shape), x.grad.to(torch.complex128).sum().item()) for x in leaves]


def alike(name, make, *args, **named):
    """Both give the same shapes and gradients, or both refuse, ours by a class that is torch's, too."""
    found = []
    for where in (tF, F):

        def call(where=where):
            leaves = [x.clone().requires_grad_(x.is_floating_point() or x.is_complex()) for x in make()]
            return leaves, getattr(where, name)(*leaves, *args, **named)

        found.append(outcome(call))
    theirs, ours = found
    if not isinstance(theirs, Exception):
        same = ours[:1] == theirs[:1] if theirs[1] is None and not isinstance(ours, Exception) else ours == theirs
        assert same, f"{name}, {[tuple(x.shape) for x in make()]}, {args}, {named}: {ours} is not {theirs}"
        return
    what = f"{name}, {[tuple(x.shape) for x in make()]}, {args}, {named}: {type(theirs).__name__}: {theirs}"
    assert isinstance(ours, errors.NinefoldError), f"{what}; ours: {ours!r}"
    assert isinstance(ours, type(theirs)) or isinstance(theirs, IndexError), f"{what}; ours: {ours!r}"


WINDOWS = (
    ((2,), {}),
    ((1,), {}),
    ((5,), {}),
    ((2, 2, 1), {}),
    ((2, 1, 1), {"ceil_mode": True}),
    ((3, 2, 2), {}),  # pads past half a window
    ((3, 1, 3), {}),
    ((2, 0), {}),
    ((2, 1, -1), {}),
)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_poolings_over_windows(n):
    for shape, (args, named) in itertools.product(shapes(n), WINDOWS):

        def make(shape=shape):
            return [torch.ones(shape)]

        for indices in (False, True):
            alike(f"max_pool{n}d", make, *args, **named, return_indices=indices)
        alike(f"avg_pool{n}d", make, *args, **named)
    alike("max_pool1d", lambda: [torch.ones(0, 1, 49)], 3, 1, 3, 2, return_indices=True)
    for shape in shapes(n):
        alike(f"lp_pool{n}d", lambda shape=shape: [torch.ones(shape)], 2, 2)


def test_pads_past_half_a_window_are_pairs_or_a_policy():
    x = torch.randn(2, 3, 9)
    for bad in ({"padding": 2}, {"padding": (2,)}, {"padding": 2, "dilation": 2}):
        with pytest.raises(
            ArgumentError, match=r"padding=2 along axis 0 must be at most 1, half of the window of 3, .* \(\(2, 2\),\)"
        ):
            F.max_pool1d(x, 3, 1, **bad)
    assert torch.equal(F.max_pool1d(x, 3, 1, ((2, 2),)), F.max_pool1d(x, 3, 1, "full"))
    with pytest.raises(ArgumentError, match="at most 2, half of the window of 4"):
        nn.AvgPool2d((4, 9), padding=3)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_poolings_to_grids(n):
    for shape, cells in itertools.product(shapes(n), (0, 1, 2, 5)):
        if cells == 1 and len(shape) == n + 3:
            continue  # torch takes the mean of whatever it is given

        def make(shape=shape):
            return [torch.ones(shape)]

        size = cells if n == 1 else (cells,) * n
        alike(f"adaptive_avg_pool{n}d", make, size)
        for indices in (False, True):
            alike(f"adaptive_max_pool{n}d", make, size, return_indices=indices)


def test_grids_of_no_cells_by_every_route():
    x = torch.randn(2, 3, 4, 5, dtype=torch.double)
    for bins in ("overlapping", "disjoint"):
        assert F.adaptive_avg_pool2d(x, (0, 2), bins=bins).shape == (2, 3, 0, 2)
        assert F.adaptive_avg_pool2d(x + 1j, (0, 2), bins=bins).shape == (2, 3, 0, 2)
        assert [y.shape for y in F.adaptive_max_pool2d(x, (2, 0), True, bins=bins)] == [(2, 3, 2, 0)] * 2
    assert F.adaptive_avg_pool2d(x[:, :, :0], 1).isnan().all()
    with pytest.raises(ShapeError, match="needs at least 2 positions along axis 0, but the input has 0"):
        F.adaptive_avg_pool2d(x[:, :, :0], 2, bins="disjoint")


@pytest.mark.parametrize("n", [1, 2, 3])
def test_unpooling(n):
    for shape, kernel in itertools.product(shapes(n), (1, 2)):
        if len(shape) in (n + 1, n + 2):
            alike(f"max_unpool{n}d", lambda shape=shape: [torch.ones(shape), torch.zeros(shape, dtype=torch.int64)], kernel)


@pytest.mark.parametrize("n", [2, 3])
def test_fractional_pooling(n):
    for shape in shapes(n):
        if 0 in shape[-n:] or len(shape) == n + 3:  # torch looks at sizes of 0 as at any
            continue
        for size in (0, 1, 9):
            alike(f"fractional_max_pool{n}d", lambda shape=shape: [torch.ones(shape)], 1 if n == 3 else 2, (size,) * n)


CONVOLUTIONS = (
    ((2, 0), (3, 0), 3, 1),
    ((2, 0), (3, 0), 3, 3),
    ((0, 0), (3, 0), 3, 1),
    ((0,), (3, 0), 3, 1),
    ((2, 0), (3, 0), 3, 2),  # groups that do not divide
    ((2, 4), (0, 4), 0, 1),
    ((2, 4), (0, 2), 0, 2),
    ((2, 0), (0, 0), 0, 1),
    ((0, 4), (6, 2), 6, 2),
    ((2, 5), (6, 2), 6, 2),
)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_convolutions_of_nothing(n, dtype):
    """Of no input channels torch's convolution has no output channels either, whatever the weight and the bias say."""
    for (head, weight, bias, groups), named in itertools.product(CONVOLUTIONS, ({}, {"stride": 2, "padding": 1, "dilation": 1})):

        def make(head=head, weight=weight, bias=bias):
            ends = (*head, *(7, 6, 5)[:n]), (*weight, *(3, 2, 2)[:n]), (bias,)
            return [torch.ones(shape, dtype=dtype) for shape in ends]

        alike(f"conv{n}d", make, **named, groups=groups)
    for head, weight, bias, groups in (
        ((2, 0), (0, 3), 3, 1),
        ((2, 0), (0, 1), 3, 3),
        ((2, 0), (0, 0), 0, 1),
        ((0, 4), (4, 3), 6, 2),
    ):

        def make(head=head, weight=weight, bias=bias):
            ends = (*head, *(7, 6, 5)[:n]), (*weight, *(3, 2, 2)[:n]), (bias,)
            return [torch.ones(shape, dtype=dtype) for shape in ends]

        alike(f"conv_transpose{n}d", make, groups=groups)


@pytest.mark.parametrize("pad", [0, 1, 2])
def test_time_first(pad):
    x, w, b = torch.randn(9, 2, 4), torch.randn(3, 4, 5), torch.randn(5)
    found = []
    for where in (tF, F):
        leaves = [t.clone().requires_grad_() for t in (x, w, b)]
        out = where.conv_tbc(*leaves, pad)
        found.append((out, torch.autograd.grad(out.square().sum(), leaves)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(ShapeError, match=r"the input has shape \(9, 2\); it must be \(time, batch, channels\)"):
        F.conv_tbc(x[..., 0], w, b)


def test_nothing_of_torch_around_convolution_and_pooling_is_missing():
    about = re.compile(r"conv|pool|fold|pad$|shuffle")
    apart = {"pixel_shuffle", "pixel_unshuffle", "native_channel_shuffle"}  # about the space, which no window sees
    for module, ours in ((tF, F), (torch.nn, nn)):
        names = {name for name in dir(module) if about.search(name.lower()) and not name.startswith("_")}
        names = {name for name in names if callable(getattr(module, name)) and not name.endswith("_with_indices")}
        names -= {name for name in names if re.match(r"(Zero|Constant|Reflection|Replication|Circular)Pad|Pixel", name)}  # F.pad
        assert names - apart <= set(ours.__all__)


@pytest.mark.parametrize(
    "named", [{}, {"padding": "same"}, {"padding": 1, "padding_mode": "circular"}, {"groups": 3, "stride": 2}, {"bias": False}]
)
def test_layers_of_no_input_channels(named):
    x = torch.zeros(2, 0, 7, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that there is nothing to draw
        theirs, ours = (where.Conv2d(0, 3, (3, 2), **named) for where in (torch.nn, nn))
        lone = nn.Conv2d(0, 3, (3, 2), **named).requires_grad_(requires_grad=False)
    want = theirs(x)
    assert ours(x).shape == want.shape
    assert ours(x[0]).shape == theirs(x[0]).shape
    for route in (
        torch.compile(ours, fullgraph=True, backend="aot_eager"),
        torch.export.export(torch.nn.Sequential(ours), (x,)).module(),
        torch.fx.symbolic_trace(torch.nn.Sequential(ours)),
        torch.jit.trace(ours, x),
    ):
        torch._dynamo.reset()
        assert route(x).shape == want.shape
    assert torch.func.vmap(ours)(x[None].expand(4, -1, -1, -1, -1)).shape == (4, *want.shape)
    with torch.no_grad():
        lone.freeze()
        assert lone(x).shape == want.shape
    assert lone.to(torch.complex64)(x.to(torch.complex64)).shape == want.shape
    assert [tuple(p.shape) for p in ours.parameters()] == [tuple(p.shape) for p in theirs.parameters()]


WRONG = {
    "stride of 0": lambda f: f.conv2d(torch.ones(1, 2, 5, 4), torch.ones(3, 2, 2, 2), stride=0),
    "dilation of 0": lambda f: f.conv2d(torch.ones(1, 2, 5, 4), torch.ones(3, 2, 2, 2), dilation=0),
    "groups": lambda f: f.conv2d(torch.ones(1, 3, 5, 4), torch.ones(3, 2, 2, 2), groups=2),
    "groups of 0": lambda f: f.conv2d(torch.ones(1, 2, 5, 4), torch.ones(3, 2, 2, 2), groups=0),
    "channels": lambda f: f.conv2d(torch.ones(1, 3, 5, 4), torch.ones(3, 2, 2, 2)),
    "kernel": lambda f: f.conv2d(torch.ones(1, 2, 5, 4), torch.ones(3, 2, 6, 2)),
    "three strides": lambda f: f.conv2d(torch.ones(1, 2, 5, 4), torch.ones(3, 2, 2, 2), stride=(1, 2, 3)),
    "policy": lambda f: f.conv2d(torch.ones(1, 2, 5, 4), torch.ones(3, 2, 2, 2), padding="sam"),
    "types": lambda f: f.conv2d(torch.ones(1, 2, 5, 4), torch.ones(3, 2, 2, 2).double()),
    "rank": lambda f: f.conv2d(torch.ones(2, 5), torch.ones(3, 2, 2, 2)),
    "bias": lambda f: f.conv2d(torch.ones(1, 2, 5, 4), torch.ones(3, 2, 2, 2), torch.ones(4)),
    "output padding": lambda f: f.conv_transpose2d(torch.ones(1, 2, 5, 4), torch.ones(2, 3, 2, 2), stride=2, output_padding=2),
    "window of 0": lambda f: f.max_pool2d(torch.ones(1, 2, 5, 4), 0),
    "window too large": lambda f: f.avg_pool2d(torch.ones(1, 2, 5, 4), 6),
    "divisor": lambda f: f.avg_pool2d(torch.ones(1, 2, 5, 4), 2, divisor_override=0),
    "output size": lambda f: f.adaptive_avg_pool2d(torch.ones(1, 2, 5, 4), (-1, 2)),
    "indices": lambda f: f.max_unpool2d(torch.ones(1, 2, 2, 2), torch.full((1, 2, 2, 2), 99), 2),
    "shuffled": lambda f: (
        torch.channel_shuffle(torch.ones(1, 3, 2, 2), 2) if f is tF else f.channel_shuffle(torch.ones(1, 3, 2, 2), 2)
    ),
    "mode": lambda f: f.pad(torch.ones(1, 2, 5, 4), (1, 1), "odd"),
    "number as text": lambda f: f.conv2d(torch.ones(1, 2, 5, 4), torch.ones(3, 2, 2, 2), stride="2"),
    "number with a point": lambda f: f.conv2d(torch.ones(1, 2, 5, 4), torch.ones(3, 2, 2, 2), stride=2.0),
    "no tensor": lambda f: f.max_pool2d([[1.0]], 2),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_class_of_an_error_is_torchs(name):
    with pytest.raises(Exception) as theirs:
        WRONG[name](tF)
    with pytest.raises(errors.NinefoldError) as ours:
        WRONG[name](F)
    known = (NotImplementedError, IndexError)  # a mode of torch's that it does not know is not implemented
    assert isinstance(ours.value, type(theirs.value)) or isinstance(theirs.value, known), f"{theirs.value!r}"


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_border_of_a_transposed_layer_is_refused_by_torchs_class(n, lazy):
    name, ends = (f"LazyConvTranspose{n}d", (4, 3)) if lazy else (f"ConvTranspose{n}d", (2, 4, 3))
    for where in (torch.nn, nn):
        with pytest.raises(ValueError):
            getattr(where, name)(*ends, padding_mode="reflect")


def test_errors_about_arguments_are_caught_as_torchs_are():
    for kind in (ArgumentError, ShapeError, DTypeError):
        assert issubclass(kind, RuntimeError)
    assert issubclass(ArgumentError, ValueError)
    assert issubclass(errors.ArgumentTypeError, TypeError), "what has the wrong type is a TypeError in torch, too"
