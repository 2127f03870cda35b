"""What passes tell one another and the report, and how one pass after the other is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

from lightning_nncf.export.formats import Format
from lightning_nncf.export.lowering import LoweredQuantizers
from lightning_nncf.export.marker import Marked
from lightning_nncf.export.onnx_graph import OnnxGraph
from lightning_nncf.export.passes.batch_norm import FoldedBatchNorms
from lightning_nncf.export.passes.storage import StoredWeight

__all__ = ["Findings", "Pass", "run_passes"]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is known about a file while it is made.

    The first two are given; each of the others is what one pass returned, or its default in formats without that pass.

    Args:
        quantizers: Quantizers by address.
        writer: How the export format writes them.
        labels: Labels of the quantizers that the exporter left markers of.
        lowered: The quantizers written, with their bits.
        batch_norms: The batch normalizations that went into weights, and those that did not.
        factors: What the integers of widened initializers were multiplied by.
        weights: How each quantized weight is stored.
        several_zero_points: Names of convolutions on integers whose weights have several zero points.
    """

    quantizers: Mapping[str, Marked]
    writer: Format
    labels: frozenset[str] = frozenset()
    lowered: LoweredQuantizers = field(default_factory=LoweredQuantizers)
    batch_norms: FoldedBatchNorms = field(default_factory=FoldedBatchNorms)
    factors: Mapping[str, int] = field(default_factory=dict)
    weights: tuple[StoredWeight, ...] = ()
    several_zero_points: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One step from the exporter's graph to the file's.

    Args:
        function: Takes the graph, which it may rewrite, and what it reads.
        reads: Findings that it takes behind the graph, in order; ``lowered.weights`` is a part of one.
        writes: The finding that its result becomes; without one the result is how many places were rewritten.
    """

    function: Callable[..., Any]
    reads: tuple[str, ...] = ()
    writes: str | None = None


def run_passes(graph: OnnxGraph, passes: Sequence[Pass], findings: Findings) -> Findings:
    """Run passes in order on one graph, and sweep it behind each: passes count the readers of a tensor.

    Args:
        graph: The graph, rewritten.
        passes: The passes.
        findings: What is known before.

    Returns:
        What is known behind the last pass.

    >>> import onnx
    >>> from lightning_nncf.export.formats import QuantizeDequantize
    >>> given = Findings(quantizers={}, writer=QuantizeDequantize())
    >>> def count_nodes(graph, labels):
    ...     return {"nodes": len(graph.nodes) + len(labels)}
    >>> count = Pass(function=count_nodes, reads=("labels",), writes="factors")
    >>> run_passes(OnnxGraph(onnx.ModelProto()), [count], given).factors
    {'nodes': 0}
    """
    for each in passes:
        result = each.function(graph, *(attrgetter(name)(findings) for name in each.reads))
        graph.sweep()
        if each.writes is not None:
            findings = replace(findings, **{each.writes: result})
    return findings
