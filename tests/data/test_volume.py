from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import torch

from ninefold.data.formats import read
from ninefold.data.masks import read_mask
from ninefold.data.sample import Sample
from ninefold.data.volume import read_volume, write_volume
from ninefold.errors import ArgumentError, DataError, ShapeError

REAL = Path(nibabel.__file__).parent / "tests" / "data"
RANDOM = torch.Generator().manual_seed(0)


def volume(channels=1, dtype=torch.uint8, axes=("z", "y", "x"), high=250):
    data = torch.randint(0, high, (channels, 3, 4, 5), generator=RANDOM).to(dtype)
    return Sample(data, axes, (3.0, 0.5, 0.25), ("µm",) * 3)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.float32, torch.float64])
def test_values_spacing_and_units_come_back(tmp_path, name, channels, dtype):
    given = volume(channels, dtype)
    write_volume(tmp_path / name, given)
    found = read_volume(tmp_path / name, dtype=None)
    if "nii" in name:
        assert found.axes == ("x", "y", "z")
        assert torch.equal(found.data.permute(0, 3, 2, 1).to(dtype), given.data)
        assert found.spacing == (0.25, 0.5, 3.0)
    else:
        assert found.axes == given.axes
        assert torch.equal(found.data.to(dtype), given.data)
        assert found.spacing == given.spacing
    assert found.units == given.units
    assert read_volume(tmp_path / name).data.dtype == torch.float32


def test_real_scans_have_their_voxels():
    scan = read_volume(REAL / "example4d.nii.gz")
    if not (REAL / "anatomical.nii").exists():
        pytest.skip("nibabel was installed without its test data")
    image = nibabel.load(REAL / "example4d.nii.gz")
    assert np.array_equal(scan.numpy(), np.moveaxis(image.get_fdata(dtype=np.float32), 3, 0))
    assert scan.axes == ("x", "y", "z")
    assert np.allclose(scan.spacing, (2.0, 2.0, 2.2), atol=1e-3)
    assert scan.units == ("mm",) * 3
    assert scan.meta["time_spacing"] == 2000.0
    assert read_volume(REAL / "anatomical.nii").data.shape == (1, 33, 41, 25)


def test_the_affine_of_a_turned_scan_is_kept(tmp_path):
    scan = read_volume(REAL / "example4d.nii.gz")
    write_volume(tmp_path / "a.nii.gz", scan)
    again = read_volume(tmp_path / "a.nii.gz")
    assert np.allclose(again.meta["affine"], scan.meta["affine"], atol=1e-5)
    assert torch.equal(again.data, scan.data)
    assert again.meta["time_spacing"] == 2000.0


def test_a_volume_that_says_no_spacing_has_one_of_1_and_no_units(tmp_path):
    values = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    tifffile.imwrite(tmp_path / "a.tif", values)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), None), tmp_path / "a.nii")
    for name in ("a.tif", "a.nii"):
        found = read_volume(tmp_path / name)
        assert (found.spacing, found.units) == ((1.0, 1.0, 1.0), None)
        assert np.array_equal(found.numpy()[0], values)


def test_stacks_with_times_and_several_channels(tmp_path):
    values = np.arange(2 * 3 * 2 * 4 * 5, dtype=np.uint16).reshape(2, 3, 2, 4, 5)
    tifffile.imwrite(
        tmp_path / "a.tif",
        values,
        imagej=True,
        metadata={"axes": "TZCYX", "spacing": 2.0, "unit": "um", "finterval": 0.5},
        resolution=(4, 2),
    )
    found = read_volume(tmp_path / "a.tif")
    assert found.axes == ("t", "z", "y", "x")
    assert np.array_equal(found.numpy(), np.moveaxis(values, 2, 0))
    assert (found.spacing, found.units) == ((0.5, 2.0, 0.5, 0.25), ("s", "µm", "µm", "µm"))


def test_axes_may_be_in_any_order_and_units_of_any_length(tmp_path):
    given = Sample(volume().data, ("y", "x", "z"), (1.0, 2.0, 3.0), ("cm",) * 3)
    write_volume(tmp_path / "a.nii", given)
    found = read_volume(tmp_path / "a.nii")
    assert torch.equal(found.data, given.data.permute(0, 2, 1, 3).float())
    assert found.units == ("µm",) * 3
    assert np.allclose(found.spacing, (2e4, 1e4, 3e4))
    write_volume(tmp_path / "a.tif", given)
    assert read_volume(tmp_path / "a.tif").spacing == (3.0, 1.0, 2.0)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "b.tif", "a.nii", "a.nii.gz"])
