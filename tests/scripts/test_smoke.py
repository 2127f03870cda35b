from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.registry import create_algorithms
from lightning_nncf.schedules.scheduler import Scheduler
from scripts.zoo.rows import ROWS
from scripts.zoo.smoke import EPOCHS, randomize, shortened, smoke_overrides, write_images


def test_images_are_jpeg_files_in_folders_by_class(tmp_path: Path) -> None:
    write_images(tmp_path, side=24)
    for split, count in (("train", 16), ("val", 4)):
        folders = sorted((tmp_path / split).iterdir())
        assert [folder.name for folder in folders] == ["n01440764", "n01443537", "n01484850", "n01491361"]
        for folder in folders:
            files = list(folder.iterdir())
            assert len(files) == count
            with Image.open(files[0]) as image:
                assert (image.format, image.size) == ("JPEG", (32, 24))


@pytest.mark.parametrize("name", [name for name in ROWS if "mixed" not in name])
def test_shortened_schedules_reach_their_targets_in_the_last_epoch(name: str) -> None:
    settings = ROWS[name].settings()
    before = settings["trainer"]["callbacks"][0]["init_args"]["config"]["compression"]
    after = shortened(before)
    sections = after if isinstance(after, list) else [after]
    for section in sections:
        params = section.get("params", {})
        if section["algorithm"] == "filter_pruning":
            assert params["pruning_target"] == 0.4
            assert params["pruning_steps"] == EPOCHS
        if section["algorithm"] == "rb_sparsity":
            assert params["sparsity_target"] == ROWS[name].sparsity
            assert params["sparsity_freeze_epoch"] == EPOCHS - 1
        if section["algorithm"] == "binarization":
            assert params["weights_quant_start_epoch"] == EPOCHS - 1
    assert all(isinstance(each.scheduler, Scheduler) for each in create_algorithms(NNCFConfig(compression=after)))


def test_rest_of_a_row_stays_as_it_is(tmp_path: Path) -> None:
    settings: dict[str, Any] = ROWS["mobilenet_v2_int8_per_tensor"].settings()
    overrides = smoke_overrides(settings, tmp_path)
    section = overrides["trainer"]["callbacks"][0]["init_args"]["config"]["compression"]
    assert section["weights"] == section["activations"] == {"per_channel": False}
    assert section["initializer"]["range"]["num_init_samples"] == 16
    assert "network" not in overrides["model"]["init_args"]
    original = settings["trainer"]["callbacks"][0]["init_args"]["config"]["compression"]
    assert original["initializer"]["range"]["num_init_samples"] == 7000


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet50_int8", 64), ("inception_v3_int8", 299), ("resnet18_pruned_magnitude", 224)],
)
def test_images_are_small_where_the_network_and_the_table_allow(name: str, size: int, tmp_path: Path) -> None:
    assert smoke_overrides(ROWS[name].settings(), tmp_path)["data"]["init_args"]["image_size"] == size


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18"])
def test_random_weights_pass_the_signal_on(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8, 3, 1, 1, generator=generator) + 0.5 * torch.randn(8, 3, 64, 64, generator=generator)
    network, again = (torchvision.models.get_model(name, num_classes=10).eval() for _ in range(2))
    before = [module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    randomize(network, images)
    randomize(again, images)
    assert not network.training
    assert before == [module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        logits = network(images)
    # What differs between images is of the size of what they have in common.
    assert logits.std(dim=0).mean() > 0.1 * logits.abs().mean()
    weights = [next(each for each in one.modules() if isinstance(each, nn.Conv2d)).weight for one in (network, again)]
    assert torch.equal(*weights)
