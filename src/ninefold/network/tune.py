"""``optimize``: measure every distinct convolution of a network once, choose, verify, report.

The network that is given is not touched until all is known; with ``inplace=True`` it is then changed in one go. So an
interrupt, or a check that fails, leaves model, weights and gradients as they were. All that is run are copies of it, on the
example's own values. What a network cannot be run in (another memory format, double precision) is left out, with a word in the
report.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from math import prod
from time import perf_counter
from typing import Any, Literal

import torch
from torch.nn import Module
from torch.nn.parameter import is_lazy

from ninefold.errors import NinefoldError
from ninefold.network.choice import Times, faster, not_slower, time_steps
from ninefold.network.conversion import as_torch, freeze, swap, unconverted
from ninefold.network.copying import copied
from ninefold.network.fields import receptive_fields
from ninefold.network.fold import Folds, fold_norms
from ninefold.network.fuse import Fuses, find_detectors
from ninefold.network.report import Report, Row
from ninefold.network.running import Call, tried
from ninefold.network.trial import Budget, Layer, MemoryFormat, Trial, made_ready, to_channels_last
from ninefold.network.verify import Accuracy, first_line, verified
from ninefold.nn.conv import Planned
from ninefold.planning.cache import plan_cache
from ninefold.planning.cost import machine_for
from ninefold.settings import CURRENT, Options

__all__ = ["optimize"]

Progress = Callable[[str, int, int], None]
_STEPS = 1.5  # seconds of whole steps, from which on more say little
_DENORMAL = 0.01  # share of denormal numbers from which on times say nothing


def optimize(
    model: Module,
    example: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    mode: Literal["estimate", "measure"] = "measure",
    tolerance: float | Literal["default", "strict"] = "default",
    max_scratch: int | None = None,
    train: bool = False,
    inplace: bool = False,
    fold: bool = True,
    seconds: float = 30.0,
    progress: Progress | None = None,
) -> tuple[Module, Report]:
    """Run every convolution of a network by the fastest exact-enough engine; return that network, and what it gained.

    Layers are chosen one by one. When measured, the whole step decides in the end: where it is faster with PyTorch's own
    layers, they stay, and where nothing is faster than the network as it was, nothing is changed. What is measured against is
    PyTorch: of a network made of ninefold's layers, too, every layer that ``torch.nn`` has runs as ``torch.nn``'s there. One that
    it lacks stands as it is on both sides.

    Parameters
    ----------
    model : torch.nn.Module
    example : Tensor, tuple, mapping or other
        What the model is called with: a tuple holds the positional arguments, a mapping those with names, and anything else,
        such as a tensor or a list of images, is the only argument; ``(dictionary,)`` for a dictionary that is. Any nest of
        tensors will do. Sizes, dtypes and memory formats are those it is tuned for. Others run too, planned from estimates.
    kwargs : mapping, optional
        Further arguments, by name.
    mode : {"measure", "estimate"}
        Whether each distinct problem is timed once and remembered, or planned from costs. Estimating times nothing, whole steps
        neither, and tries no other memory format.
    tolerance : float or str
        As in `ninefold.options`.
    max_scratch : int, optional
        As in `ninefold.options`; the optimized layers keep to it.
    train : bool
        Tune a training step (forward and the gradients of what requires them); weights are then not frozen.
    inplace : bool
        Change `model` itself. By default a copy is optimized, with parameters of its own. What else the model holds, and cannot
        be copied, such as a lock, is shared with the copy.
    fold : bool
        For inference, multiply batch normalisations with fixed statistics into the convolutions before them, wherever nothing
        else reads what lies between in a run of the example. The convolution then has new parameters, a bias among them, and the
        normalisation becomes a `Folded` that has none: their ``state_dict`` is not what it was, so load weights before. Calling
        the network in training mode raises `UnsupportedError`, for nothing is left to train; ``eval()`` takes that back.
        With ``tolerance="strict"`` none is folded, for the definition multiplies afterwards. A ReLU behind a convolution is
        applied by its engine where that can, or in place, found the same way; this changes no bit. Hooks that are there are
        respected; one that is added later (Grad-CAM) sees a convolution with all that it has taken in. False leaves all of them.
    seconds : float
        How long all of it may take, about. The layers that do most are timed first; what is not timed by then is planned from
        estimates, and the report says so. A network that is slow itself is run some ten times whatever the limit.
    progress : callable, optional
        Called with (what is done, steps done, steps in all).

    Returns
    -------
    model : torch.nn.Module
        In evaluation mode with frozen weights, or in training mode. A layer whose weight a parametrization or a hook of
        ``torch.nn.utils`` computes keeps its ``state_dict``; frozen, it computes the weight once.
    report : Report

    Raises
    ------
    ModelError
        If the model cannot be called with the example, or cannot be copied.
    AccuracyError
        If the result's difference from the untouched network is not explained by the tolerance; nothing is changed then.

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, groups=4), torch.nn.ReLU())
    >>> fast, report = nf.optimize(model, torch.zeros(1, 4, 12, 10), mode="estimate")
    >>> list(report.rows[0].engines)  # each map that inference needs, with the engine that serves it on this machine
    ['c']
    """
    options = replace(CURRENT.get(), mode=mode, tolerance=tolerance, max_scratch=max_scratch)
    with torch.inference_mode(mode=False), torch.enable_grad():
        return _Optimization(model, Call.of(example, kwargs), options, train, fold, Budget(seconds), progress).run(inplace)


@dataclass(frozen=True)
class _Choice:
    """What is remembered of a whole network: the format that was fastest, none where it was fastest as it was."""

    format: str
    given_up: bool

    @property
    def nothing(self) -> bool:
        return not self.format


class _Optimization:
    """One call of `optimize`, step by step; `notes` is what the report says beside its figures."""

    def __init__(
        self, model: Module, call: Call, options: Options, train: bool, fold: bool, budget: Budget, progress: Progress | None
    ) -> None:
        self.model, self.call, self.options, self.train = model, call, options, train
        self.fold = fold and not train
        self.budget, self.progress = budget, progress
        self.notes: list[str] = []
        self.step = 0.0  # seconds of one, about

    def run(self, inplace: bool) -> tuple[Module, Report]:
        original = as_torch(copied(self.model, self.train))  # what is compared with: PyTorch's own layers, wherever it has them
        start = perf_counter()
        reference, self.call = tried(original, self.call)
        self.step = perf_counter() - start
        if _lazy(self.model):
            self._materialize(original, inplace)
        fields = self._fields(original)
        base, folds, fuses = self._behind()
        trials = self._trials(base, fuses)
        if not trials:
            trials = [Trial("contiguous", original, [], results=reference)]
        chosen, times = self._choose(original, base, folds, fuses, trials)
        if chosen is None:
            plain = made_ready(as_torch(copied(self.model, self.train)), "contiguous", self.options, self.train)
            layers = [replace(layer, given_up=True) for layer in trials[0].layers]
            chosen, folds, fuses = Trial("contiguous", plain, layers), Folds(), Fuses()
            kinds = zip(plain.modules(), self.model.modules(), strict=True)
            accuracy, changed = Accuracy(0.0), any(type(now) is not type(before) for now, before in kinds)
        else:
            double = self.budget.allows(4 * self.step)
            tolerance = self.options.tolerance
            accuracy = verified(original, self.call, reference, chosen, tolerance, folded=len(folds.into), double=double)
            changed = bool(
                not all(layer.kept for layer in chosen.layers) or folds.into or fuses.alone or chosen.format != "contiguous"
            )
        report = self._report(original, trials[0], chosen, times, folds, fields, accuracy, changed)
        result = _transplant(self.model, chosen, folds, fuses, self.options, self.train) if inplace else chosen.model
        return result, report

    def _materialize(self, original: Module, inplace: bool) -> None:
        """Give layers that have no weights yet those of a first call: the user's own model in place, else that of the copy."""
        if inplace:
            with torch.no_grad():
                self.call.fresh().on(self.model)
        else:
            self.model = copied(original, self.train)

    def _fields(self, original: Module) -> dict[str, tuple[int, ...] | None]:
        if not self.call.tensors() or not self.budget.allows(10 * self.step):
            self.notes.append(
                "receptive fields: not followed, for no time was left" if self.call.tensors() else "receptive fields: none"
            )
            return {}
        try:
            return receptive_fields(original, self.call.fresh())
        except Exception as error:  # noqa: BLE001  the network is somebody else's
            self.notes.append(f"receptive fields: not followed, for the network does not run while watched ({first_line(error)})")
            return {}

    def _behind(self) -> tuple[Module, Folds, Fuses]:
        """Find what can be folded into convolutions or applied by them."""
        if not self.fold:
            return self.model, Folds(), Fuses()
        try:
            strict = self.options.tolerance in ("strict", 0)
            base, folds = (copied(self.model, train=False), Folds()) if strict else fold_norms(self.model, self.call)
            return base, folds, find_detectors(base, self.call)
        except Exception as error:  # noqa: BLE001  the network is somebody else's
            self.notes.append(f"nothing was folded, for the network does not run while watched ({first_line(error)})")
            return self.model, Folds(), Fuses()

    def _trials(self, base: Module, fuses: Fuses) -> list[Trial]:
        formats: list[MemoryFormat] = ["contiguous"]
        if self.options.mode == "measure" and any(x.ndim in (4, 5) for x in self.call.tensors()):
            formats.append("channels_last")
        trials: list[Trial] = []
        for memory_format in formats:
            if trials and (known := self._remembered(trials[0])) is not None and known.format != memory_format:
                continue
            if trials and not self.budget.allows(6 * self.step):
                self.notes.append(f"{memory_format}: not tried, for no time was left")
                continue
            with _noting(self.notes, memory_format.replace("_", "-")):
                trial = Trial.planned(
                    base,
                    fuses,
                    self.call,
                    memory_format,
                    self.options,
                    train=self.train,
                    budget=self.budget,
                    progress=self.progress,
                )
                if self.options.mode == "estimate":  # nothing else runs it
                    trial.compare(self.call)
                trials.append(trial)
        if estimated := sum(trial.estimated for trial in trials):
            self.notes.append(
                f"{estimated} maps of layers were planned from estimates: {self.budget.seconds:g} seconds were spent"
            )
        return trials

    def _choose(
        self, original: Module, base: Module, folds: Folds, fuses: Fuses, trials: list[Trial]
    ) -> tuple[Trial | None, Times | None]:
        """Return the trial that is faster than the network as it was, None if none is; without timing, the first."""
        if self.options.mode == "estimate":
            return trials[0], None
        known = self._remembered(trials[0])
        if known is None:
            room = self.budget.allows(6 * self.step * len(trials))
            candidates = trials + (self._given_up(base, folds, fuses, trials) if room else [])
        elif known.nothing:
            candidates = []
        else:
            candidates = self._given_up(base, folds, fuses, trials[-1:]) if known.given_up else trials[-1:]
        seconds = min(_STEPS if known is None else _STEPS / 5, 0.5 * self.budget.left())
        flush = self._denormals(trials[0])
        times = time_steps(original, candidates, self.call, seconds, train=self.train, flush=flush)
        self.notes += [f"{candidates[k].format}: cannot run a step ({error})" for k, error in times.failed.items()]
        best = faster(times, candidates) if known is None else not_slower(times)
        chosen = None if best is None else candidates[best]
        if known is None:
            given_up = chosen is not None and any(layer.given_up for layer in chosen.layers)
            choice = _Choice("" if chosen is None else chosen.format, given_up)
            plan_cache().remember(self._key(trials[0]), json.dumps(astuple(choice)))
        return chosen, times if best is None else replace(times, after={0: times.after[best]})

    def _given_up(self, base: Module, folds: Folds, fuses: Fuses, trials: list[Trial]) -> list[Trial]:
        """Return the trials with PyTorch's own layers, where that is another network than the one that was given."""
        found = []
        for trial in trials:
            if folds.into or fuses.alone or trial.format != "contiguous" or any(not la.torch_has for la in trial.layers):
                with _noting(self.notes, f"{trial.format} with PyTorch's own layers"):
                    found.append(trial.given_up(base, fuses, self.options, train=self.train))
        return found

    def _denormals(self, trial: Trial) -> bool:
        worst = max(trial.layers, key=lambda la: la.denormal, default=None)
        if worst is None or worst.denormal < _DENORMAL:
            return False
        self.notes.append(
            f"denormal numbers: {worst.denormal:.0%} of the nonzero numbers at {worst.name} are below the smallest normal "
            "one, on which a processor is up to a hundred times slower; both sides were timed with such numbers taken for zero. "
            "Load trained weights, or give batch normalisations the statistics of data"
        )
        return True

    def _key(self, trial: Trial) -> str:
        """Return what a choice among whole networks depends on: the layers, what they run, and the options."""
        problems = [(la.name, sorted(plan.problem.key for plan in la.plans.values())) for la in trial.layers]
        text = repr((type(self.model).__qualname__, problems, trial.fused, self.train, self.fold, astuple(self.options)))
        return "network " + hashlib.sha256(text.encode()).hexdigest()[:32]

    def _remembered(self, trial: Trial) -> "_Choice | None":
        """Return what an earlier call has found out about whole networks like this."""
        text = plan_cache().recall(self._key(trial))
        return None if text is None else _Choice(*json.loads(text))

    def _report(
        self,
        original: Module,
        first: Trial,
        chosen: Trial,
        times: Times | None,
        folds: Folds,
        fields: dict[str, tuple[int, ...] | None],
        accuracy: Accuracy,
        changed: bool,
    ) -> Report:
        given = {(la.name, la.executor.form, la.executor.batch): la for la in first.layers}
        rows = tuple(_row(la, given.get((la.name, la.executor.form, la.executor.batch), la), fields) for la in chosen.layers)
        return Report(
            "training" if self.train else "inference",
            rows,
            None if times is None else times.before,
            None if times is None else times.after[0] if changed else times.before,
            None if times is None else times.outside,
            chosen.format,
            accuracy.difference,
            accuracy.before,
            accuracy.after,
            unconverted(original),
            tuple(folds.into.values()),
            folds.left,
            chosen.fused,
            changed,
            (*self.notes, *accuracy.notes),
        )


