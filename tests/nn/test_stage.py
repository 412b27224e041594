"""Three stages as one: bit for bit the stages in their order, exchanged exactly where that is legal and saves work."""

import copy
import pickle

import pytest
import torch
from torch import nn as torch_nn

from ninefold import nn
from ninefold.errors import ArgumentTypeError
from ninefold.spec import PoolSpec


def name_of(value):
    """Name functions without their address: it differs between processes that share the tests out."""
    return getattr(value, "__name__", str(value))


TNF = torch.nn.functional
POOL = torch_nn.MaxPool2d((2, 3), padding=1)
EXCHANGED = [
    torch_nn.ReLU(),
    torch_nn.ReLU(inplace=True),
    torch_nn.ReLU6(),
    torch_nn.Hardtanh(-0.3, 0.4),
    torch_nn.LeakyReLU(0.1),
    torch_nn.Threshold(0.2, -0.5),
    torch.relu,
    TNF.leaky_relu,
]
KEPT = [
    (torch_nn.LeakyReLU(-0.1), "slope -0.1 decreases"),
    (torch_nn.Threshold(0.2, 5.0), "falls from 5.0 to 0.2"),
    (torch_nn.Tanh(), "not rounded alike"),
    (torch_nn.GELU(), "GELU is not known to be non-decreasing"),
    (torch_nn.PReLU(), "not known"),
    (torch.abs, "abs is not known"),
    (lambda x: x.relu(), "<lambda> is not known"),
]


class Steep(torch_nn.ReLU):
    """A subclass may do anything."""

    def forward(self, x):
        return -x


def stages(detector, pool=POOL, dtype=torch.float32):
    torch.manual_seed(0)
    return nn.ConvStage(nn.Conv2d(3, 5, (3, 2), dtype=dtype), detector, pool)


def in_order(stage, x):
    return stage.pool(stage.detector(stage.conv(x)))


def bits(x):
    """One zero, whatever its sign, and one NaN, whatever its payload."""
    return torch.where(x.isnan(), float("nan"), x + 0.0).view(torch.int32)


@pytest.mark.parametrize("detector", EXCHANGED, ids=name_of)
def test_exchanged_stages_are_bit_for_bit_the_stages_in_order(detector):
    stage = stages(detector)
    x = torch.randn(2, 3, 23, 26)
    x[0, 1, 4, 5], x[1, 0, 9, 9], x[1, 2, 15, 3] = float("nan"), float("inf"), -float("inf")
    assert stage.exchanged
    out, expected = stage(x), in_order(stage, x)
    assert expected.isnan().any()
    assert torch.equal(bits(out), bits(expected))


@pytest.mark.parametrize("detector", [d for d in EXCHANGED if not getattr(d, "inplace", False)], ids=name_of)
def test_so_are_their_gradients(detector):
    stage, x = stages(detector, dtype=torch.float64), torch.randn(2, 3, 12, 13, dtype=torch.double, requires_grad=True)
    up = torch.randn_like(stage(x))
    ours = torch.autograd.grad(stage(x), (x, stage.conv.weight), up)
    theirs = torch.autograd.grad(in_order(stage, x), (x, stage.conv.weight), up)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("detector", "reason"), [*KEPT, (Steep(), "Steep is not known")], ids=name_of)
def test_other_detectors_stay_before_the_pooling(detector, reason):
    stage, x = stages(detector), torch.randn(2, 3, 11, 13)
    assert not stage.exchanged
    assert reason in stage.reason
    assert torch.equal(stage(x), in_order(stage, x))


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        (torch_nn.AvgPool2d(2), "AvgPool2d does not take the maximum"),
        (torch_nn.LPPool2d(2, 2), "LPPool2d does not take the maximum"),
        (torch_nn.MaxPool2d(3, stride=1), "MaxPool2d with stride 1 leaves as many elements"),
    ],
    ids=name_of,
)
def test_other_pools_leave_the_detector_where_it_is(pool, reason):
    stage, x = stages(torch_nn.ReLU(), pool), torch.randn(2, 3, 11, 13)
    assert stage.reason == reason
    assert not stage.exchanged
    assert torch.equal(stage(x), in_order(stage, x))


