"""A dense network is its classifier in every window: shift-and-stitch and a sliding window are the definitions."""

import copy
import pickle
from itertools import product

import pytest
import torch
from torch import nn

import ninefold as nf
from ninefold.errors import ArgumentError, ArgumentTypeError, ModelError, ShapeError, UnsupportedError
from ninefold.structured.networks import densify, plain_context_net, shift_and_stitch, slide


def prepared(net):
    """In double precision, in evaluation mode, with statistics that do something."""
    torch.manual_seed(0)
    net = net.double().eval()
    for m in net.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            for t in (m.running_mean, m.weight.data, m.bias.data):
                t.normal_()
            m.running_var.uniform_(0.5, 2)
    return net


def image_of(*size, channels=2):
    return torch.randn(2, channels, *size, dtype=torch.float64)


def same_windows(dense, windows):
    """A classifier whose strides leave out its image's last positions has as many more windows of those that it reads."""
    assert all(0 <= a - b < 4 for a, b in zip(dense.shape[2:], windows.shape[2:], strict=True))
    torch.testing.assert_close(dense[(..., *map(slice, windows.shape[2:]))], windows)


def lenet():
    """LeNet-like, for 16x13: not square, a kernel and a stride of each axis."""
    return nn.Sequential(
        *(nn.Conv2d(2, 4, (5, 3)), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(4, 5, (3, 2), stride=(1, 2)), nn.LeakyReLU(), nn.MaxPool2d((2, 1), stride=(2, 1))),
        *(nn.Flatten(), nn.Linear(5 * 2 * 2, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 3)),
    )


def vgg(padding):
    def block(a, b):
        return [nn.Conv2d(a, b, 3, padding=padding), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]

    return nn.Sequential(*block(2, 3), *block(3, 4), nn.MaxPool2d(2), *block(4, 5), nn.MaxPool2d(3, 2, padding), *block(5, 3))


class Unit(nn.Module):
    """A residual unit in the manner of published ResNets: two paths and a sum, the activation last."""

    def __init__(self, inputs, outputs, stride, padding):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3 if padding else 1, 1, padding, bias=False)
        self.activ = nn.ReLU(inplace=True)
        self.resize = stride > 1 or inputs != outputs
        # without padding 2 positions more are read in the body, and by this average
        self.identity_conv = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1 if padding else 3, stride, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x):
        identity = self.identity_conv(x) if self.resize else x
        return self.activ(self.bn2(self.conv2(self.activ(self.bn1(self.conv1(x))))) + identity)


class ResNet(nn.Module):
    """Stages of units, pooling of the whole map, a view, and a dense layer."""

    def __init__(self, padding, head="mean"):
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("init_block", nn.Sequential(nn.Conv2d(2, 4, 3, 2, padding), nn.ReLU(inplace=True)))
        self.features.add_module("unit1", Unit(4, 6, 2, padding))
        self.features.add_module("unit2", Unit(6, 6, 1, padding) if padding else Unit(6, 7, 1, padding))
        self.features.add_module("final_pool", nn.AvgPool2d(3, 1))
        self.output, self.head = nn.Linear(6 if padding else 7, 3), head

    def forward(self, x):
        x = self.features(x)
        if self.head == "mean":
            x = x.mean([2, 3])
        elif self.head == "view":
            x = nn.functional.adaptive_avg_pool2d(x, 1)
            x = x.view(x.size(0), -1)
        elif self.head == "reshape":
            x = nn.functional.adaptive_max_pool2d(x, (1, 1)).reshape(x.shape[0], -1)
        elif self.head == "squeeze":
            x = nn.functional.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)
        else:
            x = torch.flatten(nn.functional.avg_pool2d(x, kernel_size=2), 1)
        return torch.log_softmax(self.output(x), dim=-1)


class Branches(nn.Module):
    """Paths of different contexts put together, a function that pools, one activation called at two strides."""

    def __init__(self, kernel=3):
        super().__init__()
        self.a, self.b = nf.nn.Conv2d(2, 3, 1, stride=2), nn.Conv2d(2, 4, kernel, stride=2, padding=1, groups=2)
        self.act, self.last = nn.ReLU(), nn.Conv2d(7, 3, 3, bias=False)
        self.twice = nn.Conv2d(2, 2, 2)

    def forward(self, x):
        x = self.act(self.twice(x))
        y = torch.cat((self.a(x), self.b(x)), dim=1)
        y = nf.functional.max_pool2d(y, 2, padding=1)
        y = self.act(self.last(y)) * 0.5
        return torch.sigmoid(y) - y.relu()


