from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer

from example_modules.classification import ImageClassifier
from example_modules.digits import DigitsDataModule
from lightning_nncf.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart, cut short: every command below works on what it wrote."""
    path = tmp_path_factory.mktemp("quickstart")
    arguments = {
        "--config": ROOT / "configs/quickstart.yaml",
        "--float_training.max_epochs": 1,
        "--trainer.max_epochs": 1,
        "--trainer.limit_train_batches": 4,
        "--trainer.default_root_dir": path,
        "--trainer.enable_progress_bar": "false",
    }
    with pytest.MonkeyPatch.context() as patch, (path / "output.txt").open("w") as output:
        patch.setattr("sys.argv", ["lightning-nncf"])
        patch.setattr("sys.stdout", output)
        main(["fit", *(str(part) for pair in arguments.items() for part in pair)])
    return path


def test_fit_ends_with_one_table_of_all_runtimes(folder: Path) -> None:
    table = (folder / "output.txt").read_text().rpartition("Results")[2]
    rows = [line for line in table.splitlines() if "INT8" in line or "float" in line]
    names = ["PyTorch float", "PyTorch INT8 (simulated)", "ONNX Runtime INT8", "OpenVINO INT8"]
    assert [name for name in names if any(name in row for row in rows)] == names
    assert sum("9/9" in row for row in rows) == 2
    assert (folder / "model.onnx").exists()


def test_export_needs_only_the_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = max(folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    main(["export", str(checkpoint), "--output", str(folder / "again.onnx"), "--export_format", "openvino_fq"])
    assert (folder / "again.onnx").exists()
    assert "openvino" in capsys.readouterr().out


def test_export_takes_the_module_from_a_lightning_cli_file(folder: Path) -> None:
    checkpoint = max(folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    output, config = folder / "third.onnx", ROOT / "configs/quickstart.yaml"
    main(["export", str(checkpoint), "--output", str(output), "--module_config", str(config), "--check", "false"])
    assert output.exists()


@pytest.fixture(scope="module")
def quantized(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network, from a float checkpoint and with no training."""
    path = tmp_path_factory.mktemp("quantized")
    module = ImageClassifier("small_resnet", optimizer="sgd")
    trainer = Trainer(max_epochs=0, logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.fit(module, datamodule=DigitsDataModule())
    trainer.save_checkpoint(path / "float.ckpt")
    with pytest.MonkeyPatch.context() as patch, (path / "output.txt").open("w") as output:
        patch.setattr("sys.stdout", output)
        main(["quantize", *_quickstart(path), "--ckpt_path", str(path / "float.ckpt")])
    return path


def _quickstart(path: Path) -> list[str]:
    config, output = ROOT / "configs/quickstart.yaml", path / "new/model.onnx"
    arguments = {"--config": config, "--output": output, "--trainer.default_root_dir": path}
    return [*(str(part) for pair in arguments.items() for part in pair), "--trainer.enable_progress_bar", "false"]


def test_quantize_compares_all_runtimes_without_training(quantized: Path) -> None:
    table = (quantized / "output.txt").read_text().rpartition("Results")[2]
    names = ["PyTorch float", "PyTorch INT8 (simulated)", "ONNX Runtime INT8", "OpenVINO INT8"]
    assert all(name in table for name in names)
    assert (quantized / "new/model.onnx").exists()


def test_quantize_writes_a_checkpoint_with_the_weights_it_was_given(quantized: Path) -> None:
    given = torch.load(quantized / "float.ckpt", weights_only=True)
    written = torch.load(quantized / "new/model.ckpt", weights_only=True)
    assert written["global_step"] == 0
    weights = [name for name in given["state_dict"] if name.endswith(("conv.weight", "fc.weight", "fc.bias"))]
    assert len(weights) == 3
    assert all(torch.equal(given["state_dict"][name], written["state_dict"][name]) for name in weights)
    assert any("lnncf_" in name for name in written["state_dict"])


def test_quantize_refuses_a_compressed_checkpoint(quantized: Path) -> None:
    with pytest.raises(SystemExit, match="holds a compressed network already"):
        main(["quantize", *_quickstart(quantized), "--ckpt_path", str(quantized / "new/model.ckpt")])


@pytest.mark.filterwarnings("error:LightningCLI's args")
def test_quantize_refuses_a_file_without_the_callback(quantized: Path) -> None:
    with pytest.raises(SystemExit, match="exactly one NNCFCallback"):
        main(["quantize", *_quickstart(quantized), "--trainer.callbacks", "null"])


def test_verify_shows_what_runs_in_integers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", str(folder / "model.onnx")])
    output = capsys.readouterr().out
    assert "onnxruntime" in output
    assert "9/9" in output


def test_schema_is_json_schema_of_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    main(["schema"])
    schema = json.loads(capsys.readouterr().out)
    assert "compression" in schema["properties"]


def test_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_text("nothing")
    with pytest.raises(SystemExit, match=r"CheckpointError.*a\.ckpt"):
        main(["export", str(tmp_path / "a.ckpt")])


def test_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_text("nothing")
    with pytest.raises(SystemExit, match=r"ExportError.*a\.onnx"):
        main(["verify", str(tmp_path / "a.onnx")])


@pytest.mark.parametrize("command", ["quantize", "export", "verify", "schema", "schedule"])
def test_help_shows_the_command_as_it_is_typed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: lightning-nncf {command} [")


def test_a_wrong_configuration_in_a_file_is_told_without_a_traceback(tmp_path: Path) -> None:
    callback = {"class_path": "lightning_nncf.NNCFCallback", "init_args": {"config": {"target_device": "CPUU"}}}
    settings = {
        "model": {"class_path": "example_modules.classification.ImageClassifier"},
        "trainer": {"callbacks": [callback], "default_root_dir": str(tmp_path)},
    }
    (tmp_path / "bad.yaml").write_text(json.dumps(settings))
    with pytest.raises(SystemExit, match=r"^lightning-nncf: ConfigProblemsError: .*`target_device`.*mean 'CPU'\?"):
        main(["fit", "--config", str(tmp_path / "bad.yaml")])


def test_errors_of_others_are_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(_: object, **__: object) -> None:
        raise ValueError("of the user")

    monkeypatch.setattr("lightning_nncf.cli.commands.verify_file", fail)
    with pytest.raises(ValueError, match="of the user"):
        main(["verify", str(tmp_path / "model.onnx")])
