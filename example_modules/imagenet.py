"""Images in folders by class, as ImageNet is unpacked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import v2

from example_modules.loading import make_loader

__all__ = ["ImageNetDataModule", "evaluation_transform", "training_transform"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CROP = 0.875
_HELP = (
    "Expected: one folder per class, with the same names, in `train` and `val`, as in train/n01440764/*.JPEG and "
    "val/n01440764/*.JPEG. Get ImageNet (ILSVRC 2012) from https://image-net.org/download after registration, unpack "
    "each class of the training images into a folder of its own and move the validation images into such folders"
)


class ImageNetDataModule(LightningDataModule):
    """ImageNet, or any images in ``train/<class>/`` and ``val/<class>/``.

    Training takes random crops, mirrored at random; validation and test take the central crop of all images in ``val``,
    whose shorter side was scaled to the crop's size over 0.875.

    Args:
        data_dir: Folder that holds ``train`` and ``val``.
        batch_size: Images per training batch.
        val_batch_size: Images per batch of validation and test; default: as in training.
        image_size: Height and width of the crops.
        num_classes: How many classes the folders must hold; ``null`` for any number.
        num_workers: Processes that load data.
        seed: Decides the order of the training images in each epoch, and with workers their crops.
    """

    def __init__(
        self,
        data_dir: str,
        batch_size: int = 256,
        val_batch_size: int | None = None,
        image_size: int = 224,
        num_classes: int | None = 1000,
        num_workers: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.data_dir = Path(data_dir)
        self.batch_size = batch_size
        self.val_batch_size = batch_size if val_batch_size is None else val_batch_size
        self.image_size = image_size
        self.num_classes = num_classes
        self.num_workers = num_workers
        self.seed = seed
        self.datasets: dict[str, ImageFolder] = {}

    def setup(self, stage: str) -> None:
        """List the images.

        Raises:
            FileNotFoundError: There is no such folder, or it holds something else; says what is expected.
        """
        if self.datasets:
            return
        self._check()
        transforms = {"train": training_transform(self.image_size), "val": evaluation_transform(self.image_size)}
        try:
            self.datasets = {name: ImageFolder(self.data_dir / name, transforms[name]) for name in transforms}
        except FileNotFoundError as error:
            raise FileNotFoundError(f"`data_dir` {self.data_dir}: {error}. {_HELP}") from error

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled batches; the order depends on seed and epoch alone."""
        return make_loader(
            self.datasets["train"],
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            seed=self.seed,
            trainer=self.trainer,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation batches."""
        return make_loader(self.datasets["val"], batch_size=self.val_batch_size, num_workers=self.num_workers)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the validation batches: ImageNet's test labels are not public."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the validation batches."""
        return self.val_dataloader()

    def _check(self) -> None:
        """Look at the folders before anything is trained."""
        classes: dict[str, set[str]] = {}
        for name in ("train", "val"):
            folder = self.data_dir / name
            if not folder.is_dir():
                raise FileNotFoundError(f"`data_dir` {self.data_dir} has no folder {name!r}. {_HELP}")
            classes[name] = {each.name for each in folder.iterdir() if each.is_dir()}
            if not classes[name]:
                loose = sum(each.suffix.lower() in IMG_EXTENSIONS for each in folder.iterdir())
                found = f"{loose} images but no class folders" if loose else "no class folders"
                raise FileNotFoundError(f"`data_dir`: {folder} holds {found}. {_HELP}")
        different = sorted(classes["train"] ^ classes["val"])
        if different:
            raise FileNotFoundError(
                f"`data_dir` {self.data_dir}: `train` and `val` differ in {len(different)} classes, the first being "
                f"{different[0]!r}. {_HELP}"
            )
        if self.num_classes not in (None, len(classes["train"])):
            raise FileNotFoundError(
                f"`data_dir` {self.data_dir} holds {len(classes['train'])} classes, but `num_classes` is "
                f"{self.num_classes}. {_HELP}"
            )


def training_transform(image_size: int) -> v2.Transform:
    """Return what turns an image into a training sample: a random crop, mirrored at random."""
    return v2.Compose([v2.RandomResizedCrop(image_size), v2.RandomHorizontalFlip(), *_to_tensor()])


def evaluation_transform(image_size: int) -> v2.Transform:
    """Return what turns an image into a sample for evaluation: its centre.

    >>> from PIL import Image
    >>> tuple(evaluation_transform(32)(Image.new("RGB", (80, 60))).shape)
    (3, 32, 32)
    """
    return v2.Compose([v2.Resize(round(image_size / _CROP)), v2.CenterCrop(image_size), *_to_tensor()])


def _to_tensor() -> list[v2.Transform]:
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
