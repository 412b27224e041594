"""The rank over the axes: what counts as one, and what is not looked for."""

import pytest
import torch

from ninefold.engines.final import Final
from ninefold.engines.separable import Separable, numerical_rank
from ninefold.spec import ConvSpec, Problem


def kernel_of_rank(spec, rank, dtype=torch.double):
    generator = torch.Generator().manual_seed(rank)
    outs, ins = spec.out_channels // spec.groups, spec.in_channels // spec.groups
    a = torch.randn(spec.groups, outs * spec.kernel_size[0], rank, generator=generator, dtype=torch.double)
    b = torch.randn(spec.groups, rank, ins * spec.kernel_size[1], generator=generator, dtype=torch.double)
    split = (a @ b).view(spec.groups, outs, spec.kernel_size[0], ins, spec.kernel_size[1]).transpose(2, 3)
    return split.reshape(spec.weight_shape()).to(dtype)


SPECS = [
    ConvSpec(2, 3, (7, 9)),
    ConvSpec(4, 6, (5, 7), groups=2),
    ConvSpec(5, 5, (9, 11), groups=5),
    ConvSpec(1, 1, (8, 6)),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.double, torch.float])
def test_the_rank_of_a_product_is_found(spec, rank, dtype):
    assert numerical_rank(spec, kernel_of_rank(spec, rank, dtype)) == rank


def test_a_gaussian_has_rank_one_and_noise_full_rank():
    x, y = torch.arange(-5.0, 6), torch.arange(-3.0, 4)
    spec = ConvSpec(1, 1, (11, 7))
    gaussian = torch.exp(-(x[:, None] ** 2) / 8) * torch.exp(-(y**2) / 3)
    assert numerical_rank(spec, gaussian[None, None]) == 1
    assert numerical_rank(spec, torch.randn(1, 1, 11, 7)) == 7
    perturbed = gaussian.clone()
    perturbed[3, 2] += 1e-3
    assert numerical_rank(spec, perturbed[None, None]) == 2


def test_the_rank_is_the_largest_over_the_groups():
    spec = ConvSpec(3, 3, (5, 7), groups=3)
    parts = [kernel_of_rank(ConvSpec(1, 1, (5, 7)), rank) for rank in (1, 3, 2)]
    assert numerical_rank(spec, torch.cat(parts)) == 3


def test_where_no_rank_is_sought():
    plain = ConvSpec(1, 2, (5, 4))
    K = kernel_of_rank(plain, 1)
    assert numerical_rank(plain, K) == 1
    K[1, 0, 2, 2] = float("nan")
    assert numerical_rank(plain, K) is None
    assert numerical_rank(plain, torch.ones(2, 1, 5, 4, dtype=torch.complex64)) is None
    assert numerical_rank(ConvSpec(1, 2, (5,)), torch.ones(2, 1, 5)) is None
    tiled = ConvSpec(1, 2, (5, 4), period=(2, 1))
    assert numerical_rank(tiled, torch.ones(tiled.weight_shape())) is None
    table = ConvSpec(2, 2, (5, 4), table=((0, 1), (1, 0)))
    assert numerical_rank(table, torch.ones(table.weight_shape())) is None


def test_a_zero_kernel_has_a_pass_and_gives_zeros():
    spec = ConvSpec(1, 2, (5, 4))
    assert numerical_rank(spec, torch.zeros(2, 1, 5, 4)) == 1
    problem = Problem("c", spec.form((9, 8)), 1, rank=1, frozen=True)
    out = Separable().prepare(problem, Final(torch.zeros(2, 1, 5, 4)))(torch.zeros(2, 1, 5, 4), torch.randn(1, 1, 9, 8), None)
    assert not out.any()


def test_a_rank_that_saves_nothing_is_refused_with_the_counts():
    form = ConvSpec(1, 1, (5, 7)).form((20, 21))
    assert Separable().refuses(Problem("c", form, 1, rank=2, frozen=True)) is None
    assert "36 of 35" in Separable().refuses(Problem("c", form, 1, rank=3, frozen=True))
