import pytest
import torch
from torch import nn

from ninefold.errors import ArgumentError
from ninefold.models import large_kernel_net
from ninefold.models.large_kernel import LongBranch


def test_nearly_all_work_is_in_large_kernels_and_the_rest_is_small(macs):
    model = large_kernel_net()
    counts = macs(model, *model.input_size)
    large = {n: v for n, v in counts.items() if n.endswith(("large", "long"))}
    assert len(large) == 5
    assert large["stages.0.block1.large"] == 48 * 64 * 64 * 31 * 31
    assert large["branch.long"] == 48 * 64 * 64 * 1023
    assert 0.85 < sum(large.values()) / sum(counts.values()) < 1
    kernels = {tuple(m.kernel_size) for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d))}
    assert kernels == {(3, 3), (1, 1), (2, 2), (31, 31), (1023,)}


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(5)
    model = large_kernel_net(widths=(4, 6), depths=(1, 2), kernel_size=7, long_kernel_size=31, num_classes=3)
    out = model(torch.randn(2, 3, 24, 36))
    assert out.shape == (2, 3)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_branch_reads_the_map_row_by_row():
    # An impulse at the end of a row must reach the start of the next one, which no 2-D kernel of this extent reaches.
    branch = LongBranch(2, 3)
    nn.init.ones_(branch.long.weight)
    nn.init.zeros_(branch.gate.weight)  # an even gate, so that only the sequence moves anything
    with torch.no_grad():
        impulse = torch.zeros(1, 2, 4, 6)
        impulse[0, 1, 1, 5] = 1
        moved = branch(impulse) - branch(torch.zeros(1, 2, 4, 6))
    assert moved.nonzero().tolist() == [[0, 1, 1, 4], [0, 1, 1, 5], [0, 1, 2, 0]]


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        ({"kernel_size": 30}, "30"),
        ({"long_kernel_size": 64}, "64"),
        ({"depths": (1,)}, r"\(1,\)"),
        ({"widths": ()}, "widths"),
    ],
)
def test_numbers_that_do_not_fit(wrong, shown):
    with pytest.raises(ArgumentError, match=shown):
        large_kernel_net(**wrong)
