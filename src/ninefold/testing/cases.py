"""Cases: an engine with a problem that it does not refuse, operands, and what the definition gives for them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from ninefold.engines.base import Engine
from ninefold.engines.final import Final
from ninefold.engines.separable import numerical_rank
from ninefold.spec import ChannelTable, Form, Map, Problem
from ninefold.testing.shapes import Shape
from ninefold.testing.tolerances import assert_close, defined, error_scale

__all__ = ["Case", "Values", "cases", "operands", "refusal"]

Values = Literal["integers", "normal", "positive"]

HOME = ("float64", "bfloat16")
"""The dtypes to test an engine in: the first that it takes."""


@dataclass(frozen=True, eq=False)
class Case:
    """One run that an engine has agreed to.

    Parameters
    ----------
    engine : Engine
    problem : Problem
        Frozen where the weight is given to `Engine.prepare`.
    a, b : Tensor
        The operands in the map's order.
    expected, scale : Tensor
        What the definition gives, and the scale of its error.
    """

    engine: Engine
    problem: Problem
    a: Tensor
    b: Tensor
    expected: Tensor
    scale: Tensor

    def __str__(self) -> str:
        p = self.problem
        frozen = f", frozen of rank {p.rank}" if p.frozen else ""
        return f"{self.engine.name} {p.map} in {p.dtype}{frozen}"

    @property
    def allowed(self) -> float:
        """The error that the engine admits to: none on integers in double precision where its traits say so."""
        exact = self.engine.traits.exact and self.problem.dtype == "float64"
        return 0.0 if exact else self.engine.error(self.problem).bound

    def run(self, bias: Tensor | None = None, epilogue: str | None = None) -> Tensor:
        """Prepare and run, and see that the operands are as they were and the result, through an epilogue, is of their kind."""
        p, before = self.problem, [x.clone() for x in (self.a, self.b)]
        with torch.no_grad():
            kept = Final(self.a) if p.frozen else None
            run = self.engine.prepare(p, kept) if epilogue is None else self.engine.prepare_with(p, kept, epilogue)
            out = run(self.a, self.b, bias)
        for name, x, was in zip("ab", (self.a, self.b), before, strict=True):
            if not torch.equal(x.nan_to_num(nan=7.0), was.nan_to_num(nan=7.0)):
                raise AssertionError(f"{self}: the run changed its operand {name}")
        if (out.dtype, out.device) != (self.a.dtype, self.a.device):
            raise AssertionError(f"{self}: {self.a.dtype} on {self.a.device} came back as {out.dtype} on {out.device}")
        return out

    def check(self, out: Tensor, what: str, allowed: float | None = None) -> None:
        """Compare a result with what is expected of it."""
        assert_close(out, self.expected, self.scale, self.allowed if allowed is None else allowed, f"{self}, {what}")

    def having(self, a: Tensor, b: Tensor, **changes: Any) -> "Case":
        """Return the case with other operands and fields of the problem changed; the definition runs anew."""
        form, map_ = self.problem.form, self.problem.map
        expected, scale = defined(map_, form, a, b), error_scale(map_, form, a, b)
        return Case(self.engine, replace(self.problem, **changes), a, b, expected, scale)


def operands(
    map_: Map, form: Form, batch: int, dtype: str = "float64", values: Values = "integers", *, low_rank: bool = False
) -> tuple[Tensor, Tensor]:
    """Return random operands in the map's order, always the same ones for the same arguments.

    Parameters
    ----------
    map_ : {"c", "h", "g"}
    form : Form
    batch : int
    dtype : str
    values : {"integers", "normal", "positive"}
        Integers from -4 to 4 without 0; normal numbers; numbers from 0.5 to 1, of which sums are large.
    low_rank : bool
        Whether a dense 2-D kernel has rank 1 over its axes, or 2 where it is large.

    Examples
    --------
    >>> from ninefold.spec import ConvSpec
    >>> K, V = operands("c", ConvSpec(2, 3, (3, 5)).form((7, 9)), batch=4)
    >>> K.shape, V.shape, K.dtype
    (torch.Size([3, 2, 3, 5]), torch.Size([4, 2, 7, 9]), torch.float64)
    """
    torch_dtype = getattr(torch, dtype)
    random = torch.Generator("cpu").manual_seed(form.macs + 7 * batch)

    def draw(shape: tuple[int, ...]) -> Tensor:
        if torch_dtype.is_complex:
            return torch.complex(_real(shape, values, random), _real(shape, values, random)).to(torch_dtype)
        return _real(shape, values, random).to(torch_dtype)

    if map_ == "g":
        return draw(form.input_shape(batch)), draw(form.output_shape(batch))
    split = not form.tiled and form.ndim == 2 and not isinstance(form.channels, ChannelTable)
    kernel = _low_rank(form, draw) if low_rank and split else draw(form.weight_shape)
    return kernel, draw(form.input_shape(batch) if map_ == "c" else form.output_shape(batch))


def _real(shape: tuple[int, ...], values: Values, random: torch.Generator) -> Tensor:
    if values == "normal":
        return torch.randn(shape, generator=random, dtype=torch.float64, device="cpu")
    if values == "positive":
        return torch.rand(shape, generator=random, dtype=torch.float64, device="cpu") / 2 + 0.5
    whole = torch.randint(1, 5, shape, generator=random, device="cpu")
    return (whole * (1 - 2 * torch.randint(0, 2, shape, generator=random, device="cpu"))).double()


def _low_rank(form: Form, draw: Any) -> Tensor:
    """Return ``K[(o, m), (i, n)] = sum_r A[(o, m), r] B[r, (i, n)]`` per group."""
    groups, (rows, columns) = form.channels.groups, form.kernel
    outs, ins = form.channels.outputs // groups, form.channels.inputs // groups
    rank = 2 if min(outs * rows, ins * columns) > 8 else 1
    a, b = draw((groups, outs * rows, rank)), draw((groups, rank, ins * columns))
    matrix: Tensor = (a.to(torch.complex128) @ b.to(torch.complex128)).to(a.dtype) if a.is_complex() else a.double() @ b.double()
    return matrix.to(a.dtype).view(groups, outs, rows, ins, columns).transpose(2, 3).reshape(form.weight_shape).contiguous()


@lru_cache(maxsize=128)
def _posed(
    map_: Map, shape: Shape, dtype: str, values: Values, frozen: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, int | None]:
    form = shape.form
    a, b = operands(map_, form, shape.batch, dtype, values, low_rank=frozen)
    rank = numerical_rank(form, a) if frozen else None
    return a, b, defined(map_, form, a, b), error_scale(map_, form, a, b), rank


def cases(
    engine: Engine, map_: Map, shape: Shape, dtype: str | None = None, values: Values = "integers", **changes: Any
) -> Iterator[Case]:
    """Yield the cases that an engine does not refuse: the weight as it may change, and the weight frozen.

    Parameters
    ----------
    engine : Engine
    map_ : {"c", "h", "g"}
    shape : Shape
    dtype : str, optional
        By default the first of `HOME` that the engine takes.
    values : {"integers", "normal", "positive"}
    **changes
        Fields of `Problem` to set.

    Examples
    --------
    >>> from ninefold.engines.fft import FFT
    >>> from ninefold.spec import ConvSpec
    >>> shape = Shape("tiny", "dense", 2, (7, 9), ConvSpec(1, 2, (3, 5)), contract=True)
    >>> [str(case) for case in cases(FFT(), "c", shape)]
    ['fft c in float64', 'fft c in float64, frozen of rank 1']
    """
    if dtype is None:
        dtype = next((d for d in HOME if refusal(engine, map_, shape, d) is None), HOME[0])
    for problem, (a, b, expected, scale) in _problems(map_, shape, dtype, values, **changes):
        if engine.refuses(problem) is None:
            yield Case(engine, problem, a.clone(), b.clone(), expected, scale)


def _problems(
    map_: Map, shape: Shape, dtype: str, values: Values, **changes: Any
) -> Iterator[tuple[Problem, tuple[Tensor, Tensor, Tensor, Tensor]]]:
    for frozen in (False, True) if map_ != "g" else (False,):
        *tensors, rank = _posed(map_, shape, dtype, values, frozen)
        given = {"dtype": dtype, "threads": torch.get_num_threads(), "rank": rank, "frozen": frozen, **changes}
        yield shape.problem(map_, **given), tuple(tensors)  # type: ignore[misc]


def refusal(engine: Engine, map_: Map, shape: Shape, dtype: str | None = None) -> str | None:
    """Return why an engine runs no case of a shape, in a dtype or in any of `HOME`, or None where it runs one.

    Examples
    --------
    >>> from ninefold.engines.fft import FFT
    >>> from ninefold.spec import ConvSpec
    >>> shape = Shape("tiny", "pointwise", 2, (7, 9), ConvSpec(2, 3, (1, 1)), contract=True)
    >>> refusal(FFT(), "c", shape)
    'a kernel of 1 tap has no spectrum worth a transform'
    """
    wanted = HOME if dtype is None else (dtype,)
    reasons = [[engine.refuses(problem) for problem, _ in _problems(map_, shape, d, "integers")] for d in wanted]
    return None if any(None in some for some in reasons) else reasons[0][-1]
