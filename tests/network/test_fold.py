"""Batch normalisation in the convolution before it: the same numbers wherever it is done, and done only where nobody sees it."""

import copy
import json
import pickle

import pytest
import torch
from torch.nn import functional as TNF

import ninefold as nf
from ninefold import nn
from ninefold.errors import AccuracyError, UnsupportedError
from ninefold.network import fold, tune
from ninefold.network.choice import Times
from ninefold.network.fold import Folded, fold_norms
from ninefold.spec import lenet5_table

T = torch.nn
SIZES = {1: (11,), 2: (9, 12), 3: (5, 6, 7)}
LAYERS = {
    "plain": lambda n, bias: getattr(T, f"Conv{n}d")(6, 4, 3, stride=2, padding=1, groups=2, bias=bias),
    "twin": lambda n, bias: getattr(nn, f"Conv{n}d")(6, 8, 3, padding="same", flip_kernel=True, bias=bias),
    "transposed": lambda n, bias: getattr(T, f"ConvTranspose{n}d")(6, 9, 3, 2, 1, 1, groups=3, bias=bias),
    "transposed twin": lambda n, bias: getattr(nn, f"ConvTranspose{n}d")(6, 4, 2, groups=2, bias=bias),
    "pointwise": lambda n, bias: getattr(nn, f"PointwiseGroupConv{n}d")(6, 10, groups=2, bias=bias),
    "table": lambda n, bias: getattr(nn, f"ChannelTableConv{n}d")(6, 16, 3, table=lenet5_table(), bias=bias),
    "tiled": lambda n, bias: getattr(nn, f"TiledConv{n}d")(6, 4, 3, period=2, groups=2, bias=bias),
    "local": lambda n, bias: getattr(nn, f"LocallyConnected{n}d")(6, 4, 3, input_size=SIZES[n], bias=bias),
    "tiled transposed": lambda n, bias: getattr(nn, f"TiledConvTranspose{n}d")(6, 4, 3, 2, groups=2, period=2, bias=bias),
    "local transposed": lambda n, bias: getattr(nn, f"LocallyConnectedTranspose{n}d")(6, 4, 3, input_size=SIZES[n], bias=bias),
}


def settled(norm):
    """Statistics and weights as after training: nothing is 0, 1 or equal."""
    with torch.no_grad():
        norm.running_mean.copy_(torch.randn(norm.num_features))
        norm.running_var.copy_(torch.rand(norm.num_features) * 3 + 0.1)
        if norm.affine:
            norm.weight.copy_(torch.randn(norm.num_features))
            norm.bias.copy_(torch.randn(norm.num_features))
    return norm


def pair(conv, n=2, **named):
    spec = nf.ConvSpec.from_module(conv)
    channels = spec.in_channels if spec.transposed else spec.out_channels
    return [conv, settled(getattr(T, f"BatchNorm{n}d")(channels, **named))]


