"""Classifiers that have no exact dense form are refused, and the refusal names what stands in the way."""

import pytest
import torch
from torch import nn

from ninefold.errors import ModelError, UnsupportedError
from ninefold.structured.networks import densify


class Excited(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.squeeze = nn.Conv2d(2, 3, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = self.conv(x)
        return x * torch.sigmoid(self.squeeze(self.pool(x)))


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(2, 3, 3, stride=2), function

    def forward(self, x):
        return self.function(self.conv(x))


REFUSED = {
    "ceil": (
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.AvgPool2d(2, 2, 1, ceil_mode=True)),
        "layer '1' cannot be made dense: ceil_mode",
    ),
    "late": (nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(1, 2, ceil_mode=True)), "layer '1' cannot be made dense: ceil_mode"),
    "group norm": (nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)), "layer '1'.*GroupNorm is not known"),
    "reflected": (
        nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")),
        "layer '1'.*'reflect'.*(2, 2)",
    ),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(2, 3, 3)), "layer '0'.*ConvTranspose2d"),
    "upsampled": (nn.Sequential(nn.Conv2d(2, 3, 3), nn.Upsample(scale_factor=2)), "layer '1'.*Upsample"),
    "batch statistics": (
        nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.MaxPool2d(2)),
        "layer '0'.*running statistics",
    ),
    "indices": (nn.Sequential(nn.MaxPool2d(2, return_indices=True)), "layer '0'.*indices"),
    "global": (nn.Sequential(nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1)), "layer '1'.*give example="),
    "rows": (nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 3)), "layer '1'.*last axis of a map"),
    "no square": (nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(18, 3)), "layer '2'.*no square map.*example="),
    "flat": (nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()), "the output cannot be made dense: it is a flattened map"),
    "weights": (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3))), "layer '0'.*parametrizations"),
    "unpadded shortcut": (Function(lambda x: nn.functional.pad(x, (1, 1))), "the call 'pad' cannot be made dense"),
    "interpolated": (Function(lambda x: nn.functional.interpolate(x, scale_factor=2)), "interpolate"),
    "sliced": (Function(lambda x: x[:, :, 1:]), "takes a part of a map"),
    "other strides": (Function(lambda x: x + nn.functional.max_pool2d(x, 1, 2)), r"strides \(2, 2\) and \(4, 4\)"),
    "several outputs": (Function(lambda x: (x, x)), "it must be one|must be one tensor"),
    "along rows": (Function(lambda x: torch.cat((x, x), 2)), "along axis 2"),
    "view": (Function(lambda x: x.view(x.size(0), 3, -1)), "no flattening"),
    "softmax": (Function(lambda x: torch.softmax(x, dim=2)), "softmax over axis 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_exact_dense_form_is_refused_by_name(name):
    net, message = REFUSED[name]
    with pytest.raises(UnsupportedError, match=message.replace("(2, 2)", r"\(2, 2\)") if name == "reflected" else message):
        densify(net)


def test_weights_that_depend_on_the_window_are_refused():
    with pytest.raises(UnsupportedError, match=r"one would depend on the whole window"):
        densify(Excited(), torch.zeros(1, 2, 11, 9))


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda x: x[:, :1] == x, "takes a part of a map"),
        (lambda x: x == x + 1, "compares maps"),
        (lambda x: x.mT, "reads .mT of a map"),
    ],
)
def test_functions_of_whole_maps_are_refused_in_words(function, match):
    with pytest.raises(UnsupportedError, match=match):
        densify(Function(function), torch.zeros(1, 2, 9, 9))


def test_a_path_that_depends_on_numbers_cannot_be_traced():
    with pytest.raises(ModelError, match="cannot be traced"):
        densify(Function(lambda x: x if x.sum() > 0 else -x))
