"""Reproduce rows of the classification zoo: train, evaluate a checkpoint, export it, prove the file.

    python scripts/reproduce.py resnet50_int8 --data /path/to/imagenet
    python scripts/reproduce.py all --smoke

Each row appends one line of JSON to the results; ``--readme README.md`` writes them into the table there. A smoke run
takes a minute or two per row: tiny images in ImageNet's layout, random weights, two short epochs; everything else is as
in the real run.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.zoo.readme import read_results, section, write_section
from scripts.zoo.rows import ZooRow, find_rows, listing
from scripts.zoo.run import reproduce

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Run what the arguments say.

    Args:
        args: Arguments; default: those of the process.

    Returns:
        How many rows failed.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="rows by name, or all")
    parser.add_argument("--list", action="store_true", help="print the rows")
    parser.add_argument("--data", type=Path, help="folder with ImageNet's `train` and `val`")
    parser.add_argument("--smoke", action="store_true", help="tiny data and two short epochs")
    parser.add_argument("--output", type=Path, default=Path("outputs/zoo"), help="folder for checkpoints and files")
    parser.add_argument("--results", type=Path, help="file of results; default: results.jsonl in the output folder")
    parser.add_argument("--readme", type=Path, help="write the results, of earlier calls too, into this file's table")
    arguments, options = parser.parse_known_args(args)
    if arguments.list:
        sys.stdout.write(listing() + "\n")
        return 0
    if not arguments.rows and arguments.readme is None:
        parser.error("give rows by name, or all; --list shows them")
    if arguments.rows and not arguments.smoke and arguments.data is None:
        parser.error("`--data` must name the folder with ImageNet's `train` and `val`; `--smoke` needs none")
    try:
        rows = find_rows(arguments.rows)
    except ValueError as error:
        parser.error(str(error))
    if arguments.smoke:
        _quiet()
    results = arguments.results or arguments.output / "results.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    failed = 0
    for row in rows:
        record = _attempt(row, arguments, options)
        failed += not record["passed"]
        with results.open("a") as file:
            file.write(json.dumps(record) + "\n")
        sys.stdout.write(_line(record) + "\n")
        sys.stdout.flush()
    if rows:
        sys.stdout.write(f"{len(rows) - failed} of {len(rows)} rows passed\n")
    if arguments.readme is not None:
        write_section(arguments.readme, section(read_results([results])))
    return failed


def _attempt(row: ZooRow, arguments: argparse.Namespace, options: list[str]) -> dict[str, Any]:
    """Run a row; one that fails does not keep the others from running."""
    try:
        record = reproduce(row, arguments.data, arguments.output, smoke=arguments.smoke, options=options)
    except Exception as error:
        traceback.print_exc()
        return {"row": row.name, "smoke": arguments.smoke, "passed": False, "error": f"{type(error).__name__}: {error}"}
    problems = record["problems"]
    return {**record, "passed": not problems, **({"error": "; ".join(problems)} if problems else {})}


def _line(record: dict[str, Any]) -> str:
    """Write a result for people."""
    if not record["passed"]:
        return f"{record['row']}: failed: {record['error']}"
    parts = [f"{record['row']}: passed in {record['seconds']:.0f} s"]
    if record["accuracy"] is not None:
        parts.append(", ".join(f"{name} {value:.4f}" for name, value in record["accuracy"].items()))
    for runtime, result in record.get("proof", {}).items():
        layers = result["convolutions"]
        if layers is not None:
            parts.append(f"{runtime} {layers['convolutions']}/{layers['all_convolutions']} int8 convolutions")
    return "; ".join(parts)


def _quiet() -> None:
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning_nncf", "lightning_utilities"):
        logging.getLogger(name).setLevel(logging.ERROR)
