import math

import numpy as np
import pytest
import torch

from ninefold.data.bvh import read_bvh, write_bvh
from ninefold.data.sample import Sample
from ninefold.data.skeleton import Joint, Skeleton, joint_positions
from ninefold.errors import ArgumentError, DataError, ShapeError

TEXT = """HIERARCHY
ROOT Hips
{
\tOFFSET 0.5 0.00 0.00
\tCHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
\tJOINT Left Leg
\t{
\t\tOFFSET 3.0 -1.0 0.25
\t\tCHANNELS 3 Yrotation Zrotation Xrotation
\t\tEnd PlannedCall
\t\t{
\t\t\tOFFSET 0 -4.5 1
\t\t}
\t}
\tJOINT Tail
\t{
\t\tOFFSET 0 0 -2
\t\tJOINT Tip {
\t\t\tOFFSET 0 0 -1
\t\t\tCHANNELS 4 Zposition Xrotation Zrotation Yposition
\t\t\tEnd PlannedCall { OFFSET 0 0 -0.5 }
\t\t}
\t}
}
MOTION
Frames: 3
Frame Time: 0.0083333
1.5 2 3 10.25 20 30 40 50 60 0.1 7 8 0.2
1.25 2 3.5 -10 20.123456 35 41 52 63 0.5 17 18 0.6
1 2e0 4 -170.5 90 0 0 0 0 0 0 0 -0
"""


def at(tmp_path, text):
    (tmp_path / "a.bvh").write_text(text)
    return tmp_path / "a.bvh"


def numbers():
    return np.array([[float(w) for w in line.split()] for line in TEXT.splitlines()[-3:]]).T


def test_mixed_channels_in_any_order_are_read_and_come_back_exactly(tmp_path):
    found = read_bvh(at(tmp_path, TEXT))
    assert np.array_equal(found.numpy(), numbers())
    assert found.spacing == (0.0083333,)
    skeleton = found.meta["skeleton"]
    assert [(j.name, j.parent, len(j.channels), len(j.ends)) for j in skeleton.joints] == [
        ("Hips", -1, 6, 0), ("Left Leg", 0, 3, 1), ("Tail", 0, 0, 0), ("Tip", 2, 4, 1),
    ]  # fmt: skip
    assert found.meta["channels"][9:] == ("Tip.Zposition", "Tip.Xrotation", "Tip.Zrotation", "Tip.Yposition")
    write_bvh(tmp_path / "b.bvh", found)
    again = read_bvh(tmp_path / "b.bvh")
    assert torch.equal(again.data, found.data)
    assert again.meta["skeleton"] == skeleton
    assert again.spacing == found.spacing


def test_as_many_decimals_as_are_asked_for(tmp_path):
    found = read_bvh(at(tmp_path, TEXT))
    write_bvh(tmp_path / "b.bvh", found, decimals=3)
    assert (tmp_path / "b.bvh").read_text().splitlines()[-2].startswith("1.250 2.000 3.500 -10.000 20.123 ")
    assert (read_bvh(tmp_path / "b.bvh").data - found.data).abs().max() <= 0.0005
    write_bvh(tmp_path / "b.bvh", found.to(torch.float32))
    assert torch.equal(read_bvh(tmp_path / "b.bvh").data.float(), found.data.float())


