"""Pictures against the definitions: every line, cell and number that is drawn is one of the spec, and none is missing."""

from collections import Counter

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import ninefold as nf
from ninefold import drawing, nn, reference
from ninefold.drawing.style import FAINT, MARK, colour, letter
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.spec import ConvSpec, PoolSpec, coverage, receptive_field
from ninefold.spec.padding import MODES


def one(kernel, **more):
    return ConvSpec(1, 1, (kernel,), **more)


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def rendered(figure):
    """Draw it, so that what matplotlib refuses late is refused here, and return it."""
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    return figure


LINES = {
    "valid": (one(3), 7),
    "strided, dilated": (one(3, stride=2, dilation=2, padding=((1, 2),)), 9),
    "circular": (one(4, padding="same", padding_mode="circular"), 6),
    "unshared": (one(2, period=None), 6),
    "tiled": (one(2, period=3), 8),
    "transposed": (one(3, stride=2, transposed=True, padding=1), 4),
}


@pytest.mark.parametrize(("spec", "size"), LINES.values(), ids=LINES)
def test_every_line_is_a_term_of_the_form_in_the_colour_of_its_weight(spec, size):
    axes = rendered(drawing.connectivity(spec, size)).axes[0]
    form = spec.form(size)
    outputs, inputs, weights = reference.terms(form)
    above, below = (inputs, outputs) if spec.transposed else (outputs, inputs)
    count = int(np.prod(form.weight_shape))
    expected = Counter((a, b, colour(w, count)) for a, b, w in zip(above.tolist(), below.tolist(), weights.tolist(), strict=True))
    step = 1 / spec.stride[0] if spec.transposed else spec.stride[0]
    lines = axes.collections[0]
    start = min(y[1][0] for y in lines.get_segments())
    border = {}
    for text in axes.texts:
        if text.get_text().isdigit():
            border[float(text.get_position()[0])] = None if spec.padding_mode == "zeros" else int(text.get_text())
    found = Counter()
    for (low, high), ink in zip(lines.get_segments(), lines.get_colors(), strict=True):
        source = border.get(low[0], int(low[0]))
        if source is not None:
            found[round((high[0] - start) / step) + min(above), source, to_hex(ink)] += 1
    assert found == expected


def test_letters_name_the_weights():
    assert Counter(texts(drawing.connectivity(one(3), 6))) == {"a": 4, "b": 4, "c": 4}
    assert Counter(texts(drawing.connectivity(one(2, period=2), 6))) == {"a": 3, "b": 3, "c": 2, "d": 2}
    assert Counter(texts(drawing.connectivity(one(2, period=None), 6))) == dict.fromkeys("abcdefghij", 1)
    assert texts(drawing.connectivity(PoolSpec((2,), stride=1), 6)) == []


def test_a_dense_layer_is_an_unshared_one_that_reaches_everywhere():
    axes = rendered(drawing.connectivity(one(9, padding=4, period=None), 5, border=False)).axes[0]
    ends = {(low[0], high[0]) for low, high in axes.collections[0].get_segments()}
    assert ends == {(i, j) for i in range(5) for j in range(5)}


def lit(axes, level):
    """Return the places at a level that are drawn in the colour of what takes part."""
    dots = [c for c in axes.collections if not hasattr(c, "get_segments") and c.get_offsets()[0][1] == level]
    return sorted(c.get_offsets()[0][0] for c in dots if [to_hex(f) for f in c.get_facecolor()] == [MARK])


def test_what_an_output_reads_and_what_an_input_feeds():
    axes = drawing.connectivity([one(3), one(3)], 9, reads=2).axes[0]
    levels = sorted({c.get_offsets()[0][1] for c in axes.collections if not hasattr(c, "get_segments")})
    assert [lit(axes, level) for level in levels] == [[2, 3, 4, 5, 6], [3, 4, 5], [4]]
    axes = drawing.connectivity([one(3), one(3)], 9, feeds=3).axes[0]
    assert [lit(axes, level) for level in levels] == [[3], [2, 3, 4], [2, 3, 4, 5]]
    inks = {to_hex(c) for lines in axes.collections if hasattr(lines, "get_segments") for c in lines.get_colors()}
    assert inks == {FAINT, MARK}


@pytest.mark.parametrize("rates", [(1, 2, 4), (2, 2, 2), (1, 2, 5), (1, 2, 9)], ids=str)
def test_a_receptive_field_says_what_the_chain_says(rates):
    chain = [one(3, dilation=d) for d in rates]
    (extent,) = receptive_field(chain)
    figure = rendered(drawing.receptive_field(chain, extent + 3))
    (used,) = coverage(chain)
    assert texts(figure)[0] == f"{used[0]} of {used[1]}"
    assert texts(figure)[-1] == "1"


