"""``optimize`` runs a network as its user does: with its arguments, on its own values, and leaves its state as it was."""

import random
import threading
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn as T

import ninefold as nf
from ninefold.errors import AccuracyError, ArgumentTypeError, ModelError
from ninefold.network.running import Call, Clock, outputs, step, tensors_in, untouched


@pytest.fixture(autouse=True)
def direct_wins(monkeypatch):
    """Let layers be exchanged, whatever the clock or the costs say: one that is not exchanged shows nothing here."""
    from ninefold.network import trial

    monkeypatch.setattr(trial.Layer, "kept", property(lambda _: False))


@dataclass
class Found:
    boxes: torch.Tensor
    name: str = "found"


class Convs(T.Module):
    """Two convolutions and whatever `forward` does with them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = T.Conv2d(3, 6, (3, 5), padding="same")
        self.b = T.Conv2d(6, 4, 3, stride=2)


class ByKeyword(Convs):
    def forward(self, x):
        return self.b(input=torch.relu(self.a(input=x)))


class KeywordsOnly(Convs):
    def forward(self, *, pixels, scale=None):
        y = self.b(self.a(pixels))
        return {"features": y if scale is None else y * scale}


class Images(Convs):
    """As detectors do: a list of images of different sizes, and objects with tensors in them."""

    def forward(self, images, targets=None):
        return [
            Found(self.b(self.a(image)) if targets is None else self.b(self.a(image)) + t["shift"])
            for image, t in zip(images, targets or [None] * len(images), strict=True)
        ]


class Nested(Convs):
    def forward(self, inputs, masks):
        return self.b(self.a(inputs["left"]["pixels"] * masks[0])), SimpleNamespace(right=self.a(inputs["right"]))


def images():
    torch.manual_seed(1)
    return [torch.randn(3, 20, 17), torch.randn(3, 15, 22)]


x = torch.randn(2, 3, 20, 17, generator=torch.Generator().manual_seed(3))
CALLS = {
    "conv(input=x)": (ByKeyword, x, None),
    "a mapping": (KeywordsOnly, {"pixels": x, "scale": 2.0}, None),
    "kwargs": (KeywordsOnly, (), {"pixels": x}),
    "a list": (Images, images(), None),
    "a list and more by name": (Images, (images(),), {"targets": [{"shift": torch.ones(())}, {"shift": 2 * torch.ones(())}]}),
    "a nest": (Nested, ({"left": {"pixels": x}, "right": x[:1]}, [torch.ones(17), "all"]), None),
}


def run(model, example, kwargs=None):
    call = Call.of(example, kwargs)
    with torch.no_grad():
        return tensors_in(call.on(model))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_a_network_is_called_as_its_user_calls_it(name, train):
    kind, example, kwargs = CALLS[name]
    model = kind().train(train)
    expected = run(model, example, kwargs)
    fast, report = nf.optimize(model, example, kwargs, mode="estimate", train=train)
    assert {row.name for row in report.rows} == {"a", "b"}
    assert all(isinstance(layer, nf.nn.Conv2d) for layer in (fast.a, fast.b))
    assert {row.name: row.field for row in report.rows} == {"a": (3, 5), "b": (5, 7)}
    assert all(row.error is not None for row in report.rows)
    for got, want in zip(run(fast, example, kwargs), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_names_that_are_none_are_one_sentence():
    with pytest.raises(ArgumentTypeError, match=r"arguments by name, and 3 is none.*\(dictionary,\)"):
        nf.optimize(ByKeyword(), {3: x})
    with pytest.raises(ModelError, match=r"ByKeyword cannot be called with the example \(float32 \(2, 4, 5, 6\), scale=float\)"):
        nf.optimize(ByKeyword(), torch.zeros(2, 4, 5, 6), {"scale": 2.0})


class Upcast(Convs):
    """Names a type of its own."""

    def __init__(self):
        super().__init__()
        self.norm = T.GroupNorm(2, 6)

    def forward(self, x):
        return self.b(self.norm(self.a(x).float()).to(x.dtype))


class Complex(Convs):
    def __init__(self):
        super().__init__()
        self.mix = T.Parameter(torch.randn(6, 1, 1, dtype=torch.complex64))

    def forward(self, x):
        return self.b((self.a(x) * self.mix).real)


class NotInDouble(Convs):
    def forward(self, x):
        if x.dtype != torch.float32:
            raise TypeError("float32 only")
        return self.b(self.a(x))


class Labels(Convs):
    def forward(self, x):
        return self.b(self.a(x)).argmax(1)


class Finite(Convs):
    """Looks at its own values, and takes another path for such as are not the example's."""

    def forward(self, x):
        y = self.a(x)
        if not torch.isfinite(y).all() or float(y.abs().max()) > 100:
            raise FloatingPointError("scores contain Inf or NaN")
        return self.b(y)


class Restless(Convs):
    def forward(self, x):
        y = self.b(self.a(x))
        return y + torch.rand(y.shape, generator=torch.Generator().manual_seed(random.SystemRandom().randrange(1 << 30)))


