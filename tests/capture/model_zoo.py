"""The networks that capture is checked on: real architectures with random weights and small inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import nn

__all__ = ["MODELS", "build"]

Case = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]


class Dynamic(nn.Module):
    """Branches on data and loops a data-dependent number of times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.other = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(2 + int(x.sum() > -1e9)):
            x = self.layer(x) + x.unsqueeze(0).squeeze(0)
        return torch.relu(self.other(x)) if x.sum() < 1e9 else x


def _image(name: str, size: int = 64, batch: int = 2, **options: Any) -> Callable[[], Case]:
    def make() -> Case:
        model = getattr(torchvision.models, name)(weights=None, **options)
        return model, (torch.rand(batch, 3, size, size),), {}

    return make


def _timm(name: str, size: int = 64, **options: Any) -> Callable[[], Case]:
    def make() -> Case:
        timm = _import("timm")
        return timm.create_model(name, pretrained=False, **options), (torch.rand(2, 3, size, size),), {}

    return make


def _detector(name: str, size: int = 96, **options: Any) -> Callable[[], Case]:
    def make() -> Case:
        model = getattr(torchvision.models.detection, name)(
            weights=None, weights_backbone=None, num_classes=4, **options
        )
        target: dict[str, torch.Tensor] = {
            "boxes": torch.tensor([[5.0, 5.0, 50.0, 60.0], [20.0, 10.0, 80.0, 70.0]]),
            "labels": torch.tensor([1, 2]),
            "masks": torch.ones(2, size, size, dtype=torch.uint8),
        }
        return model, ([torch.rand(3, size, size)] * 2, [dict(target), dict(target)]), {}

    return make


def _import(name: str) -> Any:
    import importlib

    import pytest

    pytest.importorskip(name)
    return importlib.import_module(name)


def _text(model: str, config: str, **options: Any) -> Callable[[], Case]:
    def make() -> Case:
        transformers = _import("transformers")
        settings = getattr(transformers, config)(vocab_size=100, **options)
        inputs = {"input_ids": torch.randint(2, 100, (2, 12)), "attention_mask": torch.ones(2, 12, dtype=torch.long)}
        return getattr(transformers, model)(settings), (), inputs

    return make


_BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}

MODELS: dict[str, Callable[[], Case]] = {
    "dynamic": lambda: (Dynamic(), (torch.rand(3, 8),), {}),
    "resnet18": _image("resnet18"),
    "resnet50": _image("resnet50"),
    "inception_v3": _image("inception_v3", 299, init_weights=False),
    "googlenet": _image("googlenet", init_weights=False),
    "squeezenet1_1": _image("squeezenet1_1"),
    "mobilenet_v2": _image("mobilenet_v2"),
    "densenet121": _image("densenet121"),
    "bert": _text("BertForSequenceClassification", "BertConfig", **_BERT),
    "gpt2": _text("GPT2LMHeadModel", "GPT2Config", n_embd=32, n_layer=2, n_head=2, n_positions=32),
    "distilbert": _text(
        "DistilBertForSequenceClassification", "DistilBertConfig", dim=32, n_layers=2, n_heads=2, hidden_dim=64
    ),
    "mobilebert": _text(
        "MobileBertForSequenceClassification",
        "MobileBertConfig",
        num_hidden_layers=2,
        hidden_size=32,
        intra_bottleneck_size=16,
        embedding_size=16,
        intermediate_size=32,
        num_attention_heads=2,
    ),
    "roberta": _text("RobertaForSequenceClassification", "RobertaConfig", max_position_embeddings=40, **_BERT),
    "swin_t": _image("swin_t"),
    "vit_b_16": lambda: (
        torchvision.models.VisionTransformer(32, 16, 2, 2, 32, 64, num_classes=7),
        (torch.rand(2, 3, 32, 32),),
        {},
    ),
    "ssd300_vgg16": _detector("ssd300_vgg16"),
    "retinanet": _detector("retinanet_resnet50_fpn", min_size=96, max_size=96),
    "maskrcnn": _detector("maskrcnn_resnet50_fpn", min_size=96, max_size=96),
    "timm_efficientnet_b0": _timm("efficientnet_b0"),
    "timm_convnext_atto": _timm("convnext_atto"),
    "timm_vit_tiny": _timm("vit_tiny_patch16_224", img_size=64),
    "timm_resnetv2_50": _timm("resnetv2_50"),
    "timm_mobilenetv3": _timm("mobilenetv3_small_100"),
    "timm_levit_128s": _timm("levit_128s", 224),
    "timm_swinv2": _timm("swinv2_tiny_window8_256", img_size=64),
}


def build(name: str) -> Case:
    """Return a network by its name in `MODELS` with the arguments of one call, the same every time."""
    torch.manual_seed(0)
    return MODELS[name]()
