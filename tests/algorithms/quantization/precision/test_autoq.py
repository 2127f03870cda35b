from __future__ import annotations

import builtins
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_nncf import NNCFCallback
from lightning_nncf.algorithms.quantization.precision import search
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.compression import compress
from lightning_nncf.errors import ConfigError, InitializationError
from tests.algorithms.quantization.precision.networks import Mixed, batches, quantization
from tests.callback.modules import trainer

AUTOQ = {"type": "autoq", "iter_number": 6, "warmup_iter_number": 3}


def _bits(compressed: CompressedNetwork, kind: str) -> dict[str, int]:
    return {row["place"]: row["bits"] for row in compressed.rows() if row["kind"] == kind}


def _size(compressed: CompressedNetwork) -> float:
    weights = [compressed.network.get_submodule(name).weight for name in ("stem", "left", "right", "join", "head")]
    bits = _bits(compressed, "weight").values()
    used = sum(each * weight.numel() for each, weight in zip(bits, weights, strict=True))
    return used / (32 * sum(weight.numel() for weight in weights))


def _searched(precision: dict[str, Any], network: Mixed | None = None, **changes: Any) -> CompressedNetwork:
    torch.manual_seed(0)
    network = network or Mixed()
    data = batches()

    def score(share: float) -> float:
        return -float(torch.stack([F.cross_entropy(network(x), y) for x, y in data]).mean())

    return compress(network, quantization({**AUTOQ, **precision}), data, **{"evaluate": score, **changes})


def test_the_size_is_kept_and_the_best_episode_wins() -> None:
    network, seen = Mixed(), []
    data = batches()

    def score(share: float) -> float:
        quantizers = [module for module in network.modules() if hasattr(module, "quant_min")]
        acting = {quantizer.enabled for quantizer in quantizers}
        value = -float(torch.stack([F.cross_entropy(network(x), y) for x, y in data]).mean())
        seen.append((acting, [quantizer.config.bits for quantizer in quantizers], value, share))
        return value

    compressed = _searched({"compression_ratio": 0.15, "eval_subset_ratio": 0.5}, network, evaluate=score)
    reference, *episodes = seen
    assert reference[0] == {False}
    assert len(episodes) == 6
    assert all(acting == {True} and share == 0.5 for acting, _, _, share in episodes)
    best = max(episodes, key=lambda each: each[2])
    quantizers = [module for module in network.modules() if hasattr(module, "quant_min")]
    assert [quantizer.config.bits for quantizer in quantizers] == best[1]
    assert len({tuple(bits) for _, bits, _, _ in episodes}) > 1
    assert _size(compressed) <= 0.15


def test_same_outcome_every_time_and_the_global_generators_are_left_alone() -> None:
    found = []
    for _ in range(2):
        compressed = _searched({})
        found.append((compressed.rows(), torch.rand(1).item()))
    torch.manual_seed(0)
    Mixed()
    assert found[0] == found[1]
    assert found[0][1] == torch.rand(1).item()


def test_batch_norm_statistics_and_ranges_stay() -> None:
    module = _Classifier()
    data = batches()
    before = {name: value.clone() for name, value in module.net.state_dict().items()}
    config = quantization({**AUTOQ})
    config["compression"]["initializer"]["batchnorm_adaptation"] = {"num_bn_adaptation_samples": 0}
    compress(module.net, config, data, evaluate=lambda share: 1.0)
    after = module.net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("precision", "changes", "message"),
    [
        ({}, {"evaluate": None}, "give `compress` an `evaluate`"),
        ({"compression_ratio": 0.05}, {}, "must be at least 0.0625 with these `bits`"),
    ],
    ids=["nothing to judge by", "too small"],
)
def test_what_cannot_be_searched_is_an_error(precision: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _searched(precision, **changes)


def test_a_score_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(InitializationError, match="validation score nan"):
        _searched({}, evaluate=lambda share: float("nan"))


def test_missing_libraries_are_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("stable_baselines3"):
            raise ImportError("No module named 'stable_baselines3'")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "lightning_nncf.algorithms.quantization.precision.agent", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install lightning-nncf\[autoq\]"):
        compress(Mixed(), quantization(AUTOQ), example_inputs=torch.zeros(2, 1, 8, 8))
    monkeypatch.undo()
    importlib.import_module("lightning_nncf.algorithms.quantization.precision.agent")


class _Classifier(pl.LightningModule):
    """Logs a metric with the state of an epoch, and a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Mixed()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        output = self.net(batch[0])
        self.log("val_loss", F.cross_entropy(output, batch[1]))
        self.log("val_accuracy", (output.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def _loader() -> Any:
    return torch.utils.data.DataLoader(
        [(x, y) for batch in batches() for x, y in zip(*batch, strict=True)], batch_size=4
    )


@pytest.mark.parametrize("kind", ["autoq", "hawq"])
def test_bits_come_back_from_a_checkpoint_and_nothing_is_searched_again(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    precision = AUTOQ if kind == "autoq" else {"type": "hawq", "iter_number": 4, "compression_ratio": 2.0}
    torch.manual_seed(0)
    callback = NNCFCallback(quantization(precision), export_path=None)
    first = trainer(tmp_path, callback, enable_checkpointing=True)
    first.fit(_Classifier(), _loader(), _loader())
    first.save_checkpoint(tmp_path / "last.ckpt")
    assert callback.compressed is not None
    expected = [row["bits"] for row in callback.compressed.rows()]
    assert len(set(expected)) > 1

    def forbidden(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("searched again")

    for name in ("search_by_agent", "search_by_traces"):
        monkeypatch.setattr(search, name, forbidden)
    again = NNCFCallback(quantization(precision), export_path=None)
    trainer(tmp_path, again, max_epochs=2).fit(
        _Classifier(), _loader(), _loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True
    )
    assert again.compressed is not None
    assert [row["bits"] for row in again.compressed.rows()] == expected