class Sized(Convs):
    """As after the suppression of boxes: the size of what it returns is another one each time."""

    def forward(self, x):
        return self.b(self.a(x))[..., : random.SystemRandom().choice((2, 3, 4, 5))]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Upcast, "not compared with double precision, in which the network does not run"),
        (Complex, None),
        (NotInDouble, "float32 only"),
        (Labels, "compared layer by layer, not as a whole: the network returns no floating-point tensor"),
        (Finite, None),
        (Restless, None),
        (Sized, None),
    ],
)
@pytest.mark.parametrize("deterministic", [False, True])
def test_what_a_network_cannot_be_run_in_is_left_out_with_a_word(kind, said, deterministic):
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)  # fills fresh memory with NaN
    try:
        model = kind().eval()
        fast, report = nf.optimize(model, x, mode="estimate")
        assert [row.kept for row in report.rows] == [False, False]
        assert said is None or any(said in note for note in report.notes)
        assert all(" ".join(note.split()) in " ".join(str(report).split()) for note in report.notes)
        if kind not in (Restless, Sized):
            for got, want in zip(run(fast, x), run(model, x), strict=True):
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("kind", [Upcast, NotInDouble, Labels])
def test_a_wrong_engine_is_found_layer_by_layer_where_the_whole_cannot_be_compared(kind, monkeypatch):
    from ninefold.planning import decide

    real = decide.prepare

    def wrong(plan, weight=None, epilogue=None):
        run = real(plan, weight, epilogue)
        return run if plan.engine == "aten" else lambda *operands: 1.5 * run(*operands)

    monkeypatch.setattr("ninefold.ops.executor.prepare", wrong)
    monkeypatch.setattr("ninefold.engines.aten.Aten.cost", lambda *_: 1.0)
    with pytest.raises(AccuracyError, match="layer [ab] is off by"):
        nf.optimize(kind().eval(), x, mode="estimate")


class Grid(Convs):
    """Fills a buffer at its first call, counts its calls, and draws numbers of three generators."""

    def __init__(self):
        super().__init__()
        self.register_buffer("grid", None, persistent=False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("spread", torch.zeros(1).expand(3))

    def forward(self, x):
        self.calls += 1
        if self.grid is None or self.grid.shape[-2:] != x.shape[-2:]:
            self.grid = torch.linspace(-1, 1, x.shape[-1]).expand(1, 1, *x.shape[-2:]).clone()
        noise = random.random() + float(np.random.rand()) + float(torch.rand(()))
        return self.b(self.a(x + self.grid)) + 0 * noise


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("mode", ["estimate", "measure"])
@pytest.mark.parametrize("warm", [None, (20, 17), (12, 11)])
def test_buffers_and_random_numbers_are_as_they_were(warm, mode, train):
    model = Grid().train(train)
    if warm:
        model(torch.randn(1, 3, *warm))
    grid, calls = model.grid, int(model.calls)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    fast, _ = nf.optimize(model, x, mode=mode, train=train)
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    for network in (model, fast):
        assert int(network.calls) == calls
        assert (network.grid is None) is (warm is None)
        assert "grid" not in network.state_dict()
    assert model.grid is grid
    torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)


class Normed(Convs):
    """Batch normalisation writes its statistics without a trace in any version counter."""

    def __init__(self):
        super().__init__()
        self.norm = T.BatchNorm2d(6, momentum=None)

    def forward(self, x):
        return self.b(self.norm(self.a(x)))


@pytest.mark.parametrize("mode", ["estimate", "measure"])
def test_statistics_of_batches_are_as_they_were(mode):
    model = Normed().train()
    model(x)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fast, _ = nf.optimize(model, x, mode=mode, train=True)
    for network in (model, fast):
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("where", ["around optimize", "within the network"])
def test_networks_under_autocast(where, train):
    class Inside(Convs):
        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16, enabled=where == "within the network"):
                y = self.a(x)
            return self.b(y.float())

    model = Inside().train(train)
    with torch.autocast("cpu", torch.bfloat16, enabled=where == "around optimize"):
        expected = model(x).float()
        fast, report = nf.optimize(model, x, mode="estimate", train=train)
        got = fast(x).float()
    assert {row.name for row in report.rows} == {"a", "b"}
    assert all(row.error is not None and row.error < 2e-2 for row in report.rows)
    torch.testing.assert_close(got, expected, rtol=3e-2, atol=3e-2)
    torch.testing.assert_close(fast(x).float(), model(x).float(), rtol=3e-2, atol=3e-2)


class Writes(Convs):
    """Writes over what it is given."""

    def forward(self, x):
        return self.b(self.a(x.mul_(0.5).relu_()))


@pytest.mark.parametrize("mode", ["estimate", "measure"])
def test_a_network_that_writes_over_its_arguments_has_its_own_each_time(mode):
    model, own = Writes().eval(), x.clone()
    fast, report = nf.optimize(model, own, mode=mode)
    assert torch.equal(own, x)
    assert report.difference < 1e-4
    torch.testing.assert_close(fast(x.clone()), model(x.clone()), rtol=1e-4, atol=1e-5)


