r"""Finds quantizers by name: ours, and every spelling that NNCF's ``bitwidth_per_scope`` had.

A name is a scope, see `lightning_nncf.graph.scopes`, that may end in what is quantized there:

* ``layer1.0.conv1/conv2d:0|weight1``, ``layer1.0.relu/relu:0``, ``/add:0#1``: exactly one quantizer, as in tables;
* ``layer1|WEIGHT``, ``layer1.0.relu/relu:0|OUTPUT``, ``/add:0|INPUT1``: the weights, outputs or inputs of ops; without
  an ending, everything that is quantized in them;
* ``ResNet/ReLU[relu]/relu__0|OUTPUT``, as NNCF 2 wrote it;
* ``TargetType.OPERATION_WITH_WEIGHTS ResNet/NNCFConv2d[conv1]/conv2d_0``, ``InsertionType.OPERATOR_POST_HOOK
  ResNet/ReLU[relu]/RELU_0`` and ``ResNet/NNCFConv2d[conv1]module_weight``, as earlier versions did.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Literal

from torch import nn

from lightning_nncf.algorithms.quantization.placement.operators import activation_ports, operator_of
from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.errors import ScopeError, near
from lightning_nncf.graph.graph import InsertionPoint, NetworkGraph
from lightning_nncf.graph.scopes import ScopeMatcher

__all__ = ["PointNames", "parse"]

Kind = Literal["weight", "output", "input"]

_ENDING = re.compile(r"(?P<scope>.+)\|(?P<kind>weight|output|input)(?P<port>\d*)", re.IGNORECASE)
_OWN_INPUT = re.compile(r"(?P<scope>.+:\d+)#(?P<port>\d+)")
_OWN_OUTPUT = re.compile(r"(?P<scope>.+:\d+)>(?P<port>\d+)")
_MODULE = re.compile(r"(?P<scope>.+)module_(?P<kind>weight|input)")
_HOOK = re.compile(r"(?:TargetType|InsertionType)\.(?P<hook>\w+) (?:(?P<port>\d+) )?(?P<scope>.+)")
_HOOKS: dict[str, Kind] = {
    "OPERATION_WITH_WEIGHTS": "weight",
    "NNCF_MODULE_PRE_OP": "weight",
    "OPERATOR_POST_HOOK": "output",
    "OPERATOR_PRE_HOOK": "input",
}
_MOVING = frozenset({"Agnostic", "Concat"})
"""Operators that quantizers move through, so that ours may stand on their other side."""


def parse(name: str) -> tuple[str, Kind | None, int | None]:
    """Split the name of quantizers into a scope, what is quantized there, and the port.

    >>> parse("layer1.0.conv1/conv2d:0|weight1"), parse("/add:0#1")
    (('layer1.0.conv1/conv2d:0', 'weight', 1), ('/add:0', 'input', 1))
    >>> parse("TargetType.OPERATOR_PRE_HOOK 0 Net/Conv2d[conv]/conv2d_0")
    ('Net/Conv2d[conv]/conv2d_0', 'input', 0)
    >>> parse("layer1")
    ('layer1', None, None)
    """
    kinds: tuple[tuple[re.Pattern[str], Kind | None], ...] = (
        (_HOOK, None),
        (_ENDING, None),
        (_MODULE, None),
        (_OWN_INPUT, "input"),
        (_OWN_OUTPUT, "output"),
    )
    for pattern, kind in kinds:
        found = pattern.fullmatch(name)
        if found is None:
            continue
        parts = found.groupdict()
        if "hook" in parts:
            kind = _HOOKS.get(parts["hook"])
            if kind is None:
                raise ScopeError(f"{name!r} begins with a place that is not known; {near(parts['hook'], _HOOKS)}")
        elif "kind" in parts:
            kind = parts["kind"].lower()  # type: ignore[assignment]
        port = parts.get("port")
        return parts["scope"], kind, int(port) if port else None
    return name, None, None


class PointNames:
    """Finds quantization points by name.

    Args:
        network: The network, for class names in NNCF's spelling.
        graph: Its graph.
        setup: The points.
    """

    def __init__(self, network: nn.Module, graph: NetworkGraph, setup: QuantizationSetup) -> None:
        self._graph = graph
        self._setup = setup
        self._types = {name: type(m).__name__ for name, m in network.named_modules(remove_duplicate=False)}
        self._addresses = [op.address for op in graph.ops()]
        self._at = {point.point: index for index, point in enumerate(setup.points)}
        self._weights: dict[str, set[int]] = defaultdict(set)
        for index, point in enumerate(setup.points):
            if point.kind == "weight":
                self._weights[point.point.address].add(index)
                parameter = graph[point.point.address].parameters.get(point.point.port)
                for op in point.ops:
                    if parameter is not None and parameter in graph[op].parameters.values():
                        self._weights[op].add(index)

    def find(self, name: str) -> tuple[int, ...]:
        """Return the positions of the points that a name means.

        An op at whose output or input no quantizer stands means the quantizer of the same values on the other side of
        ops that only move them.

        Raises:
            ScopeError: Nothing in the network has this name, or no quantizer stands there.
        """
        for index, point in enumerate(self._setup.points):
            if str(point.point) == name:
                return (index,)
        scope, kind, port = parse(name)
        matched = ScopeMatcher([scope], self._addresses, module_types=self._types).matched
        found = sorted({index for address in matched for index in self._points(address, kind, port)})
        if not found:
            what = "quantizer" if kind is None else f"quantizer of its {kind}"
            known = [str(point.point) for point in self._setup.points]
            nearest = near(min(matched, default=scope) + (f"|{kind}" if kind == "weight" else ""), known)
            raise ScopeError(f"{name!r} is in the network but has no {what}; {nearest or 'see the table of layers'}")
        return tuple(found)

    def _points(self, address: str, kind: Kind | None, port: int | None) -> Iterator[int]:
        if kind in ("weight", None):
            weights = self._weights.get(address, ())
            yield from (i for i in weights if port is None or self._setup.points[i].point.port == port)
        if kind in ("output", None):
            yield from self._outputs(address, port, search=kind is not None)
        if kind in ("input", None):
            yield from self._inputs(address, port, search=kind is not None)

    def _outputs(self, address: str, port: int | None, *, search: bool) -> Iterator[int]:
        ports = range(len(self._graph[address].outputs)) if port is None else (port,)
        for output in ports:
            here = self._at.get(InsertionPoint(kind="output", address=address, port=output))
            if here is not None:
                yield here
            elif search:
                behind = set(self._behind(address, output, set()))
                yield from behind or self._before(address, None, set())

    def _inputs(self, address: str, port: int | None, *, search: bool) -> Iterator[int]:
        for each in activation_ports(self._graph[address]) if port is None else (port,):
            here = self._at.get(InsertionPoint(kind="input", address=address, port=each))
            if here is not None:
                yield here
            elif search:
                yield from self._arriving(address, each, set())

    def _behind(self, address: str, output: int, seen: set[str]) -> Iterator[int]:
        """Find where the values of an output are quantized, further down."""
        for edge in self._graph.outputs_of(address):
            if edge.output != output:
                continue
            here = self._at.get(InsertionPoint(kind="input", address=edge.target, port=edge.port))
            if here is not None:
                yield here
            elif edge.target not in seen and operator_of(self._graph[edge.target]) in _MOVING:
                seen.add(edge.target)
                for index in range(len(self._graph[edge.target].outputs)):
                    there = self._at.get(InsertionPoint(kind="output", address=edge.target, port=index))
                    yield from self._behind(edge.target, index, seen) if there is None else (there,)

    def _before(self, address: str, port: int | None, seen: set[str]) -> Iterator[int]:
        """Find where the values that an op only moves are quantized, further up."""
        if address in seen or operator_of(self._graph[address]) not in _MOVING:
            return
        seen.add(address)
        for each in activation_ports(self._graph[address]) if port is None else (port,):
            here = self._at.get(InsertionPoint(kind="input", address=address, port=each))
            yield from self._arriving(address, each, seen) if here is None else (here,)

    def _arriving(self, address: str, port: int, seen: set[str]) -> Iterator[int]:
        """Find where the values that arrive at a port are quantized."""
        for edge in self._graph.inputs_of(address):
            if edge.port == port:
                here = self._at.get(InsertionPoint(kind="output", address=edge.source, port=edge.output))
                yield from self._before(edge.source, None, seen) if here is None else (here,)
