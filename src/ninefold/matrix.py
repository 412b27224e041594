"""A convolution as a matrix: sparse, as an operator that is never written out, and its exact singular values.

The matrix of a layer maps one flattened example to the flattened output, bias aside. Along an axis every row is the previous row
shifted by the stride (Toeplitz; block Toeplitz over several axes); with a circular border and stride 1 it is circulant over each
axis, and the Fourier transform makes it block diagonal, a block of channels per frequency (Sedghi, Gupta and Long 2019).
"""

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ninefold import reference
from ninefold.errors import ArgumentError, ShapeError
from ninefold.ops import trilinear
from ninefold.spec.conv import ConvSpec
from ninefold.spec.form import Form
from ninefold.spec.parse import integer, per_axis

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import LinearOperator

__all__ = ["as_linear_operator", "conv_matrix", "operator_norm", "singular_values"]

_DENSE = 1 << 24  # entries up to which a matrix is decomposed whole
_SMALL = 1 << 18  # and up to which even where a few values are asked for, which iteration finds sooner
Array = np.ndarray[Any, np.dtype[Any]]


def conv_matrix(layer: Any, input_size: Any, *, weight: Tensor | None = None) -> "csr_array":
    """Return the matrix of a convolution, transposed or not, as a sparse array.

    Parameters
    ----------
    layer : module or ConvSpec
        A convolution layer of ``torch.nn`` or ``ninefold.nn``, or a description.
    input_size : int or sequence of int
        Spatial size of what the layer reads.
    weight : Tensor, optional
        By default the layer's; a description has none of its own.

    Returns
    -------
    scipy.sparse.csr_array of shape ``(channels * positions of the output, channels * positions of the input)``
        In double precision. Weights that are zero are stored: the structure is that of the connections.

    Raises
    ------
    ArgumentError
        If a description comes without a weight.
    ShapeError
        If the weight or the size does not fit.

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> nf.conv_matrix(nf.ConvSpec(1, 1, (2,)), 4, weight=torch.tensor([[[-1.0, 1.0]]])).toarray().tolist()
    [[-1.0, 1.0, 0.0, 0.0], [0.0, -1.0, 1.0, 0.0], [0.0, 0.0, -1.0, 1.0]]
    """
    from scipy.sparse import coo_array  # noqa: PLC0415  SciPy is loaded by those who ask for matrices

    spec, form, K = _given(layer, input_size, weight)
    outputs, inputs, weights = reference.terms(form)
    shape = (prod(form.output_shape(1)), prod(form.input_shape(1)))
    matrix = coo_array((K.ravel()[weights], (outputs, inputs)), shape=shape).tocsr()
    return matrix.T.tocsr() if spec.transposed else matrix


def as_linear_operator(layer: Any, input_size: Any, *, weight: Tensor | None = None) -> "LinearOperator":
    """Return the matrix of a convolution as an operator: products run the planned convolution and its adjoint.

    Parameters
    ----------
    layer, input_size, weight
        As in `conv_matrix`.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        Of the same shape as `conv_matrix`, in double precision.

    Raises
    ------
    ArgumentError, ShapeError
        As in `conv_matrix`.

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> difference = nf.as_linear_operator(nf.ConvSpec(1, 1, (2,)), 4, weight=torch.tensor([[[-1.0, 1.0]]]))
    >>> difference.matvec([1, 4, 9, 16]).tolist(), difference.rmatvec([1, 0, 0]).tolist()
    ([3.0, 5.0, 7.0], [-1.0, 1.0, 0.0, 0.0])
    """
    from scipy.sparse.linalg import LinearOperator  # noqa: PLC0415  see above

    spec, form, K = _given(layer, input_size, weight)
    own, kernel = spec.replace(transposed=False, output_padding=0, bias=False), torch.from_numpy(K)

    conjugate = kernel.conj().resolve_conj()
    there, back = ("h", "c") if spec.transposed else ("c", "h")

    def product(columns: Array) -> Array:
        return _applied(there, own, form, kernel, columns)

    def adjoint(columns: Array) -> Array:
        return _applied(back, own, form, conjugate, columns)

    ends = (prod(form.output_shape(1)), prod(form.input_shape(1)))
    shape = ends[::-1] if spec.transposed else ends
    return LinearOperator(shape=shape, dtype=K.dtype, matvec=product, matmat=product, rmatvec=adjoint, rmatmat=adjoint)


