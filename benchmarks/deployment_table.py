"""The matrix of ``benchmarks/deployment.py`` as Markdown."""

from __future__ import annotations

from typing import Any

from benchmarks.deployment_files import FILES

LEGEND = """\
Each cell: relative root mean square of the difference to torch's simulated output; integer convolutions and matrix
products among all, where the runtime tells; median latency over that of the float file in the same process, where it
was measured. Weights are random. onnx is its reference evaluator; it and tract are asked for right numbers only. The
row "noise" says how far a relative change of 1e-5 in all weights moves torch's output: untrained networks carry a
single step at a rounding border far, and such an error is the network's. The row "spread" says how far apart the
outputs of the samples are, relative to their size: an error of that size would mean that the input did not matter.
"""


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown: a matrix, and what it cannot say in a cell."""
    runtimes = dict(sorted(results["runtimes"].items(), key=lambda item: _order(item[0])))
    names = [name for name in FILES if name in results["files"]]
    rows = [row for _, _, row in _rows(results)]
    days = sorted({row["date"] for row in rows})
    lines = [
        "# Files by runtime and version",
        "",
        f"Made by `python -m benchmarks.deployment`, {_span(days)}.",
        "",
        LEGEND,
    ]
    if not any("over_float" in row for row in rows):
        lines += ["No latency is measured yet.", ""]
    lines += [f"| runtime | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    noise = [f"{results['files'][name]['disturbed_rms']:.2g}" for name in names]
    lines.append(f"| noise | {' | '.join(noise)} |")
    spread = [f"{results['files'][name]['spread']:.2g}" for name in names]
    lines.append(f"| spread | {' | '.join(spread)} |")
    for title, entry in runtimes.items():
        cells = [_cell(entry["rows"].get(name), results, name) for name in names]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    for heading, found in _remarks(results).items():
        lines += ["", f"## {heading}", "", *(found or ["None."])]
    if missing := results.get("not_installed"):
        lines += ["", "## Not installed", "", *(f"- {name}: `{error}`" for name, error in missing.items())]
    return "\n".join(lines) + "\n"


def _remarks(results: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    wrong = found[f"Wrong numbers (beyond {results['tolerance']} or half the spread, and twice the noise)"] = []
    broken = found["Does not load or run"] = []
    quantized = found["Quantized layers computed in float"] = []
    others = found["Other products in float"] = []
    for title, name, row in _rows(results):
        if "error" in row:
            broken.append(f"- {title}, {name}, at {row['stage']}: `{row['error']}`")
        elif _is_wrong(row, results, name):
            wrong.append(f"- {title}, {name}: {row['relative_rms']}")
    for key, lines in (("float_though_quantized", quantized), ("float", others)):
        where: dict[tuple[str, str], list[str]] = {}
        for title, name, row in _rows(results):
            if layers := row.get(key):
                where.setdefault((name, ", ".join(f"`{layer}`" for layer in layers)), []).append(title)
        lines += [f"- {name}: {layers} in {', '.join(titles)}" for (name, layers), titles in where.items()]
    return found


def _rows(results: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    runtimes = sorted(results["runtimes"].items(), key=lambda item: _order(item[0]))
    return [(title, name, row) for title, entry in runtimes for name, row in entry["rows"].items()]


def _is_wrong(row: dict[str, Any], results: dict[str, Any], name: str) -> bool:
    file = results["files"][name]
    allowed = max(min(results["tolerance"], file["spread"] / 2), 2 * file["disturbed_rms"])
    return not row["relative_rms"] <= allowed


def _cell(row: dict[str, Any] | None, results: dict[str, Any], name: str) -> str:
    if row is None:
        return ""
    if "error" in row:
        return "does not run" if row["loads"] else "does not load"
    error = f"{row['relative_rms']:.2g}"
    error = f"**{error}**" if _is_wrong(row, results, name) else error
    speed = f"{row['over_float']:.2f}x" if "over_float" in row else None
    return " · ".join(part for part in (error, row.get("int8"), speed) if part)


def _order(title: str) -> tuple[int, list[int]]:
    package, version = title.split(" ")
    packages = ("onnxruntime", "openvino", "onnx", "tract")
    return packages.index(package), [int(part) for part in version.split(".") if part.isdigit()]


def _span(days: list[str]) -> str:
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
