"""Error and accuracy of quantization without training, with bias correction and SmoothQuant, in PyTorch.

Float networks are trained on the five folds of the digits, then quantized from their training images. `folded` has its
batch norms folded into convolutions, so that all its layers have biases; `transformer` has a few large channels behind
its norms, as trained language models do. The error is the root mean square of the change of the test fold's logits,
relative to the float logits. Nothing was chosen on the test folds.

python -m benchmarks.post_training
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.machine import write_results
from example_modules.digits import FOLDS, DigitsDataModule
from example_modules.residual import SmallResNet
from lightning_nncf import compress

SAMPLES = 512
OUTLIERS = (3, 17, 40)


class Patches(nn.Module):
    """A pre-norm transformer over the 16 patches of 2x2 pixels of a digit."""

    def __init__(self, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.position = nn.Parameter(torch.randn(16, width) * 0.02)
        self.blocks = nn.ModuleList(AttentionBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = functional.unfold(images, 2, stride=2).transpose(1, 2)
        x = self.embed(x) + self.position
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x.mean(1)))
        return logits


class AttentionBlock(nn.Module):
    """Attention and a feed-forward network, each behind a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        y = self.norm1(x)
        q, k, v = (
            layer(y).view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.out(y)
        y = self.down(functional.gelu(self.up(self.norm2(x))))
        return x + y


def train(network: nn.Module, images: Tensor, labels: Tensor, epochs: int, seed: int) -> nn.Module:
    """Train a network in float; the learning rate falls along half a cosine."""
    torch.manual_seed(seed)
    sgd = isinstance(network, SmallResNet)
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        if sgd
        else torch.optim.AdamW(network.parameters(), lr=2e-3)
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            if len(rows) > 1:
                optimizer.zero_grad()
                functional.cross_entropy(network(images[rows]), labels[rows]).backward()
                optimizer.step()
        schedule.step()
    return network.eval()


def folded(network: SmallResNet) -> SmallResNet:
    """Return the network with its batch norms folded into the convolutions."""
    plain = copy.deepcopy(network)
    plain.conv, plain.bn = fuse_conv_bn_eval(plain.conv, plain.bn), nn.Identity()  # type: ignore[assignment]
    for block in plain.blocks:
        block.conv1, block.bn1 = fuse_conv_bn_eval(block.conv1, block.bn1), nn.Identity()
        block.conv2, block.bn2 = fuse_conv_bn_eval(block.conv2, block.bn2), nn.Identity()
        if isinstance(block.shortcut, nn.Sequential):
            block.shortcut = fuse_conv_bn_eval(block.shortcut[0], block.shortcut[1])
    return plain


def with_outliers(network: Patches) -> Patches:
    """Return a network that computes the same, with a few channels behind each norm 30 times as large."""
    plain, factor = copy.deepcopy(network), 30.0
    rows = list(OUTLIERS)
    with torch.no_grad():
        for block in plain.blocks:
            pairs = ((block.norm1, (block.query, block.key, block.value)), (block.norm2, (block.up,)))
            for norm, layers in pairs:
                norm.weight[rows] *= factor
                norm.bias[rows] *= factor
                for layer in layers:
                    layer.weight[:, rows] /= factor
    return plain


def measure(
    network: nn.Module, data: list[Tensor], test: tuple[Tensor, Tensor], section: dict[str, Any]
) -> list[float]:
    """Quantize a copy of a network; return the error of its logits and its accuracy in per cent."""
    images, labels = test
    compressed = copy.deepcopy(network)
    # Processors have no kernels for weights of 4 bits, so their table of formats has none.
    config = {"target_device": "TRIAL", "compression": {"algorithm": "quantization", **section}}
    compress(compressed, config, data)
    with torch.no_grad():
        expected, logits = network(images), compressed.eval()(images)
    error = ((logits - expected).square().mean() / expected.square().mean()).sqrt().item()
    return [error, 100 * (logits.argmax(1) == labels).double().mean().item()]


def sections(bits: int, adaptation: int, **initializer: Any) -> dict[str, Any]:
    """Return a section of a configuration."""
    settings = {
        "range": {"num_init_samples": SAMPLES},
        "batchnorm_adaptation": {"num_bn_adaptation_samples": adaptation},
        **initializer,
    }
    return {"weights": {"bits": bits, "per_channel": True}, "initializer": settings}


def main() -> None:
    """Train, quantize, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--folds", type=int, default=FOLDS)
    arguments = parser.parse_args()
    correction, smoothing = {"bias_correction": {"num_samples": SAMPLES}}, {"smooth_quant": {"num_samples": SAMPLES}}
    variants: dict[str, tuple[str, dict[str, Any]]] = {}
    for bits in (8, 4):
        for name, adaptation in (("folded", 0), ("resnet", 0), ("resnet, adapted", SAMPLES)):
            variants[f"{name}, W{bits}A8"] = name, sections(bits, adaptation)
            variants[f"{name}, W{bits}A8, bias correction"] = name, sections(bits, adaptation, **correction)
    variants["transformer, W8A8"] = "transformer", sections(8, 0)
    variants["transformer, W8A8, SmoothQuant"] = "transformer", sections(8, 0, **smoothing)
    found: dict[str, dict[str, list[list[float]]]] = {}
    for hard in (False, True):
        kind = "hard digits" if hard else "digits"
        for fold in range(arguments.folds):
            module = DigitsDataModule(fold=fold, hard=hard)
            module.setup("fit")
            tensors = {name: dataset.tensors for name, dataset in module.datasets.items()}
            (images, labels), test = tensors["train"], tensors["test"]
            torch.manual_seed(fold)
            make: dict[str, Callable[[], nn.Module]] = {"resnet": SmallResNet, "transformer": Patches}
            networks = {n: train(m(), images, labels, arguments.epochs, fold) for n, m in make.items()}
            networks["folded"] = folded(networks["resnet"])  # type: ignore[arg-type]
            networks["resnet, adapted"] = networks["resnet"]
            networks["transformer"] = with_outliers(networks["transformer"])  # type: ignore[arg-type]
            with torch.no_grad():
                for name in ("resnet", "transformer"):
                    accuracy = 100 * (networks[name](test[0]).argmax(1) == test[1]).double().mean().item()
                    found.setdefault(kind, {}).setdefault(f"{name}, float", []).append([0.0, accuracy])
            data = [batch.contiguous() for batch in images[:SAMPLES].split(64)]
            for variant, (name, section) in variants.items():
                found[kind].setdefault(variant, []).append(measure(networks[name], data, test, section))
    result = {
        kind: {
            variant: {
                "error": round(statistics.fmean(error for error, _ in rows), 4),
                "error per fold": [round(error, 4) for error, _ in rows],
                "accuracy": round(statistics.fmean(accuracy for _, accuracy in rows), 2),
            }
            for variant, rows in variants_found.items()
        }
        for kind, variants_found in found.items()
    }
    write_results("post_training", {"epochs": arguments.epochs, "folds": arguments.folds, **result})


if __name__ == "__main__":
    main()