@contextmanager
def _noting(notes: list[str], what: str) -> Iterator[None]:
    """Take a note of what a network cannot be run in; an error of ninefold's own is none of the network's."""
    try:
        yield
    except NinefoldError:
        raise
    except Exception as error:  # noqa: BLE001  the network is somebody else's
        notes.append(f"{what}: left out, for the network does not run so ({first_line(error)})")


def _lazy(model: Module) -> bool:
    return any(is_lazy(x) for x in (*model.parameters(), *model.buffers()))


def _row(layer: Layer, given: Layer, fields: dict[str, tuple[int, ...] | None]) -> Row:
    """Describe a layer: before is PyTorch's own in the format given, after is what was chosen."""
    form, batch = layer.executor.form, layer.executor.batch
    problem, kept = layer.executor.problem(layer.map), layer.kept
    machine = machine_for(problem)
    mixing = form.channels.connections * prod(form.n_out) * batch
    return Row(
        layer.name,
        _what(layer),
        fields.get(layer.name),
        form.macs * batch,
        {m: "aten" if kept else p.engine for m, p in layer.plans.items()},
        given.native(),
        layer.native() if kept else layer.seconds(),
        len(layer.plans) * max(problem.bytes / machine.stream, mixing / machine.product),
        None if kept else layer.error,
        kept,
        min(given.best(), layer.best()),
    )


