"""The rows of the classification zoo: what NNCF published for them, and which files describe them here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["CONFIGS", "ROWS", "ZooRow", "find_rows", "listing"]

CONFIGS = Path(__file__).parents[2] / "configs" / "classification"
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class ZooRow:
    """One row.

    Args:
        name: Name of its file in ``configs/classification``.
        network: Network, for people.
        compression: What is done to it, for people.
        float_accuracy: Top-1 accuracy in percent that NNCF published for the float network.
        accuracy: The same for the compressed network.
        quantizers: How many quantizers NNCF has.
        eight_bits: How many of them have 8 bits where the others have 4.
        sparsity: Share of the weights that are zero.
        flops_left: Percent of the FLOPs that NNCF left.
        parameters_left: Percent of the parameters that NNCF left.
        int8: Whether all convolutions run in INT8.
    """

    name: str
    network: str
    compression: str
    float_accuracy: float | None = None
    accuracy: float | None = None
    quantizers: int | None = None
    eight_bits: int | None = None
    sparsity: float | None = None
    flops_left: float | None = None
    parameters_left: float | None = None
    int8: bool = False

    @property
    def files(self) -> list[Path]:
        """The LightningCLI files of the row, in their order."""
        return [CONFIGS / "imagenet.yaml", CONFIGS / f"{self.name}.yaml"]

    def settings(self) -> dict[str, Any]:
        """Return the row's own file."""
        read: dict[str, Any] = yaml.safe_load(self.files[-1].read_text())
        return read


# Network, and top-1 accuracy of the float one, by the beginning of a row's name.
_NETWORKS = {
    "resnet50": ("ResNet-50", 76.16),
    "inception_v3": ("Inception V3", 77.34),
    "mobilenet_v2": ("MobileNet V2", 71.93),
    "squeezenet1_1": ("SqueezeNet 1.1", 58.24),
    "resnet18": ("ResNet-18", 69.8),
    "resnet34": ("ResNet-34", 73.3),
    "googlenet": ("GoogLeNet", 69.75),
}


def _row(name: str, compression: str, accuracy: float, **more: Any) -> ZooRow:
    network, float_accuracy = next(known for prefix, known in _NETWORKS.items() if name.startswith(f"{prefix}_"))
    return ZooRow(
        name=name,
        network=network,
        compression=compression,
        float_accuracy=float_accuracy,
        accuracy=accuracy,
        **more,
    )


_ROWS = [
    _row("resnet50_int8", "INT8", 76.42, quantizers=125, int8=True),
    _row("resnet50_int8_per_tensor", "INT8, weights per tensor", 76.37, quantizers=125, int8=True),
    _row("resnet50_mixed_int", "44.8 % INT8, 55.2 % INT4", 76.20, quantizers=125, eight_bits=56),
    _row("resnet50_int8_rb61", "INT8 and sparsity 61 % (RB)", 75.43, quantizers=125, sparsity=0.61, int8=True),
    _row("resnet50_int8_rb50", "INT8 and sparsity 50 % (RB)", 75.55, quantizers=125, sparsity=0.5, int8=True),
    _row(
        "resnet50_pruned_geometric_median",
        "filters pruned 40 %, geometric median",
        75.62,
        flops_left=56.00,
        parameters_left=62.98,
    ),
    _row("inception_v3_int8", "INT8", 78.25, int8=True),
    _row("inception_v3_int8_rb61", "INT8 and sparsity 61 % (RB)", 77.58, sparsity=0.61, int8=True),
    _row("mobilenet_v2_int8", "INT8", 71.35, quantizers=117, int8=True),
    _row("mobilenet_v2_int8_per_tensor", "INT8, all per tensor", 71.30, quantizers=117, int8=True),
    _row("mobilenet_v2_mixed_int", "46.6 % INT8, 53.4 % INT4", 70.92, quantizers=117, eight_bits=55),
    _row("mobilenet_v2_int8_rb52", "INT8 and sparsity 52 % (RB)", 71.11, quantizers=117, sparsity=0.52, int8=True),
    _row("squeezenet1_1_int8", "INT8", 58.28, quantizers=53, int8=True),
    _row("squeezenet1_1_int8_per_tensor", "INT8, weights per tensor", 58.26, quantizers=53, int8=True),
    _row("squeezenet1_1_mixed_int", "54.7 % INT8, 45.3 % INT4", 58.90, quantizers=53, eight_bits=29),
    _row("resnet18_xnor", "binary weights (XNOR) and activations", 61.63),
    _row("resnet18_dorefa", "binary weights (DoReFa) and activations", 61.61),
    _row("resnet18_pruned_magnitude", "filters pruned 40 %, L2 norm", 69.26, flops_left=75.75, parameters_left=79.02),
    _row(
        "resnet18_pruned_geometric_median",
        "filters pruned 40 %, geometric median",
        69.32,
        flops_left=75.75,
        parameters_left=79.02,
    ),
    _row(
        "resnet34_pruned_geometric_median",
        "filters pruned 40 %, geometric median",
        72.73,
        flops_left=69.03,
        parameters_left=71.03,
    ),
    _row(
        "googlenet_pruned_geometric_median",
        "filters pruned 40 %, geometric median",
        68.82,
        flops_left=45.48,
        parameters_left=52.50,
    ),
]
ROWS: Mapping[str, ZooRow] = {row.name: row for row in _ROWS}


def find_rows(names: Sequence[str]) -> list[ZooRow]:
    """Return rows by name; ``all`` is every row, and any other file of ``configs/classification`` is a row too.

    Raises:
        ValueError: There is no such file.

    >>> [row.name for row in find_rows(["resnet18_xnor", "resnet50_rb"])]
    ['resnet18_xnor', 'resnet50_rb']
    """
    found: list[ZooRow] = []
    for name in names:
        if name == ALL:
            found += ROWS.values()
        elif name in ROWS:
            found.append(ROWS[name])
        else:
            others = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "imagenet")
            if name not in others:
                raise ValueError(f"there is no row {name!r}; there are {ALL}, {', '.join(others)}")
            found.append(ZooRow(name=name, network=name, compression=""))
    return list({row.name: row for row in found}.values())


def listing() -> str:
    """Return a table of the rows, and the names of the files beside them.

    >>> listing().splitlines()[0].split()
    ['row', 'network', 'compression', 'float', 'compressed']
    """
    width = max(map(len, ROWS))
    lines = [f"{'row':{width}}  {'network':14}  {'compression':40}  float  compressed"]
    lines += [
        f"{row.name:{width}}  {row.network:14}  {row.compression:40}  {row.float_accuracy:5.2f}  {row.accuracy:10.2f}"
        for row in ROWS.values()
    ]
    others = sorted({path.stem for path in CONFIGS.glob("*.yaml")} - set(ROWS) - {"imagenet"})
    return "\n".join([*lines, "", "Top-1 on ImageNet as NNCF published it. Other configurations: " + ", ".join(others)])
