"""Training gets the batches that it would get without the callback: as many, the same, in the same order."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Sampler, WeightedRandomSampler

from lightning_nncf import NNCFCallback
from tests.callback.modules import Classifier, config, trainer

SAMPLES = 24


class Numbered(Dataset[Any]):
    """Images that hold their index, with noise on it."""

    def __init__(self, noise: Callable[[], float] = lambda: 0.0) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((1, 8, 8), index / SAMPLES + 0.001 * self.noise()), index % 3


class OwnNoise(Numbered):
    """Noise from generators and a counter of the data set's own."""

    def __init__(self) -> None:
        self.numpy = np.random.default_rng(0)
        self.python = [random.Random(1)]
        self.reads = 0

    def noise(self) -> float:  # type: ignore[override]
        self.reads += 1
        return float(self.numpy.random() + self.python[0].random() + self.reads)


class Stream(IterableDataset[Any]):
    """The same images in order, read again in each run or once in all, as the kind says."""

    def __init__(self, kind: str = "again", noise: Callable[[], float] = lambda: 0.0) -> None:
        self.kind = kind
        self.data = Numbered(noise)
        self.read = 0
        self.source: Any = iter(range(SAMPLES)) if kind == "iterator" else None
        if kind == "generator":
            self.source = (index for index in range(SAMPLES))

    def __iter__(self) -> Iterator[Any]:
        data = self.data
        if self.kind == "counter":
            while self.read < SAMPLES:
                self.read += 1
                yield data[self.read - 1]
        else:
            for index in self.source or range(SAMPLES):
                yield data[index]


class Falling(Sampler[int]):
    """Remembers its runs: another part of the data in each."""

    def __init__(self) -> None:
        self.runs = 0
        self.order = list(range(SAMPLES))

    def __iter__(self) -> Iterator[int]:
        self.runs += 1
        self.order.append(self.order.pop(0))
        return iter(self.order[self.runs :])

    def __len__(self) -> int:
        return SAMPLES - self.runs


class Uncopyable(Sampler[int]):
    """Goes on where it stopped, in a generator that nothing can copy."""

    def __init__(self) -> None:
        self.indices = (index % SAMPLES for index in itertools.count())

    def __iter__(self) -> Iterator[int]:
        return iter([next(self.indices) for _ in range(10)])

    def __len__(self) -> int:
        return 10


