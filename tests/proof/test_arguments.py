"""What the callback and the command line hand on to the proof."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor

import lightning_nncf.callback.callback as callback_module
import lightning_nncf.cli.commands as commands_module
from lightning_nncf import NNCFCallback
from lightning_nncf.cli import main
from lightning_nncf.errors import ConfigError
from lightning_nncf.export import ExportReport
from lightning_nncf.proof import Tolerance
from lightning_nncf.proof.sessions import SESSIONS
from tests.export.networks import Residual

_Exported = tuple[Residual, Tensor, Path, ExportReport]
_CONFIG = {"compression": {"algorithm": "quantization"}}


class _AskedError(Exception):
    pass


def _ask(**options: Any) -> None:
    raise _AskedError(options)


def test_callback_takes_the_arguments_of_the_proof_from_a_file_and_hands_them_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(NNCFCallback, "callback")
    arguments = {
        "verify": ["onnxruntime"],
        "tolerance": 0.25,
        "dynamic_batch": False,
        "dynamic_shapes": {"input_ids": {1: "length"}},
        "require_int8": True,
    }
    callback = parser.instantiate(parser.parse_object({"callback": {"config": _CONFIG, **arguments}})).callback
    monkeypatch.setattr(callback_module, "export_and_verify", lambda *_args, **options: _ask(**options))
    callback.compressed = SimpleNamespace(samples=((torch.zeros(1),), {}))
    with pytest.raises(_AskedError) as asked:
        callback.export(tmp_path / "m.onnx")
    (options,) = asked.value.args
    assert {key: options[key] for key in arguments} == {**arguments, "tolerance": Tolerance(relative_rms=0.25)}
    assert options["inputs"] is callback.compressed.samples


def test_callback_takes_a_whole_tolerance() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(NNCFCallback, "callback")
    values = {"config": _CONFIG, "tolerance": {"layer_steps": 2.0}}
    assert parser.instantiate(parser.parse_object({"callback": values})).callback.tolerance == Tolerance(
        layer_steps=2.0
    )


@pytest.mark.parametrize("wrong", [{"verify": ["openvin"]}, {"tolerance": 0.0}])
def test_callback_refuses_what_the_proof_would(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        NNCFCallback(_CONFIG, **wrong)


def test_export_command_hands_the_arguments_of_the_proof_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_module, "open_checkpoint", lambda *_args, **_options: None)
    monkeypatch.setattr(commands_module, "export_and_verify", lambda *_args, **options: _ask(**options))
    with pytest.raises(_AskedError) as asked:
        main(
            [
                "export",
                str(tmp_path / "a.ckpt"),
                *("--runtimes", "[openvino]"),
                *("--tolerance", "0.3"),
                *("--dynamic_batch", "false"),
                *("--dynamic_shapes", "{ids: {1: length}}"),
                *("--require_int8", "true"),
            ]
        )
    (options,) = asked.value.args
    assert options["verify"] == ["openvino"]
    assert options["tolerance"] == 0.3
    assert options["dynamic_batch"] is False
    assert options["dynamic_shapes"] == {"ids": {1: "length"}}
    assert options["require_int8"] is True


def test_verify_command_ends_with_one_where_runtimes_disagree(
    residual: _Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SESSIONS, "openvino", "tests.proof.fake_runtimes:StaleSession")
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(residual[2]), "--batch_size", "4"])
    assert ended.value.code == 1
    assert "FAILED" in capsys.readouterr().out


def test_verify_command_asks_only_the_runtimes_named(residual: _Exported, capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", str(residual[2]), "--runtimes", "[onnxruntime]", "--tolerance", "0.2"])
    output = capsys.readouterr().out
    assert "onnxruntime" in output
    assert "openvino" not in output


def test_verify_command_ends_with_one_where_integers_are_required(
    residual: _Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = SimpleNamespace(table=lambda: "", proven=True, warnings=("1 of 2 quantized layers run in float",))
    monkeypatch.setattr(commands_module, "verify_file", lambda *_args, **_options: report)
    main(["verify", str(residual[2])])
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(residual[2]), "--require_int8", "true"])
    assert ended.value.code == 1