@pytest.mark.parametrize("size", [(16, 13), (16, 18), (21, 15)])
def test_flattened_classifiers(size):
    net, x = prepared(lenet()), image_of(*size)
    dense = densify(net, torch.zeros(1, 2, 16, 13))
    assert dense.stride == (4, 4)
    same_windows(dense(x), slide(net, x, (16, 13)))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_any_number_of_axes(ndim):
    conv, pool, norm = (getattr(nn, f"{k}{ndim}d") for k in ("Conv", "MaxPool", "BatchNorm"))
    sizes = (9, 8, 9)[:ndim]
    last = tuple((n - 2) // 2 - 1 for n in sizes)
    cells = torch.Size(last).numel()
    body = [
        conv(2, 3, 3),
        norm(3),
        nn.ReLU(),
        pool(2),
        conv(3, 4, 2),
        nn.ELU(),
        nn.Flatten(),
        nn.Linear(4 * cells, 5),
        nn.Softmax(-1),
    ]
    net, x = prepared(nn.Sequential(*body)), image_of(*(n + k for n, k in zip(sizes, (4, 3, 1), strict=False)))
    dense = densify(net, torch.zeros(1, 2, *sizes))
    assert dense.stride == (2,) * ndim
    same_windows(dense(x), slide(net, x, sizes))


@pytest.mark.parametrize("head", ["mean", "view", "reshape", "squeeze", "flatten"])
def test_residual_networks_with_heads(head):
    net, x = prepared(ResNet(0, head)), image_of(32, 30)
    patch = (27, 27)  # what leaves 2x2 positions before the head
    dense = densify(net, torch.zeros(1, 2, *patch))
    assert dense.stride == ((8, 8) if head == "flatten" else (4, 4))
    same_windows(dense(x), slide(net, x, patch))


def test_without_padding_it_is_shift_and_stitch_everywhere():
    for made, size in ((vgg(0), (31, 28)), (plain_context_net(2, 3)[:5], (70, 63))):
        net, x = prepared(made), image_of(*size)
        dense = densify(net)
        want = shift_and_stitch(net, x, dense.stride)
        torch.testing.assert_close(dense(x), want)
        torch.testing.assert_close(shift_and_stitch(net, x), want)
        torch.testing.assert_close(want[(..., *(slice(None, None, s) for s in dense.stride))], net(x))


@pytest.mark.parametrize("size", [(24, 32), (23, 29), (26, 21)])
@pytest.mark.parametrize("kind", ["vgg", "resnet", "branches"])
def test_with_padding_it_is_the_classifier_at_its_own_positions_everywhere(kind, size):
    net = prepared({"vgg": lambda: vgg(1), "resnet": lambda: ResNet(1).features, "branches": Branches}[kind]())
    x = image_of(*size)
    dense = densify(net)
    assert dense.stride == (4, 4)
    torch.testing.assert_close(dense(x)[..., ::4, ::4], net(x))


@pytest.mark.parametrize("kind", ["vgg", "resnet", "branches"])
def test_with_padding_it_is_shift_and_stitch_in_the_interior(kind):
    net = prepared({"vgg": lambda: vgg(1), "resnet": lambda: ResNet(1).features, "branches": Branches}[kind]())
    x = image_of(52, 57)
    dense = densify(net)
    got, stride = dense(x), dense.stride
    far = 24  # more than any of them sees to one side
    compared = 0
    for shift in product(range(4), range(4)):
        alone = net(x[..., shift[0] :, shift[1] :])
        part = got[..., shift[0] :: 4, shift[1] :: 4]
        for i, j in product(*(range(min(a, b)) for a, b in zip(alone.shape[2:], part.shape[2:], strict=True))):
            centre = (4 * i, 4 * j)
            if all(far <= c <= n - far - 4 for c, n in zip(centre, (52, 57), strict=True)):
                torch.testing.assert_close(part[..., i, j], alone[..., i, j])
                compared += 1
    assert compared >= 16
    assert stride == (4, 4)
    border = net(x[..., 1:, 1:])[..., 0, 0]
    assert not torch.allclose(border, got[..., 1, 1])  # the shifted image ends where the dense network sees on


def test_paths_that_end_elsewhere_are_cropped():
    """Kernel 1 and kernel 4 with one position of padding give the same number of positions where that is even."""
    net, x = prepared(Branches(4)), image_of(25, 31)
    torch.testing.assert_close(densify(net)(x)[..., ::4, ::4], net(x))


def test_poolings_of_all_kinds():
    for pool in (
        nn.LPPool2d(2, 3, 2),
        nf.nn.LogSumExpPool2d(2, 2, r=3.0),
        nf.nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(3, 2, divisor_override=5),
        nf.nn.MaxPool2d(2, 2, padding=((0, 1), (1, 0)), dilation=2),
    ):
        net = prepared(nn.Sequential(nn.Conv2d(2, 3, 2, stride=(2, 1)), nn.Softplus(), pool, nn.Conv2d(3, 2, (2, 1))))
        x = image_of(25, 19)
        dense = densify(net)
        assert dense.stride == (4, 2)
        torch.testing.assert_close(dense(x)[..., ::4, ::2], net(x))


@pytest.mark.parametrize("size", [(20, 25), (21, 22), (22, 23), (23, 24)])
def test_windows_that_reach_beyond_the_border(size):
    """As SqueezeNet's poolings: at the classifier's own positions, whatever of the size is left over."""
    net = prepared(
        nn.Sequential(
            *(nn.Conv2d(2, 3, 3, 2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(3, 4, 3, padding=1)),
            *(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(4, 2, 1)),
            nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        )
    )
    x = image_of(*size)
    torch.testing.assert_close(densify(net)(x)[..., ::16, ::16], net(x))


@pytest.mark.parametrize("through", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_it_is_copied_and_kept(through):
    dense, x = densify(prepared(lenet()), torch.zeros(1, 2, 16, 13)), image_of(18, 17)
    twin = through(dense)
    assert twin.stride == dense.stride
    assert torch.equal(twin(x), dense(x))
    twin.load_state_dict(dense.state_dict())
    with pytest.raises(ShapeError, match=r"the image has shape \(2, 18, 17\)"):
        dense(x[:, 0])


def test_same_padding_and_flipped_kernels():
    net = prepared(
        nn.Sequential(
            nn.MaxPool2d(2),
            nn.Conv2d(2, 3, (5, 3), padding="same", dilation=(2, 1)),
            nf.nn.Conv2d(3, 3, (2, 4), padding="same_lower"),
            nf.nn.Conv2d(3, 2, 3, flip_kernel=True),
        )
    )
    x = image_of(21, 18)
    torch.testing.assert_close(densify(net)(x)[..., ::2, ::2], net(x))


def test_bins_of_adaptive_poolings():
    net = prepared(nn.Sequential(nn.Conv2d(2, 3, 3, 2), nn.AdaptiveMaxPool2d((2, 3)), nn.Flatten(), nn.Linear(18, 4)))
    patch = (9, 19)  # 4x9 positions, in cells of 2x3
    x = image_of(13, 22)
    dense = densify(net, torch.zeros(1, 2, *patch))
    assert dense.stride == (4, 6)
    same_windows(dense(x), slide(net, x, patch))
    with pytest.raises(UnsupportedError, match=r"layer '1' cannot be made dense: \(4, 8\) positions in \(2, 3\) cells"):
        densify(net, torch.zeros(1, 2, 9, 17))


def test_weights_are_shared_and_the_classifier_is_not_changed():
    net = prepared(lenet())
    before = copy.deepcopy(net)
    dense = densify(net, torch.zeros(1, 2, 16, 13))
    assert repr(net) == repr(before)
    own = {id(p) for p in net.parameters()}
    shared = list(dense.parameters())
    assert len(shared) == len(own)
    assert {p.untyped_storage().data_ptr() for p in shared} == {p.untyped_storage().data_ptr() for p in net.parameters()}
    x = image_of(16, 13)
    got = torch.autograd.grad(dense(x)[..., 0, 0].square().sum(), shared)
    want = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.view_as(b), b)
    with torch.no_grad():
        net[-1].weight.mul_(2)
    torch.testing.assert_close(dense(x)[..., 0, 0], net(x))


def test_a_square_map_needs_no_example_and_the_mode_is_kept():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(36, 5))
    dense = densify(net)
    assert dense.training
    assert dense(torch.randn(1, 1, 12, 9)).shape == (1, 5, 5, 2)
    assert not densify(net.eval()).training
    x = torch.randn(1, 1, 12, 9)
    assert torch.equal(densify(net)(x), densify(net)(x))
    torch.testing.assert_close(densify(nn.Conv2d(1, 2, 3, stride=2))(x)[..., ::2, ::2].shape, torch.Size([1, 2, 5, 4]))


class NormAndActivation(nn.BatchNorm2d):
    """As packages write it: torch.fx looks into it, as it is none of torch's own classes."""

    def forward(self, x):
        torch._assert(x.ndim == 4, f"got {x.ndim} axes")
        torch._assert(x.shape[1] == self.num_features, "other channels")
        training = self.training or self.running_mean is None
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training, 0.1, self.eps
        ).relu()


