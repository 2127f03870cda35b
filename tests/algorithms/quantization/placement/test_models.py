"""Placement on whole networks with random weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lightning_nncf.algorithms.quantization.placement import (
    Constraints,
    GroupSettings,
    PlacementSettings,
    place_quantizers,
)
from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.capture.trace import trace
from lightning_nncf.graph.graph import NetworkGraph

models = pytest.importorskip("torchvision.models")
PICTURE = torch.zeros(2, 3, 64, 64)


def _traced(network: nn.Module, run: Callable[[], object] | None = None) -> tuple[NetworkGraph, QuantizationSetup]:
    graph = trace(network, run or (lambda: network(PICTURE)))
    return graph, place_quantizers(graph)


def _distinct(setup: QuantizationSetup) -> int:
    return setup.count("activation") - sum(len(group) - 1 for group in setup.unified)


def _ops_with_activations(setup: QuantizationSetup) -> set[str]:
    return {op for point in setup.points if point.kind == "activation" for op in point.ops}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # NNCF's totals of weights and activations; then quantizers left when concatenated tensors share one.
        ("resnet50", (54, 71, 71)),
        ("mobilenet_v2", (53, 64, 64)),
        ("squeezenet1_1", (26, 27, 19)),
        # By hand: input, stem, per block one inside and one after it and its residual sum's other side, pooling.
        ("resnet18", (21, 30, 30)),
        # Nine concatenations of four: the tensors that leave the branches share one quantizer.
        ("googlenet", (58, 59, 32)),
    ],
)
def test_totals(name: str, expected: tuple[int, int, int]) -> None:
    extra: dict[str, Any] = {"init_weights": False} if name == "googlenet" else {}
    _, setup = _traced(getattr(models, name)(weights=None, **extra))
    assert (setup.count("weight"), setup.count("activation"), _distinct(setup)) == expected


@pytest.mark.parametrize(("name", "expected"), [("resnet50", 125), ("mobilenet_v2", 117), ("squeezenet1_1", 53)])
def test_four_bits_on_trial_give_the_quantizers_of_nncfs_mixed_precision_rows(name: str, expected: int) -> None:
    network = getattr(models, name)(weights=None)
    weights = Constraints(bits=4, mode="asymmetric", per_channel=name != "resnet50")
    settings = PlacementSettings(
        target_device="TRIAL",
        weights=GroupSettings(constraints=weights),
        activations=GroupSettings(constraints=Constraints(bits=4, mode="asymmetric")),
    )
    setup = place_quantizers(trace(network, lambda: network(PICTURE)), settings)
    assert len(setup.points) == expected
    assert {(point.config.bits, point.config.mode) for point in setup.points} == {(4, "asymmetric")}


def test_both_sides_of_every_residual_sum_are_quantized_where_they_are_made() -> None:
    graph, setup = _traced(models.resnet18(weights=None))
    places = {(point.point.kind, point.point.address) for point in setup.points if point.kind == "activation"}
    sums = [op.address for op in graph.ops() if op.function in ("__iadd__", "add_", "add", "__add__")]
    assert len(sums) == 8
    made_by = {"maxpool/max_pool2d:0": "relu/relu:0"}  # quantizers move through the pooling
    for address in sums:
        sources = [made_by.get(edge.source, edge.source) for edge in graph.inputs_of(address)]
        assert len(sources) == 2
        assert all(("output", source) in places for source in sources)


def test_dense_blocks_share_one_quantizer_each() -> None:
    _, setup = _traced(models.densenet121(weights=None))
    assert setup.count("weight") == 121
    assert len(setup.unified) == 4


def test_auxiliary_classifiers_of_training_are_left_out() -> None:
    network = models.inception_v3(weights=None, init_weights=False)
    _, setup = _traced(network, lambda: network(torch.zeros(2, 3, 299, 299)))
    assert setup.count("weight") == 95
    assert not any(point.point.address.startswith("AuxLogits") for point in setup.points)


def test_frozen_batch_norm_changes_nothing() -> None:
    from torchvision.ops import FrozenBatchNorm2d

    _, setup = _traced(models.resnet50(weights=None, norm_layer=FrozenBatchNorm2d))
    assert (setup.count("weight"), setup.count("activation")) == (54, 71)


def test_resnet50_is_placed_fast_and_the_same_each_time() -> None:
    graph, setup = _traced(models.resnet50(weights=None))
    start = time.process_time()
    again = place_quantizers(graph)
    assert time.process_time() - start < 0.3
    assert again == setup


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_bert(attention: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        attn_implementation=attention,
    )
    network = transformers.BertModel(config)
    ids = torch.zeros(2, 6, dtype=torch.long)
    _, setup = _traced(network, lambda: network(input_ids=ids, attention_mask=torch.ones_like(ids)))
    # Three tables, six matrices a layer, the pooler.
    assert setup.count("weight") == 3 + 2 * 6 + 1
    # Two sums of embeddings and their norm. A layer: query, key, value, context, two matrices, two sums, two norms and
    # the activation function; with eager attention also the softmax.
    inside = {"sdpa": 11, "eager": 12}[attention]
    assert setup.count("activation") == 3 + 2 * inside
    assert not any("tanh" in op for op in _ops_with_activations(setup))


def test_gpt2() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    network = transformers.GPT2LMHeadModel(config)
    _, setup = _traced(network, lambda: network(input_ids=torch.zeros(2, 6, dtype=torch.long)))
    # Two tables, one of them tied to the head; four matrices a layer.
    assert setup.count("weight") == 2 + 2 * 4
    tied = [point for point in setup.points if point.kind == "weight" and "lm_head/linear:0" in point.ops]
    assert [point.point.address for point in tied] == ["transformer.wte/embedding:0"]
    # The activation function is written out in eight ops; only its result is quantized.
    inside = [str(point.point) for point in setup.points if ".mlp.act/" in str(point.point)]
    assert inside == ["transformer.h.0.mlp.act/mul:3", "transformer.h.1.mlp.act/mul:3"]


def _detect(name: str, **settings: Any) -> tuple[NetworkGraph, QuantizationSetup]:
    torch.manual_seed(0)
    network = getattr(models.detection, name)(weights=None, weights_backbone=None, num_classes=3, **settings).eval()
    pictures = [torch.rand(3, 64, 80), torch.rand(3, 60, 64)]
    graph = trace(network, lambda: network(pictures), modes=("eval",))
    return graph, place_quantizers(graph)


@pytest.mark.parametrize(
    ("name", "settings", "layers"),
    [
        ("ssd300_vgg16", {}, 35),
        ("retinanet_resnet50_fpn", {"min_size": 64, "max_size": 96}, 71),
        pytest.param(
            "maskrcnn_resnet50_fpn",
            {"min_size": 64, "max_size": 96, "box_score_thresh": 0.0},
            74,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_detectors_are_quantized_up_to_their_heads(name: str, settings: dict[str, Any], layers: int) -> None:
    graph, setup = _detect(name, **settings)
    assert setup.count("weight") == layers
    weighted = {op.address for op in graph.ops() if op.function in ("conv2d", "conv_transpose2d", "linear")}
    served = _ops_with_activations(setup)
    assert weighted <= served
    # Besides layers: residual and pyramid sums, resizing, region pooling; SSD's normalization of one feature map.
    others = {address.rsplit("/", 1)[1].split(":")[0] for address in served - weighted}
    assert others <= {"add", "__add__", "add_", "__iadd__", "interpolate", "roi_align", "normalize"}
    assert not any(address.startswith(("transform", "anchor_generator")) for address in served)


def test_settings_are_passed_on() -> None:
    network = models.resnet18(weights=None)
    graph = trace(network, lambda: network(PICTURE))
    setup = place_quantizers(graph, PlacementSettings(ignored=lambda address: address.startswith("layer1")))
    assert setup.count("weight") == 21 - 4
    assert not any(point.point.address.startswith("layer1") for point in setup.points if point.kind == "weight")
