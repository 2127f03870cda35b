"""One runtime at work in a process of its own: requests come in line by line as JSON, arrays lie in files.

It imports numpy and the runtime alone, so it starts quickly; see `lightning_nncf.proof.process` for the other side.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from lightning_nncf.proof.latency import interleaved_medians
from lightning_nncf.proof.sessions import Session, read_arrays, write_arrays

__all__ = ["main"]

_SLOWER = 1.05
_AGAIN = 3


def main(session: str) -> None:
    """Answer requests until there are none left.

    Args:
        session: Module and class of the session, as in ``package.module:Class``.
    """
    # Runtimes print; what they print must not get between the replies.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _serve(session, sys.stdin, replies)
    # Nothing is to be saved, and destructors of runtimes have aborted processes whose work was done.
    os._exit(0)


def _serve(session: str, requests: TextIO, replies: TextIO) -> None:
    module, _, name = session.partition(":")
    models: dict[str, Session] = {}
    make: Callable[..., Session] | None = None
    for line in requests:
        request = json.loads(line)
        try:
            make = make or getattr(importlib.import_module(module), name)
            reply = _answer(make, models, request)
        except Exception as error:
            reply = {"error": str(error) or type(error).__name__}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _answer(make: Callable[..., Session], models: dict[str, Session], request: dict[str, Any]) -> dict[str, Any]:
    action = request["action"]
    if action == "load":
        models[request["model"]] = make(request["path"], request["threads"], request["optimized"], request["external"])
        return {}
    if action == "layers":
        return {"layers": models[request["model"]].layers()}
    arrays = read_arrays(request["inputs"])
    if action == "run":
        outputs = models[request["model"]].run(arrays)
        with open(request["outputs"], "wb") as file:  # noqa: PTH123
            write_arrays(file, [array for array, _ in outputs])
        return {"kinds": [kind for _, kind in outputs]}
    calls = {name: models[name].caller(arrays) for name in request["models"]}
    return {"seconds": _time(calls, request["runs"])}


def _time(calls: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Time models in turn; where the first is slower than the second, again and longer before that is believed."""
    seconds = interleaved_medians(calls, runs)
    first, *others = seconds.values()
    if others and first > _SLOWER * others[0]:
        seconds = interleaved_medians(calls, _AGAIN * runs)
    return seconds
