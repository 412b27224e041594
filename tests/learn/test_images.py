import pickle

import numpy as np
import pytest
import scipy.sparse
import torch
from PIL import Image

from ninefold.errors import ArgumentError, ArgumentTypeError, ImageError, ShapeError
from ninefold.learn import Images
from ninefold.learn import images as module


def read(source, **how):
    return list(Images(source, **how))


COUNTED = np.arange(2 * 5 * 6 * 3)


@pytest.mark.parametrize(
    ("given", "how", "expected"),
    [
        (COUNTED[:60].reshape(2, 5, 6), {}, COUNTED[:60].reshape(2, 1, 5, 6)),
        (COUNTED.reshape(2, 5, 6, 3), {}, COUNTED.reshape(2, 5, 6, 3).transpose(0, 3, 1, 2)),
        (COUNTED.reshape(2, 3, 5, 6), {}, COUNTED.reshape(2, 3, 5, 6)),
        (COUNTED.reshape(2, 5, 6, 3), {"channels": "first"}, COUNTED.reshape(2, 5, 6, 3)),
        (COUNTED.reshape(6, 3, 5, 2), {"channels": "last"}, COUNTED.reshape(6, 3, 5, 2).transpose(0, 3, 1, 2)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, np.float16])
def test_axes_of_a_stack(given, how, expected, dtype):
    given = (given % 200).astype(dtype)
    (batch,) = read(given, **how)
    assert batch.dtype == torch.float32
    assert batch.shape == expected.shape
    assert np.array_equal(batch.numpy(), expected % 200)
    (again,) = read(torch.from_numpy(given), **how)
    assert torch.equal(again, batch)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 9, 5, 8)])
def test_channels_are_not_guessed(shape):
    with pytest.raises(ShapeError, match="say channels="):
        read(np.zeros(shape))


def test_images_of_many_sizes_come_in_order():
    sizes = [(4, 5), (4, 5), (6, 3), (4, 5)]
    images = [np.full(size, k, np.float32) for k, size in enumerate(sizes)]
    batches = read(images)
    assert [tuple(b.shape) for b in batches] == [(2, 1, 4, 5), (1, 1, 6, 3), (1, 1, 4, 5)]
    assert [float(image.mean()) for batch in batches for image in batch] == [0, 1, 2, 3]


def test_a_batch_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(module, "BYTES", 4 * 20 * 3)
    assert [len(b) for b in read(np.zeros((8, 4, 5)))] == [3, 3, 2]
    assert [len(b) for b in read([np.zeros((4, 5))] * 8)] == [3, 3, 2]
    assert [len(b) for b in read(np.zeros((2, 40, 5)))] == [1, 1]


def test_what_is_given_is_neither_written_nor_kept_from_being_written():
    given = np.zeros((2, 4, 5), np.float32)
    given.setflags(write=False)
    (batch,) = read(given)
    batch.add_(1)
    assert not given.any()
    tensor = torch.zeros(2, 4, 5, requires_grad=True)
    (batch,) = read(tensor)
    batch.add_(1)
    assert not tensor.any()
    assert not batch.requires_grad


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        (np.zeros((4, 20)), ShapeError, r"Reshape your data"),
        (np.zeros((0, 4, 5)), ShapeError, r"0 sample\(s\)"),
        (np.zeros((2, 0, 5)), ShapeError, "minimum"),
        (np.zeros((2, 4, 5), complex), ArgumentError, "Complex data not supported"),
        (np.array([[["a"]]]), ArgumentError, "must hold numbers"),
        (np.full((1, 2, 5), {}), ArgumentTypeError, "must hold numbers: float.* argument"),
        (scipy.sparse.eye_array(4), ArgumentTypeError, "Sparse data was passed"),
        (np.full((1, 4, 5), np.nan), ArgumentError, "NaN or infinity, 20 of 20 values"),
        ([np.zeros((4, 5)), np.full((4, 5), np.inf)], ArgumentError, "image 1: Input contains NaN or infinity"),
        ([np.zeros(4)], ShapeError, "image 0 has shape"),
        ([{"image": 3}], ShapeError, "as it is a dict; a single image is"),
        ([(np.zeros((2, 4, 5)), np.zeros(2))], ShapeError, r"image 0 is a tuple .* without labels, such as"),
        (torch.utils.data.TensorDataset(torch.zeros(2, 4, 5)), ArgumentTypeError, "got TensorDataset; .* is given without them"),
        (Image.new("L", (4, 5)), ArgumentTypeError, r"an image by itself is \[image\]"),
        (np.zeros((40, 20)), ShapeError, r"an image by itself is X\[None\]"),
        (np.array(["no/such.png", 3, None], object), ShapeError, "image 1 has shape .*, as it is a int"),
        ([np.zeros((2, 3, 4, 5)), np.full((1, 3, 4, 5), np.nan)], ArgumentError, "batch 1: the images: Input contains NaN"),
        (3, ArgumentTypeError, "got int"),
        ("no/such/folder", ImageError, "neither a folder nor a file"),
    ],
)
def test_what_is_refused(given, error, match):
    with pytest.raises(error, match=match):
        read(given)


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    made = {"b.png": rng.integers(0, 256, (5, 6, 3), np.uint8), "sub/a.tif": rng.integers(0, 60000, (7, 4)).astype(np.uint16)}
    for name, pixels in made.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path, made


