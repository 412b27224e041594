import copy
import pickle

import pytest
import torch

import ninefold as nf
from ninefold import nn
from ninefold.errors import UnsupportedError


class Twice(torch.nn.Module):
    """A model that calls one layer twice, holds it in a list too, and has a hook."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, (3, 5), padding="same", padding_mode="circular")
        self.up = torch.nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1)
        self.norm = torch.nn.BatchNorm2d(4)
        self.plain = [self.conv]
        self.seen = []
        self.conv.register_forward_hook(lambda m, a, out: self.seen.append(type(m)))

    def forward(self, x):
        return self.norm(self.up(self.conv(self.plain[0](x))))


def test_convert_shares_tensors_and_gives_the_same_numbers():
    torch.manual_seed(0)
    model = Twice().eval()
    twin = nf.convert(model)
    assert isinstance(twin.conv, nn.Conv2d)
    assert type(model.conv) is torch.nn.Conv2d
    assert twin.plain[0] is twin.conv
    assert all(a is b for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert all(a is b for a, b in zip(model.buffers(), twin.buffers(), strict=True))
    x = torch.randn(2, 3, 9, 11)
    torch.testing.assert_close(twin(x), model(x))
    assert nn.Conv2d in twin.seen or nn.Conv2d in model.seen


def test_convert_in_place_and_back():
    model = Twice().eval()
    x = torch.randn(1, 3, 8, 10)
    expected = model(x)
    assert nf.convert(model, inplace=True) is model
    assert isinstance(model.conv, nn.Conv2d)
    torch.testing.assert_close(model(x), expected)
    nf.revert(model, inplace=True)
    assert type(model.conv) is torch.nn.Conv2d
    assert type(model.up) is torch.nn.ConvTranspose2d
    torch.testing.assert_close(model(x), expected)
    assert set(vars(model.conv)) == set(vars(torch.nn.Conv2d(3, 3, (3, 5))))


def test_convert_survives_copy_and_pickle():
    model = nf.convert(torch.nn.Sequential(torch.nn.Conv1d(4, 6, 3), torch.nn.ReLU()))
    x = torch.randn(2, 4, 12)
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other(x), expected)


def test_what_is_left_alone_is_named_with_the_reason():
    class Own(torch.nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    class Named(torch.nn.Module):
        """No convolution, whatever it is called."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))

    class Foreign(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel_size, self.weight = (3,), torch.nn.Parameter(torch.ones(2, 1, 3))

    ConvNorm = type("ConvNorm", (Named,), {})
    OwnLazy = type("OwnLazy", (torch.nn.LazyConv2d,), {})
    model = torch.nn.Sequential(Own(3, 3, 3), ConvNorm(), OwnLazy(5, 3), torch.nn.Conv2d(3, 3, 1), Foreign())
    reasons = nf.unconverted(model)
    assert list(reasons) == ["0", "2", "4"]
    assert reasons["0"] == "Own.forward may mean something else than Conv2d.forward"
    assert "no weight yet" in reasons["2"]
    assert "Foreign" in reasons["4"]
    twin = nf.convert(model)
    assert type(twin[0]) is Own
    assert isinstance(twin[3], nn.Conv2d)


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (nn.Conv2d(2, 3, 3, flip_kernel=True), "flip_kernel"),
        (nn.Conv2d(2, 3, 3, padding=1, padding_mode="symmetric"), "symmetric"),
        (nn.Conv2d(2, 3, 3, stride=2, padding="same"), "same_upper"),
        (nn.Conv2d(2, 3, 3, padding=((0, 1), (1, 1))), "both sides"),
    ],
)
def test_revert_refuses_what_torch_lacks_and_changes_nothing(layer, word):
    model = torch.nn.Sequential(nn.Conv2d(2, 2, 3), layer)
    with pytest.raises(UnsupportedError, match=word):
        nf.revert(model, inplace=True)
    assert isinstance(model[0], nn.Conv2d)


def test_revert_goes_into_layers_made_of_layers():
    torch.manual_seed(3)
    model = torch.nn.Sequential(
        nn.DepthwiseSeparableConv2d(3, 8, (3, 5), padding=1, multiplier=2, between=torch.nn.BatchNorm2d(6)),
        nn.MLPConv2d(8, (6, 4), 3),
        nn.PointwiseGroupConv2d(4, 6, groups=2, stride=(1, 2)),
        nn.ShuffleUnit(6, 24, groups=3, stride=2),
    ).eval()
    plain = nf.revert(model)
    assert {type(m).__module__ for m in plain.modules() if "Conv2d" in type(m).__name__ and not list(m.children())} == {
        "torch.nn.modules.conv"
    }
    assert all(a is b for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    x = torch.randn(2, 3, 13, 18)
    torch.testing.assert_close(plain(x), model(x))
    assert type(model[2]) is nn.PointwiseGroupConv2d


def test_freeze_is_the_users_word_and_is_taken_back():
    torch.manual_seed(0)
    model = nf.freeze(nf.convert(torch.nn.Sequential(torch.nn.Conv2d(2, 2, (25, 21), groups=2))).eval())
    x = torch.randn(1, 2, 60, 70)
    with torch.no_grad(), nf.options(tolerance=1e-4):
        before = model(x)
        model[0].weight.mul_(2)
        assert torch.equal(model(x), before) or model[0].site.bind(x, model[0].weight).plan("c").engine.startswith(
            ("aten", "direct")
        )
        model.load_state_dict(model.state_dict())
        assert not model[0].frozen
        after = model(x)
    bias = model[0].bias.view(1, 2, 1, 1)
    torch.testing.assert_close(after - bias, 2 * (before - bias), rtol=1e-3, atol=1e-4)
    nf.freeze(model)
    assert not model.double()[0].frozen
    nf.freeze(model)
    assert not model.train()[0].frozen


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
def test_lazy_layers_are_converted_before_and_after_their_first_call(called, inplace):
    x = torch.randn(2, 3, 9, 11)
    model = torch.nn.Sequential(torch.nn.LazyConv2d(4, (3, 2), padding=1), torch.nn.LazyConvTranspose2d(5, 3, 2))
    if called:
        model(x)
    twin = nf.convert(model, inplace=inplace)
    assert [isinstance(layer, nn.conv.Planned) for layer in twin] == [True, True]
    assert nf.unconverted(model) == {}
    back = nf.revert(twin)
    assert [type(layer).__module__.partition(".")[0] for layer in back] == ["torch", "torch"]
    expected = twin(x)
    assert (type(twin[0]), type(twin[1])) == (nn.Conv2d, nn.ConvTranspose2d)
    assert twin[0].in_channels == 3
    torch.testing.assert_close(nf.revert(twin)(x), expected)
    torch.testing.assert_close(back(x), expected)