def example(n=2, channels=6):
    return torch.randn(2, channels, *SIZES[n], dtype=torch.double)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_folded_layer_computes_the_same(kind, bias, n):
    torch.manual_seed(n)
    model = T.Sequential(*pair(LAYERS[kind](n, bias), n, eps=0.02)).double().eval()
    x = example(n)
    expected = model(x)
    before = copy.deepcopy(model.state_dict())
    folded, folds = fold_norms(model, (x,))
    assert (folds.into, folds.left) == ({"1": "0"}, {})
    assert type(folded[1]) is Folded
    assert type(folded[0]) is type(model[0])
    torch.testing.assert_close(folded(x), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(folded[0](x), expected, rtol=1e-10, atol=1e-10)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_without_weights_of_its_own_and_with_a_bias_per_unit():
    torch.manual_seed(0)
    conv = nn.LocallyConnected2d(6, 5, 3, input_size=SIZES[2], bias="channel")
    model = T.Sequential(
        *pair(conv, affine=False), *pair(nn.TiledConv2d(5, 4, 2, period=(2, 3), bias="location", input_size=(7, 10)))
    )
    model, x = model.double().eval(), example()
    folded, folds = fold_norms(model, (x,))
    assert list(folds.into) == ["1", "3"]
    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_rounded_once_in_their_own_type(dtype):
    torch.manual_seed(0)
    model = T.Sequential(*pair(T.Conv2d(6, 4, 3))).eval()
    exact, _ = fold_norms(copy.deepcopy(model).double(), (example(),))
    folded, _ = fold_norms(copy.deepcopy(model).to(dtype), (example().to(dtype),))
    assert folded[0].weight.dtype == dtype
    if dtype == torch.float32:
        assert torch.equal(folded[0].weight, exact[0].weight.float())


class Net(T.Module):
    """One convolution, one normalisation, and `between`: what else happens to what the first makes."""

    def __init__(self, between, **named):
        super().__init__()
        self.conv, self.norm = pair(T.Conv2d(6, 4, 3), **named)
        self.other = T.Conv2d(6, 4, 3)
        self.between = between
        self.kept = None

    def forward(self, x):
        return self.between(self, x)


def stored(self, x):
    self.kept = self.conv(x)
    return self.norm(self.kept)


OTHERS = "others read what conv makes, too"
LEFT = {
    "residual": (lambda self, x: self.norm(y := self.conv(x)) + y, OTHERS),
    "returned": (lambda self, x: (y := self.conv(x), self.norm(y)), OTHERS),
    "view returned": (lambda self, x: ((y := self.conv(x))[:, :1], self.norm(y)), OTHERS),
    "stored": (stored, OTHERS),
    "changed": (lambda self, x: self.norm(self.conv(x).relu_()), OTHERS),
    "a detector between": (lambda self, x: self.norm(torch.relu(self.conv(x))), "not what a convolution layer makes"),
    "joined": (lambda self, x: self.norm(torch.cat((self.conv(x)[:, :3], x[:, :1, 2:, 2:]), 1)), "not what a convolution"),
    "two sources": (lambda self, x: self.norm(self.conv(x)) + self.norm(self.other(x)), "not what a convolution layer makes"),
    "sometimes": (lambda self, x: self.norm(self.conv(x)) + self.conv(x), OTHERS),
    "sometimes another": (lambda self, x: self.norm(self.conv(x)) + self.norm(x[:, :4]).mean(), "not what a convolution"),
    "its weight read": (lambda self, x: self.norm(self.conv(x)) + TNF.conv2d(x, self.conv.weight), "others read its parameters"),
    "the norm's read": (lambda self, x: self.norm(self.conv(x)) * self.norm.weight.sum(), "others read its parameters"),
}


@pytest.mark.parametrize("kind", LEFT)
def test_what_others_see_is_left_alone_and_says_why(kind):
    torch.manual_seed(0)
    between, reason = LEFT[kind]
    model, x = Net(between).double().eval(), example()
    folded, folds = fold_norms(model, (x,))
    assert folds.into == {}
    assert reason in folds.left["norm"]
    assert type(folded.norm) is T.BatchNorm2d
    for a, b in zip(torch.utils._pytree.tree_leaves(folded(x)), torch.utils._pytree.tree_leaves(model(x)), strict=True):
        assert torch.equal(a, b)


def straight(self, x):
    return self.norm(self.conv(x))


@pytest.mark.parametrize("where", ["conv", "norm"])
def test_hooks_see_what_they_saw(where):
    model, seen = Net(straight).double().eval(), []
    getattr(model, where).register_forward_hook(lambda *given: seen.append(given[2].sum()))
    _, folds = fold_norms(model, (example(),))
    assert "has hooks" in folds.left["norm"]


def test_batch_statistics_subclasses_and_examples_without_a_batch_are_left_alone():
    class Odd(T.Conv2d):
        def forward(self, x):
            return -super().forward(x)

    x = example()
    _, folds = fold_norms(without_statistics(), (x,))
    assert "no running statistics" in folds.left["norm"]
    model = Net(straight).double().eval()
    model.conv = Odd(6, 4, 3).double()
    assert "not what a convolution layer makes" in fold_norms(model, (x,))[1].left["norm"]
    alone = T.Sequential(T.Conv1d(6, 4, 3), settled(T.BatchNorm1d(9))).double().eval()  # reads (4, 9) as 4 examples
    assert "the example has no batch" in fold_norms(alone, (torch.randn(6, 11, dtype=torch.double),))[1].left["1"]
    square = T.Sequential(T.Conv1d(6, 9, 3), settled(T.BatchNorm1d(9))).double().eval()
    assert "the example has no batch" in fold_norms(square, (torch.randn(6, 11, dtype=torch.double),))[1].left["1"]


def without_statistics():
    model = Net(straight).double().eval()
    model.norm = T.BatchNorm2d(4, track_running_stats=False).double()
    return model


def test_a_layer_that_runs_twice_is_folded_with_a_norm_that_does_and_not_with_two():
    def twice(self, x):
        return self.norm(self.conv(x)).mean() + self.norm(self.conv(x[:, :, 2:]))

    model, x = Net(twice).double().eval(), example()
    folded, folds = fold_norms(model, (x,))
    assert folds.into == {"norm": "conv"}
    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)

    model = Net(lambda self, x: self.norm(self.conv(x)).mean() + self.second(self.conv(x[:, :, 2:]))).double().eval()
    model.second = settled(T.BatchNorm2d(4)).double()
    assert fold_norms(model, (x,))[1].into == {}
    assert set(fold_norms(model, (x,))[1].left) == {"norm", "second"}


