import numpy as np
import pytest
import torch
from scipy import ndimage

from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from ninefold.structured.partition import (
    Affinities,
    cell_image,
    connected_components,
    edge_mask,
    neighbour_offsets,
    rand_index,
    voronoi_cells,
)
from ninefold.structured.partition.offsets import ends

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, (4, 5, 6))
OFFSETS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 2, -3), (9, 0, 0))


def by_hand(labels, offsets, neighbour, background=0):
    out = np.zeros((len(offsets), *labels.shape))
    for k, offset in enumerate(offsets):
        for p in np.ndindex(*labels.shape):
            q = tuple(x + (d if neighbour == "next" else -d) for x, d in zip(p, offset, strict=True))
            if all(0 <= x < n for x, n in zip(q, labels.shape, strict=True)):
                out[(k, *p)] = labels[p] == labels[q] and labels[p] != background
    return out


@pytest.mark.parametrize("neighbour", ["next", "previous"])
@pytest.mark.parametrize("background", [0, 2, None])
def test_targets(neighbour, background):
    a = Affinities.from_labels(LABELS, OFFSETS, neighbour=neighbour, background=background)
    assert (a.values == by_hand(LABELS, OFFSETS, neighbour, background)).all()
    assert a.values.dtype == np.float32
    assert (a.exists() == (by_hand(LABELS * 0, OFFSETS, neighbour, None) == 1)).all()
    batch = Affinities.from_labels(torch.from_numpy(LABELS), ((1, 0), (0, 2)), neighbour=neighbour, background=background)
    assert batch.batched
    assert (batch.values[2].numpy() == by_hand(LABELS[2], ((1, 0), (0, 2)), neighbour, background)).all()


def test_from_next_to_previous_and_back():
    a = Affinities(RNG.random((5, 4, 5, 6)).astype(np.float32), OFFSETS)
    back = a.to("previous")
    assert back.signed == tuple(tuple(-d for d in o) for o in OFFSETS)
    assert back.values[1, 2, 3, 4] == a.values[1, 2, 2, 4]
    assert back.values[3, 1, 3, 2] == a.values[3, 1, 1, 5]
    again = back.to("next")
    assert (again.values[a.exists()] == a.values[a.exists()]).all()
    assert (again.values[~a.exists()] == 0).all()
    assert (a.to("next", "one").values[~a.exists()] == 1).all()
    targets = Affinities.from_labels(LABELS, OFFSETS)
    assert (targets.to("previous").values == Affinities.from_labels(LABELS, OFFSETS, neighbour="previous").values).all()
    tensor = Affinities(torch.from_numpy(a.values), OFFSETS).to("previous")
    assert (tensor.values.numpy() == back.values).all()


def test_signed_offsets_of_other_packages():
    a = Affinities.from_labels(LABELS[0], ((1, 0), (2, -3)))
    b = a.to("previous")
    assert Affinities.from_signed(b.values, [(-1, 0), (-2, 3)]).neighbour == "previous"
    mixed = np.stack([b.values[0], a.values[1]])
    c = Affinities.from_signed(mixed, [(-1, 0), (2, -3)])
    assert c.neighbour == "next"
    assert (c.values == a.values).all()


def test_boundaries():
    v = RNG.random((1, 3, 4))
    a = Affinities.from_boundaries(v, [(0, 1)], neighbour="previous")
    assert a.neighbour == "previous"
    np.testing.assert_array_equal(a.boundaries(), 1 - (1 - v))
    wall = RNG.random((3, 4)).astype(np.float32)
    for combine, of in (("max", max), ("min", min), ("mean", lambda a, b: (a + b) / 2)):
        b = Affinities.from_boundary_map(wall, combine=combine)
        assert b.values[0, 1, 2] == 1 - of(wall[1, 2], wall[2, 2])
        assert b.values[1, 1, 2] == 1 - of(wall[1, 2], wall[1, 3])


def test_edges_that_count():
    labels = np.array([[1, 0, 2, 2], [1, 9, 9, 2]])
    full = Affinities.from_labels(labels).exists()
    assert (edge_mask(labels) == full).all()
    down, right = edge_mask(labels, ignore=9)
    assert down.tolist() == [[True, False, False, True], [False] * 4]
    assert right.tolist() == [[True, True, True, False], [False] * 4]
    down, right = edge_mask(labels, background_as="excluded", ignore=[9], neighbour="previous")
    assert down.tolist() == [[False] * 4, [True, False, False, True]]
    assert right.tolist() == [[False, False, False, True], [False] * 4]
    assert edge_mask(torch.from_numpy(labels)).dtype == torch.bool


def test_gradients_flow_through():
    values = torch.full((1, 2, 3), 0.5, requires_grad=True)
    assert Affinities(values, ((0, 1),)).values is values


