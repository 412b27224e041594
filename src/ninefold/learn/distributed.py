"""Images bigger than memory, on more than one machine: Dask arrays (``pip install ninefold[distributed]``).

Patches are drawn and features are made where the images are, chunk by chunk. A dictionary is learned from the patches that were
drawn, in the process that asks for it, by the code that one machine runs: the patches of a draw fit into memory however many
images there are. The draw is the one of `draw_patches`: the random number of a patch depends on the seed and on its place among
all patches, and the generator is set to the first place of each chunk (``PCG64.advance``), so that chunks and workers do not
matter.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from ninefold.errors import ArgumentError, ArgumentTypeError, NinefoldError, ShapeError
from ninefold.learn.base import FilterSource, PatchSource, as_source, seed_of, size_of, whole
from ninefold.learn.designed import DesignedFilters
from ninefold.learn.features import ConvFeatures
from ninefold.learn.files import SavedFilters
from ninefold.learn.images import Channels, Images
from ninefold.learn.patches import check_values
from ninefold.learn.pooling import pooling_of
from ninefold.learn.simple import GivenFilters, RandomFilters
from ninefold.settings import CURRENT, Options, options

if TYPE_CHECKING:
    from dask.array import Array
    from distributed import Client, Future
    from numpy.typing import NDArray

    Progress = Callable[[int, int], None]

__all__ = ["fit", "transform"]

_Estimator = TypeVar("_Estimator", bound=BaseEstimator)
_UNSEEN = (DesignedFilters, GivenFilters, RandomFilters, SavedFilters)
"""Sources that look at the number of channels only."""
_NUMBERS = 1 << 22
"""Random numbers in memory at a time, in the search for the least: 32 MiB."""
_JOINED = 32
"""Lists of random numbers that one task merges."""


def transform(features: ConvFeatures, X: "Array") -> "Array":
    """Return the features of a Dask array of images, to be computed chunk by chunk wherever Dask computes.

    Each chunk of images becomes a chunk of rows, by `ConvFeatures.stream`: a worker holds one chunk of images, its rows and a few
    feature maps for each of its threads. Rows are those of one machine to rounding (the planner of a worker may choose another
    engine, all of which keep the tolerance). Options set by `ninefold.options` around this call hold on the workers.
    ``features.progress`` is not called: it belongs to this process; ``dask.distributed.progress(rows.persist())`` draws a bar.

    Parameters
    ----------
    features : ConvFeatures
        Fitted.
    X : dask.array.Array
        ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``, of integers, floats or booleans. Chunks go along the first axis;
        where images are split, they are put together first, in chunks of the size of Dask's option ``array.chunk-size``.

    Returns
    -------
    dask.array.Array
        ``(N, F)``, float32, in the order of the images, with the chunks of X along the first axis. Nothing has been computed yet.

    Raises
    ------
    ArgumentTypeError
        If X is no Dask array.
    ArgumentError, ShapeError
        If sizes of chunks are unknown, there is no image, it is not clear which axis the channels are, or the images do not fit
        the filters. What only the pixels tell (NaN) is raised when the rows are computed, and names the images.

    Examples
    --------
    >>> import dask.array as da
    >>> from ninefold.learn import KMeansFilters
    >>> images = da.random.default_rng(0).normal(size=(30, 9, 8), chunks=(12, -1, -1))
    >>> features = ConvFeatures(KMeansFilters(7, 3, random_state=0)).fit(images)
    >>> rows = transform(features, images)
    >>> rows.shape, rows.dtype, rows.chunks[0]
    ((30, 28), dtype('float32'), (12, 12, 6))
    >>> bool(np.allclose(rows.compute(), features.transform(images), rtol=1e-4, atol=1e-4))
    True
    """
    if not isinstance(features, ConvFeatures):
        raise ArgumentTypeError(f"features={features!r} must be ConvFeatures, not {type(features).__name__}")
    check_is_fitted(features, "source_")
    X, where = _images(X, features.channels, features.channels_)
    channels, height, width = _sizes(X.shape, where)
    wanted, *size = features.source_.filters_.shape[1:]
    if channels != wanted:
        raise ShapeError(f"the images have {channels} channels, and the filters were learned from {wanted}")
    if height < size[0] or width < size[1]:
        raise ShapeError(f"images of {(height, width)} are smaller than the filters, {tuple(size)}")
    import dask.array as da  # noqa: PLC0415  an extra, and here: `_images` says so where it is missing
    from dask.delayed import delayed  # noqa: PLC0415

    columns = len(features.get_feature_names_out())
    return da.map_blocks(
        _rows,
        X,
        features=delayed(_light(features, where), traverse=False),  # one task, of which each worker keeps what it gives
        columns=columns,
        given=CURRENT.get(),
        chunks=(X.chunks[0], (columns,)),
        drop_axis=list(range(2, X.ndim)),
        dtype=np.float32,
        meta=np.empty((0, 0), np.float32),
    )


def fit(estimator: _Estimator, X: "Array", *, client: "Client | None" = None, progress: "Progress | None" = None) -> _Estimator:
    """Learn filters from a Dask array of images: patches are drawn by the workers, and the dictionary is learned here.

    The patches are those that ``estimator.fit(X)`` draws, and in the same order, so that what is learned is the same. If a
    worker dies, what it had is made anew; images must come out the same then. Memory here is a few times that of the draw:
    `n_patches` patches, 43 MB for 100,000 of 6x6x3 values.

    Parameters
    ----------
    estimator : FilterSource or ConvFeatures
        A source that learns from patches (`SampledPatches`, `KMeansFilters`, `OMPFilters`), or from nothing (`RandomFilters`,
        `DesignedFilters`, `GivenFilters`, `SavedFilters`), or `ConvFeatures` with one of them and a pooling that learns nothing.
    X : dask.array.Array
        As in `transform`.
    client : distributed.Client, optional
        The one that was started last, unless given.
    progress : callable, optional
        Called in this process with (images done, images in all) after each chunk that patches were drawn from.

    Returns
    -------
    FilterSource or ConvFeatures
        `estimator`, fitted.

    Raises
    ------
    ArgumentTypeError
        If X is no Dask array, or the source learns from whole images in turn, or the pooling learns.
    ArgumentError, ShapeError
        If there is no client, or as `transform` and ``estimator.fit``.

    Examples
    --------
    >>> import dask.array as da
    >>> from distributed import Client
    >>> from ninefold.learn import SampledPatches
    >>> images = da.random.default_rng(0).normal(size=(30, 9, 8), chunks=(12, -1, -1))
    >>> with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
    ...     source = fit(SampledPatches(7, 3, random_state=0), images)
    >>> np.array_equal(source.atoms_, SampledPatches(7, 3, random_state=0).fit(images).atoms_)
    True
    """
    if not isinstance(estimator, ConvFeatures):
        return _fit_source(estimator, X, client, progress)
    pooled = pooling_of(estimator.pooling)
    if hasattr(pooled, "fit"):
        raise ArgumentTypeError(
            f"pooling={type(pooled).__name__}(...) learns from feature maps in turn: fit the source here, then "
            "ConvFeatures(source, pooling=..., prefit=True).fit(images) with as many images as it needs; transform is "
            "distributed all the same"
        )
    source = estimator.filters
    if not estimator.prefit:
        source = clone(source) if isinstance(source, FilterSource) else source
        if hasattr(source, "channels"):
            source.set_params(channels=estimator.channels)
        _fit_source(source, X, client, progress)
    X, where = _images(X, estimator.channels, None)
    ready = clone(estimator).set_params(filters=source, prefit=True, channels=where)
    _take(estimator, ready.fit(_blank(X)))
    return estimator


def _fit_source(source: Any, X: "Array", client: "Client | None", progress: "Progress | None") -> Any:
    as_source(source)
    X, where = _images(X, getattr(source, "channels", "auto"), None)
    if isinstance(source, _UNSEEN):
        return source.fit(_blank(X))
    if not isinstance(source, PatchSource):
        raise ArgumentTypeError(
            f"{type(source).__name__} learns from whole images in turn, not from a draw of patches: its own fit(X) reads a Dask "
            "array chunk by chunk in this process; transform is distributed all the same"
        )
    size, most = size_of(source.patch_size), whole(source.n_patches, "n_patches")
    seed = seed_of(source.random_state)
    patches = _drawn(_client(client), X, where, size, most, seed, progress)
    # The source draws once more, from images that are the patches, and keeps all: they must come out of that in their order.
    given = np.empty_like(patches)
    given[np.argsort(np.random.default_rng(seed).random(len(patches)))] = patches
    learner = clone(source).set_params(channels="first", random_state=seed)
    _take(source, learner.fit(given))
    return source


def _drawn(
    client: "Client", X: "Array", where: Channels, size: tuple[int, int], count: int, seed: int, progress: "Progress | None"
) -> "NDArray[np.float32]":
    """Return the patches ``(count, C, h, w)`` that `draw_patches` draws, and in its order."""
    from distributed import as_completed  # noqa: PLC0415  an extra

    _, height, width = _sizes(X.shape, where)
    rows, columns = height - size[0] + 1, width - size[1] + 1
    if rows < 1 or columns < 1:
        raise ShapeError(f"no image is as large as a patch of {size[0]}x{size[1]}, such as one of {X.shape}")
    check_values((_sizes(X.shape, where)[0], *size))
    firsts = list(accumulate(X.chunks[0], initial=0))
    parts = [
        (chunk, first, images)
        for chunk, first, images in zip(X.to_delayed().ravel(), firsts, X.chunks[0], strict=False)
        if images  # chunks may be empty
    ]
    each = rows * columns
    limit = _limit(client, seed, [(first * each, images * each) for _, first, images in parts], count)
    tasks = [_delayed_cut(chunk, where, size, seed, first, limit) for chunk, first, _ in parts]
    counts: dict[Future[Any], int] = dict(zip(client.compute(tasks), (images for _, _, images in parts), strict=True))
    found, done = [], 0
    try:
        for future, result in as_completed(list(counts), loop=client.loop, with_results=True):
            found.append(result)
            done += counts.pop(future)  # nobody refers to it any more, and the worker forgets its patches
            if progress is not None:
                progress(done, X.shape[0])
    finally:
        client.cancel(list(counts))  # what an error or an interrupt left
    keys = np.concatenate([keys for keys, _ in found])
    return np.concatenate([patches for _, patches in found])[np.argsort(keys)]


def _limit(client: "Client", seed: int, places: list[tuple[int, int]], count: int) -> float:
    """Return the largest random number of a patch that is drawn: the `count`-th of all.

    `places` are the first place and the number of places of each chunk. No image is needed for that.
    """
    if sum(number for _, number in places) <= count:
        return float("inf")
    least = client.map(_least, [seed] * len(places), *zip(*places, strict=True), [count] * len(places), pure=False)
    while len(least) > 1:
        parts = [least[k : k + _JOINED] for k in range(0, len(least), _JOINED)]
        least = client.map(_joined, parts, [count] * len(parts), pure=False)
    return float(least[0].result().max())


def _least(seed: int, start: int, number: int, count: int) -> "NDArray[np.float64]":
    """Return the least `count` random numbers of `number` places."""
    generator, least = _generator(seed, start), np.empty(0)
    for done in range(0, number, _NUMBERS):
        least = _joined([least, generator.random(min(_NUMBERS, number - done))], count)
    return least


def _joined(parts: "list[NDArray[np.float64]]", count: int) -> "NDArray[np.float64]":
    keys = np.concatenate(parts)
    return np.partition(keys, count - 1)[:count] if len(keys) > count else keys


def _generator(seed: int, start: int) -> np.random.Generator:
    """Return the generator of `draw_patches` as it is after `start` numbers, each of which takes one step."""
    generator = np.random.default_rng(seed)
    generator.bit_generator.advance(start)  # type: ignore[attr-defined]
    return generator


def _delayed_cut(*arguments: Any) -> Any:
    from dask.delayed import delayed  # noqa: PLC0415  an extra

    return delayed(_cut, pure=False, traverse=False)(*arguments)


def _cut(
    chunk: Any, where: Channels, size: tuple[int, int], seed: int, first: int, limit: float
) -> "tuple[NDArray[np.float64], NDArray[np.float32]]":
    """Return those patches of a chunk, and their random numbers, of which these are at most `limit`."""
    keys, patches, generator = [], [], None
    with _told(first, len(chunk)):
        for batch in Images(chunk, where):
            views = batch.unfold(2, size[0], 1).unfold(3, size[1], 1)  # (B, C, rows, columns, h, w)
            places = (len(batch), views.shape[2], views.shape[3])
            generator = generator or _generator(seed, first * places[1] * places[2])
            found = generator.random(int(np.prod(places)))
            chosen = np.flatnonzero(found <= limit)
            image, row, column = (torch.from_numpy(index) for index in np.unravel_index(chosen, places))
            keys.append(found[chosen])
            patches.append(views[image, :, row, column].numpy())
    return np.concatenate(keys), np.concatenate(patches)


def _rows(chunk: Any, features: ConvFeatures, columns: int, given: Options, block_info: Any = None) -> "NDArray[np.float32]":
    """Return the features of a chunk."""
    if not len(chunk):
        return np.empty((0, columns), np.float32)
    with _told(block_info[0]["array-location"][0][0], len(chunk)), options(**asdict(given)):
        return np.concatenate(list(features.stream(chunk)))


@contextmanager
def _told(first: int, count: int) -> Iterator[None]:
    """Say which images an error is about: whoever reads it sees no chunks."""
    try:
        yield
    except NinefoldError as error:
        raise type(error)(f"images {first} to {first + count - 1}: {error}") from error


def _images(X: Any, channels: Channels, hint: Channels | None) -> "tuple[Array, Channels]":
    """Return images none of which is split, and where their channels are."""
    try:
        import dask.array as da  # noqa: PLC0415  an extra
    except ImportError as error:
        raise ImportError(f"{error}; images on many machines need Dask: pip install 'ninefold[distributed]'") from error
    if not isinstance(X, da.Array):
        raise ArgumentTypeError(
            f"X must be a Dask array, got {type(X).__name__}: dask.array.from_array(X, chunks=(1000, -1, -1)) makes one, and "
            "fit and transform of the estimator itself take anything else"
        )
    if np.isnan(X.shape).any():
        raise ShapeError(
            f"the images have shape {X.shape}, so that chunks have unknown sizes; X.compute_chunk_sizes() finds them"
        )
    if X.dtype.kind not in "fiub":
        raise ArgumentError(f"the images must hold real numbers, got dtype {X.dtype}; X.astype('float32') makes them")
    where = Images(X, channels, hint).where
    if any(len(sizes) > 1 for sizes in X.chunks[1:]):
        X = X.rechunk({0: "auto"} | dict.fromkeys(range(1, X.ndim), -1))
    return X, where or "none"


def _sizes(shape: tuple[int, ...], where: Channels) -> tuple[int, int, int]:
    """Return channels, height and width."""
    if where == "none":
        return 1, shape[1], shape[2]
    return (shape[1], shape[2], shape[3]) if where == "first" else (shape[3], shape[1], shape[2])


def _blank(X: "Array") -> "NDArray[np.float32]":
    """Return one image like those of X without its pixels."""
    return np.broadcast_to(np.float32(0), (1, *X.shape[1:]))


def _client(client: Any) -> "Client":
    from distributed import Client, default_client  # noqa: PLC0415  an extra

    if client is None:
        try:
            client = default_client()
        except ValueError as error:
            raise ArgumentError(
                "no client was started: client = dask.distributed.Client() starts one with workers on this machine, and "
                "Client('tcp://HOST:8786') connects to others; without one, fit of the source reads chunk by chunk"
            ) from error
    if not isinstance(client, Client):
        raise ArgumentTypeError(f"client={client!r} must be a dask.distributed.Client, not {type(client).__name__}")
    if client.asynchronous:
        raise ArgumentError("the client is asynchronous, and fit waits for its results; start it without asynchronous=True")
    return client


def _light(features: ConvFeatures, where: Channels) -> ConvFeatures:
    """Return what workers need of it: not the state that learning goes on from, nor what belongs to this process."""
    source = FilterSource()
    for name in ("atoms_", "filters_", "preparation_"):
        setattr(source, name, getattr(features.source_, name))
    light = copy.copy(features)
    light.filters, light.source_, light.progress, light.channels = source, source, None, where
    return light


def _take(estimator: Any, fitted: Any) -> None:
    """Take over what another one like it learned, and none of its parameters."""
    parameters = estimator.get_params(deep=False)
    vars(estimator).update({name: value for name, value in vars(fitted).items() if name not in parameters})
