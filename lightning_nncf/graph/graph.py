"""The captured graph of a network: operations, the tensors between them, and places to insert modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import networkx as nx
from torch import nn

__all__ = ["INPUT", "OUTPUT", "CallFrame", "Edge", "InsertionPoint", "NetworkGraph", "OpNode", "TensorInfo"]

INPUT = "input"
"""Function name of the nodes that stand for the tensors given to the network, addresses ``/input:<n>``."""
OUTPUT = "output"
"""Function name of the nodes that stand for the tensors returned by the network, addresses ``/output:<n>``."""


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Shape and dtype of one tensor as seen while tracing.

    Args:
        shape: Sizes of all dimensions.
        dtype: Name without the ``torch.`` prefix, as in ``float32``.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def is_floating_point(self) -> bool:
        """Whether the dtype is a real floating point one."""
        return self.dtype.startswith(("float", "bfloat"))


@dataclass(frozen=True, kw_only=True)
class OpNode:
    """One call of a function on tensors.

    Args:
        address: Unique name, ``<call path>/<function>:<n>``.
        function: Name of the function, as in ``conv2d`` or ``__iadd__``.
        module: Path of the module whose forward made the call, without call indices; empty for the network itself.
        module_type: Class name of that module.
        inputs: Tensor arguments in the order of the flattened ``args`` and ``kwargs``; position is the port.
        outputs: Tensors returned, flattened.
        parameters: Port to the name of the parameter that is given there unchanged.
        lookups: Port of a parameter that the module got as an argument to the path of the module whose forward looked
            it up, ``None`` if none did.
        index: How many calls of that function with floating point tensors the module's forward had made before;
            ``None`` for a call without any, and for one that a hook of the module made. Hooks know calls by it: masks
            and sizes are computed in other ways when a network is exported, values are not.
        by_hook: Whether a hook of the module made the call, before or after its forward.
        attributes: Plain values of the other arguments by name (``groups``, ``stride``, ``dim`` ...).
        modes: In which of the modes ``train`` and ``eval`` the call was seen.
    """

    address: str
    function: str
    module: str = ""
    module_type: str = ""
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    parameters: Mapping[int, str] = field(default_factory=dict)
    lookups: Mapping[int, str | None] = field(default_factory=dict)
    index: int | None = None
    by_hook: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)
    modes: frozenset[str] = frozenset({"train", "eval"})

    def reader(self, port: int) -> str | None:
        """Return the path of the module that looked up the parameter at a port, ``None`` if none did."""
        return self.lookups.get(port, self.module)


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A tensor on its way from one op to one input port of another.

    Args:
        source: Address of the producing op.
        output: Which of its outputs.
        target: Address of the consuming op.
        port: Which of its input ports.
        tensor: Shape and dtype.
    """

    source: str
    output: int
    target: str
    port: int
    tensor: TensorInfo


@dataclass(kw_only=True)
class CallFrame:
    """What happened inside the calls of one module that share a call path.

    Args:
        path: Call path, as in ``layer1.0.relu@1``.
        module: Path of the module.
        caller: Call path of the caller; ``None`` when the module was called by no other.
        index: How many calls of the module the caller had made before.
        inputs: ``(address, port)`` of an op to the position of the module's argument that arrives there unchanged
            and nowhere else.
        outputs: ``(address, output)`` of an op to the position among the module's outputs where that tensor leaves,
            read by nothing inside.
        functions: How often the module's forward called each function with floating point tensors, by name.
    """

    path: str
    module: str
    caller: str | None
    index: int
    inputs: dict[tuple[str, int], int] = field(default_factory=dict)
    outputs: dict[tuple[str, int], int] = field(default_factory=dict)
    functions: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class InsertionPoint:
    """A logical place in the graph where a module can see and replace a tensor.

    Args:
        kind: ``output`` of an op, ``input`` of an op at ``port``, or the ``weight`` an op consumes at ``port``.
        address: Address of the op.
        port: Input port for ``input`` and ``weight``; output index for ``output``.
    """

    kind: Literal["output", "input", "weight"]
    address: str
    port: int = 0

    def __str__(self) -> str:
        """Write the point as ``address``, ``address#port`` or ``address|weight``."""
        if self.kind == "weight":
            return f"{self.address}|weight{self.port}"
        if self.kind == "input":
            return f"{self.address}#{self.port}"
        return self.address if self.port == 0 else f"{self.address}>{self.port}"


