"""``nf.plan``: ask which engine would run a layer, and why, without tensors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ninefold.engines.machine import Machine
from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.planning import cost, make_problem, plan_problem
from ninefold.planning.cache import plan_cache
from ninefold.planning.plan import Plan
from ninefold.settings import CURRENT
from ninefold.spec.conv import ConvSpec
from ninefold.spec.parse import boolean, integer, per_axis
from ninefold.spec.problem import Map

__all__ = ["calibrate", "export_plans", "load_plans", "plan"]


def plan(
    layer: Any,
    input_size: int | Sequence[int],
    *,
    batch: int = 1,
    map: Map | None = None,  # noqa: A002  the chapter's word
    dtype: torch.dtype = torch.float32,
    device: Any = "cpu",
    channels_last: bool = False,
) -> Plan:
    """Return the plan of a layer for an input of this spatial size, under the options of the calling context.

    Parameters
    ----------
    layer : ConvSpec or module
        A description, or a convolution layer of ``torch.nn`` or ``ninefold.nn``.
    input_size : int or sequence of int
        Spatial size of what the layer reads.
    batch : int
    map : {"c", "h", "g"}, optional
        Output, input's gradient or kernel's gradient; by default what the layer computes.
    dtype : torch.dtype
    device : torch.device or str
    channels_last : bool

    Returns
    -------
    Plan
        Print it: the choice, its cost, error and scratch, and why each other engine lost or refused.

    Raises
    ------
    ShapeError, ArgumentError
        If the layer does not fit the size.
    NoEngineError
        If the options leave no engine.

    Examples
    --------
    >>> import ninefold as nf
    >>> big = nf.plan(nf.ConvSpec(256, 256, (1024,), groups=256), 2048, batch=4)
    >>> big.engine, big.problem.form.n_out
    ('fft', (1025,))
    """
    spec = layer if isinstance(layer, ConvSpec) else ConvSpec.from_module(layer)
    form = spec.form(per_axis(input_size, spec.ndim, "input_size", 0))
    if map not in (None, "c", "h", "g"):
        raise ArgumentError(f"map={map!r} is not one of ['c', 'h', 'g']")
    if not isinstance(dtype, torch.dtype):
        raise ArgumentTypeError(f"dtype must be one of torch's, such as torch.float32, got {dtype!r}")
    batch, channels_last = integer(batch, "batch", 0), boolean(channels_last, "channels_last")
    options = CURRENT.get()
    default: Map = "h" if spec.transposed else "c"
    problem = make_problem(map or default, form, batch, dtype, torch.device(device), options, channels_last=channels_last)
    return plan_problem(problem, options.mode)


def calibrate(threads: int | Sequence[int] | None = None) -> dict[int, Machine]:
    """Measure what this machine does per second, about a second for each number of threads, and estimate by that from now on.

    Plans that are not timed are estimated from four rates. These are measured by themselves the first time that something is
    timed (``mode="measure"``, `optimize`), with the threads in use then, and kept with the plans for every process of this
    machine; until then constants serve. Calling this measures them anew, best on a quiet machine. What this process planned
    before stays as it is.

    Parameters
    ----------
    threads : int or sequence of int, optional
        By default 1, 2, 4 and so on up to PyTorch's number of threads. While they are measured, PyTorch has that number.

    Returns
    -------
    dict of int to Machine
        Rates by number of threads, each with units when printed.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If a number of threads is none.
    CalibrationError
        If the machine is too busy three times, or a rate is one that no machine has; nothing is changed then.

    Examples
    --------
    >>> import ninefold as nf
    >>> for threads, rates in nf.calibrate().items():  # doctest: +SKIP
    ...     print(threads, rates)
    1 47.3 G multiply-adds/s, 11.2 GB/s copied, 4.10 G elements x log2(length)/s transformed, 3.2 us a call
    2 94.1 G multiply-adds/s, 19.8 GB/s copied, 7.62 G elements x log2(length)/s transformed, 3.2 us a call
    """
    most = torch.get_num_threads()
    if threads is None:
        counts = sorted({1 << k for k in range(most.bit_length())} | {most})
    else:
        given = [threads] if isinstance(threads, int) else list(threads)
        counts = list(dict.fromkeys(integer(n, "threads", 1) for n in given))
    return cost.calibrate(counts)


def export_plans(path: str | Path) -> int:
    """Write the measured plans and rates of this machine to a file, so that every process of a job can use the same engines.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    int
        The number of plans.

    Raises
    ------
    PlanFileError
        If the file cannot be written; what was there before is left as it was.

    Examples
    --------
    >>> import tempfile, pathlib, ninefold as nf
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = nf.export_plans(pathlib.Path(folder) / "plans.json")
    ...     count == nf.load_plans(pathlib.Path(folder) / "plans.json")
    True
    """
    return plan_cache().export(Path(path))


def load_plans(path: str | Path) -> int:
    """Prefer the plans of an exported file, and its rates for estimates, to all others in this process.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    int
        The number of plans.

    Raises
    ------
    PlanFileError
        If the file cannot be read, is no plan file, or names engines that this version lacks.

    Examples
    --------
    See `export_plans`.
    """
    return plan_cache().load(Path(path))
