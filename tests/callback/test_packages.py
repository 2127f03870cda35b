"""Modules, command lines and Trainers of `lightning.pytorch`, beside those of `pytorch_lightning`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
import yaml

import lightning_nncf
from lightning_nncf import NNCFCallback
from lightning_nncf.callback.packages import package_in_use
from lightning_nncf.cli import main
from tests.callback.modules import config

other: Any = pytest.importorskip("lightning.pytorch", reason="the package `lightning` is not installed")

MODULE = "tests.callback.lightning_module.OtherModule"
PLAIN = "example_modules.classification.ImageClassifier"
ROOT = Path(__file__).parents[2]


def settings(folder: Path, **callback: Any) -> dict[str, Any]:
    init_args = {"config": config(), "verify": False, **callback}
    return {
        "model": {"class_path": MODULE},
        "data": {"class_path": "tests.callback.lightning_module.OtherData"},
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": str(folder),
            "callbacks": [{"class_path": "lightning_nncf.NNCFCallback", "init_args": init_args}],
        },
    }


def written(folder: Path, values: dict[str, Any], name: str = "fit.yaml") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(yaml.safe_dump(values))
    return str(folder / name)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    main(["fit", "--config", written(folder, settings(folder))])
    return folder


def test_fit_trains_exports_and_saves(fitted: Path) -> None:
    assert (fitted / "model.onnx").exists()
    (checkpoint,) = fitted.rglob("*.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["lightning_nncf"]["module_class"] == MODULE
    assert any("lnncf_" in name for name in saved["state_dict"])


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
@pytest.mark.filterwarnings("error:.*runs the plain network.*")
def test_other_commands_take_the_checkpoint(fitted: Path, command: str) -> None:
    (checkpoint,) = fitted.rglob("*.ckpt")
    main([command, "--config", str(fitted / "fit.yaml"), "--ckpt_path", str(checkpoint)])


@pytest.mark.parametrize("module_config", [False, True], ids=["alone", "module_config"])
def test_export_takes_the_checkpoint(fitted: Path, tmp_path: Path, module_config: bool) -> None:
    (checkpoint,) = fitted.rglob("*.ckpt")
    more = ["--module_config", str(fitted / "fit.yaml")] if module_config else []
    main(["export", str(checkpoint), "--output", str(tmp_path / "a.onnx"), "--check", "false", *more])
    assert (tmp_path / "a.onnx").exists()


def test_quantize_compresses_without_training(tmp_path: Path) -> None:
    values = settings(tmp_path)
    main(["quantize", "--config", written(tmp_path, values), "--output", str(tmp_path / "new/model.onnx")])
    assert torch.load(tmp_path / "new/model.ckpt", weights_only=True)["global_step"] == 0
    assert (tmp_path / "new/model.onnx").exists()


@pytest.mark.parametrize("model", [MODULE, PLAIN], ids=["lightning", "pytorch_lightning"])
def test_quantize_writes_nothing_in_a_trial_run_and_does_not_train(tmp_path: Path, model: str) -> None:
    values = settings(tmp_path / "out")
    if model == PLAIN:
        values["model"] = {"class_path": PLAIN}
        values["data"] = {"class_path": "example_modules.digits.DigitsDataModule"}
    file = written(tmp_path, values)
    main(["quantize", "--config", file, "--output", str(tmp_path / "new.onnx"), "--trainer.fast_dev_run", "true"])
    assert [path.name for path in tmp_path.rglob("*")] == ["fit.yaml"]


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
def test_callback_is_taken_by_the_command_line_of_either_package(tmp_path: Path) -> None:
    from lightning.pytorch.cli import LightningCLI as Other
    from pytorch_lightning.cli import LightningCLI as Plain

    values = settings(tmp_path)
    file = written(tmp_path, values)
    cli = Other(run=False, args=["--config", file], save_config_callback=None)
    assert sum(isinstance(each, NNCFCallback) for each in cli.trainer.callbacks) == 1
    values["model"], values["data"] = {"class_path": PLAIN}, None
    file = written(tmp_path, values)
    cli = Plain(run=False, args=["--config", file], save_config_callback=None)
    assert sum(isinstance(each, NNCFCallback) for each in cli.trainer.callbacks) == 1


def test_callback_is_one_class_of_both_packages() -> None:
    assert lightning_nncf.NNCFCallback is lightning_nncf.callback.NNCFCallback is NNCFCallback
    assert issubclass(lightning_nncf.NNCFCallback, pytorch_lightning.Callback)
    assert issubclass(lightning_nncf.NNCFCallback, other.Callback)


@pytest.mark.parametrize("module", ["lightning_nncf", "lightning_nncf.callback"])
def test_unknown_names_are_attribute_errors(module: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'NNCFCallbak'"):
        sys.modules[module].NNCFCallbak  # noqa: B018


@pytest.mark.parametrize("use", ["name", "instance"])
def test_package_that_is_imported_later_counts_from_then_on(use: str) -> None:
    NNCFCallback.__bases__ = tuple(base for base in NNCFCallback.__bases__ if base is not other.Callback)
    assert not issubclass(NNCFCallback, other.Callback)
    if use == "name":
        assert lightning_nncf.NNCFCallback is NNCFCallback
    else:
        NNCFCallback(config())
    assert issubclass(NNCFCallback, other.Callback)


def test_package_that_is_not_used_is_not_imported(tmp_path: Path) -> None:
    values = settings(tmp_path)
    values["model"], values["data"] = {"class_path": PLAIN}, None
    code = f"""
