import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from ninefold.cli import app
from ninefold.learn import ConvDBN, ConvFeatures, ConvRBM, KMeansFilters, RandomFilters, demo

DIGITS = load_digits()


def test_draws_are_even_and_the_same_for_whoever_asks():
    labels = DIGITS.target[:400]
    one, two = (demo.draws(labels, 3, 5, seed=2) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(np.bincount(labels[a]), np.full(10, 3))
        assert len(set(a.tolist())) == 30
    assert len({tuple(a) for a in one}) == 5


def test_only_labelled_rows_are_trained_on_and_only_unseen_ones_tested():
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=60)
    rows = np.eye(3)[labels] + generator.normal(scale=0.01, size=(60, 3))
    found = demo.few_labels(rows, labels, rows, (labels + 1) % 3, counts=(2,), splits=4)
    assert found[2].shape == (4,)
    assert not found[2].any()  # told by the labels of the first, none of the second's answers is right
    assert demo.few_labels(rows, labels, rows, labels, counts=(2,), splits=4)[2].all()


def test_tables_of_features_and_networks():
    images, labels = DIGITS.images[:600], DIGITS.target[:600]
    named = []
    below = ConvRBM(6, 3, n_epochs=1, random_state=0)
    some = {
        ("random", "soft"): ConvFeatures(RandomFilters(24, 4, random_state=0), "soft"),
        ("RBM", "probabilities"): ConvDBN([below]),
    }
    rows = demo.features_table(some, images, labels, counts=(1, 5), splits=4, tell=named.append)
    assert [row.name for row in rows] == ["raw pixels", "random", "RBM"]
    assert named == ["random", "RBM"]
    assert all(row.accuracies[5].mean() > row.accuracies[1].mean() > 0.1 for row in rows[:2])
    assert all(row.learning > 0 and row.extracting > 0 for row in rows[1:])
    assert rows[1].source.filters_.shape == (24, 1, 4, 4)
    threads = torch.get_num_threads()
    networks = demo.networks_table(images, labels, counts=(5,), splits=2, steps=30)
    assert torch.get_num_threads() == threads
    assert all(row.accuracies[5].mean() > 0.5 for row in networks)  # 0.1 is guessing
    console = Console(width=80)
    with console.capture() as captured:
        console.print(demo.told(rows, "accuracy"))
    lines = captured.get().splitlines()
    assert [line.strip().split("  ")[0] for line in lines[4:7]] == ["raw pixels", "random, soft", "RBM, probabilities"]
    assert f"{100 * rows[0].accuracies[5].mean():.1f} ±" in lines[4]


def test_filters_of_a_frozen_network_stay_and_those_of_a_tuned_one_move():
    x = torch.from_numpy(DIGITS.images[:40]).float()[:, None] / 16
    answers = torch.from_numpy(DIGITS.target[:40])
    source = KMeansFilters(8, 4, contrast=None, random_state=0).fit(x.numpy())
    network = demo._network(0, 8, 10, source)
    before = network[0].weight.clone()
    assert np.array_equal(before.detach().numpy(), source.filters_)
    demo._trained(network, x, answers, 3)
    assert torch.equal(network[0].weight, before)
    network.requires_grad_(True)
    demo._trained(network, x, answers, 3)
    assert not torch.equal(network[0].weight, before)


def test_the_contenders_are_all_that_are_promised():
    names = {name for name, _ in demo.contenders()}
    assert names == {
        "random",
        "designed Gabor",
        "sampled patches",
        "k-means unwhitened",
        "k-means",
        "OMP-1",
        "sparse coding",
        "RBM",
        "DBN of two layers",
    }


@pytest.mark.slow
def test_the_command_prints_both_tables_and_writes_the_mosaics(tmp_path, monkeypatch):
    few = {key: made for key, made in demo.contenders().items() if key[0] in ("random", "k-means")}
    monkeypatch.setattr(demo, "contenders", lambda: few)
    real = demo.run
    monkeypatch.setattr(demo, "run", lambda folder, **kw: real(folder, splits=2, **kw))
    result = CliRunner().invoke(app, ["learn", "--demo", "--out", str(tmp_path / "shown")])
    assert result.exit_code == 0, result.output
    for word in ("raw pixels", "k-means, triangle", "supervised only", "k-means, fine-tuned", "3 pictures"):
        assert word in result.output
    assert sorted(p.name for p in (tmp_path / "shown").iterdir()) == [
        "k-means-hard.png",
        "k-means-triangle.png",
        "random-soft.png",
    ]


def test_without_the_demo_data_and_out_are_asked_for():
    result = CliRunner().invoke(app, ["learn"])
    assert result.exit_code != 0
    assert "--data and --out are needed" in result.output
