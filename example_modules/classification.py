"""Image classification with any of torchvision's networks or a small one of our own."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy
from torchvision.models import get_model

from example_modules.residual import SmallResNet

__all__ = ["ImageClassifier", "build_network"]

_OWN: dict[str, type[nn.Module]] = {"small_resnet": SmallResNet}
_TORCHVISION = "torchvision:"
_AUXILIARY_WEIGHT = 0.4


class ImageClassifier(LightningModule):
    """Trains a network to name what is in an image.

    The learning rate falls to zero along half a cosine over ``max_epochs``.

    Args:
        network: ``small_resnet``, or ``torchvision:`` and a name such as ``torchvision:resnet18``.
        num_classes: Number of classes.
        network_args: Further arguments of the network, as in ``{"weights": "DEFAULT"}`` for torchvision's.
        optimizer: Optimizer.
        lr: Learning rate at the start of the first fit.
        fine_tune_lr: Learning rate at the start of every later fit; default: as in the first.
        weight_decay: Weight decay.
        momentum: Momentum of SGD.
        label_smoothing: Label smoothing of the loss, 0 to 1.
    """

    def __init__(
        self,
        network: str = "small_resnet",
        num_classes: int = 10,
        network_args: dict[str, Any] | None = None,
        optimizer: Literal["sgd", "adam", "adamw"] = "sgd",
        lr: float = 0.1,
        fine_tune_lr: float | None = None,
        weight_decay: float = 5e-4,
        momentum: float = 0.9,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = build_network(network, num_classes, **(network_args or {}))
        self.optimizer_name = optimizer
        self.lr = lr
        self.fine_tune_lr = lr if fine_tune_lr is None else fine_tune_lr
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.label_smoothing = label_smoothing
        self.fits_done = 0
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")

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
                loss = loss + _AUXILIARY_WEIGHT * self._loss(head, labels)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy."""
        images, labels = batch
        logits = self(images)
        self.val_accuracy(logits, labels)
        self.log("val_loss", self._loss(logits, labels))
        self.log("val_accuracy", self.val_accuracy, prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the accuracy."""
        images, labels = batch
        self.test_accuracy(self(images), labels)
        self.log("test_accuracy", self.test_accuracy)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the classes [N]."""
        classes: Tensor = self(batch[0]).argmax(dim=1)
        return classes

    def configure_optimizers(self) -> Any:
        """Create optimizer and schedule; a later fit of the same module starts from the lower rate."""
        lr = self.fine_tune_lr if self.fits_done else self.lr
        optimizer = _OPTIMIZERS[self.optimizer_name](
            self.parameters(),
            lr=lr,
            weight_decay=self.weight_decay,
            **({"momentum": self.momentum} if self.optimizer_name == "sgd" else {}),
        )
        epochs = self.trainer.max_epochs or 1
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(epochs, 1))
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_fit_end(self) -> None:
        """Count the fits."""
        self.fits_done += 1

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)


_OPTIMIZERS: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def build_network(name: str, num_classes: int, **arguments: Any) -> nn.Module:
    """Build a network by name.

    Args:
        name: ``small_resnet``, or ``torchvision:`` and a name such as ``torchvision:resnet18``.
        num_classes: Number of classes.
        **arguments: Further arguments of the network.

    Raises:
        ValueError: If there is no such network.

    >>> type(build_network("torchvision:squeezenet1_1", num_classes=10)).__name__
    'SqueezeNet'
    """
    if name.startswith(_TORCHVISION):
        network: nn.Module = get_model(name.removeprefix(_TORCHVISION), num_classes=num_classes, **arguments)
        return network
    if name not in _OWN:
        raise ValueError(f"`network` must be one of {sorted(_OWN)} or start with {_TORCHVISION!r}, got {name!r}")
    return _OWN[name](num_classes=num_classes, **arguments)
