from __future__ import annotations

import json
import time

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf.capture.trace import trace
from lightning_nncf.dependencies.groups import Structure, make_structure
from lightning_nncf.dependencies.propagation import propagate
from tests.algorithms.pruning import networks
from tests.algorithms.pruning.helpers import names_of, structure_of


def find(cls: type[nn.Module], **params: object) -> Structure:
    x = torch.rand(networks.EXAMPLES[cls])
    return structure_of(cls(), lambda network: network(x), **params)


def test_residual_addition_joins_the_layers_that_are_added() -> None:
    found = find(networks.Residual)
    assert names_of(found) == [{"stem.weight": 8, "inner.weight": 8}, {"body.weight": 8}]
    assert [group.units for group in found.groups] == [8, 8]
    roles = {member.name: member.role for member in found.groups[0].members}
    assert roles == {
        "stem.weight": "filter",
        "stem.bias": "follower",
        "norm.weight": "norm",
        "norm.bias": "norm",
        "norm.running_mean": "buffer",
        "norm.running_var": "buffer",
        "body.weight": "input",
        "inner.weight": "filter",
        "inner.bias": "follower",
        "head.weight": "input",
    }


def test_concatenation_added_to_one_layer_joins_slices_of_it() -> None:
    found = find(networks.Concat)
    assert names_of(found) == [{"a.weight": 4, "b.weight": 6, "c.weight": 10}]
    member = next(m for m in found.groups[0].members if m.name == "b.weight")
    assert member.units.tolist() == [4, 5, 6, 7, 8, 9]


def test_depthwise_filters_go_with_the_channel_they_read() -> None:
    found = find(networks.Depthwise)
    assert names_of(found) == [{"a.weight": 4, "depth.weight": 8}]
    assert found.groups[0].filters[1].units.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_grouped_convolution_loses_whole_groups() -> None:
    found = find(networks.Grouped)
    assert [group.units for group in found.groups] == [4]
    assert names_of(found) == [{"a.weight": 8, "grouped.weight": 12}]


def test_shared_layer_joins_its_producers() -> None:
    assert names_of(find(networks.Shared)) == [{"stem.weight": 8, "twice.weight": 8}]


@pytest.mark.parametrize("cls", [networks.Chunk, networks.Split])
def test_equal_parts_lose_the_same_channels(cls: type[nn.Module]) -> None:
    group = find(cls).groups[0]
    assert group.units == 4
    assert group.filters[0].units.tolist() == [0, 1, 2, 3] * 2


def test_flattened_channels_are_columns_of_the_linear_layer() -> None:
    member = next(m for m in find(networks.Flatten).groups[0].members if m.name == "head.weight")
    assert (member.dim, member.size) == (1, 64)
    assert member.units.tolist() == [unit for unit in range(4) for _ in range(16)]


def test_group_norm_loses_whole_groups() -> None:
    group = find(networks.Group).groups[0]
    assert (group.units, group.width) == (4, 3)


def test_filters_of_a_transposed_convolution_lie_along_its_second_dimension() -> None:
    found = find(networks.Transposed)
    assert names_of(found) == [{"a.weight": 4}, {"up.weight": 6}]
    assert {m.name: m.dim for m in found.groups[1].members if m.name == "up.weight"} == {"up.weight": 1}


def test_shuffled_channels_keep_halves_of_equal_size() -> None:
    group = find(networks.Shuffle).groups[0]
    assert group.filters[0].units.tolist() == [0, 1, 2, 3] * 2


def test_attention_loses_whole_heads_and_the_mlp_its_width() -> None:
    found = find(networks.Transformer)
    assert [(group.name, group.units) for group in found.groups] == [("qkv.weight", 4), ("up.weight", 16)]
    heads = found.groups[0].filters[0]
    assert heads.units.tolist() == [head for head in range(4) for _ in range(2)] * 3
    assert {(link.attribute, link.divisor, link.factor) for link in found.links if link.module == ""} == {
        ("num_heads", 6, 1),
        ("attn_dim", 6, 2),
    }


def test_layer_norm_keeps_what_it_normalizes() -> None:
    excluded = find(networks.Transformer).excluded
    assert set(excluded) == {"proj.weight", "down.weight"}
    assert excluded["down.weight"].startswith(("output of the network", "arithmetic", "add with", "layer_norm"))