class Lasting(DataLoader[Any]):
    """Keeps one iterator over all epochs, as loaders of image libraries do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lasting = self._forever()

    def _forever(self) -> Iterator[Any]:
        while True:
            yield from super().__iter__()

    def __iter__(self) -> Any:
        for _ in range(len(self)):
            yield next(self.lasting)


class Wrapping:
    """No DataLoader, but one inside, with workers that live on."""

    def __init__(self) -> None:
        self.inner = DataLoader(Numbered(), 4, num_workers=1, persistent_workers=True)

    def __iter__(self) -> Iterator[Any]:
        yield from self.inner


class Queueing(BatchSampler):
    """A batch sampler with a random generator of its own."""

    def __init__(self) -> None:
        super().__init__(range(SAMPLES), 4, False)
        self.random = random.Random(3)

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(5):
            yield [self.random.randrange(SAMPLES) for _ in range(4)]

    def __len__(self) -> int:
        return 5


def _global_noise() -> float:
    return float(torch.rand(())) + random.random() + float(np.random.rand())


def _shuffled(**options: Any) -> DataLoader[Any]:
    return DataLoader(Numbered(), 4, shuffle=True, **options)


def _combined(mode: Any) -> CombinedLoader:
    return CombinedLoader({"a": _shuffled(), "b": DataLoader(Numbered(), 3)}, mode)


LOADERS: dict[str, Callable[[], Any]] = {
    "in order": lambda: DataLoader(Numbered(), 4),
    "shuffled": _shuffled,
    "shuffled with generator": lambda: _shuffled(generator=torch.Generator().manual_seed(5)),
    "global noise": lambda: DataLoader(Numbered(_global_noise), 4, shuffle=True),
    "noise of the data set": lambda: DataLoader(OwnNoise(), 4),
    "one worker": lambda: _shuffled(num_workers=1),
    "persistent worker": lambda: _shuffled(num_workers=1, persistent_workers=True),
    "two persistent workers": lambda: DataLoader(Numbered(_global_noise), 4, num_workers=2, persistent_workers=True),
    "weighted": lambda: DataLoader(Numbered(), 4, sampler=WeightedRandomSampler([1.0] * SAMPLES, SAMPLES)),
    "sampler with memory": lambda: DataLoader(Numbered(), 4, sampler=Falling()),
    "sampler that cannot be copied": lambda: DataLoader(Numbered(), 4, sampler=Uncopyable()),
    "batch sampler": lambda: DataLoader(Numbered(), batch_sampler=Queueing()),
    "loader with a lasting iterator": lambda: Lasting(Numbered(), 4),
    "no DataLoader": Wrapping,
    "generator": lambda: (batch for batch in DataLoader(Numbered(), 4)),
    "generator with noise": lambda: (batch for batch in DataLoader(Numbered(_global_noise), 4)),
    "one-shot iterator with noise": lambda: DataLoader(Stream("iterator", _global_noise), 4),
    "stream": lambda: DataLoader(Stream(), 4),
    "stream with a worker": lambda: DataLoader(Stream(), 4, num_workers=1, persistent_workers=True),
    "one-shot iterator": lambda: DataLoader(Stream("iterator"), 4),
    "one-shot generator": lambda: DataLoader(Stream("generator"), 4),
    "one-shot counter": lambda: DataLoader(Stream("counter"), 4),
    "dict of loaders": lambda: {"a": _shuffled(), "b": DataLoader(Stream("iterator"), 3)},
    "combined, shortest": lambda: _combined("min_size"),
    "combined, longest": lambda: _combined("max_size"),
}


def _values(batch: Any) -> Any:
    """Return what tells batches apart, as plain values."""
    if isinstance(batch, Tensor):
        return batch.flatten(1)[:, 0].tolist() if batch.ndim > 1 else batch.tolist()
    if isinstance(batch, dict):
        return {key: _values(value) for key, value in batch.items()}
    return [_values(value) for value in batch] if isinstance(batch, (list, tuple)) else batch


class Seen(Classifier):
    """Trains on the first image tensor of a batch and records all batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Any] = []

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.batches.append(_values(batch))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pair = batch["a"] or batch["b"] if isinstance(batch, dict) else batch
        return self.net(pair[0]).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.net(batch[0])


def _trained(tmp_path: Path, loaders: Any, *callbacks: Any, module: Seen | None = None, **options: Any) -> list[Any]:
    pl.seed_everything(7)
    module = module or Seen()
    settings: dict[str, Any] = {"max_epochs": 2, "num_sanity_val_steps": 0, **options}
    trainer(tmp_path, *callbacks, **settings).fit(module, loaders)
    return module.batches


def _callback() -> NNCFCallback:
    return NNCFCallback(config(), export_path=None)


@pytest.mark.parametrize("name", LOADERS)
def test_batches_are_those_of_a_run_without_the_callback(tmp_path: Path, name: str) -> None:
    expected = _trained(tmp_path, LOADERS[name]())
    assert expected
    assert _trained(tmp_path, LOADERS[name](), _callback()) == expected


