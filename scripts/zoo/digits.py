"""Every algorithm and combination of the classification zoo on digits: what it costs in accuracy, five folds, paired.

    python scripts/benchmark_digits.py --methods int8 mixed --networks small_resnet --datasets digits hard

Runs are kept in ``benchmarks/results/zoo_digits.json``, so that a long benchmark can be made in pieces, and a table of
all of them beside it. Recipes were chosen on validation images (``--split val``), never on those under test.
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import read_results, write_results
from benchmarks.protocol import Method, Recipe, Run, run_protocol, summarize
from example_modules.digits import FOLDS

__all__ = ["NETWORKS", "ROWS", "DigitsRow", "main", "table"]

_NAME = "zoo_digits"
NETWORKS = ("small_resnet", "small_mobilenet")
# As in the zoo, the outermost layers stay in floating point where the others are binary; so do shortcuts. In the second
# network so do depthwise convolutions, whose sums of nine signs hold next to nothing, and those that read its linear
# bottlenecks, for without a ReLU before it the scale of binary activations diverged (tried on validation images).
_NOT_BINARY = {
    "small_resnet": ["{re}^conv/", "{re}shortcut"],
    "small_mobilenet": ["{re}^stem", "{re}depthwise", "{re}expand", "{re}^head"],
}


@dataclass(frozen=True, kw_only=True)
class DigitsRow:
    """One method.

    Args:
        compression: Its ``compression`` section; ``EPOCHS/n`` stands for that part of the epochs.
        bar: Points of accuracy that it may cost.
        epochs: Epochs of the compressed network, and of its float twin.
        fine_tune_lr: Learning rate at the start of them; default: that of the float twin.
        root: Further keys at the root of the configuration.
        flops_left: Share of the FLOPs that may be left, else the row counts as not reached.
    """

    compression: Any
    bar: float | None = None
    epochs: int = 20
    fine_tune_lr: float | None = None
    root: Mapping[str, Any] = field(default_factory=dict)
    flops_left: float | None = None


_INT8: dict[str, Any] = {"algorithm": "quantization"}
_MIXED: dict[str, Any] = {
    "algorithm": "quantization",
    "weights": {"mode": "asymmetric", "per_channel": True},
    "activations": {"mode": "asymmetric"},
    "initializer": {"precision": {"type": "hawq", "bits": [4, 8], "compression_ratio": 1.5}},
}


def _rb(target: float) -> dict[str, Any]:
    params = {"sparsity_target": target, "sparsity_target_epoch": "EPOCHS/4", "sparsity_freeze_epoch": "EPOCHS/2"}
    return {"algorithm": "rb_sparsity", "sparsity_init": 0.01, "params": params}


def _pruned(importance: str) -> dict[str, Any]:
    """Remove 40 % of the FLOPs: with NNCF's exclusions and 40 % of each layer the ResNet would keep all its filters."""
    params = {
        "pruning_flops_target": 0.4,
        "pruning_steps": "EPOCHS/3",
        "filter_importance": importance,
        "all_weights": True,
        "grouping": "full",
    }
    return {"algorithm": "filter_pruning", "pruning_init": 0.1, "params": params}


def _binary(mode: str) -> dict[str, Any]:
    params = {
        "activations_quant_start_epoch": "EPOCHS/9",
        "weights_quant_start_epoch": "EPOCHS/3",
        "lr_poly_drop_start_epoch": "EPOCHS/1.5",
        "lr_poly_drop_duration_epochs": "EPOCHS/3",
        "disable_wd_start_epoch": "EPOCHS/1.5",
    }
    return {"algorithm": "binarization", "mode": mode, "params": params, "ignored_scopes": "NOT_BINARY"}


ROWS: dict[str, DigitsRow] = {
    "int8": DigitsRow(compression=_INT8, bar=0.5, fine_tune_lr=0.02),
    "int8_per_tensor": DigitsRow(compression={**_INT8, "weights": {"per_channel": False}}, bar=0.5, fine_tune_lr=0.02),
    "mixed": DigitsRow(compression=_MIXED, bar=1.0, root={"target_device": "TRIAL"}),
    "int8_rb61": DigitsRow(compression=[_rb(0.61), _INT8], bar=1.0, fine_tune_lr=0.1),
    "int8_rb50": DigitsRow(compression=[_rb(0.5), _INT8], bar=1.0, fine_tune_lr=0.1),
    "pruned40_magnitude": DigitsRow(compression=_pruned("L2"), bar=0.5, fine_tune_lr=0.1, flops_left=0.6),
    "pruned40_geometric_median": DigitsRow(
        compression=_pruned("geometric_median"), bar=0.5, fine_tune_lr=0.1, flops_left=0.6
    ),
    "int8_pruned40": DigitsRow(compression=[_pruned("geometric_median"), _INT8], fine_tune_lr=0.1, flops_left=0.6),
    "int8_magnitude60": DigitsRow(
        compression=[
            {
                "algorithm": "magnitude_sparsity",
                "params": {
                    "sparsity_target": 0.6,
                    "sparsity_target_epoch": "EPOCHS/3",
                    "sparsity_freeze_epoch": "EPOCHS/2",
                },
            },
            _INT8,
        ]
    ),
    "xnor": DigitsRow(compression=_binary("xnor"), bar=3.0, epochs=60, fine_tune_lr=0.05),
    "dorefa": DigitsRow(compression=_binary("dorefa"), bar=3.0, epochs=60, fine_tune_lr=0.05),
}


