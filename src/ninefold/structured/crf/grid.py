"""A Markov random field on the grid: each position and its nearest neighbours, by mean field or by loopy sum-product."""

import torch
from torch import Tensor, nn

from ninefold.errors import ArgumentError, ShapeError
from ninefold.spec.parse import integer, number
from ninefold.structured.crf.maps import check_unary
from ninefold.structured.networks.parts import check_maps, layer

__all__ = ["GridMRF"]

_METHODS = ("mean_field", "sum_product")


class GridMRF(nn.Module):
    """Labels of positions that depend on those of their 2, 4 or 6 nearest neighbours.

    ``log p(y) = sum_v theta(v, y_v) + sum_(v, a) w(v, a) psi_a(y_v, y_(v + e_a)) - log Z``, with one table `psi` per axis. With
    features f, ``w(v, a) = exp(-|f_v - f_(v + e_a)|^2 / (2 width^2))``: neighbours that look alike hold together (Boykov and
    Jolly 2001).

    Parameters
    ----------
    classes : int
    ndim : {1, 2, 3}
    compatibility : {"potts", "matrix"}
        ``"potts"`` learns one number per axis, that is taken off the log-probability where two neighbours differ. ``"matrix"``
        learns a table per axis, that may know which of the two comes first; it begins as Potts' model.
    weight : float
        The initial number of Potts' model.
    method : {"mean_field", "sum_product"}
        ``"mean_field"`` sets all even and all odd positions of the chequerboard in turns, each time to the best of independent
        distributions given the others: the free energy never rises. ``"sum_product"`` sends messages between all neighbours at
        once; it is exact on chains and trees after as many steps as they are long, and may oscillate on grids.
    iterations : int
        Of a call that does not say otherwise.
    damping : float
        Share of the old messages that `sum_product` keeps, 0 or more, below 1.
    width : float
        Initial width of the features, learned.

    Attributes
    ----------
    psi : torch.nn.Parameter
        Of shape ``(ndim,)`` or ``(ndim, classes, classes)``, rows for ``v`` and columns for ``v + e_a``.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a model.

    Examples
    --------
    >>> unary = torch.tensor([[2.0, -0.5, 2.0]]).unsqueeze(0)  # of the second of two labels
    >>> unary = torch.cat((-unary, unary), 1)
    >>> unary.argmax(1).tolist(), GridMRF(2, ndim=1, weight=2.0)(unary).argmax(1).tolist()
    ([[1, 0, 1]], [[1, 1, 1]])
    """

    def __init__(
        self,
        classes: int,
        *,
        ndim: int = 2,
        compatibility: str = "potts",
        weight: float = 1.0,
        method: str = "mean_field",
        iterations: int = 10,
        damping: float = 0.0,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        layer("Conv", ndim)  # says so if there are no such axes
        if compatibility not in ("potts", "matrix"):
            raise ArgumentError(f"compatibility={compatibility!r} must be 'potts' or 'matrix'")
        if method not in _METHODS:
            raise ArgumentError(f"method={method!r} must be one of {list(_METHODS)}")
        if not 0 <= number(damping, "damping") < 1:
            raise ArgumentError(f"damping={damping} must be at least 0 and below 1")
        if not number(width, "width") > 0:
            raise ArgumentError(f"width={width} must be above 0")
        self.classes, self.ndim, self.method = integer(classes, "classes", 1), ndim, method
        self.iterations, self.damping = integer(iterations, "iterations", 0), float(damping)
        first = torch.full((ndim,), number(weight, "weight"), device="cpu", dtype=torch.get_default_dtype())
        self.psi = nn.Parameter(first)
        if compatibility == "matrix":
            self.psi = nn.Parameter(self.tables().detach().clone())
        self.width = nn.Parameter(torch.full((), float(width), device="cpu", dtype=torch.get_default_dtype()))

    def tables(self) -> Tensor:
        """Return psi as tables of shape ``(ndim, classes, classes)``."""
        if self.psi.dim() == 3:
            return self.psi
        same = torch.eye(self.classes, device=self.psi.device, dtype=self.psi.dtype)
        return self.psi.reshape(-1, 1, 1) * (same - 1)

    def forward(
        self, unary_logits: Tensor, features: Tensor | None = None, *, edges: Tensor | None = None, iterations: int | None = None
    ) -> Tensor:
        """Return the logits of the marginals: their softmax over the labels is what the method finds.

        Parameters
        ----------
        unary_logits : Tensor of shape ``(batch, classes, *space)``
        features : Tensor of shape ``(batch, any, *space)``, optional
        edges : Tensor of shape ``(batch, ndim, *space)``, optional
            Further factors of w: that of the edge from v to ``v + e_a`` is at v in map a; what is at the last position along the
            axis is not read. 0 cuts an edge.
        iterations : int, optional

        Raises
        ------
        ArgumentError, ArgumentTypeError, DTypeError, ShapeError
            With the actual numbers.
        """
        count = self.iterations if iterations is None else integer(iterations, "iterations", 0)
        check_unary(unary_logits, self.ndim, self.classes)
        w = self.edge_weights(unary_logits, features, edges)
        found: Tensor = (self._mean_field if self.method == "mean_field" else self._sum_product)(unary_logits, w, count)
        return found

    def edge_weights(self, unary: Tensor, features: Tensor | None = None, edges: Tensor | None = None) -> Tensor:
        """Return w of shape ``(batch, ndim, *space)``, 0 where the neighbour would be outside."""
        batch, size = len(unary), tuple(unary.shape[2:])
        w = unary.new_ones(batch, self.ndim, *size)
        if features is not None:
            check_maps(features, self.ndim, None, "the features")
            self._same_size(features, unary, "the features")
            steps = [(_after(features, a) - features).square().sum(1) for a in range(self.ndim)]
            w = w * (-torch.stack(steps, 1) / (2 * self.width**2)).exp()
        if edges is not None:
            check_maps(edges, self.ndim, self.ndim, "the edges")
            self._same_size(edges, unary, "the edges")
            w = w * edges
        inside = [_after(unary.new_ones(1, 1, *size), a)[:, 0] for a in range(self.ndim)]
        return torch.where(torch.stack(inside, 1) > 0, w, 0)

    def _same_size(self, x: Tensor, unary: Tensor, what: str) -> None:
        if (len(x), *x.shape[2:]) != (len(unary), *unary.shape[2:]):
            raise ShapeError(
                f"{what} have shape {tuple(x.shape)}, the unary logits {tuple(unary.shape)}; batch and "
                "spatial sizes must be equal"
            )
        if bool(x.isnan().any()):
            raise ArgumentError(f"{what} hold {int(x.isnan().sum())} NaN; repair what made them")

    def expected(self, q: Tensor, w: Tensor) -> Tensor:
        """Return the sum over neighbours of the expected psi for each label, ``(batch, classes, *space)``."""
        total = torch.zeros_like(q)
        for a, table in enumerate(self.tables()):
            weight = w[:, a : a + 1]
            total = total + weight * _mixed(table, _after(q, a))
            total = total + _before(weight * _mixed(table.T, q), a)
        return total

    def free_energy(self, unary: Tensor, q: Tensor, w: Tensor) -> Tensor:
        """Return the free energy of independent distributions q, one number per example: at least ``-log Z``."""
        pairs: Tensor = (q * self.expected(q, w)).flatten(1).sum(1) / 2
        fit: Tensor = torch.where(q > 0, q * unary, 0).flatten(1).sum(1)
        entropy: Tensor = -torch.special.xlogy(q, q).flatten(1).sum(1)
        return -fit - pairs - entropy

    def _mean_field(self, unary: Tensor, w: Tensor, count: int) -> Tensor:
        logits, even = unary, _chequerboard(unary)
        for _ in range(count):
            for turn in (even, ~even):
                logits = torch.where(turn, unary + self.expected(logits.softmax(1), w), logits)
        return logits

    def _sum_product(self, unary: Tensor, w: Tensor, count: int) -> Tensor:
        """Send messages ``count`` times; ``ahead[a]`` came to v from ``v - e_a``, ``back[a]`` from ``v + e_a``."""
        tables = self.tables()
        ahead = [torch.zeros_like(unary) for _ in range(self.ndim)]
        back = [torch.zeros_like(unary) for _ in range(self.ndim)]
        for _ in range(count):
            belief = unary + torch.stack(ahead + back).sum(0)
            new_ahead, new_back = [], []
            for a, table in enumerate(tables):
                weight = w[:, a : a + 1]
                new_ahead.append(self._damped(ahead[a], _before(_sent(belief - back[a], table, weight), a)))
                reverse = _sent(_after(belief - ahead[a], a), table.T, weight)
                new_back.append(self._damped(back[a], torch.where(weight != 0, reverse, 0)))
            ahead, back = new_ahead, new_back
        return unary + torch.stack(ahead + back).sum(0)

    def _damped(self, old: Tensor, new: Tensor) -> Tensor:
        return new if not self.damping else self.damping * old + (1 - self.damping) * new

    def extra_repr(self) -> str:
        """Return what it does."""
        return f"{self.classes}, ndim={self.ndim}, method={self.method!r}, iterations={self.iterations}, damping={self.damping}"


def _after(x: Tensor, axis: int) -> Tensor:
    """Return at each position what is at the next one along an axis, 0 at the last."""
    dim = 2 + axis
    moved = x.narrow(dim, 1, x.shape[dim] - 1)
    return torch.cat((moved, torch.zeros_like(x.narrow(dim, 0, 1))), dim)


def _before(x: Tensor, axis: int) -> Tensor:
    """Return at each position what is at the one before along an axis, 0 at the first."""
    dim = 2 + axis
    moved = x.narrow(dim, 0, x.shape[dim] - 1)
    return torch.cat((torch.zeros_like(x.narrow(dim, 0, 1)), moved), dim)


def _mixed(table: Tensor, q: Tensor) -> Tensor:
    """Return ``sum_m table[l, m] q[m]`` at every position."""
    return torch.einsum("lm,nm...->nl...", table.to(q.dtype), q)


def _sent(x: Tensor, table: Tensor, weight: Tensor) -> Tensor:
    """Return ``log sum_l exp(x[l] + w table[l, m])`` for each m, less its mean: only differences of labels count."""
    tables = table.to(x.dtype).reshape(1, *table.shape, *[1] * (x.dim() - 2))
    message = (x.unsqueeze(2) + weight.unsqueeze(2) * tables).logsumexp(1)
    return message - message.mean(1, keepdim=True)


def _chequerboard(unary: Tensor) -> Tensor:
    """Return where the sum of the coordinates is even."""
    total = torch.zeros((), device=unary.device, dtype=torch.long)
    for n in unary.shape[2:]:
        total = total.unsqueeze(-1) + torch.arange(n, device=unary.device)
    return total % 2 == 0
