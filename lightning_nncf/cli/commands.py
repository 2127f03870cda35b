"""The commands that work on files: ``export``, ``verify``, ``schema`` and ``schedule``.

Each is a function whose signature and docstring are its ``--help``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lightning_nncf.callback.report import weights_table
from lightning_nncf.cli.training import module_from
from lightning_nncf.config import NNCFConfig, json_schema
from lightning_nncf.core.checkpoint import open_checkpoint
from lightning_nncf.core.courses import courses_text
from lightning_nncf.export import DEFAULT_OPSET, ExportFormat
from lightning_nncf.files import write_text
from lightning_nncf.proof import export_and_verify, verify_file

__all__ = ["export", "schedule", "schema", "verify"]


def export(
    ckpt_path: Path,
    output: Path = Path("model.onnx"),
    module_config: Path | None = None,
    export_format: ExportFormat = "qdq",
    opset: int = DEFAULT_OPSET,
    check: bool = True,
    network: str | None = None,
    runtimes: list[str] | None = None,
    tolerance: float | None = None,
    dynamic_batch: bool = True,
    dynamic_shapes: dict[str, dict[int, str]] | None = None,
    require_int8: bool = False,
) -> None:
    """Export the compressed network of a checkpoint to ONNX and prove the file.

    Args:
        ckpt_path: Checkpoint written while the callback was in use.
        output: File to write.
        module_config: LightningCLI file whose ``model`` section makes the module; needed only where the checkpoint does
            not hold the module's hyperparameters.
        export_format: ``qdq`` for standard ONNX, ``openvino_fq`` for FakeQuantize.
        opset: Version of the standard operator set.
        check: Run the file in ONNX Runtime and OpenVINO and compare it with PyTorch.
        network: Path of the network in the module, where the checkpoint holds several that are compressed.
        runtimes: Runtimes to run it in, as in ``[onnxruntime]``. Default: all that are installed.
        tolerance: Largest relative root mean square by which outputs may differ. Default: 0.1.
        dynamic_batch: Leave the batch size open.
        dynamic_shapes: Other sizes to leave open, as in ``{input_ids: {1: length}}``.
        require_int8: Fail, instead of warning, if quantized layers run in float or the file is slower than float.
    """
    make = None if module_config is None else module_from(module_config)
    compressed = open_checkpoint(ckpt_path, make, network=network)
    proof = export_and_verify(
        compressed,
        output,
        export_format=export_format,
        opset=opset,
        dynamic_batch=dynamic_batch,
        dynamic_shapes=dynamic_shapes,
        verify=runtimes if check and runtimes is not None else check,
        tolerance=tolerance,
        require_int8=require_int8,
    )
    sys.stdout.write(
        f"wrote {proof.export.path} ({proof.export.size / 1e6:.2f} MB, {proof.export.deflated_size / 1e6:.2f} MB "
        "deflated)\n"
    )
    sys.stdout.write(weights_table(proof.export.weights) + "\n")
    if proof.verification is not None:
        sys.stdout.write(proof.verification.table() + "\n")


def verify(
    model: Path,
    runtimes: list[str] | None = None,
    tolerance: float | None = None,
    batch_size: int = 2,
    require_int8: bool = False,
) -> None:
    """Run an ONNX file in every installed runtime and show what they do with it; exit with 1 if they disagree.

    Args:
        model: The file.
        runtimes: Runtimes to run it in, as in ``[onnxruntime]``. Default: all that are installed.
        tolerance: Largest relative root mean square by which the runtimes may differ. Default: 0.1.
        batch_size: Batch size, where the file leaves it open; 1, 3 and 8 are tried too.
        require_int8: Exit with 1, too, if quantized layers run in float.
    """
    report = verify_file(model, runtimes=runtimes, tolerance=tolerance, batch_size=batch_size)
    sys.stdout.write(report.table() + "\n")
    if not report.proven or (require_int8 and report.warnings):
        sys.exit(1)


def schema(output: Path | None = None) -> None:
    """Write the JSON Schema of the configuration, for editors.

    Args:
        output: File to write; default: standard output.
    """
    text = json.dumps(json_schema(), indent=2) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        write_text(output, text)


def schedule(file: Path, epochs: int = 100, steps_per_epoch: int = 1) -> None:
    """Draw how the levels of a configuration will rise.

    Args:
        file: Configuration, JSON or YAML.
        epochs: Epochs to draw.
        steps_per_epoch: Optimizer steps in each epoch.
    """
    sys.stdout.write(courses_text(NNCFConfig.load(file), epochs, steps_per_epoch) + "\n")
