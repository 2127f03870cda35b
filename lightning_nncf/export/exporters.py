"""The two exporters of torch behind one call."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import onnx
import torch
from torch import Tensor

from lightning_nncf.errors import ExportError
from lightning_nncf.export.marker import DOMAIN, torchscript_symbolic, translation_table
from lightning_nncf.export.naming import name_ends, placeholders
from lightning_nncf.export.preparation import FlatNetwork

__all__ = ["Exporter", "Request", "run_exporter"]

Exporter = Literal["auto", "dynamo", "torchscript"]

DYNAMO_OPSETS = range(19, 26)
TORCHSCRIPT_OPSETS = range(13, 21)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to export.

    Args:
        network: The network behind flat tensors.
        tensors: Example inputs.
        input_names: Names of the inputs.
        output_names: Names of the outputs.
        dynamic: For each input the names of its open axes.
        dynamic_outputs: The same for each output, as far as it is known.
        opset: Version of the standard operator set.
    """

    network: FlatNetwork
    tensors: Sequence[Tensor]
    input_names: Sequence[str]
    output_names: Sequence[str]
    dynamic: Sequence[Mapping[int, str]]
    dynamic_outputs: Sequence[Mapping[int, str]]
    opset: int


def run_exporter(request: Request, exporter: Exporter) -> tuple[onnx.ModelProto, str]:
    """Export with the exporter asked for; ``auto`` takes dynamo, and TorchScript where dynamo fails or is too new.

    Args:
        request: What to export.
        exporter: ``auto``, ``dynamo`` or ``torchscript``.

    Returns:
        The model with markers in it and the name of the exporter that wrote it.

    Raises:
        ExportError: If the opset fits no exporter, or the exporters fail.
    """
    if exporter not in ("auto", "dynamo", "torchscript"):
        raise ExportError(f"exporter must be 'auto', 'dynamo' or 'torchscript', got {exporter!r}")
    names = {"auto": ("dynamo", "torchscript")}.get(exporter, (exporter,))
    opsets = {"dynamo": DYNAMO_OPSETS, "torchscript": TORCHSCRIPT_OPSETS}
    fitting = [name for name in names if request.opset in opsets[name]]
    # TorchScript's newest opset is older than our default: what dynamo cannot export is then written one version back.
    if exporter == "auto" and "dynamo" in fitting and "torchscript" not in fitting:
        fitting.append("torchscript")
    if not fitting:
        ranges = ", ".join(f"{opsets[name][0]} to {opsets[name][-1]} with {name!r}" for name in opsets)
        raise ExportError(f"opset {request.opset} cannot be exported with exporter={exporter!r}; possible are {ranges}")
    problem: Exception | None = None
    for name in fitting:
        if problem is not None:
            warnings.warn(
                f"torch.onnx.export(dynamo=True) failed ({type(problem).__name__}: {_first_line(problem)}); exporting "
                "with dynamo=False, which records the path taken by the example input only",
                stacklevel=3,
            )
        try:
            model = _dynamo(request) if name == "dynamo" else _torchscript(request)
            name_ends(model, request.input_names, request.output_names)
            return model, name
        except ExportError:
            raise
        except Exception as error:
            problem = error
    raise ExportError(
        f"the network cannot be exported with {' or '.join(fitting)}: {_first_line(problem)}. Where the batch size "
        "cannot stay open, dynamic_batch=False fixes it; where an output depends on data, export the part before it"
    ) from problem


def _first_line(error: Exception | None) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _dynamo(request: Request) -> onnx.ModelProto:
    names = {name for axes in request.dynamic for name in axes.values()}
    dims = {name: torch.export.Dim(name) for name in sorted(names)}
    shapes = tuple({axis: dims[name] for axis, name in axes.items()} for axes in request.dynamic)
    with warnings.catch_warnings(), translation_table() as table:
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            request.network,
            tuple(request.tensors),
            dynamo=True,
            opset_version=request.opset,
            custom_translation_table=table,
            dynamic_shapes=(shapes,) if any(request.dynamic) else None,
            input_names=placeholders("input", len(request.input_names)),
            output_names=placeholders("output", len(request.output_names)),
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned no program")
    model: onnx.ModelProto = program.model_proto
    reached = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if reached != request.opset:
        raise ExportError(f"asked for opset {request.opset}, the exporter wrote {reached}; pass opset={reached}")
    return model


def _torchscript(request: Request) -> onnx.ModelProto:
    opset = min(request.opset, TORCHSCRIPT_OPSETS[-1])
    input_names = placeholders("input", len(request.input_names))
    output_names = placeholders("output", len(request.output_names))
    names = (*input_names, *output_names)
    dynamic = (*request.dynamic, *request.dynamic_outputs)
    axes = {name: dict(opened) for name, opened in zip(names, dynamic, strict=True) if opened}
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torchscript_symbolic(opset):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            request.network,
            tuple(request.tensors),
            cast("str", buffer),  # a file object is taken too, which the annotation does not say
            dynamo=False,
            opset_version=opset,
            custom_opsets={DOMAIN: 1},
            dynamic_axes=axes,
            input_names=input_names,
            output_names=output_names,
        )
    model: onnx.ModelProto = onnx.load_from_string(buffer.getvalue())
    return model
