"""The outcome of a verification."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from lightning_nncf.proof.compare import Difference, Tolerance
from lightning_nncf.proof.int8_layers import Int8Layers
from lightning_nncf.proof.layer_check import LayerCheck

__all__ = ["RuntimeResult", "SizeResult", "VerificationReport"]

_FLOAT = 0.01
"""Relative root mean square beyond which two computations in float disagree."""


@dataclass(frozen=True, kw_only=True)
class SizeResult:
    """What one runtime made of a call of another size than the example's.

    Args:
        label: What is other, as in ``batch 3``.
        difference: Distance of the outputs from the reference's, None if there are none.
        error: Why the runtime could not run it, None if it could.
        passed: Whether the outputs agree, or else all layers.
    """

    label: str
    difference: Difference | None = None
    error: str | None = None
    passed: bool = True

    def __str__(self) -> str:
        """Write what is other, and how far that is off."""
        off = "" if self.difference is None else f"relative RMS {self.difference.relative_rms:.3g}"
        return f"{self.label}: {self.error or off}"


@dataclass(frozen=True, kw_only=True)
class RuntimeResult:
    """What one runtime made of the file.

    Args:
        runtime: Package of the runtime.
        version: Its version, None when it is not installed.
        skipped: Why it did not run, None if it did.
        difference: Distance of its outputs from the reference's, None without a reference.
        layers: Layers that run on integers.
        latency: Median seconds of one call, None if not timed.
        reference_latency: The same for the float file.
        layer_check: Comparison layer by layer on a few samples; none where no activation is quantized, or where the
            runtime cannot show its layers.
        sizes: Calls of other sizes than the example's.
        float_difference: Distance of the float file's outputs from those of the network without compression; only made
            where the file disagrees.
        error: Why the runtime could not load or run the file, None if it could.
        by_layer: Whether outputs differ beyond the tolerance, but no layer is at fault.
        warnings: What speaks against the file though it is right: layers in float, or no gain in speed.
        notes: What one should know of the proof.
        passed: Whether the outputs at all sizes, or else all layers, agree within the tolerance; true without a
            reference.
    """

    runtime: str
    version: str | None = None
    skipped: str | None = None
    difference: Difference | None = None
    layers: Int8Layers | None = None
    latency: float | None = None
    reference_latency: float | None = None
    layer_check: LayerCheck | None = None
    sizes: tuple[SizeResult, ...] = ()
    float_difference: Difference | None = None
    error: str | None = None
    by_layer: bool = False
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    passed: bool = True

    @property
    def float_agrees(self) -> bool:
        """Whether the float file agrees as float files do, or was not run."""
        return self.float_difference is None or self.float_difference.relative_rms <= _FLOAT

    @property
    def speedup(self) -> float | None:
        """How many times faster than the float file."""
        if self.latency is None or self.reference_latency is None:
            return None
        return self.reference_latency / self.latency


@dataclass(frozen=True, kw_only=True)
class VerificationReport:
    """What is known about an exported file after running it.

    Args:
        path: The file.
        size: Its bytes.
        reference: What the runtimes are compared with: ``torch``, or the name of a runtime.
        tolerance: What was tolerated.
        results: One entry per runtime.
        reference_size: Bytes of the float file, None without one.
        metadata: What the file says about itself.
        notes: What one should know of the proof, whatever the runtime.
    """

    path: str
    size: int
    reference: str
    tolerance: Tolerance
    results: tuple[RuntimeResult, ...]
    reference_size: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against the file in any runtime, though it is right."""
        return tuple(warning for result in self.results for warning in result.warnings)

    @property
    def passed(self) -> bool:
        """Whether every runtime that ran agrees."""
        return all(result.passed for result in self.results)

    @property
    def proven(self) -> bool:
        """Whether at least one runtime ran and all that did agree."""
        return self.passed and any(result.skipped is None for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        values = asdict(self)
        for result, item in zip(self.results, values["results"], strict=True):
            item["speedup"] = result.speedup
        return values | {"passed": self.passed, "proven": self.proven}

    def table(self) -> str:
        """Return the report as a table in plain text."""
        table = Table(title=self._title(), title_justify="left")
        for column in (
            "runtime",
            "int8 convs",
            "int8 matmuls",
            "max diff",
            "rel. RMS",
            "top-1",
            "ms",
            "fp32 ms",
            "x",
            "",
        ):
            table.add_column(column, justify="left" if column in ("runtime", "") else "right")
        for result in self.results:
            table.add_row(*_row(result, self.reference))
        buffer = io.StringIO()
        Console(file=buffer, width=160, color_system=None, force_terminal=False).print(table)
        lines = [line.rstrip() for line in buffer.getvalue().rstrip().splitlines()]
        return "\n".join([*lines, *self._remarks()])

    def summary(self) -> dict[str, Any]:
        """Return what a file may say about its proof: nothing that differs from one run to the next, such as times."""
        return {
            result.runtime: {
                "version": result.version,
                "skipped": result.skipped,
                "relative_rms": None if result.difference is None else float(f"{result.difference.relative_rms:.2g}"),
                "layers": None if result.layers is None else asdict(result.layers),
                "sizes": [size.label for size in result.sizes],
                "warnings": list(result.warnings),
            }
            for result in self.results
        }

    def _remarks(self) -> list[str]:
        remarks = []
        for result in self.results:
            name = f"{result.runtime} {result.version}"
            if result.error is not None:
                remarks.append(f"{name} FAILED: {result.error}")
            remarks += [f"{name} FAILED at {size}" for size in result.sizes if not size.passed]
            if not result.passed and result.layer_check is not None:
                remarks.append(f"{name}: {result.layer_check}")
            if sizes := [size.label for size in result.sizes if size.passed]:
                remarks.append(f"{name} also agrees at {', '.join(sizes)}")
            remarks += [f"{name}: {note}" for note in result.notes]
            remarks += [f"{name} WARNING: {warning}" for warning in result.warnings]
        return [*remarks, *self.notes]

    def _title(self) -> str:
        size = f"{self.size / 1e6:.2f} MB"
        if self.reference_size:
            size += f", {self.size / self.reference_size:.3f} of float's {self.reference_size / 1e6:.2f} MB"
        return f"{self.path}: {size}"


def _row(result: RuntimeResult, reference: str) -> list[str]:
    name = f"{result.runtime} {result.version}" if result.version else result.runtime
    if result.skipped is not None:
        return [name, *[""] * 8, result.skipped]
    layers, difference = result.layers, result.difference
    verdict = "FAILED" if not result.passed else "ok, see below" if result.warnings else "ok"
    if result.passed and difference is None and result.runtime == reference:
        verdict = "the reference"
    elif result.passed and result.by_layer and result.layer_check is not None:
        verdict = f"ok, by layer ({result.layer_check.steps:.2g} steps)"
    return [
        name,
        "" if layers is None else f"{layers.convolutions}/{layers.all_convolutions}",
        "" if layers is None else f"{layers.matmuls}/{layers.all_matmuls}",
        "" if difference is None else f"{difference.max_abs:.3g}",
        "" if difference is None else f"{difference.relative_rms:.4f}",
        "" if difference is None or difference.agreement is None else f"{difference.agreement:.3f}",
        "" if result.latency is None else f"{1e3 * result.latency:.2f}",
        "" if result.reference_latency is None else f"{1e3 * result.reference_latency:.2f}",
        "" if result.speedup is None else f"{result.speedup:.2f}",
        verdict,
    ]
