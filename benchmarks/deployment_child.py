"""One file in one version of one runtime: what `benchmarks.deployment` runs in a process without other packages.

It is copied beside ``sessions.py`` and ``latency.py`` of the package's proof and needs numpy and the runtime alone. It
reads a job (JSON, first argument), and writes the outputs and a reply to where the job says.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np


class Reference:
    """A file in onnx's reference evaluator."""

    def __init__(self, path: str, *_: Any) -> None:
        evaluator = importlib.import_module("onnx.reference").ReferenceEvaluator
        self._evaluator = evaluator(path)

    def run(self, arrays: list[Any]) -> list[tuple[Any, str]]:
        fed = dict(zip(self._evaluator.input_names, arrays, strict=True))
        return [(output, "") for output in self._evaluator.run(None, fed)]

    def layers(self) -> list[Any]:
        return []


class Tract:
    """A file in tract, its sizes left open as they are in the file."""

    def __init__(self, path: str, *_: Any) -> None:
        self._model = importlib.import_module("tract").onnx().load(path)

    def run(self, arrays: list[Any]) -> list[tuple[Any, str]]:
        runnable = self._model.into_model().into_runnable()
        return [(output.to_numpy(), "") for output in runnable.run(list(arrays))]

    def layers(self) -> list[Any]:
        return []


def make_session(runtime: str) -> Any:
    if runtime in ("onnx", "tract"):
        return {"onnx": Reference, "tract": Tract}[runtime]
    sessions = importlib.import_module("sessions")
    return {"onnxruntime": sessions.OnnxRuntimeSession, "openvino": sessions.OpenVINOSession}[runtime]


def time_both(make: Any, job: dict[str, Any], arrays: list[Any]) -> dict[str, float]:
    models = {"int8": job["path"], "float": job["twin"]}
    calls = {name: make(path, job["threads"]).caller(arrays) for name, path in models.items()}
    return importlib.import_module("latency").interleaved_medians(calls, job["runs"])


def work(job: dict[str, Any]) -> dict[str, Any]:
    make = make_session(job["runtime"])
    with np.load(job["arrays"]) as stored:
        arrays = [stored[f"input_{index}"] for index in range(len(stored.files) - 1)]
    try:
        session = make(job["path"], job["threads"], job["optimized"])
    except Exception as error:
        return {"stage": "load", "error": f"{type(error).__name__}: {error}"}
    try:
        np.save(job["output"], session.run(arrays)[0][0])
    except Exception as error:
        return {"stage": "run", "error": f"{type(error).__name__}: {error}"}
    origin = importlib.import_module(job["runtime"]).__file__
    reply: dict[str, Any] = {"layers": session.layers(), "origin": origin}
    if job["runs"]:
        try:
            reply["seconds"] = time_both(make, job, arrays)
        except Exception as error:
            reply["latency_error"] = f"{type(error).__name__}: {error}"
    return reply


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    Path(request["reply"]).write_text(json.dumps(work(request)))
    # Destructors of some runtimes abort processes whose work is done.
    os._exit(0)
