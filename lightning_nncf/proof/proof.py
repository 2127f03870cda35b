"""Export of a compressed network together with the proof that the file does what PyTorch does."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.inputs import Arguments, limit_batch
from lightning_nncf.errors import VerificationError
from lightning_nncf.export.onnx_export import DEFAULT_OPSET, ExportFormat, ExportReport, export_onnx
from lightning_nncf.graph.hooks import strip
from lightning_nncf.proof.runtimes import OnnxRuntimeModel, OpenVINOModel, RuntimeModel, runtime_version
from lightning_nncf.proof.verify import VerificationReport, verify_onnx

__all__ = ["SAMPLES", "Proof", "export_and_verify", "runtime_models"]

SAMPLES = 32
"""Samples of the example inputs that are compared at most."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """An exported file and what running it showed.

    Args:
        export: What was written.
        verification: What the runtimes did; nothing if they were not asked.
    """

    export: ExportReport
    verification: VerificationReport | None


def export_and_verify(
    compressed: CompressedNetwork,
    path: str | Path,
    *,
    inputs: Arguments | None = None,
    export_format: ExportFormat = "qdq",
    opset: int = DEFAULT_OPSET,
    verify: bool = True,
) -> Proof:
    """Export a compressed network and run the file beside PyTorch and beside a float export.

    Args:
        compressed: The network; it is not touched.
        path: File to write. It appears only once it is proven; a file that disagrees is kept under the name
            ``<stem>.unverified.onnx`` for inspection.
        inputs: Example call ``(args, kwargs)``; default: random inputs of the shapes seen at capture.
        export_format: ``qdq`` or ``openvino_fq``.
        opset: Version of the standard operator set.
        verify: Whether to run the file.

    Returns:
        What was written and what running it showed.

    Raises:
        ExportError: The file cannot be written or the network cannot be exported.
        VerificationError: The file disagrees with PyTorch.
    """
    target = Path(path)
    call = limit_batch(inputs or compressed.example_inputs(), SAMPLES)
    metadata = {
        "config": compressed.config.model_dump(mode="json", exclude_unset=True),
        "algorithms": [algorithm.name for algorithm in compressed.algorithms],
    }
    written = target.with_name(f"{target.stem}.unverified{target.suffix}") if verify else target
    exported = compressed.exportable()
    report = export_onnx(exported, call, written, export_format=export_format, opset=opset, metadata=metadata)
    if not verify:
        return Proof(export=report, verification=None)
    with tempfile.TemporaryDirectory() as folder:
        plain = copy.deepcopy(compressed.network)
        strip(plain)
        reference = Path(folder) / "float.onnx"
        export_onnx(plain, call, reference, opset=opset)
        try:
            verification = verify_onnx(written, compressed.network, call, reference_fp32=reference)
        except VerificationError as error:
            raise VerificationError(f"{error} (the file is kept as {written} for inspection)") from error
    written.replace(target)
    return Proof(export=replace(report, path=str(target)), verification=replace(verification, path=str(target)))


def runtime_models(path: str | Path) -> dict[str, RuntimeModel]:
    """Load a file in every runtime that is installed and can read it, by the runtime's name."""
    classes: dict[str, tuple[str, type[RuntimeModel]]] = {
        "ONNX Runtime": ("onnxruntime", OnnxRuntimeModel),
        "OpenVINO": ("openvino", OpenVINOModel),
    }
    installed = {name: make for name, (package, make) in classes.items() if runtime_version(package) is not None}
    return {name: make(path) for name, make in installed.items()}
