from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_nncf.algorithms.pruning.masks import WeightMasks
from lightning_nncf.algorithms.pruning.removal import shrink
from lightning_nncf.errors import HookError
from tests.algorithms.pruning import networks
from tests.algorithms.pruning.helpers import (
    all_units,
    difference,
    gradients,
    kept_of,
    random_masks,
    shrink_and_compare,
    structure_of,
)


@pytest.mark.parametrize("cls", list(networks.EXAMPLES), ids=lambda cls: cls.__name__)
def test_shrunk_network_equals_the_masked_one(cls: type[nn.Module]) -> None:
    torch.manual_seed(0)
    x = torch.rand(networks.EXAMPLES[cls], dtype=torch.float64)
    error, before, after = shrink_and_compare(cls(), lambda network: network(x))
    assert error < 1e-12
    assert after.flops < 0.95 * before.flops
    assert after.parameters < before.parameters


@pytest.mark.parametrize("cls", list(networks.EXAMPLES), ids=lambda cls: cls.__name__)
def test_gradients_of_the_shrunk_network_are_those_of_the_masked_one(cls: type[nn.Module]) -> None:
    torch.manual_seed(0)
    x = torch.rand(networks.EXAMPLES[cls], dtype=torch.float64)
    masked = cls().double()
    structure = structure_of(masked, lambda network: network(x))
    masks = random_masks(structure)
    WeightMasks(masked, structure, norms=True, gradients=True).set(masks, all_units(structure))
    small = copy.deepcopy(masked)
    shrink(small, structure, masks)
    expected = kept_of(gradients(masked, lambda network: network(x)), structure, masks)
    got = gradients(small, lambda network: network(x))
    assert expected.keys() == got.keys()
    assert any(bool(gradient.any()) for gradient in got.values())
    assert max(difference(expected[name], got[name]) for name in got) < 1e-12


def _shrunk() -> tuple[nn.Module, list[torch.nn.Parameter]]:
    torch.manual_seed(0)
    network = networks.Residual()
    parameters = list(network.parameters())
    structure = structure_of(network, lambda net: net(torch.rand(networks.IMAGE)))
    shrink(network, structure, random_masks(structure))
    return network, parameters


def test_parameters_stay_the_same_objects_and_attributes_follow_their_sizes() -> None:
    network, parameters = _shrunk()
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))
    assert (network.stem.out_channels, network.norm.num_features, network.body.in_channels) == (5, 5, 5)
    assert (network.inner.out_channels, network.head.in_features) == (5, 5)
    assert network.norm.running_mean.shape == (5,)


def test_shrinking_in_two_steps_equals_shrinking_at_once() -> None:
    torch.manual_seed(0)
    once = networks.Residual()
    twice = copy.deepcopy(once)
    structure = structure_of(once, lambda net: net(torch.rand(networks.IMAGE)))
    masks = random_masks(structure)
    first = [mask.clone() for mask in masks]
    for mask in first:
        mask[torch.nonzero(~mask)[0]] = True
    shrink(once, structure, masks)
    shrink(twice, structure, first)
    shrink(twice, structure, masks, present=first)
    for (name, a), b in zip(once.state_dict().items(), twice.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_network_of_other_sizes_gets_those_of_the_checkpoint() -> None:
    network, _ = _shrunk()
    structure = structure_of(networks.Residual(), lambda net: net(torch.rand(networks.IMAGE)))
    shrink(network, structure, all_units(structure))
    assert network.stem.weight.shape == (8, 3, 3, 3)
    assert network.stem.out_channels == 8
    network.load_state_dict(networks.Residual().state_dict())


def test_channels_last_stays() -> None:
    network = networks.Residual().to(memory_format=torch.channels_last)
    structure = structure_of(network, lambda net: net(torch.rand(networks.IMAGE)))
    shrink(network, structure, random_masks(structure))
    assert network.body.weight.is_contiguous(memory_format=torch.channels_last)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=1e-3, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_after_shrinking_equal_those_of_the_masked_network(name: str) -> None:
    torch.manual_seed(0)
    x = torch.rand(networks.IMAGE, dtype=torch.float64)
    masked = networks.Residual().double()
    structure = structure_of(masked, lambda net: net(x))
    masks = random_masks(structure)
    small = copy.deepcopy(masked)
    pairs = [(network, OPTIMIZERS[name](network.parameters())) for network in (masked, small)]
    weights = [WeightMasks(network, structure, norms=True, gradients=True) for network, _ in pairs]
    losses: list[list[float]] = [[], []]
    for each in weights:
        each.set(masks, all_units(structure))
    for step in range(6):
        if step == 3:
            shrink(small, structure, masks, optimizers=[pairs[1][1]])
            weights[1].set(masks, masks)
        for index, (network, optimizer) in enumerate(pairs):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(x), torch.tensor([0, 1]))
            loss.backward()
            optimizer.step()
            weights[index].apply()
            losses[index].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-10)
    assert losses[0][-1] < losses[0][0]
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in masked.parameters())


def test_optimizer_whose_state_has_other_shapes_is_refused_by_name() -> None:
    network = networks.Residual()
    x = torch.rand(networks.IMAGE)
    optimizer = torch.optim.Adafactor(network.parameters())
    F.cross_entropy(network(x), torch.tensor([0, 1])).backward()
    optimizer.step()
    structure = structure_of(network, lambda net: net(x))
    with pytest.raises(HookError, match=r"Adafactor keeps `.*` of shape .*`shrink_at`"):
        shrink(network, structure, random_masks(structure), optimizers=[optimizer])


def test_masked_weights_stay_zero_and_gather_no_gradient() -> None:
    network = networks.Residual()
    x = torch.rand(networks.IMAGE)
    structure = structure_of(network, lambda net: net(x))
    masks = random_masks(structure)
    weights = WeightMasks(network, structure, norms=True, gradients=True)
    weights.set(masks, all_units(structure))
    F.cross_entropy(network(x), torch.tensor([0, 1])).backward()
    gone = ~masks[0]
    for tensor in (network.stem.weight, network.stem.bias, network.norm.weight, network.norm.bias):
        assert not tensor[gone].any()
        assert tensor.grad is not None
        assert not tensor.grad[gone].any()
    assert network.stem.weight.grad[masks[0]].any()
    weights.remove()
    network.zero_grad()
    F.cross_entropy(network(x), torch.tensor([0, 1])).backward()
    assert network.inner.bias.grad[gone].any()