def config_of(row: DigitsRow, network: str) -> dict[str, Any]:
    """Return the configuration of a row, with epochs and scopes put in.

    >>> config_of(ROWS["pruned40_magnitude"], "small_resnet")["compression"]["params"]["pruning_steps"]
    7
    """
    return {**row.root, "compression": _filled(copy.deepcopy(row.compression), row.epochs, network)}


def table(results: Mapping[str, Any]) -> str:
    """Write results as a Markdown table."""
    lines = [
        "| network | images | method | float % | compressed % | loss, points | bar | runs |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for key, result in sorted(results.items(), key=lambda item: _order(item[0])):
        network, dataset, method = key.split("/")
        summary = result["summary"]
        if summary["accuracy"] is None:
            found = f"| | not reached: {', '.join(summary['not_reached'])} | "
        else:
            error = summary["standard_error"]
            found = f"{summary['float_accuracy']:.2f} | {summary['accuracy']:.2f} | {summary['loss']:.2f}"
            found += "" if error is None else f" ± {error:.2f}"
        bar = ROWS[method].bar
        runs = len(result["runs"])
        lines.append(f"| {network} | {dataset} | {method} | {found} | {'' if bar is None else bar} | {runs} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--datasets", nargs="+", default=["digits", "hard"], choices=["digits", "hard"])
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)))
    parser.add_argument("--split", default="test", choices=["test", "val"], help="`val` keeps no results")
    parser.add_argument("--float-epochs", type=int, default=20)
    parser.add_argument("--epochs", type=int, help="instead of the row's")
    parser.add_argument("--lr", type=float, default=0.1, help="of the float network that everything starts from")
    parser.add_argument("--twin-lr", type=float, default=0.05, help="of the float twin")
    parser.add_argument("--fine-tune-lr", type=float, help="of the compressed network, instead of the row's")
    parser.add_argument("--cache", type=Path, help="folder that keeps float networks")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning_nncf"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    for network in arguments.networks:
        for dataset in arguments.datasets:
            for name in arguments.methods:
                _measure(network, dataset, name, arguments)


def _measure(network: str, dataset: Any, name: str, arguments: argparse.Namespace) -> None:
    row = ROWS[name]
    if arguments.epochs is not None:
        row = DigitsRow(**{**vars(row), "epochs": arguments.epochs})
    recipe = Recipe(
        float_epochs=arguments.float_epochs,
        epochs=row.epochs,
        module={"network": network, "lr": arguments.lr, "fine_tune_lr": arguments.twin_lr},
    )
    rate = row.fine_tune_lr if arguments.fine_tune_lr is None else arguments.fine_tune_lr
    left = row.flops_left
    reached = None if left is None else lambda found: found["flops_ratio"] <= left
    method = Method(config=config_of(row, network), fine_tune_lr=rate, reached=reached)
    runs = run_protocol(
        {name: method},
        dataset,
        recipe=recipe,
        folds=arguments.folds,
        split=arguments.split,
        cache=arguments.cache,
        report=_print,
    )
    summary = summarize(runs)[name]
    sys.stdout.write(f"{network}/{dataset}/{name}: {summary}\n")
    if arguments.split == "test":
        results = read_results(_NAME) or {}
        results[f"{network}/{dataset}/{name}"] = {
            "recipe": asdict(recipe),
            "fine_tune_lr": rate,
            "config": dict(method.config),
            "summary": summary,
            "runs": [asdict(run) for run in runs],
        }
        write_results(_NAME, results)
        (Path(__file__).parents[2] / "benchmarks" / "results" / f"{_NAME}.md").write_text(table(results))


def _print(run: Run) -> None:
    sys.stdout.write(
        f"{run.dataset} fold {run.fold} {run.method}: float {run.float_accuracy:.2f} compressed {run.accuracy:.2f} "
        f"reached {run.reached} {run.seconds:.0f}s\n"
    )
    sys.stdout.flush()


def _filled(value: Any, epochs: int, network: str) -> Any:
    """Put epochs and scopes in the places that wait for them."""
    if isinstance(value, dict):
        return {key: _filled(item, epochs, network) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, epochs, network) for item in value]
    if value == "NOT_BINARY":
        return list(_NOT_BINARY[network])
    if isinstance(value, str) and value.startswith("EPOCHS/"):
        return round(epochs / float(value.removeprefix("EPOCHS/")))
    return value


def _order(key: str) -> tuple[int, str, int]:
    network, dataset, method = key.split("/")
    return NETWORKS.index(network), dataset, list(ROWS).index(method)