class NetworkGraph:
    """Operations of a network and the tensors that flow between them.

    Nodes are addresses; ``graph.nodes[address]["op"]`` is the `OpNode`, ``graph.edges[a, b]["edges"]`` the
    tuple of `Edge` between two ops, so that ``x + x`` keeps both ports.

    ``frames`` holds the calls of modules by call path, ``example_inputs`` the ``(args, kwargs)`` of the first call
    of the network while tracing, detached copies, or ``None`` if the network itself was never called.
    ``reread`` holds the paths of activation functions that work in place and whose argument is read again afterwards,
    for the values that it has by then. ``leaves`` holds the tensors, as address and output of an op, whose
    ``requires_grad`` the network sets: nothing that learns may be computed before them. ``written`` holds the names of
    the parameters that the network writes while it runs, each with the paths of the modules that run meanwhile.
    """

    def __init__(self) -> None:
        self.graph: nx.DiGraph[str] = nx.DiGraph()
        self.frames: dict[str, CallFrame] = {}
        self.reread: set[str] = set()
        self.leaves: set[tuple[str, int]] = set()
        self.written: dict[str, set[str]] = {}
        self.example_inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def add(self, op: OpNode) -> None:
        """Add one op; its address must be new."""
        if op.address in self.graph:
            raise ValueError(f"address {op.address!r} is already in the graph")
        self.graph.add_node(op.address, op=op)

    def connect(self, edge: Edge) -> None:
        """Add one edge between two ops that are already there."""
        present: tuple[Edge, ...] = ()
        if self.graph.has_edge(edge.source, edge.target):
            present = self.graph.edges[edge.source, edge.target]["edges"]
        if edge not in present:
            self.graph.add_edge(edge.source, edge.target, edges=(*present, edge))

    def __contains__(self, address: object) -> bool:
        """Whether an op has this address."""
        return address in self.graph

    def __len__(self) -> int:
        """Count the ops, inputs and outputs of the network included."""
        return len(self.graph)

    def __getitem__(self, address: str) -> OpNode:
        """Return the op at an address."""
        op: OpNode = self.graph.nodes[address]["op"]
        return op

    def ops(self) -> Iterator[OpNode]:
        """Yield all ops in the order in which they were first seen."""
        for address in self.graph:
            yield self[address]

    def inputs_of(self, address: str) -> list[Edge]:
        """Return the edges that arrive at an op, by port."""
        found = [edge for _, _, data in self.graph.in_edges(address, data=True) for edge in data["edges"]]
        return sorted(found, key=lambda edge: edge.port)

    def outputs_of(self, address: str) -> list[Edge]:
        """Return the edges that leave an op, in the order of their consumers."""
        return [edge for _, _, data in self.graph.out_edges(address, data=True) for edge in data["edges"]]

    def must_not_learn(self, point: InsertionPoint) -> bool:
        """Whether a module at a point would make one of `leaves` depend on the module's parameters."""
        if (point.address, point.port) in self.leaves and point.kind == "output":
            return True
        leading: set[str] = set().union(*(nx.ancestors(self.graph, address) for address, _ in self.leaves))
        ends = set() if point.kind == "output" else {address for address, _ in self.leaves}
        return point.address in leading | ends

    def replace(self, op: OpNode) -> None:
        """Exchange the op at an address that is already there."""
        self.graph.nodes[op.address]["op"] = op

    def unreached_parameters(self, network: nn.Module) -> list[str]:
        """Return the names of the network's parameters that no op takes as input."""
        reached = {name for op in self.ops() for name in op.parameters.values()}
        return [name for name, _ in network.named_parameters() if name not in reached]
