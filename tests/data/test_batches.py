import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import ninefold.nn as nf
from ninefold.data import (
    BucketSampler,
    FixedGrid,
    Padded,
    as_convolution,
    collate,
    fully_convolutional,
    masked_cross_entropy,
    masked_mean,
    masked_pool,
    run_padded,
)
from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError, UnsupportedError
from ninefold.models import figure_9_11

RANDOM = torch.Generator().manual_seed(0)
SIZES = {1: [(9,), (14,), (5,)], 2: [(9, 12), (14, 7), (5, 15)], 3: [(4, 6, 5), (5, 3, 8), (7, 4, 4)]}


def samples(ndim, channels=2):
    return [torch.randn(channels, *size, generator=RANDOM, dtype=torch.float64) for size in SIZES[ndim]]


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_padded_batch_holds_its_samples_and_nothing_else(ndim):
    given = samples(ndim)
    batch = Padded.of(given, value=7.0, multiple=4)
    assert all(n % 4 == 0 for n in batch.data.shape[2:])
    assert all(torch.equal(a, b) for a, b in zip(batch, given, strict=True))
    assert int(batch.mask.sum()) == sum(x[0].numel() for x in given)
    assert bool((batch.data.masked_select(~batch.mask) == 7).all())
    assert bool((batch.filled(-1).data.masked_select(~batch.mask) == -1).all())
    assert [tuple(x.shape) for x in batch.to(torch.float32)] == [tuple(x.shape) for x in given]


def net_of(ndim):
    conv, pool, mean = getattr(nf, f"Conv{ndim}d"), getattr(nf, f"MaxPool{ndim}d"), getattr(nn, f"AvgPool{ndim}d")
    norm = getattr(nn, f"BatchNorm{ndim}d")(4)
    with torch.no_grad():
        norm.bias.fill_(3.0)
    net = nn.Sequential(
        conv(2, 4, 3, padding=1), norm, nn.ReLU(), conv(4, 5, 3, padding=2, dilation=2), nn.Tanh(),
        nn.Sequential(pool(2, stride=1, padding=1), mean(2, stride=1, padding=1), conv(5, 3, 2, stride=2, padding=1)),
    )  # fmt: skip
    return net.double().eval()


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_each_sample_has_in_a_padded_batch_what_it_has_alone(ndim):
    net, given = net_of(ndim), samples(ndim)
    alone = [net(x[None])[0] for x in given]
    together = run_padded(net, Padded.of(given, value=float("nan")).filled(0))
    assert together.sizes == tuple(tuple(y.shape[1:]) for y in alone)
    assert not together.data.masked_select(~together.mask).any()
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    labels = [torch.randint(0, 3, y.shape[1:], generator=RANDOM) for y in alone]
    _, masks = collate(list(zip(alone, labels, strict=True)), "pad")
    every = [nn.functional.cross_entropy(y[None], t[None]) for y, t in zip(alone, labels, strict=True)]
    assert torch.allclose(masked_cross_entropy(together, masks, reduction="sample"), torch.stack(every).mean())
    flat = nn.functional.cross_entropy(torch.cat([y.flatten(1) for y in alone], 1).T, torch.cat([t.flatten() for t in labels]))
    assert torch.allclose(masked_cross_entropy(together, masks), flat)
    for kind, one in (
        ("mean", lambda y: y.mean(-1)),
        ("max", lambda y: y.amax(-1)),
        ("lse", lambda y: ((2.5 * y).exp().mean(-1)).log() / 2.5),
    ):
        assert torch.allclose(masked_pool(together, kind, r=2.5), torch.stack([one(y.flatten(1)) for y in alone]))
    for reduction in ("max", "mean"):
        grid = FixedGrid(2, reduction)
        assert torch.allclose(grid(together), torch.cat([grid(y[None]) for y in alone]))


def test_without_the_mask_between_layers_padding_leaks_in():
    net, given = net_of(2), samples(2)
    plain = net(Padded.of(given).data)
    alone = net(given[0][None])
    assert not torch.allclose(plain[:1, :, : alone.shape[2], : alone.shape[3]], alone, atol=1e-3)


def test_gradients_of_a_padded_batch_are_those_of_its_samples():
    net, given = net_of(2), samples(2)
    masked_pool(run_padded(net, Padded.of(given)), "mean").sum().backward()
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    sum(net(x[None]).mean((2, 3)).sum() for x in given).backward()
    assert all(torch.allclose(a, p.grad, atol=1e-12) for a, p in zip(found, net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (nf.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), "padding_mode='reflect'"),
        (nn.BatchNorm2d(2), "statistics while it trains"),
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), "divides by what its window covers"),
        (nn.MaxPool2d(2, return_indices=True), "returns indices"),
        (nn.Softmax(-1), "sums over space"),
        (nn.InstanceNorm2d(2), "none of those of which it is known"),
        (nn.Flatten(), "none of those"),
    ],
)
def test_layers_that_see_padding_are_refused_by_name(layer, match):
    with pytest.raises(UnsupportedError, match=rf"layer 0 .{type(layer).__name__}.*{match}"):
        run_padded(nn.Sequential(layer), Padded.of([x.float() for x in samples(2)]))


