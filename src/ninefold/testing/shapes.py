"""Named shapes in TOML files: the problems that the contract suite and the benchmarks share.

A file holds tables ``[[shape]]``. A table has a ``name``, a ``batch``, a ``size`` (spatial, of what the layer reads) and any
field of `ConvSpec`; and, where wanted, ``group`` (the file's stem by default), ``map`` (a list out of c, h and g), ``dtype``
and ``contract`` (whether the contract suite runs it: by default where the definition takes NumPy under a second). TOML has no
null, so that an unshared axis is written ``period = "unshared"``, or ``["unshared", 2]`` for one of two axes::

    [[shape]]
    name = "depthwise-31x31"
    batch = 1
    size = [56, 56]
    in_channels = 128
    out_channels = 128
    groups = 128
    kernel_size = [31, 31]
    padding = "same"
"""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ninefold.errors import ArgumentError, NinefoldError
from ninefold.spec import ConvSpec, Form, Map, Problem
from ninefold.spec.parse import integer
from ninefold.spec.parse import size as parse_size
from ninefold.spec.problem import TOLERANCES

__all__ = ["CONTRACT_MACS", "Shape", "load_shapes"]

CONTRACT_MACS = 1_200_000
"""Multiply-adds of the whole batch up to which a shape is small enough for the definition in NumPy."""

_MAPS: tuple[Map, ...] = ("c", "h", "g")
_SPEC = tuple(f.name for f in fields(ConvSpec))
_OWN = ("name", "group", "batch", "size", "map", "dtype", "contract")


@dataclass(frozen=True)
class Shape:
    """A convolution with a name, a batch and a size.

    Parameters
    ----------
    name : str
        Unique among the shapes that are loaded together.
    group : str
        What it is reported with.
    batch : int
        Examples; may be 0.
    size : tuple of int
        Spatial size of what the layer reads: ``V``, or ``G`` if the spec is transposed.
    spec : ConvSpec
    contract : bool
        Whether the contract suite runs it.
    maps : tuple of {"c", "h", "g"}
        The maps to look at.
    dtype : str
        Such as ``"float32"``.

    Examples
    --------
    >>> shape = Shape("tiny", "dense", 2, (7, 9), ConvSpec(2, 3, (3, 5)), contract=True)
    >>> shape.macs, shape.form.n_out
    (4500, (5, 5))
    >>> shape.problem("h", dtype="float64").map
    'h'
    """

    name: str
    group: str
    batch: int
    size: tuple[int, ...]
    spec: ConvSpec
    contract: bool
    maps: tuple[Map, ...] = _MAPS
    dtype: str = "float32"

    @property
    def form(self) -> Form:
        """The form with both sizes settled."""
        return self.spec.form(self.size)

    @property
    def macs(self) -> int:
        """Multiply-adds of the whole batch; the same for all three maps."""
        return self.form.macs * self.batch

    def problem(self, map_: Map, **changes: Any) -> Problem:
        """Return the problem of one map, with any field of `Problem` changed."""
        return Problem(map_, self.form, self.batch, **{"dtype": self.dtype, **changes})

    def __str__(self) -> str:
        return self.name


def load_shapes(path: str | Path) -> tuple[Shape, ...]:
    """Return the shapes of a TOML file, or of all TOML files of a folder in the order of their names.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    ArgumentError
        With the file, the shape's name and what is wrong with it.

    Examples
    --------
    >>> import tempfile
    >>> lines = ["[[shape]]", "name = 'a'", "batch = 2", "size = [7, 9]"]
    >>> lines += ["in_channels = 2", "out_channels = 3", "kernel_size = [3, 5]"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "dense.toml").write_text(chr(10).join(lines))
    ...     [(s.name, s.group, s.macs, s.contract) for s in load_shapes(folder)]
    [('a', 'dense', 4500, True)]
    """
    path = Path(path)
    if not path.exists():
        raise ArgumentError(f"{path}: there is no such file or folder of shapes")
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    if not files:
        raise ArgumentError(f"{path}: the folder holds no TOML file; shapes are tables [[shape]] in files *.toml")
    seen: dict[str, Path] = {}
    shapes = []
    for file in files:
        for shape in _load_file(file):
            if shape.name in seen:
                raise ArgumentError(f"{file}: shape {shape.name!r} is already in {seen[shape.name]}; names are unique")
            seen[shape.name] = file
            shapes.append(shape)
    return tuple(shapes)


def _load_file(file: Path) -> list[Shape]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{file}: not a TOML file: {error}") from None
    if unknown := sorted(content.keys() - {"shape"}):
        raise ArgumentError(f"{file}: unknown keys {', '.join(unknown)}; shapes are tables [[shape]]")
    tables = content.get("shape", [])
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise ArgumentError(f"{file}: shape must be an array of tables, written [[shape]] with double brackets")
    return [_read(table, file, k) for k, table in enumerate(tables)]


def _read(table: dict[str, Any], file: Path, k: int) -> Shape:
    name = table.get("name")
    where = f"{file}: shape {name!r}" if isinstance(name, str) and name else f"{file}: shape number {k + 1}"
    if not isinstance(name, str) or not name:
        raise ArgumentError(f"{where}: needs a name, a string that is not empty, got {name!r}")
    if unknown := [key for key in table if key not in _SPEC and key not in _OWN]:
        raise ArgumentError(f"{where}: unknown fields {', '.join(unknown)}; there are {', '.join(_OWN + _SPEC)}")
    if missing := [key for key in ("batch", "size", "in_channels", "out_channels", "kernel_size") if key not in table]:
        raise ArgumentError(f"{where}: lacks {', '.join(missing)}")
    try:
        return _build(table, file.stem)
    except NinefoldError as error:
        raise ArgumentError(f"{where}: {error}") from None


def _build(table: dict[str, Any], stem: str) -> Shape:
    values = {key: table[key] for key in _SPEC if key in table}
    if "period" in values:
        values["period"] = _period(values["period"])
    spec = ConvSpec(**values)
    batch, size = integer(table["batch"], "batch", 0), parse_size(table["size"], spec.ndim, "size")
    group, dtype, contract = table.get("group", stem), table.get("dtype", "float32"), table.get("contract")
    if not isinstance(group, str):
        raise ArgumentError(f"group must be a string, got {group!r}")
    if dtype not in TOLERANCES:
        raise ArgumentError(f"dtype={dtype!r} is not one of {', '.join(TOLERANCES)}")
    if not (contract is None or isinstance(contract, bool)):
        raise ArgumentError(f"contract must be true or false, got {contract!r}")
    macs = spec.form(size).macs * batch
    small = macs <= CONTRACT_MACS if contract is None else bool(contract)
    return Shape(table["name"], group, batch, size, spec, small, _maps(table.get("map", list(_MAPS))), dtype)


def _maps(value: Any) -> tuple[Map, ...]:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not given or any(m not in _MAPS for m in given):
        raise ArgumentError(f"map={value!r} must be a list out of {', '.join(_MAPS)}")
    return tuple(m for m in _MAPS if m in given)


def _period(value: Any) -> Any:
    """Put None where the file says ``"unshared"``; what is wrong otherwise, `ConvSpec` says."""
    if isinstance(value, list):
        return tuple(_period(v) for v in value)
    return None if value == "unshared" else value
