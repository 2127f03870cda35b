"""Does HAWQ's mix of 2, 4 and 8 bits beat 4 bits everywhere at the same size of the weights?

    python -m benchmarks.mixed_precision --datasets hard --widths 8 16 32 --epochs 1 --seeds 0 1 2 3 4 5 6 7 8 9

Both start from the same float networks, from ranges that change the weights least, and train for as many epochs;
activations have 8 bits in both. The mix is chosen by traces of the Hessian among all assignments that are no larger
than 4 bits everywhere.

The network is narrow because 4 bits cost others little that a mix could save; the width was chosen on validation images
with another seed (``--split val --seeds 100``). ``mixed_precision_resnet.json`` has the default width and 5 epochs:

    python -m benchmarks.mixed_precision --datasets hard --seeds 0 1 --name mixed_precision_resnet
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.machine import write_results
from benchmarks.protocol import add_arguments, run_with_arguments

UNIFORM, MIXED = "uniform 4 bits", "hawq 2, 4 and 8 bits"


def section(weight_bits: int, per_channel: bool, precision: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a configuration with activations in 8 bits."""
    return {
        "target_device": "TRIAL",
        "compression": {
            "algorithm": "quantization",
            "weights": {"bits": weight_bits, "per_channel": per_channel},
            "initializer": {
                "range": {"type": "least_squares"},
                "batchnorm_adaptation": {"num_bn_adaptation_samples": 500},
                "precision": precision,
            },
        },
    }


def methods(per_channel: bool) -> dict[str, Any]:
    """Return both configurations."""
    precision = {
        "type": "hawq",
        "num_data_points": 64,
        "iter_number": 100,
        "bits": [2, 4, 8],
        "compression_ratio": 2.0,
        "compression_ratio_of": "size",
        "target_quantizer_group": "weights",
    }
    return {UNIFORM: section(4, per_channel), MIXED: section(8, per_channel, precision)}


def paired(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compare both methods in each fold, seeds averaged first.

    >>> common = {"seed": 0, "statistics": {"size_mb": 1.0}}
    >>> runs = [
    ...     {"fold": fold, "method": method, "accuracy": 90.0 + gain * (method == MIXED), **common}
    ...     for fold, gain in enumerate((1.0, 2.0)) for method in (UNIFORM, MIXED)
    ... ]
    >>> paired(runs)["gain"], paired(runs)["standard_error"]
    (1.5, 0.5)
    """
    by_method = {
        name: {(run["fold"], run["seed"]): run for run in runs if run["method"] == name} for name in (UNIFORM, MIXED)
    }
    gains: dict[int, list[float]] = {}
    sizes = []
    for key, uniform in by_method[UNIFORM].items():
        mixed = by_method[MIXED][key]
        gains.setdefault(key[0], []).append(mixed["accuracy"] - uniform["accuracy"])
        sizes.append(mixed["statistics"]["size_mb"] / uniform["statistics"]["size_mb"])
    folds = [statistics.mean(each) for each in gains.values()]
    return {
        "gain": statistics.mean(folds),
        "standard_error": statistics.stdev(folds) / len(folds) ** 0.5 if len(folds) > 1 else None,
        "gain_per_fold": folds,
        "largest_size_of_mix_over_uniform": max(sizes),
    }


def main() -> None:
    """Run both and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-channel", action="store_true", help="one range per channel of a weight")
    parser.add_argument("--name", default="mixed_precision", help="name of the file with the results")
    add_arguments(parser, epochs=5)
    arguments = parser.parse_args()
    found = run_with_arguments(methods(arguments.per_channel), arguments)
    found["per_channel"] = arguments.per_channel
    for dataset in arguments.datasets:
        found[dataset]["paired"] = paired(found[dataset]["runs"])
        sys.stdout.write(f"{dataset}: {found[dataset]['paired']}\n")
    write_results(arguments.name, found)


if __name__ == "__main__":
    main()
