"""Accuracy of networks that lost 40 % of their FLOPs, against float networks trained equally long, on digits.

The recipe was chosen on validation images, the result is taken on the folds under test with other seeds:

    python -m benchmarks.pruning_digits --split val --datasets hard --seeds 100 --methods group_fast global_fast ...
    python -m benchmarks.pruning_digits --datasets digits --seeds 10
    python -m benchmarks.pruning_digits --datasets hard --seeds 10
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from benchmarks.machine import read_results, write_results
from benchmarks.protocol import Method, Run, add_arguments, run_with_arguments, summarize

REMOVED = 0.4
"""Share of the FLOPs that is removed."""
_FILES = {"digits": "pruning_digits", "hard": "pruning_hard_digits"}


def _method(epochs: int, lr: float, removed: float = REMOVED, **params: Any) -> Method:
    """Prune in the first third of the epochs, remove what is masked physically when that is done."""
    steps = max(epochs // 3, 1)
    fixed = {"pruning_flops_target": removed, "pruning_steps": steps, "grouping": "full", "shrink_at": steps}
    section = {"algorithm": "filter_pruning", "pruning_init": removed / 4, "params": {**fixed, **params}}
    return Method(
        config={"compression": section},
        fine_tune_lr=lr,
        reached=lambda found: found["flops_ratio"] <= 1 - removed,
    )


def methods(epochs: int) -> dict[str, Method]:
    """Return the recipes that were weighed, by name: `float` ones remove nothing, as a second control."""
    found = {}
    for speed, lr in (("slow", 0.02), ("fast", 0.1)):
        found[f"float_{speed}"] = _method(epochs, lr, removed=0.0)
        found[f"group_{speed}"] = _method(epochs, lr)
        found[f"median_{speed}"] = _method(epochs, lr, filter_importance="geometric_median")
        found[f"global_{speed}"] = _method(epochs, lr, all_weights=True)
    return found


def main() -> None:
    """Run the methods asked for; results on the folds under test are added to those written before, others printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--methods", nargs="+", default=["global_fast"], choices=sorted(methods(1)))
    arguments = parser.parse_args()
    known = methods(arguments.epochs)
    found = run_with_arguments({name: known[name] for name in arguments.methods}, arguments)
    if arguments.split != "test":
        return
    command = " ".join(["python -m benchmarks.pruning_digits", *sys.argv[1:]])
    for dataset in arguments.datasets:
        _write(_FILES[dataset], command, found["recipe"], found[dataset]["runs"])


def _write(name: str, command: str, recipe: Any, runs: list[dict[str, Any]]) -> None:
    """Write runs with what they come to, beside those of other seeds that were made by the same recipe."""
    known = read_results(name)
    commands = [command]
    recipe = json.loads(json.dumps(recipe))
    if known is not None and known["recipe"] == recipe:
        ours = {(run["seed"], run["method"]) for run in runs}
        runs = [run for run in known["runs"] if (run["seed"], run["method"]) not in ours] + runs
        commands = [*(each for each in known["commands"] if each != command), command]
    summary = summarize(Run(**run) for run in runs)
    write_results(name, {"commands": commands, "recipe": recipe, "summary": summary, "runs": runs})


if __name__ == "__main__":
    main()
