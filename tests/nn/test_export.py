"""Every layer becomes an ONNX graph that computes the same; skipped where the exporter or its runtime is missing."""

import importlib.util
from pathlib import Path

import pytest
import torch

from ninefold import nn

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
runtime = pytest.importorskip("onnxruntime")

BATCH = torch.export.Dim("batch", min=2, max=64)


def loaded():
    path = Path(__file__).parent / "test_every_layer.py"
    spec = importlib.util.spec_from_file_location("examples_of_every_layer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


every = loaded()


def exported(layer, inputs, open_dims):
    shapes = tuple(dict(open_dims) for _ in inputs)
    return torch.onnx.export(layer, inputs, dynamo=True, dynamic_shapes=shapes, verbose=False).model_proto


def check(layer, graph, inputs):
    session = runtime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {given.name: x.numpy() for given, x in zip(session.get_inputs(), inputs, strict=True)})
    torch.testing.assert_close(torch.from_numpy(got), layer(*inputs).detach(), rtol=1e-4, atol=1e-5)


def refusal_of_a_normalisation(layer):
    """What torch says of the layer's batch normalisation alone: 2.6 with a newer onnxscript exports none."""
    norm = next((m for m in layer.modules() if isinstance(m, torch.nn.BatchNorm2d)), None)
    if norm is None:
        return None
    try:
        exported(norm, (torch.randn(2, norm.num_features, 3, 4),), {0: BATCH})
    except torch.onnx.OnnxExporterError as error:
        return error
    return None


@pytest.mark.parametrize("name", every.FLAT)
def test_a_graph_with_an_open_batch_has_the_operators_the_table_names(name):
    layer, inputs = every.make(name)
    layer, inputs = layer.float(), tuple(x.float() if x.is_floating_point() else x for x in inputs)
    if every.table.row(every.family(name)).onnx == "none":
        with pytest.raises(Exception, match="ONNX|decompos"):
            exported(layer, inputs, {0: BATCH})
        return
    if (theirs := refusal_of_a_normalisation(layer)) is not None:
        with pytest.raises(type(theirs), match="batch_norm"):
            exported(layer, inputs, {0: BATCH})
        return
    graph = exported(layer, inputs, {0: BATCH})
    wanted = every.table.row(every.family(name)).onnx.split(", ")
    assert set(wanted) <= {node.op_type for node in graph.graph.node}
    assert {node.domain for node in graph.graph.node} <= {""}
    check(layer, graph, tuple(torch.cat((x, x[:1])) for x in inputs))


def test_a_plan_for_another_engine_does_not_reach_the_graph():
    layer, x = nn.Conv2d(8, 8, 31, padding=15, groups=8).eval(), torch.randn(2, 8, 33, 40)
    graph = exported(layer, (x,), {0: BATCH})
    assert "Conv" in {node.op_type for node in graph.graph.node}
    check(layer, graph, (x,))


def test_sizes_are_left_open_where_the_graph_can_and_refused_where_not():
    sizes = {2: torch.export.Dim("height", min=4, max=99)}
    layer, x = nn.Conv2d(4, 3, (3, 2), 2, padding=1).eval(), torch.randn(2, 4, 9, 7)
    graph = exported(layer, (x,), sizes)
    pool = nn.GaussianPool2d((3, 2), 2, 1, sigma=0.7)
    for height in (6, 7, 20):
        check(layer, graph, (torch.randn(2, 4, height, 7),))
        check(pool, exported(pool, (x,), sizes), (torch.randn(2, 4, height, 7),))
    for refused, words in (
        (nn.TiledConv2d(4, 3, (3, 2), period=2), "which kernel a position has"),
        (nn.Conv2d(4, 3, (3, 2), 2, padding="same"), "padding='same_upper'"),
        (nn.MaxPool2d((3, 2), 2, "same"), "padding='same_upper'"),
        (nn.AvgPool2d(3, 2, ceil_mode="cover", dilation=2), "ceil_mode='cover'"),
    ):
        with pytest.raises(Exception, match="torch.export|ONNX") as caught:
            exported(refused.eval(), (x,), sizes)
        told, error = "", caught.value
        while error is not None:
            told, error = told + str(error), error.__cause__
        assert words in told
        assert "export for one size" in told
        check(refused, exported(refused, (x,), {}), (x,))
