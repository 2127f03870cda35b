"""Nine exported files in many versions of the runtimes: do they load, are they right, how much runs in integers.

Run ``python -m benchmarks.deployment make FOLDER`` to write the files (random weights, fixed seed), then ``python -m
benchmarks.deployment run FOLDER [--runtimes onnxruntime==1.22.1 openvino ...] [--files bert ...] [--quick]``. A version
is installed by pip into a temporary folder and runs there without any other package, one process per file. Results are
merged into ``benchmarks/results/deployment.json`` and shown in ``benchmarks/results/deployment.md``. Python 3.11 has
packages of every version listed.

Latency, median of the INT8 file over the float one, both in turn in one process, needs a machine that does nothing
else; ``--quick`` leaves it out, and rows made that way have none.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import lightning_nncf.proof as proof
from benchmarks.deployment_files import FILES, make
from benchmarks.deployment_table import table
from benchmarks.machine import read_results, write_results
from lightning_nncf.proof.compare import Tolerance
from lightning_nncf.proof.distance import relative_rms
from lightning_nncf.proof.fallbacks import QuantizedLayer, find_layer, quantized_layers
from lightning_nncf.proof.int8_layers import Int8Layers, RuntimeLayer, onnxruntime_layers, openvino_layers

RUNTIMES = (
    *(f"onnxruntime=={version}" for version in ("1.18.1", "1.20.1", "1.22.1", "1.23.2", "1.26.0")),
    "onnxruntime",
    "openvino==2024.6.0",
    "openvino==2025.3.0",
    "openvino",
    "onnx",
    "tract",
)
"""What pip installs; without a version the newest. The last two are asked for right numbers only."""
TIMED = ("onnxruntime", "openvino")
RUNS = 50
TIMEOUT = 300
NAME = "deployment"


class InstallError(Exception):
    """Pip has no such package for this Python."""


class Install:
    """A version of a runtime in a folder of its own.

    Args:
        requirement: What pip installs.
        folder: Where; it is made.
    """

    def __init__(self, requirement: str, folder: Path) -> None:
        self.package = requirement.partition("==")[0]
        self.folder = folder
        self._packages = folder / "packages"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
        command += ["--target", str(self._packages), requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InstallError(f"pip cannot install {requirement}: {done.stderr.strip()[-300:]}")
        self.version = self._version(self.package)
        source = Path(proof.__file__).parent
        for file in (Path(__file__).with_name("deployment_child.py"), source / "sessions.py", source / "latency.py"):
            shutil.copy(file, folder)

    def versions(self) -> dict[str, str]:
        """Return the versions of what decides: the runtime and numpy."""
        return {package: self._version(package) for package in (self.package, "numpy")}

    def run(self, name: str, files: Path, *, runs: int, threads: int) -> dict[str, Any]:
        """Run one file in a process that sees this version alone."""
        reply = self.folder / "reply.json"
        reply.unlink(missing_ok=True)
        job = {
            "runtime": self.package,
            "path": str(files / f"{name}.onnx"),
            "twin": str(files / f"{name}.float.onnx"),
            "arrays": str(files / f"{name}.npz"),
            "output": str(self.folder / "output.npy"),
            "optimized": str(self.folder / "optimized.onnx"),
            "reply": str(reply),
            "runs": runs if self.package in TIMED else 0,
            "threads": threads,
        }
        environment = {**os.environ, "PYTHONPATH": str(self._packages), "OMP_NUM_THREADS": str(threads)}
        # Without site: the packages of this environment would else fill what the version lacks.
        command = [sys.executable, "-S", str(self.folder / "deployment_child.py"), json.dumps(job)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=TIMEOUT, env=environment
            )
        except subprocess.TimeoutExpired:
            return {"stage": "process", "error": f"no answer in {TIMEOUT} s"}
        if not reply.exists():
            return {"stage": "process", "error": f"ended with {done.returncode}: {done.stderr.strip()[-300:]}"}
        found: dict[str, Any] = json.loads(reply.read_text())
        if not Path(found.get("origin", self._packages)).is_relative_to(self._packages):
            raise RuntimeError(f"{self.package} came from {found['origin']}, not from {self._packages}")
        return found

    def output(self) -> torch.Tensor:
        """Return the output of the last run."""
        return torch.from_numpy(np.load(self.folder / "output.npy"))

    def layers(self, told: list[tuple[str, str, str]]) -> list[RuntimeLayer] | None:
        """Return what the runtime made of the last file, as far as it tells."""
        if self.package == "openvino":
            return openvino_layers(told)
        if self.package == "onnxruntime":
            return onnxruntime_layers(onnx.load(self.folder / "optimized.onnx"))
        return None

    def _version(self, package: str) -> str:
        return next(self._packages.glob(f"{package}-*.dist-info")).name.split("-")[1].removesuffix(".dist")


@contextmanager
def installed(requirement: str) -> Iterator[Install]:
    with tempfile.TemporaryDirectory() as folder:
        yield Install(requirement, Path(folder))


def measure(install: Install, name: str, files: Path, *, runs: int, threads: int) -> dict[str, Any]:
    """Return the row of one file in one version."""
    reply = install.run(name, files, runs=runs, threads=threads)
    if "error" in reply:
        return {"loads": reply["stage"] == "run", "stage": reply["stage"], "error": _short(reply["error"])}
    with np.load(files / f"{name}.npz") as stored:
        expected = torch.from_numpy(stored["output"])
    row: dict[str, Any] = {"loads": True, "relative_rms": float(f"{relative_rms(install.output(), expected):.3g}")}
    layers = install.layers(reply["layers"])
    if layers is not None:
        quantized = quantized_layers(onnx.load(files / f"{name}.onnx"), {install.package: install.version})
        counted = Int8Layers.of(layers)
        row |= {
            "convolutions": f"{counted.convolutions}/{counted.all_convolutions}",
            "matmuls": f"{counted.matmuls}/{counted.all_matmuls}",
            "int8": f"{counted.convolutions + counted.matmuls}/{counted.all_convolutions + counted.all_matmuls}",
            "quantized": len(quantized),
            **_in_float(quantized, layers),
        }
    if "seconds" in reply:
        milliseconds = {key: round(1e3 * value, 3) for key, value in reply["seconds"].items()}
        row |= {
            "milliseconds": milliseconds,
            "over_float": round(reply["seconds"]["int8"] / reply["seconds"]["float"], 3),
        }
    elif "latency_error" in reply:
        row["latency_error"] = _short(reply["latency_error"])
    return row


def _in_float(quantized: list[QuantizedLayer], layers: list[RuntimeLayer]) -> dict[str, list[str]]:
    """Name the products in float: those of quantized layers, and the others."""
    found: dict[str, list[str]] = {"float_though_quantized": [], "float": []}
    for layer in layers:
        if not layer.integer:
            made_from = find_layer(quantized, layer)
            found["float" if made_from is None else "float_though_quantized"].append(
                layer.names[0] if made_from is None else made_from.name
            )
    return found


def run(options: argparse.Namespace) -> None:
    """Measure what was asked for, and merge it into the results."""
    results = read_results(NAME) or {"files": {}, "runtimes": {}}
    results["files"] |= json.loads((options.folder / "files.json").read_text())
    for requirement in options.runtimes:
        _measure_version(results, requirement, options)
    results["tolerance"] = Tolerance().relative_rms
    write_results(NAME, results)
    (Path(__file__).parent / "results" / f"{NAME}.md").write_text(table(results))


def _measure_version(results: dict[str, Any], requirement: str, options: argparse.Namespace) -> None:
    rows = {}
    missing = results.setdefault("not_installed", {})
    missing.pop(requirement, None)
    try:
        with installed(requirement) as install:
            for name in options.files:
                runs = 0 if options.quick else options.runs
                rows[name] = measure(install, name, options.folder, runs=runs, threads=options.threads)
                sys.stderr.write(f"{install.package} {install.version} {name}: {rows[name]}\n")
            _merge(results["runtimes"], install, rows, threads=options.threads)
    except InstallError as error:
        sys.stderr.write(f"{error}\n")
        missing[requirement] = _short(str(error))


def _merge(runtimes: dict[str, Any], install: Install, rows: dict[str, Any], *, threads: int) -> None:
    """Put rows beside those of other files; each says when it was made."""
    today = datetime.date.today().isoformat()
    entry = runtimes.setdefault(f"{install.package} {install.version}", {"rows": {}})
    entry |= {"versions": install.versions(), "python": sys.version.split()[0]}
    entry["rows"] |= {name: {"date": today, "threads": threads, **row} for name, row in rows.items()}


def _short(text: str) -> str:
    return " ".join(text.partition("Stack backtrace")[0].split()).replace("`", "'").replace("|", "/")[:300]


def write_files(options: argparse.Namespace) -> None:
    options.folder.mkdir(parents=True, exist_ok=True)
    known = options.folder / "files.json"
    made = json.loads(known.read_text()) if known.exists() else {}
    for name in options.files:
        made[name] = make(name, options.folder)
        sys.stderr.write(f"{name}: {made[name]}\n")
        known.write_text(json.dumps(made, indent=2) + "\n")


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["make", "run"])
    parser.add_argument("folder", type=Path, help="where the files are")
    parser.add_argument("--files", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--runtimes", nargs="+", default=RUNTIMES, help="what pip installs, as in onnxruntime==1.22.1")
    parser.add_argument("--quick", action="store_true", help="measure no latency")
    parser.add_argument("--runs", type=int, default=RUNS, help="timed calls of each file")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    (write_files if options.action == "make" else run)(options)


if __name__ == "__main__":
    main()
