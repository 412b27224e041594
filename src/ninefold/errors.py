"""One type per kind of mistake; each is also the built-in error that existing code already catches."""

__all__ = [
    "AccuracyError",
    "ArgumentError",
    "ArgumentTypeError",
    "CacheWarning",
    "CalibrationError",
    "CheckpointError",
    "DTypeError",
    "DataError",
    "DeviceError",
    "FilterFileError",
    "ImageError",
    "MissingExtraError",
    "ModelError",
    "NinefoldError",
    "NoEngineError",
    "PlanFileError",
    "ShapeError",
    "UnsupportedError",
]


class NinefoldError(Exception):
    """The parent of every error that ninefold raises on purpose."""


class ArgumentError(NinefoldError, ValueError, RuntimeError):
    """An argument has a value that it must not have; torch raises ``RuntimeError`` for most of them."""


class ArgumentTypeError(NinefoldError, TypeError):
    """An argument has the wrong type, such as a float where a whole number belongs."""


class AccuracyError(NinefoldError, RuntimeError):
    """A result further from the definition than the tolerance explains."""


class ShapeError(NinefoldError, ValueError, RuntimeError):
    """A tensor's rank or sizes do not fit; torch raises ``RuntimeError`` for the same mistake."""


class DTypeError(NinefoldError, TypeError, RuntimeError):
    """Operands of different or unsupported data types."""


class DeviceError(NinefoldError, RuntimeError):
    """Operands on different devices."""


class NoEngineError(NinefoldError, RuntimeError):
    """Every engine is out under the tolerance, the scratch cap or the determinism that was asked for."""


class UnsupportedError(NinefoldError, NotImplementedError):
    """Something that torch would get silently wrong, and that is therefore refused."""


class CalibrationError(NinefoldError, RuntimeError):
    """Rates that no machine has, or that were measured while it was busy with something else."""


class PlanFileError(NinefoldError, ValueError):
    """A plan file that cannot be read, or that was not written by ninefold."""


class FilterFileError(NinefoldError, ValueError):
    """A file of filters that cannot be read or written, or that is something else."""


class CheckpointError(NinefoldError, ValueError):
    """A state of a training that cannot be read or written, or that is of another training."""


class ModelError(NinefoldError, ValueError):
    """A model name that cannot be resolved, or a model that does not take the given input."""


class ImageError(NinefoldError, ValueError):
    """A file that is not an image that can be decoded."""


class DataError(NinefoldError, ValueError):
    """A recording, image, volume or video that cannot be read or written, that ends early, or that is something else."""


class MissingExtraError(NinefoldError, ImportError):
    """A package that comes with an extra of ninefold and is not installed."""


class CacheWarning(UserWarning):
    """The plan cache on disk could not be used; plans are kept in memory only."""
