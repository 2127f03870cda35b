"""Which versions of the runtimes an exported file needs, for the person who deploys it somewhere else."""

from __future__ import annotations

import re

import onnx
from onnx import TensorProto

__all__ = ["advice", "needs"]

_OF_OPSET = ((23, "1.24"), (22, "1.21"), (21, "1.18"), (0, "1.17"))
"""Oldest ONNX Runtime that loads a file of at least this opset."""
_OF_FOUR_BITS = "1.23"
"""Oldest one that loads 4-bit integers from opset 21 on, as ``Cast`` of opset 21 takes no such type before."""
_FOUR_BITS = (TensorProto.INT4, TensorProto.UINT4)


def needs(model: onnx.ModelProto) -> dict[str, str]:
    """Return the oldest version that loads a file, by the package of the runtime.

    Found by loading files of each opset in each version (``benchmarks/opsets.py``). OpenVINO is not listed: the oldest
    one that this project installs with loads them all.

    Args:
        model: A model as it is written.
    """
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    found = next(version for least, version in _OF_OPSET if opset >= least)
    if opset >= 21 and any(tensor.data_type in _FOUR_BITS for tensor in model.graph.initializer):
        found = max(found, _OF_FOUR_BITS, key=_parts)
    return {"onnxruntime": found}


def advice(model: onnx.ModelProto, package: str, installed: str | None) -> str | None:
    """Return what to do where a runtime is too old for a file; None where it is not, or the file needs nothing of it.

    Args:
        model: The file's model.
        package: Package of the runtime.
        installed: Its version, None if that is not known.

    >>> from onnx import helper
    >>> model = helper.make_model(helper.make_graph([], "g", [], []), opset_imports=[helper.make_opsetid("", 23)])
    >>> advice(model, "onnxruntime", "1.22.1")
    'the file needs onnxruntime 1.24 or newer, 1.22.1 is installed: upgrade it, or export with `opset=20`'
    >>> advice(model, "onnxruntime", "1.24.1"), advice(model, "openvino", "2025.3.0")
    (None, None)
    """
    least = needs(model).get(package)
    if least is None or installed is None or _parts(installed) >= _parts(least):
        return None
    return f"the file needs {package} {least} or newer, {installed} is installed: upgrade it, or export with `opset=20`"


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
