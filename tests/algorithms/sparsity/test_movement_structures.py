"""Masks of transformers agree on heads and hidden channels, which can then be removed from the network."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_nncf import compress
from lightning_nncf.algorithms.pruning.removal import shrink
from lightning_nncf.capture.trace import trace
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.dependencies.groups import make_structure
from lightning_nncf.dependencies.propagation import propagate
from tests.algorithms.sparsity.transformers_zoo import CASES, Case

pytest.importorskip("transformers")

SECTION = {
    "algorithm": "movement_sparsity",
    "params": {"warmup_start_epoch": 0, "warmup_end_epoch": 1, "importance_regularization_factor": 0.1},
}


def make(net: nn.Module, inputs: Any, **section: Any) -> CompressedNetwork:
    torch.manual_seed(1)
    return compress(net, {"compression": {**SECTION, **section}}, [inputs])


def scores_of(compressed: CompressedNetwork) -> dict[str, Tensor]:
    """Scores by layer, some of them below a threshold of 0."""
    algorithm = compressed.algorithms[0]
    found = {}
    for place, module in zip(algorithm.places, algorithm.masks, strict=True):
        module.threshold.zero_()
        with torch.no_grad():
            module.scores.copy_(torch.where(torch.rand(module.scores.shape) < 0.3, -1.0, 1.0))
        found[place.name.removesuffix(".weight")] = module.scores.data
    return found


def masks_of(compressed: CompressedNetwork) -> dict[str, Tensor]:
    algorithm = compressed.algorithms[0]
    pairs = zip(algorithm.places, algorithm.masks, strict=True)
    return {place.name.removesuffix(".weight"): module.kept() for place, module in pairs}


def drop(scores: dict[str, Tensor], rows: tuple[str, ...], columns: str, chosen: slice) -> None:
    """Leave nothing of some rows and of the columns behind them."""
    for name in rows:
        scores[name][chosen] = -1
    scores[columns][:, chosen] = -1


def agreed(case: Case) -> tuple[CompressedNetwork, nn.Module, dict[str, Tensor], int]:
    """A network in which head 1 and hidden channel 5 are gone, head 0 and channel 6 all but one weight."""
    torch.manual_seed(0)
    net = case.make().eval()
    inputs = case.inputs()
    plain = copy.deepcopy(net)
    compressed = make(net, inputs)
    scores = scores_of(compressed)
    *heads, behind = case.attention
    up, down = case.feed_forward
    size = scores[heads[0]].shape[0] // case.heads
    drop(scores, tuple(heads), behind, slice(size, 2 * size))
    drop(scores, tuple(heads), behind, slice(0, size))
    drop(scores, (up,), down, slice(5, 7))
    scores[heads[2]][0, 3] = 1
    scores[down][2, 6] = 1
    compressed.algorithms[0].freeze()
    return compressed, plain, dict(inputs), size


@pytest.mark.parametrize("name", CASES)
def test_layers_drop_a_head_or_hidden_channel_together_or_not_at_all(name: str) -> None:
    case = CASES[name]
    compressed, _, _, size = agreed(case)
    masks = masks_of(compressed)
    *heads, behind = case.attention
    up, down = case.feed_forward
    for layer in heads:
        rows = masks[layer].any(dim=1)
        assert rows.tolist() == [not size <= row < 2 * size for row in range(len(rows))]
    assert torch.equal(masks[behind].any(dim=0), masks[heads[0]].any(dim=1))
    gone = [index for index, kept in enumerate(masks[up].any(dim=1).tolist()) if not kept]
    assert gone == [5]
    assert torch.equal(masks[down].any(dim=0), masks[up].any(dim=1))


@pytest.mark.parametrize("name", CASES)
def test_every_head_and_hidden_channel_of_a_transformer_is_found(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    groups = make(case.make(), case.inputs()).algorithms[0].groups
    found = [tuple(member.name.removesuffix(".weight") for member in group.members) for group in groups]
    assert case.attention in found
    assert case.feed_forward in found
    assert groups[found.index(case.attention)].units == case.heads
    assert sum(len(names) == 4 and "att" in names[0] for names in found) == case.layers


@pytest.mark.parametrize("name", CASES)
def test_nothing_reads_what_the_dropped_rows_compute(name: str) -> None:
    case = CASES[name]
    compressed, _, inputs, _ = agreed(case)
    masks = masks_of(compressed)
    network = compressed.strip()
    with torch.no_grad():
        expected = network(**inputs)[0]
        for layer in (*case.attention[:3], case.feed_forward[0]):
            linear = network.get_submodule(layer)
            gone = ~masks[layer].any(dim=1)
            linear.weight[gone], linear.bias[gone] = 7.0, -3.0
        torch.testing.assert_close(network(**inputs)[0], expected)


# The heads of Swin's table of position biases are written down in its code.
@pytest.mark.parametrize("name", [name for name in CASES if name != "swin"])
def test_what_is_dropped_can_be_removed_from_the_network(name: str) -> None:
    compressed, small, inputs, _ = agreed(CASES[name])
    masks = masks_of(compressed)
    compressed.strip()
    small.load_state_dict(compressed.network.state_dict())
    structure = make_structure(propagate(trace(small, lambda: small(**inputs)), small))
    alive = []
    for group in structure.groups:
        kept = torch.ones(group.units, dtype=torch.bool)
        for member in group.filters:
            mask = masks.get(member.name.removesuffix(".weight"))
            if mask is not None:
                kept[member.units] = mask.any(dim=1)[member.positions]
        alive.append(kept)
    shrink(small, structure, alive)
    assert sum(int((~kept).sum()) for kept in alive) >= 2
    with torch.no_grad():
        expected, found = compressed.network(**inputs)[0], small(**inputs)[0]
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in compressed.network.parameters())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_layers_with_a_partner_outside_the_scopes_keep_their_own_masks() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    compressed = make(net, torch.randn(2, 6), ignored_scopes=["4"])
    scores = scores_of(compressed)
    scores["0"].fill_(1)
    scores["0"][1] = -1
    scores["2"][:, 1] = -1
    own = scores["2"] > 0
    compressed.algorithms[0].freeze()
    masks = masks_of(compressed)
    assert masks["0"].any(dim=1).tolist() == [True, False, True, True]
    assert masks["2"].any(dim=0).tolist() == [True, False, True, True]
    # Rows of the second layer are columns of the ignored one, so that only its columns are structured.
    assert bool(masks["2"][:, [0, 2, 3]].all())
    assert not bool(own[:, [0, 2, 3]].all())
    assert any("keep or drop 4 heads" in line for line in compressed.algorithms[0].summary())


def test_structures_come_back_with_a_checkpoint() -> None:
    case = CASES["bert"]
    torch.manual_seed(0)
    net, inputs = case.make(), case.inputs()
    compressed = make(net, inputs)
    other = case.make()
    restored = CompressedNetwork.restore(other, compressed.config, compressed.structure())
    scores_of(compressed)
    other.load_state_dict(net.state_dict())
    restored.load_state_dict(compressed.state_dict())
    for each in (compressed, restored):
        each.algorithms[0].freeze()
    for name, mask in masks_of(compressed).items():
        assert torch.equal(mask, masks_of(restored)[name]), name
