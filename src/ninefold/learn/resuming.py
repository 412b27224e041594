"""Learning that survives its process: what a source holds is written to a file now and then, and a later one goes on from it."""

import hashlib
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ninefold.errors import FilterFileError
from ninefold.learn.base import FilterSource
from ninefold.learn.images import Images
from ninefold.learn.rbm import ConvRBM
from ninefold.learn.state import load_state, put_back, state_of
from ninefold.storing import write_whole

__all__ = ["Checkpoint", "fingerprint"]

_SECONDS = 2.0
"""Between two writes, at least; and twenty times as long as one takes."""
_SMALL = 1 << 24
"""Bytes of a state that is made ready after each pass, so that an interrupt between two writes loses nothing."""
_LARGE = 1 << 30
"""Bytes of a state that is not written: it is in memory twice while it is."""


class Checkpoint:
    """Keeps the state of one source in a file while it learns.

    It is written after a pass, but not more often than every few seconds, and when learning ends early. A file that is no such
    state is moved out of the way; one of other data or parameters is replaced.

    Parameters
    ----------
    source : FilterSource
        With parameters ``progress`` and ``random_state``, the latter a number; it has learned nothing.
    path : Path
        The file beside the one that will hold the filters.
    about : dict
        What a `fingerprint` returns: a state is gone on from only if its own is the same.
    progress : callable, optional
        Called with (done, in all or None) as the source's own would be, behind the write.
    tell : callable
        Called with a sentence for the user.
    """

    def __init__(
        self,
        source: FilterSource,
        path: Path,
        about: dict[str, Any],
        *,
        progress: Callable[[int, int | None], None] | None = None,
        tell: Callable[[str], None],
    ) -> None:
        self.source, self.path, self.about, self.progress, self.tell = source, path, about, progress, tell
        self._kept = ""  # what is in the file, such as "20 of 50 iterations"
        self._ready: tuple[bytes, str] | None = None
        self._next = 0.0
        self._said: set[str] = set()

    def learn(self, images: Images, save: Callable[[], None]) -> None:
        """Learn from images, from where the file left off if it does, save the filters, and remove the file.

        Raises
        ------
        FilterFileError
            If `save` does.
        KeyboardInterrupt
            As it came, with a sentence on what is kept.
        """
        resumed = self._restored()
        self.source.set_params(progress=self._reached)
        try:
            self._learn(images, resumed=resumed)
            self.source.set_params(progress=None)
            save()
        except KeyboardInterrupt as stop:
            self._flush()
            raise KeyboardInterrupt(self._where() or "nothing was finished yet, and nothing was changed") from stop
        except FilterFileError as error:
            self._flush()
            raise FilterFileError(f"{error}; {self._where() or 'what was learned is lost'}") from error
        except BaseException:
            self._flush()
            raise
        finally:
            self.source.set_params(progress=None)
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            self.tell(f"{self.path} is of no use any more, but cannot be removed: {error}")

    def _learn(self, images: Images, *, resumed: bool) -> None:
        source: Any = self.source
        if not resumed:
            source.fit(images)
        elif isinstance(source, ConvRBM):
            for k in range(source.n_epochs_, source.n_epochs):
                source.partial_fit(images)
                self._reached(k + 1, source.n_epochs)
        else:
            source._resume(images)  # noqa: SLF001  for this file alone

    def _where(self) -> str:
        return f"{self._kept} are kept in {self.path}, and the same command goes on from there" if self._kept else ""

    def _flush(self) -> None:
        """Write what was last ready, if it was not written."""
        if self._ready is not None:
            self._write(*self._ready)

    def _reached(self, done: int, total: int | None) -> None:
        """Take note that a pass is done: the source's `progress`."""
        state, due = state_of(self.source), time.monotonic() >= self._next
        name = f"{done} of {total}" if total is not None else f"{done}"
        name += " epochs" if isinstance(self.source, ConvRBM) else " iterations"
        if state.nbytes > _LARGE:
            size = f"{state.nbytes >> 20} MiB"
            self._say("large", f"{size} of state are too many to be kept: an interrupt goes back to {self._kept or 'the start'}")
        elif due or state.nbytes <= _SMALL:
            self._ready = state.to_bytes({"done": name, "of": self.about}), name
            if due:
                self._write(*self._ready)
        if self.progress is not None:
            self.progress(done, total)

    def _write(self, content: bytes, name: str) -> None:
        start = time.monotonic()
        try:
            write_whole(self.path, content, FilterFileError, parents=True)
            self._kept, self._ready = name, None
        except FilterFileError as error:
            self._say("write", f"{error}; learning goes on, but an interrupt goes back to {self._kept or 'the start'}")
        end = time.monotonic()
        self._next = end + max(_SECONDS, 20 * (end - start))

    def _restored(self) -> bool:
        """Give the source the state that the file holds; return whether it did, and say so, or why not."""
        if not self.path.exists():
            return False
        try:
            about, state = load_state(self.path)
            if about["of"] == self.about:
                put_back(self.source, state)
                self._kept = about["done"]
                self.tell(f"going on from {self._kept}, kept in {self.path}")
                return True
        except FilterFileError as error:
            aside = self._aside()
            self.tell(f"{error}; it is now {aside.name}, and learning starts afresh")
            return False
        other = " and ".join(key for key in sorted(self.about) if about["of"].get(key) != self.about[key])
        self.tell(f"{self.path} is of other {other}: learning starts afresh")
        return False

    def _aside(self) -> Path:
        """Move the file out of the way: it may be somebody's."""
        k = 1
        while (aside := self.path.with_name(f"{self.path.name}.{k}")).exists():
            k += 1
        try:
            return self.path.rename(aside)
        except OSError as error:
            raise FilterFileError(f"{self.path} is in the way and cannot be moved: {error}") from error

    def _say(self, kind: str, sentence: str) -> None:
        """Tell, but each kind of thing once."""
        if kind not in self._said:
            self._said.add(kind)
            self.tell(sentence)


def fingerprint(source: FilterSource, data: Path, images: Images) -> dict[str, Any]:
    """Return what must be the same for a state to be gone on from: parameters, data and versions.

    Data are the same if their files have the same names, sizes and times of change.

    Examples
    --------
    >>> from ninefold.learn import KMeansFilters
    >>> sorted(fingerprint(KMeansFilters(7), Path(__file__), Images([])))
    ['data', 'parameters', 'versions']
    """
    files = sorted(Path(str(item)) for item in images.source) if data.is_dir() else [data]
    found = hashlib.sha256()
    for path in files:
        about = path.stat()
        name = path.relative_to(data) if path != data else path.name
        found.update(f"{name}\0{about.st_size}\0{about.st_mtime_ns}\n".encode(errors="surrogateescape"))
    parameters = {name: repr(value) for name, value in source.get_params(deep=False).items() if name != "progress"}
    versions = {name: version(name) for name in ("ninefold", "numpy", "scikit-learn", "torch")}
    return {
        "data": f"{len(files)} {found.hexdigest()}",
        "parameters": {"class": type(source).__name__} | parameters,
        "versions": versions,
    }
