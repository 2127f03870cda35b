"""What quantization costs on digits and hard digits, by bit widths and by the way ranges learn.

    python -m benchmarks.quantization_digits --part bits --float-epochs 20 --epochs 30
    python -m benchmarks.quantization_digits --part gradient --float-epochs 20 --epochs 10

`bits` compares 8-bit weights and activations, 4-bit weights, and both in 4 bits with float; `gradient` the two settings
of `gradient` at 8, 4, 3 and 2 bits, on the same float networks and from the same ranges: up to the largest value, which
is the default, 2 bits leave most activations and weights on the level of zero, and training does not recover.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.machine import write_results
from benchmarks.protocol import add_arguments, run_with_arguments

_BATCH_NORM = {"num_bn_adaptation_samples": 500}
_NARROW: dict[str, Any] = {
    "range": [
        {"type": "least_squares", "target_quantizer_group": "weights"},
        {
            "type": "percentile",
            "target_quantizer_group": "activations",
            "params": {"min_percentile": 1, "max_percentile": 99},
        },
    ],
    "batchnorm_adaptation": _BATCH_NORM,
}


def section(weight_bits: int, activation_bits: int, **more: Any) -> dict[str, Any]:
    """Return the configuration of bit widths in all layers, the first and the last included."""
    return {
        "target_device": "TRIAL",
        "compression": {
            "algorithm": "quantization",
            "weights": {"bits": weight_bits, "per_channel": True},
            "activations": {"bits": activation_bits},
            "initializer": {"batchnorm_adaptation": _BATCH_NORM},
            **more,
        },
    }


def bits() -> dict[str, Any]:
    """Return the bit widths that have a bar; asymmetric activations at 4 bits were chosen on validation images."""
    return {"w8a8": section(8, 8), "w4a8": section(4, 8), "w4a4": section(4, 4, preset="mixed")}


def gradient() -> dict[str, Any]:
    """Return both gradients at each bit width."""
    return {
        f"w{width}a{width} {kind}": section(width, width, gradient=kind, initializer=_NARROW)
        for width in (8, 4, 3, 2)
        for kind in ("nncf", "lsq")
    }


PARTS = {"bits": bits, "gradient": gradient}


def main() -> None:
    """Run one part and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="bits", choices=sorted(PARTS))
    add_arguments(parser)
    arguments = parser.parse_args()
    suffix = "" if arguments.split == "test" else f"_{arguments.split}"
    for dataset in arguments.datasets:
        one = argparse.Namespace(**{**vars(arguments), "datasets": [dataset]})
        found = run_with_arguments(PARTS[arguments.part](), one)
        write_results(f"quantization_{arguments.part}_{dataset}{suffix}", found)


if __name__ == "__main__":
    main()
