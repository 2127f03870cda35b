"""Proof that a file works: it is run, compared, timed, and its integer layers are counted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from lightning_nncf.errors import ExportError, VerificationError
from lightning_nncf.export.formats import OPENVINO_DOMAIN
from lightning_nncf.export.metadata import read_metadata
from lightning_nncf.export.preparation import FlatNetwork, cpu_copy, cpu_inputs
from lightning_nncf.export.structure import flatten
from lightning_nncf.export.writing import read_model
from lightning_nncf.proof.compare import Tolerance, compare
from lightning_nncf.proof.int8_layers import Int8Layers, count_int8_layers
from lightning_nncf.proof.latency import interleaved_medians
from lightning_nncf.proof.layer_check import LayerCheck, check_layers
from lightning_nncf.proof.runtimes import RUNTIMES, RuntimeModel, runtime_version
from lightning_nncf.proof.table import RuntimeResult, VerificationReport

__all__ = ["VerificationReport", "verify_file", "verify_onnx"]


def verify_onnx(
    path: str | os.PathLike[str],
    network: nn.Module,
    inputs: tuple[Sequence[Any], Mapping[str, Any]],
    *,
    reference_fp32: str | os.PathLike[str] | None = None,
    tolerance: Tolerance | None = None,
    latency_runs: int = 20,
    threads: int | None = None,
    raise_on_failure: bool = True,
) -> VerificationReport:
    """Run an exported file in every installed runtime and compare it with the network it came from.

    Args:
        path: The exported file.
        network: The network with its quantizers; a copy of it is run on the CPU.
        inputs: A call ``(args, kwargs)``, best with real data.
        reference_fp32: Export of the float network, for size and speed.
        tolerance: What differences are tolerated.
        latency_runs: Timed calls per file and runtime, 0 for none.
        threads: Threads of the runtimes; None leaves it to them.
        raise_on_failure: Raise on disagreement instead of only reporting it.

    Returns:
        The report; runtimes that are not installed are listed as such.

    Raises:
        VerificationError: If a runtime disagrees beyond the tolerance; names the first diverging layer.
    """
    target, tolerance = Path(path), tolerance or Tolerance()
    tensors, structure = flatten(cpu_inputs(inputs), "input")
    copied = FlatNetwork(cpu_copy(network), structure)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        expected = copied(*tensors)

    model = read_model(target)
    results = []
    for name, runtime in RUNTIMES.items():
        skipped = _skipped(name, model)
        if skipped is not None:
            results.append(RuntimeResult(runtime=name, version=runtime_version(name), skipped=skipped))
            continue
        loaded = runtime(target, threads=threads)
        difference = compare(loaded.run(tensors), expected)
        layers = count_int8_layers(loaded)
        passed, layer_check = difference.within(tolerance), None
        if not passed:
            few = _few(tensors, loaded.inputs)
            layer_check = _check_layers(runtime, target, copied, few, tolerance, layers, threads)
            passed = layer_check is not None and layer_check.passed
        latency, reference_latency = _latencies(loaded, reference_fp32, tensors, latency_runs, threads)
        results.append(
            RuntimeResult(
                runtime=name,
                version=runtime_version(name),
                difference=difference,
                layers=layers,
                latency=latency,
                reference_latency=reference_latency,
                layer_check=layer_check,
                passed=passed,
            )
        )
    report = VerificationReport(
        path=str(target),
        size=target.stat().st_size,
        reference="torch",
        tolerance=tolerance,
        results=tuple(results),
        reference_size=None if reference_fp32 is None else Path(reference_fp32).stat().st_size,
        metadata=read_metadata(model),
    )
    if raise_on_failure and not report.passed:
        raise VerificationError(_complaint(report))
    return report


def verify_file(
    path: str | os.PathLike[str],
    *,
    batch_size: int = 2,
    tolerance: Tolerance | None = None,
    latency_runs: int = 20,
    threads: int | None = None,
    seed: int = 0,
) -> VerificationReport:
    """Run an exported file without its network: random inputs, the runtimes compared with each other.

    Args:
        path: The exported file.
        batch_size: Size put in the place of every open dimension.
        tolerance: What differences between the runtimes are tolerated.
        latency_runs: Timed calls per runtime, 0 for none.
        threads: Threads of the runtimes; None leaves it to them.
        seed: Seed of the random inputs.

    Returns:
        The report. Its reference is the first runtime that ran.

    Raises:
        ExportError: If there is no such file, it is not valid ONNX, or a runtime cannot load it.
    """
    target, tolerance = Path(path), tolerance or Tolerance()
    model = read_model(target)
    results: list[RuntimeResult] = []
    reference: tuple[str, list[Tensor]] | None = None
    for name, runtime in RUNTIMES.items():
        skipped = _skipped(name, model)
        if skipped is not None:
            results.append(RuntimeResult(runtime=name, version=runtime_version(name), skipped=skipped))
            continue
        loaded = runtime(target, threads=threads)
        tensors = _random_inputs(loaded.inputs, batch_size, seed)
        outputs = loaded.run(tensors)
        difference = None if reference is None else compare(outputs, reference[1])
        reference = reference or (name, outputs)
        results.append(
            RuntimeResult(
                runtime=name,
                version=runtime_version(name),
                difference=difference,
                layers=count_int8_layers(loaded),
                latency=_latencies(loaded, None, tensors, latency_runs, threads)[0],
                passed=all(bool(torch.isfinite(output.double()).all()) for output in outputs)
                and (difference is None or difference.within(tolerance)),
            )
        )
    return VerificationReport(
        path=str(target),
        size=target.stat().st_size,
        reference="none" if reference is None else reference[0],
        tolerance=tolerance,
        results=tuple(results),
        metadata=read_metadata(model),
    )


def _skipped(name: str, model: onnx.ModelProto) -> str | None:
    if runtime_version(name) is None:
        return "not installed"
    if name == "onnxruntime" and any(item.domain == OPENVINO_DOMAIN for item in model.opset_import):
        return "does not know FakeQuantize"
    return None


def _check_layers(
    runtime: type[RuntimeModel],
    path: Path,
    network: FlatNetwork,
    tensors: Sequence[Tensor],
    tolerance: Tolerance,
    layers: Int8Layers,
    threads: int | None,
) -> LayerCheck | None:
    try:
        return check_layers(runtime, path, network, tensors, tolerance, layers, threads)
    except ExportError:
        # A runtime that cannot show its layers must not hide that the outputs differ.
        return None


def _few(tensors: Sequence[Tensor], inputs: Sequence[onnx.ValueInfoProto], samples: int = 4) -> list[Tensor]:
    """Keep a few samples of what has an open batch size: every layer's values are held at once."""
    shapes = [item.type.tensor_type.shape.dim for item in inputs]
    return [
        tensor[:samples] if shape and shape[0].dim_param else tensor
        for tensor, shape in zip(tensors, shapes, strict=True)
    ]


