from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_nncf import NNCFCallback, compress
from lightning_nncf.algorithms.quantization import algorithm as quantization
from lightning_nncf.calibration import CalibrationData
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.errors import InitializationError
from tests.callback.modules import Classifier, config, loader, trainer

UN, PARTIALLY, FULLY = CompressionStage


def compressed(**params: Any) -> CompressedNetwork:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    found = compress(network, config(params=params), [torch.rand(4, 1, 8, 8)] * 2)
    network.train()
    return found


def quantizers(found: CompressedNetwork, kind: Any) -> list[Any]:
    inserted = found.algorithms[0].inserted  # type: ignore[attr-defined]
    return list(inserted.of_kind(kind))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count initializations of ranges."""
    found: Counter[str] = Counter()
    both, weights = quantization.initialize_ranges, quantization.initialize_weight_ranges

    def count_both(tasks: Any, data: CalibrationData) -> None:
        found["activation"] += 1
        both(tasks, data)

    def count_weights(tasks: Any) -> None:
        found["weight"] += 1
        weights(tasks)

    monkeypatch.setattr(quantization, "initialize_ranges", count_both)
    monkeypatch.setattr(quantization, "initialize_weight_ranges", count_weights)
    return found


@pytest.mark.parametrize(
    ("activations", "weights", "expected"),
    [
        # NNCF's call counts: those that start at once are initialized only when the network is built
        (0, 0, [(FULLY, 1, 0), (FULLY, 1, 0), (FULLY, 1, 0), (FULLY, 1, 0)]),
        (1, 2, [(UN, 1, 0), (UN, 1, 0), (PARTIALLY, 2, 0), (FULLY, 2, 1)]),
        (1, 1, [(UN, 1, 0), (UN, 1, 0), (FULLY, 2, 1), (FULLY, 2, 1)]),
        (2, 0, [(PARTIALLY, 1, 0), (PARTIALLY, 1, 0), (PARTIALLY, 1, 0), (FULLY, 2, 0)]),
    ],
)
def test_each_group_starts_in_its_epoch_with_new_ranges(
    calls: Counter[str], activations: int, weights: int, expected: list[tuple[CompressionStage, int, int]]
) -> None:
    found = compressed(activations_quant_start_epoch=activations, weights_quant_start_epoch=weights)
    seen = [(found.stage, calls["activation"], calls["weight"])]
    for _ in range(3):
        found.epoch_step()
        seen.append((found.stage, calls["activation"], calls["weight"]))
    assert seen == expected


def test_ranges_of_a_starting_group_fit_the_network_as_it_is_then() -> None:
    found = compressed(activations_quant_start_epoch=1, weights_quant_start_epoch=2)
    first = found.network[0]  # type: ignore[index]
    with torch.no_grad():
        first.weight.fill_(0.25)
        for quantizer in quantizers(found, "weight"):
            quantizer.scale.fill_(77.0)
    parameters = [id(parameter) for parameter in found.network.parameters()]
    found.epoch_step()
    found.epoch_step()
    (entry,) = [q for q in quantizers(found, "activation") if q is found.network[0].lnncf_in.quantization]  # type: ignore[index]
    assert 0.9 < float(entry.scale.detach()) <= 1
    assert [float(q.scale.max()) for q in quantizers(found, "weight")] == [77.0, 77.0]
    with torch.no_grad():
        entry.scale.fill_(5.0)
    found.epoch_step()
    assert quantizers(found, "weight")[0].scale.flatten().tolist() == [0.25] * 4
    assert float(entry.scale.detach()) == 5.0
    assert [id(parameter) for parameter in found.network.parameters()] == parameters


def test_a_start_leaves_modes_random_numbers_and_batch_norm_alone() -> None:
    staged = compressed(activations_quant_start_epoch=1, weights_quant_start_epoch=1)
    staged.epoch_step()
    before = torch.get_rng_state(), staged.network[1].running_mean.clone()  # type: ignore[index]
    staged.epoch_step()
    assert staged.stage is FULLY
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(staged.network[1].running_mean, before[1])  # type: ignore[index]
    assert all(module.training for module in staged.network.modules() if "lnncf" not in type(module).__module__)


def test_activations_that_start_without_data_say_what_to_do() -> None:
    found = compressed(activations_quant_start_epoch=1, weights_quant_start_epoch=0)
    found.calibration = None
    found.epoch_step()
    with pytest.raises(InitializationError, match="set `calibration`"):
        found.epoch_step()


class Watch(pl.Callback):
    """Notes learning rate and weight decay of each optimizer step."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        group = optimizer.param_groups[0]
        self.seen.append((group["lr"], group["weight_decay"]))