def test_wherever_a_file_is_cut_off_it_is_said(tmp_path, name):
    given = volume(1, torch.uint8)
    if name == "b.tif":
        tifffile.imwrite(tmp_path / name, given.numpy()[0], compression="zlib", photometric="minisblack")
    else:
        write_volume(tmp_path / name, given)
    whole, content = read_volume(tmp_path / name).data, (tmp_path / name).read_bytes()
    said = []
    for at in range(0, len(content), 23):
        cut = tmp_path / f"cut{name[1:]}"
        cut.write_bytes(content[:at])
        try:
            assert torch.equal(read_volume(cut).data, whole), at
        except DataError as error:
            said.append(str(error))
    assert len(said) > 5
    assert not any("\n" in sentence for sentence in said)


def test_planes_that_lack_are_counted_and_kept_where_that_is_asked_for(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", volume().numpy()[0], imagej=True, metadata={"axes": "ZYX"})
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(content.replace(b"images=3", b"images=9"))
    with pytest.raises(DataError, match="ends after 3 of the 9 planes that it promises"):
        read_volume(tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("name", "change", "kind", "match"),
    [
        ("a.nii", {"axes": ("t", "y", "x")}, ArgumentError, r"NIfTI holds axes \('x', 'y', 'z'\), got \('t', 'y', 'x'\)"),
        ("a.tif", {"axes": ("a", "y", "x")}, ArgumentError, "holds axes y and x, with z and t before them"),
        ("a.nii", {"units": ("s", "s", "s")}, ArgumentError, "unit 's' is none of length"),
        ("a.nii", {"units": ("mm", "mm", "m")}, ArgumentError, "one unit for all axes"),
        ("a.nii", {"data": torch.full((1, 3, 4, 5), torch.nan)}, ArgumentError, "NaN"),
        ("a.nii", {"data": torch.full((1, 3, 4, 5), 2**40)}, ArgumentError, "do not fit 32 bits"),
        ("a.nii", {"data": torch.zeros(0, 3, 4, 5)}, ShapeError, "holds nothing"),
        ("a.png", {}, ArgumentError, "written as .nii, .nii.gz, .tif or .ome.tif"),
    ],
)
def test_what_cannot_be_written_leaves_what_was_there(tmp_path, name, change, kind, match):
    from dataclasses import replace

    (tmp_path / name).write_bytes(b"before")
    with pytest.raises(kind, match=match):
        write_volume(tmp_path / name, replace(volume(), **change))
    assert (tmp_path / name).read_bytes() == b"before"


@pytest.mark.parametrize("kind", [np.uint8, np.int16])
def test_labels_that_were_saved_as_multiples_of_a_step_come_back(tmp_path, kind):
    labels = np.arange(13).reshape(13, 1, 1)
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.float64), np.eye(4), dtype=kind), tmp_path / "a.nii.gz")
    found = read_volume(tmp_path / "a.nii.gz", dtype=None)
    assert not np.array_equal(found.numpy()[0], labels)
    assert 0 < found.meta["step"] < 0.05
    assert np.array_equal(read_mask(tmp_path / "a.nii.gz").numpy()[0], labels)


@pytest.mark.parametrize("values", [[0.0, 0.5, 1.0], [0.0, 1.3, 2.6], [0.0, 1.1, 12.0]])
def test_numbers_that_are_no_labels_are_not_rounded_to_some(tmp_path, values):
    data = np.array(values).reshape(3, 1, 1)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4), dtype=np.uint8), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match="no whole numbers"):
        read_mask(tmp_path / "a.nii.gz")


def test_what_nibabel_reads_and_is_no_volume_is_named():
    if not (REAL / "row_major.dconn.nii").exists():
        pytest.skip("nibabel was installed without its test data")
    with pytest.raises(DataError, match="as a volume: a Cifti2Image is no grid of voxels"):
        read_volume(REAL / "row_major.dconn.nii")


