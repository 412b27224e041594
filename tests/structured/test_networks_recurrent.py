"""Figure 9.17, definition by definition."""

import pytest
import torch

from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.structured.networks import RecurrentConvNet, step_loss

SIZES = {1: (11,), 2: (9, 7), 3: (5, 4, 6)}


def net_of(ndim=2, **more):
    torch.manual_seed(0)
    kernels = {"kernel_size": (5, 3, 3)[:ndim], "label_kernel_size": (3, 5, 1)[:ndim], "output_kernel_size": (1, 3, 1)[:ndim]}
    return RecurrentConvNet(2, 5, 3, ndim=ndim, **(kernels | more)).double()


def image_of(ndim=2):
    return torch.randn(2, 2, *SIZES[ndim], dtype=torch.float64)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_steps_are_those_of_the_figure(ndim):
    net, x = net_of(ndim), image_of(ndim)
    conv = getattr(torch.nn.functional, f"conv{ndim}d")

    def plain(layer, y):
        return conv(y, layer.weight, layer.bias, padding=tuple(k // 2 for k in layer.kernel_size))

    want, y = [], None
    for _ in range(3):
        h = torch.tanh(plain(net.U, x) + (0 if y is None else plain(net.W, y)))
        want.append(plain(net.V, h))
        y = want[-1].softmax(1)
    got = net(x)
    assert len(got) == 3
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(got[-1].softmax(1).sum(1), torch.ones(2, *SIZES[ndim], dtype=torch.float64))
    assert not torch.allclose(got[0], got[1])


def test_one_step_is_a_plain_network_of_two_layers():
    net, x = net_of(), image_of()
    plain = torch.nn.Sequential(net.U, net.act, net.V)
    (got,) = net(x, 1)
    assert torch.equal(got, plain(x))


def test_without_w_all_steps_coincide():
    net, x = net_of(), image_of()
    torch.nn.init.zeros_(net.W.weight)
    steps = net(x, 4)
    assert all(torch.equal(s, steps[0]) for s in steps)


def test_the_image_is_convolved_once(monkeypatch):
    net, calls = net_of(), []
    for name in ("U", "W", "V"):
        getattr(net, name).register_forward_hook(lambda *_, name=name: calls.append(name))
    net(image_of(), 5)
    assert {n: calls.count(n) for n in "UWV"} == {"U": 1, "W": 4, "V": 5}


def test_the_gradient_of_a_shared_kernel_is_the_sum_over_unrolled_copies():
    net, x = net_of(), image_of()
    labels = torch.randint(0, 3, (2, 9, 7))
    shared = torch.autograd.grad(step_loss(net(x, 3), labels), [net.U.weight, net.W.weight, net.V.weight])
    copies = [net_of() for _ in range(3)]
    for copy in copies:
        copy.load_state_dict(net.state_dict())
    y, found = None, []
    for copy in copies:
        total = copy.U(x) if y is None else copy.U(x) + copy.W(y)
        found.append(copy.V(copy.act(total)))
        y = found[-1].softmax(1)
    step_loss(found, labels).backward()
    for name, got in zip("UWV", shared, strict=True):
        parts = [getattr(c, name).weight.grad for c in copies]
        torch.testing.assert_close(got, sum(p for p in parts if p is not None))
    assert copies[0].W.weight.grad is None


def test_a_call_goes_on_where_another_ended():
    net, x = net_of(), image_of()
    whole = net(x, 5)
    rest = net(x, 3, labels=net(x, 2)[-1].softmax(1))
    for a, b in zip(whole[2:], rest, strict=True):
        assert torch.equal(a, b)


def test_the_batch_and_gradients():
    net, x = net_of(), image_of().requires_grad_()
    for k in range(2):
        torch.testing.assert_close(net(x)[-1][k : k + 1], net(x[k : k + 1])[-1])
    small = RecurrentConvNet(1, 2, 2, kernel_size=3, label_kernel_size=3, ndim=1).double()
    assert torch.autograd.gradcheck(lambda v: small(v)[-1], torch.randn(1, 1, 5, dtype=torch.float64, requires_grad=True))


def test_parameters():
    net = net_of()
    assert sum(p.numel() for p in net.parameters()) == 15 * 2 * 5 + 5 + 15 * 3 * 5 + 3 * 5 * 3 + 3


def test_the_loss_is_a_weighted_sum_of_means():
    net, x = net_of(), image_of()
    labels = torch.randint(0, 3, (2, 9, 7))
    labels[0, :3] = 255
    steps = net(x)
    each = [torch.nn.functional.cross_entropy(s, labels, ignore_index=255) for s in steps]
    torch.testing.assert_close(step_loss(steps, labels, (1, 0, 2.5), ignore_index=255), each[0] + 2.5 * each[2])
    torch.testing.assert_close(step_loss(steps, labels.to(torch.uint8), ignore_index=255), sum(each))
    nothing = step_loss(steps, torch.full_like(labels, 255), ignore_index=255)
    nothing.backward()
    assert nothing == 0
    assert not net.U.weight.grad.any()


def test_what_does_not_fit_is_said():
    net, x = net_of(), image_of()
    with pytest.raises(ShapeError, match=r"\(2, 3, 9, 7\); it must be \(batch, 2, 2 spatial axes\)"):
        net(torch.zeros(2, 3, 9, 7))
    with pytest.raises(DTypeError, match="int64"):
        net(torch.zeros(2, 2, 9, 7, dtype=torch.long))
    with pytest.raises(ArgumentError, match="steps must be at least 1, got 0"):
        net(x, 0)
    with pytest.raises(ShapeError, match="spatial sizes must be equal"):
        net(x, labels=torch.zeros(2, 3, 9, 6, dtype=torch.float64))
    with pytest.raises(ArgumentError, match="2 weights and 3 steps"):
        step_loss(net(x), torch.zeros(2, 9, 7, dtype=torch.long), (1, 1))
    with pytest.raises(ArgumentError, match="label 3 is none of 0 to 2"):
        step_loss(net(x), torch.full((2, 9, 7), 3))
    with pytest.raises(ShapeError, match=r"\(2, 9, 6\); it must be \(2, 9, 7\)"):
        step_loss(net(x), torch.zeros(2, 9, 6, dtype=torch.long))
    with pytest.raises(ArgumentError, match="no step"):
        step_loss([], torch.zeros(1, 2, 2, dtype=torch.long))
    with pytest.raises(ArgumentError, match="ndim=4"):
        RecurrentConvNet(1, 1, 1, ndim=4)
