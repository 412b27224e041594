"""What a test must not see of those before it (`conftest.py`)."""

import pytest
import torch

from ninefold import nn


@pytest.mark.parametrize("size", [(9, 10), (11, 13), (12, 17)])
def test_nothing_that_was_compiled_before_matters(size):
    """The second size of a module would be compiled for all sizes, whose sums come in another order."""
    stage, x = nn.ConvStage(nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2)), torch.randn(2, 3, *size)
    assert torch.equal(torch.compile(stage, backend="aot_eager", fullgraph=True)(x), stage(x))