def test_a_branch_is_written_together_and_its_numbers_with_it(tmp_path):
    joints = (
        Joint("root", -1, (0.0, 0.0, 0.0), ("Xrotation",)),
        Joint("left", 0, (1.0, 0.0, 0.0), ("Yrotation",)),
        Joint("right", 0, (-1.0, 0.0, 0.0), ("Zrotation", "Xrotation")),
        Joint("left hand", 1, (2.0, 0.0, 0.0), ("Zrotation",)),
    )
    data = torch.arange(10, dtype=torch.float64).reshape(5, 2)
    write_bvh(tmp_path / "a.bvh", Sample(data, ("time",), (0.5,), ("s",), {"skeleton": Skeleton(joints)}))
    again = read_bvh(tmp_path / "a.bvh")
    assert again.meta["channels"] == (
        "root.Xrotation",
        "left.Yrotation",
        "left hand.Zrotation",
        "right.Zrotation",
        "right.Xrotation",
    )
    assert torch.equal(again.data, data[[0, 1, 4, 2, 3]])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.replace("MOTION\n", ""), r"no line of 29 says MOTION"),
        (lambda t: t[: t.index("MOTION")], "no line of 24 says MOTION"),
        (lambda t: t.replace(" 63 0.5 ", " 0.5 "), r"line 29: 12 numbers in frame 2; the 13 channels need 13"),
        (lambda t: t.replace(" 63 0.5 ", " 63 1 0.5 "), r"line 29: 14 numbers in frame 2"),
        (lambda t: t.replace(" 63 0.5 ", " 63 0,5 "), r"line 29: '0,5' in frame 2 is no number"),
        (lambda t: t.replace("10.25 20", "10.25-20"), r"line 28: 12 numbers in frame 1; .*; '10.25-20' lacks a space"),
        (lambda t: t.replace(" 63 0.5 ", " 63 nan "), r"line 29: frame 2 holds NaN"),
        (lambda t: t.replace("Frames: 3", "Frames: 100"), r"line 30: the file ends after 3 frames, and it promises 100"),
        (lambda t: t.replace("Frames: 3", "Frames: 2"), r"ends after 3 frames, and it promises 2"),
        (lambda t: t.replace("Frames: 3", "Frames: three"), r"line 26: Frames: 'three'"),
        (lambda t: t.replace("Frame Time: 0.0083333", "Frame Time: 0"), r"line 27: Frame Time: '0' must be a positive"),
        (lambda t: t.replace("Frame Time: 0.0083333\n", ""), r"line 27: '1\.5 2 3.* where 'Frame Time:'"),
        (lambda t: t.replace("CHANNELS 3", "CHANNELS 2"), r"line 10: 'Xrotation' where JOINT, End PlannedCall or } belongs|line 9: 'Xrotation' where"),
        (lambda t: t.replace("CHANNELS 3", "CHANNELS 4"), r"joint Left Leg: CHANNELS 4, but 'End' is none of Xposition"),
        (lambda t: t.replace("Yrotation Zrotation Xrotation\n", "Yrotation Wrotation Xrotation\n"), r"line 9: .*'Wrotation' is none of"),
        (lambda t: t.replace("Yrotation Zrotation Xrotation\n", "Yrotation Zrotation Yrotation\n"), r"line 9: .* a channel comes twice"),
        (lambda t: t.replace("OFFSET 3.0 -1.0 0.25", "OFFSET 3.0 -1.0"), r"line 9: 'CHANNELS' where one of the three numbers"),
        (lambda t: t.replace("\t}\n}\nMOTION", "\t}\nMOTION"), r"line 23: the hierarchy ends where } belongs"),
        (lambda t: t.replace("ROOT Hips", "Hips"), "line 2: 'Hips' where ROOT"),
        (lambda t: "HIERARCHY\nMOTION\nFrames: 0\nFrame Time: 1\n", "no ROOT before MOTION"),
        (lambda t: t[10:], "must begin with HIERARCHY"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(tmp_path, change, match):
    with pytest.raises(DataError, match=match) as caught:
        read_bvh(at(tmp_path, change(TEXT)))
    assert "\n" not in str(caught.value)


def test_bytes_are_no_text(tmp_path):
    (tmp_path / "a.bvh").write_bytes(b"\xff\xfe\x00\x80" * 5)
    with pytest.raises(DataError, match="is not BVH, which is text"):
        read_bvh(tmp_path / "a.bvh")


def test_no_frames_are_an_animation_of_length_zero(tmp_path):
    text = TEXT[: TEXT.index("Frames:")] + "Frames: 0\nFrame Time: 0.01\n"
    assert read_bvh(at(tmp_path, text)).data.shape == (13, 0)


def test_many_joints_without_channels_are_no_deeper_than_two(tmp_path):
    text = (
        "HIERARCHY\nROOT r\n{\nOFFSET 0 0 0\nCHANNELS 1 Xrotation\n"
        + "JOINT j\n{\nOFFSET 1 0 0\n}\n" * 3000
        + "}\nMOTION\nFrames: 1\nFrame Time: 1\n7\n"
    )
    assert len(read_bvh(at(tmp_path, text)).meta["skeleton"].joints) == 3001


def by_hand(sample, k, t):
    """Return where joint k is at time t by 4 x 4 matrices, from the joint inwards: the definition."""
    skeleton, point = sample.meta["skeleton"], np.array([0.0, 0, 0, 1])
    while k >= 0:
        joint = skeleton.joints[k]
        begin = sum(len(j.channels) for j in skeleton.joints[:k])
        matrix = np.eye(4)
        matrix[:3, 3] = joint.offset
        turns = []
        for channel, value in zip(joint.channels, sample.data[begin:, t].tolist(), strict=False):
            axis = "XYZ".index(channel[0])
            if channel.endswith("position"):
                matrix[axis, 3] += value
            else:
                c, s, turn = math.cos(math.radians(value)), math.sin(math.radians(value)), np.eye(4)
                i, j = [(1, 2), (2, 0), (0, 1)][axis]
                turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
                turns.append(turn)
        for turn in reversed(turns):
            point = turn @ point
        point = matrix @ point
        k = joint.parent
    return point[:3]


def test_joints_are_where_the_definition_puts_them(tmp_path):
    sample = read_bvh(at(tmp_path, TEXT))
    places = joint_positions(sample)
    assert places.shape == (4, 3, 3)
    for k in range(4):
        for t in range(3):
            assert np.allclose(places[k, :, t].numpy(), by_hand(sample, k, t), atol=1e-12), (k, t)


def test_tips_are_as_far_from_their_joint_as_their_offset_is_long(tmp_path):
    places = joint_positions(read_bvh(at(tmp_path, TEXT)), ends=True)
    assert places.shape == (6, 3, 3)
    for tip, joint, length in ((4, 1, math.hypot(4.5, 1)), (5, 3, 0.5)):
        assert torch.allclose((places[tip] - places[joint]).norm(dim=0), torch.full((3,), length, dtype=torch.float64))


def test_position_channels_may_stand_for_the_offset(tmp_path):
    sample = read_bvh(at(tmp_path, TEXT))
    added, instead = (joint_positions(sample, translation=kind) for kind in ("added", "instead"))
    moved = torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64)
    assert torch.allclose(added[0] - instead[0], moved[:, None].expand(3, 3))
    with pytest.raises(ArgumentError, match="translation='both'"):
        joint_positions(sample, translation="both")


