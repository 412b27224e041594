import pytest
import torch

from ninefold.errors import ArgumentError
from ninefold.models import shufflenet_v1

MACS = {1: 143_078_976, 2: 140_836_512, 3: 137_460_672, 4: 134_339_776, 8: 138_365_952}


@pytest.mark.parametrize("groups", MACS)
def test_multiply_adds(macs, groups):
    net = shufflenet_v1(groups)
    counts = macs(net, *net.input_size)
    assert sum(counts.values()) == MACS[groups]
    assert round((sum(counts.values()) - counts["dense"]) / 1e6) == {1: 143, 2: 140, 3: 137, 4: 133, 8: 137}[groups]


def test_parameters_and_units():
    net = shufflenet_v1(3)
    assert sum(p.numel() for p in net.parameters()) == 1_864_728
    assert [len(stage) for stage in (net.stage2, net.stage3, net.stage4)] == [4, 8, 4]
    assert [unit.reduce.groups for unit in (net.stage2[0], net.stage2[1], net.stage3[0])] == [1, 3, 3]
    assert net.dense.bias is None


def test_widths_and_what_is_none():
    net = shufflenet_v1(8, num_classes=4, width=0.5).eval()
    assert [s[-1].expand.out_channels for s in (net.stage2, net.stage3, net.stage4)] == [192, 384, 768]
    assert net.stem.conv.out_channels == 16  # 12 would leave a branch of 180 channels, which 8 groups do not divide
    assert net(torch.randn(1, 3, 40, 33)).shape == (1, 4)
    assert shufflenet_v1(3, width=0.5).stem.conv.out_channels == 12
    with pytest.raises(ArgumentError, match="groups=5 must be one of"):
        shufflenet_v1(5)
    with pytest.raises(ArgumentError, match="groups=8 must divide"):
        shufflenet_v1(8, width=0.3)
