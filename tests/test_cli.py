from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_nncf.cli import main

ROOT = Path(__file__).parents[1]


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
