"""Steps of modules as users write them: initialization runs the network as training does and leaves no trace."""

from __future__ import annotations

import copy
import csv
from collections import Counter, deque
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from lightning_nncf import NNCFCallback
from lightning_nncf.callback.running.network_calls import CallWatch
from lightning_nncf.errors import CaptureError
from tests.callback.modules import Classifier, Net, config, dataset, loader, trainer


def _callback(**options: Any) -> NNCFCallback:
    return NNCFCallback(config(), **{"export_path": None, **options})


class Check(pl.Callback):
    """Looks at the module where training begins."""

    def __init__(self, look: Any) -> None:
        self.look = look
        self.seen: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen = self.look(pl_module)


def _fit(tmp_path: Path, module: Any, *callbacks: Any, train: Any = None, val: Any = None, **options: Any) -> Any:
    callback = _callback()
    settings: dict[str, Any] = {"num_sanity_val_steps": 0, **options}
    trainer(tmp_path, callback, *callbacks, **settings).fit(
        module, loader() if train is None else train, loader() if val is None else val
    )
    assert callback.compressed is not None
    scales = [value for name, value in module.named_parameters() if name.endswith("scale")]
    assert scales
    assert all(torch.isfinite(scale).all() for scale in scales)
    return callback


# Signatures -----------------------------------------------------------------------------------------------------------


class WithLoaderIndex(Classifier):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        self.log(f"val_{dataloader_idx}", F.cross_entropy(self.net(batch[0]), batch[1]))


class BatchOnly(Classifier):
    def training_step(self, batch: Any) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))


class AnyArguments(Classifier):
    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        batch, batch_idx = args
        assert batch_idx >= 0
        return F.cross_entropy(self.net(batch[0]), batch[1])


class OverIterator(Classifier):
    def training_step(self, dataloader_iter: Any) -> Tensor:
        batch, _, _ = next(dataloader_iter)
        return F.cross_entropy(self.net(batch[0]), batch[1])


@pytest.mark.parametrize(
    ("kind", "loaders"), [(WithLoaderIndex, 2), (BatchOnly, 1), (AnyArguments, 1), (OverIterator, 1)]
)
def test_every_signature_of_a_step_works(tmp_path: Path, kind: type[Any], loaders: int) -> None:
    _fit(tmp_path, kind(), val=[loader() for _ in range(loaders)] if loaders > 1 else loader())


class Views(Classifier):
    """Training batches are dicts of two views, validation batches are pairs."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return (self.net(batch["first"]) - self.net(batch["second"])).square().mean()


def _two_views() -> DataLoader[Any]:
    data = [{"first": x, "second": x.flip(-1)} for x, _ in dataset()]
    return DataLoader(data, batch_size=4)  # type: ignore[arg-type]


class Pairs(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch["labelled"][0]), batch["labelled"][1])


def test_training_batches_may_be_built_unlike_validation_batches(tmp_path: Path) -> None:
    _fit(tmp_path, Views(), train=_two_views())
    _fit(tmp_path, Pairs(), train=CombinedLoader({"labelled": loader(), "other": loader()}, "max_size_cycle"))


class Averaged(Classifier):
    """Validates with an average of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.average = copy.deepcopy(self.net).requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        with torch.no_grad():
            trained = dict(self.net.named_parameters())
            for name, mean in self.average.named_parameters():
                mean.lerp_(trained[name], 0.5)
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.average(batch[0]), batch[1]))


def test_a_network_that_validation_never_calls_is_initialized(tmp_path: Path) -> None:
    module = Averaged()
    callback = NNCFCallback(config(), network="net", export_path=None)
    with torch.no_grad():
        for value in module.average.parameters():
            value.zero_()
    check = Check(lambda it: [value.abs().max().item() for value in it.average.parameters()])
    trainer(tmp_path, callback, check, num_sanity_val_steps=0).fit(module, loader(), loader())
    assert set(check.seen) == {0.0}
    assert float(module.net.stem.lnncf_weight.quantization.scale.max()) > 0


# Optimizers -----------------------------------------------------------------------------------------------------------


