import copy
import json
from statistics import median

import pytest
import torch

import ninefold as nf
from ninefold import nn
from ninefold.errors import AccuracyError, ModelError
from ninefold.network import trial, tune
from ninefold.network.choice import Times, time_steps
from ninefold.network.running import Call


class Net(torch.nn.Module):
    """A depthwise kernel large enough that PyTorch's loop loses, a branch, a normalisation."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.large = torch.nn.Conv2d(8, 8, (31, 29), padding=(15, 14), groups=8)
        self.norm = torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x):
        y = self.stem(x)
        y = torch.relu(self.norm(self.large(y))) + y
        return self.head(y.mean((2, 3)))


@pytest.fixture
def fft_wins(monkeypatch):
    """Let estimates prefer transforms wherever they apply: what the clock prefers is no matter of correctness."""
    from ninefold.engines.fft import FFT

    monkeypatch.setattr(FFT, "cost", lambda *_: 0.0)


@pytest.fixture
def chosen(monkeypatch):
    """Let the first trial be twice as fast as the network as it was, whatever the clock says."""

    def times(original, trials, *_, **__):
        return Times(1.0, {0: 0.5}, {0: 2.0}, 0.1, {})

    monkeypatch.setattr(tune, "time_steps", times)


def snapshot(model):
    return {k: v.clone() for k, v in model.state_dict().items()}, {n: type(m) for n, m in model.named_modules()}


def unchanged(model, before):
    state, types = before
    return all(torch.equal(v, state[k]) for k, v in model.state_dict().items()) and types == {
        n: type(m) for n, m in model.named_modules()
    }


@pytest.mark.parametrize("train", [False, True])
def test_optimize_keeps_the_numbers_and_the_model(train, fft_wins):
    torch.manual_seed(0)
    model = Net().train(train)
    before = snapshot(model)
    x = torch.randn(2, 3, 96, 90)
    fast, report = nf.optimize(model, x, train=train, mode="estimate")
    assert unchanged(model, before)
    assert all(p.grad is None for p in model.parameters())
    assert fast.training is train
    assert not {id(p) for p in model.parameters()} & {id(p) for p in fast.parameters()}
    torch.testing.assert_close(copy.deepcopy(fast)(x), copy.deepcopy(model)(x), rtol=1e-4, atol=1e-5)
    assert [row.name for row in report.rows] == ["stem", "large"]
    large = report.rows[1]
    assert large.macs == 2 * 8 * 31 * 29 * 48 * 45
    assert large.field == (63, 59)
    assert set(large.engines) == ({"c", "h", "g"} if train else {"c"})
    assert not large.kept
    assert set(large.engines.values()) == {"fft"}
    assert large.error is not None
    assert large.error < 1e-5
    assert report.error_after < 1e-4
    assert (report.before, report.after, report.ratio, report.bound, report.gained) == (None,) * 5  # estimating times nothing


def test_the_report_prints_and_is_json(fft_wins, chosen):
    model = Net().eval()
    _, report = nf.optimize(model, torch.randn(1, 3, 64, 60))
    text = " ".join(str(report).split())
    for word in ("large", "depthwise 31x29, 8->8", "whole step", "double precision", "outside convolutions", "machine's limits"):
        assert word in text
    data = json.loads(report.to_json())
    assert data["rows"][0]["name"] == "stem"
    assert data["ratio"] == report.ratio == 2.0
    assert report.bound <= report.bound_of_engines <= report.after
    assert 0 <= report.gained <= 1


def test_estimating_times_nothing(monkeypatch):
    def never(*_, **__):
        raise AssertionError("something was timed")

    monkeypatch.setattr("ninefold.planning.measure.timed", never)
    monkeypatch.setattr(tune, "time_steps", never)
    _, report = nf.optimize(Net().eval(), torch.randn(1, 3, 64, 60), mode="estimate")
    assert "nothing was timed" in str(report)
    assert json.loads(report.to_json())["before"] is None


@pytest.mark.parametrize("inplace", [False, True])
def test_where_nothing_is_faster_nothing_is_changed(monkeypatch, inplace, fft_wins):
    def slow(original, trials, *_, **__):
        return Times(1.0, dict.fromkeys(range(len(trials)), 1.2), dict.fromkeys(range(len(trials)), 1.0), 0.1, {})

    monkeypatch.setattr(tune, "time_steps", slow)
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(1, 3, 64, 60)
    before, expected = snapshot(model), model(x)
    for _ in range(2):  # and so it is when that is remembered
        fast, report = nf.optimize(model, x, inplace=inplace)
        assert (fast is model) is inplace
        assert unchanged(fast, before)
        assert (report.before, report.after, report.ratio, report.changed) == (1.0, 1.0, 1.0, False)
        assert all(row.kept for row in report.rows)
        assert "nothing changed" in report.summary()
        assert torch.equal(fast(x), expected)


def test_inplace_changes_the_users_own_model(fft_wins):
    torch.manual_seed(1)
    model = Net().eval()
    x = torch.randn(1, 3, 80, 76)
    expected = model(x)
    parameters = list(model.parameters())
    result, _ = nf.optimize(model, x, inplace=True, mode="estimate", fold=False)
    assert result is model
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert isinstance(model.large, nn.Conv2d)
    assert model.large.frozen
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_each_distinct_problem_is_measured_once(monkeypatch):
    asked = []
    from ninefold.planning import decide

    real = decide.measure
    monkeypatch.setattr(decide, "measure", lambda problem, weight=None: asked.append(problem.key) or real(problem, weight))
    same = torch.nn.Sequential(*(torch.nn.Conv1d(4, 4, 7, padding=3) for _ in range(3)))
    nf.optimize(same.eval(), torch.randn(1, 4, 50))
    assert len(asked) == len(set(asked)) == 1


def test_an_interrupt_leaves_everything_as_it_was(monkeypatch):
    model = Net().eval()
    before = snapshot(model)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trial, "plan_problem", stop)
    with pytest.raises(KeyboardInterrupt):
        nf.optimize(model, torch.randn(1, 3, 40, 44), inplace=True)
    assert unchanged(model, before)


def test_a_wrong_engine_is_found_before_the_model_changes(monkeypatch):
    from ninefold.engines.fft import FFT

    real = FFT.prepare_watched
    model = Net().eval()
    before = snapshot(model)

    def wrong(self, problem, weight, epilogue=None):
        run = real(self, problem, weight, epilogue)
        return lambda a, b, bias=None: (1.5 * run(a, b, bias)[0], True)

    monkeypatch.setattr(FFT, "prepare_watched", wrong)
    monkeypatch.setattr(FFT, "cost", lambda *_: 0.0)
    with nf.options(mode="estimate"), pytest.raises(AccuracyError, match="off by"):
        nf.optimize(model, torch.randn(1, 3, 64, 60), mode="estimate", inplace=True)
    assert unchanged(model, before)


@pytest.mark.parametrize("example", [torch.randn(1, 4, 40, 44), torch.randn(3), torch.zeros(1, 3, 40, 44, dtype=torch.int64)])
def test_an_example_that_does_not_fit_is_one_sentence(example):
    model = Net().eval()
    before = snapshot(model)
    with pytest.raises(ModelError, match="cannot be called with the example"):
        nf.optimize(model, example)
    assert unchanged(model, before)


def test_the_scratch_cap_is_kept_by_the_optimized_layers():
    model = Net().eval()
    x = torch.randn(1, 3, 96, 90)
    fast, _ = nf.optimize(model, x, max_scratch=3_000_000)
    for module in fast.modules():
        if isinstance(module, nn.Conv2d):
            assert module.plan_options.max_scratch == 3_000_000
            inner = fast.stem(x) if module is fast.large else x
            assert module.site.bind(inner, module.weight).plan("c").chosen.scratch <= 3_000_000


def test_what_is_outside_convolutions_is_measured_even_where_a_layer_serves_two_sizes():
    class Pyramid(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(2, 3, (3, 5), padding="same")

        def forward(self, x):
            half = torch.nn.functional.avg_pool2d(x, 2)
            return torch.relu(self.conv(x)).mean((2, 3)) + torch.relu_(self.conv(half)).mean((2, 3))

    for train in (False, True):
        _, report = nf.optimize(Pyramid().train(train), torch.randn(1, 2, 24, 20), train=train)
        assert len(report.rows) == 2
        assert 0 < report.outside <= report.before
        assert report.bound <= report.before


class Beyond(torch.nn.Module):
    """Ninefold's layers, two of which torch lacks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.large = nn.Conv2d(8, 8, (31, 29), padding=(15, 14), groups=8)
        self.flipped = nn.Conv2d(8, 6, (3, 5), flip_kernel=True)
        self.tiled = nn.TiledConv2d(6, 4, 3, period=2)
        self.separable = nn.DepthwiseSeparableConv2d(4, 6, 3)
        self.mix = nn.PointwiseGroupConv2d(6, 9, groups=3)

    def forward(self, x):
        return self.mix(self.separable(self.tiled(self.flipped(self.large(self.stem(x))))))