def test_a_grid_ends_padding_and_dense_layers_follow():
    net = nn.Sequential(nf.Conv2d(2, 4, 3), nn.ReLU(), FixedGrid((2, 3)), nn.Flatten(), nn.Linear(24, 5)).double()
    given = samples(2)
    assert torch.allclose(run_padded(net, Padded.of(given)), torch.cat([net(x[None]) for x in given]))


@pytest.mark.parametrize("reduction", ["max", "mean"])
def test_a_grid_with_any_mask_is_over_what_counts(reduction):
    x, mask = torch.randn(2, 3, 7, 8, generator=RANDOM), torch.rand(2, 1, 7, 8, generator=RANDOM) > 0.6
    mask[1, 0, :4, :3] = False
    found = FixedGrid((2, 3), reduction)(x, mask)
    for b in range(2):
        for i, (r0, r1) in enumerate(((0, 4), (3, 7))):
            for j, (c0, c1) in enumerate(((0, 3), (2, 6), (5, 8))):
                here = mask[b, 0, r0:r1, c0:c1]
                values = x[b, :, r0:r1, c0:c1][:, here]
                expected = torch.zeros(3) if not here.any() else values.amax(1) if reduction == "max" else values.mean(1)
                assert torch.allclose(found[b, :, i, j], expected, atol=1e-5)


def test_the_book_s_grid_gives_576_values_of_any_size():
    for size in ((256, 256), (12, 12), (37, 90)):
        assert FixedGrid(3)(torch.zeros(1, 64, size[0] // 4, size[1] // 4)).flatten(1).shape == (1, 576)


def test_a_dense_layer_is_a_convolution_as_large_as_its_maps():
    dense = nn.Linear(3 * 4 * 5, 7)
    layer = as_convolution(dense, (4, 5))
    x = torch.randn(2, 3, 6, 8, generator=RANDOM)
    y = layer(x)
    assert y.shape == (2, 7, 3, 4)
    for i in range(3):
        for j in range(4):
            assert torch.allclose(y[:, :, i, j], dense(x[:, :, i : i + 4, j : j + 5].flatten(1)), atol=1e-5)
    with pytest.raises(ShapeError, match="60 values is not of whole channels of .7, 5."):
        as_convolution(dense, (7, 5))


def test_a_classifier_becomes_a_map_of_scores():
    net = nn.Sequential(
        nf.Conv2d(2, 3, (3, 2)),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3 * 3 * 4, 6),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(6, 5),
    ).eval()
    before = copy.deepcopy(net.state_dict())
    full = fully_convolutional(net, (2, 8, 9)).eval()
    x = torch.randn(1, 2, 12, 13, generator=RANDOM)
    y = full(x)
    assert y.shape == (1, 5, 3, 3)
    for i in range(3):
        for j in range(3):  # the pooling's stride is the map's
            assert torch.allclose(y[:, :, i, j], net(x[:, :, 2 * i : 2 * i + 8, 2 * j : 2 * j + 9]), atol=1e-5)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    with pytest.raises(UnsupportedError, match="there is no Flatten"):
        fully_convolutional(net[:3], (2, 8, 9))


def test_figure_9_11_s_dense_layer_as_a_convolution_has_as_many_weights():
    net = figure_9_11("fixed", num_classes=10)
    with torch.device("meta"):
        full = fully_convolutional(copy.deepcopy(net).to("meta"), net.input_size)
    assert full[-2].weight.shape == (10, 64, 16, 16)
    assert full[-2].weight.numel() == 16_384 * 10


@pytest.mark.parametrize("how", ["stack", "pad", "single"])
def test_three_ways_of_one_batch(how):
    items = [(x, torch.full(x.shape[1:], k)) for k, x in enumerate(samples(2)[:1] * 3)]
    found = collate(items, how)
    if how == "single":
        assert [(x.shape, y.shape) for x, y in found] == [((1, 2, 9, 12), (1, 9, 12))] * 3
    else:
        x, y = found
        assert torch.equal(x if how == "stack" else x.data, torch.stack([item[0] for item in items]))
        assert y[:, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("items", "how", "kind", "match"),
    [
        (lambda: samples(2), "stack", ShapeError, r"sizes \[\(9, 12\), \(14, 7\), \(5, 15\)\] cannot be stacked: BucketSampler"),
        (list, "pad", ShapeError, "at least one item"),
        (lambda: [torch.zeros(2, 3), torch.zeros(3, 3)], "pad", ShapeError, "differ in channels"),
        (lambda: [torch.zeros(2, 3), torch.zeros(2, 3).double()], "pad", DTypeError, "torch.float64"),
        (
            lambda: [(torch.zeros(2, 3, 4), torch.zeros(4, 3))],
            "pad",
            ShapeError,
            r"item 0: a mask of \(4, 3\) for an image of \(3, 4\)",
        ),
        (lambda: ["a"], "pad", ArgumentTypeError, "item 0 begins with a str"),
        (lambda: [torch.zeros(2, 3)], "zip", ArgumentError, "how='zip'"),
    ],
)
def test_batches_that_are_none(items, how, kind, match):
    with pytest.raises(kind, match=match):
        collate(items(), how)


@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (lambda x, m: masked_mean(x, m & False), ShapeError, r"no position counts in samples \[0, 1\] of 2"),
        (lambda x, m: masked_mean(x, m[:, :, :4]), ShapeError, "does not fit"),
        (lambda x, m: masked_mean(x, m.float()), ArgumentTypeError, "torch.bool"),
        (lambda x, m: masked_mean(x, m, "median"), ArgumentError, "median"),
        (lambda x, m: masked_pool(x, "min", m), ArgumentError, "kind='min'"),
        (lambda x, m: masked_pool(x, "lse", m, r=0), ArgumentError, "r=0"),
        (
            lambda x, m: masked_cross_entropy(x, torch.full((2, 5, 6), 3)),
            ArgumentError,
            "labels from 3 to 3, but the logits are of 3 classes",
        ),
        (
            lambda x, m: masked_cross_entropy(x, torch.full((2, 6, 5), 0)),
            ShapeError,
            r"\(2, 6, 5\); logits \(2, 3, 5, 6\) need \(2, 5, 6\)",
        ),
        (lambda x, m: masked_cross_entropy(x, torch.full((2, 5, 6), -100)), ShapeError, "no position counts"),
        (lambda x, m: FixedGrid(0), ArgumentError, "size=0"),
        (lambda x, m: FixedGrid((2, 2, 2))(x), ShapeError, r"a grid of \(2, 2, 2\)"),
        (lambda x, m: Padded(x, ((5, 6), (5, 7))), ShapeError, "do not fit"),
    ],
)
def test_masks_that_do_not_fit(call, kind, match):
    with pytest.raises(kind, match=match):
        call(torch.zeros(2, 3, 5, 6), torch.ones(2, 1, 5, 6, dtype=torch.bool))


