"""ONNX export of compressed networks: from a network to one file, and what was written.

`onnx_export` tells the steps in order; exporters, naming, formats and lowering are a file each, and `passes` holds what
is rewritten afterwards. The packages above import the names below, and what reads a finished file from `writing`,
`metadata` and `structure`. Never in here: running a file in a runtime (`proof`), and anything about training.
"""

from __future__ import annotations

from lightning_nncf.export.onnx_export import DEFAULT_OPSET, ExportFormat, ExportReport, export_onnx
from lightning_nncf.export.passes.storage import StoredWeight
from lightning_nncf.export.writing import check_writable

__all__ = ["DEFAULT_OPSET", "ExportFormat", "ExportReport", "StoredWeight", "check_writable", "export_onnx"]