def test_positions_have_a_gradient(tmp_path):
    sample = read_bvh(at(tmp_path, TEXT))
    assert torch.autograd.gradcheck(lambda x: joint_positions(sample.with_data(x)), sample.data.clone().requires_grad_())


def test_without_a_skeleton_or_with_another_nothing_is_written(tmp_path):
    sample = read_bvh(at(tmp_path, TEXT))
    with pytest.raises(ArgumentError, match=r"meta\['skeleton'\] must be a Skeleton"):
        write_bvh(tmp_path / "b.bvh", Sample(sample.data, ("time",), (1.0,), ("s",)))
    with pytest.raises(ShapeError, match=r"\(12, 3\); the skeleton's 13 channels"):
        write_bvh(tmp_path / "b.bvh", sample.with_data(sample.data[1:]))
    with pytest.raises(ArgumentError, match="NaN"):
        write_bvh(tmp_path / "b.bvh", sample.with_data(sample.data / 0))
    assert not (tmp_path / "b.bvh").exists()
    with pytest.raises(ArgumentError, match="joint 0 .a. hangs on joint 0"):
        Skeleton((Joint("a", 0, (0.0, 0.0, 0.0), ()),))


@pytest.mark.parametrize(
    ("change", "frames"),
    [
        (lambda t: t.replace("Frames: 3", "Frames: 2"), 3),
        (lambda t: t.replace("Frames: 3", "Frames: 4"), 3),
        (lambda t: t[:-4], 2),
        (lambda t: t[: t.index("1.25 2 3.5")], 1),
    ],
)
def test_whole_frames_are_kept_where_that_is_asked_for(tmp_path, change, frames):
    whole, text = read_bvh(at(tmp_path, TEXT)), change(TEXT)
    with pytest.raises(DataError):
        read_bvh(at(tmp_path, text))
    found = read_bvh(at(tmp_path, text), incomplete="keep")
    assert torch.equal(found.data, whole.data[:, :frames])
    assert found.meta["promised"] == int(text.split("Frames: ")[1].split()[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace("OFFSET 0 -4.5 1", "OFFSET 0 -4.5 1\n\t\t\tCHANNELS 0"),
        lambda t: t.replace("Frames: 3", "Frames : 3").replace("Frame Time: ", "Frame Time : "),
        lambda t: t.replace(" ", "\t").replace("End\tSite", "End PlannedCall"),
    ],
)
def test_what_other_programs_write_is_the_same(tmp_path, change):
    whole, found = read_bvh(at(tmp_path, TEXT)), read_bvh(at(tmp_path, change(TEXT)))
    assert torch.equal(found.data, whole.data)
    assert found.meta["skeleton"].joints[1].ends == whole.meta["skeleton"].joints[1].ends


def test_names_of_other_alphabets_have_an_encoding(tmp_path):
    (tmp_path / "a.bvh").write_bytes(TEXT.replace("Hips", "腰").encode("shift-jis"))
    with pytest.raises(DataError, match="names in another alphabet need encoding="):
        read_bvh(tmp_path / "a.bvh")
    assert read_bvh(tmp_path / "a.bvh", encoding="shift-jis").meta["channels"][0] == "腰.Xposition"
    for how, match in (({"encoding": "klingon"}, "none that Python knows"), ({"incomplete": "no"}, "'error', 'keep'")):
        with pytest.raises(ArgumentError, match=match):
            read_bvh(tmp_path / "a.bvh", **how)