@pytest.mark.parametrize(("limit", "expected"), [(2, 2), (0.5, 3)])
def test_a_limit_on_the_batches_holds_for_initialization_too(tmp_path: Path, limit: float, expected: int) -> None:
    callback = _callback()
    read: list[int] = []

    class Count(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            assert callback.compressed is not None
            assert callback.compressed.calibration is not None
            read.append(len(list(callback.compressed.calibration.batches)))

    batches = _trained(tmp_path, DataLoader(OwnNoise(), 4), callback, Count(), limit_train_batches=limit)
    assert len(batches) == 2 * expected
    assert read == [expected]


def test_what_a_data_module_notes_when_it_makes_loaders_stays(tmp_path: Path) -> None:
    class Noting(pl.LightningDataModule):
        made = 0

        def train_dataloader(self) -> Any:
            self.made += 1
            return DataLoader(Numbered(), 4)

    data = Noting()
    trainer(tmp_path, NNCFCallback(config(), export_path=None)).fit(Classifier(), datamodule=data)
    assert data.made == 1


@pytest.mark.parametrize("every", [0, 1])
def test_loaders_of_a_hook_are_asked_for_as_often_as_without_the_callback(tmp_path: Path, every: int) -> None:
    def run(*callbacks: Any) -> tuple[int, list[Any]]:
        class Hooked(Seen):
            asked = 0

            def train_dataloader(self) -> Any:
                self.asked += 1
                part = torch.randperm(SAMPLES).tolist()[: 16 + self.asked]
                return DataLoader(Numbered(), 4, sampler=part)

        module = Hooked()
        settings: dict[str, Any] = {"reload_dataloaders_every_n_epochs": every, "max_epochs": 3}
        return module.asked, _trained(tmp_path, None, *callbacks, module=module, **settings)

    assert run(_callback()) == run()


class Again(pl.Callback):
    """Initializes the ranges anew in the middle of an epoch."""

    def __init__(self, callback: NNCFCallback) -> None:
        self.callback = callback

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            self.callback.initialize_ranges()


@pytest.mark.parametrize("name", ["persistent worker", "one-shot iterator", "noise of the data set", "shuffled"])
def test_initialization_during_training_takes_nothing_from_it(tmp_path: Path, name: str) -> None:
    epochs = 1 if "one-shot" in name else 2
    expected = _trained(tmp_path, LOADERS[name](), max_epochs=epochs)
    callback = _callback()
    assert _trained(tmp_path, LOADERS[name](), callback, Again(callback), max_epochs=epochs) == expected


@pytest.mark.parametrize("name", ["shuffled", "persistent worker"])
def test_a_step_that_asks_for_the_number_of_steps_changes_no_batch(tmp_path: Path, name: str) -> None:
    class Asking(Seen):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            counts.append((self.trainer.num_training_batches, self.trainer.estimated_stepping_batches))
            return super().training_step(batch, batch_idx)

    counts: list[tuple[float, float]] = []
    runs = [_trained(tmp_path, LOADERS[name](), *each, module=Asking()) for each in ((), (_callback(),))]
    assert runs[0] == runs[1]
    assert len(set(counts)) == 1


@pytest.mark.parametrize("name", ["persistent worker", "shuffled"])
def test_ranges_that_begin_later_take_nothing_from_training(tmp_path: Path, name: str) -> None:
    staged = config(params={"activations_quant_start_epoch": 1, "weights_quant_start_epoch": 1})
    expected = _trained(tmp_path, LOADERS[name]())
    assert _trained(tmp_path, LOADERS[name](), NNCFCallback(staged, export_path=None)) == expected


def test_replayed_batches_are_not_what_a_step_wrote_into(tmp_path: Path) -> None:
    class Writing(Seen):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            batch[0].add_(1.0)
            return super().training_step(batch, batch_idx)

    expected = _trained(tmp_path, DataLoader(Stream("iterator"), 4), module=Writing())
    assert _trained(tmp_path, DataLoader(Stream("iterator"), 4), _callback(), module=Writing()) == expected


def test_loaders_are_the_users_own_after_fit(tmp_path: Path) -> None:
    class First(Seen):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step(batch[0], batch_idx)

    combined = CombinedLoader([DataLoader(Stream("iterator"), 4)], "max_size_cycle")
    (loader,) = combined.flattened
    _trained(tmp_path, combined, _callback(), module=First(), max_epochs=1)
    assert combined.flattened[0] is loader


def test_batches_of_every_process_are_those_of_a_run_without_the_callback(tmp_path: Path) -> None:
    script = Path(__file__).with_name("batches_ddp_script.py")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, str(script), str(tmp_path)], env=environment, cwd=root, check=True, timeout=300)
    ranks = [json.loads((tmp_path / f"batches{rank}.json").read_text()) for rank in (0, 1)]
    for found in ranks:
        for name, (plain, compressed) in found.items():
            assert plain, name
            assert compressed == plain, name
    assert ranks[0]["shuffled"] != ranks[1]["shuffled"]