def _latencies(
    loaded: RuntimeModel,
    reference: str | os.PathLike[str] | None,
    tensors: Sequence[Tensor],
    runs: int,
    threads: int | None,
) -> tuple[float | None, float | None]:
    if runs <= 0:
        return None, None
    calls = {"file": loaded.runner(tensors)}
    if reference is not None:
        calls["reference"] = type(loaded)(reference, threads=threads).runner(tensors)
    medians = interleaved_medians(calls, runs)
    return medians["file"], medians.get("reference")


def _random_inputs(inputs: Sequence[onnx.ValueInfoProto], batch_size: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for item in inputs:
        kind = item.type.tensor_type
        shape = [dim.dim_value or batch_size for dim in kind.shape.dim]
        dtype = torch.from_numpy(np.empty(0, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))).dtype
        if dtype.is_floating_point:
            tensors.append(torch.randn(shape, generator=generator).to(dtype))
        else:
            # 0 and 1 are valid indices, masks and token types.
            tensors.append(torch.randint(0, 2, shape, generator=generator).to(dtype))
    return tensors


def _complaint(report: VerificationReport) -> str:
    lines = []
    for result in report.results:
        if result.passed or result.difference is None:
            continue
        found = result.difference
        agreement = "" if found.agreement is None else f", top-1 agreement {found.agreement:.3f}"
        lines.append(
            f"{result.runtime} {result.version} disagrees with torch on {report.path!r}: relative RMS "
            f"{found.relative_rms:.3g} (at most {report.tolerance.relative_rms:g}){agreement} (at least "
            f"{report.tolerance.agreement:g}), largest difference {found.max_abs:.3g}"
            + ("" if result.layer_check is None else f"; {result.layer_check}")
        )
    lines.append(
        "On processors without VNNI full-range 8-bit weights saturate: set overflow_fix to 'enable'. Where the "
        "difference is acceptable for the task, pass a larger tolerance."
    )
    return "\n".join(lines)
