"""A copy of a network in one memory format, each of its convolutions planned: what `optimize` chooses among."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Module

from ninefold.network.conversion import as_torch, convert, freeze, swap
from ninefold.network.copying import copied
from ninefold.network.fuse import Fuses
from ninefold.network.kinds import plain_type, planned
from ninefold.network.running import Call, first_tensor, outputs
from ninefold.nn.conv import Planned
from ninefold.ops.executor import FormExecutor
from ninefold.ops.state import autocast_dtype
from ninefold.planning import plan_problem
from ninefold.planning.plan import Plan
from ninefold.rewrites import engine_named
from ninefold.settings import Options
from ninefold.spec.problem import Map
from ninefold.tensors.layout import in_format

__all__ = ["WORTH", "Budget", "Layer", "MemoryFormat", "Trial", "made_ready", "record", "to_channels_last"]

MemoryFormat = Literal["contiguous", "channels_last"]
Progress = Callable[[str, int, int], None]
_SAMPLE = 1 << 16  # numbers that tell the share of denormal ones
WORTH = 1.05
"""A layer is exchanged, and a format changed, for at least this factor."""


@dataclass
class Layer:
    """One convolution as it ran: the maps of its form, their plans, and what the report says of it.

    `upstream` says that the gradient to its input is asked for, `trained` the one to its weight; `denormal` is the largest share
    of denormal numbers among the nonzero ones of what it read and made.
    """

    name: str
    executor: FormExecutor
    map: Map
    torch_has: bool = True
    plans: dict[Map, Plan] = field(default_factory=dict)
    error: float | None = None
    given_up: bool = False
    upstream: bool = False
    trained: bool = False
    denormal: float = 0.0

    def maps(self) -> tuple[Map, ...]:
        """Return the maps that a step runs."""
        other: tuple[Map, ...] = () if not self.upstream else ("h",) if self.map == "c" else ("c",)
        return (self.map, *other, *(("g",) if self.trained else ()))

    def seconds(self) -> float:
        """Return the time of all maps, as chosen."""
        return sum(plan.chosen.seconds for plan in self.plans.values())

    def native(self) -> float:
        """Return the time of all maps as PyTorch's own layer and its autograd run them."""
        own = {m: "aten-backward" if m == "h" and self.map == "c" else "aten" for m in self.plans}
        return sum(_standing(plan, own[m]) for m, plan in self.plans.items())

    def best(self) -> float:
        """Return the time of all maps if each ran by the fastest engine that is known."""
        return sum(_fastest(plan) for plan in self.plans.values())

    @property
    def kept(self) -> bool:
        """Whether PyTorch has this layer and its own is as good, or the whole network was better with it."""
        return self.torch_has and (self.given_up or self.native() < WORTH * self.seconds())


def _standing(plan: Plan, engine: str) -> float:
    found = next((c for c in plan.candidates if c.engine == engine and c.reason is None), plan.chosen)
    return found.seconds


def _fastest(plan: Plan) -> float:
    measured = [c.measured for c in plan.candidates if c.measured is not None]
    return min(measured) if measured else plan.chosen.seconds


class Budget:
    """How long measuring may take: a part of it for the layers, the rest for whole steps.

    Parameters
    ----------
    seconds : float
        From now on, about.

    Examples
    --------
    >>> budget = Budget(60.0)
    >>> budget.allows(10.0), budget.layers_left()
    (True, True)
    """

    LAYERS = 0.7

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start = perf_counter()

    def left(self) -> float:
        """Return the seconds that are left, not below 0."""
        return max(0.0, self._start + self.seconds - perf_counter())

    def allows(self, cost: float) -> bool:
        """Whether something that takes so long leaves most of what is left."""
        return cost < 0.5 * self.left()

    def layers_left(self) -> bool:
        """Whether layers may still be timed."""
        return self.left() > (1 - self.LAYERS) * self.seconds