def test_a_folder_is_read_in_order_and_what_cannot_be_is_named(pictures):
    folder, made = pictures
    whole = (folder / "b.png").read_bytes()
    (folder / "c.png").write_bytes(whole[: len(whole) // 2])
    (folder / "d.jpg").write_bytes(b"")
    images = Images(folder)
    first, second = list(images)
    assert np.array_equal(first[0].numpy(), made["b.png"].transpose(2, 0, 1))
    assert np.array_equal(second[0, 0].numpy(), made["sub/a.tif"])
    assert sorted(name.rpartition("/")[2] for name in images.skipped) == ["c.png", "d.jpg"]
    assert all("cannot be read as an image" in reason for reason in images.skipped.values())
    assert len(list(images)) == 2  # again


def test_a_folder_without_images(tmp_path):
    with pytest.raises(ImageError, match="holds no image"):
        Images(tmp_path)


def test_turned_and_palette_pictures(tmp_path):
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 6  # taken with the camera on its side
    picture.save(tmp_path / "turned.png", exif=exif)
    (turned,) = read(tmp_path / "turned.png")
    assert np.array_equal(turned[0].numpy().transpose(1, 2, 0), np.rot90(pixels, -1))
    Image.fromarray(np.full((4, 6, 3), (10, 200, 30), np.uint8)).convert("P").save(tmp_path / "palette.png")
    (palette,) = read(tmp_path / "palette.png")
    assert palette.shape == (1, 3, 4, 6)
    assert palette[0, 1].mean() > palette[0, 0].mean()


def test_an_iterator_is_read_once():
    images = Images(iter([np.zeros((4, 5))]))
    assert images.once
    assert images.count() is None
    assert len(list(images)) == 1
    assert not Images([np.zeros((4, 5))]).once
    assert pickle.loads(pickle.dumps(Images(np.zeros((2, 4, 5))))).count() == 2


def test_a_row_or_a_column_of_paths_is_a_list_of_them(pictures):
    folder, made = pictures
    paths = [str(folder / name) for name in made]
    for given in (np.array(paths), np.array(paths, object), np.array(paths)[:, None], np.array([folder / n for n in made])):
        images = Images(given)
        first, second = list(images)
        assert np.array_equal(first[0].numpy(), made["b.png"].transpose(2, 0, 1))
        assert np.array_equal(second[0, 0].numpy(), made["sub/a.tif"])
        assert images.count() == 2
        assert not images.once


def test_what_looks_like_a_column_of_a_table():
    class Column:  # as pandas has them
        shape, dtype = (3,), np.dtype(object)

        def __array__(self, dtype=None, copy=None):
            made = np.empty(3, object)
            made[:] = [np.full((4, 5 + k), k) for k in range(3)]
            return made

    assert [(tuple(b.shape), float(b.mean())) for b in read(Column())] == [((1, 1, 4, 5 + k), k) for k in range(3)]


def test_batches_of_a_loader_come_one_after_another():
    stack = torch.arange(7 * 3 * 4 * 5.0).view(7, 3, 4, 5)
    loader = torch.utils.data.DataLoader(stack, batch_size=3)
    images = Images(loader)
    assert images.count() is None
    for _ in range(2):
        batches = list(images)
        assert [len(b) for b in batches] == [3, 3, 1]
        assert torch.equal(torch.cat(batches), stack)
    mixed = [np.zeros((6, 5, 3)), np.zeros((6, 5, 3)), np.ones((2, 6, 5, 3)), np.zeros((6, 5, 3))]
    assert [(tuple(b.shape), float(b.mean())) for b in read(mixed)] == [((n, 3, 6, 5), v) for n, v in ((2, 0), (2, 1), (1, 0))]
    assert Images(list(stack.split(3))).count() is None
    assert Images(list(stack)).count() == 7


def test_masked_values_are_not_taken_for_pixels():
    masked = np.ma.masked_array(np.zeros((3, 4, 5)), mask=np.zeros((3, 4, 5), bool))
    masked[1, 2, 3] = np.ma.masked
    assert len(read(masked[:1])[0]) == 1
    for given, named in ((masked, "the images: 1 of 60"), ([masked[0], masked[1]], "image 1: 1 of 20")):
        with pytest.raises(ArgumentError, match=named + r" values are masked.*filled"):
            read(given)
    assert float(read(masked.filled(7))[0].sum()) == 7
    array = pytest.importorskip("dask.array")
    with pytest.raises(ArgumentError, match="values are masked"):
        read(array.ma.masked_equal(array.zeros((2, 4, 5), chunks=(1, 4, 5)), 0))


def test_chunks_of_unknown_sizes_are_read():
    array = pytest.importorskip("dask.array")
    given = np.arange(4 * 4 * 5.0).reshape(4, 4, 5)
    images = array.from_array(given, chunks=(2, 4, 5))
    some = images[images.mean(axis=(1, 2)) > 15]
    assert np.isnan(some.shape[0])
    assert Images(some).count() is None
    assert np.array_equal(torch.cat(read(some))[:, 0].numpy(), given[1:])
    with pytest.raises(ShapeError, match="unknown sizes"):
        Images(array.from_array(np.zeros((2, 4, 5)))[:, array.from_array(np.arange(4)) > 1])


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
def test_a_turned_tiff_of_grey_values_is_not_scrambled(tmp_path, orientation):
    stored = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7)
    picture = Image.fromarray(stored)
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.tif", exif=exif)
    upright = {3: np.rot90(stored, 2), 5: stored.T, 6: np.rot90(stored, -1), 8: np.rot90(stored)}[orientation]
    (found,) = read(tmp_path / "a.tif")
    assert np.array_equal(found[0, 0].numpy(), upright)
