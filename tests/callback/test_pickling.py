"""Copies and pickles of a module and its callback after `fit`, with every algorithm."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_nncf import NNCFCallback, compress
from lightning_nncf.config.registry import algorithm_names
from tests.callback.modules import Classifier, config, loader, trainer

QUANTIZATION = config()["compression"]
STAGES = {"activations_quant_start_epoch": 0, "weights_quant_start_epoch": 1, "base_lr": 0.05, "base_wd": 0.0}
SECTIONS: dict[str, dict[str, Any]] = {
    "quantization": QUANTIZATION,
    "quantization, staged": {**QUANTIZATION, "params": STAGES},
    **{
        f"magnitude_sparsity, {schedule}": {
            "algorithm": "magnitude_sparsity",
            "params": {"schedule": schedule, "sparsity_target": 0.5, "sparsity_target_epoch": 3, **more},
        }
        for schedule, more in {
            "polynomial": {},
            "exponential": {},
            "adaptive": {},
            "multistep": {"multistep_steps": [1], "multistep_sparsity_levels": [0.2, 0.5]},
        }.items()
    },
    "rb_sparsity": {"algorithm": "rb_sparsity", "params": {"sparsity_target_epoch": 3}},
    "const_sparsity": {"algorithm": "const_sparsity"},
    "n_m_sparsity": {"algorithm": "n_m_sparsity"},
    "movement_sparsity": {
        "algorithm": "movement_sparsity",
        "params": {"warmup_start_epoch": 0, "warmup_end_epoch": 3, "importance_regularization_factor": 0.1},
    },
    "binarization": {"algorithm": "binarization", "mode": "xnor", "params": STAGES},
    "filter_pruning": {
        "algorithm": "filter_pruning",
        "pruning_init": 0.3,
        "params": {"pruning_target": 0.5, "pruning_steps": 3, "grouping": "full"},
    },
    "knowledge_distillation": {
        "algorithm": "knowledge_distillation",
        "type": "mse",
        "features": [{"student": "3/conv2d:0", "projection": True}],
    },
    "filter_pruning, removed": {
        "algorithm": "filter_pruning",
        "pruning_init": 0.3,
        "params": {"pruning_target": 0.5, "pruning_steps": 3, "grouping": "full", "shrink_at": 0},
    },
}


class Wide(Classifier):
    """A classifier of which all algorithms find something to compress."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(  # type: ignore[assignment]
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()
        )
        self.net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3)])  # type: ignore[operator]


Pair = tuple[Wide, NNCFCallback]


def _pickled(pair: Pair) -> Pair:
    copied: Pair = pickle.loads(pickle.dumps(pair))
    return copied


def _saved(pair: Pair) -> Pair:
    file = io.BytesIO()
    torch.save(pair[0], file)
    file.seek(0)
    module = torch.load(file, weights_only=False)
    # The module's wrapped hooks belong to its own copy of the callback.
    return module, module.on_save_checkpoint.action.__self__


@pytest.fixture(params=SECTIONS)
def fitted(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    pl.seed_everything(1, verbose=False)
    module, callback = Wide(), NNCFCallback({"compression": SECTIONS[request.param]}, export_path=None)
    trainer(tmp_path, callback).fit(module, loader())
    return module, callback


def test_every_algorithm_is_here() -> None:
    assert {section["algorithm"] for section in SECTIONS.values()} == set(algorithm_names())


@pytest.mark.parametrize("make", [_pickled, copy.deepcopy, _saved], ids=["pickle", "deepcopy", "torch.save"])
def test_copy_gives_the_same_and_trains_on_by_itself(
    fitted: Pair, make: Callable[[Pair], Pair], tmp_path: Path
) -> None:
    original, first = fitted
    module, callback = make(fitted)
    assert callback is not first
    assert first.compressed is not None
    assert callback.compressed is not None
    assert callback.compressed.network is module.net
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(original.eval()(x), module.eval()(x))
    before = {name: value.clone() for name, value in original.state_dict().items()}
    epochs = _epochs(first)
    # The same as the original would do, which stays as it is meanwhile.
    trained = _trained(module, callback, tmp_path)
    assert _epochs(callback) == [epoch + 1 for epoch in epochs]
    assert _epochs(first) == epochs
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())
    expected = _trained(original, first, tmp_path)
    assert trained.keys() == expected.keys()
    assert all(torch.equal(trained[name], expected[name]) for name in trained)


def _trained(module: Wide, callback: NNCFCallback, folder: Path) -> dict[str, Tensor]:
    pl.seed_everything(2, verbose=False)
    trainer(folder, callback).fit(module, loader())
    return {name: value.clone() for name, value in module.state_dict().items()}


def _epochs(callback: NNCFCallback) -> list[int]:
    assert callback.compressed is not None
    return [algorithm.scheduler.current_epoch for algorithm in callback.compressed.algorithms]


def test_compressed_network_is_pickled_without_its_data() -> None:
    # What reads the data belongs to the network that was compressed, not to its copy.
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    compressed = compress(network, config(), [torch.randn(4, 1, 8, 8)], forward=lambda batch: network(batch))
    copied = pickle.loads(pickle.dumps(compressed))
    x = torch.randn(2, 1, 8, 8)
    assert copied.calibration is None
    assert torch.equal(copied.network(x), network(x))
