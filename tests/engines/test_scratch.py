"""What scratch memory happens to hold is no operand, not even of sums that are thrown away: denormal numbers make those slow."""

from dataclasses import replace

import pytest
import torch

from ninefold.engines import native
from ninefold.engines.final import Final
from ninefold.rewrites import engine_named
from ninefold.spec import ConvSpec
from ninefold.spec.problem import Problem
from ninefold.testing.cases import operands

EXTENSION = native.extension_module() if native.instruction_set() else None
pytestmark = pytest.mark.skipif(
    EXTENSION is None or not EXTENSION.tells_of_denormals(), reason="0 processor flags tell of denormals here"
)


@pytest.fixture
def poison():
    yield EXTENSION.poison
    EXTENSION.poison(False)


TABLE = ((0, 0), (0, 2), (1, 1), (2, 0), (2, 1), (2, 2), (3, 2))  # output, input
# what it is of: the engine, the layer, the input's size, the batch, whether channels are neighbours
LAYERS = {
    "tiled, lines of two": ("direct", ConvSpec(1, 16, (8, 8), period=3), (12, 11), 3, False),
    "tiled, one output": ("direct", ConvSpec(2, 2, (3, 4), period=(2, 3), groups=2), (9, 8), 2, False),
    "tiled, strided": ("direct", ConvSpec(2, 3, (3, 4), period=(2, 3), stride=(2, 1), padding=1), (9, 14), 2, True),
    "lines shorter than a vector": ("direct", ConvSpec(3, 5, (2, 3), padding=((1, 0), (0, 2))), (5, 3), 2, False),
    "the same of one channel": ("direct", ConvSpec(1, 1, (2, 3), padding=((1, 0), (0, 2))), (5, 3), 2, False),
    "lines of one row": ("direct", ConvSpec(4, 4, (5,), groups=4, padding=((2, 1),)), (7,), 2, False),
    "lines between each other": ("direct", ConvSpec(2, 2, (3, 4), groups=2, stride=2), (9, 20), 2, False),
    "rows where they lie": ("direct", ConvSpec(3, 3, (3, 3), groups=3, padding=1), (7, 37), 2, False),
    "a channel table": ("direct", ConvSpec(3, 4, (3, 2), table=TABLE, padding=1), (6, 5), 2, False),
    "pixels": ("direct", ConvSpec(19, 19, (3, 2), groups=19, padding=(1, 0)), (5, 7), 2, True),
    "pixels that are staged": ("direct", ConvSpec(19, 19, (5, 4), groups=19, padding=3, padding_mode="reflect"), (6, 7), 2, True),
    "groups in vectors": ("direct", ConvSpec(12, 12, (2, 3), groups=3, padding=(0, 1)), (4, 9), 2, True),
    "groups in vectors, strided": ("direct", ConvSpec(10, 10, (2, 2), groups=5, stride=2), (6, 13), 2, True),
    "groups of whole vectors": ("direct", ConvSpec(32, 32, (2, 3), groups=2, padding=(0, 1)), (3, 11), 2, True),
    "products": ("implicit", ConvSpec(3, 5, (3, 2), padding=((1, 0), (2, 1))), (13, 9), 3, False),
    "products of one tap": ("implicit", ConvSpec(5, 7, (1, 1), padding=((1, 0), (2, 1))), (13, 9), 3, False),
    "products of pixels": ("implicit", ConvSpec(5, 7, (3, 2), padding=((1, 0), (2, 1))), (13, 9), 3, True),
    "products of strided groups": ("implicit", ConvSpec(6, 9, (3, 2), groups=3, stride=(2, 1)), (13, 9), 3, True),
    "products of few positions": ("implicit", ConvSpec(37, 41, (3, 2), padding=((1, 0), (0, 1))), (3, 2), 1, False),
    "transformed": ("winograd", ConvSpec(5, 18, (3, 2), padding=((1, 0), (0, 1))), (11, 9), 2, False),
    "transformed pixels": ("winograd", ConvSpec(18, 5, (5, 3), padding=((2, 1), (0, 1))), (11, 9), 2, True),
    "unshared": ("local", ConvSpec(3, 5, (3, 2), period=None, padding=((1, 0), (0, 1))), (6, 7), 2, False),
    "unshared, many examples": ("local", ConvSpec(3, 5, (3, 2), period=None), (6, 7), 19, False),
    "a long period": ("local", ConvSpec(2, 3, (2, 3), period=(9, 8)), (12, 19), 3, False),
}  # fmt: skip


def runs(name, threads):
    engine, spec, size, batch, last = LAYERS[name]
    for map_ in ("c", "h", "g"):
        for dtype in ("float32", "float64", "bfloat16"):
            problem = Problem(map_, spec.form(size), batch, dtype, channels_last=last, threads=threads)
            if engine_named(engine).refuses(problem) is None:
                yield problem, engine_named(engine).prepare(problem), operands(map_, problem.form, batch, dtype)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", LAYERS)
def test_scratch_is_written_before_it_is_an_operand(poison, name, threads):
    several = 0
    for problem, run, (a, b) in runs(name, threads):
        want = run(a, b, None)
        poison(True)
        assert torch.equal(run(a, b, None), want), f"{problem}: among NaN"
        poison(True, denormal=True)
        EXTENSION.met_denormals(threads)
        got = run(a, b, None)
        assert not EXTENSION.met_denormals(threads), f"{problem}: an operation had a denormal number for an operand"
        assert torch.equal(got, want), f"{problem}: among denormal numbers"
        poison(False)
        several += 1
    assert several > 2


def denormals(size):
    return torch.ones(size // 2 + 1, dtype=torch.int16, device="cpu").view(torch.uint8)[:size]


@pytest.mark.parametrize("name", [name for name, layer in LAYERS.items() if layer[0] in ("implicit", "winograd")])
def test_what_is_kept_of_a_final_weight_is_written_before_it_is_an_operand(monkeypatch, poison, name):
    engine, spec, size, batch, last = LAYERS[name]
    problem = Problem("c", spec.form(size), batch, channels_last=last)
    K, V = operands("c", problem.form, batch, "float32")
    want = engine_named(engine).prepare(problem)(K, V, None)
    monkeypatch.setattr(native, "scratch", denormals)
    poison(True, denormal=True)
    EXTENSION.met_denormals(1)
    got = engine_named(engine).prepare(replace(problem, frozen=True), Final(K))(K, V, None)
    assert not EXTENSION.met_denormals(1)
    assert torch.equal(got, want)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_processor_tells_of_a_denormal_operand_once(threads):
    form = ConvSpec(2, 3, (1, 1)).form((300, 200))
    problem = Problem("c", form, 1, threads=threads)
    run = engine_named("direct").prepare(problem)
    K, V = operands("c", form, 1, "float32")
    EXTENSION.met_denormals(threads)
    run(K, V, None)
    assert not EXTENSION.met_denormals(threads)
    V[0, 1, -1, -1] = 1e-39  # the last that the last thread reads
    run(K, V, None)
    assert EXTENSION.met_denormals(threads)
    assert not EXTENSION.met_denormals(threads)
