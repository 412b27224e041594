import torch

from ninefold.models import alexnet


def shapes(net, *size):
    found = {}
    for name, module in net.named_children():
        module.register_forward_hook(lambda _m, _a, out, name=name: found.__setitem__(name, tuple(out.shape[1:])))
    net.to("meta").eval()(torch.zeros(1, *size, device="meta"))
    return found


def test_parameters_and_what_two_groups_save(macs):
    with torch.device("meta"):
        net = alexnet()
    assert sum(p.numel() for p in net.parameters()) == 60_965_224
    assert net.conv2.weight.numel() == 307_200
    assert net.conv2.spec.replace(groups=1).parameters() - 256 == 614_400
    assert [net.get_submodule(f"conv{k}").groups for k in range(1, 6)] == [1, 2, 1, 2, 2]
    counts = macs(net, *net.input_size)
    assert counts["conv1"] == 96 * 55 * 55 * 3 * 121
    assert counts["conv2"] == 307_200 * 27 * 27


def test_maps_are_those_of_the_paper():
    with torch.device("meta"):
        found = shapes(alexnet(), 3, 227, 227)
    expected = {
        "conv1": (96, 55, 55),
        "conv2": (256, 27, 27),
        "conv3": (384, 13, 13),
        "conv5": (256, 13, 13),
        "flatten": (9216,),
        "dense6": (4096,),
        "dense8": (1000,),
    }
    assert {n: found[n] for n in expected} == expected


def test_response_normalisation_is_the_papers():
    # b = a / (k + alpha * sum over 5 neighbouring channels of a^2) ^ beta
    with torch.device("meta"):
        net = alexnet(2)
    a = torch.arange(1.0, 97.0, dtype=torch.float64).view(1, 96, 1, 1)
    sums = torch.stack([(a[:, max(0, c - 2) : c + 3] ** 2).sum(1) for c in range(96)], 1)
    for norm in (net.norm1, net.norm2):
        torch.testing.assert_close(norm(a), a / (2 + 1e-4 * sums) ** 0.75)


def test_groups_do_not_see_one_another():
    torch.manual_seed(0)
    with torch.device("meta"):
        conv4 = alexnet(2).conv4
    conv4 = conv4.to_empty(device="cpu")
    for parameter in conv4.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(1, 384, 4, 5)
    changed = x.clone()
    changed[:, :192] = 0
    same = (conv4(x) == conv4(changed)).flatten(2).all(2)[0]
    assert same[192:].all()
    assert not same[:192].any()
