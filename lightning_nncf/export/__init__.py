"""ONNX export of compressed networks."""

from __future__ import annotations

from lightning_nncf.export.onnx_export import DEFAULT_OPSET, ExportFormat, ExportReport, export_onnx
from lightning_nncf.export.passes.storage import StoredWeight
from lightning_nncf.export.writing import check_writable

__all__ = ["DEFAULT_OPSET", "ExportFormat", "ExportReport", "StoredWeight", "check_writable", "export_onnx"]
