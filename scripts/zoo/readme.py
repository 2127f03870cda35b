"""The README's table of the zoo, made from collected results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_nncf.files import write_text
from scripts.zoo.rows import ROWS, ZooRow

__all__ = ["END", "START", "read_results", "section", "write_section"]

START = "<!-- zoo: written by scripts/reproduce.py --readme -->"
END = "<!-- end of zoo -->"
_COLUMNS = (
    "network",
    "compression",
    "NNCF's top-1, float → compressed",
    "top-1 measured here",
    "quantizers",
    "sparsity %",
    "FLOPs left %",
    "parameters left %",
    "file MB (float)",
    "int8 convolutions ONNX Runtime / OpenVINO",
)


def read_results(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Read lines of results; of several for a row the last that passed counts, a real run before a smoke run.

    Args:
        files: Files that ``scripts/reproduce.py`` wrote.
    """
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines() if line.strip()]
    best: dict[str, dict[str, Any]] = {}
    for record in lines:
        known = best.get(record["row"])
        if record["passed"] and (known is None or known["smoke"] or not record["smoke"]):
            best[record["row"]] = record
    return list(best.values())


def section(records: Iterable[Mapping[str, Any]]) -> str:
    """Write the table, rows in the order of the zoo, and where the numbers come from."""
    found = {record["row"]: record for record in records}
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(_cells(row, found[name])) + " |" for name, row in ROWS.items() if name in found]
    origins = dict.fromkeys(_origin(record) for record in found.values())
    return "\n".join([*lines, "", *origins]) + "\n"


def write_section(readme: Path, text: str) -> None:
    """Replace what stands between the markers.

    Raises:
        ValueError: The file does not hold the markers, one each and in order.
    """
    before, start, rest = (content := readme.read_text()).partition(START)
    _, end, after = rest.partition(END)
    if not start or not end or content.count(START) != 1 or content.count(END) != 1:
        raise ValueError(f"{readme} must hold the lines {START!r} and {END!r} once, in this order")
    write_text(readme, f"{before}{START}\n{text}{END}{after}")


def _cells(row: ZooRow, record: Mapping[str, Any]) -> list[str]:
    accuracy = record["accuracy"]
    return [
        row.network,
        f"{row.compression} ([config](configs/classification/{row.name}.yaml))",
        f"{row.float_accuracy:.2f} → {row.accuracy:.2f}",
        "" if accuracy is None else f"{100 * accuracy['test_accuracy']:.2f}",
        _bits(record["bits"]),
        _percent(record["sparsity"]),
        _percent(record["flops_left"], row.flops_left),
        _percent(record["parameters_left"], row.parameters_left),
        f"{record['bytes'] / 1e6:.2f} ({record['float_bytes'] / 1e6:.2f})",
        " / ".join(_layers(result["convolutions"]) for result in record["proof"].values()),
    ]


def _bits(bits: Mapping[str, Mapping[str, int]] | None) -> str:
    """Write how many quantizers have how many bits.

    >>> _bits({"weight": {"8": 20, "4": 34}, "activation": {"8": 36, "4": 35}})
    '125: 56 of 8 bits, 69 of 4 bits'
    """
    if bits is None:
        return ""
    counts: dict[int, int] = {}
    for kind in bits.values():
        for width, count in kind.items():
            counts[int(width)] = counts.get(int(width), 0) + count
    parts = [f"{count} of {width} bits" for width, count in sorted(counts.items(), reverse=True)]
    return f"{sum(counts.values())}: {', '.join(parts)}"


def _percent(value: float | None, published: float | None = None) -> str:
    """Write a share in percent, and beside it what was published.

    >>> _percent(0.5604, 56.0), _percent(None)
    ('56.04 (NNCF 56.00)', '')
    """
    if value is None or (published is None and value == 1):
        return ""
    return f"{100 * value:.2f}" + ("" if published is None else f" (NNCF {published:.2f})")


def _layers(layers: Mapping[str, int] | None) -> str:
    return "" if layers is None else f"{layers['convolutions']}/{layers['all_convolutions']}"


def _origin(record: Mapping[str, Any]) -> str:
    """Say where the numbers of a record come from."""
    machine = record["machine"]
    place = machine["gpu"] or machine["processor"]
    kind = (
        "random weights and two short epochs (`--smoke`): structure and files are real, accuracy was not measured"
        if record["smoke"]
        else "trained on ImageNet"
    )
    return f"{record['date']}, {machine['cores']} cores of {place}, torch {machine['versions']['torch']}; {kind}."
