"""ONNX export of compressed networks, and the proof that the exported files work."""

from __future__ import annotations

from lightning_nncf.export.compare import Difference, Tolerance
from lightning_nncf.export.onnx_export import ExportReport, export_onnx
from lightning_nncf.export.report import RuntimeResult, VerificationReport
from lightning_nncf.export.runtimes import OnnxRuntimeModel, OpenVINOModel
from lightning_nncf.export.verify import verify_file, verify_onnx

__all__ = [
    "Difference",
    "ExportReport",
    "OnnxRuntimeModel",
    "OpenVINOModel",
    "RuntimeResult",
    "Tolerance",
    "VerificationReport",
    "export_onnx",
    "verify_file",
    "verify_onnx",
]
