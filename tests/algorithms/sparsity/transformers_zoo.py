"""Small transformers of Hugging Face, with the weights that their first layer must keep or drop together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["CASES", "Case"]

HEADS = 4


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network.

    Args:
        make: Builds it.
        inputs: Keyword arguments of a call.
        attention: Names of query, key, value and the projection behind them in the first layer, without ``.weight``.
        feed_forward: Names of a linear layer and the next.
        heads: Heads in the first layer.
        layers: Attentions in the network.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[], Mapping[str, torch.Tensor]]
    attention: tuple[str, str, str, str]
    feed_forward: tuple[str, str]
    heads: int = HEADS
    layers: int = 2


def _network(model: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        network: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**options))
        return network

    return make


def _tokens() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(2, 100, (2, 12)), "attention_mask": torch.ones(2, 12, dtype=torch.long)}


def _pixels(size: int) -> Callable[[], dict[str, torch.Tensor]]:
    return lambda: {"pixel_values": torch.rand(2, 3, size, size)}


_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": 48}
_TEXT = {"vocab_size": 100, **_SIZES}
_PATCHES = {"image_size": 16, "patch_size": 4, **_SIZES}


def _layer(prefix: str, *names: str) -> Any:
    return tuple(f"{prefix}.{name}" for name in names)


_BERT_ATTENTION = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
_BERT_FEED_FORWARD = ("intermediate.dense", "output.dense")

CASES: dict[str, Case] = {
    "bert": Case(
        make=_network("BertForSequenceClassification", "BertConfig", **_TEXT),
        inputs=_tokens,
        attention=_layer("bert.encoder.layer.0", *_BERT_ATTENTION),
        feed_forward=_layer("bert.encoder.layer.0", *_BERT_FEED_FORWARD),
    ),
    "roberta": Case(
        make=_network("RobertaForSequenceClassification", "RobertaConfig", max_position_embeddings=40, **_TEXT),
        inputs=_tokens,
        attention=_layer("roberta.encoder.layer.0", *_BERT_ATTENTION),
        feed_forward=_layer("roberta.encoder.layer.0", *_BERT_FEED_FORWARD),
    ),
    "distilbert": Case(
        make=_network(
            "DistilBertForSequenceClassification",
            "DistilBertConfig",
            vocab_size=100,
            dim=32,
            n_layers=2,
            n_heads=HEADS,
            hidden_dim=48,
        ),
        inputs=_tokens,
        attention=_layer("distilbert.transformer.layer.0.attention", "q_lin", "k_lin", "v_lin", "out_lin"),
        feed_forward=_layer("distilbert.transformer.layer.0.ffn", "lin1", "lin2"),
    ),
    "mobilebert": Case(
        make=_network(
            "MobileBertForSequenceClassification",
            "MobileBertConfig",
            vocab_size=100,
            num_hidden_layers=2,
            hidden_size=32,
            intra_bottleneck_size=16,
            embedding_size=16,
            intermediate_size=24,
            num_attention_heads=HEADS,
        ),
        inputs=_tokens,
        attention=_layer("mobilebert.encoder.layer.0", *_BERT_ATTENTION),
        feed_forward=_layer("mobilebert.encoder.layer.0", *_BERT_FEED_FORWARD),
    ),
    "wav2vec2": Case(
        make=_network(
            "Wav2Vec2ForSequenceClassification",
            "Wav2Vec2Config",
            conv_dim=(16, 16),
            conv_stride=(5, 2),
            conv_kernel=(10, 3),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            mask_time_prob=0.0,
            layerdrop=0.0,
            **_SIZES,
        ),
        inputs=lambda: {"input_values": torch.randn(2, 400)},
        attention=_layer("wav2vec2.encoder.layers.0.attention", "q_proj", "k_proj", "v_proj", "out_proj"),
        feed_forward=_layer("wav2vec2.encoder.layers.0.feed_forward", "intermediate_dense", "output_dense"),
    ),
    "swin": Case(
        make=_network(
            "SwinForImageClassification",
            "SwinConfig",
            image_size=32,
            patch_size=2,
            embed_dim=16,
            depths=(2, 2),
            num_heads=(2, 4),
            window_size=4,
            mlp_ratio=2.0,
        ),
        inputs=_pixels(32),
        attention=_layer("swin.encoder.layers.0.blocks.0.attention", "q_proj", "k_proj", "v_proj", "o_proj"),
        feed_forward=_layer("swin.encoder.layers.0.blocks.0.mlp", "fc1", "fc2"),
        heads=2,
        layers=4,
    ),
    "vit": Case(
        make=_network("ViTForImageClassification", "ViTConfig", **_PATCHES),
        inputs=_pixels(16),
        attention=_layer("vit.layers.0.attention", "q_proj", "k_proj", "v_proj", "o_proj"),
        feed_forward=_layer("vit.layers.0.mlp", "fc1", "fc2"),
    ),
    "clip": Case(
        make=_network("CLIPVisionModel", "CLIPVisionConfig", **_PATCHES),
        inputs=_pixels(16),
        attention=_layer("encoder.layers.0.self_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
        feed_forward=_layer("encoder.layers.0.mlp", "fc1", "fc2"),
    ),
}
