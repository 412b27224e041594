"""What is exchanged is decided by what a call would run, on the class and on the object."""

import copy
import pickle

import pytest
import torch
from torch import nn as T
from torch.nn.utils import parametrizations, parametrize, prune

import ninefold as nf
from ninefold import nn
from ninefold.network.kinds import altered, twin_type

x = torch.randn(2, 4, 12, 15, generator=torch.Generator().manual_seed(0))


class Depthwise(T.Conv2d):
    """Only sets defaults."""

    def __init__(self, channels, kernel_size):
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=False)

    def scale(self):
        return 2


class Doubled(T.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class Padded(T.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x + 1, weight, bias)


class Standardized(T.Conv2d):
    """Computes its weight."""

    weight = property(lambda self: 2 * self.raw, lambda self, value: None)

    def __init__(self, *args):
        super().__init__(*args)
        self.raw = self._parameters.pop("weight")
        T.init.normal_(self.raw)

    def reset_parameters(self):
        self.bias.data.fill_(0.5)


class Up(T.ConvTranspose2d):
    def _output_padding(self, *args, **kwargs):
        return [1, 1]


def patched(name):
    layer = T.Conv2d(4, 3, 3)
    own = getattr(layer, name)
    setattr(layer, name, lambda *args, **kwargs: own(*args, **kwargs) + 1)
    return layer


LEFT = {
    "forward": lambda: Doubled(4, 3, 3),
    "_conv_forward": lambda: Padded(4, 3, 3),
    "weight": lambda: Standardized(4, 3, 3),
    "_output_padding": lambda: Up(4, 3, 3, 2),
    "forward of this object": lambda: patched("forward"),
    "_conv_forward of this object": lambda: patched("_conv_forward"),
}


@pytest.mark.parametrize("word", LEFT)
def test_what_overrides_something_that_is_called_is_left_alone_and_named(word):
    torch.manual_seed(0)
    net = T.Sequential(LEFT[word]()).eval()
    kind = type(net[0])
    for result in (nf.convert(net), nf.optimize(net, x, mode="estimate")[0]):
        assert type(result[0]) is kind
        torch.testing.assert_close(result(x), net(x))
    assert word in nf.unconverted(net)["0"]


def test_a_subclass_that_overrides_nothing_is_converted_and_stays_what_it_is():
    torch.manual_seed(0)
    net = T.Sequential(Depthwise(4, 5), Depthwise(4, 3)).eval()
    twin = nf.convert(net)
    assert isinstance(twin[0], nn.Conv2d)
    assert isinstance(twin[0], Depthwise)
    assert type(twin[0]) is type(twin[1])
    assert twin[0].scale() == 2
    assert nf.unconverted(net) == {}
    assert twin[0].weight is net[0].weight
    expected = net(x)
    assert type(nf.revert(twin)[0]) is Depthwise
    for other in (twin, copy.deepcopy(twin), pickle.loads(pickle.dumps(twin)), nf.freeze(copy.deepcopy(twin)), nf.revert(twin)):
        torch.testing.assert_close(other(x), expected, rtol=1e-4, atol=1e-5)
    for inplace in (False, True):
        torch.testing.assert_close(nf.optimize(net, x, mode="estimate", inplace=inplace)[0](x), expected, rtol=1e-4, atol=1e-5)


def test_a_planned_layer_whose_forward_is_patched_is_not_planned_for():
    layer = nn.Conv2d(4, 3, 3)
    own = layer.forward
    layer.forward = lambda v: own(v) + 1
    fast, report = nf.optimize(T.Sequential(layer).eval(), x, mode="estimate")
    assert report.rows == ()
    assert altered(layer, nn.Conv2d) == "forward of this object"
    assert twin_type(layer) is None
    torch.testing.assert_close(fast(x), layer(x))


class Counted(T.Module):
    """A parametrization that counts how often it is asked."""

    def __init__(self):
        super().__init__()
        self.factor = T.Parameter(torch.tensor(3.0))
        self.asked = 0

    def forward(self, weight):
        self.asked += 1
        return weight * self.factor


def parametrized():
    torch.manual_seed(0)
    conv, up = T.Conv2d(4, 6, 3), T.ConvTranspose2d(6, 5, (3, 2), 2)
    parametrize.register_parametrization(conv, "weight", Counted())
    return T.Sequential(conv, T.ReLU(), parametrizations.weight_norm(up)).eval()


def hooked():
    torch.manual_seed(0)
    with pytest.warns(FutureWarning):
        conv = T.utils.weight_norm(T.Conv2d(4, 6, 3))
    up = T.utils.spectral_norm(T.ConvTranspose2d(6, 5, (3, 2), 2))
    pruned = prune.l1_unstructured(T.Conv2d(5, 3, 3), "weight", amount=0.5)
    return T.Sequential(conv, T.ReLU(), up, pruned).eval()


@pytest.mark.parametrize("make", [parametrized, hooked])
@pytest.mark.parametrize("how", ["convert", "in place", "optimize", "optimize in place", "train"])
def test_a_weight_that_is_computed_is_no_obstacle(make, how):
    model = make()
    expected, keys = model(x).detach(), list(model.state_dict())
    result = {
        "convert": lambda: nf.convert(model),
        "in place": lambda: nf.convert(model, inplace=True),
        "optimize": lambda: nf.optimize(model, x, mode="estimate")[0],
        "optimize in place": lambda: nf.optimize(model, x, mode="estimate", inplace=True)[0],
        "train": lambda: nf.optimize(model, x, mode="estimate", train=True)[0].train(False),
    }[how]()
    torch.testing.assert_close(result(x), expected, rtol=1e-4, atol=1e-5)
    assert list(result.state_dict()) == keys
    assert nf.unconverted(make()) == {}
    if make is parametrized or result[0].frozen:  # else the hook's tensor has a history, which deepcopy refuses
        torch.testing.assert_close(copy.deepcopy(result)(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [parametrized, hooked])
def test_a_frozen_weight_is_computed_once_and_again_after_a_change(make):
    model = nf.freeze(nf.convert(make()))
    expected = model(x)
    once = model[0].current_weight()
    assert model[0].current_weight() is once
    assert torch.equal(copy.deepcopy(model)(x), expected)
    state = {k: 2 * v if v.is_floating_point() else v for k, v in model.state_dict().items()}
    other, plain = nf.freeze(nf.convert(make())), make()
    for network in (other, plain):
        network.load_state_dict(state)
    assert not other[0].frozen
    torch.testing.assert_close(other(x), plain(x), rtol=1e-4, atol=1e-4)
    model.train()
    loss = model(x).square().mean()
    loss.backward()
    assert all(p.grad is not None for name, p in model.named_parameters())


@pytest.mark.parametrize("make", [parametrized, hooked])
def test_a_change_of_what_a_frozen_weight_is_computed_from_is_seen(make):
    """By other tensors in its place, or by writing to them: part by part, or for one call."""
    plain = make()
    state = {k: v + 0.1 if v.is_floating_point() else v for k, v in plain.state_dict().items()}
    plain.load_state_dict(state)
    expected = plain(x)
    for change in ("parts", "in place", "one call"):
        model = nf.freeze(nf.convert(make()))
        before = model(x)
        if change == "one call":
            got = torch.func.functional_call(model, state, (x,))
            torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)
        else:
            for name, module in model.named_modules():
                own = {k: v for k, v in state.items() if k.rpartition(".")[0] == name}
                if change == "parts" and own:
                    module.load_state_dict({k.rpartition(".")[2]: v for k, v in own.items()}, strict=False)
                elif own:
                    with torch.no_grad():
                        for k, v in own.items():
                            module.get_parameter(k.rpartition(".")[2]).copy_(v) if k in dict(model.named_parameters()) else None
            got = model(x)
        if change != "in place" or make is parametrized:  # a buffer of spectral norm is not among the parameters
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_what_is_first_called_in_inference_mode_trains_later():
    for make in (parametrized, hooked):
        model = nf.freeze(nf.convert(make()))
        with torch.inference_mode():
            model(x)
        leaf = x.clone().requires_grad_()
        model(leaf).sum().backward()
        assert leaf.grad.isfinite().all()


def test_a_parametrization_is_asked_once_when_frozen_and_can_be_removed():
    model = nf.freeze(nf.convert(parametrized()))
    counted = model[0].parametrizations.weight[0]
    counted.asked = 0
    for _ in range(3):
        expected = model(x)
    assert counted.asked == 1
    model[0].unfreeze()
    parametrize.remove_parametrizations(model[0], "weight")
    assert type(model[0]) is nn.Conv2d
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    back = nf.revert(nf.convert(parametrized()))
    assert not isinstance(back[0], nn.Conv2d)
    assert isinstance(back[0], T.Conv2d)
    torch.testing.assert_close(back(x), parametrized()(x))
    with pytest.raises(RuntimeError, match="state_dict"):
        pickle.dumps(nf.convert(parametrized()))


def test_a_layer_parametrized_after_it_was_converted_goes_back_too():
    layer = parametrizations.weight_norm(nn.Conv2d(4, 3, 3)).eval()
    expected = layer(x)
    back = nf.revert(T.Sequential(layer))
    assert not isinstance(back[0], nn.Conv2d)
    torch.testing.assert_close(back(x), expected)
    torch.testing.assert_close(nf.optimize(T.Sequential(layer), x, mode="estimate")[0](x), expected, rtol=1e-4, atol=1e-5)
