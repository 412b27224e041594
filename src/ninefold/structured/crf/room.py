"""How much memory a dense CRF needs."""

__all__ = ["FEWER", "exact_bytes", "lattice_bytes", "vertices_bytes", "vertices_within"]

FEWER = "give it fewer pixels, labels or kernels"
"""What is done about too little memory."""


def _width(labels: int) -> int:
    return next((w for w in (4, 8, 16, 24, 32, 48, 64) if labels <= w), 32)


def _vertex(dims: int, labels: int, buffers: int) -> int:
    """Bytes of a vertex: neighbours, its key twice over while the table grows, slots, and rows of values."""
    return 8 * (dims + 1) + 8 * dims + 48 + 4 * _width(labels) * (1 + buffers)


def lattice_bytes(points: int, dims: list[int], labels: int) -> int:
    """Return the bytes that a mean field on lattices needs whatever the image: all but what its vertices take.

    Per point and kernel there are ``d + 1`` vertices of 4 bytes, ``d`` weights of 2 and a norm of 4; features lie in memory
    while a lattice is built; per label there are the energies and the marginals.

    Examples
    --------
    >>> lattice_bytes(4000 * 4000, [2, 5], 2) / 1e9
    1.376
    """
    kept = [points * (6 * d + 8) for d in dims]
    fields = points * labels * 8
    building = [sum(kept[:k]) + kept[k] + 4 * d * points + fields // 2 for k, d in enumerate(dims)]
    return max([sum(kept) + fields, *building])


def vertices_bytes(vertices: int, dims: int, labels: int, buffers: int) -> int:
    """Return the bytes that so many vertices take: `buffers` of values, one per thread and one more for a blur in both orders."""
    return vertices * _vertex(dims, labels, buffers)


def vertices_within(room: int, dims: int, labels: int, buffers: int) -> int:
    """Return how many vertices so many bytes hold, with so many buffers of values."""
    return max(0, min(2**31 - 2, room // _vertex(dims, labels, buffers)))


def exact_bytes(points: int, labels: int) -> int:
    """Return the bytes of the exact twin: a chunk of the kernel with what it is made of, and some fields."""
    return 4 * min(points * points, max(points, 1 << 23)) * 4 + points * labels * 8 * 6
