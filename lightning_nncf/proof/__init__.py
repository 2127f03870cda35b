"""Proof that exported files work: they are run, compared with PyTorch, timed, and their integer layers counted.

Callback and command line take `export_and_verify`, `verify_file` and their reports from the package itself. Every
runtime works in a process of its own. Nothing here rewrites a file: what a runtime computes wrongly is found here, and
written in another way by `lightning_nncf.export`.
"""

from __future__ import annotations

from lightning_nncf.proof.compare import Difference, Tolerance
from lightning_nncf.proof.proof import Proof, export_and_verify, runtime_models
from lightning_nncf.proof.runtimes import OnnxRuntimeModel, OpenVINOModel
from lightning_nncf.proof.table import RuntimeResult, VerificationReport
from lightning_nncf.proof.verify import verify_file, verify_onnx

__all__ = [
    "Difference",
    "OnnxRuntimeModel",
    "OpenVINOModel",
    "Proof",
    "RuntimeResult",
    "Tolerance",
    "VerificationReport",
    "export_and_verify",
    "runtime_models",
    "verify_file",
    "verify_onnx",
]
