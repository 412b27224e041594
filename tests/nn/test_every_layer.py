"""Every layer of `ninefold.nn`, on a tiny example: what ``docs/layers.md`` says of it holds."""

import copy
import dataclasses
import importlib.util
import inspect
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as tF
from scipy import ndimage
from torch.func import functional_call
from torch.nn.modules.lazy import LazyModuleMixin
from torch.overrides import TorchFunctionMode

from ninefold import nn, reference
from ninefold.spec import ConvSpec, PoolSpec
from ninefold.testing import elsewhere

DOCS = Path(__file__).parent.parent.parent / "docs"
SIZES = {1: (7,), 2: (6, 5), 3: (4, 3, 5)}
KERNELS = {1: (3,), 2: (3, 2), 3: (2, 1, 3)}
PERIODS = {1: (2,), 2: (2, 3), 3: (1, 2, 3)}
EDGES = ((0, 1), (1, 0), (1, 2), (2, 2), (2, 3), (0, 3))


def loaded():
    spec = importlib.util.spec_from_file_location("table_of_layers", DOCS / "layers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


table = loaded()


def image(n):
    """Values that are all different, so that no maximum has a kink nearby."""
    shape = (2, 4, *SIZES[n])
    count = int(np.prod(shape))
    return (torch.randperm(count).double().reshape(shape) - count / 3) * (3 / count)


def as_array(x):
    return x.detach().numpy()


def convolved(layer, x):
    """Eq. 9.7 to 9.13 by the definition, plus a bias that is cycled through as the kernels are."""
    which = reference.h if layer.spec.transposed else reference.c
    out = torch.from_numpy(which(layer.spec.form(tuple(x.shape[2:])), as_array(layer.weight), as_array(x)))
    if layer.bias is None:
        return out
    bias = layer.bias.detach().reshape(out.shape[1], *(layer.bias.shape[1:] or (1,) * (out.ndim - 2)))
    for axis, size in enumerate(out.shape[2:], start=1):
        bias = bias.index_select(axis, torch.arange(size) % bias.shape[axis])
    return out + bias


def pooled(reduce):
    """Every window by the definition, of a layer with ``padding``, ``dilation`` and ``ceil_mode`` or without."""

    def define(layer, x):
        n = x.ndim - 2
        how = {name: getattr(layer, name) for name in ("padding", "dilation", "ceil_mode", "padding_mode")}
        return torch.from_numpy(reference.pool(PoolSpec(KERNELS[n], layer.stride, **how), as_array(x), reduce(layer)))

    return define


def gridded(reduce):
    return lambda layer, x: torch.from_numpy(reference.pool_bins(as_array(x), grid(x.ndim - 2), layer.bins, reduce))


def grid(n):
    return (3, 2, 4)[:n]


def pyramid(layer, x):
    levels = [reference.pool_bins(as_array(x), (cells,) * (x.ndim - 2), layer.bins, MAXIMUM) for cells in layer.levels]
    return torch.from_numpy(np.concatenate([level.reshape(len(x), -1) for level in levels], 1))


def contrasted(layer, x):
    """The paper's formula with windows of SciPy's, each image by itself."""
    window = np.ones(())
    for k, s in zip(layer.kernel_size, layer.std, strict=True):
        window = np.multiply.outer(window, np.exp(-((np.arange(k) - k // 2) ** 2) / (2 * s**2)))

    def average(maps):
        inside = ndimage.correlate(np.ones(maps.shape[1:]), window, mode="constant")
        return ndimage.correlate(maps.mean(0), window, mode="constant") / inside

    out = []
    for one in as_array(x):
        v = one - average(one)
        sigma = np.sqrt(average(v**2))
        out.append(v / np.maximum(sigma, sigma.mean()))
    return torch.from_numpy(np.stack(out))


def in_turn(*names):
    """Stages one after the other, each by its definition; names of torch's modules stand for themselves."""

    def define(layer, x):
        for name in names:
            part = layer.get_submodule(name)
            x = part(x) if type(part).__module__.startswith("torch.") else convolved(part, x)
        return x

    return define


def shuffled(layer, x):
    """The paper's permutation, channel by channel."""
    size = x.shape[1] // layer.groups
    out = torch.empty_like(x)
    for j in range(layer.groups):
        for i in range(size):
            out[:, i * layer.groups + j] = x[:, j * size + i]
    return out


def unit(layer, x):
    """The figure of the paper: stage after stage, every convolution by its definition."""
    y = layer.norm1(convolved(layer.reduce, x)).relu()
    y = layer.norm2(convolved(layer.depthwise, shuffled(layer.shuffle, y)))
    y = layer.norm3(convolved(layer.expand, y))
    return torch.cat((tF.avg_pool2d(x, 3, 2, 1), y), 1).relu()


def resized(layer, x):
    nearest = x
    for axis in range(2, x.ndim):
        nearest = nearest.repeat_interleave(2, axis)
    return convolved(layer.conv, nearest)


def staged(layer, x):
    return tF.max_pool2d(convolved(layer.conv, x).relu(), 2)


def switches(n):
    pool = getattr(tF, f"max_pool{n}d")
    return pool(image(n), 2, return_indices=True, ceil_mode=True)


def unpooled(layer, z, at):
    size = tuple(2 * s for s in z.shape[2:])
    return torch.from_numpy(reference.unpool(as_array(z), at.numpy(), size))


def patches(layer):
    how = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return ConvSpec(1, 1, *how, padding_mode=layer.padding_mode)


@dataclass(frozen=True)
class Example:
    """Arguments by number of axes, and what the layer must compute of its inputs."""

    args: Callable[[int], tuple[Any, ...]]
    named: Callable[[int], dict[str, Any]]
    define: Callable[..., torch.Tensor]
    inputs: Callable[[int], Any] = image


def conv(define=convolved, **named):
    return Example(lambda n: (4, 6, KERNELS[n]), lambda n: {k: v(n) if callable(v) else v for k, v in named.items()}, define)


def window(reduce, *first, **named):
    return Example(lambda n: (*first, KERNELS[n], 2), lambda _: named, pooled(reduce))


MAXIMUM, AVERAGE = reference.reductions["max"], reference.reductions["average"]
EXAMPLES = {
    "AdaptiveAvgPool": Example(lambda n: (grid(n),), lambda _: {"bins": "disjoint"}, gridded(AVERAGE)),
    "AdaptiveMaxPool": Example(lambda n: (grid(n),), lambda _: {"bins": "disjoint"}, gridded(MAXIMUM)),
    "AvgPool": window(lambda _: AVERAGE, padding="same", dilation=2, count_include_pad=False),
    "ChannelPool": Example(
        lambda _: (2,),
        lambda _: {"reduction": "average"},
        lambda layer, x: torch.from_numpy(reference.channel_pool(as_array(x), layer.groups, AVERAGE)),
    ),
    "ChannelShuffle": Example(lambda _: (2,), lambda _: {}, shuffled),
    "ChannelTableConv": conv(table=EDGES, stride=2, padding=1, flip_kernel=True),
    "Conv": conv(stride=2, padding="same", padding_mode="symmetric", groups=2, flip_kernel=True),
    "ConvStage": Example(lambda _: (nn.Conv2d(4, 3, (3, 2)), torch.nn.ReLU(), nn.MaxPool2d(2)), lambda _: {}, staged),
    "ConvTranspose": conv(stride=2, padding=1, output_padding=1, groups=2, flip_kernel=True),
    "DepthwiseSeparableConv": Example(
        lambda n: (4, 3, KERNELS[n]),
        lambda _: {"stride": 2, "padding": "same", "between": torch.nn.ReLU()},
        in_turn("depthwise", "between", "pointwise"),
    ),
    "Fold": Example(
        lambda _: (SIZES[2], KERNELS[2], 1, "same", (1, 2)),
        lambda _: {"padding_mode": "symmetric"},
        lambda layer, z: torch.from_numpy(reference.fold(patches(layer).form(SIZES[2]), as_array(z))),
        lambda _: (torch.randn(2, 4 * 6, 6 * 3, dtype=torch.double),),
    ),
    "FractionalMaxPool": Example(
        lambda n: ((2,) * n, None, 0.6, False, torch.full((2, 4, n), 0.3)),
        lambda _: {},
        lambda layer, x: torch.from_numpy(
            reference.pool_fractions(
                as_array(x),
                layer.kernel_size,
                tuple(int(size * 0.6) for size in x.shape[2:]),
                as_array(layer._random_samples),
                MAXIMUM,
            )
        ),
    ),
    "GaussianPool": window(lambda layer: reference.reductions["gaussian"](layer.sigma), padding="same", dilation=2, sigma=0.7),
    "LPPool": window(lambda layer: reference.reductions["norm"](layer.norm_type), 3, padding="same", convention="norm"),
    "LazyConv": Example(lambda n: (6, KERNELS[n], 2, "same", 1, 2), lambda _: {"flip_kernel": True}, convolved),
    "LazyConvTranspose": Example(lambda n: (6, KERNELS[n], 2, 1, 1, 2), lambda _: {"flip_kernel": True}, convolved),
    "LocalContrastNorm": Example(lambda n: ((3, 5, 3)[:n],), lambda n: {"std": (0.8, 1.7, 1.1)[:n]}, contrasted),
    "LocallyConnected": conv(input_size=lambda n: SIZES[n], stride=2, padding=1, groups=2),
    "LocallyConnectedTranspose": conv(input_size=lambda n: SIZES[n], stride=2, groups=2),
    "LogSumExpPool": window(lambda layer: reference.reductions["log_sum_exp"](layer.r), padding="same", r=1.5),
    "MLPConv": Example(
        lambda n: (4, (3, 5), KERNELS[n]),
        lambda _: {"padding": "same"},
        in_turn(*(f"layers.{k}{i}" for i in "12" for k in ("conv", "act"))),
    ),
    "MaxOut": Example(
        lambda _: (2,),
        lambda _: {},
        lambda layer, x: torch.from_numpy(reference.channel_pool(as_array(x), x.shape[1] // 2, MAXIMUM)),
    ),
    "MaxPool": window(lambda _: MAXIMUM, padding="same", dilation=2, padding_mode="symmetric"),
    "MaxUnpool": Example(lambda _: (2,), lambda _: {}, unpooled, switches),
    "PointwiseGroupConv": Example(lambda _: (4, 6), lambda _: {"groups": 2, "stride": 2}, convolved),
    "ResizeConv": conv(resized, scale_factor=2),
    "ShuffleUnit": Example(lambda _: (4, 16, 2), lambda _: {"stride": 2}, unit),
    "SpatialPyramidPool": Example(lambda _: ([1, 3],), lambda _: {"bins": "disjoint"}, pyramid),
    "SpatiallySeparableConv": conv(
        lambda layer, x: convolved(layer.to_dense(), x), rank=2, stride=2, padding="same", padding_mode="reflect"
    ),
    "TiledConv": conv(period=lambda n: PERIODS[n], stride=2, padding=1, groups=2),
    "TiledConvTranspose": conv(period=lambda n: PERIODS[n], stride=2, groups=2),
    "Unfold": Example(
        lambda _: (KERNELS[2], (1, 2), "same", (2, 1)),
        lambda _: {"padding_mode": "reflect"},
        lambda layer, x: torch.from_numpy(reference.unfold(patches(layer).form(tuple(x.shape[2:])), as_array(x))),
    ),
    "TopLeftUnpool": Example(
        lambda n: (KERNELS[n],),
        lambda _: {},
        lambda layer, x: torch.from_numpy(reference.unpool_top_left(as_array(x), layer.kernel_size)),
    ),
}
NAMES = [name for name in nn.__all__ if issubclass(getattr(nn, name), torch.nn.Module)]
FLAT = [name for name in NAMES if not name.endswith(("1d", "3d"))]


def family(name):
    return re.sub(r"[123]d$", "", name)


def axes(name):
    return int(name[-2]) if name[-1] == "d" and name[-2].isdigit() else 2


def make(name):
    """Return the layer of an example and its inputs, in double precision; running statistics are none of the first values."""
    torch.manual_seed(NAMES.index(name))
    example, n = EXAMPLES[family(name)], axes(name)
    layer = getattr(nn, name)(*example.args(n), **example.named(n)).double().eval()
    given = example.inputs(n)
    given = given if isinstance(given, tuple) else (given,)
    if isinstance(layer, LazyModuleMixin):
        layer(*given)  # from now on it is what it becomes
    for key, buffer in layer.named_buffers():
        if buffer.is_floating_point() and "running" in key:
            buffer.uniform_(0.5, 2)
    return layer, given


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_every_layer_has_an_example_and_a_row():
    assert {family(name) for name in NAMES} == set(EXAMPLES) == {row.name for row in table.ROWS}
    assert set(nn.__all__) - set(NAMES) == {"Truncation"}, "what is no layer has no row"


def test_the_page_is_what_the_rows_say():
    page = table.PAGE.read_text()
    assert page == table.text(), "the page is old: run python docs/layers.py"
    listed = {
        name + (f"{n}d" if n.isdigit() else "")
        for name, axes in re.findall(r"^\| `(\w+)`[^|]*\| ([^|]*) \|", page, re.MULTILINE)
        for n in axes.split(", ")
    }
    assert listed == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_is_its_definition_batched_or_not_or_empty(name):
    layer, inputs = make(name)
    out = layer(*inputs)
    assert out.dtype == torch.double
    close(out, EXAMPLES[family(name)].define(layer, *inputs))
    if table.row(family(name)).unbatched:
        close(layer(*(x[1] for x in inputs)), out[1])
    leaves = [x[:0].clone().requires_grad_(x.is_floating_point()) for x in inputs]
    empty = layer(*leaves)
    assert empty.shape == (0, *out.shape[1:])
    empty.sum().backward()
    assert all(x.grad.shape == x.shape for x in leaves if x.requires_grad)
    assert all(p.grad is None or not p.grad.any() for p in layer.parameters())


def as_function(layer, inputs):
    """Return the layer as a function of all that can be differentiated, and that."""
    names = [name for name, _ in layer.named_parameters()]
    fixed = [None if x.is_floating_point() else x for x in inputs]
    free = [x.clone().requires_grad_() for x in inputs if x.is_floating_point()]
    count = len(free)

    def function(*operands):
        data = iter(operands[:count])
        given = tuple(next(data) if x is None else x for x in fixed)
        return functional_call(layer, dict(zip(names, operands[count:], strict=True)), given)

    return function, (*free, *(p.detach().clone().requires_grad_() for p in layer.parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_first_and_second_gradients(name):
    function, operands = as_function(*make(name))
    assert torch.autograd.gradcheck(function, operands, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, operands, fast_mode=True)


class _Clamped(TorchFunctionMode):
    """Notes what clamps something that has a gradient."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        named = getattr(func, "__name__", "")
        if any(word in named for word in ("clamp", "clip", "hardtanh", "relu6")) and args[0].requires_grad:
            self.found.append(named)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_hangs_on_what_it_is_at_the_limit_of_a_clamp(name):
    """It is 1 up to torch 2.13, and 0 from 2.14 on."""
    function, operands = as_function(*make(name))
    with _Clamped() as clamped:
        assert function(*operands).requires_grad
    assert clamped.found == []


@pytest.mark.parametrize("name", [name for name in FLAT if table.row(family(name)).order == "any"])
def test_third_gradients_where_a_gradient_is_a_map_again(name):
    function, operands = as_function(*make(name))

    def second(*operands):
        first = torch.autograd.grad(function(*operands).pow(3).sum(), operands, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), operands, create_graph=True)

    assert torch.autograd.gradcheck(second, operands, fast_mode=True)


@pytest.mark.parametrize("name", FLAT)
def test_compiled_whole_with_gradients(name):
    torch._dynamo.reset()
    layer, inputs = make(name)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found = []
    for run in (layer, compiled):
        leaves = tuple(x.clone().requires_grad_(x.is_floating_point()) for x in inputs)
        out = run(*leaves)
        wanted = [x for x in (*leaves, *layer.parameters()) if x.requires_grad]
        found.append((out.detach(), torch.autograd.grad(out.square().sum(), wanted)))
    close(found[1], found[0])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_each_example_by_torch_func(name):
    layer, inputs = make(name)
    own = {key: p.detach() for key, p in layer.named_parameters()}

    def loss(parameters, *given):
        return functional_call(layer, parameters, given).square().sum()

    batches = tuple(torch.stack((x, x.flip(0), x)) for x in inputs)
    each = torch.func.vmap(torch.func.grad(loss, (0, 1)), (None, *(0,) * len(inputs)))(own, *batches)
    for k in range(2):
        leaves = tuple(x[k].clone().requires_grad_(x.is_floating_point()) for x in batches)
        parameters = {key: p.clone().requires_grad_() for key, p in own.items()}
        wanted = torch.autograd.grad(loss(parameters, *leaves), (*parameters.values(), leaves[0]))
        close([each[0][key][k] for key in own] + [each[1][k]], list(wanted))
    close(torch.func.vmap(layer)(*batches)[2], layer(*inputs))


def test_what_the_notes_say_is_refused():
    layer, (x,) = make("ShuffleUnit")
    with pytest.raises(RuntimeError, match="running_mean"):
        torch.func.vmap(layer.train())(torch.stack((x, x)))
    with pytest.raises(ValueError, match="expected 4D input"):
        layer(x[0])

    layer, (x,) = make("ConvTranspose2d")
    weight = layer.weight.detach()

    def loss(w, x):
        return functional_call(layer, {"weight": w}, x).pow(3).sum()

    def derived(inner):
        return lambda *at: sum(g.pow(2).sum() for g in torch.func.grad(inner, (0, 1))(*at))

    with pytest.raises(RuntimeError, match="output_padding is not supported"):
        torch.func.grad(derived(derived(loss)))(weight, x)


@pytest.mark.parametrize("name", NAMES)
def test_copies_states_and_text(name):
    layer, inputs = make(name)
    want = layer(*inputs)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(*inputs), want)
        assert repr(twin) == repr(layer)
    n, example = axes(name), EXAMPLES[family(name)]
    other = getattr(nn, name)(*example.args(n), **example.named(n)).double().eval()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(*inputs), want)
    assert repr(other) == repr(layer)
    hidden = [key for key in example.named(n) if key not in repr(layer)]
    assert not hidden, f"{layer} does not show {hidden}"


@pytest.mark.parametrize("name", FLAT)
def test_the_memory_format_of_the_input_is_kept(name):
    layer, inputs = make(name)
    want = layer(*inputs)
    out = layer(*(x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs))
    close(out, want)
    if table.row(family(name)).formats == "kept":
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert not want.is_contiguous(memory_format=torch.channels_last)
    else:
        assert out.ndim == {"a vector": 2, "columns": 3, "an image": 4}[table.row(family(name)).formats]


def run_and_derived(name, dtype):
    """Return what a new layer on the CPU gives, and its gradients."""
    torch.manual_seed(0)
    example, n = EXAMPLES[family(name)], axes(name)
    named = dict(example.named(n))
    own = [key for key in ("device", "dtype") if key in inspect.signature(getattr(nn, name)).parameters]
    layer = getattr(nn, name)(*example.args(n), **named | {key: {"device": "cpu", "dtype": dtype}[key] for key in own})
    given = example.inputs(n)
    given = given if isinstance(given, tuple) else (given,)
    leaves = [x.to(dtype).requires_grad_() if x.is_floating_point() else x for x in given]
    out = layer(*leaves)
    return [out, *torch.autograd.grad(out.square().sum(), [*leaves[:1], *layer.parameters()])]


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize(
    "name", [name for name in NAMES if family(name) not in ("ConvStage", "FractionalMaxPool")]
)  # the caller makes a tensor
def test_what_tensors_are_made_with_by_default_changes_nothing(name, dtype, monkeypatch):
    inputs = EXAMPLES[family(name)].inputs(axes(name))
    monkeypatch.setitem(EXAMPLES, family(name), dataclasses.replace(EXAMPLES[family(name)], inputs=lambda _: inputs))
    want = run_and_derived(name, dtype)
    with elsewhere(dtype=torch.bfloat16):
        got = run_and_derived(name, dtype)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
