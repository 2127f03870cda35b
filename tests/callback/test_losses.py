"""An algorithm registered outside the package: its loss, scheduler and state go through the callback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

from lightning_nncf import NNCFCallback
from lightning_nncf.config import AlgorithmConfig
from lightning_nncf.config import registry as config_registry
from lightning_nncf.core import registry
from lightning_nncf.core.algorithm import Algorithm
from tests.callback.modules import Classifier, loader, trainer


class ConstantLossConfig(AlgorithmConfig):
    algorithm: Literal["constant_loss"] = "constant_loss"
    value: float = 2.0


class ConstantLoss(Algorithm):
    name: ClassVar[str] = "constant_loss"
    priority: ClassVar[int] = 3

    def build(self, network: nn.Module, graph: Any) -> None: ...

    def restore(self, network: nn.Module, structure: Mapping[str, Any]) -> None: ...

    def structure(self) -> dict[str, Any]:
        return {}

    def loss(self) -> Tensor:
        return torch.tensor(self.config.value)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    registry.register(ConstantLossConfig)(ConstantLoss)
    yield
    registry._ALGORITHMS.pop("constant_loss")
    config_registry._registered.pop("constant_loss")


def make() -> NNCFCallback:
    return NNCFCallback({"compression": {"algorithm": "constant_loss"}}, export_path=None)


class Recording(Classifier):
    """Keeps the loss that Lightning receives, minus the task's own."""

    def __init__(self, output: str = "tensor") -> None:
        super().__init__(output=output)
        self.added: list[float] = []
        self.task: list[float] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        result = super().training_step(batch, batch_idx)
        self.task.append(float(result["loss"] if isinstance(result, dict) else result))
        return result

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.added.append(float(outputs["loss"]) - self.task[-1])


@pytest.mark.parametrize("output", ["tensor", "dict"])
def test_loss_is_added_to_what_the_step_returns(tmp_path: Path, output: str) -> None:
    module = Recording(output)
    trainer(tmp_path, make()).fit(module, loader())
    assert module.added == pytest.approx([2.0] * 4, abs=1e-5)


def test_one_scheduler_step_is_one_optimizer_step(tmp_path: Path) -> None:
    callback = make()
    trainer(tmp_path, callback, max_epochs=2, accumulate_grad_batches=2).fit(Classifier(), loader())
    assert callback.compressed is not None
    scheduler = callback.compressed.algorithms[0].scheduler
    assert (scheduler.current_epoch, scheduler.current_step) == (1, 3)


class Manual(Classifier):
    def __init__(self, callback: NNCFCallback | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.callback = callback

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        if self.callback is not None:
            loss = loss + self.callback.compression_loss()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


def test_manual_optimization_without_the_loss_is_warned_about(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="compression_loss"):
        trainer(tmp_path, make()).fit(Manual(), loader(), loader())


def test_manual_optimization_with_the_loss_is_not_warned_about(tmp_path: Path, recwarn: Any) -> None:
    callback = make()
    trainer(tmp_path, callback).fit(Manual(callback), loader(), loader())
    assert not [warning for warning in recwarn if "compression_loss" in str(warning.message)]
