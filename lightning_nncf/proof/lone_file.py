"""A file whose network is not at hand, in all runtimes: they are compared with each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor

from lightning_nncf.errors import ExportError
from lightning_nncf.proof.arrays import graph_inputs, to_arrays
from lightning_nncf.proof.compare import Tolerance, compare
from lightning_nncf.proof.detections import detections_in
from lightning_nncf.proof.examination import runtime_process, warnings_of
from lightning_nncf.proof.fallbacks import quantized_layers
from lightning_nncf.proof.file_inputs import make_inputs
from lightning_nncf.proof.int8_layers import Int8Layers, RuntimeLayer
from lightning_nncf.proof.process import RuntimeEndedError
from lightning_nncf.proof.runtimes import runtime_version
from lightning_nncf.proof.sizes import other_sizes
from lightning_nncf.proof.table import RuntimeResult, SizeResult

__all__ = ["LoneFile"]

Outputs = list[Tensor]


@dataclass
class _Found:
    """What one runtime gave: outputs or an error by size, its layers and its time."""

    outputs: dict[str, Outputs] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    layers: list[RuntimeLayer] | None = None
    latency: float | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class LoneFile:
    """A file to be run without its network.

    Args:
        path: The file.
        model: The same, read; weights in other files may be missing.
        metadata: What it says about itself.
        tolerance: What differences between runtimes are tolerated.
        batch_size: Size of open first dimensions.
        latency_runs: Timed calls per runtime, 0 for none.
        threads: Threads of the runtimes.
        timeout: Seconds that a runtime may take for one request.
        seed: Seed of the random inputs.
    """

    path: Path
    model: onnx.ModelProto
    metadata: Mapping[str, str]
    tolerance: Tolerance
    batch_size: int
    latency_runs: int
    threads: int | None
    timeout: float
    seed: int

    def run(self, runtimes: Sequence[str]) -> tuple[str | None, dict[str, RuntimeResult]]:
        """Run the file in runtimes.

        Returns:
            The runtime that the others are compared with, none if there is none, and one result per runtime.
        """
        inputs = graph_inputs(self.model)
        tensors = make_inputs(inputs, self.metadata, batch_size=self.batch_size, seed=self.seed)
        calls = {"": to_arrays(tensors, inputs)}
        for label, others, _ in other_sizes(tensors, inputs):
            calls[label] = to_arrays(others, inputs)
        found = {runtime: self._ask(runtime, calls) for runtime in runtimes}
        reference = next((name for name in runtimes if found[name].error is None), None)
        return reference, {name: self._result(name, found, reference) for name in runtimes}

    def _ask(self, runtime: str, calls: Mapping[str, Sequence[NDArray[Any]]]) -> _Found:
        found = _Found()
        external = any(tensor.data_location == TensorProto.EXTERNAL for tensor in self.model.graph.initializer)
        try:
            with runtime_process(runtime, self.timeout) as process:
                process.load("file", self.path, threads=self.threads, inspect=True, external=external)
                found.outputs[""] = process.run("file", calls[""])
                found.layers = process.layers("file")
                if self.latency_runs > 0:
                    found.latency = process.time(["file"], calls[""], self.latency_runs)["file"]
                for label, arrays in calls.items():
                    if label:
                        try:
                            found.outputs[label] = process.run("file", arrays)
                        except RuntimeEndedError:
                            raise
                        except ExportError as error:
                            found.errors[label] = str(error)
        except ExportError as error:
            found.error = str(error)
        return found

    def _result(self, name: str, all_found: Mapping[str, _Found], reference: str | None) -> RuntimeResult:
        found, version = all_found[name], runtime_version(name)
        if found.error is not None:
            skipped = self._known_unable(name)
            return RuntimeResult(
                runtime=name,
                version=version,
                skipped=skipped,
                error=None if skipped else found.error,
                passed=skipped is not None,
            )
        assert found.layers is not None
        detections = detections_in(json.loads(self.metadata["outputs"])) if "outputs" in self.metadata else []
        other = None if reference in (None, name) else all_found[str(reference)]
        sizes = []
        for label in [*found.outputs, *found.errors]:
            if not label:
                continue
            if label in found.errors:
                # What no runtime takes is a size that the network does not have.
                if any(label in one.outputs for one in all_found.values()):
                    sizes.append(SizeResult(label=label, error=found.errors[label], passed=False))
            elif other is not None and label in other.outputs:
                apart = compare(found.outputs[label], other.outputs[label], detections)
                sizes.append(SizeResult(label=label, difference=apart, passed=apart.within(self.tolerance)))
        difference = None if other is None else compare(found.outputs[""], other.outputs[""], detections)
        finite = all(_is_finite(output) for output in found.outputs[""])
        quantized = quantized_layers(self.model, {name: version})
        return RuntimeResult(
            runtime=name,
            version=version,
            difference=difference,
            layers=Int8Layers.of(found.layers),
            latency=found.latency,
            sizes=tuple(sizes),
            warnings=warnings_of(quantized, found.layers, name, {}),
            notes=() if finite else ("its outputs hold NaN or infinite values",),
            passed=finite
            and (difference is None or difference.within(self.tolerance))
            and all(size.passed for size in sizes),
        )

    def _known_unable(self, runtime: str) -> str | None:
        """Return why the runtime was left out when the file was exported, as the file says; none if it was not."""
        proof = json.loads(self.metadata.get("proof", "{}"))
        reason: str | None = proof.get(runtime, {}).get("skipped")
        return reason if reason is not None and "float file" in reason else None


def _is_finite(output: Tensor) -> bool:
    return not output.is_floating_point() or bool(torch.isfinite(output.double()).all())
