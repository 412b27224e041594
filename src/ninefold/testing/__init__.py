"""Published for users, too: named shapes, tolerances, the dot test, and the contract that every engine is held to.

`ninefold.testing.strategies` draws shapes with hypothesis, and is imported by its own name.
"""

from ninefold.testing.cases import Case, cases, operands, refusal
from ninefold.testing.contract import (
    CHECKS,
    Check,
    Outcome,
    check_against_reference,
    check_defaults,
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
)
from ninefold.testing.defaults import elsewhere
from ninefold.testing.dot import dot_test
from ninefold.testing.memory import PeakMemory, Poisoned
from ninefold.testing.shapes import Shape, load_shapes
from ninefold.testing.tolerances import assert_close, defined, error_scale, scaled_error, tolerance

__all__ = [
    "CHECKS",
    "Case",
    "Check",
    "Outcome",
    "PeakMemory",
    "Poisoned",
    "Shape",
    "assert_close",
    "cases",
    "check_against_reference",
    "check_defaults",
    "check_dot",
    "check_dtypes",
    "check_epilogues",
    "check_finite",
    "check_gradients",
    "check_layouts",
    "check_nan_locality",
    "check_own_memory",
    "check_poisoned",
    "check_scratch",
    "check_threads",
    "defined",
    "dot_test",
    "elsewhere",
    "error_scale",
    "load_shapes",
    "operands",
    "refusal",
    "scaled_error",
    "tolerance",
]
