"""Proof that a file works: it is run, compared, timed, and its integer layers are counted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from lightning_nncf.errors import ConfigError, ExportError, VerificationError, near
from lightning_nncf.export.formats import OPENVINO_DOMAIN
from lightning_nncf.export.metadata import read_metadata
from lightning_nncf.export.needs import advice
from lightning_nncf.export.writing import read_graph, read_model
from lightning_nncf.proof.arrays import graph_inputs
from lightning_nncf.proof.compare import Tolerance
from lightning_nncf.proof.complaint import complaint
from lightning_nncf.proof.examination import Examination
from lightning_nncf.proof.fallbacks import quantized_layers
from lightning_nncf.proof.layer_check import watch_layers
from lightning_nncf.proof.lone_file import LoneFile
from lightning_nncf.proof.process import TIMEOUT
from lightning_nncf.proof.runtimes import RUNTIMES, runtime_version
from lightning_nncf.proof.table import RuntimeResult, VerificationReport
from lightning_nncf.proof.torch_side import TorchSide

__all__ = ["VerificationReport", "chosen_runtimes", "verify_file", "verify_onnx"]


def verify_onnx(
    path: str | os.PathLike[str],
    network: nn.Module,
    inputs: tuple[Sequence[Any], Mapping[str, Any]],
    *,
    reference_fp32: str | os.PathLike[str] | None = None,
    exported: nn.Module | None = None,
    runtimes: Sequence[str] | None = None,
    tolerance: Tolerance | float | None = None,
    latency_runs: int = 20,
    threads: int | None = None,
    timeout: float = TIMEOUT,
    raise_on_failure: bool = True,
) -> VerificationReport:
    """Run an exported file in every installed runtime and compare it with the network it came from.

    Each runtime works in a process of its own: one that aborts, or takes too long, fails the proof and nothing else.
    Outputs are compared for the example and for other sizes of every open dimension, and the layers one by one on a few
    samples.

    Args:
        path: The exported file.
        network: The network with its quantizers; a copy of it is run on the CPU.
        inputs: A call ``(args, kwargs)``, best with real data.
        reference_fp32: Export of the float network, for size, speed, and to tell whose fault a difference is.
        exported: The network as it was exported, where it differs from ``network``, as without its pruned filters.
        runtimes: Packages of the runtimes to ask, ``onnxruntime`` and ``openvino``. Default: all that are installed.
        tolerance: What differences are tolerated, or the largest relative root mean square alone.
        latency_runs: Timed calls per file and runtime, 0 for none.
        threads: Threads of the runtimes; None leaves it to them.
        timeout: Seconds that a runtime may take for one load, run or timing.
        raise_on_failure: Raise on disagreement instead of only reporting it.

    Returns:
        The report; runtimes that are not installed are listed as such, and so are those that cannot run the float file
        either.

    Raises:
        ConfigError: A runtime is unknown.
        ExportError: There is no such file, or it is not valid ONNX.
        VerificationError: A runtime disagrees beyond the tolerance, or cannot run the file; names the first diverging
            layer.
    """
    target, allowed = Path(path), Tolerance.of(tolerance)
    names = chosen_runtimes(runtimes)
    model = read_model(target)
    side = TorchSide(network, inputs, graph_inputs(model), exported)
    with tempfile.TemporaryDirectory() as folder:
        examination = Examination(
            path=target,
            model=model,
            side=side,
            quantized=quantized_layers(model, {name: runtime_version(name) for name in names}),
            watch=watch_layers(model, Path(folder) / "watched.onnx"),
            reference=None if reference_fp32 is None else Path(reference_fp32),
            tolerance=allowed,
            latency_runs=latency_runs,
            threads=threads,
            timeout=timeout,
        )
        results = [_skipped(name, model) or _advised(examination.run(name), model) for name in names]
    report = VerificationReport(
        path=str(target),
        size=target.stat().st_size,
        reference="torch",
        tolerance=allowed,
        results=tuple(results),
        reference_size=None if reference_fp32 is None else Path(reference_fp32).stat().st_size,
        metadata=read_metadata(model),
        notes=side.notes,
    )
    unable = not report.proven and any(result.skipped and "float file" in result.skipped for result in results)
    if raise_on_failure and (not report.passed or unable):
        raise VerificationError(complaint(report))
    return report


def verify_file(
    path: str | os.PathLike[str],
    *,
    batch_size: int = 2,
    runtimes: Sequence[str] | None = None,
    tolerance: Tolerance | float | None = None,
    latency_runs: int = 20,
    threads: int | None = None,
    timeout: float = TIMEOUT,
    seed: int = 0,
) -> VerificationReport:
    """Run an exported file without its network: the runtimes are compared with each other.

    Inputs have the values that the file says its network saw in calibration; those of files from elsewhere are random.

    Args:
        path: The exported file.
        batch_size: Size put in the place of every open first dimension; 1, 3 and 8 are tried too.
        runtimes: Packages of the runtimes to ask, ``onnxruntime`` and ``openvino``. Default: all that are installed.
        tolerance: What differences between the runtimes are tolerated, or the largest relative root mean square alone.
        latency_runs: Timed calls per runtime, 0 for none.
        threads: Threads of the runtimes; None leaves it to them.
        timeout: Seconds that a runtime may take for one load, run or timing.
        seed: Seed of the random inputs.

    Returns:
        The report. Its reference is the first runtime that ran.

    Raises:
        ConfigError: A runtime is unknown.
        ExportError: If there is no such file, it is not valid ONNX, or no inputs can be made for it.
    """
    target, allowed = Path(path), Tolerance.of(tolerance)
    names = chosen_runtimes(runtimes)
    # Weights in files of their own stay there: they may be larger than the memory, and only runtimes need them.
    model = read_graph(target)
    metadata = read_metadata(model)
    lone = LoneFile(
        path=target,
        model=model,
        metadata=metadata,
        tolerance=allowed,
        batch_size=batch_size,
        latency_runs=latency_runs,
        threads=threads,
        timeout=timeout,
        seed=seed,
    )
    skipped = {name: result for name in names if (result := _skipped(name, model)) is not None}
    reference, examined = lone.run([name for name in names if name not in skipped])
    return VerificationReport(
        path=str(target),
        size=target.stat().st_size,
        reference=reference or "none",
        tolerance=allowed,
        results=tuple(skipped.get(name) or _advised(examined[name], model) for name in names),
        metadata=metadata,
    )


def chosen_runtimes(runtimes: Sequence[str] | None) -> list[str]:
    """Return the packages of the runtimes to ask.

    Args:
        runtimes: What was asked for; all that are known by default.

    Raises:
        ConfigError: One is unknown, or none is named.
        ExportError: One that was asked for is not installed.
    """
    if runtimes is None:
        return list(RUNTIMES)
    if isinstance(runtimes, str) or not runtimes:
        raise ConfigError(f"the runtimes of a proof must be a list such as {list(RUNTIMES)}, got {runtimes!r}")
    for name in runtimes:
        if name not in RUNTIMES:
            raise ConfigError(f"unknown runtime {name!r}; {near(str(name), RUNTIMES)}")
        if runtime_version(name) is None:
            raise ExportError(f"{name} is not installed; install it with `pip install {name}`")
    return list(dict.fromkeys(runtimes))


def _skipped(name: str, model: onnx.ModelProto) -> RuntimeResult | None:
    version = runtime_version(name)
    if version is None:
        return RuntimeResult(runtime=name, skipped="not installed")
    if name == "onnxruntime" and any(item.domain == OPENVINO_DOMAIN for item in model.opset_import):
        return RuntimeResult(runtime=name, version=version, skipped="does not know FakeQuantize")
    return None


def _advised(result: RuntimeResult, model: onnx.ModelProto) -> RuntimeResult:
    """Add to the error of a runtime that it is too old for the file, if it is."""
    if result.error is None or (todo := advice(model, result.runtime, result.version)) is None:
        return result
    return replace(result, error=f"{result.error}\n{todo}")
