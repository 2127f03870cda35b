from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lightning_nncf.cli import main as lightning_nncf_main
from lightning_nncf.proof.verify import verify_file
from scripts.zoo.command import main
from scripts.zoo.rows import ROWS
from scripts.zoo.smoke import smoke_overrides, write_images

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["squeezenet1_1_int8", "resnet18_pruned_magnitude", "resnet18_xnor"])
def test_smoke_run_of_a_row_trains_evaluates_exports_and_proves(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--smoke", "--output", str(tmp_path)]) == 0
    (line,) = (tmp_path / "results.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["passed"]
    assert record["stage"] == "FULLY_COMPRESSED"
    assert record["accuracy"] is None
    assert record["epochs"] == 2
    assert all(result["passed"] for result in record["proof"].values())
    file = tmp_path / name / f"{name}.onnx"
    assert file.stat().st_size == record["bytes"] < record["float_bytes"]
    assert verify_file(file, latency_runs=0).passed
    assert "1 of 1 rows passed" in capsys.readouterr().out


@pytest.mark.slow
def test_plain_command_takes_the_files_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = ROWS["squeezenet1_1_int8"]
    write_images(tmp_path / "imagenet")
    short = tmp_path / "short.yaml"
    short.write_text(yaml.safe_dump(smoke_overrides(row.settings(), tmp_path / "imagenet")))
    arguments = [f"--config={file}" for file in (*row.files, short)]
    monkeypatch.setattr("sys.argv", ["lightning-nncf"])
    lightning_nncf_main(["fit", *arguments, f"--trainer.default_root_dir={tmp_path}"])
    assert (tmp_path / "squeezenet1_1_int8.onnx").exists()


def test_row_that_fails_is_reported_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def reproduce(row: object, *_: object, **__: object) -> dict[str, object]:
        if row is ROWS["resnet18_xnor"]:
            raise RuntimeError("no luck")
        problems = ["too large"] if row is ROWS["resnet18_dorefa"] else []
        return {"row": row.name, "seconds": 1.0, "accuracy": {"test_accuracy": 0.5}, "problems": problems}  # type: ignore[attr-defined]

    monkeypatch.setattr("scripts.zoo.command.reproduce", reproduce)
    names = ["resnet18_xnor", "resnet18_dorefa", "resnet50_int8"]
    assert main([*names, "--data", "x", "--output", str(tmp_path)]) == 2
    first, second, third = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert (first["passed"], first["error"]) == (False, "RuntimeError: no luck")
    assert (second["passed"], second["error"], second["accuracy"]) == (False, "too large", {"test_accuracy": 0.5})
    assert third["passed"]
    output = capsys.readouterr().out
    assert "resnet50_int8: passed in 1 s; test_accuracy 0.5000" in output
    assert "1 of 3 rows passed" in output


def test_missing_data_stops_before_training(tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = ["resnet18_xnor", "--data", str(tmp_path), "--output", str(output), "--model.init_args.weights=null"]
    assert main(arguments) == 1
    error = json.loads((output / "results.jsonl").read_text())["error"]
    assert error.startswith("FileNotFoundError")
    assert "image-net.org" in error
    assert not list(output.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give rows by name"),
        (["resnet18_xnor"], "`--data` must name the folder"),
        (["resnet19", "--smoke"], "there is no row 'resnet19'; there are all, "),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_script_runs_from_any_folder(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "reproduce.py"), "--list"]
    output = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert [line.split()[0] for line in output.splitlines()[1:22]] == list(ROWS)
