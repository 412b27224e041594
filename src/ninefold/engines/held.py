"""What is made at a first use and kept for the next, up to so many bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from math import prod
from typing import Generic, TypeVar

from ninefold.spec.form import Form

__all__ = ["Held", "plan_bytes"]

_T = TypeVar("_T")


def plan_bytes(form: Form) -> int:
    """Return about what a planned and prepared form takes: some numbers, and two for every tap, whatever its size.

    Examples
    --------
    >>> from ninefold.spec import ConvSpec
    >>> [plan_bytes(ConvSpec(1, 1, (1024,)).form(n)) for n in (2_000, 2_000_000)]
    [26624, 26624]
    """
    return 10_240 + 16 * prod(form.kernel) * prod(min(a.period, a.n_out) for a in form.axes)


class Held(Generic[_T]):
    """Things by key that take at most so many bytes together: what was not used for longest goes first.

    Parameters
    ----------
    budget : int
        Bytes; what is larger by itself is made at every use.
    weigh : callable
        Returns the bytes of one thing.

    Examples
    --------
    >>> held = Held(100, len)
    >>> [len(held.get(key, lambda: "x" * 40)) for key in "abca"]
    [40, 40, 40, 40]
    >>> held.nbytes, held.get("a", lambda: "made anew")[0], held.get("b", lambda: "made anew")
    (80, 'x', 'made anew')
    """

    __slots__ = ("_budget", "_lock", "_things", "_weigh", "nbytes")

    def __init__(self, budget: int, weigh: Callable[[_T], int]) -> None:
        self._budget, self._weigh, self.nbytes = budget, weigh, 0
        self._things: OrderedDict[Hashable, tuple[_T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return the thing of this key, made where it is not there."""
        with self._lock:
            found = self._things.get(key)
            if found is not None:
                self._things.move_to_end(key)
                return found[0]
        thing = make()  # others need not wait; who makes the same meanwhile is replaced
        size = self._weigh(thing)
        with self._lock:
            if size <= self._budget:
                _, before = self._things.pop(key, (None, 0))
                self._things[key] = thing, size
                self.nbytes += size - before
            while self.nbytes > self._budget:
                _, (_, gone) = self._things.popitem(last=False)
                self.nbytes -= gone
        return thing

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._things.clear()
            self.nbytes = 0
