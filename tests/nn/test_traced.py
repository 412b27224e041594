"""torch.fx: a layer of ours is one node as a layer of torch.nn is, a function one call, and the graph computes what the network does."""

import copy
import inspect
import operator
import pickle

import pytest
import torch
import torch.fx
import torch.nn.functional as tF
from torch.fx.passes.shape_prop import ShapeProp

import ninefold as nf
import ninefold.functional as F
from ninefold import nn
from ninefold.models import MODELS

from .test_every_layer import NAMES, close, family, make

MADE_OF_LAYERS = {"MLPConv", "ShuffleUnit", "DepthwiseSeparableConv", "SpatiallySeparableConv"}


class Network(torch.nn.Module):
    """One layer as a part of a network, with one input or with the switches of an unpooling beside it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


class Switched(Network):
    def forward(self, x, at):
        return self.layer(x, at)


def network(layer, inputs):
    return (Switched if len(inputs) == 2 else Network)(layer)


def inner(graph):
    return [node for node in graph.nodes if node.op not in ("placeholder", "output", "get_attr")]


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_is_one_node_and_its_graph_computes_it(name):
    layer, inputs = make(name)
    graph = torch.fx.symbolic_trace(network(layer, inputs))
    nodes = inner(graph.graph)
    if family(name) in MADE_OF_LAYERS:
        assert len(nodes) > 1
        assert all(node.op == "call_module" or node.target is torch.cat for node in nodes)
    else:
        assert [(node.op, node.target) for node in nodes] == [("call_module", "layer")]
    want = layer(*inputs)
    for run in (graph, copy.deepcopy(graph), pickle.loads(pickle.dumps(graph)), torch.fx.Interpreter(graph).run):
        close(run(*inputs), want)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_that_is_the_model_itself(name):
    layer, inputs = make(name)
    graph = torch.fx.symbolic_trace(layer)
    assert not any(node.op == "call_module" and node.target == "" for node in graph.graph.nodes)
    close(graph(*inputs), layer(*inputs))
    close(pickle.loads(pickle.dumps(graph))(*inputs), layer(*inputs))


@pytest.mark.parametrize(
    "name",
    [name for name in NAMES if not name.startswith(("Local", "MaxUnpool", "Fold", "Fractional")) and name[-2:] in ("1d", "2d")],
)
def test_a_graph_takes_other_sizes(name):
    layer, (x,) = make(name)
    other = torch.randn(3, 4, *(n + 5 for n in x.shape[2:]), dtype=torch.double)
    close(torch.fx.symbolic_trace(Network(layer))(other), layer(other))


def test_a_converted_network_has_the_graph_it_had():
    torch.manual_seed(0)
    plain = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.ConvTranspose2d(8, 2, 3, 2)
    )
    twin = nf.convert(plain)
    found = [[(n.op, n.target) for n in torch.fx.symbolic_trace(net).graph.nodes] for net in (plain, twin)]
    assert found[1] == found[0]
    graph, x = torch.fx.symbolic_trace(twin), torch.randn(2, 3, 12, 10)
    torch.testing.assert_close(graph(x), plain(x))
    graph(x).sum().backward()
    assert all(p.grad is not None for p in twin.parameters())
    ShapeProp(graph).propagate(x)
    assert [n.meta["tensor_meta"].shape for n in inner(graph.graph)] == [(2, 8, 12, 10)] * 2 + [(2, 8, 6, 5), (2, 2, 13, 11)]


def test_hooks_run_once_when_the_graph_does():
    for register, hook in (
        ("register_forward_hook", lambda _m, _i, out: out * 2),
        ("register_forward_pre_hook", lambda _m, args: (args[0] + 1,)),
    ):
        net = Network(nn.Conv2d(2, 3, (3, 2)))
        getattr(net.layer, register)(hook)
        x = torch.randn(1, 2, 6, 5)
        torch.testing.assert_close(torch.fx.symbolic_trace(net)(x), net(x))


def test_what_surrounds_a_layers_forward_is_done_once():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 2

    patched = nn.MaxPool2d(2)
    original = patched.forward
    patched.forward = lambda x: original(x) + 1
    for layer in (Doubled(2, 3, (3, 2)), patched):
        net, x = Network(layer), torch.randn(1, 2, 6, 4)
        torch.testing.assert_close(torch.fx.symbolic_trace(net)(x), net(x))


def test_a_tracer_sees_the_modules_it_calls():
    class Named(torch.fx.Tracer):
        def __init__(self):
            super().__init__()
            self.called = []

        def call_module(self, m, forward, args, kwargs):
            self.called.append((self.path_of_module(m), type(m)))
            return super().call_module(m, forward, args, kwargs)

    tracer = Named()
    net = torch.nn.Sequential(nn.Conv2d(2, 3, 3), nn.LPPool2d(2, 2))
    graph = tracer.trace(net)
    assert tracer.called == [("0", nn.Conv2d), ("1", nn.LPPool2d)]
    assert [list(node.meta["nn_module_stack"]) for node in inner(graph)] == [["0"], ["1"]]


def test_a_tracer_that_carries_values():
    """Tracers of whole libraries run every node on a meta tensor, so that shapes are numbers."""

    class Carried(torch.fx.Proxy):
        @property
        def shape(self):
            return self.value.shape

    class Carrying(torch.fx.Tracer):
        def proxy(self, node):
            return Carried(node, self)

        def create_proxy(self, kind, target, args, kwargs, *rest, **more):
            proxy = super().create_proxy(kind, target, args, kwargs, *rest, **more)
            values = torch.fx.node.map_aggregate(args, lambda a: a.value if isinstance(a, Carried) else a)
            if kind == "placeholder":
                proxy.value = torch.empty(2, 3, 9, 8, device="meta")
            elif kind == "call_module":
                proxy.value = copy.deepcopy(self.root.get_submodule(target)).to("meta").forward(*values)
            elif kind == "call_function":
                proxy.value = target(*values, **kwargs)
            return proxy

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)

        def forward(self, x):
            x = self.pool(self.conv(x))
            return F.avg_pool2d(x, x.shape[-2:])

    net = Net()
    graph = torch.fx.GraphModule(net, Carrying().trace(net))
    x = torch.randn(2, 3, 9, 8)
    torch.testing.assert_close(graph(x), net(x))


CALLS = {
    "conv2d": lambda f, x: f(x, torch.ones(2, 4, 3, 2), None, 2, "same", padding_mode="symmetric"),
    "conv_transpose2d": lambda f, x: f(x, torch.ones(4, 2, 3, 2), stride=2),
    "locally_connected2d": lambda f, x: f(input=x, weight=torch.ones(2, 5, 4, 4, 2, 2)),
    "tiled_conv2d": lambda f, x: f(x, torch.ones(2, 2, 1, 4, 3, 2)),
    "tiled_conv_transpose2d": lambda f, x: f(x, torch.ones(4, 2, 1, 2, 3, 2)),
    "conv2d_weight": lambda f, x: f(x, (1, 4, 3, 2), torch.ones(2, 1, 4, 4)),
    "conv2d_input": lambda f, x: f((2, 3, 8, 6), torch.ones(4, 3, 3, 2), x),
    "max_pool2d": lambda f, x: f(x, (3, 2), padding="same"),
    "avg_pool2d": lambda f, x: f(x, kernel_size=2),
    "lp_pool2d": lambda f, x: f(x, 3, 2, convention="norm"),
    "gaussian_pool2d": lambda f, x: f(x, 3, sigma=1.0),
    "log_sum_exp_pool2d": lambda f, x: f(x, 3, r=2.0),
    "adaptive_avg_pool2d": lambda f, x: f(x, (3, None), bins="disjoint"),
    "adaptive_max_pool2d": lambda f, x: f(x, 2),
    "spatial_pyramid_pool2d": lambda f, x: f(x, [1, 2]),
    "top_left_unpool2d": lambda f, x: f(x, 2),
    "unfold": lambda f, x: f(x, 2, padding="same", padding_mode="reflect"),
    "fold": lambda f, x: f(x.flatten(2), (7, 6), 2),
    "pad": lambda f, x: f(x, (4, 1), "symmetric"),
    "fractional_max_pool2d": lambda f, x: f(x, 2, output_size=3, _random_samples=torch.full((2, 4, 2), 0.3)),
    "conv_tbc": lambda f, x: f(x[0], torch.ones(2, 5, 3), torch.ones(3)),
    "channel_pool": lambda f, x: f(x, 2),
    "channel_shuffle": lambda f, x: f(x, 2),
    "maxout": lambda f, x: f(x, 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_function_is_one_call(name):
    function, x = getattr(F, name), torch.randn(2, 4, 6, 5)
    graph = torch.fx.symbolic_trace(lambda x: CALLS[name](function, x))
    called = [node for node in inner(graph.graph) if node.target not in ("flatten", operator.getitem)]
    assert [(node.op, node.target) for node in called] == [("call_function", function)]
    assert called[0].name.startswith(name)
    torch.testing.assert_close(graph(x), CALLS[name](function, x))


def test_every_function_hands_itself_over():
    """By the protocol that PyTorch's functions follow, to whatever stands for a tensor, as any of the arguments."""

    class StandIn:
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return function, args, kwargs

    one, x = StandIn(), torch.zeros(2)
    for name in F.__all__:
        function = getattr(F, name)
        assert function(one, 3) == (function, (one, 3), {})
        assert function(x, one) == (function, (x, one), {})
        assert function(x, weight=one) == (function, (x,), {"weight": one})
        assert pickle.loads(pickle.dumps(function)) is function


