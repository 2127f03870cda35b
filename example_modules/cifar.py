"""CIFAR-10 and CIFAR-100 in their Python version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.transforms import v2

from example_modules.loading import make_loader

__all__ = ["CIFARDataModule"]

_STATISTICS = {
    10: ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    100: ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
_PADDING = 4


def _without_sums(files: Sequence[Any]) -> list[Any]:
    return [[name, None] for name, _ in files]


# Without checksums, so that data in the same format, cut short or relabelled, can be read as well.
class _CIFAR10(CIFAR10):
    train_list: ClassVar[Any] = _without_sums(CIFAR10.train_list)
    test_list: ClassVar[Any] = _without_sums(CIFAR10.test_list)
    meta: ClassVar[Any] = {**CIFAR10.meta, "md5": None}


class _CIFAR100(CIFAR100):
    train_list: ClassVar[Any] = _without_sums(CIFAR100.train_list)
    test_list: ClassVar[Any] = _without_sums(CIFAR100.test_list)
    meta: ClassVar[Any] = {**CIFAR100.meta, "md5": None}


_CLASSES: dict[int, type[CIFAR10]] = {10: _CIFAR10, 100: _CIFAR100}


class CIFARDataModule(LightningDataModule):
    """CIFAR-10 or CIFAR-100: 50,000 images to train with, some of which are kept for validation, and 10,000 to test.

    Args:
        data_dir: Folder that holds ``cifar-10-batches-py`` or ``cifar-100-python``.
        num_classes: 10 or 100.
        batch_size: Images per batch.
        val_share: Share of the training images that validate, from 0 to 1.
        num_workers: Processes that load data.
        seed: Decides which images validate, the order of the others in each epoch, and with workers their crops.
    """

    def __init__(
        self,
        data_dir: str,
        num_classes: Literal[10, 100] = 10,
        batch_size: int = 128,
        val_share: float = 0.1,
        num_workers: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < val_share < 1:
            raise ValueError(f"`val_share` must be between 0 and 1, got {val_share}")
        self.data_dir = Path(data_dir)
        self.num_classes = num_classes
        self.batch_size = batch_size
        self.val_share = val_share
        self.num_workers = num_workers
        self.seed = seed
        self.datasets: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        """Read the images and set some aside for validation.

        Raises:
            FileNotFoundError: There is no such folder, or files are missing; says what is expected.
        """
        if self.datasets:
            return
        kind = _CLASSES[self.num_classes]
        self._check(kind)
        mean, std = _STATISTICS[self.num_classes]
        plain = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
        moved = v2.Compose([v2.RandomCrop(32, padding=_PADDING), v2.RandomHorizontalFlip(), *plain])
        still = v2.Compose(plain)
        augmented, train = kind(self.data_dir, transform=moved), kind(self.data_dir, transform=still)
        rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(self.seed)).tolist()
        held = max(round(self.val_share * len(rows)), 1)
        self.datasets = {
            "train": Subset(augmented, rows[held:]),
            "val": Subset(train, rows[:held]),
            "test": kind(self.data_dir, train=False, transform=still),
        }

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled batches; the order depends on seed and epoch alone."""
        return self._loader("train", seed=self.seed, trainer=self.trainer)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation batches."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test batches."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the test batches."""
        return self._loader("test")

    def _loader(self, split: str, **options: Any) -> DataLoader[Any]:
        return make_loader(self.datasets[split], batch_size=self.batch_size, num_workers=self.num_workers, **options)

    def _check(self, kind: type[CIFAR10]) -> None:
        """Look for all files before anything is trained."""
        folder = self.data_dir / kind.base_folder
        names = [name for name, _ in (*kind.train_list, *kind.test_list)] + [kind.meta["filename"]]
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"`data_dir` {self.data_dir}: {folder} lacks {', '.join(missing)}. Expected: the Python version of "
                f"CIFAR-{self.num_classes}, unpacked. Get it from {kind.url} and unpack it in `data_dir`: "
                f"tar xzf {kind.filename}"
            )
