import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ninefold.data.image import image_info, read_image, write_image
from ninefold.data.masks import read_mask, write_mask
from ninefold.data.sample import Sample
from ninefold.data.volume import write_volume
from ninefold.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError

RANDOM = torch.Generator().manual_seed(0)


def whole(channels, high=256, dtype=torch.uint8):
    return torch.randint(0, high, (channels, 5, 7), generator=RANDOM, dtype=dtype)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_what_was_written_comes_back(tmp_path, channels, bits):
    data = whole(channels) if bits == 8 else whole(channels, 65536, torch.int32)
    write_image(tmp_path / "a.png", data, bits=bits)
    found = read_image(tmp_path / "a.png", scale="values")
    assert torch.equal(found.data, data)
    assert (found.axes, found.meta["bits"], found.meta["channels"]) == (
        ("height", "width"),
        bits,
        ("L", "LA", "RGB", "RGBA")[channels - 1],
    )
    scaled = read_image(tmp_path / "a.png")
    assert scaled.meta["divisor"] == 2**bits - 1
    assert torch.equal(scaled.data, data.float() / (2**bits - 1))
    write_image(tmp_path / "b.png", scaled, bits=bits)
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_of_colour_in_tiff_lose_nothing(tmp_path, compression, order):
    import tifffile

    data = whole(3, 65536, torch.int32)
    pixels = data.permute(1, 2, 0).numpy().astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", byteorder=order, compression=compression)
    assert torch.equal(read_image(tmp_path / "a.tif", scale="values").data, data)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_an_image_is_turned_as_it_was_taken(tmp_path, orientation, bits):
    upright = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    undo = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: np.swapaxes(a, 0, 1),
            6: np.rot90, 7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1), 8: lambda a: np.rot90(a, -1)}[orientation]  # fmt: skip
    stored = np.ascontiguousarray(undo(upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    if bits == 8:
        Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    else:
        write_image(tmp_path / "a.png", torch.from_numpy(stored.astype(np.int32) * 257 + 3).permute(2, 0, 1) % 65536, bits=16)
        content = (tmp_path / "a.png").read_bytes()
        import struct
        import zlib

        tiff = exif.tobytes()[6:]
        chunk = struct.pack(">I", len(tiff)) + b"eXIf" + tiff + struct.pack(">I", zlib.crc32(b"eXIf" + tiff))
        (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])
    found = read_image(tmp_path / "a.png", scale="values")
    expected = upright if bits == 8 else (upright.astype(np.int32) * 257 + 3) % 65536
    assert np.array_equal(found.numpy().transpose(1, 2, 0), expected)
    assert image_info(tmp_path / "a.png")["size"] == (5, 7)


def with_palette(path, transparent=False):
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    image.save(path, **({"transparency": 1} if transparent else {}))
    return path


def test_a_palette_is_colours_or_indices_as_asked_for(tmp_path):
    path = with_palette(tmp_path / "a.png")
    colours = read_image(path, scale="values")
    assert colours.data[:, 0].T.tolist() == [[255, 0, 0], [0, 255, 0], [10, 20, 30]]
    indices = read_image(path, palette="indices")
    assert indices.data.tolist() == [[[0, 1, 2], [2, 1, 0]]]
    assert indices.data.dtype == torch.int64
    assert indices.meta["palette"][:3] == [(255, 0, 0), (0, 255, 0), (10, 20, 30)]
    clear = read_image(with_palette(tmp_path / "b.png", transparent=True), scale="values")
    assert clear.data[3].tolist() == [[255, 0, 255], [255, 0, 255]]
    write_image(tmp_path / "c.png", whole(1))
    with pytest.raises(ArgumentError, match="has no palette .mode L."):
        read_image(tmp_path / "c.png", palette="indices")


@pytest.mark.parametrize("bits", [8, 16])
def test_channels_are_converted_alike_at_any_depth(tmp_path, bits):
    top = 2**bits - 1
    data = whole(4, top + 1, torch.int32)
    write_image(tmp_path / "a.png", data.to(torch.uint8) if bits == 8 else data, bits=bits)
    assert torch.equal(read_image(tmp_path / "a.png", "RGB", scale="values").data.int(), data[:3])
    grey = read_image(tmp_path / "a.png", "L", scale="values").data.double()
    luma = (data[:3].double() * torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)).sum(0)
    assert (grey[0] - luma).abs().max() <= 0.5 + 1e-9
    write_image(tmp_path / "b.png", data[:1].to(torch.uint8) if bits == 8 else data[:1], bits=bits)
    colours = read_image(tmp_path / "b.png", "RGBA", scale="values").data.int()
    assert torch.equal(colours, torch.cat([data[:1].expand(3, 5, 7), torch.full((1, 5, 7), top, dtype=torch.int32)]))