class Flat(Convs):
    """Runs in contiguous memory only."""

    def forward(self, x):
        x = self.a(x)
        return x.view(x.size(0), -1)


def test_a_memory_format_that_a_network_cannot_run_in_is_one_trial_less():
    model = Flat().eval()
    fast, report = nf.optimize(model, x)
    assert report.memory_format == "contiguous"
    assert any(note.startswith("channels-last: left out") for note in report.notes)
    torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)


class Unwatched(Convs):
    """Refuses to be looked at operation by operation."""

    def forward(self, x):
        if torch._C._len_torch_dispatch_stack():
            raise RuntimeError("no modes here")
        return self.b(self.a(x))


def test_a_network_that_cannot_be_watched_is_optimized_without_fields():
    fast, report = nf.optimize(Unwatched().eval(), x, mode="estimate")
    assert [row.field for row in report.rows] == [None, None]
    assert any("receptive fields: not followed" in note for note in report.notes)
    torch.testing.assert_close(fast(x), Unwatched().eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("within", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("train", [False, True])
def test_the_callers_own_mode_does_not_reach_the_parameters(within, train):
    with within():
        fast, _ = nf.optimize(ByKeyword().train(train), x.clone(), mode="estimate", train=train)
    assert not any(p.is_inference() for p in fast.parameters())
    fast.train()(x).sum().backward()
    assert all(p.grad is not None for p in fast.parameters())


class Held(Convs):
    """Holds what no copy can be made of."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.kept = [self.a.weight.sum() * 2, {"lock": self.lock}]
        self.same = self.a
        self.a.register_forward_hook(Counting(self.lock))

    def forward(self, x):
        with self.lock:
            return self.b(self.a(x))


class Counting:
    def __init__(self, lock):
        self.lock, self.count = lock, 0

    def __call__(self, module, args, out):
        self.count += 1


@pytest.mark.parametrize("make", [nf.convert, lambda m: nf.optimize(m, x, mode="estimate")[0]])
def test_what_cannot_be_copied_is_shared_and_the_rest_copied(make):
    model = Held().eval()
    result = make(model)
    assert result is not model
    assert result.lock is model.lock
    assert result.a is not model.a
    assert result.same is result.a
    assert isinstance(result.a, nf.nn.Conv2d)
    assert type(model.a) is T.Conv2d
    assert result.kept[0].grad_fn is None
    torch.testing.assert_close(result(x), model(x), rtol=1e-4, atol=1e-5)


class Never(Convs):
    def __deepcopy__(self, memo):
        raise TypeError("not me")


def test_a_module_that_cannot_be_copied_is_one_sentence():
    for make in (nf.convert, lambda m: nf.optimize(m, x, inplace=True)):
        with pytest.raises(ModelError, match="Never cannot be copied: not me"):
            make(Never())


def test_denormal_numbers_are_named_and_timed_as_zeros():
    layers = [T.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(8)]
    for layer in layers:
        layer.weight.data.mul_(1e-5)
    _, report = nf.optimize(T.Sequential(*layers).eval(), torch.randn(1, 8, 24, 28))
    assert any("denormal numbers:" in note and "zero" in note for note in report.notes)
    tiny = torch.full((3,), 1e-39)
    assert (tiny * 1).count_nonzero() == 3  # and arithmetic is as it was
    _, report = nf.optimize(T.Sequential(T.Conv2d(8, 8, 3)).eval(), torch.randn(1, 8, 24, 28))
    assert not any("denormal" in note for note in report.notes)


@pytest.mark.parametrize("make", [torch.jit.script, lambda m: torch.jit.trace(m, x)])
def test_what_is_compiled_already_is_left_as_it_is(make):
    model = make(T.Sequential(T.Conv2d(3, 4, 3), T.BatchNorm2d(4), T.ReLU()).eval())
    fast, report = nf.optimize(model, x, mode="estimate")
    assert report.rows == ()
    torch.testing.assert_close(fast(x), model(x))


def test_lazy_layers_have_their_weights_from_one_call():
    for inplace in (False, True):
        torch.manual_seed(0)
        model = T.Sequential(T.LazyConv2d(4, 3), T.ReLU(), T.LazyConvTranspose2d(5, (2, 3), 2)).eval()
        fast, report = nf.optimize(model, x, mode="estimate", inplace=inplace)
        assert len(report.rows) == 2
        assert (fast is model) is inplace
        assert isinstance(fast[0], nf.nn.Conv2d)
        torch.testing.assert_close(fast(x), nf.revert(fast, inplace=False)(x) if not report.fused else fast(x))


def test_steps_and_the_clock_see_both_directions():
    model = ByKeyword()
    work = step(model, Call.of(x), train=True)
    with Clock([model.a, model.b]) as clock:
        gradients = work()
    assert len(gradients) == 4
    assert clock.seconds > 0
    forward = Clock([model.a])
    with forward:
        outputs(model, Call.of(x))
    assert forward.seconds > 0
    assert not model.a._forward_hooks
    with untouched(model):
        first = torch.rand(2)
    with untouched(model):
        assert torch.equal(first, torch.rand(2))
