import pickle

import nibabel
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ninefold.data import BucketSampler, Folder, Sample, check_masks, collate, write_image, write_mask, write_volume
from ninefold.errors import ArgumentError, DataError, ShapeError

RANDOM = torch.Generator().manual_seed(0)


def fill(root, sizes=((4, 6), (5, 7), (4, 6)), classes=3):
    """Write images and masks, and return the masks."""
    masks = []
    for k, size in enumerate(sizes):
        for name in ("images", "masks"):
            (root / name / "deep").mkdir(parents=True, exist_ok=True)
        name = f"deep/b{k}" if k == 1 else f"a{k}.x"
        masks.append(torch.randint(0, classes, size, generator=RANDOM))
        masks[-1][0, :classes] = torch.arange(classes)
        write_image(root / "images" / f"{name}.png", torch.randint(0, 256, (3, *size), generator=RANDOM, dtype=torch.uint8))
        write_mask(root / "masks" / f"{name}.png", masks[-1])
    return masks


def folder(root, **how):
    return Folder(root / "images", root / "masks", **how)


def test_pairs_go_by_name_whatever_the_suffix(tmp_path):
    masks = fill(tmp_path)
    pairs = folder(tmp_path)
    assert pairs.names == ("a0.x", "a2.x", "deep/b1")
    for k, n in enumerate((0, 2, 1)):
        image, mask = pairs[k]
        assert (image.dtype, mask.dtype) == (torch.float32, torch.int64)
        assert image.shape == (3, *masks[n].shape)
        assert 0 <= image.min() < image.max() <= 1
        assert torch.equal(mask, masks[n])
    assert pairs.sizes() == [(4, 6), (4, 6), (5, 7)]
    assert torch.equal(pairs[-1][1], masks[1])
    with pytest.raises(IndexError, match="number 3 of 3"):
        pairs[3]
    assert len(list(pairs)) == 3
    assert Folder(tmp_path / "images", pattern="deep/*").names == ("deep/b1",)
    assert Folder(tmp_path / "images")[0].shape == (3, 4, 6)
    assert torch.equal(pickle.loads(pickle.dumps(pairs))[0][0], pairs[0][0])


def test_a_loader_takes_buckets_of_it(tmp_path):
    fill(tmp_path)
    pairs = folder(tmp_path)
    loader = DataLoader(pairs, batch_sampler=BucketSampler(pairs.sizes(), 2, shuffle=False), collate_fn=collate)
    assert [(tuple(x.shape), tuple(y.shape)) for x, y in loader] == [((2, 3, 4, 6), (2, 4, 6)), ((1, 3, 5, 7), (1, 5, 7))]


def test_masks_beside_their_images(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png", torch.zeros(1, 3, 4))
        write_mask(tmp_path / f"{name}_mask.png", torch.ones(3, 4, dtype=torch.int64))
    pairs = Folder(tmp_path, tmp_path, mask_name="{stem}_mask")
    assert pairs.names == ("a", "b")
    assert int(pairs[1][1].sum()) == 12
    with pytest.raises(ArgumentError, match="both in"):
        Folder(tmp_path, tmp_path)
    with pytest.raises(ArgumentError, match="must hold '{stem}'"):
        Folder(tmp_path, tmp_path, mask_name="mask")


def test_volumes_and_labels_that_stand_for_others(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    scan = Sample(torch.rand(1, 3, 4, 5, generator=RANDOM), ("x", "y", "z"), (1.0, 1.0, 2.0), ("mm",) * 3)
    write_volume(tmp_path / "images" / "a.nii.gz", scan)
    write_mask(tmp_path / "masks" / "a.nii", scan.with_data((scan.data > 0.5).long() * 255))
    pairs = folder(tmp_path, labels={255: 1})
    image, mask = pairs[0]
    assert torch.equal(image, scan.data)
    assert torch.equal(mask, (scan.data[0] > 0.5).long())
    assert pairs.sizes() == [(3, 4, 5)]
    flipped = folder(tmp_path, transform=lambda x, m: (x.flip(1), m.flip(0)))
    assert torch.equal(flipped[0][0], image.flip(1))
    write_volume(tmp_path / "images" / "a.nii.gz", scan.with_data(scan.data * 0))
    assert check_masks(pairs).ok


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda r: (r / "masks" / "a0.x.png").unlink(),
            r"1 of 3 images have no mask in .*masks: there is no a0.x \(with any suffix\)",
        ),
        (lambda r: (r / "images" / "a0.x.jpg").write_bytes(b"x"), r"a0.x.jpg and .*a0.x.png have one name"),
        (lambda r: (r / "images").rename(r / "pictures"), "there is no folder .*images"),
    ],
)
def test_folders_that_do_not_fit(tmp_path, change, match):
    fill(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=match):
        folder(tmp_path)


def test_a_folder_without_images_and_parts_of_nothing(tmp_path):
    with pytest.raises(DataError, match="holds no image like"):
        Folder(tmp_path)
    fill(tmp_path)
    with pytest.raises(DataError, match="nothing is left of the 3 images"):
        folder(tmp_path).subset([])
    with pytest.raises(DataError, match="has no masks to check"):
        check_masks(Folder(tmp_path / "images"))


