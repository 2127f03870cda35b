"""Capture and hooks on real architectures: complete, unique, and leaving no trace."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_nncf.capture.trace import trace
from lightning_nncf.capture.values import tensors_in
from lightning_nncf.graph.graph import InsertionPoint, NetworkGraph
from lightning_nncf.hooks.insertion import insert, sites, strip
from tests.capture.model_zoo import MODELS, build
from tests.capture.networks import Affine

_SLOW = {"inception_v3", "retinanet", "maskrcnn"}
_WEIGHTED = {"conv1d", "conv2d", "linear", "addmm", "embedding", "conv_transpose2d", "multi_head_attention_forward"}
_ACTIVATIONS = {
    *("relu", "relu_", "gelu", "silu", "hardswish", "softmax", "add", "add_", "mul", "cat", "matmul"),
    *("conv2d", "linear", "batch_norm", "layer_norm", "max_pool2d", "mean", "interpolate", "tanh"),
}


@pytest.fixture(autouse=True)
def _quiet_and_single() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield
    torch.set_num_threads(threads)


def _loss(outputs: object) -> torch.Tensor:
    floating = [tensor for tensor in tensors_in(outputs) if tensor.is_floating_point() and tensor.requires_grad]
    return sum((tensor.float().square().mean() for tensor in floating), torch.zeros(()))


def _call(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], seed: int = 5) -> object:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    return network(*copy.deepcopy(args), **kwargs)


def _step(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    _loss(_call(network, args, kwargs)).backward()
    optimizer.step()
    optimizer.zero_grad()
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _assert_equal(first: object, second: object) -> None:
    pairs = list(zip(tensors_in(first), tensors_in(second), strict=True))
    assert pairs
    assert all(torch.equal(one, other) for one, other in pairs)


def _hook_everything(network: nn.Module, graph: NetworkGraph) -> list[Affine]:
    """Put a module at every weight of the usual ops, and at a third of the usual outputs."""
    modules: list[Affine] = []
    done: set[str] = set()
    for number, op in enumerate(graph.ops()):
        points = [
            InsertionPoint(kind="weight", address=op.address, port=port)
            for port, name in op.parameters.items()
            if op.function in _WEIGHTED and not name.endswith("bias")
        ]
        # Anchors are computed once and kept: a module there would be, too.
        floating = bool(op.outputs) and op.outputs[0].is_floating_point
        if floating and op.function in _ACTIVATIONS and number % 3 == 0 and "anchor" not in op.module:
            points.append(InsertionPoint(kind="output", address=op.address))
        for point in points:
            for site in sites(graph, network, point):
                if site.key not in done:
                    done.add(site.key)
                    modules.append(Affine(1.0 + 1e-3, shift=1e-4))
                    insert(network, site, modules[-1], algorithm="test", priority=1)
    return modules


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in _SLOW else ()) for name in MODELS],
)
def test_model_is_captured_and_restored(name: str) -> None:
    network, args, kwargs = build(name)
    untouched = copy.deepcopy(network)
    parameters = dict(network.named_parameters())
    flags = [module.training for module in network.modules()]
    random_state = torch.get_rng_state()
    state = {key: value.clone() for key, value in network.state_dict().items()}

    graph = trace(network, lambda: network(*copy.deepcopy(args), **kwargs))

    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in network.modules()] == flags
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    addresses = [op.address for op in graph.ops()]
    assert len(addresses) == len(set(addresses))
    for mode in ("train", "eval"):
        assert sum(mode in op.modes for op in graph.ops()) > len(graph) / 10
    in_train = {parameter for op in graph.ops() if "train" in op.modes for parameter in op.parameters.values()}
    assert set(parameters) - in_train == set()
    assert graph.unreached_parameters(network) == []

    modules = _hook_everything(network, graph)
    assert modules
    network.train()
    _loss(_call(network, args, kwargs)).backward()
    weights = {key for key in dict(network.named_parameters()) if key.endswith("weight.test.factor")}
    missing = {key for key in weights if dict(network.named_parameters())[key].grad is None}
    assert weights
    assert not missing
    network.zero_grad(set_to_none=True)
    strip(network)
    network.load_state_dict(state)

    assert list(network.state_dict()) == list(state)
    assert all(parameters[key] is parameter for key, parameter in network.named_parameters())
    assert [type(module) for module in network.modules()] == [type(module) for module in untouched.modules()]
    network.eval()
    untouched.eval()
    with torch.no_grad():
        _assert_equal(_call(network, args, kwargs), _call(untouched, args, kwargs))
    stepped, expected = _step(network, args, kwargs), _step(untouched, args, kwargs)
    assert list(stepped) == list(expected)
    assert [key for key in expected if not torch.equal(stepped[key], expected[key])] == []
