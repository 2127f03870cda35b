"""Accuracy of sparse and binarized networks against float ones trained equally long, on digits.

The recipe was chosen on validation images with other seeds (``--split val --seeds 100``):

    python -m benchmarks.sparsity_digits --datasets hard
    python -m benchmarks.sparsity_digits --datasets digits --epochs 30
    python -m benchmarks.sparsity_digits --optimizer adam --lr 1e-3 --fine-tune-lr 1e-3 --methods rb --folds 0
    python -m benchmarks.sparsity_digits --datasets hard --folds 0 1 2 --name first
    python -m benchmarks.sparsity_digits --combine first second
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.machine import read_results, write_results
from benchmarks.protocol import Method, Run, add_arguments, run_with_arguments, summarize

MAGNITUDE, RB = 0.7, 0.61
"""Sparsity levels asked for."""
_WITHIN = 0.01
_NAME = "sparsity_digits"
# The first convolution and those of the shortcuts stay in floating point.
_OUTER = ["{re}^conv/", "{re}shortcut"]


def methods(epochs: int) -> dict[str, Method]:
    """Return the methods by name: sparse after a quarter of the epochs, masks frozen after half of them."""
    schedule = {"sparsity_target_epoch": epochs // 4, "sparsity_freeze_epoch": epochs // 2}
    half = {"sparsity_freeze_epoch": max(epochs // 2, 1)}
    return {
        "magnitude": _sparse("magnitude_sparsity", MAGNITUDE, sparsity_target=MAGNITUDE, **schedule),
        "rb": _sparse("rb_sparsity", RB, sparsity_target=RB, **schedule),
        "n_m": _sparse("n_m_sparsity", 0.5, **half),
        "xnor": _binary("xnor", epochs),
        "dorefa": _binary("dorefa", epochs),
    }


def _sparse(algorithm: str, level: float, **params: Any) -> Method:
    return Method(
        config={"compression": {"algorithm": algorithm, "params": params}},
        reached=lambda found: abs(found["sparsity_level"] - level) <= _WITHIN,
    )


def _binary(mode: str, epochs: int) -> Method:
    """Activations are binary from the start, weights after a fifth of the epochs."""
    params = {"activations_quant_start_epoch": 0, "weights_quant_start_epoch": epochs // 5}
    section = {"algorithm": "binarization", "mode": mode, "ignored_scopes": _OUTER, "params": params}
    return Method(config={"compression": section})


def combine(names: Sequence[str]) -> dict[str, Any]:
    """Join results that were written under several names; all parts of one data set must share their recipe."""
    parts: list[Mapping[str, Any]] = [read_results(name) for name in names]
    found: dict[str, Any] = {"commands": [part["command"] for part in parts]}
    for dataset in ("digits", "hard"):
        chosen = [part for part in parts if dataset in part]
        if not chosen:
            continue
        if any(part["recipe"] != chosen[0]["recipe"] for part in chosen):
            raise ValueError(f"parts of {dataset!r} were trained by different recipes")
        runs = [run for part in chosen for run in part[dataset]["runs"]]
        summary = summarize(Run(**run) for run in runs)
        found[dataset] = {"recipe": chosen[0]["recipe"], "summary": summary, "runs": runs}
    return found


def main() -> None:
    """Run the methods asked for, or combine what was run; results on the folds under test are written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, epochs=60, fine_tune_lr=0.05)
    parser.set_defaults(widths=[32, 64, 128])
    parser.add_argument("--methods", nargs="+", default=list(methods(1)), choices=list(methods(1)))
    parser.add_argument("--name", default=_NAME, help="result file to write, without its ending")
    parser.add_argument("--combine", nargs="+", metavar="NAME", help="result files to join instead of running")
    arguments = parser.parse_args()
    if arguments.combine:
        write_results(arguments.name, combine(arguments.combine))
        return
    known = methods(arguments.epochs)
    found = run_with_arguments({name: known[name] for name in arguments.methods}, arguments)
    if arguments.split == "test":
        command = " ".join(["python -m benchmarks.sparsity_digits", *sys.argv[1:]])
        write_results(arguments.name, {"command": command, **found})


if __name__ == "__main__":
    main()
