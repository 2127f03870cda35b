from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_nncf.algorithms.pruning.insertions import beside_weights, channelwise
from lightning_nncf.algorithms.pruning.removal import shrink
from lightning_nncf.errors import HookError
from lightning_nncf.hooks.insertion import HookSite, insert
from tests.algorithms.pruning import networks
from tests.algorithms.pruning.helpers import random_masks, structure_of

WEIGHT = HookSite(kind="weight", module="stem", holder="stem", slot="weight", frame="stem", parameter="weight")
OUTPUT = HookSite(kind="module_output", module="body", holder="body", slot="out", frame="body")


class Scaled(nn.Module):
    """Multiplies by values of a shape, and keeps one number beside."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand(shape) + 0.5)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def with_scale(site: HookSite, *shape: int) -> nn.Module:
    network = networks.Residual()
    insert(network, site, Scaled(*shape), algorithm="demo", priority=1)
    return network


def test_tensors_are_found_at_weights_and_between_layers() -> None:
    beside = beside_weights(with_scale(WEIGHT, 8, 1, 1, 1))
    assert {name: [tuple(t.shape) for t in tensors] for name, tensors in beside.items()} == {
        "stem.weight": [(8, 1, 1, 1)]
    }
    between = channelwise(with_scale(OUTPUT, 1, 8, 1, 1))
    assert {place: [tuple(t.shape) for t in tensors] for place, tensors in between.items()} == {
        "body#out0": [(1, 8, 1, 1)]
    }


@pytest.mark.parametrize(("site", "shape"), [(WEIGHT, (8, 1, 1, 1)), (OUTPUT, (1, 8, 1, 1))], ids=["weight", "output"])
def test_values_of_the_channels_that_stay_are_kept(site: HookSite, shape: tuple[int, ...]) -> None:
    plain = networks.Residual()
    structure = structure_of(plain, lambda network: network(torch.rand(networks.IMAGE)))
    network = with_scale(site, *shape)
    module = network.get_submodule(f"{site.key}.demo")
    masks = random_masks(structure)
    group = next(i for i, g in enumerate(structure.groups) if any(m.name == f"{site.module}.weight" for m in g.filters))
    expected = module.factor.detach().flatten()[masks[group]]
    shrink(network, structure, masks)
    assert torch.equal(module.factor.flatten(), expected)
    assert module.count.shape == (1,)
    assert network(torch.rand(networks.IMAGE)).shape == (2, 2)


def test_values_for_blocks_of_a_weight_are_refused_by_name() -> None:
    structure = structure_of(networks.Residual(), lambda network: network(torch.rand(networks.IMAGE)))
    network = networks.Residual()
    module = Scaled(4, 1, 1, 1)
    module.forward = lambda weight: weight * module.factor.repeat_interleave(2, 0)  # type: ignore[method-assign]
    insert(network, WEIGHT, module, algorithm="demo", priority=1)
    with pytest.raises(HookError, match=r"inserted at stem\.weight keeps a tensor of shape \[4, 1, 1, 1\] for blocks"):
        shrink(network, structure, random_masks(structure))
