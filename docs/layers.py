"""Write the table of every layer, ``layers.md``: ``python docs/layers.py``. Tests hold each row to what it says."""

import re
from dataclasses import dataclass
from pathlib import Path

from ninefold import nn

PAGE = Path(__file__).with_suffix(".md")


@dataclass(frozen=True)
class Row:
    """What a family of layers promises.

    Parameters
    ----------
    name : str
        Without the number of axes.
    called : str
        What the book or a paper calls it.
    definition : str
        What it is tested against.
    onnx : str
        Operators that its exported graph has, the main ones.
    order : {"any", "2"}
        How often it can be differentiated: as often as one likes, or as often as is tested.
    unbatched : bool
        Whether it also takes one example without a batch.
    formats : str
    note : str, optional
    """

    name: str
    called: str
    definition: str
    onnx: str
    order: str = "any"
    unbatched: bool = True
    formats: str = "kept"
    note: str = ""


_C, _H, _POOL = "`reference.c`", "`reference.h`", "`reference.pool`"
_CHANNELS = "`reference.channel_pool`"

ROWS = (
    Row("Conv", "convolution, eq. 9.4 and 9.7; strided, eq. 9.8", _C, "Conv"),
    Row("ConvTranspose", "transposed convolution, the map h of eq. 9.13", _H, "ConvTranspose", note="a"),
    Row("LazyConv", "the same, with the input channels of its first call", _C, "Conv"),
    Row("LazyConvTranspose", "the same, with the input channels of its first call", _H, "ConvTranspose", note="a"),
    Row("LocallyConnected", "unshared convolution, eq. 9.9", _C, "Gather, MatMul", note="b"),
    Row("LocallyConnectedTranspose", "h of eq. 9.13 for eq. 9.9", _H, "MatMul, ScatterND", note="b"),
    Row("TiledConv", "tiled convolution, eq. 9.10 (Gregor and LeCun 2010)", _C, "Gather, MatMul", note="b"),
    Row("TiledConvTranspose", "h of eq. 9.13 for eq. 9.10", _H, "MatMul, ScatterND", note="b"),
    Row("ChannelTableConv", "fig. 9.15; C3 of LeNet-5 (LeCun et al. 1998)", _C, "Conv"),
    Row("PointwiseGroupConv", "1x1 convolution in groups (Zhang et al. 2017)", _C, "Conv"),
    Row("DepthwiseSeparableConv", "depthwise separable (Howard et al. 2017; Chollet 2017)", f"{_C}, stage by stage", "Conv"),
    Row("SpatiallySeparableConv", "separable kernels, section 9.8 (Jaderberg et al. 2014)", f"{_C} of the dense kernel", "Conv"),
    Row("MLPConv", "mlpconv, Network in Network (Lin et al. 2013)", f"{_C}, layer by layer", "Conv"),
    Row("ResizeConv", "resize-convolution (Odena et al. 2016)", f"repeated elements, then {_C}", "Resize, Conv"),
    Row("ConvStage", "convolution, detector, pooling: fig. 9.7", f"{_C}, then torch in that order", "Conv, MaxPool, Relu", "2"),
    Row("ChannelShuffle", "channel shuffle (Zhang et al. 2017)", "the permutation", "Transpose", "2", unbatched=False, note="c"),
    Row(
        "ShuffleUnit",
        "ShuffleNet unit (Zhang et al. 2017)",
        f"{_C} and the permutation, stage by stage",
        "Conv, Transpose",
        unbatched=False,
        note="c, d",
    ),
    Row("MaxPool", "max pooling, section 9.3", _POOL, "MaxPool", "2"),
    Row("AvgPool", "average pooling, section 9.3", _POOL, "Add, Div", "2"),
    Row("LPPool", "pooling by a norm, section 9.3", _POOL, "Pow, Add", "2"),
    Row("FractionalMaxPool", "max pooling at random steps (Graham 2014)", "`reference.pool_fractions`", "none", "2"),
    Row("GaussianPool", "average weighted by distance, section 9.3", _POOL, "Mul, Add", "2"),
    Row("LogSumExpPool", "log-sum-exp pooling (Pinheiro and Collobert 2015)", _POOL, "Exp, Log", "2"),
    Row("AdaptiveAvgPool", "pooling to a grid, fig. 9.11", "`reference.pool_bins`", "ReduceSum, Div", "2"),
    Row("AdaptiveMaxPool", "pooling to a grid, fig. 9.11", "`reference.pool_bins`", "ReduceMax", "2"),
    Row(
        "SpatialPyramidPool",
        "spatial pyramid pooling (He et al. 2014)",
        "`reference.pool_bins`",
        "ReduceMax",
        "2",
        unbatched=False,
        formats="a vector",
        note="c",
    ),
    Row(
        "ChannelPool", "pooling over channels, fig. 9.9", "`reference.channel_pool`", "ReduceMean", "2", unbatched=False, note="c"
    ),
    Row("MaxOut", "maxout (Goodfellow et al. 2013)", "`reference.channel_pool`", "ReduceMax", "2", unbatched=False, note="c"),
    Row("MaxUnpool", "unpooling with switches (Zeiler and Fergus 2014)", "`reference.unpool`", "ScatterND", "2", note="e"),
    Row("TopLeftUnpool", "unpooling without switches, section 20.10.6", "`reference.unpool_top_left`", "Pad", "2"),
    Row("Unfold", "patches as columns: a convolution as a product", "`reference.unfold`", "Gather", "any", formats="columns"),
    Row("Fold", "the adjoint of `Unfold`", "`reference.fold`", "ScatterND", "any", formats="an image"),
    Row(
        "LocalContrastNorm",
        "local contrast normalisation (Jarrett et al. 2009)",
        "the formula, with windows of SciPy's",
        "Conv, Div",
        "2",
    ),
)