PARAMS: dict[str, Any] = {
    "activations_quant_start_epoch": 1,
    "weights_quant_start_epoch": 2,
    "base_lr": 0.2,
    "base_wd": 0.01,
    "lr_poly_drop_start_epoch": 2,
    "lr_poly_drop_duration_epochs": 2,
    "disable_wd_start_epoch": 3,
}


def test_learning_rate_and_weight_decay_follow_the_recipe(tmp_path: Path) -> None:
    watch, callback = Watch(), NNCFCallback(config(params=PARAMS), export_path=None)
    trainer(tmp_path, callback, watch, max_epochs=4).fit(Classifier(), loader())
    progress = [step / 4 for step in range(16)]
    rates = [0.2 if e < 2 else 0.2 * ((4 - e) / 2) ** 2.1 for e in progress]
    decays = [0.01 if e < 3 else 0.0 for e in progress]
    assert [rate for rate, _ in watch.seen] == pytest.approx(rates)
    assert [decay for _, decay in watch.seen] == decays


def test_the_logger_sees_rate_decay_and_groups(tmp_path: Path) -> None:
    seen: list[list[float]] = []

    class Log(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            names = ("learning_rate", "weight_decay", "activations_enabled", "weights_enabled")
            seen.append([float(trainer.callback_metrics[f"compression/{name}"]) for name in names])

    run = trainer(tmp_path, NNCFCallback(config(params=PARAMS), export_path=None), Log(), max_epochs=4)
    run.fit(Classifier(), loader())
    # at the ends of the epochs, 3/4 of which were done when the last step began
    last = [0.2 * ((4 - e) / 2) ** 2.1 for e in (2.75, 3.75)]
    assert seen == [
        pytest.approx([0.2, 0.01, 0, 0]),
        pytest.approx([0.2, 0.01, 1, 0]),
        pytest.approx([last[0], 0.01, 1, 1]),
        pytest.approx([last[1], 0.0, 1, 1]),
    ]


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_resuming_equals_not_stopping(tmp_path: Path, stop: int) -> None:
    section = config(params={**PARAMS, "batch_multiplier": 2})

    def run(epochs: int, module: Classifier, **arguments: Any) -> tuple[pl.Trainer, dict[str, Tensor]]:
        torch.manual_seed(3)
        each = trainer(tmp_path, NNCFCallback(section, export_path=None), max_epochs=epochs)
        each.fit(module, loader(), **arguments)
        return each, module.state_dict()

    torch.manual_seed(1)
    module, half, resumed = Classifier(), Classifier(), Classifier()
    half.load_state_dict(module.state_dict())
    _, whole = run(4, module)
    first, _ = run(stop, half)
    first.save_checkpoint(tmp_path / "half.ckpt")
    _, again = run(4, resumed, ckpt_path=tmp_path / "half.ckpt")
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_ranges_are_set_again_on_request(tmp_path: Path) -> None:
    module, callback = Classifier(lr=0.0), NNCFCallback(config(), export_path=None)
    during: list[float] = []

    class Again(pl.Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            scale = pl_module.net.body.lnncf_weight.quantization.scale
            with torch.no_grad():
                scale.fill_(9.0)
            callback.initialize_ranges()
            during.append(float(scale.max()))

    trainer(tmp_path, callback, Again()).fit(module, loader())
    weight = module.net.body.weight.detach()
    assert during == [pytest.approx(max(0.1, float(weight.abs().max())))]
    assert callback.compressed is not None
    assert callback.compressed.calibration is None
    with pytest.raises(InitializationError, match="or give batches"):
        callback.initialize_ranges()
    entry = module.net.stem.lnncf_in.quantization
    callback.initialize_ranges([torch.full((4, 1, 8, 8), 33.0)])
    assert float(entry.scale.detach()) == 33.0
    assert entry.enabled
