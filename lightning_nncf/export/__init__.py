"""ONNX export of compressed networks, and the proof that the exported files work."""

from __future__ import annotations

from lightning_nncf.export.compare import Difference, Tolerance
from lightning_nncf.export.onnx_export import DEFAULT_OPSET, ExportFormat, ExportReport, export_onnx
from lightning_nncf.export.proof import Proof, export_and_verify, runtime_models
from lightning_nncf.export.report import RuntimeResult, VerificationReport
from lightning_nncf.export.runtimes import OnnxRuntimeModel, OpenVINOModel
from lightning_nncf.export.storage import StoredWeight
from lightning_nncf.export.verify import verify_file, verify_onnx
from lightning_nncf.export.writing import check_writable

__all__ = [
    "DEFAULT_OPSET",
    "Difference",
    "ExportFormat",
    "ExportReport",
    "OnnxRuntimeModel",
    "OpenVINOModel",
    "Proof",
    "RuntimeResult",
    "StoredWeight",
    "Tolerance",
    "VerificationReport",
    "check_writable",
    "export_and_verify",
    "export_onnx",
    "runtime_models",
    "verify_file",
    "verify_onnx",
]
