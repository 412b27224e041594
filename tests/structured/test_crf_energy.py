"""The energy of label maps, its gradient, its conditionals, and what training by them does."""

import pytest
import torch

from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.structured.crf.models import EnergyCleaning

SIZES = {1: (7,), 2: (4, 5), 3: (3, 2, 4)}


def model_of(ndim=2, classes=3, **more):
    torch.manual_seed(0)
    model = EnergyCleaning(classes, 4, (3, 5, 3)[:ndim], ndim=ndim, **more).double()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
    return model


def data(ndim=2, classes=3):
    unary = torch.randn(2, classes, *SIZES[ndim], dtype=torch.float64)
    labels = torch.randint(0, classes, (2, *SIZES[ndim]))
    return unary, labels


def one_hot(labels, classes=3):
    return torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).double()


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_energy_window_by_window(ndim):
    model, (unary, labels) = model_of(ndim), data(ndim)
    y = one_hot(labels)
    pads = [k // 2 for k in model.kernel_size]
    wide = torch.nn.functional.pad(y, [p for pad in reversed(pads) for p in (pad, pad)])
    want = torch.zeros(2, dtype=torch.float64)
    for v in torch.ones(SIZES[ndim]).nonzero().tolist():
        here = (slice(None), slice(None), *v)
        want -= (y[here] * (unary[here] @ model.A.T)).sum(1)
        window = wide[(slice(None), slice(None), *(slice(i, i + k) for i, k in zip(v, model.kernel_size, strict=True)))]
        u = (window.unsqueeze(1) * model.W).flatten(2).sum(2) + model.b
        want -= (model.c * u**2 / (1 + u**2)).sum(1)
    torch.testing.assert_close(model.energy(y, unary), want)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_score_is_minus_the_gradient(ndim):
    model, (unary, _) = model_of(ndim), data(ndim)
    y = torch.randn_like(unary).softmax(1).requires_grad_()
    (grad,) = torch.autograd.grad(model.energy(y, unary).sum(), y)
    torch.testing.assert_close(model.score(y, unary), -grad)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_conditionals_by_changing_each_label(ndim):
    model, (unary, labels) = model_of(ndim), data(ndim)
    got = model.conditional_logits(unary, labels).log_softmax(1)
    for v in torch.ones(SIZES[ndim]).nonzero().tolist():
        energies = []
        for k in range(3):
            changed = labels.clone()
            changed[(slice(None), *v)] = k
            energies.append(model.energy(one_hot(changed), unary))
        want = torch.log_softmax(-torch.stack(energies, 1), 1)
        torch.testing.assert_close(got[(slice(None), slice(None), *v)], want)
    loss = model.pseudo_likelihood(unary, labels)
    torch.testing.assert_close(loss, torch.nn.functional.nll_loss(got, labels))


def test_positions_without_a_label_are_nothing_in_windows():
    model, (unary, labels) = model_of(), data()
    labels[0, 1, 2] = 255
    y = one_hot(labels.where(labels != 255, 0))
    y[0, :, 1, 2] = 0
    got = model.conditional_logits(unary, labels, ignore_index=255).log_softmax(1)[0, :, 2, 2]
    energies = []
    for k in range(3):
        changed = y.clone()
        changed[0, :, 2, 2] = torch.eye(3, dtype=torch.float64)[k]
        energies.append(model.energy(changed, unary)[0])
    torch.testing.assert_close(got, torch.log_softmax(-torch.stack(energies), 0))
    every = torch.full_like(labels, 255)
    assert model.pseudo_likelihood(unary, every, ignore_index=255) == 0


def test_small_steps_never_raise_the_free_energy():
    model, (unary, _) = model_of(rate=0.05), data()
    energies = torch.stack([model.free_energy(model(unary, iterations=n).softmax(1), unary) for n in range(60)])
    assert (energies.diff(dim=0) <= 1e-9).all()
    assert (energies[-1] < energies[0] - 0.1).all()


def test_without_rewards_it_is_the_association():
    model, (unary, _) = model_of(), data()
    with torch.no_grad():
        model.c.zero_()
        model.A.copy_(torch.eye(3))
    torch.testing.assert_close(model(unary), unary)


def test_batch_and_gradients():
    model, (unary, _) = model_of(iterations=3), data()
    torch.testing.assert_close(model(unary[1:]), model(unary)[1:])
    small = EnergyCleaning(2, 2, 3, ndim=1, iterations=3).double()
    x = torch.randn(1, 2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(small, x)
    label = torch.randint(0, 2, (1, 5))
    names = [n for n, _ in small.named_parameters()]
    loss = lambda *p: small_loss(small, dict(zip(names, p, strict=True)), x.detach(), label)
    assert torch.autograd.gradcheck(loss, tuple(small.parameters()))


class Loss(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, labels):
        return self.model.pseudo_likelihood(x, labels)


def small_loss(model, parameters, x, labels):
    return torch.func.functional_call(Loss(model), {f"model.{n}": p for n, p in parameters.items()}, (x, labels))


def stripes(count, seed, noise):
    """Maps of upright stripes two wide, seen through noise: what their neighbours are tells more than what was seen."""
    draw = torch.Generator().manual_seed(seed)
    shift = torch.randint(0, 4, (count, 1, 1), generator=draw)
    labels = ((torch.arange(14) + shift) // 2 % 2).expand(count, 12, 14)
    seen = 2 * (2 * labels - 1).float() + noise * torch.randn(count, 12, 14, generator=draw)
    return torch.stack((-seen, seen), 1) / 4, labels.contiguous()


def trained(loss, noise):
    torch.manual_seed(0)
    model = EnergyCleaning(2, 6, 5)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    unary, labels = stripes(12, 0, noise)
    for _ in range(40):
        optimizer.zero_grad()
        loss(model, unary, labels).backward()
        optimizer.step()
    return model, stripes(12, 1, noise)


def wrong(logits, labels):
    return (logits.argmax(1) != labels).double().mean()


def test_trained_through_its_descent_it_cleans_new_maps():
    model, (unary, labels) = trained(lambda m, x, y: torch.nn.functional.cross_entropy(m(x), y), 2.2)
    assert wrong(unary, labels) > 0.15
    assert wrong(model(unary), labels) < 0.03


def test_trained_by_pseudo_likelihood_it_tells_each_label_from_the_true_ones_around():
    model, (unary, labels) = trained(lambda m, x, y: m.pseudo_likelihood(x, y), 2.2)
    with torch.no_grad():
        assert wrong(model.conditional_logits(unary, labels), labels) < 0.03


def test_what_does_not_fit_is_said():
    model, (unary, labels) = model_of(), data()
    with pytest.raises(ArgumentError, match="label 3 is none of 0 to 2"):
        model.pseudo_likelihood(unary, labels + (labels == 2))
    with pytest.raises(DTypeError, match="float64"):
        model.pseudo_likelihood(unary, labels.double())
    with pytest.raises(ShapeError, match=r"\(2, 4, 4\); it must be \(2, 4, 5\)"):
        model.conditional_logits(unary, labels[..., :4])
    with pytest.raises(ArgumentError, match="minus infinity"):
        model(torch.where(unary > 1, -torch.inf, unary))
    with pytest.raises(ArgumentError, match="reads no features"):
        model(unary, unary)
    with pytest.raises(ArgumentError, match="must be odd"):
        EnergyCleaning(2, kernel_size=4)
    with pytest.raises(ArgumentError, match="rate=0"):
        EnergyCleaning(2, rate=0)
