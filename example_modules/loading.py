"""Data loaders whose order and random augmentation depend on a seed alone, so that runs repeat and resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

__all__ = ["make_loader"]


def make_loader(
    dataset: Dataset[Any],
    *,
    batch_size: int,
    num_workers: int = 0,
    seed: int | None = None,
    trainer: Any = None,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Make a data loader.

    Args:
        dataset: The data.
        batch_size: Samples per batch.
        num_workers: Processes that load data.
        seed: For training: shuffle, by this seed and the epoch that Lightning announces, and drop what does not fill a
            batch. Default: keep the order, and all samples.
        trainer: The Trainer, whose ranks share the data in training; default: there is one.
        collate: Makes a batch of samples; default: PyTorch's.

    Raises:
        ValueError: There are too few samples for one batch.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "collate_fn": collate}
    options |= {"persistent_workers": num_workers > 0, "pin_memory": torch.cuda.is_available()}
    if seed is None:
        return DataLoader(dataset, **options)
    ranks = 1 if trainer is None else trainer.world_size
    sampler: DistributedSampler[Any] = DistributedSampler(
        dataset, num_replicas=ranks, rank=0 if trainer is None else trainer.global_rank, seed=seed
    )
    if len(sampler) < batch_size:
        raise ValueError(
            f"`batch_size` is {batch_size}, but there are only {len(sampler)} training samples per process"
        )
    # PyTorch seeds torch, random and numpy of every worker from this generator.
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(dataset, sampler=sampler, drop_last=True, generator=generator, **options)
