"""``optimize``: measure every distinct convolution of a network once, choose, verify, report.

The network that is given is not touched until all is known; with ``inplace=True`` it is then changed in one go. So an
interrupt, or a check that fails, leaves model, weights and gradients as they were.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from statistics import median
from typing import Any, Literal

from torch import Tensor
from torch.nn import Module
from torch.utils._pytree import tree_leaves, tree_map

from ninefold.engines.base import in_format, unit_roundoff
from ninefold.errors import AccuracyError
from ninefold.network.fields import receptive_fields
from ninefold.network.fold import Folds, fold_norms
from ninefold.network.fuse import Fuses, find_detectors
from ninefold.network.report import Report, Row
from ninefold.network.running import copied, hollowed, outputs, step
from ninefold.network.twins import as_torch, convert, freeze, plain_type, swap, unconverted
from ninefold.nn.conv import Planned
from ninefold.ops.bound import Bound
from ninefold.planning import plan_problem
from ninefold.planning.choose import engine_named
from ninefold.planning.measure import interleaved, measure_rates
from ninefold.planning.plan import Plan
from ninefold.settings import CURRENT, Options
from ninefold.spec.problem import Map

__all__ = ["optimize"]

Progress = Callable[[str, int, int], None]
_ROUNDS = 20  # of whole steps, from which a median is told at once
_WORTH = 1.05  # a layer is exchanged, and a format changed, for at least this factor


@dataclass
class _Layer:
    """One convolution as it ran: its bound maps, their plans, and what the report says of it.

    `upstream` says that something before it may be trained, so that the gradient to its input is asked for.
    """

    name: str
    bound: Bound
    map: Map
    torch_has: bool = True
    plans: dict[Map, Plan] = field(default_factory=dict)
    error: float | None = None
    given_up: bool = False
    upstream: bool = False

    def seconds(self) -> float:
        """Return the time of all maps, as chosen."""
        return sum(plan.chosen.seconds for plan in self.plans.values())

    def native(self) -> float:
        """Return the time of all maps as PyTorch's own layer and its autograd run them."""
        own = {m: "aten-backward" if m == "h" and self.map == "c" else "aten" for m in self.plans}
        return sum(_standing(plan, own[m]) for m, plan in self.plans.items())

    @property
    def kept(self) -> bool:
        """Whether PyTorch has this layer and its own is as good, or the whole network was better with it."""
        return self.torch_has and (self.given_up or self.native() < _WORTH * self.seconds())


def _standing(plan: Plan, engine: str) -> float:
    found = next((c for c in plan.candidates if c.engine == engine and c.reason is None), plan.chosen)
    return found.seconds


@dataclass
class _Trial:
    """A copy of the network in one memory format, its convolutions planned."""

    format: Literal["contiguous", "channels_last"]
    model: Module
    layers: list[_Layer]
    fused: tuple[str, ...] = ()