@dataclass
class Trial:
    """A network made ready to run: `results` are its outputs for the example, once it was compared.

    `estimated` counts the maps of layers that were left to estimates because the time was up.
    """

    format: MemoryFormat
    model: Module
    layers: list[Layer]
    fused: tuple[str, ...] = ()
    results: list[Tensor] = field(default_factory=list)
    estimated: int = 0

    @staticmethod
    def planned(
        model: Module,
        fuses: Fuses,
        call: Call,
        memory_format: MemoryFormat,
        options: Options,
        *,
        train: bool,
        budget: Budget,
        progress: Progress | None,
    ) -> "Trial":
        """Convert a copy in one memory format, and plan each of its distinct problems."""
        own = made_ready(convert(copied(model, train), inplace=True), memory_format, options, train)
        layers = record(own, call, train)
        trial = Trial(memory_format, own, layers)
        for k, layer in enumerate(
            sorted(layers, key=lambda la: -la.executor.form.macs * la.executor.batch)
        ):  # what takes longest first
            if progress is not None:
                progress(f"{memory_format.replace('_', '-')}: {layer.name}", k, len(layers))
            trial.estimated += _plan(layer, options, budget)
        modules = dict(own.named_modules())
        for name in {layer.name for layer in layers}:
            if all(layer.kept for layer in layers if layer.name == name) and (kind := plain_type(modules[name])):
                swap(modules[name], kind)
        trial.fused = fuses.apply(own, _epilogues(layers))
        return trial

    def compare(self, call: Call) -> None:
        """Run once more; compare each exchanged layer with PyTorch's own on what it really reads, and keep the outputs."""
        self.results = _compared(self.model, self.layers, call)

    def given_up(self, model: Module, fuses: Fuses, options: Options, *, train: bool) -> "Trial":
        """Return what this is with PyTorch's own layers, wherever it has them: layers that won alone may lose together."""
        plain = made_ready(as_torch(copied(model, train)), self.format, options, train)
        fuses.apply(plain, {})
        layers = [replace(layer, given_up=True) for layer in self.layers]
        return Trial(self.format, plain, layers)


def made_ready(model: Module, memory_format: MemoryFormat, options: Options, train: bool) -> Module:
    """Bring a copy into a memory format, fix the options of its planned layers, and freeze them for inference."""
    if memory_format == "channels_last":
        to_channels_last(model)
    for module in model.modules():
        if isinstance(module, Planned):
            module.plan_options = replace(options, mode="estimate")
    return model if train else freeze(model)


def to_channels_last(model: Module) -> None:
    """Lay the kernels of a network's convolutions out channels-last, which makes their outputs so."""
    for module in model.modules():
        if isinstance(module, (torch.nn.modules.conv._ConvNd, Planned)):  # noqa: SLF001  the one common parent of torch's convolutions
            for parameter in module.parameters(recurse=False):
                if parameter.ndim in (4, 5):
                    parameter.data = in_format(parameter.data, channels_last=True)


def record(model: Module, call: Call, train: bool) -> list[Layer]:
    """Run once and note what each planned layer was called with; one entry per layer and kind of operands."""
    layers: dict[tuple[str, Any], Layer] = {}

    def hook(name: str) -> Callable[..., None]:
        def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
            x, size = first_tensor(args, kwargs), kwargs.get("output_size", args[1] if len(args) > 1 else None)
            x = x if x.ndim == module.spec.ndim + 2 else x.unsqueeze(0)
            sizes = None if size is None else tuple(size)[-module.spec.ndim :]
            weight = module.current_weight()
            with _as_called(x) as dtype:
                executor = module.site.bind(*((x, weight) if dtype is None else (x.to(dtype), weight.to(dtype))), sizes)
            layer = Layer(name, executor, module.site.map, plain_type(module) is not None)
            layer = layers.setdefault((name, executor.problem(module.site.map).key), layer)
            layer.upstream = layer.upstream or x.requires_grad
            layer.trained = layer.trained or (train and weight.requires_grad)
            layer.denormal = max(layer.denormal, _denormal_share(x), _denormal_share(out))

        return note

    with _hooks((m, hook(name)) for name, m in model.named_modules() if planned(m)):
        outputs(model, call, grad=train)
    return list(layers.values())


