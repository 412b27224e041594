"""Random convolutions against the definition, by every native engine that takes them: ``python tests/fuzz.py --cases 100000``.

Scratch memory is poisoned with NaN, which must not reach a result, and then with denormal numbers, which no operation may meet: one that
does takes a hundred times as long, even if its result is thrown away. A case depends on the seed and its number alone, so that a failure is run again by itself:
``python tests/fuzz.py --first 4711 --cases 1``.
"""

import argparse
import random
import sys
import time
from collections import Counter

from torch import Tensor

from ninefold.engines import ENGINES, native
from ninefold.engines.base import Runner
from ninefold.errors import NinefoldError
from ninefold.rewrites import REWRITES, after
from ninefold.spec import ConvSpec
from ninefold.spec.padding import MODES
from ninefold.spec.problem import Problem
from ninefold.testing.cases import operands
from ninefold.testing.tolerances import assert_close, defined, error_scale

NATIVE = tuple(engine for engine in ENGINES if engine.native)
"""Each is tried as it is, and after rewrites that are drawn."""
MOST = 60_000  # multiply-adds: the definition takes milliseconds


def draw(random: random.Random) -> tuple[ConvSpec, tuple[int, ...], int]:
    """Return a spec, a size and a batch; sizes along the last axis walk over vectors and their tails."""
    ndim = random.choice((1, 2, 2, 3))
    groups, ins, outs = random.choice((1, 1, 2, 3, 9, 17)), random.choice((1, 1, 2, 3, 5)), random.choice((1, 1, 2, 4, 5, 7))
    if groups > 3:
        ins, outs = random.choice(((1, 1), (1, 1), (1, 2), (2, 1)))
    period: tuple[int | None, ...] | int = 1
    if random.random() < 0.25:
        period = tuple(random.choice((None, None, 1, 2, 3)) for _ in range(ndim))
    plain = random.random() < 0.5
    if random.random() < 0.15:
        return _square(random)
    if random.random() < 0.1:
        return _grouped(random)
    table = None
    if groups == 1 and random.random() < 0.3:
        ins, outs = random.randint(1, 7), random.randint(1, 7)
        pairs = [(o, i) for o in range(outs) for i in range(ins)]
        table = tuple(random.sample(pairs, random.randint(1, len(pairs))))
    spec = ConvSpec(
        groups * ins,
        groups * outs,
        tuple(random.randint(1, 7 if axis == ndim - 1 else 4) for axis in range(ndim)),
        stride=1 if plain else tuple(random.randint(1, 3) for _ in range(ndim)),
        dilation=1 if plain else tuple(random.randint(1, 3) for _ in range(ndim)),
        padding=tuple((random.randint(-2, 4), random.randint(-2, 4)) for _ in range(ndim)),
        padding_mode=random.choice(("zeros", "zeros", *sorted(MODES))),
        groups=groups,
        flip_kernel=random.random() < 0.3,
        period=period,
        table=table,
    )
    size = tuple(random.randint(1, 44 if axis == ndim - 1 else 9) for axis in range(ndim))
    return spec, size, random.choice((1, 1, 2, 3, 9))


