import pytest
import torch

import ninefold as nf
from ninefold.errors import ArgumentError, ShapeError
from ninefold.structured.networks import GrowingContextNet, plain_context_net


def test_the_plain_network_sees_133_pixels():
    sizes = []
    net = plain_context_net(3, 4)
    for layer in (0, 1, 3, 4, 6):
        net[layer].register_forward_hook(lambda m, a, out: sizes.append(tuple(out.shape[1:])))
    x = torch.randn(1, 3, 133, 133)
    net(x)
    assert sizes == [(25, 128, 128), (25, 16, 16), (50, 14, 14), (50, 7, 7), (4, 1, 1)]
    with pytest.raises(RuntimeError):
        net(x[..., :132])


@pytest.mark.parametrize(("kind", "step", "contexts"), [("rcnn2", 4, (25, 121, 505)), ("rcnn3", 2, (23, 67, 155))])
def test_contexts(kind, step, contexts):
    net = GrowingContextNet(kind, 3, 4).double()
    assert tuple(net.context(p) for p in (1, 2, 3)) == contexts
    for n in (1, 2, 5, 25):
        assert net.context(1, n) == step * n + 21
        with torch.device("meta"):
            assert GrowingContextNet(kind, 3, 4)(torch.zeros(1, 3, step * n + 21, 25), 1)[0].shape[2] == n
    for p in (1, 2):
        size = contexts[p - 1]
        assert net(torch.zeros(1, 3, size, size, dtype=torch.float64), p)[-1].shape == (1, 4, 1, 1)
        with pytest.raises(ShapeError, match=rf"{p} instances of {kind} see {size} per axis"):
            net(torch.zeros(1, 3, size - 1, size, dtype=torch.float64), p)


@pytest.mark.parametrize(("kind", "instances"), [("rcnn2", 2), ("rcnn3", 2)])
def test_a_label_sees_its_context_and_no_more(kind, instances):
    torch.manual_seed(0)
    net = GrowingContextNet(kind, 1, 2).double()
    n = net.context(instances, 2)
    x = torch.randn(1, 1, n, n, dtype=torch.float64, requires_grad=True)
    with nf.options(tolerance="strict"):  # a transform would leave dust where nothing arrives
        seen = torch.autograd.grad(net(x, instances)[-1][0, 0, 0, 0], x)[0][0, 0].nonzero()
    assert seen.amin() >= 0
    assert seen.amax() < net.context(instances)
    first, step = net.centres(instances)
    assert (first, step) == ((net.context(instances) - 1) / 2, net.context(instances, 2) - net.context(instances))


def test_labels_do_not_depend_on_the_size_of_the_image():
    torch.manual_seed(0)
    net = GrowingContextNet("rcnn3", 2, 3).double()
    x = torch.randn(1, 2, net.context(2, 3), net.context(2, 2), dtype=torch.float64)
    large = net(x, 2)[-1]
    assert large.shape[2:] == (3, 2)
    for i in range(3):
        for j in range(2):
            patch = x[..., 4 * i : 4 * i + 67, 4 * j : 4 * j + 67]
            torch.testing.assert_close(net(patch, 2)[-1][..., 0, 0], large[..., i, j])


def test_every_instance_reads_the_reduced_image_and_the_labels_before():
    torch.manual_seed(0)
    net = GrowingContextNet("rcnn3", 2, 3).double()
    x = torch.randn(2, 2, 67, 69, dtype=torch.float64)
    read = []
    net.f.register_forward_pre_hook(lambda m, a: read.append(a[0]))
    first, second = net(x)
    assert torch.equal(read[0], torch.cat((x, torch.zeros(2, 3, 67, 69, dtype=torch.float64)), 1))
    assert torch.equal(read[1][:, 2:], first.softmax(1))
    torch.testing.assert_close(read[1][:, :2, 3, 5], x[:, :, 16:18, 20:22].mean((2, 3)))  # pixels 11 + 2 k and the one before
    whole = GrowingContextNet("rcnn3", 2, 3, rescale="whole").double()
    whole.load_state_dict(net.state_dict())
    assert whole(x)[1].shape == second.shape
    assert torch.equal(whole(x)[0], first)


def test_the_loss_takes_the_pixel_at_the_centre():
    torch.manual_seed(0)
    net = GrowingContextNet("rcnn3", 1, 3).double()
    x = torch.randn(2, 1, 67, 67, dtype=torch.float64)
    scores = net(x)
    labels = torch.randint(0, 3, (2, 67, 67))
    all_of_first = labels[:, 11:56:2, 11:56:2]
    want = torch.nn.functional.cross_entropy(scores[0], all_of_first)
    want = want + torch.nn.functional.cross_entropy(scores[1][..., 0, 0], labels[:, 33, 33])
    torch.testing.assert_close(net.loss(scores, labels), want)
    net.loss(scores, labels).backward()
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())


def test_what_is_no_network():
    with pytest.raises(ArgumentError, match="'rcnn4'"):
        GrowingContextNet("rcnn4")
    with pytest.raises(ArgumentError, match="'half'"):
        GrowingContextNet(rescale="half")