def test_ink_stays_ink_unless_colours_are_asked_for(tmp_path):
    ink = np.zeros((2, 3, 4), np.uint8)
    ink[0, 0] = 255, 0, 0, 0
    ink[1, 2] = 0, 0, 0, 255
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.tif")
    found = read_image(tmp_path / "a.tif", scale="values")
    assert np.array_equal(found.numpy().transpose(1, 2, 0), ink)
    rgb = read_image(tmp_path / "a.tif", "RGB", scale="values").data
    assert [rgb[:, 0, 0].tolist(), rgb[:, 1, 2].tolist(), rgb[:, 0, 1].tolist()] == [[0, 255, 255], [0, 0, 0], [255, 255, 255]]
    write_image(tmp_path / "b.tif", found)
    assert torch.equal(read_image(tmp_path / "b.tif", scale="values").data, found.data)
    write_image(tmp_path / "c.png", whole(3))
    with pytest.raises(ArgumentError, match="profile of the printer"):
        read_image(tmp_path / "c.png", "CMYK")


def test_one_bit_and_floats(tmp_path):
    Image.fromarray(np.array([[True, False, True]])).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").data.tolist() == [[[1.0, 0.0, 1.0]]]
    Image.fromarray(np.array([[-1.5, 2.25]], np.float32)).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").data.tolist() == [[[-1.5, 2.25]]]


@pytest.mark.parametrize("cut", [1, 7, 20, 40, 60])
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp"])
def test_cut_off_images_are_one_sentence(tmp_path, suffix, cut):
    write_image(tmp_path / f"a.{suffix}", torch.rand(3, 40, 50, generator=RANDOM))
    content = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"b.{suffix}").write_bytes(content[: max(1, len(content) * cut // 70)])
    with pytest.raises(DataError, match="cannot be read as an image") as caught:
        read_image(tmp_path / f"b.{suffix}")
    assert "\n" not in str(caught.value)


def test_several_pages_are_not_one_image(tmp_path):
    pages = [Image.fromarray(np.full((3, 4), k, np.uint8)) for k in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="holds 3 pages"):
        read_image(tmp_path / "a.tif")
    assert image_info(tmp_path / "a.tif")["pages"] == 3


@pytest.mark.parametrize(
    ("data", "options", "kind", "match"),
    [
        (torch.full((3, 4, 5), 1.5), {}, ArgumentError, "values from 1.5 to 1.5.* holds 0 to 1"),
        (torch.full((3, 4, 5), 300), {}, ArgumentError, "8 bits holds 0 to 255"),
        (torch.full((3, 4, 5), torch.nan), {}, ArgumentError, "NaN or infinity, 60 of 60"),
        (torch.zeros(5, 4, 5), {}, ShapeError, r"\(1 to 4, H, W\), got \(5, 4, 5\)"),
        (torch.zeros(3, 0, 5), {}, ShapeError, "holds nothing"),
        (np.zeros((3, 4, 5)), {}, ArgumentTypeError, "ndarray"),
        (torch.zeros(3, 4, 5), {"bits": 12}, ArgumentError, "bits=12 must be 8 or 16"),
    ],
)
def test_what_is_no_image_leaves_what_was_there(tmp_path, data, options, kind, match):
    (tmp_path / "a.png").write_bytes(b"before")
    with pytest.raises(kind, match=match):
        write_image(tmp_path / "a.png", data, **options)
    assert (tmp_path / "a.png").read_bytes() == b"before"


def test_formats_that_do_not_hold_it(tmp_path):
    with pytest.raises(DataError, match="cannot be written: cannot write mode RGBA as JPEG"):
        write_image(tmp_path / "a.jpg", whole(4))
    with pytest.raises(DataError, match="16 bits of 3 channels go into .png"):
        write_image(tmp_path / "a.tif", whole(3), bits=16)
    with pytest.raises(DataError, match="Pillow writes no '.xyz'"):
        write_image(tmp_path / "a.xyz", whole(3))


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "gif"])
def test_labels_come_back_as_they_were(tmp_path, suffix):
    labels = torch.randint(0, 256, (6, 9), generator=RANDOM)
    if suffix == "gif":
        with pytest.raises(ArgumentError, match="labels must come back as they were"):
            write_mask(tmp_path / "a.gif", labels)
        return
    write_mask(tmp_path / f"a.{suffix}", labels, colours=[(0, 0, 0), (0, 0, 0), (9, 9, 9)])
    found = read_mask(tmp_path / f"a.{suffix}")
    assert torch.equal(found.data, labels[None])
    assert found.meta.get("palette") is (suffix != "tif")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_many_labels_take_sixteen_bits(tmp_path, suffix):
    labels = torch.randint(0, 65536, (6, 9), generator=RANDOM)
    write_mask(tmp_path / f"a.{suffix}", labels)
    assert torch.equal(read_mask(tmp_path / f"a.{suffix}").data, labels[None])


def test_labels_of_volumes(tmp_path):
    labels = Sample(torch.randint(0, 70000, (1, 3, 4, 5), generator=RANDOM), ("z", "y", "x"), (2.0, 1.0, 1.0), ("mm",) * 3)
    for name in ("a.tif", "a.nii.gz"):
        write_mask(tmp_path / name, labels)
        found = read_mask(tmp_path / name)
        assert found.data.dtype == torch.int64
        assert torch.equal(found.data if name == "a.tif" else found.data.permute(0, 3, 2, 1), labels.data)
    write_volume(tmp_path / "b.nii", labels.with_data(labels.data.float() + 0.5))
    with pytest.raises(DataError, match="60 of 60 values are no whole numbers, such as"):
        read_mask(tmp_path / "b.nii")


def test_colours_are_labels_only_by_a_table(tmp_path):
    table = [(0, 0, 0), (128, 0, 0), (0, 128, 5)]
    labels = torch.tensor([[0, 1, 2], [2, 2, 1]])
    pixels = torch.tensor(table, dtype=torch.uint8)[labels].permute(2, 0, 1)
    write_image(tmp_path / "a.png", pixels)
    with pytest.raises(DataError, match="holds 3 colours .mode RGB., and labels are numbers"):
        read_mask(tmp_path / "a.png")
    assert torch.equal(read_mask(tmp_path / "a.png", table).data[0], labels)
    with pytest.raises(DataError, match=r"3 of 6 pixels have colours that are not given, such as \(0, 128, 5\)"):
        read_mask(tmp_path / "a.png", table[:2])
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="is JPEG, which changes labels"):
        read_mask(tmp_path / "a.jpg", table)


