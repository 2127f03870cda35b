"""FLOPs and parameters left of NNCF's published checkpoints, at 40 % with its defaults and no training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from lightning_nncf import compress
from tests.algorithms.pruning.helpers import shrink_and_compare

GOOGLENET = {"aux_logits": False, "init_weights": False, "transform_input": True}


def _left(name: str, arguments: dict[str, Any], **params: Any) -> tuple[float, float]:
    network = torchvision.models.get_model(name, weights=None, **arguments)
    section = {
        "algorithm": "filter_pruning",
        "pruning_init": 0.4,
        "params": {"pruning_target": 0.4, "schedule": "baseline", **params},
    }
    compressed = compress(network, {"compression": section}, example_inputs=torch.rand(2, 3, 224, 224))
    compressed.epoch_step()
    statistics = compressed.statistics()
    return 100 * statistics["flops_ratio"], 100 * statistics["parameter_ratio"]


@pytest.mark.parametrize(
    ("name", "arguments", "flops", "parameters"),
    [
        ("resnet18", {}, 75.75, 79.02),
        ("resnet34", {}, 69.03, 71.03),
        ("resnet50", {}, 56.00, 62.98),
        ("googlenet", GOOGLENET, 45.48, 52.50),
    ],
)
def test_flops_and_parameters_left_are_the_published_ones(
    name: str, arguments: dict[str, Any], flops: float, parameters: float
) -> None:
    assert _left(name, arguments) == pytest.approx((flops, parameters), abs=0.3)


def test_pruning_producers_of_the_classifier_gives_what_later_versions_of_nncf_give() -> None:
    assert _left("googlenet", GOOGLENET, prune_last_conv=True)[1] == pytest.approx(42.2, abs=0.3)


FAMILIES = {
    "alexnet": 64,
    "vgg11": 32,
    "vgg11_bn": 32,
    "squeezenet1_1": 64,
    "resnet18": 32,
    "resnet50": 64,
    "resnext50_32x4d": 64,
    "wide_resnet50_2": 64,
    "densenet121": 32,
    "googlenet": 64,
    "inception_v3": 299,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "shufflenet_v2_x0_5": 32,
    "mnasnet0_5": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 96,
    "regnet_x_400mf": 64,
    "regnet_y_400mf": 32,
    "convnext_tiny": 32,
    "vit_b_16": 224,
    "swin_t": 64,
    "swin_v2_t": 64,
    "maxvit_t": 224,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_shrunk_network_of_every_torchvision_family_equals_the_masked_one(name: str) -> None:
    torch.manual_seed(0)
    arguments = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network = torchvision.models.get_model(name, weights=None, **arguments)
    x = torch.rand(2, 3, FAMILIES[name], FAMILIES[name], dtype=torch.float64)
    error, before, after = shrink_and_compare(network, lambda net: net(x))
    # Batch norm over two samples of few pixels amplifies rounding; elsewhere float64 leaves nothing to excuse.
    assert error < (1e-8 if name == "efficientnet_v2_s" else 1e-10)
    assert after.flops < before.flops


@pytest.mark.parametrize(
    ("name", "grouping"),
    [
        ("convnext_atto", "nncf"),
        ("convnext_atto", "full"),
        ("efficientnet_b0", "nncf"),
        ("efficientnet_b0", "full"),
        ("vit_tiny_patch16_224", "full"),
    ],
)
def test_shrunk_network_of_timm_equals_the_masked_one(name: str, grouping: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    size = 224 if "vit" in name else 32
    x = torch.rand(2, 3, size, size, dtype=torch.float64)
    error, before, after = shrink_and_compare(timm.create_model(name), lambda net: net(x), grouping=grouping)
    assert error < 1e-10
    assert after.flops < before.flops


def test_shrunk_bert_equals_the_masked_one() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        num_hidden_layers=2, hidden_size=32, num_attention_heads=8, intermediate_size=64, vocab_size=50
    )
    tokens = torch.randint(0, 50, (2, 8))
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[0, 5:] = 0
    network = transformers.BertForSequenceClassification(config)
    error, before, after = shrink_and_compare(network, lambda net: net(input_ids=tokens, attention_mask=mask).logits)
    assert error < 1e-12
    assert after.flops < 0.7 * before.flops


@pytest.mark.slow
def test_shrunk_ssd300_equals_the_masked_one() -> None:
    torch.manual_seed(0)
    network: nn.Module = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None)
    images = [torch.rand(3, 300, 300, dtype=torch.float64)]
    boxes = torch.tensor([[10.0, 10, 100, 100]], dtype=torch.float64)
    targets = [{"boxes": boxes, "labels": torch.tensor([1])}]
    error, _, _ = shrink_and_compare(network, lambda net: net(images, targets))
    assert error < 1e-10
