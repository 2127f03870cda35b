"""Image classification with any network of torchvision or timm, or a small one of our own."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.nn import functional
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from example_modules.networks import build_network, complete_arguments, usual_auxiliary_weight
from example_modules.optimization import (
    OptimizerName,
    ScheduleName,
    check_schedule,
    group_parameters,
    make_optimizer,
    make_schedule,
)

__all__ = ["ImageClassifier"]

_TOP = 5


class ImageClassifier(LightningModule):
    """Trains a network to name what is in an image.

    Args:
        network: ``small_resnet``, ``small_mobilenet``, or ``torchvision:`` or ``timm:`` and a name such as
            ``torchvision:resnet18``.
        num_classes: Number of classes.
        network_args: Further arguments of the network.
        optimizer: Optimizer.
        lr: Learning rate at the start of the first fit.
        fine_tune_lr: Learning rate at the start of every later fit; default: as in the first.
        weight_decay: Weight decay.
        momentum: Momentum of SGD.
        label_smoothing: Label smoothing of the loss, 0 to 1.
        weights: Pretrained weights to download, as in ``IMAGENET1K_V1``; a module loaded from a checkpoint needs none.
        init_from: Checkpoint of this class, trained without compression, to take the weights from.
        nesterov: Whether SGD's momentum is Nesterov's.
        schedule: How the learning rate falls over ``max_epochs``, stepped once per epoch.
        schedule_args: Arguments of the schedule's class in PyTorch, as in ``{"milestones": [15, 20]}``.
        parameter_groups: Settings of their own for parameters whose names match a regular expression, as in
            ``[{"re": "bias$", "weight_decay": 0}]``; the first that matches counts.
        auxiliary_weight: Weight of the loss of each auxiliary head; default: 0.4 for Inception V3, 0.3 for GoogLeNet.
    """

    def __init__(
        self,
        network: str = "small_resnet",
        num_classes: int = 10,
        network_args: dict[str, Any] | None = None,
        optimizer: OptimizerName = "sgd",
        lr: float = 0.1,
        fine_tune_lr: float | None = None,
        weight_decay: float = 5e-4,
        momentum: float = 0.9,
        label_smoothing: float = 0.0,
        weights: str | None = None,
        init_from: str | None = None,
        nesterov: bool = False,
        schedule: ScheduleName = "cosine",
        schedule_args: dict[str, Any] | None = None,
        parameter_groups: list[dict[str, Any]] | None = None,
        auxiliary_weight: float | None = None,
    ) -> None:
        super().__init__()
        check_schedule(schedule, schedule_args or {})
        arguments = complete_arguments(network, weights, network_args or {})
        # A checkpoint brings the weights, so a module that is made for one must not look for them elsewhere.
        self.save_hyperparameters(ignore=["weights", "init_from"])
        self.hparams["network_args"] = arguments
        self.network = build_network(network, num_classes, weights, **arguments)
        self.optimizer_name = optimizer
        self.lr = lr
        self.fine_tune_lr = lr if fine_tune_lr is None else fine_tune_lr
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.nesterov = nesterov
        self.schedule = schedule
        self.schedule_args = schedule_args or {}
        self.parameter_groups = parameter_groups or []
        self.label_smoothing = label_smoothing
        self.auxiliary_weight = usual_auxiliary_weight(network) if auxiliary_weight is None else auxiliary_weight
        self.fits_done = 0
        self.val_metrics = _accuracies(num_classes, "val_")
        self.test_metrics = _accuracies(num_classes, "test_")
        if init_from is not None:
            self._take_weights(init_from)

    def forward(self, images: Tensor) -> Any:
        """Map images [N, C, H, W] to logits [N, num_classes]."""
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the cross entropy, that of auxiliary heads included."""
        images, labels = batch
        outputs = self(images)
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = self._loss(logits, labels)
        for head in auxiliary:
            if head is not None:
                loss = loss + self.auxiliary_weight * self._loss(head, labels)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracies."""
        images, labels = batch
        logits = self(images)
        self.val_metrics(logits, labels)
        self.log("val_loss", self._loss(logits, labels))
        self.log_dict(self.val_metrics, prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the accuracies."""
        images, labels = batch
        self.test_metrics(self(images), labels)
        self.log_dict(self.test_metrics)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the classes [N]."""
        classes: Tensor = self(batch[0]).argmax(dim=1)
        return classes

    def configure_optimizers(self) -> Any:
        """Create optimizer and schedule; a later fit of the same module starts from the lower rate."""
        optimizer = make_optimizer(
            self.optimizer_name,
            group_parameters(self, self.parameter_groups),
            lr=self.fine_tune_lr if self.fits_done else self.lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            nesterov=self.nesterov,
        )
        schedule = make_schedule(self.schedule, optimizer, self.trainer.max_epochs or 1, self.schedule_args)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_accuracy"}}

    def on_fit_end(self) -> None:
        """Count the fits."""
        self.fits_done += 1

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def _take_weights(self, path: str) -> None:
        """Load the weights of a checkpoint that was written without compression."""
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        strange = sorted(set(state) ^ set(self.state_dict()))
        if strange:
            raise ValueError(
                f"`init_from` must be a checkpoint of this network without compression, but {path} and the network "
                f"differ in {len(strange)} names, the first being {strange[0]!r}"
            )
        self.load_state_dict(state)


def _accuracies(num_classes: int, prefix: str) -> MetricCollection:
    """Make metrics of the share of images whose class comes first, and among the first five."""
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "accuracy_top5": MulticlassAccuracy(num_classes, top_k=min(_TOP, num_classes), average="micro"),
        },
        prefix=prefix,
    )