def test_gate_of_a_sigmoid_is_followed_because_the_product_is_zero() -> None:
    found = find(networks.SqueezeExcite)
    assert {"a.weight": 8, "expand.weight": 8} in names_of(found)
    assert {"reduce.weight": 4} in names_of(found)


def test_channels_that_are_not_zero_when_masked_stay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sigmoid(), nn.Conv2d(8, 2, 1))
    found = structure_of(network, lambda net: net(torch.rand(1, 3, 4, 4)))
    assert found.groups == ()
    assert "would not be zero" in found.excluded["0.weight"]


def test_ops_that_are_not_understood_keep_their_channels_and_are_named() -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 8, 1)
            self.b = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.einsum("bchw,bc->bchw", self.a(x), torch.ones(len(x), 8)))

    found = structure_of(Strange(), lambda net: net(torch.rand(1, 3, 4, 4)))
    assert found.excluded["a.weight"] == "`einsum` is not understood (/einsum:0)"
    assert "output of the network" in found.excluded["b.weight"]


def test_layers_inside_fused_attention_are_listed_as_whole() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.MultiheadAttention(8, 2)
            self.up = nn.Linear(8, 8)
            self.down = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(F.relu(self.up(self.a(x, x, x)[0])))

    found = structure_of(Attention(), lambda net: net(torch.rand(networks.TOKENS)))
    assert names_of(found) == [{"up.weight": 8}]
    for name in ("a.in_proj_weight", "a.out_proj.weight"):
        assert found.excluded[name].startswith("`multi_head_attention_forward` is not understood")


def test_nncf_keeps_first_last_strided_and_grouped_convolutions() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 1)
            self.plain = nn.Conv2d(8, 8, 1)
            self.strided = nn.Conv2d(8, 8, 1, stride=2)
            self.before = nn.Conv2d(8, 8, 1)
            self.grouped = nn.Conv2d(8, 8, 1, groups=2)
            self.last = nn.Conv2d(8, 8, 1)
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            for layer in (self.first, self.plain, self.strided, self.before, self.grouped, self.last):
                x = F.relu(layer(x))
            return self.head(x.mean((2, 3)))

    def run(network: nn.Module) -> object:
        return network(torch.rand(1, 3, 4, 4))

    found = structure_of(Net(), run, grouping="nncf")
    assert names_of(found) == [{"plain.weight": 8}]
    assert {name: reason.split(" (")[0] for name, reason in found.excluded.items()} == {
        "first.weight": "first convolution; `prune_first_conv` allows it",
        "strided.weight": "convolution with a stride; `prune_downsample_convs` allows it",
        "before.weight": "grouped convolution",
        "grouped.weight": "grouped convolution; `grouping: full` allows it",
        "head.weight": "linear layer; `grouping: full` allows it",
        "last.weight": "last convolution; `prune_last_conv` allows it",
    }
    switches = {"prune_first_conv": True, "prune_last_conv": True, "prune_downsample_convs": True}
    allowed = structure_of(Net(), run, grouping="nncf", **switches)
    assert [next(iter(names)) for names in names_of(allowed)] == [
        "first.weight", "plain.weight", "strided.weight", "last.weight"
    ]  # fmt: skip
    assert len(structure_of(Net(), run).groups) == 5


def test_structure_survives_json() -> None:
    found = find(networks.Transformer)
    again = Structure.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.to_dict() == found.to_dict()
    assert again.groups[0].filters[0].units.tolist() == found.groups[0].filters[0].units.tolist()


def test_thousand_layers_are_grouped_in_less_than_five_seconds() -> None:
    layers = [nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU()) for _ in range(1000)]

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(layers)

        def forward(self, x: Tensor) -> Tensor:
            for index, layer in enumerate(self.layers):
                x = x + layer(x) if index % 2 else layer(x)
            return x.mean((2, 3))

    network = Deep()
    graph = trace(network, lambda: network(torch.rand(2, 16, 2, 2)))
    started = time.process_time()
    found = make_structure(propagate(graph, network))
    assert time.process_time() - started < 5
    assert sum(len(group.filters) for group in found.groups) + len(found.excluded) == 1000