def test_a_receptive_field_through_strides_poolings_and_torch_layers():
    layers = [torch.nn.Conv1d(1, 1, 3, stride=2, padding=1), torch.nn.MaxPool1d(2), one(3, padding=1)]
    figure = rendered(drawing.receptive_field(layers, 24, output=2))
    assert [t for t in texts(figure) if "of" in t] == ["13 of 13", "6 of 6", "3 of 3"]


MATRICES = {
    "valid": (one(3), 7),
    "channels": (ConvSpec(2, 3, (2, 3), stride=(1, 2)), (3, 5)),
    "groups": (ConvSpec(4, 6, (3,), groups=2), 5),
    "transposed": (ConvSpec(2, 3, (3,), stride=2, transposed=True), 4),
    "symmetric": (one(5, padding=2, padding_mode="symmetric"), 6),
}


@pytest.mark.parametrize(("spec", "size"), MATRICES.values(), ids=MATRICES)
def test_a_matrix_has_a_cell_per_entry_divided_among_its_weights(spec, size):
    figure = rendered(drawing.matrix(spec, size))
    boxes = figure.axes[0].collections[0]
    count = int(np.prod(spec.weight_shape(size)))
    painted = {}
    for path, fill in zip(boxes.get_paths(), boxes.get_facecolors(), strict=True):
        (x, y), width = path.vertices[0], path.vertices[1][0] - path.vertices[0][0]
        painted.setdefault((int(y), int(x + 1e-9)), []).append((to_hex(fill), round(width, 6)))
    for w in range(min(count, 5)):
        unit = torch.zeros(count).index_fill(0, torch.tensor(w), 1.0).reshape(spec.weight_shape(size))
        matrix = nf.conv_matrix(spec, size, weight=unit).tocoo()
        expected = {(r, c) for r, c, v in zip(matrix.row, matrix.col, matrix.data, strict=True) if v}
        assert {at for at, strips in painted.items() if colour(w, count) in dict(strips)} == expected
    assert all(sum(width for _, width in strips) == pytest.approx(1, abs=1e-4) for strips in painted.values())
    assert len(painted) == len(set(zip(matrix.row, matrix.col, strict=True)))


def test_a_matrix_too_large_to_be_seen_is_refused():
    with pytest.raises(ArgumentError, match="connections are too many to be seen; draw a smaller input_size"):
        drawing.matrix(ConvSpec(1, 1, 3), 200)


def test_kernels_by_position():
    tiled = ConvSpec(1, 1, (2, 2), period=(2, 3))
    assert texts(drawing.kernels(tiled, (4, 6)))[:6] == ["a", "b", "c", "a", "b", "d"]
    assert set(texts(drawing.kernels(ConvSpec(1, 1, (2, 2)), (4, 6)))) == {"a"}
    assert texts(drawing.kernels(one(2, period=None), 5)) == ["a", "b", "c", "d"]
    layer = nn.TiledConv2d(2, 3, (2, 3), period=2)
    figure = rendered(drawing.kernels(layer, (4, 6)))
    weight = layer.weight.detach()[0, :, :, 0]
    low, high = weight.min(), weight.max()
    pictures = [np.asarray(im.get_array()) for im in figure.axes[0].images]
    assert len(pictures) == 3 * 4
    for k, picture in enumerate(pictures):
        y, x = divmod(k, 4)
        shade = (weight[y % 2, x % 2] - low) / (high - low)
        blue = (1 - picture[..., 0]) / (1 - picture[..., 0]).max()  # darkness on a scale, whatever the hue
        order = np.argsort((0.12 + 0.88 * shade.numpy()).ravel())
        assert np.array_equal(order, np.argsort(blue.ravel()))
    with pytest.raises(ArgumentError, match="over 1 or 2 spatial axes, not 3"):
        drawing.kernels(ConvSpec(1, 1, (2, 2, 2)), 3)


def test_borders_are_those_of_the_modes():
    written = texts(rendered(drawing.borders(3, 2)))
    for row, (name, mode) in enumerate(MODES.items()):
        places = [mode(i, 3) for i in range(-2, 5)]
        assert written[8 * row : 8 * row + 8] == [name, *("0" if p is None else letter(p) for p in places)]


def test_overlaps_are_counted_over_both_axes():
    spec = ConvSpec(1, 1, (3, 2), stride=2, transposed=True)
    rows, columns = spec.overlap((2, 3))
    assert texts(rendered(drawing.overlap(spec, (2, 3)))) == [str(a * b) for a in rows for b in columns]


