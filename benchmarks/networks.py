"""Networks of some hundred families, untrained: quantized, trained for one step, exported, and proven in each runtime.

    python -m benchmarks.networks [--only NAME ...] [--processes 1] [--threads 1]
    python -m benchmarks.networks --latency [--threads 2]
    python -m benchmarks.networks --table

Every network has a process of its own; results are written after each one, so that a run can be stopped and goes on
with those that are missing. ``--latency`` measures the files of float and INT8 networks in turn, which needs a machine
that does nothing else, and adds to what is stored. Results: ``benchmarks/results/networks.json`` and ``networks.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor

from benchmarks.machine import read_results, write_results
from benchmarks.network_cases import CASES
from lightning_nncf import compress, export_onnx
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.errors import ExportError, VerificationError
from lightning_nncf.hooks.insertion import strip
from lightning_nncf.proof import OnnxRuntimeModel, OpenVINOModel, export_and_verify, verify_onnx
from lightning_nncf.proof.fallbacks import float_layers, quantized_layers
from lightning_nncf.proof.int8_layers import onnxruntime_layers, openvino_layers
from lightning_nncf.proof.latency import interleaved_medians
from lightning_nncf.proof.sessions import OnnxRuntimeSession

CONFIG = {"compression": {"algorithm": "quantization", "initializer": {"range": {"num_init_samples": 2}}}}
TIMEOUT = 1200
RUNTIMES = {"onnxruntime": OnnxRuntimeModel, "openvino": OpenVINOModel}
_FILE = Path(__file__).parent / "results" / "networks.md"


def compressed_network(name: str) -> tuple[CompressedNetwork, Any]:
    """Return a network after one step of quantization-aware training, and its call."""
    torch.manual_seed(0)
    network, call = CASES[name]()
    network.eval()
    compressed = compress(network, CONFIG, [call], forward=lambda item: network(*item[0], **item[1]))
    # Detectors take targets for a loss; in evaluation mode they give scores and boxes, of which a loss can be made.
    network.train(not isinstance(call[0][0] if call[0] else None, list))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    loss = sum(output.float().square().mean() for output in _tensors(network(*call[0], **call[1])))
    if isinstance(loss, Tensor) and loss.requires_grad:
        loss.backward()
        optimizer.step()
    network.eval()
    return compressed, call


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() and value.numel() else []
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for item in items for tensor in _tensors(item)]


def prove(name: str, _threads: int) -> dict[str, Any]:
    """Export a network and prove the file."""
    started = time.perf_counter()
    compressed, call = compressed_network(name)
    setup = compressed.structure()["algorithms"]["quantization"]["setup"]["points"]
    kinds = [point["kind"] for point in setup]
    found: dict[str, Any] = {"weights": kinds.count("weight"), "activations": kinds.count("activation")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            proof = export_and_verify(compressed, path, inputs=call)
            report, found["proven"] = proof.verification, True
            found |= {"exporter": proof.export.exporter, "missing": list(proof.export.missing_quantizers)}
        except VerificationError as error:
            found |= {"proven": False, "error": str(error)[:2000]}
            kept = path.with_name("model.unverified.onnx")
            report = verify_onnx(kept, compressed.network, call, raise_on_failure=False, latency_runs=0)
            path = kept
        floats = {name: convolutions_in_float(path, name) for name in RUNTIMES}
    assert report is not None
    for result in report.results:
        row: dict[str, Any] = {"passed": result.passed, "skipped": result.skipped, "error": result.error}
        if result.layers is not None:
            row |= {
                "convolutions": [result.layers.convolutions, result.layers.all_convolutions],
                "products": [result.layers.matmuls, result.layers.all_matmuls],
            }
        if result.difference is not None:
            row["relative_rms"] = result.difference.relative_rms
        row |= {"in_float": floats[result.runtime], "warnings": list(result.warnings), "by_layer": result.by_layer}
        found[result.runtime] = row
    if report.reference_size:
        found["size"] = round(report.size / report.reference_size, 3)
    return found | {"seconds": round(time.perf_counter() - started, 1)}


def convolutions_in_float(path: Path, runtime: str) -> dict[str, int]:
    """Count the quantized convolutions that a runtime computes in float, by the likely reason."""
    model = onnx.load(path, load_external_data=False)
    quantized = quantized_layers(model, {"onnxruntime": onnxruntime.__version__})
    try:
        if runtime == "openvino":
            made = openvino_layers(OpenVINOModel(path).session.layers())
        else:
            optimized = path.with_name("optimized.onnx")
            OnnxRuntimeSession(str(path), None, str(optimized))
            made = onnxruntime_layers(onnx.load(optimized, load_external_data=False))
    except (ExportError, RuntimeError):
        return {}  # what it says is an error of the proof
    convolutions = {layer.name for layer in quantized if layer.op in ("Conv", "ConvTranspose")}
    reasons = [reason for name, reason in float_layers(quantized, made, runtime) if name in convolutions]
    return dict(Counter(reasons))


def latencies(name: str, threads: int) -> dict[str, Any]:
    """Time the file beside the float file, in turn."""
    compressed, call = compressed_network(name)
    plain = copy.deepcopy(compressed.network)
    strip(plain)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        int8, reference = Path(folder) / "int8.onnx", Path(folder) / "float.onnx"
        export_onnx(compressed.exportable(), call, int8)
        export_onnx(plain, call, reference)
        for runtime, make in RUNTIMES.items():
            with contextlib.suppress(ExportError):  # a runtime that cannot read it says so in the proof
                found[runtime] = round(_speedup(make, int8, reference, call, threads), 3)
    return {"speedup": found, "threads": threads}


def _speedup(make: Any, int8: Path, reference: Path, call: Any, threads: int) -> float:
    runners = {}
    for path in (reference, int8):
        model = make(path, threads=threads)
        structure = json.loads(model.metadata["inputs"])
        runners[path.name] = model.runner(_flat(structure, call))
    seconds = interleaved_medians(runners, 30)
    return seconds[reference.name] / seconds[int8.name]


def _flat(structure: Any, call: Any) -> list[Tensor]:
    from lightning_nncf.export.structure import flatten_like

    return flatten_like(structure, *call)


def in_child(name: str, mode: str, threads: int) -> dict[str, Any]:
    """Measure a network in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.networks", "--child", name, mode, "--threads", str(threads)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {TIMEOUT} seconds"}
    if run.returncode:
        return {"error": f"exit status {run.returncode}: {run.stderr[-600:]}"}
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def child(name: str, mode: str, threads: int) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    try:
        found = (prove if mode == "prove" else latencies)(name, threads)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"[:2000], "trace": traceback.format_exc()[-1500:]}
    sys.stdout.write(f"\n{json.dumps(found)}\n")


