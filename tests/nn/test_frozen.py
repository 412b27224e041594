import torch

from ninefold import nn
from ninefold.engines.fft import FFT


def gradient(layer, x):
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(layer(x).abs().square().sum(), x)
    return grad


def test_a_frozen_complex_layer_keeps_its_gradient(monkeypatch):
    """The gradient takes the conjugate of the weight: spectra that were kept of the weight itself would be wrong."""
    monkeypatch.setattr(FFT, "cost", lambda *_: 0.0)
    torch.manual_seed(0)
    layer = nn.Conv1d(2, 4, 33, groups=2, bias=False, dtype=torch.complex128).eval()
    x = torch.randn(1, 2, 90, dtype=torch.complex128)
    expected = gradient(layer, x)
    layer.freeze()
    torch.testing.assert_close(gradient(layer, x), expected, rtol=1e-12, atol=1e-12)


def test_a_frozen_real_layer_passes_the_gradient_to_its_input(monkeypatch):
    monkeypatch.setattr(FFT, "cost", lambda *_: 0.0)
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 4, (9, 7), groups=2, bias=False, dtype=torch.float64).eval()
    x = torch.randn(1, 2, 20, 23, dtype=torch.float64)
    expected = gradient(layer, x)
    layer.freeze()
    assert layer.site.bind(x, layer.weight).plan("h").engine == "fft"
    torch.testing.assert_close(gradient(layer, x), expected, rtol=1e-12, atol=1e-12)