def test_what_is_compared_with_is_pytorchs_own_network(monkeypatch):
    timed = []
    real = tune.time_steps
    monkeypatch.setattr(tune, "time_steps", lambda model, *rest, **how: timed.append(model) or real(model, *rest, **how))
    model = Beyond().eval()
    nf.optimize(model, torch.randn(1, 3, 70, 64))
    (original,) = timed
    assert original is not model
    kinds = {name: type(module) for name, module in original.named_modules()}
    plain = ("stem", "large", "separable.depthwise", "separable.pointwise", "mix")
    assert {kinds[name] for name in plain} == {torch.nn.Conv2d}
    assert (kinds["flipped"], kinds["tiled"]) == (nn.Conv2d, nn.TiledConv2d)


class Sleeping(torch.nn.Module):
    """Takes these seconds, call by call."""

    def __init__(self, clock, *seconds):
        super().__init__()
        self.clock, self.seconds = clock, iter(seconds)

    def forward(self, x):
        self.clock.sleep(next(self.seconds))
        return x


@pytest.mark.parametrize(("seconds", "gain"), [((0.7, 0.8, 3.0, 0.8), 1.25), ((0.9, 1.1, 1.2, 0.9), 1.0), ((1.1,) * 4, 1.0)])
def test_a_trial_is_faster_if_three_of_four_rounds_say_so(clock, seconds, gain):
    clock.tick = 0.0
    original = Sleeping(clock, *[1.0] * 6)  # a first call, four rounds, and what is outside convolutions
    trials = [trial.Trial("contiguous", Sleeping(clock, 0.9, *seconds), [])]
    times = time_steps(original, trials, Call.of(torch.zeros(1)), 4.0 + sum(seconds) - 0.01, train=False, flush=False)
    assert times.gains[0] == pytest.approx(gain)
    assert times.after[0] == pytest.approx(median(seconds))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(("planned", "plain"), [(0.5, 0.8), (0.8, 0.5)])