def singular_values(layer: Any, input_size: Any, *, weight: Tensor | None = None, count: int | None = None) -> Array:
    """Return the exact singular values of a convolution's matrix, the largest first.

    With a circular border, stride 1 and one kernel for all positions they are those of a small matrix per frequency, of any
    size. Otherwise the matrix is decomposed whole, or its largest values found by iteration.

    Parameters
    ----------
    layer, input_size, weight
        As in `conv_matrix`.
    count : int, optional
        How many; by default all of them.

    Returns
    -------
    array of shape ``(count,)``, in double precision

    Raises
    ------
    ArgumentError
        If all are asked for of a matrix too large to be decomposed whole; or as in `conv_matrix`.
    ShapeError
        As in `conv_matrix`.

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> ring = nf.ConvSpec(1, 1, (3,), padding=1, padding_mode="circular")
    >>> nf.singular_values(ring, 4, weight=torch.ones(1, 1, 3)).round(6).tolist()
    [3.0, 1.0, 1.0, 1.0]
    """
    _, form, K = _given(layer, input_size, weight)
    rows, columns = prod(form.output_shape(1)), prod(form.input_shape(1))
    if count is not None and not 1 <= integer(count, "count") <= min(rows, columns):
        raise ArgumentError(
            f"count={count} must be from 1 to {min(rows, columns)}, the smaller side of the {rows} x {columns} matrix"
        )
    if _circulant(form):
        return _of_blocks(form, K)[:count]
    few = count is not None and 4 * count <= min(rows, columns)
    if rows * columns <= (_SMALL if few else _DENSE):
        dense = conv_matrix(layer, input_size, weight=weight).toarray()
        return np.linalg.svd(dense, compute_uv=False)[:count]
    if count is None or not few:
        raise ArgumentError(
            f"{count or 'all'} singular values of a {rows} x {columns} matrix would need {8 * rows * columns / 1e9:.1f} GB; "
            "give count for a few of the largest, or a circular border and stride 1, where they are known in closed form"
        )
    from scipy.sparse.linalg import svds  # noqa: PLC0415  see above

    start = np.random.default_rng(0).standard_normal(min(rows, columns))
    found: Any = svds(conv_matrix(layer, input_size, weight=weight), k=count, v0=start, return_singular_vectors=False)
    values: Array = np.sort(found)[::-1]
    return values


def operator_norm(layer: Any, input_size: Any, *, weight: Tensor | None = None) -> float:
    """Return the largest factor by which a convolution stretches an input: the norm of the operator, not of its weights.

    ``torch.nn.utils.spectral_norm`` takes the weight for a matrix of ``out_channels`` rows, whose norm is another number.

    Parameters
    ----------
    layer, input_size, weight
        As in `conv_matrix`.

    Returns
    -------
    float

    Raises
    ------
    ArgumentError, ShapeError
        As in `conv_matrix`.

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> ring = nf.ConvSpec(1, 1, (3,), padding=1, padding_mode="circular")
    >>> round(nf.operator_norm(ring, 1000, weight=torch.ones(1, 1, 3)), 6)
    3.0
    """
    return float(singular_values(layer, input_size, weight=weight, count=1)[0])


def _given(layer: Any, input_size: Any, weight: Tensor | None) -> tuple[ConvSpec, Form, Array]:
    """Return spec, form and weight in double precision, checked."""
    spec = layer if isinstance(layer, ConvSpec) else ConvSpec.from_module(layer)
    form = spec.form(per_axis(input_size, spec.ndim, "input_size", 1))
    weight = getattr(layer, "weight", None) if weight is None else weight
    if not isinstance(weight, Tensor):
        raise ArgumentError(f"a description has no weight of its own: give weight, a tensor of shape {form.weight_shape}")
    if tuple(weight.shape) != form.weight_shape:
        raise ShapeError(f"the weight has shape {tuple(weight.shape)}; this convolution needs {form.weight_shape}")
    K = weight.detach().cpu().resolve_conj()
    return spec, form, K.to(torch.complex128 if K.is_complex() else torch.float64).numpy()


def _applied(map_: Any, spec: ConvSpec, form: Form, kernel: Tensor, columns: Array) -> Array:
    """Run a map on the columns of an array, an example each."""
    read, given = (form.input_shape, form.output_shape) if map_ == "c" else (form.output_shape, form.input_shape)
    dtype = torch.complex128 if np.iscomplexobj(columns) or kernel.is_complex() else torch.float64
    x = torch.from_numpy(np.ascontiguousarray(columns)).to(dtype)
    flat = x.reshape(len(x), -1).T
    with torch.no_grad():
        out = trilinear(map_, spec, form, kernel.to(dtype), flat.reshape(read(len(flat))).contiguous())
    result: Array = out.reshape(len(flat), prod(given(1))).T.reshape(-1, *columns.shape[1:]).numpy()
    return result


def _circulant(form: Form) -> bool:
    ring = all(a.stride == 1 and a.n_in == a.n_out and (a.mode == "circular" or not a.border) for a in form.axes)
    return ring and not form.tiled


def _of_blocks(form: Form, K: Array) -> Array:
    """Decompose the channels' matrix of every frequency."""
    channels = form.channels
    symbol = np.zeros((channels.outputs, channels.inputs, *form.n_in), K.dtype)
    o, i = np.array(channels.edges, dtype=np.intp).reshape(-1, 2).T
    packed = K.reshape(len(o), *form.kernel)
    for tap in np.ndindex(*form.kernel):
        read = [a.kernel - 1 - m if form.flip else m for a, m in zip(form.axes, tap, strict=True)]
        at = [(m * a.dilation - a.lo) % a.n_in for a, m in zip(form.axes, tap, strict=True)]
        np.add.at(symbol, (o, i, *at), packed[(slice(None), *read)])
    spectrum = np.fft.fftn(symbol, axes=range(2, symbol.ndim))
    blocks = np.moveaxis(spectrum.reshape(channels.outputs, channels.inputs, -1), -1, 0)
    return np.sort(np.linalg.svd(blocks, compute_uv=False).ravel())[::-1]
