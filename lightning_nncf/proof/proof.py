"""Export of a compressed network together with the proof that the file does what PyTorch does."""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.inputs import Arguments, describe, limit_batch, tensor_descriptions
from lightning_nncf.errors import ConfigError, VerificationError
from lightning_nncf.export.metadata import write_metadata
from lightning_nncf.export.onnx_export import DEFAULT_OPSET, ExportFormat, ExportReport, export_onnx
from lightning_nncf.export.writing import check_writable, read_model, write_model
from lightning_nncf.hooks.insertion import strip
from lightning_nncf.proof.compare import Tolerance
from lightning_nncf.proof.file_inputs import VALUES
from lightning_nncf.proof.process import TIMEOUT
from lightning_nncf.proof.runtimes import RUNTIMES, RuntimeModel, runtime_version
from lightning_nncf.proof.table import VerificationReport
from lightning_nncf.proof.verify import chosen_runtimes, verify_onnx

__all__ = ["SAMPLES", "Proof", "export_and_verify", "runtime_models"]

SAMPLES = 32
"""Samples of the example inputs that are compared at most."""
_LONGEST_NAME = 255


@dataclass(frozen=True, kw_only=True)
class Proof:
    """An exported file and what running it showed.

    Args:
        export: What was written.
        verification: What the runtimes did; nothing if they were not asked.
    """

    export: ExportReport
    verification: VerificationReport | None


def export_and_verify(
    compressed: CompressedNetwork,
    path: str | Path,
    *,
    inputs: Arguments | None = None,
    export_format: ExportFormat = "qdq",
    opset: int = DEFAULT_OPSET,
    dynamic_batch: bool = True,
    dynamic_shapes: Mapping[str, Mapping[int, str]] | None = None,
    verify: bool | Sequence[str] = True,
    tolerance: Tolerance | float | None = None,
    require_int8: bool = False,
    timeout: float = TIMEOUT,
) -> Proof:
    """Export a compressed network and run the file beside PyTorch and beside a float export.

    Layers that a runtime computes in float though they are quantized, and a file that is slower than the float one, are
    warnings: in Python, in the report and in the file's metadata.

    Args:
        compressed: The network; it is not touched.
        path: File to write. It appears only once it is proven; a file that disagrees is kept under the name
            ``<stem>.unverified.onnx`` for inspection.
        inputs: Example call ``(args, kwargs)``; default: inputs seen in calibration, else random ones of the shapes
            seen at capture and the values seen in calibration.
        export_format: ``qdq`` or ``openvino_fq``.
        opset: Version of the standard operator set.
        dynamic_batch: Leave the batch size open.
        dynamic_shapes: Other sizes to leave open: by name of the input a name per axis, as in
            ``{"input_ids": {1: "length"}}``; axes of the same name have the same size.
        verify: Whether to run the file, or the packages of the runtimes to run it in.
        tolerance: What differences are tolerated, or the largest relative root mean square alone.
        require_int8: Make the warnings errors.
        timeout: Seconds that a runtime may take for one load, run or timing.

    Returns:
        What was written and what running it showed.

    Raises:
        ConfigError: ``tolerance`` is not positive, or ``verify`` names a runtime that is unknown.
        ExportError: The file cannot be written or the network cannot be exported.
        VerificationError: The file disagrees with PyTorch, or ``require_int8`` asks for more integers or speed.
    """
    allowed = Tolerance.of(tolerance)
    runtimes = None if isinstance(verify, bool) else chosen_runtimes(verify)
    target = check_writable(path)
    call = limit_batch(inputs or compressed.samples or compressed.example_inputs(), SAMPLES)
    shapes: dict[str, Any] = {"dynamic_batch": dynamic_batch, "dynamic_shapes": dynamic_shapes, "opset": opset}
    metadata = {
        "config": compressed.config.model_dump(mode="json", exclude_unset=True),
        "algorithms": [algorithm.name for algorithm in compressed.algorithms],
        VALUES: _values(compressed, call, given=inputs is not None),
    }
    exported = compressed.exportable()
    if verify is False:
        report = export_onnx(exported, call, target, export_format=export_format, metadata=metadata, **shapes)
        return Proof(export=report, verification=None)
    real = Path(os.path.realpath(target))
    # A folder of its own beside the target: other processes may export to the same path, and moving out is atomic.
    with tempfile.TemporaryDirectory(prefix=f".{real.name[:48]}.", dir=real.parent) as folder:
        written, reference = Path(folder) / real.name, Path(folder) / "float" / "float.onnx"
        report = export_onnx(exported, call, written, export_format=export_format, metadata=metadata, **shapes)
        plain = copy.deepcopy(compressed.network)
        strip(plain)
        export_onnx(plain, call, reference, **shapes)
        try:
            verification = verify_onnx(
                written,
                compressed.network,
                call,
                reference_fp32=reference,
                exported=exported,
                runtimes=runtimes,
                tolerance=allowed,
                timeout=timeout,
            )
            if require_int8 and verification.warnings:
                raise VerificationError(_too_little(verification))
        except VerificationError as error:
            kept = _kept(real)
            written.replace(kept)
            text = str(error).replace(str(written), str(target))
            raise VerificationError(f"{text} (the file is kept as {kept} for inspection)") from error
        model = read_model(written)
        write_metadata(model, {"proof": verification.summary()})
        size = write_model(model, real)
    for result in verification.results:
        for warning in result.warnings:
            warnings.warn(f"{target.name} in {result.runtime} {result.version}: {warning}", stacklevel=2)
    return Proof(
        export=replace(report, path=str(target), size=size),
        verification=replace(verification, path=str(target), size=size),
    )


def _values(compressed: CompressedNetwork, call: Arguments, *, given: bool) -> list[dict[str, Any]]:
    """Describe what the tensors of a call hold: what calibration saw, or the call itself where it was given."""
    try:
        own = describe(call)
    except ConfigError:
        return []
    found, seen = tensor_descriptions(own), tensor_descriptions(compressed.inputs) if compressed.inputs else []
    if given or len(seen) != len(found):
        return found
    return [{**known, "shape": tensor["shape"]} for tensor, known in zip(found, seen, strict=True)]


def _kept(target: Path) -> Path:
    """Return the name under which a file that disagrees is kept."""
    ending = f".unverified{target.suffix}"
    stem = target.stem
    while len(os.fsencode(stem + ending)) > _LONGEST_NAME:
        stem = stem[:-1]
    return target.with_name(stem + ending)


def _too_little(report: VerificationReport) -> str:
    lines = [
        f"{result.runtime} {result.version}: {warning}" for result in report.results for warning in result.warnings
    ]
    return "\n".join(
        [
            f"`require_int8` is set, but {report.path!r} does not gain what it should:",
            *lines,
            "Leave those layers out with `ignored_scopes`, name in `verify` only the runtimes that the file is for, or "
            "set `require_int8` to false.",
        ]
    )


def runtime_models(path: str | Path, proof: VerificationReport | None = None) -> dict[str, RuntimeModel]:
    """Load a file in every runtime that is installed and can read it, by the runtime's name.

    Args:
        path: The file.
        proof: What is known of it; runtimes that were left out there are left out here.
    """
    results = {} if proof is None else {result.runtime: result for result in proof.results}
    return {
        make.title: make(path)
        for package, make in RUNTIMES.items()
        if runtime_version(package) is not None
        and (proof is None or (package in results and results[package].skipped is None))
    }
