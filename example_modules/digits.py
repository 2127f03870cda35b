"""scikit-learn's handwritten digits: 1,797 real 8x8 images that need no download."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, default_collate

from example_modules.loading import make_loader

__all__ = ["FOLDS", "DigitsDataModule", "distort", "split_fold"]

FOLDS = 5


class DigitsDataModule(LightningDataModule):
    """Digits in five folds, of which one is the test set, so that over the five every image is tested once.

    Args:
        fold: Which fold to test on, 0 to 4. A tenth of the other four is the validation set.
        hard: Rotate, blur with noise and occlude every image, the same way in every run; a small network then reaches
            about 90 % instead of 99 %.
        batch_size: Images per batch.
        image_size: Height and width; larger than 8 enlarges the images, for networks that need more pixels.
        channels: 3 repeats the grey channel, for networks that take colour.
        num_workers: Processes that load data.
        seed: Decides the order of the training images in each epoch.
    """

    def __init__(
        self,
        fold: int = 0,
        hard: bool = False,
        batch_size: int = 64,
        image_size: int = 8,
        channels: int = 1,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= fold < FOLDS:
            raise ValueError(f"`fold` must be from 0 to {FOLDS - 1}, got {fold}")
        if channels not in (1, 3):
            raise ValueError(f"`channels` must be 1 or 3, got {channels}")
        self.fold = fold
        self.hard = hard
        self.batch_size = batch_size
        self.image_size = image_size
        self.channels = channels
        self.num_workers = num_workers
        self.seed = seed
        self.datasets: dict[str, TensorDataset] = {}

    def setup(self, stage: str) -> None:
        """Load and split the images."""
        if self.datasets:
            return
        digits = load_digits()
        images = torch.from_numpy(digits.images).float()[:, None] / 16
        labels = torch.from_numpy(digits.target)
        if self.hard:
            images = distort(images)
        splits = split_fold(labels, self.fold)
        self.datasets = {name: TensorDataset(images[rows], labels[rows]) for name, rows in splits.items()}

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return shuffled batches; the order depends on seed and epoch alone, so a resumed run continues it."""
        return self._loader("train", seed=self.seed, trainer=self.trainer)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the validation batches."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the batches of the fold under test."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the batches of the fold under test."""
        return self._loader("test")

    def _loader(self, split: str, **options: Any) -> DataLoader[tuple[Tensor, ...]]:
        return make_loader(
            self.datasets[split],
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate=self._collate,
            **options,
        )

    def _collate(self, samples: list[tuple[Tensor, ...]]) -> list[Tensor]:
        images, labels = default_collate(samples)
        if self.image_size != images.shape[-1]:
            images = functional.interpolate(images, size=self.image_size, mode="bilinear", antialias=True)
        return [images.expand(-1, self.channels, -1, -1).contiguous(), labels]


def split_fold(labels: Tensor, fold: int) -> dict[str, Tensor]:
    """Split by class into the fold under test, validation and training rows.

    Args:
        labels: [N] classes.
        fold: Which of the five folds to test on.

    Returns:
        Row numbers of ``train``, ``val`` and ``test``.

    >>> rows = split_fold(torch.arange(200) % 10, fold=0)
    >>> [len(rows[name]) for name in ("train", "val", "test")]
    [144, 16, 40]
    """
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(labels, labels)
    rest, test = (torch.from_numpy(rows) for rows in list(folds)[fold])
    inner = StratifiedKFold(10, shuffle=True, random_state=0).split(rest, labels[rest])
    train, val = (rest[torch.from_numpy(rows)] for rows in next(iter(inner)))
    return {"train": train, "val": val, "test": test}


def distort(images: Tensor, *, degrees: float = 25.0, noise: float = 0.1, patch: int = 2, seed: int = 0) -> Tensor:
    """Rotate each image, black out a square and add noise, by a fixed seed.

    Args:
        images: [N, 1, H, W] with values from 0 to 1.
        degrees: Largest angle, to either side.
        noise: Standard deviation of the noise.
        patch: Side of the square.
        seed: Decides all of it.

    Returns:
        Images of the same shape with values from 0 to 1.

    >>> images = torch.ones(2, 1, 8, 8)
    >>> torch.equal(distort(images), distort(images)), int((distort(images, noise=0, degrees=0) == 0).sum())
    (True, 8)
    """
    generator = torch.Generator().manual_seed(seed)
    count, _, height, width = images.shape
    angle = torch.deg2rad((torch.rand(count, generator=generator) * 2 - 1) * degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(count)
    rotation = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).reshape(count, 2, 3)
    grid = functional.affine_grid(rotation, list(images.shape), align_corners=False)
    rotated = functional.grid_sample(images, grid, align_corners=False, padding_mode="zeros")
    top = torch.randint(height - patch + 1, (count, 1, 1, 1), generator=generator)
    left = torch.randint(width - patch + 1, (count, 1, 1, 1), generator=generator)
    row, column = torch.arange(height).reshape(1, 1, -1, 1), torch.arange(width).reshape(1, 1, 1, -1)
    covered = (row >= top) & (row < top + patch) & (column >= left) & (column < left + patch)
    noisy = rotated.masked_fill(covered, 0) + noise * torch.randn(images.shape, generator=generator)
    return noisy.clamp(0, 1)
