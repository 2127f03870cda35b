"""What the rows are without any training: bits, sparsity, FLOPs and parameters are the published ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from example_modules.networks import build_network
from lightning_nncf import compress
from lightning_nncf.algorithms.sparsity.rb import RBSparsity
from lightning_nncf.core.compressed import CompressedNetwork
from scripts.zoo.rows import CONFIGS, ROWS

QUANTIZED = {"resnet50": 125, "mobilenet_v2": 117, "squeezenet1_1": 53}
# One row per network and algorithm is quick enough for every run of the tests.
QUICK = ("mobilenet_v2_int8_rb52", "squeezenet1_1_mixed_int", "resnet18_pruned_magnitude", "resnet18_xnor")


def _compress(name: str, size: int) -> CompressedNetwork:
    """Bring a row's network to the end of its schedule, its weights random and never trained."""
    settings = ROWS[name].settings()
    model = settings["model"]["init_args"]
    network = build_network(model["network"], 1000, **model.get("network_args", {}))
    config: dict[str, Any] = settings["trainer"]["callbacks"][0]["init_args"]["config"]
    compressed = compress(network, config, example_inputs=torch.rand(2, 3, size, size))
    compressed.activate()
    for _ in range(settings["trainer"]["max_epochs"]):
        compressed.epoch_step()
        for algorithm in compressed.algorithms:
            if isinstance(algorithm, RBSparsity) and algorithm.scheduler.current_epoch == 5:
                _step_masks(algorithm)
    return compressed


def _step_masks(algorithm: RBSparsity, steps: int = 35) -> None:
    """Let masks follow their level; they move at most 2 % of the weights in a step."""
    for _ in range(steps):
        for mask in algorithm.masks:
            mask.logits.grad = torch.zeros_like(mask.logits)
        algorithm.before_optimizer_step()


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parents[1])


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ROWS]
)
def test_structure_is_the_published_one(name: str) -> None:
    row = ROWS[name]
    size = 299 if "inception" in name else 224 if row.flops_left is not None else 64
    compressed = _compress(name, size)
    found = compressed.statistics()
    if row.quantizers is not None:
        kinds = ("weight", "activation")
        bits = {width: sum(int(found.get(f"{kind}_bits_{width}", 0)) for kind in kinds) for width in (8, 4)}
        assert sum(bits.values()) == row.quantizers == QUANTIZED[name.partition("_int8")[0].partition("_mixed")[0]]
        assert bits[8] == (row.quantizers if row.eight_bits is None else row.eight_bits)
    if row.sparsity is not None:
        (masking,) = (each for each in compressed.algorithms if isinstance(each, RBSparsity))
        weights = sum(mask.logits.numel() for mask in masking.masks)
        assert abs(masking.sparsity() - row.sparsity) * weights <= 1
    if row.flops_left is not None:
        assert 100 * found["flops_ratio"] == pytest.approx(row.flops_left, abs=0.3)
        assert 100 * found["parameter_ratio"] == pytest.approx(row.parameters_left, abs=0.3)
    if name.endswith(("xnor", "dorefa")):
        assert found["binarized_macs"] == pytest.approx(0.92, abs=0.02)
