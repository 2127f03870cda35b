"""Accuracy of compressed networks whose weights are averaged by Lightning's callbacks, against the same runs without.

python -m benchmarks.averaging_digits
python -m benchmarks.averaging_digits --datasets digits --folds 0 1 --float-epochs 8 --epochs 8 --compressions int8
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytorch_lightning.callbacks import EMAWeightAveraging, StochasticWeightAveraging

from benchmarks.machine import write_results
from benchmarks.protocol import Method, add_arguments, run_with_arguments

_NAME = "averaging_digits"
_LEVEL = 0.6
_WITHIN = 0.01
# Some 22 steps make an epoch: an average over one and a half of them.
_DECAY = 0.97
_INT8: dict[str, Any] = {"algorithm": "quantization"}

Averaging = Callable[[], Sequence[Any]]


def averagings(fine_tune_lr: float) -> dict[str, Averaging]:
    """Return what makes the averaging callbacks, by name; SWA averages the last 40 % of the epochs."""
    return {
        "none": tuple,
        "ema": lambda: [EMAWeightAveraging(decay=_DECAY)],
        "swa": lambda: [StochasticWeightAveraging(fine_tune_lr / 2, swa_epoch_start=0.6, annealing_epochs=1)],
    }


def compressions(epochs: int) -> dict[str, list[dict[str, Any]]]:
    """Return the algorithms by name; sparsity and pruning reach their targets before the averages of SWA begin."""
    schedule = {"sparsity_target": _LEVEL, "sparsity_target_epoch": epochs // 4, "sparsity_freeze_epoch": epochs // 2}
    pruning = {"pruning_target": 0.3, "pruning_steps": max(epochs // 4, 1), "num_init_steps": 0, "grouping": "full"}
    return {
        "int8": [_INT8],
        "magnitude_int8": [{"algorithm": "magnitude_sparsity", "params": schedule}, _INT8],
        "rb": [{"algorithm": "rb_sparsity", "params": schedule}],
        "pruning_int8": [{"algorithm": "filter_pruning", "params": {**pruning, "shrink_at": epochs // 2}}, _INT8],
    }


def methods(epochs: int, fine_tune_lr: float, chosen: Sequence[str]) -> dict[str, Method]:
    """Return every compression asked for with every averaging, as ``<compression>/<averaging>``."""
    return {
        f"{name}/{kind}": Method(
            config={"compression": compressions(epochs)[name]}, reached=_reached(name), callbacks=make
        )
        for name in chosen
        for kind, make in averagings(fine_tune_lr).items()
    }


def _reached(name: str) -> Callable[[Mapping[str, float]], bool] | None:
    if name not in ("magnitude_int8", "rb"):
        return None
    return lambda found: abs(found["sparsity_level"] - _LEVEL) <= _WITHIN


def gains(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return points of accuracy that each averaging gained over the same runs without, with the standard error.

    Seeds are averaged in each fold first; a pair of which one run missed its compression gives no gain.

    >>> common = {"seed": 0, "reached": True}
    >>> runs = [
    ...     {**common, "fold": fold, "method": f"int8/{kind}", "accuracy": 98.0 + fold * (kind == "ema")}
    ...     for fold in (0, 1, 2)
    ...     for kind in ("none", "ema")
    ... ]
    >>> gains(runs)["int8/ema"]["gain"], round(gains(runs)["int8/ema"]["standard_error"], 4)
    (1.0, 0.5774)
    """
    plain = {(run["method"].partition("/")[0], run["fold"], run["seed"]): run for run in runs if _is_plain(run)}
    found: dict[str, dict[int, list[float]]] = {}
    missed: dict[str, int] = {}
    for run in runs:
        if _is_plain(run):
            continue
        other = plain[run["method"].partition("/")[0], run["fold"], run["seed"]]
        if not (run["reached"] and other["reached"]):
            missed[run["method"]] = missed.get(run["method"], 0) + 1
            continue
        pairs = found.setdefault(run["method"], {})
        pairs.setdefault(run["fold"], []).append(run["accuracy"] - other["accuracy"])
    result: dict[str, dict[str, Any]] = {name: {"gain": None, "not_reached": count} for name, count in missed.items()}
    for name, folds in found.items():
        if name not in missed:
            means = [statistics.mean(each) for each in folds.values()]
            error = statistics.stdev(means) / len(means) ** 0.5 if len(means) > 1 else None
            result[name] = {"gain": statistics.mean(means), "standard_error": error}
    return result


def _is_plain(run: Mapping[str, Any]) -> bool:
    method: str = run["method"]
    return method.endswith("/none")


def main() -> None:
    """Run what is asked for; results on the folds under test are written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, epochs=20)
    parser.set_defaults(datasets=["digits"], float_epochs=20)
    parser.add_argument("--compressions", nargs="+", default=list(compressions(8)), choices=list(compressions(8)))
    parser.add_argument("--name", default=_NAME, help="result file to write, without its ending")
    arguments = parser.parse_args()
    chosen = methods(arguments.epochs, arguments.fine_tune_lr, arguments.compressions)
    found = run_with_arguments(chosen, arguments)
    for dataset in arguments.datasets:
        found[dataset]["gains"] = gains(found[dataset]["runs"])
        for name, gain in found[dataset]["gains"].items():
            sys.stdout.write(f"{dataset} {name} against none: {gain}\n")
    if arguments.split == "test":
        command = " ".join(["python -m benchmarks.averaging_digits", *sys.argv[1:]])
        write_results(arguments.name, {"command": command, **found})


if __name__ == "__main__":
    main()