def test_average_pooling_does_not_commute_with_a_detector():
    stage, x = stages(torch_nn.ReLU(), torch_nn.AvgPool2d(2)), torch.randn(2, 3, 11, 13)
    assert not torch.equal(stage(x), stage.detector(stage.pool(stage.conv(x))))


def test_indices_are_those_of_the_stages_in_order():
    stage, x = stages(torch_nn.ReLU(), torch_nn.MaxPool2d(2, return_indices=True)), torch.randn(2, 3, 11, 13)
    assert "indices" in stage.reason
    assert all(torch.equal(a, b) for a, b in zip(stage(x), in_order(stage, x), strict=True))


def test_the_detector_sees_fewer_elements_where_stages_are_exchanged():
    seen = []

    class Counting(torch_nn.Sequential):
        def forward(self, x):
            seen.append(x.numel())
            return super().forward(x)

    for detector, pool, elements in (
        (torch_nn.ReLU(), torch_nn.MaxPool2d(2), 5 * 4 * 6),
        (torch_nn.ReLU(), torch_nn.AdaptiveMaxPool2d(3), 5 * 9),
        (torch_nn.Tanh(), torch_nn.MaxPool2d(2), 5 * 9 * 12),
    ):
        stage = stages(detector, pool)
        detector.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel()))
        stage(torch.randn(1, 3, 11, 13))
        assert seen.pop() == elements


class OwnPool(torch_nn.Module):
    """A pool with a description, as ninefold's are."""

    def __init__(self, spec):
        super().__init__()
        self.spec = spec

    def forward(self, x):
        return TNF.max_pool2d(x, self.spec.kernel_size, self.spec.stride)


def test_pools_with_a_description_are_understood():
    x = torch.randn(2, 3, 11, 13)
    stage = stages(torch_nn.ReLU(), OwnPool(PoolSpec((2, 3))))
    assert stage.exchanged
    assert torch.equal(stage(x), in_order(stage, x))
    assert stages(torch_nn.ReLU(), OwnPool(PoolSpec((2, 3), reduction="average"))).reason == "OwnPool does not take the maximum"
    assert "stride 1" in stages(torch_nn.ReLU(), OwnPool(PoolSpec((2, 3), stride=1))).reason


def test_zeros_of_a_border_stay_what_the_detector_would_make_of_zeros():
    pool = OwnPool(PoolSpec((2, 3)))
    object.__setattr__(pool.spec, "padding_mode", "zeros")
    assert "zeros of a border" in stages(torch_nn.ReLU(), pool).reason


def test_a_changed_stage_is_seen_at_the_next_call():
    stage, x = stages(torch_nn.LeakyReLU(0.1)), torch.randn(2, 3, 11, 13)
    assert stage.exchanged
    stage.detector.negative_slope = -0.1
    assert not stage.exchanged
    assert torch.equal(stage(x), in_order(stage, x))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_any_number_of_axes(n):
    conv = getattr(nn, f"Conv{n}d")(2, 3, 2)
    stage = nn.ConvStage(conv, torch_nn.ReLU(), getattr(torch_nn, f"MaxPool{n}d")(2))
    x = torch.randn(2, 2, *(7, 8, 9)[:n])
    assert stage.exchanged
    assert torch.equal(stage(x), in_order(stage, x))
    assert torch.equal(stage(x[0]), in_order(stage, x[0]))


def test_the_text_says_the_order_and_why():
    assert "order: conv, pool, detector, for max pooling commutes with ReLU, bit for bit" in repr(stages(torch_nn.ReLU()))
    assert "order: conv, detector, pool, for AvgPool2d does not take the maximum" in repr(
        stages(torch.relu, torch_nn.AvgPool2d(2))
    )
    assert "(detector): relu" in repr(stages(torch.relu))


