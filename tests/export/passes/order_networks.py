"""Small networks that every pass finds something in, and the graph that exporters make of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf.export import export_onnx, onnx_export
from lightning_nncf.export.onnx_graph import OnnxGraph
from lightning_nncf.export.passes.findings import Findings, Pass, run_passes
from tests.export.networks import Block, QuantizedConv, activation, for_weight

_FOUR_BITS = {"bits": 4, "half_range": False}
_ASYMMETRIC = {"mode": "asymmetric", "signed": None, "half_range": False}


class Turned(nn.Module):
    """A fully connected layer that turns its quantized weight by itself, and a batch norm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.input, self.output = activation(-3.0, 3.0), activation(-4.0, 4.0)
        self.weight, self.bias = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))
        self.quantizer, self.norm = for_weight(self.weight), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.norm(torch.addmm(self.bias, self.input(x), self.quantizer(self.weight).t())))


class Lone(nn.Module):
    """A fully connected layer of which the weight alone is quantized, to 4 bits around one zero point."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        with torch.no_grad():
            self.linear.weight.sub_(1.0)
        self.quantizer = for_weight(self.linear.weight, per_channel=False, **_ASYMMETRIC, bits=4)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.quantizer(self.linear.weight), self.linear.bias)


class Everything(nn.Module):
    """Four channels through all that the passes look for, one thing behind the other."""

    def __init__(self) -> None:
        super().__init__()
        conv = partial(nn.Conv2d, 4, 4, 3, padding=1)
        self.stem = Block(conv(bias=False))
        narrow = conv()
        with torch.no_grad():
            narrow.bias[0] = 1e5  # as behind a batch norm of tiny variance: it does not fit 32 bits
        self.narrow, self.six = QuantizedConv(narrow, **_FOUR_BITS), activation(0.0, 6.0, bits=4)
        self.joined = QuantizedConv(nn.Conv2d(8, 4, 1), **_ASYMMETRIC)
        self.around, self.pooled = activation(-3.0, 3.0), activation(-3.0, 3.0)
        self.wider = QuantizedConv(nn.ConvTranspose2d(4, 4, 2, stride=2))
        self.wide, self.highest = activation(-2.0, 2.0), activation(-2.0, 2.0)
        self.turned, self.lone = Turned(), Lone()
        self.patches, self.patch_norm = QuantizedConv(conv()), nn.BatchNorm2d(4)
        self.tokens = activation(-2.0, 2.0)
        self.token = nn.Parameter(torch.randn(1, 4))
        self.signs, self.signed = nn.Parameter(torch.tensor([1.0, -1.0, 2.0, -2.0])), activation(-3.0, 3.0)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        x = self.six(self.narrow(x).clamp(0, 6))
        x = self.around(self.joined(torch.cat([x, F.max_pool2d(x, 3, 1, 1)], 1)))
        sums = torch.sum(x, (2, 3)), torch.sum(F.max_pool2d(x, 3, 1, 1), (2, 3))
        tokens = self.tokens(self.patch_norm(self.patches(F.max_pool2d(x, 3, 1, 1))).flatten(2))
        scores = tokens @ (tokens.transpose(1, 2) * 0.5)
        x = self.pooled(F.avg_pool2d(x, 3, 1, 1))
        x = self.wide(self.wider(x))
        rows = x.flatten(2)
        means, highest = rows.mean(2), (rows + 1).amax(2)
        return (
            *sums,
            scores,
            self.token.expand(x.shape[0], -1),
            rows @ rows.transpose(1, 2),
            self.turned(means),
            self.highest(highest),
            self.lone(highest),
            self.signed(torch.sigmoid(highest) * self.signs),
        )


class Sequences(nn.Module):
    """A quantized recurrent layer over sequences of two lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.input, self.output = activation(-3.0, 3.0), activation(-1.0, 1.0)
        self.layer = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(self.input(x), torch.tensor([3, 2]), batch_first=True)
        result, _ = nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], batch_first=True)
        return self.output(result)


class Exported:
    """The graph that an exporter made of a network, to be run through passes in any order.

    Args:
        network: The network.
        x: Its input.
        path: Where a file may be written.
        options: Of the export.
    """

    def __init__(self, network: nn.Module, x: Tensor, path: Path, **options: Any) -> None:
        def keep(graph: OnnxGraph, passes: Sequence[Pass], given: Findings) -> Findings:
            self._model.CopyFrom(graph.model)
            self._given = given
            return run_passes(graph, passes, given)

        self._model = onnx.ModelProto()
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patch.setattr(onnx_export, "run_passes", keep)
            export_onnx(network.eval(), ((x,), {}), path, **options)

    def through(self, passes: Sequence[Pass]) -> tuple[onnx.ModelProto, Findings]:
        """Return the model behind passes, and what they found."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        graph = OnnxGraph(model)
        found = run_passes(graph, passes, self._given)
        graph.close()
        return model, found
