"""A weight that is final, and what engines derive from it: once, for all sizes of input that need the same."""

from collections.abc import Callable, Hashable
from weakref import WeakValueDictionary

from torch import Tensor

__all__ = ["Final"]


class Final:
    """A final weight with its forms: transforms, packed kernels, factors.

    A form belongs to the runners that were prepared with it and lives as long as one of them does, so that who lets runners of
    old sizes go is rid of what only these needed.

    Parameters
    ----------
    tensor : Tensor
        The weight, whose values must not change any more.

    Examples
    --------
    >>> import torch
    >>> final = Final(torch.ones(2, 1, 3))
    >>> doubled = final.form("doubled", lambda: 2 * final.tensor)
    >>> final.form("doubled", lambda: 2 * final.tensor) is doubled, final.nbytes
    (True, 24)
    >>> del doubled
    >>> final.nbytes
    0
    """

    __slots__ = ("_forms", "_of", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()
        self._of: tuple[Hashable, ...] = ()
        self._forms: WeakValueDictionary[Hashable, Tensor] = WeakValueDictionary()

    def form(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """Return the form of this key, which must name all that it depends on beside the weight; made where it is not there."""
        key = (*self._of, key)
        found = self._forms.get(key)
        if found is None:
            found = self._forms[key] = make()
        return found

    def part(self, key: Hashable, make: Callable[[], Tensor]) -> "Final":
        """Return a form as a final weight itself, whose forms count among those of this one."""
        part = Final(self.tensor)
        part.tensor, part._of, part._forms = self.form(key, make), (*self._of, key), self._forms
        return part

    @property
    def nbytes(self) -> int:
        """Bytes of the forms that are alive."""
        return sum(form.nbytes for form in list(self._forms.values()))