def test_the_whole_step_decides_whether_layers_that_won_alone_stay(monkeypatch, planned, plain, inplace):
    def times(original, trials, *_, **__):
        assert [t.format for t in trials] == ["contiguous", "channels_last"] * 2
        after = [plain if t.layers[0].given_up else planned for t in trials]
        return Times(1.0, dict(enumerate(after)), {k: 1 / t for k, t in enumerate(after)}, 0.1, {})

    torch.manual_seed(2)
    monkeypatch.setattr(trial.Layer, "seconds", lambda _: 0.0)  # every layer wins alone
    monkeypatch.setattr(tune, "time_steps", times)
    model, x = Beyond().eval(), torch.randn(1, 3, 70, 64)
    expected = model(x)
    fast, report = nf.optimize(model, x, inplace=inplace)
    assert report.after == 0.5
    own = {"flipped", "tiled"}  # which torch lacks
    assert {row.name for row in report.rows if not row.kept} == (own if plain < planned else {row.name for row in report.rows})
    for row in report.rows:
        assert row.kept is (type(fast.get_submodule(row.name)) is torch.nn.Conv2d)
        assert set(row.engines.values()) == {"aten"} or not row.kept
    torch.testing.assert_close(fast(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inplace", [False, True])
def test_layers_of_ninefold_are_optimized_and_those_torch_lacks_stay(inplace, fft_wins):
    torch.manual_seed(2)
    model = Beyond().eval()
    x = torch.randn(1, 3, 70, 64)
    expected = model(x)
    fast, report = nf.optimize(model, x, mode="estimate", max_scratch=50_000_000, inplace=inplace)
    assert (fast is model) is inplace
    torch.testing.assert_close(fast(x), expected, rtol=1e-4, atol=1e-5)
    rows = {row.name: row for row in report.rows}
    assert list(rows) == ["stem", "large", "flipped", "tiled", "separable.depthwise", "separable.pointwise", "mix"]
    assert (rows["large"].kept, rows["tiled"].kept, rows["flipped"].kept) == (False, False, False)
    for row in report.rows:
        module = fast.get_submodule(row.name)
        assert row.kept is (type(module) is torch.nn.Conv2d)
        assert row.kept or (module.frozen and module.plan_options.max_scratch == 50_000_000)


def test_the_gradient_to_what_the_network_is_given_is_not_planned():
    model = torch.nn.Sequential(nn.Conv2d(3, 4, 3), torch.nn.ReLU(), nn.Conv2d(4, 5, 3))
    x = torch.randn(2, 3, 12, 13)
    first, second = trial.record(model, Call.of(x), train=True)
    assert first.maps() == ("c", "g")
    assert second.maps() == ("c", "h", "g")
    assert [layer.maps() for layer in trial.record(model, Call.of(x), train=False)] == [("c",), ("c",)]
    first, _ = trial.record(model, Call.of(x.requires_grad_()), train=True)
    assert first.maps() == ("c", "h", "g")


def test_the_gradients_to_what_is_not_trained_are_not_planned():
    model = torch.nn.Sequential(nn.Conv2d(3, 4, 3), torch.nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 2, 3))
    model[0].requires_grad_(False)
    model[3].requires_grad_(False)
    maps = [layer.maps() for layer in trial.record(model, Call.of(torch.randn(2, 3, 12, 13)), train=True)]
    assert maps == [("c",), ("c", "g"), ("c", "h")]
