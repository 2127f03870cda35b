"""What a trace records and what it leaves behind."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_nncf.capture.trace import trace
from lightning_nncf.errors import CaptureError
from lightning_nncf.graph.graph import NetworkGraph
from tests.capture.networks import Net


def _sources(graph: NetworkGraph, address: str) -> list[tuple[str, int]]:
    return [(edge.source, edge.port) for edge in graph.inputs_of(address)]


class Function(nn.Module):
    """Runs a function."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> object:
        return self.function(*args)


def _trace(function: object, *args: torch.Tensor) -> NetworkGraph:
    net = Function(function)
    return trace(net, lambda: net(*args))


def test_addresses_parameters_and_edges_of_a_residual_network() -> None:
    net = Net()
    graph = trace(net, lambda: net(torch.rand(2, 3, 6, 6)))
    block = ["conv1/conv2d:0", "relu/relu:0", "conv2/conv2d:0", "/add:0", "relu@1/relu:0", "/add:1", "/gelu:0"]
    expected = ["/input:0", "stem/conv2d:0"]
    for number in (0, 1):
        expected += [f"blocks.{number}" + (name if name[0] == "/" else "." + name) for name in block]
    assert [op.address for op in graph.ops()] == [*expected, "/mean:0", "head/linear:0", "/output:0"]
    assert graph["blocks.0.conv1/conv2d:0"].parameters == {1: "blocks.0.conv1.weight", 2: "blocks.0.conv1.bias"}
    assert graph["blocks.0.conv1/conv2d:0"].module_type == "Conv2d"
    assert _sources(graph, "blocks.0/add:0") == [("blocks.0.conv2/conv2d:0", 0), ("stem/conv2d:0", 1)]
    assert _sources(graph, "blocks.1/add:0") == [("blocks.1.conv2/conv2d:0", 0), ("blocks.0/gelu:0", 1)]
    assert graph["head/linear:0"].inputs[0].shape == (2, 4)
    assert all(op.modes == {"train", "eval"} for op in graph.ops())


def test_changes_in_place_keep_the_data_flow() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y += 1
        y[:, 0] = 0.0
        y[:, 1].mul_(3)
        F.relu(y, inplace=True)
        return y.sigmoid()

    graph = _trace(function, torch.rand(2, 3))
    chain = ["/mul:0", "/add_:0", "/__setitem__:0", "/__getitem__:0", "/mul_:0", "/relu:0", "/sigmoid:0"]
    assert [op.address for op in graph.ops()] == ["/input:0", *chain, "/output:0"]
    for source, target in itertools.pairwise(chain):
        assert _sources(graph, target)[0] == (source, 0)


def test_operations_that_return_their_argument_are_told_from_it() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = x.relu()
        return y.contiguous() + y

    graph = _trace(function, torch.rand(2, 3))
    assert _sources(graph, "/contiguous:0") == [("/relu:0", 0)]
    assert _sources(graph, "/add:0") == [("/contiguous:0", 0), ("/relu:0", 1)]


def test_dropout_is_one_node_in_both_modes() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 3))
    graph = trace(net, lambda: net(torch.rand(2, 3)))
    assert graph["1/dropout:0"].modes == {"train", "eval"}
    assert _sources(graph, "2/linear:0") == [("1/dropout:0", 0)]


def test_metadata_makes_no_nodes() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        assert x.dim() == 2
        assert x.size(0) == len(x) == x.shape[0]
        assert x.dtype == torch.float32
        assert x.is_floating_point()
        return x.view(x.numel(), 1).T

    graph = _trace(function, torch.rand(2, 3))
    assert [op.address for op in graph.ops()] == ["/input:0", "/view:0", "/T:0", "/output:0"]


def test_attributes_have_names_and_plain_values() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, torch.ones(4, 1, 3, 3), None, 2, groups=2, padding=(1, 0))
        x = x.permute(0, 2, 3, 1).reshape(2, -1).view([2, -1])
        x = torch.cat([x, x], 1).flatten(1)
        return x.mean(dim=1, keepdim=True).to(torch.float64)[:, 0]

    graph = _trace(function, torch.rand(2, 2, 8, 8))
    attributes = {op.function: dict(op.attributes) for op in graph.ops()}
    assert attributes["conv2d"] == {"stride": 2, "groups": 2, "padding": [1, 0]}
    assert attributes["permute"] == {"dims": [0, 2, 3, 1]}
    assert attributes["reshape"] == {"shape": [2, -1]}
    assert attributes["view"] == {"size": [2, -1]}
    assert attributes["cat"] == {"dim": 1}
    assert attributes["flatten"] == {"start_dim": 1}
    assert attributes["mean"] == {"dim": 1, "keepdim": True}
    assert attributes["to"] == {"dtype": "float64"}
    assert _sources(graph, "/cat:0") == [("/view:0", 0), ("/view:0", 1)]


@pytest.mark.parametrize("name", ["__pow__", "__ipow__"])
def test_operators_that_are_methods_of_c_are_recorded(name: str) -> None:
    graph = _trace(lambda x: getattr(x.clone(), name)(2), torch.rand(2, 3))
    attributes = {op.function: dict(op.attributes) for op in graph.ops()}
    assert attributes[{"__pow__": "pow", "__ipow__": "pow_"}[name]] == {"exponent": 2}


