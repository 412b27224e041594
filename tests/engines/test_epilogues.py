"""What follows the bias: in the engine's pass where it says so, in place elsewhere, differentiable on every route."""

import copy
import pickle

import pytest
import torch

import ninefold as nf
from ninefold import nn
from ninefold.engines import ENGINES
from ninefold.engines.aten import Aten
from ninefold.engines.base import EPILOGUES, Engine
from ninefold.engines.fft import FFT
from ninefold.errors import UnsupportedError
from ninefold.network import optimize
from ninefold.network.fuse import Fused, Overwriting, find_detectors
from ninefold.ops import PlannedCall
from ninefold.ops.executor import EXECUTORS
from ninefold.planning import prepare
from ninefold.planning.choose import choose
from ninefold.spec import ConvSpec, Problem
from ninefold.testing import Shape, check_epilogues


def name_of(value):
    """Name functions without their address: it differs between processes that share the tests out."""
    return getattr(value, "__name__", str(value))


T = torch.nn


@pytest.fixture
def fused(monkeypatch, without_native):
    """Let an engine of PyTorch's own take a ReLU, and count how often it is asked to."""
    asked = []

    def prepare_with(self, problem, weight, epilogue):
        asked.append(epilogue)
        run = self.prepare(problem, weight)
        return lambda a, b, bias=None: run(a, b, bias).clamp_(min=0)

    for engine in ENGINES:
        if engine.name.startswith("aten"):
            monkeypatch.setattr(type(engine), "epilogues", frozenset({"relu"}))
    monkeypatch.setattr(Aten, "prepare_with", prepare_with)
    EXECUTORS.clear()  # what was prepared for equal operands before
    yield asked
    EXECUTORS.clear()


def test_every_epilogue_is_the_same_in_place():
    x = torch.tensor([-1.0, 0.0, 2.0, float("nan"), -float("inf")])
    for epilogue in EPILOGUES.values():
        y = x.clone()
        out = epilogue.apply(x)
        assert epilogue.apply_(y) is y
        torch.testing.assert_close(y, out, equal_nan=True)


class Spoiled(Aten):
    """What the contract must notice."""

    name = "spoiled"
    epilogues = frozenset({"relu"})

    def __init__(self, spoil):
        self.spoil = spoil

    def prepare_with(self, problem, weight, epilogue):
        run = self.prepare(problem, weight)
        return lambda a, b, bias=None: self.spoil(run(a, b, bias))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda z: z, "through relu"),
        (lambda z: torch.where(z > 0, z, 0.0), "must keep NaN"),
        (lambda z: z.relu() + 1, "through relu"),
    ],
)
def test_the_contract_finds_an_epilogue_that_is_wrong(spoil, words):
    shape = Shape("tiny", "dense", 2, (7, 9), ConvSpec(2, 3, (3, 2)), contract=True)
    assert check_epilogues(Spoiled(torch.relu), "c", shape).runs == 2
    with pytest.raises(AssertionError, match=words):
        check_epilogues(Spoiled(spoil), "c", shape)
    unknown = Spoiled(torch.relu)
    unknown.epilogues = frozenset({"swish"})
    with pytest.raises(AssertionError, match=r"\['swish'\] that nobody knows"):
        check_epilogues(unknown, "c", shape)


def test_no_engine_is_asked_for_what_it_does_not_name():
    assert Engine.epilogues == frozenset()
    x, w = torch.randn(1, 3, 8, 9), torch.randn(4, 3, 2, 3)
    for engine in ENGINES:
        problem = Problem("c", ConvSpec(3, 4, (2, 3)).form((8, 9)), 1)
        if engine.refuses(problem) is None and not engine.epilogues:
            assert type(engine).prepare_with is Engine.prepare_with or issubclass(type(engine), Aten)
            out = engine.prepare_with(problem, None, "relu")(w, x, None)
            torch.testing.assert_close(out, torch.conv2d(x, w).relu(), rtol=1e-4, atol=1e-4)


def test_an_infinity_that_a_relu_would_hide_is_still_found():
    problem = Problem("c", ConvSpec(1, 2, (33,), padding=0).form(200), 1, finite=True)
    plan = choose(problem)
    fft = type(plan)(problem, "fft", plan.candidates, "estimate")
    x, w = torch.randn(1, 1, 200), torch.randn(2, 1, 33).abs()
    x[0, 0, 100] = -float("inf")
    out = prepare(fft, None, "relu")(w, x, None)
    torch.testing.assert_close(out, torch.conv1d(x, w).relu(), rtol=1e-4, atol=1e-4)
    assert not FFT().traits.confines_nan


SITES = {
    "c": (ConvSpec(3, 4, (2, 3), padding=1), (4, 3, 2, 3)),
    "h": (ConvSpec(4, 3, (2, 3), transposed=True), (3, 4, 2, 3)),
}