def _square(random: random.Random) -> tuple[ConvSpec, tuple[int, ...], int]:
    """Return a depthwise layer whose rows are read where they lie."""
    size, channels, depth = random.choice((3, 3, 5)), random.choice((1, 2, 5)), random.choice((1, 1, 3))
    pads = tuple((random.randint(0, size // 2), random.randint(0, size // 2)) for _ in range(2))
    spec = ConvSpec(
        channels,
        channels,
        (depth, size, size),
        dilation=(1, random.choice((1, 1, 2)), 1),
        padding=((0, depth // 2), *pads),
        padding_mode=random.choice(("zeros", "zeros", *sorted(MODES))),
        groups=channels,
        flip_kernel=random.random() < 0.3,
    )
    return spec, (random.randint(depth, 3), random.randint(2 * size, 18), random.randint(size, 44)), random.choice((1, 2))


def _grouped(random: random.Random) -> tuple[ConvSpec, tuple[int, ...], int]:
    """Return a layer whose groups lie in vectors of neighbouring channels, half of them with three neighbouring taps."""
    each, groups, slides = random.choice((2, 2, 4, 4, 8, 16)), random.choice((2, 2, 3, 5)), random.random() < 0.5
    rows = (random.choice((1, 2, 3)),) * random.choice((1, 1, 2))
    spec = ConvSpec(
        groups * each,
        groups * each,
        (*rows, 3 if slides else random.randint(1, 5)),
        stride=1 if slides else tuple(random.randint(1, 2) for _ in (*rows, 0)),
        dilation=1 if slides else tuple(random.randint(1, 2) for _ in (*rows, 0)),
        padding=tuple((random.randint(-1, 2), random.randint(-1, 2)) for _ in (*rows, 0)),
        padding_mode=random.choice(("zeros", "zeros", *sorted(MODES))),
        groups=groups,
        flip_kernel=random.random() < 0.3,
    )
    return spec, (*(random.randint(1, 3) for _ in rows), random.randint(1, 25)), random.choice((1, 2))


def run_case(number: int, counts: Counter[str]) -> None:
    """Run one case on every map; raise AssertionError with what it was."""
    chance = random.Random(number)
    spec, size, batch = draw(chance)
    try:
        form = spec.form(size)
        if 0 in form.n_out or form.macs * batch > MOST:
            return
        for axis in form.axes:
            axis.reads(0), axis.reads(axis.n_out - 1)
    except NinefoldError:
        return
    dtype, threads = chance.choice(("float32", "float64")), chance.choice((1, 2))
    last = chance.random() < 0.4 and form.ndim in (2, 3)
    for map_ in ("c", "h", "g"):
        problem = Problem(map_, form, batch, dtype, channels_last=last, threads=threads)
        rewritten = [e for r in REWRITES if r.refuses(problem) is None for e in after(r, problem) if e.native]
        tried = (*NATIVE, *chance.sample(rewritten, min(2, len(rewritten))))
        admitted = [engine for engine in tried if engine.refuses(problem) is None]
        if not admitted:
            continue
        a, b = operands(map_, form, batch, dtype)
        expected, scale = defined(map_, form, a, b), error_scale(map_, form, a, b)
        for engine in admitted:
            out = engine.prepare(problem)(a, b, None)
            allowed = 0.0 if engine.traits.exact else engine.error(problem).bound
            assert_close(out, expected, scale, allowed, f"case {number}, {engine.name}: {problem}")
            counts[engine.name] += 1
            if engine not in NATIVE:
                continue  # operations of PyTorch's run, too
            again = run_among_denormals(engine.prepare(problem), a, b, threads, f"case {number}, {engine.name}: {problem}")
            assert_close(again, expected, scale, allowed, f"case {number}, {engine.name}, among denormals: {problem}")


def run_among_denormals(run: Runner, a: Tensor, b: Tensor, threads: int, what: str) -> Tensor:
    """Run where scratch memory holds denormal numbers; raise AssertionError if an operation had one for an operand."""
    extension = native.extension_module()
    extension.poison(True, denormal=True)
    try:
        extension.met_denormals(threads)
        out = run(a, b, None)
        if extension.met_denormals(threads):
            raise AssertionError(f"{what} computed with what scratch memory happened to hold: the processor met denormal numbers")
    finally:
        extension.poison(True)
    return out


def main(arguments: list[str] | None = None) -> int:
    """Run the cases; return 1 at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args(arguments)
    if native.instruction_set() is None:
        print("there is no native extension to test")
        return 2
    counts: Counter[str] = Counter()
    start = time.monotonic()
    native.extension_module().poison(True)
    try:
        for number in range(options.first, options.first + options.cases):
            run_case(number, counts)
    except AssertionError as error:
        print(error)
        return 1
    finally:
        native.extension_module().poison(False)
    done = ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))
    print(f"{options.cases} cases on {native.instruction_set()}, runs compared: {done}; {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
