import pytest
import torch

from ninefold.errors import ArgumentError
from ninefold.models import deeplab_v1
from ninefold.network import receptive_fields


@pytest.mark.parametrize(
    ("head", "count", "rate"), [("7x7", 134_346_581, 4), ("4x4", 65_140_565, 8), ("large_fov", 20_505_429, 12)]
)
def test_parameters_rates_and_stride(head, count, rate):
    with torch.device("meta"):
        net = deeplab_v1(head).eval()
        assert sum(p.numel() for p in net.parameters()) == count
        assert net.head.fc6.dilation == (rate, rate)
        assert net.head.fc6.spec.extent == (25, 25)
        image = torch.zeros(1, 3, 321, 305)
        assert net.scores(image).shape == (1, 21, 41, 39)
        assert net(image).shape == (1, 21, 321, 305)
    rates = {n: m.dilation for n, m in net.trunk.named_children() if n.startswith("conv")}
    assert {n for n, d in rates.items() if d == (2, 2)} == {"conv5_1", "conv5_2", "conv5_3"}
    assert {d for n, d in rates.items() if not n.startswith("conv5")} == {(1, 1)}


def test_the_first_4x4_network_had_a_smaller_rate():
    with torch.device("meta"):
        net = deeplab_v1("4x4", rate=4)
        assert net.head.fc6.spec.extent == (13, 13)
        assert sum(p.numel() for p in net.parameters()) == 65_140_565
        assert net.scores(torch.zeros(1, 3, 65, 81)).shape == (1, 21, 9, 11)


def test_holes_keep_what_strides_would_have_seen():
    # conv5 with holes sees what it saw behind a pool of stride 2: twice the step between its taps
    with torch.device("meta"):
        net = deeplab_v1()
        fields = receptive_fields(net.eval(), torch.zeros(1, 3, 321, 321))
    step = 8 * 2 * 2  # stride 8, rate 2, from the first to the last of three taps
    assert fields["trunk.conv5_3"][0] - fields["trunk.conv5_2"][0] == step
    assert fields["head.fc6"][0] - fields["trunk.conv5_3"][0] == 24 * 8 + 2 * 8  # fc6, and pool5 before it
    assert fields["head.fc8"] == fields["head.fc6"]


def test_corners_of_the_scores_stay_where_they_are():
    torch.manual_seed(0)
    net = deeplab_v1(num_classes=3).eval()
    image = torch.randn(1, 3, 33, 41)
    with torch.no_grad():
        small, large = net.scores(image), net(image)
    assert small.shape == (1, 3, 5, 6)
    torch.testing.assert_close(large[:, :, ::8, ::8], small)
    torch.testing.assert_close(large[:, :, 0, 4], (small[:, :, 0, 0] + small[:, :, 0, 1]) / 2)


def test_what_is_no_network():
    with pytest.raises(ArgumentError, match="'5x5'.*large_fov"):
        deeplab_v1("5x5")
    with pytest.raises(ArgumentError, match="rate=5 must be positive, and even for an even kernel"):
        deeplab_v1("4x4", rate=5)
