from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from example_modules.cifar import CIFARDataModule

_FILES = {
    10: ("cifar-10-batches-py", [f"data_batch_{number}" for number in range(1, 6)], "test_batch", "labels"),
    100: ("cifar-100-python", ["train"], "test", "fine_labels"),
}


def _write(root: Path, classes: int, per_file: int = 4) -> None:
    """Write files as the Python version of CIFAR has them; image number i has the value i in every pixel."""
    base, train, test, label = _FILES[classes]
    (root / base).mkdir(parents=True)
    for index, name in enumerate([*train, test]):
        values = np.arange(per_file, dtype=np.uint8) + index * per_file
        batch = {"data": values[:, None].repeat(3072, axis=1), label: (values % classes).tolist()}
        (root / base / name).write_bytes(pickle.dumps(batch))
    names = [f"class {number}" for number in range(classes)]
    meta = {"label_names": names} if classes == 10 else {"fine_label_names": names}
    (root / base / ("batches.meta" if classes == 10 else "meta")).write_bytes(pickle.dumps(meta))


def _module(root: Path, classes: Any, **arguments: Any) -> CIFARDataModule:
    module = CIFARDataModule(str(root), classes, **{"batch_size": 2, "num_workers": 0, **arguments})
    module.setup("fit")
    return module


@pytest.mark.parametrize(("classes", "images"), [(10, 20), (100, 4)])
def test_images_come_from_the_real_format(tmp_path: Path, classes: int, images: int) -> None:
    _write(tmp_path, classes)
    module = _module(tmp_path, classes, val_share=0.25)
    assert {name: len(dataset) for name, dataset in module.datasets.items()} == {
        "train": images * 3 // 4,
        "val": images // 4,
        "test": 4,
    }
    batch, labels = next(iter(module.test_dataloader()))
    assert batch.shape == (2, 3, 32, 32)
    assert labels.tolist() == [images % classes, (images + 1) % classes]
    # The second test image has the value `images + 1` everywhere.
    mean, std = {10: (0.4914, 0.2470), 100: (0.5071, 0.2673)}[classes]
    torch.testing.assert_close(batch[1, 0], torch.full((32, 32), ((images + 1) / 255 - mean) / std))


def test_validation_images_are_not_trained_with(tmp_path: Path) -> None:
    _write(tmp_path, 10)
    module = _module(tmp_path, 10, val_share=0.3, seed=3)
    rows = {name: set(module.datasets[name].indices) for name in ("train", "val")}
    assert not rows["train"] & rows["val"]
    assert rows["train"] | rows["val"] == set(range(20))
    assert rows["val"] != set(_module(tmp_path, 10, val_share=0.3, seed=4).datasets["val"].indices)


@pytest.mark.parametrize(("classes", "file"), [(10, "data_batch_3"), (10, "batches.meta"), (100, "train")])
def test_missing_file_is_named_with_where_to_get_it(tmp_path: Path, classes: int, file: str) -> None:
    _write(tmp_path, classes)
    (tmp_path / _FILES[classes][0] / file).unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks {file}\. Expected: the Python version.*https://.*tar xzf"):
        _module(tmp_path, classes)


def test_share_for_validation_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`val_share` must be between 0 and 1, got 1"):
        CIFARDataModule(str(tmp_path), val_share=1)
