"""What the tests of pruning do again and again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_nncf.algorithms.pruning.analysis import analyse
from lightning_nncf.algorithms.pruning.config import FilterPruningConfig
from lightning_nncf.algorithms.pruning.masks import WeightMasks
from lightning_nncf.algorithms.pruning.removal import kept_entries, left_of, select, shrink
from lightning_nncf.capture.trace import trace
from lightning_nncf.config import NNCFConfig
from lightning_nncf.dependencies.groups import Structure
from lightning_nncf.graph.flops import Cost, layer_costs, total

Run = Callable[[nn.Module], object]


def structure_of(network: nn.Module, run: Run, **params: Any) -> Structure:
    graph = trace(network, lambda: run(network))
    return analyse(network, graph, FilterPruningConfig(params={"grouping": "full", **params}), NNCFConfig())


def names_of(structure: Structure) -> list[dict[str, int]]:
    """Return for each group the weights and how many filters of each belong to it."""
    return [{member.name: member.positions.size for member in group.filters} for group in structure.groups]


def randomize(network: nn.Module) -> None:
    """Give every parameter and statistic values at which nothing cancels out, and switch randomness off."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.3)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
        for name in ("p", "drop_prob", "dropout", "attention_dropout", "drop_path_rate"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def random_masks(structure: Structure, seed: int = 0) -> list[Tensor]:
    """Drop about 40 % of the units of each group, at least one and not all."""
    generator = torch.Generator().manual_seed(seed)
    masks = []
    for group in structure.groups:
        count = min(max(round(0.4 * group.units), 1), group.units - 1)
        mask = torch.ones(group.units, dtype=torch.bool)
        mask[torch.randperm(group.units, generator=generator)[:count]] = False
        masks.append(mask)
    return masks


def all_units(structure: Structure) -> list[Tensor]:
    return [torch.ones(group.units, dtype=torch.bool) for group in structure.groups]


def shrink_and_compare(network: nn.Module, run: Run, **params: Any) -> tuple[float, Cost, Cost]:
    """Mask and shrink a network in double precision.

    Returns:
        Largest relative difference of all outputs in eval and train mode and of the statistics that training leaves of
        the channels that stay, and the cost before and after, after being checked against a trace of the shrunk
        network.
    """
    network.double()
    randomize(network)
    graph = trace(network, lambda: run(network))
    config = FilterPruningConfig(params={"grouping": "full", **params})
    structure = analyse(network, graph, config, NNCFConfig())
    assert structure.groups, dict(structure.excluded)
    masks = random_masks(structure)
    WeightMasks(network, structure, norms=True, gradients=False).set(masks, all_units(structure))
    small = copy.deepcopy(network)
    shrink(small, structure, masks)
    costs = layer_costs(graph)
    after = total(costs, left_of(structure, masks, {layer.weight: layer.shape for layer in costs}))
    assert total(layer_costs(trace(small, lambda: run(small)))) == after
    worst = 0.0
    for mode in ("eval", "train"):
        expected, statistics = _run(network, run, mode)
        got, left = _run(small, run, mode)
        kept = kept_of(statistics, structure, masks)
        pairs = [*zip(expected, got, strict=True), *((kept[name], left[name]) for name in left)]
        worst = max([worst, *(difference(masked, shrunk) for masked, shrunk in pairs)])
    return worst, total(costs), after


def difference(expected: Tensor, got: Tensor) -> float:
    """Return the largest difference, relative to the largest value if that is above 1."""
    return float((expected - got).abs().max()) / max(1.0, float(expected.abs().max())) if expected.numel() else 0.0


def gradients(network: nn.Module, run: Run) -> dict[str, Tensor]:
    """Return the gradients of a loss that all outputs have a part in, in train mode."""
    copied = copy.deepcopy(network).train()
    loss = torch.stack([leaf.square().mean() + leaf.mean() for leaf in _floats(run(copied))]).sum()
    loss.backward()
    return {name: p.grad for name, p in copied.named_parameters() if p.grad is not None}


def kept_of(tensors: Mapping[str, Tensor], structure: Structure, masks: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return what the shrunk network has of tensors by the name of their parameter or buffer."""
    index: dict[str, dict[int, Tensor]] = {}
    for (name, dim), stays in kept_entries(structure, masks).items():
        index.setdefault(name, {})[dim] = torch.from_numpy(stays).nonzero()[:, 0]
    return {name: select(tensor, index.get(name, {})) for name, tensor in tensors.items()}


def _run(network: nn.Module, run: Run, mode: str) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the outputs of a copy in a mode, and its buffers afterwards."""
    copied = copy.deepcopy(network).train(mode == "train")
    torch.manual_seed(0)
    with torch.no_grad():
        found = _floats(run(copied))
    return found, {name: buffer for name, buffer in copied.named_buffers() if buffer.is_floating_point()}


def _floats(output: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