def _what(layer: Layer) -> str:
    form = layer.executor.form
    ends = (form.channels.inputs, form.channels.outputs)
    ends = ends[::-1] if layer.map == "h" else ends
    kind = "transposed " if layer.map == "h" else ""
    groups = form.channels.groups
    if groups == form.channels.inputs and groups > 1:
        kind += "depthwise "
    elif groups > 1:
        kind += f"{groups} groups "
    text = f"{kind}{'x'.join(map(str, form.kernel))}, {ends[0]}->{ends[1]}"
    text += "" if set(form.stride) == {1} else f", stride {max(form.stride)}"
    return text + ("" if set(form.dilation) == {1} else f", dilation {max(form.dilation)}")


def _transplant(model: Module, chosen: Trial, folds: Folds, fuses: Fuses, options: Options, train: bool) -> Module:
    """Give the user's own model the folded parameters, the classes and the memory format that were chosen."""
    folds.carry(chosen.model, model)
    modules = dict(model.named_modules())
    for name, module in chosen.model.named_modules():
        if type(modules[name]) is not type(module):
            swap(modules[name], type(module))
        if isinstance(module, Planned):
            modules[name].plan_options = replace(options, mode="estimate")
    fuses.carry(chosen.model, model)
    if chosen.format == "channels_last":
        to_channels_last(model)
    model.train(train)
    return model if train else freeze(model)
