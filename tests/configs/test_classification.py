from __future__ import annotations

from typing import Any

import pytest
import yaml

from lightning_nncf import NNCFConfig
from lightning_nncf.cli import NNCFCLI
from scripts.zoo.rows import CONFIGS, ROWS

NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "imagenet")
FLOATS = [name for name in NAMES if name.endswith("_float")]


class _Parsed(NNCFCLI):
    """Reads files and checks them against all signatures, but makes nothing of them."""

    def instantiate_classes(self) -> None:
        """Make nothing."""


def _read(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    return read


def _compression(name: str) -> NNCFConfig:
    (callback,) = _read(name)["trainer"]["callbacks"]
    return NNCFConfig.load(callback["init_args"]["config"])


def _plain(config: Any) -> Any:
    return config.as_dict() if hasattr(config, "as_dict") else config


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_valid_behind_the_shared_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["lightning-nncf"])
    files = [str(CONFIGS / "imagenet.yaml"), str(CONFIGS / f"{name}.yaml")]
    cli = _Parsed(args=[f"--config={file}" for file in files], run=False, save_config_callback=None)
    arguments = cli.config.model.init_args
    assert arguments.network.startswith("torchvision:")
    assert arguments.weights == "IMAGENET1K_V1"
    assert arguments.num_classes == 1000
    assert cli.config.data.init_args.batch_size == _read(name)["data"]["init_args"]["batch_size"]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FLOATS])
def test_every_file_compresses_and_exports_under_its_own_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parents[1])
    assert _compression(name).compression
    (callback,) = _read(name)["trainer"]["callbacks"]
    assert callback["class_path"] == "lightning_nncf.NNCFCallback"
    assert callback["init_args"]["export_path"] == f"{name}.onnx"


@pytest.mark.parametrize("name", ["resnet34_float", "resnet34_magnitude", "resnet34_rb_adaptive"])
def test_files_for_cifar_are_valid_behind_their_shared_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["lightning-nncf"])
    files = [str(CONFIGS / "cifar" / f"{each}.yaml") for each in ("shared", name)]
    cli = _Parsed(args=[f"--config={file}" for file in files], run=False, save_config_callback=None)
    assert cli.config.model.init_args.network_args["blocks"] == [3, 4, 6, 3]
    for callback in cli.config.trainer.callbacks or []:
        assert callback.init_args.export_path == f"{name}.onnx"
        assert len(NNCFConfig.load(_plain(callback.init_args.config)).compression) == 1


def test_there_are_twenty_one_rows_and_all_their_baselines() -> None:
    assert len(ROWS) == 21
    assert set(ROWS) <= set(NAMES)
    assert {name.removesuffix("_float") for name in FLOATS} == {
        "googlenet",
        "inception_v3",
        "mobilenet_v2",
        "resnet18",
        "resnet34",
        "resnet50",
        "squeezenet1_1",
    }


@pytest.mark.parametrize("name", [name for name in ROWS if "_rb" in name])
def test_rb_rows_have_the_published_schedule_and_no_weight_decay(name: str) -> None:
    section = next(each for each in _compression(name).compression if each.algorithm == "rb_sparsity")
    values = section.model_dump()
    assert values["sparsity_init"] == 0.01
    assert values["params"]["sparsity_target"] == ROWS[name].sparsity
    assert (values["params"]["sparsity_target_epoch"], values["params"]["sparsity_freeze_epoch"]) == (5, 10)
    assert _read(name)["model"]["init_args"]["weight_decay"] == 0


@pytest.mark.parametrize("name", [name for name in ROWS if "_pruned_" in name])
def test_pruned_rows_have_the_published_schedule(name: str) -> None:
    (section,) = _compression(name).compression
    values = section.model_dump()
    assert values["pruning_init"] == 0.1
    assert (values["params"]["pruning_target"], values["params"]["pruning_steps"]) == (0.4, 15)
    assert values["params"]["filter_importance"] == ("L2" if name.endswith("magnitude") else "geometric_median")
    assert _read(name)["model"]["init_args"]["schedule_args"] == {"milestones": [20, 40, 60, 80]}


def test_files_stay_small() -> None:
    lines = {name: len((CONFIGS / f"{name}.yaml").read_text().splitlines()) for name in NAMES}
    assert max(lines.values()) < 50, lines