class Scaled(nn.Module):
    """Takes off the means of channels and divides, as scripts do with images, then the classifier; a product within the network."""

    def __init__(self, first, *rest, gamma=(3, 1, 1)):
        super().__init__()
        self.first, self.rest, self.gamma = first, nn.Sequential(*rest), nn.Parameter(torch.randn(gamma))
        self.register_buffer("mean", torch.randn(1, first.in_channels, 1, 1))
        self.register_buffer("std", torch.tensor(2.0))

    def forward(self, x):
        return self.rest(self.first((x - self.mean) / self.std) * self.gamma)


def test_norms_of_other_packages_and_means_of_channels():
    layers = (
        nn.Conv2d(2, 3, 3, stride=2),
        NormAndActivation(3),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 2),
        nn.Flatten(),
        nn.Linear(24, 5),
    )
    net = prepared(Scaled(*layers))
    dense, image = densify(net, image_of(13, 17)), image_of(20, 23)
    assert dense.stride == (4, 4)
    same_windows(dense(image), slide(net, image, (13, 17)))
    assert any(p is net.gamma for p in dense.parameters())
    assert {id(p) for p in dense.parameters()} >= {id(p) for p in layers[1].parameters()}


@pytest.mark.parametrize(
    ("net", "match"),
    [
        (lambda: nn.Sequential(nn.Conv2d(2, 3, 3), NormAndActivation(3).train()), "in training its statistics"),
        (
            lambda: Scaled(nn.Conv2d(2, 3, 3), gamma=(3, 1, 5)),
            "tensor 'gamma' cannot be made dense: it is read beside",
        ),
        (lambda: Scaled(nn.Conv2d(2, 1, 3)), "makes other channels of 1"),
    ],
)
def test_what_depends_on_the_window_beside_its_layers_is_refused(net, match):
    with pytest.raises(UnsupportedError, match=match):
        densify(net(), torch.zeros(1, 2, 9, 9))


