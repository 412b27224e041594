"""Against brute force: the support of the gradient, with weights that cannot cancel."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ninefold.errors import ArgumentTypeError, ShapeError
from ninefold.models import large_kernel_net, mobilenet_v1
from ninefold.network.fields import own_fields, receptive_fields


class Net(nn.Module):
    """Layers by name and a forward given as a function of them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.body = forward
        self.layers = nn.ModuleDict(layers)

    def forward(self, *inputs):
        return self.body(self.layers, *inputs)


def positive(model):
    """All weights positive and maxima made averages: then nothing that is read has a gradient of zero."""
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return model.double().eval()


def brute(model, size, name):
    """Extent of the gradient's support, the largest over output positions far from the border."""
    outputs = []
    hook = model.get_submodule(name).register_forward_hook(lambda _m, _a, out: outputs.append(out))
    x = torch.rand(size, dtype=torch.float64, requires_grad=True) + 0.5
    x.retain_grad()
    model(x)
    hook.remove()
    out = outputs[0]
    axes = x.dim() - 2
    largest = [0] * axes
    # Axes are independent, so that the diagonal meets every phase of each; near the border less is seen.
    for i in range(12):
        position = [(n // 2 - 6 + i) % n for n in out.shape[-axes:]]
        x.grad = None
        out[(0, 0, *position)].backward(retain_graph=True)
        for axis in range(axes):
            seen = x.grad.movedim(axis - axes, 0).flatten(1).sum(1).nonzero()
            if len(seen):
                largest[axis] = max(largest[axis], int(seen[-1] - seen[0]) + 1)
    return tuple(largest)


def residual(layers, x):
    y = F.relu(layers["a"](x))
    y = y + layers["c"](F.relu(layers["b"](y)))
    y += layers["skip"](x)
    return layers["d"](y)


def branches(layers, x):
    parts = [layers["one"](x), layers["five"](layers["one2"](x)), F.avg_pool2d(x, 3, 1, 1)]
    return layers["last"](torch.cat(parts, dim=1))


def u_net(layers, x):
    down = F.relu(layers["down"](x))
    deep = layers["deep"](F.avg_pool2d(down, 2))
    up = layers["up"](deep)
    return layers["last"](torch.cat([down, up], 1))


def shifted(layers, x):
    # A causal and an anticausal branch: as long together as both, though neither is.
    left = layers["left"](F.pad(x, (6, 0, 0, 0)))
    right = layers["right"](x[:, :, :, 2:])
    return layers["last"](left[..., : right.shape[-1]] * right)


def channels_last(layers, x):
    y = layers["a"](x).permute(0, 2, 3, 1)
    y = layers["linear"](F.layer_norm(y, (4,))).permute(0, 3, 1, 2)
    return layers["b"](y)


def shuffled(layers, x):
    y = layers["a"](x)
    n, c, h, w = y.shape
    y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
    first, second = y.chunk(2, 1)
    return layers["b"](torch.stack([first, second], 2).flatten(1, 2))


def resampled(layers, x):
    y = layers["a"](x)
    y = layers["b"](F.interpolate(y, scale_factor=2))
    y = layers["c"](F.interpolate(y, scale_factor=3, mode="bilinear"))
    return layers["d"](F.pixel_unshuffle(y, 3))


NETS = {
    "strides and dilations": (
        nn.Sequential(
            nn.Conv2d(2, 3, (3, 5), (2, 1)), nn.ReLU(), nn.Conv2d(3, 2, 3, 2, dilation=(1, 2)), nn.Conv2d(2, 1, (2, 3))
        ),
        (1, 2, 43, 60),
    ),
    "pools": (
        nn.Sequential(
            nn.Conv2d(1, 2, 3),
            nn.AvgPool2d((2, 3), (2, 1)),
            nn.BatchNorm2d(2),
            nn.Conv2d(2, 3, (4, 1), 3),
            nn.Conv2d(3, 1, 2),
        ),
        (1, 1, 64, 50),
    ),
    "1-D": (
        nn.Sequential(nn.Conv1d(2, 3, 7, 3), nn.AvgPool1d(2), nn.GELU(), nn.Conv1d(3, 2, 4, dilation=3)),
        (1, 2, 140),
    ),
    "3-D": (
        nn.Sequential(nn.Conv3d(1, 2, (1, 2, 3), (2, 1, 1)), nn.AvgPool3d((1, 2, 1)), nn.Conv3d(2, 1, (3, 2, 2))),
        (1, 1, 21, 25, 14),
    ),
    "residual": (
        Net(
            residual,
            a=nn.Conv2d(2, 3, (3, 1), stride=2, padding=(1, 0)),
            b=nn.Conv2d(3, 3, (5, 3), padding="same"),
            c=nn.Conv2d(3, 3, (3, 4), padding="same"),
            skip=nn.Conv2d(2, 3, 1, stride=2),
            d=nn.Conv2d(3, 2, 3),
        ),
        (1, 2, 46, 40),
    ),
    "branches": (
        Net(
            branches,
            one=nn.Conv2d(2, 3, 1),
            one2=nn.Conv2d(2, 4, 1),
            five=nn.Conv2d(4, 1, (5, 1), padding=(2, 0)),
            last=nn.Conv2d(6, 2, (2, 3), stride=2),
        ),
        (1, 2, 25, 30),
    ),
    "transposed": (
        nn.Sequential(
            nn.Conv2d(1, 2, 3, stride=2),
            nn.ConvTranspose2d(2, 3, (4, 5), (2, 3), padding=1),
            nn.Conv2d(3, 1, (3, 2)),
            nn.Conv2d(1, 1, 3, 2),
        ),
        (1, 1, 40, 37),
    ),
    "transposed, dilated, with gaps": (
        nn.Sequential(nn.ConvTranspose1d(1, 2, 2, stride=5), nn.ConvTranspose1d(2, 1, 3, 2, dilation=3), nn.Conv1d(1, 1, 4)),
        (1, 1, 30),
    ),
    "u-net": (
        Net(
            u_net,
            down=nn.Conv2d(2, 3, (3, 5), padding=(1, 2)),
            deep=nn.Conv2d(3, 2, (5, 3), padding=(2, 1)),
            up=nn.ConvTranspose2d(2, 3, 2, stride=2),
            last=nn.Conv2d(6, 1, 3),
        ),
        (1, 2, 40, 36),
    ),
    "shifted": (
        Net(
            shifted,
            left=nn.Conv2d(1, 2, (1, 7)),
            right=nn.Conv2d(1, 2, (1, 5)),
            last=nn.Conv2d(2, 1, (2, 1)),
        ),
        (1, 1, 20, 41),
    ),
    "channels last": (
        Net(channels_last, a=nn.Conv2d(3, 4, (3, 2)), linear=nn.Linear(4, 5), b=nn.Conv2d(5, 1, (2, 5), stride=2)),
        (1, 3, 24, 33),
    ),
    "shuffled": (
        Net(shuffled, a=nn.Conv2d(3, 4, (3, 2), groups=1), b=nn.Conv2d(4, 1, (2, 5))),
        (1, 3, 14, 23),
    ),
    "resampled": (
        Net(
            resampled,
            a=nn.Conv2d(1, 2, 3),
            b=nn.Conv2d(2, 2, (4, 2)),
            c=nn.Conv2d(2, 2, (4, 7)),
            d=nn.Conv2d(18, 1, (2, 1)),
        ),
        (1, 1, 15, 17),
    ),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", NETS)
def test_gradient_support(name):
    torch.manual_seed(11)
    model, size = NETS[name]
    positive(model)
    found = receptive_fields(model, torch.rand(size, dtype=torch.float64))
    expected = {}
    for layer, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            expected[layer] = brute(model, size, layer)
    assert found == expected


def test_chain_formula():
    layers, r, jump, expected = [], 1, 1, {}
    numbers = [(3, 1, 1), (5, 2, 1), (2, 3, 1), (3, 1, 4), (7, 1, 1), (1, 2, 1), (31, 1, 1)]
    for i, (k, s, d) in enumerate(numbers):
        layers.append(nn.Conv1d(1, 1, k, s, padding=k * d, dilation=d))
        r, jump = r + (k - 1) * d * jump, jump * s
        expected[str(i)] = (r,)
    assert receptive_fields(nn.Sequential(*layers), torch.zeros(1, 1, 200)) == expected


def test_depth_of_vgg():
    # VGG-16's thirteen convolutions; counted beyond the border, for the image is smaller than the last fields.
    layers = []
    for convs in (2, 2, 3, 3, 3):
        layers += [m for _ in range(convs) for m in (nn.LazyConv2d(2, 3, padding=1), nn.ReLU(inplace=True))]
        layers.append(nn.MaxPool2d(2))
    found = receptive_fields(nn.Sequential(*layers), torch.zeros(1, 3, 64, 96))
    assert [f[0] for f in found.values()] == [3, 5, 10, 14, 24, 32, 40, 60, 76, 92, 132, 164, 196]
    assert all(h == w for h, w in found.values())


@pytest.mark.parametrize("depth", [1, 4, 9])
def test_3x3_grows_by_two_per_layer(depth):
    net = nn.Sequential(*(nn.Conv2d(1, 1, (3, 5), padding="same") for _ in range(depth)))
    assert receptive_fields(net, torch.zeros(1, 1, 7, 8))[str(depth - 1)] == (2 * depth + 1, 4 * depth + 1)


MIXERS = {
    "global pooling": lambda layers, x: x * x.mean((2, 3), keepdim=True),
    "adaptive pooling to one": lambda layers, x: x + F.adaptive_max_pool2d(x, 1),
    "one position": lambda layers, x: F.pad(F.adaptive_max_pool2d(x, 1), (1, 1, 1, 1)),
    "a kernel that is the input": lambda layers, x: F.conv2d(x, x, padding=(4, 5)).expand(1, 2, 9, 11),
    "flatten": lambda layers, x: x.flatten(2).softmax(1).unflatten(2, x.shape[2:]),
    "softmax over space": lambda layers, x: x.softmax(3).softmax(2),
    "group norm": lambda layers, x: F.group_norm(x, 1),
    "instance norm": lambda layers, x: F.instance_norm(x),
    "matrix product over space": lambda layers, x: (x @ torch.ones(11, 11)).mT @ torch.ones(9, 9),
    "attention": lambda layers, x: F.scaled_dot_product_attention(*[x.flatten(2).mT] * 3).mT.reshape(x.shape),
    "fourier": lambda layers, x: torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[2:]),
    "rows as columns": lambda layers, x: x[..., :9] + x[..., :9].mT,
    "written into a view": lambda layers, x: written(x),
}


def written(x):
    out = torch.zeros_like(x)
    half = out[:, :1]
    half.copy_(x[:, :1].mean((2, 3), keepdim=True))
    return out


@pytest.mark.parametrize("name", MIXERS)
def test_whole_behind_what_mixes_space(name):
    net = Net(
        lambda layers, x: layers["after"](MIXERS[name](layers, layers["before"](x))),
        before=nn.Conv2d(1, 2, 3, padding=1),
        after=nn.Conv2d(2, 3, 3),
    )
    assert receptive_fields(net, torch.rand(1, 1, 9, 11)) == {"layers.before": (3, 3), "layers.after": None}


def test_whole_along_one_axis_only():
    net = Net(
        lambda layers, x: layers["after"](layers["before"](x).mean(3)),
        before=nn.Conv2d(1, 2, (3, 2)),
        after=nn.Conv1d(2, 3, 5),
    )
    assert receptive_fields(net, torch.rand(1, 1, 19, 11)) == {"layers.before": (3, 2), "layers.after": (7, 11)}


def test_an_axis_read_as_channels_is_read_whole():
    net = Net(lambda layers, x: layers["b"](layers["a"](x).squeeze(1)), a=nn.Conv2d(1, 1, (3, 2)), b=nn.Conv1d(7, 3, 5))
    assert receptive_fields(net, torch.rand(1, 1, 9, 11)) == {"layers.a": (3, 2), "layers.b": (9, 6)}


def test_adaptive_bins():
    net = nn.Sequential(nn.AdaptiveAvgPool2d((3, 4)), nn.Conv2d(1, 1, 2))
    # Bins of 64 over 3 hold 22 and overlap by one; those of 20 over 4 hold 5.
    assert receptive_fields(net, torch.zeros(1, 1, 64, 20)) == {"1": (43, 10)}


def test_a_layer_that_runs_twice_has_its_larger_field():
    net = Net(lambda layers, x: layers["a"](layers["a"](x)) + 0 * layers["a"](x)[..., 2:, 4:], a=nn.Conv2d(1, 1, (3, 5)))
    assert receptive_fields(net, torch.zeros(1, 1, 20, 30)) == {"layers.a": (5, 9)}


def test_layers_that_see_nothing_or_do_not_run():
    net = Net(
        lambda layers, x: x + layers["constant"](torch.ones(1, 1, 5, 9))[..., :1],
        constant=nn.Conv2d(1, 1, 3),
        never=nn.Conv2d(1, 1, 3),
    )
    assert receptive_fields(net, torch.zeros(1, 1, 3, 9)) == {"layers.constant": (0, 0)}


def test_functional_convolutions_between_layers():
    weight = torch.ones(1, 1, 3, 4)
    net = Net(lambda layers, x: layers["a"](F.conv2d(x, weight, stride=2, dilation=(1, 3))), a=nn.Conv2d(1, 1, (2, 3)))
    assert receptive_fields(net, torch.zeros(1, 1, 30, 40)) == {"layers.a": (5, 14)}


def test_unbatched_and_several_inputs():
    net = nn.Sequential(nn.Conv2d(3, 2, (3, 5)), nn.Conv2d(2, 1, 2))
    assert receptive_fields(net, torch.zeros(3, 20, 30), spatial=2) == {"0": (3, 5), "1": (4, 6)}
    pair = Net(
        lambda layers, x, y, k: layers["b"](x + layers["a"](y) * k),
        a=nn.Conv2d(1, 1, 3, padding=1),
        b=nn.Conv2d(1, 1, 3),
    )
    inputs = (torch.zeros(1, 1, 8, 9), torch.zeros(1, 1, 8, 9), torch.ones(1))
    assert receptive_fields(pair, inputs) == {"layers.a": (3, 3), "layers.b": (5, 5)}


def test_the_model_is_as_it_was():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Conv2d(2, 1, 3))
    net.train()
    net[1].eval()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    image = torch.rand(1, 1, 12, 9)
    random = torch.get_rng_state()
    receptive_fields(net, image)
    assert [m.training for m in net.modules()] == [True, True, False, True, True]
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in state.items())
    assert torch.equal(random, torch.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    with pytest.raises(RuntimeError):
        receptive_fields(net, torch.rand(1, 3, 12, 9))
    assert [m.training for m in net.modules()] == [True, True, False, True, True]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_reference_networks():
    fields = receptive_fields(mobilenet_v1(0.25, num_classes=5), torch.zeros(1, 3, 64, 96))
    depthwise = [fields[f"blocks.{i}.conv.depthwise"] for i in range(13)]
    assert fields["stem.conv"] == (3, 3)
    assert depthwise[:4] == [(7, 7), (11, 11), (19, 19), (27, 27)]
    assert depthwise[-1] == (315, 315)
    net = large_kernel_net(widths=(4, 6), depths=(1, 1), kernel_size=5, long_kernel_size=15)
    fields = receptive_fields(net, torch.zeros(1, 3, 24, 36))
    assert fields["stem.conv"] == fields["branch.gate"] == (3, 3)
    assert fields["branch.long"] is None
    assert fields["stages.0.block1.large"] == (3 + 4 * 2,) * 2
    assert fields["stages.1.block1.large"] == (3 + 4 * 2 + 2 + 4 * 4,) * 2


class Wrapped(nn.Conv2d):
    """A layer whose forward is made of other things, as an adapter's is."""

    def __init__(self, *args):
        super().__init__(*args)
        self.inner = nn.Conv2d(*args)

    def forward(self, x):
        return super().forward(x) + self.inner(x).flatten(1).view(1, 2, 7, 8)


def test_a_layer_counts_as_a_whole_whatever_its_forward_does():
    net = nn.Sequential(Wrapped(1, 2, (3, 4)), nn.Conv2d(2, 1, 2))
    assert receptive_fields(net, torch.rand(1, 1, 9, 11)) == {"0": (3, 4), "1": (4, 5)}


def test_own_fields():
    net = nn.ModuleDict({"a": nn.Conv2d(1, 1, (3, 5), dilation=(4, 1), padding="same"), "b": nn.ConvTranspose1d(1, 1, 7, 3)})
    assert own_fields(net) == {"a": (9, 5), "b": (3,)}


def test_examples_that_are_none():
    with pytest.raises(ArgumentTypeError, match="no tensor in the example"):
        receptive_fields(nn.Conv2d(1, 1, 3), [1, 2])
    with pytest.raises(ShapeError, match="spatial=5"):
        receptive_fields(nn.Conv2d(1, 1, 3), torch.zeros(1, 1, 5, 6), spatial=5)
