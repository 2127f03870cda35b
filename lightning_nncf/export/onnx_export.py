"""Export of a network with quantizers to one ONNX file."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from lightning_nncf.errors import ExportError, near
from lightning_nncf.export.dynamic import open_axes, open_outputs
from lightning_nncf.export.exporters import Exporter, Request, run_exporter
from lightning_nncf.export.formats import FORMATS
from lightning_nncf.export.marker import is_binary, mark_quantizers
from lightning_nncf.export.metadata import bits_summary, clean, write_metadata
from lightning_nncf.export.missing import missing_quantizers
from lightning_nncf.export.naming import name_layers
from lightning_nncf.export.needs import needs
from lightning_nncf.export.onnx_graph import OnnxGraph
from lightning_nncf.export.passes.findings import Findings, run_passes
from lightning_nncf.export.passes.order import PASSES
from lightning_nncf.export.passes.storage import StoredWeight
from lightning_nncf.export.preparation import FlatNetwork, cpu_copy, cpu_inputs, double_batch, require_finite
from lightning_nncf.export.structure import flatten, has_list, names_of
from lightning_nncf.export.writing import check_model, check_writable, deflated_size, lower_ir_version, write_model

__all__ = ["DEFAULT_OPSET", "ExportFormat", "ExportReport", "export_onnx"]

ExportFormat = Literal["qdq", "openvino_fq"]
DEFAULT_OPSET = 21


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export wrote.

    Args:
        path: The file.
        size: Its bytes.
        deflated_size: Its bytes in a zip archive, where zeros and integers of few values take less.
        export_format: ``qdq`` or ``openvino_fq``.
        exporter: The exporter that succeeded.
        opset: Version of the standard operator set in the file.
        needs: Oldest version that loads the file, by the package of the runtime.
        input_names: Names of the inputs.
        output_names: Names of the outputs.
        weight_quantizers: How many weights are quantized.
        activation_quantizers: How many activations are quantized.
        batch_norms_folded: How many batch normalizations went into quantized weights.
        batch_norms_left: Those that could not, with the reason.
        weights: How the integers of each quantized weight are stored.
        missing_quantizers: Enabled quantizers that the file lacks: the example input does not reach them, or the
            exporter takes another path than the network.
        seconds: Time it took.
    """

    path: str
    size: int
    deflated_size: int
    export_format: str
    exporter: str
    opset: int
    needs: dict[str, str]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    weight_quantizers: int
    activation_quantizers: int
    batch_norms_folded: int
    batch_norms_left: tuple[str, ...]
    weights: tuple[StoredWeight, ...]
    missing_quantizers: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)