@pytest.mark.parametrize("detector", [torch_nn.ReLU(), torch.relu], ids=name_of)
def test_stages_are_copied_pickled_loaded_and_compiled(detector):
    stage, x = stages(detector), torch.randn(2, 3, 11, 13)
    z, other = stage(x), stages(detector)
    other.load_state_dict(stage.state_dict())
    compiled = torch.compile(stage, backend="aot_eager", fullgraph=True)
    for twin in (copy.deepcopy(stage), pickle.loads(pickle.dumps(stage)), other, compiled):
        assert torch.equal(twin(x), z)


def test_what_is_no_stage_is_refused_in_words():
    with pytest.raises(ArgumentTypeError, match="pool must be a module of torch.nn or ninefold.nn, got type int"):
        nn.ConvStage(nn.Conv2d(1, 1, 3), torch.relu, 2)
    with pytest.raises(ArgumentTypeError, match="detector must be a module or a function of a tensor, got type str"):
        nn.ConvStage(nn.Conv2d(1, 1, 3), "relu", POOL)


@pytest.mark.parametrize(
    ("pool", "against"),
    [
        (nn.MaxPool2d((2, 3), padding=1), None),
        (nn.MaxPool2d((2, 3), 2, "same", padding_mode="reflect"), None),
        (nn.MaxPool2d(2, padding=((0, 1), (1, 0)), ceil_mode="cover"), None),
        (nn.MaxPool2d(2, 2, dilation=2), None),
        (nn.AdaptiveMaxPool2d((3, 2), bins="disjoint"), None),
        (nn.MaxPool2d(2, 2, 1, 3), "windows around the input that hold nothing"),
        (nn.MaxPool2d(2, 2, "same", dilation=3), "windows around the input that hold nothing"),
        (nn.MaxPool2d(2, padding=1, padding_mode="zeros"), "zeros of a border"),
        (nn.MaxPool2d(2, 1), "stride 1"),
        (nn.MaxPool2d(2, return_indices=True), "indices"),
        (nn.AvgPool2d(2), "does not take the maximum"),
    ],
    ids=name_of,
)
def test_poolings_of_this_library_are_exchanged_where_every_window_holds_something(pool, against):
    stage, x = stages(torch_nn.Hardtanh(-0.3, 0.4), pool), torch.randn(2, 3, 9, 10)
    assert stage.exchanged == (against is None)
    assert (against or "commutes") in stage.reason
    got, want = stage(x), in_order(stage, x)
    for a, b in zip(*((out if isinstance(out, tuple) else (out,)) for out in (got, want)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("pool", [torch_nn.MaxPool2d(2), torch_nn.AvgPool2d(3, 2), nn.MaxPool2d((2, 3))], ids=str)
@pytest.mark.parametrize("last", [False, True])
def test_a_large_result_goes_through_the_stages_a_few_images_at_a_time(monkeypatch, pool, last):
    torch.manual_seed(0)
    stage = nn.ConvStage(nn.Conv2d(3, 6, (3, 2), (1, 2)), torch_nn.ReLU(), copy.deepcopy(pool))
    x = torch.randn(5, 3, 20, 31)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    seen = []
    monkeypatch.setattr(type(pool), "forward", lambda self, y, whole=type(pool).forward: seen.append(len(y)) or whole(self, y))
    with torch.no_grad():
        expected = stage(x)
        monkeypatch.setattr("ninefold.nn.stage._FRESH", 4 * 6 * (20 * 31 // 2) * 4)
        got = stage(x)
    assert seen == [5, 2, 2, 1]
    torch.testing.assert_close(got, expected)
    assert got.stride() == expected.stride()
    stage(x)  # with gradients, all at once
    stage.pool.register_forward_hook(lambda *given: None)
    with torch.no_grad():
        stage(x)  # somebody looks
    assert seen[4:] == [5, 5]
