"""Every check fails on an engine that breaks its word in just that way."""

from dataclasses import replace

import pytest
import torch

from ninefold.engines.base import Engine, Error, Traits
from ninefold.engines.reference import Reference
from ninefold.ops.layout import channels_last
from ninefold.spec import ConvSpec
from ninefold.testing import (
    CHECKS,
    Shape,
    check_against_reference,
    check_dot,
    check_dtypes,
    check_epilogues,
    check_finite,
    check_gradients,
    check_layouts,
    check_nan_locality,
    check_own_memory,
    check_poisoned,
    check_scratch,
    check_threads,
    contract,
    refusal,
)

SHAPE = Shape("tiny", "tiny", 2, (7, 5), ConvSpec(2, 3, (3, 2), padding=((1, 0), (0, 1))), contract=True)


class Broken(Reference):
    """The reference with a fault in its result."""

    name = "broken"

    def __init__(self, fault=lambda out, *_: out, traits=Reference.traits, maps="chg"):
        self.fault, self.traits, self.maps = fault, traits, maps

    def prepare(self, problem, weight=None):
        run, fault = super().prepare(problem, weight), self.fault
        if problem.map not in self.maps:
            return run
        return lambda a, b, bias=None: fault(run(a, b, bias), a, b)


def spoil(out, index=(0, 1, 2, 0)):
    out = out.clone()
    out[index] += out.abs().max() / 3 + 1
    return out


