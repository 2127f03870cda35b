"""Self-attention written out: the numbers of PyTorch's function, and hooks inside."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_nncf import compress, export_onnx, verify_onnx
from lightning_nncf.capture.attention import attend
from lightning_nncf.capture.trace import trace
from lightning_nncf.proof import OnnxRuntimeModel, OpenVINOModel
from lightning_nncf.proof.int8_layers import count_int8_layers
from tests.capture.networks import Affine, put

LENGTH, BATCH, WIDTH, HEADS = 5, 3, 8, 2


def _masks() -> dict[str, dict[str, Tensor]]:
    later = torch.triu(torch.ones(LENGTH, LENGTH, dtype=torch.bool), diagonal=1)
    padding = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    padding[1, 3:] = True
    each = torch.randn(BATCH * HEADS, LENGTH, LENGTH)
    return {
        "none": {},
        "truth": {"attn_mask": later},
        "padding": {"key_padding_mask": padding},
        "both": {"attn_mask": later, "key_padding_mask": padding},
        "each head": {"attn_mask": each, "key_padding_mask": padding},
    }


@pytest.mark.parametrize("mask", _masks())
@pytest.mark.parametrize(("weights", "averaged"), [(False, True), (True, True), (True, False)])
def test_written_out_attention_gives_what_torch_gives(mask: str, weights: bool, averaged: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.MultiheadAttention(WIDTH, HEADS), torch.randn(LENGTH, BATCH, WIDTH)
    given: dict[str, Any] = {**_masks()[mask], "need_weights": weights, "average_attn_weights": averaged}
    parts = (layer.in_proj_weight, layer.in_proj_bias, None, None, False, 0.0, layer.out_proj.weight)
    expected = layer(x, x, x, **given)
    found = attend((x, x, x, WIDTH, HEADS, *parts, layer.out_proj.bias), given)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_causal_hint_is_the_mask_itself_where_nothing_else_is_asked() -> None:
    torch.manual_seed(0)
    layer, x = nn.MultiheadAttention(WIDTH, HEADS), torch.randn(LENGTH, BATCH, WIDTH)
    later = _masks()["truth"]["attn_mask"]
    parts = (layer.in_proj_weight, layer.in_proj_bias, None, None, False, 0.0, layer.out_proj.weight)
    given: dict[str, Any] = {"attn_mask": later, "is_causal": True, "need_weights": False}
    found, _ = attend((x, x, x, WIDTH, HEADS, *parts, layer.out_proj.bias), given)
    torch.testing.assert_close(found, layer(x, x, x, **given)[0])


class Attention(nn.Module):
    """Attention to itself, and to half of itself."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
        self.other = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)

    def forward(self, x: Tensor) -> Tensor:
        x = self.own(x, x, x, need_weights=False)[0]
        return self.other(x, x * 0.5, x * 0.5)[0]


@pytest.mark.parametrize("batch_first", [True, False])
def test_only_attention_to_itself_is_several_ops_and_hooks_reach_them(batch_first: bool) -> None:
    torch.manual_seed(0)
    net, x = Attention(batch_first=batch_first).eval(), torch.randn(BATCH, LENGTH, WIDTH)
    expected = net(x)
    graph = trace(net, lambda: net(x))
    inside = {op.function for op in graph.ops() if op.module == "own"}
    assert {"linear", "scaled_dot_product_attention"} <= inside
    assert "multi_head_attention_forward" in {op.function for op in graph.ops() if op.module == "other"}
    # The input of the projection halved and its result doubled; both hooks must act for the result to stay.
    for kind, factor in (("input", 0.5), ("output", 2.0)):
        put(net, graph, kind, "own/linear:0", 0, Affine(factor, 0.0))
    assert not net.own.in_proj_bias.any()  # which would not be halved
    torch.testing.assert_close(net(x), expected)


class Classifier(nn.Module):
    """A layer as in vision transformers."""

    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.head = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), nn.Linear(WIDTH, 3)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(x)
        return self.head(x + self.attention(y, y, y, need_weights=self.weights)[0])


@pytest.mark.parametrize("weights", [False, True])
def test_projections_of_attention_run_on_integers_and_agree(weights: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x, path = Classifier(weights).eval(), torch.randn(BATCH, LENGTH, WIDTH), tmp_path / "model.onnx"
    compress(net, {"compression": {"algorithm": "quantization"}}, [x])
    export_onnx(net, ((x,), {}), path)
    for batch in (1, 3, 8):
        assert verify_onnx(path, net, ((torch.randn(batch, LENGTH, WIDTH),), {})).proven
    # Four projections, query by key, and attention by value: OpenVINO fuses the two products if nothing is between.
    onnxruntime, openvino = (count_int8_layers(make(path)) for make in (OnnxRuntimeModel, OpenVINOModel))
    assert onnxruntime.matmuls == (6 if weights else 5)
    assert (openvino.matmuls, openvino.all_matmuls) == (4, 4)


def test_attention_of_other_calls_stays_one_op() -> None:
    """A bias for keys or values, or zeros beside them, make other products."""
    for options in itertools.chain([{"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": WIDTH, "vdim": 4}]):
        layer, x = nn.MultiheadAttention(WIDTH, HEADS, **options), torch.randn(LENGTH, BATCH, WIDTH)
        value = x[..., : options.get("vdim", WIDTH)]
        graph = trace(layer, lambda layer=layer, x=x, value=value: layer(x, x, value))  # type: ignore[misc]
        assert "linear" not in {op.function for op in graph.ops()}