def table(results: dict[str, Any]) -> str:
    """Write the results as a table in Markdown."""
    lines = [
        "| network | proven | convolutions in INT8 (ONNX Runtime, OpenVINO) | products | size | times float |",
        "|---|---|---|---|---|---|",
    ]
    for name in CASES:
        if name not in results:
            continue
        row = results[name]
        rows = [row.get(runtime, {}) for runtime in RUNTIMES]
        cells = [
            ", ".join("/".join(map(str, found.get(key) or ["-"])) for found in rows)
            for key in ("convolutions", "products")
        ]
        speed = row.get("speedup", {})
        times = ", ".join(f"{speed[r]:.2f}" if isinstance(speed.get(r), float) else "-" for r in RUNTIMES)
        lines.append(
            f"| {name} | {'yes' if row.get('proven') else 'no'} | {cells[0]} | {cells[1]} | {row.get('size', '-')} "
            f"| {times} |"
        )
    lines += ["", "Convolutions in float:", "", "| network | runtime | how many | reason |", "|---|---|---|---|"]
    for name in CASES:
        for runtime in RUNTIMES:
            row = results.get(name, {}).get(runtime, {})
            integer, every = row.get("convolutions") or (0, 0)
            if "in_float" not in row:
                continue
            reasons = dict(row["in_float"])
            other = every - integer - sum(reasons.values())
            if other > 0:
                reasons["its input or weight has no quantizer"] = other
            lines += [f"| {name} | {runtime} | {count} | {reason} |" for reason, count in reasons.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="NAME", help="networks that are measured anew")
    parser.add_argument("--processes", type=int, default=1, help="networks at a time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--latency", action="store_true", help="measure speed alone")
    parser.add_argument("--table", action="store_true", help="write the table of what is stored")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.threads)
        return
    results: dict[str, Any] = read_results("networks") or {}
    if not options.table:
        mode, key = ("latency", "speedup") if options.latency else ("prove", "proven")
        names = options.only or [name for name in CASES if key not in results.get(name, {})]
        with ThreadPoolExecutor(options.processes) as pool:
            for name, found in zip(
                names, pool.map(lambda name: in_child(name, mode, options.threads), names), strict=True
            ):
                results[name] = (results.get(name, {}) | found) if options.latency else found
                write_results("networks", results)
                sys.stderr.write(f"{name}: {found}\n")
    _FILE.write_text(table(results))


if __name__ == "__main__":
    main()