def test_what_is_no_classifier():
    with pytest.raises(ArgumentTypeError, match="got function"):
        densify(lambda x: x)
    with pytest.raises(ArgumentTypeError, match="the example must be a tensor, got tuple"):
        densify(lenet(), (16, 13))
    with pytest.raises(ShapeError, match=r"\(2, 16, 13\); it must be \(batch, channels, 2 spatial axes\)"):
        densify(lenet(), torch.zeros(2, 16, 13))
    with pytest.raises(ShapeError, match="layer '7' reads 20 numbers, but 5 channels of"):
        densify(lenet(), torch.zeros(1, 2, 24, 13))
    with pytest.raises(ShapeError, match="nothing is left of the example behind layer"):
        densify(lenet(), torch.zeros(1, 2, 4, 13))
    with pytest.raises(ModelError, match="no convolution or pooling"):
        densify(nn.Sequential(nn.ReLU()))


def test_what_does_not_fit_the_definitions_is_said():
    x = image_of(20, 17)
    with pytest.raises(ShapeError, match="the model has another stride"):
        shift_and_stitch(nn.AvgPool1d(2, 1), torch.zeros(1, 1, 20), 4)
    with pytest.raises(ShapeError, match=r"\(20, 17\) positions, fewer than a window of \(21, 3\)"):
        slide(lenet(), x, (21, 3))
    with pytest.raises(ArgumentError, match="it must give one score per class"):
        slide(prepared(nn.Sequential(nn.Conv2d(2, 3, 3))), x, (5, 5))
    with pytest.raises(ShapeError, match=r"\(20, 17\)"):
        slide(lenet(), x[0, 0], (2, 2))
    with pytest.raises(ArgumentTypeError, match="ndarray"):
        shift_and_stitch(lenet(), x.numpy(), 2)