def test_weights_of_classes_are_torch_s():
    logits, labels, weight = (
        torch.randn(2, 3, 5, 6, generator=RANDOM),
        torch.randint(0, 3, (2, 5, 6), generator=RANDOM),
        torch.tensor([1.0, 5.0, 0.5]),
    )
    labels[0, 0] = -100
    assert torch.allclose(
        masked_cross_entropy(logits, labels, weight=weight), nn.functional.cross_entropy(logits, labels, weight)
    )


SIX = [(4, 4), (4, 6), (4, 4), (4, 6), (4, 4), (8, 8), (4, 4)]


def test_buckets_hold_one_size_and_every_item_once():
    sampler = BucketSampler(SIX, 2, seed=3)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 4
    assert sorted(k for batch in batches for k in batch) == list(range(7))
    assert all(len({SIX[k] for k in batch}) == 1 for batch in batches)
    assert list(BucketSampler(SIX, 2, seed=3)) == batches
    assert list(sampler) != batches
    sampler.set_epoch(0)
    assert list(sampler) == batches
    assert {len(b) for b in BucketSampler(SIX, 2, drop_last=True)} == {2}
    assert len(BucketSampler(SIX, 7, multiple=8)) == 1
    assert len(BucketSampler(SIX, 9, key=len)) == 1


@pytest.mark.parametrize("at", range(9))
def test_a_sampler_goes_on_where_its_state_was_taken(at):
    one = BucketSampler(SIX, 2, seed=5)
    expected = [batch for _ in range(3) for batch in one]
    two, seen = BucketSampler(SIX, 2, seed=5), []
    while len(seen) < at:
        for batch in two:
            seen.append(batch)
            if len(seen) == at:
                break
    three = BucketSampler(SIX, 2, seed=0)
    three.load_state_dict(two.state_dict())
    while len(seen) < len(expected):
        seen += list(three)
    assert seen == expected


def test_a_loader_takes_it_and_a_state_of_others_is_refused():
    data = [torch.full((1, *size), float(k)) for k, size in enumerate(SIX)]
    batches = list(DataLoader(data, batch_sampler=BucketSampler(SIX, 2, seed=1), collate_fn=collate))
    assert sorted(v for batch in batches for v in batch[:, 0, 0, 0].tolist()) == list(range(7))
    sampler = BucketSampler(SIX, 2)
    assert sampler.state_dict(position=3)["position"] == 3
    with pytest.raises(ArgumentError, match="batch 9 of an epoch of 4"):
        sampler.load_state_dict({"seed": 0, "epoch": 0, "position": 9})
    with pytest.raises(ShapeError, match="no item"):
        BucketSampler([], 2)
    with pytest.raises(ArgumentError, match="leaves no batch: no size has 9 items"):
        BucketSampler(SIX, 9, drop_last=True)
