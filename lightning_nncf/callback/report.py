"""Tables for people: what was inserted, what was reached, and every layer in a file."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lightning_nncf.callback.bits_plot import is_mixed, plot_bits
from lightning_nncf.core.added import added_parameters
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.export import StoredWeight
from lightning_nncf.files import replacing
from lightning_nncf.proof import Proof
from lightning_nncf.schedules.level import LevelScheduler

__all__ = [
    "layer_table",
    "level_text",
    "render",
    "show_proof",
    "statistics_table",
    "summary",
    "weights_table",
    "write_layers",
    "write_weights",
]

_GROUPED = ("algorithm", "kind", "bits", "mode", "granularity", "levels")


def render(table: Table) -> str:
    """Return a table as plain text."""
    console = Console(file=io.StringIO(), width=110, force_terminal=False)
    console.print(table)
    output = console.file
    assert isinstance(output, io.StringIO)
    return "\n".join(line.rstrip() for line in output.getvalue().rstrip().splitlines())


def summary(compressed: CompressedNetwork) -> list[str]:
    """Say what was inserted into a network."""
    lines = [line for algorithm in compressed.algorithms for line in algorithm.summary()]
    if added := len(added_parameters(compressed.network)):
        lines.append(
            f"{added} parameters are added; weight decay leaves them out, except in parameter groups of their own"
        )
    return [*lines, layer_table(compressed.rows())]


def level_text(compressed: CompressedNetwork) -> str:
    """Say how far a network is compressed, in one line."""
    levels = [
        f"{algorithm.name} at {algorithm.scheduler.level:.4g}"
        if isinstance(algorithm.scheduler, LevelScheduler)
        else algorithm.name
        for algorithm in compressed.algorithms
    ]
    return f"{compressed.stage.name.lower().replace('_', ' ')}: {', '.join(levels)}"


def show_proof(proof: Proof, model: Path) -> list[str]:
    """Say what an export wrote and what running it showed; the table of weights goes beside the model too."""
    write_weights(proof.export.weights, model)
    lines = [weights_table(proof.export.weights)]
    if proof.verification is not None:
        lines.append(f"{proof.verification.table()}\n{proof.export.deflated_size / 1e6:.2f} MB deflated")
    return lines


def layer_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Count compressed places by what they have in common.

    >>> table = layer_table([{"algorithm": "quantization", "kind": "weight", "bits": 8}] * 2)
    >>> table.splitlines()[-1].split()
    ['quantization', 'weight', '8', '2']
    """
    return _counted("Compressed places", rows, [name for name in _GROUPED if any(name in row for row in rows)])


def weights_table(weights: Sequence[StoredWeight]) -> str:
    """Count the weights of an exported file by how they are stored.

    >>> weight = StoredWeight(quantizer="fc", bits=4, stored="int4", read="cast", bytes=8, reason="integers")
    >>> weights_table([weight]).splitlines()[-1].split()
    ['4', 'int4', 'cast', 'integers', '1']
    """
    return _counted("Weights in the file", [asdict(weight) for weight in weights], ["bits", "stored", "read", "reason"])


def _counted(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    counts = Counter(tuple(str(row.get(name, "")) for name in columns) for row in rows)
    table = Table(title=title, box=SIMPLE, title_justify="left")
    for name in columns:
        table.add_column(name)
    table.add_column("count", justify="right")
    for key, count in counts.items():
        table.add_row(*key, str(count))
    return render(table)


def statistics_table(statistics: Mapping[str, float]) -> str:
    """Write statistics as a table with one row each.

    >>> statistics_table({"size_mb": 0.25}).splitlines()[-1].split()
    ['size_mb', '0.25']
    """
    table = Table(title="Statistics", box=SIMPLE, title_justify="left")
    table.add_column("statistic")
    table.add_column("value", justify="right")
    for name, value in statistics.items():
        table.add_row(name, f"{value:.4g}")
    return render(table)


def write_layers(rows: Sequence[Mapping[str, Any]], model: Path) -> None:
    """Write one line per compressed place beside a model, and draw bit widths where they are mixed."""
    _write_table(rows, model.with_suffix(".layers.csv"))
    if is_mixed(rows):
        plot_bits(rows, model.with_suffix(".bits.png"))


def write_weights(weights: Sequence[StoredWeight], model: Path) -> None:
    """Write one line per quantized weight beside a model: how the file stores it, and why."""
    _write_table([asdict(weight) for weight in weights], model.with_suffix(".weights.csv"))


def _write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
