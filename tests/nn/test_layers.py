"""Layers are torch's own, in type, parameters, text and habits, and respect what is changed afterwards."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as tF
from torch.nn.utils import fuse_conv_bn_eval, parametrizations, parametrize, prune

import ninefold.functional as F
from ninefold import nn
from ninefold.ops import call

FORWARD = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
SIZES = (9, 8, 7)
SETTINGS = [
    {"stride": 2, "padding": 1},
    {"padding": "same", "dilation": 2, "bias": False},
    {"padding": "valid", "groups": 2},
    {"padding": 2, "padding_mode": "reflect"},
    {"padding": 1, "padding_mode": "replicate", "stride": 3},
    {"padding": 3, "padding_mode": "circular", "groups": 2},
]
TRANSPOSED_SETTINGS = [
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": 3, "dilation": 2, "groups": 2, "bias": False},
    {"padding": 2},
]


def twins(kind, n, settings, kernel=3):
    theirs = getattr(torch.nn, kind[n].__name__)(4, 6, kernel, **settings, dtype=torch.double)
    ours = kind[n](4, 6, kernel, **settings, dtype=torch.double)
    return theirs, ours


def same(got, want):
    assert got.shape == want.shape
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("kind", "settings"), [(FORWARD, s) for s in SETTINGS] + [(TRANSPOSED, s) for s in TRANSPOSED_SETTINGS])
def test_a_layer_is_torchs_layer(kind, settings, n):
    theirs, ours = twins(kind, n, settings)
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.load_state_dict(theirs.state_dict()) == theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, *SIZES[:n], dtype=torch.double)
    same(ours(x), theirs(x))
    same(ours(x[1]), theirs(x[1]))
    assert ours.spec.bias == settings.get("bias", True)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_initial_parameters_are_torchs(n):
    for kind, name in ((FORWARD, "Conv"), (TRANSPOSED, "ConvTranspose")):
        torch.manual_seed(5)
        theirs = getattr(torch.nn, f"{name}{n}d")(4, 6, 3, groups=2)
        torch.manual_seed(5)
        ours = kind[n](4, 6, 3, groups=2)
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_output_size_of_a_transposed_layer():
    theirs, ours = twins(TRANSPOSED, 2, {"stride": 3, "padding": 1})
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 4, 5, 7, dtype=torch.double)
    for size in ([13, 19], [15, 20], torch.Size([2, 6, 14, 21])):
        same(ours(x, size), theirs(x, output_size=size))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_copies_and_pickles_keep_everything(n):
    layer = FORWARD[n](4, 6, 3, 2, "causal", padding_mode="symmetric", flip_kernel=True)
    x = torch.randn(1, 4, *SIZES[:n])
    want = layer(x)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    copies = [
        copy.copy(layer),
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(file, weights_only=False),
    ]
    for twin in copies:
        assert type(twin) is type(layer)
        assert repr(twin) == repr(layer)
        assert twin.spec == layer.spec
        assert torch.equal(twin(x), want)
    deep = copies[1]
    with torch.no_grad():
        deep.weight.zero_()
    assert torch.equal(layer(x), want)
    assert not torch.equal(deep(x), want)


def test_extras_are_shown_when_they_are_set():
    assert "flip_kernel" not in repr(nn.Conv2d(4, 6, 3))
    assert "frozen" not in repr(nn.Conv2d(4, 6, 3))
    text = repr(nn.Conv2d(4, 6, (3, 2), 2, ((0, 1), (2, 3)), padding_mode="symmetric", flip_kernel=True))
    for part in ("padding=((0, 1), (2, 3))", "padding_mode=symmetric", "flip_kernel=True"):
        assert part in text
    layer = nn.ConvTranspose2d(4, 6, 3, flip_kernel=True).eval()
    layer.freeze()
    assert "flip_kernel=True" in repr(layer)
    assert "frozen" in repr(layer)


@pytest.mark.parametrize(
    ("name", "value", "arguments"),
    [
        ("dilation", (2, 1), {"dilation": (2, 1)}),
        ("stride", (1, 3), {"stride": (1, 3)}),
        ("padding", (0, 2), {"padding": (0, 2)}),
        ("padding", "same", {"padding": "same"}),
        ("padding", ((1, 0), (0, 2)), {"padding": ((1, 0), (0, 2))}),
        ("padding_mode", "circular", {"padding": (1, 1), "padding_mode": "circular"}),
        ("flip_kernel", True, {"flip_kernel": True}),
    ],
)
def test_an_attribute_changed_afterwards_is_respected(name, value, arguments):
    layer = nn.Conv2d(4, 6, (3, 2), padding=arguments.get("padding", 0) if name == "padding_mode" else 0)
    x = torch.randn(2, 4, 9, 8)
    before = layer(x)
    setattr(layer, name, value)
    after = layer(x)
    want = F.conv2d(x, layer.weight, layer.bias, **arguments)
    assert torch.equal(after, want)
    assert before.shape != after.shape or not torch.allclose(before, after)
    assert layer.spec == type(layer)(4, 6, (3, 2), **arguments).spec


def test_a_kernel_replaced_by_another_size_is_respected():
    layer = nn.Conv2d(4, 6, (3, 2))
    layer(torch.randn(1, 4, 9, 8))
    layer.weight = torch.nn.Parameter(torch.randn(6, 4, 1, 5))
    layer.kernel_size = (1, 5)
    x = torch.randn(1, 4, 9, 8)
    torch.testing.assert_close(layer(x), tF.conv2d(x, layer.weight, layer.bias))


class _Lora(torch.nn.Module):
    """A low-rank change of a kernel, as fine-tuning adds it."""

    def __init__(self, shape):
        super().__init__()
        self.a, self.b = (torch.nn.Parameter(torch.randn(n, 2, dtype=torch.double)) for n in (shape[0], shape[1:].numel()))

    def forward(self, weight):
        return weight + (self.a @ self.b.T).view_as(weight)


@pytest.mark.parametrize("kind", [FORWARD, TRANSPOSED])
def test_parametrized_weights_are_seen_and_trained(kind):
    theirs, ours = twins(kind, 2, {"padding": 1})
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 4, 6, 5, dtype=torch.double)
    ours(x)
    parametrize.register_parametrization(ours, "weight", _Lora(ours.weight.shape))
    parametrize.register_parametrization(theirs, "weight", _Lora(theirs.weight.shape))
    assert isinstance(ours, kind[2])
    theirs.load_state_dict(ours.state_dict())
    same(ours(x), theirs(x))
    grads = [torch.autograd.grad(m(x).sin().sum(), list(m.parameters())) for m in (ours, theirs)]
    for got, want in zip(*grads, strict=True):
        same(got, want)
    parametrize.remove_parametrizations(ours, "weight")
    same(ours(x), theirs(x))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "wrap",
    [
        torch.nn.utils.weight_norm,
        torch.nn.utils.spectral_norm,
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        lambda m: prune.random_unstructured(m, "weight", 0.4),
    ],
    ids=["weight_norm", "spectral_norm", "weight_norm by parametrization", "spectral_norm by parametrization", "prune"],
)
def test_wrappers_of_the_weight(wrap):
    theirs, ours = twins(FORWARD, 2, {"stride": 2})
    ours, theirs = wrap(ours).eval(), wrap(theirs).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 7, 6, dtype=torch.double)
    same(ours(x), theirs(x))
    with torch.no_grad():
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            q.copy_(p.mul_(1.5).add_(0.25))
    same(ours(x), theirs(x))


@pytest.mark.parametrize("transposed", [False, True])
def test_fusing_with_batch_normalization(transposed):
    layer = (nn.ConvTranspose2d if transposed else nn.Conv2d)(4, 6, (3, 2), 2, bias=False).eval()
    norm = torch.nn.BatchNorm2d(6).eval()
    for t in (norm.running_mean, norm.weight.data, norm.bias.data):
        t.normal_()
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 4, 7, 6)
    want = norm(layer(x))
    layer.freeze()
    layer(x)
    fused = fuse_conv_bn_eval(layer, norm, transpose=transposed)
    torch.testing.assert_close(fused(x), want, rtol=1e-4, atol=1e-5)
    assert fused.spec.bias
    assert not layer.spec.bias


def test_moves_between_dtypes():
    theirs, ours = twins(FORWARD, 2, {"padding": 1})
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 4, 6, 5, dtype=torch.double)
    want = theirs(x)
    for move, dtype, bound in (
        ("float", torch.float32, 1e-5),
        ("bfloat16", torch.bfloat16, 0.05),
        ("half", torch.float16, 0.05),
        ("double", torch.float64, 0.05),
    ):
        ours.freeze()
        assert getattr(ours, move)() is ours
        assert not ours.frozen
        got = ours(x.to(dtype))
        assert got.dtype == dtype
        assert (got.double() - want).abs().max() <= bound * want.abs().max()


def test_meta_layers_are_filled_by_assignment():
    layer = nn.Conv2d(4, 6, (3, 2), device="meta")
    assert layer(torch.empty(2, 4, 9, 8, device="meta")).shape == (2, 6, 7, 7)
    filled = nn.Conv2d(4, 6, (3, 2))
    layer.load_state_dict(filled.state_dict(), assign=True)
    x = torch.randn(2, 4, 9, 8)
    assert torch.equal(layer(x), filled(x))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_layers_compile_whole_and_train(transposed, dynamic):
    torch._dynamo.reset()
    kind, rest = (TRANSPOSED, {"stride": 2}) if transposed else (FORWARD, {"padding": 2, "padding_mode": "reflect"})
    theirs, ours = twins(kind, 2, rest)
    ours.load_state_dict(theirs.state_dict())
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for size in ((6, 5), (9, 7)):
        x = torch.randn(2, 4, *size, dtype=torch.double)
        for model in (compiled, theirs):
            model.zero_grad()
            model(x).sin().sum().backward()
        same(compiled(x), theirs(x))
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            same(p.grad, q.grad)


def test_training_converges_as_torchs_does():
    theirs, ours = twins(FORWARD, 1, {"stride": 2})
    ours.load_state_dict(theirs.state_dict())
    x, y = torch.randn(3, 4, 11, dtype=torch.double), torch.randn(3, 6, 5, dtype=torch.double)
    for layer in (ours, theirs):
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
        for _ in range(5):
            optimizer.zero_grad()
            tF.mse_loss(layer(x), y).backward()
            optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        same(p, q)


def test_ever_new_sizes_do_not_grow_a_layer_without_bound(monkeypatch):
    assert call._REMEMBERED <= 1024
    monkeypatch.setattr(call, "_REMEMBERED", 8)
    layer = nn.Conv1d(1, 1, 3)
    for n in range(3, 23):
        layer(torch.ones(1, 1, n))
        assert len(layer.site._runs) <= 8
    assert "_site" not in layer.__getstate__()