def test_what_does_not_run_is_not_spoken_of():
    model = Net(lambda self, x: self.conv(x)).double().eval()
    assert fold_norms(model, (example(),))[1] == fold.Folds()


def test_whoever_holds_the_normalisation_holds_what_is_left_of_it():
    model, x = Net(lambda self, x: self.parts[1](self.parts[0](x))).double().eval(), example()
    model.parts = (model.conv, model.norm)  # no submodules of their own
    folded, folds = fold_norms(model, (x,))
    assert folds.into == {"norm": "conv"}
    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)


def test_a_network_that_looks_at_the_normalisation_is_left_alone():
    def looks(self, x):
        return self.norm(self.conv(x)) if self.norm.num_batches_tracked.dtype == torch.long else x

    model, x = Net(looks).double().eval(), example()
    folded, folds = fold_norms(model, (x,))
    assert folds.into == {}
    assert "does not run without it" in folds.left["norm"]
    assert torch.equal(folded(x), model(x))


class Small(T.Module):
    """What optimize meets: two that fold, one that does not."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm1 = pair(T.Conv2d(3, 8, 3, stride=2, padding=1))
        self.large, self.norm2 = pair(T.Conv2d(8, 8, (9, 7), padding=(4, 3), groups=8, bias=False))
        self.norm3 = settled(T.BatchNorm2d(8))

    def forward(self, x):
        y = torch.relu(self.norm1(self.stem(x)))
        return self.norm3(self.norm2(self.large(y)) + y)


def snapshot(model):
    return {k: v.clone() for k, v in model.state_dict().items()}, {n: type(m) for n, m in model.named_modules()}


def same(model, before):
    state, types = snapshot(model)
    return types == before[1] and all(torch.equal(v, before[0][k]) for k, v in state.items()) and state.keys() == before[0].keys()


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("mode", ["estimate", "measure"])
def test_optimize_folds_verifies_and_reports(inplace, mode, monkeypatch):
    torch.manual_seed(0)
    model, x = Small().eval(), torch.randn(2, 3, 20, 26)
    before, held, shared = snapshot(model), model.stem.weight, nf.convert(model)
    expected = model(x)
    monkeypatch.setattr(tune, "time_steps", lambda *_, **__: Times(1.0, {0: 0.5}, {0: 2.0}, 0.1, {}))  # whatever the clock says
    fast, report = nf.optimize(model, x, mode=mode, inplace=inplace)
    assert (fast is model) is inplace
    assert inplace or same(model, before)
    torch.testing.assert_close(fast(x), expected, rtol=1e-4, atol=1e-4)
    assert report.folded == ("stem", "large")
    assert list(report.unfolded) == ["norm3"]
    assert report.error_after < 1e-5
    assert isinstance(fast.norm1, Folded)
    assert type(fast.norm3) is T.BatchNorm2d
    text = str(report)
    assert "2 of 3 batch normalisations folded into the convolution before" in text
    assert "not folded: norm3: what it reads is not what a convolution layer makes" in text
    assert json.loads(report.to_json())["folded"] == ["stem", "large"]
    # other holders of the old tensors see none of this
    assert torch.equal(held, before[0]["stem.weight"])
    torch.testing.assert_close(shared(x), expected, rtol=1e-4, atol=1e-4)
    assert set(fast.state_dict()) == {
        *(f"{layer}.{kind}" for layer in ("stem", "large") for kind in ("weight", "bias")),
        *(k for k in before[0] if k.startswith("norm3")),
    }
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.equal(twin(x), fast(x))


def test_a_folded_network_in_training_mode_says_what_it_is_and_eval_brings_it_back():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 20, 26)
    fast, _ = nf.optimize(Small(), x, mode="estimate")
    expected = fast(x)
    fast.train()
    with pytest.raises(UnsupportedError, match=r"folded into the convolution 'stem' and cannot be trained.*fold=False"):
        fast(x)
    torch.testing.assert_close(fast.eval()(x), expected)
    assert "(norm1): Folded(into 'stem')" in repr(fast)


@pytest.mark.parametrize("how", [{"fold": False}, {"train": True}, {"tolerance": "strict"}, {"tolerance": 0}])
def test_nothing_is_folded_where_it_is_not_wanted(how):
    torch.manual_seed(0)
    model, x = Small(), torch.randn(2, 3, 20, 26)
    fast, report = nf.optimize(model, x, mode="estimate", **how)
    assert (report.folded, report.unfolded) == ((), {})
    assert set(fast.state_dict()) == set(model.state_dict())
    assert "folded" not in str(report)


def test_rounding_the_folded_weights_is_explained_where_pytorch_happens_to_be_exact():
    model = T.Sequential(T.Conv2d(2, 3, 1, bias=False), T.BatchNorm2d(3, eps=1.0))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 4.0], [5.0, 8.0], [1.0, 2.0]])[..., None, None])
        model[1].running_var.fill_(2.0)  # 1 / sqrt(3) is no float, but times zero it is
        model[1].weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
    x = torch.tensor([4.0, -3.0]).view(1, 2, 1, 1)
    fast, report = nf.optimize(model.eval(), x, mode="estimate", tolerance=1e-30)
    assert report.folded == ("0",)
    torch.testing.assert_close(fast(x), model(x))


@pytest.mark.parametrize("inplace", [False, True])
def test_a_wrong_fold_is_found_before_the_model_changes(monkeypatch, inplace):
    real = fold._parameters
    monkeypatch.setattr(fold, "_parameters", lambda *pair: (T.Parameter(1.02 * real(*pair)[0]), real(*pair)[1]))
    model, x = Small().eval(), torch.randn(2, 3, 20, 26)
    before = snapshot(model)
    with pytest.raises(AccuracyError, match="or fold=False"):
        nf.optimize(model, x, mode="estimate", inplace=inplace)
    assert same(model, before)


def test_an_interrupt_after_folding_leaves_the_model_as_it_was(monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    model = Small().eval()
    before = snapshot(model)
    monkeypatch.setattr(tune, "verified", stop)
    with pytest.raises(KeyboardInterrupt):
        nf.optimize(model, torch.randn(1, 3, 20, 22), inplace=True, mode="estimate")
    assert same(model, before)


def test_what_is_optimized_already_is_optimized_again():
    torch.manual_seed(0)
    model, x = Small(), torch.randn(2, 3, 20, 26)
    fast, _ = nf.optimize(model, x, mode="estimate")
    again, report = nf.optimize(fast, x, mode="estimate")
    assert report.folded == ()
    assert list(report.unfolded) == ["norm3"]
    torch.testing.assert_close(again(x), model.eval()(x), rtol=1e-4, atol=1e-4)