def test_windows_are_those_that_pooling_reads():
    pool = PoolSpec((3,), stride=2, ceil_mode=True)
    figure = rendered(drawing.pooling_regions(pool, 6, values=[0.1, 1, 0.2, 0.1, 0, 0.1]))
    assert texts(figure)[6:] == ["1", "0.2", "0.1"]  # figure 9.10
    bars = [p for p in figure.axes[0].patches if p.get_height() < 1 and p.get_linewidth() == 0]
    (axis,) = pool.axes(6)
    reads = [[i for i in axis.reads(j) if i is not None] for j in range(3)]
    assert [(round(b.get_x() + 0.42), round(b.get_width() + 0.16)) for b in bars] == [(r[0], len(r)) for r in reads]
    average = drawing.pooling_regions(torch.nn.AvgPool1d(2), 4, values=[1, 2, 5, 8])
    assert texts(average)[4:] == ["1.5", "6.5"]
    assert texts(drawing.pooling_regions([(0, 22), (21, 43), (42, 64)], 64)) == ["0 to 21", "21 to 42", "42 to 63"]
    with pytest.raises(ShapeError, match="there are 2 values for 4 positions"):
        drawing.pooling_regions(PoolSpec((2,)), 4, values=[1, 2])
    with pytest.raises(ArgumentError, match="along 1 axis"):
        drawing.pooling_regions(PoolSpec((2, 2)), 4)


def test_channels_are_joined_as_the_edges_say():
    table = ConvSpec(4, 3, 1, table=((0, 0), (0, 1), (1, 1), (2, 3)))
    lines = rendered(drawing.channels(table)).axes[0].collections[0]
    places = [(x + 0.5) * 4 / 4 - 0.5 for x in range(4)], [(k + 0.5) * 4 / 3 - 0.5 for k in range(3)]
    found = {
        (places[1].index(pytest.approx(high[0])), places[0].index(pytest.approx(low[0]))) for low, high in lines.get_segments()
    }
    assert found == set(table.table)
    inks = [to_hex(c) for c in lines.get_colors()]
    assert inks[0] == inks[1] == inks[2] != inks[3]
    shuffled = drawing.channels([ConvSpec(6, 6, 1, groups=3), nn.ChannelShuffle(3)]).axes[0].collections[1]
    assert [(round(low[0]), round(high[0])) for low, high in shuffled.get_segments()] == [
        (0, 0), (2, 1), (4, 2), (1, 3), (3, 4), (5, 5)
    ]  # fmt: skip
    with pytest.raises(ArgumentError, match="layer 1 reads 4 channels, but the one before it gives 3"):
        drawing.channels([table, table])
    with pytest.raises(ArgumentError, match="ChannelShuffle alone tells no number of channels"):
        drawing.channels(nn.ChannelShuffle(3))
    with pytest.raises(ArgumentError, match="ReLU6 is neither one convolution nor a permutation of 9 channels"):
        drawing.channels([ConvSpec(2, 9, 1), torch.nn.ReLU6()])


def test_maps_share_a_scale_and_curves_carry_their_names():
    figure = rendered(drawing.maps({"a": torch.ones(2, 3), "b": torch.full((2, 3), 4.0)}))
    assert [ax.images[0].get_clim() for ax in figure.axes] == [(0, 4), (0, 4)]
    figure = rendered(
        drawing.curves({"max": ([1, 2, 4], [0, 3, 1]), "average": ([1, 4], [1, 1])}, across="P", up="gap", log=True)
    )
    assert texts(figure) == ["max", "average"]
    assert figure.axes[0].get_xscale() == "log"
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0, 3, 1]


def test_pictures_go_where_they_are_told_to():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert drawing.connectivity(one(3), 5, ax=left, title="a layer") is figure
    assert drawing.matrix(one(3), 5, ax=right) is figure
    assert left.get_title("left") == "a layer"


def test_what_cannot_be_drawn_is_refused_in_words():
    with pytest.raises(ArgumentError, match="units are drawn along 1 axis with 1 channel"):
        drawing.connectivity(ConvSpec(1, 1, 3), 5)
    with pytest.raises(ArgumentError, match="over 1 or 2 spatial axes, not 3"):
        drawing.overlap(ConvSpec(1, 1, (2, 2, 2)), 4)


@pytest.mark.parametrize("how", [{"reads": "3"}, {"reads": 5}, {"feeds": -1}, {"feeds": 7}])
def test_a_unit_that_is_none_is_refused(how):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=r"to follow|numbered from 0"):
        drawing.connectivity(ConvSpec(1, 1, (3,)), 7, **how)


def test_what_there_is_none_of_is_not_drawn():
    with pytest.raises(ArgumentError, match="0 layers"):
        drawing.connectivity([], 7)
    with pytest.raises(ArgumentError, match="0 regions"):
        drawing.pooling_regions([], 7)
    for region in (3, (3,), (3, 3), "ab", (0, 2.5)):
        with pytest.raises(ArgumentError, match="a region is a pair"):
            drawing.pooling_regions([region], 7)
