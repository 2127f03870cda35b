"""Making a row short: tiny data in the real format, and a schedule that reaches its end in two epochs."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

__all__ = ["EPOCHS", "randomize", "shortened", "smoke_overrides", "write_images"]

EPOCHS = 2
_CLASSES = ("n01440764", "n01443537", "n01484850", "n01491361")
_TRAIN, _VAL = 16, 4
_BATCH, _STEPS = 4, 6
# RB moves at most 2 % of the weights in a step, so it needs more and smaller ones; its masks freeze in the last epoch.
_RB_BATCH, _RB_STEPS = 2, 32
_SAMPLES = 16
# Inception V3 takes no less in training, because of its auxiliary head; FLOPs are published for 224 pixels.
_SIZES = {"inception_v3": 299, "pruned": 224}
_SMALL = 64
_RATES = {"adam": 1e-4, "sgd": 1e-3}


def write_images(folder: Path, side: int = 96) -> None:
    """Write a tiny ImageNet: JPEG files in ``train/<class>`` and ``val/<class>``, coloured stripes by class.

    Args:
        folder: Where to; what is there already is kept.
        side: Height of the images; they are wider than high.
    """
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", _TRAIN), ("val", _VAL)):
        for index, name in enumerate(_CLASSES):
            target = folder / split / name
            target.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                Image.fromarray(_stripes(index, side, generator).numpy()).save(target / f"{name}_{number}.JPEG")


def _stripes(index: int, side: int, generator: torch.Generator) -> torch.Tensor:
    rows, columns = torch.arange(side)[:, None], torch.arange(side * 4 // 3)[None]
    angle = math.pi * index / len(_CLASSES)
    wave = torch.sin(
        (rows * math.sin(angle) + columns * math.cos(angle)) * 0.4 + 6 * torch.rand(1, generator=generator)
    )
    colour = 0.5 + 0.5 * torch.rand(3, generator=generator)
    noise = 0.1 * torch.randn(*wave.shape, 3, generator=generator)
    return ((0.5 + 0.4 * wave[..., None]) * colour + noise).clamp(0, 1).mul(255).to(torch.uint8)


def smoke_overrides(settings: Mapping[str, Any], data: Path) -> dict[str, Any]:
    """Return a LightningCLI file that makes a row short when it is given last.

    The architecture stays as it is; its weights are random, for there is nothing to download.

    Args:
        settings: The row's own file.
        data: Folder written by `write_images`.
    """
    model = settings["model"]["init_args"]
    network = model["network"].partition(":")[2]
    callbacks = copy.deepcopy(settings["trainer"].get("callbacks", []))
    algorithms: set[str] = set()
    for callback in callbacks:
        config = callback["init_args"]["config"]
        config["compression"] = shortened(config["compression"])
        sections = config["compression"] if isinstance(config["compression"], list) else [config["compression"]]
        algorithms |= {section["algorithm"] for section in sections}
    batch, steps = (_RB_BATCH, _RB_STEPS) if "rb_sparsity" in algorithms else (_BATCH, _STEPS)
    size = _SIZES["pruned"] if "filter_pruning" in algorithms else _SMALL
    return {
        "model": {
            "init_args": {
                "weights": None,
                "lr": _RATES[model.get("optimizer", "adam")],
                "schedule": "constant",
                "schedule_args": None,
            }
        },
        "data": {
            "init_args": {
                "data_dir": str(data),
                "batch_size": batch,
                "val_batch_size": _BATCH,
                "num_classes": len(_CLASSES),
                "image_size": _SIZES.get(network, size),
                "num_workers": 0,
            }
        },
        "trainer": {
            "max_epochs": EPOCHS,
            "limit_train_batches": steps,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": callbacks,
        },
    }


@torch.no_grad()
def randomize(network: nn.Module, images: torch.Tensor, seed: int = 0) -> None:
    """Give a network weights that pass on what its input shows, as trained ones do, and statistics that fit them.

    With PyTorch's own the signal is gone after a few layers, and any file would agree on what is left.

    Args:
        network: The network, changed in place.
        images: Images [N, C, H, W] that batch normalization is to see.
        seed: Decides the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        nn.init.normal_(norm.bias, std=0.2, generator=generator)
        norm.momentum = None
    training = network.training
    network.train()(images)
    network.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def shortened(compression: Any) -> Any:
    """Return a ``compression`` section whose schedules end in the second epoch.

    >>> shortened({"algorithm": "filter_pruning", "params": {"pruning_steps": 15, "pruning_target": 0.4}})["params"]
    {'pruning_steps': 2, 'pruning_target': 0.4}
    """
    if isinstance(compression, list):
        return [shortened(section) for section in compression]
    section: dict[str, Any] = copy.deepcopy(dict(compression))
    _SHORTEN[section["algorithm"]](section)
    return section


def _shorten_quantization(section: dict[str, Any]) -> None:
    initializer = section.setdefault("initializer", {})
    initializer.setdefault("range", {})["num_init_samples"] = _SAMPLES
    initializer.setdefault("batchnorm_adaptation", {})["num_bn_adaptation_samples"] = _SAMPLES
    precision = initializer.get("precision", {})
    if precision.get("type") == "hawq":
        precision |= {"num_data_points": _BATCH, "iter_number": 2}
    if precision.get("type") == "autoq":
        precision |= {"iter_number": 3, "warmup_iter_number": 2}
    if section.get("params"):
        _shorten_stages(section["params"])


def _shorten_binarization(section: dict[str, Any]) -> None:
    _shorten_stages(section["params"])


def _shorten_stages(params: dict[str, Any]) -> None:
    starts = {"activations_quant_start_epoch": 0, "weights_quant_start_epoch": 1}
    ends = {"lr_poly_drop_start_epoch": 1, "lr_poly_drop_duration_epochs": 1, "disable_wd_start_epoch": 1}
    params |= {key: value for key, value in (starts | ends).items() if key in params}


def _shorten_sparsity(section: dict[str, Any]) -> None:
    section["params"] |= {"sparsity_target_epoch": 0, "sparsity_freeze_epoch": EPOCHS - 1}


def _shorten_pruning(section: dict[str, Any]) -> None:
    params = section["params"]
    params["pruning_steps"] = EPOCHS
    if "legr_params" in params:
        params["legr_params"] |= {"generations": 4, "train_steps": 1, "population_size": 2, "num_samples": 2}


_SHORTEN = {
    "quantization": _shorten_quantization,
    "binarization": _shorten_binarization,
    "magnitude_sparsity": _shorten_sparsity,
    "rb_sparsity": _shorten_sparsity,
    "filter_pruning": _shorten_pruning,
}
