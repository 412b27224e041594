import pytest
import torch
from torch import nn

from ninefold.errors import ArgumentError
from ninefold.models import mobilenet_v1


def millions(count):
    return round(count / 1e6, 1)


def test_multiply_adds_and_parameters(macs):
    model = mobilenet_v1()
    assert sum(macs(model, *model.input_size).values()) == 568_740_352
    assert sum(p.numel() for p in model.parameters()) == 4_231_976
    weights = {n: m.weight.numel() for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert sum(weights.values()) == 4_209_088
    assert round(100 * sum(v for n, v in weights.items() if "pointwise" in n) / 4_209_088, 2) == 74.59
    assert round(100 * weights["classifier"] / 4_209_088, 2) == 24.33


def test_where_the_work_is(macs):
    counts = macs(mobilenet_v1(), 3, 224, 224)

    def share(part):
        return round(100 * sum(v for n, v in counts.items() if part in n) / sum(counts.values()), 2)

    assert [share(p) for p in ("pointwise", "depthwise", "stem", "classifier")] == [94.86, 3.06, 1.91, 0.18]


@pytest.mark.parametrize(("width", "expected"), [(0.75, 325.4), (0.5, 149.5), (0.25, 41.0)])
def test_widths(macs, width, expected):
    assert millions(sum(macs(mobilenet_v1(width), 3, 224, 224).values())) == expected


@pytest.mark.parametrize(("resolution", "expected"), [(192, 418.1), (160, 290.7), (128, 186.4)])
def test_resolutions(macs, resolution, expected):
    model = mobilenet_v1(resolution=resolution)
    assert model.input_size == (3, resolution, resolution)
    assert millions(sum(macs(model, *model.input_size).values())) == expected


def test_fully_convolutional_twin(macs):
    twin = mobilenet_v1(separable=False)
    assert round(sum(macs(twin, 3, 224, 224).values()) / 1e6) == 4867
    assert millions(sum(p.numel() for p in twin.parameters())) == 29.3


def test_last_map_is_7x7_at_224():
    model = mobilenet_v1(0.25).eval()
    with torch.no_grad():
        features = model.blocks(model.stem(torch.zeros(1, 3, 224, 192)))
    assert features.shape == (1, 256, 7, 6)


def test_runs_and_depends_on_the_image():
    torch.manual_seed(3)
    model = mobilenet_v1(0.25, num_classes=7).eval()
    with torch.no_grad():
        out = model(torch.randn(2, 3, 70, 33))
    assert out.shape == (2, 7)
    assert (out[0] - out[1]).abs().max() > 0.01  # with torch's initial weights no image would change anything


@pytest.mark.parametrize("wrong", [{"width": 0.0}, {"width": -1.0}, {"resolution": 31}, {"num_classes": 0}])
def test_sizes_that_are_none(wrong):
    with pytest.raises(ArgumentError, match=str(next(iter(wrong.values())))):
        mobilenet_v1(**wrong)
