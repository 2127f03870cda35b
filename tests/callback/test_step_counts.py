"""When a scheduler steps: once for every optimizer step of the network, in every fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_nncf import NNCFCallback
from tests.callback.modules import Classifier, loader, trainer

MOVEMENT = {
    "algorithm": "movement_sparsity",
    "params": {
        "warmup_start_epoch": 0,
        "warmup_end_epoch": 50,
        "importance_regularization_factor": 1.0,
        "enable_structured_masking": False,
    },
}
RB = {"algorithm": "rb_sparsity", "params": {"sparsity_target": 0.5, "sparsity_target_epoch": 1}}


def callback(section: dict[str, Any] = MOVEMENT, **kwargs: Any) -> NNCFCallback:
    return NNCFCallback({"compression": section}, export_path=None, **kwargs)


def steps(compression: NNCFCallback) -> int:
    assert compression.compressed is not None
    return compression.compressed.algorithms[0].scheduler.current_step + 1


def test_every_fit_of_one_step_counts(tmp_path: Path) -> None:
    compression, module = callback(), Classifier()
    counts = []
    for _ in range(3):
        trainer(tmp_path, compression, max_steps=1, max_epochs=-1).fit(module, loader())
        counts.append(steps(compression))
    assert counts == [1, 2, 3]


def test_a_second_fit_of_one_trainer_goes_on(tmp_path: Path) -> None:
    compression, module = callback(), Classifier()
    runner = trainer(tmp_path, compression, max_epochs=1)
    runner.fit(module, loader())
    runner.fit_loop.max_epochs = 3
    runner.fit(module, loader())
    assert steps(compression) == runner.global_step == 12


class Noting(Classifier):
    """Notes what is added to its loss before it is differentiated."""

    def __init__(self) -> None:
        super().__init__()
        self.latest = 0.0
        self.added: list[float] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.latest = float(loss)
        return loss

    def on_before_backward(self, loss: Tensor) -> None:
        self.added.append(float(loss) - self.latest)


def test_a_second_fit_adds_the_loss_too(tmp_path: Path) -> None:
    compression, module = callback(), Noting()
    for _ in range(2):
        trainer(tmp_path, compression, max_epochs=1).fit(module, loader())
    assert len(module.added) == 8
    assert module.added[3] < module.added[-1]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_looked_at_once_per_step_and_before_they_are_clipped(tmp_path: Path, precision: Any) -> None:
    compression, norms = callback(RB), []

    class Looking(Classifier):
        def on_train_start(self) -> None:
            assert compression.compressed is not None
            algorithm: Any = compression.compressed.algorithms[0]
            algorithm.before_optimizer_step = lambda: norms.append(float(self.net.head.weight.grad.norm()))  # type: ignore[union-attr]

    module = Looking()
    settings: dict[str, Any] = {"gradient_clip_val": 1e-4, "precision": precision, "accumulate_grad_batches": 2}
    trainer(tmp_path, compression, **settings).fit(module, loader())
    assert len(norms) == 2
    assert min(norms) > 1e-3


class Adversarial(Classifier):
    """Two networks with an optimizer each; the one to compress steps in every second batch."""

    def __init__(self, raw: bool = False) -> None:
        super().__init__()
        self.critic = nn.Linear(3, 1)
        self.automatic_optimization = False
        self.raw = raw
        self.own_steps = 0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        optimizers: Any = self.trainer.optimizers if self.raw else self.optimizers()
        own, critic = optimizers
        critic.zero_grad()
        self.critic(self.net(batch[0]).detach()).square().mean().backward()
        critic.step()
        if batch_idx % 2 == 1:
            own.zero_grad()
            (self.critic(self.net(batch[0])).mean() + self.compression.compression_loss()).backward()
            own.step()
            self.own_steps += 1

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.01) for part in (self.net, self.critic)]


@pytest.mark.parametrize("raw", [False, True], ids=["lightning", "raw"])
@pytest.mark.parametrize("section", [MOVEMENT, RB], ids=["movement", "rb"])
def test_steps_of_the_network_count_and_no_others(tmp_path: Path, section: dict[str, Any], raw: bool) -> None:
    compression, module = callback(section, network="net"), Adversarial(raw)
    module.compression = compression  # type: ignore[assignment]
    trainer(tmp_path, compression, max_epochs=3).fit(module, loader())
    # Batches 0 and 1 of an epoch gather one step; the step of the last batch is done.
    assert steps(compression) == module.own_steps == 6
    if section is RB:
        assert compression.compressed is not None
        assert compression.compressed.statistics()["sparsity_level"] > 0


def test_two_steps_in_one_batch_count_as_one(tmp_path: Path) -> None:
    class Twice(Adversarial):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
            for optimizer in self.optimizers():  # type: ignore[union-attr]
                self.net(batch[0]).square().mean().backward()
                optimizer.step()

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(part.parameters(), lr=0.01) for part in (self.net.stem, self.net.head)]

    compression = callback(network="net")
    trainer(tmp_path, compression, max_epochs=2).fit(Twice(), loader())
    assert steps(compression) == 8


def test_steps_count_where_only_another_part_of_the_module_is_trained(tmp_path: Path) -> None:
    class Head(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.net.requires_grad_(False)
            self.last = nn.Linear(3, 3)

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return self.last(self.net(batch[0])).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.last.parameters(), lr=0.01)

    compression = callback({"algorithm": "const_sparsity"}, network="net")
    trainer(tmp_path, compression, max_epochs=2).fit(Head(), loader())
    assert steps(compression) == 8


def test_resuming_between_two_accumulated_batches_does_not_count_the_step_again(tmp_path: Path) -> None:
    class Save(ModelCheckpoint):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.fit_loop.total_batch_idx == 4:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    def fit(*more: Any, **kwargs: Any) -> tuple[NNCFCallback, Classifier]:
        torch.manual_seed(0)
        compression, module = callback(RB), Classifier()
        runner = trainer(
            tmp_path, compression, *more, max_epochs=2, accumulate_grad_batches=2, enable_checkpointing=True
        )
        runner.fit(module, loader(), **kwargs)
        return compression, module

    whole, _ = fit(Save(tmp_path))
    resumed, _ = fit(ckpt_path=str(tmp_path / "middle.ckpt"), weights_only=True)
    assert steps(whole) == steps(resumed) == 4
