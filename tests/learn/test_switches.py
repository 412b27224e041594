"""Encoder and decoder with switches: what a shift changes and what it does not (Ranzato et al. 2007b)."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

import ninefold.learn.switches as module
from ninefold import functional as F
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn import ConvFeatures
from ninefold.learn.compare import Comparison
from ninefold.learn.switches import SparseEncoderDecoder

HOW = {"n_filters": 5, "patch_size": (3, 4), "window": (2, 3), "n_epochs": 2, "batch_size": 16, "n_crops": 64, "random_state": 0}


def bars(n=12, height=14, width=17, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    x = 0.1 * rng.normal(size=(n, channels, height, width))
    for k in range(n):
        x[k, :, rng.integers(height)] += 1
        x[k, 0, :, rng.integers(width)] += 2
    return x[:, 0] if channels == 1 else x


def by_hand(atom, window=(2, 3), bias=0.0):
    """A fitted source whose only filter is known, on images taken as they are."""
    source = SparseEncoderDecoder(1, atom.shape, window=window)
    source.mean_, source.scale_ = 0.0, 1.0
    source._values = [
        torch.tensor(atom, dtype=torch.float32)[None, None],
        torch.tensor([bias]),
        torch.tensor(atom, dtype=torch.float32)[None, None],
    ]
    source._keep()
    return source


# Switches


def test_unpooling_with_switches_puts_every_winner_where_it_was():
    maps = torch.randint(-9, 9, (3, 4, 6, 9), generator=torch.Generator().manual_seed(0)).float()
    largest, at = F.max_pool2d(maps, (2, 3), return_indices=True)
    back = F.max_unpool2d(largest, at, (2, 3))
    on = back != 0
    assert torch.equal(back[on], maps[on])
    assert int(on.sum()) == int((largest != 0).sum())
    assert torch.equal(
        F.max_pool2d(back.where(on, torch.full_like(back, -99)), (2, 3)).clamp_min(-9)[largest != 0], largest[largest != 0]
    )


def test_a_single_winner_is_reconstructed_exactly():
    """One atom at one place: the decoder puts it there, times the feature, and nothing anywhere else."""
    atom = np.array([[0.1, -0.2], [0.3, 0.4], [-0.1, 0.2]])
    source = by_hand(atom)
    for row, column in ((0, 0), (3, 4), (5, 8)):
        x = np.zeros((1, 8, 10))
        x[0, row : row + 3, column : column + 2] = atom
        features, switches = source.encode(x)
        assert features.shape == (1, 1, 3, 3)
        window = row // 2, column // 3
        assert switches[0, 0][window] == row * 9 + column
        kept = np.zeros_like(features)
        kept[0, 0][window] = features[0, 0][window]
        wanted = np.zeros((1, 1, 8, 10))
        wanted[0, 0] = x[0] / (1 + np.exp(-5 * np.square(atom).sum()))
        assert np.allclose(source.decode(kept, switches), wanted, atol=1e-6)


def test_a_small_shift_changes_switches_and_leaves_features_alone():
    atom = np.array([[0.1, -0.2], [0.3, 0.4], [-0.1, 0.2]])
    source = by_hand(atom, window=(3, 4))
    x = np.zeros((1, 11, 13))
    x[0, 3:6, 4:6] = atom  # on the first position of its window, so that it may move by 2 and by 3 within it
    features, switches = source.encode(x)
    for down, right in ((0, 1), (1, 0), (2, 3)):
        moved, at = source.encode(np.roll(x, (down, right), (1, 2)))
        assert moved[0, 0, 1, 1] == features[0, 0, 1, 1]
        assert at[0, 0, 1, 1] == switches[0, 0, 1, 1] + down * 12 + right
        # what the decoder makes of the winner moves, too
        one, other = np.zeros_like(features), np.zeros_like(features)
        one[0, 0, 1, 1] = other[0, 0, 1, 1] = features[0, 0, 1, 1]
        assert np.allclose(np.roll(source.decode(one, switches), (down, right), (2, 3)), source.decode(other, at))
    beyond, _ = source.encode(np.roll(x, 4, 2))
    assert beyond[0, 0, 1, 1] != features[0, 0, 1, 1]


def test_features_are_those_of_the_definition():
    source = SparseEncoderDecoder(**HOW).fit(bars(channels=2))
    x = bars(n=2, channels=2, seed=5)
    features, switches = source.encode(x)
    z = (x - source.mean_) / source.scale_
    patches = np.lib.stride_tricks.sliding_window_view(z, (3, 4), (2, 3))
    maps = np.einsum("nchwij,kcij->nkhw", patches, source.encoder_weight_)[:, :, :12, :12]
    blocks = maps.reshape(2, 5, 6, 2, 4, 3).swapaxes(3, 4).reshape(2, 5, 6, 4, 6)
    wanted = 1 / (1 + np.exp(-5 * (blocks.max(-1) + source.encoder_bias_[:, None, None])))
    assert np.allclose(features, wanted, atol=1e-5)
    assert np.allclose(
        np.take_along_axis(maps.reshape(2, 5, -1), switches.reshape(2, 5, -1), 2), blocks.max(-1).reshape(2, 5, -1), atol=1e-5
    )


def test_comparison_sees_what_the_encoder_sees():
    source = SparseEncoderDecoder(**HOW).fit(bars(channels=2))
    x = torch.from_numpy(bars(n=2, channels=2, seed=5)).float()
    maps = F.conv2d((x - source.mean_) / source.scale_, torch.from_numpy(source.encoder_weight_))
    assert torch.allclose(Comparison(source)(x).dots, maps, atol=1e-4)
    assert ConvFeatures(source, "soft", prefit=True).fit(x).transform(x).shape == (2, 4 * 10)


# Learning


def test_codes_improve_and_stay_between_zero_and_one():
    source = SparseEncoderDecoder(**HOW).fit(bars())
    x = (torch.from_numpy(bars(seed=3)).float()[:, None, :14, :15] - source.mean_) / source.scale_
    weight, bias, decoder = (v.detach() for v in source._values)
    features, switches = source._encoded(x, weight, bias)
    values = [source._objective(x, features, features, switches, decoder)]
    for n in range(1, 8):
        source.code_iter = n
        code, value = source._improved(x, features, switches, decoder)
        values.append(value)
        assert float(code.min()) >= 0
        assert float(code.max()) <= 1
    assert (np.diff(values) < 1e-6 * values[0]).all()
    assert values[-1] < values[0]


def test_slope_of_the_code_is_that_of_autograd():
    source = SparseEncoderDecoder(**HOW).fit(bars())
    x = (torch.from_numpy(bars(seed=3)).float()[:, None, :14, :15] - source.mean_) / source.scale_
    weight, bias, decoder = (v.detach() for v in source._values)
    features, switches = source._encoded(x, weight, bias)
    source.code_iter = 1
    step = 1 / (module.lipschitz(decoder, tuple(x.shape[2:])) + source.pull)
    code = features.clone().requires_grad_()
    slope = torch.autograd.grad(_value(source, x, code, features, switches, decoder), code)[0]
    wanted = (features - step * slope).clamp(0, 1)
    assert torch.allclose(source._improved(x, features, switches, decoder)[0], wanted, atol=1e-5)
    assert float((wanted - features).abs().max()) > 0.01


def _value(source, x, code, features, switches, decoder):
    left = x - source._decoded(code, switches, decoder)
    return left.square().sum() / 2 + source.pull / 2 * (code - features).square().sum() + source.penalty * code.sum()


def test_learning_lowers_error_and_keeps_features_sparse():
    source = SparseEncoderDecoder(**{**HOW, "n_filters": 12, "n_epochs": 25}).fit(bars(n=30))
    assert np.mean(source.error_[-4:]) < 0.6
    assert np.mean(source.objective_[-4:]) < np.mean(source.objective_[4:8])
    assert source.activity_[-1] < 0.2
    assert float(np.sqrt(np.square(source.decoder_weight_).sum((1, 2, 3))).max()) <= 1 + 1e-5
    x = bars(n=5, seed=8)
    made = source.reconstruct(x)[:, 0]
    there = x[:, : made.shape[1], : made.shape[2]]
    assert np.square(made - there).sum() < 0.75 * np.square(there - there.mean()).sum()


# As an estimator


def test_same_seed_clone_pickle_and_global_state():
    before, make = torch.random.get_rng_state(), SparseEncoderDecoder(**HOW)
    a, b = clone(make).fit(bars()), clone(make).fit(bars())
    assert np.array_equal(a.filters_, b.filters_)
    assert torch.equal(before, torch.random.get_rng_state())
    again = pickle.loads(pickle.dumps(a))
    assert np.array_equal(again.encode(bars())[0], a.encode(bars())[0])
    assert np.array_equal(again.partial_fit(bars()).filters_, a.partial_fit(bars()).filters_)
    assert not hasattr(clone(a), "encoder_weight_")


def test_iterators_are_read_once_and_whole():
    listed, once = (SparseEncoderDecoder(**HOW).fit(x) for x in (list(bars()), iter(bars())))
    assert np.array_equal(listed.filters_, once.filters_)


def test_interrupt_keeps_what_was_reached(monkeypatch):
    real, calls = SparseEncoderDecoder._step, []

    def interrupted(self, x):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(1)
        real(self, x)

    monkeypatch.setattr(SparseEncoderDecoder, "_step", interrupted)
    source = SparseEncoderDecoder(**HOW)
    with pytest.raises(KeyboardInterrupt):
        source.fit(bars())
    monkeypatch.undo()
    assert len(source.objective_) == 5
    assert np.array_equal(source.encoder_weight_, source._values[0].detach().numpy())
    assert len(source.partial_fit(bars()).objective_) == 5 + 4


# Bad input


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"n_filters": 0}, ArgumentError, "n_filters=0 must be at least 1"),
        ({"window": (2, 3, 4)}, ArgumentError, r"window=\(2, 3, 4\) must be one whole number or two"),
        ({"window": 1.5}, ArgumentTypeError, "window=1.5 must be a whole number"),
        ({"penalty": -1.0}, ArgumentError, "penalty=-1.0 must not be below 0"),
        ({"pull": float("nan")}, ArgumentError, "pull=nan must not be below 0"),
        ({"gain": 0.0}, ArgumentError, "gain=0.0 must be above 0"),
        ({"learning_rate": -0.1}, ArgumentError, "learning_rate=-0.1 must be above 0"),
        ({"window": 15}, ShapeError, "an image of 14x17 fills no window of 15x15 positions of a filter of 3x4; it must be 17x18"),
    ],
)
def test_parameters_out_of_range(arguments, error, words):
    with pytest.raises(error, match=words):
        SparseEncoderDecoder(**{**HOW, **arguments}).fit(bars())


def test_images_that_do_not_fit():
    make = SparseEncoderDecoder(**HOW)
    with pytest.raises(ArgumentError, match="crops are constant"):
        clone(make).fit(np.full((3, 14, 17), 4.0))
    with pytest.raises(ArgumentError, match="NaN or infinity"):
        clone(make).fit(np.full((3, 14, 17), np.nan))
    with pytest.raises(ArgumentError, match="no images"):
        clone(make).fit(iter([]))
    with pytest.raises(ShapeError, match="of 1 and of 2 channels"):
        clone(make).fit([np.ones((14, 17)), np.ones((14, 17, 2))])
    with pytest.warns(UserWarning, match="n_filters=5000 .* there will be"):
        clone(make).set_params(n_filters=5000, n_epochs=1, n_crops=20).fit(bars())
    source = clone(make).fit(bars())
    with pytest.raises(ShapeError, match="images of 2 channels, but the filters have 1"):
        source.partial_fit(bars(channels=2))
    with pytest.raises(ShapeError, match="of different sizes"):
        source.encode([np.ones((14, 17)), np.ones((18, 17))])
    with pytest.raises(ShapeError, match="fills no window"):
        source.encode(np.ones((1, 3, 17)))
    features, switches = source.encode(bars())
    with pytest.raises(ShapeError, match="indices have shape"):
        source.decode(features, switches[:2])
    with pytest.raises(ShapeError, match="the largest index is 99999"):
        source.decode(features, np.full_like(switches, 99999))
