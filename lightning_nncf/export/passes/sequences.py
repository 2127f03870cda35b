"""Recurrent layers over sequences of several lengths, with zeros behind the end of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from lightning_nncf.export.onnx_graph import OnnxGraph, attribute, rewired

__all__ = ["end_sequences"]

_LENGTHS = 4
"""The lengths among the inputs of a recurrent layer."""


def end_sequences(graph: OnnxGraph) -> int:
    """Write zeros behind the end of each sequence once more.

    A recurrent layer gives zeros there itself, but not in OpenVINO (2026.4, float files too).

    Args:
        graph: The graph.

    Returns:
        How many layers get it.
    """
    replacements = []
    for node in graph.nodes:
        given = node.op_type in ("GRU", "LSTM", "RNN") and len(node.input) > _LENGTHS and node.input[_LENGTHS]
        # With `layout` 1 the batch comes first; no exporter of torch writes that.
        if not given or attribute(node, "layout", 0) or not node.output[0]:
            continue
        name = node.name or node.output[0]
        whole = f"{node.output[0]}/whole"
        values: dict[str, NDArray[Any]] = {
            "zero": np.array(0, np.int64),
            "one": np.array(1, np.int64),
            "time": np.array([1], np.int64),
            "around": np.array([1, 3], np.int64),
            "nothing": np.array(0, np.float32),
        }
        constants = {end: graph.add_constant(f"{name}/{end}", value) for end, value in values.items()}

        def make(op: str, inputs: list[str], result: str, *, name: str = name, **attributes: Any) -> onnx.NodeProto:
            return helper.make_node(op, inputs, [f"{name}/{result}"], name=f"{name}/{op}_{result}", **attributes)

        replacements.append(
            (
                node,
                [
                    rewired(node, outputs={0: whole}),
                    make("Shape", [whole], "shape"),
                    make("Gather", [f"{name}/shape", constants["zero"]], "steps"),
                    make("Range", [constants["zero"], f"{name}/steps", constants["one"]], "times"),
                    make("Unsqueeze", [f"{name}/times", constants["time"]], "rows"),
                    make("Cast", [node.input[_LENGTHS]], "lengths", to=TensorProto.INT64),
                    make("Less", [f"{name}/rows", f"{name}/lengths"], "before_end"),
                    make("Unsqueeze", [f"{name}/before_end", constants["around"]], "mask"),
                    helper.make_node(
                        "Where",
                        [f"{name}/mask", whole, constants["nothing"]],
                        [node.output[0]],
                        name=f"{name}/Where",
                    ),
                ],
            )
        )
    graph.replace_all(replacements)
    return len(replacements)