def test_a_good_folder_is_counted(tmp_path):
    masks, seen = fill(tmp_path), []
    report = check_masks(folder(tmp_path), progress=lambda k, n: seen.append((k, n)))
    every = torch.cat([m.flatten() for m in masks]).bincount()
    assert report.ok
    assert [report.pixels[k] for k in range(3)] == every.tolist()
    assert [report.masks[k] for k in range(3)] == [3, 3, 3]
    assert report.classes == 3
    assert seen == [(1, 3), (2, 3), (3, 3)]
    report.require()
    assert "3 pairs, 0 of them bad, 3 classes" in str(report)


def kinds(report):
    return sorted({(p.kind, p.name) for p in report.problems})


def test_corrupt_files_are_named_and_left_out(tmp_path):
    fill(tmp_path)
    for path in (tmp_path / "images" / "a0.x.png", tmp_path / "masks" / "a2.x.png"):
        path.write_bytes(path.read_bytes()[:50])
    report = check_masks(folder(tmp_path))
    assert kinds(report) == [("image", "a0.x"), ("mask", "a2.x")]
    assert report.bad == ("a0.x", "a2.x")
    report.require()
    assert folder(tmp_path).without(report.bad).names == ("deep/b1",)
    (tmp_path / "images" / "deep" / "b1.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the 3 pairs can be used; the first: "):
        check_masks(folder(tmp_path)).require()


def test_sizes_labels_and_absent_classes(tmp_path):
    fill(tmp_path)
    write_mask(tmp_path / "masks" / "a0.x.png", torch.zeros(6, 4, dtype=torch.int64))
    write_image(tmp_path / "masks" / "a2.x.png", torch.tensor([[[0, 38, 75, 38, 0, 0]] * 4], dtype=torch.uint8))
    report = check_masks(folder(tmp_path), classes=5)
    assert [(p.kind, p.name) for p in report.problems] == [("size", "a0.x"), ("labels", "a2.x"), ("absent", ""), ("palette", "")]
    said = [p.sentence for p in report.problems]
    assert "(6, 4), and its image is (4, 6)" in said[0]
    assert "12 pixels have labels 38, 75, out of 0..4; these look like grey values" in said[1]
    assert "class 3, 4" in said[2]
    assert "out of range" in str(report)
    with pytest.raises(ShapeError, match=r"is \(6, 4\), and its image is \(4, 6\); one is turned: "):
        folder(tmp_path)[0]


@pytest.mark.parametrize(
    ("values", "match"), [((0, 255), r"black and white: labels=\{255: 1\}"), ((0, 1, 255), r"labels=\{255: -100\}")]
)
def test_what_255_most_likely_is(tmp_path, values, match):
    fill(tmp_path, classes=2)
    write_mask(tmp_path / "masks" / "a0.x.png", torch.tensor([(*values, *(0,) * (6 - len(values)))] * 4))
    report = check_masks(folder(tmp_path), classes=2)
    assert any(__import__("re").search(match, p.sentence) for p in report.problems)
    assert check_masks(folder(tmp_path, labels={255: -100}), classes=2).ok


def test_mixed_depths_and_channels(tmp_path):
    fill(tmp_path)
    write_image(tmp_path / "images" / "a0.x.png", torch.zeros(1, 4, 6), bits=16)
    report = check_masks(folder(tmp_path))
    assert [p.kind for p in report.problems] == ["bits", "channels"]
    assert "1 with 16 bits, 2 with 8 bits" in report.problems[0].sentence
    with pytest.raises(DataError, match="1 with 1 channels, 2 with 3 channels; mode='RGB'"):
        report.require()
    assert [p.kind for p in check_masks(folder(tmp_path, mode="RGB")).problems] == ["bits"]


def test_a_volume_with_nan_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    import nibabel
    import numpy as np

    nibabel.save(nibabel.Nifti1Image(np.full((2, 3, 4), np.nan, np.float32), np.eye(4)), tmp_path / "images" / "a.nii")
    with pytest.raises(DataError, match="NaN or infinity, 24 of 24"):
        Folder(tmp_path / "images")[0]


def placed(root, name, affine, data):
    (root / name).mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, affine), root / name / "a.nii.gz")


@pytest.mark.parametrize(
    ("affine", "match"),
    [
        (np.diag([-1.0, 1, 2, 1]), "its axes run to LAS, those of the other to RAS; nibabel.as_closest_canonical"),
        (np.diag([1.0, 1, 3, 1]), "a corner is 2 .* resample it"),
        (np.array([[1.0, 0, 0, 0.7], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]), "a corner is 0.7 "),
        (np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]), "run to PRS, those of the other to RAS"),
    ],
)
def test_masks_of_volumes_that_lie_elsewhere_are_named(tmp_path, affine, match):
    labels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) % 3
    placed(tmp_path, "images", np.diag([1.0, 1, 2, 1]), labels.astype(np.float32))
    placed(tmp_path, "masks", affine, labels)
    pairs = Folder(tmp_path / "images", tmp_path / "masks")
    with pytest.raises(DataError, match=match):
        pairs[0]
    report = check_masks(pairs)
    assert report.bad == ("a",)
    assert kinds(report) == [("place", "a")]


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([1.0, 1, 2.001, 1]), None])
def test_masks_that_lie_there_or_do_not_say_where_are_taken(tmp_path, affine):
    labels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) % 3
    placed(tmp_path, "images", np.diag([1.0, 1, 2, 1]), labels.astype(np.float32))
    placed(tmp_path, "masks", affine, labels)
    pairs = Folder(tmp_path / "images", tmp_path / "masks")
    assert torch.equal(pairs[0][1], torch.from_numpy(labels).long())
    assert check_masks(pairs).ok
