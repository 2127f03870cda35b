from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer

from example_modules.classification import ImageClassifier
from example_modules.imagenet import MEAN, STD, ImageNetDataModule, evaluation_transform

CLASSES = ("n01440764", "n01443537")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of JPEG files, the first one red and the second one blue."""
    for split, count in (("train", 5), ("val", 2)):
        for name, colour in zip(CLASSES, ((255, 0, 0), (0, 0, 255)), strict=True):
            target = tmp_path / split / name
            target.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (50 + number, 40), colour).save(target / f"{name}_{number}.JPEG")
    return tmp_path


def _module(folder: Path, **arguments: Any) -> ImageNetDataModule:
    options = {"batch_size": 4, "image_size": 32, "num_classes": 2, "num_workers": 0, **arguments}
    module = ImageNetDataModule(str(folder), **options)
    module.setup("fit")
    return module


def test_batches_are_normalized_crops_with_their_classes(folder: Path) -> None:
    module = _module(folder, val_batch_size=3)
    images, labels = next(iter(module.train_dataloader()))
    assert images.shape == (4, 3, 32, 32)
    red = images[labels == 0][0].mean(dim=(1, 2))
    expected = [(1 - MEAN[0]) / STD[0], -MEAN[1] / STD[1], -MEAN[2] / STD[2]]
    torch.testing.assert_close(red, torch.tensor(expected), atol=0.05, rtol=0)
    assert [len(labels) for _, labels in module.val_dataloader()] == [3, 1]
    assert torch.cat([labels for _, labels in module.test_dataloader()]).tolist() == [0, 0, 1, 1]


def test_evaluation_takes_the_centre_of_the_scaled_image() -> None:
    image = Image.new("RGB", (256, 512), (0, 0, 0))
    image.paste((255, 255, 255), (16, 144, 240, 368))
    sample = evaluation_transform(224)(image)
    white = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(sample, white[:, None, None].expand(3, 224, 224))


@pytest.mark.parametrize("workers", [0, 2])
def test_order_and_crops_repeat_with_the_seed(folder: Path, workers: int) -> None:
    def epochs(seed: int) -> torch.Tensor:
        torch.manual_seed(7)
        loader = _module(folder, num_workers=workers, seed=seed).train_dataloader()
        return torch.cat([images for _ in range(2) for images, _ in loader])

    assert torch.equal(epochs(0), epochs(0))
    assert not torch.equal(epochs(0), epochs(1))


def _without(name: str) -> Any:
    return lambda folder: shutil.rmtree(folder / name)


def _flat(folder: Path) -> None:
    shutil.rmtree(folder / "val")
    (folder / "val").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "val" / "ILSVRC2012_val_00000001.JPEG")


def _emptied(folder: Path) -> None:
    for path in (folder / "train" / CLASSES[1]).iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without("train"), "has no folder 'train'"),
        (_without("val"), "has no folder 'val'"),
        (_flat, "1 images but no class folders"),
        (_without(f"val/{CLASSES[1]}"), r"differ in 1 classes, the first being 'n01443537'"),
        (_emptied, "n01443537"),
    ],
    ids=["no train", "no val", "flat val", "other classes", "empty class"],
)
def test_wrong_layout_stops_before_training_and_says_what_is_expected(folder: Path, spoil: Any, message: str) -> None:
    spoil(folder)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    module = ImageClassifier("torchvision:squeezenet1_1", num_classes=2)
    module.training_step = lambda *_: pytest.fail("training began")  # type: ignore[method-assign, misc]
    data = ImageNetDataModule(str(folder), batch_size=2, image_size=32, num_classes=2, num_workers=0)
    with pytest.raises(FileNotFoundError, match=rf"{message}.*(?s:.*)train/n01440764/\*\.JPEG.*image-net\.org"):
        trainer.fit(module, data)


def test_another_number_of_classes_is_refused(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds 2 classes, but `num_classes` is 1000"):
        _module(folder, num_classes=1000)
    assert len(_module(folder, num_classes=None).datasets["train"]) == 10


def test_batch_that_cannot_be_filled_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="`batch_size` is 11, but there are only 10 training samples"):
        _module(folder, batch_size=11).train_dataloader()
