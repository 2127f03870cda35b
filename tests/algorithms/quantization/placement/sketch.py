from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.graph.graph import Edge, NetworkGraph, OpNode, TensorInfo

FEATURES = (1, 4, 8, 8)


@dataclass(frozen=True)
class Value:
    source: str
    output: int
    info: TensorInfo


class Sketch:
    """A network graph drawn by hand."""

    def __init__(self) -> None:
        self.graph = NetworkGraph()
        self.counts: Counter[str] = Counter()

    def op(
        self,
        function: str,
        *operands: Value | tuple[int, ...] | str,
        name: str = "",
        shape: tuple[int, ...] | None = None,
        dtype: str = "float32",
        outputs: int = 1,
        weight_shape: tuple[int, ...] = (4, 4, 3, 3),
        modes: frozenset[str] = frozenset({"train", "eval"}),
        **attributes: Any,
    ) -> Any:
        """Add an op; an operand is the value of another op, the shape of a constant or the name of a parameter."""
        address = f"{name}/{function}:0" if name else f"{function}:{self.counts[function]}"
        self.counts[function] += 1
        infos, parameters, edges = [], {}, []
        for port, operand in enumerate(operands):
            if isinstance(operand, Value):
                infos.append(operand.info)
                edges.append((operand, port))
            elif isinstance(operand, str):
                parameters[port] = operand
                infos.append(TensorInfo(shape=weight_shape, dtype="float32"))
            else:
                infos.append(TensorInfo(shape=operand, dtype="float32"))
        shape = shape or (infos[0].shape if infos else FEATURES)
        made = tuple(TensorInfo(shape=shape, dtype=dtype) for _ in range(outputs))
        self.graph.add(
            OpNode(
                address=address,
                function=function,
                inputs=tuple(infos),
                outputs=made,
                parameters=parameters,
                attributes=attributes,
                modes=modes,
            )
        )
        for value, port in edges:
            self.graph.connect(
                Edge(source=value.source, output=value.output, target=address, port=port, tensor=value.info)
            )
        values = [Value(address, index, info) for index, info in enumerate(made)]
        return values[0] if outputs == 1 else values

    def input(self, shape: tuple[int, ...] = FEATURES, dtype: str = "float32") -> Value:
        number = self.counts["input"]
        self.counts["input"] += 1
        info = TensorInfo(shape=shape, dtype=dtype)
        address = f"/input:{number}"
        self.graph.add(OpNode(address=address, function="input", outputs=(info,)))
        return Value(address, 0, info)

    def output(self, value: Value) -> None:
        number = self.counts["output"]
        self.counts["output"] += 1
        address = f"/output:{number}"
        self.graph.add(OpNode(address=address, function="output", inputs=(value.info,)))
        self.graph.connect(Edge(source=value.source, output=value.output, target=address, port=0, tensor=value.info))

    def conv(self, value: Value, name: str, **attributes: Any) -> Value:
        return self.op("conv2d", value, f"{name}.weight", name=name, **attributes)

    def block(self, value: Value, name: str) -> Value:
        """Convolution, batch norm and ReLU."""
        value = self.conv(value, name)
        value = self.op("batch_norm", value, (4,), (4,), name=f"{name}.bn")
        return self.op("relu", value, name=f"{name}.relu")


def activations(setup: QuantizationSetup) -> dict[str, tuple[str, ...]]:
    """Where activations are quantized, and for which ops."""
    return {str(point.point): point.ops for point in setup.points if point.kind == "activation"}


def weights(setup: QuantizationSetup) -> list[str]:
    return [str(point.point) for point in setup.points if point.kind == "weight"]