def test_signatures_are_torchs_with_more_behind():
    for name in set(F.__all__) & set(tF.__all__ if hasattr(tF, "__all__") else dir(tF)):
        try:
            theirs = list(inspect.signature(getattr(tF, name)).parameters)
        except ValueError:  # a builtin, which does not tell
            continue
        assert list(inspect.signature(getattr(F, name)).parameters)[: len(theirs)] == theirs or theirs[:1] == ["args"], name


@pytest.mark.parametrize("name", ["network_in_network", "resnet50", "shufflenet_v1_g3", "large_kernel_net", "deeplab_v1_4x4"])
def test_the_models_of_the_library(name):
    with torch.device("meta"):
        net = MODELS[name]().eval()
    x = torch.empty(2, *net.input_size, device="meta")
    assert torch.fx.symbolic_trace(net)(x).shape == net(x).shape


def test_script_refuses():
    """What ``docs/layers.md`` says of ``torch.jit.script``: it compiles the text of a forward, and cannot compile ours."""
    for layer in (nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.ChannelShuffle(2)):
        with pytest.raises(Exception, match=r"."):
            torch.jit.script(layer)
    plain = torch.jit.script(nf.revert(torch.nn.Sequential(nn.Conv2d(2, 3, 3))))
    assert plain(torch.zeros(1, 2, 5, 4)).shape == (1, 3, 3, 2)
