"""Channel tables that have a name: in groups, in a sliding window, at random, and the one of LeNet-5."""

from random import Random

from ninefold.errors import ArgumentError
from ninefold.spec.channels import Grouped
from ninefold.spec.parse import integer

__all__ = ["grouped_table", "lenet5_table", "random_table", "window_table"]

Edges = tuple[tuple[int, int], ...]

_LENET5 = (
    "012", "123", "234", "345", "045", "015",
    "0123", "1234", "2345", "0345", "0145", "0125", "0134", "1245", "0235",
    "012345",
)  # fmt: skip


def grouped_table(inputs: int, outputs: int, groups: int) -> Edges:
    """Return the edges of equal groups that do not see one another: the first outputs see the first inputs (fig. 9.15).

    Parameters
    ----------
    inputs, outputs, groups : int
        `groups` must divide both channels.

    Returns
    -------
    tuple of (int, int)
        Edges ``(output, input)``, in the order of a grouped convolution's weight.

    Raises
    ------
    ArgumentError, ArgumentTypeError

    Examples
    --------
    >>> grouped_table(4, 2, groups=2)
    ((0, 0), (0, 1), (1, 2), (1, 3))
    """
    return Grouped(integer(inputs, "inputs", 1), integer(outputs, "outputs", 1), integer(groups, "groups", 1)).edges


def window_table(inputs: int, outputs: int, width: int, *, step: int = 1, block: int = 1) -> Edges:
    """Return the edges of a window that slides over the inputs, around their end, and moves on after every `block` outputs.

    Parameters
    ----------
    inputs, outputs : int
    width : int
        Inputs that an output sees, at most all.
    step : int
        Inputs by which the window moves.
    block : int
        Outputs that share a window.

    Returns
    -------
    tuple of (int, int)
        Edges ``(output, input)``, sorted.

    Raises
    ------
    ArgumentError, ArgumentTypeError

    Examples
    --------
    >>> window_table(4, 4, width=2, block=2)
    ((0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (2, 2), (3, 1), (3, 2))
    >>> window_table(6, 4, width=3, step=3, block=2) == grouped_table(6, 4, groups=2)
    True
    """
    _fan_in(inputs, outputs, width, "width")
    integer(step, "step", 0)
    integer(block, "block", 1)
    return tuple(sorted((o, (o // block * step + n) % inputs) for o in range(outputs) for n in range(width)))


def random_table(inputs: int, outputs: int, fan_in: int, *, seed: int = 0) -> Edges:
    """Return edges of which every output has the same number, to inputs drawn without replacement.

    Parameters
    ----------
    inputs, outputs : int
    fan_in : int
        Inputs that an output sees, at most all.
    seed : int
        The same seed draws the same table.

    Returns
    -------
    tuple of (int, int)
        Edges ``(output, input)``, sorted.

    Raises
    ------
    ArgumentError, ArgumentTypeError

    Examples
    --------
    >>> table = random_table(6, 3, fan_in=2, seed=1)
    >>> len(set(table)), [o for o, _ in table]
    (6, [0, 0, 1, 1, 2, 2])
    """
    _fan_in(inputs, outputs, fan_in, "fan_in")
    draw = Random(integer(seed, "seed"))  # noqa: S311  a table, not a secret
    return tuple((o, i) for o in range(outputs) for i in sorted(draw.sample(range(inputs), fan_in)))


def lenet5_table() -> Edges:
    """Return the 60 of 6 x 16 edges of the layer C3 of LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998, table I).

    Examples
    --------
    >>> table = lenet5_table()
    >>> len(table), [i for o, i in table if o == 9]
    (60, [0, 3, 4, 5])
    """
    return tuple((o, int(i)) for o, seen in enumerate(_LENET5) for i in seen)


def _fan_in(inputs: int, outputs: int, count: int, name: str) -> None:
    integer(inputs, "inputs", 1)
    integer(outputs, "outputs", 1)
    if integer(count, name, 1) > inputs:
        raise ArgumentError(f"{name}={count} is more than the {inputs} inputs that there are; give at most {inputs}")
