import torch

from ninefold.models import network_in_network


def test_parameters_and_maps():
    net = network_in_network()
    assert sum(p.numel() for p in net.parameters()) == 966_986
    assert not [m for m in net.modules() if isinstance(m, torch.nn.Linear)]
    sizes = []
    for pool in (net.pool1, net.pool2):
        pool.register_forward_hook(lambda _m, _a, out: sizes.append(tuple(out.shape[2:])))
    assert net.to("meta")(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 10)
    assert sizes == [(16, 16), (8, 8)]


def test_any_size_and_no_negative_logit():
    torch.manual_seed(0)
    net = network_in_network(4).eval()
    for size in ((4, 5), (17, 30)):
        out = net(torch.randn(2, 3, *size))
        assert out.shape == (2, 4)
        assert out.min() >= 0
    assert out.max() > 0


def test_average_of_the_last_maps_is_the_logit():
    net = network_in_network(3).eval()
    x = torch.randn(1, 3, 20, 27)
    maps = net[: list(dict(net.named_children())).index("average")](x)
    torch.testing.assert_close(net(x), maps.mean((2, 3)))