@pytest.mark.parametrize("map_", ["c", "h", "g"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_an_engine_that_keeps_its_word_passes(check, map_):
    nothing_to_do = check is check_epilogues and map_ == "g"  # a kernel's gradient has no bias, and nothing behind it
    nothing_to_do = nothing_to_do or check is check_finite  # of an engine that is local anyway
    assert (check(Broken(), map_, SHAPE).runs == 0) is nothing_to_do


@pytest.mark.parametrize("map_", ["c", "h", "g"])
@pytest.mark.parametrize("check", [check_against_reference, check_dtypes, check_threads, check_layouts, check_scratch])
def test_one_wrong_element_is_found(check, map_):
    with pytest.raises(AssertionError, match=r"worst at"):
        check(Broken(lambda out, *_: spoil(out, (0, 1, 2, 0) if map_ != "g" else (2, 1, 0, 1))), map_, SHAPE)


def test_a_shape_dtype_or_operand_that_changes_is_found():
    for fault, says in (
        (lambda out, *_: out[..., :-1], "shape"),
        (lambda out, *_: out.float(), "came back as torch.float32"),
        (lambda out, a, b: (out, b.zero_())[0], "changed its operand b"),
    ):
        with pytest.raises(AssertionError, match=says):
            check_against_reference(Broken(fault), "c", SHAPE)


def test_a_bias_that_is_ignored_is_found():
    class Biasless(Broken):
        def prepare(self, problem, weight=None):
            run = super().prepare(problem, weight)
            return lambda a, b, _bias=None: run(a, b, None)

    with pytest.raises(AssertionError, match="with a bias"):
        check_against_reference(Biasless(), "c", SHAPE)


@pytest.mark.parametrize("map_", ["c", "h", "g"])
def test_a_map_that_is_no_adjoint_is_found(map_):
    with pytest.raises(AssertionError, match="not adjoint"):
        check_dot(Broken(lambda out, *_: out.flip(-1), maps=map_), map_, SHAPE)


@pytest.mark.parametrize("faulty", ["h", "g"])
def test_a_wrong_gradient_is_found(faulty):
    with pytest.raises(Exception, match="Jacobian mismatch"):
        check_gradients(Broken(lambda out, *_: out * 1.01, maps=faulty), "c", SHAPE)


def test_a_wrong_second_gradient_is_found(monkeypatch):
    """A second derivative alone can be wrong only where a gradient is not the map that it must be."""
    right = contract.ThinMap.backward

    def detached(ctx, up):
        return tuple(x.detach() if isinstance(x, torch.Tensor) else x for x in right(ctx, up))

    monkeypatch.setattr(contract.ThinMap, "backward", staticmethod(detached))
    with pytest.raises(Exception, match=r"expected to be zero"):
        check_gradients(Broken(), "c", SHAPE)


def test_an_error_above_the_bound_or_the_estimate_is_found():
    noise = Broken(lambda out, *_: out * (1 + 3e-6) if out.dtype == torch.float32 else out)
    with pytest.raises(AssertionError, match="on normal numbers: error"):
        check_dtypes(noise, "c", SHAPE)

    class Boastful(Broken):
        def error(self, problem):
            return Error(bound=1.0, estimate=1e-12)

    with pytest.raises(AssertionError, match="times the estimate 1e-12"):
        check_dtypes(Boastful(), "c", SHAPE)


def test_reading_uninitialised_memory_is_found():
    def careless(out, *_):
        wide = out.new_empty(*out.shape[:-1], out.shape[-1] + 1)
        wide[..., :-1] = out
        return out + 0 * wide.sum() if not wide.sum().isnan() else wide[..., :-1] + wide[..., 1:].sum() * 0

    with pytest.raises(AssertionError, match="in poisoned memory: error inf"):
        check_poisoned(Broken(careless), "c", SHAPE)


def test_memory_that_is_not_the_results_own_is_found():
    held = []

    def remembered(out, *_):
        held[:] = held or [out]
        return held[0]

    with pytest.raises(AssertionError, match="changes the next one"):
        check_own_memory(Broken(remembered), "h", SHAPE)
    with pytest.raises(AssertionError, match="the result is a view"):
        check_own_memory(Broken(lambda out, *_: out.unsqueeze(0)[0]), "c", SHAPE)


def test_runs_that_differ_are_found_unless_the_engine_says_so():
    state = [0]

    def unsteady(out, *_):
        state[0] += 1
        return out + (state[0] % 2) * 1e-7

    with pytest.raises(AssertionError, match="two runs on 1 threads differ"):
        check_threads(Broken(unsteady), "c", SHAPE)
    free = Traits(plain_sums=False, exact=False, confines_nan=True, deterministic=False)
    loose = Broken(unsteady, traits=free)
    loose.error = lambda problem: Error(1e-3, 1e-3)
    check_threads(loose, "c", SHAPE)


def test_a_result_that_depends_on_strides_is_found():
    def naive(out, a, b):
        return out if b.is_contiguous() else out + 1

    with pytest.raises(AssertionError, match=r"channels-last|slices|reversed"):
        check_layouts(Broken(naive), "c", SHAPE)


def test_a_lost_conjugation_is_found():
    def lost(out, a, b):
        return out.conj().resolve_conj() if b.is_conj() else out

    with pytest.raises(AssertionError, match="lazily conjugated"):
        check_layouts(Broken(lost), "c", SHAPE)


def test_the_wrong_memory_format_is_found():
    with pytest.raises(AssertionError, match="must be channels-last"):
        check_layouts(Broken(lambda out, *_: out.contiguous()), "c", SHAPE)


@pytest.mark.parametrize("one", [0, 1])
def test_a_memory_format_taken_from_one_operand_is_found(one):
    def follows(out, *operands):
        return out.contiguous(memory_format=torch.channels_last if channels_last(operands[one]) else torch.contiguous_format)

    with pytest.raises(AssertionError, match="operand channels-last: the result must be channels-last"):
        check_layouts(Broken(follows), "c", SHAPE)


@pytest.mark.parametrize("map_", ["c", "h", "g"])
def test_nan_that_is_swallowed_or_spread_is_found(map_):
    with pytest.raises(AssertionError, match="misses"):
        check_nan_locality(Broken(lambda out, *_: out.nan_to_num()), map_, SHAPE)

    def spread(out, *_):
        return out + 0 * out.sum()

    if map_ != "g":
        with pytest.raises(AssertionError, match="outputs too many"):
            check_nan_locality(Broken(spread), map_, SHAPE)
        check_nan_locality(Broken(spread, replace(Reference.traits, confines_nan=False)), map_, SHAPE)


def test_a_broken_promise_of_scratch_is_found():
    class Hungry(Broken):
        def scratch(self, problem):
            return 1000

    def hungry(out, *_):
        held = torch.zeros(10_000, dtype=torch.double)
        return out + held.sum()

    with pytest.raises(AssertionError, match="but promised 1000"):
        check_scratch(Hungry(hungry), "c", SHAPE)
    check_scratch(Broken(), "c", SHAPE)


def test_an_engine_that_refuses_runs_nothing():
    class Refusing(Broken):
        def refuses(self, problem):
            return f"no, not {problem.batch} of them"

    assert refusal(Refusing(), "c", SHAPE) == "no, not 2 of them"
    assert all(check(Refusing(), "c", SHAPE).runs == 0 for check in CHECKS)
    assert isinstance(Refusing(), Engine)
