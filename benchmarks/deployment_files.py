"""The files of `benchmarks.deployment`: what is compressed how, and a float twin, inputs and outputs for each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual

from example_modules.residual import SmallResNet
from lightning_nncf import compress, export_and_verify, export_onnx
from lightning_nncf.proof.distance import relative_rms

BATCHES = 4
EPOCHS = 3
NOISE = 1e-5
QUANTIZATION = {
    "algorithm": "quantization",
    "initializer": {
        "range": {"num_init_samples": 16},
        "batchnorm_adaptation": {"num_bn_adaptation_samples": 16},
    },
}
SECOND = "{re}conv2/"


class UNet(nn.Module):
    """Two steps down, two up by transposed convolutions, joined by concatenation."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = self._block(3, width)
        self.second = self._block(width, 2 * width, stride=2)
        self.third = self._block(2 * width, 4 * width, stride=2)
        self.up_second = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.join_second = self._block(4 * width, 2 * width)
        self.up_first = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.join_first = self._block(2 * width, width)
        self.head = nn.Conv2d(width, 4, 1)

    @staticmethod
    def _block(channels: int, width: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(first)
        up = torch.relu(self.up_second(self.third(second)))
        up = torch.relu(self.up_first(self.join_second(torch.cat([up, second], 1))))
        return self.head(self.join_first(torch.cat([up, first], 1)))


@dataclass(frozen=True, kw_only=True)
class File:
    """One exported file.

    Args:
        network: Makes the network.
        batch: Makes one batch.
        config: How it is compressed.
        opset: Version of the operator set.
        resettle: Whether batch normalization needs new statistics once the network is compressed: binary weights and
            activations leave nothing of the old ones.
    """

    network: Callable[[], nn.Module]
    batch: Callable[[], Any]
    config: dict[str, Any] = field(default_factory=lambda: {"compression": QUANTIZATION})
    opset: int = 21
    resettle: bool = False


def residual() -> nn.Module:
    return SmallResNet(widths=[16, 32])


def mobilenet() -> nn.Module:
    network = torchvision.models.mobilenet_v2()
    for module in network.modules():
        if isinstance(module, InvertedResidual) and module.use_res_connect:
            nn.init.constant_(module.conv[-1].weight, 0.2)
    return network


def bert() -> nn.Module:
    import transformers

    # The usual 0.02 is meant for wider layers: here the output would hardly depend on the encoder.
    config = transformers.BertConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        vocab_size=100,
        initializer_range=0.125,
    )
    return transformers.BertForSequenceClassification(config)


def images(*shape: int) -> Callable[[], Tensor]:
    """Make noise of another contrast and colour in each image, since the average of plain noise is the same in all."""
    each = (*shape[:2], 1, 1)
    return lambda: torch.randn(*each) + torch.rand(*each) * torch.randn(*shape)


def tokens() -> dict[str, Tensor]:
    # In the order of the network's arguments, which is that of the file's inputs.
    return {
        "input_ids": torch.randint(0, 100, (4, 16)),
        "attention_mask": torch.ones(4, 16, dtype=torch.long),
        "token_type_ids": torch.zeros(4, 16, dtype=torch.long),
    }


MIXED = {
    **QUANTIZATION,
    "scope_overrides": {"weights": {SECOND: {"bits": 4}}},
}
SPARSE = {
    "algorithm": "magnitude_sparsity",
    "params": {"sparsity_target": 0.7, "sparsity_target_epoch": 1, "sparsity_freeze_epoch": 2},
}
PRUNED = {"algorithm": "filter_pruning", "pruning_init": 0.5, "params": {"pruning_target": 0.5, "pruning_steps": 1}}
BINARY = {
    "algorithm": "binarization",
    "target_scopes": [SECOND],
    "params": {"activations_quant_start_epoch": 0, "weights_quant_start_epoch": 1},
}
FILES: dict[str, File] = {
    "residual": File(network=residual, batch=images(8, 1, 8, 8)),
    "resnet18": File(network=torchvision.models.resnet18, batch=images(2, 3, 128, 128)),
    "mobilenet_v2": File(network=mobilenet, batch=images(2, 3, 128, 128)),
    "bert": File(network=bert, batch=tokens),
    "mixed": File(
        network=residual,
        batch=images(8, 1, 8, 8),
        config={"target_device": "TRIAL", "compression": MIXED},
        opset=20,
    ),
    "sparse": File(
        network=torchvision.models.resnet18,
        batch=images(2, 3, 128, 128),
        config={"compression": [SPARSE, QUANTIZATION]},
    ),
    "pruned": File(
        network=torchvision.models.resnet18,
        batch=images(2, 3, 128, 128),
        config={"compression": [PRUNED, QUANTIZATION]},
    ),
    "unet": File(network=UNet, batch=images(2, 3, 64, 64)),
    "binary": File(
        network=residual,
        batch=images(8, 1, 8, 8),
        config={"compression": [{**QUANTIZATION, "ignored_scopes": [SECOND]}, BINARY]},
        resettle=True,
    ),
}


def make(name: str, folder: Path) -> dict[str, Any]:
    """Write ``<name>.onnx``, ``<name>.float.onnx`` and ``<name>.npz``; return what the file holds."""
    file = FILES[name]
    torch.manual_seed(0)
    network = file.network()
    batches = [file.batch() for _ in range(BATCHES)]
    _settle(network, batches)
    plain = copy.deepcopy(network)
    compressed = compress(network, file.config, batches)
    for _ in range(EPOCHS):
        compressed.epoch_step()
        compressed.step()
    if file.resettle:
        _forward(network, batches)
    network.eval()
    call = _arguments(batches[0])
    path = folder / f"{name}.onnx"
    export_and_verify(compressed, path, inputs=call, opset=file.opset, verify=False)
    export_onnx(plain, call, folder / f"{name}.float.onnx", opset=file.opset)
    output = _output(network, call)
    inputs = [value.numpy() for value in (*call[0], *call[1].values())]
    np.savez(folder / f"{name}.npz", output=output.numpy(), **{f"input_{i}": value for i, value in enumerate(inputs)})
    return {
        "opset": file.opset,
        "input_shapes": [list(value.shape) for value in inputs],
        "bytes": path.stat().st_size,
        "spread": float(f"{((output - output.mean(0)).square().mean() / output.square().mean()).sqrt():.3g}"),
        "disturbed_rms": float(f"{_disturbed(network, call, output):.3g}"),
        "statistics": {key: round(float(value), 4) for key, value in compressed.statistics().items()},
    }


def _output(network: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]]) -> Tensor:
    with torch.no_grad():
        output = network(*call[0], **call[1])
    return output if isinstance(output, Tensor) else output["logits"]


def _disturbed(network: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]], output: Tensor) -> float:
    """Return how far noise in the weights moves the output: what single steps at rounding borders come to."""
    moved = copy.deepcopy(network)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in moved.parameters():
            if parameter.ndim > 1:
                parameter.mul_(1 + NOISE * torch.randn_like(parameter))
    return relative_rms(_output(moved, call), output)


def _settle(network: nn.Module, batches: list[Any]) -> None:
    """Give batch normalization statistics of the data, and offsets as training spreads them.

    With neither the output would hardly depend on the input, with statistics alone it would on every rounding.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
    _forward(network, batches)


def _forward(network: nn.Module, batches: list[Any]) -> None:
    network.train()
    with torch.no_grad():
        for batch in batches * 4:
            args, kwargs = _arguments(batch)
            network(*args, **kwargs)
    network.eval()


def _arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return ((), batch) if isinstance(batch, dict) else ((batch,), {})
