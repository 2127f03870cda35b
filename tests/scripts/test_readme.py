from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.zoo.readme import END, START, read_results, section, write_section

RECORD: dict[str, Any] = {
    "row": "resnet18_pruned_magnitude",
    "passed": True,
    "smoke": True,
    "date": "2026-01-02",
    "accuracy": None,
    "bits": None,
    "sparsity": None,
    "flops_left": 0.7575,
    "parameters_left": 0.7902,
    "bytes": 37_000_000,
    "float_bytes": 46_800_000,
    "machine": {"processor": "Some CPU", "cores": 2, "gpu": None, "versions": {"torch": "2.14"}},
    "proof": {
        "onnxruntime": {"convolutions": {"convolutions": 0, "all_convolutions": 20}},
        "openvino": {"convolutions": None},
    },
}


def _file(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_row_shows_what_was_published_and_what_was_reached() -> None:
    text = section([RECORD])
    assert text.splitlines()[2].split(" | ")[2:] == [
        "69.80 → 69.26",
        "",
        "",
        "",
        "75.75 (NNCF 75.75)",
        "79.02 (NNCF 79.02)",
        "37.00 (46.80)",
        "0/20 /  |",
    ]
    assert "2026-01-02, 2 cores of Some CPU, torch 2.14" in text
    assert "accuracy was not measured" in text


def test_accuracy_is_shown_where_it_was_measured() -> None:
    trained = {**RECORD, "smoke": False, "accuracy": {"test_accuracy": 0.6931}}
    assert "| 69.31 |" in section([trained])


def test_rows_come_in_the_order_of_the_zoo() -> None:
    text = section([RECORD, {**RECORD, "row": "resnet50_int8"}])
    assert text.index("ResNet-50") < text.index("ResNet-18")


def test_real_run_counts_before_a_smoke_run_and_failures_never(tmp_path: Path) -> None:
    real, failed = {**RECORD, "smoke": False, "accuracy": {}}, {"row": RECORD["row"], "smoke": False, "passed": False}
    file = _file(tmp_path / "a.jsonl", RECORD, real, RECORD, failed)
    assert read_results([file]) == [real]
    later = {**RECORD, "date": "2026-01-03"}
    assert read_results([_file(tmp_path / "b.jsonl", RECORD, later)]) == [later]


def test_only_what_is_between_the_markers_is_replaced(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    write_section(readme, "new\n")
    write_section(readme, "newer\n")
    assert readme.read_text() == f"before\n{START}\nnewer\n{END}\nafter\n"


@pytest.mark.parametrize("content", ["nothing", START, f"{END}\n{START}", f"{START}{START}{END}"])
def test_file_without_both_markers_is_refused(tmp_path: Path, content: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(content)
    with pytest.raises(ValueError, match="must hold the lines"):
        write_section(readme, "new")
    assert readme.read_text() == content
