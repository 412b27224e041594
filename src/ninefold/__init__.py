"""ninefold: every convolution of a PyTorch model described, planned, explained, and run by the fastest exact-enough algorithm."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from ninefold.errors import MissingExtraError, NinefoldError
from ninefold.settings import options
from ninefold.spec.conv import ConvSpec
from ninefold.spec.counts import connectivity_counts

if TYPE_CHECKING:
    from ninefold import compat as compat
    from ninefold import data as data
    from ninefold import drawing as drawing
    from ninefold import functional as functional
    from ninefold import learn as learn
    from ninefold import models as models
    from ninefold import nn as nn
    from ninefold import pooling_theory as pooling_theory
    from ninefold import segment as segment
    from ninefold import structured as structured
    from ninefold import symmetry as symmetry
    from ninefold.matrix import as_linear_operator, conv_matrix, operator_norm, singular_values
    from ninefold.memory import retain_memory
    from ninefold.network import convert, freeze, optimize, receptive_fields, revert, unconverted
    from ninefold.planning.ask import calibrate, export_plans, load_plans, plan
    from ninefold.pooling_advice import advise_pooling
    from ninefold.prior import prior_penalty, project, tie_map, to_linear
    from ninefold.spec.artefacts import checkerboard, gridding
    from ninefold.symmetry import equivariance, invariance

__all__ = [
    "ConvSpec",
    "NinefoldError",
    "advise_pooling",
    "as_linear_operator",
    "calibrate",
    "checkerboard",
    "connectivity_counts",
    "conv_matrix",
    "convert",
    "equivariance",
    "export_plans",
    "freeze",
    "gridding",
    "invariance",
    "load_plans",
    "operator_norm",
    "optimize",
    "options",
    "plan",
    "prior_penalty",
    "project",
    "receptive_fields",
    "retain_memory",
    "revert",
    "singular_values",
    "tie_map",
    "to_linear",
    "unconverted",
]

try:
    __version__ = version("ninefold")
except PackageNotFoundError:  # a source tree on the path that nobody installed
    __version__ = "0+unknown"

# Descriptions need no torch: what does is imported when it is first asked for.
_LATE = {
    "advise_pooling": "pooling_advice",
    "as_linear_operator": "matrix",
    "calibrate": "planning.ask",
    "checkerboard": "spec.artefacts",
    "gridding": "spec.artefacts",
    "conv_matrix": "matrix",
    "operator_norm": "matrix",
    "singular_values": "matrix",
    "convert": "network",
    "equivariance": "symmetry",
    "export_plans": "planning.ask",
    "freeze": "network",
    "invariance": "symmetry",
    "load_plans": "planning.ask",
    "optimize": "network",
    "plan": "planning.ask",
    "receptive_fields": "network",
    "prior_penalty": "prior",
    "project": "prior",
    "tie_map": "prior",
    "to_linear": "prior",
    "retain_memory": "memory",
    "revert": "network",
    "unconverted": "network",
}


_EXTRAS = ("learn", "segment")  # what needs more than PyTorch and NumPy has an extra of its name
_ROOMS = ("compat", "data", "learn", "segment", "structured", "symmetry")
_MODULES = ("drawing", "functional", "models", "nn", "pooling_theory", *_ROOMS)


def _room(name: str) -> Any:
    """Return a package of this one, or say which extra brings what it needs."""
    from importlib import import_module  # noqa: PLC0415  the point of being late

    try:
        return import_module(f"ninefold.{name}")
    except ModuleNotFoundError as error:
        if name not in _EXTRAS or (error.name or "").startswith("ninefold"):
            raise
        raise MissingExtraError(f"ninefold.{name} needs {error.name}: pip install 'ninefold[{name}]'") from error


def __getattr__(name: str) -> Any:
    from importlib import import_module  # noqa: PLC0415  the point of being late

    if name in _MODULES:
        return _room(name)
    if name not in _LATE:
        raise AttributeError(f"module 'ninefold' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"ninefold.{_LATE[name]}"), name)
    return value