_TEXT = """# Every layer

A row per family of `ninefold.nn`. This page is written by `python docs/layers.py`; `tests/nn/test_every_layer.py` holds every
layer to it on a tiny example, in float64, with strides, borders and groups.

* **Definition**: what the results are compared with. `reference` is NumPy, one readable loop per formula.
* **Gradients**: *any* where every gradient is again a map of the same form, so that there is no last one (three are tested); *2*
  where first and second gradients are tested.
* **One example**: whether an input without a batch is taken, too. Empty batches are taken by all.
* **ONNX**: the main operators of the graph that `torch.onnx.export(layer, ..., dynamo=True)` writes, with an open batch; it gives
  the layer's results under ONNX Runtime (PyTorch 2.13, onnx 1.23.2, onnxscript 0.7.2, ONNX Runtime 1.32).
* **Memory**: whether a channels-last input gives a channels-last output.

All layers run in three ways with the same values and gradients: eagerly, under `torch.compile(fullgraph=True)`, and under
`torch.func`, `grad` under `vmap`. All can be pickled, copied and loaded, and show their arguments.

## What tools see

| tool | a layer of `ninefold.nn` | a function of `ninefold.functional` |
| --- | --- | --- |
| `torch.fx.symbolic_trace`, and what stands on it | one `call_module` node, as torch's (a) | one `call_function` node |
| hooks, `named_modules`, summaries | a module like any other, planned layers a subclass of torch's | |
| `torch.compile` | PyTorch's operations, and opaque operators `ninefold::c`, `h`, `g` | the same |
| `torch.export`, `make_fx` | the same; `import ninefold` before loading what was exported | the same |
| `torch.onnx.export(dynamo=True)` | PyTorch's operations only, see below | the same |
| `torch.jit.trace` | PyTorch's operations, for the traced size | the same |
| `torch.jit.script` | refused by PyTorch, which cannot compile such code: `nf.revert` first | refused |
| flop counters (`FlopCounterMode`) | twice the multiply-adds of the definition | the same |
| tensor subclasses and modes by `__torch_function__` | the operators that are called inside | the same |
| in-place functions behind it, `relu_`, `+=` | allowed, as behind PyTorch's | the same |

(a) `MLPConv`, `ShuffleUnit`, `DepthwiseSeparableConv` and `SpatiallySeparableConv` are the nodes that they are made of. A layer
that is the model itself, that has hooks, or whose `forward` a subclass overrides is traced into function calls, its parameters
beside them.

## The layers

Only `FractionalMaxPool`, which is random, has no operators in ONNX; no layer has to be exchanged by `nf.revert` first.
PyTorch's older exporter, `dynamo=False`, records by `torch.jit.trace`, which knows one size only: there a convolution that would
be wrong at another is refused, with the reason; poolings beyond torch's are recorded for the traced size alone, and
`LogSumExpPool` and `MaxUnpool` have no operators.

"""
_NOTES = """
a. Third gradients through `output_padding` exist eagerly only: PyTorch's own convolution, which `torch.func` takes, has none and
says so.

b. Which position has which kernel is written into the graph, so that its spatial sizes are fixed; to export with open ones is
refused. The same holds for convolutions with a border by policy, uneven, or continued by a mode, and for poolings with
`padding="same"` or a `ceil_mode` beyond torch's where they have a stride.

c. Dimension 1 holds the channels. For one example `ChannelPool` and `MaxOut` take `dim=-3`.

d. In `eval()`: `torch.func.vmap` refuses to update running statistics.

e. PyTorch's unpooling has no rule for `vmap`, which runs it example by example, with a warning.
"""


def row(name: str) -> Row:
    """Return the row of a family."""
    return next(row for row in ROWS if row.name == name)


def text() -> str:
    """Return the page."""
    head = ("layer", "axes", "what it is", "definition", "gradients", "one example", "ONNX", "memory")
    lines = [_line(head), _line(("---",) * len(head))]
    for row in ROWS:
        found = (re.fullmatch(row.name + r"(?:(\d)d)?", name) for name in nn.__all__)
        axes = ", ".join(match[1] for match in found if match and match[1])
        notes = f" ({row.note})" if row.note else ""
        one = "yes" if row.unbatched else "no"
        cells = (f"`{row.name}`{notes}", axes or "-", row.called, row.definition, row.order, one, row.onnx, row.formats)
        lines.append(_line(cells))
    return _TEXT + "\n".join(lines) + "\n" + _NOTES


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(text())
