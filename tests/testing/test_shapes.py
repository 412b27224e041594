from pathlib import Path

import pytest

from ninefold.errors import ArgumentError
from ninefold.spec import ConvSpec
from ninefold.testing import load_shapes

SHAPES = Path(__file__).parents[2] / "bench" / "shapes"
GOOD = 'name = "a"\nbatch = 2\nsize = [7, 9]\nin_channels = 2\nout_channels = 3\nkernel_size = [3, 5]'


def write(folder, *tables, name="dense.toml"):
    path = folder / name
    path.write_text("".join(f"[[shape]]\n{table}\n" for table in tables))
    return path


def test_fields_and_defaults(tmp_path):
    more = '\ngroup = "x"\nmap = ["g", "c"]\ndtype = "float64"\npadding = [[1, 0], [-1, 2]]\ncontract = false'
    first, second = load_shapes(write(tmp_path, GOOD, GOOD.replace('"a"', '"b"') + more))
    assert (first.name, first.group, first.batch, first.size, str(first)) == ("a", "dense", 2, (7, 9), "a")
    assert (first.spec, first.contract, first.maps, first.dtype) == (
        ConvSpec(2, 3, (3, 5)),
        True,
        ("c", "h", "g"),
        "float32",
    )
    assert (second.group, second.maps, second.dtype, second.contract) == ("x", ("c", "g"), "float64", False)
    assert second.spec.padding == ((1, 0), (-1, 2))
    assert hash(first) != hash(second)
    assert first.macs == first.problem("c").macs == 2 * first.form.macs


def test_unshared_periods_and_tables(tmp_path):
    unshared = GOOD + '\nperiod = "unshared"'
    mixed = GOOD.replace('"a"', '"b"') + '\nperiod = ["unshared", 2]'
    table = GOOD.replace('"a"', '"c"') + "\ntable = [[0, 1], [2, 0]]"
    first, second, third = load_shapes(write(tmp_path, unshared, mixed, table))
    assert (first.spec.period, second.spec.period) == ((None, None), (None, 2))
    assert third.spec.table == ((0, 1), (2, 0))


def test_large_shapes_are_left_to_the_benchmarks(tmp_path):
    (shape,) = load_shapes(write(tmp_path, GOOD.replace("[7, 9]", "[700, 900]")))
    assert not shape.contract
    (shape,) = load_shapes(write(tmp_path, GOOD.replace("[7, 9]", "[700, 900]") + "\ncontract = true"))
    assert shape.contract


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (GOOD.replace('name = "a"\n', ""), "shape number 1: needs a name"),
        (GOOD.replace('"a"', "3"), "shape number 1: needs a name, a string that is not empty, got 3"),
        (GOOD.replace("batch = 2\n", ""), "shape 'a': lacks batch"),
        (GOOD + "\nsteps = 2", "shape 'a': unknown fields steps; there are name, group, batch"),
        (GOOD + "\nstride = 0", "shape 'a': stride must be at least 1, got 0"),
        (GOOD + "\nstride = 1.5", "shape 'a': stride must be a whole number, got 1.5"),
        (GOOD + "\ngroups = 5", "shape 'a': groups=5 must divide"),
        (GOOD.replace("batch = 2", "batch = -1"), "shape 'a': batch must be at least 0, got -1"),
        (GOOD.replace("[7, 9]", "[7]"), "shape 'a': size must hold 2 spatial sizes"),
        (GOOD.replace("[7, 9]", "[2, 9]"), "shape 'a': kernel 3 with dilation 1 spans 3 positions"),
        (GOOD + '\nmap = ["c", "x"]', "shape 'a': map=['c', 'x'] must be a list out of c, h, g"),
        (GOOD + "\nmap = []", "shape 'a': map=[] must be a list"),
        (GOOD + '\ndtype = "float31"', "shape 'a': dtype='float31' is not one of float64"),
        (GOOD + "\ncontract = 1", "shape 'a': contract must be true or false, got 1"),
        (GOOD + "\ngroup = 1", "shape 'a': group must be a string, got 1"),
        (GOOD + '\nperiod = "never"', "shape 'a': period"),
    ],
)
def test_each_mistake_is_one_sentence_with_file_and_shape(tmp_path, table, says):
    path = write(tmp_path, table)
    with pytest.raises(ArgumentError) as caught:
        load_shapes(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {says}"), message
    assert "\n" not in message


def test_mistakes_of_the_file(tmp_path):
    def message(path):
        with pytest.raises(ArgumentError) as caught:
            load_shapes(path)
        return str(caught.value)

    assert "there is no such file" in message(tmp_path / "none.toml")
    assert "holds no TOML file" in message(tmp_path)
    broken = tmp_path / "broken.toml"
    broken.write_text("[[shape]\n")
    assert message(broken).startswith(f"{broken}: not a TOML file")
    broken.write_bytes(b"\xff\xfe\x00")
    assert message(broken).startswith(f"{broken}: not a TOML file")
    broken.write_text("[shape]\nname = 'a'\n")
    assert "[[shape]] with double brackets" in message(broken)
    broken.write_text("shapes = 3\n")
    assert "unknown keys shapes" in message(broken)
    broken.unlink()
    write(tmp_path, GOOD)
    write(tmp_path, GOOD, name="other.toml")
    assert message(tmp_path).endswith(f"shape 'a' is already in {tmp_path / 'dense.toml'}; names are unique")


def test_the_published_shapes():
    shapes = {shape.name: shape for shape in load_shapes(SHAPES)}
    groups = {shape.group for shape in shapes.values()}
    assert len(groups) == 17
    bench = [shape for shape in shapes.values() if shape.group != "contract"]
    assert 60 <= len(bench) <= 80
    assert {"c", "h", "g"} == {m for shape in bench for m in shape.maps}
    long = shapes["depthwise-1d-k1024-256"]
    assert (long.form.input_shape(long.batch), long.form.output_shape(4)) == ((4, 256, 2048), (4, 256, 2048))
    assert shapes["one-31x31-1024"].form.n_out == (1024, 1024)
    assert shapes["one-1d-k1001-1e6"].form.n_out == (1_000_000,)
    unshared = shapes["unshared-3x3-16-32-b16"]
    assert unshared.form.weight_shape == (32, 30, 30, 16, 3, 3)
    small = [shape for shape in shapes.values() if shape.contract]
    assert {shape.spec.ndim for shape in small} == {1, 2, 3}
    assert {shape.spec.padding_mode for shape in small} == {"zeros", "reflect", "symmetric", "replicate", "circular"}
    assert any(shape.batch == 0 for shape in small)
    assert any(shape.spec.table for shape in small)
