"""Accuracy of networks that were compressed with and without a teacher, on hard digits, from the same float networks.

    python -m benchmarks.distillation_digits --seeds 0 1
    python -m benchmarks.distillation_digits --split val --seeds 100 --methods int8_pruned40 --temperatures 1 4

The methods are those of ``scripts/benchmark_digits.py``; the teacher is the network before compression. Its temperature
and scale were chosen on validation images, with other seeds.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import read_results, write_results
from benchmarks.protocol import Method, Recipe, Run, run_protocol, summarize
from example_modules.digits import FOLDS
from scripts.zoo.digits import NETWORKS, ROWS, config_of

_NAME = "distillation_digits"
METHODS = ("int8_pruned40", "xnor", "dorefa")


def method_of(name: str, network: str, teacher: Mapping[str, Any] | None) -> Method:
    """Return a method of the zoo's, with distillation if there are settings for it."""
    row = ROWS[name]
    config = config_of(row, network)
    sections = config["compression"] if isinstance(config["compression"], list) else [config["compression"]]
    if teacher is not None:
        sections = [*sections, {"algorithm": "knowledge_distillation", "type": "softmax", **teacher}]
    left = row.flops_left
    return Method(
        config={**config, "compression": sections},
        fine_tune_lr=row.fine_tune_lr,
        reached=None if left is None else lambda found: found["flops_ratio"] <= left,
    )


def gains(runs: Iterable[Run]) -> dict[str, dict[str, float]]:
    """Return by how many points less each method with a teacher loses than without one, paired in each fold."""
    known = list(runs)
    found = {}
    for method in dict.fromkeys(run.method for run in known if " " in run.method):
        plain = {(run.seed, run.fold): run.loss for run in known if run.method == method.partition(" ")[0]}
        pairs = [(run.fold, plain[run.seed, run.fold] - run.loss) for run in known if run.method == method]
        folds = [statistics.mean(gain for each, gain in pairs if each == fold) for fold in {fold for fold, _ in pairs}]
        error = statistics.stdev(folds) / len(folds) ** 0.5 if len(folds) > 1 else float("nan")
        found[method] = {"points": statistics.mean(folds), "standard_error": error}
    return found


def main() -> None:
    """Run what the arguments say; results on the folds under test are added to those written before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(ROWS))
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--temperatures", nargs="+", type=float, default=[4.0])
    parser.add_argument("--scales", nargs="+", type=float, default=[1.0])
    parser.add_argument("--rates", nargs="+", type=float, help="learning rates with a teacher; default: the method's")
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--split", default="test", choices=["test", "val"], help="`val` keeps no results")
    parser.add_argument("--cache", type=Path, help="folder that keeps float networks")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning_nncf"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    for network in arguments.networks:
        for name in arguments.methods:
            _measure(network, name, arguments)


def _measure(network: str, name: str, arguments: argparse.Namespace) -> None:
    recipe = Recipe(
        float_epochs=20,
        epochs=ROWS[name].epochs,
        module={"network": network, "lr": 0.1, "fine_tune_lr": 0.05},
    )
    methods = {name: method_of(name, network, None)}
    rates = arguments.rates or [ROWS[name].fine_tune_lr]
    for temperature, scale, rate in itertools.product(arguments.temperatures, arguments.scales, rates):
        method = method_of(name, network, {"temperature": temperature, "scale": scale})
        methods[f"{name} T={temperature:g} scale={scale:g} rate={rate:g}"] = replace(method, fine_tune_lr=rate)
    runs = run_protocol(
        methods,
        "hard",
        recipe=recipe,
        folds=arguments.folds,
        seeds=arguments.seeds,
        split=arguments.split,
        cache=arguments.cache,
        report=_print,
    )
    found = {"summary": summarize(runs), "gains": gains(runs)}
    sys.stdout.write(f"{network} {name}: {found}\n")
    sys.stdout.flush()
    if arguments.split == "test":
        command = " ".join(["python -m benchmarks.distillation_digits", *sys.argv[1:]])
        record = {"command": command, "recipe": asdict(recipe), **found, "runs": [asdict(run) for run in runs]}
        write_results(_NAME, {**(read_results(_NAME) or {}), f"{network}/{name}": record})


def _print(run: Run) -> None:
    sys.stdout.write(f"  seed {run.seed} fold {run.fold} {run.method}: loss {run.loss:.2f} reached {run.reached}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
