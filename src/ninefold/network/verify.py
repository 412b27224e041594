"""Whether an optimized network computes what it did: against what it was, and against double precision where it runs so."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils._pytree import tree_map

from ninefold.engines.base import unit_roundoff
from ninefold.errors import AccuracyError
from ninefold.network.copying import copied
from ninefold.network.running import Call, outputs
from ninefold.network.trial import Trial

__all__ = ["Accuracy", "first_line", "verified"]

_ROOM = 100  # times what is allowed: a network makes more of rounding than its layers


@dataclass(frozen=True)
class Accuracy:
    """How far outputs lie apart, relative to the largest one; None where that cannot be said, for a reason in `notes`.

    Parameters
    ----------
    difference : float, optional
        Between the network as it was and as it is.
    before, after : float, optional
        Of either from the network in double precision.
    notes : tuple of str
    """

    difference: float | None = None
    before: float | None = None
    after: float | None = None
    notes: tuple[str, ...] = ()


def verified(
    original: Module, call: Call, reference: list[Tensor], chosen: Trial, tolerance: float | str, *, folded: int, double: bool
) -> Accuracy:
    """Return how accurate a trial is.

    Parameters
    ----------
    original : torch.nn.Module
        The network as it was.
    call : Call
    reference : list of Tensor
        Its outputs.
    chosen : Trial
    tolerance : float or str
        What was asked for.
    folded : int
        Batch normalisations that were folded, whose weights are rounded once more.
    double : bool
        Whether to run the network in double precision, too.

    Raises
    ------
    AccuracyError
        If the result's difference is not explained by the tolerance.
    """
    if not chosen.results:
        chosen.compare(call)
    exact, notes = _in_double(original, call) if double else ([], ("not compared with double precision: no time was left",))
    if reason := _apart(reference, chosen.results):
        return _by_layers(chosen, reason, notes)
    difference = _far(chosen.results, reference, reference)
    if exact and (reason := _apart(reference, exact)):
        exact, notes = [], (f"not compared with double precision: {reason}",)
    if not exact:
        _check_layers(chosen)
        return Accuracy(difference, notes=notes)
    before, after = _far(reference, exact, exact), _far(chosen.results, exact, exact)
    allowed = _allowed(chosen, reference, folded)
    if not after <= _ROOM * (before + allowed):
        if reason := _restless(original, call, reference):
            return _by_layers(chosen, reason, notes)
        raise AccuracyError(
            f"the optimized network is off by {after:.1e} of its largest output where PyTorch's is off by {before:.1e}; that is "
            f"more than {max(1, len(chosen.layers))} layers within tolerance {tolerance!r} explain; try tolerance='strict'"
            + (", or fold=False" if folded else "")
        )
    return Accuracy(difference, before, after)


def _by_layers(chosen: Trial, reason: str, notes: tuple[str, ...]) -> Accuracy:
    _check_layers(chosen)
    return Accuracy(notes=(f"compared layer by layer, not as a whole: {reason}", *notes))


def _allowed(chosen: Trial, reference: list[Tensor], folded: int) -> float:
    tolerances = [plan.problem.tolerance for layer in chosen.layers for plan in layer.plans.values()]
    rounding = max(unit_roundoff(str(x.dtype).removeprefix("torch.")) for x in reference)
    # A folded weight is rounded once more; where PyTorch happens to be exact, that is all there is.
    return len(chosen.layers) * max(tolerances, default=0.0) + folded * rounding


def _check_layers(chosen: Trial) -> None:
    """Raise if a layer, on what it really reads, is further from PyTorch's own than its tolerance explains."""
    for layer in chosen.layers:
        if layer.given_up or layer.error is None:
            continue
        problem = layer.executor.problem(layer.map)
        most = _ROOM * max(problem.tolerance, unit_roundoff(problem.dtype))
        if not layer.error <= most:
            raise AccuracyError(
                f"layer {layer.name} is off by {layer.error:.1e} of max|V| * ||K_o||_1 from PyTorch's own, more than {most:.1e}; "
                "try tolerance='strict'"
            )


def _in_double(original: Module, call: Call) -> tuple[list[Tensor], tuple[str, ...]]:
    """Run a copy in double precision, PyTorch's own layers in it; or say why that cannot be done."""
    try:
        double = copied(original, original.training)
        double._apply(_doubled)  # noqa: SLF001  as double() does, complex numbers included
        args, kwargs = tree_map(_doubled, (call.args, call.kwargs))
        exact = outputs(double, Call(args, kwargs))
    except Exception as error:  # noqa: BLE001  the network is somebody else's
        return [], (f"not compared with double precision, in which the network does not run ({first_line(error)})",)
    if any(x.dtype not in (torch.float64, torch.complex128) for x in exact):
        return [], ("not compared with double precision: the network names a type of its own",)
    return exact, ()


def _doubled(x: object) -> object:
    if not isinstance(x, Tensor):
        return x
    return x.double() if x.is_floating_point() else x.to(torch.complex128) if x.is_complex() else x


def first_line(error: Exception) -> str:
    r"""Return an error in one line.

    Examples
    --------
    >>> first_line(ValueError("no such size\nmore"))
    'ValueError: no such size'
    """
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:120]}"


def _apart(a: list[Tensor], b: list[Tensor]) -> str | None:
    """Return why two lists of outputs cannot be compared, or None."""
    if not a:
        return "the network returns no floating-point tensor"
    shapes = [tuple(x.shape) for x in a], [tuple(x.shape) for x in b]
    return None if shapes[0] == shapes[1] else f"the outputs of two runs have shapes {shapes[0]} and {shapes[1]}"


def _restless(original: Module, call: Call, reference: list[Tensor]) -> str | None:
    """Return that a network gives other outputs at each run, which no seed explains, or None."""
    again = outputs(original, call)
    if reason := _apart(reference, again):
        return reason
    gap = _far(again, reference, reference)
    return f"the network differs from one run to the next by {gap:.0e} of its largest output" if gap > 1e-3 else None


def _far(a: list[Tensor], b: list[Tensor], scale: list[Tensor]) -> float:
    """Return the largest gap, relative to the largest number; infinite where one side is finite and the other is not."""
    most = max([1e-30, *(float(x.abs().nan_to_num(0, 0, 0).amax()) for x in scale if x.numel())])

    def gap(x: Tensor, y: Tensor) -> float:
        both = x.isfinite() & y.isfinite()
        if not torch.equal(x.isfinite(), y.isfinite()):
            return float("inf")
        wide = torch.complex128 if x.is_complex() else torch.float64
        return float(torch.where(both, x.to(wide) - y.to(wide), 0).abs().amax())

    return max((gap(x, y) for x, y in zip(a, b, strict=True) if x.numel()), default=0.0) / most