def ome_set(folder):
    """Write two files of one set: a channel each, of three planes."""
    where = "".join(
        f'<TiffData FirstZ="{z}" FirstC="{c}" FirstT="0" IFD="{z}" PlaneCount="1">'
        f'<UUID FileName="c{c}.ome.tif">urn:uuid:0000000{c}-0000-0000-0000-000000000000</UUID></TiffData>'
        for c in range(2)
        for z in range(3)
    )
    values = np.arange(1, 121, dtype=np.uint16).reshape(2, 3, 4, 5)
    for c in range(2):
        about = (
            f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:0000000{c}-0000-0000-0000-000000000000"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            f'DimensionOrder="XYZCT" Type="uint16" SizeX="5" SizeY="4" SizeZ="3" SizeC="2" SizeT="1">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/><Channel ID="Channel:0:1" SamplesPerPixel="1"/>{where}</Pixels></Image></OME>'
        )
        tifffile.imwrite(folder / f"c{c}.ome.tif", values[c], photometric="minisblack", description=about.encode(), metadata=None)
    return values


def test_of_a_set_of_files_none_may_lack(tmp_path):
    values = ome_set(tmp_path)
    assert np.array_equal(read_volume(tmp_path / "c0.ome.tif").numpy(), values)
    (tmp_path / "c1.ome.tif").unlink()
    with pytest.raises(DataError, match="3 of 6 planes lie in other files of its set, which are not there"):
        read_volume(tmp_path / "c0.ome.tif")
    kept = read_volume(tmp_path / "c0.ome.tif", incomplete="keep").numpy()
    assert np.array_equal(kept, values * np.array([1, 0]).reshape(2, 1, 1, 1))


def test_each_series_has_its_own_steps_and_of_several_one_is_named(tmp_path):
    values = np.arange(180, dtype=np.uint16).reshape(3, 3, 4, 5)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for k in range(3):
            about = {"axes": "ZYX", "PhysicalSizeX": 0.5 * (k + 1), "PhysicalSizeXUnit": "µm"}
            file.write(values[k], photometric="minisblack", metadata=about)
    for k in range(3):
        found = read_volume(tmp_path / "a.ome.tif", series=k)
        assert np.array_equal(found.numpy()[0], values[k])
        assert found.spacing[2] == 0.5 * (k + 1)
    with pytest.raises(DataError, match=r"holds 3 series of images \(0: 3x4x5 ZYX, 1: 3x4x5 ZYX, .* series= says"):
        read_volume(tmp_path / "a.ome.tif")


def test_times_are_seconds_whether_places_have_a_unit_or_not(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", volume().numpy()[0], imagej=True, metadata={"axes": "TYX", "finterval": 2.5})
    found = read_volume(tmp_path / "a.tif")
    assert (found.axes, found.spacing[0], found.units[0]) == (("t", "y", "x"), 2.5, "s")
    for unit, step, again in (("ms", 0.003, "s"), (None, 1.0, None), ("fortnight", 3.0, "fortnight")):
        write_volume(tmp_path / "b.tif", Sample(volume().data, ("t", "y", "x"), (3.0, 0.5, 0.5), (unit, "µm", "µm")))
        found = read_volume(tmp_path / "b.tif")
        assert (found.spacing[0], found.units[0]) == (step, again)
        assert found.units[1:] == ("µm", "µm")


def test_pages_of_colour_planes_are_channels(tmp_path):
    values = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", planarconfig="separate")
    found = read_volume(tmp_path / "a.tif")
    assert found.axes == ("z", "y", "x")
    assert np.array_equal(found.numpy(), values.swapaxes(0, 1))


@pytest.mark.parametrize("bands", [2, 5])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_bands_that_are_no_colours_are_all_read(tmp_path, bands, kind):
    values = np.arange(4 * 5 * bands).reshape(4, 5, bands).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(read(tmp_path / "a.tif").numpy(), np.moveaxis(values, 2, 0))


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_infrared_beside_colours_is_not_left_out_and_planes_without_colours_are_bands(tmp_path, kind):
    values = np.arange(4 * 6 * 5).reshape(4, 6, 5).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", values.transpose(1, 2, 0).copy(), photometric="rgb", extrasamples=["unspecified"])
    tifffile.imwrite(tmp_path / "b.tif", values, photometric="minisblack", planarconfig="separate")
    for name in ("a", "b"):
        sample = read(tmp_path / f"{name}.tif")
        assert sample.axes == ("y", "x")
        assert np.array_equal(sample.numpy(), values)
    tifffile.imwrite(tmp_path / "c.tif", values.transpose(1, 2, 0).copy(), photometric="rgb", extrasamples=["unassalpha"])
    assert read(tmp_path / "c.tif").meta["channels"] == "RGBA"