def optimize(
    model: Module,
    example: Tensor | tuple[Any, ...],
    *,
    mode: Literal["estimate", "measure"] = "measure",
    tolerance: float | Literal["default", "strict"] = "default",
    max_scratch: int | None = None,
    train: bool = False,
    inplace: bool = False,
    fold: bool = True,
    progress: Progress | None = None,
) -> tuple[Module, Report]:
    """Run every convolution of a network by the fastest exact-enough engine, in the fastest memory format.

    Layers are chosen one by one. When measured, the whole step decides in the end: where it is faster with PyTorch's own layers,
    they stay. What is measured against is PyTorch: of a network made of ninefold's layers, too, every layer that ``torch.nn`` has
    runs as ``torch.nn``'s there. One that it lacks stands as it is on both sides.

    Parameters
    ----------
    model : torch.nn.Module
    example : Tensor or tuple
        What the model is called with: sizes, dtypes and memory formats are those it is tuned for. Others run too, planned
        from estimates.
    mode : {"measure", "estimate"}
        Whether each distinct problem is timed once and remembered, or planned from costs.
    tolerance : float or str
        As in `ninefold.options`.
    max_scratch : int, optional
        As in `ninefold.options`; the optimized layers keep to it.
    train : bool
        Tune a training step (forward and both gradients); weights are then not frozen.
    inplace : bool
        Change `model` itself. By default a copy is optimized, with parameters of its own.
    fold : bool
        For inference, multiply batch normalisations with fixed statistics into the convolutions before them, wherever nothing
        else reads what lies between in a run of the example. The convolution then has new parameters, a bias among them, and the
        normalisation becomes a `Folded` that has none: their ``state_dict`` is not what it was, so load weights before. Calling
        the network in training mode raises `UnsupportedError`, for nothing is left to train; ``eval()`` takes that back.
        With ``tolerance="strict"`` none is folded, for the definition multiplies afterwards. A ReLU behind a convolution is
        applied by its engine where that can, or in place, found the same way; this changes no bit. False leaves all of them.
    progress : callable, optional
        Called with (what is done, steps done, steps in all).

    Returns
    -------
    model : torch.nn.Module
        In evaluation mode with frozen weights, or in training mode.
    report : Report

    Raises
    ------
    ModelError
        If the model cannot be called with the example.
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
    inputs = example if isinstance(example, tuple) else (example,)
    original = as_torch(copied(model, train))  # what is compared with: PyTorch's own layers, wherever it has them
    reference = outputs(original, inputs)
    fields = receptive_fields(original, inputs)
    formats: list[Literal["contiguous", "channels_last"]] = ["contiguous"]
    if mode == "measure" and any(isinstance(x, Tensor) and x.ndim in (4, 5) for x in inputs):
        formats.append("channels_last")
    base, folds = fold_norms(model, inputs) if fold and not train and tolerance not in ("strict", 0) else (model, Folds())
    fuses = find_detectors(copied(base, train=False), inputs) if fold and not train else Fuses()
    trials = [_trial(base, fuses, inputs, f, options, train, progress) for f in formats]
    bare = hollowed(as_torch(copied(base, train)), inputs) if folds.into else hollowed(original, inputs)
    if mode == "measure":
        trials += [
            _given_up(base, t, fuses, options, train) for t in trials if not all(la.kept for la in t.layers if la.torch_has)
        ]
    times = _step_times(original, trials, bare, inputs, train)
    best = min(range(len(trials)), key=lambda k: times[k + 1] * (1.0 if trials[k].format == "contiguous" else _WORTH))
    chosen = trials[best]
    accuracy = _verify(original, inputs, reference, outputs(chosen.model, inputs), chosen, tolerance, len(folds.into))
    rates = measure_rates()
    rows = tuple(_row(layer, trials[0].layers[k], fields, rates) for k, layer in enumerate(chosen.layers))
    report = Report(
        "training" if train else "inference",
        rows,
        times[0],
        times[best + 1],
        times[-1],
        chosen.format,
        *accuracy,
        unconverted(original),
        tuple(folds.into.values()),
        folds.left,
        chosen.fused,
    )
    result = _transplant(model, chosen, folds, fuses, options, train) if inplace else chosen.model
    return result, report


def _trial(
    model: Module,
    fuses: Fuses,
    inputs: tuple[Any, ...],
    memory_format: Literal["contiguous", "channels_last"],
    options: Options,
    train: bool,
    progress: Progress | None,
) -> _Trial:
    """Convert a copy in one memory format, and plan each of its distinct problems."""
    trial = _made_ready(convert(copied(model, train), inplace=True), memory_format, options, train)
    layers = _record(trial, inputs)
    for k, layer in enumerate(layers):
        if progress is not None:
            progress(f"{memory_format.replace('_', '-')}: {layer.name}", k, len(layers))
        for map_ in _maps(layer, train):
            frozen = layer.bound.frozen if map_ != "g" else None
            layer.plans[map_] = plan_problem(layer.bound.problem(map_), options.mode, frozen)
            layer.bound.forget()
    _compare(trial, layers, inputs)
    modules = dict(trial.named_modules())
    for name in {layer.name for layer in layers}:
        if all(layer.kept for layer in layers if layer.name == name) and (kind := plain_type(modules[name])):
            swap(modules[name], kind)
    return _Trial(memory_format, trial, layers, fuses.apply(trial, _epilogues(layers)))


def _made_ready(model: Module, memory_format: str, options: Options, train: bool) -> Module:
    """Bring a copy into a memory format, fix the options of its planned layers, and freeze them for inference."""
    if memory_format == "channels_last":
        _to_channels_last(model)
    for module in model.modules():
        if isinstance(module, Planned):
            module.plan_options = replace(options, mode="estimate")
    return model if train else freeze(model)


def _given_up(model: Module, trial: _Trial, fuses: Fuses, options: Options, train: bool) -> _Trial:
    """Return what a trial is with PyTorch's own layers, wherever it has them: layers that won alone may lose together."""
    plain = _made_ready(as_torch(copied(model, train)), trial.format, options, train)
    fuses.apply(plain, {})
    return _Trial(trial.format, plain, [replace(layer, given_up=True) for layer in trial.layers])