class Asking(Classifier):
    """Uses what exists only once training has begun."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        rate = optimizer.param_groups[0]["lr"] + self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log("rate", rate + scheduler.get_last_lr()[0])
        return F.cross_entropy(self.net(batch[0]), batch[1])


class AskingSteps(Asking):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
        steps = int(self.trainer.estimated_stepping_batches)
        return [optimizer], [torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)]


@pytest.mark.parametrize("kind", [Asking, AskingSteps])
def test_a_step_may_ask_for_the_optimizers(tmp_path: Path, kind: type[Any]) -> None:
    _fit(tmp_path, kind())


class Manual(Classifier):
    """Optimizes two parts by itself, and clips the weights before anything else."""

    def __init__(self, *, augment: bool = False) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.augment = augment

    def training_step(self, batch: Any, batch_idx: int) -> None:
        with torch.no_grad():
            for value in self.net.parameters():
                value.clamp_(-0.01, 0.01)
        first, second = self.optimizers()  # type: ignore[misc]
        for each in (first, second):
            self.toggle_optimizer(each)
            x = batch[0] + 1 if self.augment else batch[0]
            loss = F.cross_entropy(self.net(x), batch[1])
            each.zero_grad()
            self.manual_backward(loss)
            self.clip_gradients(each, gradient_clip_val=1.0)
            each.step()
            self.untoggle_optimizer(each)
        schedulers: Any = self.lr_schedulers()
        schedulers.step()

    def configure_optimizers(self) -> Any:
        first = torch.optim.SGD(self.net.body.parameters(), lr=0.05)
        others = [*self.net.stem.parameters(), *self.net.head.parameters()]
        return [first, torch.optim.SGD(others, lr=0.05)], [torch.optim.lr_scheduler.StepLR(first, 1)]


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("validates", [False, True])
def test_manual_optimization_runs_its_own_step_and_changes_no_weight(
    tmp_path: Path, augment: bool, validates: bool
) -> None:
    class Trained(Manual):
        pass

    if not validates:
        Trained.validation_step = pl.LightningModule.validation_step  # type: ignore[method-assign, assignment]
        Trained.test_step = pl.LightningModule.test_step  # type: ignore[method-assign, assignment]
    module = Trained(augment=augment)
    before = [value.clone() for value in module.parameters()]

    def look(module: Any) -> Any:
        plain = [value for name, value in module.named_parameters() if "lnncf_" not in name]
        return [value.clone() for value in plain], {value.requires_grad for value in plain}, module.optimizers()

    check = Check(look)
    _fit(tmp_path, module, check)
    weights, wanted, optimizers = check.seen
    assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    assert wanted == {True}
    assert [each.param_groups[0]["lr"] for each in optimizers] != []
    assert not torch.equal(before[0], module.net.stem.weight)


@pytest.mark.parametrize("manual", [False, True])
def test_a_loss_for_precisions_is_that_of_the_training_step(tmp_path: Path, manual: bool) -> None:
    precision = {"type": "hawq", "bits": [4, 8], "num_data_points": 4, "iter_number": 2, "compression_ratio": 1.5}
    settings = config(initializer={"range": {"num_init_samples": 8}, "precision": precision})
    callback = NNCFCallback({"target_device": "TRIAL", **settings}, export_path=None)
    module = Manual() if manual else Classifier()
    trainer(tmp_path, callback).fit(module, loader(), loader())
    assert callback.compressed is not None
    assert callback.compressed.initialized


# What is left behind --------------------------------------------------------------------------------------------------


class Bank:
    """A plain object that a module holds."""

    __slots__ = ("features", "pointer")

    def __init__(self) -> None:
        self.features = torch.zeros(4, 3)
        self.pointer = 0


class Collecting(Classifier):
    """Keeps everything that a step can keep."""

    shared: ClassVar[list[int]] = []
    total_steps = 0

    def __init__(self, *, augment: bool) -> None:
        super().__init__()
        self.augment = augment
        self.outs: list[Any] = []
        self.counts: Counter[str] = Counter()
        self.last: deque[int] = deque(maxlen=3)
        self.kinds: set[int] = set()
        self.steps = 0
        self.bank = Bank()
        self.nested = {"a": [torch.zeros(2)], "b": {}}
        self.mean = MeanMetric()
        self.hidden = {"mean": MeanMetric()}
        self.total = torch.zeros(())
        self.register_buffer("center", torch.zeros(3))
        self.teacher = copy.deepcopy(self.net)
        self.unregistered = [copy.deepcopy(self.net.head)]
        self.norm = nn.BatchNorm1d(3)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.counts["transfers"] += 1
        return batch

    def _collect(self, batch: Any) -> Tensor:
        self.shared.append(self.steps)
        type(self).total_steps += 1
        logits = self.net(batch[0] * 1.5 if self.augment else batch[0])
        value = logits.detach().sum()
        self.outs.append(value)
        self.counts["steps"] += 1
        self.last.append(int(batch[1][0]))
        self.kinds.add(len(self.outs))
        self.steps += 1
        self.lazily = value
        self.bank.pointer += 1
        self.bank.features[0] = logits.detach()[0]
        self.nested["a"].append(value)  # type: ignore[attr-defined]
        self.nested["b"][self.steps] = value  # type: ignore[index]
        self.nested["a"][0].add_(1)  # type: ignore[index]
        self.mean.update(value)
        self.hidden["mean"].update(value)
        self.total += value
        self.center.add_(1)
        with torch.no_grad():
            for part in (self.teacher, self.unregistered[0]):
                for parameter in part.parameters():
                    parameter.add_(1)
            self.teacher.norm.running_mean.add_(1)
        self.trainer.should_stop = self.trainer.should_stop or bool(batch[0].sum() == 0)
        self.logger.log_metrics({"extra": float(value)})  # type: ignore[union-attr]
        self.logger.experiment.log_metrics({"more": 1.0})  # type: ignore[union-attr]
        self.log("value", value)
        return self.norm(logits).square().mean() + F.cross_entropy(logits, batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self._collect(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._collect(batch)

    def state(self) -> Any:
        plain = [
            self.shared,
            self.total_steps,
            self.outs,
            self.counts,
            self.last,
            self.kinds,
            self.steps,
            self.bank.pointer,
            self.nested["b"],
        ]
        tensors = [self.bank.features, *self.nested["a"], self.total, self.center, self.norm.running_mean]
        tensors += [*self.teacher.state_dict().values(), *self.unregistered[0].parameters()]
        tensors += [*self.mean._copy_state_dict().values(), *self.hidden["mean"]._copy_state_dict().values()]  # type: ignore[operator]
        return [
            copy.deepcopy(plain),
            [value.tolist() for value in tensors if isinstance(value, Tensor)],
            hasattr(self, "lazily"),
            len(self.nested["a"]),
            self.mean._update_count,
        ]


@pytest.mark.parametrize("augment", [False, True], ids=["network alone", "by the step"])
def test_nothing_of_initialization_stays_in_the_module_or_its_loggers(tmp_path: Path, augment: bool) -> None:
    module = Collecting(augment=augment)
    before, held = module.state(), module.outs
    check = Check(lambda it: it.state())
    log = CSVLogger(tmp_path)
    callback = NNCFCallback(config(), network="net", export_path=None)
    run = trainer(tmp_path, callback, check, num_sanity_val_steps=0, logger=log, log_every_n_steps=1)
    run.fit(module, loader(), loader())
    assert check.seen == before
    assert module.outs is held
    assert len(held) == 4 + 4
    assert module.counts["steps"] == 8
    assert float(module.net.stem.lnncf_weight.quantization.scale.max()) > 0  # type: ignore[union-attr, operator, arg-type]
    with (Path(log.log_dir) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [sum(row[name] != "" for row in rows) for name in ("extra", "more")] == [8, 8]


def test_a_network_that_takes_parts_of_the_batch_runs_alone(tmp_path: Path) -> None:
    calls = []

    class Counted(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            calls.append(batch_idx)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            raise RuntimeError("never on a training batch")

    counts: list[int] = []
    check = Check(lambda _: counts.append(len(calls)))
    callback = NNCFCallback(config(), export_path=None)
    trainer(tmp_path, callback, check, num_sanity_val_steps=0, limit_val_batches=0).fit(Counted(), loader())
    # once to see the call when the graph is captured, once before the passes of initialization
    assert counts == [2]


def _watched(step: Any, batch: Any) -> Any:
    network = nn.Identity()
    watch = CallWatch(nn.ModuleList([network]), network, batch)
    with watch.watching():
        step(network, batch)
    return watch.call


X, Y = torch.zeros(2, 3), torch.ones(2)


@pytest.mark.parametrize(
    ("step", "batch", "other", "expected"),
    [
        (lambda net, b: net(b), X, Y, Y),
        (lambda net, b: net(b[0]), [X, Y], [Y, X], Y),
        (lambda net, b: net(b), {"x": X}, {"x": Y}, {"x": Y}),
        (
            lambda net, b: net({"a": b["x"], "b": [b["y"], None]}),
            {"x": X, "y": Y},
            {"x": Y, "y": X},
            {"a": Y, "b": [X, None]},
        ),
        (lambda net, b: net((b[1][0], True)), (X, [Y, X]), (X, [X, X]), (X, True)),
    ],
    ids=["tensor", "pair", "dict", "rebuilt", "nested"],
)
def test_arguments_are_found_in_other_batches(step: Any, batch: Any, other: Any, expected: Any) -> None:
    (found,), kwargs = _watched(step, batch).arguments(other)
    assert kwargs == {}
    assert repr(found) == repr(expected)


@pytest.mark.parametrize(
    "step",
    [
        lambda net, b: net(b[0] + 1),
        lambda net, b: net(b[0].add_(1)),
        lambda net, b: net((b[0], 3)),
        lambda net, b: [net(b[0]), net(b[1])],
    ],
    ids=["changed", "in place", "a number", "two calls"],
)
def test_a_call_with_more_than_parts_of_the_batch_is_no_plan(step: Any) -> None:
    assert _watched(step, [X.clone(), Y.clone()]) is None


def test_another_structure_in_a_later_batch_is_no_call() -> None:
    call = _watched(lambda net, b: net(b["x"]), {"x": X})
    with pytest.raises(LookupError, match="another structure"):
        call.arguments([X])


# No forward -----------------------------------------------------------------------------------------------------------


class Coder(pl.LightningModule):
    """An encoder and a decoder that only the step brings together."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.decoder = nn.Conv2d(4, 1, 3, padding=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self.decoder(self.encoder(batch[0])), batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_a_module_without_forward_is_trained(tmp_path: Path) -> None:
    module = Coder()
    trainer(tmp_path, _callback()).fit(module, loader())
    assert float(module.encoder[0].lnncf_weight.quantization.scale.max()) > 0  # type: ignore[union-attr, operator, arg-type]
    assert float(module.decoder.lnncf_weight.quantization.scale.max()) > 0  # type: ignore[union-attr, operator, arg-type]


def test_a_module_without_forward_cannot_be_exported_and_says_so_before_training(tmp_path: Path) -> None:
    module = Coder()
    with pytest.raises(CaptureError, match=r"network='encoder'.*network='decoder'"):
        trainer(tmp_path, _callback(export_path="model.onnx")).fit(module, loader())
    assert not [name for name in module.state_dict() if "lnncf_" in name]


def test_a_part_of_a_module_without_forward_is_exported(tmp_path: Path) -> None:
    callback = NNCFCallback(config(), network="encoder", verify=False)
    trainer(tmp_path, callback).fit(Coder(), loader())
    assert (tmp_path / "model.onnx").exists()


def test_a_step_that_never_calls_the_network_names_the_remedy(tmp_path: Path) -> None:
    class Elsewhere(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.other = Net()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self.other(batch[0]), batch[1])

        validation_step = test_step = training_step  # type: ignore[assignment]

    with pytest.raises(CaptureError, match=r"`training_step` never calls the network.*network="):
        trainer(tmp_path, NNCFCallback(config(), network="net", export_path=None)).fit(Elsewhere(), loader())