def test_views_of_parameters_flow_as_ordinary_nodes() -> None:
    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(x, self.weight.t())

    net = Transposed()
    graph = trace(net, lambda: net(torch.rand(2, 3)))
    assert graph["/t:0"].parameters == {0: "weight"}
    assert graph["/linear:0"].parameters == {}
    assert _sources(graph, "/linear:0") == [("/input:0", 0), ("/t:0", 1)]


def test_everything_is_as_before() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")

    class WithMetric(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
            self.metric = torchmetrics.MeanMetric()
            self.frozen = nn.BatchNorm2d(4).eval()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.frozen(self.net(x))
            self.metric(out.mean())
            return out

    torch.manual_seed(0)
    net = WithMetric()
    outside = torchmetrics.MeanMetric()
    outside.update(3.0)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    random_state = torch.get_rng_state()

    graph = trace(net, lambda: outside(net(torch.ones(2, 3, 6, 6)).sum()))

    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert net.training
    assert not net.frozen.training
    assert net.metric._update_count == 0
    assert net.metric.mean_value.item() == 0
    assert outside._update_count == 1
    assert outside.compute() == 3.0
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert "net.1/add_:0" not in graph


def test_network_whose_children_are_used_directly_is_recorded_whole() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(2, 2)
            self.decoder = nn.Linear(2, 2)

        def training_step(self, batch: torch.Tensor) -> torch.Tensor:
            return F.mse_loss(self.decoder(torch.tanh(self.encoder(batch))), self.encoder(batch))

    net = Parts()
    batch = torch.rand(3, 2)
    graph = trace(net, lambda: net.training_step(batch))
    assert graph.example_inputs is None
    functions = {"encoder/linear:0", "/tanh:0", "decoder/linear:0", "/mse_loss:0"}
    assert {op.address for op in graph.ops()} == {"/input:0", *functions}
    assert _sources(graph, "decoder/linear:0") == [("/tanh:0", 0)]
    assert _sources(graph, "encoder/linear:0") == [("/input:0", 0)]


def test_functions_outside_the_network_are_left_out_and_example_inputs_kept() -> None:
    net = nn.Linear(2, 2)
    x = torch.rand(3, 2)
    graph = trace(net, lambda: torch.tanh(net(input=x * 1.0)).sum())
    assert [op.address for op in graph.ops()] == ["/input:0", "/linear:0", "/output:0"]
    assert graph.example_inputs is not None
    args, kwargs = graph.example_inputs
    assert args == ()
    assert torch.equal(kwargs["input"], x)
    assert kwargs["input"] is not x


def test_several_calls_of_the_network_share_addresses() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    graph = trace(net, lambda: (net(torch.rand(1, 2)), net(net(torch.rand(1, 2)))))
    assert [op.address for op in graph.ops()] == ["/input:0", "0/linear:0", "1/relu:0", "/output:0"]


def test_a_batch_of_one_is_no_obstacle() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    graph = trace(net, lambda: net(torch.rand(1, 2)))
    assert graph["1/batch_norm:0"].modes == {"train", "eval"}


def test_failure_in_one_mode_is_said_and_in_both_an_error() -> None:
    class OnlyEval(nn.Module):
        def __init__(self, fails_in_eval: bool) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.fails_in_eval = fails_in_eval

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training or self.fails_in_eval:
                raise KeyError("targets")
            return self.layer(x)

    net = OnlyEval(False)
    with pytest.warns(UserWarning, match=r"failed in train mode.*KeyError: 'targets'"):
        graph = trace(net, lambda: net(torch.rand(1, 2)))
    assert graph["layer/linear:0"].modes == {"eval"}
    net.fails_in_eval = True
    with pytest.raises(CaptureError, match="KeyError: 'targets'"):
        trace(net, lambda: net(torch.rand(1, 2)))
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_parameters_that_no_operation_reaches_are_named() -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    net.spare = nn.Parameter(torch.ones(1))
    net.forward = lambda x: net[0](x)
    with pytest.warns(UserWarning, match="1 parameter.*spare"):
        graph = trace(net, lambda: net(torch.rand(1, 2)))
    assert graph.unreached_parameters(net) == ["spare"]


def test_data_parallel_is_refused() -> None:
    net = nn.DataParallel(nn.Linear(2, 2))
    with pytest.raises(CaptureError, match=r"nn\.DataParallel.*DistributedDataParallel"):
        trace(net, lambda: net(torch.rand(1, 2)))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_parameters_of_unknown_size_are_named_with_the_cure(mode: str) -> None:
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(CaptureError, match=r"2 parameters and buffers .* '1\.weight': run one batch"):
        trace(net, lambda: net(torch.rand(1, 2)), modes=[mode])
    net(torch.rand(1, 2))
    assert "1/linear:0" in trace(net, lambda: net(torch.rand(1, 2)), modes=[mode])


def test_modules_made_in_forward_belong_to_their_maker() -> None:
    graph = _trace(lambda x: nn.Softmax(dim=-1)(x), torch.rand(2, 3))
    assert "/softmax:0" in graph


def test_boundaries_are_known_only_where_no_one_else_reads_inside() -> None:
    net = Net()
    graph = trace(net, lambda: net(torch.rand(2, 3, 6, 6)))
    assert graph.frames["blocks.0.relu@1"].outputs == {("blocks.0.relu@1/relu:0", 0): 0}
    # The block's input goes to its convolution and to the addition.
    assert graph.frames["blocks.0"].inputs == {}
    assert graph.frames["blocks.0.conv1"].inputs == {("blocks.0.conv1/conv2d:0", 0): 0}
    assert graph.frames["blocks.0"].outputs == {("blocks.0/gelu:0", 0): 0}