def _epilogues(layers: list[_Layer]) -> dict[str, frozenset[str]]:
    """Return by layer the epilogues that its engines take, whatever size it is called with."""
    takes: dict[str, frozenset[str]] = {}
    for layer in layers:
        own = engine_named(layer.plans[layer.map].engine).epilogues
        takes[layer.name] = takes.get(layer.name, own) & own
    return takes


def _maps(layer: _Layer, train: bool) -> tuple[Map, ...]:
    other: tuple[Map, ...] = () if not layer.upstream else ("h",) if layer.map == "c" else ("c",)
    return (layer.map, *other, "g") if train else (layer.map,)


def _to_channels_last(model: Module) -> None:
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.ndim in (4, 5):
                parameter.data = in_format(parameter.data, channels_last=True)


def _record(model: Module, inputs: tuple[Any, ...]) -> list[_Layer]:
    """Run once and note what each planned layer was called with; one entry per layer and kind of operands."""
    layers: dict[tuple[str, Any], _Layer] = {}
    given = {x.data_ptr() for x in tree_leaves(inputs) if isinstance(x, Tensor) and not x.requires_grad}

    def hook(name: str) -> Callable[..., None]:
        def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x, size = args[0], kwargs.get("output_size", args[1] if len(args) > 1 else None)
            x = x if x.ndim == module.spec.ndim + 2 else x.unsqueeze(0)
            sizes = None if size is None else tuple(size)[-module.spec.ndim :]
            bound = module.site.bind(x, module.weight, sizes)
            layer = _Layer(name, bound, module.site.map, plain_type(module) is not None)
            layer = layers.setdefault((name, bound.problem(module.site.map).key), layer)
            layer.upstream = layer.upstream or x.data_ptr() not in given

        return note

    named = [(name, m) for name, m in model.named_modules() if isinstance(m, Planned)]
    handles = [m.register_forward_pre_hook(hook(name), with_kwargs=True) for name, m in named]
    try:
        outputs(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(layers.values())


def _compare(model: Module, layers: list[_Layer], inputs: tuple[Any, ...]) -> None:
    """Run once more and compare each exchanged layer with PyTorch's own on what it really reads."""
    waiting: dict[str, list[_Layer]] = {}
    for layer in layers:
        if layer.plans[layer.map].engine != "aten":
            waiting.setdefault(layer.name, []).append(layer)

    def hook(entries: list[_Layer]) -> Callable[..., None]:
        def look(module: Any, args: tuple[Any, ...], out: Tensor) -> None:
            for layer in entries:
                problem = layer.bound.problem(layer.map)
                batched = args[0] if args[0].ndim == module.spec.ndim + 2 else args[0].unsqueeze(0)
                if layer.error is not None or engine_named("aten").refuses(problem) or len(batched) != problem.batch:
                    continue
                x, weight = batched.detach(), module.weight.detach()
                direct = module.finished(engine_named("aten").prepare(problem)(weight, x, module.bias))
                scale = x.abs().amax() * weight.abs().flatten(1).sum(1).amax()
                layer.error = float((direct - out.detach().reshape(direct.shape)).abs().amax() / scale.clamp_min(1e-30))

        return look

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_hook(hook(entries)) for name, entries in waiting.items()]
    try:
        if handles:
            outputs(model, inputs)
    finally:
        for handle in handles:
            handle.remove()


