from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from example_modules.digits import FOLDS, DigitsDataModule, distort, split_fold


def _module(**arguments: object) -> DigitsDataModule:
    module = DigitsDataModule(**arguments)  # type: ignore[arg-type]
    module.setup("fit")
    return module


def test_every_image_is_tested_once_over_the_folds() -> None:
    labels = torch.from_numpy(load_digits().target)
    tested = torch.cat([split_fold(labels, fold)["test"] for fold in range(FOLDS)])
    assert torch.equal(tested.sort().values, torch.arange(1797))


@pytest.mark.parametrize("fold", range(FOLDS))
def test_splits_of_a_fold_are_disjoint_complete_and_hold_all_classes(fold: int) -> None:
    labels = torch.from_numpy(load_digits().target)
    rows = split_fold(labels, fold)
    assert torch.equal(torch.cat(list(rows.values())).sort().values, torch.arange(1797))
    assert 359 <= len(rows["test"]) <= 360
    assert all(len(labels[each].unique()) == 10 for each in rows.values())


def test_batches_are_grey_images_from_0_to_1() -> None:
    images, labels = next(iter(_module(batch_size=16).train_dataloader()))
    assert images.shape == (16, 1, 8, 8)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    assert labels.shape == (16,)


def test_images_can_be_enlarged_and_coloured() -> None:
    images, _ = next(iter(_module(batch_size=4, image_size=32, channels=3).test_dataloader()))
    assert images.shape == (4, 3, 32, 32)
    assert torch.equal(images[:, 0], images[:, 2])


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> torch.Tensor:
        loader = _module(seed=seed).train_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        torch.rand(7)
        return torch.cat([labels for _, labels in loader])

    assert torch.equal(order(0, 1), order(0, 1))
    assert not torch.equal(order(0, 0), order(0, 1))
    assert not torch.equal(order(0, 0), order(1, 0))


def test_hard_images_are_the_same_in_every_run_and_differ_from_the_plain() -> None:
    plain, hard, again = (_module(hard=hard).datasets["test"].tensors[0] for hard in (False, True, True))
    assert torch.equal(hard, again)
    assert (hard - plain).abs().mean() > 0.05
    assert (hard.min(), hard.max()) == (0, 1)


def test_distortion_without_angle_and_noise_only_blacks_out_a_square() -> None:
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1)) + 0.1
    images.clamp_(0.1, 1)
    distorted = distort(images, degrees=0, noise=0, patch=3)
    gone = distorted == 0
    assert gone.sum(dim=(1, 2, 3)).tolist() == [9] * 5
    torch.testing.assert_close(distorted[~gone], images[~gone])


@pytest.mark.parametrize("arguments", [{"fold": 5}, {"fold": -1}, {"channels": 2}])
def test_wrong_arguments_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        DigitsDataModule(**arguments)  # type: ignore[arg-type]
