"""AlexNet: the network whose second, fourth and fifth convolutions were in two groups, one to each of two processors."""

from collections import OrderedDict

from torch import nn

from ninefold.models.initial import he_init
from ninefold.nn import Conv2d

__all__ = ["AlexNet", "alexnet"]


class AlexNet(nn.Sequential):
    """The network that `alexnet` makes: its layers in order, by the paper's numbers.

    Attributes
    ----------
    input_size : tuple of int
        Channels, height and width of one example: 227, the size from which 11x11 kernels with stride 4 make the paper's 55x55
        maps without padding, though the paper says 224.

    Examples
    --------
    >>> net = alexnet(num_classes=7)
    >>> net.input_size, net.conv2.weight.shape
    ((3, 227, 227), torch.Size([256, 48, 5, 5]))
    """

    input_size = (3, 227, 227)


def alexnet(num_classes: int = 1000) -> AlexNet:
    """Return an untrained AlexNet (Krizhevsky, Sutskever and Hinton 2012, NIPS).

    60,965,224 parameters. The groups halve the weights of three layers: 307,200 instead of 614,400 in the second convolution.

    Parameters
    ----------
    num_classes : int

    Notes
    -----
    Local response normalisation has the paper's k = 2, n = 5, alpha = 1e-4, beta = 0.75; torch divides its `alpha` by n, so that
    5e-4 is given. Initial weights are not the paper's but as in the other networks here.

    Reported, not reproduced here: a top-5 error of 15.3% in the ILSVRC-2012 competition, by an ensemble.

    Examples
    --------
    >>> import torch
    >>> with torch.device("meta"):
    ...     net = alexnet()
    >>> sum(p.numel() for p in net.parameters())
    60965224
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=Conv2d(3, 96, 11, stride=4),
        relu1=nn.ReLU(inplace=True),
        norm1=_norm(),
        pool1=nn.MaxPool2d(3, stride=2),
        conv2=Conv2d(96, 256, 5, padding=2, groups=2),
        relu2=nn.ReLU(inplace=True),
        norm2=_norm(),
        pool2=nn.MaxPool2d(3, stride=2),
        conv3=Conv2d(256, 384, 3, padding=1),
        relu3=nn.ReLU(inplace=True),
        conv4=Conv2d(384, 384, 3, padding=1, groups=2),
        relu4=nn.ReLU(inplace=True),
        conv5=Conv2d(384, 256, 3, padding=1, groups=2),
        relu5=nn.ReLU(inplace=True),
        pool5=nn.MaxPool2d(3, stride=2),
        flatten=nn.Flatten(),
        dense6=nn.Linear(256 * 6 * 6, 4096),
        relu6=nn.ReLU(inplace=True),
        dropout6=nn.Dropout(0.5),
        dense7=nn.Linear(4096, 4096),
        relu7=nn.ReLU(inplace=True),
        dropout7=nn.Dropout(0.5),
        dense8=nn.Linear(4096, num_classes),
    )
    model = AlexNet(layers)
    he_init(model)
    return model


def _norm() -> nn.Module:
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
