"""Constant sparsity."""

from __future__ import annotations

import torch

from lightning_nncf.core.stage import CompressionStage
from tests.algorithms.sparsity.networks import batch, make, multistep, network


def test_zeros_of_a_stripped_network_stay_zeros_in_training() -> None:
    net = network()
    sparse = {"algorithm": "magnitude_sparsity", "params": multistep(0.5, 0.5)}
    make(sparse, net).strip()
    pattern = net[7].weight.detach() != 0
    compressed = make({"algorithm": "const_sparsity"}, net)
    assert compressed.stage == CompressionStage.FULLY_COMPRESSED
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for seed in range(3):
        optimizer.zero_grad()
        net(batch(seed)).square().sum().backward()
        optimizer.step()
    with torch.no_grad():
        net[7].weight.add_(1.0)
    assert torch.equal(compressed.strip()[7].weight != 0, pattern)


def test_frozen_layers_are_allowed() -> None:
    net = network()
    net[0].weight.requires_grad_(False)
    assert len(make({"algorithm": "const_sparsity"}, net).algorithms[0].masks) == 3
