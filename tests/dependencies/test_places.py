from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from lightning_nncf.capture.trace import trace
from lightning_nncf.dependencies.places import place_of
from lightning_nncf.dependencies.propagation import propagate
from lightning_nncf.graph.graph import INPUT, OUTPUT, InsertionPoint
from lightning_nncf.hooks.insertion import sites
from tests.algorithms.pruning import networks


@pytest.mark.parametrize("cls", list(networks.EXAMPLES), ids=lambda cls: cls.__name__)
def test_every_site_between_layers_finds_the_channels_of_its_tensor(cls: type[nn.Module]) -> None:
    network, x = cls(), torch.rand(networks.EXAMPLES[cls])
    graph = trace(network, lambda: network(x))
    channels = propagate(graph, network).channels
    seen = 0
    for op in graph.ops():
        if op.function in (INPUT, OUTPUT):
            continue
        for kind, tensors in (("input", op.inputs), ("output", op.outputs)):
            for port in range(len(tensors)):
                expected = channels.get(f"{op.address}#{kind.removesuffix('put')}{port}")
                if expected is None:
                    continue
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = sites(graph, network, InsertionPoint(kind=kind, address=op.address, port=port))
                for site in found:
                    axis, entries = channels[place_of(site)]
                    assert (axis, entries.tolist()) == (expected[0], expected[1].tolist())
                    seen += 1
    assert seen > 2


def test_channels_lie_along_the_axis_that_the_layer_produces() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    graph = trace(network, lambda: network(torch.rand(1, 3, 2, 2)))
    channels = propagate(graph, network).channels
    assert {place: (axis, len(entries)) for place, (axis, entries) in channels.items()} == {
        **dict.fromkeys(["0/conv2d:0#out0", "0#out0", "1/relu:0#in0", "1#in0", "1/relu:0#out0", "1#out0"], (1, 4)),
        **dict.fromkeys(["2/conv2d:0#in0", "2#in0"], (1, 4)),
        **dict.fromkeys(["2/conv2d:0#out0", "2#out0", "/output:0#in0"], (1, 2)),
    }