def export_onnx(
    network: nn.Module,
    inputs: tuple[Sequence[Any], Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    export_format: ExportFormat = "qdq",
    opset: int = DEFAULT_OPSET,
    dynamic_batch: bool = True,
    dynamic_shapes: Mapping[str, Mapping[int, str]] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    exporter: Exporter = "auto",
) -> ExportReport:
    """Export a network with or without quantizers; the network itself is not touched.

    A copy is exported on the CPU, in float32 and eval mode. Quantized weights are stored as integers (``qdq``), batch
    normalization behind them is folded, and nothing about the machine is left in the file.

    Args:
        network: The network, quantizers inserted.
        inputs: Example call ``(args, kwargs)``.
        path: Where the file goes; missing directories are created.
        export_format: ``qdq`` for standard ONNX, ``openvino_fq`` for OpenVINO's FakeQuantize.
        opset: Version of the standard operator set: 19 to 25 with dynamo, 13 to 20 with TorchScript.
        dynamic_batch: Leave the batch size (the first size of the first input) open; inputs in lists stay fixed, and
            so do binary networks in ``openvino_fq``, which OpenVINO then runs with binary convolutions.
        dynamic_shapes: Other sizes to leave open: by name of the input a name per axis, as in
            ``{"input_ids": {1: "length"}}``; axes of the same name have the same size.
        input_names: Names of the input tensors; by default after keywords, else ``input``.
        output_names: Names of the output tensors; by default after their keys, else ``output``.
        metadata: Further entries for the file, such as the config; values that are no text are written as JSON.
        exporter: ``dynamo``, ``torchscript``, or ``auto``: the first, falling back to the second with a warning.

    Returns:
        What was written.

    Raises:
        ExportError: If the file cannot be written (checked before any work), a parameter is NaN or infinite, or the
            network cannot be exported.
    """
    started = time.perf_counter()
    target = check_writable(path)
    if export_format not in FORMATS:
        raise ExportError(f"unknown export_format {export_format!r}; {near(str(export_format), FORMATS)}")
    copied = cpu_copy(network)
    require_finite(copied)
    quantizers, restart = mark_quantizers(copied)
    if export_format == "openvino_fq" and dynamic_batch and any(map(is_binary, quantizers.values())):
        warnings.warn(
            "OpenVINO runs binary convolutions only at a fixed batch size: the file takes batches of the size of "
            "`inputs` alone; pass dynamic_batch=False to say that this is meant",
            stacklevel=2,
        )
        dynamic_batch = False
    request, structures = _request(
        copied, restart, cpu_inputs(inputs), opset, dynamic_batch, dynamic_shapes or {}, input_names, output_names
    )
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        model, used = run_exporter(request, exporter)

    # Over all graphs, those in loops and branches too, and by what `clean` removes: before the main one is opened.
    name_layers(model)
    graph = OnnxGraph(model)
    given = Findings(quantizers=quantizers, writer=FORMATS[export_format]())
    found = run_passes(graph, PASSES[export_format], given)
    graph.close()
    missing = missing_quantizers(copied, quantizers, found.labels)
    _warn_of(found.several_zero_points)
    clean(model)
    lower_ir_version(model)
    opset_written = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    write_metadata(
        model,
        {
            "export_format": export_format,
            "bits": bits_summary(found.lowered),
            "needs": needs(model),
            **structures,
            **(metadata or {}),
        },
    )
    check_model(model)
    size = write_model(model, target)
    return ExportReport(
        path=str(target),
        size=size,
        deflated_size=deflated_size(target),
        export_format=export_format,
        exporter=used,
        opset=opset_written,
        needs=needs(model),
        input_names=tuple(item.name for item in model.graph.input),
        output_names=tuple(item.name for item in model.graph.output),
        weight_quantizers=len(found.lowered.weights),
        activation_quantizers=len(found.lowered.activations),
        batch_norms_folded=found.batch_norms.folded,
        batch_norms_left=found.batch_norms.left,
        weights=found.weights,
        missing_quantizers=missing,
        seconds=time.perf_counter() - started,
    )


def _warn_of(layers: Sequence[str]) -> None:
    if layers:
        warnings.warn(
            f"{len(layers)} convolutions have weights with several zero points, as {layers[0]!r}: ONNX Runtime 1.23 to "
            "1.26 loads the file and fails when it runs, and OpenVINO computes these layers in float. Quantize weights "
            "with `mode: symmetric`",
            stacklevel=3,
        )


def _request(
    network: nn.Module,
    restart: Any,
    inputs: tuple[tuple[Any, ...], dict[str, Any]],
    opset: int,
    dynamic_batch: bool,
    dynamic_shapes: Mapping[str, Mapping[int, str]],
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
) -> tuple[Request, dict[str, Any]]:
    tensors, input_structure = flatten(inputs, "input")
    if not tensors:
        raise ExportError("the example inputs hold no tensor; give `inputs` as (args, kwargs) of one call")
    # A list of tensors is a list of samples, as detectors take it: their first size is no batch size.
    dynamic_batch = dynamic_batch and not has_list(input_structure)
    tensors = double_batch(tensors) if dynamic_batch else tensors
    flat = FlatNetwork(network, input_structure, restart)
    # One pass tells the structure of the output, and fails here with the network's own message if it fails at all.
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        outputs = flat(*tensors)
    if not outputs:
        raise ExportError("the network returns no tensor, so there is nothing to export")
    names = _names(input_names, _input_names(input_structure), "input_names")
    # A network may return what it takes under the same key; a file has no two tensors of one name.
    defaults = [f"{name}_output" if name in names else name for name in names_of(flat.structure, "output")]
    dynamic = open_axes(tensors, names, dynamic_shapes, batch=dynamic_batch)
    request = Request(
        network=flat,
        tensors=tensors,
        input_names=names,
        output_names=_names(output_names, defaults, "output_names", taken=names),
        dynamic=dynamic,
        dynamic_outputs=open_outputs(outputs, tensors, dynamic),
        opset=opset,
    )
    return request, {"inputs": input_structure, "outputs": flat.structure}


def _input_names(structure: Mapping[str, Any]) -> list[str]:
    args, kwargs = structure["items"]
    return [*names_of(args, "input"), *names_of(kwargs, "input")]


def _names(
    given: Sequence[str] | None, default: Sequence[str], argument: str, *, taken: Sequence[str] = ()
) -> list[str]:
    names = list(default if given is None else given)
    if len(names) != len(default) or len(set(names)) != len(names):
        raise ExportError(f"`{argument}` must name {len(default)} different tensors, got {names}")
    if both := [name for name in names if name in taken]:
        raise ExportError(f"`{argument}` must differ from the names of the inputs, both hold {both[0]!r}")
    return names