GOOD = np.full((2, 3, 4), 0.5, np.float32)
AXES = neighbour_offsets(2)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Affinities(GOOD.astype(np.float16), AXES), DTypeError, "of float16; they must be float32 or float64"),
        (lambda: Affinities(torch.ones(2, 3, 4, dtype=torch.int32), AXES), DTypeError, "of int32"),
        (lambda: Affinities(GOOD * 3, AXES), ArgumentError, r"\[1.5, 1.5\], not in \[0, 1\]; take the sigmoid"),
        (lambda: Affinities(GOOD * np.nan, AXES), ArgumentError, "24 of 24 affinities are NaN"),
        (lambda: Affinities(torch.from_numpy(GOOD) * np.nan, AXES), ArgumentError, "24 of 24 affinities are NaN"),
        (lambda: Affinities(GOOD, AXES[:1]), ShapeError, r"values of shape \(2, 3, 4\) do not fit 1 offsets"),
        (lambda: Affinities(GOOD[:, :0], AXES), ShapeError, "are empty"),
        (lambda: Affinities([[1.0]], ((1,),)), ArgumentTypeError, "values are a list"),
        (lambda: Affinities(GOOD, ((-1, 0), (0, 1))), ArgumentError, r"points back; call it \(1, 0\) with neighbour='previous'"),
        (lambda: Affinities(GOOD, ((1, 0), (1, 0))), ArgumentError, "comes 2 times"),
        (lambda: Affinities(GOOD, ((1, 0), (0, 0))), ArgumentError, "joins a voxel to itself"),
        (lambda: Affinities(GOOD, ((1, 0), (0.5, 0))), ArgumentTypeError, "tuples of whole numbers"),
        (lambda: Affinities(GOOD, ((1, 0), (1,))), ShapeError, "one for each of 1 to 3 axes"),
        (lambda: Affinities(GOOD, AXES, "before"), ArgumentError, "neighbour='before'; it is one of 'next', 'previous'"),
        (lambda: Affinities(GOOD, AXES, border="zero"), ArgumentError, "border='zero', but edges that leave"),
        (lambda: Affinities.from_labels(np.ones((3, 4))), DTypeError, "labels is of float64; labels are whole numbers"),
        (lambda: Affinities.from_labels(np.ones((3, 4), int), dtype=np.float16), DTypeError, "dtype=float16"),
        (lambda: Affinities.from_labels(np.ones((3, 4), int), ((1, 0, 0),)), ShapeError, "does not fit offsets in 3 axes"),
        (lambda: Affinities.from_labels(np.full((3, 4), -1)), ArgumentError, "goes down to -1"),
        (lambda: Affinities.from_labels("labels"), ArgumentTypeError, "labels is a str"),
        (lambda: edge_mask(np.ones((3, 4), int), background_as="gone"), ArgumentError, "background_as='gone'"),
        (lambda: edge_mask(np.ones((3, 4), int), ignore=[1.5]), ArgumentTypeError, "ignore=1.5; it is a label"),
    ],
)  # fmt: skip
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(("shape", "cells"), [((30, 41), 9), ((12, 13, 15), 6)])
def test_cells_are_the_components_of_their_affinities(shape, cells):
    labels = voronoi_cells(shape, cells, seed=1)
    found = connected_components(Affinities.from_labels(labels), minimum_size=2)
    assert rand_index(labels, found, background=0) == 1
    for offset in neighbour_offsets(len(shape)):
        here, there = ends(shape, offset)
        a, b = labels[here], labels[there]
        assert ((a == b) | (a == 0) | (b == 0)).all()
    full = voronoi_cells(shape, cells, walls=False, seed=1)
    assert sorted(set(full.ravel().tolist())) == list(range(1, cells + 1))
    assert (full[labels > 0] == labels[labels > 0]).all()
    image = cell_image(labels, noise=0.01, blur=0)
    assert ((image > 0.5) == (labels > 0)).all()
    faint = cell_image(labels, noise=0.01, blur=0, faint=0.5)
    assert 0.2 < ((faint > 0.5) & (labels == 0)).sum() / (labels == 0).sum() < 0.8
    with pytest.raises(ArgumentError, match="7 cells in a shape of"):
        voronoi_cells((2, 3), 7)
    with pytest.raises(ArgumentError, match="faint=2"):
        cell_image(labels, faint=2)


@pytest.mark.parametrize(("ndim", "connectivity"), [(2, 1), (2, 2), (3, 1), (3, 2), (3, 3)])
def test_components_of_every_connectivity_are_those_of_scipy(ndim, connectivity):
    labels = RNG.integers(0, 3, (9, 10, 11)[:ndim])
    offsets = neighbour_offsets(ndim, connectivity=connectivity)
    assert offsets[:ndim] == neighbour_offsets(ndim)
    found = connected_components(Affinities.from_labels(labels, offsets), mask=labels > 0)
    wanted, structure = np.zeros_like(labels), ndimage.generate_binary_structure(ndim, connectivity)
    for label in (1, 2):
        parts = ndimage.label(labels == label, structure)[0]
        wanted[parts > 0] = parts[parts > 0] + wanted.max()
    assert rand_index(wanted, found) == 1
    assert found.max() == wanted.max()


def test_distances_of_neighbours():
    assert neighbour_offsets(2, 3) == ((3, 0), (0, 3))
    assert neighbour_offsets(2, (1, 4), connectivity=2) == ((1, 0), (0, 1), (1, -1), (1, 1), (4, 0), (0, 4), (4, -4), (4, 4))
    for wrong in ({"connectivity": 3}, {"connectivity": 0}, {"distances": 0}, {"distances": (1, -2)}):
        with pytest.raises(ArgumentError, match="of 2 axes 1 to 2 change at once, by distances of 1 and more"):
            neighbour_offsets(2, **wrong)