@pytest.mark.parametrize("kind", SITES)
@pytest.mark.parametrize("route", ["no grad", "grad", "one image", "autocast", "func", "vmap", "trace", "compile"])
def test_a_site_with_an_epilogue_is_one_with_a_relu_behind_it_on_every_route(kind, route):
    torch.manual_seed(0)
    spec, shape = SITES[kind]
    x, w, b = torch.randn(2, 3, 7, 8), torch.randn(shape), torch.randn(4)
    bare, site = PlannedCall(spec), PlannedCall(spec).then("relu")
    plain = lambda *operands: torch.relu(bare(*operands))
    if route == "no grad":
        with torch.no_grad():
            torch.testing.assert_close(site(x, w, b), plain(x, w, b), rtol=0, atol=0)
    elif route == "grad":
        given = [t.double().requires_grad_() for t in (x, w, b)]
        ours, theirs = (torch.autograd.grad(f(*given).square().sum(), given) for f in (site, plain))
        assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))
    elif route == "one image":
        torch.testing.assert_close(site(x[0], w, b), plain(x[0], w, b))
    elif route == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(site(x, w, b), plain(x, w, b))
    elif route == "func":
        ours, theirs = (torch.func.grad(lambda w, f=f: f(x, w, b).square().sum())(w) for f in (site, plain))
        torch.testing.assert_close(ours, theirs)
    elif route == "vmap":
        ours, theirs = (torch.func.vmap(lambda x, f=f: f(x, w, b))(x[:, None]) for f in (site, plain))
        torch.testing.assert_close(ours, theirs)
    elif route == "trace":
        traced = torch.jit.trace(lambda x: site(x, w, b), (x,))
        torch.testing.assert_close(traced(x), plain(x, w, b))
    else:
        layer = (nn.Conv2d(3, 4, (2, 3)) if kind == "c" else nn.ConvTranspose2d(3, 4, (2, 3))).requires_grad_(requires_grad=False)
        expected = layer(x).relu()
        layer.epilogue = "relu"
        torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), expected)


def test_the_engine_applies_it_where_it_can_and_never_twice(fused):
    site, x, w = PlannedCall(ConvSpec(3, 4, (2, 3))).then("relu"), torch.randn(2, 3, 7, 8), torch.randn(4, 3, 2, 3)
    with torch.no_grad():
        torch.testing.assert_close(site(x, w), torch.conv2d(x, w).relu())
        site(x, w)
    assert fused == ["relu"]
    site(x, w.requires_grad_())
    assert fused == ["relu"]  # with gradients it is autograd's


@pytest.mark.parametrize("frozen", [False, True])
def test_a_layer_keeps_its_epilogue_and_shows_it(fused, frozen):
    layer, x = nn.Conv2d(3, 4, (2, 3)), torch.randn(2, 3, 7, 8)
    expected = layer(x).relu()
    layer.epilogue = "relu"
    if frozen:
        layer.freeze()
    assert repr(layer).endswith(", then relu)")
    for twin in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with torch.no_grad():
            torch.testing.assert_close(twin(x), expected)
        torch.testing.assert_close(twin(x), expected)
    assert fused
    with pytest.raises(UnsupportedError, match="optimize has put relu behind its bias"):
        nf.revert(layer)
    layer.epilogue = None
    assert (layer(x) < 0).any()


