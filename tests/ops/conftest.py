"""Engines forced at small sizes, and the matrix transform x route x kind printed at the end of a run."""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as tF

from ninefold.ops import executor
from ninefold.planning.choose import choose
from ninefold.spec import ConvSpec


@dataclass(frozen=True)
class Kind:
    """A convolution, the engine that is made to run it, and the sizes of a small example."""

    name: str
    engine: str
    spec: ConvSpec
    size: tuple[int, ...]

    def operands(self):
        generator = torch.Generator().manual_seed(1)
        channels = self.spec.out_channels if self.spec.transposed else self.spec.in_channels
        outputs = self.spec.in_channels if self.spec.transposed else self.spec.out_channels
        shapes = ((2, channels, *self.size), self.spec.weight_shape(self.size), (outputs,))
        return [torch.randn(s, generator=generator, dtype=torch.double) for s in shapes]

    def reference(self, x, w, b=None):
        spec = self.spec
        if spec.transposed:
            pads = tuple(lo for lo, _ in spec.padding)
            convolve = (tF.conv_transpose1d, tF.conv_transpose2d, tF.conv_transpose3d)[spec.ndim - 1]
            return convolve(x, w, b, spec.stride, pads, spec.output_padding, spec.groups, spec.dilation)
        pads = [p for lo_hi in spec.padding[::-1] for p in lo_hi]
        x = tF.pad(x, pads, mode="constant" if spec.padding_mode == "zeros" else spec.padding_mode)
        if spec.tiled:
            return _position_by_position(spec, x, w, b)
        if spec.table is not None:
            dense = w.new_zeros(spec.out_channels * spec.in_channels, *spec.kernel_size)
            at = torch.tensor([o * spec.in_channels + i for o, i in spec.table])
            w = dense.index_add(0, at, w).unflatten(0, (spec.out_channels, spec.in_channels))
        w = w.flip(tuple(range(2, w.ndim))) if spec.flip_kernel else w
        convolve = (tF.conv1d, tF.conv2d, tF.conv3d)[spec.ndim - 1]
        return convolve(x, w, b, spec.stride, 0, spec.dilation, spec.groups)

    def check(self, got, want):
        _assert_same(got, want)


def _position_by_position(spec, x, w, b):
    """Sum windows times the kernel of their position: the definition of tiled and unshared convolution."""
    d = spec.ndim
    for axis, (extent, step, dilation) in enumerate(zip(spec.extent, spec.stride, spec.dilation, strict=True), start=2):
        x = x.unfold(axis, extent, step)[..., ::dilation]
    for axis, n in enumerate(x.shape[2 : 2 + d], start=1):
        w = w.index_select(axis, torch.arange(n) % w.shape[axis])
    x, w = x.unflatten(1, (spec.groups, -1)), w.unflatten(0, (spec.groups, -1))
    out, taps = "xyz"[:d], "klm"[:d]
    z = torch.einsum(f"ngi{out}{taps},go{out}i{taps}->ngo{out}", x, w).flatten(1, 2)
    return z if b is None else z + b.view(-1, *(1,) * d)


KINDS = (
    Kind("aten", "aten", ConvSpec(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), 2), (7, 8)),
    Kind("fft", "fft", ConvSpec(4, 6, (3, 4), (2, 1), ((1, 2), (2, 0)), (1, 2), 2, "reflect"), (7, 9)),
    Kind("gemm", "gemm", ConvSpec(2, 3, (2, 3, 1), (1, 2, 1), (1, 0, 1), flip_kernel=True), (3, 5, 4)),
    Kind("unshared", "gemm", ConvSpec(4, 6, (3, 2), (2, 1), (1, 0), groups=2, period=None), (6, 5)),
    Kind("tiled", "gemm", ConvSpec(2, 3, (4,), 1, 2, 2, period=(3,)), (13,)),
    Kind("transposed", "aten", ConvSpec(4, 6, (3, 2), (2, 3), (1, 0), groups=2, transposed=True, output_padding=(0, 1)), (4, 5)),
    Kind("transposed-fft", "fft", ConvSpec(3, 2, (5,), 2, 1, transposed=True, output_padding=1), (7,)),
    Kind("table", "reference", ConvSpec(3, 2, (2, 3), (1, 2), table=((0, 0), (0, 2), (1, 1))), (4, 6)),
)  # fmt: skip


def _tensors(z):
    return [z] if isinstance(z, torch.Tensor) else [t for y in z for t in _tensors(y)]


def _assert_same(got, want):
    got, want = _tensors(got), _tensors(want)
    assert len(got) == len(want)
    for a, c in zip(got, want, strict=True):
        assert a.shape == c.shape
        assert (a - c).detach().abs().max() <= 1e-10 * max(1.0, float(c.detach().abs().max()))


_MATRIX: dict[tuple[str, str], dict[str, str]] = {}


@pytest.fixture(autouse=True)
def _one_thread():
    """Small problems on one thread: a parallel region that waits for a busy core costs more than the problem."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def prefer(monkeypatch, forget):
    """Return a function that makes an engine the choice wherever it does not refuse, whatever the size."""

    def set_engine(name):
        def plan(problem, mode="estimate", weight=None):
            found = choose(problem)
            admitted = any(c.engine == name and c.reason is None for c in found.candidates)
            return replace(found, engine=name, source="file") if admitted else found

        monkeypatch.setattr(executor, "plan_problem", plan)
        forget()

    return set_engine


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request, prefer):
    prefer(request.param.engine)
    return request.param


@pytest.fixture
def record(kind):
    """Return a context that notes one cell of the matrix: transform, route, and how it ended for this kind."""

    @contextmanager
    def note(transform, route, good="o"):
        row = _MATRIX.setdefault((transform, route), {})
        row[kind.name] = "x"
        yield
        row[kind.name] = good

    return note


def pytest_terminal_summary(terminalreporter):
    if not _MATRIX:
        return
    kinds = list(dict.fromkeys(kind for row in _MATRIX.values() for kind in row))
    routes = list(dict.fromkeys(route for _, route in _MATRIX))
    transforms = list(dict.fromkeys(transform for transform, _ in _MATRIX))
    write = terminalreporter.write_line
    terminalreporter.section("transform x route, one letter per kind of engine")
    write("kinds: " + ", ".join(kinds) + "; o agrees with PyTorch, r refused in words, t refused by PyTorch, x wrong, . not run")
    write(f"{'':<22}" + "".join(f"{route:<{len(kinds) + 3}}" for route in routes))
    for transform in transforms:
        cells = ("".join(_MATRIX.get((transform, route), {}).get(kind, ".") for kind in kinds) for route in routes)
        write(
            f"{transform:<22}"
            + "".join(f"{cell:<{max(len(kinds), len(route)) + 3}}" for cell, route in zip(cells, routes, strict=True))
        )