def test_what_are_no_labels(tmp_path):
    with pytest.raises(ArgumentTypeError, match="torch.float32"):
        write_mask(tmp_path / "a.png", torch.zeros(3, 4))
    with pytest.raises(ArgumentError, match="labels from -1 to 3"):
        write_mask(tmp_path / "a.png", torch.tensor([[-1, 3]]))
    with pytest.raises(ShapeError, match=r"got \(2, 3, 4\)"):
        write_mask(tmp_path / "a.png", torch.zeros(2, 3, 4, dtype=torch.int64))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_masks_are_turned_as_their_images_are_and_sizes_are_known_before(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    labels = whole(1)[0].numpy()
    for name in (f"a.{suffix}", "a.jpg"):
        Image.fromarray(labels).save(tmp_path / name, exif=exif)
        assert image_info(tmp_path / name)["size"] == tuple(read_image(tmp_path / name).data.shape[1:])
    mask, image = (reader(tmp_path / f"a.{suffix}") for reader in (read_mask, lambda path: read_image(path, scale="values")))
    first = labels if orientation < 5 else labels.T
    wanted = first[:: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]
    assert np.array_equal(mask.numpy()[0], wanted)
    assert torch.equal(mask.data, image.data.long())


def packed_grey(bits, labels):
    """Return a PNG of fewer than 8 bits a pixel, which Pillow does not write."""
    rows = b"".join(
        b"\0" + np.packbits((row[:, None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8).ravel()).tobytes()
        for row in labels
    )
    parts = (b"IHDR", struct.pack(">IIBBBBB", labels.shape[1], labels.shape[0], bits, 0, 0, 0, 0)), (b"IDAT", zlib.compress(rows))
    chunks = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in (*parts, (b"IEND", b""))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_labels_of_few_bits_are_not_stretched_to_brightness(tmp_path, bits):
    labels = whole(1, 2**bits)[0].numpy()
    (tmp_path / "a.png").write_bytes(packed_grey(bits, labels))
    assert np.array_equal(read_mask(tmp_path / "a.png").numpy()[0], labels)
    assert np.allclose(read_image(tmp_path / "a.png").numpy()[0], labels / (2**bits - 1))


@pytest.mark.parametrize("largest", [3, 20, 254, 255, 256, 300, 65534, 65535])
def test_labels_of_pgm_are_those_of_the_file_whatever_its_largest(tmp_path, largest):
    labels = whole(1, largest + 1, torch.int32)[0].numpy()
    head = f"P5\n7 5\n{largest}\n".encode()
    (tmp_path / "a.pgm").write_bytes(head + labels.astype(np.uint8 if largest < 256 else ">u2").tobytes())
    assert np.array_equal(read_mask(tmp_path / "a.pgm").numpy()[0], labels)
    assert np.allclose(read_image(tmp_path / "a.pgm").numpy()[0], labels / largest, atol=0.003)


def test_of_a_camera_file_with_a_preview_behind_it_the_picture_is_read(tmp_path):
    picture = Image.fromarray(np.full((6, 8, 3), 200, np.uint8))
    picture.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[picture.resize((4, 3))])
    assert Image.open(tmp_path / "a.jpg").format == "MPO"
    assert read_image(tmp_path / "a.jpg").data.shape == (3, 6, 8)
    assert image_info(tmp_path / "a.jpg")["pages"] == 1
    picture.save(tmp_path / "b.png", save_all=True, append_images=[Image.new("RGB", (8, 6))])
    with pytest.raises(DataError, match="2 pages or frames, not one image; Video reads films"):
        read_image(tmp_path / "b.png")