class Net(T.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.act = T.Conv2d(3, 8, 3, padding=1), T.BatchNorm2d(8), T.ReLU()
        self.second, self.end = T.Conv2d(8, 8, 5, padding=2, groups=8), T.ReLU()
        self.third, self.shared = T.Conv2d(8, 8, 1), T.ReLU()
        self.last = T.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.act(self.norm(self.first(x)))
        y = self.end(self.second(x))
        z = self.shared(self.third(y) + x)
        return self.shared(self.last(z))


def kinds(model):
    return {name: (type(m), m.inplace) for name, m in model.named_modules() if isinstance(m, T.ReLU)}


@pytest.fixture
def never_kept(monkeypatch):
    from ninefold.network import trial

    monkeypatch.setattr(trial.Layer, "kept", property(lambda _: False))


@pytest.mark.parametrize("inplace", [False, True])
def test_optimize_lets_engines_take_the_relu_behind_them(fused, never_kept, inplace):
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(2, 3, 9, 11)
    before, expected = kinds(model), model(x)
    fast, report = optimize(model, x, mode="estimate", inplace=inplace)
    assert inplace or kinds(model) == before
    torch.testing.assert_close(fast(x), expected, rtol=1e-4, atol=1e-5)
    assert report.fused == ("first", "second")
    assert "2 convolutions apply the ReLU behind them" in str(report)
    assert (fast.first.epilogue, fast.second.epilogue, fast.third.epilogue, fast.last.epilogue) == ("relu", "relu", None, None)
    assert isinstance(fast.act, Fused)
    assert repr(fast.end) == "Fused(into 'second')"
    assert kinds(fast) == {"shared": (T.ReLU, False)}  # it also follows a sum
    again, report = optimize(fast, x, mode="estimate")
    torch.testing.assert_close(again(x), expected, rtol=1e-4, atol=1e-5)
    assert all(row.error is None or row.error < 1e-5 for row in report.rows)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_relu_that_only_convolutions_share_is_theirs(fused, never_kept, inplace):
    class Shared(T.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.second, self.act = T.Conv2d(3, 5, 3), T.BatchNorm2d(5), T.Conv2d(5, 4, (1, 2)), T.ReLU()

        def forward(self, x):
            return self.act(self.second(self.act(self.norm(self.first(x)))))

    torch.manual_seed(0)
    model, x = Shared().eval(), torch.randn(2, 3, 9, 11)
    expected = model(x)
    fast, report = optimize(model, x, mode="estimate", inplace=inplace)
    assert report.fused == ("first", "second")
    assert repr(fast.act) == "Fused(into 'first', 'second')"
    torch.testing.assert_close(fast(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.usefixtures("without_native")  # whose engines take a ReLU themselves
def test_optimize_runs_the_others_in_place(inplace):
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(2, 3, 9, 11)
    expected = model(x)
    fast, report = optimize(model, x, mode="estimate", inplace=inplace)
    assert report.fused == ()
    assert kinds(fast) == {"act": (Overwriting, False), "end": (Overwriting, False), "shared": (T.ReLU, False)}
    seen = []
    fast.first.register_full_backward_hook(lambda *_: seen.append(1))  # whose output is a view that nobody may write to
    torch.testing.assert_close(fast(x), expected, rtol=1e-4, atol=1e-5)
    leaf = x.clone().requires_grad_()
    ours = torch.autograd.grad(fast(leaf).square().sum(), leaf)[0]
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(ours, torch.autograd.grad(model.eval()(leaf).square().sum(), leaf)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", [{"fold": False}, {"train": True}])
def test_optimize_leaves_them_where_that_is_asked_for(fused, never_kept, how):
    fast, report = optimize(Net(), torch.randn(2, 3, 9, 11), mode="estimate", **how)
    assert report.fused == ()
    assert set(kinds(fast).values()) == {(T.ReLU, False)}


def test_a_relu_whose_input_others_see_is_left_alone():
    class Seen(Net):
        def forward(self, x):
            y = self.first(x)
            z = self.act(y)
            return self.end(self.second(z)) + self.shared(x[:, :1]), y

    model = Seen().eval()
    found = find_detectors(model, (torch.randn(1, 3, 9, 11),))
    assert (found.behind, found.alone) == ({"end": ("second",)}, ("end",))
    model.second.register_forward_hook(lambda *_: None)
    assert find_detectors(model, (torch.randn(1, 3, 9, 11),)).alone == ()


POOL = T.AvgPool2d(2)


@pytest.mark.parametrize("detector", [T.ReLU(), torch.relu, T.functional.relu], ids=name_of)
def test_a_stage_lets_its_convolution_apply_the_relu_where_nobody_looks(fused, detector):
    torch.manual_seed(0)
    stage, x = nn.ConvStage(nn.Conv2d(3, 5, (3, 2)), detector, POOL), torch.randn(2, 3, 11, 13)
    expected = POOL(torch.relu(stage.conv(x)))
    assert torch.equal(stage(x), expected)
    assert fused == []
    with torch.no_grad():
        assert torch.equal(stage(x), expected)
    assert fused == ["relu"]


def test_a_stage_with_hooks_another_detector_or_an_exchange_runs_its_parts(fused):
    x, seen = torch.randn(2, 3, 11, 13), []
    watched = nn.ConvStage(nn.Conv2d(3, 5, 3), T.ReLU(), POOL)
    watched.conv.register_forward_hook(lambda *given: seen.append(bool((given[2] < 0).any())))
    looked = nn.ConvStage(nn.Conv2d(3, 5, 3), T.ReLU(), POOL)
    looked.detector.register_forward_pre_hook(lambda _, args: seen.append(bool((args[0] < 0).any())))
    others = [
        nn.ConvStage(nn.Conv2d(3, 5, 3), T.Tanh(), POOL),
        nn.ConvStage(nn.Conv2d(3, 5, 3), T.ReLU(), T.MaxPool2d(2)),
        nn.ConvStage(T.Conv2d(3, 5, 3), T.ReLU(), POOL),
        nn.ConvStage(nn.TiledConv2d(3, 5, 3, period=2), T.ReLU(), POOL),
    ]
    with torch.no_grad():
        for stage in (watched, looked, *others):
            torch.testing.assert_close(stage(x), stage.pool(stage.detector(stage.conv(x))))
    assert all(seen)
    assert fused == []
