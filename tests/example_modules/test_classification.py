from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional

import example_modules
from example_modules.classification import ImageClassifier
from example_modules.digits import DigitsDataModule

TRAINER: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def _train(epochs: int, seed: int = 0, **trainer: Any) -> ImageClassifier:
    seed_everything(seed)
    module = ImageClassifier(network_args={"widths": [8, 16]})
    options = {**TRAINER, "enable_checkpointing": False, "max_epochs": epochs, "limit_train_batches": 3, **trainer}
    Trainer(**options).fit(module, DigitsDataModule())
    return module


def _same(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def test_network_is_the_only_child_with_parameters() -> None:
    module = ImageClassifier()
    assert [name for name, child in module.named_children() if any(True for _ in child.parameters())] == ["network"]


class _TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(64, 10), nn.Linear(64, 10)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, None]:
        return self.heads[0](x.flatten(1)), self.heads[1](x.flatten(1)), None


@pytest.mark.parametrize(("given", "weight"), [(None, 0.4), (0.25, 0.25)])
def test_auxiliary_heads_count_for_less(monkeypatch: pytest.MonkeyPatch, given: float | None, weight: float) -> None:
    torch.manual_seed(0)
    module = ImageClassifier(auxiliary_weight=given)
    module.network = _TwoHeads()
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    main, auxiliary, _ = module.network(images)
    expected = functional.cross_entropy(main, labels) + weight * functional.cross_entropy(auxiliary, labels)
    torch.testing.assert_close(module.training_step((images, labels), 0), expected)


def test_both_heads_of_googlenet_count_by_three_tenths(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = ImageClassifier("torchvision:googlenet", network_args={"init_weights": False})
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    images, labels = torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    torch.manual_seed(1)
    loss = module.training_step((images, labels), 0)
    torch.manual_seed(1)
    outputs = module.network(images)
    losses = [functional.cross_entropy(logits, labels) for logits in outputs]
    assert len(losses) == 3
    torch.testing.assert_close(loss, losses[0] + 0.3 * (losses[1] + losses[2]))


def test_first_and_first_five_classes_are_counted() -> None:
    module, labels = ImageClassifier(num_classes=7), torch.tensor([0, 1, 2, 3])
    logits = torch.zeros(4, 7)
    # The rank of the true class is 1, 2, 5 and 7.
    for row, rank in enumerate((1, 2, 5, 7)):
        logits[row] = -torch.arange(7.0)
        order = [each for each in range(7) if each != labels[row]]
        order.insert(rank - 1, int(labels[row]))
        logits[row, order] = -torch.arange(7.0)
    found = module.test_metrics(logits, labels)
    assert {name: float(value) for name, value in found.items()} == {"test_accuracy": 0.25, "test_accuracy_top5": 0.75}


def test_weights_are_taken_from_a_checkpoint_and_not_asked_for_again(tmp_path: Path) -> None:
    first = _train(1, enable_checkpointing=True, default_root_dir=tmp_path)
    checkpoint = next(tmp_path.rglob("*.ckpt"))
    second = ImageClassifier(network_args={"widths": [8, 16]}, init_from=str(checkpoint))
    assert _same(first.network, second.network)
    assert "init_from" not in second.hparams
    with pytest.raises(ValueError, match=r"differ in \d+ names"):
        ImageClassifier("small_mobilenet", init_from=str(checkpoint))


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_optimizers_and_the_rate_of_later_fits(name: Any, kind: str) -> None:
    module = ImageClassifier(optimizer=name, lr=0.5, fine_tune_lr=0.25, weight_decay=0.125)
    module.trainer = Trainer(**TRAINER, enable_checkpointing=False, max_epochs=4)
    rates = []
    for _ in range(2):
        optimizer = module.configure_optimizers()["optimizer"]
        assert type(optimizer).__name__ == kind
        assert optimizer.param_groups[0]["weight_decay"] == 0.125
        rates.append(optimizer.param_groups[0]["lr"])
        module.on_fit_end()
    assert rates == [0.5, 0.25]


def test_training_repeats_bit_by_bit() -> None:
    assert _same(_train(2), _train(2))
    assert not _same(_train(2), _train(2, seed=1))


def test_stopping_and_resuming_equals_not_stopping(tmp_path: Path) -> None:
    whole = _train(4)
    checkpoint = ModelCheckpoint(dirpath=tmp_path, filename="{epoch}", save_top_k=-1)
    _train(4, enable_checkpointing=True, callbacks=[checkpoint])
    resumed = ImageClassifier(network_args={"widths": [8, 16]})
    Trainer(**TRAINER, enable_checkpointing=False, max_epochs=4, limit_train_batches=3).fit(
        resumed, DigitsDataModule(), ckpt_path=str(tmp_path / "epoch=1.ckpt"), weights_only=False
    )
    assert _same(whole.network, resumed.network)


def test_digits_are_learned_in_few_epochs() -> None:
    seed_everything(0)
    module, data = ImageClassifier(), DigitsDataModule()
    trainer = Trainer(**TRAINER, enable_checkpointing=False, max_epochs=4)
    trainer.fit(module, data)
    assert trainer.test(module, data, verbose=False)[0]["test_accuracy"] > 0.96
    assert trainer.predict(module, data)[0].shape == (64,)


def test_no_example_imports_lightning_nncf() -> None:
    for path in Path(example_modules.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("lightning_nncf", "cuda_ops") for name in names), path