def _step_times(original: Module, trials: list[_Trial], bare: Module, inputs: tuple[Any, ...], train: bool) -> list[float]:
    """Return medians of the untouched network and of each trial, interleaved, and of the network without its convolutions.

    That one is timed apart: beside it, networks that are mostly convolution would be taken for hopeless after two calls.
    """
    runs = {str(k): step(m, inputs, train) for k, m in enumerate((original, *(t.model for t in trials)))}
    times = interleaved(runs, seconds=1.0)
    if max(map(len, times.values())) < _ROUNDS:  # a busy moment must not decide
        times = {k: times[k] + more for k, more in interleaved(runs, seconds=2.0).items()}
    outside = interleaved({"bare": step(bare, inputs, train)}, seconds=0.3)["bare"]
    return [median(seconds) for seconds in (*(times[k] for k in runs), outside)]


def _verify(
    original: Module,
    inputs: tuple[Any, ...],
    reference: list[Tensor],
    results: list[Tensor],
    chosen: _Trial,
    tolerance: float | str,
    folded: int,
) -> tuple[float, float, float]:
    """Return (difference, error before, error after), relative to the largest output; raise past what is explained."""
    double = copied(original, original.training).double()
    exact = outputs(convert(copied(double, double.training)), _doubled(inputs))

    def far(a: list[Tensor], b: list[Tensor]) -> float:
        scale = max([1e-30, *(float(x.abs().amax()) for x in exact if x.numel())])
        gaps = (float((x.double() - y.double()).abs().amax()) for x, y in zip(a, b, strict=True) if x.numel())
        return max(gaps, default=0.0) / scale

    layers = max(1, len(chosen.layers))
    allowed = layers * max(p.problem.tolerance for layer in chosen.layers for p in layer.plans.values()) if chosen.layers else 0.0
    rounding = max(unit_roundoff(str(x.dtype).removeprefix("torch.")) for x in reference)
    allowed += folded * rounding  # a folded weight is rounded once more; where PyTorch happens to be exact, that is all there is
    if (
        not far(reference, exact) <= 100 * allowed
    ):  # an engine that is wrong in double precision, too: PyTorch's own, however slow
        exact = outputs(double, _doubled(inputs))
    difference, before, after = far(reference, results), far(reference, exact), far(results, exact)
    if not after <= 100 * before + 100 * allowed:
        raise AccuracyError(
            f"the optimized network is off by {after:.1e} of its largest output where PyTorch's is off by {before:.1e}; "
            f"that is more than {layers} layers within tolerance {tolerance!r} explain; try tolerance='strict'"
            + (", or fold=False" if folded else "")
        )
    return difference, before, after


def _doubled(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    def double(x: Any) -> Any:
        return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x

    return tuple(tree_map(double, inputs))


def _row(layer: _Layer, given: _Layer, fields: dict[str, tuple[int, ...] | None], rates: tuple[float, float]) -> Row:
    """Describe a layer: before is PyTorch's own in the format given, after is what was chosen."""
    form, batch = layer.bound.form, layer.bound.batch
    product, stream = rates
    problem = layer.bound.problem(layer.map)
    mixing = form.channels.connections * prod(form.n_out) * batch
    floor = len(layer.plans) * max(problem.bytes / stream, mixing / product)
    kept = layer.kept
    return Row(
        layer.name,
        _what(layer),
        fields.get(layer.name),
        form.macs * batch,
        {m: "aten" if kept else p.engine for m, p in layer.plans.items()},
        given.native(),
        layer.native() if kept else layer.seconds(),
        floor,
        None if kept else layer.error,
        kept,
    )


def _what(layer: _Layer) -> str:
    form = layer.bound.form
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


def _transplant(model: Module, chosen: _Trial, folds: Folds, fuses: Fuses, options: Options, train: bool) -> Module:
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
        _to_channels_last(model)
    model.train(train)
    return model if train else freeze(model)
