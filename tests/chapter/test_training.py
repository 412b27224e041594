"""The training loop and the intervals of the experiments, and how results are kept."""

import json
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import nn

from ninefold.chapter import record, training
from ninefold.chapter.data import Labelled, half
from ninefold.chapter.entry import Finding, entry
from ninefold.errors import ArgumentError


def trained(seed, **how):
    with training.seeded(seed):
        model = nn.Sequential(nn.Flatten(), nn.Linear(144, 2))
        training.fit(model, *half(60, 0), steps=7, **how)
        return model[1].weight.detach()


def test_a_seed_decides_everything():
    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_seeded_leaves_no_trace():
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), training.seeded(3):
        assert torch.get_num_threads() == 1
        torch.rand(4)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_the_prior_pulls_and_the_bound_holds():
    free = trained(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 2))
    weight = model[1].weight

    def none_below():
        with torch.no_grad():
            weight.clamp_(min=0)

    training.fit(model, *half(60, 0), steps=7, then=none_below)
    assert weight.min() == 0
    assert free.min() < 0
    with training.seeded(0):
        model = nn.Sequential(nn.Flatten(), nn.Linear(144, 2))
        training.fit(model, *half(60, 0), steps=50, prior=lambda: 100 * model[1].weight.square().sum())
    assert model[1].weight.norm() < free.norm() / 2


def test_each_example_is_used_once_before_any_twice():
    met = []

    class Spy(nn.Linear):
        def forward(self, x):
            met.extend(x[:, 0].tolist())
            return super().forward(x)

    training.fit(Spy(1, 2), torch.arange(12.0)[:, None], torch.zeros(12, dtype=torch.long), steps=6, batch=4)
    assert len(met) == 24
    assert sorted(met[:12]) == sorted(met[12:]) == list(range(12))
    assert met[:12] != met[12:]


def test_the_interval_is_students():
    values = [0.1, 0.4, 0.2, 0.9, 0.35]
    low, high = stats.t.interval(0.95, 4, loc=sum(values) / 5, scale=stats.sem(values))
    found = training.interval(values)
    assert (found.low, found.mean, found.high) == pytest.approx((low, sum(values) / 5, high))
    assert found.low < found.mean < found.high
    with pytest.raises(ArgumentError, match="1 run"):
        training.interval([1.0])


def test_intervals_hold_the_mean_as_often_as_they_say():
    draw = torch.Generator().manual_seed(0)
    runs = torch.randn(1000, 5, generator=draw) + 3
    held = sum(found.low < 3 < found.high for found in map(training.interval, runs.tolist()))
    assert 930 <= held <= 970


def test_a_run_is_worse_only_seed_for_seed():
    noise = [0.3, 0.1, 0.5, 0.2]
    one, other = training.Errors(noise, [n + 0.01 + 0.001 * n for n in noise]), training.Errors(noise, noise)
    assert one.worse(other)
    assert not other.worse(one)
    assert not one.test.above(other.test)


def test_errors_are_those_of_pictures_learnt_and_not():
    asked = []

    def task(count, seed):
        asked.append((count, seed))
        return Labelled(torch.eye(2).repeat(count // 2, 1), torch.tensor([0, seed % 2]).repeat(count // 2))

    found = training.learn(nn.Identity, task, 4, lambda model, told: None, seeds=2, unseen=6)
    assert asked == [(4, 0), (6, 1), (4, 2), (6, 3)]
    assert found == ([0.5, 0.5], [0.0, 0.0])


def made(key, measured="1 of 1", numbers=None):
    @entry(key, "One", "一", claim="", source="", uses=(), long=True)
    def one(*, trial=False):
        return Finding(measured, holds=True, numbers=numbers or {"trial": trial, "n": 1})

    return one


def test_results_are_kept_beside_the_others(tmp_path):
    path = tmp_path / "kept.json"
    record.keep("b", record.Record.of(made("b")), path)
    record.keep("a", record.Record.of(made("a"), trial=True), path)
    kept = record.load(path)
    assert list(kept) == ["a", "b"]
    assert kept["a"].numbers == {"trial": True, "n": 1}
    assert kept["b"].finding == Finding("1 of 1", True, {"trial": False, "n": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["kept.json"]


def test_what_json_cannot_hold_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "kept.json"
    record.keep("a", record.Record.of(made("a")), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        record.keep("b", record.Record.of(made("b", numbers={"n": float("nan")})), path)
    with pytest.raises(TypeError):
        record.keep("b", record.Record.of(made("b", numbers={"n": torch.ones(1)})), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["kept.json"]


def test_a_file_that_cannot_be_put_in_place_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "kept.json"
    record.keep("a", record.Record.of(made("a")), path)
    before = path.read_bytes()

    def full(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ArgumentError, match="disk full"):
        record.keep("b", record.Record.of(made("b")), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["kept.json"]


@pytest.mark.parametrize("text", ["[]", '{"a": {"measured": "1"}}', "{", '{"a": 1}'])
def test_a_damaged_file_is_named(tmp_path, text):
    path = tmp_path / "kept.json"
    path.write_text(text)
    with pytest.raises(ArgumentError, match=r"kept\.json"):
        record.load(path)


def test_records_are_json_with_the_machine():
    told = json.loads(record.RECORDED.read_text("utf-8"))
    for key, fields in told.items():
        assert set(fields) == {"measured", "holds", "numbers", "seconds", "date", "machine"}, key
        assert "core" in fields["machine"]
        assert fields["seconds"] > 0