@contextmanager
def _as_called(x: Tensor) -> Iterator[torch.dtype | None]:
    """Switch autocast off for a while; return the dtype that it would give to what a layer reads, None where it was off."""
    dtype = autocast_dtype(x)
    with nullcontext() if dtype is None else torch.autocast(x.device.type, enabled=False):
        yield dtype


@contextmanager
def _hooks(hooks: Any) -> Iterator[None]:
    handles = [module.register_forward_hook(hook, with_kwargs=True) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _denormal_share(x: Tensor) -> float:
    """Return which part of the nonzero numbers of a tensor, or of a sample, lies below the smallest normal one."""
    if not x.is_floating_point() or not x.numel():
        return 0.0
    size = x.detach().flatten()[:: max(1, x.numel() // _SAMPLE)].abs()
    below = (size < torch.finfo(x.dtype).tiny).sum() - (size == 0).sum()
    return float(below / (size > 0).sum().clamp_min(1))


def _plan(layer: Layer, options: Options, budget: Budget) -> int:
    """Plan the maps of a layer; return how many were left to estimates because the time was up."""
    left = 0
    for map_ in layer.maps():
        mode = options.mode if budget.layers_left() else "estimate"
        with torch.autocast(layer.executor.device.type, enabled=False):
            layer.plans[map_] = plan_problem(layer.executor.problem(map_), mode, layer.executor.frozen if map_ != "g" else None)
        left += mode != options.mode and layer.plans[map_].source == "estimate"
        layer.executor.forget()
    return left


def _epilogues(layers: list[Layer]) -> dict[str, frozenset[str]]:
    """Return by layer the epilogues that its engines take, whatever size it is called with."""
    takes: dict[str, frozenset[str]] = {}
    for layer in layers:
        own = engine_named(layer.plans[layer.map].engine).epilogues
        takes[layer.name] = takes.get(layer.name, own) & own
    return takes


def _compared(model: Module, layers: list[Layer], call: Call) -> list[Tensor]:
    """Run once more and compare each exchanged layer with PyTorch's own on what it really reads; return the outputs."""
    modules = dict(model.named_modules())
    waiting: dict[str, list[Layer]] = {}
    for layer in layers:
        if isinstance(modules[layer.name], Planned) and layer.plans[layer.map].engine != "aten":
            waiting.setdefault(layer.name, []).append(layer)

    def hook(entries: list[Layer]) -> Callable[..., None]:
        def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
            given = first_tensor(args, kwargs).detach()
            x = given if given.ndim == module.spec.ndim + 2 else given.unsqueeze(0)
            for layer in entries:
                problem = layer.executor.problem(layer.map)
                if layer.error is None and len(x) == problem.batch and not engine_named("aten").refuses(problem):
                    layer.error = _distance(module, layer, x, out.detach())

        return look

    with _hooks((modules[name], hook(entries)) for name, entries in waiting.items()):
        return outputs(model, call)


def _distance(module: Any, layer: Layer, x: Tensor, out: Tensor) -> float | None:
    """Return how far a layer's output is from PyTorch's own, on the scale ``max|V| * ||K_o||_1``; None for another size."""
    problem, weight, bias = layer.executor.problem(layer.map), module.current_weight().detach(), module.bias
    reads = problem.form.input_shape if layer.map == "c" else problem.form.output_shape
    if tuple(x.shape) != tuple(reads(problem.batch)):
        return None
    with _as_called(x) as dtype:
        if dtype is not None:
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        direct = module.finished(engine_named("aten").prepare(problem)(weight, x, bias))
    out = out.reshape(direct.shape)
    both = direct.isfinite() & out.isfinite()  # what overflows is the network's own
    scale = x.abs().amax().nan_to_num() * weight.abs().flatten(1).sum(1).amax()
    gap = torch.where(both, direct - out, 0).abs().amax() / scale.clamp_min(1e-30)
    return float(gap) if torch.equal(direct.isfinite(), out.isfinite()) else float("inf")
