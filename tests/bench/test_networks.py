import json

import pytest
import torch

from ninefold.network import tune
from ninefold.network.choice import Times
from ninefold.planning import decide
from ninefold.spec import ConvSpec, Problem


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    from bench import networks as module

    monkeypatch.setattr(tune, "time_steps", lambda *_, **__: Times(1.0, {0: 0.5}, {0: 2.0}, 0.1, {}))  # whatever the clock says
    monkeypatch.setattr(module, "retain_memory", lambda: None)  # it would hold for all tests that follow
    monkeypatch.setattr(module, "NETWORKS", {"tiny": (tiny, 20)})
    return module


def tiny():
    layers = [
        torch.nn.Conv2d(3, 6, 3, stride=2),
        torch.nn.BatchNorm2d(6),
        torch.nn.ReLU(),
        torch.nn.Conv2d(6, 4, (3, 5), groups=2),
    ]
    return torch.nn.Sequential(*layers)


def run(networks, tmp_path, *more):
    target = tmp_path / "out.json"
    code = networks.main(["--seconds", "0.02", "--planning", "0.002", "--batch", "2", "--json", str(target), *more])
    return code, json.loads(target.read_text())


def test_a_network_has_times_a_bound_and_what_was_chosen(networks, tmp_path, capsys):
    measured = decide.measure
    code, data = run(networks, tmp_path)
    assert decide.measure is measured
    assert code == 0
    assert [c["mode"] for c in data["cases"]] == ["inference", "training"]
    for case in data["cases"]:
        assert set(case["seconds"]) == {"eager", "channels-last", "ninefold", "bare", "bare, last"}
        assert case["best"] in ("eager", "channels-last")
        low, high = case["ratio"][1:]
        assert 0 < low <= high
        assert case["bound"] == case["outside"] + case["floors"] > 0
        assert case["reached"] == pytest.approx(case["bound"] / case["seconds"]["ninefold"])
        assert sum(case["engines"].values()) == (2 if case["mode"] == "inference" else 5)  # no gradient to the image
    assert [c["folded"] for c in data["cases"]] == [1, 0]
    shown = capsys.readouterr().out
    for words in ("tiny 20", "inference:", "of the bound reached", "1 folded", "G multiply-adds/s in a product"):
        assert words in shown


def test_a_network_that_computes_something_else_is_an_error_and_no_time(networks, tmp_path, monkeypatch, capsys):
    real = networks.nf.optimize

    def wrong(model, x, **named):
        fast, report = real(model, x, **named)
        torch.nn.init.ones_(fast[3].weight)
        return fast, report

    monkeypatch.setattr(networks.nf, "optimize", wrong)
    code, data = run(networks, tmp_path, "--mode", "inference")
    assert code == 1
    assert data["cases"][0]["ratio"] is None
    assert "is off by" in data["cases"][0]["error"]
    assert "ERROR" in capsys.readouterr().out


def test_every_map_that_runs_has_a_floor_and_no_other(networks):
    model, x = tiny(), torch.randn(2, 3, 20, 20)
    assert [p.map for p in networks.problems(model.eval(), x, train=False)] == ["c", "c"]
    assert [p.map for p in networks.problems(model.train(), x, train=True)] == ["c", "g", "c", "g", "h"]
    transposed = torch.nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1)
    (problem,) = networks.problems(transposed, x, train=False)
    assert (problem.map, problem.form.n_out, problem.form.n_in) == ("h", (20, 20), (42, 42))


@pytest.mark.parametrize(
    ("spec", "size", "less"),
    [
        (ConvSpec(32, 48, (3, 3), padding=1), (20, 22), 2.25),
        (ConvSpec(32, 48, (3, 3), stride=2), (21, 23), 1),
        (ConvSpec(32, 48, (3, 3), dilation=2), (21, 23), 1),
        (ConvSpec(32, 32, (3, 3), groups=32), (20, 22), 1),
        (ConvSpec(32, 48, (1, 1)), (20, 22), 1),
        (ConvSpec(4, 6, (5, 3), period=(2, 2)), (9, 8), 1),
    ],
)
def test_multiplications_are_those_of_the_best_algorithm(networks, spec, size, less):
    form = spec.form(size)
    assert form.macs * 3 / networks.multiplications(form, 3) == pytest.approx(less)


def test_long_kernels_count_as_transforms(networks):
    form = ConvSpec(8, 8, (511,), groups=8, padding=255).form(2048)
    assert networks.multiplications(form, 1) < form.macs / 5


def test_a_floor_is_the_larger_of_products_and_bytes(networks):
    rates = networks.Rates(product=1e9, copies={1 << 16: 1e10, 1 << 20: 1e9})
    slower = networks.Rates(product=2e8, copies={1 << 16: 1e9, 1 << 20: 1e8})
    assert rates.best(slower) == slower.best(rates) == rates
    assert rates.copied(1 << 14) == (1 << 14) / 1e10
    assert rates.copied(1 << 18) == (1 << 18) / 1e9
    assert rates.copied(1 << 24) == (1 << 24) / 1e9
    wide = Problem("c", ConvSpec(64, 64, (1, 1)).form((5, 6)), 1)
    assert networks.floor_of(wide, rates) == wide.macs / 1e9
    thin = Problem("c", ConvSpec(1, 1, (1, 1)).form((500, 600)), 1)
    assert networks.floor_of(thin, rates) == thin.bytes / 1e9


def test_every_network_of_the_benchmark_runs_and_is_that_of_its_name():
    from bench.models import NETWORKS

    counts = {}
    for name, (make, size) in NETWORKS.items():
        model = make().eval()
        with torch.no_grad():
            assert model(torch.zeros(1, 3, size // 2, size // 2)).shape == (1, 100)
        counts[name] = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert counts["resnet_3x3"] == 11_166_912 + 51_200  # convolutions of ResNet-18, and 512 x 100
    assert {type(m).__module__ for m in NETWORKS["convnext_like"][0]().modules() if hasattr(m, "spec")} == {"ninefold.nn.conv"}
