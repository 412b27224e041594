"""Transforms: exact ones by their definition, interpolated ones where they hit positions, and all of them on grids of other steps."""

from fractions import Fraction

import pytest
import torch

from ninefold.symmetry import Flip, Rot90, Rotate, Scale, Shift

ONE = (Fraction(1), Fraction(1))


def plane(rows, columns):
    return torch.arange(rows * columns).reshape(1, rows, columns).double()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_rotation_by_right_angles_is_the_exact_turn(turns):
    x = plane(6, 6)
    assert torch.equal(Rotate(90 * turns)(x, ONE), Rot90(turns)(x, ONE))
    assert Rotate(90 * turns).known((6, 6), ONE).all()


def test_a_rotation_there_and_back_is_nearly_the_picture():
    ramp = torch.linspace(0, 1, 21).double() + torch.linspace(0, 2, 21).double()[:, None]
    back = Rotate(-30)(Rotate(30)(ramp, ONE), ONE)
    assert torch.allclose(back[6:-6, 6:-6], ramp[6:-6, 6:-6])  # linear interpolation is exact for what is linear
    assert not Rotate(30).known((21, 21), ONE)[0, 0]
    assert Rotate(30)(ramp, ONE)[0, 0] == 0


def test_a_zoom_by_two_halves_the_distances():
    x = plane(5, 7)
    zoomed = Scale(2)(x, ONE)
    assert torch.equal(zoomed[0, 2], torch.tensor([15.5, 16, 16.5, 17, 17.5, 18, 18.5]).double())
    assert Scale(2).known((5, 7), ONE).all()
    assert Scale(0.5).known((5, 7), ONE).sum() == 3 * 3
    assert torch.equal(Scale(0.5)(x, ONE)[0, 1:-1, 2:-2], x[0, ::2, 1::2])


def test_a_map_of_other_steps_turns_as_the_picture_does():
    picture = plane(8, 8)
    coarse = picture[:, ::2, ::4]
    half = Rotate(180)(coarse, (Fraction(2), Fraction(4)))
    assert torch.equal(half, coarse.flip(1, 2))
    skew = Rotate(90)(coarse, (Fraction(2), Fraction(4)))
    assert skew.shape == coarse.shape
    assert not torch.equal(skew, Rotate(90)(coarse, ONE))


def test_shifts_on_grids():
    x = torch.arange(6)
    assert Shift(2)(x, (Fraction(2),)).tolist() == [5, 0, 1, 2, 3, 4]
    assert Shift(1)(x, (Fraction(1, 2),)).tolist() == [4, 5, 0, 1, 2, 3]
    assert not Shift(1).fits((Fraction(2),))
    assert [c(x, (Fraction(2),)).tolist()[0] for c in Shift(-1).choices((Fraction(2),))] in ([1, 0], [0, 1])
    assert Shift(-2).known((6,), (Fraction(1),)).tolist() == [True] * 4 + [False] * 2
    assert Shift(1)(x, (Fraction(0),)).tolist() == x.tolist()


def test_flips_name_axes_from_either_end():
    x = plane(2, 3)
    assert torch.equal(Flip(0)(x, ONE), x.flip(1))
    assert torch.equal(Flip()(x, ONE), x.flip(2))


def test_masks_follow_the_picture():
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[2, 3] = False
    turned = Rotate(20)(mask, ONE)
    assert turned.dtype == torch.bool
    assert not turned[2:4, 2:5].all()
    assert (turned <= Rotate(20).known((6, 6), ONE)).all()
