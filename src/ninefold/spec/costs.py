"""Multiplications of separable convolutions: the formulas (4) to (9) of the notes on chapter 9, exactly.

All count without padding ("valid") and with stride 1. Additions, one fewer per output, are left out.
"""

from fractions import Fraction

from ninefold.errors import ShapeError
from ninefold.spec.parse import integer

__all__ = [
    "depthwise_separable_products",
    "depthwise_separable_ratio",
    "direct_products",
    "standard_products",
    "two_pass_products",
    "two_pass_ratio",
]


def direct_products(n: int, m: int) -> int:
    """Return the multiplications of an ``m x m`` kernel on an ``n x n`` image: ``(n - m + 1)^2 m^2``.

    Equation (4). The notes speak of "0 padding" and mean none.

    Examples
    --------
    >>> direct_products(64, 7)
    164836
    """
    return _positions(n, m, "image", "kernel") ** 2 * m**2


def two_pass_products(n: int, m: int) -> int:
    """Return the multiplications of a rank-one ``m x m`` kernel run as a column and a row.

    Equation (5): ``(n - m + 1) n m + (n - m + 1)^2 m``. The first pass keeps all ``n`` positions of the other axis.

    Examples
    --------
    >>> two_pass_products(64, 7)
    49532
    """
    p = _positions(n, m, "image", "kernel")
    return p * n * m + p * p * m


def two_pass_ratio(n: int, m: int) -> Fraction:
    """Return two passes against direct: ``1 / m + 1 / (m (1 - (m - 1) / n))``, which tends to ``2 / m``.

    Equation (6), right as it stands for "valid"; with "same" padding the ratio is ``2 / m`` at every size.

    Examples
    --------
    >>> two_pass_ratio(64, 7), round(float(two_pass_ratio(64, 7)), 5)
    (Fraction(61, 203), 0.30049)
    """
    _positions(n, m, "image", "kernel")
    return Fraction(1, m) + 1 / (m * (1 - Fraction(m - 1, n)))


def standard_products(height: int, width: int, kernel: int, inputs: int, outputs: int) -> int:
    """Return the multiplications of a dense convolution: ``(H - h + 1)(W - h + 1) h^2 d Nc``.

    Equation (7); ``d`` is the number of input channels, though the prose of the notes uses it for outputs, too.

    Parameters
    ----------
    height, width : int
        Size of the image, ``H`` and ``W``.
    kernel : int
        Side ``h`` of the square kernel.
    inputs, outputs : int
        Channels ``d`` and ``Nc``.

    Examples
    --------
    >>> standard_products(9, 9, kernel=3, inputs=4, outputs=6)
    10584
    """
    return _area(height, width, kernel) * kernel**2 * _channels(inputs, outputs)


def depthwise_separable_products(height: int, width: int, kernel: int, inputs: int, outputs: int) -> int:
    """Return the multiplications of a depthwise and a 1x1 convolution: ``(H - h + 1)(W - h + 1)(d h^2 + d Nc)``.

    Equation (8), for one depthwise kernel per input channel (multiplier 1); parameters as in `standard_products`.

    Examples
    --------
    >>> depthwise_separable_products(9, 9, kernel=3, inputs=4, outputs=6)
    2940
    """
    return _area(height, width, kernel) * (inputs * kernel**2 + _channels(inputs, outputs))


def depthwise_separable_ratio(kernel: int, outputs: int) -> Fraction:
    """Return depthwise separable against dense: ``1 / Nc + 1 / h^2``, whatever padding and stride.

    Equation (9). It tends to ``1 / h^2`` where ``Nc`` is large against ``h^2``; the notes ask too little, ``Nc >> h``.

    Examples
    --------
    >>> depthwise_separable_ratio(kernel=3, outputs=6)
    Fraction(5, 18)
    """
    return Fraction(1, integer(outputs, "outputs", 1)) + Fraction(1, integer(kernel, "kernel", 1) ** 2)


def _positions(n: int, m: int, whole: str, part: str) -> int:
    integer(n, whole, 1)
    integer(m, part, 1)
    if m > n:
        raise ShapeError(f"{part} of {m} does not fit into {whole} of {n} without padding; give {whole} of at least {m}")
    return n - m + 1


def _area(height: int, width: int, kernel: int) -> int:
    return _positions(height, kernel, "height", "kernel") * _positions(width, kernel, "width", "kernel")


def _channels(inputs: int, outputs: int) -> int:
    return integer(inputs, "inputs", 1) * integer(outputs, "outputs", 1)