import sys
from lightning_nncf.cli import main
try:
    main(["fit", "--config", {written(tmp_path, values)!r}, "--print_config"])
except SystemExit as end:
    print(end.code, "lightning" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "--config", "flat.yaml"],
        ["fit", "-c", "flat.yaml"],
        ["--config=sections.yaml", "fit"],
        ["fit", "--config", "reference.yaml"],
        ["fit", "--config", "plain.yaml", "--model", MODULE],
        ["fit", "--config", "plain.yaml", "--config", "flat.yaml"],
        ["fit", f"--model.class_path={MODULE}", "--trainer.max_epochs", "1"],
        ["fit", "--model", "OtherModule"],
        ["fit", "--data", "tests.callback.lightning_module.OtherData"],
    ],
    ids=lambda arguments: " ".join(arguments[1:])[:40],
)
def test_package_is_that_of_the_module_wherever_it_is_named(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tests.callback.lightning_module  # noqa: F401

    monkeypatch.chdir(tmp_path)
    flat = {"model": {"class_path": MODULE}}
    written(tmp_path, flat, "flat.yaml")
    written(tmp_path, {"fit": flat}, "sections.yaml")
    written(tmp_path, {"model": "flat/model.yaml"}, "reference.yaml")
    written(tmp_path / "flat", flat["model"], "model.yaml")
    written(tmp_path, {"model": {"class_path": PLAIN}}, "plain.yaml")
    assert package_in_use(arguments) == "lightning.pytorch"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["fit", "--config"],
        ["fit", "--config", "absent.yaml"],
        ["fit", "--config", "broken.yaml"],
        ["fit", "--config", "list.yaml"],
        ["fit", "--model", PLAIN],
        ["fit", "--model", "no.such.module.Class"],
        ["fit", "--model", "broken_module.Class"],
        ["fit", "--model", "NoSuchClass"],
        ["fit", "--model", "builtins.len"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_what_names_no_module_is_left_to_the_parser(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken.yaml").write_text("model: [")
    (tmp_path / "list.yaml").write_text("- model")
    (tmp_path / "broken_module.py").write_text("raise OSError('never')")
    assert package_in_use(arguments) == "pytorch_lightning"


def test_help_of_the_callback_says_what_paths_and_scopes_are_relative_to(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["fit", "--trainer.callbacks.help", "lightning_nncf.NNCFCallback"])
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    assert "an absolute path, or one relative to the Trainer's ``default_root_dir``" in text
    assert "Its scopes are relative to the network, not to the module" in text
